"""Traces: what was done for one payment, one deposit or one order, wherever and whenever it was done.

**The trace of a thing is its id.** A payout's, a deposit's, an order's trace has the 128 bits of its id
as trace id, so every process continues it after any crash, and whoever has the id has found the trace.
What is made for a thing (an attempt of a payout) joins that thing's trace; the row of its first event
says which that is.

Nothing is traced until `install` was called. Until then every function here is a test of one name.
Work that no thing is in hand for (looking whether there is anything to do) is never traced.

Source of the wire format: W3C Trace Context, level 1 (``traceparent``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import UUID

ITEMS_MAX: Final = 1_000
"""Things in hand at once that have a span of their own; the others are with the whole."""

_HEADER: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SPAN_BITS: Final = 2**64 - 1

Attributes = Mapping[str, str | int | bool]


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A place in a trace: 128 bits that name the trace and 64 that name the span."""

    trace_id: int
    span_id: int

    @classmethod
    def of(cls, entity_id: UUID) -> TraceContext:
        """Return the root of the trace of the thing that has this id."""
        return cls(entity_id.int, entity_id.int & _SPAN_BITS or 1)

    @classmethod
    def parse(cls, header: str | None) -> TraceContext | None:
        """Read ``traceparent``; None where there is none, or nothing that could be one."""
        found = None if header is None else _HEADER.fullmatch(header)
        if found is None:
            return None
        trace_id, span_id = int(found[1], 16), int(found[2], 16)
        return cls(trace_id, span_id) if trace_id and span_id else None

    @property
    def header(self) -> str:
        """Return ``traceparent``: ``00-<trace id>-<span id>-01``."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-01"


class Span(Protocol):
    """A piece of work with a beginning and an end."""

    @property
    def context(self) -> TraceContext:
        """Return the place of what is done within it."""
        ...

    def say(self, name: str, value: str | int | bool) -> None:  # noqa: FBT001  one of three kinds of value
        """Add an attribute."""
        ...

    def end(self, error: BaseException | None = None) -> None:
        """End it, with the *error* that it ended with."""
        ...


class Tracer(Protocol):
    """Where spans go."""

    def start(
        self,
        name: str,
        *,
        parent: TraceContext | None = None,
        root: TraceContext | None = None,
        links: Sequence[TraceContext] = (),
        attributes: Attributes | None = None,
    ) -> Span:
        """Begin a span: below *parent*, as the span *root* itself, or in a trace of its own."""
        ...


@dataclass(frozen=True, slots=True)
class _Hand:
    """What this task is at: its span, and the things that it works on by their ids."""

    current: TraceContext
    items: Mapping[str, TraceContext]


@dataclass(slots=True)
class Work:
    """What is done on some things at once: each has a span in its own trace."""

    spans: dict[str, Span] = field(default_factory=dict)

    def say(self, entity_id: UUID, name: str, value: str) -> None:
        """Note something about one of them; nothing where there is no trace of it."""
        span = self.spans.get(str(entity_id))
        if span is not None:
            span.say(name, value)


@dataclass(slots=True)
class _Installed:
    """The tracer of this process. Like the set-up of logging it is one for all of it."""

    tracer: Tracer | None = None


_INSTALLED: Final = _Installed()
_HAND: Final[ContextVar[_Hand | None]] = ContextVar("causeway_in_hand", default=None)
_OFF: Final[AbstractContextManager[None]] = nullcontext()
_NO_WORK: Final[AbstractContextManager[Work]] = nullcontext(Work())


def install(tracer: Tracer | None) -> None:
    """Send the spans of this process to *tracer* from now on; None: to nobody."""
    _INSTALLED.tracer = tracer


def is_on() -> bool:
    """Tell whether spans go anywhere."""
    return _INSTALLED.tracer is not None


def current() -> TraceContext | None:
    """Return the place in a trace at which this task is."""
    hand = _HAND.get()
    return None if hand is None else hand.current


def current_header() -> str | None:
    """Return ``traceparent`` of that place."""
    found = current()
    return None if found is None else found.header


def working(name: str, entity_ids: Iterable[UUID]) -> AbstractContextManager[Work]:
    """Work on these things: each gets a span called *name* in its own trace.

    What is called meanwhile (`calling`) is below the span of the one thing; of several things it is below
    a span of the whole, to which theirs are linked.
    """
    tracer = _INSTALLED.tracer
    return _NO_WORK if tracer is None else _working(tracer, name, entity_ids)


def calling(name: str) -> AbstractContextManager[None]:
    """Call somebody outside this process for what is in hand; nothing in hand, nothing traced."""
    tracer = _INSTALLED.tracer
    hand = _HAND.get()
    return _OFF if tracer is None or hand is None else _calling(tracer, name, hand)


def resuming(name: str, header: str | None, entity_id: UUID) -> AbstractContextManager[None]:
    """Go on with work that a row asked for: where its ``traceparent`` says, or in a trace of its own."""
    tracer = _INSTALLED.tracer
    return _OFF if tracer is None else _resuming(tracer, name, header, entity_id)


def note_event(
    name: str,
    entity_id: UUID,
    *,
    is_first: bool,
    named: Iterable[object],
    known: TraceContext | None,
    attributes: Attributes,
) -> TraceContext | None:
    """Put an event of a thing's life into its trace; return the event's place there.

    The transaction that the event is of may still be rolled back: a trace says what was done, rows say
    what is.

    Args:
        name: of the span.
        entity_id: the thing.
        is_first: it begins with this event.
        named: the values of the event's payload: a thing that names one in hand belongs to it.
        known: what the row of the first event says.
        attributes: of the span.
    """
    tracer = _INSTALLED.tracer
    if tracer is None:
        return None
    hand = _HAND.get()
    owner = None if hand is None else _owner(hand, entity_id, named)
    links = [] if hand is None or owner is not None else [hand.current]
    root = TraceContext.of(entity_id) if is_first and owner is None else None
    mine = None if hand is None else hand.items.get(str(entity_id))
    parent = owner or (None if root else mine or known or TraceContext.of(entity_id))
    span = tracer.start(name, parent=parent, root=root, links=links, attributes=attributes)
    span.end()
    return span.context


def _owner(hand: _Hand, entity_id: UUID, named: Iterable[object]) -> TraceContext | None:
    if str(entity_id) in hand.items:
        return None
    found = (hand.items.get(value) for value in named if isinstance(value, str))
    return next((item for item in found if item is not None), None)


@contextmanager
def _working(tracer: Tracer, name: str, entity_ids: Iterable[UUID]) -> Iterator[Work]:
    ids = list(entity_ids)[:ITEMS_MAX]
    if not ids:
        yield Work()
        return
    whole, links = None, []
    if len(ids) > 1:
        whole = tracer.start(f"{name} of {len(ids)}")
        links = [whole.context]
    work = Work(
        {str(key): tracer.start(name, parent=TraceContext.of(key), links=links) for key in ids}
    )
    items = {key: span.context for key, span in work.spans.items()}
    place = next(iter(items.values())) if whole is None else whole.context
    spans = [*work.spans.values(), *([] if whole is None else [whole])]
    with _ended(spans), _in_hand(_Hand(place, items)):
        yield work


@contextmanager
def _calling(tracer: Tracer, name: str, hand: _Hand) -> Iterator[None]:
    span = tracer.start(name, parent=hand.current)
    with _ended([span]), _in_hand(_Hand(span.context, hand.items)):
        yield


@contextmanager
def _resuming(tracer: Tracer, name: str, header: str | None, entity_id: UUID) -> Iterator[None]:
    parent = TraceContext.parse(header)
    root = TraceContext.of(entity_id) if parent is None else None
    span = tracer.start(name, parent=parent, root=root)
    with _ended([span]), _in_hand(_Hand(span.context, {})):
        yield


@contextmanager
def _in_hand(hand: _Hand) -> Iterator[None]:
    before = _HAND.set(hand)
    try:
        yield
    finally:
        _HAND.reset(before)


@contextmanager
def _ended(spans: Sequence[Span]) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        for span in spans:
            span.end(error)
        raise
    for span in spans:
        span.end()
