"""Capital paid in: the one manual journal that a new book cannot do without.

A typed template (debit a holding, credit ``equity:capital``), a reason, the hash of the document
behind it, and two people.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from kernel.events import DomainEvent, next_version, record
from kernel.ids import stable_id
from ledger.model import transfer
from ledger.posting import ensure_accounts, post, require_applied
from registry.authority import require_role, signing_bytes, verify_signature
from registry.model import Operator, Role
from settlement.errors import SamePerson

HOLDINGS: Final = ("venue:", "bank:")
"""Where capital may be booked by hand. Coins in our own wallets are never: they are seen on chain,
stand as unattributed, and are attributed to capital by `custody`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capital:
    """Capital that has been paid into a holding; *amount* in smallest units."""

    holding: str
    asset: str
    amount: int
    reason: str
    document_hash: str


def capital_bytes(capital: Capital) -> bytes:
    """Return what the second person signs."""
    return signing_bytes(
        "settlement.capital",
        {
            "holding": capital.holding,
            "asset": capital.asset,
            "amount": capital.amount,
            "reason": capital.reason,
            "document": capital.document_hash,
        },
    )


async def book_capital(
    conn: AsyncConnection,
    capital: Capital,
    *,
    book: int,
    by: Operator,
    approver: Operator,
    signature: bytes,
    now: datetime,
) -> UUID:
    """Post the capital and return the id of the transfer; the same document posts once."""
    if by.code == approver.code:
        raise SamePerson(f"{by.code} cannot approve a journal that {by.code} entered")
    if not capital.holding.startswith(HOLDINGS):
        raise BadInput(f"capital cannot be booked by hand to {capital.holding}")
    require_role(by, Role.TREASURER, Role.FINANCE)
    require_role(approver, Role.TREASURER, Role.APPROVER)
    verify_signature(approver, capital_bytes(capital), signature)
    journal_id = stable_id("capital", capital.holding, capital.asset, capital.document_hash)
    if await next_version(conn, "manual-journal", journal_id) > 1:
        raise Refused(
            f"capital of document {capital.document_hash} is booked already",
            where=f"{capital.holding} {capital.asset}",
            remedy="A correction is a reversal, never a second entry",
        )
    event = DomainEvent(
        entity_type="manual-journal",
        entity_id=journal_id,
        version=1,
        name="CapitalBooked",
        at=now,
        actor=by.code,
        reason=capital.reason,
        payload={
            "approved_by": approver.code,
            "holding": capital.holding,
            "asset": capital.asset,
            "amount": str(capital.amount),
            "document": capital.document_hash,
        },
    )
    await record(conn, [event])
    await ensure_accounts(
        conn,
        book,
        {(capital.holding, capital.asset), ("equity:capital", capital.asset)},
    )
    entry = transfer(
        journal_id,
        capital.holding,
        "equity:capital",
        capital.amount,
        capital.asset,
        code="manual.capital",
        reference=capital.document_hash,
    )
    require_applied(await post(conn, book, [entry]))
    return journal_id
