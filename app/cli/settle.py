"""``causeway settle``: the cycle from what is owed to what is final."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli import (
    settle_cycle,
    settle_netting,
    settle_preview,
    settle_rules,
    settle_run,
    settle_windows,
)
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
    read,
    show,
    show_one,
    write,
)
from app.cli.evidence_files import hash_file
from app.cli.explain import tell
from app.cli.ledger_points import Limit
from app.cli.operators import As, Key, credentials
from app.cli.settle_explain import (
    ITEM_COLUMNS,
    RUN_COLUMNS,
    explain_object,
    item_rows,
    run_facts,
)
from app.cli.settle_release import let_go, release, reschedule

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from settlement.model import Calculation, Obligation, Run

app = typer.Typer(help="Net, affirm, seal, release, finish.", no_args_is_help=True)
app.command()(release)
app.command()(reschedule)
app.command("let-go")(let_go)
settle_rules.register(app)
settle_netting.register(app)
settle_preview.register(app)
settle_cycle.register(app)
settle_windows.register(app)
settle_run.register(app)

RunId = Annotated[UUID, typer.Argument(metavar="RUN", help="Id of the settlement run.")]


@app.command()
def runs(
    *,
    state: Annotated[str | None, typer.Option("--state", help="Only those in this state.")] = None,
    after: Annotated[
        UUID | None, typer.Option("--after", metavar="RUN", help="Those that follow this one.")
    ] = None,
    limit: Limit = 1_000,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List settlement runs by value date, a page at a time.

    Example: `causeway settle runs --state released`
    """
    from settlement.model import RunState

    states = tuple(RunState) if state is None else (one_of(RunState, state, "state of a run"),)

    async def work(conn: AsyncConnection) -> list[Run]:
        from settlement.queries import get_run, list_runs

        last = None if after is None else await get_run(conn, after)
        point = None if last is None else (last.value_date, last.id)
        return await list_runs(conn, book, states, after=point, limit=limit)

    found = read(work)
    rows = [tuple(run_facts(item).values()) for item in found]
    show("Settlement runs", RUN_COLUMNS, rows, as_json=as_json)
    if len(found) == limit:
        typer.echo(f"there may be more: --after {found[-1].id}", err=True)


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
    digest = hash_file(evidence)

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
        from settlement.disputes import dispute as verb

        me = await who.person(conn)
        run, calculation = await verb(
            conn, run_id, obligations, by=me.operator, reason=reason, now=clock().now()
        )
        return run, calculation, await Money.load(conn)

    run, calculation, money = write(work)
    _print_items(f"Run {run.id}", run_facts(run), calculation, money, as_json=as_json)


@app.command()
def resolve(
    run_id: RunId,
    obligation_id: Annotated[UUID, typer.Argument(metavar="OBLIGATION")],
    *,
    reason: Reason,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """End a dispute: the frozen obligation is open again, and the next cycle has it.

    Example: `causeway settle resolve 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 0198f2c4-7d21-8a6e-9c30-000000000001
    --reason "the party agrees after all" --as ada --key ada.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> Obligation:
        from settlement.disputes import resolve_dispute

        me = await who.person(conn)
        return await resolve_dispute(
            conn, run_id, obligation_id, by=me.operator, reason=reason, now=clock().now()
        )

    found = write(work)
    facts = {"id": str(found.id), "state": str(found.state), "deal": str(found.deal_id)}
    show_one("Obligation", facts, as_json=as_json)


@app.command()
def withdraw(
    deal_id: Annotated[UUID, typer.Argument(metavar="DEAL", help="Id of the deal.")],
    *,
    reason: Reason,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Give a deal back to trading, which may cancel or amend it then; not what is in a run.

    Example: `causeway settle withdraw 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "wrong price" --as ada --key ada.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> list[Obligation]:
        from settlement.runs import withdraw_deal

        me = await who.person(conn)
        return await withdraw_deal(conn, deal_id, by=me.operator, reason=reason, now=clock().now())

    facts = {"deal": str(deal_id), "obligations": str(len(write(work)))}
    show_one("Withdrawn", facts, as_json=as_json)


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
    """Tell the life of a cycle, a run or an obligation, from the net down to the gross and the postings.

    Example: `causeway settle explain 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """
    tell(read(lambda conn: explain_object(conn, object_id, book=book)), as_json=as_json)


def _print_items(
    title: str, facts: dict[str, str], result: Calculation, money: Money, *, as_json: bool
) -> None:
    rows = item_rows(result.items, money)
    facts |= {"calculation": str(result.version), "inputs": result.input_hash}
    if as_json:
        emit({**facts, "items": [dict(zip(ITEM_COLUMNS, row, strict=True)) for row in rows]})
        return
    show_one(title, facts, as_json=False)
    right = ("amount", "gross_pay", "gross_receive", "obligations")
    show("Net", ITEM_COLUMNS, rows, as_json=False, right=right)
