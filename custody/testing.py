"""Builders for tests and demonstrations: rules that two test operators make, and approvals.

The operators are those of `registry.testing`; their keys are derived from their codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.allow_list import (
    approve_destination,
    destination_bytes,
    draft_destination,
    propose_destination,
)
from custody.payout_approvals import approval_bytes
from custody.payout_control import approve_policy, draft_policy, policy_bytes, propose_policy
from custody.payout_model import AllowedDestination, DestinationKind, Payout
from custody.payouts import approval_line, approve_payouts
from custody.policy_model import ApprovalPolicy, PolicyDocument, PolicyRule
from registry.model import BANK
from registry.queries import get_operator
from registry.testing import operator_keypair

ONE_APPROVAL: Final = (PolicyRule(approvals=1),)


async def set_policy(
    conn: AsyncConnection,
    *,
    now: datetime,
    rules: tuple[PolicyRule, ...] = ONE_APPROVAL,
    document: PolicyDocument | None = None,
    by: str = "ada",
    second: str = "ben",
) -> ApprovalPolicy:
    """Put an approval policy in force by two test operators: *document*, else these rules."""
    document = document or PolicyDocument(rules=rules)
    signed = policy_bytes(await draft_policy(conn, document, by=by, now=now))
    proposed = await propose_policy(
        conn, document, by=by, signature=operator_keypair(by).sign(signed), now=now
    )
    signature = operator_keypair(second).sign(signed)
    return await approve_policy(conn, proposed.version, by=second, signature=signature, now=now)


async def propose(
    conn: AsyncConnection,
    party: str,
    address: str,
    *,
    now: datetime,
    chain: str = "evm",
    by: str = "ada",
    **more: Any,
) -> AllowedDestination:
    """Propose a destination by a test operator; *more* is what `propose_destination` takes."""
    given = {"party": party, "chain": chain, "address": address, "label": "test", **more}
    if chain == BANK:
        given.setdefault("kind", DestinationKind.BANK)
    draft = await draft_destination(conn, by=by, now=now, **given)
    signature = operator_keypair(by).sign(destination_bytes(draft))
    return await propose_destination(conn, by=by, signature=signature, now=now, **given)


async def allow(
    conn: AsyncConnection,
    party: str,
    address: str,
    *,
    now: datetime,
    chain: str = "evm",
    by: str = "ada",
    second: str = "ben",
) -> AllowedDestination:
    """Allow a destination by two test operators, without cooling-off."""
    proposed = await propose(conn, party, address, now=now, chain=chain, by=by)
    signature = operator_keypair(second).sign(destination_bytes(proposed))
    return await approve_destination(conn, proposed.id, by=second, signature=signature, now=now)


async def approve(
    conn: AsyncConnection, payouts: Sequence[Payout], *, now: datetime, by: str = "ben"
) -> list[Payout]:
    """Approve payouts under one signature of a test operator."""
    lines = [approval_line(payout) for payout in payouts]
    return await approve_payouts(
        conn,
        [payout.id for payout in payouts],
        by=await get_operator(conn, by),
        signature=operator_keypair(by).sign(approval_bytes(lines)),
        book=payouts[0].book,
        now=now,
    )
