"""Enrolling, opening and retiring API keys, and changing what they are sealed with."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel import envelope
from kernel.errors import BadInput, Refused, SecretUnreadable
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from kernel.settings import Secret
from venues.ccxt.endpoint import Credentials
from venues.credentials import store
from venues.credentials.model import KeyPurpose, SealedKey, Slot
from venues.model import EPOCH

ENTITY: Final = "venue-key"
TEXT_LENGTH_MAX: Final = 8_192
"""Of an API key or a secret: a PEM of an RSA key has its place."""


class _Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    api_key: str
    secret: str


async def enrol(
    conn: AsyncConnection,
    slot: Slot,
    credentials: Credentials,
    kek: bytes,
    *,
    random: Callable[[int], bytes],
    by: str,
    reason: str,
    now: datetime,
) -> SealedKey:
    """Seal a key for *slot* and put it in force; the key that was there is retired with it.

    Raises:
        BadInput: the key or its secret is empty or too long, or no reason is given.
        Refused: the same key serves the account's other purpose.
        SecretUnreadable: the other purpose's key does not open with *kek*: there is one KEK.
    """
    secret = credentials.secret.reveal()
    for what, text in (("API key", credentials.api_key), ("secret", secret)):
        if not text.strip() or len(text) > TEXT_LENGTH_MAX:
            raise BadInput(f"the {what} has 1 to {TEXT_LENGTH_MAX} characters")
    if not reason.strip():
        raise BadInput("a key is enrolled for a reason")
    await _require_other(conn, slot, credentials, kek)
    before = await store.find_in_force(conn, slot, lock=True)
    if before is not None:
        await store.write_retirement(conn, before, by=by, now=now)
    version = await store.last_version(conn, slot) + 1
    content = msgspec.json.encode(_Content(credentials.api_key, secret))
    key = SealedKey(
        id=derive_id(now, ENTITY, slot.venue, slot.account, str(slot.purpose), version),
        slot=slot,
        version=version,
        envelope=envelope.seal(content, kek, associated=slot.associated(version), random=random),
        enrolled_by=by,
        enrolled_at=now,
        reason=reason,
        retired_at=None,
        retired_by="",
    )
    await store.insert_key(conn, key)
    await _tell(conn, key, "VenueKeyEnrolled", actor=by, reason=reason, now=now)
    return key


async def reveal(conn: AsyncConnection, slot: Slot, kek: bytes) -> Credentials:
    """Return the key that is in force.

    Raises:
        Refused: there is none.
        SecretUnreadable: it is sealed with another KEK, or was changed.
    """
    key = await store.find_in_force(conn, slot)
    if key is None:
        raise Refused(
            f"no API key is enrolled for {slot}", remedy="Run `causeway venues key enrol`"
        )
    return _opened(key, kek)


async def retire(
    conn: AsyncConnection, slot: Slot, *, by: str, reason: str, now: datetime
) -> SealedKey:
    """Take the key of a slot out of force and destroy what it is sealed in.

    Raises:
        Refused: there is none in force.
    """
    key = await store.find_in_force(conn, slot, lock=True)
    if key is None:
        raise Refused(f"no API key of {slot} is in force")
    await store.write_retirement(conn, key, by=by, now=now)
    await _tell(conn, key, "VenueKeyRetired", actor=by, reason=reason, now=now)
    return key


async def rewrap_all(
    conn: AsyncConnection,
    old: bytes,
    new: bytes,
    *,
    random: Callable[[int], bytes],
    by: str,
    now: datetime,
) -> list[SealedKey]:
    """Wrap every key in force with *new*, all or none; return those that changed.

    Asked again it changes nothing: keys that are wrapped with *new* are left as they are.

    Raises:
        SecretUnreadable: a key opens with neither.
    """
    changed = []
    for key in await store.list_keys(conn, in_force=True, lock=True):
        if key.envelope.kek_id == envelope.kek_id_of(new):
            continue
        associated = key.slot.associated(key.version)
        wrapped = envelope.rewrap(key.envelope, old, new, associated=associated, random=random)
        await store.write_envelope(conn, key, wrapped)
        await _tell(conn, key, "VenueKeyRewrapped", actor=by, reason="", now=now)
        changed.append(key)
    return changed


list_keys = store.list_keys


def _opened(key: SealedKey, kek: bytes) -> Credentials:
    try:
        plain = envelope.unseal(key.envelope, kek, associated=key.slot.associated(key.version))
    except SecretUnreadable as error:
        raise SecretUnreadable(error.what, where=str(key.slot), remedy=error.remedy) from error
    try:
        content = msgspec.json.decode(bytes(plain), type=_Content)
    finally:
        envelope.wipe(plain)
    return Credentials(api_key=content.api_key, secret=Secret(content.secret))


async def _require_other(
    conn: AsyncConnection, slot: Slot, credentials: Credentials, kek: bytes
) -> None:
    """Refuse a key that trades and withdraws: whoever has it would have the money."""
    other = next(purpose for purpose in KeyPurpose if purpose is not slot.purpose)
    known = await store.find_in_force(conn, Slot(slot.venue, slot.account, other), lock=True)
    if known is not None and _opened(known, kek).api_key == credentials.api_key:
        raise Refused(
            f"this API key is the {other} key of {slot.venue}/{slot.account}",
            remedy="Make two keys at the venue: one trades, the other withdraws",
        )


async def _tell(
    conn: AsyncConnection, key: SealedKey, name: str, *, actor: str, reason: str, now: datetime
) -> None:
    slot = key.slot
    entity = derive_id(EPOCH, ENTITY, slot.venue, slot.account, str(slot.purpose))
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=entity,
        version=await next_version(conn, ENTITY, entity),
        name=name,
        at=now,
        actor=actor,
        reason=reason,
        payload={
            "venue": slot.venue,
            "account": slot.account,
            "purpose": str(slot.purpose),
            "version": key.version,
        },
    )
    await record(conn, [event])
