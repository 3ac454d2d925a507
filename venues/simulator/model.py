"""Values of the simulated venue: instruments, accounts, orders, fills, movements of funds.

Amounts of any asset are integers in units of 1e-8. Prices are integers in ticks and quantities in
lots of their symbol; times are milliseconds since 1970.
"""

from enum import Enum, unique
from typing import Final

import msgspec

from matching.model import SelfTradePrevention, Side, TimeInForce
from venues.simulator.decimals import UNIT

HOUSE: Final = "~maker"
FLOW: Final = "~flow"
PPM: Final = 1_000_000


class SymbolSpec(msgspec.Struct, frozen=True):
    """An instrument. `tick_units` of quote per whole base; `lot_units` of base."""

    name: str
    base: str
    quote: str
    tick_units: int
    lot_units: int
    min_notional_units: int
    mid_ticks: int
    max_lots: int = 10**12

    def notional_units(self, price_ticks: int, quantity_lots: int) -> int:
        """What a quantity costs at a price, in quote units, rounded down."""
        return price_ticks * quantity_lots * self.tick_units * self.lot_units // UNIT


class NetworkSpec(msgspec.Struct, frozen=True):
    """A chain an asset can be moved over. `address_style` is `evm`, `bitcoin` or `text`."""

    name: str
    withdraw_fee_units: int
    withdraw_min_units: int
    address_style: str


class AssetSpec(msgspec.Struct, frozen=True):
    """An asset and the networks it moves over; the first network is the default one."""

    name: str
    networks: tuple[NetworkSpec, ...]


@unique
class FeeIn(Enum):
    """The asset an order's commission is charged in, unless the account pays in a third one."""

    RECEIVED = "received"
    BASE = "base"
    QUOTE = "quote"


class FeeRates(msgspec.Struct, frozen=True):
    """Commission in millionths of the traded amount.

    `asset` None charges as the order says; else the commission is charged in that asset as long
    as the account has enough of it free, at the price in `AccountSpec.fee_asset_prices`.
    """

    maker_ppm: int = 1_000
    taker_ppm: int = 1_000
    asset: str | None = None


class ApiKeySpec(msgspec.Struct, frozen=True):
    """A key of an account. `permissions` are of `read`, `trade` and `withdraw`.

    `public_key` is a PEM that signatures are checked with instead of the secret, where the dialect
    knows such keys; the venue keeps no private half.
    """

    api_key: str
    secret: str = ""
    permissions: tuple[str, ...] = ("read", "trade")
    public_key: str = ""
    ip_restricted: bool = False


class AccountSpec(msgspec.Struct, frozen=True):
    """An account with its trading key and further keys. `balances` in units by asset."""

    name: str
    api_key: str
    secret: str
    balances: dict[str, int]
    fees: FeeRates = FeeRates()
    permissions: tuple[str, ...] = ("read", "trade")
    keys: tuple[ApiKeySpec, ...] = ()

    def all_keys(self) -> tuple[ApiKeySpec, ...]:
        """The trading key and the others."""
        return (ApiKeySpec(self.api_key, self.secret, self.permissions), *self.keys)


class MakerSpec(msgspec.Struct, frozen=True):
    """How the synthetic market maker quotes. Notionals in quote units.

    `lively` markets have phases: calm, trends up and down, bursts with a wide spread.
    """

    levels: int = 20
    level_notional_units: int = 50_000 * UNIT
    half_spread_ppm: int = 100
    gap_ppm: int = 100
    drift_ppm: int = 50
    range_ppm: int = 50_000
    flow_notional_units: int = 2_000 * UNIT
    lively: bool = True


class Genesis(msgspec.Struct, frozen=True, tag_field="record", tag="genesis"):
    """Everything the state depends on besides the commands; the first record of the journal."""

    seed: int
    dialect: str
    symbols: tuple[SymbolSpec, ...]
    assets: tuple[AssetSpec, ...]
    accounts: tuple[AccountSpec, ...]
    maker: MakerSpec
    fee_asset_prices: dict[str, dict[str, int]]
    withdrawal_delay_ms: int | None
    at_ms: int


