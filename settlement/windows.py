"""Windows: when cycles are cut off and what their clocks are. Two people, one version after another.

No version is ever rewritten, and a cycle keeps the number of the one it was opened under: a change
never moves the clocks of a cycle that runs. A window nobody has set can be opened by hand, at any
moment, under the house's policy (`by_hand`).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from registry.authority import signing_bytes
from registry.calendars import Calendar
from registry.cutoffs import moment_of
from registry.model import Operator, Role
from registry.queries import find_assets
from settlement import cycle_store
from settlement.errors import ChangedMeanwhile
from settlement.model import ReleaseMethod, Window
from trading.terms.signing import record_change, require_two

ENTITY: Final = "settlement-window"
ENTERED_BY: Final = (Role.TREASURER, Role.OPERATIONS)


def window_fields(window: Window) -> dict[str, Any]:
    """Return a policy as plain values, every field of it: what is signed, told and shown."""
    return {
        "book": window.book,
        "name": window.name,
        "version": window.version,
        "effective_from": window.effective_from.isoformat(),
        "active": window.active,
        "cut_off": window.cut_off.isoformat("minutes"),
        "timezone": window.timezone,
        "calendars": [str(calendar) for calendar in window.calendars],
        "affirm_minutes": window.affirm_minutes,
        "top_up_minutes": window.top_up_minutes,
        "release_minutes": window.release_minutes,
        "reaffirm_minutes": window.reaffirm_minutes,
        "seals_by_clock": window.seals_by_clock,
        "releases_by_clock": window.releases_by_clock,
        "method": str(window.method),
        "thresholds": {item.asset: str(item.units) for item in window.thresholds},
    }


def window_bytes(window: Window) -> bytes:
    """Return what the second operator signs to accept a version of a window's policy."""
    return signing_bytes("settlement.window", window_fields(window))


async def set_window(
    conn: AsyncConnection,
    window: Window,
    *,
    by: Operator,
    approver: Operator,
    signature: bytes,
    now: datetime,
) -> int:
    """Write the next version of a window's policy and return its number.

    The newest version's content again: nothing is written, and its number is returned.

    Args:
        conn: the caller's transaction.
        window: with the number of the next version.
        by: who enters it: the treasury or operations.
        approver: who signs it: the treasury or an approver.
        signature: the approver's, over `window_bytes`.
        now: the time; the policy begins today (UTC) or later.

    Raises:
        BadInput: no such zone, or a threshold is of an asset that is not registered.
        Refused: it begins in the past, the people may not, or the signature does not hold.
        ChangedMeanwhile: the number is not the next one.
    """
    versions = await cycle_store.list_windows(conn, window.book, window.name)
    newest = versions[-1] if versions else None
    if newest is not None and replace(window, version=newest.version) == newest:
        return newest.version
    if window.version != (0 if newest is None else newest.version) + 1:
        raise ChangedMeanwhile(
            f"version {window.version} of window {window.name} is not the next one"
        )
    await _require_possible(conn, window, now)
    people = await require_two(
        conn, by, approver, window_bytes(window), signature, entered_by=ENTERED_BY
    )
    if not await cycle_store.insert_window(
        conn,
        window,
        entered_by=people.first.code,
        approved_by=people.second.code,
        signature=signature,
        at=now,
    ):
        raise ChangedMeanwhile(f"window {window.name} was changed just now")
    details = window_fields(window)
    # The version of an event has its own meaning.
    details["window_version"] = details.pop("version")
    key = f"{window.book}/{window.name}"
    await record_change(conn, ENTITY, key, "WindowSet", details, people, now)
    return window.version


async def find_window(conn: AsyncConnection, book: int, name: str, *, on: date) -> Window | None:
    """Return the policy of a window that holds on a business date; None: nobody has set it."""
    return await cycle_store.find_window(conn, book, name, on=on)


async def get_window(conn: AsyncConnection, book: int, name: str, version: int) -> Window:
    """Return one version of a window's policy; version 0 is the house's."""
    if version == 0:
        return by_hand(book, name)
    return await cycle_store.get_window(conn, book, name, version)


async def next_window_version(conn: AsyncConnection, book: int, name: str) -> int:
    """Return the version that the window's next policy will have."""
    return len(await cycle_store.list_windows(conn, book, name)) + 1


async def list_windows(conn: AsyncConnection, book: int, name: str | None = None) -> list[Window]:
    """Return every version of every window's policy, or of one window's, by name and version."""
    return await cycle_store.list_windows(conn, book, name)


def by_hand(book: int, name: str) -> Window:
    """Return the house's policy for a window nobody has set: people seal and release.

    Its cut-off is whenever somebody opens it.
    """
    return Window(
        book=book,
        name=name,
        version=0,
        effective_from=date.min,
        cut_off=datetime(1970, 1, 1, tzinfo=UTC).time(),
        timezone="UTC",
        calendars=(Calendar.ALWAYS,),
        affirm_minutes=120,
        top_up_minutes=60,
        release_minutes=0,
        reaffirm_minutes=30,
        seals_by_clock=False,
        releases_by_clock=False,
        method=ReleaseMethod.FIFO,
    )


async def _require_possible(conn: AsyncConnection, window: Window, now: datetime) -> None:
    if window.effective_from < now.date():
        raise Refused(
            f"a window cannot begin in the past, on {window.effective_from.isoformat()}",
            remedy=f"The first day possible is {now.date().isoformat()}",
        )
    # Refuses a zone that nobody knows.
    moment_of(window.effective_from, window.cut_off, window.timezone)
    asked = {item.asset for item in window.thresholds}
    unknown = sorted(asked - (await find_assets(conn, asked)).keys())
    if unknown:
        raise BadInput(f"no asset {unknown[0]!r} is registered", where=f"window {window.name}")
