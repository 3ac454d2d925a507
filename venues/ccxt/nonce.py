"""Numbers that rise with every request of a key, for venues that refuse a number seen before.

The sequence belongs to the *key*: both instances of a gateway and the stream draw from one source.
Two processes cannot share a key: each keeps its own sequence, and whenever one has drawn a higher
number, the requests of the other are refused as ``EAPI:Invalid nonce`` until its clock has passed
it. Such a refusal is sure, so no order is doubled by it; but a cancel may come too late. Give every
process a key of its own. A *nonce window* set for the key at the venue lets requests that overtake
each other on the way pass; it does not make sharing safe.
"""

from __future__ import annotations

import asyncio
import threading
from functools import lru_cache
from typing import Final
from weakref import WeakKeyDictionary

KEYS_MAX: Final = 1_000


class NonceSource:
    """Rising numbers, at least the time in milliseconds, so that they rise over restarts too."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def next(self, now_ms: int) -> int:
        """Return a number above all that were returned, *now_ms* if that is one."""
        with self._lock:
            self._last = max(self._last + 1, now_ms)
            return self._last


@lru_cache(maxsize=KEYS_MAX)
def nonce_source(api_key: str) -> NonceSource:
    """Return the one source of a key in this process."""
    del api_key
    return NonceSource()


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Lock]] = WeakKeyDictionary()


def turn_of(api_key: str) -> asyncio.Lock:
    """Return the one turn of a key in this event loop: its holder alone has a request under way.

    A number must not only be drawn in its order, it must arrive in it.
    """
    turns = _turns.setdefault(asyncio.get_running_loop(), {})
    return turns.setdefault(api_key, asyncio.Lock())
