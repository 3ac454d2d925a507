"""Private WebSocket v2 channels: executions and balances of the accounts that subscribed."""

from collections.abc import Sequence

from venues.simulator.commands import OrderUpdated, VenueEvent
from venues.simulator.connections import Json
from venues.simulator.kraken import order_rows, private_frames
from venues.simulator.kraken.context import Kraken
from venues.simulator.kraken.sessions import PrivateStream, Session
from venues.simulator.model import Fill, LedgerEntry
from venues.simulator.state import Account

TRADES_SNAPSHOT = 50


class PrivateChannels:
    """What is due to accounts' own subscribers."""

    def __init__(self, kraken: Kraken) -> None:
        self._kraken = kraken
        self.made = 0

    def open_executions(
        self,
        session: Session,
        stream: PrivateStream,
        *,
        with_orders: bool,
        with_trades: bool,
        now_ms: int,
    ) -> None:
        """Subscribe to executions. Open orders and latest fills come in a snapshot each."""
        self.made += 1
        session.executions = stream
        shown = False
        for is_wanted, rows in (
            (with_orders, self._open_orders(stream.account)),
            (with_trades, self._latest_trades(stream.account)),
        ):
            if is_wanted and rows:
                session.offer_private("executions", "snapshot", rows, stream, now_ms)
                shown = True
        if not shown and (with_orders or with_trades):
            session.offer_private("executions", "snapshot", [], stream, now_ms)

    def open_balances(
        self, session: Session, stream: PrivateStream, *, with_snapshot: bool, now_ms: int
    ) -> None:
        """Subscribe to balances."""
        self.made += 1
        account = self._account(stream)
        stream.entries_seen = len(account.ledger)
        session.balances = stream
        if with_snapshot:
            rows = private_frames.balance_snapshot(account)
            session.offer_private("balances", "snapshot", rows, stream, now_ms)

    def publish(
        self, events: Sequence[VenueEvent], sessions: Sequence[Session], now_ms: int
    ) -> None:
        """Tell accounts what happened to their orders, then to their balances."""
        listening = [s for s in sessions if s.executions is not None]
        if listening:
            for event in events:
                if isinstance(event, OrderUpdated):
                    self._report(event, listening, now_ms)
        for session in sessions:
            if session.balances is not None:
                self._update_balances(session, session.balances, now_ms)

    def _report(self, event: OrderUpdated, sessions: Sequence[Session], now_ms: int) -> None:
        account, market = event.order.account, event.order.symbol
        rows = private_frames.reports(self._kraken.directory.of_market(market), event)
        for session in sessions:
            stream = session.executions
            if stream is None or stream.account != account:
                continue
            for row in rows:
                if stream.with_details or row["exec_type"] not in private_frames.DETAILS:
                    shown = row
                    if stream.with_counter:
                        level = self._kraken.limits.engine_level(account, market, now_ms)
                        shown = row | {"rate_counter": level}
                    session.offer_private("executions", "update", [shown], stream, now_ms)

    def _update_balances(self, session: Session, stream: PrivateStream, now_ms: int) -> None:
        account = self._account(stream)
        fresh = account.ledger[stream.entries_seen :]
        stream.entries_seen = len(account.ledger)
        if fresh:
            rows = [self._balance(account, entry) for entry in fresh]
            session.offer_private("balances", "update", rows, stream, now_ms)

    def _balance(self, account: Account, entry: LedgerEntry) -> Json:
        index = list(self._kraken.core.state.accounts).index(account.spec.name)
        fills = {f.trade_id: f for f in _latest(account.fills) if f.symbol == entry.symbol}
        reference = order_rows.ledger_reference(self._kraken.directory, entry, fills)
        return private_frames.balance_update(entry, order_rows.ledger_id(index, entry), reference)

    def _open_orders(self, account: str) -> list[Json]:
        directory = self._kraken.directory
        return [
            private_frames.open_order(directory.of_market(order.symbol), order)
            for order in self._kraken.core.state.open_orders_of(account)
        ]

    def _latest_trades(self, account: str) -> list[Json]:
        state, directory = self._kraken.core.state, self._kraken.directory
        rows = []
        for fill in state.fills_of(account)[-TRADES_SNAPSHOT:]:
            order = state.order(fill.symbol, fill.order_id)
            assert order is not None
            rows.append(private_frames.trade(directory.of_market(fill.symbol), order, fill))
        return rows

    def _account(self, stream: PrivateStream) -> Account:
        return self._kraken.core.state.accounts[stream.account]


def _latest(fills: Sequence[Fill]) -> Sequence[Fill]:
    """The fills that entries just made can be of."""
    return fills[-1000:]
