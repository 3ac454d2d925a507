"""What the house file says of accounts at venues: one ``[[venue]]`` for each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from app.workers.sections import require_number, require_switch, require_text, several, values_of
from kernel.errors import BadInput
from marketdata.fees import FEE_PPM_MAX, VenueFee

VENUES: Final = "venue"
DEAD_MAN_SECONDS_MAX: Final = 86_400
SYMBOLS_MAX: Final = 500
_TEXTS: Final = ("venue", "account", "connector", "kek", "http_url", "ws_url", "private_ws_url")
_REQUIRED: Final = frozenset({"venue", "account", "connector", "kek"})
_SWITCHES: Final = ("withdrawals", "accept_unknown_permissions", "has_nonce_window")
_DEFAULTS: Final[dict[str, Any]] = {
    "http_url": "",
    "ws_url": "",
    "private_ws_url": "",
    "symbols": [],
    "withdrawals": False,
    "accept_unknown_permissions": False,
    "has_nonce_window": False,
    "dead_man_seconds": 0,
    "taker_ppm": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueSection:
    """One account at a venue.

    Attributes:
        venue, account: our codes.
        connector: name of the venue's record (`venues.records`).
        kek: file of the key that opens the account's API keys.
        http_url, ws_url, private_ws_url: where the venue is; empty: where it really is.
        symbols: what is traded there, in the venue's spelling; more are learnt.
        withdrawals: whether funds are moved there and back, with the withdrawal key.
        accept_unknown_permissions: somebody has made sure that the trading key cannot withdraw, at
            a venue that does not tell.
        has_nonce_window: whether requests of the key may overtake each other.
        taker: what an order that takes is charged there.
        dead_man: after so long without us the venue cancels everything; zero: never.
    """

    venue: str
    account: str
    connector: str
    kek: Path
    http_url: str
    ws_url: str
    private_ws_url: str
    symbols: tuple[str, ...]
    withdrawals: bool
    accept_unknown_permissions: bool
    has_nonce_window: bool
    dead_man: timedelta
    taker: VenueFee

    @property
    def name(self) -> str:
        """Return how people speak of the account."""
        return f"{self.venue}/{self.account}"


def parse_venues(tables: object, path: Path) -> tuple[VenueSection, ...]:
    """Check the sections that were read from *path*.

    Raises:
        BadInput: names the key that is missing, unknown or of another kind.
    """
    return several(
        tables,
        lambda table: _parse(table, path),
        lambda section: section.name,
        path,
        missing=f"write [[{VENUES}]] for each account",
        twice="two sections are of one account at a venue",
    )


def _parse(table: object, path: Path) -> VenueSection:
    where = f"{path}: [[{VENUES}]]"
    if not isinstance(table, dict):
        raise BadInput(f"write [[{VENUES}]] and its keys below", where=str(path))
    values = values_of(table, _DEFAULTS, _REQUIRED, where)
    for key in _TEXTS:
        require_text(key, values[key], where, is_required=key in _REQUIRED)
    for key in _SWITCHES:
        require_switch(key, values[key], where)
    return VenueSection(
        **{key: values[key] for key in (*_TEXTS, *_SWITCHES) if key != "kek"},
        kek=path.absolute().parent / values["kek"],
        symbols=_symbols(values["symbols"], where),
        dead_man=timedelta(seconds=_seconds(values["dead_man_seconds"], where)),
        taker=_fee(values["taker_ppm"], where),
    )


def _symbols(value: object, where: str) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or not all(isinstance(item, str) and item for item in value)
        or len(value) > SYMBOLS_MAX
    ):
        raise BadInput(f"symbols is {value!r}", where=where, remedy='Write ["ETHUSDT", …]')
    return tuple(dict.fromkeys(value))


def _fee(value: object, where: str) -> VenueFee:
    require_number("taker_ppm", value, (-FEE_PPM_MAX, FEE_PPM_MAX), where)
    assert isinstance(value, int), "a number was required"
    return VenueFee(value)


def _seconds(value: object, where: str) -> int:
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or not 0 <= value <= DEAD_MAN_SECONDS_MAX
    ):
        raise BadInput(
            f"dead_man_seconds is {value!r}",
            where=where,
            remedy=f"Write 0 (off) to {DEAD_MAN_SECONDS_MAX}",
        )
    return value
