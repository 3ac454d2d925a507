"""What amounts are worth in one currency, always rounded against us. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kernel.money import Asset, Price, Rounding
from risk.errors import NotValued
from risk.model import Amount


@dataclass(frozen=True, slots=True)
class Worth:
    """Prices in one currency, by the code of their base asset.

    Attributes:
        currency: its code; an amount of it is worth itself.
        money: the currency itself, to say amounts with; None: it is not registered.
    """

    currency: str
    prices: Mapping[str, Price]
    money: Asset | None = None

    def text(self, units: int) -> str:
        """Return what something is worth as people say it."""
        if self.money is None:
            return f"{units} smallest units of {self.currency}"
        return self.money.format(units)

    def has(self, asset: str) -> bool:
        """Tell whether amounts of *asset* can be valued."""
        return asset == self.currency or asset in self.prices

    def of(self, asset: str, units: int) -> int:
        """Return what *units* are worth, rounded away from zero.

        Raises:
            NotValued: the asset has no price; nothing of it is worth nothing.
        """
        if asset == self.currency or units == 0:
            return units
        price = self.prices.get(asset)
        if price is None:
            raise NotValued(asset, self.currency)
        return price.to_quote(units, Rounding.UP)

    def total(self, amounts: Iterable[Amount]) -> int:
        """Return the sum of what each of *amounts* is worth.

        Raises:
            NotValued: one has no price.
        """
        return sum(self.of(asset, units) for asset, units in amounts)
