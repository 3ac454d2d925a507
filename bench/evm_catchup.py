"""How fast is a chain caught up with, beside a loop that only fetches the same blocks and logs?

A house that was away reads a thousand final blocks from a real anvil into its books: every block is
linked by its parents, events are held against the filters of the blocks, what is ours is read with
all receipts, stored and posted to the ledger. The limit asks the same anvil for the same blocks and
logs, in batches as large and as many at once, parses the JSON and does nothing else.

Without call frames: a node takes several times as long to make them as for everything else together, and the
loop would have to ask for them as well.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp
from sqlalchemy.ext.asyncio import AsyncConnection

from app.local.migrate import migrate
from bench.anvil import require_anvil
from bench.ledger_book import Books, books
from bench.measure import Measured, Result, Shared, Turn, alternate, peak_memory_kib, versions
from chain.evm.addresses import address_from_node
from chain.evm.erc20 import TRANSFER_TOPIC
from chain.evm.gateway import EvmGateway
from chain.evm.reading import BATCHES_AT_ONCE, BLOCKS_AT_ONCE
from chain.follow import follow
from chain.model import BLOCKS_MAX, ChainStep, FollowPolicy
from chain.runs import RUN_FIRST
from chain.simulators.anvil import start_anvil
from chain.simulators.testing import (
    JsonRpc,
    deploy_test_dollar,
    dev_account,
    encode_call,
    unwrap,
)
from custody.addresses import assign_address, watch_list
from custody.inclusion import apply_step
from custody.model import AddressPurpose
from kernel.clock import SystemClock
from kernel.db import APP_ROLE, create_engine, transact
from ledger.posting import open_book
from ledger.queries import get_balance
from registry.changes import found
from registry.testing import ENTITY, EVM, demo_founding

ROUNDS: Final = 5
AT_LEAST: Final = 0.7
BLOCKS: Final = 1_000
PLAIN_PER_BLOCK: Final = 6
TOKENS_PER_BLOCK: Final = 2
DEPOSIT_EVERY: Final = 50
AMOUNT: Final = 1_000_000
SUPPLY: Final = 10**15
OWNER: Final = 9
BOOK: Final = ENTITY.book
WALLET: Final = "client-pool"
NETWORK: Final = 31_337
TEMPLATE: Final = "evm_catchup"


class Chain:
    """A thousand blocks on an anvil, with some payments between strangers and few to us."""

    def __init__(self, rpc: JsonRpc) -> None:
        self.rpc = rpc
        self.token = ""
        self.height = 0
        self.deposits = 0

    async def prepare(self) -> None:
        """Deploy the token; from then on nothing is mined by itself."""
        self.token = await deploy_test_dollar(self.rpc, dev_account(OWNER), supply=SUPPLY)
        await self.rpc.call("evm_setAutomine", False)

    async def fill(self, ours: str) -> None:
        """Mine the blocks, and two more on top, so that the last of them is final."""
        strangers = [dev_account(index).address for index in range(PLAIN_PER_BLOCK)]
        for number in range(BLOCKS):
            deposit = number % DEPOSIT_EVERY == 0
            self.deposits += deposit
            payees = [ours if deposit else strangers[0], *strangers[1:TOKENS_PER_BLOCK]]
            calls = [self._token(payee) for payee in payees]
            calls += [{"from": one, "to": strangers[0], "value": "0x1"} for one in strangers]
            await self._send(calls)
            await self.rpc.call("evm_mine")
        for _ in range(2):
            await self.rpc.call("evm_mine")
        self.height = await self.rpc.number("eth_blockNumber")

    def _token(self, payee: str) -> dict[str, str]:
        data = encode_call("transfer(address,uint256)", payee, AMOUNT)
        owner = dev_account(OWNER).address
        return {"from": owner, "to": self.token, "data": "0x" + data.hex(), "gas": hex(100_000)}

    async def _send(self, calls: list[dict[str, str]]) -> None:
        requests = [_request("eth_sendTransaction", {"gas": hex(21_000), **call}) for call in calls]
        for answer in await self.rpc.post(requests):
            unwrap(answer)


class Catchup:
    """The chain, the server, and what both contestants do."""

    def __init__(self, of: Books, chain: Chain, runner: asyncio.Runner) -> None:
        self.of = of
        self.chain = chain
        self.runner = runner
        self._databases = 0
        self._clock = SystemClock()

    async def found(self) -> str:
        """Make the database that every turn begins with; return the address that is paid."""
        await self.of.administer(f"CREATE DATABASE {TEMPLATE}")
        await migrate(self.of.server.url(TEMPLATE))
        engine = create_engine(self.of.server.url(TEMPLATE), role=APP_ROLE)
        now = self._clock.now()
        try:
            founding = demo_founding(token=address_from_node(self.chain.token), network_id=NETWORK)
            await transact(engine, lambda conn: found(conn, founding, now=now))
            await transact(engine, lambda conn: open_book(conn, BOOK, entity=ENTITY.code, now=now))
            assigned = await transact(
                engine,
                lambda conn: assign_address(
                    conn, WALLET, purpose=AddressPurpose.DEPOSIT, party="acme", now=now
                ),
            )
        finally:
            await engine.dispose()
        return assigned.address

    def ours(self) -> Turn:
        """Return a turn that follows the chain into new books."""
        self._databases += 1
        name = f"{TEMPLATE}_{self._databases}"
        self.runner.run(self.of.administer(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
        return lambda: self.runner.run(self._follow(name))

    async def _follow(self, name: str) -> int:
        async with AsyncExitStack() as stack:
            engine = create_engine(self.of.server.url(name), role=APP_ROLE)
            stack.push_async_callback(engine.dispose)
            gateway = await stack.enter_async_context(
                EvmGateway(self.chain.rpc.url, chain=EVM, network_id=NETWORK, trace=False)
            )

            async def apply(conn: AsyncConnection, step: ChainStep) -> None:
                await apply_step(conn, step, book=BOOK, now=self._clock.now())

            report = await follow(
                engine,
                gateway,
                EVM,
                watch=lambda conn: watch_list(conn, EVM),
                apply=apply,
                now=self._clock.now(),
                blocks_max=BLOCKS_MAX,
                policy=FollowPolicy(),
            )
            held = await transact(
                engine, lambda conn: get_balance(conn, BOOK, f"custody:{WALLET}", "USDT")
            )
        assert report.caught_up
        assert held.debits_pending == self.chain.deposits * AMOUNT
        return self.chain.height + 1

    def bare(self) -> int:
        """Only fetch; return how many blocks."""
        return self.runner.run(self._fetch())

    async def _fetch(self) -> int:
        seats = asyncio.Semaphore(BATCHES_AT_ONCE)
        blocks = 0

        async def part(heights: range) -> int:
            async with seats:
                asked = [("eth_getBlockByNumber", (hex(height), True)) for height in heights]
                answers = await self.chain.rpc.post([_request(m, *p) for m, p in asked])
                return len([unwrap(answer) for answer in answers])

        for first in range(0, self.chain.height + 1, RUN_FIRST):
            last = min(first + RUN_FIRST - 1, self.chain.height)
            await self.chain.rpc.call(
                "eth_getLogs",
                {
                    "fromBlock": hex(first),
                    "toBlock": hex(last),
                    "address": [self.chain.token],
                    "topics": [TRANSFER_TOPIC],
                },
            )
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(part(range(at, min(at + BLOCKS_AT_ONCE, last + 1))))
                    for at in range(first, last + 1, BLOCKS_AT_ONCE)
                ]
            blocks += sum(task.result() for task in tasks)
        return blocks

    async def close(self) -> None:
        """Drop every database."""
        for number in range(1, self._databases + 1):
            await self.of.administer(f"DROP DATABASE {TEMPLATE}_{number}")
        await self.of.administer(f"DROP DATABASE {TEMPLATE}")


def measure(shared: Shared) -> Measured:
    """Catch up, and only fetch, in turn."""
    of = shared.once(books)
    binary = require_anvil()
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            catchup = runner.run(_open(stack, of, binary, runner))
            rates = alternate(
                {
                    "ours": catchup.ours,
                    "bare": lambda: catchup.bare,
                },
                ROUNDS,
            )
        finally:
            runner.run(stack.aclose())
    return Measured(
        [
            Result(
                name="evm_catchup",
                value=rates["ours"],
                unit="blocks/s",
                baseline="a loop that only fetches the same blocks and logs",
                baseline_value=rates["bare"],
                at_least=AT_LEAST,
            ),
            Result(
                name="evm_catchup.memory",
                value=peak_memory_kib() / 1024,
                unit="MiB at most, both together",
            ),
        ],
        of.conditions(
            f"{BLOCKS:,} final blocks with {PLAIN_PER_BLOCK} payments of ether and "
            f"{TOKENS_PER_BLOCK} of tokens each, one of every {DEPOSIT_EVERY} blocks with a deposit "
            f"of ours; batches of {BLOCKS_AT_ONCE} blocks, {BATCHES_AT_ONCE} at once; {ROUNDS} turns"
        ),
        versions("web3", "aiohttp", "orjson", "sqlalchemy", "asyncpg"),
    )


async def _open(stack: AsyncExitStack, of: Books, binary: Path, runner: asyncio.Runner) -> Catchup:
    anvil = await stack.enter_async_context(start_anvil(binary, slots_in_an_epoch=1))
    session = await stack.enter_async_context(aiohttp.ClientSession())
    chain = Chain(JsonRpc(anvil.url, session))
    await chain.prepare()
    catchup = Catchup(of, chain, runner)
    stack.push_async_callback(catchup.close)
    await chain.fill(await catchup.found())
    return catchup


def _request(method: str, *params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
