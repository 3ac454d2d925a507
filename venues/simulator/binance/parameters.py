"""Reading request parameters: texts, numbers, flags, lists, markets. Pure."""

import re
from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeVar

import orjson

from venues.simulator.binance.refusals import ApiError, illegal_characters, missing
from venues.simulator.market import Market
from venues.simulator.state import VenueState

_INTEGER: Final = re.compile(r"[0-9]{1,20}")
_SYMBOL: Final = re.compile(r"[A-Z0-9-_.]{1,20}")
_CLIENT_ID_LEGAL: Final = r"^[\.A-Z\:/a-z0-9_-]{1,36}$"
_CLIENT_ID: Final = re.compile(_CLIENT_ID_LEGAL)

Parameters = Mapping[str, str]
_E = TypeVar("_E", bound=Enum)


def text(sent: Parameters, name: str) -> str:
    """A mandatory text.

    Raises:
        ApiError: -1102 when it is absent or empty.
    """
    value = sent.get(name, "")
    if not value:
        raise missing(name)
    return value


def integer(sent: Parameters, name: str) -> int:
    """A mandatory whole number.

    Raises:
        ApiError: -1102 when it is absent, -1100 when it is no number.
    """
    value = text(sent, name)
    if _INTEGER.fullmatch(value) is None:
        raise illegal_characters(name, "^[0-9]{1,20}$")
    return int(value)


def optional_integer(sent: Parameters, name: str, default: int) -> int:
    """A whole number, or the default when it is absent."""
    return integer(sent, name) if name in sent else default


def maybe_integer(sent: Parameters, name: str) -> int | None:
    """A whole number, or None when it is absent."""
    return integer(sent, name) if name in sent else None


def flag(sent: Parameters, name: str, *, default: bool = False) -> bool:
    """A truth value, or the default when it is absent.

    Raises:
        ApiError: -1130 for anything but `true` and `false`.
    """
    value = sent.get(name, "").lower()
    if value not in ("", "true", "false"):
        raise ApiError(-1130, f"Data sent for parameter '{name}' is not valid.")
    return value == "true" if value else default


def chosen(sent: Parameters, name: str, legal: tuple[str, ...], default: str = "") -> str:
    """One of a few texts, or the default when it is absent.

    Raises:
        ApiError: -1130.
    """
    value = sent.get(name, "")
    if value and value not in legal:
        raise ApiError(-1130, f"Data sent for parameter '{name}' is not valid.")
    return value or default


def member(sent: Parameters, name: str, kind: type[_E], code: int, what: str) -> _E:
    """A mandatory member of an enumeration, by its name.

    Raises:
        ApiError: -1102, or the code given for an unknown name of `what`.
    """
    try:
        return kind[text(sent, name)]
    except KeyError:
        raise ApiError(code, f"Invalid {what}.") from None


def client_id(sent: Parameters, name: str, fallback: str) -> str:
    """A client id, or the fallback when there is none.

    Raises:
        ApiError: -1100 for an illegal one.
    """
    value = sent.get(name) or fallback
    if _CLIENT_ID.fullmatch(value) is None:
        raise illegal_characters(name, _CLIENT_ID_LEGAL)
    return value


def market_of(state: VenueState, sent: Parameters) -> Market:
    """The market a request names.

    Raises:
        ApiError: -1102, -1100 or -1121.
    """
    return market_named(state, text(sent, "symbol"), "symbol")


def market_named(state: VenueState, name: str, parameter: str) -> Market:
    """A market by its name.

    Raises:
        ApiError: -1100 or -1121.
    """
    if _SYMBOL.fullmatch(name) is None:
        raise illegal_characters(parameter, "^[A-Z0-9-_.]{1,20}$")
    market = state.markets.get(name)
    if market is None:
        raise ApiError(-1121, "Invalid symbol.")
    return market


def markets_of(state: VenueState, sent: Parameters) -> list[Market]:
    """The markets named by `symbol` or by the JSON list `symbols`; all when there is neither.

    Raises:
        ApiError: -1128 for both at once, -1135, -1100, -1121.
    """
    if "symbol" in sent and "symbols" in sent:
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    if "symbol" in sent:
        return [market_of(state, sent)]
    if "symbols" in sent:
        return [market_named(state, name, "symbols") for name in names(sent, "symbols")]
    return list(state.markets.values())


def names(sent: Parameters, name: str) -> list[str]:
    """A JSON list of texts.

    Raises:
        ApiError: -1135.
    """
    try:
        value = orjson.loads(sent[name])
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ApiError(-1135, f"JSON sent for parameter '{name}' is not valid")
    return value


def within(sent: Parameters, at_ms: int) -> bool:
    """Whether a time lies between `startTime` and `endTime`, where they are sent."""
    start_ms = optional_integer(sent, "startTime", 0)
    return start_ms <= at_ms <= optional_integer(sent, "endTime", at_ms)
