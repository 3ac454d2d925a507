"""``causeway settle run``: what the clock of the house does for a window, for an external cron."""

from __future__ import annotations

from datetime import date
from random import SystemRandom
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    AsJson,
    Book,
    DryRun,
    clock,
    emit,
    on_database,
    parse_date,
    rehearse,
    run,
    show,
)
from kernel.errors import Refused

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from app.workers.cycle_release import Do
    from app.workers.cycles import CyclesTurn
    from settlement.model import Cycle, RunState

SOLVER_LIMIT_S: Final = 10.0
REHEARSAL_LIMIT_S: Final = 1.0
"""A rehearsal is one transaction, in which nobody may think for long."""
COLUMNS: Final = ("date", "window", "state", "runs", "cut_off", "release_at")


def register(app: typer.Typer) -> None:
    """Add the command to a group."""
    app.command("run")(run_)


def run_(
    *,
    window: Annotated[str, typer.Option(help="The window, as `causeway settle windows` has it.")],
    day: Annotated[
        str | None,
        typer.Option("--date", help="A business date whose cycle must be there afterwards."),
    ] = None,
    book: Book = BOOK_DEFAULT,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Do what is due in a window: open missed slots in their order, seal, release and pay.

    The same that `causeway up` does by itself, as often as you like and beside it: each slot is opened
    once. What the window leaves to people waits for them. Policies are of two people, so nobody has to
    sign here.

    Example: `causeway settle run --window morning --date 2026-11-20 --dry-run`
    """
    wanted = None if day is None else parse_date(day, clock().now())
    limit = REHEARSAL_LIMIT_S if dry_run else SOLVER_LIMIT_S
    job = _Job(window, wanted, book, time_limit_s=limit)

    async def on(engine: AsyncEngine) -> None:
        from app.workers.cycle_release import BehindSavepoints, InTransactions

        if dry_run:
            await rehearse(engine, lambda conn: job.take_turn(BehindSavepoints(conn)))
        else:
            await job.take_turn(InTransactions(engine))

    run(lambda: on_database(on))
    job.tell(dry_run=dry_run, as_json=as_json)


class _Job:
    """One call of the command: what it was asked, and what came of it."""

    def __init__(self, window: str, day: date | None, book: int, *, time_limit_s: float) -> None:
        self._window = window
        self._day = day
        self._book = book
        self._time_limit_s = time_limit_s
        self._rows: list[tuple[str, ...]] = []
        self._turn: CyclesTurn | None = None

    async def take_turn(self, do: Do) -> None:
        """Do what is due, and read how the window's cycles stand."""
        from app.workers.cycles import CycleWorker

        await do(self._require_due)
        # Another name for each call: a lease is one worker's.
        holder = f"settle-run-{SystemRandom().random():.17f}"
        worker = CycleWorker(
            do=do,
            clock=clock(),
            book=self._book,
            holder=holder,
            time_limit_s=self._time_limit_s,
        )
        self._turn = await worker.turn({self._window})
        await do(self._read)

    async def _require_due(self, conn: AsyncConnection) -> None:
        """Refuse a window nobody has set, and a date that has no cycle yet."""
        from settlement.slots import find_slot
        from settlement.windows import list_windows

        versions = await list_windows(conn, self._book, self._window)
        if not versions:
            raise Refused(
                f"nobody has set a window {self._window}",
                remedy="Set one: `causeway settle windows set`; or open by hand: `settle open`",
            )
        if self._day is None:
            return
        slot = find_slot(versions, self._day)
        if slot is None:
            raise Refused(
                f"window {self._window} has no cycle on {self._day}",
                remedy="Look at its calendars: `causeway settle windows show`",
            )
        if slot.cutoff_at > clock().now():
            raise Refused(f"the cut-off of {self._window} on {self._day} is at {slot.cutoff_at}")

    async def _read(self, conn: AsyncConnection) -> None:
        from settlement.queries import find_cycle, get_cycle, list_cycle_runs, list_live_cycles

        live = [
            await get_cycle(conn, one)
            for one in await list_live_cycles(conn, self._book, limit=200)
        ]
        opened = self._turn.opened if self._turn is not None else []
        found: dict[object, Cycle] = {
            one.id: one for one in [*opened, *live] if one.window == self._window
        }
        if self._day is not None:
            asked = await find_cycle(conn, self._book, self._day, self._window)
            if asked is not None:
                found[asked.id] = asked
        for one in sorted(found.values(), key=lambda c: c.cutoff_at):
            states = [item.state for item in await list_cycle_runs(conn, one.id)]
            self._rows.append(_row(one, states))

    def tell(self, *, dry_run: bool, as_json: bool) -> None:
        """Say what was done; a slot or cycle that failed ends with exit code 1."""
        turn = self._turn
        assert turn is not None, "the turn comes first"
        waits = {key: why for done in turn.released for key, why in done.waits.items()}
        facts = {
            "opened": len(turn.opened),
            "lapsed": len(turn.lapsed),
            "sealed": len(turn.sealed),
            "held": sum(done.held for done in turn.released),
            "payouts": sum(len(done.payouts) for done in turn.released),
            "by_book": sum(len(done.settled) for done in turn.released),
        }
        if as_json:
            cycles = [dict(zip(COLUMNS, row, strict=True)) for row in self._rows]
            document = {**facts, "cycles": cycles, "waits": waits, "failed": turn.failed}
            emit({**document, "dry_run": True} if dry_run else document)
        else:
            typer.echo(", ".join(f"{count} {name}" for name, count in facts.items()))
            show(f"Window {self._window}", COLUMNS, self._rows, as_json=False)
            for key, why in sorted(waits.items()):
                typer.echo(f"waits: {key}: {why}")
            for key, why in sorted(turn.failed.items()):
                typer.echo(f"failed: {key}: {why}")
        if turn.failed:
            raise typer.Exit(1)


def _row(one: Cycle, states: list[RunState]) -> tuple[str, ...]:
    from settlement.model import cycle_state

    return (
        one.value_date.isoformat(),
        one.window,
        str(cycle_state(states)),
        str(len(states)),
        one.cutoff_at.isoformat(),
        one.release_at.isoformat(),
    )
