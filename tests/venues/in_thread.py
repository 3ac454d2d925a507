"""The simulator in a thread of the test's own process: a venue that costs no start of a process.

It is spoken to on sockets as the process is, by the same words. What it cannot be is killed: a test
of the venue's own death takes `venues.simulator.testing.SimulatorProcess`.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread

from venues.simulator.__main__ import parser, ready_line, settings_from
from venues.simulator.errors import SimulatorError
from venues.simulator.server import VenueSimulator
from venues.simulator.settings import VenueSimulatorSettings
from venues.simulator.testing import READY_S_MAX, STOP_S_MAX, SimulatorProcess


class SimulatorThread(SimulatorProcess):
    """A `SimulatorProcess` that is a thread. Its journal is not forced to the disk."""

    def __init__(self, data_dir: Path, *arguments: str, port: int = 0) -> None:
        super().__init__(data_dir, *arguments, port=port)
        self._running: tuple[Thread, asyncio.AbstractEventLoop, VenueSimulator] | None = None

    def start(self) -> None:
        """Start the thread and wait until it is ready; the second time on the same port."""
        line = ["--data-dir", str(self._data_dir), "--port", str(self._port), *self._arguments]
        wanted = replace(settings_from(parser().parse_args(line)), fsync=False)
        found: Future[tuple[asyncio.AbstractEventLoop, VenueSimulator]] = Future()
        thread = Thread(target=lambda: asyncio.run(_serve(wanted, found)), name="venue")
        thread.start()
        loop, simulator = found.result(READY_S_MAX)
        self._running = thread, loop, simulator
        self.ready = ready_line(simulator)
        self._port = int(self.url.rpartition(":")[2])

    def _end(self, number: int) -> int | None:
        """Close everything, whatever the signal."""
        running, self._running = self._running, None
        if running is None:
            return None
        thread, loop, simulator = running
        with suppress(RuntimeError):  # it has ended by itself
            loop.call_soon_threadsafe(simulator.stopping.set)
        thread.join(STOP_S_MAX)
        assert not thread.is_alive()
        return 0


async def _serve(
    wanted: VenueSimulatorSettings,
    found: Future[tuple[asyncio.AbstractEventLoop, VenueSimulator]],
) -> None:
    simulator = VenueSimulator(wanted)
    try:
        await simulator.start()
    except SimulatorError as error:
        found.set_exception(error)
        return
    found.set_result((asyncio.get_running_loop(), simulator))
    await simulator.stopping.wait()
    await simulator.stop()
