"""The venue's records: accounts, markets, orders, fills, movements of funds."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from venues.simulator.market import Market
from venues.simulator.model import (
    AccountSpec,
    Amendment,
    ApiKeySpec,
    AssetSpec,
    Deposit,
    FeeRates,
    Fill,
    Genesis,
    LedgerEntry,
    LedgerKind,
    NetworkSpec,
    Order,
    OrderList,
    PreventedMatch,
    SavedAddress,
    Withdrawal,
)
from venues.simulator.wallets import Wallet


@dataclass(slots=True)
class Account:
    """One account's mutable records."""

    spec: AccountSpec
    wallet: Wallet
    fees: FeeRates
    order_keys: list[tuple[str, int]] = field(default_factory=list)
    open_keys: dict[tuple[str, int], None] = field(default_factory=dict)
    fills: list[Fill] = field(default_factory=list)
    withdrawals: dict[str, Withdrawal] = field(default_factory=dict)
    deposits: list[Deposit] = field(default_factory=list)
    addresses: dict[tuple[str, str], str] = field(default_factory=dict)
    saved_addresses: dict[str, SavedAddress] = field(default_factory=dict)
    keys: dict[str, ApiKeySpec] = field(default_factory=dict)
    ledger: list[LedgerEntry] = field(default_factory=list)
    order_lists: dict[int, OrderList] = field(default_factory=dict)
    prevented: list[PreventedMatch] = field(default_factory=list)
    dead_man_ms: int | None = None


