"""Account keys of BIP44 wallets: one extended public key, any number of addresses.

``m / 44' / coin' / account'`` is the account; its addresses are ``account / branch / index``.
Sources: BIP44; SLIP-44 (coin type 60 is Ether).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from chain.errors import BadKey
from chain.evm.addresses import address_of_public_key
from chain.keys.bip32 import HARDENED, ExtendedPublicKey

ACCOUNT_DEPTH: Final = 3
BRANCHES: Final = frozenset({0, 1})
"""0: addresses given to others; 1: for the wallet's own use."""

_STEP = re.compile(r"(0|[1-9]\d{0,9})(['hH]?)")


@dataclass(frozen=True, slots=True)
class AccountKey:
    """The public key of one account of a wallet."""

    key: ExtendedPublicKey

    @classmethod
    def parse(cls, xpub: str, *, path: str | None = None) -> Self:
        """Read the account's ``xpub…``.

        Args:
            xpub: the key, in base58.
            path: where the wallet says it is (``m/44'/60'/0'``); depth and number must fit it.

        Raises:
            BadKey: not a valid xpub, not at the depth of an account, or not at *path*.
        """
        key = ExtendedPublicKey.parse(xpub)
        if key.depth != ACCOUNT_DEPTH or key.child_number < HARDENED:
            raise BadKey(
                f"this key is at depth {key.depth}, not a hardened account key of depth 3",
                remedy="Export the account's extended public key, such as m/44'/60'/0'",
            )
        if path is not None:
            steps = parse_path(path)
            if len(steps) != key.depth or steps[-1] != key.child_number:
                raise BadKey(f"this key is account {key.child_number - HARDENED}, not at {path}")
        return cls(key)

    @property
    def fingerprint(self) -> str:
        """Return eight hexadecimal digits by which people compare keys."""
        return self.key.fingerprint.hex()

    def address(self, branch: int, index: int) -> str:
        """Return the EVM address at ``branch/index`` in EIP-55; see `checked.derive_checked`."""
        if branch not in BRANCHES:
            raise BadKey(f"a wallet has branches 0 and 1, not {branch}")
        return address_of_public_key(self.key.child(branch).child(index).uncompressed())


def parse_path(path: str) -> tuple[int, ...]:
    """Return the child numbers of ``m/44'/60'/0'``, hardened ones raised by `HARDENED`."""
    head, *steps = path.split("/")
    if head != "m":
        raise BadKey(f"{path!r} is not a path", remedy="Write it as m/44'/60'/0'")
    return tuple(_parse_step(step, path) for step in steps)


def _parse_step(step: str, path: str) -> int:
    match = _STEP.fullmatch(step)
    if match is None or int(match[1]) >= HARDENED:
        raise BadKey(f"{step!r} in {path!r} is not a step", remedy="Write it as m/44'/60'/0'")
    return int(match[1]) + (HARDENED if match[2] else 0)
