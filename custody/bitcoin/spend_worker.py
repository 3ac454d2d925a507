"""The worker on Bitcoin: takes approved payouts to the chain, one committed step after the other.

allocate (coins locked, a transaction and holds are rows) -> sign (the exact bytes are a row) -> send
(and again, the same bytes, for as long as nobody knows; or another transaction that spends the anchor,
for more). A crash between any two leaves rows from which the next worker goes on; what was done outside
meanwhile is done again to no effect.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.ports import BitcoinReader
from chain.follow import require_running
from custody import payout_store
from custody.bitcoin import spend_store as store
from custody.bitcoin.spend_allocate import DUE_MAX, allocate
from custody.bitcoin.spend_model import SENT, WORKED_ON, Spend, SpendState
from custody.bitcoin.spend_moves import SPEND, Carried, load_carried
from custody.bitcoin.spend_plan import Market, SpendPolicy, decide_bump
from custody.bitcoin.spend_replace import bump_by_rule
from custody.bitcoin.spend_send import UNMINED, send
from custody.bitcoin.spend_sign import sign, waits_for_signature
from custody.bitcoin.spend_steps import (
    RETRY_AFTER,
    SpendBench,
    Stopped,
    look_at_market,
    require_network,
)
from custody.bitcoin.spend_tables import spend as spend_table
from custody.compliance.address_list import NOBODY_LISTED
from custody.compliance.ports import Screening
from custody.compliance.screening import screen_payouts
from custody.compliance.travel_rule import NO_TRAVEL_RULE, TravelRule
from custody.nonces import Alarm
from custody.payout_events import WORKER
from custody.payout_gates import find_unsendable
from custody.payout_model import AttemptKind, PayoutState
from custody.payout_rules import Bump
from custody.payout_worker import TEXT_LENGTH_MAX, WorkReport
from custody.ports import PayoutSigner
from kernel import tracing
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import CausewayError, OutcomeUnknown, OutsideUnavailable, StaleFence
from kernel.events import REASON_LENGTH_MAX, DomainEvent, list_history, record
from kernel.leases import claim
from registry.queries import get_chain

LEASE: Final = timedelta(seconds=60)
SPENDS_MAX: Final = 20
"""Spends taken further in one call."""
WAITS_TOO_LONG: Final = timedelta(hours=2)
"""People are told of a spend that no block has for so long."""
BLOCKED: Final = "SpendBlocked"
_STATES: Final = [str(state) for state in WORKED_ON]


@dataclass(slots=True)
class _Turn:
    """One call of the worker."""

    bench: SpendBench
    chain: str
    book: int
    market: Market | None = None
    trouble: str = ""
    report: WorkReport = field(default_factory=WorkReport)


async def advance_spends(
    engine: AsyncEngine,
    node: BitcoinReader,
    signer: PayoutSigner,
    *,
    chain: str,
    book: int,
    holder: str,
    clock: Clock,
    limit: int = SPENDS_MAX,
    policy: SpendPolicy | None = None,
    screening: Screening = NOBODY_LISTED,
    travel_rule: TravelRule = NO_TRAVEL_RULE,
) -> WorkReport:
    """Take every payout on a chain of Bitcoin as far as it goes now; return what was done.

    A signer or a node that does not answer leaves payouts where they are, to be tried again.

    Args:
        engine: the database, as the runtime role.
        node: the node of *chain*.
        signer: who holds the keys.
        chain: the chain's code.
        book: the book.
        holder: this worker's name: it holds the leases.
        clock: the time, read anew at each step.
        limit: spends claimed at once, at most `SPENDS_MAX`.
        policy: what is paid for blocks; None: the default.
        screening: asked about every payout to others before it gets coins.
        travel_rule: from which amounts on a record of both sides is needed before.

    Raises:
        ChainHalted: nothing is sent on a chain that is halted.
        WrongChain: the node serves another network.
    """
    bench = SpendBench(engine, node, signer, clock, policy or SpendPolicy())
    turn = _Turn(bench, chain, book)
    # Who screens may be away: what has no answer waits, and what has one goes on.
    with contextlib.suppress(OutsideUnavailable):
        await screen_payouts(engine, screening, chain, now=clock.now(), travel_rule=travel_rule)
    await _look(turn)
    await _allocate_due(turn)

    async def claim_due(conn: AsyncConnection) -> list[Spend]:
        await require_running(conn, chain)
        rows = await claim(
            conn,
            spend_table,
            where=(spend_table.c.chain == chain)
            & (spend_table.c.book == book)
            & spend_table.c.state.in_(_STATES)
            & (spend_table.c.run_after <= clock.now()),
            order_by=(spend_table.c.run_after, spend_table.c.created_at, spend_table.c.id),
            holder=holder,
            now=clock.now(),
            lease_for=LEASE,
            limit=min(limit, SPENDS_MAX),
        )
        return [store.to_spend(row) for row in rows]

    for spend in await transact(engine, claim_due):
        await _advance(turn, spend)
    return turn.report


async def _look(turn: _Turn) -> None:
    async with turn.bench.engine.connect() as conn:
        await require_running(conn, turn.chain)
        network_id = (await get_chain(conn, turn.chain)).network_id
    try:
        await require_network(turn.bench.node, turn.chain, network_id)
        turn.market = await look_at_market(turn.bench.node, turn.bench.policy)
    except OutsideUnavailable as error:
        turn.trouble = error.render()


async def _allocate_due(turn: _Turn) -> None:
    now = turn.bench.clock.now()
    async with turn.bench.engine.connect() as conn:
        due = await store.list_due(conn, turn.chain, turn.book, now, DUE_MAX)
    if turn.market is None:
        turn.report.waiting |= {item.id: turn.trouble for item in due}
        return
    if not due:
        return
    found = await allocate(turn.bench, due, turn.market)
    turn.report.allocated += found.payouts
    turn.report.waiting |= found.waiting


async def _advance(turn: _Turn, spend: Spend) -> None:
    """Take one claimed spend from step to step until it waits or is sent; give it back."""
    try:
        stopped = await _steps(turn, spend)
    except (OutsideUnavailable, OutcomeUnknown) as error:
        stopped = Stopped(error.render())
    except StaleFence:
        return
    except CausewayError as error:
        stopped = Stopped(error.render())
    except DBAPIError as error:
        stopped = Stopped(f"the database refused: {error.orig}")
    await _give_back(turn, spend, stopped)


async def _steps(turn: _Turn, spend: Spend) -> Stopped:
    seen = await _load(turn.bench, spend)
    with tracing.working("payout spend", [item.id for item in seen.payouts]):
        return await _take_further(turn, spend, seen)


async def _take_further(turn: _Turn, spend: Spend, seen: Carried) -> Stopped:
    bench = turn.bench
    if seen.spend.state in SENT and not waits_for_signature(seen):
        await _bump_if_due(turn, spend, seen)
        seen = await _load(bench, spend)
    if waits_for_signature(seen):
        first = not seen.signed
        stopped = await sign(bench, spend)
        seen = await _load(bench, spend)
        if first and seen.signed:
            turn.report.signed += [item.id for item in seen.payouts]
        if seen.spend.state is SpendState.DROPPED:
            turn.report.rejected += [
                item.id for item in seen.payouts if item.state is PayoutState.REJECTED
            ]
        if stopped.reason and (not seen.signed or seen.spend.state not in SENT):
            return stopped
    if seen.spend.state not in SENT:
        return Stopped("")
    sent = await send(bench, spend)
    if sent.sent:
        turn.report.sent += [item.id for item in seen.payouts]
    return sent


async def _load(bench: SpendBench, spend: Spend) -> Carried:
    async with bench.engine.connect() as conn:
        return await load_carried(conn, spend.id)


async def _bump_if_due(turn: _Turn, spend: Spend, seen: Carried) -> None:
    bench, now = turn.bench, turn.bench.clock.now()
    if turn.market is None or not seen.signed or seen.current.state not in UNMINED:
        return
    begun = now - (seen.signed[0].signed_at or now)
    if begun >= WAITS_TOO_LONG:
        minutes = int(begun.total_seconds() // 60)
        await _alarm(turn, spend, f"no block has it for {minutes} minutes")
    match decide_bump(seen.signed, turn.market, bench.policy, now):
        case Bump.NOT_YET:
            return
        case Bump.PEOPLE:
            await _alarm(turn, spend, "it may not offer more by rule")
        case Bump.CANCEL:
            await _bump(turn, spend, seen, AttemptKind.CANCEL, turn.market)
        case Bump.NOW:
            await _bump(turn, spend, seen, seen.current.kind, turn.market)


async def _bump(
    turn: _Turn, spend: Spend, seen: Carried, kind: AttemptKind, market: Market
) -> None:
    bench = turn.bench
    if kind is AttemptKind.PAY:
        async with bench.engine.connect() as conn:
            stopped = await find_unsendable(conn, seen.payouts, now=bench.clock.now())
        if stopped:
            # Nobody would sign it: more for a block is offered when it may go out again.
            await _alarm(turn, spend, "; ".join(stopped.values()))
            return
    # A block that is not followed yet may have it: then there is nothing to outbid.
    if not await bench.node.is_unspent(spend.anchor, with_pool=False):
        return
    reason = "the rule: it waits for a block for too long"
    try:
        await bump_by_rule(bench, spend, kind, market, reason)
    except (OutsideUnavailable, OutcomeUnknown, StaleFence):
        raise
    except CausewayError as error:
        await _alarm(turn, spend, error.render())
    else:
        turn.report.bumped += [item.id for item in seen.payouts]


async def _alarm(turn: _Turn, spend: Spend, reason: str) -> None:
    """Report that no block takes a spend; once for each spend it is an event too."""
    turn.report.alarms.append(Alarm(turn.chain, spend.wallet, 0, f"spend {spend.id}: {reason}"))

    async def write(conn: AsyncConnection) -> None:
        # A worker that has lost the spend writes nothing; the row is locked from here on.
        if (await store.get_spend(conn, spend.id, lock=True)).fence != spend.fence:
            raise StaleFence(f"spend {spend.id} was claimed by another worker")
        history = await list_history(conn, SPEND, spend.id)
        if any(item.name == BLOCKED for item in history):
            return
        event = DomainEvent(
            entity_type=SPEND,
            entity_id=spend.id,
            version=len(history) + 1,
            name=BLOCKED,
            at=turn.bench.clock.now(),
            actor=WORKER,
            reason=reason[:REASON_LENGTH_MAX],
            payload={"chain": turn.chain, "wallet": spend.wallet, "anchor": str(spend.anchor)},
        )
        await record(conn, [event])

    await transact(turn.bench.engine, write)


async def _give_back(turn: _Turn, spend: Spend, stopped: Stopped) -> None:
    """End the lease: why it waits, and until when; a hold keeps its own reason."""
    until = turn.bench.clock.now() + (stopped.look_again or RETRY_AFTER)
    reason = stopped.reason[:TEXT_LENGTH_MAX]

    async def work(conn: AsyncConnection) -> list[UUID]:
        mine = await load_carried(conn, spend.id, lock=True)
        values: dict[str, object] = {"run_after": until, "lease_holder": None, "lease_until": None}
        worked_on = mine.spend.state in WORKED_ON
        if worked_on:
            values["waiting_for"] = reason
        await store.update_spend(conn, spend.id, fence=spend.fence, **values)
        if not worked_on:
            return []
        for item in mine.payouts:
            if item.waiting_for != reason:
                await payout_store.update_payout(conn, item.id, waiting_for=reason)
        return [item.id for item in mine.payouts]

    with contextlib.suppress(StaleFence):
        waiting = await transact(turn.bench.engine, work)
        if reason:
            turn.report.waiting |= dict.fromkeys(waiting, reason)
