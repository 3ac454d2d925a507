"""Every crash point there is, derived from the state tables.

A *point* is an edge of a machine, a moment around the commit that takes it, and what happens then. The
edges are those of every `StateTable` of the house, a row's beginning included, and of the tables of
`MILESTONES`, which have no states but whose writes are steps of their own. Nobody lists a point: a new
edge brings its points along.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from kernel.errors import BadInput
from kernel.states import StateTable

HOUSE: Final = (
    *("app", "banks", "chain", "custody", "kernel", "ledger", "marketdata", "matching"),
    *("registry", "reporting", "risk", "settlement", "trading", "venues"),
)
"""The packages that a machine can be in."""
NEW: Final = "new"
"""Where a row comes from that did not exist."""
_ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """One step of a machine: ``custody.payout signed>mined``.

    Attributes:
        machine: ``schema.table``.
        before, after: states; `NEW` before a row's first.
    """

    machine: str
    before: str
    after: str

    def __str__(self) -> str:
        """Return the edge as people type it."""
        return f"{self.machine} {self.before}>{self.after}"

    @classmethod
    def parse(cls, text: str) -> Edge:
        """Return the edge that *text* names.

        Raises:
            BadInput: it does not read like one.
        """
        machine, _, step = text.strip().partition(" ")
        before, arrow, after = step.partition(">")
        if not (machine and before and arrow and after):
            raise BadInput(
                f"this names no edge: {text!r}", remedy="Write <schema.table> <state>><state>"
            )
        return cls(machine, before, after)


@dataclass(frozen=True, slots=True)
class Milestone:
    """A table without states whose writes are steps all the same.

    Attributes:
        table: ``schema.table``.
        inserted: what a row is once it is inserted; None: not a step.
        updated: (before, after) of an update that fills *column*; None: there is none.
        column: is null before that update and not after it.
    """

    table: str
    inserted: str | None = None
    updated: tuple[str, str] | None = None
    column: str | None = None

    def edges(self) -> Iterator[Edge]:
        """Return the steps."""
        if self.inserted is not None:
            yield Edge(self.table, NEW, self.inserted)
        if self.updated is not None:
            yield Edge(self.table, *self.updated)


MILESTONES: Final = (
    Milestone("ledger.block", inserted="posted"),
    Milestone("trading.fill_posting", inserted="posted"),
    Milestone(
        "kernel.outbox",
        inserted="written",
        updated=("written", "delivered"),
        column="delivered_at",
    ),
)


class Moment(StrEnum):
    """When, seen from the commit that takes the edge."""

    BEFORE_COMMIT = "before-commit"
    """The client has asked for COMMIT and the server has not been told."""
    AFTER_ACT = "after-act"
    """The same for an edge that records an act on the outside world (`ACTS`): the act is done, its
    record is not."""
    AFTER_COMMIT = "after-commit"
    """The server has committed and the client has not been told."""


class Kind(StrEnum):
    """What happens at the moment."""

    WORKER_KILLED = "worker-killed"
    """SIGKILL for the process; the server sees its connections close."""
    SERVER_KILLED = "server-killed"
    """SIGKILL for the server's process: PostgreSQL recovers, the worker lives on."""
    CUT = "cut"
    """The connection is lost: before the commit the request is, after it the answer; the worker cannot
    tell which."""
    SECOND_WORKER = "second-worker"
    """The worker stands still until its lease has ended and another has done its work; then it goes
    on."""
    DELIVERED_TWICE = "delivered-twice"
    """What led to the edge is delivered once more when it is already taken."""


ACTS: Final[Mapping[Edge, str]] = {
    edge: act
    for act, edges in {
        "the signed bytes are handed to a node": (
            *(
                Edge(f"custody.{table}", "signed", after)
                for table in ("payout_attempt", "spend_attempt")
                for after in ("broadcast", "ambiguous")
            ),
        ),
        "the file is handed to the bank": (
            *(
                Edge("custody.payment_file", "released", after)
                for after in ("submitted", "unknown", "held")
            ),
        ),
        "the order is placed at the venue": (
            *(
                Edge("venues.venue_order", "submitting", after)
                for after in ("acked", "refused", "unknown")
            ),
        ),
        "the withdrawal is asked of the venue": (
            *(
                Edge("custody.venue_withdrawal", "submitting", after)
                for after in ("acked", "refused", "unknown")
            ),
        ),
        "the events are handed to their consumer": (Edge("kernel.outbox", "written", "delivered"),),
    }.items()
    for edge in edges
}
"""What an edge records that was done outside before."""


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """Where and how something dies: ``custody.payout signed>mined after-commit worker-killed``."""

    edge: Edge
    moment: Moment
    kind: Kind

    def __str__(self) -> str:
        """Return the point as people type it."""
        return f"{self.edge} {self.moment} {self.kind}"

    @classmethod
    def parse(cls, text: str) -> Point:
        """Return the point that *text* names.

        Raises:
            BadInput: it does not read like one.
        """
        words = text.split()
        if len(words) != _WORDS:
            raise BadInput(
                f"this names no crash point: {text!r}",
                remedy="Write <schema.table> <state>><state> <moment> <kind>",
            )
        try:
            return cls(Edge.parse(" ".join(words[:2])), Moment(words[2]), Kind(words[3]))
        except ValueError as error:
            raise BadInput(
                f"this names no crash point: {text!r}",
                where=str(error),
                remedy=f"Moments: {', '.join(Moment)}; kinds: {', '.join(Kind)}",
            ) from error


_WORDS: Final = 4


def find_machines() -> dict[str, StateTable]:
    """Import each module of the house that makes a `StateTable`; return all by ``schema.table``."""
    found: dict[str, StateTable] = {}
    for package in HOUSE:
        for path in sorted((_ROOT / package).rglob("*.py")):
            if " = StateTable(" in path.read_text(encoding="utf-8"):
                name = ".".join(path.relative_to(_ROOT).with_suffix("").parts)
                values = vars(importlib.import_module(name)).values()
                machines = [value for value in values if isinstance(value, StateTable)]
                found |= {f"{machine.schema}.{machine.table}": machine for machine in machines}
    return dict(sorted(found.items()))


def edges_of(machine: StateTable) -> Iterator[Edge]:
    """Return every edge of a machine, those on which rows begin first."""
    name = f"{machine.schema}.{machine.table}"
    for state in sorted(machine.initial):
        yield Edge(name, NEW, str(state))
    for before, after in sorted(machine.edges):
        yield Edge(name, str(before), str(after))


def edges() -> list[Edge]:
    """Return every edge of every machine and the steps of `MILESTONES`, in order."""
    found = [edge for machine in find_machines().values() for edge in edges_of(machine)]
    found += [edge for milestone in MILESTONES for edge in milestone.edges()]
    return sorted(found)


def points_of(edge: Edge) -> list[Point]:
    """Return every point of an edge."""
    before = Moment.AFTER_ACT if edge in ACTS else Moment.BEFORE_COMMIT
    found = [
        Point(edge, moment, kind)
        for moment in (before, Moment.AFTER_COMMIT)
        for kind in (Kind.WORKER_KILLED, Kind.SERVER_KILLED, Kind.CUT, Kind.SECOND_WORKER)
    ]
    # There is nothing to deliver again before it was taken.
    return [*found, Point(edge, Moment.AFTER_COMMIT, Kind.DELIVERED_TWICE)]


def points() -> list[Point]:
    """Return every crash point of the house, in order."""
    return [point for edge in edges() for point in points_of(edge)]
