"""For tests and demonstrations: a simulated node for the length of a ``with`` block, and its calls.

::

    async with start_bitcoin_simulator() as node:
        tx_id = await node.fund(address, 150_000_000)
        await node.mine(6)

`SimulatedNode` has the attributes and the ``call`` of `chain.simulators.bitcoind.Bitcoind`, so that
what is written for one runs on the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from chain.simulators.bitcoin.model import BitcoinSimulatorSettings
from chain.simulators.bitcoin.server import BitcoinSimulator
from chain.simulators.bitcoind import ask
from kernel.clock import Clock, SystemClock

CALL_TIMEOUT_S: Final = 60.0
BTC: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class SimulatedNode:
    """A running simulator.

    Attributes:
        cookie: name and password that callers show.
        cookie_file: where they stand, as bitcoind writes them.
    """

    url: str
    cookie: tuple[str, str] = field(repr=False)
    cookie_file: Path | None
    session: aiohttp.ClientSession = field(repr=False)

    async def call(self, method: str, *params: Any) -> Any:
        """Return the result of a call.

        Raises:
            NodeRefusal: the node answered with an error.
        """
        return await ask(self.session, self.url, self.cookie, method, params)

    async def mine(self, blocks: int = 1) -> list[str]:
        """Make blocks and return their hashes."""
        hashes: list[str] = await self.call("simulate_mine", blocks)
        return hashes

    async def fund(self, address: str, satoshi: int, *, blocks: int = 1) -> str:
        """Pay an address from the faucet and make *blocks* on it; return the transaction's id."""
        tx_id: str = await self.call("simulate_fund", address, bitcoins(satoshi), blocks)
        return tx_id

    async def replace(self, tx_id: str, address: str | None = None) -> str:
        """Replace a payment of the faucet that waits, by one to *address* or back to itself."""
        replaced = await self.call("simulate_replace", tx_id, address)
        return str(replaced["txid"])

    async def reorganise(self, depth: int, *, keep: Sequence[str] = ()) -> list[str]:
        """Replace the last blocks by one more; only transactions to *keep* are in them again."""
        hashes: list[str] = await self.call("simulate_reorg", depth, list(keep))
        return hashes


def bitcoins(satoshi: int) -> str:
    """Return satoshi as a decimal number of bitcoins, which no float comes near."""
    return f"{satoshi // BTC}.{satoshi % BTC:08d}"


@contextlib.asynccontextmanager
async def start_bitcoin_simulator(
    *,
    port: int = 0,
    seed: int = 0,
    data_dir: Path | None = None,
    timestamp: int | None = None,
    fee_rate: int | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[SimulatedNode]:
    """Run a simulator in this process for the length of a ``with`` block.

    Args:
        port: 0 takes a free one.
        seed: 0 makes the very blocks that bitcoind makes.
        data_dir: keeps the chain; default: in memory.
        timestamp: Unix time of the first block; every block then adds a second.
        fee_rate: satoshi for 1,000 virtual bytes that are estimated; None: too little data.
        clock: of the block times; they may be ahead of the machine's by two hours at most.

    Raises:
        PortTaken: the port belongs to somebody else.
        KernelMissing: libbitcoinkernel is not installed.
    """
    simulator = BitcoinSimulator(
        BitcoinSimulatorSettings(
            port=port,
            seed=seed,
            data_dir=data_dir,
            timestamp=timestamp,
            fee_rate=fee_rate,
            clock=clock or SystemClock(),
        )
    )
    timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        url = await simulator.start()
        try:
            yield SimulatedNode(
                url, (simulator.user, simulator.password), simulator.cookie_file, session
            )
        finally:
            await simulator.stop()
