"""Several sources of keys behind one port: seeds for some accounts each, and a token.

A key is rotated by adding one: the old seed serves its accounts, the new one others, both at once
for as long as coins move from the one to the other. A path belongs to one source only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from custody.signer.backends.local import LocalKeys
from custody.signer.backends.pkcs11 import TokenKeys
from custody.signer.backends.port import KeyBackend, Signature
from custody.signer.errors import SignerRefused
from custody.signer.hd_keys import PrivateNode
from custody.signer.keystore import read_keystore, unseal
from kernel.envelope import wipe
from kernel.errors import BadInput
from kernel.private_files import read_kek


class Source(KeyBackend, Protocol):
    """A backend that knows which paths are its own."""

    def serves(self, path: str) -> bool:
        """Tell whether *path* names a key of this source."""
        ...


@dataclass(frozen=True, slots=True)
class TokenSource:
    """A PKCS#11 token: the maker's library, the token's label, the file with the PIN."""

    module: Path
    label: str
    pin: Path


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Implements `custody.signer.backends.port.KeyBackend` over its sources."""

    sources: tuple[Source, ...]

    @property
    def key_id(self) -> str:
        """The names of the sources."""
        return "+".join(source.key_id for source in self.sources)

    def account_xpub(self, path: str) -> str:
        """Return the extended public key of an account."""
        return self._source(path).account_xpub(path)

    def public_key(self, path: str) -> bytes:
        """Return the public key of the address at *path*, 65 bytes."""
        return self._source(path).public_key(path)

    def sign_digest(self, path: str, digest: bytes) -> Signature:
        """Sign a 32-byte hash with the key at *path*."""
        return self._source(path).sign_digest(path, digest)

    def _source(self, path: str) -> Source:
        for source in self.sources:
            if source.serves(path):
                return source
        raise SignerRefused(f"no key of this signer is for {path}")


@contextmanager
def open_keys(
    keystores: Sequence[tuple[Path, Path]] = (), token: TokenSource | None = None
) -> Iterator[KeyRing]:
    """Open the keys for as long as the context is.

    Args:
        keystores: keystore files, each with the file of its KEK.
        token: a token beside them, or in place of them.

    Raises:
        SecretUnreadable: a file is not private, does not open, or a token's key is not safe.
        BadInput: nothing to open, or two seeds for the same accounts.
    """
    seeds = [open_seed(path, kek) for path, kek in keystores]
    require_apart(seeds)
    if token is not None:
        with TokenKeys.open(token.module, token.label, token.pin) as tokens:
            yield KeyRing((*seeds, tokens))
        return
    if not seeds:
        raise BadInput("a signer needs a keystore or a token")
    yield KeyRing(tuple(seeds))


def open_seed(path: Path, kek: Path) -> LocalKeys:
    """Return the keys of a keystore; the seed itself is wiped."""
    sealed = read_keystore(path)
    seed = unseal(sealed, read_kek(kek))
    try:
        return LocalKeys(sealed.key_id, PrivateNode.from_seed(seed), frozenset(sealed.accounts))
    finally:
        wipe(seed)


def require_apart(seeds: Sequence[LocalKeys]) -> None:
    """Refuse two seeds that would answer for the same account."""
    taken: dict[int, str] = {}
    for seed in seeds:
        if not seed.accounts and len(seeds) > 1:
            raise BadInput(
                f"{seed.key_id} is for every account, so it cannot stand beside another seed",
                remedy="Restore it from its shares, for the accounts that it has",
            )
        for account in seed.accounts:
            if taken.setdefault(account, seed.key_id) != seed.key_id:
                raise BadInput(
                    f"{taken[account]} and {seed.key_id} are both for account {account}'"
                )
    names = [seed.key_id for seed in seeds]
    if len(set(names)) != len(names):
        raise BadInput(f"two keystores are called {max(names, key=names.count)}")
