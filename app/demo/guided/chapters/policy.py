"""A policy is tried before it counts: ninety days of requests, judged again by the rules to come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from functools import partial
from random import Random
from typing import Final

from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from app.demo.deposits import ACME
from app.demo.founding import CLIENT_POOL
from app.demo.guided.chapter import Chapter
from app.demo.guided.copies import copied
from app.demo.guided.tour import Tour
from app.demo.stage import BOOK
from custody.payout_control import draft_policy
from custody.payout_model import PayoutRequest
from custody.payouts import expire_payouts, request_payout
from custody.policy_model import Action, Per, PolicyDocument, PolicyRule, VelocityLimit
from custody.policy_review import Changed, DryRun, dry_run
from custody.testing import allow
from kernel.db import transact

DAYS: Final = 90
DESTINATION: Final = 12
"""The outside wallet that all requests are for."""
REFERENCE: Final = "day-"
ETHER: Final = 10**18
MILLI_MIN, MILLI_MAX = 50, 3_500
"""Between how many thousandths of an ETH a request is for."""
ONE_UP_TO, TWO_UP_TO, A_DAY_MAX = 1 * ETHER, 3 * ETHER, 4 * ETHER
"""The policy that is tried: up to the first, one approver; up to the second, two; beyond it, and beyond
the third in a day, nobody can."""
MORNING, NOON, EVENING = time(10), time(15), time(20)
SHOWN: Final = 6


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of the past: what it was for, and when."""

    reference: str
    amount: int
    at: datetime


async def a_policy_is_tried(tour: Tour) -> None:
    """Seed ninety days of requests into a copy, try a stricter policy on them, and count by hand."""
    stage = tour.stage
    tour.say(
        "The house wants a stricter policy: two approvers above 1 ETH, nothing above 3 ETH, no more than",
        "4 ETH a day for one client. What would it have stopped? In a copy of the database, ninety days",
        "of requests are made under today's policy; then each is judged again by the new one.",
    )
    today = stage.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    first = today - timedelta(days=DAYS + 1)
    asked = make_requests(tour.chance, first)
    async with copied(tour) as copy:
        await transact(copy.engine, partial(_allow, tour, first))
        before = await transact(copy.engine, partial(_try, since=first, now=today))
        for day in range(DAYS):
            of_day = asked[2 * day : 2 * day + 2]
            await transact(copy.engine, partial(_request, tour, of_day))
        stage.note(f"{len(asked)} requests over {DAYS} days, made and decided under policy 1")
        found = await transact(copy.engine, partial(_try, since=first, now=today))
    changed = [item for item in found.changed if item.reference.startswith(REFERENCE)]
    tour.exhibit("what the new policy would have said otherwise", _table(tour, changed, asked))
    said = Counter(_answer(item) for item in changed)
    by_hand = Counter(expected(asked).values())
    del by_hand["one approver"]
    tour.prove(
        "every request of the ninety days was judged, and every old answer follows from its facts",
        found.judged - before.judged == len(asked) and not found.unfounded,
        f"{len(asked)} judged, {len(found.unfounded)} unfounded",
    )
    tour.prove(
        "the dry run says what counting by hand says",
        {item.reference: _answer(item) for item in changed}
        == {key: value for key, value in expected(asked).items() if value != "one approver"},
        ", ".join(f"{count} {answer}" for answer, count in sorted(said.items())),
    )
    policy = await stage.do(partial(draft_policy, document=POLICY, by="ada", now=today))
    tour.prove(
        "nothing was put in force",
        policy.version == 2 and said == by_hand,
        "the house still has policy 1",
    )


POLICY: Final = PolicyDocument(
    rules=(
        PolicyRule(name="small", asset="ETH", amount_max=ONE_UP_TO, approvals=1),
        PolicyRule(name="large", asset="ETH", amount_max=TWO_UP_TO, approvals=2),
        PolicyRule(name="others", asset="USDT", approvals=1),
    ),
    limits=(VelocityLimit(asset="ETH", amount_max=A_DAY_MAX, window_s=86_400, per=Per.PARTY),),
)


