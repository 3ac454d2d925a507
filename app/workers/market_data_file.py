"""What the house file says of market data: a ``[[feed]]`` a venue, an ``[[index]]`` a pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from app.workers.sections import require_number, require_switch, require_text, several, values_of
from kernel.errors import BadInput

FEEDS: Final = "feed"
MARKET_DATA: Final = "marketdata"
INDEXES: Final = "index"
PRICES: Final = "price"
SYMBOLS_MAX: Final = 1_000
PORT_MAX: Final = 65_535
CHANNELS: Final = ("book", "trades", "best", "ticker", "candles")
"""What may be streamed of a symbol; the words of `marketdata.events.Channel`."""

RUNGS: Final = ("override", "index", "venue-mid", "fiat-rate", "cross", "manual")
"""Where a price may come from; the words of `marketdata.hierarchy.Source`."""

_FEED_TEXTS: Final = ("venue", "connector", "http_url", "ws_url")
_FEED_REQUIRED: Final = frozenset({"venue", "connector", "symbols"})
_FEED_DEFAULTS: Final[dict[str, Any]] = {
    "http_url": "",
    "ws_url": "",
    "channels": ["book", "trades", "best"],
    "candle_seconds": 60,
    "check_seconds": 60,
    "silence_seconds": 5,
}
_FEED_NUMBERS: Final = {
    "candle_seconds": (1, 7 * 86_400),
    "check_seconds": (0, 86_400),
    "silence_seconds": (1, 3_600),
}
_DEFAULTS: Final[dict[str, Any]] = {
    "recordings": "",
    "retention_days": 0,
    "metrics_port": 0,
    "backfill": True,
}
_INDEX_REQUIRED: Final = frozenset({"base", "quote", "venues", "venues_min"})
_INDEX_DEFAULTS: Final[dict[str, Any]] = {
    "weights": [],
    "every_seconds": 5,
    "age_ms": 5_000,
    "deviation_ppm": 10_000,
    "spread_ppm": 20_000,
}
_INDEX_NUMBERS: Final = {
    "venues_min": (1, 100),
    "every_seconds": (1, 86_400),
    "age_ms": (1, 3_600_000),
    "deviation_ppm": (1, 1_000_000),
    "spread_ppm": (1, 1_000_000),
}
_PRICE_REQUIRED: Final = frozenset({"base", "quote", "rungs"})
_PRICE_DEFAULTS: Final[dict[str, Any]] = {"max_age_seconds": 60, "pivots": ["USD", "EUR"]}
_NUMBERS: Final = {"retention_days": (0, 36_500), "metrics_port": (0, PORT_MAX)}


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSection:
    """The public market data of one venue.

    Attributes:
        venue: our code of it.
        connector: name of the venue's record (`venues.records`).
        symbols: in the venue's spelling.
        channels: what is streamed of each of them.
        candle: how long a candle lasts.
        check: between two comparisons of a book with the venue's REST; zero: none.
        silence: a stream that says nothing for so long is suspected.
        http_url, ws_url: where the venue is; empty: where it really is.
    """

    venue: str
    connector: str
    symbols: tuple[str, ...]
    channels: tuple[str, ...]
    candle: timedelta
    check: timedelta
    silence: timedelta
    http_url: str
    ws_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketDataSection:
    """What is done with all feeds.

    Attributes:
        recordings: the folder of raw frames and Parquet; None: nothing is recorded.
        retention: raw frames older than that are deleted; None: never.
        metrics_port: of ``/metrics`` on loopback; None: not served.
        backfill: whether trades and candles of ended gaps are asked for by REST.
    """

    recordings: Path | None = None
    retention: timedelta | None = None
    metrics_port: int | None = None
    backfill: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSection:
    """The index price of one pair.

    Attributes:
        base, quote: codes of registered assets.
        venues: those of the feeds whose books of the pair are constituents.
        weights: how much each venue counts, in the order of the venues.
        venues_min: with fewer the index is degraded, and nothing settles on it.
        every: between two publications.
        age_max, deviation_ppm, spread_ppm: its gates, see `marketdata.index_price`.
    """

    base: str
    quote: str
    venues: tuple[str, ...]
    weights: tuple[int, ...]
    venues_min: int
    every: timedelta
    age_max: timedelta
    deviation_ppm: int
    spread_ppm: int

    @property
    def name(self) -> str:
        """Return how people speak of it."""
        return f"{self.base}/{self.quote}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceSection:
    """Where the price of one pair comes from.

    Attributes:
        base, quote: codes of assets.
        rungs: the sources from the top, see `marketdata.hierarchy`.
        age_max: how old a price of the market may be.
        pivots: the currencies that it may be crossed through, in their order.
    """

    base: str
    quote: str
    rungs: tuple[str, ...]
    age_max: timedelta
    pivots: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return how people speak of it."""
        return f"{self.base}/{self.quote}"


