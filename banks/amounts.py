"""Amounts as banks write them: decimals of a currency, never more than it has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kernel.errors import BadInput
from kernel.money import Asset

PLACES: Final = 2
_WHOLE: Final = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"
_THOUSANDTHS: Final = "BHD IQD JOD KWD LYD OMR TND"
OTHER_PLACES: Final[Mapping[str, int]] = {
    **dict.fromkeys(_WHOLE.split(), 0),
    **dict.fromkeys(_THOUSANDTHS.split(), 3),
}
"""Decimal places of currencies that do not have two (ISO 4217)."""
DIGITS_MAX: Final = 18
"""ActiveOrHistoricCurrencyAndAmount of ISO 20022: 18 digits altogether."""


def places_of(currency: str) -> int:
    """Return how many decimal places a currency has."""
    return OTHER_PLACES.get(currency, PLACES)


def is_payable(amount: int, asset: Asset) -> bool:
    """Tell whether a bank can be told an amount; see `decimal_text`."""
    coins, rest = divmod(amount * 10 ** places_of(asset.code), 10**asset.scale)
    return amount > 0 and not rest and len(str(coins)) <= DIGITS_MAX


def decimal_text(amount: int, asset: Asset) -> str:
    """Return smallest units of an asset as the decimal that a bank is told, exactly.

    Raises:
        BadInput: it has pieces of the currency's smallest coin, or more digits than there is room for.
    """
    places = places_of(asset.code)
    if not is_payable(amount, asset):
        raise BadInput(
            f"{amount} smallest units of {asset.code} are no amount that a bank can pay",
            remedy=f"Pay a whole number of its coins: {asset.code} has {places} places",
        )
    coins = amount * 10**places // 10**asset.scale
    if not places:
        return str(coins)
    return f"{coins // 10**places}.{coins % 10**places:0{places}}"


def require_payable(amount: int, asset: Asset) -> None:
    """Refuse an amount that no bank could be told; see `decimal_text`."""
    decimal_text(amount, asset)
