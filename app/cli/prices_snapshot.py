"""``causeway prices snapshot``, ``snapshots``, ``check-snapshot``: the locked prices of a month's end."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import AsJson, DryRun, clock, emit, read, show, show_one, write
from app.cli.operators import As, Key, credentials
from app.cli.prices_shown import HouseOfPrices, hierarchies_of, load_pair, split_pair
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from marketdata.price_model import PriceSnapshot, SnapshotLine

Month = Annotated[str, typer.Argument(metavar="MONTH", help="2026-10.")]
LINE_COLUMNS = ("pair", "price", "kind", "quality", "observed", "price_id")


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    app.command()(snapshot)
    app.command()(snapshots)
    app.command("check-snapshot")(check_snapshot)


def snapshot(
    month: Month,
    *,
    pairs: Annotated[list[str], typer.Option("--pair", help="ETH/USDT; once for each pair.")],
    house: HouseOfPrices = None,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Lock the prices of a month's end: your key signs their hash, and they never change again.

    The recorded frames behind them are kept whatever their age. Of a month that has a pair without a
    price nothing is locked.

    Example: `causeway prices snapshot 2026-10 --pair ETH/USDT --pair EUR/USD --as cleo --key cleo.key`
    """
    who = credentials(as_, key)
    first = parse_month(month)
    for pair in pairs:
        split_pair(pair)
    from marketdata.price_snapshots import AGE_MAX

    hierarchies = hierarchies_of(house, within=AGE_MAX)

    async def work(conn: AsyncConnection) -> tuple[PriceSnapshot, int]:
        from marketdata.price_evidence import hold_evidence
        from marketdata.price_snapshots import (
            hash_lines,
            lock_snapshot,
            prepare_snapshot,
            snapshot_bytes,
        )
        from marketdata.prices import get_price

        me, now = await who.person(conn), clock().now()
        assets = [await load_pair(conn, pair) for pair in pairs]
        lines = await prepare_snapshot(conn, first, assets, now=now, hierarchies=hierarchies)
        signature = me.sign(snapshot_bytes(first, hash_lines(first, lines)))
        locked = await lock_snapshot(conn, first, lines, by=me.code, signature=signature, now=now)
        prices = [await get_price(conn, line.price_id) for line in lines]
        held = await hold_evidence(conn, prices, f"price snapshot {first:%Y-%m}")
        return locked, held

    locked, held = write(work, dry_run=dry_run)
    facts = {**_facts(locked), "files_held": str(held)}
    if as_json:
        emit({**facts, "dry_run": dry_run, "lines": _lines(locked.lines)})
        return
    show_one(f"Prices of {first:%Y-%m}", facts, as_json=False)
    _show_lines(locked.lines)


def snapshots(
    month: Annotated[str | None, typer.Argument(metavar="[MONTH]", help="Its prices.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List the locked months, or the prices of one.

    Example: `causeway prices snapshots 2026-10`
    """
    first = None if month is None else parse_month(month)

    async def work(conn: AsyncConnection) -> list[PriceSnapshot]:
        from marketdata.price_snapshots import get_snapshot, list_snapshots

        return await list_snapshots(conn) if first is None else [await get_snapshot(conn, first)]

    found = read(work)
    if first is not None:
        if as_json:
            emit({**_facts(found[0]), "lines": _lines(found[0].lines)})
        else:
            show_one(f"Prices of {first:%Y-%m}", _facts(found[0]), as_json=False)
            _show_lines(found[0].lines)
        return
    columns = ("month", "as_of", "locked_by", "locked", "hash")
    show("Locked months", columns, [tuple(_facts(x).values()) for x in found], as_json=as_json)


def check_snapshot(month: Month, *, as_json: AsJson = False) -> None:
    """Check that a locked month is as it was locked: its hash and the signature; else exit code 1.

    Example: `causeway prices check-snapshot 2026-10`
    """
    first = parse_month(month)

    async def work(conn: AsyncConnection) -> list[str]:
        from marketdata.price_snapshots import verify_snapshot

        return await verify_snapshot(conn, first)

    faults = read(work)
    facts = {"month": f"{first:%Y-%m}", "faults": "; ".join(faults)}
    show_one("As it was locked" if not faults else "NOT as it was locked", facts, as_json=as_json)
    if faults:
        raise typer.Exit(1)


def parse_month(text: str) -> date:
    """Read ``2026-10`` as its first day.

    Raises:
        BadInput: it is not a month.
    """
    try:
        return date.fromisoformat(f"{text}-01")
    except ValueError as error:
        raise BadInput(f"{text!r} is not a month", remedy="Write 2026-10") from error


def _facts(item: PriceSnapshot) -> dict[str, str]:
    return {
        "month": f"{item.month:%Y-%m}",
        "as_of": iso(item.as_of),
        "locked_by": item.locked_by,
        "locked": iso(item.locked_at),
        "hash": item.content_hash,
    }


def _show_lines(lines: Sequence[SnapshotLine]) -> None:
    rows = [tuple(line.values()) for line in _lines(lines)]
    show("Prices", LINE_COLUMNS, rows, as_json=False, right=("price",))


def _lines(lines: Sequence[SnapshotLine]) -> list[dict[str, str]]:
    return [
        {
            "pair": line.pair,
            "price": line.price.format(),
            "kind": line.kind,
            "quality": line.quality,
            "observed": iso(line.observed_at),
            "price_id": str(line.price_id),
        }
        for line in lines
    ]