@unique
class OrderType(Enum):
    """What an order does; a post-only order is a limit order with a flag.

    The stop and take-profit types wait for the last trade's price to reach their trigger and are
    market or limit orders from then on. A trailing stop's trigger follows the best price seen.
    """

    LIMIT = "limit"
    MARKET = "market"
    STOP_LOSS = "stop-loss"
    STOP_LOSS_LIMIT = "stop-loss-limit"
    TAKE_PROFIT = "take-profit"
    TAKE_PROFIT_LIMIT = "take-profit-limit"
    TRAILING_STOP = "trailing-stop"
    TRAILING_STOP_LIMIT = "trailing-stop-limit"

    @property
    def waits(self) -> bool:
        """Whether the order waits for a trigger first."""
        return self not in _AT_ONCE

    @property
    def has_limit(self) -> bool:
        """Whether the order has, or gets, a limit price."""
        return self in _LIMITED

    @property
    def takes_profit(self) -> bool:
        """Whether the trigger is on the good side of the price."""
        return self in (OrderType.TAKE_PROFIT, OrderType.TAKE_PROFIT_LIMIT)


# Tuples: they are asked of every order many times, and the hash of a member is slow to make.
_AT_ONCE: Final = (OrderType.LIMIT, OrderType.MARKET)
_LIMITED: Final = tuple(kind for kind in OrderType if kind.value.endswith("limit"))


@unique
class OrderStatus(Enum):
    """States of an order. PENDING_NEW waits for another order of its list."""

    NEW = "new"
    PENDING_NEW = "pending-new"
    PARTIALLY_FILLED = "partially-filled"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"
    EXPIRED_IN_MATCH = "expired-in-match"
    REJECTED = "rejected"

    @property
    def is_open(self) -> bool:
        """Whether the order may still trade."""
        return self in _OPEN


_OPEN: Final = (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED, OrderStatus.PENDING_NEW)


@unique
class Execution(Enum):
    """What an order update reports."""

    NEW = "new"
    TRADE = "trade"
    CANCELED = "canceled"
    EXPIRED = "expired"
    TRADE_PREVENTION = "trade-prevention"
    AMENDED = "amended"
    TRIGGERED = "triggered"
    REJECTED = "rejected"


@unique
class Reason(Enum):
    """Why an order ended otherwise than by trading."""

    NONE = ""
    REQUESTED = "the client cancelled it"
    DEAD_MAN = "the client did not renew its dead man's switch"
    EXPIRY = "its time was over"
    NOT_FILLED_AT_ONCE = "nothing more to trade with at once"
    NOT_FILLABLE_WHOLE = "it could not be filled in whole"
    SELF_TRADE = "it would have traded with its own account"
    ORDER_LIST = "another order of its list traded, triggered or ended"
    NO_FUNDS = "the account had too little when its trigger was reached"
    OPERATOR = "the venue's operator ended it"


@unique
class WithdrawalStatus(Enum):
    """States of a withdrawal."""

    PROCESSING = "processing"
    COMPLETED = "completed"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Order(msgspec.Struct, frozen=True):
    """An order of an account. `locked_units` is what it still holds of the asset it spends.

    `stop_ticks` is where a waiting order triggers now, and moves if it trails (None until it tracks
    prices, since `trail_ms`). `working_ms` is 0 until the order has entered the book, and
    `triggered_ms` until its trigger was reached. `note` is the dialect's and not read here.
    `display_lots` is how much of an iceberg others see at a time; 0 shows all. `hold_fee_ppm` is the
    rate of commission held with the funds, where it is charged in the asset the order spends.
    """

    account: str
    symbol: str
    order_id: int
    client_order_id: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    price_ticks: int | None
    quantity_lots: int
    quote_quantity_units: int
    self_trade_prevention: SelfTradePrevention
    status: OrderStatus
    filled_lots: int
    filled_quote_units: int
    locked_units: int
    created_ms: int
    updated_ms: int
    post_only: bool = False
    trigger_ticks: int | None = None
    trailing_ppm: int = 0
    trailing_ticks: int = 0
    limit_offset_ticks: int | None = None
    stop_ticks: int | None = None
    extreme_ticks: int = 0
    trail_ms: int = 0
    expire_ms: int | None = None
    display_lots: int = 0
    fee_in: FeeIn = FeeIn.RECEIVED
    hold_fee_ppm: int = 0
    note: str = ""
    working_ms: int = 0
    triggered_ms: int = 0
    reason: Reason = Reason.NONE
    order_list_id: int = -1
    prevented_lots: int = 0

    @property
    def remaining_lots(self) -> int:
        """Lots neither traded nor prevented from trading."""
        return self.quantity_lots - self.filled_lots - self.prevented_lots

    @property
    def is_working(self) -> bool:
        """Whether the order is in the book."""
        return self.working_ms > 0 and self.status.is_open

    @property
    def is_waiting(self) -> bool:
        """Whether the order is out of the book until its trigger is reached."""
        return self.status is OrderStatus.NEW and self.type.waits and not self.triggered_ms


