"""Every wallet against the chain, exact, at one block.

At the block where the cursor stands, for every wallet and asset: debits (posted and pending) less
credits posted of ``custody:<wallet>`` equal what the node says its addresses hold after that block.
There is no tolerance. `reconcile_chain` compares; `reconcile` also says where exactly they differ,
records the run, ages what stays open, and freezes a wallet whose coins are missing.

The books are read in one snapshot; the node is asked afterwards, outside any transaction, about
exactly that block. So a block that arrives meanwhile disturbs nothing, and a block that the node
has lost is `BlockGone`, not a difference. Nothing is written before all was compared: a run that breaks
off leaves nothing behind, and the next one begins anew.

A token that does not tell its balances is one item of each wallet (*unknown*), and everything else is
compared. Where a token counts finer than its asset, whole units are compared, and what is less than one
is an item of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.ports import ChainGateway
from custody import reconciliation_model, reconciliation_reading
from custody import reconciliation_store as runs
from custody.balance_reading import Progress
from custody.control_messages import ScopeKind
from custody.deposit_model import Deposit
from custody.freezes import Scope, close_automatically
from custody.model import custody_account
from custody.reconciliation_items import Known, age, item_remainder, item_silence, itemise
from custody.reconciliation_model import Difference, Item, Run, RunRow
from custody.reconciliation_reading import Books, read_books, survey
from custody.reconciliation_tally import Tally
from custody.surplus import book_surpluses, list_bookable, reverse_explained
from kernel.db import transact
from kernel.events import DomainEvent, next_versions, record
from kernel.ids import derive_id

Reconciled = reconciliation_model.Reconciled
held_in_custody = reconciliation_reading.held_in_custody

ENTITY: Final = "difference"
ACTOR: Final = "system:reconciliation"

get_run = runs.get_run
list_runs = runs.list_runs
list_items = runs.list_items
list_differences = runs.list_differences


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
    books = await read_books(engine, chain, book=book)
    return _figures(books, await survey(engine, gateway, books, progress=progress))


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
    books = await read_books(engine, chain, book=book)
    tally = await survey(engine, gateway, books, progress=progress)
    figures = _figures(books, tally)
    known = _known(books, traces=getattr(gateway, "traces", False), dust=dust or {})
    items = itemise(figures, tally.places, books.rows, tally.on_chain, known, tally.alike)
    run = Run(
        id=derive_id(now, "reconciliation", book, chain, books.block.hash),
        book=book,
        chain=chain,
        block=books.block,
        figures=tuple(figures),
        items=(*_of_wallets(books, tally, figures), *items),
        addresses=tally.addresses,
        at=now,
    )
    await transact(engine, lambda conn: record_run(conn, run))
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


async def explain_run(conn: AsyncConnection, run_id: UUID) -> tuple[RunRow, list[Item]]:
    """Return a run and its items, as they were when it was made."""
    return await runs.get_run(conn, run_id), await runs.list_items(conn, run_id)


# What was found.


def _figures(books: Books, tally: Tally) -> list[Reconciled]:
    """Return the figures of each wallet: its addresses are summed before they are rounded down."""
    return [
        Reconciled(
            wallet=wallet,
            asset=item.asset,
            ledger=books.held(wallet, item.asset),
            chain=None
            if (wallet, item.asset) in tally.silences
            else item.whole(tally.totals[wallet, item.asset]),
            block=books.block,
        )
        for wallet in books.wallets
        for item in books.assets
    ]


def _of_wallets(books: Books, tally: Tally, figures: Sequence[Reconciled]) -> list[Item]:
    """Return what is said of wallets as a whole: tokens that do not tell, and pieces of a unit."""
    assets = {item.asset: item for item in books.assets}
    found: list[Item | None] = []
    for figure in figures:
        key, item = (figure.wallet, figure.asset), assets[figure.asset]
        if key in tally.silences:
            silence = tally.silences[key]
            words = f"{silence.why}; of {silence.count} addresses, {silence.address} the first"
            found.append(item_silence(figure, item.contract, words))
            continue
        found.append(
            item_remainder(
                figure.wallet,
                item.contract,
                asset=item.asset,
                books=item.pieces(books.remainders.get(key, 0)),
                chain=item.pieces(tally.totals[key]),
            )
        )
    return [item for item in found if item is not None]


def _known(books: Books, *, traces: bool, dust: Mapping[str, int]) -> Known:
    return Known(
        traces=traces,
        contracts={item.asset: item.contract for item in books.assets},
        dust=dust,
        arrived=books.arrived,
        spends=books.spends,
        holds={
            (path.removeprefix(custody_account("")), asset): (b.debits_pending, b.credits_pending)
            for (path, asset), b in books.balances.items()
        },
        booked=books.booked,
        unproven=books.unproven,
    )


# The record.


async def record_run(conn: AsyncConnection, run: Run) -> None:
    """Write the run, age the differences, and freeze wallets whose coins are missing."""
    standing = await runs.list_differences(conn, book=run.book, chain=run.chain, lock=True)
    aged = age(standing, run)
    await runs.insert_run(conn, run)
    await runs.insert_differences(conn, aged.new)
    await runs.write_differences(conn, [*aged.seen_again, *aged.closed])
    changed = [(item, "DifferenceFound") for item in aged.new]
    changed += [(item, "DifferenceClosed") for item in aged.closed]
    before = {item.id: item for item in standing}
    changed += [
        (item, "DifferenceChanged")
        for item in aged.seen_again
        if item.amount != before[item.id].amount
    ]
    versions = await next_versions(conn, ENTITY, [item.id for item, _ in changed])
    await record(conn, [_event(item, name, run, versions[item.id]) for item, name in changed])
    grown = [item for item in aged.seen_again if item.amount < before[item.id].amount]
    await _freeze(conn, run, [item for item in (*aged.new, *grown) if item.amount < 0])


async def _freeze(conn: AsyncConnection, run: Run, news: Sequence[Difference]) -> None:
    """Stop whatever spends from a wallet that lacks coins; two people open it again.

    A difference that two people opened the wallet for is not frozen for again, nor one of which a part
    was found: only what is missing since, or more of it than before, they did not know.
    """
    for wallet in sorted({item.wallet for item in news}):
        lacking = [item for item in news if item.wallet == wallet]
        words = ", ".join(f"{-i.amount} {i.asset}" for i in lacking)
        reason = f"the chain has less than the books at block {run.block.height}: {words}"
        await close_automatically(
            conn, Scope(ScopeKind.WALLET, wallet), by=ACTOR, reason=reason[:500], now=run.at
        )


def _event(item: Difference, name: str, run: Run, version: int) -> DomainEvent:
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=item.id,
        version=version,
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
