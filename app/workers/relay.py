"""The relay worker: hands domain events on as lines of JSON, at least once, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from sqlalchemy.ext.asyncio import AsyncEngine

from app.workers.house_parts import House, holder, nonzero
from app.workers.loops import Loop
from kernel.clock import Clock
from kernel.events import Delivery, relay

BATCHES_MAX: Final = 20
"""Batches of events handed on in one turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayWorker:
    """Everything that is needed.

    Attributes:
        write: takes one line; when it returns, the line is handed on.
    """

    engine: AsyncEngine
    clock: Clock
    write: Callable[[str], None]
    holder: str = "relay"

    async def turn(self) -> int:
        """Hand on what is undelivered and return how many events that were."""
        total = 0
        for _ in range(BATCHES_MAX):
            count = await relay(
                self.engine, self._deliver, holder=self.holder, now=self.clock.now()
            )
            total += count
            if not count:
                break
        return total

    async def _deliver(self, batch: Sequence[Delivery]) -> None:
        for item in batch:
            self.write(line_of(item))


def relay_loop(house: House) -> Loop:
    """Return the loop that hands the events of a house on."""
    # A name of its own: two relays of one name would both believe that it is their turn.
    relay = RelayWorker(
        engine=house.engine, clock=house.clock, write=house.write, holder=holder(house, "relay")
    )

    async def hand_on() -> Mapping[str, object]:
        return nonzero({"events": await relay.turn()})

    return Loop(name="relay", turn=hand_on, pause=house.file.pause, usual=frozenset({"events"}))


def line_of(item: Delivery) -> str:
    """Return an event as one line of JSON; a consumer knows a duplicate by ``id``."""
    document = {
        "event": item.type,
        "id": str(item.id),
        "entity": item.aggregate_type,
        "entity_id": item.aggregate_id,
        "position": item.position,
        "payload": dict(item.payload),
        **({} if item.traceparent is None else {"traceparent": item.traceparent}),
    }
    return orjson.dumps(document).decode()
