"""Receipts through a bank: matched by their reference, by hand, taken apart, taken back."""

from __future__ import annotations

from uuid import UUID

import pytest

from kernel.errors import BadInput, Refused
from registry.errors import NotAuthorised, SamePerson
from settlement.matching.by_hand import Share
from settlement.matching.posting import suggestions
from settlement.matching.store import history
from tests.settlement.desk import BOOK, Desk
from tests.settlement.matching.bank_day import BankDay, shares

BANK_RULES = {"rails": {"bank": {"tolerance": {"EUR": "25"}}}}


@pytest.fixture
async def day(desk: Desk) -> BankDay:
    return await BankDay(desk).open()


@pytest.mark.parametrize(
    ("story", "paid", "state", "books"),
    [
        ("exact", 60_000, "final", {}),
        ("short within the tolerance", 59_975, "final", {"expense:bank-charge": 25}),
        ("short beyond it", 59_974, "released", {"receivable:acme:netted": 26}),
        ("over", 60_100, "final", {"payable:acme:unapplied": 100}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_credit_with_our_reference_pays_what_it_names(
    day: BankDay, story: str, paid: int, state: str, books: dict[str, int]
) -> None:
    run, item = await day.awaiting(60_000)
    await day.rules(BANK_RULES)
    day.pays(item, paid)
    await day.end_of_day()

    (match,) = await day.match()

    assert match.row.rules_version == 1
    assert (await day.desk.states(run.id))["acme EUR"] == state
    kept = await day.cents("suspense", "receivable", "payable", "expense", "client")
    assert kept == books
    assert await day.match() == []


async def test_who_bears_the_charges_is_forgiven_nothing(day: BankDay) -> None:
    run, item = await day.awaiting(60_000)
    await day.rules({**BANK_RULES, "charges": {"acme": "debt"}})
    day.pays(item, 59_975)
    await day.end_of_day()

    await day.match()

    assert (await day.desk.states(run.id))["acme EUR"] == "released"
    assert await day.cents("receivable", "expense") == {"receivable:acme:netted": 25}


async def test_without_a_reference_a_person_is_asked(day: BankDay) -> None:
    _, item = await day.awaiting(60_000)
    day.credit(60_000, "invoice 17")
    await day.end_of_day()

    assert await day.match() == []
    ((receipt, verdict),) = await day.desk.do(lambda conn: suggestions(conn, BOOK))

    assert receipt.value == 60_000
    assert [s.expected for s in verdict.suggestions] == [(item.id,)]
    assert await day.cents("suspense") == {"suspense:bank": 60_000}


async def test_two_people_match_by_hand_and_take_it_apart_again(day: BankDay) -> None:
    run, item = await day.awaiting(60_000)
    day.credit(60_500, "invoice 17")
    await day.end_of_day()
    (receipt,) = await day.waiting()

    (match,) = await day.by_hand(receipt, *shares((item, 60_000)))
    assert (match.applied, match.excess, match.row.second) == (60_000, 500, "ada")
    assert (await day.desk.states(run.id))["acme EUR"] == "final"
    assert await day.cents("suspense", "receivable", "payable") == {"payable:acme:unapplied": 500}

    await day.unmatch(receipt.id)
    assert (await day.desk.states(run.id))["acme EUR"] == "released"
    assert await day.cents("suspense", "receivable", "payable") == {
        "suspense:bank": 60_500,
        "receivable:acme:netted": 60_000,
    }

    # Once more, in its next round: other postings, and the history of both.
    (receipt,) = await day.waiting()
    await day.by_hand(receipt, Share(instruction_id=item.id, amount=60_000))
    told = await day.desk.do(lambda conn: history(conn, receipt.id))
    assert [(row["round"], row["undone_second"]) for row in told] == [(1, "ada"), (2, None)]


async def test_what_people_took_apart_no_rule_matches_again(day: BankDay) -> None:
    run, item = await day.awaiting(60_000)
    day.pays(item, 60_000)
    await day.end_of_day()
    (match,) = await day.match()

    await day.unmatch(match.receipt_id)

    assert await day.match() == []
    assert (await day.desk.states(run.id))["acme EUR"] == "released"
    (left,) = await day.desk.do(lambda conn: suggestions(conn, BOOK))
    assert left[0].id == match.receipt_id


@pytest.mark.parametrize(
    ("story", "by", "second", "error"),
    [
        ("one person", "ada", "ada", SamePerson),
        ("the second may not", "ada", "dan", NotAuthorised),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_it_takes_two_people_who_may(
    day: BankDay, story: str, by: str, second: str, error: type[Exception]
) -> None:
    _, item = await day.awaiting(60_000)
    day.credit(60_000)
    await day.end_of_day()
    (receipt,) = await day.waiting()

    with pytest.raises(error):
        await day.by_hand(receipt, *shares((item, 60_000)), by=by, second=second)

    assert await day.cents("suspense") == {"suspense:bank": 60_000}


@pytest.mark.parametrize(
    ("story", "amounts", "charge", "error"),
    [
        ("more than came", [60_001], 0, "BadInput"),
        ("a rest that goes nowhere", [40_000], 0, "BadInput"),
        ("nothing", [], 0, "BadInput"),
        ("a charge that completes nothing", [59_000], 10, "BadInput"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_shares_that_do_not_add_up_are_refused(
    day: BankDay, story: str, amounts: list[int], charge: int, error: str
) -> None:
    _, item = await day.awaiting(100_000)
    day.credit(60_000)
    await day.end_of_day()
    (receipt,) = await day.waiting()
    given = [Share(instruction_id=item.id, amount=n, charge=charge) for n in amounts]

    with pytest.raises((BadInput, Refused)) as caught:
        await day.by_hand(receipt, *given)

    assert type(caught.value).__name__ == error


async def test_what_does_not_wait_is_not_matched_twice(day: BankDay) -> None:
    _, item = await day.awaiting(60_000, 10_000)
    day.credit(60_000)
    await day.end_of_day()
    (receipt,) = await day.waiting()
    await day.by_hand(receipt, *shares((item, 60_000)))

    with pytest.raises(Refused, match="does not wait"):
        await day.by_hand(receipt, *shares((item, 10_000)))
    with pytest.raises(Refused, match="is not matched"):
        await day.unmatch(UUID(int=5))
