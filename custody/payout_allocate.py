"""Allocate: a nonce, a transaction, and the coins and fee held for it, for many payouts at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import payout_rows as rows
from custody import payout_store as store
from custody.errors import ClientsUncovered
from custody.payout_allocation import Allocation, ChainView, Waiting
from custody.payout_books import RunningBooks
from custody.payout_coverage import count_spare, leaves_clients
from custody.payout_gates import find_stopped
from custody.payout_model import ClaimKind, Nonce, NonceState, Payout, PayoutState
from custody.payout_moves import Move, move_payouts
from custody.payout_postings import allocated
from custody.payout_steps import Bench, Result, Results, lock_mine
from kernel.db import transact
from kernel.events import record
from ledger.posting import post, require_applied
from ledger.queries import get_balance
from registry.queries import get_wallet

Seen = Mapping[UUID, ChainView | Waiting]


async def allocate(bench: Bench, payouts: Sequence[Payout]) -> Results:
    """Give each payout its nonce and its first attempt, or say why it has to wait.

    Nonces are given in the order of *payouts*, without a gap for those that wait.
    """
    seen = await bench.rail.look(payouts)
    return await transact(bench.engine, lambda conn: _allocate(bench, conn, payouts, seen))


async def _allocate(
    bench: Bench, conn: AsyncConnection, payouts: Sequence[Payout], seen: Seen
) -> Results:
    mine, results = await lock_mine(conn, payouts)
    due = [mine[item.id] for item in payouts if item.id in mine]
    stopped = await find_stopped(conn, due, now=bench.clock.now())
    books = await load_books(conn, due, seen)
    planned: dict[UUID, Allocation] = {}
    cover: dict[str, int] = {}
    for payout in due:
        plan = _plan(bench, payout, seen[payout.id], stopped, books)
        if isinstance(plan, Waiting):
            results[payout.id] = plan
            continue
        planned[payout.id] = plan
        for asset, amount in books.take(payout, plan).items():
            cover[asset] = cover.get(asset, 0) + amount
    chosen = [item for item in due if item.id in planned]
    if not chosen:
        return results
    return results | await _book(bench, conn, chosen, planned, cover)


def _plan(
    bench: Bench,
    payout: Payout,
    seen: ChainView | Waiting,
    stopped: Mapping[UUID, str],
    books: RunningBooks,
) -> Allocation | Waiting:
    if payout.id in stopped:
        return Waiting(stopped[payout.id])
    if payout.state is not PayoutState.APPROVED:
        return Waiting(f"it is {payout.state} by now")
    if payout.expires_at is not None and payout.expires_at <= bench.clock.now():
        return Waiting("its time is over")
    if isinstance(seen, Waiting):
        return seen
    return bench.rail.plan(payout, seen, books.view(payout))


async def load_books(
    conn: AsyncConnection, payouts: Collection[Payout], seen: Seen
) -> RunningBooks:
    """Return what the books say to these payouts of one book; locks the sending addresses.

    All addresses of their wallets are locked, because coins are counted for a wallet as a whole.
    """
    books = RunningBooks()
    for chain, wallet, sender in sorted({(p.chain, p.source_wallet, p.sender) for p in payouts}):
        books.frozen[sender] = await store.lock_sender(conn, chain, sender, wallet)
        books.for_clients |= await _if_clients(conn, wallet)
    for payout in payouts:
        await _load_sender(conn, payout, seen[payout.id], books)
        for asset in (payout.asset, payout.native_asset):
            key = payout.source_wallet, asset
            if key not in books.available:
                path = f"custody:{payout.source_wallet}"
                balance = await get_balance(conn, payout.book, path, asset)
                books.available[key] = balance.available
        claim, pair = payout.parsed_claim, (payout.source_wallet, payout.parsed_claim.name)
        if claim.kind is ClaimKind.OWN and await leaves_clients(conn, *pair):
            books.leaving.add(pair)
    if books.for_clients:
        assets = {asset for p in payouts for asset in (p.asset, p.native_asset)}
        books.spare = await count_spare(conn, next(iter(payouts)).book, assets)
    return books


async def _if_clients(conn: AsyncConnection, wallet: str) -> set[str]:
    return {wallet} if (await get_wallet(conn, wallet)).holds_client_money else set()


async def _load_sender(
    conn: AsyncConnection, payout: Payout, seen: ChainView | Waiting, books: RunningBooks
) -> None:
    chain, sender = payout.chain, payout.sender
    if sender not in books.nonces:
        since = seen.next_nonce if isinstance(seen, ChainView) else 0
        books.nonces[sender] = await store.load_nonces(conn, chain, sender, since)
    if (sender, payout.contract) not in books.promised:
        coins, gas = await store.sum_promised(conn, chain, sender, payout.contract)
        books.promised[sender, payout.contract] = coins
        books.promised_gas[sender] = gas


async def _book(
    bench: Bench,
    conn: AsyncConnection,
    payouts: Sequence[Payout],
    planned: Mapping[UUID, Allocation],
    cover: Mapping[str, int],
) -> dict[UUID, Result]:
    now, book = bench.clock.now(), payouts[0].book
    await rows.take_nonces(
        conn,
        [
            Nonce(
                chain=item.chain,
                sender=item.sender,
                nonce=planned[item.id].nonce,
                payout_id=item.id,
                state=NonceState.LIVE,
                since=now,
            )
            for item in payouts
        ],
    )
    await rows.insert_attempts(
        conn, [bench.rail.draft(p, p.attempt + 1, planned[p.id], now) for p in payouts]
    )
    batch = [t for p in payouts for t in allocated(p, planned[p.id].fee_cap)]
    require_applied(await post(conn, book, batch, now=now))
    await require_covered(conn, book, cover)
    moved, events = await move_payouts(
        conn, [_move(payout, planned[payout.id]) for payout in payouts], now=now
    )
    await record(conn, events)
    return dict(moved)


def _move(payout: Payout, planned: Allocation) -> Move:
    return Move(
        payout=payout,
        to=PayoutState.ALLOCATED,
        payload={"nonce": planned.nonce, "fee_cap": str(planned.fee_cap)},
        values={
            "attempt": payout.attempt + 1,
            "nonce": planned.nonce,
            "fee_cap": planned.fee_cap,
            "waiting_for": "",
        },
    )


async def require_covered(conn: AsyncConnection, book: int, cover: Mapping[str, int]) -> None:
    """Look again once the ledger's head is locked: nobody else can spend the same cover now.

    Raises:
        ClientsUncovered: *cover*, by asset, is more than clients' holdings have to spare.
    """
    if not cover:
        return
    spare = await count_spare(conn, book, list(cover))
    for asset, amount in cover.items():
        if spare[asset] < amount:
            raise ClientsUncovered(
                f"clients' {asset} would not be covered: {spare[asset]} to spare",
                remedy="Move house coins into the wallet first",
            )
