"""``causeway ledger``: transfers and holds, and the life of one transfer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from app.cli.common import BOOK_DEFAULT, AsJson, Book, Money, emit, read, show
from app.cli.explain import Moment, Section, Story, postings, tell
from app.cli.ledger_points import (
    SEQUENCE_MAX,
    AfterSequence,
    AtSequence,
    Limit,
    parse_start,
    parse_stop,
    say_more,
)
from kernel.clock import iso
from kernel.errors import BadInput, Refused

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from ledger.model import Balance, JournalTransfer, Kind, OpenHold
    from ledger.views import HoldPage, TransferDetail, TransferFilter, TransferRef

HOLD_COLUMNS = ("sequence", "hold", "debit", "credit", "amount", "purpose", "expires")
TRANSFER_COLUMNS = ("sequence", "recorded", "kind", "posting", "debit", "credit", "amount")
CALLS_MAX = 1_000
"""Pages that one command reads, however few of them match."""


def register(app: typer.Typer) -> None:
    """Add the commands to ``causeway ledger``."""
    app.command()(transfers)
    app.command()(explain)
    app.command()(holds)


def transfers(
    *,
    path: Annotated[str | None, typer.Option(help="Only those that touch this account.")] = None,
    asset: Annotated[str | None, typer.Option(help="Only of this asset.")] = None,
    code: Annotated[str | None, typer.Option(help="Only this kind of posting.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="single, pending, post, void, expire or reversal.")
    ] = None,
    correlation: Annotated[str | None, typer.Option(help="Only of this domain row.")] = None,
    reference: Annotated[str | None, typer.Option(help="Only with this reference.")] = None,
    metadata: Annotated[
        str | None, typer.Option(help='Only what contains this JSON: {"order": "o-7"}.')
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--from", help="Recorded then or later; a date means its beginning."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="Recorded before then; a date means its end.")
    ] = None,
    effective_from: Annotated[
        str | None, typer.Option(help="Effective then or later; a date means its beginning.")
    ] = None,
    effective_to: Annotated[
        str | None, typer.Option(help="Effective before then; a date means its end.")
    ] = None,
    after: AfterSequence = 0,
    before: Annotated[
        int | None,
        typer.Option(
            min=1, max=SEQUENCE_MAX, help="Instead the last ones before this sequence number."
        ),
    ] = None,
    limit: Limit = 1_000,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List transfers in journal order, a page at a time; every filter that is given must hold.

    Example: `causeway ledger transfers --code deposit.credited`
    """
    if before is not None and after:
        raise BadInput("give --after or --before, not both")
    from ledger.views import TransferFilter

    wanted = TransferFilter(
        path=path,
        asset=asset,
        code=code,
        kind=_kind(kind),
        correlation=None if correlation is None else _id(correlation),
        reference=reference,
        metadata=_metadata(metadata),
        recorded_from=None if since is None else parse_start(since),
        recorded_to=None if until is None else parse_stop(until),
        effective_from=None if effective_from is None else parse_start(effective_from),
        effective_to=None if effective_to is None else parse_stop(effective_to),
    )

    async def work(
        conn: AsyncConnection,
    ) -> tuple[list[JournalTransfer], int | None, Money]:
        found, cursor = await _walk(conn, book, wanted, after, before, limit)
        return found, cursor, await Money.load(conn)

    found, cursor, money = read(work, book=book)
    _show_transfers(found, money, as_json=as_json)
    if cursor is not None:
        option = "--after" if before is None else "--before"
        typer.echo(f"there is more: {option} {cursor}", err=True)


async def _walk(
    conn: AsyncConnection,
    book: int,
    wanted: TransferFilter,
    after: int,
    before: int | None,
    limit: int,
) -> tuple[list[JournalTransfer], int | None]:
    """Read pages until *limit* transfers are found; return where to go on, None at the end."""
    from ledger.search import page_transfers

    found: list[JournalTransfer] = []
    cursor = after if before is None else before
    for _ in range(CALLS_MAX):
        rest = limit - len(found)
        if before is None:
            page = await page_transfers(conn, book, wanted, after=cursor, limit=rest)
            found, following = [*found, *page.items], page.after
        else:
            page = await page_transfers(conn, book, wanted, before=cursor, limit=rest)
            found, following = [*page.items, *found], page.before
        if following is None:
            return found, None
        cursor = following
        if len(found) >= limit:
            break
    return found, cursor


def _show_transfers(found: Sequence[JournalTransfer], money: Money, *, as_json: bool) -> None:
    rows = [
        (
            str(item.sequence),
            iso(item.recorded_at),
            item.kind.name.lower(),
            item.code,
            item.debit,
            item.credit,
            money.text(item.amount, item.asset),
        )
        for item in found
    ]
    if as_json:
        emit(
            [
                {**dict(zip(TRANSFER_COLUMNS, row, strict=True)), **_more(item)}
                for row, item in zip(rows, found, strict=True)
            ]
        )
        return
    show("Transfers", TRANSFER_COLUMNS, rows, as_json=False, right=("amount",))


