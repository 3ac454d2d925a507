"""How Kraken spells assets and pairs.

An old asset has a code of four letters (`XXBT`, `ZUSD`) beside its altname (`XBT`, `USD`); a newer
one has one name for both. A pair of two old assets is named by the codes (`XXBTZUSD`), any other one
by the altnames; its altname (`XBTUSD`) and its `wsname` (`XBT/USD`) are made of altnames, and WebSocket
v2 says `BTC/USD`. Source: docs.kraken.com, Get Tradable Asset Pairs; Get Asset Info; WebSocket v2 FAQ.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from venues.simulator.model import AssetSpec, SymbolSpec

# Usual code -> (REST code, altname).
_OLD: Final = {
    "BTC": ("XXBT", "XBT"),
    "ETH": ("XETH", "ETH"),
    "LTC": ("XLTC", "LTC"),
    "XRP": ("XXRP", "XRP"),
    "DOGE": ("XXDG", "XDG"),
    "XLM": ("XXLM", "XLM"),
    "XMR": ("XXMR", "XMR"),
    "ETC": ("XETC", "ETC"),
    "ZEC": ("XZEC", "ZEC"),
    "USD": ("ZUSD", "USD"),
    "EUR": ("ZEUR", "EUR"),
    "GBP": ("ZGBP", "GBP"),
    "CAD": ("ZCAD", "CAD"),
    "JPY": ("ZJPY", "JPY"),
    "AUD": ("ZAUD", "AUD"),
}

# Pairs that were named before the rule.
_IRREGULAR: Final = {("USDT", "USD"): "USDTZUSD"}


def asset_id(code: str) -> str:
    """The REST code of an asset: `XXBT` for BTC."""
    return _OLD[code][0] if code in _OLD else code


def altname(code: str) -> str:
    """The altname of an asset: `XBT` for BTC."""
    return _OLD[code][1] if code in _OLD else code


@dataclass(frozen=True, slots=True)
class Pair:
    """A market in all of its spellings. `index` is its place among the venue's markets."""

    index: int
    spec: SymbolSpec

    @property
    def id(self) -> str:
        """The key in REST answers."""
        base, quote = self.spec.base, self.spec.quote
        if (base, quote) in _IRREGULAR:
            return _IRREGULAR[base, quote]
        if base in _OLD and quote in _OLD:
            return asset_id(base) + asset_id(quote)
        return self.altname

    @property
    def altname(self) -> str:
        """The name in orders and trades over REST."""
        return altname(self.spec.base) + altname(self.spec.quote)

    @property
    def wsname(self) -> str:
        """The name on WebSocket v1, told by REST."""
        return f"{altname(self.spec.base)}/{altname(self.spec.quote)}"

    @property
    def symbol(self) -> str:
        """The name on WebSocket v2."""
        return f"{self.spec.base}/{self.spec.quote}"


class Directory:
    """Finds pairs and assets by any of their names."""

    def __init__(self, symbols: tuple[SymbolSpec, ...], assets: Mapping[str, AssetSpec]) -> None:
        self.pairs = tuple(Pair(index, spec) for index, spec in enumerate(symbols))
        self._of_market = {pair.spec.name: pair for pair in self.pairs}
        self._by_name: dict[str, Pair] = {}
        for pair in self.pairs:
            for name in (pair.id, pair.altname, pair.wsname, pair.symbol):
                self._by_name[name] = pair
        self._by_symbol = {pair.symbol: pair for pair in self.pairs}
        self._assets: dict[str, str] = {}
        for code in assets:
            for name in (code, asset_id(code), altname(code)):
                self._assets[name] = code

    def of_market(self, market: str) -> Pair:
        """The pair of a market of the core."""
        return self._of_market[market]

    def find(self, name: str) -> Pair | None:
        """The pair of any spelling, or None."""
        return self._by_name.get(name)

    def find_symbol(self, symbol: str) -> Pair | None:
        """The pair of a WebSocket v2 symbol, or None."""
        return self._by_symbol.get(symbol)

    def find_asset(self, name: str) -> str | None:
        """The usual code of an asset's any spelling, or None."""
        return self._assets.get(name)
