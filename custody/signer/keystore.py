"""The keystore: one seed on disk, in an envelope (`kernel.envelope`).

The envelope is bound to the key's id, purpose, version and accounts, so a file cannot be passed off
as another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import msgspec

from kernel import envelope
from kernel.envelope import Envelope, kek_id_of, wipe
from kernel.errors import SecretUnreadable
from kernel.private_files import read_private_file, replace_file, write_new_file

VERSION: Final = 2
PURPOSE: Final = "chain-seed"


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The keystore's file, as JSON.

    Attributes:
        version: of this format.
        accounts: numbers of the BIP 44 accounts that this seed is for; empty: all of them.
    """

    key_id: str
    purpose: str
    version: int
    accounts: list[int]
    envelope: Envelope

    @property
    def generation(self) -> int:
        """Return which KEK the data key is wrapped with, counted from 1."""
        return self.envelope.generation

    @property
    def kek_id(self) -> str:
        """Return the name of that KEK."""
        return self.envelope.kek_id

    @property
    def associated(self) -> bytes:
        """Return what the envelope is bound to."""
        return _associated(self.key_id, self.purpose, self.version, self.accounts)


def seal(
    seed: bytes | bytearray,
    kek: bytes,
    *,
    key_id: str,
    random: Callable[[int], bytes],
    accounts: Collection[int] = (),
) -> Sealed:
    """Return *seed* in an envelope of its own that *kek* opens.

    Args:
        accounts: numbers of the BIP 44 accounts that the seed is for; empty: all of them.
        random: gives that many bytes nobody can guess; called for the key and both nonces.
    """
    numbers = sorted(set(accounts))
    associated = _associated(key_id, PURPOSE, VERSION, numbers)
    return Sealed(
        key_id=key_id,
        purpose=PURPOSE,
        version=VERSION,
        accounts=numbers,
        envelope=envelope.seal(seed, kek, associated=associated, random=random),
    )


def unseal(sealed: Sealed, kek: bytes) -> bytearray:
    """Return the seed, in memory that `wipe` can clear.

    Raises:
        SecretUnreadable: another KEK, another kind of keystore, or a changed byte.
    """
    _require_known(sealed)
    return envelope.unseal(sealed.envelope, kek, associated=sealed.associated)


def rewrap(sealed: Sealed, old: bytes, new: bytes, *, random: Callable[[int], bytes]) -> Sealed:
    """Return the keystore with its data key wrapped by *new*, which alone opens it.

    A copy of the file from before still opens with *old*: copies are destroyed with the KEK.

    Raises:
        SecretUnreadable: *old* does not open it.
        BadInput: *new* is *old*.
    """
    _require_known(sealed)
    wrapped = envelope.rewrap(
        sealed.envelope, old, new, associated=sealed.associated, random=random
    )
    return msgspec.structs.replace(sealed, envelope=wrapped)


def rotate_kek(path: Path, old: bytes, new: bytes, *, random: Callable[[int], bytes]) -> Sealed:
    """Replace the KEK of the keystore at *path*, in one step that a crash cannot divide.

    Asking again after a crash is safe: a keystore that *new* opens already is left as it is.

    Raises:
        SecretUnreadable: neither key opens it, or the file is not private.
    """
    sealed = read_keystore(path)
    if sealed.kek_id != kek_id_of(new):
        sealed = rewrap(sealed, old, new, random=random)
        replace_file(path, msgspec.json.encode(sealed))
    # What lies on disk now, read again: the old key may be destroyed when this returns.
    written = read_keystore(path)
    wipe(unseal(written, new))
    return written


def write_keystore(path: Path, sealed: Sealed) -> None:
    """Write the file with mode 0600, to disk before returning; never over an existing one."""
    write_new_file(path, msgspec.json.encode(sealed))


def read_keystore(path: Path) -> Sealed:
    """Read the file, refusing one that others may read."""
    try:
        return msgspec.json.decode(read_private_file(path), type=Sealed)
    except msgspec.DecodeError as error:
        raise SecretUnreadable("this is not a keystore", where=str(path)) from error


def _require_known(sealed: Sealed) -> None:
    if sealed.version != VERSION or sealed.purpose != PURPOSE:
        raise SecretUnreadable(f"keystore version {sealed.version} for {sealed.purpose!r}")


def _associated(key_id: str, purpose: str, version: int, accounts: list[int]) -> bytes:
    return f"{key_id}\n{purpose}\n{version}\n{accounts}".encode()
