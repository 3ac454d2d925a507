"""Rows of restores. Private to custody."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import Row, Select, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.errors import NotPossible, UnknownRow
from custody.restore.model import (
    ITEM_STATES,
    SOURCE_STATES,
    Item,
    ItemState,
    Restore,
    RestoreState,
    Source,
    SourceState,
    Stage,
)
from custody.restore_gate import DATABASE, STARTED
from custody.restore_marks import FIRST_TOKEN, About, Mark
from custody.restore_tables import (
    restore,
    restore_item,
    restore_mark,
    restore_source,
    restore_watch,
    restore_witness,
)
from kernel.clock import to_unix_ms

ITEMS_MAX: Final = 1_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
OLDEST: Final = datetime(2025, 1, 1, tzinfo=UTC)
"""No house was founded before: there is nothing of ours that is older. A database that was set back to
before its first mark and its first watch does not know more."""
LINE: Final = "marks"
"""The row that whoever makes a mark locks."""
# A slip in time of one server is no other server: the system's number, the time line, the place in it.
HERE: Final[Select[*tuple[Any, ...]]] = select(
    literal_column(STARTED).label("started"),
    literal_column(f"(pg_control_system()).system_identifier::text || '/' || {DATABASE}").label(
        "system"
    ),
    literal_column(
        "('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint"
    ).label("timeline"),
    # What is on its disk: what was only in memory may be gone after a crash, and is no restore.
    literal_column("(pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint").label("place"),
)


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A server at a moment.

    Attributes:
        started: when it was started, and the database's numbers, as text.
        system: PostgreSQL's number of the cluster, and the database's numbers in it.
        timeline: its time line: every restore to a moment, and every promotion, begins another.
        place: how much of its log of changes is on its disk, in bytes.
    """

    started: str
    system: str
    timeline: int
    place: int


async def read_server(conn: AsyncConnection) -> Server:
    """Return the server as it is."""
    row = (await conn.execute(HERE)).one()
    return Server(
        started=row.started, system=row.system, timeline=row.timeline, place=int(row.place)
    )


async def find_watch(conn: AsyncConnection) -> Row[Any] | None:
    """Return the server that was compared last, as this database says."""
    return (await conn.execute(select(restore_watch))).one_or_none()


async def save_watch(conn: AsyncConnection, here: Server, now: datetime) -> None:
    """Write that this start of the server was compared."""
    values = {
        "started": here.started,
        "system": here.system,
        "timeline": here.timeline,
        "at": now,
    }
    statement = insert(restore_watch).values(one=1, **values)
    await conn.execute(
        statement.on_conflict_do_update(index_elements=[restore_watch.c.one], set_=values)
    )


async def last_mark(conn: AsyncConnection) -> tuple[int, str, datetime | None]:
    """Return number, token and time of the newest mark."""
    row = (
        await conn.execute(select(restore_mark).order_by(restore_mark.c.number.desc()).limit(1))
    ).one_or_none()
    return (0, FIRST_TOKEN, None) if row is None else (row.number, row.token, row.made_at)


async def token_of(conn: AsyncConnection, number: int) -> str | None:
    """Return the token of a mark; None: there is none with that number."""
    if number == 0:
        return FIRST_TOKEN
    query = select(restore_mark.c.token).where(restore_mark.c.number == number)
    found: str | None = await conn.scalar(query)
    return found


async def append_mark(conn: AsyncConnection, about: Sequence[About], *, now: datetime) -> Mark:
    """Make the next mark; whoever makes one waits for the one before to be committed."""
    await conn.execute(
        insert(restore_witness).values(witness=LINE, number=0, at=now).on_conflict_do_nothing()
    )
    lock = select(restore_witness.c.number).where(restore_witness.c.witness == LINE)
    await conn.execute(lock.with_for_update())
    number, token, _ = await last_mark(conn)
    mark = Mark(number=number + 1, previous=token, at=to_unix_ms(now), about=list(about))
    await conn.execute(
        insert(restore_mark).values(
            number=mark.number,
            previous=mark.previous,
            token=mark.token,
            made_at=now,
            about=msgspec.to_builtins(mark.about),
        )
    )
    return mark


async def list_marks(conn: AsyncConnection, after: int, limit: int) -> list[Mark]:
    """Return marks from number *after* + 1 on, at most *limit*."""
    rows = await conn.execute(
        select(restore_mark)
        .where(restore_mark.c.number > after)
        .order_by(restore_mark.c.number)
        .limit(limit)
    )
    return [
        Mark(
            number=row.number,
            previous=row.previous,
            at=to_unix_ms(row.made_at),
            about=msgspec.convert(row.about, type=list[About]),
        )
        for row in rows
    ]


