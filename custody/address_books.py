"""What the rows of custody say that each of our addresses holds, by asset.

The ledger knows wallets, not addresses. Every arrival, every mined payout and every foreign spend
names an address, so their sum is what an address holds, as of the block where the cursor stands.
Coins that were posted without such a row (opening balances, journals) are in no address here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, Table, case, func, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from custody import tables
from custody.bitcoin import coin_store
from custody.bitcoin.coin_tables import coin
from custody.deposit_model import HOLD_OPEN, POSTED, DepositState, ReceiptState
from custody.payout_model import TO_VENUES, ClaimKind, ForeignState, PayoutState
from custody.payout_tables import foreign_spend, payout
from registry.model import BITCOIN
from registry.queries import get_chain

IN_THE_BOOKS: Final = HOLD_OPEN | POSTED
MOVABLE: Final = frozenset(
    {
        *(DepositState.CREDITED, DepositState.ATTRIBUTED, DepositState.DUST),
        DepositState.ARRIVED,
    }
)
"""What is held by compliance, or nobody's yet, stays at the address where it arrived."""
RECEIPTS_IN_THE_BOOKS: Final = frozenset(
    {ReceiptState.INCLUDED, ReceiptState.FINAL, ReceiptState.MATCHED}
)
RECEIPTS_MOVABLE: Final = frozenset({ReceiptState.FINAL, ReceiptState.MATCHED})
UNDER_WAY: Final = (
    PayoutState.REQUESTED,
    PayoutState.RESERVED,
    PayoutState.PENDING_APPROVAL,
    PayoutState.APPROVED,
    PayoutState.ALLOCATED,
    PayoutState.SIGNED,
    PayoutState.SECURITY_HOLD,
)

_TAKEN: Final = frozenset({PayoutState.ALLOCATED, PayoutState.SIGNED, PayoutState.SECURITY_HOLD})

Holding = tuple[str, str]
"""(address, asset)."""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """An own transfer that no block has yet."""

    wallet: str
    address: str
    claim: str
    destination: str
    asset: str
    amount: int
    taken: bool = False
    """A transaction that is not in a block has its coins."""


async def list_holdings(
    conn: AsyncConnection, chain: str, book: int, *, movable: bool = False
) -> dict[Holding, int]:
    """Return the smallest units at each address and asset, where not zero.

    Args:
        conn: a transaction that sees cursor and rows at one moment.
        chain: the chain's code.
        book: whose payouts count.
        movable: count only what may be moved: credited, attributed, final.
    """
    of = await get_chain(conn, chain)
    if of.kind == BITCOIN:
        found = await _coins(conn, chain, movable=movable)
        return {(address, of.native_asset): amount for address, amount in found.items()}
    return await _accounts(conn, chain, book, movable=movable)


async def _coins(conn: AsyncConnection, chain: str, *, movable: bool) -> dict[str, int]:
    """Return what the unspent coins of each address hold: a payout spends coins, not an address."""
    if not movable:
        return await coin_store.sum_by_address(conn, chain)
    ours = coin_store.belongs(MOVABLE, RECEIPTS_MOVABLE) | coin.c.own.is_(True)
    return await coin_store.sum_by_address(conn, chain, where=ours)


async def _accounts(
    conn: AsyncConnection, chain: str, book: int, *, movable: bool
) -> dict[Holding, int]:
    deposits, receipts = tables.deposit, tables.receipt
    states = MOVABLE if movable else IN_THE_BOOKS
    receipt_states = RECEIPTS_MOVABLE if movable else RECEIPTS_IN_THE_BOOKS
    paid = (payout.c.chain == chain) & (payout.c.book == book) & payout.c.tx_hash.is_not(None)
    moved = paid & payout.c.succeeded.is_(True)
    own = moved & payout.c.claim.startswith(f"{ClaimKind.OWN}:")
    own &= ~payout.c.claim.startswith(TO_VENUES)
    parts = [
        _part(
            deposits.c.address,
            deposits.c.asset,
            _value(deposits, HOLD_OPEN),
            (deposits.c.chain == chain) & deposits.c.state.in_([str(s) for s in states]),
        ),
        _part(
            receipts.c.address,
            receipts.c.asset,
            _value(receipts, {ReceiptState.INCLUDED}),
            (receipts.c.chain == chain) & receipts.c.state.in_([str(s) for s in receipt_states]),
        ),
        _part(payout.c.sender, payout.c.asset, -payout.c.amount, moved),
        _part(payout.c.sender, payout.c.native_asset, -payout.c.fee_paid, paid),
        _part(payout.c.destination, payout.c.asset, payout.c.amount, own),
    ]
    rows = union_all(*parts).subquery()
    total = func.sum(rows.c.amount)
    query = select(rows.c.address, rows.c.asset, total.label("amount"))
    query = query.group_by(rows.c.address, rows.c.asset).having(total != 0)
    found = {(row.address, row.asset): int(row.amount) for row in await conn.execute(query)}
    for key, amount in (await _foreign(conn, chain)).items():
        found[key] = found.get(key, 0) - amount
    return {key: amount for key, amount in found.items() if amount}


async def list_under_way(conn: AsyncConnection, chain: str, book: int) -> list[UnderWay]:
    """Return every own transfer that is asked for and in no block."""
    rows = await conn.execute(
        select(
            payout.c.source_wallet,
            payout.c.sender,
            payout.c.claim,
            payout.c.destination,
            payout.c.asset,
            payout.c.amount,
            payout.c.state,
        ).where(
            payout.c.chain == chain,
            payout.c.book == book,
            payout.c.state.in_([str(state) for state in UNDER_WAY]),
            payout.c.tx_hash.is_(None),
            payout.c.claim.startswith(f"{ClaimKind.OWN}:"),
        )
    )
    return [UnderWay(*row[:-2], int(row.amount), row.state in _TAKEN) for row in rows]


async def _foreign(conn: AsyncConnection, chain: str) -> dict[Holding, int]:
    """Return what foreign spends took from the addresses that sent them."""
    taken: dict[Holding, int] = defaultdict(int)
    query = select(foreign_spend.c.sender, foreign_spend.c.legs).where(
        foreign_spend.c.chain == chain, foreign_spend.c.state == ForeignState.INCLUDED
    )
    for row in await conn.execute(query):
        for leg in row.legs:
            taken[row.sender, leg["asset"]] += int(leg["amount"])
    return taken


def _value(table: Table, held: Collection[str]) -> ColumnElement[Any]:
    """Return what the ledger has for a row: its hold what was claimed, its posting what arrived."""
    claimed = table.c.state.in_([str(state) for state in held])
    posted = func.coalesce(table.c.received, table.c.amount)
    return case((claimed, table.c.amount), else_=posted)


def _part(
    address: ColumnElement[Any],
    asset: ColumnElement[Any],
    amount: ColumnElement[Any],
    where: ColumnElement[bool],
) -> Select[Any]:
    summed = func.sum(amount).label("amount")
    return (
        select(address.label("address"), asset.label("asset"), summed)
        .where(where)
        .group_by(address, asset)
    )
