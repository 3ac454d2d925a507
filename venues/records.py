"""The venues that Causeway knows, as records; adding one is described in ``docs/adding-a-venue.md``.

Sources: Binance, Spot API ("Error codes", "Limits", "Request security"); Kraken, REST API guides
("Error details", "Spot REST rate limits", "Client order identifiers") and "Add order".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final

from kernel.errors import BadInput
from matching.model import TimeInForce
from venues.capabilities import (
    BookRule,
    BucketRule,
    CallClass,
    CancelScope,
    Capabilities,
    ClientIdScope,
    Dialect,
    ErrorTable,
    Expiry,
    FillPaging,
    Proof,
    RateLimits,
    Refill,
    Stamp,
    TradeIdScope,
    Wire,
)
from venues.model import OrderKind, RefusalKind

FINAL: Final = RefusalKind.FINAL
BACK_OFF: Final = RefusalKind.BACK_OFF
CLOCK: Final = RefusalKind.CLOCK

BINANCE_ERRORS: Final = ErrorTable(
    code=r'"code"\s*:\s*"?(-?\d+)',
    duplicates=("Duplicate order sent",),
    unknown=frozenset(
        {
            "-1000",  # an unknown error while processing the request
            "-1001",  # internal error: the request could not be processed
            "-1006",  # an unexpected response from the message bus: execution status unknown
            "-1007",  # timeout waiting for the backend: send and execution status unknown
            "-1008",  # the server is overloaded: nothing is said about this request
            "-1016",  # this service is no longer available: since when is not said
        }
    ),
    refusals={
        "-1002": FINAL,  # not authorised
        "-1003": BACK_OFF,  # too many requests
        "-1013": FINAL,  # fails a filter of the instrument
        "-1014": FINAL,  # unsupported combination of order fields
        "-1015": BACK_OFF,  # too many orders
        "-1020": FINAL,  # unsupported operation
        "-1021": CLOCK,  # timestamp outside of recvWindow
        "-1022": FINAL,  # signature
        "-2010": FINAL,  # new order rejected, unless it is a duplicate
        "-2014": FINAL,  # malformed key
        "-2015": FINAL,  # key, address or permission
        **{str(code): FINAL for code in range(-1199, -1099)},  # the request could not be read
    },
    only_orders=frozenset({"-1015"}),
    statuses={418: BACK_OFF, 429: BACK_OFF},
    missing={
        "-2013": frozenset({Proof.NO_SUCH_ORDER}),
        "-2011": frozenset({Proof.NOTHING_TO_CANCEL}),
    },
)
"""Maintenance and "System abnormality" are in no table: they prove nothing. Neither does 403, which
a firewall in front of the venue answers."""

HINTS: Final = {"InsufficientFunds": FINAL, "AuthenticationError": FINAL, "BadSymbol": FINAL}
"""Classes of ccxt whose venue's answer leaves no doubt, for venues without a table of codes."""

BINANCE_LIMITS: Final = RateLimits(
    buckets=(
        BucketRule(
            name="weight",
            capacity=6_000,
            period=timedelta(minutes=1),
            refill=Refill.WINDOW,
            cancel_reserve=300,
            order_reserve=1_200,
            used_header="X-MBX-USED-WEIGHT-1M",
        ),
        BucketRule(
            name="orders-10s",
            capacity=100,
            period=timedelta(seconds=10),
            refill=Refill.WINDOW,
            used_header="X-MBX-ORDER-COUNT-10S",
        ),
        BucketRule(
            name="orders-1d",
            capacity=200_000,
            period=timedelta(days=1),
            refill=Refill.WINDOW,
            used_header="X-MBX-ORDER-COUNT-1D",
        ),
    ),
    costs={
        CallClass.PLACE: {"weight": 1, "orders-10s": 1, "orders-1d": 1},
        CallClass.CANCEL: {"weight": 1},
        CallClass.CANCEL_ALL: {"weight": 1},
        CallClass.FIND: {"weight": 4},
        CallClass.LIST_OPEN: {"weight": 6},
        CallClass.LIST_OPEN_ALL: {"weight": 80},
        CallClass.LIST_RECENT: {"weight": 20},
        CallClass.FILLS: {"weight": 20},
        CallClass.BALANCES: {"weight": 20},
        CallClass.MARKETS: {"weight": 30},
        CallClass.CLOCK: {"weight": 1},
        CallClass.KEY: {"weight": 1},
        CallClass.TREASURY: {"weight": 10},
        CallClass.PAST_TRADES: {"weight": 25},
        CallClass.PAST_CANDLES: {"weight": 2},
    },
)

