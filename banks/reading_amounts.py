"""Amounts as banks write them, read into smallest units, exactly. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from banks.errors import FileUnreadable
from kernel.errors import BadInput
from kernel.money import Asset


def units(text: str, currency: str, assets: Mapping[str, Asset]) -> int:
    """Return a decimal of *currency* in smallest units.

    Raises:
        FileUnreadable: the currency is not an asset of the registry, or the text has more places.
    """
    asset = assets.get(currency)
    if asset is None:
        raise FileUnreadable(f"the currency {currency!r} is not in the registry")
    try:
        # XML Schema allows "+5", "5." and ".5" as decimals.
        sign, number = ("-", text.strip()[1:]) if text.strip()[:1] == "-" else ("", text.strip())
        whole, point, fraction = number.removeprefix("+").partition(".")
        return asset.parse(f"{sign}{whole or '0'}{point and '.'}{fraction or (point and '0')}")
    except BadInput as error:
        raise FileUnreadable(f"{text!r} is not an amount of {currency}: {error.what}") from error
