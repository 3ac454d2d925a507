"""What every part of the Kraken dialect shares, and a request that is known to be allowed."""

import hashlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from venues.simulator.core import VenueCore
from venues.simulator.decimals import UNIT
from venues.simulator.dialect import Venue
from venues.simulator.kraken import errors, numbers
from venues.simulator.kraken.auth import Nonces
from venues.simulator.kraken.counters import Limits, Tier
from venues.simulator.kraken.errors import KrakenRefusal, invalid
from venues.simulator.kraken.names import Directory, Pair
from venues.simulator.market import Market
from venues.simulator.state import Account

SPREADS_MAX: Final = 200
TOKEN_MS: Final = 15 * 60 * 1000

Spread = tuple[int, int, int]


@dataclass(slots=True)
class Token:
    """What opens private streams: good for a quarter of an hour, or as long as a stream uses it."""

    api_key: str
    until_ms: int
    is_used: bool = False


@dataclass(slots=True)
class Kraken:
    """The dialect's own memory beside the core's state; all of it may be lost by a restart."""

    venue: Venue
    directory: Directory
    limits: Limits
    nonces: Nonces = field(default_factory=Nonces)
    tokens: dict[str, Token] = field(default_factory=dict)
    spreads: dict[str, deque[Spread]] = field(default_factory=dict)

    @classmethod
    def of(cls, venue: Venue) -> "Kraken":
        """The memory of a dialect that just started."""
        state = venue.core.state
        directory = Directory(state.genesis.symbols, state.assets)
        limits = Limits(Tier.INTERMEDIATE, enforced=venue.settings.enforce_weight)
        return cls(venue, directory, limits)

    @property
    def core(self) -> VenueCore:
        """The exchange."""
        return self.venue.core

    def market(self, pair: Pair) -> Market:
        """The market of a pair."""
        return self.core.state.markets[pair.spec.name]

    def note_spread(self, market: str, spread: Spread) -> None:
        """Remember a best bid and ask as they were just published."""
        self.spreads.setdefault(market, deque(maxlen=SPREADS_MAX)).append(spread)

    def new_token(self, api_key: str, now_ms: int) -> str:
        """A token for private streams."""
        self.tokens = {
            text: t for text, t in self.tokens.items() if t.is_used or t.until_ms > now_ms
        }
        seed = f"{self.core.state.genesis.seed}/{api_key}/{now_ms}/{len(self.tokens)}"
        text = hashlib.sha256(seed.encode()).hexdigest()[:43]
        self.tokens[text] = Token(api_key, now_ms + TOKEN_MS)
        return text


@dataclass(frozen=True, slots=True)
class Call:
    """A request with its parameters, and whose it is if it is private."""

    kraken: Kraken
    sent: Mapping[str, Any]
    caller: Account | None = None
    api_key: str = ""

    @property
    def core(self) -> VenueCore:
        """The exchange."""
        return self.kraken.core

    @property
    def account(self) -> Account:
        """The account of a private request."""
        assert self.caller is not None
        return self.caller

    @property
    def name(self) -> str:
        """The account's name."""
        return self.account.spec.name

    def has(self, name: str) -> bool:
        """Whether a parameter was sent with something in it."""
        return self.sent.get(name) not in (None, "")

    def text(self, name: str) -> str:
        """A mandatory text.

        Raises:
            KrakenRefusal: it is missing.
        """
        value = self.sent.get(name)
        if value in (None, "") or isinstance(value, list | dict):
            raise invalid(name)
        return str(value)

    def optional_text(self, name: str, default: str = "") -> str:
        """A text, or the default."""
        return self.text(name) if self.has(name) else default

    def flag(self, name: str) -> bool:
        """Whether a yes-or-no parameter says yes."""
        return str(self.sent.get(name, "")).lower() in ("true", "1")

    def integer(self, name: str, default: int) -> int:
        """A whole number that may be written with a fraction of zero, or the default.

        Raises:
            KrakenRefusal: it is no whole number.
        """
        if not self.has(name):
            return default
        units = numbers.units_of(self.text(name))
        if units is None:
            raise invalid(name)
        return units // UNIT

    def pair(self, name: str = "pair") -> Pair:
        """The pair a parameter names.

        Raises:
            KrakenRefusal: there is no such pair.
        """
        found = self.kraken.directory.find(self.text(name))
        if found is None:
            raise KrakenRefusal(errors.UNKNOWN_PAIR)
        return found

    def pairs(self) -> list[Pair]:
        """The pairs a list of names means; all of them without a list.

        Raises:
            KrakenRefusal: one is unknown.
        """
        if not self.has("pair"):
            return list(self.kraken.directory.pairs)
        found = [self.kraken.directory.find(name) for name in self.text("pair").split(",")]
        if None in found:
            raise KrakenRefusal(errors.UNKNOWN_PAIR)
        return [pair for pair in found if pair is not None]

    def asset(self, unknown: str = errors.UNKNOWN_ASSET) -> str:
        """The usual code of the asset a request names.

        Raises:
            KrakenRefusal: there is no such asset.
        """
        code = self.kraken.directory.find_asset(self.text("asset"))
        if code is None:
            raise KrakenRefusal(unknown)
        return code
