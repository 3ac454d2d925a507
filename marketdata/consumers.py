"""The two ways to be told of market data, with opposite policies. Neither slows the socket down.

`LatestSlot` is for whoever acts on the newest value: what it had no time for, it never sees.
`LosslessQueue` is for whoever keeps everything: it is told how much it missed, and when.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import msgspec

from kernel.errors import BadInput

T = TypeVar("T")


class Received(Protocol):
    """Whatever says when we received it."""

    @property
    def received_ns(self) -> int:
        """Return nanoseconds since 1970 by our own clock."""
        ...


R = TypeVar("R", bound=Received)


class Overflow(msgspec.Struct, frozen=True, gc=False):
    """Stands in a queue where `dropped` items would have been, received from since to until."""

    since_ns: int
    until_ns: int
    dropped: int

    @property
    def received_ns(self) -> int:
        """Return when the last of them was received."""
        return self.until_ns


class LatestSlot(Generic[T]):
    """Room for one value; a new one takes the place of the old one.

    `version` counts the changes, so that a reader can wait for one that it has not seen.
    """

    def __init__(self) -> None:
        self.version = 0
        self._value: T | None = None
        self._changed: asyncio.Event | None = None

    def put(self, value: T | None) -> None:
        """Show *value* from now on; None: there is nothing that may be used."""
        self._value = value
        self.version += 1
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def get(self) -> T | None:
        """Return the newest value; None before the first and while nothing may be used."""
        return self._value

    async def wait(self, seen: int = 0) -> T:
        """Return the newest value as soon as there is one with a version above *seen*."""
        while self.version <= seen or self._value is None:
            if self._changed is None:
                self._changed = asyncio.Event()
            await self._changed.wait()
        return self._value


class LosslessQueue(Generic[R]):
    """A bounded queue between a socket that may not wait and one consumer that wants everything.

    When it is full, items are dropped until half of it is free again, so that one slow moment makes
    one gap and not many. The gap is delivered in its place, as one `Overflow`.
    """

    def __init__(
        self, maxsize: int, on_overflow: Callable[[Overflow], object] | None = None
    ) -> None:
        """Hold *maxsize* items; *on_overflow* is told at the first item dropped, for alerts."""
        if maxsize < 1:
            raise BadInput("a queue without room delivers nothing")
        self.maxsize = maxsize
        self.dropped = 0
        """Items dropped so far, of all overflows."""
        self._on_overflow = on_overflow
        self._items: deque[R | Overflow] = deque()
        self._overflow: Overflow | None = None
        self._filled: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self._items) + (self._overflow is not None)

    def put_nowait(self, item: R) -> bool:
        """Add *item*, or drop it if there is no room; return whether it was added."""
        if self._overflow is not None or len(self._items) >= self.maxsize:
            return self._put_when_full(item)
        self._items.append(item)
        if self._filled is not None:
            self._filled.set()
            self._filled = None
        return True

    def _put_when_full(self, item: R) -> bool:
        found = self._overflow
        if found is not None and len(self._items) * 2 <= self.maxsize - 2:
            self._items.append(found)
            self._items.append(item)
            self._overflow = None
            return True
        self.dropped += 1
        since_ns, so_far = (
            (item.received_ns, 0) if found is None else (found.since_ns, found.dropped)
        )
        self._overflow = Overflow(since_ns, item.received_ns, so_far + 1)
        if found is None and self._on_overflow is not None:
            self._on_overflow(self._overflow)
        return False

    def take_nowait(self, limit: int) -> list[R | Overflow]:
        """Return up to *limit* items, in order; none: an empty list."""
        items = self._items
        if len(items) <= limit:
            batch = list(items)
            items.clear()
        else:
            batch = [items.popleft() for _ in range(limit)]
        if self._overflow is not None and len(batch) < limit:
            batch.append(self._overflow)
            self._overflow = None
        return batch

    async def get_batch(self, limit: int) -> list[R | Overflow]:
        """Return up to *limit* items, in order, waiting until there is at least one."""
        while not len(self):
            if self._filled is None:
                self._filled = asyncio.Event()
            await self._filled.wait()
        return self.take_nowait(limit)
