"""Dying at a chosen await: a coroutine is driven by hand and stopped where it waits the k-th time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


class _Steps:
    """Counts the waits of a coroutine and ends it at the one it is told to die at.

    What it waits for is cancelled there, as when a process vanishes: a request is on its way or not,
    a COMMIT is carried out or not. Nothing that the coroutine would do afterwards is done; only the
    driver of the database takes its connection back.
    """

    def __init__(self, life: Coroutine[Any, Any, object], dies_at: int | None) -> None:
        self._life = life
        self._dies_at = dies_at
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, object]:
        return (yield from self._drive())

    def _drive(self) -> Generator[Any, Any, object]:
        sent: Any = None
        error: BaseException | None = None
        while True:
            try:
                waited = self._life.send(sent) if error is None else self._life.throw(error)
            except StopIteration as end:
                return end.value
            self.waits += 1
            sent = error = None
            if self.waits == self._dies_at:
                if asyncio.isfuture(waited):
                    waited.cancel()
                else:
                    error = asyncio.CancelledError()
                    continue
            try:
                sent = yield waited
            except BaseException as raised:  # noqa: BLE001  it is handed to whom it belongs
                error = raised


async def live(life: Coroutine[Any, Any, object], dies_at: int | None = None) -> tuple[bool, int]:
    """Run *life*, and let it die at its wait number *dies_at*; return whether it died, and its waits."""
    steps = _Steps(life, dies_at)

    async def run() -> None:
        await steps

    task = asyncio.get_running_loop().create_task(run())
    await asyncio.wait([task])
    if task.cancelled():
        return True, steps.waits
    task.result()
    return dies_at is not None and steps.waits >= dies_at, steps.waits
