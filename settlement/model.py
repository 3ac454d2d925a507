"""Nouns of settlement, frozen, and the edges of its three machines."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, time
from enum import StrEnum
from typing import Final
from uuid import UUID

from kernel.errors import BadInput
from kernel.states import StateTable
from registry.calendars import Calendar
from trading.terms.model import Rail


class Direction(StrEnum):
    """Who owes whom."""

    PAY = "pay"
    """The desk owes the party."""
    RECEIVE = "receive"
    """The party owes the desk."""


class ObligationState(StrEnum):
    """Where an obligation is."""

    OPEN = "open"
    CALCULATED = "calculated"
    AFFIRMED = "affirmed"
    DISPUTED = "disputed"
    SEALED = "sealed"
    DISCHARGED = "discharged"
    WITHDRAWN = "withdrawn"
    """Given back to trading, which may cancel or amend the deal."""


class RunState(StrEnum):
    """Where a settlement run is."""

    CALCULATED = "calculated"
    AFFIRMED = "affirmed"
    SEALED = "sealed"
    RELEASED = "released"
    FINAL = "final"
    EMPTY = "empty"
    """Every obligation of it was disputed or is too small to move: nothing is left to settle."""
    LAPSED = "lapsed"
    """Not affirmed in time: what was in it is open again, for the next cycle."""


class InstructionState(StrEnum):
    """Where one movement of net value is."""

    PLANNED = "planned"
    FUNDED = "funded"
    RELEASED = "released"
    FINAL = "final"
    FAILED = "failed"
    RESCHEDULED = "rescheduled"


OBLIGATION_STATES: Final = StateTable(
    schema="settlement",
    table="obligation",
    initial=frozenset({ObligationState.OPEN}),
    edges=frozenset(
        {
            (ObligationState.OPEN, ObligationState.CALCULATED),
            (ObligationState.CALCULATED, ObligationState.AFFIRMED),
            (ObligationState.CALCULATED, ObligationState.DISPUTED),
            (ObligationState.AFFIRMED, ObligationState.DISPUTED),
            # A dispute about one obligation takes back the affirmation of the others of its party.
            (ObligationState.AFFIRMED, ObligationState.CALCULATED),
            (ObligationState.DISPUTED, ObligationState.OPEN),
            # Its run lapsed, or what is left of its net is too small to move.
            (ObligationState.CALCULATED, ObligationState.OPEN),
            (ObligationState.OPEN, ObligationState.WITHDRAWN),
            (ObligationState.DISPUTED, ObligationState.WITHDRAWN),
            # Trading did not cancel the deal after all.
            (ObligationState.WITHDRAWN, ObligationState.OPEN),
            (ObligationState.AFFIRMED, ObligationState.SEALED),
            (ObligationState.SEALED, ObligationState.DISCHARGED),
        }
    ),
)

RUN_STATES: Final = StateTable(
    schema="settlement",
    table="run",
    initial=frozenset({RunState.CALCULATED}),
    edges=frozenset(
        {
            (RunState.CALCULATED, RunState.AFFIRMED),
            (RunState.AFFIRMED, RunState.CALCULATED),
            (RunState.CALCULATED, RunState.EMPTY),
            (RunState.CALCULATED, RunState.LAPSED),
            (RunState.AFFIRMED, RunState.EMPTY),
            (RunState.AFFIRMED, RunState.SEALED),
            (RunState.SEALED, RunState.RELEASED),
            (RunState.RELEASED, RunState.FINAL),
            # A block deeper than the policy asked for vanished, and with it a receipt or a payment.
            (RunState.FINAL, RunState.RELEASED),
        }
    ),
)

INSTRUCTION_STATES: Final = StateTable(
    schema="settlement",
    table="instruction",
    initial=frozenset({InstructionState.PLANNED}),
    edges=frozenset(
        {
            (InstructionState.PLANNED, InstructionState.FUNDED),
            # What the desk is to receive needs no funding, and a book transfer is funded by its
            # holds: release means to await the one, and to hold the other.
            (InstructionState.PLANNED, InstructionState.RELEASED),
            (InstructionState.FUNDED, InstructionState.RELEASED),
            (InstructionState.RELEASED, InstructionState.FINAL),
            (InstructionState.RELEASED, InstructionState.FAILED),
            # A part of it is paid, and the rest is the next attempt.
            (InstructionState.RELEASED, InstructionState.RESCHEDULED),
            # What was held for it is let go.
            (InstructionState.FUNDED, InstructionState.RESCHEDULED),
            # The receipt or the payment vanished with its block.
            (InstructionState.FINAL, InstructionState.RELEASED),
            (InstructionState.FAILED, InstructionState.RESCHEDULED),
            (InstructionState.RESCHEDULED, InstructionState.FUNDED),
            (InstructionState.RESCHEDULED, InstructionState.RELEASED),
        }
    ),
)


IMPORTED_LEG: Final = "imported"
"""The leg of an obligation that no deal of ours made: it came with the cut-over."""
RETURN_LEG: Final = "return"
"""The leg of an obligation that is owed again: a payment came back, or was taken back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obligation:
    """One leg of one deal that is owed: *amount* (smallest units, > 0) of *asset*."""

    id: UUID
    deal_id: UUID
    leg: str
    party: str
    asset: str
    amount: int
    direction: Direction
    value_date: date
    created_at: datetime
    """When it became known: when its deal was booked, or when it was imported."""
    state: ObligationState = ObligationState.OPEN
    version: int = 1
    """Number of events so far."""
    trade_date: date | None = None
    """When it was agreed; None: as far as is known, on its value date."""
    product: str = "spot"

    @property
    def has_deal(self) -> bool:
        """Tell whether a deal of ours is behind it, which settlement keeps up to date."""
        return self.leg not in {IMPORTED_LEG, RETURN_LEG}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetItem:
    """What remains between the desk and one party in one asset, and what it discharges.

    ``amount`` may be zero: then the obligations cancel out and nothing moves.
    """

    party: str
    asset: str
    direction: Direction
    amount: int
    gross_pay: int
    gross_receive: int
    obligations: tuple[UUID, ...]
    rail: Rail


