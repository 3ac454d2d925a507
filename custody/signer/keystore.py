"""The keystore: one seed on disk, sealed twice (envelope encryption).

A random data key encrypts the seed with AES-256-GCM; the key-encryption key (KEK) encrypts the data
key. Both seals carry the key's id, purpose and version as associated data, so a file cannot be
passed off as another. Changing the KEK re-wraps 32 bytes and leaves the seed's ciphertext alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from custody.signer.errors import KeystoreUnreadable
from kernel.errors import Refused

VERSION: Final = 1
PURPOSE: Final = "chain-seed"
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
FILE_MODE: Final = 0o600
FILE_BYTES_MAX: Final = 16_384


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The keystore's file, as JSON: byte strings in base64."""

    key_id: str
    purpose: str
    version: int
    wrap_nonce: bytes
    wrapped_key: bytes
    nonce: bytes
    ciphertext: bytes


def seal(seed: bytes, kek: bytes, *, key_id: str, random: Callable[[int], bytes]) -> Sealed:
    """Return *seed* encrypted under a fresh data key that is wrapped by *kek*.

    Args:
        random: gives that many bytes nobody can guess; called for the key and both nonces.
    """
    data_key, wrap_nonce, nonce = random(KEY_BYTES), random(NONCE_BYTES), random(NONCE_BYTES)
    associated = _associated(key_id, PURPOSE, VERSION)
    return Sealed(
        key_id=key_id,
        purpose=PURPOSE,
        version=VERSION,
        wrap_nonce=wrap_nonce,
        wrapped_key=AESGCM(kek).encrypt(wrap_nonce, data_key, associated),
        nonce=nonce,
        ciphertext=AESGCM(data_key).encrypt(nonce, seed, associated),
    )


def unseal(sealed: Sealed, kek: bytes) -> bytes:
    """Return the seed.

    Raises:
        KeystoreUnreadable: another KEK, another kind of keystore, or a changed byte.
    """
    if sealed.version != VERSION or sealed.purpose != PURPOSE:
        raise KeystoreUnreadable(f"keystore version {sealed.version} for {sealed.purpose!r}")
    associated = _associated(sealed.key_id, sealed.purpose, sealed.version)
    try:
        data_key = AESGCM(kek).decrypt(sealed.wrap_nonce, sealed.wrapped_key, associated)
        return AESGCM(data_key).decrypt(sealed.nonce, sealed.ciphertext, associated)
    except InvalidTag as error:
        raise KeystoreUnreadable(
            "the keystore does not open with this key-encryption key",
            remedy="Give the KEK the keystore was made with, or restore the file",
        ) from error


def write_keystore(path: Path, sealed: Sealed) -> None:
    """Write the file with mode 0600, to disk before returning; never over an existing one."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    except FileExistsError as error:
        raise Refused(
            "a keystore is there already", where=str(path), remedy="Name another file"
        ) from error
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(sealed))
        file.flush()
        os.fsync(file.fileno())


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
    except ValueError as error:
        raise KeystoreUnreadable("a KEK file holds hexadecimal digits", where=str(path)) from error
    if len(key) != KEY_BYTES:
        raise KeystoreUnreadable(f"a KEK has {KEY_BYTES} bytes", where=str(path))
    return key


def read_private_file(path: Path) -> bytes:
    """Return the content of a file that nobody but its owner can open."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise KeystoreUnreadable(f"cannot open it: {error.strerror}", where=str(path)) from error
    with os.fdopen(handle, "rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise KeystoreUnreadable(
                "others may read it", where=str(path), remedy=f"chmod 600 {path}"
            )
        return file.read(FILE_BYTES_MAX)


def _associated(key_id: str, purpose: str, version: int) -> bytes:
    return f"{key_id}\n{purpose}\n{version}".encode()
