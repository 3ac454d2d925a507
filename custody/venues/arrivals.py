"""Coins from a venue on the chain: recognised as our own, never anybody's deposit.

What a block brings to a hot address of ours is nobody's, unless a venue has named the very transaction
for a withdrawal of ours: then it is an own transfer from the first block on. Where the venue names it
later than the block has it, it is taken out of suspense once both are known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import arrivals
from custody import store as custody_store
from custody.deposit_model import Deposit, DepositState
from custody.venues import store
from custody.venues.model import MAY_ARRIVE, VenueWithdrawal
from kernel.events import record
from ledger.accounts import ensure_accounts
from ledger.posting import post, require_applied
from venues.treasury_model import bare

WORKER: Final = "system:venue-transfers"
_GONE: Final = frozenset(
    {
        DepositState.ORPHANED,
        DepositState.REVERSED,
        DepositState.QUARANTINED,
        DepositState.DISMISSED,
    }
)
_STATES: Final = sorted(str(state) for state in MAY_ARRIVE)

Coming = tuple[str, str, str, int]
"""(transaction, address, asset, amount) of something that arrives; the transaction as `bare`."""


class Expected:
    """Withdrawals that venues say are in the transactions of a block; each is taken once."""

    def __init__(self, routes: dict[Coming, str], counts: Counter[Coming]) -> None:
        self._routes = routes
        self._counts = counts

    def take(self, tx_id: str, address: str, asset: str, amount: int) -> str:
        """Return the account of the way on which this was; "" where it is none of ours."""
        key = (bare(tx_id), address, asset, amount)
        if not self._counts[key]:
            return ""
        self._counts[key] -= 1
        return self._routes[key]


async def find_expected(
    conn: AsyncConnection, chain: str, tx_ids: Collection[str], *, book: int
) -> Expected:
    """Return what venues say comes to us on *chain* in these transactions."""
    found = await store.list_sent(conn, chain, spellings(tx_ids), _STATES) if tx_ids else []
    mine = [item for item in found if item.book == book]
    keys = {item.id: _coming(item) for item in mine}
    routes = {keys[item.id]: item.route for item in mine}
    return Expected(routes, Counter(keys.values()))


async def find_arrival(
    conn: AsyncConnection, item: VenueWithdrawal, *, now: datetime
) -> UUID | None:
    """Return the deposit row of what arrived of a locked withdrawal, once it is deep enough.

    What was taken for nobody's, because the venue named the transaction late, goes from suspense to
    where it belongs.
    """
    rows = await store.find_arrivals(conn, item, spellings([item.tx_id or ""]))
    taken = await store.list_taken_arrivals(conn, [key for key, _ in rows])
    for key, state in rows:
        if key in taken:
            continue
        if state == DepositState.ARRIVED:
            return key
        if state == DepositState.UNATTRIBUTED:
            return await _recognise(conn, key, item, now)
    return None


async def has_come(conn: AsyncConnection, item: VenueWithdrawal) -> bool:
    """Tell whether a block has what can be the withdrawal's coins, however deep."""
    rows = await store.find_arrivals(conn, item, spellings([item.tx_id or ""]))
    taken = await store.list_taken_arrivals(conn, [key for key, _ in rows])
    return any(key not in taken and state not in _GONE for key, state in rows)


def spellings(tx_ids: Collection[str]) -> list[str]:
    """Return every way in which chains and venues write these transaction ids."""
    plain = {bare(item) for item in tx_ids if item}
    return sorted({*plain, *(f"0x{item}" for item in plain), *(i for i in tx_ids if i)})


async def _recognise(
    conn: AsyncConnection, deposit_id: UUID, item: VenueWithdrawal, now: datetime
) -> UUID | None:
    deposit = await custody_store.get_arrival(conn, Deposit, deposit_id, lock=True)
    if deposit.state is not DepositState.UNATTRIBUTED:
        return None
    posting = arrivals.recognised(deposit, item.route)
    after = arrivals.moved(
        deposit, DepositState.ARRIVED, postings=(*deposit.postings, posting.id), waiting_for=""
    )
    await custody_store.save_arrivals(conn, [after])
    keys = {(posting.debit, posting.asset), (posting.credit, posting.asset)}
    await ensure_accounts(conn, item.book, keys, now=now)
    require_applied(await post(conn, item.book, [posting], now=now))
    why = f"withdrawal {item.id} of {item.place}"
    told = arrivals.event(deposit, after, "OwnTransferArrived", at=now, actor=WORKER, reason=why)
    await record(conn, [told])
    return after.id


def _coming(item: VenueWithdrawal) -> Coming:
    return bare(item.tx_id or ""), item.address, item.asset, item.sent or 0
