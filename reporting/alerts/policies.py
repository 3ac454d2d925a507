"""Who is told of what: entered by one operator, signed by another, version number included."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import Refused
from registry.authority import signing_bytes
from registry.model import Operator, Role
from registry.people import require_operator, require_second
from reporting.alerts import store
from reporting.alerts.model import (
    NO_POLICY,
    AlertKind,
    AlertPolicy,
    Channel,
    ChannelKind,
    Route,
)

ENTERED_BY: Final = (Role.TREASURER, Role.OPERATIONS)
SIGNED_BY: Final = (Role.TREASURER, Role.OPERATIONS, Role.APPROVER)


def policy_bytes(policy: AlertPolicy) -> bytes:
    """Return what the second operator signs."""
    return signing_bytes("reporting.alert_policy", _document(policy))


async def current_policy(conn: AsyncConnection) -> AlertPolicy:
    """Return the newest version; `NO_POLICY` where nobody has made one."""
    row = await store.newest_policy(conn)
    return NO_POLICY if row is None else _policy_of(row.document)


async def set_policy(
    conn: AsyncConnection,
    policy: AlertPolicy,
    *,
    by: Operator,
    approver: Operator,
    signature: bytes,
    now: datetime,
) -> AlertPolicy:
    """Put a policy into force, as the next version; the same one again changes nothing.

    Args:
        conn: the caller's transaction.
        policy: its version is the one after the newest.
        by: who enters it.
        approver: who signs it, another person.
        signature: the approver's, over `policy_bytes`.
        now: the time.

    Raises:
        Refused: the people may not, the signature is not of this, or the version is not the next.
    """
    first = await require_operator(conn, by, *ENTERED_BY)
    second = await require_second(
        conn, first, approver, *SIGNED_BY, payload=policy_bytes(policy), signature=signature
    )
    newest = await current_policy(conn)
    if replace(newest, version=policy.version) == policy:
        return newest
    row = {
        "version": policy.version,
        "document": _document(policy),
        "entered_by": first.code,
        "approved_by": second.code,
        "at": now,
    }
    if policy.version != newest.version + 1 or not await store.insert_policy(conn, row):
        raise Refused(
            f"version {policy.version} is not the next one of the alert policy",
            remedy="Read the policy again, and sign it anew",
        )
    return policy


def _document(policy: AlertPolicy) -> dict[str, Any]:
    return {
        "version": policy.version,
        "channels": [
            {"name": c.name, "kind": str(c.kind), "target": c.target} for c in policy.channels
        ],
        "routes": [
            {"level": r.level, "channel": r.channel, "kinds": sorted(map(str, r.kinds))}
            for r in policy.routes
        ],
        "escalate_minutes": policy.escalate_after // timedelta(minutes=1),
    }


def _policy_of(document: dict[str, Any]) -> AlertPolicy:
    return AlertPolicy(
        version=document["version"],
        channels=tuple(
            Channel(name=c["name"], kind=ChannelKind(c["kind"]), target=c["target"])
            for c in document["channels"]
        ),
        routes=tuple(
            Route(
                level=r["level"],
                channel=r["channel"],
                kinds=frozenset(AlertKind(kind) for kind in r["kinds"]),
            )
            for r in document["routes"]
        ),
        escalate_after=timedelta(minutes=document["escalate_minutes"]),
    )