async def witnessed(conn: AsyncConnection, witness: str) -> int | None:
    """Return the newest mark that a witness has told us it has; None: it never told."""
    query = select(restore_witness.c.number).where(restore_witness.c.witness == witness)
    found: int | None = await conn.scalar(query)
    return found


async def save_witnessed(conn: AsyncConnection, witness: str, number: int, now: datetime) -> None:
    """Write what a witness has told."""
    statement = insert(restore_witness).values(witness=witness, number=number, at=now)
    await conn.execute(
        statement.on_conflict_do_update(
            index_elements=[restore_witness.c.witness], set_={"number": number, "at": now}
        )
    )


async def insert_restore(conn: AsyncConnection, item: Restore) -> bool:
    """Insert a restore; False: one stands already."""
    told = {name: getattr(item, name) for name in Restore.__dataclass_fields__}
    values = {name: value for name, value in told.items() if value is not None}
    done = await conn.execute(insert(restore).values(**values).on_conflict_do_nothing())
    return done.rowcount == 1


async def find_standing(conn: AsyncConnection, *, lock: bool = False) -> Restore | None:
    """Return the restore that is not open yet."""
    query = select(restore).where(restore.c.state == RestoreState.FROZEN)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    return None if row is None else _to_restore(row)


async def require_standing(conn: AsyncConnection, *, lock: bool = False) -> Restore:
    """Return the restore that is not open yet.

    Raises:
        NotPossible: there is none.
    """
    found = await find_standing(conn, lock=lock)
    if found is None:
        raise NotPossible("no restore stands: every door is as it was")
    return found


async def get_restore(conn: AsyncConnection, restore_id: UUID) -> Restore:
    """Return a restore that there was; others refer to it."""
    row = (await conn.execute(select(restore).where(restore.c.id == restore_id))).one()
    return _to_restore(row)


async def list_restores(conn: AsyncConnection, limit: int = 100) -> list[Restore]:
    """Return restores, newest first."""
    rows = await conn.execute(select(restore).order_by(restore.c.found_at.desc()).limit(limit))
    return [_to_restore(row) for row in rows]


async def update_restore(conn: AsyncConnection, restore_id: UUID, **values: object) -> None:
    """Write what changes of a locked restore."""
    await conn.execute(update(restore).where(restore.c.id == restore_id).values(**values))


async def insert_sources(conn: AsyncConnection, sources: Sequence[Source], detail: str) -> None:
    """Insert the places to be read; those that are there stay."""
    for item in sources:
        await conn.execute(
            insert(restore_source)
            .values(
                restore_id=item.restore_id,
                source=item.source,
                stage=item.stage,
                state=item.state,
                detail=detail,
            )
            .on_conflict_do_nothing()
        )


async def list_sources(conn: AsyncConnection, restore_id: UUID) -> list[Source]:
    """Return the places of a restore: what was sent first, then by name."""
    rows = await conn.execute(
        select(restore_source)
        .where(restore_source.c.restore_id == restore_id)
        .order_by(restore_source.c.stage.desc(), restore_source.c.source)
    )
    return [_to_source(row) for row in rows]


async def get_source(conn: AsyncConnection, restore_id: UUID, source: str) -> Source:
    """Return a place, its row locked.

    Raises:
        UnknownRow: the restore has none of that name.
    """
    row = (
        await conn.execute(
            select(restore_source)
            .where(restore_source.c.restore_id == restore_id, restore_source.c.source == source)
            .with_for_update()
        )
    ).one_or_none()
    if row is None:
        raise UnknownRow(
            f"{source} is no place that this restore reads",
            remedy="See `causeway restore status`",
        )
    return _to_source(row)


async def move_source(
    conn: AsyncConnection,
    item: Source,
    to: SourceState,
    *,
    detail: str,
    by: str,
    now: datetime,
    signature: bytes | None = None,
) -> None:
    """Write what a locked place has come to."""
    SOURCE_STATES.require(item.state, to)
    waits = to is SourceState.WAITING
    await conn.execute(
        update(restore_source)
        .where(
            restore_source.c.restore_id == item.restore_id,
            restore_source.c.source == item.source,
        )
        .values(
            state=to,
            detail=detail,
            done_by=None if waits else by,
            done_at=None if waits else now,
            signature=signature,
        )
    )


async def find_target(conn: AsyncConnection, restore_id: UUID, source: str) -> int | None:
    """Return the height that a chain is to be followed to; None: nobody has asked yet."""
    query = select(restore_source.c.target).where(
        restore_source.c.restore_id == restore_id, restore_source.c.source == source
    )
    found: int | None = await conn.scalar(query)
    return found


