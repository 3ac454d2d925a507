"""The job that keeps coins where they should lie: one plan for each window, then its requests.

A window is planned once for each version of the rules: the row of the window and its proposals are
one transaction. Each proposal becomes a payout in a transaction of its own, so a crash anywhere
leaves proposals that the next turn turns into payouts, each once. What moves coins is the payout,
with the approvals that it needs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.ports import BitcoinReader
from chain.model import Block
from chain.ports import ChainGateway
from custody.addresses import assign_address
from custody.bitcoin.consolidation import REFERENCE as CONSOLIDATION
from custody.model import AddressPurpose
from custody.payout_events import PAYOUT
from custody.payout_model import ClaimKind, Payout, PayoutRequest, PayoutState
from custody.payouts import request_payout
from custody.rebalance import store
from custody.rebalance.coin_view import look_at_coins
from custody.rebalance.model import (
    PROPOSAL_STATES,
    OwnTransfer,
    Proposal,
    ProposalState,
    RebalanceReport,
    RebalanceRules,
    TransferKind,
    TreasuryPlan,
    TreasuryView,
)
from custody.rebalance.planning import plan
from custody.rebalance.view import look
from custody.signing_stops import watch_float
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import Refused
from kernel.events import DomainEvent, list_history, next_version, record
from kernel.ids import derive_id, stable_id
from registry.model import BITCOIN
from registry.queries import get_chain

WORKER: Final = "system:rebalance"
ENTITY: Final = "rebalance_proposal"
ALARM: Final = "rebalance_alarm"
DETAIL_LENGTH_MAX: Final = 500
REQUESTS_MAX: Final = 500
"""Proposals turned into payouts in one turn."""


See = Callable[[RebalanceRules], Awaitable[tuple[TreasuryView, Block]]]
"""Returns what a plan is made from, and the block at which it is."""


@dataclass(frozen=True, slots=True)
class _Turn:
    engine: AsyncEngine
    chain: str
    book: int
    clock: Clock
    by: str


async def advance_rebalance(
    engine: AsyncEngine,
    gateway: ChainGateway,
    *,
    chain: str,
    book: int,
    clock: Clock,
    by: str = WORKER,
) -> RebalanceReport:
    """Plan the present window unless it is planned, and ask for what is proposed.

    Args:
        engine: the database, as the runtime role.
        gateway: the node of *chain*.
        chain: the chain's code.
        book: the book.
        clock: the time.
        by: who asks for the payouts, and can then not approve them.

    Raises:
        ChainHalted: nothing moves on a chain that people have to look at.
        NodeTrouble: the node cannot be relied on now; call again.
    """

    async def see(rules: RebalanceRules) -> tuple[TreasuryView, Block]:
        return await look(engine, gateway, rules, chain=chain, book=book)

    return await _advance(_Turn(engine, chain, book, clock, by), see)


async def advance_coins(
    engine: AsyncEngine,
    node: BitcoinReader,
    *,
    chain: str,
    book: int,
    clock: Clock,
    by: str = WORKER,
) -> RebalanceReport:
    """Do the same as `advance_rebalance` on a chain of coins (Bitcoin), whose node is *node*."""

    async def see(_: RebalanceRules) -> tuple[TreasuryView, Block]:
        return await look_at_coins(engine, node, chain=chain, book=book)

    return await _advance(_Turn(engine, chain, book, clock, by), see)


async def _advance(turn: _Turn, see: See) -> RebalanceReport:
    report = RebalanceReport()
    rules = await transact(turn.engine, store.find_active_rules)
    if rules is None:
        report.waiting = "no rebalancing rules are in force"
        return report
    report.window = rules.window_start(turn.clock.now())
    await _plan_window(turn, see, rules, report)
    await _request_all(turn, report)
    return report


async def preview(
    engine: AsyncEngine, gateway: ChainGateway, *, chain: str, book: int
) -> TreasuryPlan:
    """Return what a window that began now would propose; nothing is written."""
    rules = await transact(engine, store.find_active_rules)
    if rules is None:
        return TreasuryPlan()
    view, _ = await look(engine, gateway, rules, chain=chain, book=book)
    return plan(rules, view)


async def preview_coins(
    engine: AsyncEngine, node: BitcoinReader, *, chain: str, book: int
) -> TreasuryPlan:
    """Return the same as `preview` for a chain of coins (Bitcoin), whose node is *node*."""
    rules = await transact(engine, store.find_active_rules)
    if rules is None:
        return TreasuryPlan()
    view, _ = await look_at_coins(engine, node, chain=chain, book=book)
    return plan(rules, view)


# The window.


async def _plan_window(
    turn: _Turn, see: See, rules: RebalanceRules, report: RebalanceReport
) -> None:
    window = rules.window_start(turn.clock.now())
    known = await transact(
        turn.engine,
        lambda conn: store.has_window(conn, turn.book, turn.chain, rules.version, window),
    )
    if known:
        return
    view, block = await see(rules)
    made = plan(rules, view)

    async def write(conn: AsyncConnection) -> list[Proposal]:
        return await _write_window(conn, turn, rules, window, block, made)

    proposals = await transact(turn.engine, write)
    report.planned = True
    report.proposed = [item.id for item in proposals]
    report.alarms = list(made.alarms)
    report.left_over = made.left_over


async def _write_window(
    conn: AsyncConnection,
    turn: _Turn,
    rules: RebalanceRules,
    window: datetime,
    block: Block,
    made: TreasuryPlan,
) -> list[Proposal]:
    """Write the window, what it proposes and its alarms; nothing if another turn was first."""
    now = turn.clock.now()
    is_first = await store.insert_window(
        conn,
        book=turn.book,
        chain=turn.chain,
        version=rules.version,
        window=window,
        height=block.height,
        block_hash=block.hash,
        left_over=made.left_over,
        now=now,
    )
    if not is_first:
        return []
    proposals = [
        await _address(conn, _propose(turn, rules, window, move), now) for move in made.transfers
    ]
    await store.insert_proposals(conn, proposals)
    events = [_event(item, None, 1, now) for item in proposals]
    for alarm in made.alarms:
        entity = stable_id(ALARM, turn.book, turn.chain, alarm.name, alarm.wallet, alarm.asset)
        events.append(
            DomainEvent(
                entity_type=ALARM,
                entity_id=entity,
                version=await next_version(conn, ALARM, entity),
                name=alarm.name,
                at=now,
                actor=WORKER,
                reason=alarm.reason,
                payload={"wallet": alarm.wallet, "asset": alarm.asset, "chain": turn.chain},
            )
        )
    for band in rules.bands:
        if band.cap is not None:
            await watch_float(conn, band.wallet, band.asset, book=turn.book, now=now)
    await record(conn, events)
    return proposals


def _propose(turn: _Turn, rules: RebalanceRules, window: datetime, move: OwnTransfer) -> Proposal:
    """Return the row of a transfer; its id follows from the window, so it is made once."""
    parts = (turn.book, turn.chain, rules.version, move.kind, move.asset)
    return Proposal(
        id=derive_id(window, ENTITY, *parts, move.address, move.to_address),
        book=turn.book,
        chain=turn.chain,
        rules_version=rules.version,
        window=window,
        transfer=move,
        state=ProposalState.PROPOSED,
        expires_at=window + rules.lifetime,
    )


async def _address(conn: AsyncConnection, proposal: Proposal, now: datetime) -> Proposal:
    """Give a transfer that needs one a fresh address of the wallet that it goes to."""
    move = proposal.transfer
    if move.to_address:
        return proposal
    given = await assign_address(
        conn,
        move.to_wallet,
        purpose=AddressPurpose.CHANGE,
        reference=f"rebalance:{proposal.id}",
        now=now,
    )
    return replace(proposal, transfer=replace(move, to_address=given.address))


# Its requests.


async def _request_all(turn: _Turn, report: RebalanceReport) -> None:
    async def waiting(conn: AsyncConnection) -> list[Proposal]:
        return await store.list_proposals(
            conn,
            book=turn.book,
            chain=turn.chain,
            states=[ProposalState.PROPOSED],
            by_hand=False,
            limit=REQUESTS_MAX,
        )

    for proposal in await transact(turn.engine, waiting):
        try:
            await _request(turn, proposal.id, report)
        except Refused as refusal:
            # Its transaction is rolled back: that it was refused is written in another.
            await _refuse(turn, proposal.id, refusal.render(), report)


async def _request(turn: _Turn, proposal_id: UUID, report: RebalanceReport) -> None:
    """Turn a proposal into a payout, in one transaction; the row is locked before all else."""

    async def write(conn: AsyncConnection) -> Proposal:
        proposal = await store.get_proposal(conn, proposal_id, lock=True)
        if proposal.state is not ProposalState.PROPOSED:
            return proposal
        now = turn.clock.now()
        if proposal.expires_at <= now:
            return await end_proposal(
                conn, proposal, ProposalState.LAPSED, now, "its time was over"
            )
        of_coins = (await get_chain(conn, proposal.chain)).kind == BITCOIN
        request = make_request(proposal, turn.by, of_coins=of_coins)
        payout = await request_payout(conn, request, book=turn.book, now=now)
        if payout.state is PayoutState.REJECTED:
            reason = (await list_history(conn, PAYOUT, payout.id))[-1].reason
            return await end_proposal(conn, proposal, ProposalState.REFUSED, now, reason)
        return await end_proposal(conn, proposal, ProposalState.REQUESTED, now, payout=payout)

    after = await transact(turn.engine, write)
    if after.state is ProposalState.REQUESTED:
        report.requested.append(after.id)
    elif after.state is ProposalState.LAPSED:
        report.lapsed.append(after.id)
    elif after.state is ProposalState.REFUSED:
        report.refused[after.id] = after.detail


async def _refuse(turn: _Turn, proposal_id: UUID, reason: str, report: RebalanceReport) -> None:
    async def write(conn: AsyncConnection) -> None:
        proposal = await store.get_proposal(conn, proposal_id, lock=True)
        if proposal.state is ProposalState.PROPOSED:
            await end_proposal(conn, proposal, ProposalState.REFUSED, turn.clock.now(), reason)
            report.refused[proposal_id] = reason

    await transact(turn.engine, write)


def make_request(proposal: Proposal, by: str, *, of_coins: bool = False) -> PayoutRequest:
    """Return the payout that a proposal asks for; the same proposal always asks for the same.

    Args:
        proposal: what was proposed.
        by: who asks.
        of_coins: the chain has coins, which are chosen wherever they lie.
    """
    move = proposal.transfer
    prefix = CONSOLIDATION if move.kind is TransferKind.CONSOLIDATE else "rebalance:"
    return PayoutRequest(
        client_ref=f"{prefix}{proposal.id}",
        claim=f"{ClaimKind.OWN}:{move.to_wallet}",
        source_wallet=move.wallet,
        source_address=None if of_coins else move.address,
        asset=move.asset,
        amount=move.amount,
        destination=move.to_address,
        requested_by=by,
        reason=f"{move.kind}: {move.reason}"[:DETAIL_LENGTH_MAX],
        expires_at=proposal.expires_at,
    )


async def end_proposal(
    conn: AsyncConnection,
    proposal: Proposal,
    to: ProposalState,
    now: datetime,
    detail: str = "",
    *,
    payout: Payout | None = None,
    by: str = WORKER,
) -> Proposal:
    """Write the end of a proposal whose row is locked."""
    PROPOSAL_STATES.require(proposal.state, to)
    detail = detail[:DETAIL_LENGTH_MAX]
    await store.write_proposal(
        conn, proposal.id, to, payout_id=payout.id if payout else None, detail=detail
    )
    after = await store.get_proposal(conn, proposal.id)
    await record(conn, [_event(after, proposal, 2, now, by)])
    return after


def _event(
    after: Proposal, before: Proposal | None, version: int, now: datetime, by: str = WORKER
) -> DomainEvent:
    move = after.transfer
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=after.id,
        version=version,
        name=f"Rebalance{''.join(word.capitalize() for word in after.state.split('_'))}",
        at=now,
        actor=by,
        reason=after.detail or move.reason,
        from_state=None if before is None else before.state,
        to_state=after.state,
        payload={
            "kind": str(move.kind),
            "asset": move.asset,
            "amount": str(move.amount),
            "from": move.address,
            "to": move.to_address,
            "by_hand": move.by_hand,
            "payout": None if after.payout_id is None else str(after.payout_id),
        },
    )
