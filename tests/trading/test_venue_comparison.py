"""What differs between two sides, what becomes of breaks, what explains a balance: over values."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from matching.model import Side, TimeInForce
from trading.venue_balances import Known, compare_balances, explained_by
from trading.venue_break_ageing import age
from trading.venue_reconciliation_model import BreakState, Finding, VenueBreak
from venues.comparison import (
    DifferenceKind,
    compare_fills,
    compare_orders,
    standing_in_both,
)
from venues.exposure import exact
from venues.model import (
    OrderReport,
    OrderState,
    VenueBalance,
    VenueFill,
    VenueOrder,
    VenueStatus,
)

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=1)
D = DifferenceKind
S = OrderState
ORDER = VenueOrder(
    id=UUID(int=1),
    venue="sim",
    account="desk",
    symbol="ETHUSDT",
    instrument_version=1,
    side=Side.BUY,
    base_units=10**18,
    quantity="1",
    price="3000.5",
    time_in_force=TimeInForce.GTC,
    reference="test",
    intent="one",
    client_order_id="cw1",
    venue_order_id="7",
    state=S.ACKED,
    state_reason="",
    signed_at=LONG_AGO,
    recv_window=timedelta(seconds=1),
    executed_units=0,
    created_at=LONG_AGO,
    updated_at=LONG_AGO,
    fence=1,
)
REPORT = OrderReport(
    client_order_id="cw1",
    venue_order_id="7",
    status=VenueStatus.OPEN,
    executed_units=0,
    side=Side.BUY,
    base_units=10**18,
    price="3000.50000000",
)
FILL = VenueFill(
    venue="sim",
    account="desk",
    symbol="ETHUSDT",
    trade_id="1",
    venue_order_id="7",
    side=Side.BUY,
    price="3000",
    base="ETH",
    base_units=10**18,
    quote="USDT",
    quote_units=3_000_000_000,
    quote_dust=0,
    fee_asset="ETH",
    fee_units=10**15,
    fee_dust=0,
    is_maker=False,
    executed_at=LONG_AGO,
)


def kinds(ours: list[VenueOrder], theirs: list[OrderReport]) -> list[DifferenceKind]:
    return [d.kind for d in compare_orders("ETHUSDT", ours, theirs, made_before=NOW)]


@pytest.mark.parametrize(
    ("order", "report", "expected"),
    [
        ({}, {}, []),
        ({}, {"side": None, "base_units": None, "price": None}, []),
        ({"price": None}, {"price": "0.00000000"}, []),
        ({}, None, [D.ORDER_UNKNOWN_AT_VENUE]),
        (None, {}, [D.ORDER_UNKNOWN_TO_US]),
        (None, {"status": VenueStatus.CANCELLED}, []),
        (None, {"status": VenueStatus.CANCELLED, "executed_units": 1}, [D.ORDER_UNKNOWN_TO_US]),
        ({}, {"client_order_id": "other"}, []),
        # The venue has made it a second time, under another id of its own.
        ({}, {"venue_order_id": "8"}, [D.ORDER_UNKNOWN_TO_US, D.ORDER_UNKNOWN_AT_VENUE]),
        ({"venue_order_id": None}, {"venue_order_id": "8"}, []),
        ({}, {"price": "3000.4"}, [D.ORDER_TERMS]),
        ({}, {"base_units": 2}, [D.ORDER_TERMS]),
        ({}, {"side": Side.SELL}, [D.ORDER_TERMS]),
        ({}, {"status": VenueStatus.CANCELLED}, [D.ORDER_STATE]),
        ({}, {"executed_units": 5}, [D.ORDER_STATE]),
        ({"state": S.NOT_PLACED}, {}, [D.ORDER_STATE]),
        ({"state": S.NOT_PLACED}, None, []),
        ({"state": S.REFUSED}, None, []),
        ({"state": S.CANCELLED}, None, [D.ORDER_UNKNOWN_AT_VENUE]),
        ({"state": S.UNKNOWN}, None, []),
        ({"state": S.UNKNOWN}, {}, []),
        ({"state": S.SUBMITTING}, None, []),
        ({"state": S.ESCALATED}, None, [D.ORDER_UNRESOLVED]),
        ({"created_at": NOW}, None, []),
    ],
)
def test_what_differs_between_an_order_and_what_the_venue_lists(
    order: dict[str, Any] | None, report: dict[str, Any] | None, expected: list[DifferenceKind]
) -> None:
    ours = [] if order is None else [structs.replace(ORDER, **order)]
    theirs = [] if report is None else [replace(REPORT, **report)]

    assert kinds(ours, theirs) == expected


def test_an_order_that_the_venue_made_twice_is_one_that_nobody_made() -> None:
    both = [REPORT, replace(REPORT, venue_order_id="8")]
    (found,) = compare_orders("ETHUSDT", [ORDER], both, made_before=NOW)

    assert (found.kind, found.subject) == (D.ORDER_UNKNOWN_TO_US, "order:ETHUSDT:8")


def test_the_same_order_listed_twice_is_one_thing() -> None:
    assert kinds([], [REPORT, REPORT]) == [D.ORDER_UNKNOWN_TO_US]


@given(st.sets(st.integers(1, 30)), st.sets(st.integers(1, 30)), st.sets(st.integers(1, 30)))
def test_every_trade_that_differs_is_named_once(
    ours: set[int], theirs: set[int], otherwise: set[int]
) -> None:
    mine = [replace(FILL, trade_id=str(n)) for n in ours]
    listed = [
        replace(FILL, trade_id=str(n), fee_units=FILL.fee_units + (n in otherwise)) for n in theirs
    ]

    found = {(d.kind, d.subject) for d in compare_fills(mine, listed)}

    def named(kind: DifferenceKind, numbers: set[int]) -> set[tuple[DifferenceKind, str]]:
        return {(kind, f"trade:ETHUSDT:{n}") for n in numbers}

    assert found == (
        named(D.FILL_MISSING, theirs - ours)
        | named(D.FILL_SURPLUS, ours - theirs)
        | named(D.FILL_CONTRADICTING, ours & theirs & otherwise)
    )


def test_a_contradiction_shows_the_fields_that_differ_and_no_others() -> None:
    (found,) = compare_fills([FILL], [replace(FILL, fee_asset="BNB", fee_units=1)])

    assert (found.ours, found.theirs) == (
        "fee_asset ETH, fee_units 1000000000000000",
        "fee_asset BNB, fee_units 1",
    )


def test_what_moves_between_two_looks_is_no_break() -> None:
    moving = compare_orders(
        "ETHUSDT", [ORDER], [replace(REPORT, executed_units=1)], made_before=NOW
    )
    moved = compare_orders("ETHUSDT", [ORDER], [replace(REPORT, executed_units=2)], made_before=NOW)

    assert standing_in_both(moving, moved) == []
    assert standing_in_both(moving, moving) == moving


# Balances.


def rows(known: Known, *stated: VenueBalance) -> dict[str, tuple[int, int, int, int]]:
    found = compare_balances("sim", "desk", known, stated, NOW)
    return {r.asset: (r.explained, r.unposted, r.in_transit, r.difference) for r in found}


def known(**changes: Any) -> Known:
    nothing: dict[str, Any] = {
        "posted": {},
        "dust": {},
        "unposted": {},
        "transfers": [],
        "fills": 0,
    }
    return Known(**{**nothing, **changes})


def held(asset: str, units: int, dust: int = 0) -> VenueBalance:
    return VenueBalance(asset=asset, free=units, locked=0, dust=dust)


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        ({"posted": {"ETH": 5}}, [held("ETH", 5)], (0, 0, 0, 0)),
        ({"posted": {"ETH": 5}}, [], (0, 0, 0, -5)),
        ({}, [held("ETH", 5)], (0, 0, 0, 5)),
        ({"posted": {"ETH": 5}, "dust": {"ETH": exact(1, 0)}}, [held("ETH", 6)], (1, 0, 0, 0)),
        (
            {"posted": {"ETH": 5}, "unposted": {"ETH": exact(-2, 0)}},
            [held("ETH", 3)],
            (0, -2, 0, 0),
        ),
        ({"posted": {"ETH": 5}, "transfers": [("ETH", 7)]}, [held("ETH", 12)], (0, 0, 7, 0)),
        ({"posted": {"ETH": 5}, "transfers": [("ETH", 7)]}, [held("ETH", 5)], (0, 0, 0, 0)),
        ({"posted": {"ETH": 5}, "transfers": [("ETH", 7)]}, [held("ETH", 11)], (0, 0, 0, 6)),
        ({"posted": {"ETH": 5}, "transfers": [("BTC", 7)]}, [held("ETH", 12)], (0, 0, 0, 7)),
    ],
)
def test_what_explains_a_balance(
    mine: dict[str, Any], theirs: list[VenueBalance], expected: tuple[int, int, int, int]
) -> None:
    assert rows(known(**mine), *theirs)["ETH"] == expected


@given(st.lists(st.integers(-50, 50).filter(bool), max_size=6), st.data())
def test_transfers_explain_exactly_what_some_of_them_add_up_to(
    amounts: list[int], data: st.DataObject
) -> None:
    chosen = [a for a in amounts if data.draw(st.booleans())]
    wanted = sum(chosen)

    assert explained_by(wanted, amounts) == wanted
    assert explained_by(10_000, amounts) == 0


# Breaks over runs.


def aged(standing: list[VenueBreak], *findings: Finding, compared: Any = ("balance",)) -> Any:
    return age(
        standing,
        findings,
        compared=compared,
        run_id=UUID(int=9),
        book=1,
        venue="sim",
        account="desk",
        now=NOW,
    )


def finding(theirs: str = "5") -> Finding:
    return Finding(kind="balance", subject="balance:ETH", ours="4", theirs=theirs)


def test_a_break_keeps_its_id_whatever_its_figures_do_and_closes_when_it_is_not_seen() -> None:
    (first,) = aged([], finding()).new
    (again,) = aged([first], finding("6")).seen_again
    (closed,) = aged([again]).closed

    assert first.id == again.id == closed.id
    assert (again.theirs, closed.state, closed.closed_run) == ("6", BreakState.CLOSED, UUID(int=9))


def test_what_a_run_did_not_compare_it_does_not_close() -> None:
    (first,) = aged([], finding()).new

    after = aged([first], compared=("fill_missing",))

    assert (after.closed, after.untouched) == ((), (first,))


@pytest.mark.parametrize("state", [BreakState.EXPLAINED, BreakState.DISMISSED])
def test_what_people_said_holds_for_the_figures_they_saw(state: BreakState) -> None:
    (first,) = aged([], finding()).new
    said = replace(
        first, state=state, explanation="known", explained_by="a", proposed_by="a", dismissed_by="b"
    )

    same = aged([said], finding())
    other = aged([said], finding("6"))

    assert [item.state for item in same.seen_again] == [state]
    (reopened,) = other.reopened
    assert (reopened.id, reopened.state, reopened.explanation) == (first.id, BreakState.OPEN, "")
    assert (reopened.proposed_by, reopened.dismissed_by) == (None, None)
