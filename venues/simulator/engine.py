"""What accepted commands do to clients' orders: books, funds, triggers and order lists.

The engine changes the state and says what it changed; it refuses nothing, that is `checks`' part.
"""

from collections.abc import Callable, Iterable
from typing import Final

from msgspec.structs import replace

from matching.model import (
    Accepted,
    Cancelled,
    Decremented,
    Event,
    Expired,
    ExpireReason,
    NewOrder,
    Rejected,
    Replaced,
    SelfTradePrevention,
    Traded,
)
from venues.simulator import settlement, triggers
from venues.simulator.commands import (
    AmendOrder,
    CancelAll,
    CancelOrder,
    LateFill,
    OrderUpdated,
    PassTime,
    PlaceOrder,
    PlaceOrderList,
    SetDeadMan,
    VenueEvent,
)
from venues.simulator.market import Market, Outcome
from venues.simulator.model import (
    Amendment,
    Execution,
    Order,
    OrderStatus,
    PreventedMatch,
    Reason,
)
from venues.simulator.order_lists import OrderLists
from venues.simulator.orders import (
    amended,
    book_order,
    new_order,
    spent_asset,
    units_needed,
)
from venues.simulator.state import VenueState

_EXPIRED: Final = {
    ExpireReason.NOT_FILLED_AT_ONCE: Reason.NOT_FILLED_AT_ONCE,
    ExpireReason.NOT_FILLABLE_WHOLE: Reason.NOT_FILLABLE_WHOLE,
    ExpireReason.SELF_TRADE: Reason.SELF_TRADE,
}

OrderCommand = (
    PlaceOrder
    | PlaceOrderList
    | CancelOrder
    | CancelAll
    | AmendOrder
    | SetDeadMan
    | PassTime
    | LateFill
)