def parse_feeds(tables: object, path: Path) -> tuple[FeedSection, ...]:
    """Check the ``[[feed]]`` that were read from *path*.

    Raises:
        BadInput: names the key that is missing, unknown or of another kind.
    """
    return several(
        tables,
        lambda table: _parse_feed(table, path),
        lambda section: section.venue,
        path,
        missing=f"write [[{FEEDS}]] for each venue",
        twice="two sections are of the market data of one venue",
    )


def parse_market_data(table: object, path: Path) -> MarketDataSection:
    """Check the ``[marketdata]`` that was read from *path*; without one, the defaults.

    Raises:
        BadInput: names the key that is unknown or of another kind.
    """
    if table is None:
        return MarketDataSection()
    where = f"{path}: [{MARKET_DATA}]"
    values = values_of(table, _DEFAULTS, frozenset(), where)
    for key, limits in _NUMBERS.items():
        require_number(key, values[key], limits, where)
    require_text("recordings", values["recordings"], where, is_required=False)
    require_switch("backfill", values["backfill"], where)
    days = values["retention_days"]
    return MarketDataSection(
        recordings=path.absolute().parent / values["recordings"] if values["recordings"] else None,
        retention=timedelta(days=days) if days else None,
        metrics_port=values["metrics_port"] or None,
        backfill=values["backfill"],
    )


def parse_indexes(
    tables: object, feeds: Sequence[FeedSection], path: Path
) -> tuple[IndexSection, ...]:
    """Check the ``[[index]]`` that were read from *path*.

    Raises:
        BadInput: names the key that is missing, unknown or of another kind; or a venue without feed.
    """
    fed = {feed.venue: feed for feed in feeds if "book" in feed.channels}
    return several(
        tables,
        lambda table: _parse_index(table, fed, path),
        lambda section: section.name,
        path,
        missing=f"write [[{INDEXES}]] for each pair",
        twice="two sections are of the index of one pair",
    )


def parse_prices(tables: object, path: Path) -> tuple[PriceSection, ...]:
    """Check the ``[[price]]`` that were read from *path*.

    Raises:
        BadInput: names the key that is missing, unknown or of another kind.
    """
    return several(
        tables,
        lambda table: _parse_price(table, path),
        lambda section: section.name,
        path,
        missing=f"write [[{PRICES}]] for each pair",
        twice="two sections are of the price of one pair",
    )


def _parse_price(table: object, path: Path) -> PriceSection:
    where = f"{path}: [[{PRICES}]]"
    values = values_of(table, _PRICE_DEFAULTS, _PRICE_REQUIRED, where)
    for key in ("base", "quote"):
        require_text(key, values[key], where, is_required=True)
    if values["base"] == values["quote"]:
        raise BadInput(f"{values['base']} has no price in itself", where=where)
    require_number("max_age_seconds", values["max_age_seconds"], (1, 7 * 86_400), where)
    rungs = _texts("rungs", values["rungs"], where)
    for rung in rungs:
        if rung not in RUNGS:
            raise BadInput(
                f"there is no rung {rung!r}", where=where, remedy=f"Known are {', '.join(RUNGS)}"
            )
        if values["rungs"].count(rung) > 1:
            raise BadInput(f"rungs has {rung} twice", where=where)
    return PriceSection(
        base=values["base"],
        quote=values["quote"],
        rungs=rungs,
        age_max=timedelta(seconds=values["max_age_seconds"]),
        pivots=_texts("pivots", values["pivots"], where),
    )


