"""``explain``: the life of an object as one time line, with what belongs to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from app.cli.common import Money, emit, show
from kernel.clock import iso

if TYPE_CHECKING:
    from kernel.events import DomainEvent
    from ledger.model import JournalTransfer


@dataclass(frozen=True, slots=True)
class Moment:
    """One line: when, what kind of thing, who, and what in words."""

    at: datetime
    kind: str
    who: str
    what: str


@dataclass(frozen=True, slots=True)
class Section:
    """A table that belongs to the object: its attempts, its approvals."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Story:
    """An object, its life, and what belongs to it."""

    title: str
    facts: Mapping[str, str]
    timeline: Sequence[Moment]
    sections: Mapping[str, Section] = field(default_factory=dict)


def events(history: Iterable[DomainEvent]) -> list[Moment]:
    """Return what happened, as moments."""
    return [Moment(event.at, "event", event.actor, _words(event)) for event in history]


def postings(transfers: Iterable[JournalTransfer], money: Money) -> list[Moment]:
    """Return what was posted, as moments."""
    return [
        Moment(
            item.recorded_at,
            "posting",
            "ledger",
            f"{item.kind.name.lower()} {money.text(item.amount, item.asset)} "
            f"Dr {item.debit} / Cr {item.credit} [{item.code}] #{item.sequence}",
        )
        for item in transfers
    ]


def tell(story: Story, *, as_json: bool) -> None:
    """Print the story."""
    timeline = sorted(story.timeline, key=lambda moment: moment.at)
    columns = ("at", "kind", "who", "what")
    rows = [(iso(item.at), item.kind, item.who, item.what) for item in timeline]
    if as_json:
        document: dict[str, object] = dict(story.facts)
        document["timeline"] = [dict(zip(columns, row, strict=True)) for row in rows]
        for name, section in story.sections.items():
            document[name] = [dict(zip(section.columns, row, strict=True)) for row in section.rows]
        emit(document)
        return
    show(story.title, ("", ""), list(story.facts.items()), as_json=False)
    show("Time line", columns, rows, as_json=False)
    for name, section in story.sections.items():
        if section.rows:
            show(name.replace("_", " ").capitalize(), section.columns, section.rows, as_json=False)


def _words(event: DomainEvent) -> str:
    edge = f"{event.from_state} -> {event.to_state}" if event.from_state else event.to_state
    reason = f": {event.reason}" if event.reason else ""
    return f"{event.name} ({edge}){reason}" if edge else f"{event.name}{reason}"
