"""What arrives in pieces smaller than one unit of the asset: kept, and booked once they make a unit.

A token may count finer on one chain than its asset does in the books. What arrives is floored for its
owner; the rest stays in ``custody.remainder`` by wallet, as the chain counts, and every whole unit of
it is posted to ``suspense:dust``. So the custody account is exactly what the node says, floored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.arrivals import Token
from custody.deposit_model import Arrival
from custody.model import DUST_ACCOUNT, custody_account
from custody.plan import Plan
from custody.tables import remainder
from kernel.ids import derive_id
from kernel.rows import update_rows
from ledger.model import transfer

KIND: Final = "remainder"


@dataclass(frozen=True, slots=True)
class Piece:
    """By how much what is less than a unit grew in a wallet, as the chain counts; may be negative."""

    wallet: str
    contract: str | None
    change: int


async def move_remainders(
    conn: AsyncConnection,
    plan: Plan,
    arrivals: Sequence[Arrival],
    tokens: Mapping[str | None, Token],
    *,
    sign: int,
    now: datetime,
) -> None:
    """Add what these arrivals leave over (*sign* 1), or take it back (-1), and plan the postings.

    The rows are locked in one order; the chain's own row keeps other blocks away meanwhile.
    """
    pieces = [Piece(item.wallet, item.contract, sign * item.rest) for item in arrivals]
    await move_pieces(conn, plan, pieces, tokens, now=now)


async def move_pieces(
    conn: AsyncConnection,
    plan: Plan,
    pieces: Sequence[Piece],
    tokens: Mapping[str | None, Token],
    *,
    now: datetime,
) -> None:
    """Write how much there is in pieces now, and plan a posting for every whole unit of them."""
    changes: dict[tuple[str, str], int] = {}
    found: dict[tuple[str, str], Token] = {}
    for item in pieces:
        token = tokens.get(item.contract)
        if item.change and token is not None:
            key = (item.wallet, token.on_chain.code)
            changes[key] = changes.get(key, 0) + item.change
            found[key] = token
    for key in sorted(changes):
        await _move(conn, plan, key, changes[key], found[key], now)


async def _move(
    conn: AsyncConnection,
    plan: Plan,
    key: tuple[str, str],
    change: int,
    token: Token,
    now: datetime,
) -> None:
    wallet, chain_asset = key
    mine = (remainder.c.wallet == wallet) & (remainder.c.chain_asset == chain_asset)
    first = insert(remainder).values(wallet=wallet, chain_asset=chain_asset, amount=0, version=0)
    await conn.execute(first.on_conflict_do_nothing())
    row = (await conn.execute(select(remainder).where(mine).with_for_update())).one()
    amount, version = int(row.amount) + change, int(row.version) + 1
    changed = {"wallet": wallet, "chain_asset": chain_asset, "amount": amount, "version": version}
    await update_rows(conn, remainder, [changed], key=("wallet", "chain_asset"))
    units = token.split(amount)[0] - token.split(int(row.amount))[0]
    if not units:
        return
    ends = (custody_account(wallet), DUST_ACCOUNT)
    debit, credit = ends if units > 0 else ends[::-1]
    plan.post(
        transfer(
            derive_id(now, KIND, wallet, chain_asset, version),
            debit,
            credit,
            abs(units),
            token.asset.code,
            code="deposit.remainder",
        )
    )
