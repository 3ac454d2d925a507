"""What the commands on the books share: points of time, pages, bare numbers."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import Money, parse_time
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from ledger.points import Point

AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of", help="As recorded by then: ISO 8601, UTC; a date means the end of that day."
    ),
]
Effective = Annotated[
    str | None,
    typer.Option("--effective", help="By effective time, at the end of this day (UTC)."),
]
AtSequence = Annotated[
    int | None, typer.Option("--at-sequence", help="As recorded up to this sequence number.")
]
SEQUENCE_MAX = 2**63 - 1
AfterSequence = Annotated[
    int,
    typer.Option("--after", min=0, max=SEQUENCE_MAX, help="Only after this sequence number."),
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=1_000, help="Rows at most.")]


def parse_point(as_of: str | None, effective: str | None, at_sequence: int | None) -> Point:
    """Read the options that say when a balance is asked for.

    Raises:
        BadInput: not a time, not a date, or both a time and a sequence number.
    """
    at, day = parse_time(as_of), None if effective is None else parse_day(effective)
    from ledger.points import Point

    return Point(at_sequence, at, day)


def parse_day(text: str) -> date:
    """Read an ISO 8601 date."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"{text!r} is not a date", remedy="Write 2026-01-31") from error


def parse_start(text: str) -> datetime:
    """Read the time at which a span begins: a date means its beginning."""
    at = parse_time(text)
    assert at is not None
    is_date = len(text) == len("2026-01-31")
    return at.replace(hour=0, minute=0, second=0, microsecond=0) if is_date else at


def parse_stop(text: str) -> datetime:
    """Read the time before which a span ends: a date means its end."""
    at = parse_time(text)
    assert at is not None
    last = datetime.max.replace(tzinfo=at.tzinfo)
    # The end of a day is read as its last microsecond; the span stops before its end.
    is_date = len(text) == len("2026-01-31")
    return at + timedelta(microseconds=1) if is_date and at < last else at


def title_at(title: str, point: Point) -> str:
    """Return a title that says when its figures were true."""
    if point.effective_on is not None:
        title += f" at the end of {point.effective_on} by effective date"
    if point.at_time is not None:
        title += f" as of {iso(point.at_time)}"
    if point.at_sequence is not None:
        title += f" at sequence {point.at_sequence}"
    return title


def number(money: Money, units: int, code: str) -> str:
    """Return an amount without its asset, for a table that has a column for that."""
    return money.assets[code].format(units, code=False) if code in money.assets else str(units)


def say_more(cursor: object) -> None:
    """Say how the next page is asked for, where there is one; not on standard output."""
    if cursor is not None:
        typer.echo(f"there is more: --after {cursor}", err=True)
