"""Lists of orders that depend on each other: one ends or begins with another.

They change nothing themselves: books and funds are the engine's.
"""

from typing import Protocol

from msgspec.structs import replace

from venues.simulator import settlement, triggers
from venues.simulator.commands import (
    OrderListUpdated,
    OrderUpdated,
    PlaceOrderList,
    VenueEvent,
)
from venues.simulator.market import Market
from venues.simulator.model import (
    Execution,
    Order,
    OrderList,
    OrderListKind,
    OrderListStatus,
    OrderStatus,
    Reason,
)
from venues.simulator.orders import crosses, held_units, new_order
from venues.simulator.state import VenueState


class OrderVerbs(Protocol):
    """What the engine does to one order."""

    @property
    def state(self) -> VenueState:
        """The venue's records."""

    def order(self, symbol: str, order_id: int) -> Order:
        """The order as it is now."""

    def remember(self, market: Market, order: Order, at_ms: int) -> OrderUpdated:
        """Store a new order."""

    def enter(self, market: Market, order: Order, at_ms: int) -> list[VenueEvent]:
        """Give an order to its book."""

    def end(
        self, order: Order, status: OrderStatus, reason: Reason, at_ms: int, request_id: str = ""
    ) -> list[VenueEvent]:
        """End an open order."""

    def is_covered(self, market: Market, order: Order) -> bool:
        """Whether the account can pay an order."""