class Amendment(msgspec.Struct, frozen=True):
    """A change of an open order's quantity, price or client id."""

    number: int
    at_ms: int
    client_order_id: str
    new_client_order_id: str
    lots: int
    new_lots: int


@unique
class OrderListKind(Enum):
    """How orders of a list depend on each other.

    OCO: the first to trade or trigger ends the other. OTO: the second begins when the first is
    filled in whole. OTOCO: the second and third, an OCO, begin when the first is filled in whole.
    """

    OCO = "one-cancels-the-other"
    OTO = "one-triggers-the-other"
    OTOCO = "one-triggers-a-one-cancels-the-other"


@unique
class OrderListStatus(Enum):
    """Whether any order of a list is open."""

    EXECUTING = "executing"
    ALL_DONE = "all-done"


class OrderList(msgspec.Struct, frozen=True):
    """Orders that depend on each other, in the order they were sent."""

    list_id: int
    account: str
    symbol: str
    kind: OrderListKind
    client_list_id: str
    order_ids: tuple[int, ...]
    status: OrderListStatus
    created_ms: int
    updated_ms: int


class PreventedMatch(msgspec.Struct, frozen=True):
    """A trade of an account with itself that did not happen."""

    symbol: str
    number: int
    taker_order_id: int
    maker_order_id: int
    account: str
    price_ticks: int
    quantity_lots: int
    mode: SelfTradePrevention
    at_ms: int


class Fill(msgspec.Struct, frozen=True):
    """One account's side of a trade. The trade id is unique per symbol only."""

    account: str
    symbol: str
    trade_id: int
    order_id: int
    client_order_id: str
    side: Side
    price_ticks: int
    quantity_lots: int
    quote_units: int
    fee_asset: str
    fee_units: int
    is_maker: bool
    at_ms: int


class PublicTrade(msgspec.Struct, frozen=True):
    """A trade as everybody sees it."""

    symbol: str
    trade_id: int
    price_ticks: int
    quantity_lots: int
    buyer_is_maker: bool
    at_ms: int
    taker_order_id: int = 0
    taker_is_market: bool = False


class Withdrawal(msgspec.Struct, frozen=True):
    """Funds leaving the venue: `amount_units` arrive, `fee_units` are kept, both were debited."""

    id: str
    account: str
    asset: str
    network: str
    address: str
    tag: str
    amount_units: int
    fee_units: int
    client_id: str
    at_ms: int
    status: WithdrawalStatus
    tx_id: str
    settled_ms: int


class Deposit(msgspec.Struct, frozen=True):
    """Funds that arrived at the venue; a pending deposit has moved no balance yet."""

    id: str
    account: str
    asset: str
    network: str
    address: str
    tx_id: str
    amount_units: int
    at_ms: int
    is_pending: bool = False


class SavedAddress(msgspec.Struct, frozen=True):
    """An address the account may withdraw to by its name."""

    name: str
    asset: str
    network: str
    address: str
    tag: str


@unique
class LedgerKind(Enum):
    """What moved an account's balance."""

    TRADE = "trade"
    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    ADJUSTMENT = "adjustment"


class LedgerEntry(msgspec.Struct, frozen=True):
    """One change of one balance: `amount_units` signed, less `fee_units`, gave `balance_units`.

    `reference` is the id of the trade (unique with the symbol), deposit or withdrawal.
    """

    number: int
    at_ms: int
    kind: LedgerKind
    symbol: str
    reference: str
    asset: str
    amount_units: int
    fee_units: int
    balance_units: int
