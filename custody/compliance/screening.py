"""Asking whoever screens: before a deposit is credited, and before a payout gets a nonce.

When the list is another one, everything open is asked about once more. Nothing is asked inside a
transaction, and nothing is let through without an answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.compliance import answers, store
from custody.compliance.model import (
    Answer,
    Case,
    CaseState,
    Direction,
    Question,
    Subject,
    Verdict,
)
from custody.compliance.ports import Screening
from custody.compliance.travel_rule import NO_TRAVEL_RULE, TravelRule
from custody.compliance.travel_rule_store import list_recorded
from kernel.db import transact
from kernel.events import DomainEvent, record

PAGES_MAX: Final = 10_000
"""Pages of cases that one re-screening goes through, at most."""

Waiting = Callable[[AsyncConnection, str], Awaitable[list[Case]]]


@dataclass(frozen=True, slots=True)
class Rescreened:
    """What a re-screening did.

    Attributes:
        due: whether this version had not been asked yet.
        asked, hits: addresses asked about, and cases that are held now because of it.
        unknown: questions without an answer; the version counts as asked only when there is none.
    """

    due: bool
    asked: int = 0
    hits: int = 0
    unknown: int = 0


async def screen_deposits(
    engine: AsyncEngine,
    screening: Screening,
    chain: str,
    *,
    now: datetime,
    travel_rule: TravelRule = NO_TRAVEL_RULE,
) -> list[Case]:
    """Ask about confirmed deposits that nobody has answered for; return their cases.

    Then about those that were asked about and have vanished since: whoever tried to pay in is looked at
    all the same, and no case stays open for ever. At most `ASKED_AT_ONCE_MAX` of either, those that wait
    longest first.

    Raises:
        OutsideUnavailable: no answer; everything waits.
    """
    waiting = await _screen(engine, screening, chain, store.list_deposits_to_ask, travel_rule, now)
    gone = await _screen(engine, screening, chain, store.list_deposits_gone, NO_TRAVEL_RULE, now)
    return waiting + gone


async def screen_payouts(
    engine: AsyncEngine,
    screening: Screening,
    chain: str,
    *,
    now: datetime,
    travel_rule: TravelRule = NO_TRAVEL_RULE,
) -> list[Case]:
    """Ask about payouts to others that have no nonce yet; return their cases.

    Then about those that were asked about and have been withdrawn since, as `screen_deposits` does.

    Raises:
        OutsideUnavailable: no answer; everything waits.
    """
    waiting = await _screen(engine, screening, chain, store.list_payouts_to_ask, travel_rule, now)
    gone = await _screen(engine, screening, chain, store.list_payouts_gone, NO_TRAVEL_RULE, now)
    return waiting + gone


async def _screen(
    engine: AsyncEngine,
    screening: Screening,
    chain: str,
    waiting: Waiting,
    travel_rule: TravelRule,
    now: datetime,
) -> list[Case]:
    cases = await transact(engine, lambda conn: waiting(conn, chain))
    if not cases:
        return []
    list_version = await screening.version()
    questions = [answers.question_of(case) for case in cases]
    said = await _ask(screening, questions)

    async def write(conn: AsyncConnection) -> list[Case]:
        regulated = [c.subject_id for c in cases if travel_rule.applies(c.asset, c.amount)]
        missing = set(regulated) - await list_recorded(conn, regulated)
        after = [
            answers.answered(
                case,
                said[question],
                provider=screening.name,
                list_version=list_version,
                recorded=case.subject_id not in missing,
                now=now,
            )
            for case, question in zip(cases, questions, strict=True)
        ]
        return await _record(conn, cases, after, [said[question] for question in questions])

    return await transact(engine, write)


async def _ask(screening: Screening, questions: Sequence[Question]) -> dict[Question, Answer]:
    said = await screening.screen(questions)
    answers.require_answers(questions, said)
    return dict(zip(questions, said, strict=True))


async def _record(
    conn: AsyncConnection, before: Sequence[Case], after: Sequence[Case], said: Sequence[Answer]
) -> list[Case]:
    """Write the answers to cases that are still open; return how they stand."""
    await store.insert_cases(conn, before_rows(before))
    locked = await store.lock_cases(conn, [case.id for case in before])
    mine = [
        (old, new, answer)
        for old, new, answer in zip(before, after, said, strict=True)
        # Somebody else may have answered, or a person held it, while this answer was on its way.
        if (there := locked[old.id]).state is CaseState.OPEN and there.version == old.version
    ]
    await store.save_cases(conn, [new for _, new, _ in mine])
    told = [item for item in mine if item[1].state is not CaseState.OPEN]
    await store.insert_opinions(conn, [answers.opinion_of(new, said) for _, new, said in told])
    held = [(old, new) for old, new, _ in told if new.state is CaseState.HELD]
    await record(conn, [_held(old, new) for old, new in held])
    return [locked[case.id] for case in before] if not mine else [new for _, new, _ in mine]


def before_rows(cases: Sequence[Case]) -> list[Case]:
    """Return cases as they are first written: open, and never answered."""
    return [
        replace(c, state=CaseState.OPEN, answered_at=None, version=0)
        for c in cases
        if c.answered_at is None
    ]


def _held(before: Case, after: Case) -> DomainEvent:
    assert after.answered_at is not None, "what is held now was answered now"
    return answers.event(
        *(before, after, "CaseHeld"),
        at=after.answered_at,
        actor=answers.ACTOR,
        reason=after.reason,
    )


# Re-screening.


async def rescreen(engine: AsyncEngine, screening: Screening, *, now: datetime) -> Rescreened:
    """Ask about everything open once more, if this version was not asked yet.

    That is: whoever paid in, allowed destinations, what is held, and payouts without a nonce. A crash
    half-way leaves cases that know which version answered, and the next call goes on with the others.

    Raises:
        OutsideUnavailable: no answer; the next call goes on.
    """
    name, list_version = screening.name, await screening.version()
    if await transact(engine, lambda conn: _is_done(conn, name, list_version)):
        return Rescreened(due=False)
    total = await _rescreen_cases(engine, screening, list_version, now)
    more = await _rescreen_destinations(engine, screening, list_version, now)
    done = Rescreened(
        True, total.asked + more.asked, total.hits + more.hits, total.unknown + more.unknown
    )
    if done.unknown == 0:
        row = {
            "provider": name,
            "list_version": list_version,
            "finished_at": now,
            "asked": done.asked,
            "hits": done.hits,
        }
        await transact(engine, lambda conn: store.note_rescreened(conn, row))
    return done


async def _is_done(conn: AsyncConnection, name: str, list_version: str) -> bool:
    """Tell whether everything was asked by this version, and no older answer came in afterwards."""
    if not await store.is_rescreened(conn, name, list_version):
        return False
    late = await store.list_cases_to_ask_again(conn, name, list_version, after=None, limit=1)
    return not late


async def _rescreen_cases(
    engine: AsyncEngine, screening: Screening, list_version: str, now: datetime
) -> Rescreened:
    last: UUID | None = None
    asked = hits = unknown = 0
    for _ in range(PAGES_MAX):

        async def load(conn: AsyncConnection, last: UUID | None = last) -> list[Case]:
            return await store.list_cases_to_ask_again(
                conn, screening.name, list_version, after=last
            )

        page = await transact(engine, load)
        if not page:
            break
        last = page[-1].id
        # A thousand deposits from one address are one question.
        first = {(c.direction, c.chain, c.address): c for c in reversed(page)}
        by_question = await _ask(screening, [answers.question_of(c) for c in first.values()])
        said = {
            key: by_question[answers.question_of(first_case)] for key, first_case in first.items()
        }
        asked += len(said)
        unknown += sum(answer.verdict is Verdict.UNKNOWN for answer in said.values())

        async def write(
            conn: AsyncConnection,
            page: Sequence[Case] = page,
            said: dict[tuple[Direction, str, str], Answer] = said,
        ) -> int:
            return await _record_again(conn, screening, list_version, page, said, now)

        hits += await transact(engine, write)
    return Rescreened(True, asked, hits, unknown)


async def _record_again(
    conn: AsyncConnection,
    screening: Screening,
    list_version: str,
    page: Sequence[Case],
    said: dict[tuple[Direction, str, str], Answer],
    now: datetime,
) -> int:
    locked = await store.lock_cases(conn, [case.id for case in page])
    changed, held, opinions = [], [], []
    for case in locked.values():
        answer = said[case.direction, case.chain, case.address]
        if case.state not in {CaseState.CLEARED, CaseState.HELD, CaseState.RELEASED}:
            continue
        after = answers.answered_again(
            case, answer, provider=screening.name, list_version=list_version, now=now
        )
        if after is case:
            continue
        changed.append(after)
        opinions.append(answers.opinion_of(after, answer))
        if after.state is not case.state:
            held.append(_held(case, after))
    await store.save_cases(conn, changed)
    await store.insert_opinions(conn, opinions)
    await record(conn, held)
    return len(held)


async def _rescreen_destinations(
    engine: AsyncEngine, screening: Screening, list_version: str, now: datetime
) -> Rescreened:
    asked = hits = unknown = 0
    last: UUID | None = None
    for _ in range(PAGES_MAX):

        async def load(conn: AsyncConnection, last: UUID | None = last) -> list[Case]:
            return await store.list_destinations_to_ask(conn, now=now, after=last)

        cases = await transact(engine, load)
        if not cases:
            break
        last = cases[-1].subject_id
        questions = [answers.question_of(case) for case in cases]
        said = await _ask(screening, questions)
        asked += len(said)
        unknown += sum(answer.verdict is Verdict.UNKNOWN for answer in said.values())
        found = [
            (case, said[question])
            for case, question in zip(cases, questions, strict=True)
            if said[question].verdict is Verdict.HIT
        ]

        async def write(
            conn: AsyncConnection, found: Collection[tuple[Case, Answer]] = found
        ) -> int:
            return await _hold_destinations(conn, screening, list_version, found, now)

        hits += await transact(engine, write)
    return Rescreened(True, asked, hits, unknown)


async def _hold_destinations(
    conn: AsyncConnection,
    screening: Screening,
    list_version: str,
    found: Collection[tuple[Case, Answer]],
    now: datetime,
) -> int:
    """Open a case for destinations that something speaks against and that have none yet."""
    known = await store.find_cases(
        conn, Subject.DESTINATION, [case.subject_id for case, _ in found]
    )
    new = [
        (
            answers.answered(
                case,
                answer,
                provider=screening.name,
                list_version=list_version,
                recorded=True,
                now=now,
            ),
            answer,
        )
        for case, answer in found
        if case.subject_id not in known
    ]
    await store.insert_cases(conn, [case for case, _ in new])
    await store.insert_opinions(conn, [answers.opinion_of(case, answer) for case, answer in new])
    await record(
        conn,
        [
            answers.event(None, case, "CaseHeld", at=now, actor=answers.ACTOR, reason=case.reason)
            for case, _ in new
        ],
    )
    return len(new)
