"""A desk's day in minutes: how much goes through one house, how long do people wait, and do the books hold?

A thousand clients. In each of ten parts of the day tokens arrive at their addresses on a real anvil and
are credited; they deal with the desk; what both owe is netted, affirmed, sealed, settled by book, a run for
each client, and closed; and they withdraw: every payout is approved, signed by the signer's process, broadcast,
mined and confirmed. All of it in one house with one database. Meanwhile somebody posts a small transfer again
and again, and is timed: that is what a person at the books would feel.

Sizes stand to each other as in a day of 100,000 deposits, 100,000 payouts and 50,000 deals (``--size
100000``). At the end every oracle of `app.oracles` looks at the house and at the chain; a finding ends the
benchmark with an error. Memory is held against what it was after the second part: it must not grow with the day.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import aiohttp
from eth_account import Account
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local.migrate import migrate
from app.oracles.outside import EvmView, Outside
from app.oracles.run import examine
from app.workers.cycle_release import CycleRelease, InTransactions
from app.workers.settlement import SettlementWorker
from bench.anvil import require_anvil
from bench.evm_deposits import (
    BLOCK_GAS,
    BOOK,
    DEPOSITS,
    WALLET,
    House,
    Node,
    party_of,
    watch_addresses,
    with_clients,
)
from bench.evm_payouts import NETWORK, resident_mib, signer_process
from bench.ledger_book import Books, books
from bench.measure import Measured, Result, Shared, percentile, versions
from chain.evm.addresses import address_from_node
from chain.evm.gateway import EvmGateway
from chain.follow import get_cursor
from chain.simulators.anvil import start_anvil
from chain.simulators.testing import JsonRpc
from custody.addresses import assign_address
from custody.evm_rail import EvmRail
from custody.model import AddressPurpose
from custody.payout_finality import confirm_payouts
from custody.payout_model import Payout, PayoutRequest
from custody.payout_requests import request_payouts
from custody.payout_worker import CLAIM_MAX, advance_payouts
from custody.policy import Requirement
from custody.signer.client import SignerClient
from custody.signer_sync import push_control
from custody.testing import allow, approve, set_policy
from kernel.clock import SystemClock
from kernel.db import APP_ROLE, create_engine, transact
from kernel.errors import OutsideUnavailable, Refused
from kernel.ids import derive_id
from kernel.money import Price
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import open_book, post, require_applied
from marketdata.model import PriceRecord, Quality
from marketdata.price_model import PriceKind
from marketdata.prices import record_price
from registry.changes import found
from registry.queries import get_operator
from registry.testing import ENTITY, ETH, EVM, USDT, demo_founding
from settlement.cycles import open_cycle, seal_cycle
from settlement.netting.exact import BUILT_IN
from settlement.netting.model import Method
from settlement.queries import list_cycle_runs
from settlement.runs import pull_obligations
from settlement.testing import affirm_all
from trading.deals import book_deals
from trading.model import Deal, DealRequest, DealSide
from trading.terms.model import Agreement
from trading.terms.testing import set_agreement

PARTS: Final = 10
SIZE: Final = 10_000
"""Deposits of a day unless ``--size`` says more; as many payouts, and half as many deals."""
STEADY_FROM: Final = 2
GROWTH_MAX: Final = 1.2
DEALS_AT_ONCE: Final = 250
PAID_OUT: Final = 1_000
DEALT: Final = ETH.parse("0.00001")
FUNDS: Final = 10**24
TOKENS: Final = 10**14
"""Units of the token that come in where clients' coins are paid from, before the day begins."""
PROBE_EVERY_S: Final = 0.05
PROBED: Final = ("equity:capital", "equity:opening")
DATABASE: Final = "bench_day"
CLOCK: Final = SystemClock()

Work = Callable[[AsyncConnection], Awaitable[Any]]


