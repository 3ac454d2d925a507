"""What is wrong anywhere in the house, one look for each kind. Nothing is written from here.

Every look is bounded: it reads the oldest page of what waits for somebody, and `observe` bounds what
is told of one kind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.banks.entry_model import BankFileState, BankReceiptKind, BankReceiptState
from custody.banks.receipts import list_bank_receipts
from custody.banks.statements import list_bank_files, list_gaps, newest_statement_days
from custody.deposit_model import DepositState, ReceiptState
from custody.deposits import list_deposits
from custody.payout_model import PayoutState
from custody.payouts import list_payouts
from custody.receipts import list_receipts
from kernel.clock import Clock, iso
from kernel.jobs import list_dead, list_late
from kernel.money import Asset
from registry.queries import list_assets, list_bank_accounts
from reporting.alerts.model import TEXT_LENGTH_MAX, AlertKind, Finding
from reporting.recon.breaks import age_days, list_breaks
from risk.settlement_limits import usage
from settlement.ageing import age_of, calendars_for
from settlement.fails import list_fails
from settlement.funding import funding_need
from settlement.model import Direction, InstructionState, RunState
from settlement.queries import (
    get_cycle,
    list_calculations,
    list_cycle_runs,
    list_instructions_of_runs,
    list_live_cycles,
)
from trading.terms.model import Rail, StandingInstruction, StandingState
from trading.terms.standing import list_standing_instructions
from trading.terms.standing_rules import state_of

NEAR: Final = timedelta(hours=1)
"""So long before a cycle's funds have to be there, what is short is told."""
PATIENCE: Final = timedelta(hours=4)
"""So long a receipt may wait to be matched, and a deposit to be decided on."""
LATE_JOB: Final = timedelta(minutes=15)
OVERDUE: Final = timedelta(hours=6)
"""So long after it was asked for a payout on a chain may be under way."""
OVERDUE_BANK: Final = timedelta(days=3)
"""The same of a bank, over a weekend."""
UNDER_WAY: Final = (
    PayoutState.ALLOCATED,
    PayoutState.SIGNED,
    PayoutState.CANCELLING,
    PayoutState.MINED,
    PayoutState.SECURITY_HOLD,
)
NEAR_PERCENT: Final = 80
BREAK_DAYS: Final = 1
"""Business days after which a break is old."""
STATEMENT_DAYS: Final = 1
"""Business days that the newest statement of an account may be behind."""
CYCLES_MAX: Final = 50

