"""``causeway desk confirm, affirm, dispute, blotter, explain``: what is written down of a deal."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import typer

from app.cli import desk_keys
from app.cli.common import (
    BOOK_DEFAULT,
    AsJson,
    Book,
    Money,
    clock,
    emit,
    on_database,
    one_of,
    parse_time,
    read,
    run,
    show,
    show_one,
    write,
)
from app.cli.desk_explain import (
    CONFIRMATION_COLUMNS,
    confirmation_facts,
    explain_line,
    explain_object,
)
from app.cli.desk_shown import AMOUNT_COLUMNS, DEAL_COLUMNS, deal_facts
from app.cli.evidence_files import hash_file
from app.cli.explain import tell
from app.cli.operators import As, Credentials, Key, credentials
from kernel.clock import iso
from kernel.errors import BadInput, OutsideUnavailable

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from trading.blotter import BlotterFilter, BlotterPage
    from trading.confirmations.model import Confirmation, Draw, Due, Unaffirmed

PAGE_DEFAULT: Final = 50
TOTAL_COLUMNS: Final = ("asset", "deals", "received", "paid", "net", "fees")
LISTED_COLUMNS: Final = (
    *("id", "state", "operation", "party", "deal", "version", "value_date", "issued"),
)
UNAFFIRMED_COLUMNS: Final = (
    *("id", "state", "party", "reference", "version", "operation", "value_date", "late", "age"),
)
ConfirmationId = Annotated[
    UUID, typer.Argument(metavar="CONFIRMATION", help="Id of the confirmation.")
]
SecondPerson = Annotated[
    str | None, typer.Option("--approver", metavar="CODE", help="A second operator, who signs it.")
]
SecondKey = Annotated[
    Path | None,
    typer.Option("--approver-key", metavar="FILE", help="The second operator's key."),
]


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    for command in (confirm, affirm, dispute, confirmations, blotter, explain):
        app.command()(command)
    desk_keys.register(app)


def confirm(
    deal_id: Annotated[UUID, typer.Argument(metavar="DEAL", help="Id of the deal.")],
    *,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it there: *.txt or *.pdf.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the newest confirmation of a deal: what a client's back office reads.

    Versions of its trade that are due are issued first. Without --out the text is printed; its
    SHA-256 is what the client affirms.

    Example: `causeway desk confirm 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --out d-1.pdf`
    """
    if out is not None and out.suffix not in {".txt", ".pdf"}:
        raise BadInput(f"{out} is neither .txt nor .pdf", remedy="Name the file d-1.txt or d-1.pdf")
    draw = _require_draw() if out is not None and out.suffix == ".pdf" else None

    async def issue(conn: AsyncConnection) -> Confirmation:
        from trading.confirmations.issuing import issue_confirmation

        return await issue_confirmation(conn, deal_id, now=clock().now())

    item = write(issue)
    if out is not None:
        _save(out, item.text.encode() if draw is None else _pdf(item, draw))
        item = read(lambda conn: _again(conn, item.id))
    facts = confirmation_facts(item)
    if as_json:
        emit({**facts, "file": str(out or ""), "text": item.text})
    elif out is None:
        typer.echo(item.text, nl=False)
    else:
        show_one("Confirmation", {**facts, "file": str(out)}, as_json=False)


def affirm(
    confirmation_id: ConfirmationId,
    *,
    signature: Annotated[
        str | None, typer.Option(metavar="HEX", help="The client's own, by an enrolled key.")
    ] = None,
    evidence: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The client's mail; its hash is kept.")
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", help="With --evidence: who answered, and how.")
    ] = "",
    as_: As,
    key: Key,
    approver: SecondPerson = None,
    approver_key: SecondKey = None,
    as_json: AsJson = False,
) -> None:
    """Record that the client affirmed: by its signature, or by two people who saw the answer.

    Whoever booked the deal, or cancelled it, is neither of the two.

    Example: `causeway desk affirm 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --evidence mail.eml
    --reason "answered by their back office" --as ada --key ada.key --approver cleo --approver-key cleo.key`
    """
    who = credentials(as_, key)
    if (signature is None) == (evidence is None):
        raise BadInput(
            "an affirmation has one proof", remedy="Give --signature, or --evidence with --approver"
        )
    if signature is not None:
        done = write(lambda conn: _affirm_signed(conn, confirmation_id, _bytes(signature), who))
    else:
        assert evidence is not None, "one of the two is given"
        if approver is None or approver_key is None:
            raise BadInput(
                "a second person has to sign what was read in a mail",
                remedy="Give --approver and --approver-key",
            )
        second, digest = credentials(approver, approver_key), hash_file(evidence)
        done = write(
            lambda conn: _affirm_seen(conn, confirmation_id, digest, (who, second), reason)
        )
    show_one("Confirmation", confirmation_facts(done), as_json=as_json)


