"""What a venue can do, as data: whoever needs to know asks the record, never for the venue's name.

A record says how the venue names orders and trades, until when it may accept a request, how much
it may be asked, what it can be asked at all, and what its error codes prove. With a record and the
id of a ccxt class a venue is complete: see ``docs/adding-a-venue.md``. The records are in
`venues.records`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum, unique
from typing import Any, Final
from uuid import UUID

from kernel.errors import BadInput
from matching.model import TimeInForce
from venues.model import OrderKind, RefusalKind

CLIENT_ID_PREFIX_MAX: Final = 4


@unique
class Expiry(StrEnum):
    """How a request says until when it may be accepted."""

    RECV_WINDOW = "recv-window"
    """The time of signing and how long after it: a later arrival is refused."""
    DEADLINE = "deadline"
    """A moment of the venue's clock after which the order is not booked any more."""
    NONE = "none"
    """Not at all: silence never proves that an order was not placed."""


@unique
class ClientIdScope(StrEnum):
    """Among which orders of an account a client order id can be used only once."""

    OPEN = "open"
    EVER = "ever"


@unique
class TradeIdScope(StrEnum):
    """Within what a trade id names one trade."""

    SYMBOL = "symbol"
    VENUE = "venue"


@unique
class BookRule(StrEnum):
    """How an order book is put together."""

    SNAPSHOT_AND_DIFF = "rest-snapshot+diff"
    STREAM_CHECKSUM = "stream-snapshot+checksum"
    STREAM_SEQUENCE = "stream-snapshot+sequence"
    POLL = "rest-poll"
    """Asked for again and again; good enough to trade, not to record."""


@unique
class CallClass(StrEnum):
    """What a request is about, for its weight and its place in the queue."""

    PLACE = "place"
    CANCEL = "cancel"
    CANCEL_ALL = "cancel-all"
    FIND = "find"
    LIST_OPEN = "list-open"
    LIST_OPEN_ALL = "list-open-all"
    LIST_RECENT = "list-recent"
    FILLS = "fills"
    BALANCES = "balances"
    MARKETS = "markets"
    CLOCK = "clock"
    KEY = "key"
    TREASURY = "treasury"
    """Deposits and withdrawals: everything asked with the withdrawal key."""
    BOOK = "book"
    """A whole public book, to stitch a stream of updates to."""
    BOOK_CHECK = "book-check"
    """The top of a public book, to compare with ours."""
    PAST_TRADES = "past-trades"
    PAST_CANDLES = "past-candles"


