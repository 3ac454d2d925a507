"""How a worker of the crash matrices ends: at the n-th point of its turn, in one of three ways."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.errors import CommitUnknown


class Died(BaseException):
    """The process is gone: nothing catches this."""


@dataclass
class Fate:
    """What happens to the worker at the n-th point after it is armed."""

    mode: str = "clean"
    left: int | None = None
    passed: int = 0
    overtake: Callable[[], Awaitable[object]] | None = None
    armed: bool = False

    async def point(self, *, committed: bool = False) -> None:
        if not self.armed:
            return
        self.passed += 1
        if self.left is None:
            return
        self.left -= 1
        if self.left:
            return
        self.left = None
        if self.mode == "dies":
            raise Died
        if self.mode == "cut" and committed:
            raise CommitUnknown("the connection was lost during COMMIT")
        if self.mode == "overtaken":
            assert self.overtake is not None
            self.armed = False
            await self.overtake()
            self.armed = True

    async def transact(
        self, engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[Any]]
    ) -> Any:
        async def watched(conn: AsyncConnection) -> Any:
            result = await work(conn)
            await self.point()
            return result

        result = await transact(engine, watched)
        await self.point(committed=True)
        return result
