"""Every wallet against the chain, exact, at one block.

At the block where the cursor stands, for every wallet and asset: debits (posted and pending) less
credits posted of ``custody:<wallet>`` equal what the node says its addresses hold after that block.
There is no tolerance. `reconcile_chain` compares; `reconcile` also says where exactly they differ,
records the run, ages what stays open, and freezes a wallet whose coins are missing.

The books are read in one snapshot; the node is asked afterwards, outside any transaction, about
exactly that block. So a block that arrives meanwhile disturbs nothing, and a block that the node
has lost is `BlockGone`, not a difference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.follow import get_cursor
from chain.model import DELTA, Block
from chain.ports import ChainGateway
from custody import reconciliation_model, tables
from custody import reconciliation_store as runs
from custody.address_books import list_holdings
from custody.balance_reading import Progress, Wanted, read_balances
from custody.control_messages import ScopeKind
from custody.deposit_model import Deposit, DepositState
from custody.errors import NotPossible
from custody.freezes import Scope, close_automatically
from custody.model import AddressPurpose, custody_account
from custody.payout_model import ForeignState
from custody.payout_tables import foreign_spend
from custody.reconciliation_items import Arrived, Known, Place, age, itemise
from custody.reconciliation_model import Difference, Item, Reason, Run, RunRow
from custody.surplus import book_surpluses, list_bookable, reverse_explained
from kernel.db import transact
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from kernel.money import Rounding, rescale
from ledger.model import Balance
from ledger.queries import list_accounts
from registry.model import ChainAsset
from registry.queries import get_asset, list_chain_assets, list_wallets

Reconciled = reconciliation_model.Reconciled

ADDRESSES_MAX: Final = 250_000
"""Addresses asked about in one reconciliation, at most."""
PAGE: Final = 10_000
"""Addresses read at once."""
ENTITY: Final = "difference"
ACTOR: Final = "system:reconciliation"

get_run = runs.get_run
list_runs = runs.list_runs
list_items = runs.list_items
list_differences = runs.list_differences


@dataclass(frozen=True, slots=True)
class _Books:
    """What the books say, all at the same moment."""

    block: Block
    wallets: tuple[str, ...]
    assets: tuple[tuple[ChainAsset, int], ...]
    balances: Mapping[tuple[str, str], Balance]
    rows: Mapping[tuple[str, str], int]
    arrived: tuple[Arrived, ...]
    spends: Mapping[tuple[str, str], int]
    booked: Mapping[tuple[str, str], int]

    def held(self, wallet: str, asset: str) -> int:
        """Return what the ledger says a wallet holds on the chain."""
        balance = self.balances.get((custody_account(wallet), asset))
        return 0 if balance is None else held_in_custody(balance)


async def reconcile_chain(
    engine: AsyncEngine,
    gateway: ChainGateway,
    chain: str,
    *,
    book: int,
    progress: Progress | None = None,
) -> list[Reconciled]:
    """Compare every wallet and registered asset of a chain; by wallet and asset.

    Raises:
        NotPossible: no block was ever read, or too many addresses.
        BlockGone: the node has lost the block meanwhile; ask again.
    """
    books = await _read_books(engine, chain, book=book)
    places = await _read_places(engine, chain)
    return _figures(books, places, await _ask(gateway, books, places, progress))


async def reconcile(
    engine: AsyncEngine,
    gateway: ChainGateway,
    chain: str,
    *,
    book: int,
    now: datetime,
    dust: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> Run:
    """Compare, say where and why, and record it; a wallet whose coins are missing is frozen.

    What was booked as a surplus and has been explained since is reversed first.

    Args:
        engine: the database, as the runtime role.
        gateway: the node of *chain*.
        chain: the chain's code.
        book: the book.
        now: the time of the run.
        dust: smallest amounts worth anything, by asset.
        progress: told how many balances were read.

    Raises:
        NotPossible: no block was ever read, or too many addresses.
        BlockGone: the node has lost the block meanwhile; ask again.
    """
    await transact(engine, lambda conn: reverse_explained(conn, chain, book=book, now=now))
    books = await _read_books(engine, chain, book=book)
    places = await _read_places(engine, chain)
    on_chain = await _ask(gateway, books, places, progress)
    figures = _figures(books, places, on_chain)
    known = _known(books, traces=getattr(gateway, "traces", False), dust=dust or {})
    items = itemise(figures, places, books.rows, _in_units(books, places, on_chain), known)
    run = Run(
        id=derive_id(now, "reconciliation", book, chain, books.block.hash),
        book=book,
        chain=chain,
        block=books.block,
        figures=tuple(figures),
        items=tuple(items),
        addresses=len(places),
        at=now,
    )
    await transact(engine, lambda conn: _record(conn, run))
    return run


async def reconcile_turn(
    engine: AsyncEngine,
    gateway: ChainGateway,
    chain: str,
    *,
    book: int,
    now: datetime,
    dust: Mapping[str, int] | None = None,
) -> tuple[Run, list[Deposit]]:
    """Do what the scheduled job does: reconcile, then book what two runs show and nobody explains.

    Raises:
        NotPossible: no block was ever read, or too many addresses.
        ChainHalted: nothing is booked on a chain that people have to look at.
        BlockGone: the node has lost the block meanwhile; call again.
    """
    # This round's own run ends at the tip, which is not final: what is booked stood in two before.
    bookable = await list_bookable(engine, gateway, chain, book=book)
    run = await reconcile(engine, gateway, chain, book=book, now=now, dust=dust)
    return run, await book_surpluses(engine, gateway, chain, book=book, now=now, bookable=bookable)


def held_in_custody(balance: Balance) -> int:
    """Return what the ledger says a wallet holds on the chain: arrived and not yet gone."""
    return balance.debits_posted + balance.debits_pending - balance.credits_posted


async def explain_run(conn: AsyncConnection, run_id: UUID) -> tuple[RunRow, list[Item]]:
    """Return a run and its items, as they were when it was made."""
    return await runs.get_run(conn, run_id), await runs.list_items(conn, run_id)


# The books.


async def _read_books(engine: AsyncEngine, chain: str, *, book: int) -> _Books:
    async with engine.connect() as plain:
        # Cursor and balances must be of one moment, or a block committed between would show.
        conn = await plain.execution_options(isolation_level="REPEATABLE READ")
        async with conn.begin():
            return await _gather(conn, chain, book)


async def _read_places(engine: AsyncEngine, chain: str) -> list[Place]:
    """Return our addresses, page by page, each in a short transaction of its own.

    They are read after the books: an address that was handed out meanwhile had nothing at the block
    of the books, and one that was handed out before is never taken back.
    """
    table, places = tables.address, list[Place]()
    query = select(table.c.address, table.c.wallet, table.c.purpose).where(table.c.chain == chain)
    query = query.order_by(table.c.address).limit(PAGE)
    last = ""
    while True:
        async with engine.connect() as conn:
            rows = (await conn.execute(query.where(table.c.address > last))).all()
        places += [Place(r.address, r.wallet, r.purpose == AddressPurpose.HOT) for r in rows]
        if len(places) > ADDRESSES_MAX:
            raise NotPossible(f"more than {ADDRESSES_MAX} addresses on {chain}")
        if len(rows) < PAGE:
            return places
        last = rows[-1].address


async def _gather(conn: AsyncConnection, chain: str, book: int) -> _Books:
    block = await get_cursor(conn, chain)
    if block is None:
        raise NotPossible(f"no block of {chain} was read yet", remedy="Follow the chain first")
    wallets = await list_wallets(conn, chain)
    arrived, booked = await _arrivals(conn, chain)
    return _Books(
        block=block,
        wallets=tuple(wallet.code for wallet in wallets),
        assets=tuple(
            [
                (item, (await get_asset(conn, item.asset)).scale)
                for item in await list_chain_assets(conn, chain)
            ]
        ),
        balances={
            (account.path, account.asset): account.balance
            for account in await list_accounts(conn, book, "custody:")
        },
        rows=await list_holdings(conn, chain, book),
        arrived=tuple(arrived),
        spends=await _spends(conn, chain),
        booked=booked,
    )


async def _arrivals(
    conn: AsyncConnection, chain: str
) -> tuple[list[Arrived], dict[tuple[str, str], int]]:
    """Return what arrived and does not count, and what was booked as a surplus."""
    table = tables.deposit
    outside = (DepositState.QUARANTINED, DepositState.ORPHANED)
    rows = await conn.execute(
        select(table).where(
            table.c.chain == chain,
            table.c.state.in_([str(s) for s in outside]) | table.c.position.startswith(DELTA),
        )
    )
    arrived, booked = [], defaultdict[tuple[str, str], int](int)
    for row in rows:
        if row.state not in outside:
            booked[row.address, row.asset] += int(row.amount)
            continue
        reason = Reason.ORPHANED if row.state == DepositState.ORPHANED else Reason.QUARANTINED
        if not row.asset:
            reason = Reason.UNREGISTERED_TOKEN
        if reason is Reason.UNREGISTERED_TOKEN and row.state == DepositState.ORPHANED:
            continue
        arrived.append(
            Arrived(
                wallet=row.wallet,
                address=row.address,
                asset=row.asset,
                contract=row.contract,
                amount=int(row.amount),
                tx_hash=row.tx_hash,
                reason=reason,
            )
        )
    return arrived, dict(booked)


async def _spends(conn: AsyncConnection, chain: str) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = defaultdict(int)
    query = select(foreign_spend.c.legs).where(
        foreign_spend.c.chain == chain, foreign_spend.c.state == ForeignState.INCLUDED
    )
    for (legs,) in await conn.execute(query):
        for leg in legs:
            found[leg["wallet"], leg["asset"]] += int(leg["amount"])
    return dict(found)


# The node.


async def _ask(
    gateway: ChainGateway, books: _Books, places: Sequence[Place], progress: Progress | None
) -> Mapping[Wanted, int]:
    """Return what each address holds of each registered asset, in the chain's units."""
    wanted: list[Wanted] = [
        (item.address, token.contract) for token, _ in books.assets for item in places
    ]
    return await read_balances(gateway, wanted, at=books.block, progress=progress)


