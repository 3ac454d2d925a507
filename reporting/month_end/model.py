"""Values of the month's end: what stands in its way, who let it pass, what is in the pack."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBreak:
    """A difference between the books and the outside that nobody has resolved.

    Attributes:
        place: where: ``venue:binance/desk``, ``custody:house-hot``, ``bank:zkb-usd``.
        amount: what the outside has more, in smallest units; None: it is no figure. Who lets the break
            pass does so at this figure, and at no other.
        since: the day on which it was first seen.
    """

    id: UUID
    place: str
    what: str
    amount: int | None = None
    since: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a book stands when its month is to be ended.

    Attributes:
        last: the last day of the month.
        closed_through: the last effective day that is closed; None: none ever was.
        unbalanced: assets whose debits are not their credits.
        untied: assets whose position is not what equity and results say.
        snapshot_faults: what is wrong with the locked prices; None: they are not locked.
        is_reconciled: the house was compared with the outside since the month ended.
        breaks: that are open now.
    """

    last: date
    closed_through: date | None
    unbalanced: tuple[str, ...]
    untied: tuple[str, ...]
    snapshot_faults: tuple[str, ...] | None
    is_reconciled: bool
    breaks: tuple[OpenBreak, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """What stands in the way of the month's end.

    Attributes:
        key: names it: ``period-open``, ``break:<id>:<units>``; a waiver is of one key.
        may_pass: two people may let it pass, with a reason; what is wrong in the books, never.
    """

    key: str
    what: str
    may_pass: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """Why two people let an obstacle pass."""

    id: UUID
    book: int
    month: date
    obstacle: str
    reason: str
    proposed_by: str
    proposal: bytes
    approved_by: str
    approval: bytes
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PackFile:
    """A file of the pack; *name* is its path in the folder."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """What a manifest is written of.

    Attributes:
        sequence: the last record of the journal that the pack knows.
        is_final: the period was closed at that record.
        valuation_id, inputs_hash, lines_hash: of the profit and loss.
        snapshot_hash: of the locked prices.
        obstacles: those that two people let pass, each with its waiver.
    """

    book: int
    entity: str
    month: date
    sequence: int
    is_final: bool
    valuation_id: UUID
    inputs_hash: str
    lines_hash: str
    snapshot_hash: str
    files: tuple[PackFile, ...]
    passed: tuple[tuple[Obstacle, Waiver], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthEnd:
    """A pack as it was built."""

    id: UUID
    book: int
    month: date
    manifest: str
    manifest_sha256: str
    built_by: str
    built_at: datetime
