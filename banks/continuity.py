"""Whether an account's statements follow one another without a gap, and each adds up. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

from banks.errors import FileUnreadable
from banks.statement_model import Statement, StatementKind


@dataclass(frozen=True, slots=True)
class Link:
    """What of a statement has to fit the next one's; *name* is the bank's."""

    name: str
    sequence: int | None
    from_date: date
    to_date: date
    opening: int
    closing: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Two statements that do not follow each other.

    Attributes:
        missing: how many numbers are left out; None where the numbers do not say.
        difference: opening of the later less closing of the earlier.
    """

    before: Link
    after: Link
    missing: int | None
    difference: int
    why: str


def gaps(links: Sequence[Link]) -> list[Gap]:
    """Return every place where something is missing; *links* in the order of their days."""
    return [gap for before, after in pairwise(links) if (gap := _gap(before, after)) is not None]


def _gap(before: Link, after: Link) -> Gap | None:
    difference = after.opening - before.closing
    missing = _missing(before, after)
    if not difference and not missing:
        return None
    parts = []
    if missing:
        parts.append(f"{missing} statements are missing by their numbers")
    if difference:
        parts.append(f"it opens {difference} units away from where {before.name} closed")
    return Gap(before, after, missing, difference, "; ".join(parts))


def _missing(before: Link, after: Link) -> int | None:
    """Return how many numbers lie between; numbers begin again with the year, or go on."""
    if before.sequence is None or after.sequence is None:
        return None
    if after.sequence > before.sequence:
        return after.sequence - before.sequence - 1
    return after.sequence - 1 if after.to_date.year > before.to_date.year else 0


def require_sum(statement: Statement) -> None:
    """Hold a statement to its own balances.

    Raises:
        FileUnreadable: opening, entries and closing do not add up, or an entry's lines do not.
    """
    for entry in statement.entries:
        if sum(line.amount for line in entry.lines) != entry.amount:
            raise FileUnreadable(
                f"the lines of entry {entry.bank_ref or entry.ref} do not add up to it"
            )
    if statement.kind is not StatementKind.STATEMENT:
        return
    if statement.opening is None or statement.closing is None:
        raise FileUnreadable(f"statement {statement.id} has no two balances")
    moved = sum(entry.amount for entry in statement.booked)
    if statement.opening + moved != statement.closing:
        raise FileUnreadable(
            f"statement {statement.id} does not add up",
            where=f"{statement.opening} + {moved} is not {statement.closing}",
            remedy="Ask the bank for it again; it may have been cut off on the way",
        )