def _in_units(
    books: _Books, places: Sequence[Place], found: Mapping[Wanted, int]
) -> dict[tuple[str, str], int]:
    """Return the holdings in the asset's units, rounded down, by address and asset."""
    return {
        (item.address, token.asset): rescale(
            found[item.address, token.contract], token.decimals, scale, Rounding.DOWN
        )
        for token, scale in books.assets
        for item in places
    }


def _figures(
    books: _Books, places: Sequence[Place], found: Mapping[Wanted, int]
) -> list[Reconciled]:
    """Return the figures of each wallet: its addresses are summed before they are rounded down."""
    totals: dict[tuple[str, str], int] = defaultdict(int)
    for token, _ in books.assets:
        for item in places:
            totals[item.wallet, token.asset] += found[item.address, token.contract]
    return [
        Reconciled(
            wallet=wallet,
            asset=token.asset,
            ledger=books.held(wallet, token.asset),
            chain=rescale(totals[wallet, token.asset], token.decimals, scale, Rounding.DOWN),
            block=books.block,
        )
        for wallet in books.wallets
        for token, scale in books.assets
    ]


def _known(books: _Books, *, traces: bool, dust: Mapping[str, int]) -> Known:
    return Known(
        traces=traces,
        contracts={token.asset: token.contract for token, _ in books.assets},
        dust=dust,
        arrived=books.arrived,
        spends=books.spends,
        holds={
            (path.removeprefix(custody_account("")), asset): (b.debits_pending, b.credits_pending)
            for (path, asset), b in books.balances.items()
        },
        booked=books.booked,
    )


