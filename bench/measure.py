"""How a benchmark is measured and reported: contestants take turns, medians are compared.

A benchmark answers one question with a ratio: ours against a named limit, or against a peer, in the
same run on the same input. An absolute figure says as much about the machine as about the code.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any, Final

ROUNDS: Final = 7
"""Odd, so that the median is a measured value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One figure.

    Attributes:
        value: ours, in *unit*.
        baseline: what it is held against, in words; empty where the figure is absolute.
        baseline_value: of the baseline, in *unit*.
        at_least: the ratio that is the goal; None: no goal is set.
    """

    name: str
    value: float
    unit: str
    baseline: str = ""
    baseline_value: float | None = None
    at_least: float | None = None

    @property
    def ratio(self) -> float | None:
        """Return ours to the baseline's; above 1 is faster than it."""
        return self.value / self.baseline_value if self.baseline_value else None

    @property
    def met(self) -> bool:
        """Tell whether the goal is met; where there is none, there is nothing to miss."""
        return self.at_least is None or (self.ratio or 0) >= self.at_least

    def to_json(self) -> dict[str, Any]:
        """Return the figure as data."""
        return {
            "name": self.name,
            "value": round(self.value),
            "unit": self.unit,
            "baseline": self.baseline or None,
            "baseline_value": None if self.baseline_value is None else round(self.baseline_value),
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "goal": None if self.at_least is None else f"≥ {self.at_least:g}",
            "met": self.met,
        }


@dataclass(frozen=True, slots=True)
class Measured:
    """What one benchmark found, and under which conditions: input, server settings."""

    results: Sequence[Result]
    conditions: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=dict)


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
            gc.collect()
            began = perf_counter()
            done = turn()
            rate = done / (perf_counter() - began)
            if counted:
                rates[name].append(rate)
    return {name: statistics.median(found) for name, found in rates.items()}


def machine() -> dict[str, str]:
    """Return what the figures were measured on, and how busy it was when they were."""
    return {
        "processor": _first_line("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": str(os.cpu_count()),
        "memory": _first_line("/proc/meminfo", "MemTotal"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load_1m": f"{os.getloadavg()[0]:.1f}",
    }


def versions(*distributions: str) -> dict[str, str]:
    """Return the versions of Python and of the *distributions* that took part."""
    found = {name: metadata.version(name) for name in distributions}
    return {"python": platform.python_version(), **found}


def _first_line(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
