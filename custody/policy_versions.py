"""Which confirmation policies have decided something: kept for ever, so that it can be explained.

A version is stored in the transaction in which it first decides. The same version with other contents
is refused: months later nobody could say which of the two let a deposit through.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.deposit_model import Arrival, Deposit
from custody.errors import NotPossible, UnknownRow
from custody.policy import ConfirmationPolicy, content_of, from_content
from custody.tables import confirmation_policy
from kernel.rows import insert_rows


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """A policy that has decided, and since when."""

    policy: ConfirmationPolicy
    content_hash: str
    first_used_at: datetime


def hash_policy(policy: ConfirmationPolicy) -> str:
    """Return the SHA-256 of the policy's content in one spelling, in hexadecimal."""
    text = json.dumps(content_of(policy), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


async def keep_policy(conn: AsyncConnection, policy: ConfirmationPolicy, *, now: datetime) -> None:
    """Store the policy, unless it is stored; call it before it decides anything.

    Raises:
        NotPossible: another policy has decided under the same version number.
    """
    mine = hash_policy(policy)
    table = confirmation_policy
    query = select(table.c.content_hash).where(table.c.version == policy.version)
    known = await conn.scalar(query)
    if known is None:
        row = {
            "version": policy.version,
            "content_hash": mine,
            "content": content_of(policy),
            "first_used_at": now,
        }
        await insert_rows(conn, table, [row], known="ON CONFLICT DO NOTHING")
        known = await conn.scalar(query)
    if known != mine:
        raise NotPossible(
            f"confirmation policy {policy.version} has decided with other rules before",
            where=f"stored {str(known)[:12]}, given {mine[:12]}",
            remedy="Give the changed policy the next version number",
        )


async def get_policy_version(conn: AsyncConnection, version: int) -> PolicyVersion:
    """Return a policy that has decided.

    Raises:
        UnknownRow: no policy of that version ever has.
    """
    table = confirmation_policy
    row = (await conn.execute(select(table).where(table.c.version == version))).one_or_none()
    if row is None:
        raise UnknownRow(f"no confirmation policy {version} has decided anything", where="custody")
    return PolicyVersion(from_content(row.content), row.content_hash, row.first_used_at)


async def list_policy_versions(conn: AsyncConnection) -> list[PolicyVersion]:
    """Return every policy that has decided, oldest version first."""
    rows = await conn.execute(select(confirmation_policy).order_by(confirmation_policy.c.version))
    return [PolicyVersion(from_content(r.content), r.content_hash, r.first_used_at) for r in rows]


async def explain_decision(conn: AsyncConnection, arrival: Arrival) -> list[str]:
    """Return which version and rule of the policy decided about an arrival, and why none before it.

    Raises:
        NotPossible: nothing was decided about it yet.
    """
    if not arrival.policy_version:
        noun = "deposit" if isinstance(arrival, Deposit) else "receipt"
        raise NotPossible(f"no policy has decided about {noun} {arrival.id} yet")
    kept = await get_policy_version(conn, arrival.policy_version)
    asked = f"{arrival.depth_required} blocks" + (", finalized" * arrival.finality_required)
    return [
        f"content {kept.content_hash}, deciding since {kept.first_used_at.isoformat()}",
        *kept.policy.explain(arrival).splitlines(),
        f"asked for in the end: {asked} (never less than any version before)",
    ]
