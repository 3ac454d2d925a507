"""A request as an endpoint sees it, whichever way it came: REST or the WebSocket API."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, unique
from typing import Any, Final

import msgspec

from venues.simulator.binance import parameters
from venues.simulator.binance.rates import Limits
from venues.simulator.core import VenueCore
from venues.simulator.market import Market
from venues.simulator.model import ApiKeySpec
from venues.simulator.state import Account

PAGE_DEFAULT: Final = 500
PAGE_MAX: Final = 1_000


@unique
class Needs(Enum):
    """What a request must carry, and what its key must be allowed to."""

    NOTHING = ""
    READ = "read"
    TRADE = "trade"
    WITHDRAW = "withdraw"


class Call(msgspec.Struct, frozen=True):
    """A request whose identity and time are already checked."""

    core: VenueCore
    limits: Limits
    sent: Mapping[str, str]
    caller: Account | None
    caller_key: ApiKeySpec | None

    @property
    def account(self) -> Account:
        """The caller of a signed endpoint."""
        assert self.caller is not None
        return self.caller

    @property
    def key(self) -> ApiKeySpec:
        """The key a signed request was signed with."""
        assert self.caller_key is not None
        return self.caller_key

    @property
    def name(self) -> str:
        """The caller's name."""
        return self.account.spec.name

    def market(self) -> Market:
        """The market the request names.

        Raises:
            ApiError: -1102 or -1121.
        """
        return parameters.market_of(self.core.state, self.sent)

    def limit(self, default: int = PAGE_DEFAULT, maximum: int = PAGE_MAX) -> int:
        """The page size asked for, within bounds."""
        return min(parameters.optional_integer(self.sent, "limit", default), maximum)


Weight = int | Callable[[Mapping[str, str]], int]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What can be asked: over REST by method and path, over the WebSocket API by `socket` name.

    `orders` is how many new orders it counts as.
    """

    answer: Callable[[Call], Any]
    needs: Needs = Needs.NOTHING
    weight: Weight = 1
    orders: int = 0
    socket: str = ""

    def weight_of(self, sent: Mapping[str, str]) -> int:
        """The weight of a request with these parameters."""
        return self.weight if isinstance(self.weight, int) else self.weight(sent)
