"""Work that repeats on the event loop without a task of its own."""

import asyncio
from collections.abc import Callable


class Repeating:
    """Calls an action every `interval_s` until it is stopped or the action raises.

    An exception is handed to `failed` and to the loop's exception handler; the timer then stays off,
    so that a broken simulator stands still visibly instead of going on wrongly.
    """

    def __init__(
        self, interval_s: float, action: Callable[[], None], failed: Callable[[Exception], None]
    ) -> None:
        self._interval_s = interval_s
        self._action = action
        self._failed = failed
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Call the action for the first time after one interval."""
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(self._interval_s, self._fire)

    def stop(self) -> None:
        """Do not call the action again."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        try:
            self._action()
        except Exception as error:
            self._failed(error)
            raise
        self.start()