def _parse_index(table: object, fed: Mapping[str, FeedSection], path: Path) -> IndexSection:
    where = f"{path}: [[{INDEXES}]]"
    values = values_of(table, _INDEX_DEFAULTS, _INDEX_REQUIRED, where)
    for key in ("base", "quote"):
        require_text(key, values[key], where, is_required=True)
    for key, limits in _INDEX_NUMBERS.items():
        require_number(key, values[key], limits, where)
    venues = _texts("venues", values["venues"], where)
    for venue in venues:
        if venue not in fed:
            raise BadInput(
                f"no [[{FEEDS}]] streams books of {venue}",
                where=where,
                remedy=f"Books are streamed of {', '.join(sorted(fed)) or 'no venue'}",
            )
    _require_different([fed[venue] for venue in venues], where)
    if values["venues_min"] > len(venues):
        raise BadInput("venues_min is more than there are venues", where=where)
    weights = values["weights"] or [1] * len(venues)
    if not isinstance(weights, list) or len(weights) != len(venues):
        raise BadInput("weights has not one number for each venue", where=where)
    for weight in weights:
        require_number("weights", weight, (1, 10**12), where)
    return IndexSection(
        base=values["base"],
        quote=values["quote"],
        venues=venues,
        weights=tuple(weights),
        venues_min=values["venues_min"],
        every=timedelta(seconds=values["every_seconds"]),
        age_max=timedelta(milliseconds=values["age_ms"]),
        deviation_ppm=values["deviation_ppm"],
        spread_ppm=values["spread_ppm"],
    )


def _require_different(feeds: Sequence[FeedSection], where: str) -> None:
    """Refuse two constituents that are one venue under two names: they would agree for nothing."""
    found: dict[tuple[str, str, str], str] = {}
    for feed in feeds:
        known = found.setdefault((feed.connector, feed.http_url, feed.ws_url), feed.venue)
        if known != feed.venue:
            raise BadInput(
                f"{known} and {feed.venue} are one venue", where=where, remedy="Name it once"
            )


def _parse_feed(table: object, path: Path) -> FeedSection:
    where = f"{path}: [[{FEEDS}]]"
    values = values_of(table, _FEED_DEFAULTS, _FEED_REQUIRED, where)
    for key in _FEED_TEXTS:
        require_text(key, values[key], where, is_required=key in _FEED_REQUIRED)
    for key, limits in _FEED_NUMBERS.items():
        require_number(key, values[key], limits, where)
    channels = _texts("channels", values["channels"], where)
    for channel in channels:
        if channel not in CHANNELS:
            raise BadInput(
                f"there is no channel {channel!r}",
                where=where,
                remedy=f"Known are {', '.join(CHANNELS)}",
            )
    return FeedSection(
        **{key: values[key] for key in _FEED_TEXTS},
        symbols=_texts("symbols", values["symbols"], where),
        channels=channels,
        candle=timedelta(seconds=values["candle_seconds"]),
        check=timedelta(seconds=values["check_seconds"]),
        silence=timedelta(seconds=values["silence_seconds"]),
    )


def _texts(key: str, value: object, where: str) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or not all(isinstance(item, str) and item for item in value)
        or not 1 <= len(value) <= SYMBOLS_MAX
    ):
        raise BadInput(
            f"{key} is {value!r}", where=where, remedy=f"Write 1 to {SYMBOLS_MAX} texts in a list"
        )
    return tuple(dict.fromkeys(value))
