"""The trace of a thing is its id; rows carry it to whoever goes on; untraced, nothing is different."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import FrameType
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.cli.common import write as write_by_command
from app.local.databases import Database
from app.workers.jobs import JobWorker
from app.workers.relay import RelayWorker
from kernel import tracing
from kernel.clock import ManualClock
from kernel.db import transact
from kernel.errors import BadInput, OutsideUnavailable
from kernel.events import DomainEvent, list_history, record
from kernel.ids import derive_id
from kernel.jobs import Job, enqueue
from kernel.otlp import exporting
from kernel.tracing import TraceContext
from ledger.scenarios import play
from tests.telemetry.collector import collecting
from tests.venues.test_complaints import desk_at
from venues.model import OrderState

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
PAYOUT, OTHER = (derive_id(NOW, "payout", number) for number in (1, 2))
ATTEMPT = derive_id(NOW, "attempt", 1)
EMITTED = "an error of the caller"
OPENING = """
o  move  custody:w  client:a  100 X  -> created
"""


class Spans:
    """What a traced process has made, once its block has ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.flush: Callable[[], object] = lambda: None

    def all(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> ReadableSpan:
        [span] = [span for span in self.all() if span.name == name]
        return span

    def tree(self) -> dict[str, tuple[int, str | None]]:
        """Return the trace and the parent's name of every span, by its name."""
        names = {span.context.span_id: span.name for span in self.all() if span.context}
        return {
            span.name: (
                span.context.trace_id,
                None if span.parent is None else names.get(span.parent.span_id, "elsewhere"),
            )
            for span in self.all()
            if span.context
        }


@pytest.fixture
def spans() -> Iterator[Spans]:
    """Whatever the test does is traced; `seen` shows it."""
    found = Spans()
    with exporting("http://127.0.0.1:9", service="test", exporter=found.exporter) as flush:
        found.flush = flush
        yield found


def seen(spans: Spans) -> Spans:
    """Wait for what has ended to arrive: batches are sent by another thread."""
    spans.flush()
    return spans


def event(entity: UUID, version: int, name: str, **payload: str) -> DomainEvent:
    return DomainEvent(
        entity_type="payout" if entity in {PAYOUT, OTHER} else "payout_attempt",
        entity_id=entity,
        version=version,
        name=name,
        at=NOW,
        actor="ada",
        from_state=None if version == 1 else "requested",
        to_state="approved",
        payload=payload,
    )


async def write(engine: AsyncEngine, *events: DomainEvent) -> None:
    await transact(engine, lambda conn: record(conn, events))


# Places in traces.


@given(st.uuids())
def test_a_place_is_what_its_header_says(entity: UUID) -> None:
    place = TraceContext.of(entity)
    if entity.int:
        assert TraceContext.parse(place.header) == place
        assert place.header.split("-")[1] == entity.hex


@pytest.mark.parametrize(
    "header",
    [None, "", "nonsense", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "01-" + "1" * 32, "00-x"],
)
def test_what_is_no_place_is_none(header: str | None) -> None:
    assert TraceContext.parse(header) is None


# Events and what is made for a thing.


async def test_untraced_rows_have_no_place_and_no_column_is_named(engine: AsyncEngine) -> None:
    assert not tracing.is_on()
    with tracing.working("payout sign", [PAYOUT]), tracing.calling("signer"):
        await write(engine, event(PAYOUT, 1, "PayoutRequested"))
        assert tracing.current() is None

    [told] = await transact(engine, lambda conn: list_history(conn, "payout", PAYOUT))
    assert told.traceparent is None


async def test_untraced_posting_enters_no_line_of_tracing_and_an_event_only_asks_once(
    engine: AsyncEngine,
) -> None:
    entered: list[str] = []

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_globals.get("__name__") == tracing.__name__:
            entered.append(frame.f_code.co_name)

    sys.setprofile(watch)
    try:
        assert await play(engine, OPENING) == OPENING
        posted = list(entered)
        await write(engine, event(PAYOUT, 1, "PayoutRequested"))
    finally:
        sys.setprofile(None)

    assert posted == []
    assert entered == ["is_on"]


async def test_a_thing_begins_the_trace_of_its_id_and_what_is_made_for_it_joins(
    engine: AsyncEngine, spans: Spans
) -> None:
    await write(engine, event(PAYOUT, 1, "PayoutRequested"))
    with tracing.working("payout allocate", [PAYOUT]):
        await write(engine, event(ATTEMPT, 1, "AttemptBuilt", payout_id=str(PAYOUT)))
        with tracing.calling("node eth_feeHistory"):
            pass
    # Elsewhere nobody has the payout in hand: the row of the first event says where the attempt belongs.
    await write(engine, event(ATTEMPT, 2, "AttemptSuperseded", payout_id=str(PAYOUT)))

    trace = PAYOUT.int
    assert seen(spans).tree() == {
        "PayoutRequested": (trace, None),
        "payout allocate": (trace, "PayoutRequested"),
        "AttemptBuilt": (trace, "payout allocate"),
        "node eth_feeHistory": (trace, "payout allocate"),
        "AttemptSuperseded": (trace, "AttemptBuilt"),
    }
    assert spans.named("PayoutRequested").attributes == {
        "causeway.entity": "payout",
        "causeway.entity_id": str(PAYOUT),
        "causeway.version": 1,
        "causeway.from": "",
        "causeway.to": "approved",
        "causeway.actor": "ada",
    }


async def test_things_worked_on_together_keep_their_own_traces(
    engine: AsyncEngine, spans: Spans
) -> None:
    with tracing.working("payout sign", [PAYOUT, OTHER]) as work:
        await write(engine, event(PAYOUT, 2, "PayoutSigned"), event(OTHER, 2, "PayoutSigned"))
        work.say(OTHER, "causeway.waiting_for", "the signer")
        with tracing.calling("signer AskSignMany"):
            pass

    found = seen(spans).all()
    signed = {
        span.context.trace_id for span in found if span.name == "PayoutSigned" and span.context
    }
    assert signed == {PAYOUT.int, OTHER.int}
    whole = spans.named("payout sign of 2").context
    call = spans.named("signer AskSignMany")
    assert whole is not None
    assert call.parent is not None
    assert (call.parent.span_id, call.context and call.context.trace_id) == (
        whole.span_id,
        whole.trace_id,
    )
    each = [span for span in found if span.name == "payout sign"]
    assert {span.context.trace_id for span in each if span.context} == {PAYOUT.int, OTHER.int}
    assert {link.context.trace_id for span in each for link in span.links} == {whole.trace_id}
    assert [dict(span.attributes or {}) for span in each] == [
        {},
        {"causeway.waiting_for": "the signer"},
    ]


def test_work_that_fails_says_so_and_errors_are_the_callers(spans: Spans) -> None:
    with (
        pytest.raises(OutsideUnavailable, match=EMITTED),
        tracing.working("payout send", [PAYOUT]),
        tracing.calling("node eth_sendRawTransaction"),
    ):
        raise OutsideUnavailable(EMITTED)

    for span in seen(spans).all():
        assert span.status.description == f"OutsideUnavailable: {EMITTED}"
    assert tracing.current() is None


def test_what_nobody_has_in_hand_is_not_traced(spans: Spans) -> None:
    with tracing.calling("node eth_blockNumber"):
        assert tracing.current() is None

    assert seen(spans).all() == []


# Commands.


@pytest.fixture
def asked(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Request a payout by command, in a thread: a command has an event loop of its own."""
    for name, value in database.environment.items():
        monkeypatch.setenv(name, value)

    def request(url: str) -> None:
        monkeypatch.setenv("CAUSEWAY_OTLP_URL", url)
        write_by_command(lambda conn: record(conn, [event(PAYOUT, 1, "PayoutRequested")]))

    return request


async def test_a_command_sends_all_of_its_trace_before_it_ends(
    asked: Callable[[str], None],
) -> None:
    async with collecting() as collector:
        await asyncio.to_thread(asked, collector.url)
        assert collector.names(PAYOUT) == {"PayoutRequested"}
    assert not tracing.is_on()


async def test_a_collector_that_does_not_answer_costs_spans_and_no_command(
    asked: Callable[[str], None], engine: AsyncEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    await asyncio.to_thread(asked, "http://desk:canary-of-a-collector@127.0.0.1:9")

    [told] = await transact(engine, lambda conn: list_history(conn, "payout", PAYOUT))
    assert told.traceparent == TraceContext.of(PAYOUT).header
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


async def test_what_sends_traces_and_is_not_installed_is_named(
    asked: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kernel.otlp", None)

    with pytest.raises(BadInput, match="causeway\\[telemetry\\]"):
        await asyncio.to_thread(asked, "http://127.0.0.1:9")


# Jobs, the outbox and orders.


async def test_a_job_goes_on_with_the_trace_that_asked_for_it(
    engine: AsyncEngine, spans: Spans
) -> None:
    places = []

    async def close(job: Job) -> None:
        places.append(tracing.current())

    with tracing.working("payout confirm", [PAYOUT]):
        await transact(engine, lambda conn: enqueue(conn, "close", NOW))
    later = datetime(2026, 1, 6, tzinfo=UTC)
    await transact(engine, lambda conn: enqueue(conn, "sweep", later))
    # Another process may do it, days later: all that it has is the row.
    turn = await JobWorker(
        engine=engine, clock=ManualClock(later), handlers={"close": close, "sweep": close}
    ).turn()

    assert [job.name for job in turn.done] == ["close", "sweep"]
    asked, alone = turn.done
    assert asked.traceparent is not None
    assert alone.traceparent is None
    assert [place and place.trace_id for place in places] == [PAYOUT.int, alone.id.int]
    assert seen(spans).tree()["job close"] == (PAYOUT.int, "payout confirm")
    assert spans.tree()["job sweep"] == (alone.id.int, None)


async def test_consumers_of_events_can_go_on_with_the_trace(
    engine: AsyncEngine, spans: Spans
) -> None:
    await write(engine, event(PAYOUT, 1, "PayoutRequested"))
    lines: list[str] = []

    await RelayWorker(engine=engine, clock=ManualClock(NOW), write=lines.append).turn()

    [line] = lines
    assert json.loads(line)["traceparent"] == TraceContext.of(PAYOUT).header


async def test_an_order_is_one_trace_with_what_it_takes_to_place_it(
    engine: AsyncEngine, spans: Spans
) -> None:
    order = await desk_at(engine).send()

    assert order.state is OrderState.FILLED
    places = seen(spans).tree()
    assert {trace for trace, _ in places.values()} == {order.id.int}
    assert "venue-order place" in places
    async with engine.connect() as conn:
        rows = await conn.execute(
            text(
                "SELECT traceparent FROM kernel.history UNION ALL SELECT traceparent FROM kernel.outbox"
            )
        )
        stored = {row.traceparent for row in rows}
    assert {value and value.split("-")[1] for value in stored} == {order.id.hex}
