"""What changes the venue, and what it says when it has changed.

Commands are what the journal holds: each carries the venue time it was accepted at and nothing that
depends on when it is replayed. Events are derived from them and never stored.
"""

from dataclasses import dataclass

import msgspec

from matching.model import Side, TimeInForce
from venues.simulator.model import (
    Execution,
    FeeRates,
    Fill,
    Genesis,
    Order,
    OrderType,
    PublicTrade,
    WithdrawalStatus,
)


class PlaceOrder(msgspec.Struct, frozen=True, tag_field="record", tag="place"):
    """A validated order; its quantity is already resolved to lots."""

    at_ms: int
    account: str
    symbol: str
    client_order_id: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    price_ticks: int | None
    quantity_lots: int
    quote_quantity_units: int
    self_trade_prevention: str


class CancelOrder(msgspec.Struct, frozen=True, tag_field="record", tag="cancel"):
    """Take one open order off the book; the cancel itself gets a client id too."""

    at_ms: int
    account: str
    symbol: str
    order_id: int
    cancel_client_id: str


class CreditDeposit(msgspec.Struct, frozen=True, tag_field="record", tag="deposit"):
    """Credit an account; with a transaction id it is listed among its deposits."""

    at_ms: int
    account: str
    asset: str
    amount_units: int
    network: str
    address: str
    tx_id: str


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


Command = (
    PlaceOrder
    | CancelOrder
    | CreditDeposit
    | SetBalance
    | RequestWithdrawal
    | SettleWithdrawal
    | SetDepositAddress
    | SetFees
    | StepMaker
    | MoveMid
    | WithdrawQuotes
)
Record = Genesis | Command


@dataclass(frozen=True, slots=True)
class LevelChanged:
    """A price level has a new quantity (0: it is gone); ids are consecutive per symbol."""

    symbol: str
    side: Side
    price_ticks: int
    quantity_lots: int
    update_id: int


@dataclass(frozen=True, slots=True)
class OrderUpdated:
    """An order took a step. `original_client_id` is set by cancels, as the dialect has it."""

    order: Order
    execution: Execution
    fill: Fill | None
    at_ms: int
    client_order_id: str
    original_client_id: str


@dataclass(frozen=True, slots=True)
class BalancesChanged:
    """Balances of an account may have changed: (asset, free units, locked units)."""

    account: str
    balances: tuple[tuple[str, int, int], ...]
    at_ms: int


@dataclass(frozen=True, slots=True)
class FundsMoved:
    """Funds came from or went outside."""

    account: str
    asset: str
    delta_units: int
    at_ms: int


VenueEvent = LevelChanged | PublicTrade | OrderUpdated | BalancesChanged | FundsMoved
