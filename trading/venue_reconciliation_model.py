"""The nouns of reconciling venue accounts: runs, what they compared, and breaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum, unique
from typing import Any, Final
from uuid import UUID

from kernel.states import StateTable

BALANCE: Final = "balance"
"""Books and venue differ in an asset, and nothing known explains it."""
FILL_UNPOSTED: Final = "fill_unposted"
"""A trade is on record and has not been posted for too long."""

UNKNOWN_ASSET: Final = "unknown_asset"
"""The venue holds something of an asset that is not registered, so it is in no books."""


@unique
class BreakState(StrEnum):
    """Where a break stands."""

    OPEN = "open"
    EXPLAINED = "explained"
    """Somebody knows why; it stands until a run no longer shows it."""
    DISMISSED = "dismissed"
    """Two people closed it without evidence; it opens again if either side says something else."""
    CLOSED = "closed"
    """A later run does not show it any more."""


S = BreakState

BREAK_STATES: Final = StateTable(
    schema="trading",
    table="venue_break",
    initial=frozenset({S.OPEN}),
    edges=frozenset(
        {
            (S.OPEN, S.EXPLAINED),
            (S.OPEN, S.DISMISSED),
            (S.OPEN, S.CLOSED),
            (S.EXPLAINED, S.OPEN),
            (S.EXPLAINED, S.DISMISSED),
            (S.EXPLAINED, S.CLOSED),
            (S.DISMISSED, S.OPEN),
            (S.DISMISSED, S.CLOSED),
        }
    ),
)


@unique
class Outcome(StrEnum):
    """How a run ended."""

    CLEAN = "clean"
    BROKEN = "broken"
    """Something differs that nobody dismissed."""
    INCOMPLETE = "incomplete"
    """Nothing differs of what could be compared, and not everything could."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueReconciled:
    """What the books and the venue say about one asset of one account, at one snapshot.

    Attributes:
        ledger, venue: smallest units.
        explained: whole smallest units by which the venue has more because our roundings of costs
            and fees were against us (see `venues.model.DUST_SCALE`).
        unposted: what the venue has more because trades on record are not posted yet.
        in_transit: what the venue has more because of own transfers under way.
        traded_after: what the venue has more because trades on record came after its statement.
        difference: what is left unexplained, in whole smallest units towards zero.
        agrees: whether nothing at all is left, dust included.
    """

    venue_code: str
    account: str
    asset: str
    ledger: int
    venue: int
    explained: int
    unposted: int = 0
    in_transit: int = 0
    traded_after: int = 0
    difference: int
    agrees: bool
    taken_at: datetime

    @property
    def expected(self) -> int:
        """Return what the venue should hold by what we know."""
        return self.ledger + self.explained + self.unposted + self.in_transit + self.traded_after


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a run found to differ.

    Attributes:
        kind: of `venues.comparison.DifferenceKind`, `BALANCE`, `FILL_UNPOSTED` or
            `UNKNOWN_ASSET`.
        subject: ``order:<symbol>:<client order id>``, ``trade:<symbol>:<trade id>``,
            ``balance:<asset>`` or ``asset:<the venue's code>``.
    """

    kind: str
    subject: str
    ours: str
    theirs: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueBreak:
    """A difference that stood in one run or more; it keeps its id for as long as it stands.

    Attributes:
        explained_by, proposed_by, dismissed_by: operators.
    """

    id: UUID
    book: int
    venue: str
    account: str
    kind: str
    subject: str
    ours: str
    theirs: str
    state: BreakState
    opened_at: datetime
    opened_run: UUID
    seen_at: datetime
    seen_run: UUID
    closed_at: datetime | None = None
    closed_run: UUID | None = None
    explanation: str = ""
    explained_by: str | None = None
    proposed_by: str | None = None
    dismissed_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciliationRun:
    """A recorded reconciliation of one account.

    Attributes:
        counts: orders and trades on either side, assets, turns, breaks by what became of them.
        inputs_hash: SHA-256 of everything that either side said, in hexadecimal.
        balances: by asset; empty when no statement of the venue could be placed among its trades.
        breaks: ids of the breaks that stood in this run.
    """

    id: UUID
    book: int
    venue: str
    account: str
    started_at: datetime
    finished_at: datetime
    outcome: Outcome
    inputs_hash: str
    counts: Mapping[str, int]
    balances: tuple[VenueReconciled, ...]
    breaks: tuple[UUID, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciliationRow:
    """A run as a list shows it."""

    id: UUID
    book: int
    venue: str
    account: str
    started_at: datetime
    finished_at: datetime
    outcome: Outcome
    inputs_hash: str
    counts: Mapping[str, int]
    balances: tuple[Mapping[str, Any], ...]
    breaks: tuple[UUID, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcilePolicy:
    """How patient a reconciliation is.

    Attributes:
        lookback: orders older than this are compared only while they are open or break.
        settling: how long an order or a trade may be under way before either side must know it;
            also the pause between two looks at what differs.
        unposted_max: how long a trade may wait to be posted.
        steady_attempts: how often balances are read until a statement can be placed among the trades.
        fill_turns: turns of `fill_pages` pages in which trades are compared; what is left is compared
            by the next run, from where this one ended.
        refreshed_max: orders that are looked after in one run.
    """

    lookback: timedelta = timedelta(days=2)
    settling: timedelta = timedelta(seconds=3)
    unposted_max: timedelta = timedelta(minutes=15)
    steady_attempts: int = 5
    fill_turns: int = 20
    fill_pages: int = 4
    refreshed_max: int = 200


@dataclass(frozen=True, slots=True)
class Aged:
    """What becomes of breaks after a run: written, every one of them."""

    new: tuple[VenueBreak, ...] = ()
    seen_again: tuple[VenueBreak, ...] = ()
    reopened: tuple[VenueBreak, ...] = ()
    closed: tuple[VenueBreak, ...] = ()
    untouched: tuple[VenueBreak, ...] = field(default=())

    @property
    def standing(self) -> tuple[VenueBreak, ...]:
        """Return the breaks that this run shows."""
        return (*self.new, *self.seen_again, *self.reopened)
