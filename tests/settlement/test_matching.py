"""Receipts against what is awaited: exact, short, over, nothing to match."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from custody.deposit_model import Receipt, ReceiptState
from registry.testing import USDT
from settlement.matching import find_match
from settlement.model import Direction, Instruction, InstructionState, Rail, Run
from tests.settlement.desk import Desk

NOW = datetime(2026, 1, 5, tzinfo=UTC)
S = InstructionState


def awaited(number: int, amount: int, applied: int = 0, **changes: object) -> Instruction:
    values: dict[str, object] = {
        "party": "acme",
        "asset": "USDT",
        "direction": Direction.RECEIVE,
        "rail": Rail.EVM,
        "state": S.RELEASED,
        **changes,
    }
    return Instruction(
        id=UUID(int=number),
        run_id=UUID(int=99),
        amount=amount,
        applied=applied,
        attempt=1,
        payout_id=None,
        standing_version=None,
        evidence="",
        created_at=NOW,
        **values,  # type: ignore[arg-type]
    )


def receipt(amount: int) -> Receipt:
    return Receipt(
        id=UUID(int=1),
        chain="evm",
        tx_hash="0x1",
        position="log:0",
        contract="0x2",
        asset="USDT",
        amount=amount,
        sender="0x3",
        address="0x4",
        wallet="house-settlement",
        party="acme",
        credit="suspense:evm",
        epoch=1,
        block_hash="0x5",
        height=1,
        postings=(),
        version=1,
        first_seen_at=NOW,
        state=ReceiptState.FINAL,
        reference="",
    )


@pytest.mark.parametrize(
    ("story", "amount", "items", "expected"),
    [
        ("exact", 100, [awaited(1, 100)], (1, 100, 0)),
        ("short", 60, [awaited(1, 100)], (1, 60, 0)),
        ("over", 130, [awaited(1, 100)], (1, 100, 30)),
        ("the rest of a short one", 40, [awaited(1, 100, 60)], (1, 40, 0)),
        ("over the rest", 50, [awaited(1, 100, 60)], (1, 40, 10)),
        ("the oldest first", 30, [awaited(1, 100), awaited(2, 100)], (1, 30, 0)),
        ("exactly one fits exactly", 50, [awaited(1, 100), awaited(2, 50)], (2, 50, 0)),
        ("two fit exactly: the oldest", 50, [awaited(1, 50), awaited(2, 50)], (1, 50, 0)),
        ("nothing is awaited", 50, [], None),
        ("another party's", 50, [awaited(1, 50, party="birch")], None),
        ("another asset", 50, [awaited(1, 50, asset="ETH")], None),
        ("the desk's own payment", 50, [awaited(1, 50, direction=Direction.PAY)], None),
        ("settled by book", 50, [awaited(1, 50, rail=Rail.BOOK)], None),
        ("not released", 50, [awaited(1, 50, state=S.PLANNED)], None),
        ("beyond 64 bits", 10**30, [awaited(1, 10**30 + 1)], (1, 10**30, 0)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_receipt_pays(
    story: str, amount: int, items: list[Instruction], expected: tuple[int, int, int] | None
) -> None:
    match = find_match(receipt(amount), items)

    found = None if match is None else (match.instruction.id.int, match.applied, match.excess)
    assert found == expected


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
    monkeypatch.setattr("settlement.matching.RECEIPTS_PAGE", 2)
    for amount in ("1", "2", "3"):
        await desk.receive(USDT.parse(amount), party="birch")
    await owing(desk)
    await desk.receive(USDT.parse("30300"))

    match = await desk.match()

    assert match is not None
    assert match.completes
