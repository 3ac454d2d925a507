"""Envelope encryption: a secret sealed by a key of its own, which is sealed by one that people keep.

A random data key encrypts the secret with AES-256-GCM; the key-encryption key (KEK) encrypts the data
key. Both seals carry what the secret is for as associated data, the wrap its generation too, so one
envelope cannot be passed off as another. Changing the KEK re-wraps 32 bytes as the next generation
and leaves the ciphertext alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kernel.errors import BadInput, SecretUnreadable

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sealed secret; as JSON, byte strings are in base64.

    Attributes:
        generation: which KEK the data key is wrapped with, counted from 1.
        kek_id: by which people tell one KEK from another; see `kek_id_of`.
    """

    generation: int
    kek_id: str
    wrap_nonce: bytes
    wrapped_key: bytes
    nonce: bytes
    ciphertext: bytes


def seal(
    secret: bytes | bytearray, kek: bytes, *, associated: bytes, random: Callable[[int], bytes]
) -> Envelope:
    """Return *secret* encrypted under a fresh data key that is wrapped by *kek*.

    Args:
        associated: what the secret is for; only who says the same opens it.
        random: gives that many bytes nobody can guess; called for the key and both nonces.
    """
    data_key, wrap_nonce, nonce = random(KEY_BYTES), random(NONCE_BYTES), random(NONCE_BYTES)
    return Envelope(
        generation=1,
        kek_id=kek_id_of(kek),
        wrap_nonce=wrap_nonce,
        wrapped_key=AESGCM(kek).encrypt(wrap_nonce, data_key, _of_wrap(associated, 1)),
        nonce=nonce,
        ciphertext=AESGCM(data_key).encrypt(nonce, bytes(secret), associated),
    )


def unseal(sealed: Envelope, kek: bytes, *, associated: bytes) -> bytearray:
    """Return the secret, in memory that `wipe` can clear.

    Raises:
        SecretUnreadable: another KEK, another purpose, or a changed byte.
    """
    data_key = _unwrap(sealed, kek, associated)
    try:
        return _open(bytes(data_key), sealed.nonce, sealed.ciphertext, associated)
    finally:
        wipe(data_key)


def rewrap(
    sealed: Envelope, old: bytes, new: bytes, *, associated: bytes, random: Callable[[int], bytes]
) -> Envelope:
    """Return the envelope with its data key wrapped by *new*, which alone opens it.

    A copy from before still opens with *old*: copies are destroyed with the KEK.

    Raises:
        SecretUnreadable: *old* does not open it.
        BadInput: *new* is *old*.
    """
    if old == new:
        raise BadInput("the new key-encryption key is the old one", remedy="Make a fresh one")
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


def kek_id_of(kek: bytes) -> str:
    """Return eight hexadecimal digits that name a KEK and tell nothing of it.

    A KEK is 32 random bytes, so its hash cannot be searched for.
    """
    return hashlib.sha256(b"causeway key-encryption key\n" + kek).hexdigest()[:8]


def wipe(secret: bytearray) -> None:
    """Overwrite a secret that is no longer needed.

    The best that can be done here: copies that the interpreter and libraries made stay until their
    memory is used again, which is why processes that hold chain keys write no core dumps.
    """
    secret[:] = bytes(len(secret))


def _unwrap(sealed: Envelope, kek: bytes, associated: bytes) -> bytearray:
    wrap = _of_wrap(associated, sealed.generation)
    try:
        return _open(kek, sealed.wrap_nonce, sealed.wrapped_key, wrap)
    except SecretUnreadable as error:
        if sealed.kek_id == kek_id_of(kek):
            raise
        raise SecretUnreadable(
            f"it does not open with this key-encryption key: it is {kek_id_of(kek)},"
            f" and generation {sealed.generation} is wrapped with {sealed.kek_id}",
            remedy=error.remedy,
        ) from None


def _open(key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytearray:
    plain = bytearray(max(len(ciphertext) - TAG_BYTES, 0))
    try:
        AESGCM(key).decrypt_into(nonce, ciphertext, associated, plain)
    except (InvalidTag, ValueError) as error:
        raise SecretUnreadable(
            "it does not open with this key-encryption key",
            remedy="Give the KEK it was wrapped with last, or restore it",
        ) from error
    return plain


def _of_wrap(associated: bytes, generation: int) -> bytes:
    return associated + f"\ngeneration {generation}".encode()
