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
    restore_witness = "restore.witness"    # optional: on another disk; shows that the database was set back
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

    [[venue]]                              # optional: an account at a venue, any number of them
    venue = "binance"                      # our codes of venue and account
    account = "desk"
    connector = "binance"                  # the venue's record
    kek = "venues.kek"                     # opens the API keys that are enrolled for the account
    symbols = ["ETHUSDT"]                  # what is traded there; more are learnt
    withdrawals = false                    # whether funds are moved there and back
    accept_unknown_permissions = false     # the key cannot withdraw, though the venue does not tell
    has_nonce_window = false               # the key's requests may overtake each other
    dead_man_seconds = 0                   # the venue cancels everything after so long without us
    taker_ppm = 0                          # what it charges an order that takes, in millionths
    http_url = ""                          # where the venue is, if not where it really is
    ws_url = ""
    private_ws_url = ""

    [marketdata]                           # optional: what is done with all feeds
    recordings = "recordings"              # folder of raw frames and Parquet; empty: none are kept
    retention_days = 0                     # raw frames older than that are deleted; 0: never
    metrics_port = 9464                    # Prometheus on loopback; 0: not served
    backfill = true                        # trades of ended gaps are asked for by REST

    [[feed]]                               # optional: public market data, one for each venue
    venue = "binance"                      # our code of the venue
    connector = "binance"                  # the venue's record
    symbols = ["ETHUSDT"]                  # in the venue's spelling
    channels = ["book", "trades", "best"]  # also ticker and candles
    candle_seconds = 60                    # how long a candle lasts
    check_seconds = 60                     # between two comparisons with the venue's REST; 0: none
    silence_seconds = 5                    # a stream that is silent for so long is suspected
    http_url = ""                          # where the venue is, if not where it really is
    ws_url = ""

    [[index]]                              # optional: a price made of several venues' books
    base = "ETH"
    quote = "USDT"
    venues = ["binance", "kraken"]         # of the feeds; each has the pair among its symbols
    weights = [1, 1]                       # how much each counts; without: the same
    venues_min = 2                         # with fewer nothing settles on it
    every_seconds = 5                      # between two publications
    age_ms = 5000                          # an older book is left out
    deviation_ppm = 10000                  # so is one that is so far from the others' median
    spread_ppm = 20000                     # and one whose spread is wider

    [[bank]]                               # optional: an account at a bank, any number of them
    account = "house-eur"                  # its code, as registered
    orders = "bank/in"                     # payment files go into this folder, or to an http:// address
    inbox = "bank/out"                     # statements and status reports are taken from this folder
    gather_seconds = 0                     # a payment file waits until its oldest payout is so old

    [alerts]                               # optional: how people are reached; whom, they say themselves
    seconds = 60                           # between two looks at everything
    smtp = ""                              # host:port of the mail server; empty: nobody is mailed
    sender = "causeway@localhost"          # the address that mail comes from
    secret = ""                            # file whose bytes sign web hooks; empty: they are not signed

    [desk]                                 # optional: this house hedges, and prices quotes
    hedges = true                          # lines are hedged through the accounts of [[venue]]
    quotes = true                          # quotes are priced from the books of [[feed]]
    pause_ms = 500                         # between two looks at everything
    quote_book_age_ms = 2000               # a venue whose book is older is left out of a price
    quote_venues_min = 1                   # of fewer venues no price is made
    quote_width_ppm = 10000                # nor where the best bid and ask are further apart
    quote_slippage_ppm = 20000             # nor where the size costs more than that, from the mid

    [[hedge]]                              # optional: how one line is hedged, if not by the defaults
    desk = "otc"
    asset = "ETH"                          # amounts below are texts, in whole units of it
    band = "0"                             # a need up to this is left alone
    internalise_seconds = 0                # clients' flow waits so long for flow the other way
    urgent = ""                            # but not beyond this need; empty: always
    pace_from = ""                         # a need beyond this is stretched
    pace_seconds = 0                       # over so long; 0: everything is hedged at once
    slice = "0"                            # in orders of at least this
    order_max = ""                         # one order is for this at most; empty: the venue's own
    legs_max = 10                          # orders of one pass
    slippage_ppm = 5000                    # how far from the mid an order may go
    client_loss_ppm = 0                    # how much worse than the clients' price; 0: no matter
    book_age_ms = 5000                     # an older book is not traded on
    residual_max = ""                      # what no venue takes is an alarm beyond this
    unsettled_max = 1                      # orders of unknown outcome at which a place is left out
    quote_min = "0"                        # quotes are for this at least
    quote_max = ""                         # and at most; empty: any size
    skew_full = ""                         # the position at which prices lean as far as they do
    skew_ppm = 0                           # which is so far
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

from app.workers.alert_file import ALERTS, AlertSection, parse_alerts
from app.workers.bank_file import BANKS, BankSection, parse_banks
from app.workers.desk_file import DESK, HEDGES, DeskSection, HedgeSection, parse_desk, parse_hedges
from app.workers.market_data_file import (
    FEEDS,
    INDEXES,
    MARKET_DATA,
    PRICES,
    FeedSection,
    IndexSection,
    MarketDataSection,
    PriceSection,
    parse_feeds,
    parse_indexes,
    parse_market_data,
    parse_prices,
)
from app.workers.scheduler import Schedule
from app.workers.venue_file import VENUES, VenueSection, parse_venues
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
    "restore_witness",
    "founding",
    "service",
    "service_key",
)
_OPTIONAL_TEXTS: Final = frozenset(
    {"address_list", "travel_rule", "restore_witness", "founding", "service", "service_key"}
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
    "restore_witness": "",
    "founding": "",
    "service": "",
    "service_key": "",
}


BITCOIN: Final = "bitcoin"
_SECTIONS: Final = frozenset(
    {WINDOWS, BITCOIN, VENUES, MARKET_DATA, FEEDS, INDEXES, PRICES, DESK, HEDGES, ALERTS, BANKS}
)
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
    restore_witness: Path | None = None
    service: str | None = None
    service_key: Path | None = None
    windows: tuple[Window, ...] = ()
    bitcoin: BitcoinSection | None = None
    venues: tuple[VenueSection, ...] = ()
    market_data: MarketDataSection = field(default_factory=MarketDataSection)
    feeds: tuple[FeedSection, ...] = ()
    indexes: tuple[IndexSection, ...] = ()
    prices: tuple[PriceSection, ...] = ()
    desk: DeskSection | None = None
    hedges: tuple[HedgeSection, ...] = ()
    alerts: AlertSection = field(default_factory=AlertSection)
    banks: tuple[BankSection, ...] = ()


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
        if key not in {*known, *_SECTIONS}:
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
    feeds = parse_feeds(document.get(FEEDS, []), path)
    desk = parse_desk(document.get(DESK), path)
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
        restore_witness=folder / values["restore_witness"] if values["restore_witness"] else None,
        service=values["service"] or None,
        service_key=folder / values["service_key"] if values["service_key"] else None,
        windows=_parse_windows(document.get(WINDOWS, []), path),
        bitcoin=_parse_bitcoin(document.get(BITCOIN), path),
        venues=parse_venues(document.get(VENUES, []), path),
        market_data=parse_market_data(document.get(MARKET_DATA), path),
        feeds=feeds,
        indexes=parse_indexes(document.get(INDEXES, []), feeds, path),
        prices=parse_prices(document.get(PRICES, []), path),
        desk=desk,
        hedges=parse_hedges(document.get(HEDGES, []), desk, path),
        alerts=parse_alerts(document.get(ALERTS), path),
        banks=parse_banks(document.get(BANKS, []), path),
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
