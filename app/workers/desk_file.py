"""What the house file says of the desk: one ``[desk]``, a ``[[hedge]]`` for each line of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from app.workers.sections import (
    require_number,
    require_switch,
    require_text,
    several,
    values_of,
)
from kernel.errors import BadInput
from kernel.money import Asset
from marketdata.price_model import PPM
from trading.hedges.model import HedgePolicy
from trading.pacing import PacePolicy
from trading.quotes.model import QuotePolicy, SizeLimits, SkewPolicy
from trading.routing import LEGS_MAX

DESK: Final = "desk"
HEDGES: Final = "hedge"
HOUR_MS: Final = 3_600_000
DAY_SECONDS: Final = 86_400

_DEFAULTS: Final[dict[str, Any]] = {
    "hedges": True,
    "quotes": True,
    "pause_ms": 500,
    "quote_book_age_ms": 2_000,
    "quote_venues_min": 1,
    "quote_width_ppm": 10_000,
    "quote_slippage_ppm": 20_000,
}
_NUMBERS: Final = {
    "pause_ms": (50, HOUR_MS),
    "quote_book_age_ms": (1, HOUR_MS),
    "quote_venues_min": (1, 100),
    "quote_width_ppm": (1, PPM),
    "quote_slippage_ppm": (1, PPM - 1),
}
_HEDGE_REQUIRED: Final = frozenset({"desk", "asset"})
_HEDGE_DEFAULTS: Final[dict[str, Any]] = {
    "book_age_ms": 5_000,
    "slippage_ppm": 5_000,
    "client_loss_ppm": 0,
    "order_max": "",
    "band": "0",
    "internalise_seconds": 0,
    "urgent": "",
    "pace_from": "",
    "pace_seconds": 0,
    "slice": "0",
    "legs_max": 10,
    "residual_max": "",
    "unsettled_max": 1,
    "quote_min": "0",
    "quote_max": "",
    "skew_full": "",
    "skew_ppm": 0,
}
_HEDGE_NUMBERS: Final = {
    "book_age_ms": (1, HOUR_MS),
    "slippage_ppm": (0, PPM - 1),
    "client_loss_ppm": (0, PPM - 1),
    "internalise_seconds": (0, DAY_SECONDS),
    "pace_seconds": (0, DAY_SECONDS),
    "legs_max": (1, LEGS_MAX),
    "unsettled_max": (1, 100),
    "skew_ppm": (0, PPM - 1),
}
_AMOUNTS: Final = (
    *("order_max", "band", "urgent", "pace_from", "slice", "residual_max"),
    *("quote_min", "quote_max", "skew_full"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskSection:
    """What the desk's worker does.

    Attributes:
        hedges: whether lines are hedged by this house.
        quotes: whether quotes are priced by it.
        pause: between two looks at everything.
        quote_policy: when a price is made; without sizes and skews, which belong to lines.
    """

    hedges: bool = True
    quotes: bool = True
    pause: timedelta = timedelta(milliseconds=500)
    quote_policy: QuotePolicy = field(default_factory=QuotePolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeSection:
    """How one line is hedged and quoted; amounts are decimal texts in whole units of the asset."""

    desk: str
    asset: str
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return how people speak of the line."""
        return f"{self.desk} {self.asset}"

    def hedge_policy(self, asset: Asset) -> HedgePolicy:
        """Return the limits of the line.

        Raises:
            BadInput: an amount is none of *asset*, or the figures do not go together.
        """
        values = self.values
        return HedgePolicy(
            book_age_max=timedelta(milliseconds=values["book_age_ms"]),
            slippage_ppm=values["slippage_ppm"],
            client_loss_ppm=values["client_loss_ppm"] or None,
            order_units_max=self._units("order_max", asset),
            band_units=self._units("band", asset) or 0,
            internalise=timedelta(seconds=values["internalise_seconds"]),
            urgent_units=self._units("urgent", asset),
            pace=self._pace(asset),
            legs_max=values["legs_max"],
            residual_max=self._units("residual_max", asset),
            unsettled_max=values["unsettled_max"],
        )

    def sizes(self, asset: Asset) -> SizeLimits:
        """Return what prices are made for."""
        return SizeLimits(
            units_min=self._units("quote_min", asset) or 1,
            units_max=self._units("quote_max", asset),
        )

    def skew(self, asset: Asset) -> SkewPolicy | None:
        """Return how prices lean against the position; None: they do not."""
        full = self._units("skew_full", asset)
        return None if not full else SkewPolicy(full_units=full, ppm_max=self.values["skew_ppm"])

    def _pace(self, asset: Asset) -> PacePolicy | None:
        if not self.values["pace_seconds"]:
            return None
        return PacePolicy(
            paced_from=self._units("pace_from", asset) or 0,
            duration=timedelta(seconds=self.values["pace_seconds"]),
            slice_units=self._units("slice", asset) or 0,
        )

    def _units(self, key: str, asset: Asset) -> int | None:
        text = self.values[key]
        if not text:
            return None
        units = asset.parse(text)
        if units < 0:
            raise BadInput(f"{key} of line {self.name} is {text}", remedy="Write no sign")
        return units


def parse_desk(table: object, path: Path) -> DeskSection | None:
    """Check the ``[desk]`` that was read from *path*; None: there is none, so no desk is run.

    Raises:
        BadInput: names the key that is unknown or of another kind.
    """
    if table is None:
        return None
    where = f"{path}: [{DESK}]"
    values = values_of(table, _DEFAULTS, frozenset(), where)
    for key, limits in _NUMBERS.items():
        require_number(key, values[key], limits, where)
    for key in ("hedges", "quotes"):
        require_switch(key, values[key], where)
    return DeskSection(
        hedges=values["hedges"],
        quotes=values["quotes"],
        pause=timedelta(milliseconds=values["pause_ms"]),
        quote_policy=QuotePolicy(
            book_age_max=timedelta(milliseconds=values["quote_book_age_ms"]),
            venues_min=values["quote_venues_min"],
            width_ppm_max=values["quote_width_ppm"],
            slippage_ppm_max=values["quote_slippage_ppm"],
        ),
    )


def parse_hedges(tables: object, desk: DeskSection | None, path: Path) -> tuple[HedgeSection, ...]:
    """Check the ``[[hedge]]`` that were read from *path*.

    Raises:
        BadInput: names the key that is missing, unknown or of another kind; or there is no desk.
    """
    found = several(
        tables,
        lambda table: _parse_hedge(table, path),
        lambda section: section.name,
        path,
        missing=f"write [[{HEDGES}]] for each line",
        twice="two sections are of the same line",
    )
    if found and desk is None:
        raise BadInput(
            f"the house file has [[{HEDGES}]] and no [{DESK}]",
            where=str(path),
            remedy=f"Write [{DESK}], or take the lines out",
        )
    return found


def _parse_hedge(table: object, path: Path) -> HedgeSection:
    where = f"{path}: [[{HEDGES}]]"
    values = values_of(table, _HEDGE_DEFAULTS, _HEDGE_REQUIRED, where)
    for key in _HEDGE_REQUIRED:
        require_text(key, values[key], where, is_required=True)
    for key, limits in _HEDGE_NUMBERS.items():
        require_number(key, values[key], limits, where)
    for key in _AMOUNTS:
        require_text(key, values[key], where, is_required=False)
    return HedgeSection(desk=values["desk"], asset=values["asset"], values=values)
