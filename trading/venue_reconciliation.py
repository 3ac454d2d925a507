"""An account at a venue against our record of it: orders, trades and balances, item by item.

A run collects what the venue tells, compares, and writes one row with what it found. Nothing is
adjusted by it. What differs is looked at twice, so that trading is not taken for a break. A break
keeps its id while it stands; a person may explain it, two may dismiss it without evidence, and only a
later run that compared the same and does not find it closes it.

`reconcile_account` is called by people and, once a day, by the job `JOB`: see `enqueue_daily`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.venues.explain import list_unsettled
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import BadInput
from kernel.events import REASON_LENGTH_MAX, DomainEvent, next_version, next_versions, record
from kernel.ids import derive_id
from kernel.jobs import enqueue
from registry.authority import require_role, signing_bytes, verify_signature
from registry.model import Operator, Role
from registry.queries import get_operator
from trading import venue_reconciliation_store as store
from trading.errors import BreakNotStanding
from trading.venue_balances import OpenTransfers, look_at_balances
from trading.venue_break_ageing import age
from trading.venue_orders import OrdersLook, first_moment, look_at_orders
from trading.venue_reconciliation_model import (
    BALANCE,
    BREAK_STATES,
    FILL_UNPOSTED,
    UNKNOWN_ASSET,
    Aged,
    BreakState,
    Finding,
    Outcome,
    ReconcilePolicy,
    ReconciliationRun,
    VenueBreak,
    VenueReconciled,
)
from trading.venue_reconciliation_store import Window
from trading.venue_tally import Tally
from trading.venue_trades import TradesLook, look_at_trades
from venues.account_reading import UNPOSTED_MAX, opened_at, symbols_of, unposted_since
from venues.comparison import DifferenceKind, standing_in_both
from venues.fills import collect
from venues.model import UnknownBalance
from venues.ports import FROM_THE_FIRST, VenueGateway

ENTITY: Final = "venue-break"
ACTOR: Final = "system:venue-reconciliation"
JOB: Final = "venue-reconciliation"
STANDING: Final = frozenset({BreakState.OPEN, BreakState.EXPLAINED, BreakState.DISMISSED})
UNSETTLED: Final = frozenset({BreakState.OPEN, BreakState.EXPLAINED})
MAY_EXPLAIN: Final = (Role.FINANCE, Role.OPERATIONS, Role.TREASURER)

ORDER_KINDS: Final = frozenset(
    {
        DifferenceKind.ORDER_UNKNOWN_AT_VENUE,
        DifferenceKind.ORDER_UNKNOWN_TO_US,
        DifferenceKind.ORDER_TERMS,
        DifferenceKind.ORDER_STATE,
        DifferenceKind.ORDER_UNRESOLVED,
        DifferenceKind.FILLS_SHORT,
    }
)
TRADE_KINDS: Final = frozenset(DifferenceKind) - ORDER_KINDS

list_runs = store.list_runs
get_break = store.get_break


def job_name(venue: str, account: str) -> str:
    """Return the name of an account's daily job."""
    return f"{JOB}:{venue}/{account}"


def slot_of(now: datetime) -> datetime:
    """Return the slot of the day, in UTC: of however many who tick, one insert wins."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


async def enqueue_daily(conn: AsyncConnection, venue: str, account: str, *, now: datetime) -> bool:
    """Insert the day's job of an account unless it is there; tell whether this call did."""
    slot = slot_of(now)
    payload = {"venue": venue, "account": account, "slot": slot.isoformat()}
    return await enqueue(conn, job_name(venue, account), slot, payload)


