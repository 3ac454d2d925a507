"""Handing over to the signer what people have signed, and keeping the checkpoints that it shows.

Whoever collects a control message's signatures puts it into the queue in the same transaction
(`queue_control`); `push_control` hands the queue over in order, each message until the signer has
answered. The signer knows a message by its hash, so handing one over again changes nothing.

The database is also a witness: `push_control` keeps the signer's newest checkpoint, and a signer
whose log does not go on from it, because its store was set back or replaced, is not used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Final

import msgspec
from sqlalchemy import Row, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.control_messages import ControlMessage
from custody.ports import ControlledSigner
from custody.signer.errors import StoreUnusable
from custody.signer.wire import Accepted, Health, No
from custody.signer_tables import control_message, signer_checkpoint
from kernel.db import transact
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from ledger.checkpoint import Checkpoint, parse_verifier_key, read_unsigned, verify
from ledger.merkle import EMPTY_ROOT, leaf_hash, verify_consistency, verify_inclusion

BATCH_MAX: Final = 100
PAGE_MAX: Final = 500
WITNESS_AFTER: Final = timedelta(seconds=60)
"""How old the kept checkpoint may be before a newer one is asked for."""
ENTITY: Final = "control_message"
ACTOR: Final = "system:signer-sync"


class ControlState(StrEnum):
    """Where a message is on its way to the signer."""

    QUEUED = "queued"
    ACCEPTED = "accepted"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedMessage:
    """A control message and what the signer said.

    Attributes:
        subject: what it is about: the id of a destination or freeze, a version.
        record: number of its record in the signer's log, once accepted.
    """

    digest: str
    number: int
    kind: str
    subject: str
    message: ControlMessage
    state: ControlState
    queued_at: datetime
    answered_at: datetime | None
    signer: str | None
    record: int | None
    refusal: str | None


@dataclass(slots=True)
class PushReport:
    """What one call handed over, by digest; *refused* with the signer's reason."""

    accepted: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


async def queue_control(conn: AsyncConnection, message: ControlMessage, *, now: datetime) -> None:
    """Put a message that people have signed into the queue; the same again changes nothing."""
    values = {
        "digest": message.digest,
        "kind": message.kind,
        "subject": str(message.body.get("id", message.body.get("version", ""))),
        "message": msgspec.to_builtins(message),
        "state": ControlState.QUEUED,
        "queued_at": now,
    }
    await conn.execute(insert(control_message).values(**values).on_conflict_do_nothing())


async def adopt_signer(conn: AsyncConnection, verifier_key: str, *, now: datetime) -> int:
    """Go on with the signer whose store this key names, and queue every message anew for it.

    The witness knows nothing of a new store. So a person says that it is meant: otherwise a signer
    that lost its store, and would sign again what it has signed, looked like a new one.

    Returns:
        How many messages are queued.
    """
    values = {"signer": verifier_key, "size": 0, "note": "", "at": now}
    await conn.execute(insert(signer_checkpoint).values(**values).on_conflict_do_nothing())
    done = await conn.execute(
        update(control_message)
        .where(control_message.c.state != ControlState.QUEUED)
        .values(state=ControlState.QUEUED, answered_at=None, signer=None, record=None, refusal=None)
    )
    return int(done.rowcount)


async def list_messages(
    conn: AsyncConnection, *, state: ControlState | None = None, limit: int = PAGE_MAX
) -> list[QueuedMessage]:
    """Return messages, oldest first."""
    statement = select(control_message).order_by(control_message.c.number)
    if state is not None:
        statement = statement.where(control_message.c.state == state)
    rows = await conn.execute(statement.limit(min(limit, PAGE_MAX)))
    return [_to_message(row) for row in rows]


async def push_control(
    engine: AsyncEngine, signer: ControlledSigner, *, now: datetime
) -> PushReport:
    """Hand over what is queued, at most `BATCH_MAX` messages; safe to call again at any time.

    Args:
        engine: the database, as the runtime role.
        signer: who takes the messages.
        now: the time.

    Raises:
        OutsideUnavailable: the signer does not answer; the rest stays queued.
        StoreUnusable: the signer's log does not go on from the checkpoint that it showed before,
            or it has another store that nobody adopted.
    """
    report = PushReport()
    async with engine.connect() as conn:
        waiting = await list_messages(conn, state=ControlState.QUEUED, limit=BATCH_MAX)
        seen = await _last_witnessed(conn)
    if not waiting and seen is not None and now - seen < WITNESS_AFTER:
        return report
    store = await _witness(engine, signer, now)
    for item in waiting:
        answer = await signer.control(item.message)
        if isinstance(answer, No) and answer.later:
            break  # those behind it may build on it
        await transact(engine, partial(_note, item=item, answer=answer, signer=store, now=now))
        if isinstance(answer, No):
            report.refused[item.digest] = answer.what
        else:
            report.accepted.append(item.digest)
    if report.accepted:
        # What is in force in it now must be in whatever store it starts with next.
        await _witness(engine, signer, now)
    return report


async def check_continued(signer: ControlledSigner, kept: str | None) -> tuple[str, Checkpoint]:
    """Return the signer's newest checkpoint, as signed and as read, proved to go on from *kept*.

    Raises:
        StoreUnusable: its log does not go on from there.
        Refused: *kept* or the newest is not signed by the key that names the signer's store.
    """
    health = await signer.health()
    name, key = parse_verifier_key(health.verifier_key)
    start = Checkpoint(name, 0, EMPTY_ROOT) if kept is None else verify(kept, key, name=name)
    return await _newest(signer, health, start)