def dispute(
    confirmation_id: ConfirmationId,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Which term differs, and how.")],
    evidence: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The client's mail; its hash is kept.")
    ] = None,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Record that the client does not agree, and in what. The deal is not touched.

    Example: `causeway desk dispute 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "they have 9 ETH"
    --as dan --key dan.key`
    """
    who = credentials(as_, key)
    digest = None if evidence is None else hash_file(evidence)

    async def work(conn: AsyncConnection) -> Confirmation:
        from trading.confirmations.affirming import dispute as record

        me = await who.person(conn)
        return await record(
            conn,
            confirmation_id,
            reason=reason,
            by=me.operator,
            evidence=digest,
            now=clock().now(),
        )

    show_one("Confirmation", confirmation_facts(write(work)), as_json=as_json)


def confirmations(
    *,
    party: Annotated[str | None, typer.Option(help="Only those to this party.")] = None,
    state: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    unaffirmed: Annotated[
        bool, typer.Option("--unaffirmed", help="What nobody affirmed, nearest value date first.")
    ] = False,
    due: Annotated[
        bool, typer.Option("--due", help="What has still to be written, longest due first.")
    ] = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List confirmations, newest first; or what is unaffirmed and how long, or not written yet.

    Example: `causeway desk confirmations --unaffirmed`
    """
    if unaffirmed and due:
        raise BadInput("--unaffirmed and --due are two lists", remedy="Ask for one of them")
    if state is not None and (unaffirmed or due):
        raise BadInput("--state is of the whole list", remedy="Leave out --unaffirmed and --due")
    if due:
        _show_due(book, party, as_json=as_json)
    elif unaffirmed:
        _show_unaffirmed(book, party, as_json=as_json)
    else:
        _show_confirmations(book, party, state, as_json=as_json)


