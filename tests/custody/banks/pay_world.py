"""A small desk that pays through a bank: two accounts, two payees, a door that says what it is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from banks.submission import Outcome, Submission
from custody.banks import payment_files as files
from custody.banks import payment_store as store
from custody.banks.entry_model import BookedEntry
from custody.banks.payment_files import approval_bytes, approve_file
from custody.banks.payment_model import PaymentFile, PaymentLine
from custody.banks.payment_reports import TakenReport, take_report
from custody.banks.payment_worker import BankWork, advance_bank_payments
from custody.banks.payments import BankPayments
from custody.books import apply_plan
from custody.payout_model import Payout, PayoutRequest
from custody.payouts import get_payout, request_payout
from custody.testing import allow, approve, set_policy
from kernel.clock import ManualClock
from kernel.db import transact
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import open_book, post, require_applied
from ledger.queries import trial_balance
from registry.changes import found
from registry.model import BANK
from registry.queries import get_operator
from registry.testing import (
    BANK_ACCOUNTS,
    ENTITY,
    demo_founding,
    operator_keypair,
    with_banks,
)

T = TypeVar("T")

BOOK = ENTITY.book
START = datetime.fromisoformat("2026-01-05T09:00:00+00:00")
CLIENTS, HOUSE = BANK_ACCOUNTS
ACME = "GB82WEST12345698765432|WESTGB22|Acme GmbH"
BIRCH = "NL91ABNA0417164300|ABNANL2A|Birch Trading BV"
OPENING = (
    ("bank:client-eur", "client:acme", 500_000),
    ("bank:house-eur", "payable:birch:netted", 90_000),
    ("bank:house-eur", "equity:capital", 10_000),
)


@dataclass(slots=True)
class Door:
    """A bank's door: says the next of *answers* (then: taken), and keeps every copy that it gets."""

    answers: list[Submission] = field(default_factory=list)
    copies: list[tuple[str, bytes]] = field(default_factory=list)

    async def submit(self, name: str, content: bytes) -> Submission:
        self.copies.append((name, content))
        return self.answers.pop(0) if self.answers else Submission(Outcome.TAKEN)


@dataclass(slots=True)
class World:
    engine: AsyncEngine
    clock: ManualClock = field(default_factory=lambda: ManualClock(START))
    door: Any = field(default_factory=Door)
    worker: str = "worker-1"

    @property
    def now(self) -> datetime:
        return self.clock.now()

    async def run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        return await transact(self.engine, work)

    async def request(self, *, book: int = BOOK, **changes: Any) -> Payout:
        values: dict[str, Any] = {
            "client_ref": "w-1",
            "claim": "client:acme",
            "source_wallet": CLIENTS.code,
            "asset": "EUR",
            "amount": 10_050,
            "destination": ACME,
            "requested_by": "dan",
            "rail": BANK,
        }
        request = PayoutRequest(**{**values, **changes})
        return await self.run(lambda c: request_payout(c, request, book=book, now=self.now))

    async def approved(self, **changes: Any) -> Payout:
        payout = await self.request(**changes)
        (after,) = await self.run(lambda c: approve(c, [payout], now=self.now, by="ben"))
        return after

    async def owed(self, **changes: Any) -> Payout:
        """An approved payout of what the desk owes birch, from its own account."""
        own = {"claim": "payable:birch:netted", "source_wallet": HOUSE.code, "destination": BIRCH}
        return await self.approved(**{**own, "client_ref": "s-1", **changes})

    async def advance(self, **how: Any) -> BankWork:
        self.clock.advance(timedelta(seconds=31))
        doors = {HOUSE.code: self.door, CLIENTS.code: self.door}
        return await advance_bank_payments(
            *(self.engine, doors), book=BOOK, holder=self.worker, clock=self.clock, **how
        )

    async def sign_file(self, file_id: UUID, by: str) -> PaymentFile:
        file = await self.file(file_id)
        signature = operator_keypair(by).sign(approval_bytes(file))

        async def work(conn: AsyncConnection) -> PaymentFile:
            person = await get_operator(conn, by)
            return await approve_file(conn, file_id, by=person, signature=signature, now=self.now)

        return await self.run(work)

    async def drafted(self) -> PaymentFile:
        """The file that the worker writes now."""
        (file_id,) = (await self.advance()).drafted
        return await self.file(file_id)

    async def signed_file(self) -> PaymentFile:
        """The file that the worker writes now, approved by two people."""
        file = await self.drafted()
        await self.sign_file(file.id, "ben")
        return await self.sign_file(file.id, "cleo")

    async def submitted(self, **changes: Any) -> tuple[Payout, PaymentFile]:
        """A client's payout whose file the bank's door has taken."""
        payout = await self.approved(**changes)
        file = await self.signed_file()
        await self.advance()
        return await self.get(payout), await self.file(file.id)

    async def get(self, payout: Payout) -> Payout:
        return await self.run(lambda conn: get_payout(conn, payout.id))

    async def file(self, file_id: UUID) -> PaymentFile:
        return await self.run(lambda conn: store.get_file(conn, file_id))

    async def lines(self, file_id: UUID) -> list[PaymentLine]:
        return await self.run(lambda conn: store.list_lines(conn, file_id))

    async def report(self, raw: bytes) -> TakenReport:
        return await self.run(lambda conn: take_report(conn, raw, by="dan", now=self.now))

    async def book(self, *entries: BookedEntry) -> frozenset[UUID]:
        """Take booked entries in, as a statement's import does; return those that are ours."""

        async def work(conn: AsyncConnection) -> frozenset[UUID]:
            booked = await BankPayments().record_booked(conn, entries, now=self.now)
            await apply_plan(conn, booked.plan, book=BOOK, now=self.now)
            return booked.taken

        return await self.run(work)

    async def books(self) -> dict[str, tuple[int, int, int]]:
        """(balance, debits pending, credits pending) by path, where not all zero."""
        rows = await self.run(lambda conn: trial_balance(conn, BOOK))
        found = {r.path: (r.balance, r.debits_pending, r.credits_pending) for r in rows}
        return {key: value for key, value in found.items() if any(value)}


