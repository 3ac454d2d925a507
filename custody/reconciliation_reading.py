"""What reconciliation compares: the books at one moment, and the node's balances page by page.

Only what differs is kept of the addresses: where books and chain say the same, the sums of their wallet
are all that is left of them. So memory follows the addresses that hold something by our rows, and those
that differ, not the addresses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.follow import get_cursor
from chain.model import DELTA, Block
from chain.ports import ChainGateway
from custody import tables
from custody.address_books import Holding, list_holdings
from custody.balance_reading import Progress, read_balances
from custody.deposit_model import HOLD_OPEN, DepositState, ReceiptState
from custody.errors import NotPossible
from custody.model import AddressPurpose, custody_account
from custody.payout_model import ForeignState
from custody.payout_tables import foreign_spend
from custody.reconciliation_items import ITEMS_MAX, Arrived, Place
from custody.reconciliation_model import Reason
from custody.reconciliation_tally import Counted, Tally
from ledger.model import Balance
from ledger.queries import list_accounts
from registry.queries import get_asset, list_chain_assets, list_wallets

ADDRESSES_MAX: Final = 1_000_000
"""Addresses asked about in one reconciliation, at most."""
PAGE: Final = 5_000
"""Addresses read, and asked about, at once."""
ARRIVED_MAX: Final = 10_000
"""Arrivals outside the books that are looked at for an explanation, the newest first."""

_OUTSIDE: Final = (DepositState.QUARANTINED, DepositState.ORPHANED)


@dataclass(frozen=True, slots=True)
class Books:
    """What the books say, all at the same moment.

    Attributes:
        rows: what rows of custody say that an address holds, by (address, asset).
        remainders: by (wallet, asset): what arrived and makes no whole unit of the asset, and the units
            of it that were posted as dust already, as the chain counts.
        spends: what strangers' transactions took, by (wallet, asset).
        booked: surpluses that were booked, by (address, asset).
        unproven: by (address, asset): how much less than what a token logged may have arrived.
        addresses: how many addresses there are.
    """

    block: Block
    wallets: tuple[str, ...]
    assets: tuple[Counted, ...]
    balances: Mapping[tuple[str, str], Balance]
    rows: Mapping[Holding, int]
    remainders: Mapping[tuple[str, str], int]
    arrived: tuple[Arrived, ...]
    spends: Mapping[tuple[str, str], int]
    booked: Mapping[tuple[str, str], int]
    unproven: Mapping[tuple[str, str], int]
    addresses: int

    def held(self, wallet: str, asset: str) -> int:
        """Return what the ledger says a wallet holds on the chain."""
        balance = self.balances.get((custody_account(wallet), asset))
        return 0 if balance is None else held_in_custody(balance)


def held_in_custody(balance: Balance) -> int:
    """Return what the ledger says a wallet holds on the chain: arrived and not yet gone."""
    return balance.debits_posted + balance.debits_pending - balance.credits_posted


async def read_books(engine: AsyncEngine, chain: str, *, book: int) -> Books:
    """Return what the books say at the block where the cursor stands.

    Raises:
        NotPossible: no block was ever read, or there are more than `ADDRESSES_MAX` addresses.
    """
    async with engine.connect() as plain:
        # Cursor and balances must be of one moment, or a block committed between would show.
        conn = await plain.execution_options(isolation_level="REPEATABLE READ")
        async with conn.begin():
            return await _gather(conn, chain, book)


async def survey(
    engine: AsyncEngine, gateway: ChainGateway, books: Books, *, progress: Progress | None
) -> Tally:
    """Ask the node about every address, page by page, and return what is left to say of them.

    Raises:
        BlockGone: the node has lost the block meanwhile.
        NodeTrouble: it cannot be relied on now.
    """
    tally = Tally(books.assets, books.rows)
    contracts = [item.contract for item in books.assets]
    asked = 0
    async for page in _pages(engine, books.block.chain):
        # One address after the other, with all its assets: it is encoded once.
        wanted = [(place.address, contract) for place in page for contract in contracts]
        tally.count(page, await read_balances(gateway, wanted, at=books.block))
        asked += len(wanted)
        if progress is not None:
            progress(asked, max(asked, books.addresses * len(contracts)))
    return tally


async def _pages(engine: AsyncEngine, chain: str) -> AsyncIterator[Sequence[Place]]:
    """Give our addresses in pages, each read in a short transaction of its own.

    They are read after the books: an address that was handed out meanwhile had nothing at the block
    of the books, and one that was handed out before is never taken back.
    """
    table, last = tables.address, ""
    query = select(table.c.address, table.c.wallet, table.c.purpose).where(table.c.chain == chain)
    query = query.order_by(table.c.address).limit(PAGE)
    while True:
        async with engine.connect() as conn:
            rows = (await conn.execute(query.where(table.c.address > last))).all()
        if rows:
            yield [Place(r.address, r.wallet, r.purpose == AddressPurpose.HOT) for r in rows]
        if len(rows) < PAGE:
            return
        last = rows[-1].address


async def _gather(conn: AsyncConnection, chain: str, book: int) -> Books:
    block = await get_cursor(conn, chain)
    if block is None:
        raise NotPossible(f"no block of {chain} was read yet", remedy="Follow the chain first")
    addresses = await _count_addresses(conn, chain)
    wallets = await list_wallets(conn, chain)
    on_chain = await list_chain_assets(conn, chain)
    return Books(
        block=block,
        wallets=tuple(wallet.code for wallet in wallets),
        assets=tuple(
            [
                Counted(
                    item.asset,
                    item.contract,
                    item.decimals,
                    (await get_asset(conn, item.asset)).scale,
                )
                for item in on_chain
            ]
        ),
        balances={
            (account.path, account.asset): account.balance
            for account in await list_accounts(conn, book, "custody:")
        },
        rows=await list_holdings(conn, chain, book),
        remainders=await _remainders(conn, {item.code: item.asset for item in on_chain}),
        arrived=tuple(await _outside(conn, chain)),
        spends=await _spends(conn, chain),
        booked=await _booked(conn, chain),
        unproven=await _unproven(conn, chain),
        addresses=addresses,
    )


async def _count_addresses(conn: AsyncConnection, chain: str) -> int:
    query = select(func.count()).select_from(tables.address).where(tables.address.c.chain == chain)
    found = int(await conn.scalar(query) or 0)
    if found > ADDRESSES_MAX:
        raise NotPossible(f"{found} addresses on {chain}, more than {ADDRESSES_MAX}")
    return found


async def _remainders(
    conn: AsyncConnection, assets: Mapping[str, str]
) -> dict[tuple[str, str], int]:
    table = tables.remainder
    rows = await conn.execute(select(table).where(table.c.chain_asset.in_(sorted(assets))))
    return {(row.wallet, assets[row.chain_asset]): int(row.amount) for row in rows}


async def _outside(conn: AsyncConnection, chain: str) -> list[Arrived]:
    """Return what arrived and does not count: first what is registered, then a bounded rest."""
    table = tables.deposit
    query = select(table).where(
        table.c.chain == chain, table.c.state.in_([str(state) for state in _OUTSIDE])
    )
    newest = (table.c.height.desc(), table.c.id)
    registered = query.where(table.c.asset != "").order_by(*newest).limit(ARRIVED_MAX)
    others = query.where(table.c.asset == "", table.c.state == DepositState.QUARANTINED)
    others = others.order_by(table.c.height, table.c.id).limit(ITEMS_MAX)
    rows = [*await conn.execute(registered), *await conn.execute(others)]
    return [
        Arrived(
            wallet=row.wallet,
            address=row.address,
            asset=row.asset,
            contract=row.contract,
            amount=int(row.amount),
            tx_hash=row.tx_hash,
            reason=_reason(row.asset, row.state),
        )
        for row in rows
    ]


def _reason(asset: str, state: str) -> Reason:
    if not asset:
        return Reason.UNREGISTERED_TOKEN
    return Reason.ORPHANED if state == DepositState.ORPHANED else Reason.QUARANTINED


async def _booked(conn: AsyncConnection, chain: str) -> dict[tuple[str, str], int]:
    table = tables.deposit
    total = func.sum(table.c.amount).label("amount")
    query = (
        select(table.c.address, table.c.asset, total)
        .where(
            table.c.chain == chain,
            table.c.position.startswith(DELTA),
            table.c.state.not_in([str(state) for state in _OUTSIDE]),
        )
        .group_by(table.c.address, table.c.asset)
    )
    return {(row.address, row.asset): int(row.amount) for row in await conn.execute(query)}


async def _unproven(conn: AsyncConnection, chain: str) -> dict[Holding, int]:
    """Return how much less may lie at each address than the ledger holds of what a token logged.

    The hold is of what was logged until the arrival is posted. Unless the balances were asked, nobody
    knows that any of it came; where they were, what is missing is known.
    """
    found: dict[Holding, int] = defaultdict(int)
    for table, states in ((tables.deposit, HOLD_OPEN), (tables.receipt, {ReceiptState.INCLUDED})):
        less = func.sum(table.c.amount - func.coalesce(table.c.received, 0))
        query = (
            select(table.c.address, table.c.asset, less.label("less"))
            .where(table.c.chain == chain, table.c.state.in_([str(state) for state in states]))
            .where(table.c.contract.is_not(None), ~table.c.position.startswith(DELTA))
            .group_by(table.c.address, table.c.asset)
            .having(less > 0)
        )
        for row in await conn.execute(query):
            found[row.address, row.asset] += int(row.less)
    return dict(found)


async def _spends(conn: AsyncConnection, chain: str) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = defaultdict(int)
    query = select(foreign_spend.c.legs).where(
        foreign_spend.c.chain == chain, foreign_spend.c.state == ForeignState.INCLUDED
    )
    for (legs,) in await conn.execute(query):
        for leg in legs:
            found[leg["wallet"], leg["asset"]] += int(leg["amount"])
    return dict(found)
