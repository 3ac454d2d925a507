"""What a wire dialect is to the server: routes, streams and the look of canned faults.

A dialect reads the venue's state and executes commands; it invents no trade, candle or balance of
its own. One dialect speaks on one port; several simulators may run over several ports.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from venues.simulator.commands import VenueEvent
from venues.simulator.connections import Connection
from venues.simulator.core import VenueCore
from venues.simulator.faults import FaultKind, FaultSchedule
from venues.simulator.settings import VenueSimulatorSettings


@dataclass(frozen=True, slots=True)
class Venue:
    """What a dialect is given: the running core, how it was set up, and the faults for frames."""

    core: VenueCore
    settings: VenueSimulatorSettings
    faults: FaultSchedule


@dataclass(frozen=True, slots=True)
class Canned:
    """An answer that does not depend on the request. A body that is no JSON is served as HTML.

    `after_accept`: the request is processed, journal included, before it is answered like this.
    """

    after_accept: bool
    status: int
    body: str


class Dialect(Protocol):
    """A language in which the venue is spoken to."""

    @property
    def name(self) -> str:
        """The name in settings and on the command line."""

    def routes(self, app: web.Application) -> None:
        """Add the dialect's paths; everything under /control belongs to the server."""

    def publish(self, events: Sequence[VenueEvent], now_ms: int) -> None:
        """Tell the streams what just happened."""

    def flush(self, now_ms: int) -> None:
        """Send what streams send at intervals; called every `depth_interval_ms`."""

    def connections(self) -> list[Connection]:
        """All open connections."""

    def subscriptions(self) -> int:
        """How many private streams were ever subscribed to; it only rises."""

    def canned(self, kind: FaultKind) -> Canned | None:
        """How a fault looks in this dialect, or None when it has no look of its own."""