async def save_target(conn: AsyncConnection, restore_id: UUID, source: str, target: int) -> None:
    """Write the height that a chain is to be followed to."""
    await conn.execute(
        update(restore_source)
        .where(restore_source.c.restore_id == restore_id, restore_source.c.source == source)
        .values(target=target)
    )


async def save_item(conn: AsyncConnection, item: Item) -> None:
    """Write something found; what people or an earlier reading have dealt with stays as it is."""
    values = {name: getattr(item, name) for name in Item.__dataclass_fields__}
    statement = insert(restore_item).values(**values)
    await conn.execute(
        statement.on_conflict_do_update(
            index_elements=["restore_id", "source", "key"],
            set_={"state": item.state, "what": item.what, "payout_id": item.payout_id},
            where=restore_item.c.state == ItemState.UNRESOLVED,
        )
    )


async def list_items(
    conn: AsyncConnection, restore_id: UUID, *, state: ItemState | None = None
) -> list[Item]:
    """Return what was found, at most `ITEMS_MAX`: first what people must look at."""
    query = select(restore_item).where(restore_item.c.restore_id == restore_id)
    if state is not None:
        query = query.where(restore_item.c.state == state)
    is_less = restore_item.c.state != ItemState.UNRESOLVED
    ordered = query.order_by(is_less, restore_item.c.source, restore_item.c.key).limit(ITEMS_MAX)
    return [_to_item(row) for row in await conn.execute(ordered)]


async def count_unresolved(conn: AsyncConnection, restore_id: UUID, source: str = "") -> int:
    """Return how many items, of one place or of all, people have to look at."""
    query = (
        select(func.count())
        .select_from(restore_item)
        .where(
            restore_item.c.restore_id == restore_id,
            restore_item.c.state == ItemState.UNRESOLVED,
        )
    )
    if source:
        query = query.where(restore_item.c.source == source)
    return int(await conn.scalar(query) or 0)


async def is_settled(conn: AsyncConnection, restore_id: UUID, source: str, key: str) -> bool:
    """Tell whether two people have dealt with an item by hand."""
    query = select(restore_item.c.state).where(
        restore_item.c.restore_id == restore_id,
        restore_item.c.source == source,
        restore_item.c.key == key,
    )
    return bool(await conn.scalar(query) == ItemState.SETTLED)


async def has_unresolved(conn: AsyncConnection, item: Item) -> bool:
    """Tell whether people have to look at what was found under this name."""
    query = select(restore_item.c.state).where(
        restore_item.c.restore_id == item.restore_id,
        restore_item.c.source == item.source,
        restore_item.c.key == item.key,
    )
    return bool(await conn.scalar(query) == ItemState.UNRESOLVED)


async def get_item(conn: AsyncConnection, restore_id: UUID, source: str, key: str) -> Item:
    """Return an item, its row locked.

    Raises:
        UnknownRow: there is none.
    """
    row = (
        await conn.execute(
            select(restore_item)
            .where(
                restore_item.c.restore_id == restore_id,
                restore_item.c.source == source,
                restore_item.c.key == key,
            )
            .with_for_update()
        )
    ).one_or_none()
    if row is None:
        raise UnknownRow(f"{source} has nothing called {key}")
    return _to_item(row)


async def settle_item(
    conn: AsyncConnection, item: Item, signed: dict[str, str], reason: str, now: datetime
) -> None:
    """Write that two people have dealt with a locked item."""
    ITEM_STATES.require(item.state, ItemState.SETTLED)
    await conn.execute(
        update(restore_item)
        .where(
            restore_item.c.restore_id == item.restore_id,
            restore_item.c.source == item.source,
            restore_item.c.key == item.key,
        )
        .values(state=ItemState.SETTLED, settled_by=signed, reason=reason, settled_at=now)
    )


def moment(ms: int) -> datetime:
    """Return milliseconds since 1970 as a time."""
    return EPOCH + timedelta(milliseconds=ms)


def _to_restore(row: Row[Any]) -> Restore:
    values = {name: getattr(row, name) for name in Restore.__dataclass_fields__}
    return Restore(**{**values, "state": RestoreState(row.state)})


def _to_source(row: Row[Any]) -> Source:
    values = {name: getattr(row, name) for name in Source.__dataclass_fields__}
    return Source(**{**values, "state": SourceState(row.state), "stage": Stage(row.stage)})


def _to_item(row: Row[Any]) -> Item:
    values = {name: getattr(row, name) for name in Item.__dataclass_fields__}
    return Item(**{**values, "state": ItemState(row.state)})
