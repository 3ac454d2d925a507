"""Other transactions at a payout's nonce: bumps by rule, and cancellation by conflict."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.evm.transactions import decode_signed
from chain.model import FeeQuote
from chain.testing import BASE_FEE, FINALITY_LAG, PRIORITY_FEE, ScriptedGateway
from custody import payout_store as store
from custody.errors import NotPossible
from custody.payout_line import SENDER
from custody.payout_model import Attempt, AttemptKind, AttemptState, Payout, PayoutState
from custody.payout_replace import cancel_by_conflict, cancel_bytes
from custody.payout_rules import Bump, BumpPolicy
from custody.payout_worker import WorkReport, advance_payouts
from kernel.errors import BadInput, Refused
from kernel.events import list_history
from kernel.ids import stable_id
from registry.testing import operator_keypair
from tests.custody.payout_world import BOOK, ETH, PAYEE, World, make_world

REASON = "sent to the wrong person"
CANCEL_GAS = 21_000
QUOTE = FeeQuote(2 * BASE_FEE + PRIORITY_FEE, PRIORITY_FEE)
RULE = BumpPolicy()


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(engine, tmp_path) as made:
        yield made


def people(payout: Payout, *codes: str, reason: str = REASON) -> dict[str, bytes]:
    signed = cancel_bytes(payout.id, reason)
    return {code: operator_keypair(code).sign(signed) for code in codes or ("ada", "ben")}


async def cancel(
    world: World, payout: Payout, signatures: Mapping[str, bytes] | None = None
) -> Payout:
    return await cancel_by_conflict(
        world.engine,
        world.gateway,
        payout.id,
        signatures=people(payout) if signatures is None else signatures,
        reason=REASON,
        clock=world.clock,
    )


async def attempts_of(world: World, payout: Payout) -> list[Attempt]:
    return await world.run(lambda conn: store.list_attempts(conn, payout.id))


async def advance(world: World, rule: BumpPolicy) -> WorkReport:
    await world.tell_signer()
    return await advance_payouts(
        world.engine,
        world.gateway,
        world.signer,
        chain="evm",
        book=BOOK,
        holder=world.worker,
        clock=world.clock,
        bump=rule,
    )


# Cancellation.


async def test_a_payment_is_cancelled_by_a_spend_of_nothing_and_only_when_that_is_final(
    world: World,
) -> None:
    before = await world.books()
    payout = await world.approved()
    await world.advance()

    assert (await cancel(world, payout)).state is PayoutState.CANCELLING
    await world.advance()

    payment, conflict = await attempts_of(world, payout)
    assert conflict.raw is not None
    tx = decode_signed(conflict.raw, chain_id=31337).unsigned
    assert (tx.nonce, tx.value, tx.data, tx.recipient) == (payment.nonce, 0, b"", payout.sender)
    assert tx.max_fee_per_gas * 8 >= payment.max_fee_per_gas * 9
    assert tx.max_priority_fee_per_gas * 8 >= payment.max_priority_fee_per_gas * 9
    assert conflict.kind is AttemptKind.CANCEL

    await world.mine(3)
    await world.confirm()
    mined = await world.get(payout)
    # Deep enough for a payment, not final: the payment could still be mined on another branch.
    assert (mined.state, mined.succeeded) == (PayoutState.MINED, False)
    assert (await world.books())["in-flight:evm", "ETH"][0] == payout.amount
    await world.assert_rule_two()

    await world.mine(FINALITY_LAG)
    await world.confirm()

    done = await world.get(payout)
    fee = done.fee_paid
    assert done.state is PayoutState.CANCELLED
    assert {a.number: a.state for a in await attempts_of(world, payout)} == {
        1: AttemptState.SUPERSEDED,
        2: AttemptState.FINAL,
    }
    assert fee is not None
    assert await world.books() == {
        **before,
        ("custody:client-pool", "ETH"): (11 * ETH - fee, 0, 0),
        ("expense:network-fee", "ETH"): (fee, 0, 0),
    }
    await world.assert_rule_two()


async def test_a_payment_that_is_mined_before_its_cancellation_is_simply_paid(world: World) -> None:
    payout = await world.approved()
    await world.advance()
    (tx_hash,) = world.gateway.pool
    paid = world.gateway.read((await attempts_of(world, payout))[0].raw or b"")
    await cancel(world, payout)
    await world.advance()

    world.gateway.mine(paid)
    await world.follow()
    await world.mine(2)
    await world.confirm()

    done = await world.get(payout)
    assert (done.state, done.tx_hash, done.succeeded) == (PayoutState.CONFIRMED, tx_hash, True)
    await world.assert_rule_two()


async def test_a_cancellation_that_is_reorganised_away_leaves_the_race_open(world: World) -> None:
    payout = await world.approved()
    await world.advance()
    paid = world.gateway.read((await attempts_of(world, payout))[0].raw or b"")
    await cancel(world, payout)
    await world.advance()
    await world.mine()
    assert (await world.get(payout)).state is PayoutState.MINED

    world.gateway.reorg(1, [[], []])
    await world.follow()
    assert (await world.get(payout)).state is PayoutState.CANCELLING
    world.gateway.mine(paid)
    await world.follow()

    assert (await world.get(payout)).succeeded
    await world.mine(3)
    await world.confirm()
    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    await world.assert_rule_two()


async def test_a_cancellation_that_was_final_and_is_gone_all_the_same_freezes_the_sender(
    world: World,
) -> None:
    payout = await world.approved()
    await world.advance()
    await cancel(world, payout)
    await world.advance()
    await world.mine(FINALITY_LAG + 1)
    await world.confirm()
    assert (await world.get(payout)).state is PayoutState.CANCELLED

    world.gateway.reorg(FINALITY_LAG + 1, [[]] * (FINALITY_LAG + 2))
    world.clock.advance(timedelta(minutes=1))
    await world.follow(reorg_depth_max=2 * FINALITY_LAG)

    held = await world.get(payout)
    assert (held.state, held.claim_returned) == (PayoutState.SECURITY_HOLD, True)
    other = await world.approved(client_ref="w-2", amount=ETH)
    assert "is frozen" in (await world.advance()).waiting[other.id]


@pytest.mark.parametrize("codes", [("ada",), ("ada", "dan")])
async def test_a_payment_is_cancelled_by_two_people_who_may(
    world: World, codes: tuple[str, ...]
) -> None:
    payout = await world.approved()
    await world.advance()

    with pytest.raises(Refused):
        await cancel(world, payout, people(payout, *codes))

    assert (await world.get(payout)).state is PayoutState.SIGNED


async def test_signatures_for_another_reason_cancel_nothing(world: World) -> None:
    payout = await world.approved()
    await world.advance()

    with pytest.raises(Refused):
        await cancel(world, payout, people(payout, "ada", "ben", reason="another"))


async def test_what_is_not_signed_or_is_being_cancelled_is_not_cancelled_by_conflict(
    world: World,
) -> None:
    payout = await world.approved()
    with pytest.raises(NotPossible, match="waits for a block"):
        await cancel(world, payout)
    await world.advance()
    await cancel(world, payout)
    await world.advance()

    with pytest.raises(NotPossible, match="is being cancelled"):
        await cancel(world, payout)


# Bumps by rule.


async def test_the_head_of_a_line_is_bumped_by_rule_and_what_stands_behind_it_is_not(
    world: World,
) -> None:
    first = await world.approved(client_ref="1", amount=ETH)
    second = await world.approved(client_ref="2", amount=ETH)
    await world.advance()
    world.clock.advance(RULE.bump_after)

    report = await world.advance()

    assert report.bumped == [first.id]
    await world.advance()
    attempts = await attempts_of(world, first)
    assert [a.state for a in attempts] == [AttemptState.BROADCAST] * 2
    assert len({a.nonce for a in attempts}) == 1
    assert [a.number for a in await attempts_of(world, second)] == [1]
    await world.mine(3)
    await world.confirm()
    assert (await world.get(first)).state is PayoutState.CONFIRMED
    await world.assert_rule_two()


async def test_a_payment_that_a_block_has_and_the_books_do_not_know_yet_is_not_bumped(
    world: World,
) -> None:
    payout = await world.approved()
    await world.advance()
    world.gateway.mine_pool()
    world.clock.advance(RULE.bump_after)

    assert (await world.advance()).bumped == []

    assert [a.number for a in await attempts_of(world, payout)] == [1]


async def test_past_the_deadline_people_are_called_once_and_no_more_is_offered(
    world: World,
) -> None:
    payout = await world.approved()
    await world.advance()
    world.clock.advance(RULE.deadline)

    for _ in range(3):
        report = await world.advance()
        assert report.bumped == []
        assert [alarm.nonce for alarm in report.alarms][:1] == [0]

    assert len(await attempts_of(world, payout)) == 1
    assert await blocked_lines(world) == [0]


async def test_the_rule_may_cancel_what_takes_too_long(world: World) -> None:
    rule = replace(RULE, cancel_after=timedelta(minutes=5))
    payout = await world.approved()
    await advance(world, rule)
    world.clock.advance(timedelta(minutes=5))

    assert (await advance(world, rule)).bumped == [payout.id]

    assert (await world.get(payout)).state is PayoutState.CANCELLING
    await advance(world, rule)
    await world.mine(FINALITY_LAG + 1)
    await world.confirm()
    assert (await world.get(payout)).state is PayoutState.CANCELLED
    await world.assert_rule_two()


async def blocked_lines(world: World) -> list[int]:
    entity = stable_id(SENDER, "evm", world.hot["client-pool"])
    history = await world.run(lambda conn: list_history(conn, SENDER, entity))
    return [item.payload["nonce"] for item in history if item.name == "LineBlocked"]


def attempt(**changes: object) -> Attempt:
    at = datetime(2026, 1, 5, tzinfo=UTC)
    base = Attempt(
        id=UUID(int=1),
        payout_id=UUID(int=2),
        number=1,
        chain="evm",
        sender=PAYEE,
        nonce=0,
        state=AttemptState.BROADCAST,
        unsigned=b"",
        gas_limit=CANCEL_GAS,
        max_fee_per_gas=QUOTE.max_fee_per_gas,
        max_priority_fee_per_gas=PRIORITY_FEE,
        tx_hash="0x01",
        raw=b"1",
        broadcasts=1,
        last_broadcast_at=at,
        detail="",
        built_at=at,
        signed_at=at,
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # names are checked by replace


@pytest.mark.parametrize(
    ("newest", "after", "offer", "quote", "decided"),
    [
        pytest.param({}, timedelta(seconds=179), 2, QUOTE, Bump.NOT_YET, id="young"),
        pytest.param({}, timedelta(seconds=180), 2, QUOTE, Bump.NOW, id="old"),
        pytest.param(
            {"max_fee_per_gas": 10**9}, timedelta(seconds=30), 2, QUOTE, Bump.NOW, id="too cheap"
        ),
        pytest.param({}, timedelta(hours=2), 2, QUOTE, Bump.PEOPLE, id="past the deadline"),
        pytest.param(
            {},
            timedelta(minutes=4),
            10 * QUOTE.max_fee_per_gas + 1,
            QUOTE,
            Bump.PEOPLE,
            id="above ten times the first",
        ),
    ],
)
def test_what_the_rule_decides(
    newest: dict[str, object], after: timedelta, offer: int, quote: FeeQuote, decided: Bump
) -> None:
    first = attempt()
    now = first.built_at + after

    assert RULE.decide(first, attempt(**newest), offer, quote, now) is decided


@pytest.mark.parametrize(
    "values",
    [
        {"bump_after": timedelta(0)},
        {"deadline": timedelta(minutes=1)},
        {"times_first_max": 0},
    ],
)
def test_a_rule_that_never_bumps_or_bumps_at_once_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        replace(RULE, **values)  # type: ignore[arg-type]  # names are checked by replace


async def test_a_bump_by_rule_never_outbids_what_the_rule_allows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    payout = await world.approved()
    await world.advance()

    async def dear(self: ScriptedGateway) -> FeeQuote:
        return FeeQuote(100 * QUOTE.max_fee_per_gas, PRIORITY_FEE)

    monkeypatch.setattr(ScriptedGateway, "fees", dear)
    world.clock.advance(RULE.bump_after)
    report = await world.advance()

    assert report.bumped == []
    assert "may not offer more by rule" in report.alarms[0].reason
    assert len(await attempts_of(world, payout)) == 1
