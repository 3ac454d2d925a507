"""A state machine that holds the ledger against the reference, step by step.

It posts batches to a fresh book and to the reference side by side: every kind,
duplicates and near-duplicates, chains, history, expiry, reversals, freezes, limits, periods. After
every step the answers, what is decided, the balances, the open holds, the effective days and the
journal's length must agree, the trial balance must be zero, and the tables that a refusal must not
touch must not have changed; in the end the book must
verify.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, ClassVar, Final, TypeVar
from uuid import UUID

import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import ManualClock
from kernel.db import transact
from ledger.accounts import open_accounts, set_credit_limit, set_frozen
from ledger.blocks import COPIED_FROM
from ledger.errors import PeriodRefused, PostingRefused
from ledger.model import PostResult
from ledger.outcome import AccountOutcome
from ledger.periods import close_period, reopen_period
from ledger.posting import decided, open_book, post
from ledger.queries import head, list_open_holds, trial_balance
from ledger.verification import verify
from ledger.writer import Writer
from tests.properties.ledger_aimer import (
    CAPPED,
    FUNDING,
    GUARDED,
    OLD_US,
    SPECS,
    START_US,
    UNITS,
    Aimer,
)
from tests.properties.ledger_aims import AIMS, aimed
from tests.properties.ledger_reference import Book
from tests.properties.ledger_translation import (
    BALANCES,
    DIGEST,
    ELSEWHEN,
    as_answer,
    as_spec,
    as_transfer,
    day_of,
    moment,
)
from tests.properties.ledger_words import DAY_US, Answer, Ask, Spec

T = TypeVar("T")


REFUSED_TABLES: Final = frozenset({"head", "refusal", "block", "tile"})
"""What a batch of nothing but refusals may change, and only if one of them spends its id: the
refusal, its block, the tiles that it completes, and where the head stands."""
POSTED_TABLES: Final = REFUSED_TABLES | {
    "transfer",
    "transfer_metadata",
    "entry",
    "effective_entry",
    "balance",
    "hold",
}
ACCOUNT_TABLES: Final = frozenset({"head", "block", "tile", "account", "account_event", "balance"})
PERIOD_TABLES: Final = frozenset({"head", "block", "tile", "period_event"})
GROUP_MAX: Final = 3


@dataclass
class Run:
    """What all examples of a run share: one database, and what has been met."""

    loop: asyncio.Runner
    engine: AsyncEngine
    books: count[int] = field(default_factory=lambda: count(1))
    batches: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    opened: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    ahead: int = 0

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(work)

    def told(self) -> str:
        """Return the counts as text."""
        words = [f"{times} {name}" for name, times in sorted(self.outcomes.items())]
        decided = f"{self.batches} batches against the reference, {self.ahead} decided ahead"
        return f"{decided}: {', '.join(words)}"


TOURS: Final = 8
TOUR_ITEMS: Final = 5
TOUR_SPECS: Final = [
    Spec("client:toured", guard="both"),
    *[Spec("client:toured", guard="debits", owner="client:toured", since=OLD_US)] * 2,
    Spec("client:toured", side="debit", guard="debits"),
    Spec("client:toured", guard="credits", owner="house"),
    Spec("client:toured", guard="debits", owner="house", purpose="other"),
    Spec("client:toured", guard="debits", owner="client:toured", purpose="other"),
    Spec("client:toured", guard="debits", owner="client:toured", metadata=(("tier", 1),)),
    Spec("client:toured", guard="debits", owner="client:toured"),
]

ITEMS = st.lists(
    st.tuples(
        st.sampled_from([*AIMS, *["created"] * 12]),
        st.integers(0, 2**24),
        st.sampled_from([False, False, False, True]),
    ),
    min_size=1,
    max_size=8,
)
PATHS = st.sampled_from(sorted({spec.path for spec in SPECS if "full" not in spec.path}))
DAYS = st.integers(OLD_US // DAY_US - 1, START_US // DAY_US + 1)


class LedgerMachine(RuleBasedStateMachine):
    """A book and the reference, side by side. Every step posts a batch."""

    run: ClassVar[Run]

    def __init__(self, tell: Callable[[str], object] = note) -> None:
        super().__init__()
        self.tell = tell
        self.number = next(self.run.books)
        self.model = Book(now=START_US)
        self.next_id = 1_000
        self.posted: list[list[Ask]] = [[]]
        self.digests: dict[str, str] = {}
        self.clock = ManualClock(moment(START_US))
        # Every second book is posted to through a writer, which carries balances and decides ahead.
        # Its groups are small, so that there is always one behind the other.
        self.writer: Writer | None = None
        if self.number % 2 == 0:
            engine, group_max = self.run.engine, GROUP_MAX
            self.writer = Writer(engine, self.number, clock=self.clock, group_max=group_max)
        self.run.do(self.begin())

    async def begin(self) -> None:
        engine, number, now = self.run.engine, self.number, moment(START_US)
        await transact(engine, lambda conn: open_book(conn, number, entity=f"e{number}", now=now))
        if self.writer is not None:
            await self.writer.__aenter__()
        self.digests = await self.digest()
        await self.open(SPECS)
        await self.post(list(FUNDING))

    def teardown(self) -> None:
        """The book verifies, whatever has happened to it."""
        if self.writer is not None:
            self.run.do(self.writer.__aexit__(None, None, None))
            self.run.ahead += self.writer.decided_ahead
        assert self.run.do(verify(self.run.engine, self.number)) == []

    @rule(items=ITEMS)
    def post_batch(self, items: list[tuple[str, int, bool]]) -> None:
        """What comes today."""
        self.post_aimed(items)

    @rule(seeds=st.lists(st.integers(0, 2**16), min_size=4, max_size=12))
    def post_plain(self, seeds: list[int]) -> None:
        """What needs no look at the past, so that a writer may decide it ahead."""
        batch: list[Ask] = []
        for seed in seeds:
            aimer = Aimer(self.model, Random(seed), self.next_id, importing=False)
            batch.append(aimer.overdraw() if seed % 5 == 0 else aimer.plain())
            self.next_id = aimer.next_id
        self.run.do(self.post(batch))

    @rule(seed=st.integers(0, 2**16), items=ITEMS)
    def post_large(self, seed: int, items: list[tuple[str, int, bool]]) -> None:
        """So much at once that its rows are COPYed."""
        chance, many = Random(seed), []
        for _ in range(COPIED_FROM):
            aimer = Aimer(self.model, chance, self.next_id, importing=False)
            many.append(aimer.plain())
            self.next_id = aimer.next_id
        self.post_aimed(items, before=many)

    @rule(items=ITEMS)
    def post_history(self, items: list[tuple[str, int, bool]]) -> None:
        """What comes from before the cut-over."""
        self.post_aimed(items, importing=True)

    @rule(
        which=st.integers(0, 2**16),
        start=st.integers(0, 4),
        behind_another=st.booleans(),
        items=ITEMS,
    )
    def post_again(
        self,
        which: int,
        start: int,
        behind_another: bool,  # noqa: FBT001  drawn
        items: list[tuple[str, int, bool]],
    ) -> None:
        """A batch once more, or the end of it, perhaps behind what makes it the wrong one."""
        again = self.posted[which % len(self.posted)][start:]
        importing = bool(again) and "imported" in again[0].flags
        if behind_another:
            aimer = Aimer(self.model, Random(which), self.next_id, importing=not importing)
            again = [*aimed(aimer, "created"), *again]
            self.next_id = aimer.next_id
        self.post_aimed(items[:3], before=again, importing=importing)

    @rule(seconds=st.sampled_from([0, 1, 3, 7_200, 86_400, 400_000]), items=ITEMS)
    def let_time_pass(self, seconds: int, items: list[tuple[str, int, bool]]) -> None:
        """Holds become due, and a new day begins."""
        self.model.now += seconds * 1_000_000
        self.post_aimed(items)

    @rule(path=PATHS, items=ITEMS)
    def freeze(self, path: str, items: list[tuple[str, int, bool]]) -> None:
        """Freeze an account, or end that."""
        frozen = not self.model.accounts[path, "X"].frozen
        self.model.freeze((path, "X"), frozen=frozen)

        async def work(conn: AsyncConnection) -> None:
            at = moment(self.model.now)
            await set_frozen(conn, self.number, path, "X", frozen=frozen, reason="machine", now=at)

        self.run.do(self.change(work, refused=None, allowed=ACCOUNT_TABLES))
        self.post_aimed(items)

    @rule(
        path=st.sampled_from([*GUARDED, CAPPED, "client:old", "custody:w"]),
        limit=st.one_of(
            st.just(0), st.builds(int.__mul__, st.integers(0, 9), st.sampled_from(UNITS))
        ),
        items=ITEMS,
    )
    def limit(self, path: str, limit: int, items: list[tuple[str, int, bool]]) -> None:
        """Let a guarded account go below, by so much."""
        taken = self.model.limit((path, "X"), limit)

        async def work(conn: AsyncConnection) -> None:
            at = moment(self.model.now)
            await set_credit_limit(conn, self.number, path, "X", limit, reason="machine", now=at)

        refused = None if taken else PostingRefused
        self.run.do(self.change(work, refused=refused, allowed=ACCOUNT_TABLES))
        self.post_aimed(items)

    @rule(day=DAYS, close=st.booleans(), items=ITEMS)
    def period(self, day: int, close: bool, items: list[tuple[str, int, bool]]) -> None:  # noqa: FBT001  drawn
        """Close days that are over, or open closed ones again."""
        model, verb = self.model, close_period if close else reopen_period
        taken = model.close_period(day) if close else model.reopen_period(day)

        async def work(conn: AsyncConnection) -> None:
            at = moment(model.now)
            people = {"proposed_by": "ann", "approved_by": "bob"}
            await verb(conn, self.number, day_of(day), reason="machine", now=at, **people)

        refused = None if taken else PeriodRefused
        self.run.do(self.change(work, refused=refused, allowed=PERIOD_TABLES))
        self.post_aimed([("effective_period_closed", day, False), *items])

    @rule(
        specs=st.lists(
            st.builds(
                Spec,
                path=st.sampled_from(["client:a", "client:new", "client:newer"]),
                side=st.sampled_from(["credit", "credit", "credit", "debit"]),
                guard=st.sampled_from(["debits", "debits", "debits", "both", "credits", ""]),
                owner=st.sampled_from(["client:a", "client:a", "house"]),
                purpose=st.sampled_from(["", "", "other"]),
                metadata=st.sampled_from([(), (), (("tier", 1),)]),
                since=st.sampled_from([None, None, OLD_US]),
            ),
            min_size=1,
            max_size=4,
        ),
        items=ITEMS,
    )
    def open_some(self, specs: list[Spec], items: list[tuple[str, int, bool]]) -> None:
        """Open accounts, or ask for those that are there, rightly and wrongly."""
        self.run.do(self.open(specs))
        self.post_aimed(items)

    def post_aimed(
        self,
        items: list[tuple[str, int, bool]],
        *,
        before: list[Ask] | None = None,
        importing: bool = False,
    ) -> None:
        batch = list(before or [])
        for aim, seed, linked in items:
            aimer = Aimer(self.model, Random(seed), self.next_id, importing=importing)
            asks = aimed(aimer, aim)
            self.next_id = aimer.next_id
            if linked:
                asks[-1] = Ask(**{**as_dict(asks[-1]), "linked": True})
            batch += asks
        aims_at_end = items and items[-1][0] == "linked_event_chain_open"
        if batch and not aims_at_end:
            batch[-1] = Ask(**{**as_dict(batch[-1]), "linked": False})
        self.run.do(self.post(batch))

    async def open(self, specs: tuple[Spec, ...] | list[Spec]) -> None:
        expected = [self.model.open(spec) for spec in specs]
        asked, at = [as_spec(spec) for spec in specs], moment(self.model.now)
        results = await transact(
            self.run.engine, lambda conn: open_accounts(conn, self.number, asked, now=at)
        )
        assert [str(result.outcome) for result in results] == expected
        for result in results:
            if result.outcome is AccountOutcome.FLAGS_ARE_MUTUALLY_EXCLUSIVE:
                assert result.sequence is result.number is None
            else:
                assert result.sequence == self.model.accounts[result.path, result.asset].sequence
        self.run.opened.update(expected)
        changed = await self.changed()
        assert changed <= (ACCOUNT_TABLES if "created" in expected else set())
        assert ("created" in expected) == ("account" in changed)

    async def change(
        self,
        work: Callable[[AsyncConnection], Coroutine[Any, Any, None]],
        *,
        refused: type[Exception] | None,
        allowed: frozenset[str],
    ) -> None:
        """Run a verb that changes no balance; refused, it must leave everything as it was."""
        if refused is None:
            await transact(self.run.engine, work)
        else:
            with pytest.raises(refused):
                await transact(self.run.engine, work)
        assert await self.changed() <= (allowed if refused is None else set())

    async def post(self, batch: list[Ask]) -> None:
        """Post a batch to both, and compare everything."""
        parts = [batch]
        if self.writer is not None and batch and not batch[-1].linked:
            parts = submissions(batch)
        expected, expired = [], 0
        for part in parts:
            expected += self.model.batch(part)
            expired += self.model.expired
        self.model.expired = expired
        for ask, answer in zip(batch, expected, strict=True):
            self.tell(f"{plain(ask)} -> {answer.outcome}\n")
        results = await self.ask(parts)
        assert [as_answer(result) for result in results] == expected
        self.run.batches += 1
        self.run.outcomes.update(answer.outcome for answer in expected)
        self.run.kinds.update(
            ask.kind for ask, said in zip(batch, expected, strict=True) if said.outcome == "created"
        )
        self.posted.append(batch)
        await self.refusals_left_no_trace(expected)
        await self.compare(batch)

    async def ask(self, parts: list[list[Ask]]) -> list[PostResult]:
        """Post a batch as one, or submit its parts one after the other without waiting."""
        self.clock.at = moment(self.model.now)
        asked = [[as_transfer(ask) for ask in part] for part in parts]
        if self.writer is None or not asked[-1] or asked[-1][-1].linked:
            [batch] = asked
            return await transact(
                self.run.engine, lambda conn: post(conn, self.number, batch, now=self.clock.at)
            )
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.writer.submit(*part)) for part in asked]
        return [result for task in tasks for result in task.result()]

    async def refusals_left_no_trace(self, said: list[Answer]) -> None:
        """Compare every row of every table with what it was before."""
        allowed: frozenset[str] = frozenset()
        if any(answer.sequence is not None and not answer.replayed for answer in said):
            allowed = REFUSED_TABLES
        if self.model.expired or any(answer.outcome == "created" for answer in said):
            allowed = POSTED_TABLES
        changed = await self.changed()
        assert changed <= allowed
        assert not allowed or {"head", "block"} <= changed

    async def changed(self) -> set[str]:
        """Return the tables whose rows have changed since this was asked last."""
        before, self.digests = self.digests, await self.digest()
        return {name for name, digest in self.digests.items() if digest != before.get(name)}

    async def digest(self) -> dict[str, str]:
        async with self.run.engine.connect() as conn:
            rows = (await conn.execute(DIGEST, {"book": self.number})).all()
        return {row.name: row.digest for row in rows}

    async def compare(self, batch: list[Ask]) -> None:
        model, book = self.model, self.number
        async with self.run.engine.connect() as conn:
            rows = (await conn.execute(BALANCES, {"book": book})).all()
            found = {(row[0], row[1]): tuple(map(int, row[2:])) for row in rows}
            assert found == {
                key: (*account.columns, account.entries, account.closed, account.limit)
                for key, account in model.accounts.items()
            }
            now = await head(conn, book)
            assert now.sequence == model.length
            through = model.closed_through
            assert now.closed_through == (None if through is None else day_of(through))
            imported = model.imported_through
            assert now.imported_through == (None if imported is None else moment(imported))
            open_holds = {(hold.id.int, hold.amount) for hold in await list_open_holds(conn, book)}
            assert open_holds == {
                (hold.id, hold.amount) for hold in model.holds.values() if hold.state == "open"
            }
            await self.compare_trial_balance(conn)
            await self.compare_decided(conn, batch)
            moved = (await conn.execute(ELSEWHEN, {"book": book})).all()
        assert sorted(
            (row[0], row[1], row[2], int(row[3]), int(row[4])) for row in moved
        ) == sorted(
            (*key, day_of(day), debits, credits_) for key, day, debits, credits_ in model.elsewhen
        )

    async def compare_trial_balance(self, conn: AsyncConnection) -> None:
        rows = await trial_balance(conn, self.number)
        sums: Counter[str] = Counter()
        for row in rows:
            account = self.model.accounts[row.path, row.asset]
            assert (
                row.debits_pending,
                row.debits,
                row.credits_pending,
                row.credits,
            ) == account.columns
            sums[row.asset] += row.debits - row.credits
        assert not any(sums.values())
        assert {(row.path, row.asset) for row in rows} == set(self.model.accounts)

    async def compare_decided(self, conn: AsyncConnection, batch: list[Ask]) -> None:
        """Of every id that was asked for: is it spent, and on what?"""
        spent = await decided(conn, self.number, {UUID(int=ask.id) for ask in batch})
        expected: dict[UUID, tuple[str, int, int | None]] = {}
        for ask in batch:
            if ask.id in self.model.done:
                done = self.model.done[ask.id]
                expected[UUID(int=ask.id)] = ("created", done.sequence, done.amount)
            elif ask.id in self.model.failed:
                outcome, sequence = self.model.failed[ask.id]
                expected[UUID(int=ask.id)] = (outcome, sequence, None)
        assert {
            key: (str(result.outcome), result.sequence, result.amount)
            for key, result in spent.items()
        } == expected


def submissions(batch: list[Ask]) -> list[list[Ask]]:
    """Cut a batch into submissions of a few, never within a chain.

    What is due at once is released before the next commit, and which submissions share one is the
    writer's affair: such a batch stays whole.
    """
    if any(ask.timeout == 0 for ask in batch):
        return [batch]
    parts: list[list[Ask]] = [[]]
    for ask in batch:
        if parts[-1] and not parts[-1][-1].linked and ask.id % 3 == 0:
            parts.append([])
        parts[-1].append(ask)
    return parts


def tour(machine: LedgerMachine) -> None:
    """Aim at everything, today and as history, the same way in every run."""
    for seed in range(TOURS):
        names = Random(seed).sample(sorted(AIMS), len(AIMS))
        for start in range(0, len(names), TOUR_ITEMS):
            items = [(name, seed, False) for name in names[start : start + TOUR_ITEMS]]
            machine.post_aimed(items, importing=seed % 2 == 1)
        machine.freeze(path="client:b" if seed % 3 else "suspense:old", items=[])
        machine.period(day=OLD_US // DAY_US + seed, close=seed % 4 < 2, items=[])
        machine.open_some(specs=TOUR_SPECS, items=[])
        machine.post_large(seed=seed, items=[])
    machine.teardown()


def plain(ask: Ask) -> str:
    """Return what of a request is not left out, for whoever reads a failure."""
    fields = {name: value for name, value in as_dict(ask).items() if value or name == "id"}
    return ", ".join(f"{name}={value!r}" for name, value in fields.items())


def as_dict(ask: Ask) -> dict[str, Any]:
    return {name: getattr(ask, name) for name in Ask.__slots__}
