"""A party that does not pay: two people say so, everything that would go to it stops, and a report is kept.

From then on nothing is released to it (`require_not_defaulted`), and `custody` is frozen for it, so that
what is on its way to be signed stops too. What is held stays held: it is let go by decision, with the
verbs of its own machine. Two other people's word is needed to lift it, and two to open the freeze.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.control_messages import ScopeKind
from custody.freeze_model import Scope, freeze_bytes
from custody.freezes import close, derive_freeze_id
from custody.payout_model import PayoutState
from custody.payouts import every_payout
from kernel.errors import Refused
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id, stable_id
from ledger.queries import list_accounts
from registry.authority import signing_bytes
from registry.model import Operator, Role
from registry.people import require_operator, require_second
from registry.queries import get_party
from settlement import fail_store
from settlement.close_out import Claim, CloseOut, close_out, hash_document
from settlement.errors import Defaulted
from settlement.fail_model import DefaultState, PartyDefault
from settlement.matching.rules import require_reason
from settlement.planning import netting_item, office_of
from settlement.runs import obligation_of
from trading.legs import list_untaken_legs
from trading.terms.agreements import list_agreements, netting_sets

ENTITY: Final = "party-default"
MAY_DECLARE: Final = (Role.TREASURER, Role.FINANCE, Role.ADMIN)
LEAVING: Final = frozenset(set(PayoutState)) - {
    PayoutState.CONFIRMED,
    PayoutState.REJECTED,
    PayoutState.CANCELLED,
    PayoutState.EXPIRED,
    PayoutState.FAILED_ON_CHAIN,
    PayoutState.REFUSED,
}
"""States of a payout in which it has not ended."""


def default_bytes(party: str, report_hash: str, reason: str) -> bytes:
    """Return what the second person signs: this party is in default, and this is how things stand."""
    return signing_bytes(
        "settlement.default", {"party": party, "report": report_hash, "reason": reason}
    )


def lift_bytes(found: PartyDefault, reason: str) -> bytes:
    """Return what the second person signs: this default is over."""
    return signing_bytes(
        "settlement.default-lift", {"default": found.id, "party": found.party, "reason": reason}
    )


async def require_not_defaulted(conn: AsyncConnection, book: int, *parties: str) -> None:
    """Refuse to release anything to a party that is in default.

    Raises:
        Defaulted: says who, since when and why.
    """
    for found in await fail_store.list_in_force(conn, book, parties):
        raise Defaulted(
            f"{found.party} is in default since {found.declared_at:%Y-%m-%d}: {found.reason}",
            remedy="Two people lift it, or what is held is let go by decision",
        )


async def report_close_out(
    conn: AsyncConnection, party: str, *, book: int, now: datetime
) -> CloseOut:
    """Return what stands between the desk and a party, as it is now; nothing is written."""
    await get_party(conn, party)
    claims = await _unsealed(conn, book, party, now) + await _sealed(conn, book, party)
    signed = await list_agreements(conn, party)
    office = await office_of(conn, book)
    closing = frozenset(
        f"{one.agreement.name}@{office}" for one in signed if one.agreement.close_out
    )
    leaving = [
        f"payout {payout.id}: {payout.amount} {payout.asset}, {payout.state}"
        async for payout in every_payout(conn, book=book, states=LEAVING)
        if payout.party == party
    ]
    held = await _held(conn, book, party)
    return close_out(party, claims, closing, held=held, leaving=sorted(leaving), at=now)


async def declare_default(
    conn: AsyncConnection,
    party: str,
    *,
    book: int,
    by: Operator,
    sign: Callable[[bytes], bytes],
    second: Operator,
    second_sign: Callable[[bytes], bytes],
    reason: str,
    now: datetime,
) -> PartyDefault:
    """Stop everything to a party, and keep the close-out report; one in force is returned as it is.

    Args:
        sign: the key of *by*, for the freeze, which the signer has to believe.
        second_sign: the key of *second*, over `default_bytes`: a computation, no question.

    Raises:
        SamePerson, NotAuthorised: see `registry.people`.
    """
    require_reason(reason)
    first = await require_operator(conn, by, *MAY_DECLARE)
    in_force = await fail_store.find_default(conn, book, party, lock=True)
    if in_force is not None:
        return in_force
    report = (await report_close_out(conn, party, book=book, now=now)).document()
    digest = hash_document(report)
    payload = default_bytes(party, digest, reason)
    signature = second_sign(payload)
    other = await require_second(
        conn, first, second, *MAY_DECLARE, payload=payload, signature=signature
    )
    new = PartyDefault(
        id=derive_id(now, ENTITY, book, party),
        book=book,
        party=party,
        state=DefaultState.DECLARED,
        declared_by=first.code,
        second=other.code,
        signature=signature,
        reason=reason,
        report=report,
        report_hash=digest,
        declared_at=now,
    )
    await fail_store.insert_default(conn, new)
    await _tell(conn, new, "PartyDefaulted", first.code, reason, now)
    scope = Scope(ScopeKind.CLIENT, party)
    freeze = sign(freeze_bytes(derive_freeze_id(scope, now), scope, reason))
    await close(conn, scope, by=first.code, signature=freeze, reason=reason, now=now)
    return new


async def lift_default(
    conn: AsyncConnection,
    party: str,
    *,
    book: int,
    by: Operator,
    second: Operator,
    signature: bytes,
    reason: str,
    now: datetime,
) -> PartyDefault:
    """Let things be released to the party again; the freeze in custody is opened by itself.

    Args:
        signature: of *second*, of `lift_bytes`.

    Raises:
        Refused: it is not in default.
        SamePerson, NotAuthorised: see `registry.people`.
    """
    require_reason(reason)
    first = await require_operator(conn, by, *MAY_DECLARE)
    found = await fail_store.find_default(conn, book, party, lock=True)
    if found is None:
        raise Refused(f"{party} is not in default", where=f"book {book}")
    payload = lift_bytes(found, reason)
    other = await require_second(
        conn, first, second, *MAY_DECLARE, payload=payload, signature=signature
    )
    facts: dict[str, Any] = {
        "lifted_by": first.code,
        "lifted_second": other.code,
        "lifted_reason": reason,
        "lifted_at": now,
    }
    await fail_store.lift_default(conn, found.id, lifted_signature=signature, **facts)
    await _tell(conn, found, "PartyDefaultLifted", first.code, reason, now)
    return replace(found, state=DefaultState.LIFTED, **facts)


async def get_default(conn: AsyncConnection, book: int, party: str) -> PartyDefault:
    """Return the default of a party that is in force.

    Raises:
        Refused: it is not in default.
    """
    found = await fail_store.find_default(conn, book, party)
    if found is None:
        raise Refused(f"{party} is not in default", where=f"book {book}")
    return found


async def list_defaults(
    conn: AsyncConnection, book: int, *, past: bool = False
) -> list[PartyDefault]:
    """Return the parties in default, the newest first; with *past* also those that were lifted."""
    return await fail_store.list_defaults(conn, book, past=past)


async def _unsealed(conn: AsyncConnection, book: int, party: str, now: datetime) -> list[Claim]:
    """Return what no run has sealed, and what deals owe that settlement has not taken over yet."""
    taken = await fail_store.list_unsealed(conn, book, party)
    legs = await list_untaken_legs(conn, book=book, parties={party})
    known = {o.id for o in taken}
    untaken = [o for leg in legs if (o := obligation_of(leg)).id not in known]
    owed = [*taken, *untaken]
    booked = {o.id for o in untaken}
    office = await office_of(conn, book)
    items = [netting_item(o, office) for o in owed]
    sets = await netting_sets(conn, items, on=now.date())
    return [
        Claim(
            netting_set=sets[o.id],
            asset=o.asset,
            direction=o.direction,
            amount=o.amount,
            stage="booked" if o.id in booked else str(o.state),
            reference=f"deal {o.deal_id}" if o.id in booked else f"obligation {o.id}",
        )
        for o in owed
    ]


async def _sealed(conn: AsyncConnection, book: int, party: str) -> list[Claim]:
    return [
        Claim(
            netting_set=name,
            asset=item.asset,
            direction=item.direction,
            amount=item.remaining,
            stage=f"sealed, {item.state}",
            reference=f"instruction {item.id}",
        )
        for item, name in await fail_store.list_sealed(conn, book, party)
        if item.remaining
    ]


async def _held(conn: AsyncConnection, book: int, party: str) -> dict[tuple[str, str], int]:
    prefixes = (f"client:{party}", f"payable:{party}:unapplied", f"collateral:given:{party}")
    found: dict[tuple[str, str], int] = {}
    for prefix in (*prefixes, f"collateral:taken:{party}", f"receivable:{party}:reorg"):
        for account in await list_accounts(conn, book, prefix):
            # A prefix is also that of a longer name: acme and acme-2.
            if account.path == prefix or account.path.startswith(f"{prefix}:"):
                found[account.path, account.asset] = account.balance.posted
    return found


async def _tell(
    conn: AsyncConnection, item: PartyDefault, name: str, by: str, reason: str, now: datetime
) -> None:
    entity_id = stable_id(ENTITY, item.book, item.party)
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=entity_id,
        version=await next_version(conn, ENTITY, entity_id),
        name=name,
        at=now,
        actor=by,
        reason=reason,
        payload={"party": item.party, "default": str(item.id), "report": item.report_hash},
    )
    await record(conn, [event])
