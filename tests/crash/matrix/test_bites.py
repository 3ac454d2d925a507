"""A fault that is planted is found: a relay that marks events before it hands them on loses them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

import app.workers.relay
from app.faults.edges import Edge, Kind, Moment, Point
from kernel.events import Delivery, relay
from tests.crash.matrix.journeys.books import JOURNEYS
from tests.crash.matrix.telling import Databases, tell

DELIVERED: Final = Edge("kernel.outbox", "written", "delivered")
(EVENTS,) = (journey for journey in JOURNEYS if journey.family == "relay")


async def careless(
    engine: AsyncEngine,
    deliver: Callable[[Sequence[Delivery]], Awaitable[None]],
    *,
    holder: str,
    now: datetime,
) -> int:
    """Mark first and deliver then."""
    taken: list[Delivery] = []

    async def take(batch: Sequence[Delivery]) -> None:
        taken.extend(batch)

    count = await relay(engine, take, holder=holder, now=now)
    await deliver(taken)
    return count


@pytest.mark.parametrize("kind", [Kind.WORKER_KILLED, Kind.CUT])
async def test_events_that_are_marked_before_they_are_handed_on_are_missed_at_a_crash(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    point = Point(DELIVERED, Moment.AFTER_COMMIT, kind)
    assert (await tell(EVENTS, databases, point)).struck
    monkeypatch.setattr(app.workers.relay, "relay", careless)

    with pytest.raises(AssertionError, match="events are missing"):
        await tell(EVENTS, databases, point)