BINANCE: Final = Capabilities(
    ccxt_id="binance",
    dialect=Dialect.BINANCE,
    client_id_pattern=r"[.A-Z:/a-z0-9_-]{1,36}",
    client_id_prefix="cw",
    client_ids_unique=ClientIdScope.OPEN,
    finds_by_client_id=True,
    trade_ids_unique_per=TradeIdScope.SYMBOL,
    expiry=Expiry.RECV_WINDOW,
    window_min=timedelta(milliseconds=1),
    window_max=timedelta(seconds=60),
    order_kinds=frozenset(OrderKind),
    times_in_force=frozenset(TimeInForce),
    fills_page_max=1_000,
    orders_page_max=1_000,
    book_rule=BookRule.SNAPSHOT_AND_DIFF,
    has_private_stream=True,
    tells_key_permissions=True,
    sandbox=True,
    limits=BINANCE_LIMITS,
    errors=BINANCE_ERRORS,
    wire=Wire(
        quantity_field="quantity",
        price_field="price",
        expiry_fields={"timestamp": Stamp.SIGNED_AT_MS, "recvWindow": Stamp.WINDOW_MS},
        fill_paging=FillPaging.FROM_ID,
        from_id_field="fromId",
        options={
            "defaultType": "spot",
            "fetchMarkets": {"types": ["spot"]},
            "fetchMargins": False,
            "fetchOpenOrders": {"warnWithoutSymbol": False},
        },
    ),
)

BINANCE_US: Final = replace(
    BINANCE,
    ccxt_id="binanceus",
    dialect=Dialect.GENERIC,
    has_private_stream=False,
    tells_key_permissions=False,
    sandbox=False,
    errors=replace(BINANCE_ERRORS, hints=HINTS),
    wire=replace(
        BINANCE.wire,
        options={**BINANCE.wire.options, "watchTradesForSymbols": {"name": "aggTrade"}},
    ),
)
"""A venue of the same wire family, which has nothing of its own but this record: everything it
answers is read as ccxt has unified it. Trades are aggregates in the stream as they are in ccxt's list, so
that both have the same ids."""

KRAKEN_ERRORS: Final = ErrorTable(
    code=r'"(E[A-Za-z]+:[^"]*)"',
    duplicates=("EGeneral:Invalid arguments:cl_ord_id not unique",),
    unknown=frozenset(
        {
            "EService:Unavailable",
            "EService:Busy",
            "EService:Timeout",
            "EGeneral:Internal error",
            "EDatabase:Internal error",
        }
    ),
    refusals={
        "EOrder:Insufficient funds": FINAL,
        "EOrder:Order minimum not met": FINAL,
        "EOrder:Cost minimum not met": FINAL,
        "EOrder:Tick size check failed": FINAL,
        "EOrder:Invalid price": FINAL,
        "EOrder:Invalid price:Invalid price argument": FINAL,
        "EOrder:Post only order": FINAL,
        "EOrder:Insufficient liquidity": FINAL,
        "EOrder:Margin trading not allowed": FINAL,
        "EOrder:Cannot open position": FINAL,
        "EOrder:Cannot open opposing position": FINAL,
        "EOrder:Margin allowance exceeded": FINAL,
        "EOrder:Insufficient margin": FINAL,
        "EOrder:Orders limit exceeded": BACK_OFF,
        "EOrder:Positions limit exceeded": FINAL,
        "EOrder:Rate limit exceeded": BACK_OFF,
        "EOrder:Domain rate limit exceeded": BACK_OFF,
        "EOrder:Trading agreement required": FINAL,
        "EOrder:Unknown position": FINAL,
        "EOrder:Invalid order": FINAL,
        "EOrder:Scheduled orders limit exceeded": BACK_OFF,
        "EGeneral:Invalid arguments": FINAL,
        "EGeneral:Permission denied": FINAL,
        "EGeneral:Temporary lockout": BACK_OFF,
        "EGeneral:Too many requests": BACK_OFF,
        "EGeneral:Unknown method": FINAL,
        "EAPI:Invalid key": FINAL,
        "EAPI:Invalid signature": FINAL,
        "EAPI:Invalid nonce": CLOCK,
        "EAPI:Rate limit exceeded": BACK_OFF,
        "EAPI:Bad request": FINAL,
        "EAPI:Feature disabled": FINAL,
        "EQuery:Unknown asset pair": FINAL,
        "EQuery:Invalid asset pair": FINAL,
        "EQuery:Unknown asset": FINAL,
        "EService:Market in cancel_only mode": FINAL,
        "EService:Market in post_only mode": FINAL,
        "EService:Deadline elapsed": CLOCK,
        "EGeneral:Invalid arguments:deadline": CLOCK,
        "EAuth:Account temporary disabled": FINAL,
        "EAuth:Account unconfirmed": FINAL,
        "EAuth:Rate limit exceeded": BACK_OFF,
        "EAuth:Too many requests": BACK_OFF,
        "ETrade:User Locked": FINAL,
        "ETrade:Locked": FINAL,
        "ESession:Invalid session": FINAL,
    },
    only_orders=frozenset(
        {
            "EOrder:Orders limit exceeded",
            "EOrder:Rate limit exceeded",
            "EOrder:Domain rate limit exceeded",
            "EOrder:Scheduled orders limit exceeded",
        }
    ),
    statuses={418: BACK_OFF, 429: BACK_OFF},
    missing={
        "EOrder:Unknown order": frozenset({Proof.NO_SUCH_ORDER, Proof.NOTHING_TO_CANCEL}),
    },
)
"""``EService:Busy`` and ``Unavailable`` are unknown: Kraken asks to look before sending again."""

