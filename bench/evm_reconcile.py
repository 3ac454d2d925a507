"""How long does it take to hold every address against the chain?

Reconciliation of 100,000 addresses and two assets, with five thousand clients' tokens among them, on a
real anvil and a real PostgreSQL: the books are read, every balance of every address is asked for, summed
and compared, and the run is recorded. Held against a loop that only asks the same node for the same
balances, in batches as large and as many at once, and drops the answers.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import aiohttp
import orjson

from bench.anvil import require_anvil
from bench.evm_deposits import BOOK, DEPOSITS, House, address_at, open_house
from bench.ledger_book import books
from bench.measure import Measured, Result, Shared, Turn, alternate, versions
from chain.evm.erc20 import balance_of_data
from chain.evm.gateway import BALANCE_BATCHES_MAX
from chain.jsonrpc import BATCH_MAX
from custody.reconciliation import reconcile
from kernel.clock import SystemClock
from registry.testing import EVM

PROCESS: Final = Path("/proc/self")
ADDRESSES: Final = 100_000
ASSETS: Final = 2
PAID_BLOCKS: Final = 5
"""Blocks of `DEPOSITS` deposits each."""
ROUNDS: Final = 5
AT_LEAST: Final = 0.6


class Bare:
    """A loop that asks the node of a house for the balances of its addresses, and nothing more."""

    def __init__(self, house: House, addresses: int) -> None:
        self._url = house.node.url
        self._token = house.node.token
        self._calls: list[bytes] = []
        self._addresses = addresses

    async def prepare(self, block_hash: str) -> None:
        """Write the batches beforehand: that is not what takes a node's time."""
        place = {"blockHash": block_hash, "requireCanonical": True}
        calls: list[dict[str, object]] = []
        self._calls.clear()
        for number in range(self._addresses):
            address = address_at(number)
            token = {"to": self._token, "data": "0x" + balance_of_data(address).hex()}
            calls.append(_call(len(calls), "eth_getBalance", address, place))
            calls.append(_call(len(calls), "eth_call", token, place))
            if len(calls) == BATCH_MAX:
                self._calls.append(orjson.dumps(calls))
                calls = []

    async def ask(self) -> int:
        """Ask for everything once; return for how many addresses."""
        turns, headers = iter(self._calls), {"Content-Type": "application/json"}
        answered = 0

        async def ask(session: aiohttp.ClientSession) -> None:
            nonlocal answered
            for body in turns:
                async with session.post(self._url, data=body, headers=headers) as response:
                    answered += len(orjson.loads(await response.read()))

        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            for _ in range(BALANCE_BATCHES_MAX):
                group.create_task(ask(session))
        assert answered == ASSETS * self._addresses
        return self._addresses


def _call(number: int, method: str, *params: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


async def compare(house: House) -> int:
    """Reconcile the whole house; return how many addresses that were."""
    run = await reconcile(house.engine, house.gateway, EVM, book=BOOK, now=SystemClock().now())
    assert run.is_clean, run.items[:3]
    assert run.addresses == house.watched
    return run.addresses


def restart_peak() -> int:
    """Let the kernel count the peak of this process's memory anew; return what is resident, in KiB.

    Source: proc(5), ``/proc/pid/clear_refs``.
    """
    PROCESS.joinpath("clear_refs").write_text("5")
    return memory_kib("VmRSS")


def memory_kib(name: str) -> int:
    """Return a line of the process's status, in KiB."""
    lines = PROCESS.joinpath("status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def measure(shared: Shared) -> Measured:
    """Let reconciliation and the bare loop take turns before one house and one node."""
    of = shared.once(books)
    addresses = shared.size or ADDRESSES
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            house = runner.run(
                stack.enter_async_context(open_house(of, require_anvil(), addresses))
            )
            bare = Bare(house, addresses)
            runner.run(_prepare(house, bare))
            before = restart_peak()
            runner.run(compare(house))
            grown = (memory_kib("VmHWM") - before) / 1024
            rates = alternate(
                {"ours": lambda: _turn(runner, house), "bare": lambda: _bare(runner, bare)}, ROUNDS
            )
        finally:
            runner.run(stack.aclose())
    return Measured(
        [
            Result(
                name="evm_reconcile",
                value=rates["ours"],
                unit="addresses/s",
                baseline="a loop that only asks the same node for the same balances",
                baseline_value=rates["bare"],
                at_least=AT_LEAST,
            ),
            Result(name="evm_reconcile.time", value=addresses / rates["ours"], unit="s"),
            Result(name="evm_reconcile.memory", value=grown, unit="MiB"),
        ],
        of.conditions(
            f"{addresses:,} addresses, {ASSETS} assets, {PAID_BLOCKS * DEPOSITS:,} deposits, a real"
            f" anvil asked by block hash in batches of {BATCH_MAX}, {BALANCE_BATCHES_MAX} at once;"
            f" {ROUNDS} turns; memory: what the process grew by in the first run, at its peak"
        ),
        versions("sqlalchemy", "asyncpg", "web3"),
    )


async def _prepare(house: House, bare: Bare) -> None:
    for _ in range(PAID_BLOCKS):
        payees = house.payees()
        await house.node.pay_at_once(payees)
        house.paid += len(payees)
        await house.take()
    await house.check()
    head = await house.gateway.head()
    await bare.prepare(head.hash)


def _turn(runner: asyncio.Runner, house: House) -> Turn:
    return lambda: runner.run(compare(house))


def _bare(runner: asyncio.Runner, bare: Bare) -> Turn:
    return lambda: runner.run(bare.ask())
