"""The venue's state machine: check a command, apply a command.

`check` says whether a command would be refused and changes nothing; `apply` cannot refuse. Between
the two the caller writes the command to the journal, which is why applying the journal to the same
genesis always rebuilds the same state. No clock, no I/O: times come with the commands.
"""

from collections.abc import Iterable
from typing import assert_never

from matching.model import (
    Accepted,
    Cancelled,
    Event,
    Expired,
    ExpireReason,
    NewOrder,
    Rejected,
    Side,
    Traded,
)
from venues.simulator import errors, funding, market_maker, settlement
from venues.simulator.commands import (
    BalancesChanged,
    CancelOrder,
    Command,
    CreditDeposit,
    FundsMoved,
    MoveMid,
    OrderUpdated,
    PlaceOrder,
    RequestWithdrawal,
    SetBalance,
    SetDepositAddress,
    SetFees,
    SettleWithdrawal,
    StepMaker,
    VenueEvent,
    WithdrawQuotes,
)
from venues.simulator.market import Market, is_refused
from venues.simulator.model import (
    FLOW,
    HOUSE,
    Execution,
    Genesis,
    Order,
    OrderStatus,
    OrderType,
)
from venues.simulator.orders import book_order, budget_lots, funds_needed
from venues.simulator.state import Account, VenueState


