"""``causeway prices fx-import`` and ``fx-rates``: published reference rates of currencies."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli.common import AsJson, clock, parse_date, read, show, show_one, write
from app.cli.operators import As, Key, credentials
from app.cli.progress import progress_bar
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from marketdata.fx import FiatImport
    from marketdata.price_model import FiatRate

FILE_BYTES_MAX: Final = 16 * 2**20
DAYS: Final = 30


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    app.command("fx-import")(fx_import)
    app.command("fx-rates")(fx_rates)


def fx_import(
    file: Annotated[
        Path, typer.Argument(help="eurofxref…, as the ECB publishes it: .xml, .csv or .zip.")
    ],
    *,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Import reference rates from a file of the European Central Bank; what is known is left alone.

    Working days that nobody imported are named. The files are at
    https://www.ecb.europa.eu/stats/eurofxref/.

    Example: `causeway prices fx-import eurofxref-hist-90d.xml --as cleo --key cleo.key`
    """
    who = credentials(as_, key)
    content = _content(file)

    async def work(conn: AsyncConnection) -> FiatImport:
        from marketdata.fx import import_rates
        from registry.model import Role

        me = await who.person(conn, Role.FINANCE, Role.TREASURER, Role.OPERATIONS)
        progress = progress_bar("imported")
        return await import_rates(conn, content, by=me.code, now=clock().now(), progress=progress)

    done = write(work)
    facts = {
        "id": str(done.id),
        "is_new": str(done.is_new).lower(),
        "days": f"{done.days} from {done.first_day} to {done.last_day}",
        "rates": str(done.rates),
        "added": str(done.added),
        "corrected": str(done.corrected),
        "missing": ", ".join(day.isoformat() for day in done.missing),
        "sha256": done.sha256,
    }
    show_one("Rates", facts, as_json=as_json)


def fx_rates(
    currency: Annotated[str, typer.Argument(help="Of one euro, in this: USD.")],
    *,
    since: Annotated[str | None, typer.Option(help="From this day on; else a month.")] = None,
    until: Annotated[str | None, typer.Option(help="To this day; else today.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Corrected versions too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what one euro was worth in a currency, newest day first.

    Example: `causeway prices fx-rates USD --since 2026-10-01 --until 2026-10-31`
    """
    if re.fullmatch("[A-Z]{3}", currency) is None or currency == "EUR":
        raise BadInput(f"{currency!r} is not a currency that has rates", remedy="Write it as USD")
    last = parse_date(until, clock().now())
    first = last - timedelta(days=DAYS) if since is None else parse_date(since, clock().now())

    async def work(conn: AsyncConnection) -> list[FiatRate]:
        from marketdata.fx import list_rates

        return await list_rates(conn, currency, since=first, until=last, every_version=every)

    rows = [
        (item.day.isoformat(), item.text, str(item.version), str(item.import_id))
        for item in read(work)
    ]
    columns = ("day", "rate", "version", "import")
    show(f"{currency} for 1 EUR", columns, rows, as_json=as_json, right=("rate",))


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            content = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise BadInput(f"the file cannot be read: {error.strerror}", where=str(file)) from error
    if len(content) > FILE_BYTES_MAX:
        raise BadInput(f"the file has more than {FILE_BYTES_MAX:,} bytes", where=str(file))
    return content
