"""Receipts against what is awaited: exact, short, over, nothing to match."""

from __future__ import annotations

import pytest

from registry.testing import USDT
from settlement.model import Run
from tests.settlement.desk import Desk


async def owing(desk: Desk, party: str = "acme") -> Run:
    """A released run in which the party owes 30,300 USDT."""
    await desk.agree(party)
    await desk.deal(f"sold-to-{party}", party=party)
    return await desk.released()


@pytest.mark.parametrize(
    ("story", "paid", "states", "books"),
    [
        ("exact", ["30300"], ["final"], {}),
        (
            "short, then the rest",
            ["30299.999999", "0.000001"],
            ["released", "final"],
            {},
        ),
        ("short", ["300"], ["released"], {"receivable:acme:netted USDT": "30,000"}),
        ("over", ["30300.5"], ["final"], {"payable:acme:unapplied USDT": "0.5"}),
        (
            "short, then over",
            ["30000", "400"],
            ["released", "final"],
            {"payable:acme:unapplied USDT": "100"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_receipt_empties_suspense_into_what_is_owed(
    desk: Desk, story: str, paid: list[str], states: list[str], books: dict[str, str]
) -> None:
    run = await owing(desk)
    seen = []
    for amount in paid:
        await desk.receive(USDT.parse(amount))
        assert await desk.match() is not None
        seen.append((await desk.states(run.id))["acme USDT"])

    assert seen == states
    assert await desk.books("suspense", "receivable", "payable:acme:unapplied", "client") == books
    total = sum(USDT.parse(amount) for amount in paid)
    item = (await desk.instructions(run.id))["acme USDT"]
    assert item.applied == min(total, item.amount)


async def test_a_receipt_for_nothing_stays_in_suspense_and_does_not_hold_up_others(
    desk: Desk,
) -> None:
    await desk.receive(USDT.parse("5"), party="birch")
    assert await desk.match() is None
    run = await owing(desk)
    await desk.receive(USDT.parse("30300"))

    match = await desk.match()

    assert match is not None
    assert match.completes
    assert await desk.match() is None
    assert await desk.books("suspense") == {"suspense:evm USDT": "5"}
    assert await desk.receipt_states() == ["final", "matched"]
    assert (await desk.states(run.id))["acme USDT"] == "final"


async def test_receipts_are_matched_one_a_transaction_the_oldest_first(desk: Desk) -> None:
    run = await owing(desk)
    await desk.receive(USDT.parse("100"))
    await desk.receive(USDT.parse("200"))

    first, second, none = await desk.match(), await desk.match(), await desk.match()

    assert first is not None
    assert second is not None
    assert none is None
    assert (first.applied, second.applied) == (USDT.parse("100"), USDT.parse("200"))
    assert (await desk.instructions(run.id))["acme USDT"].applied == USDT.parse("300")


async def test_more_unmatched_receipts_than_a_page_hide_none(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("settlement.matching.sources.PAGE", 2)
    for amount in ("1", "2", "3"):
        await desk.receive(USDT.parse(amount), party="birch")
    await owing(desk)
    await desk.receive(USDT.parse("30300"))

    match = await desk.match()

    assert match is not None
    assert match.completes
