"""How a benchmark is measured and reported: contestants take turns, medians are compared.

A benchmark answers one question with a ratio: ours against a named limit, or against a peer, in the
same run on the same input. An absolute figure says as much about the machine as about the code.
"""

from __future__ import annotations

import gc
import os
import platform
import resource
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Final, Self, TypeVar

ROUNDS: Final = 7
"""Odd, so that the median is a measured value."""

EXACT_FROM: Final = 100
"""Figures below it are told with decimals: latencies, mostly."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One figure. Where there are several baselines, there are several results.

    Attributes:
        value: ours, in *unit*.
        baseline: what it is held against, in words; empty where the figure is absolute.
        baseline_value: of the baseline, in *unit*.
        at_least: the goal: the ratio at least, or the figure itself where there is no baseline.
        at_most: the same, for what is better when it is less: times, memory.
    """

    name: str
    value: float
    unit: str
    baseline: str = ""
    baseline_value: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def ratio(self) -> float | None:
        """Return ours to the baseline's; for a rate, above 1 is faster than it."""
        return self.value / self.baseline_value if self.baseline_value else None

    @property
    def goal(self) -> str | None:
        """Return the goal as text: ``≥ 0.7`` of a baseline, ``≤ 50 ms`` as such."""
        unit = "" if self.baseline else f" {self.unit}"
        if self.at_least is not None:
            return f"≥ {self.at_least:,g}{unit}"
        return None if self.at_most is None else f"≤ {self.at_most:,g}{unit}"

    @property
    def met(self) -> bool:
        """Tell whether the goal is met; where there is none, there is nothing to miss.

        A goal that is a ratio is missed where there was nothing to compare with.
        """
        if self.goal is None:
            return True
        reached = self.ratio if self.baseline else self.value
        if reached is None:
            return False
        if self.at_least is not None and reached < self.at_least:
            return False
        return self.at_most is None or reached <= self.at_most

    def to_json(self) -> dict[str, Any]:
        """Return the figure as data."""
        return {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "baseline": self.baseline or None,
            "baseline_value": None
            if self.baseline_value is None
            else _rounded(self.baseline_value),
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "goal": self.goal,
            "met": self.met,
        }


@dataclass(frozen=True, slots=True)
class Measured:
    """What one benchmark found, and under which conditions: input, server settings."""

    results: Sequence[Result]
    conditions: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=dict)


class Shared:
    """What the benchmarks of one run share, made when it is first asked for and closed at the end.

    Args:
        size: how much a benchmark that grows shall do, in units of its own; None: its default.
    """

    def __init__(self, *, size: int | None = None) -> None:
        self.size = size
        self._stack = ExitStack()
        self._made: dict[Callable[[], Any], Any] = {}

    def once(self, make: Callable[[], AbstractContextManager[T]]) -> T:
        """Return what *make* gives, entered at the first call; the same at every further one."""
        if make not in self._made:
            self._made[make] = self._stack.enter_context(make())
        found: T = self._made[make]
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)


Benchmark = Callable[[Shared], Measured]

Turn = Callable[[], int]
"""The timed part of a contestant's turn; returns how many units of work it did."""


def alternate(
    contestants: Mapping[str, Callable[[], Turn]], rounds: int = ROUNDS
) -> dict[str, float]:
    """Let the contestants take turns, and return the median rate of each, in units per second.

    Args:
        contestants: each prepares a turn, which is not timed, and returns it.
        rounds: counted ones; one more before them warms up and is thrown away.
    """
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for counted in range(rounds + 1):
        for name, prepare in contestants.items():
            turn = prepare()
            # As the processes of the house do when they have started: what is there already, the
            # input of this turn among it, is no garbage and is not looked through again and again.
            gc.collect()
            gc.freeze()
            began = perf_counter()
            done = turn()
            rate = done / (perf_counter() - began)
            gc.unfreeze()
            if counted:
                rates[name].append(rate)
    return {name: statistics.median(found) for name, found in rates.items()}


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of *values* that *percent* of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]


def machine() -> dict[str, str]:
    """Return what the figures were measured on, and how busy it was when they were."""
    return {
        "processor": _first_line("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": str(os.cpu_count()),
        "memory": _first_line("/proc/meminfo", "MemTotal"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load_1m": load(),
    }


def load() -> str:
    """Return how many processes wanted to run, on average over the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def peak_memory_kib() -> int:
    """Return the most memory that this process has had resident so far, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def versions(*distributions: str) -> dict[str, str]:
    """Return the versions of Python and of the *distributions* that took part."""
    found = {name: metadata.version(name) for name in distributions}
    return {"python": platform.python_version(), **found}


def _rounded(value: float) -> float:
    return round(value) if abs(value) >= EXACT_FROM else float(f"{value:.3g}")


def _first_line(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
