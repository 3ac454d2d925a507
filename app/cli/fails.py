"""``causeway fails``: what was due and is not final, how old it is, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    AsJson,
    Book,
    DryRun,
    Money,
    clock,
    parse_date,
    read,
    show,
    show_one,
    write,
)
from app.cli.operators import As, Key, credentials
from kernel.errors import Refused

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from settlement.fail_model import Fail

app = typer.Typer(help="What is late: list, age, explain.", no_args_is_help=True)

InstructionId = Annotated[
    UUID, typer.Argument(metavar="INSTRUCTION", help="Id of the late instruction.")
]
COLUMNS: Final = (
    *("id", "party", "direction", "open", "rail", "due", "age", "bucket", "expected", "rolls"),
    *("calendars", "cause", "cured"),
)


@app.command("list")
def list_(
    *,
    aged: Annotated[
        int, typer.Option("--aged", min=0, help="Only what is so many business days old or more.")
    ] = 0,
    cured: Annotated[bool, typer.Option("--cured", help="Also what was paid since.")] = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List what is late, the oldest due first, with its age in business days.

    Example: `causeway fails list --aged 1`
    """
    now = clock().now()

    async def work(conn: AsyncConnection) -> tuple[list[Fail], Money]:
        from settlement.fails import list_fails

        found = await list_fails(conn, book, now=now, aged=aged, cured=cured)
        return found, await Money.load(conn)

    found, money = read(work)
    rows = [tuple(_facts(item, money).values()) for item in found]
    show("Fails", COLUMNS, rows, as_json=as_json, right=("open", "age", "rolls"))


@app.command("note")
def note(*, book: Book = BOOK_DEFAULT, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Notice now what is late, roll what still is, end what was paid; the worker does it by itself.

    Example: `causeway fails note --dry-run`
    """
    now = clock().now()

    async def work(conn: AsyncConnection) -> tuple[list[Fail], Money]:
        from settlement.fails import note_fails

        return await note_fails(conn, book=book, now=now), await Money.load(conn)

    found, money = write(work, dry_run=dry_run)
    rows = [tuple(_facts(item, money).values()) for item in found]
    show("New fails", COLUMNS, rows, as_json=as_json, right=("open", "age", "rolls"))


@app.command("explain")
def explain(
    instruction: InstructionId,
    *,
    cause: Annotated[str, typer.Option("--cause", help="What people found out.")],
    as_: As,
    key: Key,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Write down why an instruction is late.

    Example: `causeway fails explain 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --cause "their limit" --as ada --key ada.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> tuple[Fail, Money]:
        from settlement.fails import note_cause

        me = await who.person(conn)
        done = await note_cause(
            conn, instruction, cause, book=book, by=me.operator, now=clock().now()
        )
        return done, await Money.load(conn)

    done, money = write(work)
    show_one("Fail", _facts(done, money), as_json=as_json)


@app.command("interest")
def interest(
    instruction: InstructionId,
    *,
    ppm: Annotated[
        int, typer.Option("--ppm", min=0, help="Parts in a million a year; 50000 is 5 %.")
    ],
    until: Annotated[str | None, typer.Option("--until", help="ISO date; else today.")] = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Tell what simple interest on what is late comes to, over a year of 360 days; nothing is booked.

    Example: `causeway fails interest 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --ppm 50000`
    """
    now = clock().now()
    day = parse_date(until, now)

    async def work(conn: AsyncConnection) -> tuple[list[Fail], Money]:
        from settlement.fails import list_fails

        return await list_fails(conn, book, now=now, cured=True), await Money.load(conn)

    found, money = read(work)
    chosen = [item for item in found if item.instruction_id == instruction]
    if not chosen:
        raise Refused(f"instruction {instruction} is not late", remedy="See `causeway fails list`")
    from settlement.ageing import late_interest

    item = chosen[0]
    units = late_interest(item.remaining, ppm, item.due_on, day)
    facts = _facts(item, money) | {
        "until": day.isoformat(),
        "interest": money.text(units, item.asset),
    }
    show_one("Interest", facts, as_json=as_json)


def _facts(item: Fail, money: Money) -> dict[str, str]:
    from settlement.ageing import bucket_of

    values = (
        str(item.instruction_id),
        item.party,
        str(item.direction),
        money.text(item.remaining, item.asset),
        str(item.rail),
        item.due_on.isoformat(),
        str(item.age),
        bucket_of(item.age),
        item.value_date.isoformat(),
        str(item.rolls),
        f"{item.calendars_version}:{item.calendars}",
        item.cause,
        "" if item.cured_at is None else item.cured_at.date().isoformat(),
    )
    return dict(zip(COLUMNS, values, strict=True))
