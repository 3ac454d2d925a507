"""Retiring a signing key, as two administrators say: the signer is told, and keeps to it for ever.

From then on the retired keys sign only moves to the keys that replace them
(`custody.signer.retirement`); their addresses go on being watched, and what still arrives there is
swept. Payouts are asked for from the new wallet.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.control_messages import (
    ControlKind,
    ControlMessage,
    KeyRetired,
    control_bytes,
    message_of,
)
from custody.errors import NotPossible
from custody.signer_sync import queue_control
from kernel.errors import BadInput, Refused
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from registry.authority import require_role, verify_signature
from registry.model import Role
from registry.queries import get_operator

ENTITY: Final = "signing_key"
EPOCH: Final = datetime(2020, 1, 1, tzinfo=UTC)
PEOPLE_MIN: Final = 2
REASON_LENGTH_MAX: Final = 500


def retirement_bytes(path: str, successor: str, reason: str) -> bytes:
    """Return what both administrators sign; the signer takes the same bytes."""
    return control_bytes(ControlKind.KEY_RETIRE, _body(path, successor, reason).plain())


async def retire_key(
    conn: AsyncConnection,
    path: str,
    successor: str,
    *,
    signatures: Mapping[str, bytes],
    reason: str,
    now: datetime,
) -> ControlMessage:
    """Have the signer retire the keys at *path* in favour of those at *successor*.

    Args:
        conn: an open transaction.
        path: account of the keys (``m/44'/60'/0'``), or the label of a token's key.
        successor: account or label of the keys that replace them.
        signatures: of `retirement_bytes`, by the codes of two administrators or more.
        reason: why; the signer's log keeps it.
        now: the time.

    Raises:
        Refused: too few people, one who may not, or a signature that is not theirs or of this.
        NotPossible: the keys were retired before.
    """
    if not 0 < len(reason) <= REASON_LENGTH_MAX:
        raise BadInput(f"a reason has 1 to {REASON_LENGTH_MAX} letters")
    if path == successor or not path or not successor:
        raise BadInput("a key is replaced by another key")
    if len(signatures) < PEOPLE_MIN:
        raise Refused(f"{PEOPLE_MIN} administrators retire a key together")
    payload = retirement_bytes(path, successor, reason)
    for code, signature in signatures.items():
        operator = await get_operator(conn, code)
        require_role(operator, Role.ADMIN)
        verify_signature(operator, payload, signature)
    await _tell(conn, path, successor, " and ".join(sorted(signatures)), reason, now)
    message = message_of(ControlKind.KEY_RETIRE, _body(path, successor, reason), signatures)
    await queue_control(conn, message, now=now)
    return message


def _body(path: str, successor: str, reason: str) -> KeyRetired:
    return KeyRetired(path=path, successor=successor, reason=reason)


async def _tell(
    conn: AsyncConnection, path: str, successor: str, by: str, reason: str, now: datetime
) -> None:
    entity = derive_id(EPOCH, ENTITY, path)
    version = await next_version(conn, ENTITY, entity)
    if version != 1:
        raise NotPossible(f"the keys at {path} were retired before")
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=entity,
        version=version,
        name="SigningKeyRetired",
        at=now,
        actor=by,
        reason=reason,
        to_state="retired",
        payload={"path": path, "successor": successor},
    )
    await record(conn, [event])
