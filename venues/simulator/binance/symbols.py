"""Instruments and their filters as exchangeInfo shows them. Pure.

Only filters that are enforced are announced. Source: binance-spot-api-docs, filters.md.
"""

from typing import Final

from venues.simulator.binance.wire import Json, quantity_text
from venues.simulator.decimals import text_from_units
from venues.simulator.model import SymbolSpec

PRICE_MAX_TICKS: Final = 10**12
ICEBERG_PARTS_MAX: Final = 100
AMENDS_MAX: Final = 10
TRAILING_DELTA_MIN: Final = 10
TRAILING_DELTA_MAX: Final = 2_000
ORDER_TYPES: Final = (
    "LIMIT",
    "LIMIT_MAKER",
    "MARKET",
    "STOP_LOSS",
    "STOP_LOSS_LIMIT",
    "TAKE_PROFIT",
    "TAKE_PROFIT_LIMIT",
)
PREVENTION_MODES: Final = ("NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT")
PREVENTION_DEFAULT: Final = "EXPIRE_MAKER"


def symbol_info(spec: SymbolSpec) -> Json:
    """One entry of exchangeInfo's `symbols`."""
    return {
        "symbol": spec.name,
        "status": "TRADING",
        "baseAsset": spec.base,
        "baseAssetPrecision": 8,
        "quoteAsset": spec.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": list(ORDER_TYPES),
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "opoAllowed": False,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "amendAllowed": True,
        "pegInstructionsAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": filters(spec),
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": PREVENTION_DEFAULT,
        "allowedSelfTradePreventionModes": list(PREVENTION_MODES),
    }


def filters(spec: SymbolSpec) -> list[Json]:
    """The symbol's filters."""
    lot = text_from_units(spec.lot_units)
    lots = {"minQty": lot, "maxQty": quantity_text(spec, spec.max_lots), "stepSize": lot}
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": text_from_units(spec.tick_units),
            "maxPrice": text_from_units(spec.tick_units * PRICE_MAX_TICKS),
            "tickSize": text_from_units(spec.tick_units),
        },
        {"filterType": "LOT_SIZE", **lots},
        {"filterType": "ICEBERG_PARTS", "limit": ICEBERG_PARTS_MAX},
        {"filterType": "MARKET_LOT_SIZE", **lots},
        {
            "filterType": "TRAILING_DELTA",
            "minTrailingAboveDelta": TRAILING_DELTA_MIN,
            "maxTrailingAboveDelta": TRAILING_DELTA_MAX,
            "minTrailingBelowDelta": TRAILING_DELTA_MIN,
            "maxTrailingBelowDelta": TRAILING_DELTA_MAX,
        },
        {
            "filterType": "NOTIONAL",
            "minNotional": text_from_units(spec.min_notional_units),
            "applyMinToMarket": True,
            "maxNotional": "9000000000.00000000",
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
        {"filterType": "MAX_NUM_ORDER_AMENDS", "maxNumOrderAmends": AMENDS_MAX},
    ]
