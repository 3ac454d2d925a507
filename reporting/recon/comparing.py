"""What a run finds in its lines, and what becomes of the breaks that stood before. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from kernel.ids import derive_id
from registry.calendars import count_business_days
from reporting.recon.model import (
    AGE_MAX,
    BANK_DAYS_MAX,
    Break,
    BreakKind,
    BreakState,
    Found,
    Line,
    PlaceKind,
)
from trading.terms.value_dates import calendars_of


def find_breaks(lines: Sequence[Line], items: Sequence[Found], now: datetime) -> list[Found]:
    """Return what differs or is not known, by key.

    Args:
        lines: every asset at every place.
        items: things that their own reconciliation itemised already. Their figures account for the
            difference of their line; what they do not account for is a break of its own.
        now: the instant of the run.
    """
    itemised: dict[tuple[PlaceKind, str, str], int] = {}
    for item in items:
        place = item.place_kind, item.place, item.asset
        itemised[place] = itemised.get(place, 0) + (item.amount or 0)
    found = list(items)
    for line in lines:
        where = f"{line.kind}/{line.place}/{line.asset}"
        rest = (line.difference or 0) - itemised.get((line.kind, line.place, line.asset), 0)
        if note := _why_unknown(line, now):
            found.append(_found(line, BreakKind.UNKNOWN, f"unknown/{where}", None, note))
        elif rest:
            text = (
                "more outside than in the books" if rest > 0 else "less outside than in the books"
            )
            found.append(_found(line, BreakKind.DIFFERENCE, f"difference/{where}", rest, text))
    return sorted(found, key=lambda item: item.key)


@dataclass(frozen=True, slots=True)
class Aged:
    """What becomes of breaks after a run."""

    new: tuple[Break, ...]
    seen_again: tuple[Break, ...]
    reopened: tuple[Break, ...]
    cleared: tuple[Break, ...]


def age(
    standing: Sequence[Break], found: Sequence[Found], *, book: int, run_id: UUID, now: datetime
) -> Aged:
    """Return what becomes of *standing* breaks (any that are not cleared), and what is new.

    One that two people resolved stays so while its figure stays what they signed for. A difference
    whose place says nothing now stands as it was: that nobody knows is not that it is over.
    """
    unknown = {
        (item.place_kind, item.place, item.asset)
        for item in found
        if item.kind is BreakKind.UNKNOWN
    }
    wanted = {item.key: item for item in found}
    known = {item.found.key for item in standing}
    lasting = [
        replace(item, found=wanted[item.found.key], seen_at=now)
        for item in standing
        if item.found.key in wanted
    ]
    was = {item.id: item.found.text for item in standing}
    reopened = [
        replace(item, state=BreakState.OPEN, assigned_to=None)
        for item in lasting
        if item.state is BreakState.RESOLVED and _is_another(item, was[item.id])
    ]
    again = {item.id for item in reopened}
    return Aged(
        new=tuple(
            Break(
                id=derive_id(now, "recon-break", book, run_id, key),
                book=book,
                found=item,
                state=BreakState.OPEN,
                opened_at=now,
                seen_at=now,
            )
            for key, item in wanted.items()
            if key not in known
        ),
        seen_again=tuple(item for item in lasting if item.id not in again),
        reopened=tuple(reopened),
        cleared=tuple(
            replace(item, state=BreakState.CLEARED, cleared_at=now)
            for item in standing
            if item.found.key not in wanted and not _is_hidden(item.found, unknown)
        ),
    )


def _is_another(item: Break, text: str) -> bool:
    """Tell whether a resolved break is not what was signed for; one without a figure says it in words."""
    says_more = item.found.kind is BreakKind.ITEM and item.found.text != text
    return item.found.amount != item.resolved_amount or (item.found.amount is None and says_more)


def _is_hidden(item: Found, unknown: Collection[tuple[PlaceKind, str, str]]) -> bool:
    is_difference = item.kind is BreakKind.DIFFERENCE
    return is_difference and (item.place_kind, item.place, item.asset) in unknown


def digest(lines: Sequence[Line], found: Sequence[Found]) -> str:
    """Return the SHA-256 of what was compared and found, as canonical JSON."""
    content = {"lines": [line_json(x) for x in lines], "found": [found_json(x) for x in found]}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def line_json(line: Line) -> dict[str, Any]:
    """Return a line as a run keeps it; amounts as text, which no reader rounds."""
    return {
        "kind": str(line.kind),
        "place": line.place,
        "asset": line.asset,
        "books": str(line.books),
        "books_then": _text(line.books_then),
        "outside": _text(line.outside),
        "explained": str(line.explained),
        "as_of": None if line.as_of is None else line.as_of.isoformat(),
        "evidence": line.evidence,
        "note": line.note,
    }


def line_of(data: Mapping[str, Any]) -> Line:
    """Return the line that `line_json` wrote."""
    return Line(
        kind=PlaceKind(data["kind"]),
        place=data["place"],
        asset=data["asset"],
        books=int(data["books"]),
        books_then=_units(data["books_then"]),
        outside=_units(data["outside"]),
        explained=int(data["explained"]),
        as_of=None if data["as_of"] is None else datetime.fromisoformat(data["as_of"]),
        evidence=data["evidence"],
        note=data["note"],
    )


def found_json(item: Found) -> dict[str, Any]:
    """Return a finding as a run keeps it."""
    return {
        "key": item.key,
        "kind": str(item.kind),
        "place_kind": str(item.place_kind),
        "place": item.place,
        "asset": item.asset,
        "amount": _text(item.amount),
        "text": item.text,
    }


def found_of(data: Mapping[str, Any]) -> Found:
    """Return the finding that `found_json` wrote."""
    return Found(
        key=data["key"],
        kind=BreakKind(data["kind"]),
        place_kind=PlaceKind(data["place_kind"]),
        place=data["place"],
        asset=data["asset"],
        amount=_units(data["amount"]),
        text=data["text"],
    )


def _why_unknown(line: Line, now: datetime) -> str:
    """Return why nothing can be said about a line; empty where something can, or nothing is held."""
    if line.outside is None or line.books_then is None:
        nothing = line.books == 0 and not line.note
        return "" if nothing else line.note or "nobody outside has said what is there"
    if line.as_of is not None and _is_old(line, line.as_of, now):
        return f"the newest word from outside is of {line.as_of.isoformat()}"
    return ""


def _is_old(line: Line, as_of: datetime, now: datetime) -> bool:
    if line.kind is not PlaceKind.BANK:
        return as_of < now - AGE_MAX
    # A bank tells of a day on the next one of its business.
    today, told = now.astimezone(UTC).date(), as_of.astimezone(UTC).date()
    return count_business_days(told, today, calendars_of(line.asset)) > BANK_DAYS_MAX


def _found(line: Line, kind: BreakKind, key: str, amount: int | None, text: str) -> Found:
    return Found(
        key=key,
        kind=kind,
        place_kind=line.kind,
        place=line.place,
        asset=line.asset,
        amount=amount,
        text=text,
    )


def _text(units: int | None) -> str | None:
    return None if units is None else str(units)


def _units(text: str | None) -> int | None:
    return None if text is None else int(text)
