"""What changes the venue, and what it says when it has changed.

Commands are what the journal holds: each carries the venue time it was accepted at and nothing that
depends on when it is replayed. Events are derived from them and never stored.
"""

import msgspec

from matching.model import SelfTradePrevention, Side, TimeInForce
from venues.simulator.model import (
    ApiKeySpec,
    Execution,
    FeeIn,
    FeeRates,
    Fill,
    Genesis,
    Order,
    OrderList,
    OrderListKind,
    OrderType,
    PublicTrade,
    WithdrawalStatus,
)


class PlaceOrder(msgspec.Struct, frozen=True, tag_field="record", tag="place"):
    """A validated order; its quantity is already resolved to lots.

    An empty client id is none. `quote_quantity_units` is what a market order was sized with, for
    the record only. Waiting types have a trigger price, a trailing distance or both: with both the
    trail begins at the trigger price. A trailing stop with a limit places it `limit_offset_ticks`
    beyond its trigger. An order with `expire_ms` ends then.
    """

    at_ms: int
    account: str
    symbol: str
    client_order_id: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    price_ticks: int | None
    quantity_lots: int
    quote_quantity_units: int = 0
    self_trade_prevention: SelfTradePrevention = SelfTradePrevention.EXPIRE_MAKER
    post_only: bool = False
    trigger_ticks: int | None = None
    trailing_ppm: int = 0
    trailing_ticks: int = 0
    limit_offset_ticks: int | None = None
    expire_ms: int | None = None
    display_lots: int = 0
    fee_in: FeeIn = FeeIn.RECEIVED
    note: str = ""


class PlaceOrderList(msgspec.Struct, frozen=True, tag_field="record", tag="place-list"):
    """Orders that depend on each other; all or none are accepted."""

    at_ms: int
    account: str
    symbol: str
    kind: OrderListKind
    client_list_id: str
    orders: tuple[PlaceOrder, ...]


class CancelOrder(msgspec.Struct, frozen=True, tag_field="record", tag="cancel"):
    """End one open order, and the list it belongs to; the request may have a client id too."""

    at_ms: int
    account: str
    symbol: str
    order_id: int
    request_id: str = ""


class CancelAll(msgspec.Struct, frozen=True, tag_field="record", tag="cancel-all"):
    """End all open orders of an account, of one symbol if one is named."""

    at_ms: int
    account: str
    symbol: str | None = None
    request_id: str = ""


class AmendOrder(msgspec.Struct, frozen=True, tag_field="record", tag="amend"):
    """Change an open order in place. None and empty texts leave things as they are.

    `quantity_lots` is the whole quantity, what has traded included. The order keeps its place in
    the queue when only its quantity shrinks.
    """

    at_ms: int
    account: str
    symbol: str
    order_id: int
    quantity_lots: int
    price_ticks: int | None = None
    trigger_ticks: int | None = None
    post_only: bool = False
    client_order_id: str = ""
    request_id: str = ""
    display_lots: int | None = None


class SetDeadMan(msgspec.Struct, frozen=True, tag_field="record", tag="dead-man"):
    """End all orders of an account at a time unless this is sent again; None disarms."""

    at_ms: int
    account: str
    fires_ms: int | None


class PassTime(msgspec.Struct, frozen=True, tag_field="record", tag="time"):
    """Do what is due by now: expiries and dead man's switches."""

    at_ms: int


class LateFill(msgspec.Struct, frozen=True, tag_field="record", tag="late-fill"):
    """Fill an order that has been cancelled already, at its limit price, as venues do."""

    at_ms: int
    account: str
    symbol: str
    order_id: int
    quantity_lots: int


class CreditDeposit(msgspec.Struct, frozen=True, tag_field="record", tag="deposit"):
    """Credit an account; with a transaction id it is listed among its deposits.

    A pending deposit is listed and moves no balance until the same transaction is credited.
    """

    at_ms: int
    account: str
    asset: str
    amount_units: int
    network: str
    address: str
    tx_id: str
    pending: bool = False


class SetBalance(msgspec.Struct, frozen=True, tag_field="record", tag="balance"):
    """Overwrite what an account has free, as no honest venue would."""

    at_ms: int
    account: str
    asset: str
    free_units: int


class RequestWithdrawal(msgspec.Struct, frozen=True, tag_field="record", tag="withdraw"):
    """Debit `amount_units`; the network's fee is kept from them."""

    at_ms: int
    account: str
    asset: str
    network: str
    address: str
    tag_text: str
    amount_units: int
    client_id: str


