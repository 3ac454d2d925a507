"""The door through which an address reaches people: derived twice, by two implementations.

Ours derives over coincurve; embit brings its own base58, its own BIP32 and its own binding of the
curve, and eth-utils its own EIP-55. A defect in one of them (a lost leading zero, a checksum that
is not looked at) would otherwise send clients' money to nobody.
"""

from __future__ import annotations

from embit.base import EmbitError
from embit.bip32 import HDKey
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from chain.errors import DerivationDisagrees
from chain.evm.addresses import ADDRESS_BYTES
from chain.keys.account import AccountKey


def derive_checked(xpub: str, branch: int, index: int, *, path: str | None = None) -> str:
    """Return the EVM address at ``branch/index`` of the account key *xpub*, in EIP-55.

    Raises:
        BadKey: *xpub* is not a valid account key (or not the one at *path*), or the step is not
            possible.
        DerivationDisagrees: the second library derives another address, or refuses the key.
    """
    address = AccountKey.parse(xpub, path=path).address(branch, index)
    second = _second_opinion(xpub, branch, index)
    if second != address:
        raise DerivationDisagrees(
            f"child {branch}/{index} is {address} by one library and {second} by another",
            remedy="Give out no address of this key until it is understood why",
        )
    return address


def _second_opinion(xpub: str, branch: int, index: int) -> str:
    try:
        point = HDKey.from_string(xpub).derive([branch, index]).key
    except (EmbitError, ValueError) as error:
        return f"refused ({error})"
    point.compressed = False
    return to_checksum_address(keccak(point.sec()[1:])[-ADDRESS_BYTES:])
