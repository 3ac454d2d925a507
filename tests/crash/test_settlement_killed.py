"""The whole cycle killed at every step: each transaction once before its commit and once right after it.

A chain, a bank and the book settle three parties. Whatever was decided in a life that ended counts as
never asked, or stands; nobody is paid twice, on the chain or by the bank, and the books come out even.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local.databases import Database
from app.workers.cycle_release import InTransactions
from app.workers.cycles import CycleWorker
from app.workers.settlement import SettlementWorker
from banks.simulator.bank import Bank
from banks.submission import Outcome, Submission
from chain.follow import get_cursor
from custody.banks import payment_store
from custody.banks.importing import import_file
from custody.banks.payment_files import approval_bytes, approve_file
from custody.banks.payment_model import FileState
from custody.banks.payment_worker import advance_bank_payments
from custody.banks.payments import BankPayments
from custody.payout_model import PayoutState
from custody.payout_worker import advance_payouts
from custody.payouts import list_payouts
from custody.signer_sync import push_control
from custody.testing import allow, approve
from kernel.db import APP_ROLE, create_engine, transact
from kernel.money import Asset, Price
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from ledger.queries import list_open_holds, trial_balance
from registry.model import BANK, BankAccount, Party, PartyKind
from registry.testing import ENTITY, ETH, USDT, change, operator_keypair
from settlement.model import Direction, InstructionState, Run, RunState
from settlement.netting.exact import BUILT_IN
from settlement.queries import list_run_instructions, list_runs
from settlement.windows import set_window, window_bytes
from tests.settlement.desk import ACME_WALLET, BOOK, DAY, Desk, open_desk
from tests.settlement.test_cycle_clocks import window as a_window
from trading.deals import book_deal
from trading.model import DealRequest, DealSide
from trading.terms.model import Rail
from trading.terms.testing import set_standing_instruction

EUR: Final = Asset("EUR", 2)
OURS: Final = BankAccount(
    *("house-eur", "Example Bank", "DE89370400440532013000", "COBADEFFXXX"),
    *("EUR", "house", ENTITY.code),
)
BIRCH: Final = "NL91ABNA0417164300|ABNANL2A|Birch Trading BV"
ENTITY_ID: Final = UUID(int=7)
LIVES_MAX: Final = 220
WRITTEN: Final = re.compile(r"(INSERT INTO|UPDATE|DELETE FROM) ([a-z_]+\.[a-z_]+)")


class Killed(BaseException):
    """The process is gone: nobody catches this."""


@dataclass
class Doom:
    """Kills whoever uses an engine: at each kind of transaction first before, then after the commit.

    A kind is the set of tables that a transaction writes.
    """

    met: Counter[frozenset[str]] = field(default_factory=Counter)
    killed: int = 0
    written: set[str] = field(default_factory=set)
    dying: bool = False
    sockets: list[Any] = field(default_factory=list)

    def listen(self, engine: AsyncEngine) -> None:
        self.dying, self.sockets = False, []
        event.listen(engine.sync_engine, "connect", self._connect)
        event.listen(engine.sync_engine, "begin", self._begin)
        event.listen(engine.sync_engine, "after_cursor_execute", self._wrote)
        event.listen(engine.sync_engine, "commit", self._commit)

    def bury(self) -> None:
        """Close every connection as the kernel does for a process that is gone."""
        for socket in self.sockets:
            socket.driver_connection.terminate()

    def _connect(self, socket: Any, _: object) -> None:
        self.sockets.append(socket)

    def _begin(self, _: object) -> None:
        self.written = set()
        self.end()

    def _wrote(self, conn: object, cursor: object, statement: str, *_: object) -> None:
        self.written |= {f"{verb} {table}" for verb, table in WRITTEN.findall(statement)}

    def _commit(self, _: object) -> None:
        kind = frozenset(self.written)
        if not kind:
            return
        self.met[kind] += 1
        if self.met[kind] == 1:
            self.killed += 1
            raise Killed
        self.dying = self.met[kind] == 2

    def end(self) -> None:
        """Die of what was committed last."""
        if self.dying:
            self.dying = False
            self.killed += 1
            raise Killed


@dataclass
class Door:
    """The bank's door; each copy that comes is kept. Of every second one nobody hears."""

    bank: Bank
    copies: list[tuple[str, bytes]] = field(default_factory=list)

    async def submit(self, name: str, content: bytes) -> Submission:
        self.copies.append((name, content))
        self.bank.execute({"verb": "order", "content": content.hex()})
        said = Outcome.UNKNOWN if len(self.copies) % 2 else Outcome.TAKEN
        return Submission(said)


