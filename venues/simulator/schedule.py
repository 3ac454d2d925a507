"""A random schedule of faults that is the same for the same seed.

For each rate the schedule counts what matches it; whether the n-th match is hit follows from seed,
rate and n alone. Two runs that make the same requests in the same order meet the same faults.
"""

import json
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from venues.simulator.errors import SettingsInvalid
from venues.simulator.faults import Fault, FaultKind
from venues.simulator.market_maker import Dice
from venues.simulator.model import PPM

LOG_MAX: Final = 10_000
MIX_HANG_S: Final = 2.0

# Kinds that end by themselves and that a client can meet on any venue.
MIX: Final = tuple(
    kind
    for kind in FaultKind
    if kind
    not in (
        FaultKind.WS_SILENT,
        FaultKind.WS_DEAF,
        FaultKind.WS_REFUSE,
        FaultKind.DELAY_BEFORE_ACCEPT,
        FaultKind.WITHHOLD_ORDER,
    )
)


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often a kind of fault happens to what matches, in millionths."""

    kind: FaultKind
    ppm: int
    path: str = ""
    method: str = ""
    seconds: float | None = None


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A seed and rates; after `limit` faults it is over (0: never)."""

    seed: int
    rates: tuple[Rate, ...]
    limit: int = 0


class SeededFaults:
    """Draws faults as a schedule says, and remembers which it drew."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.drawn: deque[tuple[str, str, int]] = deque(maxlen=LOG_MAX)
        self._drawn_count = 0
        self._seen = [0] * len(schedule.rates)

    def draw(self, what: str, matches: Callable[[Fault], bool]) -> Fault | None:
        """A fault for this, or None. Every matching rate counts it, the first that hits wins."""
        hit: Fault | None = None
        for position, rate in enumerate(self.schedule.rates):
            fault = Fault(rate.kind, rate.path, method=rate.method, seconds=rate.seconds)
            if not matches(fault):
                continue
            self._seen[position] += 1
            seen = self._seen[position]
            dice = Dice(self.schedule.seed, "fault", position, seen)
            is_over = 0 < self.schedule.limit <= self._drawn_count
            if hit is None and not is_over and dice.below(PPM) < rate.ppm:
                hit = fault
                self._drawn_count += 1
                self.drawn.append((rate.kind.value, what, seen))
        return hit


def mixed(seed: int, rate_ppm: int) -> Schedule:
    """All kinds that end by themselves: requests are hit at this rate in all, frames as well."""
    requests = [kind for kind in MIX if kind.is_for_requests]
    others = [kind for kind in MIX if not kind.is_for_requests]
    rates = []
    for kinds in (requests, others):
        share = max(1, rate_ppm // len(kinds)) if rate_ppm else 0
        rates += [Rate(kind, share, seconds=_usual_s(kind)) for kind in kinds]
    return Schedule(seed, tuple(rates))


def read(value: object) -> Schedule:
    """Read a schedule from a JSON object, with `rates` or with one `rate` for the whole mix.

    Raises:
        SettingsInvalid: says what is wrong.
    """
    if isinstance(value, dict) and "rate" in value and "rates" not in value:
        return from_text(f"{value.get('seed', 0)}:{value['rate']}")
    try:
        schedule = msgspec.convert(value, Schedule)
    except msgspec.ValidationError as error:
        raise SettingsInvalid(
            f"fault schedule: {error}; write it like "
            f'{{"seed": 7, "rates": [{{"kind": "reset_before", "ppm": 20000, "path": "/"}}]}}'
        ) from error
    for rate in schedule.rates:
        if not 0 <= rate.ppm <= PPM:
            raise SettingsInvalid(
                f"fault schedule: {rate.kind.value} has ppm {rate.ppm}; from 0 to {PPM}"
            )
    return schedule


def from_text(text: str) -> Schedule:
    """Read `7:0.05` as the whole mix with seed 7 on five of a hundred, else a JSON file's name.

    Raises:
        SettingsInvalid: says what is wrong.
    """
    seed, colon, rate = text.partition(":")
    if colon and seed.isdecimal():
        whole, _, decimals = rate.partition(".")
        digits = whole + decimals
        if digits.isdecimal() and len(decimals) <= 6:
            ppm = int(digits) * PPM // 10 ** len(decimals)
            if ppm <= PPM:
                return mixed(int(seed), ppm)
        raise SettingsInvalid(f"faults {text!r}: the rate is from 0 to 1 with up to six decimals")
    try:
        value = json.loads(Path(text).read_text())
    except OSError as error:
        raise SettingsInvalid(
            f"faults {text!r}: {error.strerror}; name a JSON file, or write seed:rate like 7:0.05"
        ) from error
    except json.JSONDecodeError as error:
        raise SettingsInvalid(f"faults {text!r}: no JSON: {error}") from error
    return read(value)


def _usual_s(kind: FaultKind) -> float | None:
    hangs = (FaultKind.HANG_BEFORE_ACCEPT, FaultKind.HANG_AFTER_ACCEPT, FaultKind.CLOCK_SKEW)
    return MIX_HANG_S if kind in hangs else None
