"""How long does a settlement of 10,000 instructions take, and how much memory?

No agreement nets anything, so 10,000 obligations become 10,000 instructions, in three windows of one
day: calculated, affirmed by twenty parties, sealed, released: chosen by order, held in the ledger, and
each made a payout before its approvals. What happens to payouts afterwards, `evm_payouts` measures. There
is nothing to hold it against: time and memory of each step are told as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from time import perf_counter
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from app.workers.cycle_release import CycleRelease, InTransactions
from bench.ledger_book import BOOK, Book, books, used
from bench.measure import Measured, Result, Shared, peak_memory_kib
from custody.addresses import assign_address
from custody.model import AddressPurpose
from custody.testing import allow, set_policy
from kernel.clock import ManualClock
from kernel.db import APP_ROLE, create_engine, transact
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from registry.changes import found
from registry.model import Party, PartyKind
from registry.queries import get_operator
from registry.testing import ENTITY, demo_founding
from settlement.import_model import ImportedObligation
from settlement.imports import import_obligations
from settlement.model import Direction, Run
from settlement.netting.exact import BUILT_IN
from settlement.netting.model import Method
from settlement.queries import get_run
from settlement.runs import open_run, seal
from settlement.testing import affirm_all
from trading.terms.testing import set_standing_instruction

INSTRUCTIONS: Final = 10_000
PART: Final = 1_000
PARTIES: Final = tuple(f"party-{number:02}" for number in range(20))
AMOUNT: Final = 10**6
DAY: Final = date(2026, 1, 5)
START: Final = datetime(2026, 1, 5, 9, tzinfo=UTC)
WINDOWS: Final = ("one", "two", "three")
PAYEE: Final = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
UNITS_PER_KIB: Final = 1024

Work = Callable[[AsyncConnection], Coroutine[Any, Any, Any]]


def measure(shared: Shared) -> Measured:
    """Measure one settlement, step by step."""
    servers = shared.once(books)
    with servers.book("settlement_run") as book:
        desk = _Desk(book)
        book.runner.run(desk.found())
        before = peak_memory_kib()
        book.runner.run(desk.settle())
        book.runner.run(desk.engine.dispose())
        grown = peak_memory_kib() - before
    seconds = desk.seconds
    return Measured(
        [
            Result(name="settlement_run", value=sum(seconds.values()), unit="s"),
            *(
                Result(name=f"settlement_run.{name}", value=value, unit="s")
                for name, value in seconds.items()
            ),
            Result(name="settlement_run.memory", value=grown / UNITS_PER_KIB, unit="MiB"),
        ],
        servers.conditions(
            f"{INSTRUCTIONS:,} instructions of one asset for {len(PARTIES)} parties, no agreement,"
            f" {len(WINDOWS)} windows of one day, one turn; {desk.payouts:,} payouts requested"
        ),
        used(),
    )


class _Desk:
    """A desk that owes much to many, and the steps of settling it."""

    def __init__(self, book: Book) -> None:
        # The limits are those of the product: a step that idles in a transaction for too long fails.
        self.engine = create_engine(book.server.url(book.name), role=APP_ROLE)
        self.clock = ManualClock(START)
        self.seconds: dict[str, float] = {}
        self.payouts = 0

    async def do(self, work: Work) -> Any:
        return await transact(self.engine, work)

    async def found(self) -> None:
        """Make the registry, the rules, the funds and the obligations with their claims."""
        now = self.clock.now()
        parties = tuple(Party(code, PartyKind.CLIENT, ENTITY.code) for code in PARTIES)
        founding = demo_founding()
        await self.do(
            lambda conn: found(
                conn, replace(founding, parties=(*founding.parties, *parties)), now=now
            )
        )

        async def rules(conn: AsyncConnection) -> None:
            await assign_address(conn, "house-hot", purpose=AddressPurpose.HOT, now=now)
            await set_policy(conn, now=now)
            for code in PARTIES:
                await allow(conn, code, PAYEE, now=now)
                await set_standing_instruction(conn, code, "USDT", PAYEE, now=now)

        await self.do(rules)
        await self.do(self._fund)
        rows = [
            ImportedObligation(
                key=f"bench/{number}",
                party=PARTIES[number % len(PARTIES)],
                direction=Direction.PAY,
                asset="USDT",
                amount=AMOUNT,
                value_date=DAY,
            )
            for number in range(INSTRUCTIONS)
        ]
        for start in range(0, INSTRUCTIONS, PART):
            part = rows[start : start + PART]
            await self.do(partial(self._import, part, now))

    async def _import(
        self, rows: Sequence[ImportedObligation], now: datetime, conn: AsyncConnection
    ) -> None:
        why = "a settlement to measure"
        await import_obligations(conn, rows, book=BOOK, by="ada", reason=why, now=now)

    async def _fund(self, conn: AsyncConnection) -> None:
        claims = [f"payable:{code}:open" for code in PARTIES]
        paths = ["custody:house-hot", "equity:opening", *claims]
        await ensure_accounts(conn, BOOK, [(path, "USDT") for path in paths])
        owed = AMOUNT * INSTRUCTIONS // len(PARTIES)
        lines = [("custody:house-hot", "equity:opening", AMOUNT * INSTRUCTIONS)]
        lines += [("equity:opening", claim, owed) for claim in claims]
        batch = [
            transfer(derive_id(START, "bench", n), debit, credit, units, "USDT", code="bench")
            for n, (debit, credit, units) in enumerate(lines)
        ]
        require_applied(await post(conn, BOOK, batch))

    async def settle(self) -> None:
        """Take every window from its calculation to its payouts."""
        for window in WINDOWS:
            run = await self._timed("calculate", self._calculate(window))
            await self._timed("affirm", self._affirm(run))
            await self._timed("seal", self._seal(run))
            await self._timed("release", self._release(run))
            self.clock.advance(self.clock.now() - START)

    async def _timed(self, name: str, step: Coroutine[Any, Any, Any]) -> Any:
        began = perf_counter()
        result = await step
        self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - began
        return result

    async def _calculate(self, window: str) -> Run:
        now = self.clock.now()
        run: Run
        run, _ = await self.do(
            lambda conn: open_run(conn, book=BOOK, value_date=DAY, window=window, by="ada", now=now)
        )
        return run

    async def _affirm(self, run: Run) -> None:
        await self.do(lambda conn: affirm_all(conn, run.id, now=self.clock.now()))

    async def _seal(self, run: Run) -> None:
        async def work(conn: AsyncConnection) -> None:
            ada = await get_operator(conn, "ada")
            await seal(conn, run.id, by=ada, now=self.clock.now())

        await self.do(work)

    async def _release(self, run: Run) -> None:
        job = CycleRelease(
            do=InTransactions(self.engine),
            clock=self.clock,
            book=BOOK,
            by=await self.do(lambda conn: get_operator(conn, "ada")),
            method=Method.FIFO,
            solvers=lambda: BUILT_IN,
        )
        done = await job.all([await self.do(lambda conn: get_run(conn, run.id))])
        self.payouts += len(done.payouts)
