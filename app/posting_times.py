"""How long postings take, from the question for the book's head to the answer to COMMIT.

Seen from the engine, so that the ledger measures nothing: a transaction that locks the head is a
posting, it ends well when SQLAlchemy is about to send COMMIT, and its connection goes back into the
pool as soon as COMMIT is answered. What is rolled back is no posting and is not counted.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

from prometheus_client.core import HistogramMetricFamily
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.statements import LOCK_AND_READ

NAME: Final = "causeway_posting_seconds"
BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_BEGAN: Final = "causeway.posting_began"
_COMMITS: Final = "causeway.posting_commits"


@dataclass(slots=True)
class PostingTimes:
    """A histogram of postings, in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total_s: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count a posting that took so long."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.total_s += seconds

    def family(self) -> HistogramMetricFamily:
        """Return the histogram as Prometheus has it: each bucket with all shorter ones."""
        buckets, below = [], 0
        for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), self.counts, strict=True):
            below += count
            buckets.append((bound, below))
        return HistogramMetricFamily(
            NAME, "Postings by how long they took", buckets=buckets, sum_value=self.total_s
        )

    def watch(self, engine: AsyncEngine) -> None:
        """Time every posting that goes through *engine* from now on."""
        sync = engine.sync_engine
        event.listen(sync, "before_cursor_execute", _begins)
        event.listen(sync, "commit", _commits)
        event.listen(sync, "rollback", _forget)
        event.listen(sync.pool, "checkin", self._ends)

    def _ends(self, _: Any, record: Any) -> None:
        began = record.info.pop(_BEGAN, None)
        if record.info.pop(_COMMITS, False) and began is not None:
            self.observe(perf_counter() - began)


def _begins(connection: Connection, _: Any, statement: str, *__: Any) -> None:
    # Compared by what it is before what it says: the ledger sends one and the same text.
    if statement is LOCK_AND_READ or statement == LOCK_AND_READ:
        connection.info.setdefault(_BEGAN, perf_counter())


def _commits(connection: Connection) -> None:
    if _BEGAN in connection.info:
        connection.info[_COMMITS] = True


def _forget(connection: Connection) -> None:
    connection.info.pop(_BEGAN, None)
    connection.info.pop(_COMMITS, None)
