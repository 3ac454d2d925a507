"""Which rules are in force: versions, each set by two people, none ever rewritten."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from kernel.events import DomainEvent, record
from kernel.ids import stable_id
from registry.authority import signing_bytes
from registry.model import Operator, Role
from registry.people import require_operator, require_second
from registry.queries import find_assets, find_parties
from settlement.matching import store
from settlement.matching.model import FIRST_RULES, Rules
from settlement.matching.rules_document import document_of, rules_of

ENTITY: Final = "matching-rules"
REASON_MAX: Final = 500
MAY_SET: Final = (Role.TREASURER, Role.FINANCE)


def rules_bytes(rules: Rules, reason: str) -> bytes:
    """Return what the second person signs: every rule, and the version it becomes."""
    return signing_bytes(
        "settlement.matching-rules",
        {"version": rules.version, "reason": reason, **document_of(rules)},
    )


def require_reason(reason: str) -> None:
    """Refuse a reason that says nothing, or too much."""
    if not 0 < len(reason.strip()) <= REASON_MAX:
        raise BadInput(f"a reason has 1 to {REASON_MAX} characters")


async def get_rules(conn: AsyncConnection) -> Rules:
    """Return the rules in force."""
    row = await store.newest_rules(conn)
    return FIRST_RULES if row is None else rules_of(row.document, row.version)


async def set_rules(
    conn: AsyncConnection,
    rules: Rules,
    *,
    by: Operator,
    second: Operator,
    signature: bytes,
    reason: str,
    now: datetime,
) -> Rules:
    """Put rules in force from now on; what is matched stays matched.

    Args:
        rules: their *version* is the next one.
        signature: of *second*, of `rules_bytes`.

    Raises:
        BadInput: an asset or a party that nobody has registered.
        Refused: it is not the next version.
        SamePerson, NotAuthorised: see `registry.people`.
    """
    require_reason(reason)
    first = await require_operator(conn, by, *MAY_SET)
    other = await require_second(
        conn, first, second, *MAY_SET, payload=rules_bytes(rules, reason), signature=signature
    )
    in_force = await get_rules(conn)
    if rules.version != in_force.version + 1:
        raise Refused(
            f"version {in_force.version} of the rules is in force",
            remedy=f"Set version {in_force.version + 1}; look at what has changed first",
        )
    await _require_registered(conn, rules)
    await store.insert_rules(
        conn,
        version=rules.version,
        document=document_of(rules),
        entered_by=first.code,
        approved_by=other.code,
        signature=signature,
        reason=reason,
        at=now,
    )
    await record(conn, [_event(rules, first.code, other.code, reason, now)])
    return replace(rules)


def rules_id() -> UUID:
    """Return the id under which the history of the rules is kept."""
    return stable_id(ENTITY)


async def _require_registered(conn: AsyncConnection, rules: Rules) -> None:
    assets = {asset for found in rules.rails.values() for asset in found.tolerance}
    unknown = assets - (await find_assets(conn, assets)).keys()
    unknown |= rules.charges.keys() - (await find_parties(conn, set(rules.charges))).keys()
    if unknown:
        raise BadInput(f"nobody has registered {', '.join(sorted(unknown))}")


def _event(rules: Rules, by: str, second: str, reason: str, now: datetime) -> DomainEvent:
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=rules_id(),
        version=rules.version,
        name="MatchingRulesSet",
        at=now,
        actor=by,
        reason=reason,
        payload={"version": str(rules.version), "second": second},
    )
