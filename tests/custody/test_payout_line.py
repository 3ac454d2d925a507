"""Lines of nonces: gaps that nobody comes for, heads that do not move, nonces that others take."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.testing import ScriptedTransaction
from custody import payout_rows as rows
from custody import payout_store as store
from custody.nonces import choose_nonce, read_line
from custody.payout_line import FILL_AFTER_MAX, fill_after
from custody.payout_model import AttemptKind, Nonce, NonceState, Payout, PayoutState
from custody.payout_rules import FILL_AFTER, HEAD_OF_LINE_AFTER, BumpPolicy
from custody.payouts import list_payouts
from custody.ports import PayoutSigner
from custody.signer.errors import SignerRefused
from custody.signer.wire import Intent, SignedApproval
from kernel.errors import StaleFence
from kernel.events import list_history
from kernel.ids import stable_id
from tests.custody.payout_world import ETH, STRANGER, OneByOne, World, make_world

AT = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(engine, tmp_path) as made:
        yield made


@dataclass
class PickySigner(OneByOne):
    """Refuses some payouts, for good."""

    signer: PayoutSigner
    refused: set[UUID] = field(default_factory=set)

    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        if intent.payout_id in self.refused:
            raise SignerRefused("no")
        return await self.signer.sign(intent, unsigned, approvals)

    async def account_xpub(self, path: str) -> str:
        return await self.signer.account_xpub(path)


async def with_gap(world: World) -> tuple[Payout, Payout]:
    """Two payouts in one claim, of which the signer refuses the first: nonce 0 is missing."""
    first = await world.approved(client_ref="1", amount=ETH)
    world.clock.advance(timedelta(seconds=1))
    second = await world.approved(client_ref="2", amount=ETH)
    world.signer = PickySigner(world.signer, {first.id})
    await world.advance()
    return await world.get(first), await world.get(second)


async def fillers(world: World) -> list[Payout]:
    found = await world.run(lambda conn: list_payouts(conn, book=1))
    return [item for item in found if item.fills_gap]


async def test_a_nonce_that_is_given_back_is_taken_by_the_next_payout(world: World) -> None:
    refused, waits = await with_gap(world)
    assert (refused.state, waits.nonce) == (PayoutState.REJECTED, 1)

    third = await world.approved(client_ref="3", amount=ETH)
    await world.advance()
    await world.mine(3)
    await world.confirm()

    assert (await world.get(third)).nonce == 0
    assert (await world.get(waits)).state is PayoutState.CONFIRMED
    assert await fillers(world) == []


async def test_a_gap_that_no_payout_comes_for_is_filled_by_a_spend_of_nothing(
    world: World,
) -> None:
    _, waits = await with_gap(world)
    await world.mine()
    assert (await world.get(waits)).state is PayoutState.SIGNED
    world.clock.advance(FILL_AFTER)

    report = await world.advance()
    (filler,) = await fillers(world)
    assert report.filled == [filler.id]
    assert (filler.nonce, filler.amount, filler.destination) == (0, 0, filler.sender)
    await world.advance()
    await world.mine(3)
    await world.confirm()

    done = await world.get(filler)
    (attempt,) = await world.run(lambda conn: store.list_attempts(conn, filler.id))
    assert (done.state, attempt.kind) == (PayoutState.CONFIRMED, AttemptKind.CANCEL)
    assert (await world.get(waits)).state is PayoutState.CONFIRMED
    fees = (done.fee_paid or 0) + ((await world.get(waits)).fee_paid or 0)
    books = await world.books()
    assert books["expense:network-fee", "ETH"] == (fees, 0, 0)
    assert books["custody:client-pool", "ETH"] == (10 * ETH - fees, 0, 0)
    await world.assert_rule_two()


async def test_a_gap_is_filled_once_whoever_looks_at_it(world: World) -> None:
    await with_gap(world)
    world.clock.advance(FILL_AFTER)
    await world.advance()
    await world.advance()
    world.clock.advance(FILL_AFTER)
    await world.advance()

    assert len(await fillers(world)) == 1


class NoFillers(PickySigner):
    """Refuses whatever spends a nonce on nothing."""

    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        if intent.kind == "cancel":
            raise SignerRefused("no")
        return await super().sign(intent, unsigned, approvals)


async def test_a_filler_that_the_signer_refuses_is_made_ever_more_seldom_and_people_are_called_once(
    world: World,
) -> None:
    first, _ = await with_gap(world)
    assert isinstance(world.signer, PickySigner)
    world.signer = NoFillers(world.signer.signer, {first.id})

    alarms: list[int] = []
    for _ in range(10):
        world.clock.advance(FILL_AFTER)
        alarms = [alarm.nonce for alarm in (await world.advance()).alarms]
        await world.advance()

    ended = await fillers(world)
    assert {item.state for item in ended} == {PayoutState.REJECTED}
    # After 2, 4 and 8 minutes of the 20 or so that went by.
    assert len(ended) == 3
    assert alarms == [0, 1]
    entity = stable_id("payout_sender", "evm", first.sender)
    told = await world.run(lambda conn: list_history(conn, "payout_sender", entity))
    assert [item.payload["nonce"] for item in told if item.name == "LineBlocked"] == [0, 1]
    assert fill_after(40) == FILL_AFTER_MAX


async def test_a_filler_that_is_reorganised_away_is_mined_again(world: World) -> None:
    _, waits = await with_gap(world)
    world.clock.advance(FILL_AFTER)
    await world.advance()
    await world.advance()
    await world.mine()
    (filler,) = await fillers(world)
    assert filler.state is PayoutState.MINED

    world.gateway.reorg(1, [[], []])
    await world.follow()
    assert (await world.get(filler)).state is PayoutState.SIGNED
    await world.mine(3)
    await world.confirm()

    assert (await world.get(filler)).state is PayoutState.CONFIRMED
    assert (await world.get(waits)).state is PayoutState.CONFIRMED
    await world.assert_rule_two()


async def test_a_nonce_given_back_that_nobody_waits_behind_is_no_gap(world: World) -> None:
    payout = await world.approved()
    world.signer = PickySigner(world.signer, {payout.id})
    await world.advance()
    world.clock.advance(FILL_AFTER)

    assert (await world.advance()).filled == []


async def test_the_lowest_open_nonce_is_an_alarm_when_it_is_too_old(world: World) -> None:
    payout = await world.approved()
    await world.advance()
    (tx_hash,) = world.gateway.pool
    world.gateway.drop(tx_hash)
    assert (await world.advance()).alarms == []
    world.clock.advance(HEAD_OF_LINE_AFTER)

    report = await world.advance()

    (alarm,) = report.alarms
    assert (alarm.sender, alarm.nonce) == (payout.sender, 0)
    assert "open for 10 minutes" in alarm.reason


async def test_a_payment_in_a_block_that_is_not_deep_yet_does_not_hide_the_head_of_the_line(
    world: World,
) -> None:
    await world.approved(client_ref="1", amount=ETH)
    await world.advance()
    await world.mine()
    world.clock.advance(HEAD_OF_LINE_AFTER)
    assert (await world.advance()).alarms == []
    behind = await world.approved(client_ref="2", amount=ETH)
    await world.advance()
    world.clock.advance(BumpPolicy().bump_after)

    report = await world.advance()

    assert (report.bumped, report.alarms) == ([behind.id], [])


async def test_a_nonce_that_a_stranger_consumes_freezes_its_sender_and_nothing_is_renumbered(
    world: World,
) -> None:
    first = await world.approved(client_ref="1", amount=ETH)
    world.clock.advance(timedelta(seconds=1))
    second = await world.approved(client_ref="2", amount=ETH)
    await world.advance()
    nonces = [(await world.get(item)).nonce for item in (first, second)]
    for tx_hash in sorted(world.gateway.pool):
        world.gateway.drop(tx_hash)
    world.gateway.mine(
        ScriptedTransaction(sender=first.sender, recipient=STRANGER, nonce=0, value=10**15)
    )
    await world.follow()

    third = await world.approved(client_ref="3", amount=ETH)
    world.clock.advance(HEAD_OF_LINE_AFTER)
    report = await world.advance()

    held = await world.get(first)
    assert held.state is PayoutState.SECURITY_HOLD
    assert [(await world.get(item)).nonce for item in (first, second)] == nonces
    assert "is frozen" in report.waiting[third.id]
    assert report.filled == []
    assert [a.number for a in await world.run(lambda c: store.list_attempts(c, second.id))] == [1]


async def test_of_many_nonces_none_is_taken_when_one_is_kept(world: World) -> None:
    first = await world.approved(client_ref="1", amount=ETH)
    second = await world.approved(client_ref="2", amount=ETH)
    hot = world.hot["client-pool"]

    def nonce(payout: Payout, number: int) -> Nonce:
        return Nonce(
            chain="evm",
            sender=hot,
            nonce=number,
            payout_id=payout.id,
            state=NonceState.LIVE,
            since=AT,
        )

    await world.run(lambda conn: rows.take_nonces(conn, [nonce(first, 5)]))
    with pytest.raises(StaleFence, match="nonce 5"):
        await world.run(lambda conn: rows.take_nonces(conn, [nonce(second, 5)]))
    assert await world.run(lambda c: store.find_nonce_state(c, "evm", hot, 6)) is None


# Pure.


def rows_of(states: dict[int, NonceState]) -> list[Nonce]:
    return [
        Nonce(
            chain="evm", sender="0x", nonce=nonce, payout_id=UUID(int=nonce), state=state, since=AT
        )
        for nonce, state in states.items()
    ]


@given(st.dictionaries(st.integers(0, 30), st.sampled_from([NonceState.LIVE, NonceState.RELEASED])))
def test_the_gaps_of_a_line_are_what_the_next_payouts_take(states: dict[int, NonceState]) -> None:
    line = read_line(rows_of(states))
    live = [nonce for nonce, state in states.items() if state is NonceState.LIVE]

    if not live:
        assert (line.head, line.gaps) == (None, ())
        return
    assert line.head is not None
    assert line.head.nonce == min(live)
    for gap in line.gaps:
        assert choose_nonce(gap.nonce, 0, states) == gap.nonce < max(live)
    assert timedelta(0) < FILL_AFTER < HEAD_OF_LINE_AFTER


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[bool]]:
    """How many nonces are mined, and for each payout after that whether it keeps its nonce."""
    return draw(st.integers(0, 5)), draw(st.lists(st.booleans(), max_size=30))


@given(histories())
def test_the_next_nonce_is_the_chains_and_the_contiguous_live_rows(
    history: tuple[int, list[bool]],
) -> None:
    """Invariant: next nonce = on-chain nonce + contiguous live rows, whatever was given back."""
    mined, keeps = history
    rows: dict[int, NonceState] = {}
    for kept in keeps:
        nonce = choose_nonce(mined, 0, rows)
        contiguous = mined
        while rows.get(contiguous) is NonceState.LIVE:
            contiguous += 1
        assert nonce == contiguous
        rows[nonce] = NonceState.LIVE if kept else NonceState.RELEASED
