"""A house with accounts at a bank, for the stories of what statements bring."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from banks.simulator.bank import Bank
from custody.banks.entry_model import BankReceipt, BankReceiptKind, BookedEntry
from custody.banks.importing import ImportReport, import_file
from custody.banks.receipts import list_bank_receipts
from custody.banks.statement_ports import Booked, Payments
from custody.plan import Plan
from kernel.clock import ManualClock
from kernel.db import transact
from kernel.ids import derive_id
from kernel.money import Asset
from ledger.model import transfer
from ledger.posting import open_book
from ledger.queries import list_accounts
from registry.changes import found
from registry.model import BankAccount
from registry.testing import ENTITY, change, demo_founding

T = TypeVar("T")

BOOK = ENTITY.book
IBAN = "DE89370400440532013000"
CLIENTS_IBAN = "DE02120300000000202051"
PAYER = "DE75512108001245126199"
TODAY = date(2026, 1, 5)


async def register_accounts(conn: AsyncConnection) -> None:
    """Register euros, an account of the house and one of clients."""
    now = datetime(2026, 1, 5, 20, tzinfo=UTC)
    for record in (
        Asset("EUR", 2),
        BankAccount("desk-eur", "Sim", IBAN, "SIMBDEFF", "EUR", "house", ENTITY.code),
        BankAccount("pool-eur", "Sim", CLIENTS_IBAN, "SIMBDEFF", "EUR", "client", ENTITY.code),
    ):
        await change(conn, record, now=now)


@dataclass
class OurPayments:
    """Knows some references as payments of ours, and books them as the payout desk would."""

    references: set[str] = field(default_factory=set)
    seen: list[BookedEntry] = field(default_factory=list)

    async def record_booked(
        self, conn: AsyncConnection, entries: Sequence[BookedEntry], *, now: datetime
    ) -> Booked:
        plan, mine = Plan(), [item for item in entries if item.end_to_end in self.references]
        self.seen += mine
        for item in mine:
            accounts = ("in-flight:bank", f"bank:{item.account}")
            debit, credit = accounts if item.amount < 0 else accounts[::-1]
            key = derive_id(now, "test", item.id)
            units = abs(item.amount)
            plan.need(accounts[1], item.asset, owner="house")
            plan.post(transfer(key, debit, credit, units, item.asset, code="test.payment"))
        return Booked(frozenset(item.id for item in mine), plan)


@dataclass
class BankHouse:
    """One account of the house and one of clients, both in euros."""

    engine: AsyncEngine
    clock: ManualClock = field(
        default_factory=lambda: ManualClock(datetime(2026, 1, 5, 20, tzinfo=UTC))
    )
    bank: Bank = field(default_factory=lambda: Bank(TODAY))
    payments: OurPayments = field(default_factory=OurPayments)

    async def open(self) -> BankHouse:
        await self.found()
        return self.with_accounts()

    async def found(self) -> None:
        """Write what is there before the first statement comes."""
        await self.do(lambda conn: found(conn, demo_founding(), now=self.now))
        await self.do(lambda conn: open_book(conn, BOOK, entity=ENTITY.code, now=self.now))
        await self.do(register_accounts)

    def with_accounts(self) -> BankHouse:
        """Open the accounts at the bank."""
        for iban in (IBAN, CLIENTS_IBAN):
            self.bank.execute({"verb": "account", "iban": iban, "currency": "EUR"})
        return self

    @property
    def now(self) -> datetime:
        return self.clock.now()

    async def do(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        return await transact(self.engine, work)

    def credit(self, amount: int, end_to_end: str = "", **sent: str | int) -> None:
        values = {"account": IBAN, "amount": amount, "end_to_end": end_to_end, "iban": PAYER}
        self.bank.execute({"verb": "credit", **values, "name": "Acme", **sent})

    def fault(self, kind: str, **sent: int) -> None:
        self.bank.execute({"verb": "fault", "kind": kind, **sent})

    def end_of_day(self, days: int = 1) -> list[bytes]:
        """End days; return the statements of the house's account."""
        names: list[str] = self.bank.execute({"verb": "end-of-day", "days": days})
        return [self.bank.files[name] for name in names if IBAN in name]

    async def take_in(
        self, raw: bytes, name: str = "s.xml", payments: Payments | None = None
    ) -> ImportReport:
        asked = payments or self.payments
        return await self.do(
            lambda conn: import_file(conn, raw, name=name, payments=asked, now=self.now)
        )

    async def receipts(self) -> list[BankReceipt]:
        kinds = tuple(BankReceiptKind)
        return await self.do(lambda conn: list_bank_receipts(conn, BOOK, kinds=kinds))

    async def balances(self) -> dict[str, int]:
        """Return debits less credits of every account that is not even, by path."""
        accounts = await self.do(lambda conn: list_accounts(conn, BOOK))
        sums = {
            a.path: a.balance.debits_posted - a.balance.credits_posted
            for a in accounts
            if a.asset == "EUR"
        }
        return {path: units for path, units in sums.items() if units}
