"""How fast are blocks of Bitcoin scanned, beside a loop that only fetches, decodes and looks at the same blocks?

A house that was away follows ten thousand final blocks with a hundred thousand watched addresses into its
tables: every header and merkle root is computed anew, every output is read from the transactions'
bytes, every input's prevout is looked at, what is ours is stored. The limit asks for the same
blocks, as many at once, decodes the JSON with the fastest decoder that there is for any JSON (its amounts
are floats), looks every output's and every prevout's script up among the watched ones, and does nothing
else: it verifies nothing and stores nothing. A second limit decodes amounts exactly.

The blocks are served from memory by a stub in another process, which is faster than any node: a node
would make the limit slower and the ratio better.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from app.local.migrate import migrate
from bench.bitcoin_chain import LongChain, address_at
from bench.bitcoin_stub import serving
from bench.ledger_book import Books, books
from bench.measure import Measured, Result, Shared, Turn, alternate, versions
from chain.bitcoin.blocks import FINAL_DEPTH, Needle
from chain.bitcoin.gateway import BLOCKS_AT_ONCE, BitcoinGateway
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.node import NodeRpc
from chain.follow import follow
from chain.model import ChainStep, FollowPolicy, WatchList
from kernel.clock import SystemClock
from kernel.db import APP_ROLE, create_engine

ROUNDS: Final = 3
AT_LEAST: Final = 0.7
GROWTH_MAX_MIB: Final = 16.0
BLOCKS: Final = 10_000
WATCHED: Final = 100_000
PAYMENTS: Final = 50
BODIES: Final = 100
OURS_EVERY: Final = 50
PARTS: Final = 4
CHAIN: Final = "bitcoin"
TEMPLATE: Final = "bitcoin_scan"
USER: Final = "bench"
KIB: Final = 1_024


class FloatRpc(NodeRpc):
    """A client that decodes as fast as any JSON can be decoded."""

    def read(self, body: bytes) -> Any:
        """Return the value that *body* holds, with amounts as floats."""
        return orjson.loads(body)


def _look(body: Any, scripts: AbstractSet[str]) -> int:
    """Look every script of a block up; return how many are watched."""
    found = 0
    for item in body["tx"]:
        for output in item["vout"]:
            found += output["scriptPubKey"]["hex"] in scripts
        for spending in item["vin"]:
            if "prevout" in spending:
                found += spending["prevout"]["scriptPubKey"]["hex"] in scripts
    return found


class Scan:
    """The chain, the watch list, the server, and what both contestants do."""

    def __init__(self, of: Books, url: str, chain: LongChain, runner: asyncio.Runner) -> None:
        self.of = of
        self.url = url
        self.chain = chain
        self.runner = runner
        self.watch_list = WatchList(frozenset(map(address_at, range(WATCHED))), frozenset())
        self.needle = Needle(REGTEST)
        began = perf_counter()
        self.scripts = self.needle.thread(self.watch_list).spelled
        self.list_s = perf_counter() - began
        self.growth_mib: list[float] = []
        self.clock = SystemClock()
        self.databases = 0
        self.hits = 0

    def ours(self) -> Turn:
        """Return a turn that follows the chain into new tables."""
        self.databases += 1
        name = f"{TEMPLATE}_{self.databases}"
        self.runner.run(self.of.administer(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
        gateway = BitcoinGateway(
            self.url, chain=CHAIN, network=REGTEST, rpc=NodeRpc(self.url, user=USER, password=USER)
        )
        # A house has its list when it starts, and afterwards only what is new in it.
        gateway.needle = self.needle
        return lambda: self.runner.run(self._follow(name, gateway))

    async def _follow(self, name: str, gateway: BitcoinGateway) -> int:
        seen = 0

        async def watch(_: AsyncConnection) -> WatchList:
            return self.watch_list

        async def apply(_: AsyncConnection, step: ChainStep) -> None:
            nonlocal seen
            seen += len(step.contents.spends)

        included, resident = 0, []
        async with AsyncExitStack() as stack:
            engine = create_engine(self.of.server.url(name), role=APP_ROLE)
            stack.push_async_callback(engine.dispose)
            await stack.enter_async_context(gateway)
            for part in range(PARTS):
                report = await follow(
                    engine,
                    gateway,
                    CHAIN,
                    watch=watch,
                    apply=apply,
                    now=self.clock.now(),
                    blocks_max=BLOCKS // PARTS + (BLOCKS % PARTS if part == 0 else 0),
                    policy=FollowPolicy(start_height=2),
                )
                included += report.included
                resident.append(_resident_mib())
        self.growth_mib.append(resident[-1] - resident[0])
        assert seen, "what is ours is in the blocks"
        return included

    def bare(self) -> int:
        """Only fetch, decode and look; return how many blocks."""
        return self.runner.run(self._fetch(FloatRpc(self.url, user=USER, password=USER)))

    def exact(self) -> int:
        """Do the same with amounts that are not floats."""
        return self.runner.run(self._fetch(NodeRpc(self.url, user=USER, password=USER)))

    async def _fetch(self, rpc: NodeRpc) -> int:
        seats = asyncio.Semaphore(BLOCKS_AT_ONCE)
        done = 0

        async def one(block_hash: str) -> None:
            nonlocal done
            async with seats:
                body = await rpc.ask("getblock", block_hash, 3)
            self.hits += _look(body, self.scripts)
            done += body["hash"] == block_hash

        for first in range(1, BLOCKS + 1, KIB):
            heights = range(first, min(first + KIB, BLOCKS + 1))
            hashes = await rpc.ask_every([("getblockhash", (height,)) for height in heights])
            async with asyncio.TaskGroup() as group:
                for block_hash in hashes:
                    group.create_task(one(block_hash))
        await rpc.close()
        return done


def measure(shared: Shared) -> Measured:
    """Scan, and only fetch and decode, in turn."""
    of = shared.once(books)
    with asyncio.Runner() as runner, _scan(of, runner) as scan:
        contestants = {"ours": scan.ours, "bare": lambda: scan.bare, "exact": lambda: scan.exact}
        rates = alternate(contestants, ROUNDS)
        assert scan.hits, "what is ours is in the blocks"
        list_s = scan.list_s
        growth = max(scan.growth_mib[1:])
    return Measured(
        [
            Result(
                name="bitcoin_scan",
                value=rates["ours"],
                unit="blocks/s",
                baseline="a loop that only fetches and decodes the same blocks and looks at each script",
                baseline_value=rates["bare"],
                at_least=AT_LEAST,
            ),
            Result(
                name="bitcoin_scan.exact",
                value=rates["ours"],
                unit="blocks/s",
                baseline="the same loop, amounts decoded without floats",
                baseline_value=rates["exact"],
            ),
            Result(
                name="bitcoin_scan.growth",
                value=max(0.0, growth),
                unit="MiB from the first quarter of the blocks to the last",
                at_most=GROWTH_MAX_MIB,
            ),
            Result(name="bitcoin_scan.list", value=list_s, unit="s to read the watch list, once"),
        ],
        of.conditions(
            f"{BLOCKS:,} final blocks of {PAYMENTS} payments with two inputs and two outputs each, "
            f"served by a stub from memory; {WATCHED:,} watched addresses, of which two are paid or "
            f"pay in one of every {OURS_EVERY} blocks; {BLOCKS_AT_ONCE} blocks at once; {ROUNDS} turns"
        ),
        versions("aiohttp", "orjson", "msgspec", "sqlalchemy", "asyncpg"),
    )


@contextmanager
def _scan(of: Books, runner: asyncio.Runner) -> Iterator[Scan]:
    chain = LongChain(BLOCKS + FINAL_DEPTH + 1, PAYMENTS, BODIES, OURS_EVERY)
    with ExitStack() as stack:
        scan = Scan(of, stack.enter_context(serving(chain)), chain, runner)
        runner.run(of.administer(f"CREATE DATABASE {TEMPLATE}"))
        runner.run(migrate(of.server.url(TEMPLATE)))
        try:
            yield scan
        finally:
            for number in range(1, scan.databases + 1):
                runner.run(of.administer(f"DROP DATABASE {TEMPLATE}_{number}"))
            runner.run(of.administer(f"DROP DATABASE {TEMPLATE}"))


def _resident_mib() -> float:
    """Return how much memory this process has resident now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / KIB / KIB
