"""``causeway settle`` by cycles: windows, the cycle of a slot, statements out and answers in."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

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
    read,
    rehearse,
    run,
    show,
    show_one,
    write,
)
from app.cli.operators import As, Key, credentials, read_key
from app.cli.progress import progress_bar
from app.cli.settle_explain import RUN_COLUMNS, run_facts
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from settlement.model import Cycle, Run, Statement
    from settlement.statements import Answer

WindowName = Annotated[str, typer.Argument(metavar="NAME", help="The window's name.")]
CycleId = Annotated[UUID, typer.Argument(metavar="CYCLE", help="Id of the cycle.")]
RunId = Annotated[UUID, typer.Argument(metavar="RUN", help="Id of the settlement run.")]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write it.")]
CYCLE_COLUMNS: Final = (
    *("id", "state", "value_date", "window", "runs", "cutoff", "affirm_until", "top_up_until"),
    "release_at",
)


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    for name, command in (
        ("open", open_),
        ("cycles", cycles),
        ("cycle", cycle_),
        ("seal-cycle", seal_cycle),
        ("statement", statement),
        ("answer", answer),
        ("affirm-file", affirm_file),
    ):
        app.command(name)(command)


def open_(
    *,
    window: Annotated[str, typer.Option(help="Whose cycle it is.")],
    value_date: Annotated[
        str | None, typer.Option("--value-date", help="The business date; else today in UTC.")
    ] = None,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Open the cycle of a slot: a run for each party and netting set; again, it shows what there is.

    Example: `causeway settle open --window afternoon --value-date 2026-01-30 --as ada --key ada.key`
    """
    who = credentials(as_, key)
    now = clock().now()
    due = parse_date(value_date, now)

    async def work(conn: AsyncConnection) -> tuple[Cycle, list[Run], int]:
        from registry.model import Role
        from settlement.cycles import open_cycle
        from settlement.queries import count_left, list_cycle_runs

        me = await who.person(conn, Role.TREASURER)
        made = await open_cycle(
            conn, book=book, business_date=due, window=window, by=me.code, now=now
        )
        return made, await list_cycle_runs(conn, made.id), await count_left(conn, made.id)

    _tell_cycle(*write(work, dry_run=dry_run), as_json=as_json)


