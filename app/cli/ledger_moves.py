"""``causeway ledger move-between-books``, ``moves``, ``clearing``: from one entity to another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.common import (
    Amount,
    AsJson,
    DryRun,
    Money,
    Reason,
    clock,
    on_database,
    read,
    run,
    show,
    show_one,
    write,
)
from app.cli.explain import Story, events, postings, tell
from app.cli.ledger_points import say_more
from app.cli.operators import Approver, ApproverKey, As, Credentials, Key, credentials
from kernel.clock import iso

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from ledger.interbook.model import Move, MoveRequest

PAGE_MAX = 500
"""Moves that are listed at once, as many as the ledger reads."""

MoveId = Annotated[UUID, typer.Argument(metavar="MOVE", help="Id of the move.")]


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    for name, command in (
        ("move-between-books", move_between_books),
        ("moves", moves),
        ("explain-move", explain_move),
        ("clearing", clearing),
    ):
        app.command(name)(command)


def move_between_books(
    amount: Annotated[str, typer.Argument(help='Decimal and asset: "1.5 ETH".')],
    *,
    from_book: Annotated[int, typer.Option("--from-book", help="The book that gives.")],
    to_book: Annotated[int, typer.Option("--to-book", help="The book that gets.")],
    claim: Annotated[
        str,
        typer.Option(help="Debited here, credited there: PATH, or PATH=PATH of the other book."),
    ] = "",
    funds: Annotated[
        str, typer.Option(help="Holding credited here, debited there: PATH, or PATH=PATH.")
    ] = "",
    reference: Annotated[str, typer.Option("--ref", help="Your own; one move for each.")],
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Move a claim, funds, or both from one book to another, signed by a second operator.

    It is held in the first book, posted in the second, then in the first: a step each. What the
    second one refuses is given back. A crash between the steps is made up for by `causeway up`.

    Example: `causeway ledger move-between-books "60 USDT" --from-book 1 --to-book 2 --claim client:acme
    --funds bank:clients --ref mv-1 --reason "acme moves" --as ada --key ada.key --approver ben --approver-key ben.key`
    """
    asked = Amount.parse(amount)
    first, second = credentials(as_, key), credentials(approver, approver_key)
    now = clock().now()

    async def request(conn: AsyncConnection) -> Move:
        from ledger.interbook.model import MoveRequest

        money = await Money.load(conn)
        (claim_from, claim_to), (funds_from, funds_to) = _pair(claim), _pair(funds)
        wanted = MoveRequest(
            reference=reference,
            from_book=from_book,
            to_book=to_book,
            asset=asked.asset,
            amount=money.units(asked),
            claim_from=claim_from,
            claim_to=claim_to,
            funds_from=funds_from,
            funds_to=funds_to,
            reason=reason,
        )
        return await _request(conn, wanted, first, second, now)

    move = _rehearse(request, now) if dry_run else _drive(write(request))
    facts = _facts(move, read(Money.load))
    show_one("Move between books", facts, as_json=as_json, dry_run=dry_run)
    if facts["outcome"]:
        raise typer.Exit(1)


