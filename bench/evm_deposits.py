"""Does a deposit cost more when there are more addresses to watch?

It should not: 1,000 token deposits arrive in one block, once in a house that watches 100,000
addresses and once in one that watches 1,000. Measured is what the house does about them: it reads
the block from a real anvil, includes what arrived, and credits it to 1,000 clients. Each client has
as many addresses as it takes; one of them, drawn anew for each block, is paid.

Twice: as 1,000 transactions, and as calls of a contract that pays many at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local.migrate import migrate
from bench.anvil import require_anvil
from bench.ledger_book import Books, books
from bench.measure import Measured, Result, Shared, Turn, alternate, peak_memory_kib, versions
from chain.evm.addresses import address_from_node
from chain.evm.gateway import EvmGateway
from chain.follow import follow, get_cursor
from chain.model import Block, ChainStep, FollowPolicy
from chain.simulators.anvil import start_anvil
from chain.simulators.testing import (
    JsonRpc,
    deploy_test_dollar,
    dev_account,
    encode_call,
    sign_transaction,
    unwrap,
)
from custody.addresses import WatchListReader
from custody.deposit_model import Deposit, DepositState
from custody.deposits import advance_deposits
from custody.inclusion import apply_step
from custody.policy import ConfirmationPolicy
from kernel.clock import SystemClock
from kernel.db import APP_ROLE, create_engine, transact
from ledger.posting import open_book
from ledger.queries import get_balance
from registry.changes import found
from registry.model import Founding, Party, PartyKind
from registry.testing import ENTITY, EVM, demo_founding

DEPOSITS: Final = 1_000
FEW: Final = 1_000
MANY: Final = 100_000
ROUNDS: Final = 5
AT_MOST: Final = 1.5
BOOK: Final = ENTITY.book
WALLET: Final = "client-pool"
ASSET: Final = "USDT"
AMOUNT: Final = 1_000_000
SUPPLY: Final = 10**15
BLOCK_GAS: Final = 400_000_000
CALL_GAS: Final = 16_000_000
"""Of one call that pays many: no transaction may use more than 2**24 (EIP-7825)."""
PAID_AT_ONCE: Final = 200
SEND_AT_ONCE: Final = 250
SEED: Final = 20
OWNER: Final = 9
POLICY: Final = ConfirmationPolicy.uniform(1)


def payer_code() -> bytes:
    """Return the creation code of the contract that pays many: assembled by hand.

    The words of its call data: the token, the amount of each, and the payees.
    """
    loop, head = 2, "6040"
    body = (
        "5b"  # JUMPDEST
        "803611"  # DUP1 CALLDATASIZE GT: is the word within the call data?
        "15"  # ISZERO
        "60{end}57"  # PUSH1 end JUMPI
        "63a9059cbb60e01b600052"  # MSTORE(0, selector of transfer(address,uint256))
        "8035600452"  # MSTORE(4, CALLDATALOAD(word))
        "602035602452"  # MSTORE(36, CALLDATALOAD(32))
        "60006000604460006000"  # no output; 68 bytes of input from 0; no value
        "600035"  # CALLDATALOAD(0): the token
        "5af150"  # GAS CALL POP
        "602001"  # the next word
        f"60{loop:02x}56"  # PUSH1 loop JUMP
    )
    end = loop + len(body.format(end="00")) // 2
    runtime = bytes.fromhex(head + body.format(end=f"{end:02x}") + "5b00")
    # PUSH1 size DUP1 PUSH1 offset PUSH1 0 CODECOPY PUSH1 0 RETURN
    init = bytes.fromhex(f"60{len(runtime):02x}80600b6000396000f3")
    return init + runtime


class Node:
    """An anvil that mines when it is told to, with a token that its owner gives away."""

    def __init__(self, rpc: JsonRpc, url: str) -> None:
        self.rpc = rpc
        self.url = url
        self.token = ""
        self.payer = ""
        self._owner = dev_account(OWNER)
        self._nonce = 0

    async def prepare(self) -> None:
        """Deploy the token and the contract that pays many; from then on nothing is mined by itself."""
        self.token = await deploy_test_dollar(self.rpc, self._owner, supply=SUPPLY)
        raw = sign_transaction(self._owner, 1, to=None, data=payer_code(), gas=1_000_000)
        receipt = await self.rpc.wait_receipt(await self.rpc.call("eth_sendRawTransaction", raw))
        self.payer = str(receipt["contractAddress"])
        self._nonce = 2
        await self.rpc.call("evm_setAutomine", False)
        await self._send([(self.token, _transfer(self.payer, SUPPLY // 2))])
        await self.rpc.call("evm_mine")

    async def pay_each(self, payees: Sequence[str]) -> None:
        """Mine one block with a transaction for each payee."""
        await self._send([(self.token, _transfer(payee, AMOUNT)) for payee in payees])
        await self._mine(len(payees))

    async def pay_at_once(self, payees: Sequence[str]) -> None:
        """Mine one block with few transactions, each paying many."""
        calls = []
        for start in range(0, len(payees), PAID_AT_ONCE):
            words = [self.token, hex(AMOUNT), *payees[start : start + PAID_AT_ONCE]]
            data = b"".join(int(word, 16).to_bytes(32, "big") for word in words)
            calls.append((self.payer, data))
        await self._send(calls, gas=CALL_GAS)
        await self._mine(len(calls))

    async def give(self, payee: str, amount: int) -> None:
        """Mine one block in which *payee* gets tokens of the owner."""
        await self._send([(self.token, _transfer(payee, amount))])
        await self._mine(1)

    async def _mine(self, count: int) -> None:
        await self.rpc.call("evm_mine")
        block = await self.rpc.call("eth_getBlockByNumber", "latest", False)
        assert len(block["transactions"]) == count

    async def _send(self, calls: Sequence[tuple[str, bytes]], *, gas: int = 100_000) -> None:
        requests = []
        for to, data in calls:
            body = {
                "from": self._owner.address,
                "to": to,
                "data": "0x" + data.hex(),
                "gas": hex(gas),
                "nonce": hex(self._nonce),
            }
            requests.append(
                {"jsonrpc": "2.0", "id": 1, "method": "eth_sendTransaction", "params": [body]}
            )
            self._nonce += 1
        for start in range(0, len(requests), SEND_AT_ONCE):
            for answer in await self.rpc.post(requests[start : start + SEND_AT_ONCE]):
                unwrap(answer)


class House:
    """A house with a database and a node of its own, which watches some number of addresses."""

    def __init__(self, engine: AsyncEngine, gateway: EvmGateway, node: Node, watched: int) -> None:
        self.engine = engine
        self.gateway = gateway
        self.node = node
        self.watched = watched
        self.paid = 0
        self._chance = random.Random(SEED)
        self._clock = SystemClock()
        self._watched = WatchListReader()

    def payees(self) -> list[str]:
        """Draw one address of each client."""
        each = self.watched // DEPOSITS
        return [
            address_at(client + DEPOSITS * self._chance.randrange(each))
            for client in range(DEPOSITS)
        ]

    async def take(self) -> int:
        """Follow the chain to its head and credit everything; return how many deposits that were."""

        async def apply(conn: AsyncConnection, step: ChainStep) -> None:
            await apply_step(conn, step, book=BOOK, now=self._clock.now(), policy=POLICY)

        await follow(
            self.engine,
            self.gateway,
            EVM,
            watch=lambda conn: self._watched.read(conn, EVM),
            apply=apply,
            now=self._clock.now(),
            policy=FollowPolicy(),
        )
        tip = await transact(self.engine, lambda conn: get_cursor(conn, EVM))
        assert tip is not None
        credited = 0
        while moved := await self._advance(tip):
            credited += sum(item.state is DepositState.CREDITED for item in moved)
        return credited

    async def _advance(self, tip: Block) -> list[Deposit]:
        return await advance_deposits(
            self.engine,
            EVM,
            book=BOOK,
            tip=tip,
            finalized=0,
            policy=POLICY,
            now=self._clock.now(),
            gateway=self.gateway,
        )

    async def check(self) -> None:
        """Everything that was paid is in custody, and nothing more."""
        held = await transact(
            self.engine, lambda conn: get_balance(conn, BOOK, f"custody:{WALLET}", ASSET)
        )
        assert held.posted == self.paid * AMOUNT


@contextlib.asynccontextmanager
async def open_house(of: Books, binary: Path, watched: int) -> AsyncIterator[House]:
    """Found a house that watches *watched* addresses, before a node of its own."""
    name = f"evm_deposits_{watched}"
    async with AsyncExitStack() as stack:
        await of.administer(f"CREATE DATABASE {name}")
        stack.push_async_callback(of.administer, f"DROP DATABASE {name}")
        await migrate(of.server.url(name))
        arguments = ("--gas-limit", str(BLOCK_GAS), "--no-request-size-limit")
        anvil = await stack.enter_async_context(start_anvil(binary, arguments=arguments))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        node = Node(JsonRpc(anvil.url, session), anvil.url)
        await node.prepare()
        engine = create_engine(of.server.url(name), role=APP_ROLE)
        stack.push_async_callback(engine.dispose)
        await _found(engine, address_from_node(node.token))
        await watch_addresses(of.server.url(name), watched)
        gateway = await stack.enter_async_context(
            EvmGateway(anvil.url, chain=EVM, network_id=31337, trace=False)
        )
        house = House(engine, gateway, node, watched)
        await house.take()
        yield house


async def _found(engine: AsyncEngine, token: str) -> None:
    now = SystemClock().now()
    founding = with_clients(demo_founding(token=token))
    await transact(engine, lambda conn: found(conn, founding, now=now))
    await transact(engine, lambda conn: open_book(conn, BOOK, entity=ENTITY.code, now=now))


def with_clients(plain: Founding) -> Founding:
    """Return a founding with a client for each deposit of a block."""
    clients = tuple(Party(party_of(n), PartyKind.CLIENT, ENTITY.code) for n in range(DEPOSITS))
    return replace(plain, parties=(*plain.parties, *clients))


async def watch_addresses(url: str, watched: int) -> None:
    """Write addresses as rows: nobody spends from them, so nobody needs their keys."""
    now = SystemClock().now() - timedelta(days=1)
    raw = await asyncpg.connect(url.replace("postgresql+asyncpg", "postgresql"))
    columns = ("chain", "address", "wallet", "branch", "index", "purpose", "party", "reference")
    try:
        await raw.copy_records_to_table(
            "address",
            schema_name="custody",
            columns=[*columns, "assigned_at"],
            records=[
                (EVM, address_at(n), WALLET, 0, n, "deposit", party_of(n % DEPOSITS), "", now)
                for n in range(watched)
            ],
        )
        await raw.execute(
            "INSERT INTO custody.address_branch (wallet, branch, next_index) VALUES ($1, 0, $2)",
            WALLET,
            watched,
        )
        await raw.execute("ANALYZE custody.address")
    finally:
        await raw.close()


def party_of(number: int) -> str:
    """Return the code of the client of that number, from 0."""
    return f"c{number:04}"


def address_at(number: int) -> str:
    """Return the watched address of that number, from 0."""
    return address_from_node(f"0x{0xC0FFEE << 96 | number + 1:040x}")


def _transfer(to: str, amount: int) -> bytes:
    return encode_call("transfer(address,uint256)", to, amount)


def measure(shared: Shared) -> Measured:
    """Let both houses take turns, first with a transaction for each deposit, then with few."""
    of = shared.once(books)
    binary = require_anvil()
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            before = peak_memory_kib() / 1024
            few = runner.run(stack.enter_async_context(open_house(of, binary, FEW)))
            many = runner.run(stack.enter_async_context(open_house(of, binary, MANY)))
            each = _rates(runner, few, many, at_once=False)
            at_once = _rates(runner, few, many, at_once=True)
            for house in (few, many):
                runner.run(house.check())
        finally:
            runner.run(stack.aclose())
    return Measured(
        [
            *_results("evm_deposits", each, AT_MOST),
            *_results("evm_deposits.at_once", at_once, AT_MOST),
            Result(name="evm_deposits.memory", value=peak_memory_kib() / 1024 - before, unit="MB"),
        ],
        of.conditions(
            f"{DEPOSITS:,} token deposits in one block of a real anvil, to as many clients, with"
            f" {MANY:,} and with {FEW:,} watched addresses; followed, included and credited;"
            f" {ROUNDS} turns; at_once: {PAID_AT_ONCE} deposits in each transaction; memory: what"
            " the peak of this process grew by, both houses and the benchmark itself"
        ),
        versions("sqlalchemy", "asyncpg", "web3"),
    )


def _rates(runner: asyncio.Runner, few: House, many: House, *, at_once: bool) -> dict[str, float]:
    def turns(house: House) -> Turn:
        payees = house.payees()
        pay = house.node.pay_at_once if at_once else house.node.pay_each
        runner.run(pay(payees))
        house.paid += len(payees)

        def turn() -> int:
            credited = runner.run(house.take())
            assert credited == DEPOSITS
            return credited

        return turn

    return alternate({"few": lambda: turns(few), "many": lambda: turns(many)}, ROUNDS)


def _results(name: str, rates: dict[str, float], at_most: float) -> list[Result]:
    return [
        Result(
            name=name,
            value=1_000 / rates["many"],
            unit="ms/deposit",
            baseline=f"the same with {FEW:,} watched addresses",
            baseline_value=1_000 / rates["few"],
            at_most=at_most,
        )
    ]
