"""The prices of a month's end: found by the hierarchies, hashed, signed, locked, never changed again.

The moment is the first one after the month, in UTC. No market price that was observed later can be
in a snapshot; a manual one can be approved later, if it was signed to stand at that moment. Nothing
that is recorded later can get into one that is locked: its lines are written before it, and
PostgreSQL takes none after.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.clock import iso
from kernel.db import constraint_name
from kernel.errors import BadInput
from kernel.events import DomainEvent, record
from kernel.ids import stable_id
from marketdata.errors import NoPrice, SnapshotRefused
from marketdata.hierarchy import DEFAULT, Hierarchies
from marketdata.price_model import Pair, PriceSnapshot, Purpose, SnapshotLine
from marketdata.price_resolution import resolve_price
from marketdata.price_tables import price_snapshot, price_snapshot_line
from marketdata.prices import get_price
from registry.authority import require_role, signing_bytes, verify_signature
from registry.errors import NotAuthorised
from registry.model import Role
from registry.queries import get_operator

LOCKERS: Final = (Role.FINANCE, Role.TREASURER)
PAIRS_MAX: Final = 1_000
AGE_MAX: Final = timedelta(hours=1)
"""How old a market price may be at the month's end, unless the hierarchy of its pair says less."""

LISTED_MAX: Final = 500
LACKING: Final = "Let two people approve a price from before that moment on"
LOCKED_CONSTRAINT: Final = "price_snapshot_locked"
"""What the trigger names that takes no lines into a locked snapshot."""


def month_end(month: date) -> datetime:
    """Return the first moment after a month, given its first day, in UTC.

    Raises:
        BadInput: it is not the first day of a month.
    """
    if month.day != 1:
        raise BadInput(f"{month} is not the first day of a month")
    after = (month + timedelta(days=31)).replace(day=1)
    return datetime.combine(after, time(0), tzinfo=UTC)


