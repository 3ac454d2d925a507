"""``causeway settle windows``: when cycles are cut off, and their clocks; set by two people."""

from __future__ import annotations

from datetime import time
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    Amount,
    AsJson,
    Book,
    Money,
    clock,
    one_of,
    parse_date,
    read,
    show,
    show_one,
    write,
)
from app.cli.operators import Approver, ApproverKey, As, Key, credentials
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from settlement.model import Window

windows = typer.Typer(help="When cycles are cut off, and their clocks.", no_args_is_help=True)
WindowName = Annotated[str, typer.Argument(metavar="NAME", help="The window's name.")]


def register(app: typer.Typer) -> None:
    """Add this group to a group."""
    app.add_typer(windows, name="windows")


@windows.command("set")
def set_(
    name: WindowName,
    *,
    cut_off: Annotated[str, typer.Option("--cut-off", metavar="HH:MM", help="On the wall there.")],
    timezone: Annotated[str, typer.Option("--zone", help="As the IANA names it: Europe/Zurich.")],
    calendar: Annotated[
        list[str] | None, typer.Option("--calendar", help="Of its business days; several: joint.")
    ] = None,
    affirm: Annotated[int, typer.Option("--affirm", help="Minutes to affirm or dispute.")] = 120,
    top_up: Annotated[int, typer.Option("--top-up", help="Minutes to top up, after that.")] = 60,
    release: Annotated[int, typer.Option("--release", help="Minutes to the release.")] = 0,
    reaffirm: Annotated[
        int, typer.Option("--reaffirm", help="Minutes for the version after a dispute.")
    ] = 30,
    seal_by_clock: Annotated[
        bool, typer.Option("--seal-by-clock", help="Seal what is affirmed; else a person does.")
    ] = False,
    release_by_clock: Annotated[
        bool, typer.Option("--release-by-clock", help="Release what is sealed; else a person.")
    ] = False,
    method: Annotated[
        str, typer.Option(help="What is released if funds do not suffice: fifo, optimal, partial.")
    ] = "fifo",
    threshold: Annotated[
        list[str] | None, typer.Option(metavar="AMOUNT", help="Below it nothing moves: 100 USDT.")
    ] = None,
    effective_from: Annotated[
        str | None, typer.Option("--effective-from", help="First business date; else today (UTC).")
    ] = None,
    closed: Annotated[
        bool, typer.Option("--closed", help="From that date on it is not opened.")
    ] = False,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Write the next version of a window's policy, entered by one operator and signed by another.

    Example: `causeway settle windows set afternoon --cut-off 17:00 --zone Europe/Zurich --calendar target
    --threshold "100 USDT" --as ada --key ada.key --approver ben --approver-key ben.key`
    """
    from registry.calendars import Calendar
    from settlement.model import ReleaseMethod

    first, second = credentials(as_, key), credentials(approver, approver_key)
    now = clock().now()
    begins = parse_date(effective_from, now)
    at = _time(cut_off)
    calendars = [one_of(Calendar, item, "calendar") for item in calendar or ["always"]]
    chosen = one_of(ReleaseMethod, method, "method")
    amounts = [Amount.parse(item) for item in threshold or []]

    async def work(conn: AsyncConnection) -> tuple[Window, Money]:
        from settlement.model import Threshold, Window
        from settlement.windows import get_window, next_window_version, set_window, window_bytes

        me, other = await first.person(conn), await second.person(conn)
        money = await Money.load(conn)
        made = Window(
            book=book,
            name=name,
            version=await next_window_version(conn, book, name),
            effective_from=begins,
            active=not closed,
            cut_off=at,
            timezone=timezone,
            calendars=tuple(sorted(set(calendars))),
            affirm_minutes=affirm,
            top_up_minutes=top_up,
            release_minutes=release,
            reaffirm_minutes=reaffirm,
            seals_by_clock=seal_by_clock,
            releases_by_clock=release_by_clock,
            method=chosen,
            thresholds=tuple(
                Threshold(asset=item.asset, units=money.units(item))
                for item in sorted(amounts, key=lambda one: one.asset)
            ),
        )
        version = await set_window(
            conn,
            made,
            by=me.operator,
            approver=other.operator,
            signature=other.sign(window_bytes(made)),
            now=now,
        )
        return await get_window(conn, book, name, version), money

    window, money = write(work)
    show_one(f"Window {name}", window_facts(window, money), as_json=as_json)


@windows.command("show")
def show_windows(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only this one.")] = None,
    *,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List windows with every version of their policy.

    Example: `causeway settle windows show afternoon`
    """

    async def work(conn: AsyncConnection) -> tuple[list[Window], Money]:
        from settlement.windows import list_windows

        return await list_windows(conn, book, name), await Money.load(conn)

    found, money = read(work)
    facts = [window_facts(item, money) for item in found]
    columns = tuple(facts[0]) if facts else ("name", "version")
    show("Windows", columns, [tuple(item.values()) for item in facts], as_json=as_json)


def window_facts(window: Window, money: Money) -> dict[str, str]:
    """Return a window's policy as names and values."""
    limits = (money.text(item.units, item.asset) for item in window.thresholds)
    return {
        "name": window.name,
        "version": str(window.version),
        "effective_from": window.effective_from.isoformat(),
        "active": str(window.active).lower(),
        "cut_off": window.cut_off.isoformat("minutes"),
        "zone": window.timezone,
        "calendars": ", ".join(window.calendars),
        "affirm": f"{window.affirm_minutes} min",
        "top_up": f"{window.top_up_minutes} min",
        "release": f"{window.release_minutes} min",
        "reaffirm": f"{window.reaffirm_minutes} min",
        "seals": "clock" if window.seals_by_clock else "person",
        "releases": "clock" if window.releases_by_clock else "person",
        "method": str(window.method),
        "thresholds": ", ".join(limits),
    }


def _time(text: str) -> time:
    try:
        return time.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"{text!r} is not a time of day", remedy="Write it as 17:00") from error
