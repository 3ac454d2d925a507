"""Who acts on the books by hand: operators as the registry has them now.

An act for two people is proposed by one operator and signed by another one: by code and by key, with
a role of its own, over the canonical bytes of what is decided (`registry.authority.signing_bytes`).
"""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from registry.authority import require_role, verify_signature
from registry.errors import NotAuthorised
from registry.model import Operator, Role
from registry.queries import get_operator

PROPOSERS: Final = (Role.FINANCE, Role.TREASURER)
"""Roles that may propose manual journals, closes of periods, moves between books, imports."""
APPROVERS: Final = (Role.APPROVER, Role.TREASURER)
"""Roles that may approve or reject what another operator has proposed."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


async def require_proposer(conn: AsyncConnection, code: str) -> Operator:
    """Return the operator, who must be active and have one of `PROPOSERS`.

    Raises:
        NotAuthorised: inactive, or without the role.
    """
    operator = await get_operator(conn, code)
    require_role(operator, *PROPOSERS)
    return operator


async def require_approver(
    conn: AsyncConnection, code: str, *, proposed_by: str, payload: bytes, signature: bytes
) -> Operator:
    """Return the approver, who must be another person than the proposer and have signed *payload*.

    Raises:
        NotAuthorised: the same person by code or by key, without the role, a proposer who has been
            revoked since, or a signature that does not hold of these bytes.
    """
    operator = await get_operator(conn, code)
    require_role(operator, *APPROVERS)
    proposer = await get_operator(conn, proposed_by)
    require_role(proposer, *PROPOSERS)
    if operator.code == proposer.code or operator.public_key == proposer.public_key:
        raise NotAuthorised(
            f"operator {code} proposed this and cannot approve it", remedy="Ask another operator"
        )
    verify_signature(operator, payload, signature)
    return operator


async def may_approve(conn: AsyncConnection, code: str) -> bool:
    """Tell whether an operator who has signed before is active and has one of `APPROVERS` still."""
    operator = await get_operator(conn, code)
    return operator.active and not operator.roles.isdisjoint(APPROVERS)


async def require_rejecter(conn: AsyncConnection, code: str, *, proposed_by: str) -> Operator:
    """Return who says no: an approver, or the proposer, who takes the proposal back.

    Raises:
        NotAuthorised: neither of them.
    """
    operator = await get_operator(conn, code)
    require_role(operator, *(PROPOSERS if code == proposed_by else APPROVERS))
    return operator


def require_sha256(text: str, what: str) -> None:
    """Refuse what cannot be a SHA-256 in lower-case hexadecimal."""
    if _SHA256.fullmatch(text) is None:
        raise BadInput(
            f"the hash of the {what} is not a SHA-256: {text[:80]!r}",
            remedy="Write it as 64 lower-case hexadecimal digits",
        )