def hash_lines(month: date, lines: Sequence[SnapshotLine]) -> str:
    """Return the SHA-256 over a month and its lines, in hexadecimal.

    Over one JSON document (RFC 8259) in UTF-8, keys sorted, no white space: the month, and the lines
    by pair with price id, ratio in smallest units and scales, kind, quality and time of observation.
    """
    document = {
        "month": month.isoformat(),
        "lines": [
            {
                "base": line.price.base.code,
                "base_scale": line.price.base.scale,
                "quote": line.price.quote.code,
                "quote_scale": line.price.quote.scale,
                "numerator": str(line.price.numerator),
                "denominator": str(line.price.denominator),
                "price_id": str(line.price_id),
                "kind": line.kind,
                "quality": line.quality,
                "observed_at": line.observed_at.astimezone(UTC).isoformat(),
            }
            for line in sorted(lines, key=lambda line: line.pair)
        ],
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def snapshot_bytes(month: date, content_hash: str) -> bytes:
    """Return what whoever locks a month signs."""
    return signing_bytes(
        "price-snapshot.lock", {"month": month.isoformat(), "content_hash": content_hash}
    )


async def prepare_snapshot(
    conn: AsyncConnection,
    month: date,
    pairs: Sequence[Pair],
    *,
    now: datetime,
    hierarchies: Hierarchies | None = None,
) -> tuple[SnapshotLine, ...]:
    """Return the lines that a snapshot of *month* would have.

    Raises:
        SnapshotRefused: the month is not over or is locked, or pairs have no price: names them all.
        BadInput: no pair, or one twice.
    """
    as_of = month_end(month)
    names = [str(pair) for pair in pairs]
    if not 0 < len(set(names)) == len(names) <= PAIRS_MAX:
        raise BadInput(f"a snapshot is of 1 to {PAIRS_MAX} different pairs")
    if now < as_of:
        raise SnapshotRefused(f"{month:%Y-%m} is not over before {iso(as_of)}")
    await _require_unlocked(conn, month)
    given = hierarchies or Hierarchies(default=DEFAULT.within(AGE_MAX))
    lines, missing = [], []
    for pair in pairs:
        rungs = given.of(pair.base.code, pair.quote.code)
        try:
            found = await resolve_price(
                conn,
                pair,
                at=as_of,
                purpose=Purpose.VALUATION,
                now=now,
                hierarchy=rungs,
                is_closing=True,
            )
        except NoPrice as error:
            missing.append(error.what + f" ({error.where})")
            continue
        price = found.price
        lines.append(
            SnapshotLine(
                price_id=price.id,
                price=price.record.price,
                kind=str(price.record.kind),
                quality=str(price.record.quality),
                observed_at=price.record.observed_at,
            )
        )
    if missing:
        raise SnapshotRefused("; ".join(missing), remedy=LACKING)
    return tuple(sorted(lines, key=lambda line: line.pair))


async def lock_snapshot(
    conn: AsyncConnection,
    month: date,
    lines: Sequence[SnapshotLine],
    *,
    by: str,
    signature: bytes,
    now: datetime,
) -> PriceSnapshot:
    """Lock the lines that `prepare_snapshot` returned in this transaction.

    Args:
        signature: Ed25519, over `snapshot_bytes` of the month and `hash_lines`.

    Raises:
        SnapshotRefused: the month is locked.
        NotAuthorised: the operator may not, or did not sign exactly this.
    """
    operator = await get_operator(conn, by)
    require_role(operator, *LOCKERS)
    snapshot = PriceSnapshot(
        id=stable_id("price-snapshot", month.isoformat()),
        month=month,
        as_of=month_end(month),
        content_hash=hash_lines(month, lines),
        locked_by=by,
        locked_at=now,
        signature=signature,
        lines=tuple(lines),
    )
    verify_signature(operator, snapshot_bytes(month, snapshot.content_hash), signature)
    await _require_unlocked(conn, month)
    await _insert(conn, snapshot)
    event = DomainEvent(
        entity_type="price-snapshot",
        entity_id=snapshot.id,
        version=1,
        name="PriceSnapshotLocked",
        at=now,
        actor=by,
        payload={"month": f"{month:%Y-%m}", "content_hash": snapshot.content_hash},
    )
    await record(conn, [event])
    return snapshot


async def get_snapshot(conn: AsyncConnection, month: date) -> PriceSnapshot:
    """Return the locked prices of a month.

    Raises:
        SnapshotRefused: it is not locked.
    """
    query = select(price_snapshot).where(price_snapshot.c.month == month)
    row = (await conn.execute(query)).one_or_none()
    if row is None:
        raise SnapshotRefused(f"the prices of {month:%Y-%m} are not locked")
    ids = await conn.execute(
        select(price_snapshot_line.c.price_id)
        .where(price_snapshot_line.c.snapshot_id == row.id)
        .order_by(price_snapshot_line.c.base, price_snapshot_line.c.quote)
    )
    prices = [await get_price(conn, price_id) for price_id in ids.scalars()]
    lines = tuple(
        SnapshotLine(
            price_id=found.id,
            price=found.record.price,
            kind=str(found.record.kind),
            quality=str(found.record.quality),
            observed_at=found.record.observed_at,
        )
        for found in prices
    )
    return _snapshot(row, lines)


async def list_snapshots(conn: AsyncConnection) -> list[PriceSnapshot]:
    """Return the locked months, newest first, without their lines."""
    rows = await conn.execute(
        select(price_snapshot).order_by(price_snapshot.c.month.desc()).limit(LISTED_MAX)
    )
    return [_snapshot(row, ()) for row in rows]


async def verify_snapshot(conn: AsyncConnection, month: date) -> list[str]:
    """Return what is wrong with a locked month: its hash, its signature; nothing, if all is well.

    Raises:
        SnapshotRefused: it is not locked.
    """
    found = await get_snapshot(conn, month)
    faults = []
    now_hash = hash_lines(month, found.lines)
    if now_hash != found.content_hash:
        faults.append(f"the lines of {month:%Y-%m} have hash {now_hash}, not {found.content_hash}")
    operator = await get_operator(conn, found.locked_by)
    try:
        verify_signature(operator, snapshot_bytes(month, found.content_hash), found.signature)
    except NotAuthorised as error:
        faults.append(error.what)
    return faults


async def _require_unlocked(conn: AsyncConnection, month: date) -> None:
    query = select(price_snapshot.c.locked_by, price_snapshot.c.locked_at)
    row = (await conn.execute(query.where(price_snapshot.c.month == month))).one_or_none()
    if row is not None:
        raise _locked(month, f" by {row.locked_by} at {iso(row.locked_at)}")


async def _insert(conn: AsyncConnection, snapshot: PriceSnapshot) -> None:
    """Write the lines, then the snapshot: of two at once, one waits at a line and is refused."""
    rows = [
        {
            "snapshot_id": snapshot.id,
            "base": line.price.base.code,
            "quote": line.price.quote.code,
            "price_id": line.price_id,
        }
        for line in sorted(snapshot.lines, key=lambda line: line.pair)
    ]
    lines = insert(price_snapshot_line).values(rows).on_conflict_do_nothing()
    try:
        written = (await conn.execute(lines)).rowcount
    except IntegrityError as error:
        if constraint_name(error) != LOCKED_CONSTRAINT:
            raise
        raise _locked(snapshot.month) from error
    if written != len(rows):
        raise _locked(snapshot.month)
    head = insert(price_snapshot).values(
        id=snapshot.id,
        month=snapshot.month,
        as_of=snapshot.as_of,
        content_hash=snapshot.content_hash,
        locked_by=snapshot.locked_by,
        locked_at=snapshot.locked_at,
        signature=snapshot.signature,
    )
    if (await conn.execute(head.on_conflict_do_nothing())).rowcount != 1:
        raise _locked(snapshot.month)


def _locked(month: date, by: str = "") -> SnapshotRefused:
    return SnapshotRefused(
        f"the prices of {month:%Y-%m} are locked{by}", remedy="What is locked is never changed"
    )


def _snapshot(row: Row[Any], lines: tuple[SnapshotLine, ...]) -> PriceSnapshot:
    return PriceSnapshot(
        id=row.id,
        month=row.month,
        as_of=row.as_of,
        content_hash=row.content_hash,
        locked_by=row.locked_by,
        locked_at=row.locked_at,
        signature=row.signature,
        lines=lines,
    )