class OrderLists:
    """The verbs on lists."""

    def __init__(self, engine: OrderVerbs) -> None:
        self._engine = engine
        self._state = engine.state

    def place(self, command: PlaceOrderList) -> list[VenueEvent]:
        """Accept orders that depend on each other."""
        market, account = self._state.markets[command.symbol], self._state.accounts[command.account]
        self._state.order_list_count += 1
        list_id = self._state.order_list_count
        kind = command.kind
        orders = [
            new_order(
                sent,
                market.take_order_id(),
                account.fees,
                list_id=list_id,
                pending=kind is not OrderListKind.OCO and position > 0,
            )
            for position, sent in enumerate(command.orders)
        ]
        order_list = OrderList(
            list_id=list_id,
            account=command.account,
            symbol=command.symbol,
            kind=kind,
            client_list_id=command.client_list_id,
            order_ids=tuple(order.order_id for order in orders),
            status=OrderListStatus.EXECUTING,
            created_ms=command.at_ms,
            updated_ms=command.at_ms,
        )
        account.order_lists[list_id] = order_list
        events: list[VenueEvent] = [OrderListUpdated(order_list, command.at_ms)]
        paying = self._paying(market, orders) if kind is OrderListKind.OCO else orders[0].order_id
        for order in orders:
            holds = order.order_id == paying
            held = settlement.hold(self._state, order) if holds else order
            events.append(self._engine.remember(market, held, command.at_ms))
        for order in orders:
            accepted = self._engine.order(order.symbol, order.order_id)
            if accepted.is_working:
                events += self._engine.enter(market, accepted, command.at_ms)
        return events

    def _paying(self, market: Market, orders: list[Order]) -> int:
        """Of orders that end each other, the one that holds the funds of all."""
        return max(orders, key=lambda order: held_units(order, market.spec)).order_id

    def others(self, order: Order) -> list[Order]:
        """The orders of an order's list but itself."""
        order_list = self._state.order_list(order.account, order.order_list_id)
        if order_list is None:
            return []
        return [
            self._engine.order(order.symbol, i) for i in order_list.order_ids if i != order.order_id
        ]

    def end_rivals(self, order: Order, at_ms: int) -> list[VenueEvent]:
        """End the orders that this one, now that it trades or triggers, replaces."""
        order_list = self._state.order_list(order.account, order.order_list_id)
        if order_list is None or order_list.kind is OrderListKind.OTO:
            return []
        if order_list.kind is OrderListKind.OTOCO and order.order_id == order_list.order_ids[0]:
            return []
        rivals = order_list.order_ids[-2:]
        return [
            event
            for other in self.others(order)
            if other.order_id in rivals and other.status.is_open
            for event in self._engine.end(other, OrderStatus.EXPIRED, Reason.ORDER_LIST, at_ms)
        ]

    def advance(self, fresh: list[VenueEvent], at_ms: int) -> list[VenueEvent]:
        """Let lists follow what has just happened to their orders."""
        events: list[VenueEvent] = []
        for event in fresh:
            if not isinstance(event, OrderUpdated) or event.order.order_list_id < 0:
                continue
            order = self._engine.order(event.order.symbol, event.order.order_id)
            order_list = self._state.order_list(order.account, order.order_list_id)
            assert order_list is not None
            if order.status.is_open or order_list.status is OrderListStatus.ALL_DONE:
                continue
            events += self._follow_end(order, order_list, at_ms)
        return events

    def _follow_end(self, order: Order, order_list: OrderList, at_ms: int) -> list[VenueEvent]:
        """What the end of one order means for the others of its list."""
        events: list[VenueEvent] = []
        leads = order_list.kind is not OrderListKind.OCO and (
            order.order_id == order_list.order_ids[0]
        )
        if leads and order.status is OrderStatus.FILLED:
            events += self._activate(order_list, at_ms)
        elif order.reason is not Reason.ORDER_LIST:  # its rival ended it, and goes on
            requested = order.status is OrderStatus.CANCELED
            status = OrderStatus.CANCELED if requested else OrderStatus.EXPIRED
            for other in self.others(order):
                if other.status.is_open:
                    events += self._engine.end(other, status, Reason.ORDER_LIST, at_ms)
        if all(
            not self._engine.order(order.symbol, i).status.is_open for i in order_list.order_ids
        ):
            done = replace(order_list, status=OrderListStatus.ALL_DONE, updated_ms=at_ms)
            self._state.accounts[order.account].order_lists[order_list.list_id] = done
            events.append(OrderListUpdated(done, at_ms))
        return events

    def _activate(self, order_list: OrderList, at_ms: int) -> list[VenueEvent]:
        """Begin the orders that waited for the first one of their list to be filled."""
        market = self._state.markets[order_list.symbol]
        begun = [
            replace(
                order,
                status=OrderStatus.NEW,
                working_ms=0 if order.type.waits else at_ms,
                updated_ms=at_ms,
            )
            for order in (
                self._engine.order(order_list.symbol, i) for i in order_list.order_ids[1:]
            )
            if order.status is OrderStatus.PENDING_NEW
        ]
        if not begun:
            return []
        paying = self._paying(market, begun)
        events: list[VenueEvent] = []
        for order in begun:
            self._state.replace(order)
        if not all(self._engine.is_covered(market, o) for o in begun if o.order_id == paying):
            for order in begun:
                closed = settlement.close(
                    self._state, order, OrderStatus.EXPIRED, Reason.NO_FUNDS, at_ms
                )
                events.append(OrderUpdated(closed, Execution.EXPIRED, None, at_ms))
            return events
        for order in sorted(begun, key=lambda order: not order.type.waits):
            current = self._engine.order(order.symbol, order.order_id)
            if current.status.is_open:
                events += self._begin(market, current, at_ms, holds=order.order_id == paying)
        return events

    def _begin(self, market: Market, order: Order, at_ms: int, *, holds: bool) -> list[VenueEvent]:
        held = settlement.hold(self._state, order) if holds else order
        if held.is_waiting:
            held = triggers.follow(held, market.reference_ticks, at_ms)
            market.waiting[held.order_id] = None
        self._state.replace(held)
        told: list[VenueEvent] = [OrderUpdated(held, Execution.NEW, None, at_ms)]
        if held.is_waiting:
            return told
        best = market.book.best_ticks(held.side.opposite)
        if held.post_only and crosses(held.side, held.price_ticks, best):
            return told + self._end_unentered(held, at_ms)
        return told + self._engine.enter(market, held, at_ms)

    def _end_unentered(self, order: Order, at_ms: int) -> list[VenueEvent]:
        closed = settlement.close(
            self._state, order, OrderStatus.EXPIRED, Reason.NOT_FILLED_AT_ONCE, at_ms
        )
        return [OrderUpdated(closed, Execution.EXPIRED, None, at_ms)]