class Engine:
    """The verbs on clients' orders. Every verb's events are to be handed to `finish`."""

    def __init__(self, state: VenueState) -> None:
        self.state = state
        self._lists = OrderLists(self)
        self._traded: dict[str, None] = {}

    def apply(self, command: OrderCommand) -> list[VenueEvent]:
        """Apply a checked command."""
        match command:
            case PlaceOrder():
                return self.place(command)
            case CancelOrder():
                return self.cancel(command)
            case AmendOrder():
                return self.amend(command)
            case PlaceOrderList():
                return self._lists.place(command)
            case CancelAll():
                return self.cancel_all(command)
            case SetDeadMan():
                return self.set_dead_man(command)
            case PassTime():
                return self.pass_time(command)
            case LateFill():
                return self.late_fill(command)

    def place(self, command: PlaceOrder) -> list[VenueEvent]:
        """Accept an order and match it."""
        market = self.state.markets[command.symbol]
        fees = self.state.accounts[command.account].fees
        order = settlement.hold(self.state, new_order(command, market.take_order_id(), fees))
        events: list[VenueEvent] = [self.remember(market, order, command.at_ms)]
        if not order.is_working:
            return events
        return events + self.enter(market, order, command.at_ms)

    def cancel(self, command: CancelOrder) -> list[VenueEvent]:
        """End an order, and with it its list."""
        order = self.order(command.symbol, command.order_id)
        reason = Reason.REQUESTED
        events = self.end(order, OrderStatus.CANCELED, reason, command.at_ms, command.request_id)
        for other in self._lists.others(order):
            if other.status.is_open:
                events += self.end(
                    other, OrderStatus.CANCELED, reason, command.at_ms, command.request_id
                )
        return events

    def cancel_all(self, command: CancelAll) -> list[VenueEvent]:
        """End all orders of an account or of one symbol of it."""
        return self._end_all(
            command.account, command.symbol, Reason.REQUESTED, command.at_ms, command.request_id
        )

    def amend(self, command: AmendOrder) -> list[VenueEvent]:
        """Change an order; one in the book may lose its place, or trade."""
        state, market = self.state, self.state.markets[command.symbol]
        order = self.order(command.symbol, command.order_id)
        changed = settlement.hold(state, settlement.release(state, amended(order, command)))
        if changed.client_order_id != order.client_order_id:
            state.rename(order, changed.client_order_id)
        state.replace(changed)
        rows = state.amendments_of(order.symbol, order.order_id)
        amendment = Amendment(
            len(rows) + 1,
            command.at_ms,
            order.client_order_id,
            changed.client_order_id,
            order.quantity_lots,
            changed.quantity_lots,
        )
        state.record_amendment(order.symbol, order.order_id, amendment)
        told: list[VenueEvent] = [
            OrderUpdated(changed, Execution.AMENDED, None, command.at_ms, command.request_id)
        ]
        if not order.is_working:
            return told
        assert order.price_ticks is not None
        sent = book_order(changed)
        outcome = market.amend(sent, order.price_ticks, command.at_ms, self.price_of(market))
        return told + self.tell(market, sent, outcome, command.at_ms)

    def set_dead_man(self, command: SetDeadMan) -> list[VenueEvent]:
        """Arm or disarm an account's dead man's switch."""
        self.state.accounts[command.account].dead_man_ms = command.fires_ms
        return []

    def pass_time(self, command: PassTime) -> list[VenueEvent]:
        """End what is due."""
        events: list[VenueEvent] = []
        for order in self.state.expired(command.at_ms):
            found = self.order(order.symbol, order.order_id)
            if found.status.is_open:
                events += self.end(found, OrderStatus.EXPIRED, Reason.EXPIRY, command.at_ms)
        for name, account in self.state.accounts.items():
            if account.dead_man_ms is not None and account.dead_man_ms <= command.at_ms:
                account.dead_man_ms = None
                events += self._end_all(name, None, Reason.DEAD_MAN, command.at_ms)
        return events

    def late_fill(self, command: LateFill) -> list[VenueEvent]:
        """Fill a cancelled order at its own price, as maker."""
        market = self.state.markets[command.symbol]
        order = self.order(command.symbol, command.order_id)
        assert order.price_ticks is not None
        traded = Traded(
            trade_id=market.next_trade_id,
            maker_order_id=order.order_id,
            taker_order_id=market.take_order_id(),
            taker_side=order.side.opposite,
            price_ticks=order.price_ticks,
            quantity_lots=command.quantity_lots,
            maker_remaining_lots=order.remaining_lots - command.quantity_lots,
            taker_remaining_lots=0,
        )
        trade = market.trade(traded, command.at_ms)
        self._traded[command.symbol] = None
        filled = settlement.settle_trade(
            self.state, order, traded, is_maker=True, at_ms=command.at_ms
        )
        return [trade, filled]

    def finish(self, events: list[VenueEvent], at_ms: int) -> list[VenueEvent]:
        """Let triggers and order lists follow what happened, until nothing more happens."""
        done = 0
        while done < len(events) or self._traded:
            fresh, done = events[done:], len(events)
            if self.state.order_list_count:
                events += self._lists.advance(fresh, at_ms)
            traded, self._traded = self._traded, {}
            for symbol in traded:
                if self.state.markets[symbol].waiting:
                    events += self._fire(self.state.markets[symbol], at_ms)
        return events

    def price_of(self, market: Market) -> Callable[[int], int]:
        """How to find the price of an order that has just left the book."""

        def price(order_id: int) -> int:
            order = self.state.order(market.spec.name, order_id)
            if order is not None and order.price_ticks is not None:
                return order.price_ticks
            return next(ticks for (_, ticks), quoted in market.quotes.items() if quoted == order_id)

        return price

    def tell(
        self, market: Market, sent: NewOrder, outcome: Outcome, at_ms: int
    ) -> list[VenueEvent]:
        """Settle what a book said about an order, and say it."""
        answers, trades, levels = outcome
        assert not isinstance(answers[0], Rejected), f"a checked order was refused: {answers[0]}"
        events: list[VenueEvent] = []
        told = iter(trades)
        for answer in answers:
            if isinstance(answer, Traded):
                events.append(next(told))
            events += self._settle(market, sent, answer, at_ms)
        if trades:
            self._traded[market.spec.name] = None
        events += levels
        return events

    def order(self, symbol: str, order_id: int) -> Order:
        """The order as it is now; it must be one of a client."""
        order = self.state.order(symbol, order_id)
        assert order is not None
        return order

    def remember(self, market: Market, order: Order, at_ms: int) -> OrderUpdated:
        """Store a new order; one that waits begins to follow the price."""
        if order.is_waiting:
            order = triggers.follow(order, market.reference_ticks, at_ms)
            market.waiting[order.order_id] = None
        self.state.remember(order)
        return OrderUpdated(order, Execution.NEW, None, at_ms)

    def enter(self, market: Market, order: Order, at_ms: int) -> list[VenueEvent]:
        """Give an order to its book."""
        sent = book_order(order)
        return self.tell(market, sent, market.submit(sent, at_ms, self.price_of(market)), at_ms)

    def _settle(
        self, market: Market, sent: NewOrder, answer: Event, at_ms: int
    ) -> Iterable[VenueEvent]:
        match answer:
            case Traded():
                return self._settle_trade(market, answer, at_ms)
            case Decremented():
                return self._settle_prevented(market, sent, answer, at_ms)
            case Expired():
                return self._settle_expired(market, sent, answer, at_ms)
            case Accepted() | Rejected() | Replaced() | Cancelled():
                return ()

    def _settle_trade(self, market: Market, trade: Traded, at_ms: int) -> list[VenueEvent]:
        events: list[VenueEvent] = []
        for order_id, is_maker in ((trade.maker_order_id, True), (trade.taker_order_id, False)):
            order = self.state.order(market.spec.name, order_id)
            if order is None:
                continue
            if order.order_list_id >= 0 and not order.filled_lots:
                events += self._lists.end_rivals(order, at_ms)
                if not order.locked_units:
                    order = settlement.hold(self.state, order)
            events.append(
                settlement.settle_trade(self.state, order, trade, is_maker=is_maker, at_ms=at_ms)
            )
        return events

    def _settle_prevented(
        self, market: Market, sent: NewOrder, answer: Decremented, at_ms: int
    ) -> list[VenueEvent]:
        maker = self.order(market.spec.name, answer.maker_order_id)
        self._record_prevented(market, sent, maker, answer.quantity_lots, at_ms)
        return [
            settlement.prevent(
                self.state, self.order(market.spec.name, order_id), answer.quantity_lots, at_ms
            )
            for order_id in (answer.maker_order_id, answer.taker_order_id)
        ]

    def _settle_expired(
        self, market: Market, sent: NewOrder, answer: Expired, at_ms: int
    ) -> list[VenueEvent]:
        order = self.state.order(market.spec.name, answer.order_id)
        if order is None:
            return []
        status, execution = OrderStatus.EXPIRED, Execution.EXPIRED
        if answer.reason is ExpireReason.SELF_TRADE:
            status, execution = OrderStatus.EXPIRED_IN_MATCH, Execution.TRADE_PREVENTION
            self._record_expired(market, sent, order, answer.remaining_lots, at_ms)
        closed = settlement.close(self.state, order, status, _EXPIRED[answer.reason], at_ms)
        return [OrderUpdated(closed, execution, None, at_ms)]

    def _record_expired(
        self, market: Market, sent: NewOrder, order: Order, lots: int, at_ms: int
    ) -> None:
        """Record the match that did not happen, once: at the maker, or where only the taker ends."""
        if order.order_id != sent.order_id:
            self._record_prevented(market, sent, order, min(lots, sent.quantity_lots), at_ms)
        elif sent.self_trade_prevention is SelfTradePrevention.EXPIRE_TAKER:
            met = next(iter(market.book.orders(sent.side.opposite)))
            maker = self.order(market.spec.name, met.order_id)
            self._record_prevented(market, sent, maker, min(lots, met.remaining_lots), at_ms)

    def _record_prevented(
        self, market: Market, sent: NewOrder, maker: Order, lots: int, at_ms: int
    ) -> None:
        assert maker.price_ticks is not None
        self.state.prevented_count += 1
        self.state.accounts[maker.account].prevented.append(
            PreventedMatch(
                symbol=market.spec.name,
                number=self.state.prevented_count,
                taker_order_id=sent.order_id,
                maker_order_id=maker.order_id,
                account=maker.account,
                price_ticks=maker.price_ticks,
                quantity_lots=lots,
                mode=sent.self_trade_prevention,
                at_ms=at_ms,
            )
        )

    def end(
        self, order: Order, status: OrderStatus, reason: Reason, at_ms: int, request_id: str = ""
    ) -> list[VenueEvent]:
        """End an open order."""
        market = self.state.markets[order.symbol]
        market.waiting.pop(order.order_id, None)
        levels: list[VenueEvent] = []
        if order.is_working:
            levels += market.cancel(order.order_id)[2]
        closed = settlement.close(self.state, order, status, reason, at_ms)
        canceled = status is OrderStatus.CANCELED
        execution = Execution.CANCELED if canceled else Execution.EXPIRED
        return [OrderUpdated(closed, execution, None, at_ms, request_id), *levels]

    def _end_all(
        self, account: str, symbol: str | None, reason: Reason, at_ms: int, request_id: str = ""
    ) -> list[VenueEvent]:
        events: list[VenueEvent] = []
        for order in self.state.all_open_orders_of(account):
            if symbol in (None, order.symbol):
                events += self.end(order, OrderStatus.CANCELED, reason, at_ms, request_id)
        return events

    def _fire(self, market: Market, at_ms: int) -> list[VenueEvent]:
        """Let the trails of waiting orders follow the last price, and trigger who is reached."""
        events: list[VenueEvent] = []
        last = market.reference_ticks
        for order_id in sorted(market.waiting):
            order = self.order(market.spec.name, order_id)
            if not order.is_waiting:
                market.waiting.pop(order_id, None)
                continue
            moved = triggers.follow(order, last, at_ms)
            if moved is not order:
                self.state.replace(moved)
            if triggers.fires(moved, last):
                events += self._trigger(market, moved, at_ms)
        return events

    def _trigger(self, market: Market, order: Order, at_ms: int) -> list[VenueEvent]:
        market.waiting.pop(order.order_id, None)
        events = self._lists.end_rivals(order, at_ms)
        fired = replace(
            settlement.release(self.state, order),
            triggered_ms=at_ms,
            working_ms=at_ms,
            updated_ms=at_ms,
            price_ticks=triggers.limit_when_fired(order),
        )
        self.state.replace(fired)
        if not self.is_covered(market, fired):
            closed = settlement.close(
                self.state, fired, OrderStatus.EXPIRED, Reason.NO_FUNDS, at_ms
            )
            return [*events, OrderUpdated(closed, Execution.EXPIRED, None, at_ms)]
        held = settlement.hold(self.state, fired)
        self.state.replace(held)
        events.append(OrderUpdated(held, Execution.TRIGGERED, None, at_ms))
        return events + self.enter(market, held, at_ms)

    def is_covered(self, market: Market, order: Order) -> bool:
        """Whether the account can pay an order."""
        needed = units_needed(order, market.spec, market.book.preview(book_order(order)))
        wallet = self.state.accounts[order.account].wallet
        return needed <= wallet.free(spent_asset(order, market.spec))
