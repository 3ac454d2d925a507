"""Rules as a document: the file that people write, and the JSON that is stored and signed. Pure.

A file says amounts as decimals of the assets::

    {"window_s": 3600, "lifetime_s": 43200, "transfers_max": 100,
     "bands": [
       {"wallet": "client-pool", "asset": "ETH", "tier": "hot",
        "minimum": "2", "target": "5", "maximum": "8", "cap": "20"},
       {"wallet": "client-vault", "asset": "ETH", "tier": "cold",
        "minimum": "0", "target": "100", "maximum": "100000"}],
     "sweeps": [
       {"wallet": "client-pool", "asset": "USDT", "minimum": "50", "fee_max": "0.002"}],
     "consolidations": [
       {"wallet": "btc-pool", "asset": "BTC", "below": "0.01", "rate_max": 5000,
        "coins_min": 20, "inputs_max": 100}]}

Rates are satoshi for 1,000 virtual bytes: 5000 is 5 sat/vB. What is stored says them in smallest units.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from custody.bitcoin.spend_model import INPUTS_MAX
from custody.rebalance.model import (
    COINS_MIN,
    LIFETIME,
    TRANSFERS,
    WINDOW,
    Band,
    ConsolidationRule,
    RebalanceRules,
    SweepRule,
    Tier,
)
from kernel.errors import BadInput
from kernel.money import Asset

_FIELDS: Final = frozenset(
    {"window_s", "lifetime_s", "transfers_max", "bands", "sweeps", "consolidations"}
)
_BAND: Final = frozenset({"wallet", "asset", "tier", "minimum", "target", "maximum", "cap"})
_SWEEP: Final = frozenset({"wallet", "asset", "minimum", "fee_max"})
_CONSOLIDATION: Final = frozenset(
    {"wallet", "asset", "below", "rate_max", "coins_min", "inputs_max"}
)

Read = Callable[[str, Any, str], int]


def parse_rules(
    text: str, version: int, assets: Mapping[str, Asset], natives: Mapping[str, str]
) -> RebalanceRules:
    """Read a file of rules.

    Args:
        text: JSON.
        version: the version that they get.
        assets: the registered assets by code.
        natives: the native asset of each wallet's chain, by wallet.

    Raises:
        BadInput: names the rule and the field.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BadInput(f"the rules are not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadInput("rules are an object with bands and sweeps")

    def decimal(asset: str, value: Any, what: str) -> int:
        if asset not in assets:
            raise BadInput(f"the {what} is in {asset!r}, which is not registered")
        if not isinstance(value, str):
            raise BadInput(f"the {what} is {value!r}", remedy='Write it as text: "100.00"')
        return assets[asset].parse(value)

    def native(wallet: str) -> str:
        if wallet not in natives:
            raise BadInput(f"wallet {wallet!r} is not registered")
        return natives[wallet]

    for item in document.get("bands", []):
        native(str(item.get("wallet")) if isinstance(item, dict) else "")
    return _read(version, document, decimal, native)


def to_document(rules: RebalanceRules) -> dict[str, Any]:
    """Return the rules as JSON values: what is stored and what the second person signs."""
    return {
        "window_s": int(rules.window.total_seconds()),
        "lifetime_s": int(rules.lifetime.total_seconds()),
        "transfers_max": rules.transfers_max,
        "bands": [
            {
                "wallet": band.wallet,
                "asset": band.asset,
                "tier": str(band.tier),
                "minimum": str(band.minimum),
                "target": str(band.target),
                "maximum": str(band.maximum),
                "cap": None if band.cap is None else str(band.cap),
            }
            for band in rules.bands
        ],
        "sweeps": [
            {
                "wallet": rule.wallet,
                "asset": rule.asset,
                "minimum": str(rule.minimum),
                "fee_max": str(rule.fee_max),
            }
            for rule in rules.sweeps
        ],
        "consolidations": [
            {
                "wallet": rule.wallet,
                "asset": rule.asset,
                "below": str(rule.below),
                "rate_max": rule.rate_max,
                "coins_min": rule.coins_min,
                "inputs_max": rule.inputs_max,
            }
            for rule in rules.consolidations
        ],
    }


def from_document(version: int, document: Mapping[str, Any]) -> RebalanceRules:
    """Return the rules that `to_document` wrote."""
    return _read(version, document, lambda _, value, __: int(value), lambda _: "")


def _read(
    version: int, document: Mapping[str, Any], units: Read, native: Callable[[str], str]
) -> RebalanceRules:
    _require_known("the rules", document, _FIELDS)
    bands = [_band(n, item, units) for n, item in enumerate(_list(document, "bands"), start=1)]
    sweeps = [
        _sweep(n, item, units, native) for n, item in enumerate(_list(document, "sweeps"), start=1)
    ]
    return RebalanceRules(
        version=version,
        bands=tuple(bands),
        sweeps=tuple(sweeps),
        consolidations=tuple(
            _consolidation(n, item, units)
            for n, item in enumerate(_list(document, "consolidations"), start=1)
        ),
        window=_seconds(document, "window_s", WINDOW),
        lifetime=_seconds(document, "lifetime_s", LIFETIME),
        transfers_max=_whole(document, "transfers_max", TRANSFERS),
    )


def _band(number: int, item: Any, units: Read) -> Band:
    what = f"band {number}"
    _require_known(what, item, _BAND)
    asset, tier = str(item.get("asset", "")), item.get("tier")
    if tier not in set(Tier):
        raise BadInput(f"{what} has the tier {tier!r}", remedy="Write hot, warm or cold")
    return Band(
        wallet=str(item.get("wallet", "")),
        asset=asset,
        tier=Tier(tier),
        minimum=units(asset, item.get("minimum"), f"minimum of {what}"),
        target=units(asset, item.get("target"), f"target of {what}"),
        maximum=units(asset, item.get("maximum"), f"maximum of {what}"),
        cap=None if item.get("cap") is None else units(asset, item["cap"], f"cap of {what}"),
    )


def _sweep(number: int, item: Any, units: Read, native: Callable[[str], str]) -> SweepRule:
    what = f"sweep {number}"
    _require_known(what, item, _SWEEP)
    wallet, asset = str(item.get("wallet", "")), str(item.get("asset", ""))
    return SweepRule(
        wallet=wallet,
        asset=asset,
        minimum=units(asset, item.get("minimum"), f"minimum of {what}"),
        fee_max=units(native(wallet), item.get("fee_max"), f"highest fee of {what}"),
    )


def _consolidation(number: int, item: Any, units: Read) -> ConsolidationRule:
    what = f"consolidation {number}"
    _require_known(what, item, _CONSOLIDATION)
    asset = str(item.get("asset", ""))
    return ConsolidationRule(
        wallet=str(item.get("wallet", "")),
        asset=asset,
        below=units(asset, item.get("below"), f"upper end of {what}"),
        rate_max=_whole(item, "rate_max", 0),
        coins_min=_whole(item, "coins_min", COINS_MIN),
        inputs_max=_whole(item, "inputs_max", INPUTS_MAX),
    )


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    found = document.get(name, [])
    if not isinstance(found, list):
        raise BadInput(f"{name} of the rules is not a list")
    return found


def _require_known(what: str, item: Any, known: frozenset[str]) -> None:
    if not isinstance(item, Mapping):
        raise BadInput(f"{what} is not an object")
    unknown = sorted(set(item) - known)
    if unknown:
        raise BadInput(
            f"{what} has the field {unknown[0]!r}", remedy=f"Known are {', '.join(sorted(known))}"
        )


def _whole(document: Mapping[str, Any], name: str, default: int) -> int:
    value = document.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadInput(f"{name} is {value!r}, not a whole number")
    return value


def _seconds(document: Mapping[str, Any], name: str, default: timedelta) -> timedelta:
    return timedelta(seconds=_whole(document, name, int(default.total_seconds())))
