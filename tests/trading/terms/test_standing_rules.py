"""Which version of where a party is paid is in force: cooling-off, call back, later versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.terms.model import CallBack, Rail, StandingInstruction, StandingState
from trading.terms.standing_rules import COOLING_OFF_DAYS, earliest_start, in_force, state_of

FIRST = date(2026, 1, 5)
MIDNIGHT = datetime(2026, 1, 5, tzinfo=UTC)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


@dataclass(frozen=True)
class Row:
    """A version: approved on a day, called back on a day (after the sign: yes or no)."""

    approved: int
    start: int
    said: str = ""


def versions(*rows: Row) -> list[StandingInstruction]:
    return [
        StandingInstruction(
            party="acme",
            asset="ETH",
            rail=Rail.EVM,
            version=number,
            destination=f"0x{number}",
            effective_from=day(row.start),
            needs_call_back=number > 1,
            proposed_by="ada",
            approved_by="ben",
            at=MIDNIGHT + timedelta(days=row.approved, hours=9),
            call_back=said(row.said),
        )
        for number, row in enumerate(rows, 1)
    ]


def said(text: str) -> CallBack | None:
    if not text:
        return None
    at = MIDNIGHT + timedelta(days=int(text[1:]), hours=15)
    return CallBack(confirmed=text[0] == "+", reference="call/1", by="dan", at=at)


def days_in_force(items: Sequence[StandingInstruction], days: int = 10) -> str:
    """The version in force on each day from the first; 0: none."""
    found = [in_force(items, day(n)) for n in range(days)]
    return "".join(str(item.version if item else 0) for item in found)


@pytest.mark.parametrize(
    ("story", "rows", "expected"),
    [
        ("nothing was said", [], "0000000000"),
        ("the first one counts from its day on", [Row(0, 0)], "1111111111"),
        ("it may begin later", [Row(0, 3)], "0001111111"),
        ("the first one needs no call, but one may deny it", [Row(0, 0, "-1")], "0000000000"),
        ("a change that nobody called back about", [Row(0, 0), Row(1, 3)], "1111111111"),
        ("a change, called back at once", [Row(0, 0), Row(1, 3, "+1")], "1112222222"),
        ("a change, called back late", [Row(0, 0), Row(1, 3, "+6")], "1111112222"),
        ("a change that the party denies", [Row(0, 0), Row(1, 3, "-2")], "1111111111"),
        (
            "a change of the change takes its place while it waits",
            [Row(0, 0), Row(1, 3, "+1"), Row(2, 4, "+2")],
            "1111333333",
        ),
        (
            "the old address again, before the new one counts",
            [Row(0, 0), Row(1, 5, "+1"), Row(4, 6)],
            "1111111111",
        ),
        (
            "a change that was already in force stays until the next",
            [Row(0, 0), Row(1, 3, "+1"), Row(4, 6, "+4")],
            "1112223333",
        ),
        (
            "a forged change of the change is denied, and the first change counts",
            [Row(0, 0), Row(1, 3, "+1"), Row(2, 4, "-5")],
            "1112222222",
        ),
        (
            "called back about an older one after a newer one was approved",
            [Row(0, 0), Row(1, 3, "+5"), Row(4, 6)],
            "1111111111",
        ),
        (
            "called back about an older one in the afternoon of the newer one's approval",
            [Row(0, 0), Row(1, 3, "+4"), Row(4, 6)],
            "1111111111",
        ),
        (
            "a change that is in force since the night is not overtaken in the morning",
            [Row(0, 0), Row(1, 3, "+2"), Row(3, 6)],
            "1112222222",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_the_version_in_force_day_by_day(story: str, rows: list[Row], expected: str) -> None:
    assert days_in_force(versions(*rows)) == expected


@pytest.mark.parametrize(
    ("rows", "on", "expected"),
    [
        ([Row(0, 0)], 0, "in_force"),
        ([Row(0, 2)], 1, "cooling_off"),
        ([Row(0, 0), Row(1, 3)], 2, "in_force awaiting_call_back"),
        ([Row(0, 0), Row(1, 3)], 9, "in_force awaiting_call_back"),
        ([Row(0, 0), Row(1, 3, "+1")], 2, "in_force cooling_off"),
        ([Row(0, 0), Row(1, 3, "+1")], 3, "replaced in_force"),
        ([Row(0, 0), Row(1, 3, "-1")], 3, "in_force denied"),
        ([Row(0, 0), Row(1, 3, "+1"), Row(2, 4)], 3, "in_force replaced awaiting_call_back"),
    ],
    ids=str,
)
def test_every_version_is_in_one_state(rows: list[Row], on: int, expected: str) -> None:
    items = versions(*rows)

    assert " ".join(state_of(item, items, day(on)) for item in items) == expected


def test_a_change_begins_no_less_than_a_day_after_its_approval() -> None:
    assert earliest_start(1, FIRST) == FIRST
    late = datetime(2026, 1, 5, 23, 59, 59, tzinfo=UTC)
    start = earliest_start(2, late.date())
    assert datetime(start.year, start.month, start.day, tzinfo=UTC) - late >= timedelta(days=1)


ROWS = st.builds(
    lambda approved, wait, sign, called: (approved, wait, f"{sign}{called}" if sign else ""),
    st.integers(0, 6),
    st.integers(COOLING_OFF_DAYS, 5),
    st.sampled_from(["", "+", "-"]),
    st.integers(0, 9),
)


@given(st.lists(ROWS, max_size=5), st.integers(0, 12))
def test_nothing_is_in_force_that_was_denied_or_never_confirmed_or_still_cools_off(
    rows: list[tuple[int, int, str]], on: int
) -> None:
    ordered = sorted(rows)
    items = versions(Row(0, 0), *(Row(a, a + wait, text) for a, wait, text in ordered))
    found = in_force(items, day(on))

    assert found is not None
    states = [state_of(item, items, day(on)) for item in items]
    assert states.count(StandingState.IN_FORCE) == 1
    if found.version > 1:
        assert found.call_back is not None
        assert found.call_back.confirmed
        assert found.call_back.at.date() <= day(on)
        assert day(on) >= earliest_start(found.version, found.at.date())