class Exchange:
    """All of the venue's truth, changed only by `apply`."""

    def __init__(self, genesis: Genesis) -> None:
        self.state = VenueState(genesis)
        for market in self.state.markets.values():
            self._quote(market, genesis.at_ms, with_flow=False)

    def check(self, command: Command) -> None:
        """Refuse a command that cannot be applied.

        Raises:
            VenueRefusal: with the code a client is answered; nothing was changed.
        """
        match command:
            case PlaceOrder():
                self._check_order(command)
            case CancelOrder():
                order = self.state.find_order(command.account, command.symbol, command.order_id)
                if order is None or not order.status.is_open:
                    raise errors.unknown_order_to_cancel()
            case RequestWithdrawal():
                funding.check_withdrawal(self.state, command)
            case SettleWithdrawal():
                funding.check_settlement(self.state, command)
            case _:
                pass

    def apply(self, command: Command) -> tuple[VenueEvent, ...]:
        """Change the state and say what changed, in order."""
        events = self._applied(command)
        return (*events, *self._balances_after(events, command.at_ms))

    def resolve_quantity(self, symbol: str, side: Side, quote_units: int) -> int:
        """Lots a market order of this many quote units would trade now.

        Raises:
            VenueRefusal: -2010 when the book is empty.
        """
        market = self.state.markets[symbol]
        lots = budget_lots(market.spec, market.book.depth(side.opposite), quote_units)
        if lots == 0:
            raise errors.no_liquidity()
        return lots

    def _check_order(self, command: PlaceOrder) -> None:
        market, account = self.state.markets[command.symbol], self.state.accounts[command.account]
        if self.state.open_order_id(command.account, command.symbol, command.client_order_id):
            raise errors.duplicate_order()
        order = book_order(command, market.next_order_id)
        best = market.book.best_ticks(command.side.opposite)
        if command.type is OrderType.LIMIT_MAKER and best is not None:
            price = command.price_ticks
            assert price is not None
            if best <= price if command.side is Side.BUY else best >= price:
                raise errors.would_take()
        asset, units = funds_needed(command, market.spec, market.book.preview(order))
        if units > account.wallet.free(asset):
            raise errors.insufficient_balance()

    def _applied(self, command: Command) -> list[VenueEvent]:
        match command:
            case PlaceOrder():
                return self._place(command)
            case CancelOrder():
                return self._cancel(command)
            case StepMaker():
                return self._step(command)
            case MoveMid():
                return self._move_mid(command)
            case WithdrawQuotes():
                return self._withdraw_quotes(command)
            case (
                CreditDeposit()
                | SetBalance()
                | RequestWithdrawal()
                | SettleWithdrawal()
                | SetDepositAddress()
                | SetFees()
            ):
                return funding.apply(self.state, command)
            case _ as never:
                assert_never(never)

    def _place(self, command: PlaceOrder) -> list[VenueEvent]:
        market, account = self.state.markets[command.symbol], self.state.accounts[command.account]
        order_id = market.take_order_id()
        order = settlement.new_order(command, order_id, market.spec)
        if order.locked_units:
            account.wallet.lock(*settlement.locked_asset(order, market.spec))
        self.state.remember(order)
        events: list[VenueEvent] = [_update(order, Execution.NEW, command.at_ms)]
        return events + self._submit(market, book_order(command, order_id), command.at_ms)

    def _submit(self, market: Market, order: NewOrder, at_ms: int) -> list[VenueEvent]:
        answers, levels = market.submit(order, at_ms)
        assert not is_refused(answers), f"the book refused a checked order: {answers[0]}"
        events: list[VenueEvent] = []
        for answer in answers:
            if isinstance(answer, Traded):
                events.append(market.trades[answer.trade_id - market.next_trade_id])
            events += self._settle(market, answer, at_ms)
        return events + list(levels)

    def _settle(self, market: Market, event: Event, at_ms: int) -> list[VenueEvent]:
        match event:
            case Accepted() | Rejected():
                return []
            case Traded():
                sides = ((event.maker_order_id, True), (event.taker_order_id, False))
                found = [(self.state.order(market.spec.name, i), is_maker) for i, is_maker in sides]
                return [
                    settlement.settle_trade(
                        self.state, order, event, is_maker=is_maker, at_ms=at_ms
                    )
                    for order, is_maker in found
                    if order is not None
                ]
            case Expired():
                status, execution = OrderStatus.EXPIRED, Execution.EXPIRED
                if event.reason is ExpireReason.SELF_TRADE:
                    status, execution = OrderStatus.EXPIRED_IN_MATCH, Execution.TRADE_PREVENTION
                return self._close(market, event.order_id, status, execution, at_ms)
            case Cancelled():
                return self._close(
                    market, event.order_id, OrderStatus.CANCELED, Execution.CANCELED, at_ms
                )
            case _ as never:
                assert_never(never)

    def _close(
        self, market: Market, order_id: int, status: OrderStatus, execution: Execution, at_ms: int
    ) -> list[VenueEvent]:
        order = self.state.order(market.spec.name, order_id)
        if order is None:
            return []
        closed = settlement.close(self.state, order, status, at_ms)
        return [_update(closed, execution, at_ms)]

    def _cancel(self, command: CancelOrder) -> list[VenueEvent]:
        market = self.state.markets[command.symbol]
        answer, levels = market.cancel(command.order_id)
        assert isinstance(answer, Cancelled), "an open order was not in the book"
        events = self._settle(market, answer, command.at_ms)
        named = [
            OrderUpdated(
                event.order,
                event.execution,
                None,
                event.at_ms,
                command.cancel_client_id,
                event.order.client_order_id,
            )
            for event in events
            if isinstance(event, OrderUpdated)
        ]
        return [*named, *levels]

    def _step(self, command: StepMaker) -> list[VenueEvent]:
        self.state.step += 1
        events: list[VenueEvent] = []
        for market in self.state.markets.values():
            events += self._quote(market, command.at_ms, with_flow=True)
        return events

    def _move_mid(self, command: MoveMid) -> list[VenueEvent]:
        market = self.state.markets[command.symbol]
        self.state.step += 1
        market.mid_ticks = market.anchor_ticks = command.mid_ticks
        return self._quote(market, command.at_ms, with_flow=False)

    def _quote(self, market: Market, at_ms: int, *, with_flow: bool) -> list[VenueEvent]:
        genesis, spec = self.state.genesis, market.spec
        dice = market_maker.Dice(genesis.seed, spec.name, self.state.step)
        mid = market.mid_ticks
        if with_flow:
            mid = market_maker.drifted_mid(genesis.maker, mid, market.anchor_ticks, dice)
        plan = market_maker.plan_step(
            spec,
            genesis.maker,
            dice=dice,
            mid_ticks=mid,
            anchor_ticks=market.anchor_ticks,
            resting=_resting_quotes(market),
            with_flow=with_flow,
        )
        market.mid_ticks = plan.mid_ticks
        events = self._take_off(market, plan.withdraw)
        for quote in plan.quote:
            order_id = market.take_order_id()
            market.quotes[quote.side, quote.price_ticks] = order_id
            order = market_maker.quote_order(HOUSE, order_id, quote)
            events += self._submit(market, order, at_ms)
        if plan.flow is not None:
            order = market_maker.flow_order(FLOW, market.take_order_id(), plan.flow)
            events += self._submit(market, order, at_ms)
        return events

    def _withdraw_quotes(self, command: WithdrawQuotes) -> list[VenueEvent]:
        market = self.state.markets[command.symbol]
        return self._take_off(market, tuple(market.quotes))

    def _take_off(self, market: Market, keys: Iterable[tuple[Side, int]]) -> list[VenueEvent]:
        events: list[VenueEvent] = []
        for key in keys:
            _, levels = market.cancel(market.quotes.pop(key))
            events += levels
        return events

    def _balances_after(self, events: list[VenueEvent], at_ms: int) -> list[BalancesChanged]:
        touched: dict[str, dict[str, None]] = {}
        for event in events:
            for account, asset in _assets_touched(event, self.state):
                touched.setdefault(account, {})[asset] = None
        return [
            _balances(self.state.accounts[account], assets, at_ms)
            for account, assets in touched.items()
        ]


def _resting_quotes(market: Market) -> dict[tuple[Side, int], int]:
    resting = {}
    for key, order_id in list(market.quotes.items()):
        order = market.book.find(order_id)
        if order is None:
            del market.quotes[key]
        else:
            resting[key] = order.remaining_lots
    return resting


def _update(order: Order, execution: Execution, at_ms: int) -> OrderUpdated:
    return OrderUpdated(order, execution, None, at_ms, order.client_order_id, "")


def _balances(account: Account, assets: Iterable[str], at_ms: int) -> BalancesChanged:
    wallet = account.wallet
    rows = tuple((asset, wallet.free(asset), wallet.locked(asset)) for asset in assets)
    return BalancesChanged(account.spec.name, rows, at_ms)


def _assets_touched(event: VenueEvent, state: VenueState) -> list[tuple[str, str]]:
    if isinstance(event, OrderUpdated):
        spec, order = state.markets[event.order.symbol].spec, event.order
        fee = [event.fill.fee_asset] if event.fill is not None else []
        return [(order.account, asset) for asset in (spec.base, spec.quote, *fee)]
    if isinstance(event, FundsMoved):
        return [(event.account, event.asset)]
    return []
