"""What a match posts, and what undoes it. Pure; the account book's line "Receipt matched".

Suspense empties into what the party owes; what banks kept is an expense of the house; what is more
than is owed, is owed to the party: in its own account where clients' coins lie, else as a payable.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from uuid import UUID

from custody.model import rail_account
from kernel.ids import derive_id
from ledger.model import Transfer, chain, reversal, transfer
from registry.model import CLIENT
from settlement.matching.model import ReceiptMatch
from settlement.model import Instruction

MATCHED: Final = "matched"
CHARGE: Final = "charge"
EXCESS: Final = "excess"
BANK_CHARGE: Final = "expense:bank-charge"


def matching_transfers(
    match: ReceiptMatch, instruction: Instruction, *, suspense: str = "", owner: str = "house"
) -> tuple[Transfer, ...]:
    """Return the postings of a match, all or none.

    Args:
        suspense: where the receipt lies; the rail's own account, if nothing is said.
        owner: owner class of the place that holds the value.
    """
    suspense = suspense or rail_account(str(match.rail))
    owed = f"receivable:{instruction.party}:netted"
    accounts = {
        MATCHED: (suspense, owed),
        CHARGE: (BANK_CHARGE, owed),
        EXCESS: (suspense, unapplied_account(instruction.party, owner)),
    }
    return chain(
        *(
            transfer(
                match_id(match, code),
                *accounts[code],
                amount,
                instruction.asset,
                code=f"settlement.receipt.{code}",
                correlation=instruction.id,
                reference=str(match.receipt_id),
            )
            for code, amount in parts(match)
        )
    )


def undoing_transfers(match: ReceiptMatch, instruction: Instruction) -> tuple[Transfer, ...]:
    """Return the reversals of a match: the receivable is open again, suspense is as it was."""
    return chain(
        *(
            reversal(
                _derived("unmatch", match, code),
                match_id(match, code),
                code=f"settlement.receipt.{code}-undone",
                correlation=instruction.id,
                reference=str(match.receipt_id),
            )
            for code, _ in parts(match)
        )
    )


def unapplied_account(party: str, owner: str) -> str:
    """Return where what a party paid too much is owed to it; *owner* is the place's owner class."""
    if owner == CLIENT or owner.startswith(f"{CLIENT}:"):
        return f"client:{party}:unapplied"
    return f"payable:{party}:unapplied"


def unapplied_lock(book: int, account: str, asset: str) -> str:
    """Return what to wait for before anything of such an account is spent."""
    return f"unapplied:{book}:{account}:{asset}"


def parts(match: ReceiptMatch) -> list[tuple[str, int]]:
    """Return what a match posts, as (code, amount)."""
    amounts = ((MATCHED, match.applied), (CHARGE, match.charge), (EXCESS, match.excess))
    return [(code, amount) for code, amount in amounts if amount > 0]


def match_id(match: ReceiptMatch, code: str) -> UUID:
    """Return the id of a match's posting; a receipt that is matched anew has other ones."""
    return _derived("match", match, code)


def accounts_of(transfers: Iterable[Transfer]) -> set[tuple[str, str]]:
    """Return the accounts that the transfers touch, as (path, asset)."""
    return {(path, t.asset) for t in transfers for path in (t.debit, t.credit)}


def _derived(verb: str, match: ReceiptMatch, code: str) -> UUID:
    # Matches of before rounds: one instruction, and once.
    rest = (match.round, match.instruction_id) if match.round else ()
    return derive_id(match.first_seen_at, verb, match.receipt_id, match.epoch, *rest, code)
