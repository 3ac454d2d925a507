"""What a run finds, and what becomes of what was found before: scenario tables, no database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reporting.recon.comparing import (
    age,
    digest,
    find_breaks,
    found_json,
    found_of,
    line_json,
    line_of,
)
from reporting.recon.model import (
    AGE_MAX,
    Break,
    BreakKind,
    BreakState,
    Found,
    Line,
    PlaceKind,
)

NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
RUN = UUID(int=7)


def line(outside: int | None, books: int, then: int | None = None, **more: Any) -> Line:
    made = Line(
        kind=PlaceKind.CHAIN,
        place="hot",
        asset="ETH",
        books=books,
        books_then=books if then is None else then,
        outside=outside,
        as_of=NOW,
    )
    return replace(made, **more)


def item(amount: int | None, address: str = "0xabc") -> Found:
    return Found(
        key=f"chain/evm/hot/ETH/{address}",
        kind=BreakKind.ITEM,
        place_kind=PlaceKind.CHAIN,
        place="hot",
        asset="ETH",
        amount=amount,
        text=address,
    )


@pytest.mark.parametrize(
    ("told", "items", "expected"),
    [
        pytest.param(line(100, 100), [], [], id="equal"),
        pytest.param(line(100, 130, then=100), [], [], id="what moved since is no difference"),
        pytest.param(line(107, 100), [], [("difference", 7)], id="more outside"),
        pytest.param(line(93, 100), [], [("difference", -7)], id="less outside"),
        pytest.param(line(107, 100, explained=7), [], [], id="explained"),
        pytest.param(line(107, 100, explained=5), [], [("difference", 2)], id="partly explained"),
        pytest.param(line(107, 100), [item(7)], [("item", 7)], id="itemised, once"),
        pytest.param(
            line(107, 100), [item(4)], [("item", 4), ("difference", 3)], id="itemised in part"
        ),
        pytest.param(
            line(100, 100),
            [item(4), item(-4, "0xdef")],
            [("item", 4), ("item", -4)],
            id="two that cancel out are two",
        ),
        pytest.param(line(None, 0, books_then=None), [], [], id="nothing held, nothing said"),
        pytest.param(
            line(None, 5, books_then=None), [], [("unknown", None)], id="held, and nobody says so"
        ),
        pytest.param(
            line(None, 0, note="statements are missing"), [], [("unknown", None)], id="a reason"
        ),
        pytest.param(
            line(100, 100, as_of=NOW - AGE_MAX - timedelta(seconds=1)),
            [],
            [("unknown", None)],
            id="too long ago",
        ),
        pytest.param(
            line(100, 100, kind=PlaceKind.BANK, asset="EUR", as_of=NOW - timedelta(days=1)),
            [],
            [],
            id="a bank's statement holds for the next business day",
        ),
        pytest.param(
            line(100, 100, kind=PlaceKind.BANK, asset="EUR", as_of=NOW - timedelta(days=2)),
            [],
            [("unknown", None)],
            id="a bank that has not told for two business days",
        ),
    ],
)
def test_what_a_line_and_its_items_come_to(
    told: Line, items: list[Found], expected: list[tuple[str, int | None]]
) -> None:
    found = find_breaks([told], items, NOW)

    assert {(str(f.kind), f.amount) for f in found} == set(expected)
    assert len(found) == len(expected)


def standing(state: BreakState, amount: int | None, **more: Any) -> Break:
    made = Break(
        id=UUID(int=1),
        book=1,
        found=item(amount),
        state=state,
        opened_at=NOW - timedelta(days=3),
        seen_at=NOW - timedelta(days=1),
    )
    return replace(made, **more)


SIGNED: Final[dict[str, Any]] = {
    "resolved_by": ("cleo", "ada"),
    "resolution": "known",
    "resolved_at": NOW,
}


@pytest.mark.parametrize(
    ("before", "found", "after"),
    [
        pytest.param(standing(BreakState.OPEN, 7), [item(7)], "open", id="stands"),
        pytest.param(
            standing(BreakState.ASSIGNED, 7, assigned_to="cleo"),
            [item(9)],
            "assigned",
            id="another figure is still somebody's",
        ),
        pytest.param(standing(BreakState.OPEN, 7), [], "cleared", id="gone"),
        pytest.param(
            standing(BreakState.RESOLVED, 7, resolved_amount=7, **SIGNED),
            [item(7)],
            "resolved",
            id="what two people signed stays signed",
        ),
        pytest.param(
            standing(BreakState.RESOLVED, 7, resolved_amount=7, **SIGNED),
            [item(8)],
            "open",
            id="they did not sign for that",
        ),
        pytest.param(
            standing(BreakState.RESOLVED, 7, resolved_amount=7, **SIGNED),
            [],
            "cleared",
            id="resolved and gone",
        ),
    ],
)
def test_what_becomes_of_a_break(before: Break, found: list[Found], after: str) -> None:
    aged = age([before], found, book=1, run_id=RUN, now=NOW)

    (now,) = (*aged.seen_again, *aged.reopened, *aged.cleared)
    assert (now.state, now.id, now.opened_at) == (after, before.id, before.opened_at)
    assert aged.new == ()


def test_what_is_new_has_the_same_id_whoever_finds_it_in_a_run() -> None:
    first = age([], [item(7)], book=1, run_id=RUN, now=NOW)
    second = age([], [item(7)], book=1, run_id=RUN, now=NOW)

    assert [i.id for i in first.new] == [i.id for i in second.new]
    assert first.new[0].state is BreakState.OPEN


units = st.integers(min_value=-(10**30), max_value=10**30)


@given(books=units, then=st.none() | units, outside=st.none() | units, explained=units)
def test_a_line_and_a_finding_are_kept_without_loss(
    books: int, then: int | None, outside: int | None, explained: int
) -> None:
    made = line(outside, books, explained=explained, books_then=then, evidence="run 1")
    assert line_of(line_json(made)) == made
    assert found_of(found_json(item(then))) == item(then)
    assert digest([made], []) != digest([replace(made, books=books + 1)], [])


def test_a_difference_whose_place_falls_silent_stands_as_it_was() -> None:
    (difference,) = find_breaks([line(107, 100)], [], NOW)
    silent = find_breaks([line(None, 100, books_then=None)], [], NOW)
    stood = replace(standing(BreakState.ASSIGNED, 7), found=difference)

    aged = age([stood], silent, book=1, run_id=RUN, now=NOW)
    over = age([stood], [], book=1, run_id=RUN, now=NOW)

    assert [item.found.kind for item in aged.new] == [BreakKind.UNKNOWN]
    assert (aged.seen_again, aged.reopened, aged.cleared) == ((), (), ())
    assert [item.id for item in over.cleared] == [stood.id]


@pytest.mark.parametrize(
    ("text", "opened"), [("ours 5, theirs 7", []), ("ours 5, theirs 7000", [BreakState.OPEN])]
)
def test_a_resolved_item_without_a_figure_opens_again_when_it_says_something_else(
    text: str, opened: list[BreakState]
) -> None:
    signed = replace(item(None), text="ours 5, theirs 7")
    known = replace(standing(BreakState.RESOLVED, None, **SIGNED), found=signed)

    aged = age([known], [replace(signed, text=text)], book=1, run_id=RUN, now=NOW)

    assert [x.state for x in aged.reopened] == opened
    assert len(aged.seen_again) + len(aged.reopened) == 1
