"""Countries' bank holidays: taken over by two people, one version after the other, never rewritten.

Where they come from (a library, a list of a central bank) is for whoever takes them over; from then on
only what is kept here counts. So no upgrade of a library moves a value date that was agreed, and what
was agreed names the version that it was agreed by.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import Refused
from kernel.events import DomainEvent, next_version, record
from kernel.ids import stable_id
from registry import calendar_store as store
from registry.authority import signing_bytes
from registry.calendars import KeptCalendar
from registry.errors import UnknownRecord
from registry.holiday_model import Holidays, Taken
from registry.model import Operator, Role
from registry.people import require_operator, require_second
from registry.rail_cutoffs_model import RailCutoff

ENTITY: Final = "calendar"
CUTOFF_ENTITY: Final = "cutoff"
ENTERED_BY: Final = (Role.TREASURER, Role.OPERATIONS)
SIGNED_BY: Final = (Role.TREASURER, Role.APPROVER)


def calendar_bytes(holidays: Holidays, *, version: int) -> bytes:
    """Return what the second operator signs to take over *version* of a country's holidays."""
    return signing_bytes(
        "registry.calendar",
        {
            "calendar": holidays.calendar.code,
            "version": version,
            "sha256": holidays.sha256,
            "source": holidays.source,
        },
    )


async def take_over(
    conn: AsyncConnection,
    holidays: Holidays,
    *,
    by: Operator,
    approver: Operator,
    signature: bytes,
    now: datetime,
) -> int:
    """Write the next version of a country's holidays and return its number; the same again: nothing.

    Args:
        conn: the caller's transaction.
        holidays: what is taken over; the version number in it does not count.
        by: who enters it: the treasury or operations.
        approver: who signs it: the treasury or an approver.
        signature: the approver's, over `calendar_bytes` of the next version.
        now: the time.

    Raises:
        SamePerson: the two are one.
        NotAuthorised: one of them may not, or the signature does not hold.
        Refused: somebody else took over a version just now.
    """
    code = holidays.calendar.code
    newest = await store.list_newest(conn, {code})
    version = newest[0].calendar.version if newest else 0
    if newest and newest[0].sha256 == holidays.sha256:
        return version
    version += 1
    first = await require_operator(conn, by, *ENTERED_BY)
    payload = calendar_bytes(holidays, version=version)
    second = await require_second(
        conn, first, approver, *SIGNED_BY, payload=payload, signature=signature
    )
    item = Taken(
        replace(holidays.calendar, version=version),
        holidays.names,
        holidays.source,
        holidays.sha256,
        first.code,
        second.code,
        now,
    )
    if not await store.insert_calendar(conn, item):
        raise Refused(f"calendar {code} was changed just now", remedy="Look at it and sign again")
    details = {"calendar": str(item.calendar), "sha256": item.sha256, "source": item.source}
    await _record(conn, ENTITY, code, "CalendarTaken", details, (first.code, second.code), now)
    return version


async def find_calendars(conn: AsyncConnection, codes: Collection[str]) -> dict[str, KeptCalendar]:
    """Return the newest versions of those of *codes* that are kept, by code."""
    if not codes:
        return {}
    return {item.calendar.code: item.calendar for item in await store.list_newest(conn, codes)}


async def list_calendars(conn: AsyncConnection) -> list[Taken]:
    """Return the newest version of every calendar, by code."""
    return await store.list_newest(conn)


async def get_calendar(conn: AsyncConnection, code: str, *, version: int | None = None) -> Taken:
    """Return a version of a calendar, the newest unless one is named.

    Raises:
        UnknownRecord: it is not kept.
    """
    found = await store.list_versions(conn, code)
    chosen = [item for item in found if version in {None, item.calendar.version}]
    if not chosen:
        what = code if version is None else f"{code}@{version}"
        raise UnknownRecord(
            f"no calendar {what} is kept", remedy="See `causeway registry calendars list`"
        )
    return chosen[-1]


def cutoff_bytes(cutoff: RailCutoff) -> bytes:
    """Return what the second operator signs to have a cut-off hold, as the version it carries."""
    return signing_bytes("registry.cutoff", _cutoff_fields(cutoff))


async def set_cutoff(
    conn: AsyncConnection,
    cutoff: RailCutoff,
    *,
    by: Operator,
    approver: Operator,
    signature: bytes,
    now: datetime,
) -> RailCutoff:
    """Have a cut-off hold, as the version that it carries: the one after the newest.

    Raises:
        SamePerson: the two are one.
        NotAuthorised: one of them may not, or the signature does not hold.
        Refused: the version is not the next one.
    """
    known = await cutoff_version(conn, cutoff.asset, cutoff.rail)
    first = await require_operator(conn, by, *ENTERED_BY)
    payload = cutoff_bytes(cutoff)
    second = await require_second(
        conn, first, approver, *SIGNED_BY, payload=payload, signature=signature
    )
    if cutoff.version != known + 1 or not await store.insert_cutoff(
        conn, cutoff, entered_by=first.code, approved_by=second.code, at=now
    ):
        raise Refused(
            f"version {cutoff.version} of a cut-off of {cutoff.asset} was signed, {known} holds",
            remedy="Look at it as it is now, and sign the next version",
        )
    key = f"{cutoff.asset}/{cutoff.rail}"
    details = {**_cutoff_fields(cutoff), "cutoff_version": cutoff.version}
    await _record(conn, CUTOFF_ENTITY, key, "CutoffSet", details, (first.code, second.code), now)
    return cutoff


async def cutoff_version(conn: AsyncConnection, asset: str, rail: str) -> int:
    """Return the version of a cut-off that holds; 0: there is none."""
    known = (await find_cutoffs(conn, {asset})).get((asset, rail))
    return 0 if known is None else known.version


async def find_cutoffs(
    conn: AsyncConnection, assets: Collection[str] | None = None
) -> dict[tuple[str, str], RailCutoff]:
    """Return the cut-offs that hold by (asset, rail), of all assets unless some are named."""
    return {(item.asset, item.rail): item for item in await store.list_cutoffs(conn, assets)}


def _cutoff_fields(cutoff: RailCutoff) -> dict[str, object]:
    return {
        "asset": cutoff.asset,
        "rail": cutoff.rail,
        "version": cutoff.version,
        "local": cutoff.local.isoformat(),
        "zone": cutoff.zone,
    }


async def _record(
    conn: AsyncConnection,
    entity: str,
    key: str,
    name: str,
    details: Mapping[str, object],
    people: tuple[str, str],
    now: datetime,
) -> None:
    entity_id = stable_id(entity, key)
    event = DomainEvent(
        entity_type=entity,
        entity_id=entity_id,
        version=await next_version(conn, entity, entity_id),
        name=name,
        at=now,
        actor=people[0],
        reason=f"approved by {people[1]}",
        payload=dict(details),
    )
    await record(conn, [event])