def cycles(
    *,
    since: Annotated[str | None, typer.Option(help="Business dates from then on.")] = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List the newest cycles with their clocks; the state is that of the run furthest behind.

    Example: `causeway settle cycles --since 2026-01-05`
    """
    first = None if since is None else parse_date(since, clock().now())

    async def work(conn: AsyncConnection) -> list[tuple[Cycle, list[Run]]]:
        from settlement.queries import list_cycle_runs, list_cycles

        found = await list_cycles(conn, book, since=first)
        return [(item, await list_cycle_runs(conn, item.id)) for item in found]

    rows = [tuple(cycle_facts(item, runs).values()) for item, runs in read(work)]
    show("Settlement cycles", CYCLE_COLUMNS, rows, as_json=as_json)


def cycle_(cycle_id: CycleId, *, as_json: AsJson = False) -> None:
    """Show a cycle: its clocks, what it is time for, and its runs.

    Example: `causeway settle cycle 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """

    async def work(conn: AsyncConnection) -> tuple[Cycle, list[Run], int]:
        from settlement.queries import count_left, get_cycle, list_cycle_runs

        found = await get_cycle(conn, cycle_id)
        return found, await list_cycle_runs(conn, cycle_id), await count_left(conn, cycle_id)

    _tell_cycle(*read(work), as_json=as_json)


def seal_cycle(
    cycle_id: CycleId, *, as_: As, key: Key, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Seal every affirmed run of a cycle, batch by batch; who has not affirmed is left out.

    Example: `causeway settle seal-cycle 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --as ada --key ada.key`
    """
    who = credentials(as_, key)

    async def batch(conn: AsyncConnection) -> list[Run]:
        from settlement.cycles import seal_cycle as verb

        me = await who.person(conn)
        return await verb(conn, cycle_id, by=me.operator, now=clock().now())

    async def rehearsed(conn: AsyncConnection) -> list[Run]:
        done: list[Run] = []
        while found := await batch(conn):
            done += found
        return done

    async def work(engine: AsyncEngine) -> list[Run]:
        from kernel.db import transact

        if dry_run:
            return await rehearse(engine, rehearsed)
        draw = progress_bar("sealed", "runs")
        done: list[Run] = []
        while found := await transact(engine, batch):
            done += found
            draw(len(done), len(done) + 1)
        draw(len(done), len(done))
        return done

    done = run(lambda: on_database(work))
    rows = [tuple(run_facts(item).values()) for item in done]
    show("Sealed", RUN_COLUMNS, rows, as_json=as_json)


def statement(
    run_id: RunId,
    *,
    out: Out,
    party: Annotated[
        str | None, typer.Option(help="Whose; needed where a run has several parties.")
    ] = None,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Write the statement of a run's newest version as a file: the party signs these bytes.

    Example: `causeway settle statement 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --out acme.json
    --as ada --key ada.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> Statement:
        from registry.model import Role
        from settlement.issuing import issue_statement

        me = await who.person(conn, Role.TREASURER, Role.OPERATIONS)
        return await issue_statement(conn, run_id, party=party, by=me.code, now=clock().now())

    made = write(work)
    _write_file(out, made.content.encode())
    facts = {
        "run": str(made.run_id),
        "version": str(made.version),
        "party": made.party,
        "sha256": made.sha256,
        "issued": iso(made.at),
        "file": str(out),
    }
    show_one("Statement", facts, as_json=as_json)


def answer(
    file: Annotated[Path, typer.Argument(metavar="STATEMENT", help="The statement as it came.")],
    *,
    key: Annotated[
        Path, typer.Option("--key", metavar="FILE", help="The party's own Ed25519 private key.")
    ],
    out: Out,
    dispute: Annotated[
        list[UUID] | None,
        typer.Option("--dispute", metavar="OBLIGATION", help="What it disputes; none: it agrees."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Of a dispute: what is wrong.")] = "",
    as_json: AsJson = False,
) -> None:
    """Sign a statement as its party; this runs at the party, and asks no database.

    Example: `causeway settle answer acme.json --key acme.key --out acme.signed`
    """
    from settlement.statements import (
        Answer,
        Verdict,
        answer_bytes,
        party_of,
        read_answer,
        write_answer,
    )

    content = _read_file(file)
    made = Answer(
        statement_sha256=hashlib.sha256(content).hexdigest(),
        party=party_of(content),
        verdict=Verdict.DISPUTED if dispute else Verdict.AFFIRMED,
        obligations=tuple(dispute or ()),
        reason=reason,
    )
    signed = replace(made, signature=read_key(key).sign(answer_bytes(made)))
    answered = write_answer(signed)
    # What the other side would refuse is refused here already, before it is sent.
    read_answer(answered)
    _write_file(out, answered)
    show_one("Answer", _answer_facts(signed) | {"file": str(out)}, as_json=as_json)


def affirm_file(
    file: Annotated[Path, typer.Argument(metavar="ANSWER", help="The signed answer.")],
    *,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Enter what a party signed: that it agrees, or what it disputes. Its own key is the proof.

    Example: `causeway settle affirm-file acme.signed --as dan --key dan.key`
    """
    from settlement.statements import read_answer

    who = credentials(as_, key)
    content = _read_file(file)
    said = read_answer(content)

    async def work(conn: AsyncConnection) -> Run:
        from registry.model import Role
        from settlement.affirmations import answer_signed
        from settlement.steps import Why

        me = await who.person(conn, Role.TREASURER, Role.OPERATIONS)
        after, _ = await answer_signed(
            conn, said, content=content, why=Why(me.code, "", clock().now())
        )
        return after

    done = write(work, dry_run=dry_run)
    show_one("Run", run_facts(done) | _answer_facts(said), as_json=as_json, dry_run=dry_run)


def cycle_facts(item: Cycle, runs: list[Run]) -> dict[str, str]:
    """Return a cycle as names and values, those of `CYCLE_COLUMNS`."""
    from settlement.model import cycle_state

    return {
        "id": str(item.id),
        "state": str(cycle_state({one.state for one in runs})),
        "value_date": item.value_date.isoformat(),
        "window": item.window,
        "runs": str(len(runs)),
        "cutoff": iso(item.cutoff_at),
        "affirm_until": iso(item.affirm_until),
        "top_up_until": iso(item.top_up_until),
        "release_at": iso(item.release_at),
    }


def _tell_cycle(item: Cycle, runs: list[Run], left: int, *, as_json: bool) -> None:
    from settlement.clocks import phase_of

    facts = cycle_facts(item, runs) | {
        "time_for": str(phase_of(item, clock().now())),
        "left": str(left),
    }
    rows = [run_facts(one) for one in runs]
    if as_json:
        emit({**facts, "runs": rows})
        return
    show_one(f"Cycle {item.id}", facts, as_json=False)
    if rows:
        show("Runs", RUN_COLUMNS, [tuple(row.values()) for row in rows], as_json=False)


def _answer_facts(said: Answer) -> dict[str, str]:
    return {
        "party": said.party,
        "verdict": str(said.verdict),
        "disputed": str(len(said.obligations)),
        "statement": said.statement_sha256,
    }


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"the file cannot be read: {error.strerror}", where=str(path)) from error


def _write_file(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise BadInput(f"the file cannot be written: {error.strerror}", where=str(path)) from error