_WAITING: Final = (DepositState.HELD, DepositState.UNATTRIBUTED, DepositState.QUARANTINED)
_CHANGED: Final = (StandingState.AWAITING_CALL_BACK, StandingState.COOLING_OFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One kind of trouble, and how it is looked for."""

    kind: AlertKind
    look: Callable[[AsyncConnection], Awaitable[Sequence[tuple[str, str]]]]

    async def find(self, conn: AsyncConnection) -> list[Finding]:
        """Return what is wrong now; a sentence that is too long is cut."""
        return [
            Finding(kind=self.kind, key=key, text=text[:TEXT_LENGTH_MAX])
            for key, text in await self.look(conn)
        ]


Found = list[tuple[str, str]]
"""Keys and sentences."""


def conditions(book: int, clock: Clock) -> list[Condition]:
    """Return everything that is looked for in a book."""
    looks = {
        AlertKind.CUT_OFF_UNFUNDED: unfunded,
        AlertKind.FAILED_AT_CUT_OFF: failed,
        AlertKind.FINALITY_OVERDUE: overdue,
        AlertKind.STATEMENT_MISSING: missing_statements,
        AlertKind.RECEIPT_UNMATCHED: unmatched,
        AlertKind.BREAK_AGED: aged_breaks,
        AlertKind.INSTRUCTION_CHANGED: changed_instructions,
        AlertKind.LIMIT_NEAR: near_limits,
        AlertKind.DEPOSIT_HELD: waiting_deposits,
        AlertKind.RUN_MISSED: missed_runs,
    }
    return [
        Condition(kind=kind, look=partial(_now, look, book, clock)) for kind, look in looks.items()
    ]


async def _now(
    look: Callable[[AsyncConnection, int, datetime], Awaitable[Found]],
    book: int,
    clock: Clock,
    conn: AsyncConnection,
) -> Found:
    return await look(conn, book, clock.now())


async def _assets(conn: AsyncConnection) -> dict[str, Asset]:
    return {asset.code: asset for asset in await list_assets(conn)}


async def unfunded(conn: AsyncConnection, book: int, now: datetime) -> Found:
    """Return what cycles lack whose funds have to be there within `NEAR`."""
    assets = await _assets(conn)
    found: Found = []
    for cycle_id in await list_live_cycles(conn, book, limit=CYCLES_MAX):
        cycle = await get_cycle(conn, cycle_id)
        if not cycle.top_up_until - NEAR <= now:
            continue
        runs = await list_cycle_runs(conn, cycle_id)
        open_runs = [r for r in runs if r.state in {RunState.CALCULATED, RunState.AFFIRMED}]
        calculated = await list_calculations(conn, open_runs)
        sealed = [r.id for r in runs if r.state in {RunState.SEALED, RunState.RELEASED}]
        planned = [
            item
            for item in await list_instructions_of_runs(conn, sealed)
            if item.state in {InstructionState.PLANNED, InstructionState.RESCHEDULED}
        ]
        items = [item for result in calculated.values() for item in result.items]
        for need in await funding_need(conn, book, [*items, *planned]):
            if need.short:
                asset = assets[need.asset]
                place = need.location or f"any place of rail {need.rail}"
                found.append(
                    (
                        f"{cycle.value_date}/{cycle.window}/{need.rail}/{need.location}/{need.asset}",
                        (
                            f"{asset.format(need.short)} missing at {place} for {cycle.window} of"
                            f" {cycle.value_date}, due {iso(cycle.top_up_until)}"
                        ),
                    )
                )
    return found


async def failed(conn: AsyncConnection, book: int, now: datetime) -> Found:
    """Return what was due and is not final."""
    assets = await _assets(conn)
    found: Found = []
    for item in await list_fails(conn, book, now=now):
        asset = assets[item.asset]
        verb = "owes" if item.direction is Direction.RECEIVE else "is owed"
        found.append(
            (
                str(item.instruction_id),
                (
                    f"{item.party} {verb} {asset.format(item.remaining)} since {item.due_on},"
                    f" {item.age} business days"
                ),
            )
        )
    return found


async def overdue(conn: AsyncConnection, book: int, now: datetime) -> Found:
    """Return payouts that left long ago and are not final, and those that people must look at."""
    assets = await _assets(conn)
    found: Found = []
    for item in await list_payouts(conn, book=book, states=UNDER_WAY):
        patience = OVERDUE_BANK if item.rail == Rail.BANK else OVERDUE
        is_held = item.state is PayoutState.SECURITY_HOLD
        if is_held or item.created_at <= now - patience:
            asset = assets[item.asset]
            what = "is in security hold" if is_held else f"is {item.state}, not final"
            found.append(
                (
                    str(item.id),
                    f"payout {item.id} of {asset.format(item.amount)} by {item.rail} {what}",
                )
            )
    return found


async def missing_statements(conn: AsyncConnection, book: int, now: datetime) -> Found:
    """Return where statements are missing, what could not be read, and who has sent none lately."""
    del book
    found: Found = [
        (
            f"{account}/{gap.before.name}/{gap.after.name}",
            (
                f"statements of {account} are missing between {gap.before.name} of"
                f" {gap.before.to_date} and {gap.after.name} of {gap.after.to_date}: {gap.why}"
            ),
        )
        for account, gap in await list_gaps(conn)
    ]
    for file in await list_bank_files(conn, state=BankFileState.QUARANTINED):
        found.append((f"file/{file.id}", f"bank file {file.name} is in quarantine: {file.reason}"))
    newest = await newest_statement_days(conn)
    for account in await list_bank_accounts(conn):
        day = newest.get(account.code)
        if day is None or not account.active:
            continue
        behind = age_of(day, now.date(), calendars_for(account.asset, Rail.BANK)) - STATEMENT_DAYS
        if behind > 0:
            found.append(
                (
                    f"{account.code}/behind",
                    (
                        f"the newest statement of {account.code} is of {day}, {behind} business days"
                        " behind"
                    ),
                )
            )
    return found


async def unmatched(conn: AsyncConnection, book: int, now: datetime) -> Found:
    """Return what arrived for a settlement and that nobody can explain yet."""
    assets = await _assets(conn)
    found: Found = []
    for receipt in await list_receipts(conn, state=ReceiptState.FINAL):
        if receipt.first_seen_at <= now - PATIENCE:
            asset = assets[receipt.asset]
            text = f"{asset.format(receipt.value)} of {receipt.party} on {receipt.chain}"
            found.append((str(receipt.id), f"{text} is not matched: {receipt.tx_hash}"))
    # What was taken back and what left without a known reason waits for somebody as well.
    kinds = tuple(BankReceiptKind)
    for item in await list_bank_receipts(conn, book, state=BankReceiptState.UNMATCHED, kinds=kinds):
        if item.booking_date <= (now - PATIENCE).date():
            asset = assets[item.asset]
            text = f"{asset.format(item.value)} in {item.account} of {item.booking_date}"
            found.append((str(item.id), f"{text} is not matched: {item.kind}"))
    return found


async def aged_breaks(conn: AsyncConnection, book: int, now: datetime) -> Found:
    """Return breaks that stand for more than a business day, unassigned or not."""
    return [
        (
            str(item.id),
            (
                f"{item.found.kind} at {item.found.place_kind} {item.found.place} for {days} business"
                f" days, {item.assigned_to or 'nobody'} looks after it: {item.found.text}"
            ),
        )
        for item in await list_breaks(conn, book)
        if (days := age_days(item, now.date())) > BREAK_DAYS
    ]


async def changed_instructions(conn: AsyncConnection, book: int, now: datetime) -> Found:
    """Return changes of where a party is paid that are not in force yet."""
    del book
    every = await list_standing_instructions(conn)
    by_key: dict[tuple[str, str, Rail], list[StandingInstruction]] = {}
    for item in every:
        by_key.setdefault((item.party, item.asset, item.rail), []).append(item)
    found: Found = []
    for item in every:
        state = state_of(item, by_key[item.party, item.asset, item.rail], now.date())
        if state in _CHANGED:
            found.append(
                (
                    f"{item.party}/{item.asset}/{item.rail}/{item.version}",
                    (
                        f"where {item.party} is paid {item.asset} by {item.rail} was changed by"
                        f" {item.proposed_by} and {item.approved_by}: {state.replace('_', ' ')}"
                    ),
                )
            )
    return found


async def near_limits(conn: AsyncConnection, book: int, now: datetime) -> Found:
    """Return the settlement limits that are used to `NEAR_PERCENT` and more."""
    del now
    assets = await _assets(conn)
    found: Found = []
    for use in await usage(conn, book):
        if use.reaches(NEAR_PERCENT):
            asset = assets[use.asset]
            found.append(
                (
                    f"{use.party}/{use.asset}/{use.bound}",
                    (
                        f"{use.party} uses {asset.format(use.used)} of its {use.bound} settlement limit"
                        f" of {asset.format(use.allowed)}"
                    ),
                )
            )
    return found


async def waiting_deposits(conn: AsyncConnection, book: int, now: datetime) -> Found:
    """Return deposits that wait for two people."""
    del book
    found: Found = []
    for state in _WAITING:
        for item in await list_deposits(conn, state=state):
            if item.first_seen_at <= now - PATIENCE:
                text = (
                    f"a deposit of {item.amount} units of {item.asset} on {item.chain} is {state}"
                )
                found.append((str(item.id), f"{text}: {item.tx_hash}"))
    return found


async def missed_runs(conn: AsyncConnection, book: int, now: datetime) -> Found:
    """Return slots of the clock that were given up, or that nobody has done in time."""
    del book
    dead = [
        (
            f"{job.name}/{iso(job.scheduled_for)}",
            (
                f"{job.name} of {iso(job.scheduled_for)} was given up"
                f" after {job.attempts} attempts: {job.last_error}"
            ),
        )
        for job in await list_dead(conn)
    ]
    late = [
        (
            f"{job.name}/{iso(job.scheduled_for)}",
            f"{job.name} of {iso(job.scheduled_for)} is not done",
        )
        for job in await list_late(conn, before=now - LATE_JOB)
    ]
    return dead + late
