"""Service levels on a real database: every query runs under the role of production, and tells the truth."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.service_levels import LEVELS, READABLE, Level, ServiceLevels, Watch, metric_names
from app.workers.relay import RelayWorker
from kernel.clock import ManualClock
from kernel.db import create_engine, transact
from kernel.ids import stable_id
from kernel.jobs import JOB_ATTEMPTS_MAX, claim_due, complete, enqueue, retry_later
from tests.custody.payout_world import make_world

HOUR = timedelta(hours=1)
BROKEN = Level(name="broken", labels=(), gauges=(("causeway_broken", "x"),), sql="SELECT 1 FROM x")
SLOW = Level(name="slow", labels=(), gauges=(("causeway_slow", "x"),), sql="SELECT pg_sleep(60)")


async def read(levels: ServiceLevels) -> Mapping[tuple[str, ...], float]:
    """Every figure, by its name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in await levels.read()
        for sample in family.samples
    }


async def test_every_level_is_read_by_the_role_of_production_in_a_house_that_is_well(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    async with make_world(engine, tmp_path) as world:
        levels = ServiceLevels(engine=engine, clock=world.clock)

        told = await read(levels)

        assert {key[1] for key in told if key[0] == READABLE and told[key] != 1} == set()
        assert sum(key[0] == READABLE for key in told) == len(LEVELS)
        assert {key[0] for key in told} <= metric_names()


async def test_a_payout_is_told_at_each_step_from_its_approval_to_the_chain(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    async with make_world(engine, tmp_path) as world:
        levels = ServiceLevels(engine=engine, clock=world.clock)
        await world.approved()
        world.clock.advance(timedelta(seconds=58))
        waits = await read(levels)
        await world.advance()
        sent = await read(levels)

        assert waits["causeway_payouts_live", "evm", "approved"] == 1
        assert waits["causeway_payout_unsent_seconds", "evm"] == 58
        assert ("causeway_payout_unsent_seconds", "evm") not in sent
        assert sent["causeway_payouts_live", "evm", "signed"] == 1
        # Two seconds more pass before the worker takes it up.
        assert sent["causeway_payout_send_seconds", "evm", "0.99"] == 60


async def test_an_outcome_that_nobody_knows_ages_until_it_is_known(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    async with make_world(engine, tmp_path) as world:
        levels = ServiceLevels(engine=engine, clock=world.clock)
        world.gateway.refuse_broadcasts = 1
        await world.approved()
        await world.advance()
        world.clock.advance(timedelta(minutes=2))
        unknown = await read(levels)
        await world.advance()
        known = await read(levels)

        assert unknown["causeway_outcomes_unknown", "payout"] == 1
        assert unknown["causeway_outcome_unknown_seconds", "payout"] == 120
        assert known["causeway_outcomes_unknown", "payout"] == 0
        assert known["causeway_outcome_unknown_seconds", "payout"] == 0


async def test_events_lag_until_they_are_handed_on(engine: AsyncEngine, tmp_path: Path) -> None:
    async with make_world(engine, tmp_path) as world:
        levels = ServiceLevels(engine=engine, clock=world.clock)
        await world.request()
        world.clock.advance(timedelta(seconds=90))
        before = await read(levels)
        await RelayWorker(engine=engine, clock=world.clock, write=lambda _: None).turn()
        after = await read(levels)

        assert before["causeway_outbox_undelivered",] > 0
        assert before["causeway_outbox_lag_seconds",] == 90
        assert after["causeway_outbox_undelivered",] == after["causeway_outbox_lag_seconds",] == 0


async def test_what_is_missing_outside_is_told_in_whole_units_of_its_asset(
    engine: AsyncEngine, owner_engine: AsyncEngine, tmp_path: Path
) -> None:
    async with make_world(engine, tmp_path) as world:
        async with owner_engine.begin() as conn:
            await conn.execute(text("ALTER TABLE reporting.recon_break DISABLE TRIGGER USER"))
            run, now = stable_id("run", "1"), world.clock.now()
            await conn.execute(
                text(
                    "INSERT INTO reporting.recon_run (id, book, at, sequence, result, lines, found,"
                    " sha256, by) VALUES (:run, 1, :now, 1, 'different', '[]', '[]', '', 'system')"
                ),
                {"run": run, "now": now},
            )
            await conn.execute(
                text(
                    "INSERT INTO reporting.recon_break (id, book, key, kind, place_kind, place, asset,"
                    " amount, text, state, opened_at, opened_run, seen_at) VALUES (:id, 1, 'k',"
                    " 'balance', 'chain', 'hot', 'ETH', -500000000000000000, 'less', 'open', :now,"
                    " :run, :now)"
                ),
                {"id": stable_id("break", "1"), "run": run, "now": now},
            )

        told = await read(ServiceLevels(engine=engine, clock=world.clock))

        assert told["causeway_reserve_gap", "1", "ETH"] == -0.5
        assert told["causeway_reserve_gap", "1", "USDT"] == 0
        assert told["causeway_recon_breaks", "1", "chain"] == 1


async def test_a_proof_that_failed_for_good_is_forgotten_once_a_later_one_succeeds(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    async with make_world(engine, tmp_path) as world:
        levels = ServiceLevels(engine=engine, clock=world.clock)

        async def prove(*, succeeds: bool) -> None:
            now = world.clock.now()

            async def attempt(conn: AsyncConnection) -> None:
                await enqueue(conn, "books.proof/1", now)
                (item,) = await claim_due(
                    conn, ["books.proof/1"], holder="t", now=world.clock.now(), lease_for=HOUR
                )
                if succeeds:
                    await complete(conn, item, now=world.clock.now())
                else:
                    await retry_later(conn, item, now=world.clock.now(), error="it does not hold")

            for _ in range(1 if succeeds else JOB_ATTEMPTS_MAX):
                await transact(engine, attempt)
                world.clock.advance(HOUR)

        told = []
        for succeeds in (False, True, False):
            await prove(succeeds=succeeds)
            told.append((await read(levels))["causeway_books_proof_failures", "1"])

        assert told == [JOB_ATTEMPTS_MAX, 0, JOB_ATTEMPTS_MAX]


async def test_a_level_that_cannot_be_read_or_takes_too_long_hides_no_other(
    engine: AsyncEngine,
) -> None:
    outbox = next(level for level in LEVELS if level.name == "outbox")
    levels = ServiceLevels(engine=engine, clock=ManualClock(), levels=[BROKEN, SLOW, outbox])

    told = await read(levels)

    assert (told[READABLE, "broken"], told[READABLE, "slow"], told[READABLE, "outbox"]) == (0, 0, 1)
    assert told["causeway_outbox_undelivered",] == 0
    assert ("causeway_broken",) not in told


async def test_a_server_that_says_nothing_keeps_no_scrape_waiting() -> None:
    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent.append(writer)

    silent: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    away = create_engine(f"postgresql+asyncpg://nobody@{host}:{port}/none")
    levels = ServiceLevels(engine=away, clock=ManualClock(), within_s=0.5)

    # A connection alone is waited for ten seconds, and there are thirty levels.
    async with asyncio.timeout(60):
        told = await read(levels)

    assert told == {(READABLE, level.name): 0 for level in LEVELS}
    for writer in silent:
        writer.close()
    server.close()
    await away.dispose()


def test_since_when_something_is_as_it_is_is_remembered_from_question_to_question() -> None:
    watch, clock = Watch(), ManualClock()

    ages = [watch.age_s(("xmin",), 7, clock.now())]
    clock.advance(timedelta(seconds=30))
    ages.append(watch.age_s(("xmin",), 7, clock.now()))
    ages.append(watch.age_s(("xmin",), 8, clock.now()))

    assert ages == [0, 30, 0]
