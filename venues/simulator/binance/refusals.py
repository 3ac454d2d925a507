"""What Binance answers when it refuses: a code, a message and a status.

Source of codes and messages: binance/binance-spot-api-docs, errors.md; the wallet API's -4xxx codes
from its documentation.
"""

from typing import Any, Final

from venues.simulator.errors import Refusal, VenueRefusal

_LEGAL_NUMBER: Final = r"^([0-9]{1,20})(\.[0-9]{1,20})?$"


class ApiError(Exception):
    """A request answered with an error body `{"code": code, "msg": text}` and sometimes `data`."""

    def __init__(self, code: int, text: str, status: int = 400, *, data: Any = None) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.status = status
        self.data = data


_SPELLED: Final[dict[Refusal, tuple[int, str]]] = {
    Refusal.OFF_GRID: (-1013, "Filter failure: LOT_SIZE"),
    Refusal.BELOW_MINIMUM: (-1013, "Filter failure: NOTIONAL"),
    Refusal.UNKNOWN_SYMBOL: (-1121, "Invalid symbol."),
    Refusal.UNKNOWN_ASSET: (-4018, "We don't have this asset."),
    Refusal.UNKNOWN_NETWORK: (-4019, "Current asset is not open for withdrawal."),
    Refusal.UNKNOWN_ORDER: (-2011, "Unknown order sent."),
    Refusal.UNKNOWN_WITHDRAWAL: (-4029, "The withdrawal record does not exist."),
    Refusal.UNKNOWN_ADDRESS: (-4033, "Illegal address."),
    Refusal.DUPLICATE_ORDER: (-2010, "Duplicate order sent."),
    Refusal.INSUFFICIENT_FUNDS: (-2010, "Account has insufficient balance for requested action."),
    Refusal.NO_LIQUIDITY: (-2010, "Order book liquidity is less than symbol minimum quantity."),
    Refusal.WOULD_TAKE: (-2010, "Order would immediately match and take."),
    Refusal.WOULD_TRIGGER: (-2010, "Stop price would trigger immediately."),
    Refusal.INVALID_AMENDMENT: (-2038, "The requested action would change no state; rejecting."),
    Refusal.INVALID_ORDER: (-1013, "The order's parameters contradict each other."),
}
_WITHDRAWAL: Final[dict[Refusal, tuple[int, str]]] = {
    Refusal.BELOW_MINIMUM: (-4022, "Not less than the minimum pick-up quantity."),
    Refusal.INSUFFICIENT_FUNDS: (-4026, "You have insufficient balance."),
}


def spelled(refusal: VenueRefusal, *, of_withdrawal: bool = False) -> ApiError:
    """The venue's refusal in Binance's words."""
    if refusal.refusal is Refusal.MALFORMED:
        return illegal_characters(refusal.subject, _LEGAL_NUMBER)
    if refusal.refusal is Refusal.TOO_PRECISE:
        return too_precise(refusal.subject)
    if of_withdrawal and refusal.refusal in _WITHDRAWAL:
        return ApiError(*_WITHDRAWAL[refusal.refusal])
    return ApiError(*_SPELLED[refusal.refusal])


def unknown_order_to_cancel() -> ApiError:
    """The order to cancel does not exist or is not open."""
    return ApiError(-2011, "Unknown order sent.")


def no_such_order() -> ApiError:
    """The order asked for does not exist."""
    return ApiError(-2013, "Order does not exist.")


def missing(parameter: str) -> ApiError:
    """A mandatory parameter is absent or empty."""
    return ApiError(
        -1102, f"Mandatory parameter '{parameter}' was not sent, was empty/null, or malformed."
    )


def illegal_characters(parameter: str, legal: str) -> ApiError:
    """A parameter does not have the form it must have."""
    return ApiError(
        -1100, f"Illegal characters found in parameter '{parameter}'; legal range is '{legal}'."
    )


def too_precise(parameter: str) -> ApiError:
    """A number has more decimals than the venue counts in."""
    return ApiError(-1111, f"Parameter '{parameter}' has too much precision.")


def filter_failure(name: str) -> ApiError:
    """An order broke one of the symbol's filters."""
    return ApiError(-1013, f"Filter failure: {name}")
