"""What a held deposit was given back with before: by whatever number it went, it goes once.

A restored database may have lost that a deposit was given back, and how often people had decided about
it, while the payout came back from the signer's log. So the references of a deposit's refunds follow
from where it lies on its chain alone, and all of them are looked for before one is used.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.addressing import canonical_address
from custody import payout_store
from custody.deposit_model import Deposit
from custody.errors import NotPossible
from custody.lost_payouts import HASH, require_not_lost
from custody.model import client_account, held_account, reorg_account
from custody.payout_model import Payout
from custody.payout_postings import SHORTFALL
from custody.plan import Plan
from custody.store import CAME_BACK
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import Transfer, transfer
from ledger.posting import post
from ledger.queries import get_balance, list_transfers

SETTLED: Final = f"{SHORTFALL}-settled"
RETURNED: Final = f"{SHORTFALL}-returned"
REFUNDS_MAX: Final = 32
"""How often a deposit is given back that comes back each time; people release it then."""


def references_of(deposit: Deposit) -> list[str]:
    """Return the references of a deposit's refunds, the first one first."""
    # Without its time an id is a hash of the movement: the same in whatever block it is mined.
    stem = UUID(int=deposit.id.int & HASH)
    return [f"refund-{stem}-{number}" for number in range(1, REFUNDS_MAX + 1)]


async def find_refund(
    conn: AsyncConnection, deposit: Deposit, *, book: int
) -> tuple[str, Payout | None]:
    """Return the reference of a deposit's next refund, and the refund that has not come back.

    Raises:
        NotPossible: every reference is used up.
        Refused: it was given back before the database was restored, and people have settled that.
    """
    party = str(deposit.party)
    references = references_of(deposit)
    keys = [(party, reference) for reference in references]
    await require_not_lost(conn, [(book, *key) for key in keys])
    found = await payout_store.find_payouts_by_reference(conn, book, keys)
    used = {item.client_ref for item in found}
    alive = next((item for item in found if item.state not in CAME_BACK), None)
    if alive is not None:
        return alive.client_ref, alive
    free = next((item for item in references if item not in used), None)
    if free is None:
        raise NotPossible(
            f"the deposit was given back {REFUNDS_MAX} times and came back each time",
            where=f"deposit {deposit.id}",
            remedy="Release it, and let the client ask for a payout",
        )
    return free, None


def require_same_way(known: Payout, *, destination: str, source_wallet: str) -> None:
    """Refuse to call a payout the refund that people have signed if it goes another way.

    Raises:
        NotPossible: it goes elsewhere, or another wallet pays.
    """
    asked = canonical_address(destination, kind=known.rail, network_id=known.chain_id)
    if (asked, source_wallet) != (known.destination, known.source_wallet):
        raise NotPossible(
            f"it is given back already, from {known.source_wallet} to {known.destination}",
            where=f"payout {known.id}",
            remedy="Two people sign for that way",
        )


async def settle_shortfall(
    conn: AsyncConnection, deposit: Deposit, known: Payout, plan: Plan, *, book: int, now: datetime
) -> None:
    """Let what is held pay what its client owes since it was given back without it.

    That is what a restore lent for the refund, and what lacked when the deposit's block was taken away.
    What the client has paid of it meanwhile is the client's again.
    """
    party = str(deposit.party)
    held, owed = held_account(party), reorg_account(party)
    lent = deposit.shortfall + await _still_lent(conn, known, held, book=book)
    if not lent:
        return
    await ensure_accounts(conn, book, {(owed, deposit.asset)}, now=now)
    # An empty batch takes the head's lock: what is owed cannot change before it is paid.
    await post(conn, book, [], now=now)
    due = (await get_balance(conn, book, owed, deposit.asset)).posted
    paid = max(0, min(lent, due))
    if paid:
        plan.post(_settled(deposit, known, SETTLED, held, owed, paid))
    if lent > paid:
        plan.post(_settled(deposit, known, RETURNED, held, client_account(party), lent - paid))


async def _still_lent(conn: AsyncConnection, known: Payout, held: str, *, book: int) -> int:
    """Return what a restore lent for the refund and an earlier turn of the deposit has not paid."""
    signs = {SHORTFALL: 1, SETTLED: -1, RETURNED: -1}
    found = await list_transfers(conn, book, correlation=known.id, path=held)
    return max(0, sum(signs.get(item.code, 0) * item.amount for item in found))


def _settled(
    deposit: Deposit, known: Payout, code: str, debit: str, credit: str, amount: int
) -> Transfer:
    return transfer(
        derive_id(known.created_at, code, known.id, deposit.id, deposit.epoch),
        debit,
        credit,
        amount,
        known.asset,
        code=code,
        correlation=known.id,
    )