@dataclass(slots=True)
class Figures:
    """What was measured: seconds by kind of work, and how long single things took, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    waits: dict[str, list[float]] = field(default_factory=dict)
    memory: list[float] = field(default_factory=list)

    async def timed(self, name: str, step: Coroutine[Any, Any, int]) -> None:
        """Do a part of the day and count it."""
        began = perf_counter()
        done = await step
        self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - began
        self.counts[name] = self.counts.get(name, 0) + done

    def waited(self, name: str, seconds: float) -> None:
        """Note how long somebody waited for something."""
        self.waits.setdefault(name, []).append(seconds)


class Day:
    """The house, its outside and its people."""

    def __init__(self, house: House, signer: SignerClient, size: int) -> None:
        self.house = house
        self.engine: AsyncEngine = house.engine
        self.gateway = house.gateway
        self.signer = signer
        self.size = size
        self.figures = Figures()
        self.rail = EvmRail(house.gateway)
        self.payees = [Account.create().address for _ in range(DEPOSITS)]
        self._deals = self._payouts = self._probes = 0

    async def do(self, work: Work) -> Any:
        """Do *work* in a transaction."""
        return await transact(self.engine, work)

    async def found(self) -> None:
        """Make the registry, agreements, rules and allowed payees, and the house's own coins."""
        now = CLOCK.now()
        xpubs = [await self.signer.account_xpub(f"m/44'/60'/{n}'") for n in range(3)]
        token = address_from_node(self.house.node.token)
        founding = with_clients(demo_founding(xpubs=xpubs, network_id=NETWORK, token=token))
        hot = ""

        async def rules(conn: AsyncConnection) -> None:
            nonlocal hot
            await found(conn, founding, now=now)
            await open_book(conn, BOOK, entity=ENTITY.code, now=now)
            hot = (await assign_address(conn, WALLET, purpose=AddressPurpose.HOT, now=now)).address
            await set_policy(conn, now=now)

        await self.do(rules)
        for number in range(DEPOSITS):
            await self.do(partial(self._introduce, number))
        await self.do(self._capital)
        await self.house.node.rpc.call("anvil_setBalance", hot, hex(FUNDS))
        await self.house.node.give(hot, TOKENS)
        while (await push_control(self.engine, self.signer, now=CLOCK.now())).accepted:
            pass

    async def _introduce(self, number: int, conn: AsyncConnection) -> None:
        now = CLOCK.now()
        party = party_of(number)
        await allow(conn, party, self.payees[number], now=now)
        agreement = Agreement(party=party, effective_from=now.date(), prefunded=True)
        await set_agreement(conn, agreement, now=now)

    async def _capital(self, conn: AsyncConnection) -> None:
        now = CLOCK.now()
        pool = f"custody:{WALLET}"
        lines = [
            (pool, PROBED[0], FUNDS, "ETH"),
            (PROBED[0], PROBED[1], FUNDS // 2, "ETH"),
        ]
        keys = {(path, asset) for line in lines for path in line[:2] for asset in (line[3],)}
        await ensure_accounts(conn, BOOK, sorted(keys), owners={pool: "client"}, now=now)
        batch = [
            transfer(
                derive_id(now, "opening", n), debit, credit, units, asset, code="bench.opening"
            )
            for n, (debit, credit, units, asset) in enumerate(lines)
        ]
        require_applied(await post(conn, BOOK, batch, now=now))

    async def live(self) -> None:
        """Live through the day, with somebody at the books all the time."""
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._probe(over))
            try:
                for part in range(PARTS):
                    await self._part(part)
                    self.figures.memory.append(resident_mib(os.getpid()))
            finally:
                over.set()

    async def _part(self, part: int) -> None:
        timed = self.figures.timed
        await timed("deposits", self._deposit())
        await timed("deals", self._deal())
        await timed("obligations", self._settle(f"part-{part}"))
        await timed("payouts", self._pay_out())

    async def _deposit(self) -> int:
        credited = 0
        for _ in range(max(1, self.size // PARTS // DEPOSITS)):
            await self.house.node.pay_at_once(self.house.payees())
            began = perf_counter()
            credited += await self.house.take()
            self.figures.waited("credited", perf_counter() - began)
        return credited

    async def _deal(self) -> int:
        now = CLOCK.now()
        mid = PriceRecord(
            price=Price.parse("3000", ETH, USDT),
            kind=PriceKind.VENUE_MID,
            quality=Quality.GOOD,
            observed_at=now,
        )
        await self.do(lambda conn: record_price(conn, mid, now=now))
        wanted = self.size // PARTS // 2
        for start in range(0, wanted, DEALS_AT_ONCE):
            batch = [self._asked() for _ in range(min(DEALS_AT_ONCE, wanted - start))]
            began = perf_counter()
            await self.do(partial(self._book, batch))
            self.figures.waited("booked", perf_counter() - began)
        return wanted

    async def _book(self, batch: list[DealRequest], conn: AsyncConnection) -> None:
        for item in await book_deals(conn, batch, book=BOOK, now=CLOCK.now()):
            if not isinstance(item, Deal):
                raise Refused(f"a deal of the day was refused: {item}")

    def _asked(self) -> DealRequest:
        self._deals += 1
        return DealRequest(
            client_ref=f"day-{self._deals}",
            desk="otc",
            party=party_of(self._deals % DEPOSITS),
            side=DealSide.DESK_SELLS,
            base=ETH,
            quote=USDT,
            base_units=DEALT,
            price=Price.parse(f"300{self._deals % 10}", ETH, USDT),
            fee_units=0,
            value_date=CLOCK.now().date(),
            booked_by="system:bench",
        )

    async def _settle(self, window: str) -> int:
        """Pull what deals owe, net it, have it affirmed, seal it and settle it by book."""
        taken = 0
        while pulled := await self.do(
            lambda conn: pull_obligations(conn, book=BOOK, now=CLOCK.now())
        ):
            taken += len(pulled)
        began = perf_counter()
        day = CLOCK.now().date()
        ada = await self.do(lambda conn: get_operator(conn, "ada"))
        cycle = await self.do(
            lambda conn: open_cycle(
                conn, book=BOOK, business_date=day, window=window, by="ada", now=CLOCK.now()
            )
        )
        for run in await self.do(lambda conn: list_cycle_runs(conn, cycle.id)):
            await self.do(partial(affirm_all, run_id=run.id, now=CLOCK.now()))
        while await self.do(lambda conn: seal_cycle(conn, cycle.id, by=ada, now=CLOCK.now())):
            pass
        release = CycleRelease(
            do=InTransactions(self.engine),
            clock=CLOCK,
            book=BOOK,
            by=ada,
            method=Method.FIFO,
            solvers=lambda: BUILT_IN,
        )
        done = await release.all(await self.do(lambda conn: list_cycle_runs(conn, cycle.id)))
        if done.waits:
            raise Refused(f"a settlement of the day waits: {next(iter(done.waits.values()))}")
        closed = await SettlementWorker(engine=self.engine, clock=CLOCK, book=BOOK).turn()
        if len(closed.final) != len(done.settled):
            raise Refused(f"{len(closed.final)} runs are final of {len(done.settled)}")
        self.figures.waited("settled", perf_counter() - began)
        return taken

    async def _pay_out(self) -> int:
        wanted = self.size // PARTS
        for start in range(0, wanted, CLAIM_MAX):
            await self._claim(min(CLAIM_MAX, wanted - start))
            # A block for each claim: what is mined late is sent again, and takes the next one's place.
            await self.house.node.rpc.call("evm_mine")
            await self.house.take()
        confirmed = 0
        while done := await self.do(self._confirm):
            confirmed += done
        if confirmed != wanted:
            states = await self.do(_count_states)
            pool = await self.house.node.rpc.call("txpool_status")
            raise Refused(f"{confirmed} payouts were confirmed of {wanted}: {states}, pool {pool}")
        return wanted

    async def _claim(self, count: int) -> None:
        requests = [self._withdrawal() for _ in range(count)]
        payouts: list[Payout] = await self.do(
            lambda conn: request_payouts(conn, requests, book=BOOK, now=CLOCK.now())
        )
        began = perf_counter()
        await self.do(lambda conn: approve(conn, payouts, now=CLOCK.now()))
        report = await advance_payouts(
            self.engine,
            self.gateway,
            self.signer,
            chain=EVM,
            book=BOOK,
            holder="bench",
            clock=CLOCK,
            rail=self.rail,
        )
        if report.waiting or len(report.sent) != count:
            raise OutsideUnavailable(f"payouts wait: {next(iter(report.waiting.values()), report)}")
        self.figures.waited("broadcast", perf_counter() - began)

    def _withdrawal(self) -> PayoutRequest:
        number = self._payouts % DEPOSITS
        self._payouts += 1
        return PayoutRequest(
            client_ref=f"day-{self._payouts}",
            claim=f"client:{party_of(number)}",
            source_wallet=WALLET,
            asset="USDT",
            amount=PAID_OUT,
            destination=self.payees[number],
            requested_by="dan",
        )

    async def _confirm(self, conn: AsyncConnection) -> int:
        tip = await get_cursor(conn, EVM)
        assert tip is not None
        finalized = tip.height
        done = await confirm_payouts(
            conn,
            EVM,
            book=BOOK,
            tip=tip,
            finalized=finalized,
            requirement=Requirement(1),
            now=CLOCK.now(),
        )
        return len(done)

    async def _probe(self, over: asyncio.Event) -> None:
        """Post one unit again and again, beside everything else."""
        while not over.is_set():
            self._probes += 1
            line = transfer(
                derive_id(CLOCK.now(), "probe", self._probes),
                *PROBED,
                1,
                "ETH",
                code="bench.probe",
            )

            async def work(conn: AsyncConnection, line: Any = line) -> None:
                require_applied(await post(conn, BOOK, [line]))

            began = perf_counter()
            await self.do(work)
            self.figures.waited("posted", perf_counter() - began)
            await asyncio.sleep(PROBE_EVERY_S)

    async def prove(self) -> float:
        """Ask every oracle about the house and the chain; return how long that took, in seconds."""
        began = perf_counter()
        outside = Outside(chains=[EvmView(EVM, self.gateway)])
        report = await examine(self.engine, outside=outside)
        if not report.held:
            raise Refused(f"the books do not hold at the end of the day: {report.findings[:3]}")
        return perf_counter() - began


async def _count_states(conn: AsyncConnection) -> dict[str, int]:
    rows = await conn.execute(text("SELECT state, count(*) FROM custody.payout GROUP BY state"))
    return {state: int(count) for state, count in rows}


def measure(shared: Shared) -> Measured:
    """Live through one day."""
    of = shared.once(books)
    size = shared.size or SIZE
    binary = require_anvil()
    with (
        tempfile.TemporaryDirectory(prefix="causeway-bench-") as folder,
        asyncio.Runner() as runner,
    ):
        stack = AsyncExitStack()
        try:
            node, gateway, engine = runner.run(_open(stack, of, binary))
            token = address_from_node(node.token)
            signer, child = stack.enter_context(signer_process(Path(folder), token))
            day = Day(House(engine, gateway, node, DEPOSITS), signer, size)
            runner.run(day.found())
            runner.run(watch_addresses(of.server.url(DATABASE), DEPOSITS))
            runner.run(day.house.take())
            runner.run(day.live())
            signer_memory = resident_mib(child.pid)
            proven = runner.run(day.prove())
        finally:
            runner.run(stack.aclose())
    return Measured(
        [*_results(day.figures), *_ends(day.figures, proven, signer_memory)],
        of.conditions(
            f"{DEPOSITS:,} clients, {PARTS} parts of a day: {size:,} token deposits and as many token "
            f"payouts on a real anvil, {size // 2:,} deals, {PARTS} settlements by book; one process, the "
            "signer and the node in others"
        ),
        versions("web3", "sqlalchemy", "asyncpg", "aiohttp", "coincurve"),
    )


def _results(figures: Figures) -> list[Result]:
    rates = [
        Result(
            name=f"day.{name}", value=figures.counts[name] / figures.seconds[name], unit=f"{name}/s"
        )
        for name in figures.seconds
    ]
    waits = [
        Result(name=f"day.{name}.p99", value=percentile(seconds, 99) * 1_000, unit="ms")
        for name, seconds in figures.waits.items()
    ]
    return [Result(name="day", value=sum(figures.seconds.values()), unit="s"), *rates, *waits]


def _ends(figures: Figures, proven: float, signer_memory: float) -> list[Result]:
    steady = figures.memory[STEADY_FROM - 1]
    return [
        Result(
            name="day.memory",
            value=figures.memory[-1],
            unit="MiB",
            baseline=f"after part {STEADY_FROM} of {PARTS}",
            baseline_value=steady,
            at_most=GROWTH_MAX,
        ),
        Result(name="day.signer_memory", value=signer_memory, unit="MiB"),
        Result(name="day.proven", value=proven, unit="s until every oracle has held"),
    ]


async def _open(
    stack: AsyncExitStack, of: Books, binary: Path
) -> tuple[Node, EvmGateway, AsyncEngine]:
    await of.administer(f"CREATE DATABASE {DATABASE}")
    stack.push_async_callback(of.administer, f"DROP DATABASE {DATABASE}")
    await migrate(of.server.url(DATABASE))
    arguments = ("--gas-limit", str(BLOCK_GAS), "--no-request-size-limit")
    anvil = await stack.enter_async_context(start_anvil(binary, arguments=arguments))
    session = await stack.enter_async_context(aiohttp.ClientSession())
    node = Node(JsonRpc(anvil.url, session), anvil.url)
    await node.prepare()
    engine = create_engine(of.server.url(DATABASE), role=APP_ROLE)
    stack.push_async_callback(engine.dispose)
    gateway = await stack.enter_async_context(
        EvmGateway(anvil.url, chain=EVM, network_id=NETWORK, trace=False)
    )
    return node, gateway, engine