def entry(payout: Payout, amount: int, *, number: int = 1, **changes: Any) -> BookedEntry:
    """A line of a statement about a payment: *amount* is what the account gained."""
    values: dict[str, Any] = {
        "id": derive_id(START, "line", payout.id, number),
        "entry_id": derive_id(START, "entry", payout.id, number),
        "line": 0,
        "book": payout.book,
        "account": payout.source_wallet,
        "asset": payout.asset,
        "amount": amount,
        "end_to_end": files.end_to_end_of(payout.id),
        "bank_ref": "",
        "booking_date": date(2026, 1, 6),
        "value_date": date(2026, 1, 6),
    }
    return BookedEntry(**{**values, **changes})


def status_report(
    file: PaymentFile, group: str = "", *lines: tuple[str, str, str], more: str = ""
) -> bytes:
    """A pain.002 about a file; *lines* are (EndToEndId, status, reason code)."""
    said = "".join(
        f"<TxInfAndSts><OrgnlEndToEndId>{end_to_end}</OrgnlEndToEndId><TxSts>{status}</TxSts>"
        f"<StsRsnInf><Rsn><Cd>{reason}</Cd></Rsn></StsRsnInf></TxInfAndSts>"
        for end_to_end, status, reason in lines
    )
    block = f"<OrgnlPmtInfAndSts><OrgnlPmtInfId>{file.message_id}</OrgnlPmtInfId>{said}"
    status = f"<GrpSts>{group}</GrpSts>" if group else ""
    return (
        '<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.002.001.10"><CstmrPmtStsRpt>'
        "<GrpHdr><MsgId>S1</MsgId></GrpHdr><OrgnlGrpInfAndSts>"
        f"<OrgnlMsgId>{file.message_id}</OrgnlMsgId>{status}{more}</OrgnlGrpInfAndSts>"
        f"{block}</OrgnlPmtInfAndSts></CstmrPmtStsRpt></Document>"
    ).encode()


async def make_world(engine: AsyncEngine) -> World:
    world = World(engine)
    await world.run(lambda conn: _found(conn, world.now))
    return world


async def _found(conn: AsyncConnection, now: datetime) -> None:
    await found(conn, with_banks(demo_founding()), now=now)
    await open_book(conn, BOOK, entity=ENTITY.code, now=now)
    await set_policy(conn, now=now)
    await allow(conn, "acme", ACME, now=now, chain=BANK)
    await allow(conn, "birch", BIRCH, now=now, chain=BANK)
    keys = {(path, "EUR") for debit, credit, _ in OPENING for path in (debit, credit)}
    owners = {"bank:client-eur": "client", "bank:house-eur": "house"}
    await ensure_accounts(conn, BOOK, keys, owners=owners, now=now)
    batch = [
        transfer(
            *(derive_id(now, "opening", number), debit, credit, amount, "EUR"), code="test.opening"
        )
        for number, (debit, credit, amount) in enumerate(OPENING)
    ]
    require_applied(await post(conn, BOOK, batch, now=now))