@dataclass(frozen=True, slots=True, kw_only=True)
class Calculation:
    """One immutable version of a run: inputs, result, and the hash that seals both.

    Attributes:
        carried: net items below the threshold of their asset: nothing of them moves, and their
            obligations stay open for the next cycle.
    """

    version: int
    method: str
    items: tuple[NetItem, ...]
    input_hash: str
    carried: tuple[NetItem, ...] = ()


class ReleaseMethod(StrEnum):
    """What is released of a cycle when what is held does not suffice for all of it.

    The values are those of `settlement.netting.model.Method`.
    """

    FIFO = "fifo"
    """The oldest first; nobody is passed over."""
    OPTIMAL = "optimal"
    """The greatest value within a class of priority."""
    PARTIAL = "partial"
    """The greatest value, single payments in part."""


WINDOW_NAME_MAX: Final = 64
MINUTES_MAX: Final = 7 * 24 * 60
"""A longer clock would run into the same window of the next week."""
THRESHOLDS_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Net amounts of *asset* below *units* (smallest units) do not move."""

    asset: str
    units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The policy of a window: one version, never rewritten. Version 0 is a window nobody has set.

    The clocks follow each other: cut-off, then the time to affirm or dispute, then the time to top
    up, then the seal, then the release.

    Attributes:
        version: counts from 1 for each (book, name).
        effective_from: the first business date on which it holds; the newest that does, holds.
        active: False: from that date on the window is not opened any more.
        cut_off: on the wall in *timezone*; summer time included.
        timezone: as the IANA has it: ``Europe/Zurich``.
        calendars: a date is a business date of the window if it is one of each of them.
        affirm_minutes: from the cut-off; who has not affirmed by then, lapses.
        top_up_minutes: from there until the seal by the clock.
        release_minutes: from there until the release by the clock.
        reaffirm_minutes: what a party has at least, after a dispute, to affirm the next version;
            never beyond the end of the time to top up.
        seals_by_clock, releases_by_clock: False: the step waits for a person.
        method: what is released when funds do not suffice.
        thresholds: what is too small to move.
    """

    book: int
    name: str
    version: int
    effective_from: date
    active: bool = True
    cut_off: time
    timezone: str
    calendars: tuple[Calendar, ...]
    affirm_minutes: int
    top_up_minutes: int
    release_minutes: int
    reaffirm_minutes: int
    seals_by_clock: bool
    releases_by_clock: bool
    method: ReleaseMethod
    thresholds: tuple[Threshold, ...] = ()

    def __post_init__(self) -> None:
        require_window_name(self.name)
        minutes = (
            self.affirm_minutes,
            self.top_up_minutes,
            self.release_minutes,
            self.reaffirm_minutes,
        )
        if not all(0 <= one <= MINUTES_MAX for one in minutes):
            raise BadInput(
                f"the clocks of window {self.name} are not possible: {minutes}",
                remedy=f"Use 0 to {MINUTES_MAX} minutes",
            )
        if self.cut_off.tzinfo is not None or self.cut_off.second or self.cut_off.microsecond:
            raise BadInput(
                f"the cut-off of window {self.name} is not a plain time of day: {self.cut_off}"
            )
        if not self.calendars:
            raise BadInput(f"window {self.name} has no calendar", remedy="Use `always`")
        assets = {item.asset for item in self.thresholds}
        if len(assets) != len(self.thresholds) or len(assets) > THRESHOLDS_MAX:
            raise BadInput(f"two thresholds of window {self.name} are of one asset, or too many")
        if any(item.units <= 0 for item in self.thresholds):
            raise BadInput(f"a threshold of window {self.name} is not above zero")


