"""The worker: takes approved payouts to the chain, many at once, one committed step after the other.

allocate (nonce, transaction and holds are rows) -> sign (the exact bytes are a row) -> send (and
again, the same bytes, for as long as nobody knows). Each step is: look outside, then one
transaction for the whole claim that repeats the fences. A crash between any two leaves rows from
which the next worker goes on; what was done outside meanwhile is done again to no effect, because a
signer gives the same bytes for the same request and a node knows a transaction by its hash.

Where more than one claim is due, two are on their way at once: while the signer works on one, the
other is allocated or sent. Each step takes one claim at a time, in the order of the claims, so the
nonces of an address are given, signed and sent in their order.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.follow import require_running
from chain.ports import ChainGateway
from custody import payout_rows as rows
from custody import payout_store as store
from custody.compliance.address_list import NOBODY_LISTED
from custody.compliance.ports import Screening
from custody.compliance.screening import screen_payouts
from custody.compliance.travel_rule import NO_TRAVEL_RULE, TravelRule
from custody.evm_rail import EvmRail
from custody.nonces import Alarm
from custody.payout_allocate import allocate
from custody.payout_allocation import Waiting
from custody.payout_line import watch_lines
from custody.payout_model import SENT, WORKED_ON, Payout, PayoutState
from custody.payout_rules import BumpPolicy
from custody.payout_send import send
from custody.payout_sign import sign, waits_for_signature
from custody.payout_steps import LOST, Bench, Lost, Result, Sent, Step, carry_out
from custody.payout_tables import payout as payout_table
from custody.ports import PayoutSigner
from kernel import tracing
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import CausewayError, OutsideUnavailable, StaleFence
from kernel.leases import claim

LEASE: Final = timedelta(seconds=60)
CLAIM_MAX: Final = 100
"""Payouts taken through one transaction and one question to the signer."""
CLAIMS_AT_ONCE: Final = 2
"""Claims on their way at once: one is with the signer while another is with the database or the node."""
RETRY_AFTER: Final = timedelta(seconds=1)
TEXT_LENGTH_MAX: Final = 500
STATES: Final = [str(state) for state in WORKED_ON]


@dataclass(slots=True)
class WorkReport:
    """What one call did: payout ids by what became of them, and why others wait.

    Attributes:
        bumped: offered again for more, by the rule.
        filled: payouts that fill a gap between nonces, made now.
        alarms: sending addresses at which the line does not move, and why people must look.
    """

    allocated: list[UUID] = field(default_factory=list)
    signed: list[UUID] = field(default_factory=list)
    sent: list[UUID] = field(default_factory=list)
    rejected: list[UUID] = field(default_factory=list)
    bumped: list[UUID] = field(default_factory=list)
    filled: list[UUID] = field(default_factory=list)
    waiting: dict[UUID, str] = field(default_factory=dict)
    alarms: list[Alarm] = field(default_factory=list)


async def advance_payouts(
    engine: AsyncEngine,
    gateway: ChainGateway,
    signer: PayoutSigner,
    *,
    chain: str,
    book: int,
    holder: str,
    clock: Clock,
    limit: int = CLAIM_MAX,
    claims: int = 1,
    bump: BumpPolicy | None = None,
    rail: EvmRail | None = None,
    screening: Screening = NOBODY_LISTED,
    travel_rule: TravelRule = NO_TRAVEL_RULE,
) -> WorkReport:
    """Take every payout that is due as far as it goes now; return what was done.

    A signer or a node that does not answer leaves the payouts where they are, to be tried again.

    Args:
        engine: the database, as the runtime role.
        gateway: the node of *chain*.
        signer: who holds the keys.
        chain: the chain's code.
        book: the book.
        holder: this worker's name: it holds the leases.
        clock: the time, read anew at each step.
        limit: payouts claimed at once, at most `CLAIM_MAX`.
        claims: how many claims to take at most; `CLAIMS_AT_ONCE` of them are on their way at once.
        bump: when more is offered for a block; None: the default rule.
        rail: what is remembered between calls; None: nothing is.
        screening: asked about every payout to others before it gets a nonce.
        travel_rule: from which amounts on a record of both sides is needed before.

    Raises:
        ChainHalted: nothing is sent on a chain that is halted.
    """
    bench = Bench(engine, rail or EvmRail(gateway), signer, clock, bump or BumpPolicy())
    report = WorkReport()

    async def claim_due(conn: AsyncConnection) -> list[Payout]:
        await require_running(conn, chain)
        return await _claim(conn, chain, book, holder, clock.now(), limit)

    async def take() -> list[Payout]:
        claimed = await transact(engine, claim_due)
        # After the claim, so that all of it was asked about; before anything of it gets a nonce.
        # Who screens may be away: what has no answer waits, and what has one goes on.
        with contextlib.suppress(OutsideUnavailable):
            now = clock.now()
            await screen_payouts(engine, screening, chain, now=now, travel_rule=travel_rule)
        return claimed

    await _work_on_all(bench, _Turns(take, claims), report)
    await _watch(bench, chain, book, report)
    return report


async def _claim(
    conn: AsyncConnection, chain: str, book: int, holder: str, now: datetime, limit: int
) -> list[Payout]:
    rows_found = await claim(
        conn,
        payout_table,
        where=(payout_table.c.chain == chain)
        & (payout_table.c.book == book)
        & payout_table.c.state.in_(STATES)
        & (payout_table.c.run_after <= now),
        # By when they are due, so that those which wait stand behind those which were not tried.
        order_by=(payout_table.c.run_after, payout_table.c.created_at, payout_table.c.id),
        holder=holder,
        now=now,
        lease_for=LEASE,
        limit=min(limit, CLAIM_MAX),
    )
    return [store.to_payout(row) for row in rows_found]


@dataclass(slots=True)
class _Turns:
    """What the lanes of one call share: the claims that may still be taken, and a turn at each step.

    An `asyncio.Lock` is given in the order in which it was asked for, so claims stay in order.
    """

    take: Callable[[], Awaitable[list[Payout]]]
    left: int
    allocating: asyncio.Lock = field(default_factory=asyncio.Lock)
    signing: asyncio.Lock = field(default_factory=asyncio.Lock)
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def next_claim(self) -> list[Payout]:
        """Return the next claim, whose turn to allocate it is; [] when there is none."""
        if not self.left:
            return []
        self.left -= 1
        claimed = await self.take()
        if not claimed:
            self.left = 0
        return claimed


async def _work_on_all(bench: Bench, turns: _Turns, report: WorkReport) -> None:
    lanes = min(CLAIMS_AT_ONCE, turns.left)
    if lanes == 1:
        await _lane(bench, turns, report)
        return
    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(lanes):
                tasks.create_task(_lane(bench, turns, report))
    except BaseExceptionGroup as group:
        # The other claim is left where it is, as in a crash: its lease ends, and it goes on.
        raise group.exceptions[0] from None


async def _lane(bench: Bench, turns: _Turns, report: WorkReport) -> None:
    while True:
        async with turns.allocating:
            payouts = await turns.next_claim()
            if not payouts:
                return
            claimed = _Claimed({item.id: item for item in payouts})
            await _step(allocate, bench, claimed, claimed.going(PayoutState.APPROVED), report)
        await _work_on(bench, claimed, turns, report)


@dataclass(slots=True)
class _Claimed:
    """The payouts of one claim on their way: those that go on, and what stopped the others."""

    payouts: dict[UUID, Payout]
    results: dict[UUID, Result] = field(default_factory=dict)

    def going(self, *states: PayoutState) -> list[Payout]:
        """Return those that nothing stopped and that are in one of *states*, in claim order."""
        return [
            item
            for key, item in self.payouts.items()
            if key not in self.results and item.state in states
        ]

    def take(self, results: Mapping[UUID, Result]) -> None:
        """Note what a step made of each."""
        for key, result in results.items():
            if isinstance(result, Payout):
                self.payouts[key] = result
            else:
                self.results[key] = result


async def _work_on(bench: Bench, claimed: _Claimed, turns: _Turns, report: WorkReport) -> None:
    """Take the claimed payouts from step to step until each waits or is sent; give them back."""
    async with turns.signing:
        built = await _find_unsigned(bench, claimed.going(*SENT))
        due = claimed.going(PayoutState.ALLOCATED, *SENT)
        await _step(
            sign,
            bench,
            claimed,
            [p for p in due if p.state is PayoutState.ALLOCATED or p.id in built],
            report,
        )
    async with turns.sending:
        await _step(send, bench, claimed, claimed.going(*SENT), report)
        await _give_back(bench, claimed, report)


async def _step(
    step: Step, bench: Bench, claimed: _Claimed, due: Sequence[Payout], report: WorkReport
) -> None:
    with tracing.working(f"payout {step.__name__}", [item.id for item in due]) as work:
        results = await carry_out(step, bench, due)
        for key, result in results.items():
            if isinstance(result, Waiting):
                work.say(key, "causeway.waiting_for", result.reason)
    claimed.take(results)
    for key, result in results.items():
        if isinstance(result, Payout):
            _note(report, result)
        elif isinstance(result, Sent) and not result.detail:
            report.sent.append(key)


async def _find_unsigned(bench: Bench, payouts: Sequence[Payout]) -> frozenset[UUID]:
    """Return the payouts whose replacement has no signature yet."""
    if not payouts:
        return frozenset()
    async with bench.engine.connect() as conn:
        current = await rows.list_current(conn, payouts)
    return frozenset(item.id for item in payouts if waits_for_signature(item, current[item.id]))


def _note(report: WorkReport, payout: Payout) -> None:
    reached = {
        PayoutState.ALLOCATED: report.allocated,
        PayoutState.SIGNED: report.signed,
        PayoutState.REJECTED: report.rejected,
    }
    if payout.state in reached and payout.id not in reached[payout.state]:
        reached[payout.state].append(payout.id)


async def _give_back(bench: Bench, claimed: _Claimed, report: WorkReport) -> None:
    now, given = bench.clock.now(), []
    for key, payout in claimed.payouts.items():
        result = claimed.results.get(key)
        pause, reason = RETRY_AFTER, ""
        match result:
            case Lost():
                report.waiting[key] = f"payout {key} was {LOST}"
                continue
            case Waiting():
                pause, reason = result.look_again or RETRY_AFTER, result.reason
            case Sent():
                pause, reason = result.look_again, result.detail
            case _:
                pass  # it ended, or is on hold
        if reason:
            report.waiting[key] = reason
        given.append((payout, reason[:TEXT_LENGTH_MAX], now + pause))
    kept = await transact(bench.engine, lambda conn: rows.give_back(conn, given, STATES))
    for payout, _, _ in given:
        if payout.id not in kept:
            report.waiting[payout.id] = f"payout {payout.id} was {LOST}"


async def _watch(bench: Bench, chain: str, book: int, report: WorkReport) -> None:
    """Look at the lines of nonces; trouble with that never undoes what was done before."""
    try:
        seen = await watch_lines(bench, chain, book=book)
    except (CausewayError, StaleFence) as error:
        report.alarms.append(Alarm(chain, "", 0, error.render()))
        return
    report.bumped += seen.bumped
    report.filled += seen.filled
    report.alarms += seen.alarms
