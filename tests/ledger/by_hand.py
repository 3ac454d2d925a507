"""A small house for what is done to its books by hand: operators with keys, two books, a clock."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import ManualClock
from kernel.db import transact
from kernel.events import DomainEvent, list_history
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.journals.decisions import journal_bytes, period_bytes
from ledger.journals.manual import approve_journal, get_journal, propose_journal
from ledger.journals.model import JournalRequest, ManualJournal, PeriodProposal
from ledger.journals.periods import approve_period, get_period
from ledger.journals.templates import Capital, CapitalAction, Template
from ledger.model import PostResult, Transfer, transfer
from ledger.posting import open_book, post
from ledger.queries import get_balance
from registry.changes import found
from registry.model import LegalEntity, Role
from registry.testing import demo_founding, operator, operator_keypair

T = TypeVar("T")

BOOK = 1
OTHER = 2
START = datetime(2026, 1, 5, 9, tzinfo=UTC)
DOCUMENT = hashlib.sha256(b"a document").hexdigest()
OPERATORS = (
    operator("ada", Role.ADMIN, Role.TREASURER),
    operator("ben", Role.ADMIN, Role.APPROVER),
    operator("cleo", Role.APPROVER, Role.FINANCE),
    operator("dan", Role.DEALER, Role.OPERATIONS),
    operator("eve", Role.FINANCE),
    operator("gone", Role.FINANCE, Role.APPROVER, active=False),
)


@dataclass
class Hand:
    """Two books, and short calls of the verbs."""

    engine: AsyncEngine
    clock: ManualClock = field(default_factory=lambda: ManualClock(START))

    async def do(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        return await transact(self.engine, work)

    async def post(self, *batch: Transfer, book: int = BOOK) -> list[PostResult]:
        keys = {(path, item.asset) for item in batch for path in (item.debit, item.credit) if path}
        now = self.clock.now()
        await self.do(lambda conn: ensure_accounts(conn, book, keys, now=now))
        return await self.do(lambda conn: post(conn, book, list(batch), now=now))

    async def move(
        self, name: str, debit: str, credit: str, amount: int, asset: str = "USDT", **more: Any
    ) -> PostResult:
        book = more.pop("book", BOOK)
        item = transfer(derive_id(START, name), debit, credit, amount, asset, code="test", **more)
        (result,) = await self.post(item, book=book)
        return result

    async def balance(self, path: str, asset: str = "USDT", book: int = BOOK) -> int:
        return (await self.do(lambda conn: get_balance(conn, book, path, asset))).posted

    async def history(self, kind: str, item: Any) -> list[DomainEvent]:
        return await self.do(lambda conn: list_history(conn, kind, item.id))

    # Manual journals.

    async def propose(self, template: Template | None = None, **changes: Any) -> ManualJournal:
        by = changes.pop("by", "eve")
        values: dict[str, Any] = {
            "reference": "mj-1",
            "template": template or CAPITAL,
            "reason": "the owners' first payment",
            "attachment": DOCUMENT,
            "effective_on": self.clock.now().date(),
            **changes,
        }
        now = self.clock.now()
        return await self.do(
            lambda conn: propose_journal(conn, JournalRequest(**values), book=BOOK, by=by, now=now)
        )

    async def approve(
        self, item: ManualJournal, by: str = "ben", signature: bytes | None = None
    ) -> ManualJournal:
        signed = signature or operator_keypair(by).sign(journal_bytes(item))
        now = self.clock.now()
        return await self.do(
            lambda conn: approve_journal(conn, item.id, by=by, signature=signed, now=now)
        )

    async def journal(self, item: ManualJournal) -> ManualJournal:
        return await self.do(lambda conn: get_journal(conn, item.id))

    # Periods.

    async def approve_period(
        self, item: PeriodProposal, by: str, signature: bytes | None = None
    ) -> PeriodProposal:
        signed = signature or operator_keypair(by).sign(period_bytes(item))
        now = self.clock.now()
        return await self.do(
            lambda conn: approve_period(conn, item.id, by=by, signature=signed, now=now)
        )

    async def period(self, item: PeriodProposal) -> PeriodProposal:
        return await self.do(lambda conn: get_period(conn, item.id))

    def later(self, **interval: int) -> datetime:
        return self.clock.advance(timedelta(**interval))


CAPITAL = Capital(action=CapitalAction.PAID_IN, holding="bank:main", asset="USDT", amount=1_000_000)


async def open_house(engine: AsyncEngine, owners: Mapping[str, str] | None = None) -> Hand:
    """Found the registry with two entities, and open a book for each."""
    hand = Hand(engine)
    founding = demo_founding(operators=OPERATORS)
    second = LegalEntity("causeway-trust", "Causeway Trust Ltd", OTHER)

    async def work(conn: AsyncConnection) -> None:
        entities = (*founding.entities, second)
        whole = type(founding)(
            entities=entities,
            assets=founding.assets,
            chains=founding.chains,
            chain_assets=founding.chain_assets,
            parties=founding.parties,
            operators=founding.operators,
            wallets=founding.wallets,
        )
        await found(conn, whole, now=START)
        for entity in entities:
            await open_book(conn, entity.book, entity=entity.code, now=START)
            if owners:
                keys = [(path, "USDT") for path in owners]
                await ensure_accounts(conn, entity.book, keys, owners=owners, now=START)

    await hand.do(work)
    return hand
