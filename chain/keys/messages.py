"""Messages that the holder of an EVM address has signed: who signed them? Pure.

Source: EIP-191, version 0x45 ("personal_sign"); SEC 1, section 4.1.6 for the recovery.
"""

from __future__ import annotations

from typing import Final

from coincurve import PublicKey
from eth_utils.crypto import keccak

from chain.errors import BadKey
from chain.evm.addresses import address_of_public_key
from chain.evm.transactions import CURVE_ORDER

SIGNATURE_BYTES: Final = 65
_PREFIX: Final = b"\x19Ethereum Signed Message:\n"
_PARITIES: Final = {0: 0, 1: 1, 27: 0, 28: 1}
"""Wallets write the parity as it is, or with 27 added."""


def message_digest(message: str) -> bytes:
    """Return the 32 bytes that a wallet signs when it is asked to sign a text."""
    content = message.encode()
    return keccak(_PREFIX + str(len(content)).encode() + content)


def recover_signer(message: str, signature: bytes) -> str:
    """Return the address (EIP-55) whose key made *signature* of *message*.

    Args:
        signature: r, s and the parity: 65 bytes, as wallets give them.

    Raises:
        BadKey: not a signature, a high s (the same signature in another spelling), or nobody's.
    """
    if len(signature) != SIGNATURE_BYTES or signature[-1] not in _PARITIES:
        raise BadKey(
            f"{len(signature)} bytes are not a signature of an address",
            remedy="Give the 65 bytes that the wallet shows, in hexadecimal",
        )
    s = int.from_bytes(signature[32:64], "big")
    if not 0 < s <= CURVE_ORDER // 2:
        raise BadKey("the signature has a high s", remedy="Sign again with a current wallet")
    parity = bytes([_PARITIES[signature[-1]]])
    try:
        key = PublicKey.from_signature_and_message(
            signature[:64] + parity, message_digest(message), hasher=None
        )
    except ValueError as error:
        raise BadKey("the signature recovers nobody") from error
    return address_of_public_key(key.format(compressed=False))
