"""Every wallet against the chain, exact, at one block.

At the block where the cursor stands, for every wallet and asset: debits (posted and pending) less
credits posted of ``custody:<wallet>`` equal what the node says its addresses hold after that block.
There is no tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.follow import get_cursor
from chain.model import Block
from chain.ports import ChainGateway
from custody import store
from custody.errors import NotPossible
from custody.model import Address, custody_account
from kernel.money import rescale
from ledger.model import Balance
from ledger.queries import list_accounts
from registry.model import ChainAsset
from registry.queries import get_asset, list_chain_assets, list_wallets

ADDRESSES_MAX: Final = 10_000
"""Addresses asked about in one reconciliation, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """One wallet and asset at one block; amounts in smallest units of the asset."""

    wallet: str
    asset: str
    ledger: int
    chain: int
    block: Block

    @property
    def difference(self) -> int:
        """Return what the chain has more than the ledger; 0 where all is right."""
        return self.chain - self.ledger


@dataclass(frozen=True, slots=True)
class _Books:
    """What the books say, all at the same moment."""

    block: Block
    wallets: tuple[str, ...]
    addresses: tuple[Address, ...]
    assets: tuple[tuple[ChainAsset, int], ...]
    held: Mapping[tuple[str, str], int]


async def reconcile_chain(
    engine: AsyncEngine, gateway: ChainGateway, chain: str, *, book: int
) -> list[Reconciled]:
    """Compare every wallet and registered asset of a chain; by wallet and asset.

    The books are read in one snapshot; the node is asked afterwards, outside any transaction, about
    exactly that block.

    Raises:
        NotPossible: no block was ever read, or too many addresses.
        BlockGone: the node has lost the block meanwhile; ask again.
    """
    async with engine.connect() as plain:
        # Cursor and balances must be of one moment, or a block committed between would show.
        conn = await plain.execution_options(isolation_level="REPEATABLE READ")
        async with conn.begin():
            books = await _read_books(conn, chain, book=book)
    result = []
    for wallet in books.wallets:
        mine = [item.address for item in books.addresses if item.wallet == wallet]
        for on_chain, scale in books.assets:
            total = 0
            for address in mine:
                total += await gateway.balance(address, on_chain.contract, at=books.block)
            result.append(
                Reconciled(
                    wallet=wallet,
                    asset=on_chain.asset,
                    ledger=books.held.get((custody_account(wallet), on_chain.asset), 0),
                    chain=rescale(total, on_chain.decimals, scale),
                    block=books.block,
                )
            )
    return result


def held_in_custody(balance: Balance) -> int:
    """Return what the ledger says a wallet holds on the chain: arrived and not yet gone."""
    return balance.debits_posted + balance.debits_pending - balance.credits_posted


async def _read_books(conn: AsyncConnection, chain: str, *, book: int) -> _Books:
    block = await get_cursor(conn, chain)
    if block is None:
        raise NotPossible(f"no block of {chain} was read yet", remedy="Follow the chain first")
    addresses = await store.list_addresses(conn, chain)
    if len(addresses) > ADDRESSES_MAX:
        raise NotPossible(f"{len(addresses)} addresses are more than {ADDRESSES_MAX}")
    wallets = await list_wallets(conn, chain)
    assets = [
        (item, (await get_asset(conn, item.asset)).scale)
        for item in await list_chain_assets(conn, chain)
    ]
    return _Books(
        block=block,
        wallets=tuple(wallet.code for wallet in wallets),
        addresses=tuple(addresses),
        assets=tuple(assets),
        held={
            (account.path, account.asset): held_in_custody(account.balance)
            for account in await list_accounts(conn, book, "custody:")
        },
    )