# The record.


async def _record(conn: AsyncConnection, run: Run) -> None:
    """Write the run, age the differences, and freeze wallets whose coins are missing."""
    standing = await runs.list_differences(conn, book=run.book, chain=run.chain, lock=True)
    aged = age(standing, run)
    await runs.insert_run(conn, run)
    await runs.insert_differences(conn, aged.new)
    for item in (*aged.seen_again, *aged.closed):
        await runs.write_difference(conn, item)
    changed = [(item, "DifferenceFound") for item in aged.new]
    changed += [(item, "DifferenceClosed") for item in aged.closed]
    before = {item.id: item for item in standing}
    changed += [
        (item, "DifferenceChanged")
        for item in aged.seen_again
        if item.amount != before[item.id].amount
    ]
    await record(conn, [await _event(conn, item, name, run) for item, name in changed])
    await _freeze(conn, run, (*aged.new, *aged.seen_again))


async def _freeze(conn: AsyncConnection, run: Run, standing: Sequence[Difference]) -> None:
    """Stop whatever spends from a wallet that lacks coins; two people open it again.

    A difference that two people opened the wallet for is not frozen for again: only one that is
    new, or that grew, says something that they did not know.
    """
    for wallet in sorted({item.wallet for item in standing if _is_news(item, run)}):
        lacking = [i for i in standing if i.wallet == wallet and _is_news(i, run)]
        words = ", ".join(f"{-i.amount} {i.asset}" for i in lacking)
        reason = f"the chain has less than the books at block {run.block.height}: {words}"
        await close_automatically(
            conn, Scope(ScopeKind.WALLET, wallet), by=ACTOR, reason=reason[:500], now=run.at
        )


def _is_news(item: Difference, run: Run) -> bool:
    return item.amount < 0 and item.first_block == run.block.hash


async def _event(conn: AsyncConnection, item: Difference, name: str, run: Run) -> DomainEvent:
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=item.id,
        version=await next_version(conn, ENTITY, item.id),
        name=name,
        at=run.at,
        actor=ACTOR,
        reason=item.detail,
        to_state=item.state,
        payload={
            "wallet": item.wallet,
            "asset": item.asset,
            "address": item.address,
            "amount": str(item.amount),
            "height": run.block.height,
            "block": run.block.hash,
            "run": str(run.id),
        },
    )
