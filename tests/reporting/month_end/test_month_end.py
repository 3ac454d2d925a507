"""The month's end: what stands in its way, who may let it pass, and the manifest. Mostly pure."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput
from kernel.events import list_history
from registry.changes import found
from registry.errors import NotAuthorised
from registry.testing import demo_founding, operator_keypair
from reporting.errors import MonthEndRefused
from reporting.month_end.manifest import file_of, find_differences, manifest_text
from reporting.month_end.model import Obstacle, OpenBreak, Pack, Standing, Waiver
from reporting.month_end.obstacles import PERIOD_OPEN, find_obstacles, require_passed
from reporting.month_end.waivers import (
    list_month_ends,
    list_waivers,
    record_month_end,
    waive,
    waiver_bytes,
)

MONTH = date(2026, 1, 1)
LAST = date(2026, 1, 31)
NOW = datetime(2026, 2, 2, 9, tzinfo=UTC)
BREAK = OpenBreak(
    id=UUID(int=7), place="venue:sim/desk", what="balance of ETH: 1 here, 2 there", since=LAST
)
GOOD = Standing(
    last=LAST,
    closed_through=LAST,
    unbalanced=(),
    untied=(),
    snapshot_faults=(),
    is_reconciled=True,
    breaks=(),
)
OPEN = Obstacle(key=PERIOD_OPEN, what="the period is open", may_pass=True)

STANDINGS: dict[str, tuple[dict[str, Any], tuple[tuple[str, bool], ...]]] = {
    "all is well": ({}, ()),
    "closed later": ({"closed_through": date(2026, 2, 1)}, ()),
    "never closed": ({"closed_through": None}, (("period-open", True),)),
    "closed a day too early": (
        {"closed_through": date(2026, 1, 30)},
        (("period-open", True),),
    ),
    "not compared": ({"is_reconciled": False}, (("reconciliation", True),)),
    "a break": ({"breaks": (BREAK,)}, ((f"break:{BREAK.id}", True),)),
    "not balanced": ({"unbalanced": ("ETH",)}, (("unbalanced:ETH", False),)),
    "not tied": ({"untied": ("ETH",)}, (("untied:ETH", False),)),
    "not locked": ({"snapshot_faults": None}, (("prices", False),)),
    "a lock that was changed": ({"snapshot_faults": ("another hash",)}, (("prices", False),)),
}


@pytest.mark.parametrize("name", STANDINGS)
def test_what_stands_in_the_way(name: str) -> None:
    changes, told = STANDINGS[name]

    obstacles = find_obstacles(replace(GOOD, **changes))

    assert tuple((item.key, item.may_pass) for item in obstacles) == told


def waiver(key: str) -> Waiver:
    return Waiver(
        id=UUID(int=1),
        book=1,
        month=MONTH,
        obstacle=key,
        reason="seen",
        proposed_by="cleo",
        proposal=b"",
        approved_by="ben",
        approval=b"",
        at=NOW,
    )


def test_nothing_passes_without_its_own_waiver_and_what_is_wrong_never_does() -> None:
    obstacles = find_obstacles(replace(GOOD, closed_through=None, breaks=(BREAK,)))
    both = {item.key: waiver(item.key) for item in obstacles}

    assert require_passed((), {}) == ()
    assert [item.key for item, _ in require_passed(obstacles, both)] == list(both)
    with pytest.raises(MonthEndRefused, match=rf"^break:{BREAK.id}: venue:sim/desk") as caught:
        require_passed(obstacles, {PERIOD_OPEN: both[PERIOD_OPEN]})
    assert PERIOD_OPEN not in caught.value.what
    wrong = find_obstacles(replace(GOOD, unbalanced=("ETH",)))
    with pytest.raises(MonthEndRefused, match="unbalanced:ETH"):
        require_passed(wrong, {"unbalanced:ETH": waiver("unbalanced:ETH")})


def test_a_break_passes_at_the_figure_that_two_people_have_seen_and_at_no_other() -> None:
    seen = find_obstacles(replace(GOOD, breaks=(replace(BREAK, amount=-5),)))
    grown = find_obstacles(replace(GOOD, breaks=(replace(BREAK, amount=-5_000_000),)))
    signed = {item.key: waiver(item.key) for item in seen}

    assert [item.key for item, _ in require_passed(seen, signed)] == [f"break:{BREAK.id}:-5"]
    with pytest.raises(MonthEndRefused, match=rf"break:{BREAK.id}:-5000000"):
        require_passed(grown, signed)


def test_many_obstacles_are_counted_not_all_named() -> None:
    breaks = tuple(replace(BREAK, id=UUID(int=n)) for n in range(30))

    with pytest.raises(MonthEndRefused, match="; and 10 more"):
        require_passed(find_obstacles(replace(GOOD, breaks=breaks)), {})


FILES = {"a.csv": b"1", "statements/x.csv": b"22"}


def manifest() -> str:
    return manifest_text(
        Pack(
            book=1,
            entity="desk",
            month=MONTH,
            sequence=9,
            is_final=True,
            valuation_id=UUID(int=3),
            inputs_hash="i",
            lines_hash="l",
            snapshot_hash="s",
            files=tuple(file_of(name, content) for name, content in FILES.items()),
            passed=((OPEN, waiver(PERIOD_OPEN)),),
        )
    )


def test_the_manifest_names_every_file_and_who_let_what_pass() -> None:
    told = json.loads(manifest())

    assert [item["name"] for item in told["files"]] == ["a.csv", "statements/x.csv"]
    assert told["files"][0]["sha256"].startswith("6b86b273")
    assert told["passed"][0]["proposed_by"] == "cleo"
    assert manifest() == manifest()
    assert find_differences(manifest(), FILES) == ()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.csv": b"2", "statements/x.csv": b"22"}, "a.csv is not the file that was packed"),
        ({"a.csv": b"1"}, "statements/x.csv is not there"),
        ({**FILES, "b.csv": b""}, "b.csv is not in the manifest"),
    ],
)
def test_a_pack_that_was_changed_is_found(files: dict[str, bytes], said: str) -> None:
    assert find_differences(manifest(), files) == (said,)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"form": "another"}'])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(MonthEndRefused):
        find_differences(text, {})


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncEngine:
    await transact(engine, lambda conn: found(conn, demo_founding(), now=NOW))
    return engine


async def waived(
    house: AsyncEngine,
    *,
    obstacle: Obstacle = OPEN,
    reason: str = "the auditor closes it",
    by: str = "cleo",
    approved_by: str = "ben",
    signed: str = "the auditor closes it",
) -> Waiver:
    payload = waiver_bytes(1, MONTH, OPEN, signed)
    proposal = operator_keypair(by).sign(payload)
    approval = operator_keypair(approved_by).sign(payload)

    async def work(conn: AsyncConnection) -> Waiver:
        return await waive(
            conn,
            1,
            MONTH,
            obstacle,
            reason=reason,
            by=by,
            proposal=proposal,
            approved_by=approved_by,
            approval=approval,
            now=NOW,
        )

    return await transact(house, work)


async def test_two_people_let_an_obstacle_pass_once(house: AsyncEngine) -> None:
    kept = await waived(house)

    async with house.connect() as conn:
        assert await list_waivers(conn, 1, MONTH) == {PERIOD_OPEN: kept}
        assert await list_waivers(conn, 2, MONTH) == {}
        (event,) = await list_history(conn, "month-end-waiver", kept.id)
    assert (event.actor, event.reason) == ("cleo", "the auditor closes it")
    with pytest.raises(MonthEndRefused, match="already"):
        await waived(house)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"approved_by": "cleo"}, NotAuthorised),
        ({"approved_by": "dan"}, NotAuthorised),
        ({"by": "dan"}, NotAuthorised),
        ({"signed": "another reason"}, NotAuthorised),
        ({"reason": " "}, BadInput),
        ({"obstacle": replace(OPEN, may_pass=False)}, MonthEndRefused),
        ({"obstacle": replace(OPEN, what="something else")}, NotAuthorised),
    ],
)
async def test_a_waiver_needs_two_people_who_may_and_who_signed_it(
    house: AsyncEngine, changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await waived(house, **changes)


async def test_the_same_manifest_is_kept_once(house: AsyncEngine) -> None:
    async def keep(conn: AsyncConnection, text: str) -> UUID:
        return (await record_month_end(conn, 1, MONTH, text, by="cleo", now=NOW)).id

    first = await transact(house, lambda conn: keep(conn, manifest()))
    again = await transact(house, lambda conn: keep(conn, manifest()))
    other = await transact(house, lambda conn: keep(conn, manifest() + "\n"))

    assert first == again
    assert other != first
    async with house.connect() as conn:
        assert len(await list_month_ends(conn, 1, month=MONTH)) == 2
        assert await list_month_ends(conn, 1, month=LAST) == []
