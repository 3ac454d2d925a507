"""What orders and trades do to wallets and order records."""

from msgspec.structs import replace

from matching.model import Side, Traded
from venues.simulator.commands import OrderUpdated
from venues.simulator.decimals import UNIT
from venues.simulator.model import (
    PPM,
    Execution,
    FeeIn,
    Fill,
    LedgerKind,
    Order,
    OrderStatus,
    Reason,
    SymbolSpec,
)
from venues.simulator.orders import held_units, spent_asset
from venues.simulator.state import Account, VenueState


def hold(state: VenueState, order: Order) -> Order:
    """Lock what an order that holds nothing yet must hold; the order with it."""
    spec = state.markets[order.symbol].spec
    units = held_units(order, spec)
    if units:
        state.accounts[order.account].wallet.lock(spent_asset(order, spec), units)
    return replace(order, locked_units=units)


def release(state: VenueState, order: Order) -> Order:
    """Give back all that an order holds; the order without it."""
    if not order.locked_units:
        return order
    spec = state.markets[order.symbol].spec
    state.accounts[order.account].wallet.unlock(spent_asset(order, spec), order.locked_units)
    return replace(order, locked_units=0)


def settle_trade(
    state: VenueState, order: Order, trade: Traded, *, is_maker: bool, at_ms: int
) -> OrderUpdated:
    """Move one side of a trade through its account's wallet and record it."""
    spec, account = state.markets[order.symbol].spec, state.accounts[order.account]
    wallet = account.wallet
    quote_units = spec.notional_units(trade.price_ticks, trade.quantity_lots)
    base_units = trade.quantity_lots * spec.lot_units
    is_buy = order.side is Side.BUY
    paid = (spec.quote, quote_units) if is_buy else (spec.base, base_units)
    received = (spec.base, base_units) if is_buy else (spec.quote, quote_units)
    updated = _filled(order, spec, trade.quantity_lots, quote_units, at_ms)
    wallet.unlock(paid[0], order.locked_units - updated.locked_units)
    wallet.debit(*paid)
    wallet.credit(*received)
    fee_asset, fee_units = _fee(account, state, order, spec, quote_units, base_units, is_maker)
    wallet.debit(fee_asset, fee_units)
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
    _enter(state, fill, (paid[0], -paid[1]), received)
    state.replace(updated)
    return OrderUpdated(updated, Execution.TRADE, fill, at_ms)


def prevent(state: VenueState, order: Order, lots: int, at_ms: int) -> OrderUpdated:
    """Take lots off an order that would have traded with its own account."""
    left = order.remaining_lots - lots
    status = order.status if left else OrderStatus.EXPIRED_IN_MATCH
    reason = order.reason if left else Reason.SELF_TRADE
    freed = replace(
        release(state, order),
        prevented_lots=order.prevented_lots + lots,
        status=status,
        reason=reason,
        updated_ms=at_ms,
    )
    held = hold(state, freed) if left else freed
    state.replace(held)
    return OrderUpdated(held, Execution.TRADE_PREVENTION, None, at_ms)


def close(
    state: VenueState, order: Order, status: OrderStatus, reason: Reason, at_ms: int
) -> Order:
    """End an order and give back what it still holds."""
    closed = replace(release(state, order), status=status, reason=reason, updated_ms=at_ms)
    state.replace(closed)
    return closed


def _enter(state: VenueState, fill: Fill, paid: tuple[str, int], received: tuple[str, int]) -> None:
    wallet = state.accounts[fill.account].wallet
    rows = [paid, received]
    if fill.fee_asset not in (paid[0], received[0]):
        rows.append((fill.fee_asset, 0))
    for asset, units in rows:
        state.enter_ledger(
            fill.account,
            LedgerKind.TRADE,
            asset,
            units,
            at_ms=fill.at_ms,
            fee_units=fill.fee_units if asset == fill.fee_asset else 0,
            symbol=fill.symbol,
            reference=str(fill.trade_id),
            balance_units=wallet.free(asset) + wallet.locked(asset),
        )


def _filled(order: Order, spec: SymbolSpec, lots: int, quote_units: int, at_ms: int) -> Order:
    """The order after a trade. One that had ended already stays ended, unless it is whole now."""
    filled = order.filled_lots + lots
    status = OrderStatus.PARTIALLY_FILLED if order.status.is_open else order.status
    if filled == order.quantity_lots:
        status = OrderStatus.FILLED
    elif filled + order.prevented_lots == order.quantity_lots:
        status = OrderStatus.EXPIRED_IN_MATCH
    updated = replace(
        order,
        status=status,
        filled_lots=filled,
        filled_quote_units=order.filled_quote_units + quote_units,
        updated_ms=at_ms,
    )
    held = min(order.locked_units, held_units(updated, spec)) if order.locked_units else 0
    return replace(updated, locked_units=held)


def _fee(
    account: Account,
    state: VenueState,
    order: Order,
    spec: SymbolSpec,
    quote_units: int,
    base_units: int,
    is_maker: bool,  # noqa: FBT001  one of the trade's values
) -> tuple[str, int]:
    """The commission, rounded down, in the third asset if set, priced and there, else as ordered.

    The quote asset of a trade prices the third asset; see `Genesis.fee_asset_prices`.
    """
    rates, wallet = account.fees, account.wallet
    ppm = rates.maker_ppm if is_maker else rates.taker_ppm
    in_quote = order.fee_in is FeeIn.QUOTE or (
        order.fee_in is FeeIn.RECEIVED and order.side is Side.SELL
    )
    asset, units = (spec.quote, quote_units) if in_quote else (spec.base, base_units)
    if rates.asset is not None and rates.asset != asset:
        price = state.genesis.fee_asset_prices.get(rates.asset, {}).get(spec.quote)
        charged = 0 if price is None else quote_units * ppm * UNIT // (PPM * price)
        if price is not None and charged <= wallet.free(rates.asset):
            return rates.asset, charged
    return asset, min(units * ppm // PPM, wallet.free(asset))
