"""Fraud with standing instructions: a payment goes where its deals said, or people look at it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from kernel.errors import CausewayError, Refused
from registry.testing import operator_keypair
from settlement.model import Direction, Instruction, InstructionState
from settlement.standing import (
    InstructionChanged,
    choice_bytes,
    choose_standing,
    judge_standing,
    standing_for,
)
from tests.settlement.desk import ACME_WALLET, ELSEWHERE, Desk
from trading.terms.errors import NoStandingInstruction
from trading.terms.model import Rail, SettlementTarget, StandingInstruction

WHEN = datetime(2026, 1, 5, tzinfo=UTC)
ITEM = Instruction(
    id=UUID(int=1),
    run_id=UUID(int=2),
    party="acme",
    asset="ETH",
    direction=Direction.PAY,
    amount=10,
    applied=0,
    rail=Rail.EVM,
    state=InstructionState.PLANNED,
    attempt=1,
    payout_id=None,
    standing_version=None,
    evidence="",
    created_at=WHEN,
)
STANDING = StandingInstruction(
    party="acme",
    asset="ETH",
    rail=Rail.EVM,
    version=2,
    destination=ACME_WALLET,
    effective_from=WHEN.date(),
    needs_call_back=True,
    proposed_by="ada",
    approved_by="ben",
    at=WHEN,
)


def kept(version: int | None, rail: Rail = Rail.EVM) -> SettlementTarget:
    return SettlementTarget(asset="ETH", rail=rail, version=version)


@pytest.mark.parametrize(
    ("story", "targets", "chosen", "answer"),
    [
        ("no deal is behind it", [], [], StandingInstruction),
        ("the deals kept the one in force", [kept(2), kept(2)], [], StandingInstruction),
        ("nobody had said anything when it was dealt", [kept(None)], [], StandingInstruction),
        ("one of the deals kept another", [kept(2), kept(1)], [], InstructionChanged),
        ("by another rail", [kept(2, Rail.BITCOIN)], [], InstructionChanged),
        ("two people chose the one in force", [kept(1)], [2], StandingInstruction),
        ("two people once chose another", [kept(1)], [3], InstructionChanged),
    ],
)
def test_whether_a_payment_knows_where_it_goes(
    story: str, targets: list[SettlementTarget], chosen: list[int], answer: type
) -> None:
    assert type(judge_standing(ITEM, STANDING, targets, chosen)) is answer


def test_without_a_standing_instruction_nothing_is_paid() -> None:
    assert isinstance(judge_standing(ITEM, None, [], [2]), NoStandingInstruction)


async def owed(desk: Desk) -> Instruction:
    """Ten ETH to acme, dealt while version 1 of where it is paid was in force."""
    await desk.instruct("acme", "ETH", ACME_WALLET)
    await desk.deal("deal-1")
    run = await desk.released()
    return (await desk.instructions(run.id))["acme ETH"]


async def goes_to(desk: Desk, item: Instruction) -> str:
    found = await desk.do(lambda conn: standing_for(conn, item, on=desk.now.date()))
    return found.destination


async def choose(desk: Desk, item: Instruction, version: int, second: str = "ben") -> None:
    reason = "called back, calls/17"
    payload = choice_bytes(item.id, version, reason)
    await desk.do(
        lambda conn: choose_standing(
            conn,
            item.id,
            version,
            by=desk.operators["ada"],
            approver=desk.operators[second],
            signature=operator_keypair(second).sign(payload),
            reason=reason,
            now=desk.now,
        )
    )


async def test_a_change_after_the_deal_stops_the_payment_until_two_people_chose_it(
    desk: Desk,
) -> None:
    item = await owed(desk)
    assert await goes_to(desk, item) == ACME_WALLET

    await desk.redirect("acme", "ETH", ELSEWHERE)
    with pytest.raises(InstructionChanged, match="made under evm, version 1"):
        await goes_to(desk, item)
    with pytest.raises(CausewayError, match="cannot approve what ada entered"):
        await choose(desk, item, 2, second="ada")
    with pytest.raises(Refused, match="version 2 of where acme is paid ETH is in force, not 1"):
        await choose(desk, item, 1)

    await choose(desk, item, 2)
    await choose(desk, item, 2)
    assert await goes_to(desk, item) == ELSEWHERE


async def test_a_change_that_waits_changes_nothing(desk: Desk) -> None:
    item = await owed(desk)
    await desk.instruct("acme", "ETH", ELSEWHERE, version=2)

    assert await goes_to(desk, item) == ACME_WALLET


async def test_a_choice_is_of_one_payment_that_there_is(desk: Desk) -> None:
    with pytest.raises(CausewayError, match="no instruction"):
        await choose(desk, replace(ITEM, id=UUID(int=9)), 1)