@unique
class Refill(StrEnum):
    """How a bucket empties again."""

    WINDOW = "window"
    """All at once when the next whole period of the clock begins."""
    STEADY = "steady"
    """Little by little, the whole capacity in a period."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketRule:
    """One limit of a venue: at most `capacity` of weight in `period`.

    Attributes:
        name: how `RateLimits.costs` and `used_header` speak of it.
        used_header: response header with the weight used in this period, if the venue tells.
        cancel_reserve: what of the capacity only cancels may use.
        order_reserve: what of the rest orders may use and reads may not.
    """

    name: str
    capacity: int
    period: timedelta
    refill: Refill
    cancel_reserve: int = 0
    order_reserve: int = 0
    used_header: str = ""

    def __post_init__(self) -> None:
        reserved = self.cancel_reserve + self.order_reserve
        if min(self.cancel_reserve, self.order_reserve) < 0 or reserved >= self.capacity:
            raise BadInput(f"bucket {self.name} reserves {reserved} of {self.capacity}")
        if self.period <= timedelta(0):
            raise BadInput(f"bucket {self.name} has no period")


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """What may be asked of a venue.

    Attributes:
        buckets: every limit that a request counts against.
        costs: weight of a call class by the name of the bucket; a class that is not named is free.
        back_off: how long to be silent after a refusal that names no time.
    """

    buckets: tuple[BucketRule, ...]
    costs: Mapping[CallClass, Mapping[str, int]]
    back_off: timedelta = timedelta(seconds=10)

    def __post_init__(self) -> None:
        capacities = {bucket.name: bucket.capacity for bucket in self.buckets}
        for call, costs in self.costs.items():
            for name, weight in costs.items():
                if not 0 <= weight <= capacities.get(name, -1):
                    raise BadInput(f"{call} costs {weight} of bucket {name}, which cannot be")


@unique
class Proof(StrEnum):
    """What an error of a query or a cancel proves."""

    NO_SUCH_ORDER = "no-such-order"
    NOTHING_TO_CANCEL = "nothing-to-cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorTable:
    """What a venue's errors prove. What is in none of the tables proves nothing.

    Attributes:
        code: regular expression whose first group is the venue's code in the body of an answer. A
            code ``A:B:C`` is looked up whole, then as ``A:B``.
        duplicates: texts that say that an order of this id is there already: it has landed.
        unknown: codes that say nothing about the order, whatever else their text says.
        refusals: codes that prove that the order does not and will not exist.
        only_orders: those of them by which the venue wants fewer orders, not fewer requests.
        statuses: HTTP statuses of answers that the matching engine never saw.
        hints: classes of ccxt that count, last of all, when the venue answered with a status 4xx.
        missing: codes by which a query or a cancel says that there is no such order.
    """

    code: str = ""
    duplicates: tuple[str, ...] = ()
    unknown: frozenset[str] = frozenset()
    refusals: Mapping[str, RefusalKind] = field(default_factory=dict)
    only_orders: frozenset[str] = frozenset()
    statuses: Mapping[int, RefusalKind] = field(default_factory=dict)
    hints: Mapping[str, RefusalKind] = field(default_factory=dict)
    missing: Mapping[str, frozenset[Proof]] = field(default_factory=dict)


@unique
class Stamp(StrEnum):
    """What a field of a placement says about time."""

    SIGNED_AT_MS = "signed-at-ms"
    WINDOW_MS = "window-ms"
    DEADLINE = "deadline"
    """The moment of signing plus the window, RFC 3339."""


@unique
class FillPaging(StrEnum):
    """How all trades of an account are read, from the oldest on."""

    FROM_ID = "from-id"
    """From a trade id on, per symbol, oldest first."""
    SINCE = "since"
    """From a time on, oldest first."""
    OFFSET = "offset"
    """Newest first, from an offset on, over all symbols."""


@unique
class CancelScope(StrEnum):
    """What one request can cancel at once."""

    SYMBOL = "symbol"
    ACCOUNT = "account"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """How requests are spelled where ccxt's unified call is not enough.

    Attributes:
        quantity_field, price_field: fields into which our own decimal texts are written, so that
            no number is formatted on the way; empty: ccxt's own, from the same texts.
        expiry_fields: fields of a placement that say until when it may be accepted.
        place_fields: fields that every placement carries.
        fill_paging: how trades are paged; `from_id_field` names the field for a trade id.
        cancels_all_per: what a cancel of everything covers.
        clock_resolution: how finely the venue states its time.
        options: what ccxt's class is told at its making, besides never to repeat a request.
    """

    quantity_field: str = ""
    price_field: str = ""
    expiry_fields: Mapping[str, Stamp] = field(default_factory=dict)
    place_fields: Mapping[str, str] = field(default_factory=dict)
    fill_paging: FillPaging = FillPaging.SINCE
    from_id_field: str = ""
    cancels_all_per: CancelScope = CancelScope.SYMBOL
    clock_resolution: timedelta = timedelta(milliseconds=1)
    options: Mapping[str, Any] = field(default_factory=dict)


@unique
class Dialect(StrEnum):
    """Whose raw answers are read; `GENERIC` reads what ccxt has unified, as exact texts."""

    GENERIC = "generic"
    BINANCE = "binance"
    KRAKEN = "kraken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a venue can do, so that nobody asks for its name.

    Attributes:
        ccxt_id: the class of ccxt that speaks to it.
        dialect: how its answers are read.
        client_id_pattern: regular expression that every client order id must match.
        client_id_prefix: begins our client order ids; 32 hexadecimal digits follow.
        client_ids_unique: among which orders the venue refuses a repeated id.
        finds_by_client_id: whether a single order can be asked for by its client id; if not, an
            order is looked for in the lists.
        expiry, window_min, window_max: until when a request may be accepted, and the bounds the
            venue sets to that.
        settling_margin: how long after that an accepted order may take to show in queries.
        order_kinds, times_in_force: what can be placed.
        fills_page_max, orders_page_max: rows of a page.
        dead_man: whether the venue cancels everything by itself when it is not told to wait.
        book_rule: how books are stitched.
        has_private_stream: whether fills and orders are also told as they happen.
        tells_key_permissions: whether a key can be asked what it may do.
        shares_nonce: whether all requests of one key must carry rising numbers.
        sandbox: whether a test environment exists.
        limits, errors, wire: how much may be asked, what errors prove, how requests are spelled.
    """

    ccxt_id: str
    dialect: Dialect = Dialect.GENERIC
    client_id_pattern: str
    client_id_prefix: str = ""
    client_ids_unique: ClientIdScope
    finds_by_client_id: bool
    trade_ids_unique_per: TradeIdScope
    expiry: Expiry
    window_min: timedelta = timedelta(0)
    window_max: timedelta = timedelta(0)
    settling_margin: timedelta = timedelta(seconds=2)
    order_kinds: frozenset[OrderKind]
    times_in_force: frozenset[TimeInForce]
    fills_page_max: int = 100
    orders_page_max: int = 100
    dead_man: bool = False
    book_rule: BookRule = BookRule.POLL
    has_private_stream: bool = False
    tells_key_permissions: bool = False
    shares_nonce: bool = False
    sandbox: bool = False
    limits: RateLimits
    errors: ErrorTable
    wire: Wire = Wire()

    def __post_init__(self) -> None:
        if len(self.client_id_prefix) > CLIENT_ID_PREFIX_MAX:
            raise BadInput(f"prefix {self.client_id_prefix!r} is too long")
        sample = self.client_id(UUID(int=0))
        if not re.fullmatch(self.client_id_pattern, sample):
            raise BadInput(f"{self.ccxt_id} would refuse our client order ids, as {sample!r}")
        if self.expiry is not Expiry.NONE and not timedelta(0) < self.window_min <= self.window_max:
            raise BadInput(f"{self.ccxt_id} has an expiry without bounds")

    def client_id(self, named: UUID) -> str:
        """Return the client order id of what *named* names, in the venue's shape."""
        return f"{self.client_id_prefix}{named.hex}"

    def window(self, wanted: timedelta) -> timedelta:
        """Return *wanted* brought within what the venue accepts; without an expiry, *wanted*."""
        if self.expiry is Expiry.NONE:
            return wanted
        return min(max(wanted, self.window_min), self.window_max)
