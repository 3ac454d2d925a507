"""What a payment through a bank posts once it is released: the account book, line "Bank". Pure.

Before that the postings are those of every payout (`custody.payout_postings`): reserved holds Dr claim /
Cr in-flight:bank, and the release posts that hold. Nothing is held on the account at the bank: what is
promised of it is counted from the lines of files.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from custody.banks.entry_model import BookedEntry
from custody.model import bank_account_path
from custody.payout_model import Payout
from custody.payout_postings import BANK_CHARGE, in_flight_account, owed_again_account
from kernel.ids import derive_id
from ledger.model import Transfer, chain, transfer
from registry.model import BANK

IN_FLIGHT: Final = in_flight_account(BANK)


def booked(payout: Payout, entry: BookedEntry) -> tuple[Transfer, ...]:
    """Close what was in flight against what left the account; what the bank took with it is our expense."""
    account, taken = bank_account_path(entry.account), -entry.amount - payout.amount
    paid = _transfer(payout, "booked", IN_FLIGHT, account, payout.amount, entry.id)
    if not taken:
        return (paid,)
    return chain(paid, _transfer(payout, "charge", BANK_CHARGE, account, taken, entry.id))


def refused(payout: Payout) -> tuple[Transfer, ...]:
    """Give the claim back: the bank has said that it will not pay."""
    account = payout.parsed_claim.account
    assert account is not None, "what a bank pays has a claim"
    return (_transfer(payout, "refused", IN_FLIGHT, account, payout.amount),)


def returned(payout: Payout, entry: BookedEntry) -> tuple[Transfer, ...]:
    """Take back what came back: we owe all of it again, and bear what a bank kept of it."""
    account, owed = bank_account_path(entry.account), owed_again_account(payout)
    assert owed is not None, "what a bank pays has a claim"
    came = _transfer(payout, "returned", account, owed, entry.amount, entry.id)
    kept = payout.amount - entry.amount
    if not kept:
        return (came,)
    return chain(came, _transfer(payout, "return-charge", BANK_CHARGE, owed, kept, entry.id))


def _transfer(
    payout: Payout, what: str, debit: str, credit: str, amount: int, *parts: UUID
) -> Transfer:
    return transfer(
        derive_id(payout.created_at, f"payout.bank.{what}", payout.id, *parts),
        debit,
        credit,
        amount,
        payout.asset,
        code=f"payout.{what}",
        correlation=payout.id,
    )
