"""Settlement limits: what a party may owe while our own leg leaves. Set by two people, versioned.

What is owed is read from the books (``receivable:<party>:netted`` and its counterparts), where it
stands from the seal of a run to the final receipt; nothing is kept beside them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from kernel.events import DomainEvent, next_version, record
from kernel.ids import stable_id
from ledger.queries import get_balances, list_accounts
from registry.authority import signing_bytes
from registry.model import Operator
from registry.people import require_operator, require_second
from registry.queries import get_asset, get_party
from risk import settlement_limit_store as store
from risk.errors import LimitsChanged
from risk.limits import MAY_SET, REASON_LENGTH_MAX
from risk.model import EVERY
from risk.settlement_limit_model import (
    LimitUse,
    Owed,
    SettlementLimit,
    SettlementViolation,
    judge,
    uses,
)

ENTITY: Final = "settlement-limit"
OWED: Final = "receivable:{}:netted"
AGREED: Final = "receivable:{}:open"
OWING: Final = "payable:{}:netted"
TAKEN: Final = "collateral:taken:{}"


def settlement_limit_bytes(limit: SettlementLimit, reason: str) -> bytes:
    """Return what the second person signs: this limit as the version that it carries."""
    return signing_bytes("risk.settlement_limit", {**_fields(limit), "reason": reason})


async def set_settlement_limit(
    conn: AsyncConnection,
    limit: SettlementLimit,
    *,
    by: Operator,
    approver: Operator,
    signature: bytes,
    reason: str,
    now: datetime,
) -> SettlementLimit:
    """Put a limit into force, as the version that it carries.

    Args:
        signature: the approver's, over `settlement_limit_bytes`.

    Raises:
        LimitsChanged: the version is not the next one.
        UnknownRecord: the party or the asset is not registered.
        SamePerson: the two are one.
        NotAuthorised: one of them may not, or the signature is not theirs or not of this.
    """
    if not 0 < len(reason.strip()) <= len(reason) <= REASON_LENGTH_MAX:
        raise BadInput(f"limits are set for a reason of 1 to {REASON_LENGTH_MAX} characters")
    await get_asset(conn, limit.asset)
    if limit.party != EVERY:
        await get_party(conn, limit.party)
    known = await settlement_limit_version(conn, limit.party, limit.asset)
    if limit.version != known + 1:
        raise LimitsChanged(
            f"version {limit.version} of a limit of {limit.party} was signed, {known} is in force",
            remedy=f"Look at the limit as it is now and sign version {known + 1}",
        )
    first = await require_operator(conn, by, *MAY_SET)
    payload = settlement_limit_bytes(limit, reason)
    second = await require_second(
        conn, first, approver, *MAY_SET, payload=payload, signature=signature
    )
    if not await store.insert_limit(
        conn, limit, set_by=first.code, approved_by=second.code, reason=reason, at=now
    ):
        raise LimitsChanged(f"the limit of {limit.party} in {limit.asset} was changed just now")
    await _record(conn, limit, f"{first.code} and {second.code}", reason, now)
    return limit


async def settlement_limit_version(conn: AsyncConnection, party: str, asset: str) -> int:
    """Return the version of a party's own limit in an asset; 0: it has none."""
    found = await store.list_newest(conn, {party}, asset)
    return found[0].version if found else 0


async def list_settlement_limits(conn: AsyncConnection) -> list[SettlementLimit]:
    """Return the limits in force, by party and asset."""
    return await store.list_newest(conn)


async def judge_settlement(
    conn: AsyncConnection,
    book: int,
    party: str,
    asset: str,
    gross: int = 0,
    net: int = 0,
    *,
    now: datetime,
) -> SettlementViolation | None:
    """Return why our leg may not leave on the party's word, or None: a limit bears what it owes.

    Ask for every asset that the party still owes. What is sealed stands in the books already; what
    is not yet, comes on top.

    Args:
        conn: the caller's transaction.
        book: where what is owed stands.
        party, asset: who owes what.
        gross, net: what the step that is judged would add, in smallest units.
        now: the time.
    """
    del now  # A limit holds from the moment it is on record.
    limits = {item.party: item for item in await store.list_newest(conn, {party, EVERY}, asset)}
    limit = limits.get(party) or limits.get(EVERY)
    standing = (await _owed(conn, book, {(party, asset)}))[party, asset]
    owed = Owed(gross=standing.gross + gross, net=standing.net + net)
    return judge(limit, party, asset, owed)


async def usage(conn: AsyncConnection, book: int) -> list[LimitUse]:
    """Return how far every limit is used, by party and asset, in a few statements.

    Of a limit of `EVERY`, one line for each party that owes something and has no limit of its own.
    """
    limits = {(item.party, item.asset): item for item in await store.list_newest(conn)}
    debtors = {
        (path.removeprefix("receivable:").removesuffix(":netted"), account.spec.asset)
        for account in await list_accounts(conn, book, "receivable:")
        if (path := account.path).endswith(":netted")
    }
    keys = {key for key in limits if key[0] != EVERY} | {
        (party, asset) for party, asset in debtors if (EVERY, asset) in limits
    }
    owed = await _owed(conn, book, keys)
    return [
        use
        for party, asset in sorted(keys)
        for use in uses(
            limits.get((party, asset)) or limits[EVERY, asset], party, owed[party, asset]
        )
    ]


async def _owed(
    conn: AsyncConnection, book: int, keys: Collection[tuple[str, str]]
) -> Mapping[tuple[str, str], Owed]:
    paths = {
        (shape.format(party), asset)
        for party, asset in keys
        for shape in (OWED, AGREED, OWING, TAKEN)
    }
    balances = await get_balances(conn, book, paths)
    found: dict[tuple[str, str], Owed] = {}
    for party, asset in keys:
        theirs, agreed, ours, taken = (
            balances.get((shape.format(party), asset)) for shape in (OWED, AGREED, OWING, TAKEN)
        )
        # What is about to be owed counts already; what of ours is about to leave is as good as gone.
        gross = 0 if theirs is None else max(theirs.posted + theirs.incoming, 0)
        held = 0 if ours is None else max(ours.available, 0)
        if taken is not None:
            # Security stands as taken from when it is agreed; as long as it is owed, nothing is here.
            promised = 0 if agreed is None else max(agreed.posted, 0)
            held += max(taken.available - promised, 0)
        found[party, asset] = Owed(gross=gross, net=max(gross - held, 0))
    return found


def _fields(limit: SettlementLimit) -> dict[str, object]:
    return {
        "party": limit.party,
        "asset": limit.asset,
        "version": limit.version,
        "gross_units": None if limit.gross_units is None else str(limit.gross_units),
        "net_units": None if limit.net_units is None else str(limit.net_units),
    }


async def _record(
    conn: AsyncConnection, limit: SettlementLimit, actor: str, reason: str, now: datetime
) -> None:
    entity_id = stable_id(ENTITY, limit.party, limit.asset)
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=entity_id,
        version=await next_version(conn, ENTITY, entity_id),
        name="SettlementLimitSet",
        at=now,
        actor=actor,
        reason=reason,
        # The version of an event has its own meaning.
        payload={**_fields(limit), "limit_version": limit.version},
    )
    await record(conn, [event])
