"""Clocks that jump while a program runs: libfaketime, told through a file.

Wire format: the file holds one offset in seconds with its sign (``+3600``), as the variable
``FAKETIME`` would (libfaketime's README, "using the file .faketimerc"); without a cache it is read
at every look at the clock. Monotonic clocks are left alone, as a jump of a real one leaves them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from app.faults import preloads

FILE_NAME: Final = "clock-offset"


@dataclass(frozen=True, slots=True)
class JumpingClock:
    """The clock of the programs that are started with `environment`; all of them jump together."""

    library: Path
    file: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """Return the variables of a program whose clock this is."""
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
        }

    def set(self, offset: timedelta) -> None:
        """Let the clock show so much more, or less, than the machine's from now on."""
        # In one step, for it may be read at any moment.
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{offset.total_seconds():+.3f}\n")
        fresh.chmod(0o644)
        fresh.rename(self.file)


def jumping_clock(folder: Path) -> JumpingClock:
    """Return a clock that shows the machine's time; its files lie in *folder*, readable by all.

    Raises:
        OutsideUnavailable: libfaketime was not fetched.
    """
    clock = JumpingClock(preloads.copied(preloads.CLOCK_LIBRARY, folder), folder / FILE_NAME)
    clock.set(timedelta(0))
    return clock
