"""The kill switch: first nothing new, then everything open is taken back, at every account at once.

The desk is halted and that is committed before any venue is asked. Whoever checks orders holds the
desk's row until they are written, so after that commit every order there will be is on record, and the
cancels that follow see it. They are repeated until the venue says that nothing is open and nothing of
ours may still be alive, or until time is up; what is left then is told by account, and the next kill
goes on with it. A cancel never asks the switch.

It is the account that is cleared: orders there of other desks, and such as are not ours, go too.

At an account that this process cannot speak to, the wish to cancel is put on record and waited for:
the house that looks after the account asks the venue. That house also does so by itself for whatever
desk it finds halted, whoever halted it (`enforce_halts`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import CausewayError, ungrouped
from risk.controls import list_controls, set_control
from risk.model import EVERY, SYSTEM, Control, ControlState
from trading.hedges.lines import list_lines
from trading.hedges.model import HedgeLine, HedgePlace
from trading.quotes.ending import withdraw_all
from venues.cancels import ask_to_cancel, cancel_all
from venues.lifecycle import ResolvePolicy
from venues.model import VenueOrder
from venues.orders import resume
from venues.ports import VenueGateway

HOLDER: Final = "kill"
BY_RECORD: Final = "nothing of ours is open; of other orders the venue was not asked"
NOT_REACHED: Final = "nobody here speaks to it, and no running house has cancelled them yet"
AT_ONCE: Final = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class KillPolicy:
    """How long and how often accounts are cleared.

    Attributes:
        patience: for all of it; every account has all of that time, side by side.
        pause: between two rounds at one account.
        resolve: how orders of unknown outcome are cleared up meanwhile.
    """

    patience: timedelta = timedelta(seconds=30)
    pause: timedelta = timedelta(milliseconds=500)
    resolve: ResolvePolicy = field(default_factory=ResolvePolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountCleared:
    """What came of one account.

    Attributes:
        is_clear: nothing of ours may be alive; and, if the venue was asked, nothing else is open.
        rounds: how often the venue was asked to cancel everything; 0: this process does not speak to it.
        left: client order ids that may still trade.
        reason: what stands in the way, or what was not looked at.
    """

    venue: str
    account: str
    is_clear: bool
    rounds: int = 0
    left: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KillReport:
    """What a kill came to.

    Attributes:
        control: the switch as it stands.
        quotes: how many quotes were withdrawn.
        accounts: of the desk, by venue and account.
        quotes_reason: why quotes may still stand; empty: none does. None can be dealt on all the same.
    """

    control: Control
    quotes: int
    accounts: tuple[AccountCleared, ...]
    quotes_reason: str = ""

    @property
    def is_clear(self) -> bool:
        """Whether nothing that the desk sent out can trade any more."""
        return not self.quotes_reason and all(item.is_clear for item in self.accounts)


async def kill(
    engine: AsyncEngine,
    gateways: Sequence[VenueGateway],
    *,
    desk: str | None,
    by: str,
    reason: str,
    clock: Clock,
    policy: KillPolicy | None = None,
) -> KillReport:
    """Halt a desk (None: the house), withdraw its quotes, cancel all orders of its accounts.

    It may be called again and again, and by several at once. Orders whose cancel is under way when time
    is up keep that wish on record: `venues.orders.resume` asks again.

    Args:
        gateways: to the accounts that this process can speak to; of them those of the desk are
            cleared, for the house all. At an account of the desk that is missing, cancels are asked
            for on record.
        by: an operator, or ``system:<process>``.

    Raises:
        NotAuthorised: the operator may not. Nothing was done.
        BadInput: there is no reason.
    """
    rules, name = policy or KillPolicy(), EVERY if desk is None else desk

    async def halt(conn: AsyncConnection) -> Control:
        now = clock.now()
        return await set_control(conn, name, ControlState.HALTED, by=by, reason=reason, now=now)

    control = await transact(engine, halt)
    reached = {(item.venue, item.account): item for item in gateways}
    wanted = await transact(engine, lambda conn: places_of(conn, desk))
    places = sorted(wanted if desk is not None else wanted | set(reached))
    async with asyncio.TaskGroup() as group:
        withdrawn = group.create_task(_withdraw(engine, desk, by, reason, clock))
        tasks = [
            group.create_task(_clear(engine, place, reached.get(place), clock, rules))
            for place in places
        ]
    quotes, quotes_reason = withdrawn.result()
    return KillReport(
        control=control,
        quotes=quotes,
        quotes_reason=quotes_reason,
        accounts=tuple(task.result() for task in tasks),
    )


async def enforce_halts(
    engine: AsyncEngine,
    gateways: Sequence[VenueGateway],
    *,
    clock: Clock,
    resolve: ResolvePolicy | None = None,
) -> tuple[int, int]:
    """Take back the quotes and orders of every halted desk; return how many quotes went, orders are left.

    For a house that runs, again and again: whoever halted a desk, a kill elsewhere or the loss watch,
    what it had out is cancelled. Only orders on record are, at the places of the desk's own lines: the
    rest of an account may belong to a desk that trades, or to people who unwind by hand.
    """
    halted, lines = await transact(engine, _halted)
    reached = {(item.venue, item.account): item for item in gateways}
    rules = resolve or ResolvePolicy()
    # All of it on record before a venue is asked: whoever looks after the account then asks as well.
    open_at = {
        place: await _open_at(engine, place, clock) for line in lines for place in line.places
    }
    with ungrouped():
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_cancelled(engine, reached[where], place.symbol, clock, rules))
                for place, count in open_at.items()
                if count and (where := (place.venue, place.account)) in reached
            ]
    out_of_reach = [
        count for place, count in open_at.items() if (place.venue, place.account) not in reached
    ]
    left = sum(out_of_reach) + sum(task.result() for task in tasks)
    quotes = 0
    for control in halted:
        quotes += await transact(engine, partial(_withdraw_of, control=control, now=clock.now()))
    return quotes, left


async def _halted(conn: AsyncConnection) -> tuple[list[Control], list[HedgeLine]]:
    """Return the switches that are halted, and the lines that they hold for."""
    halted = [item for item in await list_controls(conn) if item.state is ControlState.HALTED]
    names = {item.desk for item in halted}
    lines = await list_lines(conn) if halted else []
    return halted, [line for line in lines if names & {EVERY, line.desk}]


async def places_of(conn: AsyncConnection, desk: str | None) -> set[tuple[str, str]]:
    """Return the venue accounts that a desk (None: any desk) hedges at."""
    lines = [line for line in await list_lines(conn) if desk in {None, line.desk}]
    return {(place.venue, place.account) for line in lines for place in line.places}


async def _withdraw(
    engine: AsyncEngine, desk: str | None, by: str, reason: str, clock: Clock
) -> tuple[int, str]:
    """Withdraw the quotes; return how many, and why some may still stand."""
    try:
        count = await transact(
            engine,
            lambda conn: withdraw_all(conn, desk=desk, by=by, reason=reason, now=clock.now()),
        )
    except CausewayError as error:
        return 0, str(error)
    return count, ""


@dataclass(slots=True)
class _Progress:
    """What the last round at an account showed."""

    rounds: int = 0
    left: Sequence[VenueOrder] = ()
    reason: str = "no round was finished"


async def _clear(
    engine: AsyncEngine,
    place: tuple[str, str],
    gateway: VenueGateway | None,
    clock: Clock,
    policy: KillPolicy,
) -> AccountCleared:
    """Repeat rounds until the account is clear or time is up; never raises, whatever goes wrong."""
    progress, is_clear = _Progress(), False
    try:
        async with asyncio.timeout(policy.patience / timedelta(seconds=1)):
            while not is_clear:
                is_clear = await _tried(engine, place, gateway, clock, policy, progress)
                if not is_clear:
                    await asyncio.sleep(policy.pause / timedelta(seconds=1))
    except TimeoutError:
        progress.reason = f"time is up: {progress.reason}"
    venue, account = place
    return AccountCleared(
        venue=venue,
        account=account,
        is_clear=is_clear,
        rounds=progress.rounds,
        left=() if is_clear else tuple(item.client_order_id for item in progress.left),
        reason=progress.reason,
    )


async def _tried(
    engine: AsyncEngine,
    place: tuple[str, str],
    gateway: VenueGateway | None,
    clock: Clock,
    policy: KillPolicy,
    progress: _Progress,
) -> bool:
    """Take one round; tell whether the account is clear."""
    try:
        if gateway is None:
            return await _round_by_record(engine, place, clock, progress)
        return await _round(engine, gateway, clock, policy, progress)
    except Exception as error:  # noqa: BLE001  what is wrong with one account, a bug too, must not keep the others open
        progress.reason = str(error) or repr(error)
        return False


async def _round_by_record(
    engine: AsyncEngine, place: tuple[str, str], clock: Clock, progress: _Progress
) -> bool:
    """Ask on record for everything to be cancelled, and tell whether all of it is over."""
    venue, account = place
    orders = await ask_to_cancel(engine, venue, account, None, holder=HOLDER, clock=clock)
    progress.left = [item for item in orders if item.may_be_alive]
    progress.reason = NOT_REACHED if progress.left else BY_RECORD
    return not progress.left


async def _round(
    engine: AsyncEngine,
    gateway: VenueGateway,
    clock: Clock,
    policy: KillPolicy,
    progress: _Progress,
) -> bool:
    """Cancel everything once, and tell whether the account is clear."""
    progress.rounds += 1
    progress.left = await cancel_all(engine, gateway, None, holder=HOLDER, clock=clock)
    if progress.left:
        # What nobody knows the outcome of: only evidence ends it.
        progress.left = await resume(
            engine,
            gateway,
            holder=HOLDER,
            clock=clock,
            policy=policy.resolve,
            intents_older_than=AT_ONCE,
        )
    # Asked again: what was on its way meanwhile is open only now.
    found = await gateway.cancel_all(None)
    progress.reason = ""
    if progress.left:
        progress.reason = f"{len(progress.left)} orders may still trade"
    elif found:
        progress.reason = f"{found} orders were open at the last look"
    return not progress.left and not found


async def _open_at(engine: AsyncEngine, place: HedgePlace, clock: Clock) -> int:
    """Ask on record for a place's orders to be cancelled; return how many may still trade."""
    orders = await ask_to_cancel(
        engine, place.venue, place.account, place.symbol, holder=HOLDER, clock=clock
    )
    return sum(item.may_be_alive for item in orders)


async def _cancelled(
    engine: AsyncEngine, gateway: VenueGateway, symbol: str, clock: Clock, resolve: ResolvePolicy
) -> int:
    """Ask the venue for the cancels on record of one symbol; return how many orders may still trade."""
    left = await resume(engine, gateway, holder=HOLDER, clock=clock, policy=resolve, symbol=symbol)
    return len(left)


async def _withdraw_of(conn: AsyncConnection, *, control: Control, now: datetime) -> int:
    return await withdraw_all(
        conn,
        desk=None if control.desk == EVERY else control.desk,
        by=SYSTEM + HOLDER,
        reason=control.reason,
        now=now,
    )
