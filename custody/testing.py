"""Builders for tests and demonstrations: rules that two test operators make, and approvals.

The operators are those of `registry.testing`; their keys are derived from their codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.allow_list import approve_destination, destination_bytes, propose_destination
from custody.payout_approvals import approval_bytes
from custody.payout_control import approve_policy, policy_bytes, propose_policy
from custody.payout_model import AllowedDestination, ApprovalPolicy, Payout, PolicyRule
from custody.payouts import approval_line, approve_payouts
from registry.queries import get_operator
from registry.testing import operator_keypair

ONE_APPROVAL: Final = (PolicyRule(approvals=1),)


async def set_policy(
    conn: AsyncConnection,
    *,
    now: datetime,
    rules: tuple[PolicyRule, ...] = ONE_APPROVAL,
    by: str = "ada",
    second: str = "ben",
) -> ApprovalPolicy:
    """Put an approval policy in force by two test operators."""
    proposed = await propose_policy(conn, rules, by=by, now=now)
    signature = operator_keypair(second).sign(policy_bytes(proposed))
    return await approve_policy(conn, proposed.version, by=second, signature=signature, now=now)


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
    proposed = await propose_destination(
        conn, party=party, chain=chain, address=address, label="test", by=by, now=now
    )
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