class SettleWithdrawal(msgspec.Struct, frozen=True, tag_field="record", tag="settle-withdrawal"):
    """End a withdrawal by hand; a rejected or failed one is credited back."""

    at_ms: int
    withdrawal_id: str
    status: WithdrawalStatus
    tx_id: str


class SetDepositAddress(msgspec.Struct, frozen=True, tag_field="record", tag="deposit-address"):
    """Give an account an address that something else really watches."""

    at_ms: int
    account: str
    asset: str
    network: str
    address: str


class SetFees(msgspec.Struct, frozen=True, tag_field="record", tag="fees"):
    """Change an account's commission."""

    at_ms: int
    account: str
    fees: FeeRates


class CancelWithdrawal(msgspec.Struct, frozen=True, tag_field="record", tag="cancel-withdrawal"):
    """The client takes a withdrawal in process back; it is credited again."""

    at_ms: int
    account: str
    withdrawal_id: str


class SaveWithdrawalAddress(msgspec.Struct, frozen=True, tag_field="record", tag="save-address"):
    """Let an account withdraw to an address by a name."""

    at_ms: int
    account: str
    name: str
    asset: str
    network: str
    address: str
    tag_text: str


class SetKey(msgspec.Struct, frozen=True, tag_field="record", tag="key"):
    """Give an account a key, or change one."""

    at_ms: int
    account: str
    key: ApiKeySpec


class StepMaker(msgspec.Struct, frozen=True, tag_field="record", tag="step"):
    """One move of the market maker on every symbol; what it does follows from seed and count."""

    at_ms: int


class MoveMid(msgspec.Struct, frozen=True, tag_field="record", tag="mid"):
    """Move a symbol's mid price and quote around it."""

    at_ms: int
    symbol: str
    mid_ticks: int


class WithdrawQuotes(msgspec.Struct, frozen=True, tag_field="record", tag="withdraw-quotes"):
    """Take all quotes of the market maker off one symbol's book."""

    at_ms: int
    symbol: str


class MirrorLevels(msgspec.Struct, frozen=True, tag_field="record", tag="mirror-levels"):
    """Let the house's quotes be as a recording has them: levels as (side, price, lots).

    `whole` replaces all quotes; else only the named levels change, and 0 lots remove one. `row` is
    the recording's row that this was, so that a replay goes on behind it.
    """

    at_ms: int
    symbol: str
    levels: tuple[tuple[Side, int, int], ...]
    whole: bool = False
    row: int = 0


class MirrorTrade(msgspec.Struct, frozen=True, tag_field="record", tag="mirror-trade"):
    """Trade against the book as a recorded taker did, at no worse than the recorded price."""

    at_ms: int
    symbol: str
    side: Side
    price_ticks: int
    quantity_lots: int
    row: int = 0


Command = (
    PlaceOrder
    | PlaceOrderList
    | CancelOrder
    | CancelAll
    | AmendOrder
    | SetDeadMan
    | PassTime
    | LateFill
    | CreditDeposit
    | SetBalance
    | RequestWithdrawal
    | SettleWithdrawal
    | SetDepositAddress
    | SetFees
    | CancelWithdrawal
    | SaveWithdrawalAddress
    | SetKey
    | StepMaker
    | MoveMid
    | WithdrawQuotes
    | MirrorLevels
    | MirrorTrade
)
Record = Genesis | Command


class LevelChanged(msgspec.Struct, frozen=True):
    """A price level has a new quantity (0: it is gone); ids are consecutive per symbol."""

    symbol: str
    side: Side
    price_ticks: int
    quantity_lots: int
    update_id: int


class OrderUpdated(msgspec.Struct, frozen=True):
    """An order took a step; `order.reason` says why it ended.

    `request_id` is the client id of the cancel or amendment itself, if it had one.
    """

    order: Order
    execution: Execution
    fill: Fill | None
    at_ms: int
    request_id: str = ""


class OrderListUpdated(msgspec.Struct, frozen=True):
    """A list of orders began or ended."""

    order_list: OrderList
    at_ms: int


class BalancesChanged(msgspec.Struct, frozen=True):
    """Balances of an account may have changed: (asset, free units, locked units)."""

    account: str
    balances: tuple[tuple[str, int, int], ...]
    at_ms: int


class FundsMoved(msgspec.Struct, frozen=True):
    """Funds came from or went outside."""

    account: str
    asset: str
    delta_units: int
    at_ms: int


VenueEvent = (
    LevelChanged | PublicTrade | OrderUpdated | OrderListUpdated | BalancesChanged | FundsMoved
)
