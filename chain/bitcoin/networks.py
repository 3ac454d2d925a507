"""The networks, and how their addresses are told apart.

Sources: BIP 173 and BIP 350 (human-readable parts), Bitcoin Core ``src/kernel/chainparams.cpp``
(prefixes of base58; regtest shares them with the test network), SLIP-44 (coin types).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kernel.errors import BadInput


@dataclass(frozen=True, slots=True)
class Network:
    """One network.

    Attributes:
        name: as ``getblockchaininfo`` calls it.
        hrp: how its segwit addresses begin.
        key_hash, script_hash: first byte of its base58 addresses.
        coin_type: of BIP 44 paths, without the hardening.
        network_id: the four bytes with which its messages begin, as a big-endian number: what the
            registry calls the network id of the chain.
    """

    name: str
    hrp: str
    key_hash: int
    script_hash: int
    coin_type: int
    network_id: int


MAIN: Final = Network("main", "bc", 0x00, 0x05, 0, 0xF9BEB4D9)
TEST: Final = Network("test", "tb", 0x6F, 0xC4, 1, 0x0B110907)
SIGNET: Final = Network("signet", "tb", 0x6F, 0xC4, 1, 0x0A03CF40)
REGTEST: Final = Network("regtest", "bcrt", 0x6F, 0xC4, 1, 0xFABFB5DA)

NETWORKS: Final = {item.name: item for item in (MAIN, TEST, SIGNET, REGTEST)}


def find_network(name: str) -> Network:
    """Return the network that a node calls *name*.

    Raises:
        BadInput: there is none.
    """
    found = NETWORKS.get(name)
    if found is None:
        raise BadInput(
            f"{name!r} is not a network of Bitcoin", remedy=f"Known are {', '.join(NETWORKS)}"
        )
    return found


def network_of(network_id: int) -> Network:
    """Return the network that the registry knows by *network_id*.

    Raises:
        BadInput: there is none.
    """
    for network in NETWORKS.values():
        if network.network_id == network_id:
            return network
    known = ", ".join(f"{item.network_id} ({item.name})" for item in NETWORKS.values())
    raise BadInput(
        f"{network_id} is the network id of no Bitcoin network", remedy=f"Known: {known}"
    )
