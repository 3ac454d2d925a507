"""Values of the simulated venue: instruments, accounts, orders, fills, movements of funds.

Amounts of any asset are integers in units of 1e-8. Prices are integers in ticks and quantities in
lots of their symbol; times are milliseconds since 1970.
"""

from enum import Enum, unique
from typing import Final

import msgspec

from matching.model import Side, TimeInForce
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

    @property
    def quote_units_per_tick_lot(self) -> int:
        """Quote units that one lot costs at a price of one tick; always whole."""
        return self.tick_units * self.lot_units // UNIT

    def notional_units(self, price_ticks: int, quantity_lots: int) -> int:
        """What a quantity costs at a price, in quote units."""
        return price_ticks * quantity_lots * self.quote_units_per_tick_lot


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


class FeeRates(msgspec.Struct, frozen=True):
    """Commission in millionths of the traded amount.

    `asset` None charges the received asset; else the commission is charged in that asset as long
    as the account has enough of it free, at the price in `AccountSpec.fee_asset_prices`.
    """

    maker_ppm: int = 1_000
    taker_ppm: int = 1_000
    asset: str | None = None


class AccountSpec(msgspec.Struct, frozen=True):
    """An account with its one API key. `balances` in units by asset."""

    name: str
    api_key: str
    secret: str
    balances: dict[str, int]
    fees: FeeRates = FeeRates()


class MakerSpec(msgspec.Struct, frozen=True):
    """How the synthetic market maker quotes. Notionals in quote units."""

    levels: int = 20
    level_notional_units: int = 50_000 * UNIT
    half_spread_ppm: int = 100
    gap_ppm: int = 100
    drift_ppm: int = 50
    range_ppm: int = 50_000
    flow_notional_units: int = 2_000 * UNIT


class Genesis(msgspec.Struct, frozen=True, tag_field="record", tag="genesis"):
    """Everything the state depends on besides the commands; the first record of the journal."""

    seed: int
    symbols: tuple[SymbolSpec, ...]
    assets: tuple[AssetSpec, ...]
    accounts: tuple[AccountSpec, ...]
    maker: MakerSpec
    fee_asset_prices: dict[str, dict[str, int]]
    withdrawal_delay_ms: int | None
    at_ms: int


@unique
class OrderType(Enum):
    """Order types of the dialect that the simulator knows."""

    LIMIT = "LIMIT"
    MARKET = "MARKET"
    LIMIT_MAKER = "LIMIT_MAKER"


@unique
class OrderStatus(Enum):
    """States of an order, in the dialect's words."""

    NEW = "NEW"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    EXPIRED_IN_MATCH = "EXPIRED_IN_MATCH"

    @property
    def is_open(self) -> bool:
        """Whether the order rests in the book."""
        return self in (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED)


@unique
class Execution(Enum):
    """What an order update reports (field `x` of an executionReport)."""

    NEW = "NEW"
    TRADE = "TRADE"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    TRADE_PREVENTION = "TRADE_PREVENTION"


@unique
class WithdrawalStatus(Enum):
    """States of a withdrawal, in the dialect's numbers."""

    REJECTED = 3
    PROCESSING = 4
    FAILED = 5
    COMPLETED = 6


class Order(msgspec.Struct, frozen=True):
    """An order of an account. `locked_units` is what it still holds of the asset it spends."""

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
    self_trade_prevention: str
    status: OrderStatus
    filled_lots: int
    filled_quote_units: int
    locked_units: int
    created_ms: int
    updated_ms: int

    @property
    def remaining_lots(self) -> int:
        """Lots neither traded nor given up by the order's size."""
        return self.quantity_lots - self.filled_lots


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
    """Funds that arrived at the venue."""

    id: str
    account: str
    asset: str
    network: str
    address: str
    tx_id: str
    amount_units: int
    at_ms: int
