"""What pays for nothing that is owed: two people say whose it is, and it is owed to that party.

It leaves suspense for the same account as what a party paid too much, and stays there: it is applied to
nothing, and never sent back by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import Refused
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from registry.authority import signing_bytes
from registry.model import Operator
from registry.people import require_operator, require_second
from registry.queries import get_party
from settlement.matching import sources
from settlement.matching.by_hand import MAY_ENTER, MAY_SIGN
from settlement.matching.model import Incoming
from settlement.matching.posting import lock_matchable
from settlement.matching.postings import accounts_of, unapplied_account
from settlement.matching.rules import require_reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Unapplied:
    """What is owed to a party since: *amount* in smallest units, in *account*."""

    receipt_id: UUID
    party: str
    asset: str
    amount: int
    account: str


def unapplied_bytes(receipt: Incoming, party: str, reason: str) -> bytes:
    """Return what the second person signs: this receipt, as it stands, is the party's."""
    return signing_bytes(
        "settlement.unapplied",
        {
            "receipt": receipt.id,
            "epoch": receipt.epoch,
            "round": receipt.round,
            "asset": receipt.asset,
            "value": str(receipt.value),
            "party": party,
            "reason": reason,
        },
    )


async def take_unapplied(
    conn: AsyncConnection,
    receipt_id: UUID,
    party: str,
    *,
    book: int,
    by: Operator,
    second: Operator,
    signature: bytes,
    reason: str,
    now: datetime,
) -> Unapplied:
    """Let a receipt that pays for nothing be owed to its party.

    Args:
        signature: of *second*, of `unapplied_bytes`.

    Raises:
        UnknownRecord: nobody has registered the party.
        Refused: the receipt does not wait, or it came to the address of another party.
        SamePerson, NotAuthorised: see `registry.people`.
    """
    require_reason(reason)
    first = await require_operator(conn, by, *MAY_ENTER)
    await get_party(conn, party)
    receipts = await lock_matchable(conn, {receipt_id}, by_people=True)
    if receipt_id not in receipts:
        raise Refused(
            f"receipt {receipt_id} does not wait to be matched",
            remedy="See `causeway settle match list`; what is matched is taken apart first",
        )
    receipt = receipts[receipt_id]
    if receipt.party not in {None, party}:
        raise Refused(
            f"receipt {receipt_id} is {receipt.party}'s, not {party}'s",
            remedy="Whose address it came to, to that party it is owed",
        )
    payload = unapplied_bytes(receipt, party, reason)
    await require_second(conn, first, second, *MAY_SIGN, payload=payload, signature=signature)
    account = unapplied_account(party, receipt.owner)
    await sources.mark(
        conn, {receipt: (f"unapplied:{party}", party)}, by=first.code, reason=reason, now=now
    )
    moved = transfer(
        derive_id(receipt.first_seen_at, "unapplied", receipt.id, receipt.epoch, receipt.round),
        receipt.suspense,
        account,
        receipt.value,
        receipt.asset,
        code="settlement.receipt.unapplied",
        correlation=receipt.id,
        reference=str(receipt.id),
    )
    await ensure_accounts(conn, book, accounts_of([moved]), now=now)
    require_applied(await post(conn, book, [moved], now=now))
    return Unapplied(
        receipt_id=receipt.id,
        party=party,
        asset=receipt.asset,
        amount=receipt.value,
        account=account,
    )
