"""An image of the state, so that a long journal need not be replayed from its beginning.

The journal stays the truth and is never shortened. An image says up to which byte of it it holds; it
is written beside the old one and renamed over it, after the journal itself is on the disk, so that
a crash at any moment leaves an image that is whole and not ahead of the journal.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

from matching.model import RestingOrder, Side
from venues.simulator.errors import JournalDamaged
from venues.simulator.exchange import Exchange
from venues.simulator.market import Bar, Market
from venues.simulator.model import (
    Amendment,
    ApiKeySpec,
    Deposit,
    FeeRates,
    Fill,
    Genesis,
    LedgerEntry,
    Order,
    OrderList,
    PreventedMatch,
    PublicTrade,
    SavedAddress,
    Withdrawal,
)
from venues.simulator.state import Account, VenueState
from venues.simulator.wallets import Wallet

FILE_NAME: Final = "checkpoint.json"


class MarketImage(msgspec.Struct, frozen=True):
    """A market. Resting orders are in priority order; quotes in the order they were made."""

    mid_ticks: int
    anchor_ticks: int
    update_id: int
    next_order_id: int
    next_trade_id: int
    trades: list[PublicTrade]
    bars: list[Bar]
    resting: list[RestingOrder]
    quotes: list[tuple[Side, int, int]]
    last_ticks: int | None = None


class AccountImage(msgspec.Struct, frozen=True):
    """An account's records; addresses as (asset, network, address)."""

    free: dict[str, int]
    locked: dict[str, int]
    fees: FeeRates
    fills: list[Fill]
    withdrawals: list[Withdrawal]
    deposits: list[Deposit]
    addresses: list[tuple[str, str, str]]
    saved_addresses: list[SavedAddress]
    keys: list[ApiKeySpec]
    ledger: list[LedgerEntry]
    order_lists: list[OrderList]
    prevented: list[PreventedMatch]
    dead_man_ms: int | None


class Image(msgspec.Struct, frozen=True):
    """The whole state after the journal's first `journal_bytes` bytes. Orders oldest first."""

    journal_bytes: int
    last_ms: int
    step: int
    withdrawal_count: int
    deposit_count: int
    markets: dict[str, MarketImage]
    accounts: dict[str, AccountImage]
    orders: list[Order]
    order_list_count: int
    prevented_count: int
    replayed_rows: int
    amendments: list[tuple[str, int, list[Amendment]]]


def image_of(exchange: Exchange, *, journal_bytes: int, last_ms: int) -> Image:
    """The state as an image."""
    state = exchange.state
    return Image(
        journal_bytes=journal_bytes,
        last_ms=last_ms,
        step=state.step,
        withdrawal_count=state.withdrawal_count,
        deposit_count=state.deposit_count,
        markets={name: _market_image(market) for name, market in state.markets.items()},
        accounts={name: _account_image(account) for name, account in state.accounts.items()},
        orders=[order for name in state.accounts for order in state.all_orders_of(name)],
        order_list_count=state.order_list_count,
        prevented_count=state.prevented_count,
        replayed_rows=state.replayed_rows,
        amendments=state.amendments(),
    )


def exchange_from(genesis: Genesis, image: Image) -> Exchange:
    """The exchange an image was made of."""
    exchange = Exchange(genesis)
    state = exchange.state
    state.step = image.step
    state.withdrawal_count = image.withdrawal_count
    state.deposit_count = image.deposit_count
    state.markets = {
        name: _market_from(Market(state.markets[name].spec), market)
        for name, market in image.markets.items()
    }
    for name, account in image.accounts.items():
        _fill_account(state.accounts[name], account)
        for key in account.keys:
            state.set_key(name, key)
    state.order_list_count = image.order_list_count
    state.prevented_count = image.prevented_count
    state.replayed_rows = image.replayed_rows
    for symbol, order_id, rows in image.amendments:
        for row in rows:
            state.record_amendment(symbol, order_id, row)
    for order in image.orders:
        _put_order(state, order)
    for order in image.orders:
        if order.status.is_open and order.client_order_id:
            state.rename(order, order.client_order_id)
    return exchange


def write(directory: Path, image: Image) -> None:
    """Put an image in the place of the last one."""
    path = directory / FILE_NAME
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(msgspec.json.encode(image))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def read(directory: Path) -> Image | None:
    """The last image, or None.

    Raises:
        JournalDamaged: there is one that cannot be read.
    """
    path = directory / FILE_NAME
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Image)
    except msgspec.DecodeError as error:
        raise JournalDamaged(
            f"{path}: {error}; delete it, and the journal is replayed from its beginning"
        ) from error


def _market_image(market: Market) -> MarketImage:
    return MarketImage(
        mid_ticks=market.mid_ticks,
        anchor_ticks=market.anchor_ticks,
        update_id=market.update_id,
        next_order_id=market.next_order_id,
        next_trade_id=market.next_trade_id,
        trades=list(market.trades),
        bars=list(market.bars),
        resting=[order for side in Side for order in market.book.orders(side)],
        quotes=[(side, price, order_id) for (side, price), order_id in market.quotes.items()],
        last_ticks=market.last_ticks,
    )


def _market_from(market: Market, image: MarketImage) -> Market:
    market.mid_ticks = image.mid_ticks
    market.anchor_ticks = image.anchor_ticks
    market.update_id = image.update_id
    market.next_order_id = image.next_order_id
    market.next_trade_id = image.next_trade_id
    market.last_ticks = image.last_ticks
    market.trades.extend(image.trades)
    market.bars.extend(image.bars)
    market.quotes = {(side, price): order_id for side, price, order_id in image.quotes}
    for order in image.resting:
        market.book.restore(order)
    return market


def _put_order(state: VenueState, order: Order) -> None:
    state.remember(order)
    state.replace(order)
    market = state.markets[order.symbol]
    if order.is_waiting:
        market.waiting[order.order_id] = None


def _account_image(account: Account) -> AccountImage:
    wallet = account.wallet
    return AccountImage(
        free={asset: wallet.free(asset) for asset in wallet.assets()},
        locked={asset: wallet.locked(asset) for asset in wallet.assets()},
        fees=account.fees,
        fills=account.fills,
        withdrawals=list(account.withdrawals.values()),
        deposits=account.deposits,
        addresses=[(a, n, address) for (a, n), address in account.addresses.items()],
        saved_addresses=list(account.saved_addresses.values()),
        keys=list(account.keys.values()),
        ledger=account.ledger,
        order_lists=list(account.order_lists.values()),
        prevented=account.prevented,
        dead_man_ms=account.dead_man_ms,
    )


def _fill_account(account: Account, image: AccountImage) -> None:
    account.wallet = Wallet(image.free, image.locked)
    account.fees = image.fees
    account.fills = image.fills
    account.withdrawals = {withdrawal.id: withdrawal for withdrawal in image.withdrawals}
    account.deposits = image.deposits
    account.addresses = {(asset, network): text for asset, network, text in image.addresses}
    account.saved_addresses = {address.name: address for address in image.saved_addresses}
    account.ledger = image.ledger
    account.order_lists = {row.list_id: row for row in image.order_lists}
    account.prevented = image.prevented
    account.dead_man_ms = image.dead_man_ms
