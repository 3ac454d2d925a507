"""What an error means for the order: a table, because the classes of ccxt do not say.

ccxt raises `NetworkError` for requests that were surely refused (wrong timestamp, too many
requests) and other classes for requests that may have been accepted (-1006, 503). So the venue's
error code decides, and what is not in the table is *unknown*.

Codes: Binance, Spot API, "Error codes"; HTTP 418 and 429: same, "IP limits".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from venues.model import PlacementRefused, PlacementUnknown, RefusalKind

REASON_LENGTH_MAX: Final = 300

TOO_MANY_REQUESTS: Final = -1003
TOO_MANY_ORDERS: Final = -1015
CLOCK_IS_OFF: Final = -1021
NO_SUCH_ORDER: Final = -2013
CANCEL_REJECTED: Final = -2011
ORDER_REJECTED: Final = -2010
DUPLICATE: Final = "Duplicate order sent"

REFUSALS: Final = {
    -1002: RefusalKind.FINAL,  # not authorised
    TOO_MANY_REQUESTS: RefusalKind.BACK_OFF,
    -1013: RefusalKind.FINAL,  # fails a filter of the instrument
    -1014: RefusalKind.FINAL,  # unsupported combination of order fields
    TOO_MANY_ORDERS: RefusalKind.BACK_OFF,
    -1020: RefusalKind.FINAL,  # unsupported operation
    CLOCK_IS_OFF: RefusalKind.CLOCK,
    -1022: RefusalKind.FINAL,  # signature
    ORDER_REJECTED: RefusalKind.FINAL,  # unless it is a duplicate
    -2014: RefusalKind.FINAL,  # malformed key
    -2015: RefusalKind.FINAL,  # key, address or permission
}
"""Codes that prove that the order does not exist."""

MALFORMED: Final = range(-1199, -1099)
"""Codes -1100 to -1199: the request itself could not be read."""

REFUSING_MESSAGES: Final = {
    "Account has insufficient balance": RefusalKind.FINAL,
    "Order would trigger immediately": RefusalKind.FINAL,
    "Stop price would trigger immediately": RefusalKind.FINAL,
    "Order would immediately match and take": RefusalKind.FINAL,
    "Rest API trading is not enabled": RefusalKind.FINAL,
    "This account may not place or cancel orders": RefusalKind.FINAL,
    "You don't have permission": RefusalKind.FINAL,
    "You are not authorized": RefusalKind.FINAL,
    "API key does not exist": RefusalKind.FINAL,
    "Market is closed": RefusalKind.FINAL,
    "This action is disabled": RefusalKind.FINAL,
    "Limit orders require GTC": RefusalKind.FINAL,
    "This order type is not possible": RefusalKind.FINAL,
    "This symbol is": RefusalKind.FINAL,
    "has no operation privilege": RefusalKind.FINAL,
    "MAX_POSITION": RefusalKind.FINAL,
    "PERCENT_PRICE_BY_SIDE": RefusalKind.FINAL,
    "Too many requests. Please try again later": RefusalKind.BACK_OFF,
}
"""The venue's words for the same, where ccxt 4.5 passes on the message and drops the code
(`binance.exceptions`). Maintenance and "System abnormality" are not here: they prove nothing."""

_CODE: Final = re.compile(r'"code"\s*:\s*"?(-?\d+)')
_TOO_MUCH: Final = re.compile(r"^\w+ (418|429) ")
_SIGNATURE: Final = re.compile(r"signature=[0-9A-Za-z%+/=]+")


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception as a value: the names of its classes, most special first, and its text."""

    kinds: tuple[str, ...]
    text: str

    @property
    def code(self) -> int | None:
        """Return the venue's error code, if the text has one."""
        match = _CODE.search(self.text)
        return None if match is None else int(match[1])

    @property
    def reason(self) -> str:
        """Return what may be stored and shown: short, on one line, without the signature."""
        text = _SIGNATURE.sub("signature=…", " ".join(self.text.split()))
        return f"{self.kinds[0]}: {text}"[:REASON_LENGTH_MAX]


def failure_of(error: BaseException) -> Failure:
    """Return *error* as a value."""
    return Failure(tuple(kind.__name__ for kind in type(error).__mro__), str(error))


def classify_placement(failure: Failure) -> PlacementRefused | PlacementUnknown:
    """Return what a failed POST of an order proves, if anything."""
    if DUPLICATE in failure.text:
        return PlacementUnknown(f"the venue has an order of this id: {failure.reason}")
    code = failure.code
    if code in REFUSALS:
        return PlacementRefused(failure.reason, REFUSALS[code])
    if code in MALFORMED:
        return PlacementRefused(failure.reason)
    if code is None:
        for words, kind in REFUSING_MESSAGES.items():
            if words in failure.text and "BaseError" in failure.kinds:
                return PlacementRefused(failure.reason, kind)
    if "DDoSProtection" in failure.kinds and _TOO_MUCH.search(failure.text):
        return PlacementRefused(failure.reason, RefusalKind.BACK_OFF)
    return PlacementUnknown(failure.reason)


def says_no_such_order(failure: Failure) -> bool:
    """Tell whether a failed query is the venue's positive answer that there is no such order."""
    return failure.code == NO_SUCH_ORDER


def says_nothing_to_cancel(failure: Failure) -> bool:
    """Tell whether a failed cancel is the venue's answer that no such order is open."""
    return failure.code == CANCEL_REJECTED