def make_requests(chance: Random, first: datetime) -> list[Asked]:
    """Return two requests for each day, one in the morning and one at noon."""
    found = []
    for day in range(DAYS):
        for part, hour in (("a", MORNING), ("b", NOON)):
            amount = chance.randint(MILLI_MIN, MILLI_MAX) * ETHER // 1_000
            at = (first + timedelta(days=day)).replace(hour=hour.hour)
            found.append(Asked(f"{REFERENCE}{day:02}{part}", amount, at))
    return found


def expected(asked: Sequence[Asked]) -> dict[str, str]:
    """Return what the new policy says to each request, worked out without it."""
    found: dict[str, str] = {}
    for item in asked:
        of_day = sum(
            other.amount
            for other in asked
            if other.at.date() == item.at.date() and other.at <= item.at
        )
        if item.amount > TWO_UP_TO or of_day > A_DAY_MAX:
            found[item.reference] = "blocked"
        elif item.amount > ONE_UP_TO:
            found[item.reference] = "two approvers"
        else:
            found[item.reference] = "one approver"
    return found


async def _allow(tour: Tour, first: datetime, conn: AsyncConnection) -> None:
    address = tour.stage.world.outsiders.address(DESTINATION)
    await allow(conn, ACME, address, now=first)


async def _request(tour: Tour, of_day: Sequence[Asked], conn: AsyncConnection) -> None:
    """Ask for everything of a day; it lapses in the evening, and the next day begins anew."""
    evening = of_day[0].at.replace(hour=EVENING.hour)
    for item in of_day:
        request = PayoutRequest(
            client_ref=item.reference,
            claim=f"client:{ACME}",
            source_wallet=CLIENT_POOL,
            asset="ETH",
            amount=item.amount,
            destination=tour.stage.world.outsiders.address(DESTINATION),
            requested_by="dan",
            reason="asked for by acme",
            expires_at=evening,
        )
        await request_payout(conn, request, book=BOOK, now=item.at)
    await expire_payouts(conn, book=BOOK, now=evening)


async def _try(conn: AsyncConnection, *, since: datetime, now: datetime) -> DryRun:
    policy = await draft_policy(conn, POLICY, by="ada", now=now)
    return await dry_run(conn, policy, book=BOOK, since=since)


def _answer(item: Changed) -> str:
    if item.after.action is Action.BLOCK:
        return "blocked"
    return (
        "two approvers"
        if sum(quorum.approvals for quorum in item.after.required) == 2
        else "one approver"
    )


def _why(item: Changed) -> str:
    if item.after.action is not Action.BLOCK:
        return ""
    if item.before.facts.amount > TWO_UP_TO:
        return ": no rule covers so much"
    return ": the client's day is full"


def _table(tour: Tour, changed: Sequence[Changed], asked: Sequence[Asked]) -> Table:
    by_reference = {item.reference: item for item in asked}
    table = Table.grid(padding=(0, 3))
    for justify in ("left", "right", "left", "left"):
        table.add_column(justify=justify)
    table.add_row("day", "amount", "then", "by the new policy", style="dim")
    for item in changed[:SHOWN]:
        past = by_reference[item.reference]
        blocked = item.after.action is Action.BLOCK
        style = "red" if blocked else "yellow"
        table.add_row(
            f"{past.at:%d %b}",
            tour.stage.money(past.amount, "ETH"),
            "one approver",
            f"[{style}]{_answer(item)}[/]{_why(item)}",
        )
    if len(changed) > SHOWN:
        table.add_row("…", "", "", f"and {len(changed) - SHOWN} more", style="dim")
    return table


CHAPTER: Final = Chapter(
    "policy",
    "A policy is tried first",
    "What would the new rule have stopped, had it been in force?",
    a_policy_is_tried,
)
