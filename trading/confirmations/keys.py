"""Keys with which parties affirm: two of our people enrol one, one person puts it out of force."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import Refused
from kernel.events import DomainEvent, next_version, record
from kernel.ids import stable_id
from registry.authority import signing_bytes
from registry.model import Operator, Role
from registry.people import require_operator, require_second
from registry.queries import get_party, list_operators
from trading.confirmations import store
from trading.confirmations.errors import KeyTaken
from trading.confirmations.model import ConfirmationKey

KEY = "confirmation-key"


def key_bytes(party: str, label: str, public_key: bytes, *, version: int) -> bytes:
    """Return what the second operator signs to accept *version* of a party's keys."""
    return signing_bytes(
        "trading.confirmation_key",
        {"party": party, "label": label, "public_key": public_key, "version": version},
    )


async def next_key_version(conn: AsyncConnection, party: str) -> int:
    """Return the version that the party's next key will have."""
    return len(await store.list_keys(conn, party)) + 1


async def enrol_key(
    conn: AsyncConnection,
    *,
    party: str,
    label: str,
    public_key: bytes,
    by: Operator,
    approver: Operator,
    signature: bytes,
    now: datetime,
) -> ConfirmationKey:
    """Put a key of a party into force; the same key again returns the one there is.

    Args:
        conn: the caller's transaction.
        party: whose key it is: somebody made sure of that by another way than a mail.
        label: what the party calls it.
        public_key: Ed25519, 32 raw bytes.
        by: who enters it.
        approver: another person, who made sure too.
        signature: the approver's, over `key_bytes` of the party's next version.
        now: when.

    Raises:
        KeyTaken: it is the key of another party, or of an operator.
        Refused: the people may not, or the signature is of another version.
    """
    await get_party(conn, party)
    known = await store.find_key_in_force(conn, public_key)
    if known is not None and known.party == party:
        return known
    if known is not None:
        raise KeyTaken(f"the key is {known.party}'s key {known.version}")
    await _require_not_ours(conn, public_key)
    version = await next_key_version(conn, party)
    payload = key_bytes(party, label, public_key, version=version)
    first = await require_operator(conn, by, Role.OPERATIONS, Role.TREASURER)
    second = await require_second(
        *(conn, first, approver, Role.APPROVER, Role.TREASURER),
        payload=payload,
        signature=signature,
    )
    key = ConfirmationKey(
        party=party,
        version=version,
        label=label,
        public_key=public_key,
        enrolled_by=first.code,
        approved_by=second.code,
        enrolled_at=now,
    )
    if not await store.insert_key(conn, key, signature):
        raise KeyTaken(f"the keys of {party} were changed just now", remedy="Look, and sign again")
    reason = f"approved by {second.code}"
    await _record(conn, key, "ConfirmationKeyEnrolled", by=first.code, reason=reason, now=now)
    return key


async def revoke_key(
    conn: AsyncConnection, party: str, version: int, *, by: Operator, reason: str, now: datetime
) -> ConfirmationKey:
    """Put a key out of force; again: nothing. What it signed before stays signed.

    Raises:
        NoConfirmationKey: the party has no such key.
        Refused: the person may not, or no reason is given.
    """
    who = await require_operator(
        conn, by, Role.OPERATIONS, Role.TREASURER, Role.APPROVER, Role.ADMIN
    )
    if not reason:
        raise Refused("a key is put out of force for a reason", remedy="Say it with --reason")
    key = await store.get_key(conn, party, version)
    if key.revoked_at is not None:
        return key
    revoked = await store.revoke_key(conn, key, by=who.code, now=now)
    await _record(conn, revoked, "ConfirmationKeyRevoked", by=who.code, reason=reason, now=now)
    return revoked


async def list_keys(conn: AsyncConnection, party: str | None = None) -> list[ConfirmationKey]:
    """Return every key, those out of force too, by party and version; of one party, if asked."""
    return await store.list_keys(conn, party)


async def _require_not_ours(conn: AsyncConnection, public_key: bytes) -> None:
    """Refuse a key of one of our people: they would answer for the client."""
    for operator in await list_operators(conn):
        if operator.public_key == public_key:
            raise KeyTaken(f"the key is that of operator {operator.code}")


async def _record(
    conn: AsyncConnection, key: ConfirmationKey, name: str, *, by: str, reason: str, now: datetime
) -> None:
    key_id = stable_id(KEY, key.party, key.version)
    payload: Mapping[str, object] = {
        "party": key.party,
        "version": key.version,
        "label": key.label,
        "public_key": key.public_key.hex(),
    }
    event = DomainEvent(
        entity_type=KEY,
        entity_id=key_id,
        version=await next_version(conn, KEY, key_id),
        name=name,
        at=now,
        actor=by,
        reason=reason,
        payload=payload,
    )
    await record(conn, [event])
