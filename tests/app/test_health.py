"""The health endpoint: what it answers while a house starts, works, lacks something, and stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app import vitals
from app.health import Endpoint, served
from app.posting_times import BOUNDS_S, PostingTimes
from app.service_levels import ServiceLevels
from app.vitals import Vitals, database_check, migration_check, signer_check
from custody.signer.client import SignerClient
from kernel.clock import ManualClock
from kernel.db import create_engine, transact
from kernel.errors import OutsideUnavailable
from ledger.posting import lock_book, open_book

CLOCK = ManualClock()
Ask = Callable[[str], Awaitable[tuple[int, Any]]]


@pytest.fixture
def process() -> Vitals:
    """A process that has not started."""
    return Vitals(stop=asyncio.Event())


@pytest.fixture
async def endpoint(process: Vitals) -> AsyncIterator[Endpoint]:
    async with served(process, CLOCK, host="127.0.0.1", port=0) as answers:
        yield answers


@pytest.fixture
async def ask(endpoint: Endpoint) -> AsyncIterator[Ask]:
    """Ask the endpoint: status and body."""
    async with aiohttp.ClientSession() as session:

        async def get(path: str) -> tuple[int, Any]:
            async with session.get(endpoint.url + path) as answer:
                body = await (answer.text() if path == "/metrics" else answer.json())
                return answer.status, body

        yield get


async def statuses(ask: Ask) -> dict[str, int]:
    return {path: (await ask(path))[0] for path in ("/livez", "/startupz", "/readyz")}


async def until_ready(ask: Ask) -> None:
    """Wait out the second for which an answer serves further questions."""
    for _ in range(400):
        if (await ask("/readyz"))[0] == 200:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not become ready")


async def test_a_house_is_alive_at_once_started_with_its_workers_and_ready_until_it_is_to_stop(
    process: Vitals, ask: Ask
) -> None:
    assert await statuses(ask) == {"/livez": 200, "/startupz": 503, "/readyz": 503}
    assert (await ask("/readyz"))[1]["troubles"].keys() == {"starting"}

    process.is_started = True
    await until_ready(ask)
    assert await statuses(ask) == {"/livez": 200, "/startupz": 200, "/readyz": 200}

    # Not a second later: from that moment on nobody is to send it anything.
    process.stop.set()
    assert await statuses(ask) == {"/livez": 200, "/startupz": 200, "/readyz": 503}
    assert (await ask("/readyz"))[1] == {
        "ready": False,
        "troubles": {"stopping": "it was told to stop"},
    }


async def test_many_who_ask_cost_the_house_one_look(process: Vitals, ask: Ask) -> None:
    looks = 0

    async def look() -> str:
        nonlocal looks
        looks += 1
        return ""

    process.is_started, process.checks["database"] = True, look

    for _ in range(20):
        assert (await ask("/readyz"))[0] == 200

    assert 1 <= looks < 20


async def test_a_database_that_does_not_answer_makes_nobody_restart_the_house(
    process: Vitals, ask: Ask
) -> None:
    away = create_engine("postgresql+asyncpg://nobody@127.0.0.1:9/none")
    process.is_started, process.checks["database"] = True, database_check(away, CLOCK)

    status, body = await ask("/readyz")

    assert status == 503
    assert "PostgreSQL does not answer" in body["troubles"]["database"]
    assert (await ask("/livez"))[0] == 200
    await away.dispose()


async def test_a_server_that_lets_no_lease_be_taken_is_no_server_to_work_with(
    process: Vitals, ask: Ask, engine: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    process.is_started, process.checks["database"] = True, database_check(engine, CLOCK)
    assert await process.troubles() == {}
    async with owner_engine.begin() as conn:
        await conn.execute(text("REVOKE UPDATE ON kernel.lease FROM causeway_app"))

    status, body = await ask("/readyz")

    assert status == 503
    assert "no lease can be taken" in body["troubles"]["database"]


async def test_asking_whether_leases_can_be_taken_leaves_none_behind(engine: AsyncEngine) -> None:
    assert await database_check(engine, CLOCK)() == ""

    async with engine.connect() as conn:
        assert (await conn.execute(text("SELECT count(*) FROM kernel.lease"))).scalar_one() == 0


@pytest.mark.parametrize(
    ("revision", "trouble"),
    [("0001_pre_kernel", "the schema is at 0001_pre_kernel, this program needs"), ("9999_pre", "")],
)
async def test_an_older_schema_is_not_worked_with_and_a_newer_one_is(
    engine: AsyncEngine, owner_engine: AsyncEngine, revision: str, trouble: str
) -> None:
    assert await migration_check(engine)() == ""
    async with owner_engine.begin() as conn:
        await conn.execute(
            text("UPDATE public.alembic_version SET version_num = :at"), {"at": revision}
        )

    found = await migration_check(engine)()

    assert found.startswith(trouble)
    assert bool(found) == bool(trouble)


async def test_without_its_signer_a_house_is_not_ready(
    process: Vitals, ask: Ask, tmp_path: Path
) -> None:
    process.is_started = True
    process.checks["signer"] = signer_check(SignerClient(tmp_path / "nobody.sock"))

    assert await ask("/readyz") == (
        503,
        {"ready": False, "troubles": {"signer": "the signer does not answer"}},
    )


async def test_what_hangs_is_a_trouble_and_not_a_prober_that_waits(
    process: Vitals, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vitals, "CHECK_TIMEOUT_S", 0.05)

    async def hang() -> str:
        await asyncio.Event().wait()
        return ""

    process.is_started, process.checks["signer"] = True, hang

    assert (await ask("/readyz"))[1]["troubles"] == {"signer": "no answer within 0.05 s"}


async def test_figures_are_told_as_prometheus_reads_them(
    process: Vitals, endpoint: Endpoint, ask: Ask, engine: AsyncEngine
) -> None:
    process.is_started, process.engine = True, engine
    process.checks["database"] = database_check(engine, CLOCK)
    endpoint.levels = ServiceLevels(engine=engine, clock=CLOCK)

    _, body = await ask("/metrics")

    told = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }
    assert told["causeway_ready",] == 1
    assert told["causeway_check", "database"] == 1
    assert told["causeway_outbox_undelivered",] == 0
    assert told["causeway_database_connections_room",] == 5
    assert "causeway_event_loop_lag_seconds" in body
    levels = {
        key: value for key, value in told.items() if key[0] == "causeway_service_level_readable"
    }
    assert set(levels.values()) == {1.0}


async def test_a_port_that_is_taken_is_said(endpoint: Endpoint) -> None:
    port = int(endpoint.url.rpartition(":")[2])

    with pytest.raises(OutsideUnavailable, match="CAUSEWAY_HEALTH_PORT"):
        async with served(Vitals(stop=asyncio.Event()), CLOCK, host="127.0.0.1", port=port):
            pass


async def test_a_posting_is_timed_from_the_head_to_the_answer_to_commit(
    engine: AsyncEngine,
) -> None:
    await transact(engine, lambda conn: open_book(conn, 1, entity="desk", now=CLOCK.now()))
    times = PostingTimes()
    times.watch(engine)

    async def waits(conn: Any) -> None:
        await lock_book(conn, 1)
        await asyncio.sleep(0.3)

    async def fails(conn: Any) -> None:
        await lock_book(conn, 1)
        raise OutsideUnavailable("rolled back")

    await transact(engine, lambda conn: conn.execute(text("SELECT 1")))
    with pytest.raises(OutsideUnavailable):
        await transact(engine, fails)
    assert sum(times.counts) == 0
    await transact(engine, waits)

    assert sum(times.counts) == 1
    assert times.total_s >= 0.3
    assert times.counts.index(1) > BOUNDS_S.index(0.25)
    (family,) = [times.family()]
    buckets = {s.labels["le"]: s.value for s in family.samples if s.name.endswith("_bucket")}
    assert (buckets["0.25"], buckets["+Inf"]) == (0, 1)