@dataclass
class House:
    """The desk, its bank, the doomed engine of its workers, and the people who are not doomed."""

    desk: Desk
    url: str
    doom: Doom
    bank: Bank
    door: Door
    lives: int = 0
    paid: set[str] = field(default_factory=set)
    taken_in: set[str] = field(default_factory=set)

    async def live(self) -> None:
        """One life of all workers, in a process of their own as far as PostgreSQL can tell."""
        self.lives += 1
        engine = create_engine(
            self.url, role=APP_ROLE, injected_clock=True, idle_in_transaction_timeout_ms=60_000
        )
        self.doom.listen(engine)
        try:
            await self._work(engine, f"life-{self.lives}")
            self.doom.end()
        except Killed:
            self.doom.bury()
        finally:
            await engine.dispose()

    async def _work(self, engine: AsyncEngine, name: str) -> None:
        desk = self.desk
        doing = InTransactions(engine)
        cycles = CycleWorker(
            do=doing, clock=desk.clock, book=BOOK, holder=name, solvers=lambda: BUILT_IN
        )
        await cycles.turn()
        await SettlementWorker(engine=engine, clock=desk.clock, book=BOOK).turn()
        await advance_payouts(
            *(engine, desk.gateway, desk.signer),
            chain="evm",
            book=BOOK,
            holder=name,
            clock=desk.clock,
        )
        doors = {OURS.code: self.door}
        await advance_bank_payments(engine, doors, book=BOOK, holder=name, clock=desk.clock)
        for file, raw in sorted(self.bank.files.items()):
            if file.startswith("statement") and file not in self.taken_in:
                await transact(engine, partial(self._take_in, file, raw))
                self.taken_in.add(file)

    async def _take_in(self, name: str, raw: bytes, conn: AsyncConnection) -> None:
        now = self.desk.now
        await import_file(conn, raw, name=name, payments=BankPayments(), now=now)

    async def outside(self) -> None:
        """What happens whoever lives: time, people, parties, blocks, the bank's day."""
        desk = self.desk
        desk.clock.advance(timedelta(minutes=3))
        for run in await desk.do(lambda conn: list_runs(conn, BOOK, {RunState.CALCULATED})):
            await desk.affirm_all(run.id)
        for run in await desk.do(lambda conn: list_runs(conn, BOOK, {RunState.RELEASED})):
            await self._pay_us(run)
        waiting = await desk.do(
            lambda conn: list_payouts(conn, book=BOOK, states={PayoutState.PENDING_APPROVAL})
        )
        if waiting:
            await desk.do(lambda conn: approve(conn, waiting, now=desk.now, by="ben"))
        await self._sign_files()
        await push_control(desk.engine, desk.signer, now=desk.now)
        await desk.mine(3)
        if self.bank.state()["waiting"]:
            self.bank.execute({"verb": "end-of-day"})

    async def _pay_us(self, run: Run) -> None:
        for item in await self.desk.do(lambda conn: list_run_instructions(conn, run.id)):
            if (
                item.direction is Direction.RECEIVE
                and item.rail is Rail.EVM
                and item.state is InstructionState.RELEASED
                and item.party not in self.paid
            ):
                self.paid.add(item.party)
                await self.desk.receive(item.amount, party=item.party, asset=item.asset)

    async def _sign_files(self) -> None:
        async def sign(conn: AsyncConnection) -> None:
            for file in await payment_store.list_files(conn, book=BOOK):
                if file.state is FileState.DRAFTED:
                    for code in ("ben", "cleo"):
                        await approve_file(
                            conn,
                            file.id,
                            by=self.desk.operators[code],
                            signature=operator_keypair(code).sign(approval_bytes(file)),
                            now=self.desk.now,
                        )

        await self.desk.do(sign)

    async def is_final(self) -> bool:
        runs = await self.desk.do(lambda conn: list_runs(conn, BOOK))
        return len(runs) == 3 and {run.state for run in runs} == {RunState.FINAL}


