"""The venue's own orders: a synthetic market from the seed, or a book mirrored from a recording."""

from collections.abc import Iterable

from matching.model import NewOrder, SelfTradePrevention, Side, TimeInForce
from venues.simulator import market_maker
from venues.simulator.commands import (
    MirrorLevels,
    MirrorTrade,
    MoveMid,
    StepMaker,
    VenueEvent,
    WithdrawQuotes,
)
from venues.simulator.engine import Engine
from venues.simulator.market import Market
from venues.simulator.model import FLOW, HOUSE

HouseCommand = StepMaker | MoveMid | WithdrawQuotes | MirrorLevels | MirrorTrade


class House:
    """The market maker and the flow that trades with it and with clients."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._state = engine.state

    def open_markets(self, at_ms: int) -> None:
        """Quote for the first time."""
        for market in self._state.markets.values():
            self._quote(market, at_ms, with_flow=False)

    def apply(self, command: HouseCommand) -> list[VenueEvent]:
        """Apply a checked command."""
        match command:
            case StepMaker():
                return self.step(command)
            case MoveMid():
                return self.move_mid(command)
            case WithdrawQuotes():
                return self.withdraw_quotes(command)
            case MirrorLevels():
                return self.mirror_levels(command)
            case MirrorTrade():
                return self.mirror_trade(command)

    def step(self, command: StepMaker) -> list[VenueEvent]:
        """One move on every symbol."""
        self._state.step += 1
        events: list[VenueEvent] = []
        for market in self._state.markets.values():
            events += self._quote(market, command.at_ms, with_flow=True)
        return events

    def move_mid(self, command: MoveMid) -> list[VenueEvent]:
        """Quote around another price from now on."""
        market = self._state.markets[command.symbol]
        self._state.step += 1
        market.mid_ticks = market.anchor_ticks = command.mid_ticks
        return self._quote(market, command.at_ms, with_flow=False)

    def withdraw_quotes(self, command: WithdrawQuotes) -> list[VenueEvent]:
        """Take all quotes off a book."""
        market = self._state.markets[command.symbol]
        return self._take_off(market, tuple(market.quotes))

    def mirror_levels(self, command: MirrorLevels) -> list[VenueEvent]:
        """Quote what a recording says: what shrinks or goes first, then what grows or comes."""
        market = self._state.markets[command.symbol]
        self._state.replayed_rows = max(self._state.replayed_rows, command.row)
        resting = resting_quotes(market)
        wanted = {(side, price): lots for side, price, lots in command.levels}
        gone = [key for key, lots in wanted.items() if not lots and key in resting]
        if command.whole:
            gone += [key for key in resting if key not in wanted]
        events = self._take_off(market, gone)
        changed = [key for key, lots in wanted.items() if lots and lots != resting.get(key, 0)]
        for key in sorted(changed, key=lambda key: wanted[key] > resting.get(key, 0)):
            if key in resting:
                events += self._take_off(market, (key,))
            quote = market_maker.Quote(*key, wanted[key])
            events += self._rest(market, quote, command.at_ms)
        _follow_mid(market)
        return events

    def mirror_trade(self, command: MirrorTrade) -> list[VenueEvent]:
        """Take from the book as a recorded taker did."""
        market = self._state.markets[command.symbol]
        self._state.replayed_rows = max(self._state.replayed_rows, command.row)
        order = NewOrder(
            market.take_order_id(),
            FLOW,
            command.side,
            command.quantity_lots,
            command.price_ticks,
            TimeInForce.IOC,
        )
        events = self._make_room(market, order, command.at_ms) if command.row else []
        return events + self._submit(market, order, command.at_ms)

    def _make_room(self, market: Market, order: NewOrder, at_ms: int) -> list[VenueEvent]:
        """Let a recorded trade happen at its price: what else is quoted there is out of date.

        Better quotes had gone when the trade happened, though the recording says so only later, and
        what lacks at its price was there.
        """
        assert order.price_ticks is not None
        maker_side, price = order.side.opposite, order.price_ticks
        sign = 1 if maker_side is Side.BUY else -1
        resting = resting_quotes(market)
        gone = [key for key in resting if key[0] is maker_side and sign * (key[1] - price) > 0]
        events = self._take_off(market, gone)
        there = sum(match.quantity_lots for match in market.book.preview(order))
        if there < order.quantity_lots:
            key = (maker_side, price)
            lots = resting.get(key, 0) + order.quantity_lots - there
            if key in market.quotes:
                events += self._take_off(market, (key,))
            events += self._rest(market, market_maker.Quote(*key, lots), at_ms)
        return events

    def _quote(self, market: Market, at_ms: int, *, with_flow: bool) -> list[VenueEvent]:
        genesis, spec = self._state.genesis, market.spec
        plan = market_maker.plan_step(
            spec,
            genesis.maker,
            seed=genesis.seed,
            step=self._state.step,
            mid_ticks=market.mid_ticks,
            anchor_ticks=market.anchor_ticks,
            resting=resting_quotes(market),
            with_flow=with_flow,
        )
        market.mid_ticks = plan.mid_ticks
        events = self._take_off(market, plan.withdraw)
        for quote in plan.quote:
            events += self._rest(market, quote, at_ms)
        for flow in plan.flow:
            order = market_maker.flow_order(FLOW, market.take_order_id(), flow)
            events += self._submit(market, order, at_ms)
        return events

    def _rest(self, market: Market, quote: market_maker.Quote, at_ms: int) -> list[VenueEvent]:
        order_id = market.take_order_id()
        market.quotes[quote.side, quote.price_ticks] = order_id
        order = NewOrder(
            order_id,
            HOUSE,
            quote.side,
            quote.quantity_lots,
            quote.price_ticks,
            self_trade_prevention=SelfTradePrevention.EXPIRE_MAKER,
        )
        return self._submit(market, order, at_ms)

    def _submit(self, market: Market, order: NewOrder, at_ms: int) -> list[VenueEvent]:
        outcome = market.submit(order, at_ms, self._engine.price_of(market))
        return self._engine.tell(market, order, outcome, at_ms)

    def _take_off(self, market: Market, keys: Iterable[tuple[Side, int]]) -> list[VenueEvent]:
        events: list[VenueEvent] = []
        for key in keys:
            events += market.cancel(market.quotes.pop(key))[2]
        return events


def resting_quotes(market: Market) -> dict[tuple[Side, int], int]:
    """The house's lots by (side, price); quotes that were taken are forgotten."""
    resting = {}
    for key, order_id in list(market.quotes.items()):
        order = market.book.find(order_id)
        if order is None:
            del market.quotes[key]
        else:
            resting[key] = order.remaining_lots
    return resting


def _follow_mid(market: Market) -> None:
    bid, ask = market.book.best_ticks(Side.BUY), market.book.best_ticks(Side.SELL)
    if bid is not None and ask is not None:
        market.mid_ticks = market.anchor_ticks = max(1, (bid + ask) // 2)
