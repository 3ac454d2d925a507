"""Netting, as tables and as properties."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.model import Direction, NetItem, Obligation
from settlement.netting.bilateral import calculate, discharges
from trading.terms.model import Agreement, Rail

DAY = date(2026, 1, 5)
NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)


def owed(number: int, party: str, asset: str, signed: int) -> Obligation:
    """An obligation: positive amounts are owed to the desk, negative ones by it."""
    return Obligation(
        id=UUID(int=number),
        deal_id=UUID(int=1000 + number),
        leg=f"{asset}-{number}",
        party=party,
        asset=asset,
        amount=abs(signed),
        direction=Direction.RECEIVE if signed > 0 else Direction.PAY,
        value_date=DAY,
        created_at=NOW,
    )


def agreed(*parties: str, since: date = DAY, prefunded: bool = False) -> dict[str, Agreement]:
    return {p: Agreement(party=p, effective_from=since, prefunded=prefunded) for p in parties}


def lines(items: tuple[NetItem, ...]) -> list[str]:
    return [f"{i.party} {i.asset} {i.direction} {i.amount}" for i in items]


@pytest.mark.parametrize(
    ("story", "obligations", "agreements", "expected"),
    [
        (
            "both sides owe: one payment of the difference",
            [owed(1, "A", "USD", 600_300), owed(2, "A", "USD", -250_000)],
            agreed("A"),
            ["A USD receive 350300"],
        ),
        (
            "assets never net against each other",
            [owed(1, "A", "USD", 600), owed(2, "A", "BTC", -10)],
            agreed("A"),
            ["A BTC pay 10", "A USD receive 600"],
        ),
        (
            "parties never net against each other",
            [owed(1, "A", "USD", 600), owed(2, "B", "USD", -600)],
            agreed("A", "B"),
            ["A USD receive 600", "B USD pay 600"],
        ),
        (
            "without an agreement nothing nets",
            [owed(1, "A", "USD", 600), owed(2, "A", "USD", -250)],
            {},
            ["A USD receive 600", "A USD pay 250"],
        ),
        (
            "an agreement of tomorrow does not net today",
            [owed(1, "A", "USD", 600), owed(2, "A", "USD", -250)],
            agreed("A", since=date(2026, 1, 6)),
            ["A USD receive 600", "A USD pay 250"],
        ),
        (
            "equal and opposite: nothing moves, and still both are discharged",
            [owed(1, "A", "USD", 600), owed(2, "A", "USD", -600)],
            agreed("A"),
            ["A USD pay 0"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_netting_by_example(
    story: str,
    obligations: list[Obligation],
    agreements: dict[str, Agreement],
    expected: list[str],
) -> None:
    result = calculate(obligations, agreements, value_date=DAY, version=1)

    assert lines(result.items) == expected


def test_a_prefunded_party_settles_by_book() -> None:
    result = calculate(
        [owed(1, "A", "USD", 5)], agreed("A", prefunded=True), value_date=DAY, version=1
    )

    assert [item.rail for item in result.items] == [Rail.BOOK]


def test_a_party_is_not_prefunded_before_its_agreement_is_in_force() -> None:
    tomorrow = agreed("A", since=date(2026, 1, 6), prefunded=True)

    result = calculate([owed(1, "A", "USD", 5)], tomorrow, value_date=DAY, version=1)

    assert [item.rail for item in result.items] == [Rail.EVM]


def test_what_is_overdue_nets_with_what_is_due() -> None:
    overdue = replace(owed(1, "A", "USD", 600), value_date=date(2026, 1, 2))

    result = calculate([overdue, owed(2, "A", "USD", -250)], agreed("A"), value_date=DAY, version=1)

    assert lines(result.items) == ["A USD receive 350"]


@pytest.mark.parametrize(
    ("agreements", "same"),
    [
        (agreed("A"), True),
        (agreed("A", "B", prefunded=True), False),
        (agreed("A") | agreed("B", prefunded=True), True),
        (agreed("A", since=date(2026, 1, 4)), False),
        ({}, False),
    ],
    ids=["the same", "prefunded", "another party's", "since another day", "none"],
)
def test_the_hash_counts_the_agreements_of_those_who_take_part(
    *, agreements: dict[str, Agreement], same: bool
) -> None:
    one = [owed(1, "A", "USD", 600)]

    before = calculate(one, agreed("A"), value_date=DAY, version=1).input_hash
    after = calculate(one, agreements, value_date=DAY, version=1).input_hash

    assert (before == after) is same


def test_the_hash_of_the_inputs_changes_with_any_amount() -> None:
    one = owed(1, "A", "USD", 600)

    before = calculate([one], agreed("A"), value_date=DAY, version=1)
    after = calculate([replace(one, amount=601)], agreed("A"), value_date=DAY, version=1)

    assert before.input_hash != after.input_hash


books = st.lists(
    st.tuples(
        st.sampled_from("ABC"),
        st.sampled_from(["USD", "ETH"]),
        st.integers(-(10**20), 10**20).filter(bool),
    ),
    min_size=1,
    max_size=25,
).map(lambda rows: [owed(n, *row) for n, row in enumerate(rows, start=1)])


def signed(obligation: Obligation) -> int:
    return obligation.amount if obligation.direction is Direction.RECEIVE else -obligation.amount


@given(books, st.sets(st.sampled_from("ABC")))
def test_netting_leaves_every_position_as_it_was(
    obligations: list[Obligation], agreeing: set[str]
) -> None:
    result = calculate(obligations, agreed(*agreeing), value_date=DAY, version=1)

    before: Counter[tuple[str, str]] = Counter()
    after: Counter[tuple[str, str]] = Counter()
    for o in obligations:
        before[o.party, o.asset] += signed(o)
    for item in result.items:
        sign = 1 if item.direction is Direction.RECEIVE else -1
        after[item.party, item.asset] += sign * item.amount
    assert {k: v for k, v in before.items() if v} == {k: v for k, v in after.items() if v}


@given(books, st.sets(st.sampled_from("ABC")))
def test_every_obligation_is_discharged_to_the_last_unit(
    obligations: list[Obligation], agreeing: set[str]
) -> None:
    by_id = {o.id: o for o in obligations}
    result = calculate(obligations, agreed(*agreeing), value_date=DAY, version=1)

    discharged: Counter[UUID] = Counter()
    for item in result.items:
        steps = discharges(item, by_id)
        for step in steps:
            for obligation in (step.pay, step.receive):
                if obligation is not None:
                    discharged[obligation] += step.amount
        net = sum(s.amount for s in steps if (s.pay is None) != (s.receive is None))
        assert item.amount == net
    assert {o.id: o.amount for o in obligations} == dict(discharged)


@given(books, st.randoms())
def test_the_order_of_the_inputs_does_not_matter(
    obligations: list[Obligation], random: object
) -> None:
    shuffled = list(obligations)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert calculate(obligations, agreed("A", "B"), value_date=DAY, version=1) == calculate(
        shuffled, agreed("A", "B"), value_date=DAY, version=1
    )
