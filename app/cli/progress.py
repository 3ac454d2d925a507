"""A progress bar on the terminal's error output, for what takes more than a second."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter
from typing import Final

WIDTH: Final = 30
EVERY_S: Final = 0.1


def progress_bar(verb: str, unit: str = "records") -> Callable[[int, int], None]:
    """Return what draws the bar, told (records done, records to do); silent where nobody watches.

    Args:
        verb: what is done to them: ``verified``.
        unit: what is counted.
    """
    if not sys.stderr.isatty():
        return lambda _done, _total: None
    began = perf_counter()
    drawn = began

    def draw(done: int, total: int) -> None:
        nonlocal drawn
        now = perf_counter()
        if done < total and now - drawn < EVERY_S:
            return
        drawn = now
        filled = WIDTH * done // max(total, 1)
        rate = done / max(now - began, 1e-9)
        end = "\n" if done >= total else ""
        bar = "█" * filled + "░" * (WIDTH - filled)
        sys.stderr.write(f"\r{bar} {verb} {done:,} of {total:,} {unit}, {rate:,.0f}/s {end}")

    return draw
