"""History and outbox: written with the change, delivered at least once, in order within an entity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import sqlstate, transact
from kernel.errors import BadInput, StaleFence
from kernel.events import (
    REASON_LENGTH_MAX,
    RELAY_LEASE,
    Delivery,
    DomainEvent,
    count_undelivered,
    json_rows,
    list_history,
    next_version,
    record,
    relay,
)
from kernel.ids import derive_id

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
ENTITY = derive_id(NOW, "entity")


def event(version: int, entity: UUID = ENTITY, *, reason: str = "because") -> DomainEvent:
    return DomainEvent(
        entity_type="deposit",
        entity_id=entity,
        version=version,
        name="DepositCredited",
        at=NOW + timedelta(seconds=version),
        actor="ada",
        reason=reason,
        from_state="screened",
        to_state="credited",
        payload={"amount": "5"},
    )


async def write(engine: AsyncEngine, *events: DomainEvent) -> None:
    await transact(engine, lambda conn: record(conn, events))


async def undelivered(engine: AsyncEngine) -> int:
    return await transact(engine, count_undelivered)


class Consumer:
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.got: list[Delivery] = []

    async def __call__(self, batch: Sequence[Delivery]) -> None:
        self.got += batch


async def test_history_tells_what_was_recorded_in_order(engine: AsyncEngine) -> None:
    await write(engine, event(1), event(2))

    assert await transact(engine, lambda c: list_history(c, "deposit", ENTITY)) == [
        event(1),
        event(2),
    ]
    assert await transact(engine, lambda c: next_version(c, "deposit", ENTITY)) == 3
    assert await transact(engine, lambda c: next_version(c, "payout", ENTITY)) == 1


async def test_an_event_that_is_rolled_back_never_happened(engine: AsyncEngine) -> None:
    async def fail(conn: AsyncConnection) -> None:
        await record(conn, [event(1)])
        raise KeyError

    with pytest.raises(KeyError):
        await transact(engine, fail)
    assert await undelivered(engine) == 0


async def test_a_version_happens_once(engine: AsyncEngine) -> None:
    await write(engine, event(1))
    with pytest.raises(DBAPIError) as refused:
        await write(engine, event(1))
    assert sqlstate(refused.value) == "23505"


async def test_a_reason_has_a_limit(engine: AsyncEngine) -> None:
    await write(engine, event(1, reason="x" * REASON_LENGTH_MAX))
    with pytest.raises(BadInput, match="at most"):
        await write(engine, event(2, reason="x" * (REASON_LENGTH_MAX + 1)))


async def test_recording_nothing_is_possible(engine: AsyncEngine) -> None:
    await write(engine)
    assert await undelivered(engine) == 0


async def test_rows_as_json_are_those_that_record_writes(engine: AsyncEngine) -> None:
    events = [
        event(1),
        replace(event(2), from_state=None, payload={"version": 7, "parts": [1, {}]}),
    ]
    await write(engine, *events)

    for table, rows in zip(("history", "outbox"), json_rows(events), strict=True):
        columns = "id, aggregatetype, aggregateid, type, payload, recorded_at, traceparent"
        chosen = columns if table == "outbox" else "*"
        same = (
            f"SELECT {chosen} FROM json_populate_recordset(NULL::kernel.{table}, CAST(:rows AS json))"  # noqa: S608  names of our own tables
            f" INTERSECT SELECT {chosen} FROM kernel.{table}"
        )
        async with engine.connect() as conn:
            assert len((await conn.execute(text(same), {"rows": rows})).all()) == 2


async def test_a_relay_delivers_each_event_once_in_order_and_marks_it(engine: AsyncEngine) -> None:
    await write(engine, event(1), event(2))
    await write(engine, event(3))
    consumer = Consumer()

    assert await relay(engine, consumer, holder="a", now=NOW, limit=2) == 2
    assert await relay(engine, consumer, holder="a", now=NOW) == 1
    assert await relay(engine, consumer, holder="a", now=NOW) == 0

    assert [d.payload["version"] for d in consumer.got] == [1, 2, 3]
    assert [d.id for d in consumer.got] == [event(n).id for n in (1, 2, 3)]
    assert consumer.got[0].payload == {
        "version": 1,
        "from": "screened",
        "to": "credited",
        "actor": "ada",
        "reason": "because",
        "at": "2026-01-05T09:00:01+00:00",
        "amount": "5",
    }
    assert await undelivered(engine) == 0


async def test_what_an_event_calls_like_its_envelope_is_told_beside_it(engine: AsyncEngine) -> None:
    """The envelope says which event it is; a policy's own number, and whither money goes, are not lost."""
    own = {"version": 7, "from": "0xa", "to": "0xb", "payload": "p", "amount": "5"}
    await write(engine, replace(event(1), payload=own))
    consumer = Consumer()

    await relay(engine, consumer, holder="a", now=NOW)

    assert consumer.got[0].payload == {
        "version": 1,
        "from": "screened",
        "to": "credited",
        "actor": "ada",
        "reason": "because",
        "at": "2026-01-05T09:00:01+00:00",
        "amount": "5",
        "payload": {"version": 7, "from": "0xa", "to": "0xb", "payload": "p"},
    }
    (told,) = await transact(engine, lambda c: list_history(c, "deposit", ENTITY))
    assert told.payload == own


