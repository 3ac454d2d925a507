"""``causeway registry calendars, cutoffs``: bank holidays and cut-offs, kept by version."""

from __future__ import annotations

import re
from datetime import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli.common import AsJson, DryRun, clock, parse_date, read, show, show_one, write
from app.cli.operators import Approver, ApproverKey, As, Key, credentials
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from registry.holiday_model import Taken
    from registry.rail_cutoffs_model import RailCutoff

calendars = typer.Typer(help="Bank holidays, kept by version.", no_args_is_help=True)
cutoffs = typer.Typer(help="Until when a payment has value the same day.", no_args_is_help=True)

_YEARS: Final = re.compile(r"(\d{4})(?:-(\d{4}))?")

CalendarCode = Annotated[str, typer.Argument(metavar="COUNTRY", help="ISO 3166-1, small: gb.")]


@calendars.command("import")
def import_(
    code: CalendarCode,
    *,
    years: Annotated[str, typer.Option(help="2026-2030, first and last.")],
    part: Annotated[str, typer.Option(help="A part of the country: ENG.")] = "",
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take over a country's bank holidays from the library; two people sign their hash.

    Look at them first with --dry-run. Deals keep the version that their value date was found by, and
    no upgrade of the library changes what is kept.

    Example: `causeway registry calendars import gb --years 2026-2030 --part ENG --as ada --key ada.key --approver ben
    --approver-key ben.key --dry-run`
    """
    first, second = credentials(as_, key), credentials(approver, approver_key)
    span = _YEARS.fullmatch(years)
    if span is None:
        raise BadInput(f"{years!r} are no years", remedy="Write 2026-2030")
    from app.holiday_lists import read_holidays

    found = read_holidays(code, int(span[1]), int(span[2] or span[1]), subdivision=part)
    now = clock().now()

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from registry.kept_calendars import calendar_bytes, find_calendars, get_calendar, take_over

        me, other = await first.person(conn), await second.person(conn)
        known = (await find_calendars(conn, {code})).get(code)
        version = 1 if known is None else known.version + 1
        await take_over(
            conn,
            found,
            by=me.operator,
            approver=other.operator,
            signature=other.sign(calendar_bytes(found, version=version)),
            now=now,
        )
        return _facts(await get_calendar(conn, code))

    show_one("Calendar", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


@calendars.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List the kept calendars, each in its newest version.

    Example: `causeway registry calendars list`
    """

    async def work(conn: AsyncConnection) -> list[dict[str, str]]:
        from registry.kept_calendars import list_calendars

        return [_facts(item) for item in await list_calendars(conn)]

    columns = ("calendar", "version", "first_day", "last_day", "holidays", "source", "sha256")
    rows = [tuple(facts[column] for column in columns) for facts in read(work)]
    show("Calendars", columns, rows, as_json=as_json, right=("version", "holidays"))


@calendars.command("show")
def show_(
    code: CalendarCode,
    *,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="An older one; else the newest.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the holidays of a kept calendar.

    Example: `causeway registry calendars show gb`
    """

    async def work(conn: AsyncConnection) -> Taken:
        from registry.kept_calendars import get_calendar

        return await get_calendar(conn, code, version=version)

    found = read(work)
    rows = [(day.isoformat(), f"{day:%A}", name) for day, name in sorted(found.names.items())]
    show(f"Calendar {found.calendar}", ("day", "weekday", "name"), rows, as_json=as_json)


@calendars.command("next-value-date")
def next_value_date(
    assets: Annotated[list[str], typer.Argument(metavar="ASSET...", help="Codes: GBP USD.")],
    *,
    tenor: Annotated[int, typer.Option(min=0, max=30, help="Business days after: T+n.")] = 0,
    trade_date: Annotated[str | None, typer.Option(help="ISO date; else today in UTC.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say on which day the systems of all the assets are open, T+n after a day.

    Example: `causeway registry calendars next-value-date GBP USD --tenor 2`
    """
    day = parse_date(trade_date, clock().now())

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from registry.calendars import value_date
        from registry.kept_calendars import find_calendars
        from trading.terms.value_dates import calendars_of, countries_of, describe_calendars

        kept = await find_calendars(conn, countries_of(assets))
        joint = calendars_of(*assets, kept=kept)
        return {
            "assets": "+".join(assets),
            "trade_date": day.isoformat(),
            "tenor": f"T+{tenor}",
            "value_date": value_date(day, tenor, joint).isoformat(),
            "calendars": describe_calendars(joint),
        }

    show_one("Value date", read(work), as_json=as_json)


@cutoffs.command("set")
def set_cutoff_(
    asset: str,
    rail: Annotated[str, typer.Argument(help="evm, bitcoin, bank or book.")],
    local: Annotated[str, typer.Argument(metavar="TIME", help="On the clocks there: 15:30.")],
    zone: Annotated[str, typer.Argument(help="Whose clocks: Europe/London.")],
    *,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    as_json: AsJson = False,
) -> None:
    """Set until when a payment in an asset by a rail has value the same day; two people sign.

    Example: `causeway registry cutoffs set USDT evm 16:00 Europe/Berlin --as ada --key ada.key --approver ben
    --approver-key ben.key`
    """
    first, second = credentials(as_, key), credentials(approver, approver_key)
    try:
        at = time.fromisoformat(local)
    except ValueError as error:
        raise BadInput(f"{local!r} is not a time", remedy="Write 15:30") from error
    now = clock().now()

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from registry.kept_calendars import cutoff_bytes, cutoff_version, set_cutoff
        from registry.queries import get_asset
        from registry.rail_cutoffs_model import RailCutoff
        from trading.terms.model import Rail

        await get_asset(conn, asset)
        if rail not in set(Rail):
            raise BadInput(f"{rail!r} is not a rail", remedy=f"Use {', '.join(Rail)}")
        made = RailCutoff(
            asset=asset,
            rail=rail,
            version=await cutoff_version(conn, asset, rail) + 1,
            local=at,
            zone=zone,
        )
        me, other = await first.person(conn), await second.person(conn)
        await set_cutoff(
            conn,
            made,
            by=me.operator,
            approver=other.operator,
            signature=other.sign(cutoff_bytes(made)),
            now=now,
        )
        return {"asset": asset, "rail": rail, **_cutoff(made), "today": iso(made.at(now.date()))}

    show_one("Cut-off", write(work), as_json=as_json)


@cutoffs.command("list")
def list_cutoffs(
    *,
    day: Annotated[str | None, typer.Option("--day", help="ISO date; else today in UTC.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the cut-offs that are kept, and the moments in UTC that they are on a day.

    Example: `causeway registry cutoffs list --day 2026-10-25`
    """
    on = parse_date(day, clock().now())

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from registry.kept_calendars import find_cutoffs

        found = await find_cutoffs(conn)
        return [
            (asset, rail, *_cutoff(item).values(), iso(item.at(on)))
            for (asset, rail), item in sorted(found.items())
        ]

    columns = ("asset", "rail", "version", "local", "zone", "moment")
    show("Cut-offs", columns, read(work), as_json=as_json, right=("version",))


def _cutoff(item: RailCutoff) -> dict[str, str]:
    return {"version": str(item.version), "local": f"{item.local:%H:%M}", "zone": item.zone}


def _facts(item: Taken) -> dict[str, str]:
    kept = item.calendar
    return {
        "calendar": kept.code,
        "version": str(kept.version),
        "first_day": kept.first_day.isoformat(),
        "last_day": kept.last_day.isoformat(),
        "holidays": str(len(kept.closed)),
        "source": item.source,
        "sha256": item.sha256,
        "entered_by": item.entered_by,
        "approved_by": item.approved_by,
    }
