"""The address of one public key that nothing is derived from, computed by two implementations.

As with derived addresses (`chain.keys.checked`): ours goes over coincurve, the second over embit's own
binding of the curve and eth-utils' own EIP-55.
"""

from __future__ import annotations

from coincurve import PublicKey
from embit.base import EmbitError
from embit.ec import PublicKey as EmbitPublicKey
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from chain.errors import BadKey, DerivationDisagrees
from chain.evm.addresses import ADDRESS_BYTES, address_of_public_key

COMPRESSED_BYTES = 33


def compress(public_key: bytes) -> bytes:
    """Return a point on secp256k1 as 33 bytes (SEC 1, section 2.3.3).

    Raises:
        BadKey: it is not a point on the curve.
    """
    return _point(public_key).format(compressed=True)


def address_of_key(public_key: bytes) -> str:
    """Return the EVM address of a compressed public key, in EIP-55.

    Raises:
        BadKey: it is not a compressed point on secp256k1.
        DerivationDisagrees: the second library computes another address, or refuses the key.
    """
    if len(public_key) != COMPRESSED_BYTES:
        raise BadKey(f"a compressed public key has {COMPRESSED_BYTES} bytes, not {len(public_key)}")
    address = address_of_public_key(_point(public_key).format(compressed=False))
    second = _second_opinion(public_key)
    if second != address:
        raise DerivationDisagrees(
            f"key {public_key.hex()} is {address} by one library and {second} by another",
            remedy="Give out no address of this key until it is understood why",
        )
    return address


def _point(public_key: bytes) -> PublicKey:
    try:
        return PublicKey(public_key)
    except ValueError as error:
        raise BadKey("the public key is not a point on secp256k1") from error


def _second_opinion(public_key: bytes) -> str:
    try:
        point = EmbitPublicKey.parse(public_key)
    except (EmbitError, ValueError) as error:
        return f"refused ({error})"
    point.compressed = False
    return to_checksum_address(keccak(point.sec()[1:])[-ADDRESS_BYTES:])
