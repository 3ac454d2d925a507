"""The file that says which house the workers run: TOML, checked to the last key.

::

    chain = "evm"                          # code of the chain, as registered
    book = 1
    signer_socket = "signer.sock"          # paths are relative to this file
    confirmations = "confirmations.json"   # the confirmation policy of deposits and receipts
    payout_depth = 6                       # blocks on a payout before it is confirmed
    payout_finalized = false               # or until the chain itself promises that it stays
    address_list = "addresses.json"        # optional: addresses that something speaks against
    travel_rule = "travel-rule.json"       # optional: from which amounts on names are needed
    start_height = 19000000                # the first block whose contents count; take a final one
    reorg_depth_max = 64                   # a deeper one halts the chain
    pause_ms = 1000                        # between two turns
    reconcile_minutes = 60                 # between two comparisons of all wallets with the chain
    founding = "founding.json"             # optional: founds an empty registry
    service = "auto"                       # optional: the operator that approves what a rule allows
    service_key = "auto.key"               # and the file of its key

    [[settlement]]                         # optional: windows whose run is calculated by the clock
    window = "afternoon"
    cron = "0 17 * * mon-fri"
    timezone = "Europe/London"
    since = 2026-11-20                     # earlier slots were never meant

    [bitcoin]                              # optional: a chain of Bitcoin beside it
    chain = "bitcoin"                      # code of the chain, as registered
    payout_depth = 3                       # blocks on a payout before it is confirmed
    payout_finalized = false               # or 100 of them
    start_height = 870000                  # the first block whose contents count; take a final one
    reorg_depth_max = 100                  # a deeper one halts the chain
    reconcile_minutes = 360                # between two comparisons; each reads all coins there are
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

from app.workers.scheduler import Schedule
from kernel.errors import BadInput

NAME: Final = "house.toml"
PAUSE_MS_MIN: Final = 50
PAUSE_MS_MAX: Final = 3_600_000
RECONCILE_MINUTES_MAX: Final = 7 * 24 * 60
HEIGHT_MAX: Final = 2**63 - 1

WINDOWS: Final = "settlement"
CALCULATE: Final = "settlement.calculate"
_WINDOW_KEYS: Final = frozenset({"window", "cron", "timezone", "since"})
_TEXTS: Final = (
    "chain",
    "signer_socket",
    "confirmations",
    "address_list",
    "travel_rule",
    "founding",
    "service",
    "service_key",
)
_OPTIONAL_TEXTS: Final = frozenset(
    {"address_list", "travel_rule", "founding", "service", "service_key"}
)
_NUMBERS: Final = {
    "book": (1, HEIGHT_MAX),
    "payout_depth": (1, 100_000),
    "start_height": (0, HEIGHT_MAX),
    "reorg_depth_max": (1, 100_000),
    "pause_ms": (PAUSE_MS_MIN, PAUSE_MS_MAX),
    "reconcile_minutes": (1, RECONCILE_MINUTES_MAX),
}
_DEFAULTS: Final[dict[str, Any]] = {
    "payout_finalized": False,
    "reorg_depth_max": 64,
    "pause_ms": 1_000,
    "reconcile_minutes": 60,
    "address_list": "",
    "travel_rule": "",
    "founding": "",
    "service": "",
    "service_key": "",
}


BITCOIN: Final = "bitcoin"
_BITCOIN_DEFAULTS: Final[dict[str, Any]] = {
    "payout_finalized": False,
    "reorg_depth_max": 100,
    "reconcile_minutes": 360,
}
_BITCOIN_KEYS: Final = (
    "chain",
    "payout_depth",
    "payout_finalized",
    "start_height",
    "reorg_depth_max",
    "reconcile_minutes",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BitcoinSection:
    """What the file says of the chain of Bitcoin."""

    chain: str
    payout_depth: int
    payout_finalized: bool
    start_height: int
    reorg_depth_max: int
    reconcile_minutes: int

    @property
    def reconcile_every(self) -> timedelta:
        """Return the time between two comparisons of all coins."""
        return timedelta(minutes=self.reconcile_minutes)


@dataclass(frozen=True, slots=True, kw_only=True)
class HouseFile:
    """What the file says; paths are absolute."""

    chain: str
    book: int
    signer_socket: Path
    confirmations: Path
    payout_depth: int
    payout_finalized: bool
    start_height: int
    reorg_depth_max: int
    pause: timedelta
    reconcile_every: timedelta
    founding: Path | None
    address_list: Path | None = None
    travel_rule: Path | None = None
    service: str | None = None
    service_key: Path | None = None
    windows: tuple[Window, ...] = ()
    bitcoin: BitcoinSection | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """A settlement window, and when its run is calculated."""

    name: str
    schedule: Schedule


def read_house(path: Path) -> HouseFile:
    """Read the file.

    Raises:
        BadInput: names the key that is missing, unknown or of another kind.
    """
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"the house file cannot be read: {error}", where=str(path)) from error
    return parse_house(document, path)


def parse_house(document: dict[str, Any], path: Path) -> HouseFile:
    """Check what was read from *path*."""
    values = {**_DEFAULTS, **document}
    known = (*_TEXTS, *_NUMBERS, "payout_finalized")
    for key in document:
        if key not in {*known, WINDOWS, BITCOIN}:
            raise BadInput(
                f"the house file has the key {key!r}",
                where=str(path),
                remedy=f"Known are {', '.join(known)}",
            )
    for key in known:
        if key not in values:
            raise BadInput(f"the house file does not say {key}", where=str(path))
        _check(key, values[key], path)
    if bool(values["service"]) != bool(values["service_key"]):
        raise BadInput(
            "a service needs a code and a key",
            where=str(path),
            remedy="Write both service and service_key, or neither",
        )
    folder = path.absolute().parent
    return HouseFile(
        chain=values["chain"],
        book=values["book"],
        signer_socket=folder / values["signer_socket"],
        confirmations=folder / values["confirmations"],
        payout_depth=values["payout_depth"],
        payout_finalized=values["payout_finalized"],
        start_height=values["start_height"],
        reorg_depth_max=values["reorg_depth_max"],
        pause=timedelta(milliseconds=values["pause_ms"]),
        reconcile_every=timedelta(minutes=values["reconcile_minutes"]),
        founding=folder / values["founding"] if values["founding"] else None,
        address_list=folder / values["address_list"] if values["address_list"] else None,
        travel_rule=folder / values["travel_rule"] if values["travel_rule"] else None,
        service=values["service"] or None,
        service_key=folder / values["service_key"] if values["service_key"] else None,
        windows=_parse_windows(document.get(WINDOWS, []), path),
        bitcoin=_parse_bitcoin(document.get(BITCOIN), path),
    )


def _parse_bitcoin(table: object, path: Path) -> BitcoinSection | None:
    if table is None:
        return None
    if not isinstance(table, dict):
        raise BadInput(f"write [{BITCOIN}] and its keys below", where=str(path))
    values = {**_BITCOIN_DEFAULTS, **table}
    if set(values) != set(_BITCOIN_KEYS):
        keys = ", ".join(_BITCOIN_KEYS)
        raise BadInput(f"[{BITCOIN}] has other keys than {keys}", where=str(path))
    for key, value in values.items():
        _check(key, value, path)
    return BitcoinSection(**values)


def _parse_windows(tables: object, path: Path) -> tuple[Window, ...]:
    if not isinstance(tables, list):
        raise BadInput(f"write [[{WINDOWS}]] for each window", where=str(path))
    windows = tuple(_parse_window(table, path) for table in tables)
    if len({window.name for window in windows}) != len(windows):
        raise BadInput("two settlement windows have one name", where=str(path))
    return windows


def _parse_window(table: Mapping[str, Any], path: Path) -> Window:
    if set(table) != _WINDOW_KEYS or not isinstance(table["since"], date):
        keys = ", ".join(sorted(_WINDOW_KEYS))
        raise BadInput(
            f"a settlement window has other keys than {keys}, or since is no date", where=str(path)
        )
    schedule = Schedule(
        name=f"{CALCULATE}/{table['window']}",
        cron=str(table["cron"]),
        timezone=str(table["timezone"]),
        since=datetime.combine(table["since"], time(), tzinfo=UTC),
    )
    schedule.trigger()
    return Window(str(table["window"]), schedule)


def _check(key: str, value: object, path: Path) -> None:
    where = f"{path}: {key}"
    if key in _TEXTS:
        if not isinstance(value, str) or (not value and key not in _OPTIONAL_TEXTS):
            raise BadInput(f"{key} is {value!r}, not a text", where=where)
    elif key in _NUMBERS:
        low, high = _NUMBERS[key]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise BadInput(f"{key} is {value!r}", where=where, remedy=f"Write {low} to {high}")
    elif not isinstance(value, bool):
        raise BadInput(f"{key} is {value!r}", where=where, remedy="Write true or false")
