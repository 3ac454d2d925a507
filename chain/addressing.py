"""The one spelling of an address, whatever kind of chain it is on."""

from __future__ import annotations

from chain.bitcoin.addresses import canonical_address as canonical_bitcoin_address
from chain.bitcoin.networks import network_of
from chain.evm.addresses import parse_address
from kernel.errors import BadInput
from registry.model import BITCOIN, EVM


def canonical_address(text: str, *, kind: str, network_id: int) -> str:
    """Return *text* as it is stored and compared on a chain of *kind* with *network_id*.

    Raises:
        BadAddress: mistyped, or of another network.
        BadInput: no such kind of chain.
    """
    if kind == EVM:
        return parse_address(text)
    if kind == BITCOIN:
        return canonical_bitcoin_address(text, network_of(network_id))
    raise BadInput(f"{kind!r} is not a kind of chain", remedy=f"Use {EVM} or {BITCOIN}")