async def read_proved(signer: ControlledSigner, index: int) -> tuple[dict[str, Any], int]:
    """Return a record of the signer's log and the size of the tree that it is proved to be in.

    Raises:
        StoreUnusable: the proof is wrong.
    """
    _, newest = await check_continued(signer, None)
    shown = await signer.audit(index, size=newest.size)
    leaf = leaf_hash(shown.record)
    if not verify_inclusion(leaf, index, newest.size, shown.proof, newest.root):
        raise StoreUnusable(f"record {index} is not in the checkpoint of {newest.size} records")
    seq, at, kind, subject, body = msgspec.json.decode(shown.record)
    record = {"seq": seq, "at": at, "kind": kind, "subject": subject}
    return {**record, "body": msgspec.json.decode(body)}, newest.size


async def _newest(
    signer: ControlledSigner, health: Health, start: Checkpoint
) -> tuple[str, Checkpoint]:
    name, key = parse_verifier_key(health.verifier_key)
    if health.records < start.size:
        raise _set_back(name, health.records, start.size)
    shown = await signer.checkpoint(since=start.size)
    newest = verify(shown.note, key, name=name)
    if not verify_consistency(start.size, newest.size, shown.proof, start.root, newest.root):
        raise _set_back(name, newest.size, start.size)
    return shown.note, newest


async def _witness(engine: AsyncEngine, signer: ControlledSigner, now: datetime) -> str:
    """Keep the signer's newest checkpoint, once it is proved to go on from the one kept before.

    Returns the key that names the signer's store.
    """
    async with engine.connect() as conn:
        # Before the signer is asked: another worker may have it sign more at any time.
        kept = await _kept_checkpoints(conn)
    health = await signer.health()
    before = kept.get(health.verifier_key)
    if before is None and kept:
        raise StoreUnusable(
            "the signer has another store than before",
            where=health.verifier_key,
            remedy="If it is meant, adopt it: causeway custody signer control --adopt",
        )
    note, newest = await _newest(signer, health, before or Checkpoint("", 0, EMPTY_ROOT))
    await _keep(engine, health.verifier_key, newest.size, note, now)
    return health.verifier_key


def _set_back(name: str, records: int, before: int) -> StoreUnusable:
    return StoreUnusable(
        f"the signer's log of {records} records does not go on from the {before} that it had before",
        where=name,
        remedy="Stop it: its store was set back or replaced",
    )


async def _keep(engine: AsyncEngine, signer: str, size: int, note: str, now: datetime) -> None:
    async def write(conn: AsyncConnection) -> None:
        values = {"size": size, "note": note, "at": now}
        statement = insert(signer_checkpoint).values(signer=signer, **values)
        # Another worker may have kept a newer one meanwhile.
        await conn.execute(
            statement.on_conflict_do_update(
                index_elements=[signer_checkpoint.c.signer],
                set_=values,
                where=signer_checkpoint.c.size <= size,
            )
        )

    await transact(engine, write)


async def _kept_checkpoints(conn: AsyncConnection) -> dict[str, Checkpoint]:
    """Return what each store has shown last; nothing yet for one that was only adopted."""
    rows = await conn.execute(select(signer_checkpoint.c.signer, signer_checkpoint.c.note))
    return {
        row.signer: read_unsigned(row.note) if row.note else Checkpoint("", 0, EMPTY_ROOT)
        for row in rows
    }


async def _last_witnessed(conn: AsyncConnection) -> datetime | None:
    found: datetime | None = await conn.scalar(select(func.max(signer_checkpoint.c.at)))
    return found


async def _note(
    conn: AsyncConnection, *, item: QueuedMessage, answer: Accepted | No, signer: str, now: datetime
) -> None:
    refused = isinstance(answer, No)
    state = ControlState.REFUSED if refused else ControlState.ACCEPTED
    done = await conn.execute(
        update(control_message)
        .where(
            control_message.c.digest == item.digest,
            control_message.c.state == ControlState.QUEUED,
        )
        .values(
            state=state,
            answered_at=now,
            signer=signer,
            record=None if isinstance(answer, No) else answer.index,
            refusal=answer.what if isinstance(answer, No) else None,
        )
    )
    if done.rowcount != 1:
        return  # another worker has handed it over, too
    entity = derive_id(item.queued_at, ENTITY, item.digest)
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=entity,
        version=await next_version(conn, ENTITY, entity),
        name=f"ControlMessage{state.capitalize()}",
        at=now,
        actor=ACTOR,
        reason=answer.what if isinstance(answer, No) else "",
        from_state=ControlState.QUEUED,
        to_state=state,
        payload={"kind": item.kind, "subject": item.subject, "digest": item.digest},
    )
    await record(conn, [event])


def _to_message(row: Row[Any]) -> QueuedMessage:
    return QueuedMessage(
        digest=row.digest,
        number=row.number,
        kind=row.kind,
        subject=row.subject,
        message=msgspec.convert(row.message, type=ControlMessage),
        state=ControlState(row.state),
        queued_at=row.queued_at,
        answered_at=row.answered_at,
        signer=row.signer,
        record=row.record,
        refusal=row.refusal,
    )