def require_window_name(name: str) -> None:
    """Refuse a name that people could not read."""
    if not 0 < len(name) <= WINDOW_NAME_MAX or not name.isprintable():
        raise BadInput(f"a window has a name of 1 to {WINDOW_NAME_MAX} printable characters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """One slot: what a window does on one business date, and the moments at which it does it.

    Unique by (book, value_date, window). Its state follows from its runs (`cycle_state`).

    Attributes:
        value_date: the business date: everything due by then, and known by the cut-off.
        window_version: of the policy that it was opened under; 0: there was none.
    """

    id: UUID
    book: int
    value_date: date
    window: str
    window_version: int
    cutoff_at: datetime
    affirm_until: datetime
    top_up_until: datetime
    release_at: datetime
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a party is told of a version of its run, in the bytes that it signs.

    Attributes:
        content: JSON, as `settlement.statements` writes it.
        sha256: of its UTF-8, in lower-case hexadecimal.
    """

    run_id: UUID
    version: int
    party: str
    content: str
    sha256: str
    issued_by: str
    at: datetime


class CyclePhase(StrEnum):
    """What the clock of a cycle says it is time for."""

    AFFIRM = "affirm"
    TOP_UP = "top_up"
    SEAL = "seal"
    RELEASE = "release"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A settlement run: unique by (book, value date, window, party, netting set).

    Attributes:
        party, netting_set: whose obligations it nets, under what; empty: a run of before, which has
            all parties in one.
        cycle_id: the slot it belongs to; None: of before, and without clocks.
        affirm_until: who has not affirmed by then, lapses; a dispute may move it.
        top_up_until: from then on the clock may seal it.
        release_at: from then on the clock may release it.
    """

    id: UUID
    book: int
    value_date: date
    window: str
    state: RunState
    version: int
    created_at: datetime
    party: str = ""
    netting_set: str = ""
    cycle_id: UUID | None = None
    affirm_until: datetime | None = None
    top_up_until: datetime | None = None
    release_at: datetime | None = None


LIVE: Final = (
    RunState.CALCULATED,
    RunState.AFFIRMED,
    RunState.SEALED,
    RunState.RELEASED,
    RunState.FINAL,
)
"""States of a run that settles something, in their order."""


def cycle_state(states: Collection[RunState]) -> RunState:
    """Return the state of a cycle: that of the run which is furthest behind.

    Runs that lapsed or came to nothing hold nobody up; if there are no others, the cycle lapsed if
    one of them did, else it is empty.
    """
    live = [state for state in states if state in LIVE]
    if live:
        return min(live, key=LIVE.index)
    return RunState.LAPSED if RunState.LAPSED in states else RunState.EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One net item on its way: a payout, an awaited receipt, or a side of a book transfer.

    Attributes:
        applied: what was received or paid so far, at most *amount*.
        attempt: counts from 1; each rescheduling begins the next one.
        payout_id: of the newest attempt that made one.
        standing_version: of the standing instruction that the payout was made from.
        evidence: what the newest state rests on.
    """

    id: UUID
    run_id: UUID
    party: str
    asset: str
    direction: Direction
    amount: int
    applied: int
    rail: Rail
    state: InstructionState
    attempt: int
    payout_id: UUID | None
    standing_version: int | None
    evidence: str
    created_at: datetime

    @property
    def remaining(self) -> int:
        """Return what has not been received or paid yet."""
        return self.amount - self.applied


class BreakKind(StrEnum):
    """What does not fit together."""

    RECEIPT_GONE = "receipt_gone"
    """The block of a matched receipt vanished, and the match still stands."""
    PAYOUT_GONE = "payout_gone"
    """An instruction is final whose payout is not confirmed any more."""
    PAYOUT_HELD = "payout_held"
    """The payout of a released instruction is in security hold: people must look."""
    EXPOSED = "exposed"
    """The desk has paid a party whose own payment, once final, vanished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """One mismatch between settlement and what it rests on."""

    kind: BreakKind
    instruction_id: UUID
    party: str
    asset: str
    amount: int
    detail: str
