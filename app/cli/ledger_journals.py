"""``causeway ledger journal``: manual journals, proposed by one operator and signed by another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    Amount,
    AsJson,
    Book,
    DryRun,
    Money,
    Reason,
    clock,
    one_of,
    parse_date,
    read,
    show,
    show_one,
    write,
)
from app.cli.evidence_files import hash_file
from app.cli.explain import Story, events, postings, tell
from app.cli.ledger_points import say_more
from app.cli.operators import As, Key, credentials
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from ledger.journals.model import ManualJournal
    from ledger.journals.templates import Template

app = typer.Typer(help="Manual journals: typed templates, two people.", no_args_is_help=True)

PAGE_MAX = 500
"""Manual journals that are listed at once, as many as the ledger reads."""

JournalId = Annotated[UUID, typer.Argument(metavar="JOURNAL", help="Id of the manual journal.")]


@app.command()
def templates(*, as_json: AsJson = False) -> None:
    """List the templates and their fields; a field in brackets may be left out.

    Example: `causeway ledger journal templates`
    """
    from dataclasses import MISSING, fields

    from ledger.journals.templates import ACTIONS, AMOUNT_FIELDS, TEMPLATES

    rows = []
    for name, kind in TEMPLATES.items():
        words = []
        for field in fields(kind):
            if field.name == "asset":
                continue
            if field.name == "action":
                value = "|".join(ACTIONS[name])
            elif field.name in AMOUNT_FIELDS:
                value = "AMOUNT"
            else:
                value = "NAME" if field.name in {"party", "authority"} else "PATH"
            text = f"{field.name}={value}"
            words.append(text if field.default is MISSING else f"[{text}]")
        what = (kind.__doc__ or "").strip().splitlines()[0]
        rows.append((name, " ".join(words), what))
    show("Templates", ("template", "fields", "what"), rows, as_json=as_json)


@app.command()
def propose(
    template: Annotated[str, typer.Argument(help="See `causeway ledger journal templates`.")],
    fields: Annotated[
        list[str], typer.Argument(metavar="FIELD=VALUE...", help='Amounts as "1.5 ETH".')
    ],
    *,
    reference: Annotated[str, typer.Option("--ref", help="Your own; one journal for each.")],
    attachment: Annotated[Path, typer.Option(help="The document behind it; its hash stays.")],
    effective_on: Annotated[
        str | None, typer.Option("--effective-on", help="ISO date, UTC; else today.")
    ] = None,
    reason: Reason,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Propose a manual journal; nothing is posted until another operator approves it.

    Example: `causeway ledger journal propose capital action=paid-in holding=bank:main
    "amount=1000 USDT" --ref mj-17 --attachment isda.pdf --reason "first payment" --as ada --key ada.key`
    """
    given = _fields(fields)
    who, now = credentials(as_, key), clock().now()
    digest, day = hash_file(attachment), parse_date(effective_on, now)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from ledger.journals.manual import propose_journal
        from ledger.journals.model import JournalRequest

        money = await Money.load(conn)
        me = await who.person(conn)
        request = JournalRequest(
            reference=reference,
            template=_template(template, given, money),
            reason=reason,
            attachment=digest,
            effective_on=day,
        )
        made = await propose_journal(conn, request, book=book, by=me.code, now=now)
        return _facts(made, money)

    show_one("Manual journal", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


@app.command()
def approve(
    journal_id: JournalId,
    *,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Approve a manual journal: your key signs all of it, and it is posted.

    Example: `causeway ledger journal approve 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from ledger.journals.decisions import journal_bytes
        from ledger.journals.manual import approve_journal, get_journal

        me = await who.person(conn)
        item = await get_journal(conn, journal_id)
        done = await approve_journal(
            conn, journal_id, by=me.code, signature=me.sign(journal_bytes(item)), now=clock().now()
        )
        return _facts(done, await Money.load(conn))

    facts = write(work, dry_run=dry_run)
    show_one("Manual journal", facts, as_json=as_json, dry_run=dry_run)
    if facts["state"] == "refused":
        raise typer.Exit(1)


@app.command()
def reject(
    journal_id: JournalId,
    *,
    reason: Reason,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Say no to a manual journal, or take back your own.

    Example: `causeway ledger journal reject 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "wrong day"
    --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from ledger.journals.manual import reject_journal

        me = await who.person(conn)
        done = await reject_journal(conn, journal_id, by=me.code, reason=reason, now=clock().now())
        return _facts(done, await Money.load(conn))

    show_one("Manual journal", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


@app.command("list")
def list_(
    *,
    state: Annotated[str | None, typer.Option("--state", help="Only those in this state.")] = None,
    after: Annotated[UUID | None, typer.Option(help="Only behind the journal of this id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE_MAX, help="Rows at most.")] = PAGE_MAX,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List manual journals, oldest first.

    Example: `causeway ledger journal list --state proposed`
    """
    from ledger.journals.model import JournalState

    states = (
        tuple(JournalState)
        if state is None
        else (one_of(JournalState, state, "state of a manual journal"),)
    )

    async def work(conn: AsyncConnection) -> list[dict[str, str]]:
        from ledger.journals.manual import list_journals

        money = await Money.load(conn)
        found = await list_journals(conn, book, states, after=after, limit=limit)
        return [_facts(item, money) for item in found]

    columns = (
        *("id", "reference", "template", "fields", "state", "effective_on", "reason"),
        *("proposed_by", "decided_by", "outcome"),
    )
    rows = [tuple(facts[name] for name in columns) for facts in read(work, book=book)]
    show("Manual journals", columns, rows, as_json=as_json)
    say_more(rows[-1][0] if len(rows) == limit else None)


@app.command()
def explain(journal_id: JournalId, *, as_json: AsJson = False) -> None:
    """Tell the life of a manual journal: who wanted it, who signed it, what was posted.

    Example: `causeway ledger journal explain 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """

    async def work(conn: AsyncConnection) -> Story:
        from kernel.events import list_history
        from ledger.journals.manual import ENTITY, get_journal
        from ledger.queries import list_transfers

        item = await get_journal(conn, journal_id)
        money = await Money.load(conn)
        posted = await list_transfers(conn, item.book, correlation=item.id)
        return Story(
            f"Manual journal {item.request.reference}",
            _facts(item, money),
            [
                *events(await list_history(conn, ENTITY, item.id)),
                *postings(posted, money),
            ],
        )

    tell(read(work), as_json=as_json)


def _fields(words: list[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for word in words:
        name, mark, value = word.partition("=")
        if not mark or not name or name in given:
            raise BadInput(f"{word!r} is not FIELD=VALUE", remedy="Give each field once")
        given[name] = value
    return given


def _template(name: str, given: dict[str, str], money: Money) -> Template:
    """Return a template from what was typed: amounts become smallest units and name the asset."""
    from ledger.journals.templates import AMOUNT_FIELDS, from_content

    content, assets = dict(given), {given["asset"]} if "asset" in given else set()
    for field in AMOUNT_FIELDS & given.keys():
        if not given[field]:
            continue
        amount = Amount.parse(given[field])
        content[field] = str(money.units(amount))
        assets.add(amount.asset)
    if len(assets) > 1:
        raise BadInput(f"one journal is in one asset, not in {' and '.join(sorted(assets))}")
    return from_content(name, {**content, "asset": assets.pop()} if assets else content)


def _facts(item: ManualJournal, money: Money) -> dict[str, str]:
    from ledger.journals.templates import AMOUNT_FIELDS, template_name, to_content

    request = item.request
    content = to_content(request.template)
    asset = content.pop("asset")
    fields = [
        f"{name}={money.text(int(value), asset) if name in AMOUNT_FIELDS else value}"
        for name, value in content.items()
        if value not in {"", "0"}
    ]
    return {
        "id": str(item.id),
        "reference": request.reference,
        "template": template_name(request.template),
        "fields": " ".join(fields),
        "state": str(item.state),
        "effective_on": request.effective_on.isoformat(),
        "reason": request.reason,
        "attachment": request.attachment,
        "proposed_by": item.proposed_by,
        "proposed_at": iso(item.proposed_at),
        "decided_by": item.decided_by,
        "decided_at": iso(item.decided_at) if item.decided_at else "",
        "decision_reason": item.decision_reason,
        "outcome": item.outcome,
        "sequence": "" if item.sequence is None else str(item.sequence),
    }
