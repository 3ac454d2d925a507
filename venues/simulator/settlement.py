"""What orders and trades do to wallets and order records."""

from msgspec.structs import replace

from matching.model import Side, Traded
from venues.simulator.commands import OrderUpdated, PlaceOrder
from venues.simulator.decimals import UNIT
from venues.simulator.model import (
    PPM,
    Execution,
    Fill,
    Order,
    OrderStatus,
    SymbolSpec,
)
from venues.simulator.state import Account, VenueState


def new_order(command: PlaceOrder, order_id: int, spec: SymbolSpec) -> Order:
    """The record of an order that was just accepted. A market order locks nothing."""
    locked = 0
    if command.price_ticks is not None and command.side is Side.BUY:
        locked = spec.notional_units(command.price_ticks, command.quantity_lots)
    elif command.price_ticks is not None:
        locked = command.quantity_lots * spec.lot_units
    return Order(
        account=command.account,
        symbol=command.symbol,
        order_id=order_id,
        client_order_id=command.client_order_id,
        side=command.side,
        type=command.type,
        time_in_force=command.time_in_force,
        price_ticks=command.price_ticks,
        quantity_lots=command.quantity_lots,
        quote_quantity_units=command.quote_quantity_units,
        self_trade_prevention=command.self_trade_prevention,
        status=OrderStatus.NEW,
        filled_lots=0,
        filled_quote_units=0,
        locked_units=locked,
        created_ms=command.at_ms,
        updated_ms=command.at_ms,
    )


def locked_asset(order: Order, spec: SymbolSpec) -> tuple[str, int]:
    """The asset an order spends and how much of it the order holds."""
    return (spec.quote if order.side is Side.BUY else spec.base), order.locked_units


def settle_trade(
    state: VenueState, order: Order, trade: Traded, *, is_maker: bool, at_ms: int
) -> OrderUpdated:
    """Move one side of a trade through its account's wallet and record it."""
    spec, account = state.markets[order.symbol].spec, state.accounts[order.account]
    quote_units = spec.notional_units(trade.price_ticks, trade.quantity_lots)
    base_units = trade.quantity_lots * spec.lot_units
    released = _released(order, trade, spec)
    is_buy = order.side is Side.BUY
    paid = (spec.quote, quote_units) if is_buy else (spec.base, base_units)
    received = (spec.base, base_units) if is_buy else (spec.quote, quote_units)
    account.wallet.unlock(paid[0], released)
    account.wallet.debit(*paid)
    account.wallet.credit(*received)
    fee_asset, fee_units = _fee(
        state, account, received, (spec.quote, quote_units), is_maker=is_maker
    )
    account.wallet.debit(fee_asset, fee_units)
    fill = Fill(
        account=order.account,
        symbol=order.symbol,
        trade_id=trade.trade_id,
        order_id=order.order_id,
        client_order_id=order.client_order_id,
        side=order.side,
        price_ticks=trade.price_ticks,
        quantity_lots=trade.quantity_lots,
        quote_units=quote_units,
        fee_asset=fee_asset,
        fee_units=fee_units,
        is_maker=is_maker,
        at_ms=at_ms,
    )
    account.fills.append(fill)
    updated = _filled(order, trade.quantity_lots, quote_units, released, at_ms)
    state.replace(updated)
    return OrderUpdated(updated, Execution.TRADE, fill, at_ms, updated.client_order_id, "")


def close(state: VenueState, order: Order, status: OrderStatus, at_ms: int) -> Order:
    """End an order and give back what it still holds."""
    asset, units = locked_asset(order, state.markets[order.symbol].spec)
    if units:
        state.accounts[order.account].wallet.unlock(asset, units)
    closed = replace(order, status=status, locked_units=0, updated_ms=at_ms)
    state.replace(closed)
    return closed


def _released(order: Order, trade: Traded, spec: SymbolSpec) -> int:
    if order.price_ticks is None:
        return 0
    if order.side is Side.BUY:
        return spec.notional_units(order.price_ticks, trade.quantity_lots)
    return trade.quantity_lots * spec.lot_units


def _filled(order: Order, lots: int, quote_units: int, released: int, at_ms: int) -> Order:
    filled = order.filled_lots + lots
    whole = filled == order.quantity_lots
    return replace(
        order,
        status=OrderStatus.FILLED if whole else OrderStatus.PARTIALLY_FILLED,
        filled_lots=filled,
        filled_quote_units=order.filled_quote_units + quote_units,
        locked_units=order.locked_units - released,
        updated_ms=at_ms,
    )


def _fee(
    state: VenueState,
    account: Account,
    received: tuple[str, int],
    quote: tuple[str, int],
    *,
    is_maker: bool,
) -> tuple[str, int]:
    """The commission, rounded down: in the third asset if set, priced and there, else as received.

    The quote asset of a trade prices the third asset; see `Genesis.fee_asset_prices`.
    """
    rates = account.fees
    ppm = rates.maker_ppm if is_maker else rates.taker_ppm
    if rates.asset is not None and rates.asset != received[0]:
        price = state.genesis.fee_asset_prices.get(rates.asset, {}).get(quote[0])
        charged = 0 if price is None else quote[1] * ppm * UNIT // (PPM * price)
        if price is not None and charged <= account.wallet.free(rates.asset):
            return rates.asset, charged
    return received[0], received[1] * ppm // PPM
