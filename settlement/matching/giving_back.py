"""What a party paid too much goes back to it, because two people say so.

Where clients' coins lie it becomes the client's own balance, from which it is withdrawn as anything else.
Elsewhere it is an obligation of the desk, due at once, which the next cycle nets and pays. Nothing is sent
from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.model import client_account
from kernel.errors import BadInput, Refused
from kernel.ids import stable_id
from kernel.leases import wait_for
from ledger.accounts import ensure_accounts
from ledger.model import Transfer, transfer
from ledger.posting import post, require_applied
from ledger.queries import get_balances
from registry.authority import signing_bytes
from registry.model import CLIENT, HOUSE, Operator
from registry.people import require_operator, require_second
from registry.queries import get_party
from settlement import store
from settlement.matching.by_hand import MAY_ENTER, MAY_SIGN
from settlement.matching.postings import accounts_of, unapplied_account, unapplied_lock
from settlement.matching.rules import require_reason
from settlement.model import RETURN_LEG, Direction, Obligation
from settlement.steps import Why, record_obligations

REFERENCE_MAX: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveBack:
    """What goes back: *amount* in smallest units; *reference* is its identity for ever.

    *is_clients* tells where it lies: with clients' coins, or with the house's.
    """

    party: str
    asset: str
    amount: int
    reference: str
    is_clients: bool = False

    def __post_init__(self) -> None:
        if self.amount <= 0:
            raise BadInput(f"{self.amount} cannot be given back")
        if not 0 < len(self.reference) <= REFERENCE_MAX or not self.reference.isprintable():
            raise BadInput(f"a reference has 1 to {REFERENCE_MAX} printable characters")

    @property
    def account(self) -> str:
        """Return where it is owed to the party now."""
        return unapplied_account(self.party, CLIENT if self.is_clients else HOUSE)


def give_back_bytes(asked: GiveBack, reason: str) -> bytes:
    """Return what the second person signs."""
    return signing_bytes(
        "settlement.give_back",
        {
            "party": asked.party,
            "asset": asked.asset,
            "amount": str(asked.amount),
            "reference": asked.reference,
            "from": asked.account,
            "reason": reason,
        },
    )


async def give_back(
    conn: AsyncConnection,
    asked: GiveBack,
    *,
    book: int,
    by: Operator,
    second: Operator,
    signature: bytes,
    reason: str,
    now: datetime,
) -> Obligation | None:
    """Give back what a party paid too much; the same reference again changes nothing.

    Args:
        signature: of *second*, of `give_back_bytes`.

    Returns:
        What the desk owes since; None: it is the client's own balance now.

    Raises:
        UnknownRecord: nobody has registered the party.
        Refused: less than that is unapplied, or the reference stands for something else.
        SamePerson, NotAuthorised: see `registry.people`.
    """
    require_reason(reason)
    first = await require_operator(conn, by, *MAY_ENTER)
    await get_party(conn, asked.party)
    payload = give_back_bytes(asked, reason)
    await require_second(conn, first, second, *MAY_SIGN, payload=payload, signature=signature)
    await wait_for(conn, unapplied_lock(book, asked.account, asked.asset))
    obligation = None if asked.is_clients else _obligation(asked, book, now)
    if obligation is not None:
        known = await store.list_obligations_of(conn, obligation.deal_id)
        if known:
            return _require_same(known[0], obligation)
    moved = _posting(asked, book)
    await _require_unapplied(conn, book, asked)
    if obligation is not None:
        await store.insert_obligations(conn, book, [obligation])
        await record_obligations(conn, [obligation], Why(first.code, reason, now))
    await ensure_accounts(conn, book, accounts_of([moved]), now=now)
    require_applied(await post(conn, book, [moved], now=now))
    return obligation


async def _require_unapplied(conn: AsyncConnection, book: int, asked: GiveBack) -> None:
    balances = await get_balances(conn, book, {(asked.account, asked.asset)})
    found = balances.get((asked.account, asked.asset))
    left = 0 if found is None else found.available
    if left < asked.amount:
        raise Refused(
            f"{asked.account} holds {left} units of {asked.asset}, not {asked.amount}",
            remedy="What was given back before is not there any more",
        )


def _posting(asked: GiveBack, book: int) -> Transfer:
    to = client_account(asked.party) if asked.is_clients else f"payable:{asked.party}:open"
    return transfer(
        _identity("give-back", asked, book),
        asked.account,
        to,
        asked.amount,
        asked.asset,
        code="settlement.given-back",
        reference=asked.reference,
    )


def _obligation(asked: GiveBack, book: int, now: datetime) -> Obligation:
    return Obligation(
        id=_identity("given-back-obligation", asked, book),
        # Nothing else ever has this id: it stands where a deal's would.
        deal_id=_identity("given-back", asked, book),
        leg=RETURN_LEG,
        party=asked.party,
        asset=asked.asset,
        amount=asked.amount,
        direction=Direction.PAY,
        value_date=now.date(),
        created_at=now,
    )


def _identity(what: str, asked: GiveBack, book: int) -> UUID:
    return stable_id(what, book, asked.party, asked.asset, asked.reference)


def _require_same(known: Obligation, wanted: Obligation) -> Obligation:
    if known.amount != wanted.amount:
        raise Refused(
            f"that reference stands for {known.amount} units of {known.asset} already",
            remedy="Give another reference to what is another matter",
        )
    return known
