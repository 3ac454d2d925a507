"""``causeway settle``: the cycle from what is owed to what is final."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli import settle_rules
from app.cli.common import (
    BOOK_DEFAULT,
    AsJson,
    Book,
    DryRun,
    Money,
    Reason,
    clock,
    emit,
    one_of,
    parse_date,
    read,
    show,
    show_one,
    write,
)
from app.cli.explain import tell
from app.cli.operators import As, Key, credentials
from app.cli.settle_explain import explain_object, item_rows, run_facts
from app.cli.settle_release import release, reschedule
from kernel.clock import iso

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from settlement.model import Calculation, Run

app = typer.Typer(help="Net, affirm, seal, release, finish.", no_args_is_help=True)
app.command()(release)
app.command()(reschedule)
settle_rules.register(app)

ValueDate = Annotated[
    str | None, typer.Option("--value-date", help="Everything due by then; else today in UTC.")
]
RunId = Annotated[UUID, typer.Argument(metavar="RUN", help="Id of the settlement run.")]
ITEM_COLUMNS = ("party", "direction", "amount", "rail", "gross_pay", "gross_receive", "obligations")


@app.command()
def preview(
    *, value_date: ValueDate = None, book: Book = BOOK_DEFAULT, as_json: AsJson = False
) -> None:
    """Calculate what a run would come to, and write nothing.

    Example: `causeway settle preview --value-date 2026-01-31`
    """
    now = clock().now()
    due = parse_date(value_date, now)

    async def work(conn: AsyncConnection) -> tuple[Calculation, Money]:
        from settlement.runs import open_run, pull_obligations

        await pull_obligations(conn, book=book, now=now)
        # A window that nobody uses: the transaction is rolled back, whatever it wrote.
        window = f"preview {iso(now)}"
        _, calculation = await open_run(
            conn, book=book, value_date=due, window=window, by="system:preview", now=now
        )
        return calculation, await Money.load(conn)

    calculation, money = write(work, dry_run=True)
    _print_items(
        f"Due by {due}", {"value_date": due.isoformat()}, calculation, money, as_json=as_json
    )


@app.command("run")
def run_(
    *,
    window: Annotated[str, typer.Option(help="Which of the day's runs it is.")],
    value_date: ValueDate = None,
    as_: As,
    key: Key,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Open the run of a window over everything that is due; again, it shows the run there is.

    Example: `causeway settle run --window afternoon --as ada --key ada.key`
    """
    who = credentials(as_, key)
    now = clock().now()
    due = parse_date(value_date, now)

    async def work(conn: AsyncConnection) -> tuple[Run, Calculation, Money]:
        from registry.model import Role
        from settlement.runs import open_run, pull_obligations

        me = await who.person(conn, Role.TREASURER)
        await pull_obligations(conn, book=book, now=now)
        run, calculation = await open_run(
            conn, book=book, value_date=due, window=window, by=me.code, now=now
        )
        return run, calculation, await Money.load(conn)

    run, calculation, money = write(work)
    _print_items(f"Run {run.id}", run_facts(run), calculation, money, as_json=as_json)


@app.command()
def runs(
    *,
    state: Annotated[str | None, typer.Option("--state", help="Only those in this state.")] = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List settlement runs, oldest first.

    Example: `causeway settle runs --state released`
    """
    from settlement.model import RunState

    states = tuple(RunState) if state is None else (one_of(RunState, state, "state of a run"),)

    async def work(conn: AsyncConnection) -> list[Run]:
        from settlement.queries import list_runs

        return await list_runs(conn, book, states)

    columns = ("id", "state", "value_date", "window", "version", "created")
    rows = [tuple(run_facts(item).values()) for item in read(work)]
    show("Settlement runs", columns, rows, as_json=as_json)


@app.command()
def affirm(
    run_id: RunId,
    *,
    party: Annotated[str, typer.Option(help="The party that agrees.")],
    version: Annotated[int, typer.Option(help="The version of the calculation it agrees to.")],
    evidence: Annotated[Path, typer.Option(help="The message in which it agreed; its hash stays.")],
    as_: As,
    key: Key,
    witness: Annotated[str, typer.Option(metavar="CODE", help="A second operator who saw it.")],
    witness_key: Annotated[
        Path, typer.Option("--witness-key", metavar="FILE", help="The second operator's key.")
    ],
    as_json: AsJson = False,
) -> None:
    """Enter that a party agrees to a version; the run is affirmed when every party has.

    Example: `causeway settle affirm 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --party acme --version 1 --evidence mail.eml
    --as dan --key dan.key --witness ada --witness-key ada.key`
    """
    first, second = credentials(as_, key), credentials(witness, witness_key)
    digest = settle_rules.hash_file(evidence)

    async def work(conn: AsyncConnection) -> Run:
        from settlement.queries import get_calculation, get_run
        from settlement.runs import affirm as verb
        from settlement.runs import affirmation_bytes

        me, other = await first.person(conn), await second.person(conn)
        asked = await get_run(conn, run_id)
        result = await get_calculation(conn, run_id, version)
        return await verb(
            conn,
            run_id,
            version=version,
            party=party,
            by=me.operator,
            witness=other.operator,
            signature=other.sign(affirmation_bytes(asked, result, party, digest)),
            evidence_hash=digest,
            now=clock().now(),
        )

    show_one("Run", run_facts(write(work)), as_json=as_json)


@app.command()
def dispute(
    run_id: RunId,
    obligations: Annotated[list[UUID], typer.Argument(metavar="OBLIGATION...")],
    *,
    reason: Reason,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Freeze disputed obligations, and calculate the next version of the rest.

    Example: `causeway settle dispute 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 0198f2c4-7d21-8a6e-9c30-000000000001
    --reason "wrong amount" --as ada --key ada.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> tuple[Run, Calculation, Money]:
        from settlement.runs import dispute as verb

        me = await who.person(conn)
        run, calculation = await verb(
            conn, run_id, obligations, by=me.operator, reason=reason, now=clock().now()
        )
        return run, calculation, await Money.load(conn)

    run, calculation, money = write(work)
    _print_items(f"Run {run.id}", run_facts(run), calculation, money, as_json=as_json)


@app.command()
def seal(
    run_id: RunId, *, as_: As, key: Key, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Post the affirmed version: what is open becomes netted, discharged to the last unit.

    Example: `causeway settle seal 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --as ada --key ada.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> Run:
        from settlement.runs import seal as verb

        me = await who.person(conn)
        return await verb(conn, run_id, by=me.operator, now=clock().now())

    done = write(work, dry_run=dry_run)
    show_one("Run", run_facts(done), as_json=as_json, dry_run=dry_run)


@app.command()
def explain(object_id: UUID, *, book: Book = BOOK_DEFAULT, as_json: AsJson = False) -> None:
    """Tell the life of a run or an obligation: versions, instructions, postings, evidence.

    Example: `causeway settle explain 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """
    tell(read(lambda conn: explain_object(conn, object_id, book=book)), as_json=as_json)


def _print_items(
    title: str, facts: dict[str, str], result: Calculation, money: Money, *, as_json: bool
) -> None:
    rows = item_rows(result, money)
    facts |= {"calculation": str(result.version), "inputs": result.input_hash}
    if as_json:
        emit({**facts, "items": [dict(zip(ITEM_COLUMNS, row, strict=True)) for row in rows]})
        return
    show_one(title, facts, as_json=False)
    right = ("amount", "gross_pay", "gross_receive", "obligations")
    show("Net", ITEM_COLUMNS, rows, as_json=False, right=right)
