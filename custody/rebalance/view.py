"""Gathering what a plan is made from: the books at one moment, and the node at exactly that block.

`look` is for chains of accounts; `custody.rebalance.coin_view` for those of coins.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.follow import get_cursor, require_running
from chain.model import Block, Unreadable
from chain.ports import ChainGateway
from custody.address_books import Holding, UnderWay, list_holdings, list_under_way
from custody.balance_reading import read_balances
from custody.errors import NotPossible
from custody.model import custody_account
from custody.payout_model import Claim
from custody.payout_store import find_hot_source, find_sources
from custody.rebalance import store
from custody.rebalance.model import (
    AddressView,
    Fees,
    OpenTransfer,
    Proposal,
    ProposalState,
    RebalanceRules,
    TreasuryView,
    WalletView,
)
from kernel.money import Rounding, rescale
from ledger.queries import list_accounts
from registry.model import ChainAsset
from registry.queries import get_asset, get_chain, list_chain_assets, list_wallets

GAS_NATIVE: Final = 21_000
GAS_TOKEN: Final = 100_000
"""More than a plain ERC-20 transfer takes, its margin included."""
CANDIDATES_MAX: Final = 2_000
"""Addresses asked about in one window for each sweep rule, those with the most coins first."""


@dataclass(frozen=True, slots=True)
class _Books:
    """What the books say, all at the same moment; *movable* is for the sweep rules only."""

    block: Block
    native: str
    wallets: dict[str, WalletView]
    assets: dict[str, tuple[ChainAsset, int]]
    available: dict[tuple[str, str], int]
    held: dict[tuple[str, str], int]
    movable: dict[Holding, int]
    wallet_of: dict[str, str]
    under_way: list[UnderWay]
    by_hand: list[Proposal]


async def look(
    engine: AsyncEngine, gateway: ChainGateway, rules: RebalanceRules, *, chain: str, book: int
) -> tuple[TreasuryView, Block]:
    """Return what is to be seen of a chain, and the block at which it is.

    Raises:
        ChainHalted: nothing is planned on a chain that people have to look at.
        NotPossible: no block was ever read.
        BlockGone: the node has lost the block meanwhile; ask again.
    """
    async with engine.connect() as plain:
        # Cursor, balances and rows must be of one moment.
        conn = await plain.execution_options(isolation_level="REPEATABLE READ")
        async with conn.begin():
            books = await _read_books(conn, rules, chain, book)
    hot = {
        (wallet.code, asset): wallet.hot_address
        for wallet in books.wallets.values()
        if wallet.hot_address is not None
        for asset in books.assets
    }
    candidates = _candidates(rules, books)
    wanted = {(address, books.assets[asset][0].contract) for (_, asset), address in hot.items()}
    wanted |= {(address, books.assets[asset][0].contract) for address, asset in candidates}
    wanted |= {(address, None) for address, _ in candidates}
    on_chain = await read_balances(gateway, sorted(wanted, key=str), at=books.block)

    def units(address: str, asset: str) -> int:
        token, scale = books.assets[asset]
        amount = on_chain[address, token.contract]
        # What a token does not tell is not there to be moved.
        known = 0 if isinstance(amount, Unreadable) else amount
        return rescale(known, token.decimals, scale, Rounding.DOWN)

    quote = await gateway.fees()
    view = TreasuryView(
        native_asset=books.native,
        wallets=books.wallets,
        available=books.available,
        held=books.held,
        hot={key: units(address, key[1]) for key, address in hot.items()},
        fees=Fees(
            native=GAS_NATIVE * quote.max_fee_per_gas, token=GAS_TOKEN * quote.max_fee_per_gas
        ),
        sweepable=tuple(
            AddressView(
                wallet=books.wallet_of[address],
                address=address,
                asset=asset,
                amount=min(books.movable[address, asset], units(address, asset)),
                native=units(address, books.native),
            )
            for address, asset in candidates
        ),
        open_transfers=(*map(to_open, books.under_way), *_by_hand(books)),
    )
    return view, books.block


async def _read_books(
    conn: AsyncConnection, rules: RebalanceRules, chain: str, book: int
) -> _Books:
    await require_running(conn, chain)
    block = await read_cursor(conn, chain)
    wallets = await read_wallets(conn, chain)
    available, held = await read_levels(conn, book, wallets)
    swept = {rule.asset for rule in rules.sweeps}
    movable = await list_holdings(conn, chain, book, movable=True) if swept else {}
    movable = {key: n for key, n in movable.items() if key[1] in swept and n > 0}
    sources = await find_sources(conn, chain, {address for address, _ in movable})
    return _Books(
        block=block,
        native=(await get_chain(conn, chain)).native_asset,
        wallets=wallets,
        assets={
            item.asset: (item, (await get_asset(conn, item.asset)).scale)
            for item in await list_chain_assets(conn, chain)
        },
        available=available,
        held=held,
        movable=movable,
        wallet_of={address: source.wallet for address, source in sources.items()},
        under_way=await list_under_way(conn, chain, book),
        by_hand=await store.list_proposals(
            conn, book=book, chain=chain, states=[ProposalState.PROPOSED], by_hand=True
        ),
    )


async def read_cursor(conn: AsyncConnection, chain: str) -> Block:
    """Return the block that the books are of.

    Raises:
        NotPossible: no block was ever read.
    """
    block = await get_cursor(conn, chain)
    if block is None:
        raise NotPossible(f"no block of {chain} was read yet", remedy="Follow the chain first")
    return block


async def read_wallets(conn: AsyncConnection, chain: str) -> dict[str, WalletView]:
    """Return the wallets of a chain by code."""
    wallets = {}
    for wallet in await list_wallets(conn, chain):
        source = await find_hot_source(conn, wallet.code)
        hot = None if source is None else source.address
        wallets[wallet.code] = WalletView(
            code=wallet.code, chain=chain, owner=wallet.owner, hot_address=hot
        )
    return wallets


async def read_levels(
    conn: AsyncConnection, book: int, wallets: Collection[str]
) -> tuple[dict[tuple[str, str], int], dict[tuple[str, str], int]]:
    """Return what the books have in each wallet and asset: promised to nobody, and in all."""
    available, held = {}, {}
    for account in await list_accounts(conn, book, custody_account("")):
        code = account.path.removeprefix(custody_account(""))
        if code in wallets:
            available[code, account.asset] = account.balance.available
            held[code, account.asset] = account.balance.posted
    return available, held


def _candidates(rules: RebalanceRules, books: _Books) -> list[Holding]:
    """Return the addresses worth a look for each sweep rule, the fullest first."""
    found: list[Holding] = []
    for rule in rules.sweeps:
        if rule.wallet not in books.wallets:
            continue
        mine = [
            (amount, address)
            for (address, asset), amount in books.movable.items()
            if asset == rule.asset
            and amount >= rule.minimum
            and books.wallet_of.get(address) == rule.wallet
        ]
        mine.sort(key=lambda pair: (-pair[0], pair[1]))
        found += [(address, rule.asset) for _, address in mine[:CANDIDATES_MAX]]
    return found


def to_open(item: UnderWay) -> OpenTransfer:
    """Return an own transfer that is asked for as a plan sees it."""
    return OpenTransfer(
        wallet=item.wallet,
        address=item.address,
        to_wallet=Claim.parse(item.claim).name,
        to_address=item.destination,
        asset=item.asset,
        amount=item.amount,
    )


def _by_hand(books: _Books) -> list[OpenTransfer]:
    return [
        OpenTransfer(
            wallet=move.wallet,
            address=move.address,
            to_wallet=move.to_wallet,
            to_address=move.to_address,
            asset=move.asset,
            amount=move.amount,
            reserved=False,
        )
        for move in (item.transfer for item in books.by_hand)
    ]
