"""What a party owes is settled before it is paid.

* **Debt of a reorganisation** (``receivable:<client>:reorg``) is settled from the client's own account
  before its payout is reserved: Dr client / Cr receivable:reorg, the posting with which a deposit that
  comes back settles it, as far as the client has anything. The payout is then for what was asked or
  for nothing: its amount is never changed, and the rest of the account may not suffice for it.
* **What is overdue** (``receivable:<party>:netted``, due before now as settlement has noted with
  `note_due`) stands in runs and instructions that only settlement may discharge, so nothing is posted
  here: the payout is rejected with the amount.
* A payout of what we owe (``payable``) is rejected for either debt: the account book has no posting
  that pays a debt of a reorganisation out of it.

Only the same asset counts: to set off another takes a price, and two people. A refund of what
compliance holds is not the client's money, and an own transfer pays nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import control_store
from custody.model import client_account, reorg_account
from custody.payout_model import ClaimKind, Payout
from kernel.ids import derive_id
from ledger.model import Transfer, transfer
from ledger.queries import get_balances

SET_OFF: Final = frozenset({ClaimKind.CLIENT, ClaimKind.PAYABLE})


@dataclass(frozen=True, slots=True)
class SetOff:
    """What has to happen before payouts are reserved: postings, and reasons to reject."""

    transfers: tuple[Transfer, ...] = ()
    refusals: dict[object, str] = field(default_factory=dict)


def netted_account(party: str) -> str:
    """Return the account of what a party owes from sealed runs."""
    return f"receivable:{party}:netted"


@dataclass(frozen=True, slots=True)
class Due:
    """Something that a party owes from a sealed run; *reference* is known once."""

    reference: str
    party: str
    asset: str
    amount: int
    due_at: datetime


Dues = Mapping[tuple[str, str], tuple[int, int]]
"""By (party, asset): what was ever due before now, and what is due later."""


async def note_due(conn: AsyncConnection, book: int, dues: Sequence[Due]) -> None:
    """Remember when what parties owe from sealed runs is due. Its discharge need not be told."""
    await control_store.save_due(conn, [{"book": book, **asdict(item)} for item in dues])


def overdue(owed: int, past: int, later: int) -> int:
    """Return how much of what is *owed* (netted) is overdue, as far as is known. Pure.

    What is due *later* is not; nor is more than was ever due in the *past*. So a debt that was paid
    is never overdue, and one of which nobody said when it is due is not called so.
    """
    return max(0, min(owed - later, past))


async def load_dues(
    conn: AsyncConnection, book: int, payouts: Sequence[Payout], *, now: datetime
) -> Dues:
    """Return what is known to be due, of the parties of these payouts. Before the ledger is locked."""
    parties = {str(item.party) for item in payouts if item.parsed_claim.kind in SET_OFF}
    return await control_store.sum_due(conn, book, parties, now=now)


async def plan_set_off(
    conn: AsyncConnection, book: int, payouts: Sequence[Payout], dues: Dues
) -> SetOff:
    """Return what the debts of these payouts' parties ask for; the ledger's head is locked."""
    owing = {(str(p.party), p.asset) for p in payouts if p.parsed_claim.kind in SET_OFF}
    paths = {(reorg_account(party), asset) for party, asset in owing}
    paths |= {(netted_account(party), asset) for party, asset in owing if (party, asset) in dues}
    owed = {
        key: max(0, item.posted) for key, item in (await get_balances(conn, book, paths)).items()
    }
    for party, asset in owing & dues.keys():
        key = (netted_account(party), asset)
        owed[key] = overdue(owed.get(key, 0), *dues[party, asset])
    debts = {key: amount for key, amount in owed.items() if amount}
    if not debts:
        return SetOff()
    clients = {(client_account(party), asset) for party, asset in owing}
    free = {key: b.available for key, b in (await get_balances(conn, book, clients)).items()}
    return decide_set_off(payouts, debts, free)


def decide_set_off(
    payouts: Sequence[Payout],
    debts: dict[tuple[str, str], int],
    free: dict[tuple[str, str], int],
) -> SetOff:
    """Return what the debts ask for. Pure.

    Args:
        payouts: in the order in which they are reserved.
        debts: what is owed by (path, asset), more than nothing.
        free: what each client account has available.
    """
    transfers: list[Transfer] = []
    refusals: dict[object, str] = {}
    left = dict(debts)
    for payout in payouts:
        claim, party = payout.parsed_claim, str(payout.party)
        if claim.kind not in SET_OFF:
            continue
        netted = debts.get((netted_account(party), payout.asset), 0)
        reorg = (reorg_account(party), payout.asset)
        if netted:
            refusals[payout.id] = (
                f"{party} owes {netted} {payout.asset} that is overdue: it is settled first"
            )
        elif claim.kind is ClaimKind.PAYABLE and debts.get(reorg, 0):
            refusals[payout.id] = (
                f"{party} owes {debts[reorg]} {payout.asset} since a deposit vanished:"
                " it is settled first"
            )
        elif left.get(reorg, 0):
            amount = min(
                left.pop(reorg), max(0, free.get((client_account(party), payout.asset), 0))
            )
            if amount:
                transfers.append(settled(payout, party, amount))
    return SetOff(tuple(transfers), refusals)


def settled(payout: Payout, party: str, amount: int) -> Transfer:
    """Let a client's account pay what the client owes since a deposit vanished."""
    return transfer(
        derive_id(payout.created_at, "payout.set-off", payout.id),
        client_account(party),
        reorg_account(party),
        amount,
        payout.asset,
        code="payout.set-off",
        correlation=payout.id,
    )
