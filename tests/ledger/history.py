"""A random book, and what it must answer: told from the requests alone, by adding up a list."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts, set_frozen
from ledger.model import (
    Balance,
    HoldState,
    Kind,
    PostResult,
    Side,
    Transfer,
    hold,
    post_hold,
    reversal,
    transfer,
    void_hold,
)
from ledger.posting import open_book, post

BOOK = 1
BEGIN = datetime(2026, 3, 1, 20, 0, tzinfo=UTC)
OWNERS = {"custody:pool": "client", "custody:pool:cold": "client", "bank:omnibus": "client"}
PATHS = {
    "custody:pool": Side.DEBIT,
    "custody:pool:cold": Side.DEBIT,
    "custody:house": Side.DEBIT,
    "bank:omnibus": Side.DEBIT,
    "client:a": Side.CREDIT,
    "client:a:held": Side.CREDIT,
    "client:a-2": Side.CREDIT,
    "client:b": Side.CREDIT,
    "suspense:x": Side.CREDIT,
    "equity:capital": Side.CREDIT,
}
ASSETS = ("X", "Y")
CODES = ("one", "two", "rare")
Key = tuple[str, str]


@dataclass
class Fact:
    """An applied transfer."""

    sequence: int
    recorded_at: datetime
    request: Transfer
    kind: Kind
    debit: Key
    credit: Key
    amount: int
    held: int
    effective_at: datetime | None

    @property
    def asset(self) -> str:
        return self.debit[1]

    @property
    def effective_on(self) -> date:
        return (self.effective_at or self.recorded_at).astimezone(UTC).date()

    @property
    def posted(self) -> int:
        return self.amount if self.kind in {Kind.SINGLE, Kind.POST, Kind.REVERSAL} else 0

    @property
    def pending(self) -> int:
        if self.kind is Kind.PENDING:
            return self.amount
        return -self.held if self.kind in {Kind.POST, Kind.VOID} else 0


@dataclass
class Columns:
    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0

    def of(self, side: Side, sequence: int) -> Balance:
        return Balance(
            side=side,
            debits_pending=self.debits_pending,
            debits_posted=self.debits_posted,
            credits_pending=self.credits_pending,
            credits_posted=self.credits_posted,
            sequence=sequence,
        )


@dataclass
class History:
    """The book as a list."""

    facts: list[Fact] = field(default_factory=list)
    opened: dict[Key, int] = field(default_factory=dict)
    blocks: list[tuple[int, datetime]] = field(default_factory=list)
    """The last sequence number of each, and its time."""

    @property
    def head(self) -> int:
        return self.blocks[-1][0]

    def last_at(self, at: datetime) -> int:
        return max((last for last, when in self.blocks if when <= at), default=0)

    def columns(self, key: Key, counts: Callable[[Fact], bool], pending_to: int) -> Columns:
        found = Columns()
        for fact in self.facts:
            for account, is_debit in ((fact.debit, True), (fact.credit, False)):
                if account != key:
                    continue
                posted = fact.posted if counts(fact) else 0
                pending = fact.pending if fact.sequence <= pending_to else 0
                if is_debit:
                    found.debits_posted += posted
                    found.debits_pending += pending
                else:
                    found.credits_posted += posted
                    found.credits_pending += pending
        return found

    def at_sequence(self, key: Key, sequence: int) -> Balance:
        known = min(sequence, self.head)
        columns = self.columns(key, lambda fact: fact.sequence <= known, known)
        return columns.of(PATHS[key[0]], known)

    def effective(self, key: Key, day: date, known: int | None = None) -> Balance:
        known = self.head if known is None else min(known, self.head)
        end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
        columns = self.columns(
            key,
            lambda fact: fact.sequence <= known and fact.effective_on <= day,
            min(known, self.last_at(end - timedelta(microseconds=1))),
        )
        return columns.of(PATHS[key[0]], known)

    def keys_at(self, sequence: int) -> list[Key]:
        return sorted(key for key, opened in self.opened.items() if opened <= sequence)

    def days(self) -> list[date]:
        days = {fact.effective_on for fact in self.facts}
        days |= {fact.recorded_at.date() for fact in self.facts}
        first, last = min(days) - timedelta(days=1), max(days) + timedelta(days=1)
        return [first + timedelta(days=n) for n in range((last - first).days + 1)]

    def open_holds(self, sequence: int) -> list[Fact]:
        seen = [fact for fact in self.facts if fact.sequence <= sequence]
        resolved = {fact.request.pending_id for fact in seen}
        return [f for f in seen if f.kind is Kind.PENDING and f.request.id not in resolved]

    def hold_state(self, hold_id: UUID) -> HoldState:
        for fact in self.facts:
            if fact.request.pending_id == hold_id:
                return HoldState.POSTED if fact.kind is Kind.POST else HoldState.VOIDED
        return HoldState.OPEN


class Writer:
    """Posts at random and keeps the list."""

    def __init__(self, engine: AsyncEngine, seed: int) -> None:
        self.engine = engine
        self.random = Random(seed)
        self.history = History()
        self.at = BEGIN
        self.made = 0

    async def write(self, blocks: int) -> History:
        await transact(self.engine, lambda conn: open_book(conn, BOOK, entity="desk", now=self.at))
        for _ in range(blocks):
            self.at += timedelta(minutes=self.random.choice((0, 1, 90, 700, 1440)))
            await transact(self.engine, self._block)
        return self.history

    async def _block(self, conn: AsyncConnection) -> None:
        keys = {self._key(self.random.choice(ASSETS)) for _ in range(self.random.randint(0, 3))}
        await self._open(conn, keys)
        if self.random.random() < 0.1 and self.history.opened:
            key = self.random.choice(sorted(self.history.opened))
            for frozen in (True, False):
                await set_frozen(conn, BOOK, *key, frozen=frozen, reason="model", now=self.at)
                self.history.blocks.append((self._next(), self.at))
        batch = [self._request() for _ in range(self.random.randint(1, 6))]
        pairs = {(p, r.asset) for r in batch for p in (r.debit, r.credit) if p and r.asset}
        await self._open(conn, pairs)
        results = await post(conn, BOOK, batch, now=self.at)
        last = 0
        for request, result in zip(batch, results, strict=True):
            if result.sequence is not None and not result.replayed:
                last = max(last, result.sequence)
            if result.applied and not result.replayed:
                self._note(request, result)
        if last:
            self.history.blocks.append((last, self.at))

    def _next(self) -> int:
        return (self.history.blocks[-1][0] if self.history.blocks else 0) + 1

    async def _open(self, conn: AsyncConnection, keys: Iterable[Key]) -> None:
        new = sorted(set(keys) - self.history.opened.keys())
        if not new:
            return
        await ensure_accounts(conn, BOOK, new, owners=OWNERS, now=self.at)
        first = self._next()
        for number, key in enumerate(new):
            self.history.opened[key] = first + number
        self.history.blocks.append((first + len(new) - 1, self.at))

    def _key(self, asset: str) -> Key:
        return self.random.choice(sorted(PATHS)), asset

    def _request(self) -> Transfer:
        self.made += 1
        request_id = derive_id(self.at, "model", self.made)
        more: dict[str, Any] = {"code": self.random.choice(CODES)}
        if self.random.random() < 0.4:
            shift = timedelta(days=self.random.randint(-4, 2), hours=self.random.randint(-12, 12))
            more["effective_at"] = self.at + shift
        if self.random.random() < 0.5:
            more["reference"] = f"ref-{self.random.randint(1, 4)}"
        if self.random.random() < 0.5:
            more["correlation"] = derive_id(BEGIN, "row", self.random.randint(1, 4))
        if self.random.random() < 0.5:
            more["metadata"] = {
                "order": {"n": self.random.randint(1, 3)},
                "tags": self.random.sample(["a", "b", "c"], 2),
            }
        facts = self.history.facts
        holds = [fact for fact in facts if fact.kind is Kind.PENDING]
        moved = [fact for fact in facts if fact.kind in {Kind.SINGLE, Kind.POST}]
        choice = self.random.random()
        if holds and choice < 0.25:
            amount = self.random.randint(0, self.random.choice(holds).amount)
            target = self.random.choice(holds).request.id
            return post_hold(request_id, target, amount, **more)
        if holds and choice < 0.35:
            return void_hold(request_id, self.random.choice(holds).request.id, **more)
        if moved and choice < 0.45:
            if self.random.random() < 0.5:
                more.pop("effective_at", None)
                more["at_original"] = True
            return reversal(request_id, self.random.choice(moved).request.id, **more)
        asset = self.random.choice(ASSETS)
        debit, credit = self.random.sample(sorted(PATHS), 2)
        amount = self.random.choice((0, 1, 7, 10**20, self.random.randint(1, 100)))
        if choice < 0.7:
            return hold(request_id, debit, credit, amount, asset, purpose="model", **more)
        return transfer(request_id, debit, credit, amount, asset, **more)

    def _note(self, request: Transfer, result: PostResult) -> None:
        assert result.sequence is not None
        assert result.amount is not None
        assert result.recorded_at is not None
        debit, credit = (request.debit, request.asset), (request.credit, request.asset)
        held, effective_at = 0, request.effective_at
        if request.pending_id is not None:
            pending = self._fact(request.pending_id)
            debit, credit, held = pending.debit, pending.credit, pending.amount
        if request.reverses is not None:
            original = self._fact(request.reverses)
            debit, credit = original.credit, original.debit
            if request.at_original:
                effective_at = original.effective_at or original.recorded_at
        self.history.facts.append(
            Fact(
                sequence=result.sequence,
                recorded_at=result.recorded_at,
                request=request,
                kind=request.kind,
                debit=debit,
                credit=credit,
                amount=result.amount,
                held=held,
                effective_at=effective_at,
            )
        )

    def _fact(self, transfer_id: UUID) -> Fact:
        return next(fact for fact in self.history.facts if fact.request.id == transfer_id)