class VenueState:
    """Mutable records of the whole venue and the ways to look them up."""

    def __init__(self, genesis: Genesis) -> None:
        self.genesis = genesis
        self.step = 0
        self.withdrawal_count = 0
        self.deposit_count = 0
        self.markets = {spec.name: Market(spec) for spec in genesis.symbols}
        self.assets = {spec.name: spec for spec in genesis.assets}
        self.accounts = {
            spec.name: Account(spec, Wallet(spec.balances), spec.fees) for spec in genesis.accounts
        }
        self.keys: dict[str, ApiKeySpec] = {}
        self.accounts_by_key: dict[str, Account] = {}
        for account in self.accounts.values():
            for key in account.spec.all_keys():
                self.set_key(account.spec.name, key)
        self.withheld: set[tuple[str, int]] = set()
        self.withheld_fills: set[tuple[str, int]] = set()
        self.withheld_withdrawals: set[str] = set()
        self.order_list_count = 0
        self.prevented_count = 0
        self.replayed_rows = 0
        self._orders: dict[tuple[str, int], Order] = {}
        self._by_client_id: dict[tuple[str, str, str], int] = {}
        self._expiring: dict[tuple[str, int], int] = {}
        self._due: list[tuple[int, str, int]] = []
        self._amendments: dict[tuple[str, int], list[Amendment]] = {}

    def set_key(self, account: str, key: ApiKeySpec) -> None:
        """Add or change a key of an account."""
        self.keys[key.api_key] = key
        self.accounts_by_key[key.api_key] = self.accounts[account]
        self.accounts[account].keys[key.api_key] = key

    # What follows answers clients: it knows nothing of orders that a fault withholds.

    def find_order(self, account: str, symbol: str, order_id: int) -> Order | None:
        """An order of this account, or None."""
        order = self._orders.get((symbol, order_id))
        if order is None or order.account != account or self._is_withheld(order):
            return None
        return order

    def find_by_client_id(self, account: str, symbol: str, client_order_id: str) -> Order | None:
        """The latest order of this account under a client id, open or not."""
        order_id = self._by_client_id.get((account, symbol, client_order_id))
        return None if order_id is None else self.find_order(account, symbol, order_id)

    def find_open_by_client_id(self, account: str, client_order_id: str) -> Order | None:
        """The open order of this account under a client id, whatever its symbol."""
        for symbol in self.markets:
            order = self.find_by_client_id(account, symbol, client_order_id)
            if order is not None and order.status.is_open:
                return order
        return None

    def orders_of(self, account: str) -> list[Order]:
        """All orders of an account, oldest first."""
        return self._visible(self.accounts[account].order_keys)

    def open_orders_of(self, account: str) -> list[Order]:
        """The open orders of an account, oldest first."""
        return self._visible(self.accounts[account].open_keys)

    def fills_of(self, account: str) -> list[Fill]:
        """The fills of an account, oldest first."""
        fills = self.accounts[account].fills
        if not self.withheld and not self.withheld_fills:
            return fills
        return [
            fill
            for fill in fills
            if (fill.symbol, fill.order_id) not in self.withheld
            and (fill.symbol, fill.trade_id) not in self.withheld_fills
        ]

    def withdrawals_of(self, account: str) -> list[Withdrawal]:
        """The withdrawals of an account, oldest first."""
        rows = self.accounts[account].withdrawals.values()
        return [row for row in rows if row.id not in self.withheld_withdrawals]

    def amendments_of(self, symbol: str, order_id: int) -> list[Amendment]:
        """The changes of an order, oldest first."""
        return self._amendments.get((symbol, order_id), [])

    def order_list(self, account: str, list_id: int) -> OrderList | None:
        """An order list of this account, or None."""
        return self.accounts[account].order_lists.get(list_id)

    def order_lists_of(self, account: str) -> list[OrderList]:
        """The order lists of an account, oldest first."""
        return list(self.accounts[account].order_lists.values())

    def find_order_list(self, account: str, client_list_id: str) -> OrderList | None:
        """The latest order list of this account under a client id, or None."""
        found = [o for o in self.order_lists_of(account) if o.client_list_id == client_list_id]
        return found[-1] if found else None

    def prevented_matches_of(self, account: str) -> list[PreventedMatch]:
        """Trades of an account with itself that did not happen, oldest first."""
        return self.accounts[account].prevented

    def _is_withheld(self, order: Order) -> bool:
        return bool(self.withheld) and (order.symbol, order.order_id) in self.withheld

    def _visible(self, keys: Iterable[tuple[str, int]]) -> list[Order]:
        if not self.withheld:
            return [self._orders[key] for key in keys]
        return [self._orders[key] for key in keys if key not in self.withheld]

    # What follows is for the venue itself.

    def order(self, symbol: str, order_id: int) -> Order | None:
        """The order of any account, or None for the house's own orders."""
        return self._orders.get((symbol, order_id))

    def open_order_id(self, account: str, symbol: str, client_order_id: str) -> int | None:
        """The id of the open order under a client id: ids are unique among open orders only."""
        order_id = self._by_client_id.get((account, symbol, client_order_id))
        if order_id is None:
            return None
        return order_id if self._orders[symbol, order_id].status.is_open else None

    def all_orders_of(self, account: str) -> list[Order]:
        """All orders of an account, withheld ones too, oldest first."""
        return [self._orders[key] for key in self.accounts[account].order_keys]

    def all_open_orders_of(self, account: str) -> list[Order]:
        """All open orders of an account, withheld ones too, oldest first."""
        return [self._orders[key] for key in self.accounts[account].open_keys]

    def remember(self, order: Order) -> None:
        """Store an order for the first time."""
        key = (order.symbol, order.order_id)
        account = self.accounts[order.account]
        self._orders[key] = order
        account.order_keys.append(key)
        account.open_keys[key] = None
        if order.client_order_id:
            self._by_client_id[order.account, order.symbol, order.client_order_id] = order.order_id
        if order.expire_ms is not None and order.status.is_open:
            self._expiring[key] = order.expire_ms
            heappush(self._due, (order.expire_ms, *key))

    def replace(self, order: Order) -> None:
        """Store an order's next state."""
        key = (order.symbol, order.order_id)
        self._orders[key] = order
        if not order.status.is_open:
            self.accounts[order.account].open_keys.pop(key, None)
            self._expiring.pop(key, None)

    def rename(self, order: Order, client_order_id: str) -> None:
        """Let an order be found under another client id only."""
        self._by_client_id.pop((order.account, order.symbol, order.client_order_id), None)
        self._by_client_id[order.account, order.symbol, client_order_id] = order.order_id

    def record_amendment(self, symbol: str, order_id: int, amendment: Amendment) -> None:
        """Keep a change of an order."""
        self._amendments.setdefault((symbol, order_id), []).append(amendment)

    def amendments(self) -> list[tuple[str, int, list[Amendment]]]:
        """All changes of all orders."""
        return [(symbol, order_id, rows) for (symbol, order_id), rows in self._amendments.items()]

    def expired(self, now_ms: int) -> list[Order]:
        """Open orders whose time is over, earliest first."""
        due = sorted((at_ms, key) for key, at_ms in self._expiring.items() if at_ms <= now_ms)
        return [self._orders[key] for _, key in due]

    def is_due(self, now_ms: int) -> bool:
        """Whether an expiry or a dead man's switch is due."""
        while self._due and self._due[0][1:] not in self._expiring:
            heappop(self._due)
        if self._due and self._due[0][0] <= now_ms:
            return True
        return any(
            account.dead_man_ms is not None and account.dead_man_ms <= now_ms
            for account in self.accounts.values()
        )

    def enter_ledger(
        self,
        account: str,
        kind: LedgerKind,
        asset: str,
        amount_units: int,
        *,
        at_ms: int,
        fee_units: int = 0,
        symbol: str = "",
        reference: str = "",
        balance_units: int | None = None,
    ) -> None:
        """Record a change of a balance that has just been made."""
        found = self.accounts[account]
        if balance_units is None:
            balance_units = found.wallet.free(asset) + found.wallet.locked(asset)
        found.ledger.append(
            LedgerEntry(
                len(found.ledger) + 1,
                at_ms,
                kind,
                symbol,
                reference,
                asset,
                amount_units,
                fee_units,
                balance_units,
            )
        )

    def find_withdrawal(self, withdrawal_id: str) -> tuple[Account, Withdrawal] | None:
        """A withdrawal of any account, or None."""
        for account in self.accounts.values():
            if (found := account.withdrawals.get(withdrawal_id)) is not None:
                return account, found
        return None


def network_of(asset: AssetSpec, name: str) -> NetworkSpec | None:
    """The asset's network of this name, its default network for an empty name, or None."""
    if not name:
        return asset.networks[0] if asset.networks else None
    return next((network for network in asset.networks if network.name == name), None)
