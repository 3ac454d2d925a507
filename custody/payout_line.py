"""The lines of nonces, watched: gaps filled, the head of each line bumped, and people called.

Nothing behind the lowest open nonce of an address can be mined. So each call looks at that one: is
it old, does it pay too little, is it missing? Fees are raised only at the head of a line, because
raising them behind it moves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import payout_store as store
from custody.nonces import Alarm, Line, read_line
from custody.payout_allocate import require_covered
from custody.payout_allocation import Allocation
from custody.payout_events import PAYOUT, WORKER, step_payout
from custody.payout_gates import find_unsendable
from custody.payout_model import (
    SENT,
    AttemptKind,
    ClaimKind,
    Nonce,
    NonceState,
    Payout,
    PayoutState,
)
from custody.payout_postings import allocated
from custody.payout_replace import WAITING, bump_by_rule
from custody.payout_rules import FILL_AFTER, HEAD_OF_LINE_AFTER, Bump
from custody.payout_steps import Bench
from kernel.db import transact
from kernel.errors import CausewayError, OutcomeUnknown, OutsideUnavailable
from kernel.events import DomainEvent, list_history, record
from kernel.ids import derive_id, stable_id
from ledger.posting import post, require_applied
from registry.queries import get_wallet

SENDER: Final = "payout_sender"
FILL_AFTER_MAX: Final = timedelta(days=1)
"""A gap whose fillers the signer refuses is filled anew after 2, 4, 8 … minutes, and at last this often."""
FILLS_MAX: Final = 10
"""Gaps filled in one call, at most."""


@dataclass(slots=True)
class LineReport:
    """What one look at the lines did."""

    bumped: list[UUID] = field(default_factory=list)
    filled: list[UUID] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)


async def watch_lines(bench: Bench, chain: str, *, book: int) -> LineReport:
    """Look at every sending address with open nonces; fill, bump, or call people.

    Raises:
        OutsideUnavailable: the node or the database does not answer; ask again.
    """
    report = LineReport()
    async with bench.engine.connect() as conn:
        open_nonces = await store.list_open_nonces(conn, chain, book)
    by_sender: dict[str, list[Nonce]] = {}
    for row in open_nonces:
        by_sender.setdefault(row.sender, []).append(row)
    for rows in by_sender.values():
        line = read_line(rows)
        for gap in line.gaps[:FILLS_MAX]:
            await _fill_if_due(bench, gap, report)
        if line.head is not None:
            await _push_if_due(bench, line.head, report)
            await _call_people_if_due(bench, line, report)
    return report


# The head of a line: offered again for more, by the rule.


async def _push_if_due(bench: Bench, head: Nonce, report: LineReport) -> None:
    now = bench.clock.now()
    if now - head.since < bench.bump.underpriced_after:
        return
    async with bench.engine.connect() as conn:
        payout = await store.get_payout(conn, head.payout_id)
        attempts = await store.list_attempts(conn, payout.id)
        stopped = await find_unsendable(conn, [payout], now=now)
    if payout.state not in SENT or not attempts:
        return
    newest = next(item for item in attempts if item.number == payout.attempt)
    if attempts[-1].number > payout.attempt:
        # To offer it again at every look would be refused at every look.
        reason = f"the signer refused what was offered last for payout {payout.id}"
        await _alarm(bench, head, reason, report)
        return
    age = now - (newest.signed_at or newest.built_at)
    if newest.state not in WAITING or age < bench.bump.underpriced_after:
        return
    quote = await bench.rail.look_at_fees()
    offered = bench.rail.replace(payout, newest, quote, newest.kind)
    offer = offered.unsigned.max_fee_per_gas
    match bench.bump.decide(attempts[0], newest, offer, quote, now):
        case Bump.NOT_YET:
            return
        case Bump.PEOPLE:
            reason = f"payout {payout.id} is in no block and may not offer more by rule"
            await _alarm(bench, head, reason, report)
        case Bump.NOW if stopped and newest.kind is AttemptKind.PAY:
            # Nobody would sign it: more for a block is offered when it may go out again.
            await _alarm(bench, head, stopped[payout.id], report)
        case Bump.NOW:
            await _push(bench, payout, newest.kind, head, report)
        case Bump.CANCEL:
            await _push(bench, payout, AttemptKind.CANCEL, head, report)


async def _push(
    bench: Bench, payout: Payout, kind: AttemptKind, head: Nonce, report: LineReport
) -> None:
    # A block that is not followed yet may have it: then there is nothing to outbid.
    if await bench.rail.count_final_slots(payout.sender) > head.nonce:
        return
    try:
        await bump_by_rule(bench, payout, kind, "the rule: it waits for a block for too long")
    except (OutsideUnavailable, OutcomeUnknown):
        raise
    except CausewayError as error:
        await _alarm(bench, head, error.render(), report)
    else:
        report.bumped.append(payout.id)


async def _call_people_if_due(bench: Bench, line: Line, report: LineReport) -> None:
    assert line.head is not None
    age = bench.clock.now() - line.head.since
    if age >= HEAD_OF_LINE_AFTER:
        minutes = int(age.total_seconds() // 60)
        await _alarm(bench, line.head, f"it is open for {minutes} minutes", report)


async def _alarm(bench: Bench, head: Nonce, reason: str, report: LineReport) -> None:
    """Report that a line does not move; once for each nonce it is an event too."""
    report.alarms.append(Alarm(head.chain, head.sender, head.nonce, reason))
    entity = stable_id(SENDER, head.chain, head.sender)

    async def write(conn: AsyncConnection) -> None:
        payout = await store.get_payout(conn, head.payout_id)
        await store.lock_sender(conn, head.chain, head.sender, payout.source_wallet)
        history = await list_history(conn, SENDER, entity)
        told = (item for item in history if item.name == "LineBlocked")
        if any(item.payload["nonce"] == head.nonce for item in told):
            return
        event = DomainEvent(
            entity_type=SENDER,
            entity_id=entity,
            version=len(history) + 1,
            name="LineBlocked",
            at=bench.clock.now(),
            actor=WORKER,
            reason=reason,
            payload={
                "chain": head.chain,
                "sender": head.sender,
                "nonce": head.nonce,
                "payout_id": str(head.payout_id),
            },
        )
        await record(conn, [event])

    await transact(bench.engine, write)


# A gap: a nonce that was given back, that others wait behind, and that no payout came for in time.


async def _fill_if_due(bench: Bench, gap: Nonce, report: LineReport) -> None:
    age = bench.clock.now() - gap.since
    if age < FILL_AFTER:
        return
    async with bench.engine.connect() as conn:
        refused = await store.count_ended(conn, gap.chain, gap.sender, _reference(gap))
    if refused:
        reason = f"the signer refused {refused} times to spend nonce {gap.nonce} on nothing"
        await _alarm(bench, gap, reason, report)
    if age < fill_after(refused):
        return
    if await bench.rail.count_final_slots(gap.sender) > gap.nonce:
        return
    async with bench.engine.connect() as conn:
        last = await store.get_payout(conn, gap.payout_id)
    quote = await bench.rail.look_at_fees()
    planned = bench.rail.spend_nonce(last, gap.nonce, quote)
    if await bench.rail.count_fee_money(gap.sender) < planned.fee_cap:
        await _alarm(bench, gap, f"{gap.sender} cannot pay the fee that fills the gap", report)
        return
    try:
        filler = await transact(bench.engine, lambda conn: _fill(bench, conn, gap, last, planned))
    except (OutsideUnavailable, OutcomeUnknown):
        raise
    except CausewayError as error:
        await _alarm(bench, gap, error.render(), report)
        return
    if filler is not None:
        report.filled.append(filler.id)


def fill_after(refused: int) -> timedelta:
    """Return the age at which a gap is filled, after so many fillers that nobody signed."""
    return min(FILL_AFTER * (1 << min(refused, 16)), FILL_AFTER_MAX)


async def _fill(
    bench: Bench, conn: AsyncConnection, gap: Nonce, last: Payout, planned: Allocation
) -> Payout | None:
    """Make the payout that spends the nonce; None when another one has taken it meanwhile."""
    now = bench.clock.now()
    frozen = await store.lock_sender(conn, gap.chain, gap.sender, last.source_wallet)
    state = await store.find_nonce_state(conn, gap.chain, gap.sender, gap.nonce)
    if frozen is not None or state is not NonceState.RELEASED:
        return None
    values = _filler(gap, last, now)
    await store.insert_payout(conn, values)
    filler = await store.get_payout(conn, values["id"], lock=True)
    await store.take_nonce(conn, gap.chain, gap.sender, gap.nonce, filler.id, now)
    await store.insert_attempt(conn, bench.rail.draft(filler, 1, planned, now))
    require_applied(await post(conn, filler.book, allocated(filler, planned.fee_cap), now=now))
    if (await get_wallet(conn, filler.source_wallet)).holds_client_money:
        await require_covered(conn, filler.book, {filler.native_asset: planned.fee_cap})
    return await step_payout(
        conn,
        filler,
        PayoutState.ALLOCATED,
        actor=WORKER,
        now=now,
        reason=f"nonce {gap.nonce} was given back and others wait behind it",
        payload={"nonce": gap.nonce, "fee_cap": str(planned.fee_cap)},
        attempt=1,
        nonce=gap.nonce,
        fee_cap=planned.fee_cap,
    )


def _reference(gap: Nonce) -> str:
    """Return with what the references of all fillers of a gap begin."""
    return f"gap:{gap.sender}:{gap.nonce}:"


def _filler(gap: Nonce, last: Payout, now: datetime) -> dict[str, Any]:
    """Return the row of a payout of nothing, from the address to itself."""
    reference = f"{_reference(gap)}{gap.since.isoformat()}"
    claim = f"{ClaimKind.OWN}:{last.source_wallet}"
    return {
        "id": derive_id(now, PAYOUT, last.book, claim, reference),
        "book": last.book,
        "client_ref": reference,
        "claim": claim,
        "rail": last.rail,
        "chain": last.chain,
        "chain_id": last.chain_id,
        "source_wallet": last.source_wallet,
        "sender": last.sender,
        "sender_path": last.sender_path,
        "asset": last.native_asset,
        "amount": 0,
        "contract": None,
        "chain_amount": 0,
        "native_asset": last.native_asset,
        "destination": last.sender,
        "requested_by": WORKER,
        "reason": "fills a gap between nonces",
        "policy_version": 0,
        "approvals_required": 1,
        "state": PayoutState.REQUESTED,
        "hold_epoch": 0,
        "attempt": 0,
        "fee_cap": 0,
        "waiting_for": "",
        "run_after": now,
        "created_at": now,
    }
