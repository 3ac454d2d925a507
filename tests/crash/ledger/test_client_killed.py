"""A client that is killed at every step of posting: nothing promised is lost, nothing is doubled.

The steps are those that the wire sees in one posting transaction, so a new statement on the posting
path is a new point to die at without anybody listing it here.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database
from kernel.db import transact
from ledger.posting import decided
from tests.crash.ledger.nursery import (
    Nursery,
    Poster,
    promises_hold,
    retries_double_nothing,
    rounds,
)
from tests.crash.ledger.wire import Step, Wire, is_lock, wired
from tests.crash.ledger.workload import LARGE, batch, prepare_book

BATCHES = 3


async def steps_of_a_posting(nursery: Nursery, wire: Wire, whole: str) -> list[Step]:
    """Return what passes in the second posting transaction of a poster that nobody kills."""
    seen: list[Step] = []

    def watch(step: Step) -> bool:
        seen.append(step)
        return False

    wire.watch = watch
    poster = await nursery.bear(wire.url, whole, batches=2)
    await poster.gone()
    begun = [n for n, step in enumerate(seen) if step.number == 0 and not step.answered]
    committed = [
        n for n, step in enumerate(seen) if step.sql.startswith("COMMIT") and step.answered
    ]
    steps = seen[begun[-1] : committed[-1] + 1]
    assert [step.sql[:6] for step in (steps[0], steps[-1])] == ["BEGIN ", "COMMIT"]
    assert any(is_lock(step) for step in steps)
    return steps


@pytest.mark.parametrize("kind", ["small", LARGE])
async def test_a_client_killed_at_every_step_loses_and_doubles_nothing(
    kind: str,
    engine: AsyncEngine,
    database: Database,
    nursery: Nursery,
    record_property: Callable[[str, object], None],
) -> None:
    async with wired(database.app_url) as wire:
        whole = f"{kind}-whole"
        await prepare_book(engine, 1, [whole])
        steps = await steps_of_a_posting(nursery, wire, whole)
        streams = [f"{kind}-{number}" for number in range(len(steps))]
        await prepare_book(engine, 1, streams)
        written: dict[str, bool] = {}
        for stream, step in zip(streams, steps, strict=True):
            await kill_at(nursery, wire, stream, step)
            assert await promises_hold(engine, nursery, [stream]) == 1
            unanswered = [item.id for item in batch(stream, 1)[:-1]]
            found = await transact(engine, lambda conn: decided(conn, 1, unanswered))  # noqa: B023  run at once
            written[step.name] = bool(found)
            # Whoever comes next is not kept waiting by the dead, and goes on where it stood.
            await (await nursery.bear(database.app_url, stream, batches=BATCHES)).gone()

    record_property("counts", f"clients killed at {len(steps)} points of a {kind} posting")
    assert len(written) == len(steps) >= 10
    # What was written without an answer is what died between the commit and its answer.
    assert [name for name, there in written.items() if there] == [steps[-1].name]
    assert await promises_hold(engine, nursery, streams) == len(streams) * BATCHES
    await retries_double_nothing(engine, [whole, *streams], BATCHES, clean_book=2)


async def kill_at(nursery: Nursery, wire: Wire, stream: str, point: Step) -> None:
    """Kill a poster when that message of its second posting passes, and swallow the message."""
    poster: list[Poster] = []
    started = asyncio.Event()

    def watch(step: Step) -> bool:
        second = len(nursery.acks(stream)) == 1 and poster
        if second and step.is_like(point):
            poster[0].send(signal.SIGKILL)
            started.set()
            return True
        return False

    wire.watch = watch
    cuts = wire.cuts
    poster.append(await nursery.bear(wire.url, stream, batches=BATCHES))
    async with asyncio.timeout(30):
        await started.wait()
    await poster[0].gone()
    assert wire.cuts == cuts + 1


async def test_clients_killed_at_random_lose_and_double_nothing(
    engine: AsyncEngine,
    database: Database,
    nursery: Nursery,
    record_property: Callable[[str, object], None],
) -> None:
    """Two that post for themselves and one with a writer over four streams, all on one book."""
    groups = (("lone-1",), ("lone-2",), tuple(f"together-{n}" for n in range(4)))
    streams = [stream for group in groups for stream in group]
    batches, kills = 12, 0
    await prepare_book(engine, 1, streams)
    for _ in range(rounds(8)):
        posters = [
            await nursery.bear(database.app_url, *group, batches=batches)
            for group in groups
            if min(len(nursery.acks(stream)) for stream in group) < batches
        ]
        for poster in posters:
            await asyncio.sleep(random.uniform(0, 0.12))
            poster.send(signal.SIGKILL)
        for poster in posters:
            await poster.gone()
        kills += len(posters)
        await promises_hold(engine, nursery, streams)
    for group in groups:
        await (await nursery.bear(database.app_url, *group, batches=batches)).gone()

    record_property("counts", f"{kills} clients killed at random, {len(streams)} streams")
    assert kills > 3
    assert await promises_hold(engine, nursery, streams) == batches * len(streams)
    await retries_double_nothing(engine, streams, batches, clean_book=2)
