"""Who acts: operators as the registry has them now, and steps that need two of them."""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from registry.authority import require_role, verify_signature
from registry.errors import SamePerson
from registry.model import Operator, Role
from registry.queries import get_operator

SHA256: Final = re.compile(r"[0-9a-f]{64}")


async def require_operator(conn: AsyncConnection, operator: Operator, *roles: Role) -> Operator:
    """Return the operator as registered now, who must have one of *roles*.

    A value read earlier may be of somebody who has been revoked since.
    """
    current = await get_operator(conn, operator.code)
    require_role(current, *roles)
    return current


async def require_second(
    conn: AsyncConnection,
    first: Operator,
    second: Operator,
    *roles: Role,
    payload: bytes,
    signature: bytes,
) -> Operator:
    """Return the second person, who must be another one and have signed *payload*.

    Raises:
        SamePerson: they are one person, by code or by key.
        NotAuthorised: the role is missing, or the signature does not hold.
    """
    current = await require_operator(conn, second, *roles)
    if current.code == first.code or current.public_key == first.public_key:
        raise SamePerson(
            f"{first.code} cannot approve what {first.code} entered", remedy="Ask another operator"
        )
    verify_signature(current, payload, signature)
    return current


def require_sha256(text: str, what: str) -> None:
    """Refuse what cannot be a SHA-256 in lower-case hexadecimal."""
    if SHA256.fullmatch(text) is None:
        raise BadInput(
            f"the hash of the {what} is not a SHA-256: {text[:80]!r}",
            remedy="Write it as 64 lower-case hexadecimal digits",
        )
