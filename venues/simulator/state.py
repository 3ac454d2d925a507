"""The venue's records: accounts, markets, orders, fills, movements of funds."""

from dataclasses import dataclass, field

from venues.simulator.market import Market
from venues.simulator.model import (
    AccountSpec,
    AssetSpec,
    Deposit,
    FeeRates,
    Fill,
    Genesis,
    NetworkSpec,
    Order,
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
        self.accounts_by_key = {account.spec.api_key: account for account in self.accounts.values()}
        self._orders: dict[tuple[str, int], Order] = {}
        self._by_client_id: dict[tuple[str, str, str], int] = {}

    def order(self, symbol: str, order_id: int) -> Order | None:
        """The order of any account, or None for the house's own orders."""
        return self._orders.get((symbol, order_id))

    def find_order(self, account: str, symbol: str, order_id: int) -> Order | None:
        """An order of this account, or None."""
        order = self._orders.get((symbol, order_id))
        return order if order is not None and order.account == account else None

    def find_by_client_id(self, account: str, symbol: str, client_order_id: str) -> Order | None:
        """The latest order of this account under a client id, open or not."""
        order_id = self._by_client_id.get((account, symbol, client_order_id))
        return None if order_id is None else self._orders[symbol, order_id]

    def open_order_id(self, account: str, symbol: str, client_order_id: str) -> int | None:
        """The id of the open order under a client id: ids are unique among open orders only."""
        order = self.find_by_client_id(account, symbol, client_order_id)
        return order.order_id if order is not None and order.status.is_open else None

    def orders_of(self, account: str) -> list[Order]:
        """All orders of an account, oldest first."""
        return [self._orders[key] for key in self.accounts[account].order_keys]

    def open_orders_of(self, account: str) -> list[Order]:
        """The open orders of an account, oldest first."""
        return [self._orders[key] for key in self.accounts[account].open_keys]

    def remember(self, order: Order) -> None:
        """Store an order for the first time."""
        key = (order.symbol, order.order_id)
        self._orders[key] = order
        self.accounts[order.account].order_keys.append(key)
        self.accounts[order.account].open_keys[key] = None
        self._by_client_id[order.account, order.symbol, order.client_order_id] = order.order_id

    def replace(self, order: Order) -> None:
        """Store an order's next state."""
        key = (order.symbol, order.order_id)
        assert key in self._orders
        self._orders[key] = order
        if not order.status.is_open:
            self.accounts[order.account].open_keys.pop(key, None)

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