def moves(
    *,
    after: Annotated[UUID | None, typer.Option(help="Only behind the move of this id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE_MAX, help="Rows at most.")] = PAGE_MAX,
    as_json: AsJson = False,
) -> None:
    """List the moves between books, oldest first.

    Example: `causeway ledger moves`
    """

    async def work(conn: AsyncConnection) -> list[dict[str, str]]:
        from ledger.interbook.moving import list_moves

        money = await Money.load(conn)
        return [_facts(item, money) for item in await list_moves(conn, after=after, limit=limit)]

    columns = (
        *("id", "reference", "state", "from_book", "to_book", "amount", "claim", "funds"),
        *("outcome", "requested_by", "approved_by", "requested"),
    )
    rows = [tuple(facts[name] for name in columns) for facts in read(work)]
    show("Moves between books", columns, rows, as_json=as_json, right=("amount",))
    say_more(rows[-1][0] if len(rows) == limit else None)


def explain_move(move_id: MoveId, *, as_json: AsJson = False) -> None:
    """Tell the life of a move: its steps, and what either book posted.

    Example: `causeway ledger explain-move 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """

    async def work(conn: AsyncConnection) -> Story:
        from kernel.events import list_history
        from ledger.interbook.moving import ENTITY, get_move
        from ledger.queries import list_transfers

        item = await get_move(conn, move_id)
        money = await Money.load(conn)
        timeline = events(await list_history(conn, ENTITY, item.id))
        for book in (item.request.from_book, item.request.to_book):
            timeline += postings(await list_transfers(conn, book, correlation=item.id), money)
        return Story(f"Move {item.request.reference}", _facts(item, money), timeline)

    tell(read(work), as_json=as_json)


def clearing(*, as_json: AsJson = False) -> None:
    """Show what is in flight between which books; ends with 1 if two books do not agree.

    At rest the two sides of a pair sum to zero; a difference is what no move explains.

    Example: `causeway ledger clearing`
    """

    async def work(conn: AsyncConnection) -> tuple[list[tuple[str, ...]], bool]:
        from ledger.interbook.standing import clearing_standings

        money = await Money.load(conn)
        found = await clearing_standings(conn)
        rows: list[tuple[str, ...]] = [
            (
                str(item.left),
                str(item.right),
                item.asset,
                money.text(item.left_posted, item.asset),
                money.text(item.right_posted, item.asset),
                str(item.moves),
                money.text(item.one_sided, item.asset),
                money.text(item.difference, item.asset),
                money.text(item.difference_pending, item.asset),
            )
            for item in found
        ]
        return rows, all(item.agrees for item in found)

    rows, agree = read(work)
    columns = (
        *("left_book", "right_book", "asset", "in_left", "in_right", "moves", "in_flight"),
        *("difference", "difference_held"),
    )
    show("Clearing between books", columns, rows, as_json=as_json, right=columns[3:])
    if not agree:
        raise typer.Exit(1)


async def _request(
    conn: AsyncConnection,
    wanted: MoveRequest,
    first: Credentials,
    second: Credentials,
    now: datetime,
) -> Move:
    from ledger.interbook.moving import derive_move_id, request_move
    from ledger.interbook.postings import move_bytes

    me, other = await first.person(conn), await second.person(conn)
    return await request_move(
        conn,
        wanted,
        by=me.code,
        approver=other.code,
        signature=other.sign(move_bytes(derive_move_id(wanted, now), wanted, me.code)),
        now=now,
    )


def _drive(move: Move) -> Move:
    """Do every step that is left, each in a transaction of its own."""

    async def work() -> Move:
        from app.workers.book_mover import BookMover

        return await on_database(lambda engine: BookMover(engine, clock()).drive(move.id))

    return run(work)


def _rehearse(request: Callable[[AsyncConnection], Awaitable[Move]], now: datetime) -> Move:
    """Ask each book in a transaction of its own, which is rolled back; return what would become."""
    from ledger.interbook.moving import advance_move, rehearse_arrival

    async def hold(conn: AsyncConnection) -> Move:
        move = await request(conn)
        return await advance_move(conn, move.id, now=now)

    move = write(hold, dry_run=True)
    if move.outcome:
        return move
    return write(lambda conn: rehearse_arrival(conn, move, now=now), dry_run=True)


def _pair(text: str) -> tuple[str, str]:
    here, mark, there = text.partition("=")
    return here, there if mark else here


def _facts(item: Move, money: Money) -> dict[str, str]:
    request = item.request
    return {
        "id": str(item.id),
        "reference": request.reference,
        "state": str(item.state),
        "from_book": str(request.from_book),
        "to_book": str(request.to_book),
        "amount": money.text(request.amount, request.asset),
        "claim": _words(request.claim_from, request.claim_to),
        "funds": _words(request.funds_from, request.funds_to),
        "reason": request.reason,
        "outcome": item.outcome,
        "requested_by": item.requested_by,
        "approved_by": item.approved_by,
        "requested": iso(item.created_at),
    }


def _words(here: str, there: str) -> str:
    return here if here == there else f"{here} -> {there}"
