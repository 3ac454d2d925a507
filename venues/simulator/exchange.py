"""The venue's state machine: check a command, apply a command.

`check` says whether a command would be refused and changes nothing; `apply` cannot refuse. Between
the two the caller writes the command to the journal, which is why applying the journal to the same
genesis always rebuilds the same state. No clock, no I/O: times come with the commands.
"""

from collections.abc import Iterable

from matching.model import NewOrder, Side, TimeInForce
from venues.simulator import checks, funding
from venues.simulator.commands import (
    AmendOrder,
    BalancesChanged,
    CancelAll,
    CancelOrder,
    Command,
    FundsMoved,
    LateFill,
    MirrorLevels,
    MirrorTrade,
    MoveMid,
    OrderUpdated,
    PassTime,
    PlaceOrder,
    PlaceOrderList,
    SetDeadMan,
    StepMaker,
    VenueEvent,
    WithdrawQuotes,
)
from venues.simulator.engine import Engine
from venues.simulator.errors import Refusal, VenueRefusal
from venues.simulator.house import House
from venues.simulator.model import Genesis
from venues.simulator.orders import budget_lots
from venues.simulator.state import Account, VenueState


class Exchange:
    """All of the venue's truth, changed only by `apply`."""

    def __init__(self, genesis: Genesis) -> None:
        self.state = VenueState(genesis)
        self._engine = Engine(self.state)
        self._house = House(self._engine)
        self._house.open_markets(genesis.at_ms)

    def check(self, command: Command) -> None:
        """Refuse a command that cannot be applied.

        Raises:
            VenueRefusal: nothing was changed.
        """
        match command:
            case PlaceOrder():
                checks.check_order(self.state, command)
            case PlaceOrderList():
                checks.check_list(self.state, command)
            case CancelOrder():
                checks.check_cancel(self.state, command)
            case AmendOrder():
                checks.check_amend(self.state, command)
            case LateFill():
                checks.check_late_fill(self.state, command)
            case MirrorLevels() | MirrorTrade():
                checks.check_mirror(self.state, command)
            case _:
                funding.check(self.state, command)

    def apply(self, command: Command) -> tuple[VenueEvent, ...]:
        """Change the state and say what changed, in order."""
        events = self._engine.finish(self._applied(command), command.at_ms)
        return (*events, *self._balances_after(events, command.at_ms))

    def resolve_quantity(self, symbol: str, side: Side, quote_units: int) -> int:
        """Lots a market order of this many quote units would trade now.

        Raises:
            VenueRefusal: NO_LIQUIDITY when the book is empty.
        """
        market = self.state.markets[symbol]
        whole = NewOrder(0, "", side, market.spec.max_lots, None, TimeInForce.IOC)
        lots = budget_lots(market.spec, market.book.preview(whole), quote_units)
        if lots == 0:
            raise VenueRefusal(Refusal.NO_LIQUIDITY)
        return lots

    def _applied(self, command: Command) -> list[VenueEvent]:
        match command:
            case (
                PlaceOrder()
                | PlaceOrderList()
                | CancelOrder()
                | CancelAll()
                | AmendOrder()
                | SetDeadMan()
                | PassTime()
                | LateFill()
            ):
                return self._engine.apply(command)
            case StepMaker() | MoveMid() | WithdrawQuotes() | MirrorLevels() | MirrorTrade():
                return self._house.apply(command)
            case _:
                return funding.apply(self.state, command)

    def _balances_after(self, events: list[VenueEvent], at_ms: int) -> list[BalancesChanged]:
        touched: dict[str, dict[str, None]] = {}
        for event in events:
            if isinstance(event, OrderUpdated):
                spec, account = self.state.markets[event.order.symbol].spec, event.order.account
                assets = touched.setdefault(account, {})
                assets[spec.base] = assets[spec.quote] = None
                if event.fill is not None:
                    assets[event.fill.fee_asset] = None
            elif isinstance(event, FundsMoved):
                touched.setdefault(event.account, {})[event.asset] = None
        return [
            _balances(self.state.accounts[account], assets, at_ms)
            for account, assets in touched.items()
        ]


def _balances(account: Account, assets: Iterable[str], at_ms: int) -> BalancesChanged:
    wallet = account.wallet
    rows = tuple((asset, wallet.free(asset), wallet.locked(asset)) for asset in assets)
    return BalancesChanged(account.spec.name, rows, at_ms)
