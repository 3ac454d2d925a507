"""Which holds the state machines keep open: what `proofs.holds_itemised` compares the ledger with.

Pure. The rules are those of the account book, read from the other end: not "what is posted at this
edge" but "what must be reserved in this state".
"""

from __future__ import annotations

from custody.deposit_model import HOLD_OPEN, Deposit, DepositState, Receipt, ReceiptState
from custody.payout_model import ON_ITS_WAY, ClaimKind, Payout, PayoutState
from custody.payout_postings import PURPOSE_FEE, PURPOSE_PAYOUT
from registry.model import BANK
from reporting.model import ExpectedHold

PURPOSE_ARRIVAL = "deposit"

_CLAIM_RESERVED = frozenset(
    {
        PayoutState.RESERVED,
        PayoutState.PENDING_APPROVAL,
        PayoutState.APPROVED,
        PayoutState.ALLOCATED,
    }
)


def deposit_holds(deposit: Deposit) -> list[ExpectedHold]:
    """Return the hold of a deposit that is included and not posted yet."""
    open_ = deposit.state in HOLD_OPEN and deposit.state is not DepositState.QUARANTINED
    if not open_ or not deposit.credit:
        return []
    return [ExpectedHold(deposit.id, PURPOSE_ARRIVAL, deposit.asset, deposit.amount)]


def receipt_holds(receipt: Receipt) -> list[ExpectedHold]:
    """Return the hold of a receipt that is included and not final yet."""
    if receipt.state is not ReceiptState.INCLUDED:
        return []
    return [ExpectedHold(receipt.id, PURPOSE_ARRIVAL, receipt.asset, receipt.amount)]


def payout_holds(payout: Payout, *, is_signed: bool = True) -> list[ExpectedHold]:
    """Return the holds of a payout: its claim until it is signed, coins and fee until mined.

    Args:
        is_signed: whether signed bytes of it are stored; counts on SECURITY_HOLD only, which a
            payout may enter before and after its signature.
    """
    if payout.claim_returned:
        return []
    if payout.rail == BANK:
        # Nothing is held on an account at a bank, and what a bank charges is nobody's to reserve.
        claim = ExpectedHold(payout.id, PURPOSE_PAYOUT, payout.asset, payout.amount)
        return [claim] if payout.state in _CLAIM_RESERVED else []
    fee = ExpectedHold(payout.id, PURPOSE_FEE, payout.native_asset, payout.fee_cap)
    if payout.fills_gap:
        return [fee] if payout.state in ON_ITS_WAY else []
    amount = ExpectedHold(payout.id, PURPOSE_PAYOUT, payout.asset, payout.amount)
    held_unsigned = payout.state is PayoutState.SECURITY_HOLD and not is_signed
    held = []
    if payout.state in _CLAIM_RESERVED or held_unsigned:
        held.append(amount)
    if payout.state in ON_ITS_WAY:
        # Of an own transfer there is one hold from the beginning, that of the coins.
        if payout.parsed_claim.kind is not ClaimKind.OWN or not held:
            held.append(amount)
        held.append(fee)
    if payout.state is PayoutState.MINED and not payout.succeeded:
        # The transaction failed: its coins never moved, and are freed once that is final.
        held.append(amount)
    return held
