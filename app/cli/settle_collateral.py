"""``causeway settle collateral``: security given and taken, and what is held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

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
    parse_date,
    read,
    show,
    show_one,
    write,
)
from app.cli.operators import Approver, ApproverKey, As, Key, credentials

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.cli.operators import Credentials

app = typer.Typer(help="Collateral given and taken.", no_args_is_help=True)

Quantity = Annotated[str, typer.Argument(metavar="AMOUNT", help='"5000 USDT"')]
Reference = Annotated[str, typer.Option("--ref", help="Your own; one movement for each.")]
ValueDate = Annotated[
    str | None, typer.Option("--value-date", help="When it is due; else today in UTC.")
]
Pledged = Annotated[
    bool, typer.Option("--pledged", help="From or to what the client holds here, at once.")
]


@app.command("give")
def give(
    party: str,
    amount: Quantity,
    *,
    reference: Reference,
    value_date: ValueDate = None,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    book: Book = BOOK_DEFAULT,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Give a party security: it is owed from now on, and paid in the next settlement.

    Example: `causeway settle collateral give acme "5000 USDT" --ref csa-7 --reason "margin of March" --as ada --key ada.key
    --approver ben --approver-key ben.key`
    """
    people = credentials(as_, key), credentials(approver, approver_key)
    typed = _Typed(party, amount, reference, value_date, reason, book)
    _run("give", "settlement", typed, people, dry_run=dry_run, as_json=as_json)


@app.command("take")
def take(
    party: str,
    amount: Quantity,
    *,
    reference: Reference,
    pledged: Pledged = False,
    value_date: ValueDate = None,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    book: Book = BOOK_DEFAULT,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take security from a party: it owes it from now on, or pledges what it holds here.

    Example: `causeway settle collateral take acme "5000 USDT" --ref csa-8 --reason "margin of March" --as ada --key ada.key
    --approver ben --approver-key ben.key`
    """
    people = credentials(as_, key), credentials(approver, approver_key)
    typed = _Typed(party, amount, reference, value_date, reason, book)
    _run("take", _way(pledged), typed, people, dry_run=dry_run, as_json=as_json)


@app.command("return")
def return_(
    party: str,
    amount: Quantity,
    *,
    given: Annotated[
        bool, typer.Option("--given/--taken", help="What we gave comes back; or what we took goes.")
    ],
    reference: Reference,
    pledged: Pledged = False,
    value_date: ValueDate = None,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    book: Book = BOOK_DEFAULT,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Return security: never more than is held.

    Example: `causeway settle collateral return acme "5000 USDT" --taken --ref csa-9 --reason "margin of April" --as ada --key ada.key
    --approver ben --approver-key ben.key`
    """
    people = credentials(as_, key), credentials(approver, approver_key)
    typed = _Typed(party, amount, reference, value_date, reason, book)
    move = "give-back" if given else "take-back"
    _run(move, _way(pledged), typed, people, dry_run=dry_run, as_json=as_json)


@app.command("list")
def list_(*, book: Book = BOOK_DEFAULT, as_json: AsJson = False) -> None:
    """List what is held as security, by the books.

    Example: `causeway settle collateral list`
    """

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from ledger.queries import list_accounts

        money = await Money.load(conn)
        found = await list_accounts(conn, book, "collateral:")
        return [
            (
                account.path.split(":")[2],
                account.path.split(":")[1],
                account.spec.asset,
                money.text(account.balance.posted, account.spec.asset),
            )
            for account in found
            if account.balance.posted
        ]

    columns = ("party", "side", "asset", "amount")
    show("Collateral", columns, read(work, book=book), as_json=as_json, right=("amount",))


class _Typed(NamedTuple):
    """A movement as it was typed."""

    party: str
    amount: str
    reference: str
    value_date: str | None
    reason: str
    book: int


def _way(pledged: object) -> str:
    return "account" if pledged else "settlement"


def _run(
    move: str,
    way: str,
    typed: _Typed,
    people: tuple[Credentials, Credentials],
    *,
    dry_run: DryRun,
    as_json: AsJson,
) -> None:
    quantity, now = Amount.parse(typed.amount), clock().now()
    day = parse_date(typed.value_date, now)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from settlement.collateral import collateral_bytes, move_collateral
        from settlement.collateral_model import CollateralMove, Move, Way

        money = await Money.load(conn)
        item = CollateralMove(
            book=typed.book,
            reference=typed.reference,
            move=Move(move),
            way=Way(way),
            party=typed.party,
            asset=quantity.asset,
            amount=money.units(quantity),
            value_date=day,
        )
        me, other = await people[0].person(conn), await people[1].person(conn)
        is_new = await move_collateral(
            conn,
            item,
            by=me.operator,
            approver=other.operator,
            signature=other.sign(collateral_bytes(item, typed.reason)),
            reason=typed.reason,
            now=now,
        )
        debit, credit = item.accounts
        return {
            "reference": item.reference,
            "move": str(item.move),
            "party": item.party,
            "amount": money.text(item.amount, item.asset),
            "debit": debit,
            "credit": credit,
            "value_date": item.value_date.isoformat(),
            "is_new": str(is_new).lower(),
        }

    show_one("Collateral", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)
