"""Undoing what was posted for a block that vanished: in full, with the shortfall named.

It happens when a reorganisation goes deeper than the confirmation policy that credited a deposit,
yet not so deep that the chain halts. What the client asked to be paid and nobody signed is cancelled;
what is still missing becomes a receivable.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import arrivals, store
from custody.deposit_model import Deposit, DepositState, Receipt, ReceiptState
from custody.model import held_account, reorg_account
from custody.payout_events import move_payout
from custody.payout_model import CANCELLABLE, Payout, PayoutState
from custody.payout_postings import released
from custody.payout_store import list_payouts, lock_payouts
from custody.plan import Plan
from ledger.accounts import ensure_accounts, set_frozen
from ledger.posting import post
from ledger.queries import get_balance, list_accounts

_GIVEN_BACK: Final = frozenset({DepositState.REFUNDING, DepositState.REFUNDED})

Frozen = tuple[str, str]
"""(path, asset) of an account."""


async def reverse(
    conn: AsyncConnection,
    plan: Plan,
    undone: Sequence[Deposit | Receipt],
    *,
    book: int,
    now: datetime,
) -> list[Frozen]:
    """Add to *plan* what reverses *undone*, and write their rows; return accounts to shut again.

    A frozen account refuses decisions, not facts: it is opened for this posting.

    Args:
        undone: posted arrivals whose rows are locked.
    """
    if not undone:
        return []
    newest_first = sorted(undone, key=lambda item: item.id, reverse=True)
    guards = {
        (guard, item.asset)
        for item in newest_first
        if (guard := arrivals.guarded(item)) is not None
    }
    accounts = {(guard.path, asset) for guard, asset in guards}
    freed = await _cancel_unsigned(conn, plan, accounts, book=book, now=now)
    needed = {(reorg_account(guard.party), asset) for guard, asset in guards}
    await ensure_accounts(conn, book, needed, now=now)
    # An empty batch takes the head's lock: from here on no balance of the book can change.
    await post(conn, book, [], now=now)
    available = {
        (path, asset): freed[path, asset] + (await get_balance(conn, book, path, asset)).available
        for path, asset in sorted(accounts)
    }
    # What lies on a held account for other deposits is theirs, not what a refund took from it.
    refunds = {item.id for item in newest_first if item.state in _GIVEN_BACK}
    others = await store.sum_held(conn, but=refunds) if refunds else {}
    for (party, asset), amount in others.items():
        key = (held_account(party), asset)
        if key in available:
            available[key] = max(0, available[key] - amount)
    reversed_rows = []
    for item, short in arrivals.split_shortfalls(newest_first, available):
        after = _reversed(item, short)
        reversed_rows.append(after)
        plan.post(*arrivals.undone(item, shortfall=short))
        name = "DepositReversed" if isinstance(item, Deposit) else "ReceiptReversed"
        plan.tell(arrivals.event(item, after, name, at=now, actor=arrivals.FOLLOWER))
    await store.save_arrivals(conn, reversed_rows)
    touched = {key for item in newest_first for key in arrivals.accounts_of(item)}
    return await open_frozen(conn, touched, book=book, now=now)


async def open_frozen(
    conn: AsyncConnection, keys: Collection[Frozen], *, book: int, now: datetime
) -> list[Frozen]:
    """Open those of *keys* that are frozen, for a fact; return them for `shut_again`.

    It posts to the ledger: every row is locked and written by now.
    """
    shut = [
        (account.path, account.asset)
        for path in sorted({path for path, _ in keys})
        for account in await list_accounts(conn, book, path)
        if account.frozen and (account.path, account.asset) in keys
    ]
    for path, asset in shut:
        reason = "opened for a fact of the chain, and frozen again at once"
        await set_frozen(conn, book, path, asset, frozen=False, reason=reason, now=now)
    return shut


async def shut_again(
    conn: AsyncConnection, shut: Sequence[Frozen], *, book: int, now: datetime
) -> None:
    """Freeze again what `open_frozen` opened, in the same transaction."""
    for path, asset in shut:
        await set_frozen(conn, book, path, asset, frozen=True, reason="the fact is posted", now=now)


async def _cancel_unsigned(
    conn: AsyncConnection,
    plan: Plan,
    accounts: Collection[tuple[str, str]],
    *,
    book: int,
    now: datetime,
) -> dict[tuple[str, str], int]:
    """Cancel what is to be paid from these accounts and nobody signed; return what that frees."""
    freed = dict.fromkeys(accounts, 0)
    for path, asset in sorted(accounts):
        asked = await _list_unsigned(conn, path, book=book)
        locked = await lock_payouts(conn, [item.id for item in asked if item.asset == asset])
        for payout in locked.values():
            # Only now that its row is locked is it known not to have been signed meanwhile.
            if payout.state not in CANCELLABLE:
                continue
            _, event = await move_payout(
                conn,
                payout,
                PayoutState.CANCELLED,
                actor=arrivals.FOLLOWER,
                reason="a deposit of this client was reversed",
                now=now,
            )
            plan.post(*released(payout))
            plan.tell(event)
            freed[path, asset] += payout.amount
    return freed


async def _list_unsigned(conn: AsyncConnection, claim: str, *, book: int) -> list[Payout]:
    """Return all of them: one that were left out could still be signed."""
    found: list[Payout] = []
    last = None
    while page := await list_payouts(conn, book=book, states=CANCELLABLE, claim=claim, after=last):
        found += page
        last = page[-1]
    return found


def _reversed(item: Deposit | Receipt, short: int) -> Deposit | Receipt:
    if isinstance(item, Deposit):
        gone = arrivals.moved(item, DepositState.REVERSED)
        return replace(gone, postings=(), shortfall=item.shortfall + short)
    return replace(arrivals.moved(item, ReceiptState.REVERSED), postings=())