KRAKEN_LIMITS: Final = RateLimits(
    buckets=(
        BucketRule(
            name="counter",
            capacity=20,
            period=timedelta(seconds=40),
            refill=Refill.STEADY,
            cancel_reserve=2,
            order_reserve=6,
        ),
        BucketRule(
            name="orders",
            capacity=125,
            period=timedelta(seconds=54),
            refill=Refill.STEADY,
            cancel_reserve=40,
        ),
        BucketRule(name="public", capacity=10, period=timedelta(seconds=12), refill=Refill.STEADY),
    ),
    costs={
        CallClass.PLACE: {"orders": 1},
        CallClass.CANCEL: {"orders": 8},
        CallClass.CANCEL_ALL: {"orders": 8, "counter": 1},
        CallClass.FIND: {"counter": 1},
        CallClass.LIST_OPEN: {"counter": 1},
        CallClass.LIST_OPEN_ALL: {"counter": 1},
        CallClass.LIST_RECENT: {"counter": 1},
        CallClass.FILLS: {"counter": 2},
        CallClass.BALANCES: {"counter": 1},
        CallClass.KEY: {"counter": 1},
        CallClass.TREASURY: {"counter": 1},
        CallClass.PAST_TRADES: {"public": 1},
        CallClass.PAST_CANDLES: {"public": 1},
    },
)
"""Tier "Intermediate". Calls: a counter of 20 that falls by 0.5 a second; a history of trades costs 2,
all else 1, orders and single cancels nothing ("Spot REST rate limits"). The trading engine: 125 points
for each pair that fall by 2.34 a second; an order costs 1, a cancel up to 8, the younger the more
("Spot trading limits"). All pairs are counted as one here, and every cancel as of a young order. Public requests are counted by
address, about one a second."""

KRAKEN: Final = Capabilities(
    ccxt_id="kraken",
    dialect=Dialect.KRAKEN,
    client_id_pattern=(
        r"[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[ -~]{1,18}"
    ),
    client_ids_unique=ClientIdScope.OPEN,
    finds_by_client_id=False,
    trade_ids_unique_per=TradeIdScope.VENUE,
    expiry=Expiry.DEADLINE,
    window_min=timedelta(seconds=3),
    window_max=timedelta(seconds=59),
    settling_margin=timedelta(seconds=5),
    order_kinds=frozenset(OrderKind),
    times_in_force=frozenset({TimeInForce.GTC, TimeInForce.IOC}),
    fills_page_max=50,
    orders_page_max=50,
    dead_man=True,
    book_rule=BookRule.STREAM_CHECKSUM,
    has_private_stream=True,
    tells_key_permissions=True,
    shares_nonce=True,
    limits=KRAKEN_LIMITS,
    errors=KRAKEN_ERRORS,
    wire=Wire(
        quantity_field="volume",
        price_field="price",
        expiry_fields={"deadline": Stamp.DEADLINE},
        place_fields={
            "oflags": "fciq"
        },  # fees in the quote asset, as the list of trades states them
        fill_paging=FillPaging.OFFSET,
        cancels_all_per=CancelScope.ACCOUNT,
        clock_resolution=timedelta(seconds=1),
    ),
)
"""Kraken takes a deadline 2 to 60 seconds ahead and states its time in whole seconds: one second of
either bound is left for that. "Add order" names GTC, IOC and GTD; fill-or-kill is not promised over
REST, so it is refused before it is sent."""

RECORDS: Final[Mapping[str, Capabilities]] = {
    "binance": BINANCE,
    "binanceus": BINANCE_US,
    "kraken": KRAKEN,
}


def capabilities_of(name: str) -> Capabilities:
    """Return the record of a venue by its name in settings.

    Raises:
        BadInput: there is none.
    """
    if name not in RECORDS:
        raise BadInput(
            f"there is no record of a venue {name!r}",
            remedy=f"Use one of {', '.join(RECORDS)}, or add a record",
        )
    return RECORDS[name]