async def three_parties(desk: Desk) -> None:
    """Acme settles on the chain, birch is paid through the bank, cedar has funds here."""

    async def rules(conn: AsyncConnection) -> None:
        for record in (EUR, OURS, Party("cedar", PartyKind.CLIENT, ENTITY.code)):
            await change(conn, record, now=desk.now)
        await allow(conn, "birch", BIRCH, now=desk.now, chain=BANK)
        await set_standing_instruction(conn, "birch", "EUR", BIRCH, now=desk.now, rail=Rail.BANK)
        made = replace(
            a_window(),
            **_values(
                effective_from=DAY,
                cut_off=time(10, 30),
                affirm_minutes=15,
                top_up_minutes=3,
                release_minutes=3,
                releases_by_clock=True,
            ),
        )
        await set_window(
            conn,
            made,
            by=desk.operators["ada"],
            approver=desk.operators["ben"],
            signature=operator_keypair("ben").sign(window_bytes(made)),
            now=desk.now,
        )
        keys = {("bank:house-eur", "EUR"), ("equity:capital", "EUR")}
        await ensure_accounts(conn, BOOK, keys, now=desk.now)
        line = transfer(
            ENTITY_ID, "bank:house-eur", "equity:capital", 1_000_000, "EUR", code="test.opening"
        )
        require_applied(await post(conn, BOOK, [line], now=desk.now))

    await desk.do(rules)
    for party in ("acme", "birch"):
        await desk.agree(party)
    await desk.agree("cedar", prefunded=True)
    await desk.instruct("acme", "ETH", ACME_WALLET)
    await desk.capital(
        ("custody:house-hot", "equity:capital", "20", "ETH"),
        ("custody:client-pool", "client:cedar", "31000", "USDT"),
        ("custody:client-pool", "equity:capital", "10", "ETH"),
    )
    await desk.deal("acme")
    await desk.deal("cedar", party="cedar")
    request = DealRequest(
        client_ref="birch",
        desk="otc",
        party="birch",
        side=DealSide.DESK_BUYS,
        base=ETH,
        quote=EUR,
        base_units=ETH.parse("1"),
        price=Price.parse("3000", ETH, EUR),
        fee_units=0,
        value_date=DAY,
        booked_by="dan",
    )
    await desk.do(lambda conn: book_deal(conn, request, book=BOOK, now=desk.now))


def _values(**values: Any) -> dict[str, Any]:
    return values


@pytest.mark.timeout(300)
async def test_a_cycle_killed_at_every_step_pays_each_party_once(
    engine: AsyncEngine,
    database: Database,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    doom = Doom()
    bank = Bank(date(2026, 1, 5))
    bank.execute({"verb": "account", "iban": OURS.iban, "currency": "EUR", "balance": 1_000_000})
    async with open_desk(engine, tmp_path) as desk:
        await three_parties(desk)
        house = House(desk, database.app_url, doom, bank, Door(bank))
        desk.clock.advance(datetime(2026, 1, 5, 9, 30, tzinfo=UTC) - desk.now)
        while house.lives < LIVES_MAX and not await house.is_final():
            await house.live()
            await house.outside()

        assert await house.is_final(), house.lives
        await _paid_once(house)
    record_property(
        "counts",
        f"settlement killed: {doom.killed} times in {house.lives} lives, {len(doom.met)} kinds of"
        f" transactions, {len(house.door.copies)} copies of a bank file",
    )
    assert doom.killed >= len(doom.met) * 2 - 4


async def _paid_once(house: House) -> None:
    desk = house.desk
    payouts = await desk.do(lambda conn: list_payouts(conn, book=BOOK))
    assert {p.state for p in payouts} == {PayoutState.CONFIRMED}
    assert sorted((p.party, p.asset, p.amount) for p in payouts) == [
        ("acme", "ETH", ETH.parse("10")),
        ("birch", "EUR", 300_000),
    ]
    # The chain and the bank say so themselves.
    tip = await desk.do(lambda conn: get_cursor(conn, "evm"))
    assert tip is not None
    assert await desk.gateway.balance(ACME_WALLET, None, at=tip) == ETH.parse("10")
    assert list(house.bank.state()["paid"].values()) == [1]
    assert house.bank.accounts[OURS.iban].balance == 1_000_000 - 300_000
    assert len(set(house.door.copies)) == 1
    rows = await desk.do(lambda conn: trial_balance(conn, BOOK))
    open_ones = ("payable", "receivable", "in-flight", "transit", "suspense")
    assert {r.path: r.balance for r in rows if r.balance and r.path.startswith(open_ones)} == {}
    assert await desk.do(lambda conn: list_open_holds(conn, BOOK)) == []
    cedar = {r.asset: r.balance for r in rows if r.path == "client:cedar"}
    assert cedar == {"ETH": ETH.parse("10"), "USDT": USDT.parse("700")}