async def test_a_transaction_that_commits_late_is_delivered_all_the_same(
    engine: AsyncEngine,
) -> None:
    """Its position is below what was delivered before: a reader of ``id > last`` would lose it."""
    late_entity, consumer = derive_id(NOW, "late"), Consumer()
    async with engine.connect() as late:
        transaction = await late.begin()
        await record(late, [event(1, late_entity)])
        await write(engine, event(1))
        await relay(engine, consumer, holder="a", now=NOW)
        assert [d.aggregate_id for d in consumer.got] == [str(ENTITY)]
        await transaction.commit()

    await relay(engine, consumer, holder="a", now=NOW)
    assert [d.aggregate_id for d in consumer.got] == [str(ENTITY), str(late_entity)]
    assert consumer.got[1].position < consumer.got[0].position


async def test_what_a_consumer_did_not_take_is_delivered_again(engine: AsyncEngine) -> None:
    await write(engine, event(1))

    async def refuse(_: Sequence[Delivery]) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await relay(engine, refuse, holder="a", now=NOW)
    consumer = Consumer()
    await relay(engine, consumer, holder="a", now=NOW)
    assert len(consumer.got) == 1


async def test_one_relay_works_at_a_time(engine: AsyncEngine) -> None:
    await write(engine, event(1))
    second = Consumer()

    async def while_delivering(_: Sequence[Delivery]) -> None:
        assert await relay(engine, second, holder="b", now=NOW) == 0

    assert await relay(engine, while_delivering, holder="a", now=NOW) == 1
    assert second.got == []


async def test_a_relay_that_slept_beyond_its_lease_marks_nothing(engine: AsyncEngine) -> None:
    await write(engine, event(1), event(2))
    second = Consumer()

    async def overslept(_: Sequence[Delivery]) -> None:
        await relay(engine, second, holder="b", now=NOW + RELAY_LEASE, limit=1)

    with pytest.raises(StaleFence):
        await relay(engine, overslept, holder="a", now=NOW)
    assert len(second.got) == 1
    assert await undelivered(engine) == 1


async def test_two_relays_whose_deliveries_overlap_keep_the_order_of_first_arrivals(
    engine: AsyncEngine,
) -> None:
    await write(engine, event(1), event(2), event(3))
    got: list[int] = []

    async def slow(batch: Sequence[Delivery]) -> None:
        got.extend(int(item.payload["version"]) for item in batch[:1])
        await write(engine, event(4))
        assert await relay(engine, quick, holder="b", now=NOW + RELAY_LEASE) == 4
        got.extend(int(item.payload["version"]) for item in batch[1:])

    async def quick(batch: Sequence[Delivery]) -> None:
        got.extend(int(item.payload["version"]) for item in batch)

    with pytest.raises(StaleFence):
        await relay(engine, slow, holder="a", now=NOW)

    assert list(dict.fromkeys(got)) == [1, 2, 3, 4]
    assert await undelivered(engine) == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE kernel.history SET actor = 'x'",
        "DELETE FROM kernel.history",
        "UPDATE kernel.outbox SET payload = '{}'",
        "DELETE FROM kernel.outbox",
    ],
)
async def test_the_runtime_role_cannot_rewrite_the_past(
    engine: AsyncEngine, statement: str
) -> None:
    async with engine.connect() as conn:
        with pytest.raises(DBAPIError) as refused:
            await conn.execute(text(statement))
    assert sqlstate(refused.value) == "42501"


def test_an_events_id_follows_from_entity_and_version() -> None:
    assert event(1).id == event(1).id
    assert len({event(1).id, event(2).id, event(1, derive_id(NOW, "other")).id}) == 3
