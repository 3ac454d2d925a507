"""Every Bitcoin wallet against the chain, coin by coin, at one block: ledger, table and node.

Three must say the same of each wallet at the block where the cursor stands: ``custody:<wallet>`` in
the ledger, the unspent coins of our table, and the outputs that the node has among all that are
unspent (``scantxoutset`` of every address of ours). There is no tolerance, and each coin is an item of
its own: two coins that are wrong by opposite amounts are two differences.

A run is recorded, aged and frozen for as on any other chain (`custody.reconciliation`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.model import ScannedCoin, UnspentScan
from chain.bitcoin.ports import BitcoinReader
from chain.bitcoin.transactions import Outpoint
from chain.errors import BlockGone
from chain.follow import get_cursor
from chain.model import Block
from custody.addresses import list_addresses
from custody.bitcoin.coin_model import Coin, CoinState
from custody.bitcoin.coins import list_coins
from custody.errors import NotPossible
from custody.model import custody_account
from custody.reconciliation import held_in_custody, record_run
from custody.reconciliation_model import NO_ADDRESS, Explanation, Item, Reason, Reconciled, Run
from kernel.db import transact
from kernel.ids import derive_id
from ledger.queries import list_accounts
from registry.queries import get_chain, list_wallets

ATTEMPTS_MAX: Final = 3
"""How often the node is asked for one comparison: each block that comes between costs one more."""
ITEMS_MAX: Final = 10_000
"""Items of one run that are kept; a run with more has another trouble than these."""


@dataclass(frozen=True, slots=True)
class CoinBooks:
    """What the ledger and our table say, both at the same moment.

    Attributes:
        ledger: satoshi by wallet.
        coins: those that are unspent.
        wallets: of each address of ours.
    """

    block: Block
    asset: str
    ledger: Mapping[str, int]
    coins: tuple[Coin, ...]
    wallets: Mapping[str, str]


async def compare_coins(
    engine: AsyncEngine, node: BitcoinReader, chain: str, *, book: int
) -> list[Reconciled]:
    """Compare every wallet of a chain; by wallet.

    Raises:
        NotPossible: no block was ever read.
        BlockGone: books and node do not stand at one block; follow the chain and ask again.
    """
    books, scan = await _read(engine, node, chain, book)
    return figures_of(books, scan)


async def reconcile_coins(
    engine: AsyncEngine, node: BitcoinReader, chain: str, *, book: int, now: datetime
) -> Run:
    """Compare, say which coins differ, and record it; a wallet whose coins are missing is frozen.

    Raises:
        NotPossible: no block was ever read.
        BlockGone: books and node do not stand at one block; follow the chain and ask again.
    """
    books, scan = await _read(engine, node, chain, book)
    run = Run(
        id=derive_id(now, "reconciliation", book, chain, books.block.hash),
        book=book,
        chain=chain,
        block=books.block,
        figures=tuple(figures_of(books, scan)),
        items=tuple(itemise_coins(books, scan)[:ITEMS_MAX]),
        addresses=len(books.wallets),
        at=now,
    )
    await transact(engine, lambda conn: record_run(conn, run))
    return run


async def _read(
    engine: AsyncEngine, node: BitcoinReader, chain: str, book: int
) -> tuple[CoinBooks, UnspentScan]:
    """Return books and a scan of one and the same block.

    A scan takes minutes and is always of the node's newest block. So the books are read before and
    after it, and one of the two readings is of its block, or it is taken again.
    """
    books = await _read_books(engine, chain, book)
    said = ""
    for _ in range(ATTEMPTS_MAX):
        scan = await node.scan(sorted(books.wallets))
        if scan.block_hash == books.block.hash:
            return books, scan
        asked = books.wallets
        books = await _read_books(engine, chain, book)
        if scan.block_hash == books.block.hash and books.wallets == asked:
            return books, scan
        said = f"the node is at block {scan.height}, the books are at {books.block.height}"
    raise BlockGone(said, remedy="Follow the chain to the node's newest block, and ask again")


async def _read_books(engine: AsyncEngine, chain: str, book: int) -> CoinBooks:
    async with engine.connect() as plain:
        # Cursor, balances and coins must be of one moment, or a block committed between would show.
        conn = await plain.execution_options(isolation_level="REPEATABLE READ")
        async with conn.begin():
            return await _gather(conn, chain, book)


async def _gather(conn: AsyncConnection, chain: str, book: int) -> CoinBooks:
    block = await get_cursor(conn, chain)
    if block is None:
        raise NotPossible(f"no block of {chain} was read yet", remedy="Follow the chain first")
    asset = (await get_chain(conn, chain)).native_asset
    accounts = {
        account.path: held_in_custody(account.balance)
        for account in await list_accounts(conn, book, "custody:")
        if account.asset == asset
    }
    return CoinBooks(
        block=block,
        asset=asset,
        ledger={
            wallet.code: accounts.get(custody_account(wallet.code), 0)
            for wallet in await list_wallets(conn, chain)
        },
        coins=tuple(await list_coins(conn, chain, states=[CoinState.UNSPENT])),
        wallets={item.address: item.wallet for item in await list_addresses(conn, chain)},
    )


# What differs. Pure.


def figures_of(books: CoinBooks, scan: UnspentScan) -> list[Reconciled]:
    """Return what the ledger and the node say of each wallet."""
    totals: dict[str, int] = defaultdict(int)
    for coin in scan.coins:
        totals[books.wallets[coin.address]] += coin.amount
    return [
        Reconciled(
            wallet=wallet,
            asset=books.asset,
            ledger=ledger,
            chain=totals[wallet],
            block=books.block,
        )
        for wallet, ledger in sorted(books.ledger.items())
    ]


def itemise_coins(books: CoinBooks, scan: UnspentScan) -> list[Item]:
    """Return every coin of which table and node say different things, and where the ledger differs.

    The differences of the items of a wallet add up to the wallet's difference.
    """
    ours = {coin.outpoint: coin for coin in books.coins}
    # An output of nothing is no coin: the table has none of those.
    theirs = {Outpoint(item.tx_id, item.index): item for item in scan.coins if item.amount}
    items = [
        item
        for key in sorted(ours.keys() | theirs.keys())
        if (item := _item(books, key, ours.get(key), theirs.get(key))) is not None
    ]
    return items + _beside_the_table(books)


def _item(
    books: CoinBooks, key: Outpoint, ours: Coin | None, theirs: ScannedCoin | None
) -> Item | None:
    here, there = (0 if coin is None else coin.amount for coin in (ours, theirs))
    if here == there:
        return None
    if theirs is None:
        reason, words = Reason.MISSING_COIN, "the node does not have it among what is unspent"
    elif ours is None:
        reason, words = Reason.FOREIGN_COIN, f"made at height {theirs.height}, and not in our table"
    else:
        reason, words = Reason.COIN_AMOUNT, "table and node have different amounts"
    address = theirs.address if ours is None and theirs is not None else (ours and ours.address)
    return Item(
        wallet=books.wallets[str(address)],
        asset=books.asset,
        contract=None,
        address=str(key),
        books=here,
        chain=there,
        explanations=(Explanation(reason, there - here, f"at {address}: {words}"),),
    )


def _beside_the_table(books: CoinBooks) -> list[Item]:
    """Return where the ledger holds more or less than the coins of our table."""
    held: dict[str, int] = defaultdict(int)
    for coin in books.coins:
        held[coin.wallet] += coin.amount
    return [_posted(books, wallet, held[wallet]) for wallet in _differing(books.ledger, held)]


def _differing(ledger: Mapping[str, int], held: Mapping[str, int]) -> Sequence[str]:
    return [wallet for wallet, amount in sorted(ledger.items()) if amount != held[wallet]]


def _posted(books: CoinBooks, wallet: str, held: int) -> Item:
    posted = books.ledger[wallet] - held
    reason = Reason.POSTED_WITHOUT_COINS if posted > 0 else Reason.COINS_NOT_POSTED
    words = f"the ledger has {books.ledger[wallet]}, the coins of our table hold {held}"
    return Item(
        wallet=wallet,
        asset=books.asset,
        contract=None,
        address=NO_ADDRESS,
        books=posted,
        chain=0,
        explanations=(Explanation(reason, -posted, words),),
    )