@dataclass(slots=True)
class _Looks:
    """What the looks of one run showed."""

    orders: OrdersLook = field(default_factory=OrdersLook)
    trades: dict[str, TradesLook] = field(default_factory=dict)
    balances: list[VenueReconciled] | None = None
    unposted: list[Finding] = field(default_factory=list)
    unknown: list[UnknownBalance] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether everything was compared that there is."""
        return (
            self.balances is not None
            and self.orders.is_complete
            and len(self.unposted) < UNPOSTED_MAX
            and all(look.is_complete for look in self.trades.values())
        )

    @property
    def compared(self) -> frozenset[str]:
        """Return the kinds of findings of which none can have been overlooked."""
        kinds: set[str] = {UNKNOWN_ASSET}
        if self.orders.is_complete:
            kinds |= {str(kind) for kind in ORDER_KINDS}
        if len(self.unposted) < UNPOSTED_MAX:
            kinds.add(FILL_UNPOSTED)
        if all(look.is_complete for look in self.trades.values()):
            kinds |= {str(kind) for kind in TRADE_KINDS}
        if self.balances is not None:
            kinds.add(BALANCE)
        return frozenset(kinds)

    def findings(self) -> list[Finding]:
        """Return everything that differs, each thing once."""
        differences = [
            *self.orders.differences,
            *(d for t in self.trades.values() for d in t.differences),
        ]
        found = [
            Finding(kind=str(d.kind), subject=d.subject, ours=d.ours, theirs=d.theirs)
            for d in differences
        ]
        found += self.unposted
        found += [_of_balance(row) for row in self.balances or () if not row.agrees]
        found += [_of_unknown(item) for item in self.unknown]
        return list({(item.kind, item.subject): item for item in found}.values())


async def reconcile_account(
    engine: AsyncEngine,
    gateway: VenueGateway,
    symbols: Sequence[str] = (),
    *,
    book: int,
    clock: Clock,
    policy: ReconcilePolicy | None = None,
    transfers: OpenTransfers = list_unsettled,
) -> ReconciliationRun:
    """Compare orders, trades and balances of one account, and record the run and its breaks.

    Two at once are harmless: the one that began earlier and ends later is recorded, and leaves the
    breaks to the other, which has seen more.

    Args:
        engine: the database, as the runtime role.
        gateway: the account at its venue.
        symbols: looked at besides those that orders and trades on record speak of.
        book: the book that the account is in.
        clock: of this process.
        policy: how patient to be.
        transfers: own transfers that one side may show before the other.

    Raises:
        VenueUnavailable: the venue does not answer; nothing of the run is written.
    """
    policy = policy or ReconcilePolicy()
    started_at = clock.now()
    venue, account = gateway.venue, gateway.account
    async with engine.connect() as conn:
        standing = await store.standing_breaks(conn, book, venue, account)
        known = await symbols_of(conn, venue, account)
    every = sorted({*symbols, *known, *_symbols_of(standing)})
    tally = Tally()
    looks = _Looks()
    for symbol in every:
        await collect(engine, gateway, symbol, clock=clock)
    await _look_at_orders(engine, gateway, every, standing, looks, clock, policy, tally)
    await _look_at_trades(engine, gateway, every, looks, book, clock, policy, tally)
    looks.unposted = await _unposted(engine, venue, account, clock.now(), policy)
    looks.balances = await look_at_balances(
        engine,
        gateway,
        every,
        book=book,
        clock=clock,
        policy=policy,
        transfers=transfers,
        tally=tally,
    )
    looks.unknown = await gateway.unknown_balances()
    tally.add_unknown(looks.unknown)
    finished_at = max(started_at, clock.now())
    run = ReconciliationRun(
        id=derive_id(
            started_at,
            *("venue-reconciliation", book, venue, account),
            *(started_at.isoformat(), finished_at.isoformat()),
        ),
        book=book,
        venue=venue,
        account=account,
        started_at=started_at,
        finished_at=finished_at,
        outcome=Outcome.CLEAN,
        inputs_hash=tally.digest,
        counts=dict(tally.counts),
        balances=tuple(looks.balances or ()),
        breaks=(),
    )
    return await transact(engine, partial(_record, run=run, looks=looks))


async def list_breaks(
    conn: AsyncConnection,
    venue: str | None = None,
    account: str | None = None,
    *,
    states: frozenset[BreakState] = UNSETTLED,
    limit: int = store.PAGE_MAX,
    after: VenueBreak | None = None,
) -> list[VenueBreak]:
    """Return breaks, oldest first: those that nobody has dismissed, unless *states* says else.

    At most `PAGE_MAX`; the next page begins behind *after*, the last one of this.
    """
    return await store.list_breaks(conn, venue, account, states=states, limit=limit, after=after)


# What people say to a break.


async def explain_break(
    conn: AsyncConnection, break_id: UUID, *, by: Operator, reason: str, now: datetime
) -> VenueBreak:
    """Record why a break is there. It stands until a run no longer shows it.

    Raises:
        NoVenueBreak: there is none.
        BreakNotStanding: it is closed or dismissed.
        NotAuthorised: the operator may not.
    """
    operator = await _operator(conn, by)
    item = await _standing(conn, break_id, UNSETTLED)
    after = replace(
        item,
        state=BreakState.EXPLAINED,
        explanation=_reason(reason),
        explained_by=operator.code,
    )
    return await _say(conn, item, after, "VenueBreakExplained", operator.code, now)


async def propose_dismissal(
    conn: AsyncConnection, break_id: UUID, *, by: Operator, reason: str, now: datetime
) -> VenueBreak:
    """Propose to close a break without evidence; another person has to agree.

    Raises:
        NoVenueBreak: there is none.
        BreakNotStanding: it is closed or dismissed.
        NotAuthorised: the operator may not.
    """
    operator = await _operator(conn, by)
    item = await _standing(conn, break_id, UNSETTLED)
    after = replace(item, explanation=_reason(reason), proposed_by=operator.code)
    return await _say(conn, item, after, "VenueBreakDismissalProposed", operator.code, now)


def dismissal_bytes(item: VenueBreak) -> bytes:
    """Return what the second person signs: the break with its figures, and the reason given."""
    return signing_bytes(
        "dismiss-venue-break",
        {
            "break": item.id,
            "kind": item.kind,
            "subject": item.subject,
            "ours": item.ours,
            "theirs": item.theirs,
            "reason": item.explanation,
            "proposed_by": item.proposed_by,
        },
    )


async def dismiss_break(
    conn: AsyncConnection, break_id: UUID, *, by: Operator, signature: bytes, now: datetime
) -> VenueBreak:
    """Close a break without evidence, as another person proposed.

    It opens again when either side says something else about it.

    Raises:
        NoVenueBreak: there is none.
        BreakNotStanding: nobody proposed it, or the same person did.
        NotAuthorised: the operator may not, or did not sign `dismissal_bytes`.
    """
    operator = await _operator(conn, by)
    item = await _standing(conn, break_id, UNSETTLED)
    if item.proposed_by is None:
        raise BreakNotStanding(f"nobody proposed to dismiss {break_id}")
    proposer = await get_operator(conn, item.proposed_by)
    if operator.code == proposer.code or operator.public_key == proposer.public_key:
        raise BreakNotStanding(
            f"{operator.code} cannot agree to what {proposer.code} proposed",
            remedy="Ask another operator",
        )
    verify_signature(operator, dismissal_bytes(item), signature)
    after = replace(item, state=BreakState.DISMISSED, dismissed_by=operator.code)
    return await _say(conn, item, after, "VenueBreakDismissed", operator.code, now)


# The looks.


async def _look_at_orders(
    engine: AsyncEngine,
    gateway: VenueGateway,
    symbols: Sequence[str],
    standing: Sequence[VenueBreak],
    looks: _Looks,
    clock: Clock,
    policy: ReconcilePolicy,
    tally: Tally,
) -> None:
    broken = [item for item in standing if item.kind in ORDER_KINDS]
    async with engine.connect() as conn:
        since = await first_moment(
            conn,
            gateway.venue,
            gateway.account,
            now=clock.now(),
            broken=broken,
            policy=policy,
        )
    looks.orders = await look_at_orders(
        engine, gateway, symbols, since=since, clock=clock, policy=policy, tally=tally
    )


async def _look_at_trades(
    engine: AsyncEngine,
    gateway: VenueGateway,
    symbols: Sequence[str],
    looks: _Looks,
    book: int,
    clock: Clock,
    policy: ReconcilePolicy,
    tally: Tally,
) -> None:
    for symbol in symbols:
        first = await _look_at_symbol(engine, gateway, symbol, book, clock, policy, tally)
        if first.differences:  # a list may be late for a moment: what stands still counts
            await asyncio.sleep(policy.settling / timedelta(seconds=1))
            again = await _look_at_symbol(engine, gateway, symbol, book, clock, policy, Tally())
            again.differences = standing_in_both(first.differences, again.differences)
            first = again
        looks.trades[symbol] = first


async def _look_at_symbol(
    engine: AsyncEngine,
    gateway: VenueGateway,
    symbol: str,
    book: int,
    clock: Clock,
    policy: ReconcilePolicy,
    tally: Tally,
) -> TradesLook:
    young = gateway.venue_time(clock.now()) - policy.settling
    await collect(engine, gateway, symbol, clock=clock)
    async with engine.connect() as conn:
        start = await store.get_window(conn, book, gateway.venue, gateway.account, symbol)
        began = await opened_at(conn, gateway.venue, gateway.account)
    if start is None:  # nobody named the symbol when the account was opened
        floor = None if began is None else gateway.venue_time(began)
        start = Window(FROM_THE_FIRST, floor, FROM_THE_FIRST, floor)
    return await look_at_trades(
        engine, gateway, symbol, start, young=young, policy=policy, tally=tally
    )


async def _unposted(
    engine: AsyncEngine, venue: str, account: str, now: datetime, policy: ReconcilePolicy
) -> list[Finding]:
    async with engine.connect() as conn:
        fills = await unposted_since(conn, venue, account, now - policy.unposted_max)
    return [
        Finding(
            kind=FILL_UNPOSTED,
            subject=f"trade:{item.symbol}:{item.trade_id}",
            ours="on record, not posted",
            theirs=f"traded at {item.executed_at.isoformat()}",
        )
        for item in fills
    ]


def _symbols_of(standing: Sequence[VenueBreak]) -> set[str]:
    """Return the symbols that breaks are about: only a look at them may close one."""
    subjects = [item.subject.split(":", 2) for item in standing]
    return {parts[1] for parts in subjects if parts[0] in {"order", "trade"}}


def _of_balance(row: VenueReconciled) -> Finding:
    return Finding(
        kind=BALANCE,
        subject=f"balance:{row.asset}",
        ours=f"{row.expected} expected ({row.ledger} in the books)",
        theirs=str(row.venue),
    )


def _of_unknown(item: UnknownBalance) -> Finding:
    return Finding(
        kind=UNKNOWN_ASSET,
        subject=f"asset:{item.asset}",
        ours="not registered",
        theirs=item.amount,
    )


# The record.


async def _record(
    conn: AsyncConnection, *, run: ReconciliationRun, looks: _Looks
) -> ReconciliationRun:
    now = run.finished_at
    await store.lock_account(conn, run.book, run.venue, run.account, now=now)
    is_overtaken = await store.began_later(conn, run)
    standing = await store.standing_breaks(conn, run.book, run.venue, run.account, lock=True)
    if is_overtaken:
        aged = Aged(untouched=tuple(standing))
    else:
        aged = age(
            standing,
            looks.findings(),
            compared=looks.compared,
            run_id=run.id,
            book=run.book,
            venue=run.venue,
            account=run.account,
            now=now,
        )
    run = replace(
        run,
        outcome=_outcome(aged, is_complete=looks.is_complete and not is_overtaken),
        breaks=tuple(item.id for item in (*aged.standing, *aged.untouched)),
        counts={
            **run.counts,
            "breaks_new": len(aged.new),
            "breaks_standing": len(aged.seen_again) + len(aged.reopened),
            "breaks_closed": len(aged.closed),
            "breaks_not_compared": len(aged.untouched),
        },
    )
    await store.insert_run(conn, run)
    await store.insert_breaks(conn, aged.new)
    await store.write_breaks(conn, [*aged.seen_again, *aged.reopened, *aged.closed])
    await _record_events(conn, aged, now)
    if is_overtaken:
        return run
    for symbol, look in sorted(looks.trades.items()):
        await store.move_window(
            conn, run.book, run.venue, run.account, symbol, look.window, now=now
        )
    return run


def _outcome(aged: Aged, *, is_complete: bool) -> Outcome:
    shown = (*aged.standing, *aged.untouched)
    if any(item.state is not BreakState.DISMISSED for item in shown):
        return Outcome.BROKEN
    return Outcome.CLEAN if is_complete else Outcome.INCOMPLETE


async def _record_events(conn: AsyncConnection, aged: Aged, now: datetime) -> None:
    changed = [(item, "VenueBreakFound") for item in aged.new]
    changed += [(item, "VenueBreakReopened") for item in aged.reopened]
    changed += [(item, "VenueBreakClosed") for item in aged.closed]
    versions = await next_versions(conn, ENTITY, [item.id for item, _ in changed])
    await record(
        conn, [_event(item, name, ACTOR, versions[item.id], now) for item, name in changed]
    )


async def _operator(conn: AsyncConnection, by: Operator) -> Operator:
    """Return the operator as registered now: one read earlier may have been revoked since."""
    current = await get_operator(conn, by.code)
    require_role(current, *MAY_EXPLAIN)
    return current


async def _standing(
    conn: AsyncConnection, break_id: UUID, states: frozenset[BreakState]
) -> VenueBreak:
    item = await store.get_break(conn, break_id, lock=True)
    if item.state not in states:
        raise BreakNotStanding(f"break {break_id} is {item.state}")
    return item


def _reason(text: str) -> str:
    if not 0 < len(text.strip()) <= REASON_LENGTH_MAX:
        raise BadInput(f"a reason has 1 to {REASON_LENGTH_MAX} characters")
    return text.strip()


async def _say(
    conn: AsyncConnection,
    before: VenueBreak,
    after: VenueBreak,
    name: str,
    actor: str,
    now: datetime,
) -> VenueBreak:
    BREAK_STATES.require(before.state, after.state)
    await store.write_breaks(conn, [after])
    version = await next_version(conn, ENTITY, after.id)
    await record(conn, [_event(after, name, actor, version, now)])
    return after


def _event(item: VenueBreak, name: str, actor: str, version: int, now: datetime) -> DomainEvent:
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=item.id,
        version=version,
        name=name,
        at=now,
        actor=actor,
        reason=item.explanation,
        to_state=str(item.state),
        payload={
            "venue": item.venue,
            "account": item.account,
            "kind": item.kind,
            "subject": item.subject,
            "ours": item.ours,
            "theirs": item.theirs,
            "proposed_by": item.proposed_by,
            "dismissed_by": item.dismissed_by,
        },
    )