def _more(item: JournalTransfer) -> dict[str, Any]:
    """Return what has no column in a table."""
    return {
        "id": str(item.id),
        "effective": "" if item.effective_at is None else iso(item.effective_at),
        "purpose": item.purpose,
        "reference": item.reference,
        "correlation": str(item.correlation or ""),
        "hold": str(item.pending_id or ""),
        "reverses": str(item.reverses or ""),
        "metadata": dict(item.metadata),
    }


def _kind(text: str | None) -> Kind | None:
    from ledger.model import Kind

    if text is None:
        return None
    if text.upper() not in Kind.__members__:
        words = ", ".join(name.lower() for name in Kind.__members__)
        raise BadInput(f"{text!r} is not a kind of transfer", remedy=f"Use one of {words}")
    return Kind[text.upper()]


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise BadInput(f"{text!r} is not an id", remedy="Give the UUID") from error


def _metadata(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        wanted = json.loads(text)
    except ValueError as error:
        raise BadInput(f"{text!r} is not JSON", remedy='Write {"order": "o-7"}') from error
    if not isinstance(wanted, dict):
        raise BadInput(f"{text!r} is not a JSON object", remedy='Write {"order": "o-7"}')
    return wanted


def explain(
    transfer_id: Annotated[str, typer.Argument(metavar="ID", help="Of the transfer.")],
    *,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show a transfer: its balances, its hold, what resolved it, what it reverses or was reversed by.

    Example: `causeway ledger explain 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """
    asked = _id(transfer_id)

    async def work(conn: AsyncConnection) -> Story:
        from ledger.search import find_refusal, find_transfer

        found = await find_transfer(conn, book, asked)
        if found is not None:
            return _story(found, await Money.load(conn))
        refusal = await find_refusal(conn, book, asked)
        if refusal is None:
            raise Refused(f"book {book} has no transfer {asked}")
        facts = {
            "id": str(asked),
            "outcome": refusal.outcome,
            "sequence": str(refusal.sequence),
            "recorded": iso(refusal.recorded_at),
        }
        moment = Moment(refusal.recorded_at, "refusal", "ledger", refusal.outcome)
        return Story(f"Transfer {asked}: refused", facts, [moment])

    tell(read(work, book=book), as_json=as_json)


def _story(found: TransferDetail, money: Money) -> Story:
    item = found.transfer
    ties = {
        "made the hold": found.pending,
        "resolved it": found.resolved_by,
        "reversed here": found.original,
        "reversed it": found.reversed_by,
    }
    timeline = [*postings([item], money)]
    timeline += [
        _moment(name, tie, item.asset, money) for name, tie in ties.items() if tie is not None
    ]
    return Story(
        f"Transfer {item.id}",
        {
            "id": str(item.id),
            "sequence": str(item.sequence),
            "block": str(found.height),
            "recorded": iso(item.recorded_at),
            "effective": "" if item.effective_at is None else iso(item.effective_at),
            "kind": item.kind.name.lower(),
            "posting": item.code,
            "debit": item.debit,
            "credit": item.credit,
            "amount": money.text(item.amount, item.asset),
            "hold": "" if found.hold is None else f"{found.hold.state} {found.hold.id}",
            "purpose": item.purpose,
            "reference": item.reference,
            "correlation": str(item.correlation or ""),
            "metadata": json.dumps(dict(item.metadata)) if item.metadata else "",
            "metadata_hash": found.metadata_hash,
        },
        timeline,
        {
            "balances_after": Section(
                ("account", "balance", "available", "incoming"),
                [
                    _balance(item.debit, found.debit_balance, item.asset, money),
                    _balance(item.credit, found.credit_balance, item.asset, money),
                ],
            )
        },
    )


def _moment(name: str, tie: TransferRef, asset: str, money: Money) -> Moment:
    what = f"{name}: {tie.kind.name.lower()} {money.text(tie.amount, asset)} [{tie.code}]"
    return Moment(tie.recorded_at, "posting", "ledger", f"{what} #{tie.sequence} {tie.id}")


def _balance(path: str, found: Balance, asset: str, money: Money) -> tuple[str, ...]:
    amounts = (found.posted, found.available, found.incoming)
    return (path, *(money.text(amount, asset) for amount in amounts))


def holds(
    *,
    path: Annotated[str | None, typer.Option(help="Only those that touch this account.")] = None,
    at_sequence: AtSequence = None,
    after: AfterSequence = 0,
    limit: Limit = 1_000,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List open holds, oldest first.

    Example: `causeway ledger holds --path client:acme`
    """

    async def work(conn: AsyncConnection) -> tuple[HoldPage, Money]:
        from ledger.holds import page_open_holds

        page = await page_open_holds(
            conn, book, path=path, at_sequence=at_sequence, after=after, limit=limit
        )
        return page, await Money.load(conn)

    page, money = read(work, book=book)
    rows = hold_rows(page.items, money)
    show("Open holds", HOLD_COLUMNS, rows, as_json=as_json, right=("amount",))
    say_more(page.after)


def hold_rows(items: Sequence[OpenHold], money: Money) -> list[tuple[str, ...]]:
    """Return open holds as rows of `HOLD_COLUMNS`."""
    return [
        (
            str(item.sequence),
            str(item.id),
            item.debit,
            item.credit,
            money.text(item.amount, item.asset),
            item.purpose,
            "" if item.expires_at is None else iso(item.expires_at),
        )
        for item in items
    ]