def blotter(
    *,
    party: Annotated[str | None, typer.Option(help="Only deals with this party.")] = None,
    desk: Annotated[str | None, typer.Option(help="Only deals of this desk.")] = None,
    asset: Annotated[
        str | None, typer.Option(help="Only deals in this asset, either side.")
    ] = None,
    side: Annotated[str | None, typer.Option(help="desk_sells or desk_buys.")] = None,
    state: Annotated[str | None, typer.Option(help="Only deals in this state.")] = None,
    origin: Annotated[str | None, typer.Option(help="quote, voice or file.")] = None,
    purpose: Annotated[str | None, typer.Option(help="client, hedge or transfer.")] = None,
    since: Annotated[str | None, typer.Option(help="Booked from this time on.")] = None,
    until: Annotated[str | None, typer.Option(help="Booked before this time.")] = None,
    reference: Annotated[
        str | None, typer.Option("--ref", help="Only references that begin so.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Behind the page that ended so.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Deals on the page.")] = PAGE_DEFAULT,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show the desk's deals, newest first, and what all that were asked for come to.

    Totals count amended and cancelled deals only where --state asks for them.

    Example: `causeway desk blotter --party acme --since 2026-01-05 --asset ETH`
    """
    filters = _filters(
        {"side": side, "state": state, "origin": origin, "purpose": purpose},
        since=since,
        until=until,
        party=party,
        desk=desk,
        asset=asset,
        ref=reference,
    )

    async def work(conn: AsyncConnection) -> tuple[BlotterPage, Money]:
        from trading.blotter import Cursor
        from trading.blotter import blotter as query

        place = None if after is None else Cursor.parse(after)
        page = await query(conn, book, filters, after=place, limit=limit)
        return page, await Money.load(conn)

    page, money = read(work)
    _show_blotter(page, money, as_json=as_json)


def explain(
    what: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="Of a deal, quote, order or confirmation; of a hedge line DESK/ASSET.",
        ),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Tell the life of a deal, quote, hedge order, hedge line or confirmation as one time line.

    Of a deal: states, postings, prices on record, what hedged it, confirmations, obligations.

    Example: `causeway desk explain 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """
    desk, slash, asset = what.partition("/")
    if slash:
        tell(read(lambda conn: explain_line(conn, desk, asset)), as_json=as_json)
        return
    try:
        object_id = UUID(what)
    except ValueError as error:
        raise BadInput(
            f"{what!r} is no id", remedy="Give an id, or name a hedge line: otc/ETH"
        ) from error
    tell(read(lambda conn: explain_object(conn, object_id)), as_json=as_json)


def _require_draw() -> Draw:
    """Return what draws PDFs.

    Raises:
        OutsideUnavailable: the extra is not installed.
    """
    from app.documents import find_draw

    draw = find_draw()
    if draw is None:
        raise OutsideUnavailable(
            "PDFs are drawn by reportlab, which is not installed",
            remedy="pip install 'causeway[documents]', or write a .txt",
        )
    return draw


def _pdf(item: Confirmation, draw: Draw) -> bytes:
    async def work(engine: AsyncEngine) -> bytes:
        from trading.confirmations.drawing import get_pdf

        return await get_pdf(engine, item.id, draw, clock=clock())

    return run(lambda: on_database(work))


def _save(path: Path, content: bytes) -> None:
    try:
        with path.open("xb") as stream:
            stream.write(content)
    except OSError as error:
        raise BadInput(
            f"the file cannot be written: {error.strerror}",
            where=str(path),
            remedy="Name a file that does not exist yet",
        ) from error


async def _again(conn: AsyncConnection, confirmation_id: UUID) -> Confirmation:
    from trading.confirmations.queries import get_confirmation

    return await get_confirmation(conn, confirmation_id)


async def _affirm_signed(
    conn: AsyncConnection, confirmation_id: UUID, signature: bytes, who: Credentials
) -> Confirmation:
    from trading.confirmations.affirming import affirm_by_signature

    me = await who.person(conn)
    return await affirm_by_signature(
        conn, confirmation_id, signature, by=me.code, now=clock().now()
    )


async def _affirm_seen(
    conn: AsyncConnection,
    confirmation_id: UUID,
    evidence: str,
    people: tuple[Credentials, Credentials],
    reason: str,
) -> Confirmation:
    from trading.confirmations.affirming import affirm_by_evidence, evidence_bytes

    first, second = [await item.person(conn) for item in people]
    found = await _again(conn, confirmation_id)
    return await affirm_by_evidence(
        conn,
        confirmation_id,
        evidence=evidence,
        by=first.operator,
        approver=second.operator,
        signature=second.sign(evidence_bytes(found.text_sha256, evidence)),
        reason=reason,
        now=clock().now(),
    )


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise BadInput(
            "the signature is not hexadecimal", remedy="Write its 64 bytes as 128 digits"
        ) from error


def _filters(
    kinds: dict[str, str | None], *, since: str | None, until: str | None, **plain: Any
) -> BlotterFilter:
    """Read the words of the filters; *kinds* are those of which there is a list."""
    from trading.blotter import BlotterFilter
    from trading.model import DealOrigin, DealPurpose, DealSide, DealState

    known = {"side": DealSide, "state": DealState, "origin": DealOrigin, "purpose": DealPurpose}
    words: dict[str, Any] = {
        name: one_of(known[name], word, f"{name} of a deal")
        for name, word in kinds.items()
        if word is not None
    }
    return BlotterFilter(**words, **plain, since=_start(since), until=parse_time(until))


def _start(text: str | None) -> datetime | None:
    """Read a time; a day begins at its midnight in UTC."""
    at = parse_time(text)
    if at is None or text is None or "T" in text:
        return at
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def _show_blotter(page: BlotterPage, money: Money, *, as_json: bool) -> None:
    facts = [deal_facts(item) for item in page.deals]
    totals = [
        (
            total.asset,
            str(total.deals),
            money.text(total.received, total.asset),
            money.text(total.paid, total.asset),
            money.text(total.net, total.asset),
            money.text(total.fees, total.asset),
        )
        for total in page.totals
    ]
    after = "" if page.after is None else str(page.after)
    if as_json:
        summed = [dict(zip(TOTAL_COLUMNS, row, strict=True)) for row in totals]
        emit({"deals": facts, "totals": summed, "after": after})
        return
    rows = [tuple(item.values()) for item in facts]
    show("Blotter", DEAL_COLUMNS, rows, as_json=False, right=AMOUNT_COLUMNS)
    show("Totals", TOTAL_COLUMNS, totals, as_json=False, right=TOTAL_COLUMNS[1:])
    if after:
        typer.echo(f"There are more: --after {after}")


def _show_confirmations(book: int, party: str | None, state: str | None, *, as_json: bool) -> None:
    from trading.confirmations.model import ConfirmationState

    states = (
        tuple(ConfirmationState)
        if state is None
        else (one_of(ConfirmationState, state, "state of a confirmation"),)
    )

    async def work(conn: AsyncConnection) -> list[Confirmation]:
        from trading.confirmations.queries import list_confirmations

        return await list_confirmations(conn, book, party=party, states=states)

    rows = [confirmation_facts(item) for item in read(work)]
    # A terminal has no room for ids and hashes that `explain` tells; machines get all there is.
    columns = CONFIRMATION_COLUMNS if as_json else LISTED_COLUMNS
    cells = [tuple(row[name] for name in columns) for row in rows]
    show("Confirmations", columns, cells, as_json=as_json)


def _show_unaffirmed(book: int, party: str | None, *, as_json: bool) -> None:
    async def work(conn: AsyncConnection) -> list[Unaffirmed]:
        from trading.confirmations.queries import list_unaffirmed

        return await list_unaffirmed(conn, book, party=party, now=clock().now())

    rows = [
        (
            str(item.confirmation.id),
            str(item.confirmation.state),
            item.confirmation.party,
            item.client_ref,
            str(item.confirmation.version),
            str(item.confirmation.kind),
            item.confirmation.value_date.isoformat(),
            "yes" if item.is_late else "no",
            str(timedelta(seconds=item.age_s)),
        )
        for item in read(work)
    ]
    show("Unaffirmed", UNAFFIRMED_COLUMNS, rows, as_json=as_json, right=("age",))


def _show_due(book: int, party: str | None, *, as_json: bool) -> None:
    async def work(conn: AsyncConnection) -> list[Due]:
        from trading.confirmations.queries import list_due

        return await list_due(conn, book, party=party)

    rows = [
        (str(item.deal_id), "cancellation" if item.is_cancellation else "deal", iso(item.since))
        for item in read(work)
    ]
    show("Due", ("deal", "what", "since"), rows, as_json=as_json)
