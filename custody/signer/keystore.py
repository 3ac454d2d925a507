"""The keystore: one seed on disk, sealed twice (envelope encryption).

A random data key encrypts the seed with AES-256-GCM; the key-encryption key (KEK) encrypts the data
key. Both seals carry the key's id, purpose and version as associated data, the wrap its generation
too, so a file cannot be passed off as another. Changing the KEK re-wraps 32 bytes as the next
generation and leaves the seed's ciphertext alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from custody.signer.errors import KeystoreUnreadable
from custody.signer.private_files import read_private_file, replace_file, write_new_file
from kernel.errors import BadInput

VERSION: Final = 1
PURPOSE: Final = "chain-seed"
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The keystore's file, as JSON: byte strings in base64.

    Attributes:
        version: of this format.
        accounts: numbers of the BIP 44 accounts that this seed is for; empty: all of them.
        generation: which KEK the data key is wrapped with, counted from 1.
        kek_id: by which people tell one KEK from another; see `kek_id_of`.
    """

    key_id: str
    purpose: str
    version: int
    accounts: list[int]
    generation: int
    kek_id: str
    wrap_nonce: bytes
    wrapped_key: bytes
    nonce: bytes
    ciphertext: bytes


def seal(
    seed: bytes | bytearray,
    kek: bytes,
    *,
    key_id: str,
    random: Callable[[int], bytes],
    accounts: Collection[int] = (),
) -> Sealed:
    """Return *seed* encrypted under a fresh data key that is wrapped by *kek*.

    Args:
        accounts: numbers of the BIP 44 accounts that the seed is for; empty: all of them.
        random: gives that many bytes nobody can guess; called for the key and both nonces.
    """
    data_key, wrap_nonce, nonce = random(KEY_BYTES), random(NONCE_BYTES), random(NONCE_BYTES)
    numbers = sorted(set(accounts))
    associated = _associated(key_id, PURPOSE, VERSION, numbers)
    return Sealed(
        key_id=key_id,
        purpose=PURPOSE,
        version=VERSION,
        accounts=numbers,
        generation=1,
        kek_id=kek_id_of(kek),
        wrap_nonce=wrap_nonce,
        wrapped_key=AESGCM(kek).encrypt(wrap_nonce, data_key, _of_wrap(associated, 1)),
        nonce=nonce,
        ciphertext=AESGCM(data_key).encrypt(nonce, bytes(seed), associated),
    )


def unseal(sealed: Sealed, kek: bytes) -> bytearray:
    """Return the seed, in memory that `wipe` can clear.

    Raises:
        KeystoreUnreadable: another KEK, another kind of keystore, or a changed byte.
    """
    associated = _associated_with(sealed)
    data_key = _unwrap(sealed, kek, associated)
    try:
        return _open(bytes(data_key), sealed.nonce, sealed.ciphertext, associated)
    finally:
        wipe(data_key)


def rewrap(sealed: Sealed, old: bytes, new: bytes, *, random: Callable[[int], bytes]) -> Sealed:
    """Return the keystore with its data key wrapped by *new*, which alone opens it.

    A copy of the file from before still opens with *old*: copies are destroyed with the KEK.

    Raises:
        KeystoreUnreadable: *old* does not open it.
        BadInput: *new* is *old*.
    """
    if old == new:
        raise BadInput("the new key-encryption key is the old one", remedy="Make a fresh one")
    associated = _associated_with(sealed)
    data_key = _unwrap(sealed, old, associated)
    nonce, generation = random(NONCE_BYTES), sealed.generation + 1
    try:
        wrapped = AESGCM(new).encrypt(nonce, bytes(data_key), _of_wrap(associated, generation))
    finally:
        wipe(data_key)
    return msgspec.structs.replace(
        sealed,
        generation=generation,
        kek_id=kek_id_of(new),
        wrap_nonce=nonce,
        wrapped_key=wrapped,
    )


def rotate_kek(path: Path, old: bytes, new: bytes, *, random: Callable[[int], bytes]) -> Sealed:
    """Replace the KEK of the keystore at *path*, in one step that a crash cannot divide.

    Asking again after a crash is safe: a keystore that *new* opens already is left as it is.

    Raises:
        KeystoreUnreadable: neither key opens it, or the file is not private.
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
        raise KeystoreUnreadable("this is not a keystore", where=str(path)) from error


def read_kek(path: Path) -> bytes:
    """Read a key-encryption key: 32 bytes as 64 hexadecimal digits, in a file of mode 0600."""
    try:
        key = bytes.fromhex(read_private_file(path).decode("ascii"))
    except ValueError:
        # The error's own text quotes what it read, which may be most of a key.
        raise KeystoreUnreadable("a KEK file holds hexadecimal digits", where=str(path)) from None
    if len(key) != KEY_BYTES:
        raise KeystoreUnreadable(f"a KEK has {KEY_BYTES} bytes", where=str(path))
    return key


def kek_id_of(kek: bytes) -> str:
    """Return eight hexadecimal digits that name a KEK and tell nothing of it.

    A KEK is 32 random bytes, so its hash cannot be searched for.
    """
    return hashlib.sha256(b"causeway key-encryption key\n" + kek).hexdigest()[:8]


def wipe(secret: bytearray) -> None:
    """Overwrite a secret that is no longer needed.

    The best that can be done here: copies that the interpreter and libraries made stay until their
    memory is used again, which is why the process writes no core dumps.
    """
    secret[:] = bytes(len(secret))


def _unwrap(sealed: Sealed, kek: bytes, associated: bytes) -> bytearray:
    if sealed.version != VERSION or sealed.purpose != PURPOSE:
        raise KeystoreUnreadable(f"keystore version {sealed.version} for {sealed.purpose!r}")
    wrap = _of_wrap(associated, sealed.generation)
    try:
        return _open(kek, sealed.wrap_nonce, sealed.wrapped_key, wrap)
    except KeystoreUnreadable as error:
        if sealed.kek_id == kek_id_of(kek):
            raise
        raise KeystoreUnreadable(
            f"the keystore does not open with this key-encryption key: it is {kek_id_of(kek)},"
            f" and generation {sealed.generation} is wrapped with {sealed.kek_id}",
            remedy=error.remedy,
        ) from None


def _open(key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytearray:
    plain = bytearray(max(len(ciphertext) - TAG_BYTES, 0))
    try:
        AESGCM(key).decrypt_into(nonce, ciphertext, associated, plain)
    except (InvalidTag, ValueError) as error:
        raise KeystoreUnreadable(
            "the keystore does not open with this key-encryption key",
            remedy="Give the KEK the keystore was wrapped with last, or restore the file",
        ) from error
    return plain


def _associated_with(sealed: Sealed) -> bytes:
    return _associated(sealed.key_id, sealed.purpose, sealed.version, sealed.accounts)


def _associated(key_id: str, purpose: str, version: int, accounts: list[int]) -> bytes:
    return f"{key_id}\n{purpose}\n{version}\n{accounts}".encode()


def _of_wrap(associated: bytes, generation: int) -> bytes:
    return associated + f"\ngeneration {generation}".encode()
