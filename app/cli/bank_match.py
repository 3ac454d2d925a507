"""``causeway settle match``: what arrived and fits nothing by itself, and what two people say it pays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
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
    emit,
    read,
    show,
    show_one,
    write,
)
from app.cli.operators import Approver, ApproverKey, As, Key, credentials
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from settlement.fail_model import PaymentReturn
    from settlement.matching.by_hand import Share
    from settlement.matching.model import Incoming, Match, Verdict
    from settlement.matching.unapplied import Unapplied
    from settlement.model import Instruction, Obligation

app = typer.Typer(help="Match receipts by hand, and set the rules.", no_args_is_help=True)

ReceiptId = Annotated[UUID, typer.Argument(metavar="RECEIPT", help="Id of the receipt.")]
WAITING_COLUMNS: Final = (
    *("id", "rail", "party", "amount", "value_date", "reference", "from", "suggested", "why"),
)
MATCH_COLUMNS: Final = ("receipt", "instruction", "party", "applied", "charge", "excess", "rule")
RULES_BYTES_MAX: Final = 1_000_000


@app.command("list")
def list_(*, book: Book = BOOK_DEFAULT, as_json: AsJson = False) -> None:
    """List what waits for a person, as it was seen, and what it may pay: the best suggestion first.

    Example: `causeway settle match list`
    """

    async def work(conn: AsyncConnection) -> tuple[list[tuple[Incoming, Verdict]], Money]:
        from settlement.matching.posting import suggestions

        return await suggestions(conn, book), await Money.load(conn)

    found, money = read(work)
    if as_json:
        emit([_waiting_json(item, verdict, money) for item, verdict in found])
        return
    rows = [_waiting_row(item, verdict, money) for item, verdict in found]
    show("Waiting", WAITING_COLUMNS, rows, as_json=False, right=("amount",))


@app.command("by-hand")
def by_hand(
    receipt: ReceiptId,
    *,
    pay: Annotated[
        list[str],
        typer.Option(
            "--pay", metavar="INSTRUCTION=AMOUNT", help="What it pays, 1500.25; once for each."
        ),
    ],
    bear: Annotated[
        bool, typer.Option("--bear-charges", help="The house bears what is missing of them.")
    ] = False,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    book: Book = BOOK_DEFAULT,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Let a receipt pay what two people say; more than is owed, is owed to the party.

    Example: `causeway settle match by-hand 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80
    --pay 0198f2c4-7d21-8a6e-9c30-000000000001=600 --reason "named the invoice" --as dan --key dan.key --approver ada
    --approver-key ada.key`
    """
    first, second = credentials(as_, key), credentials(approver, approver_key)
    wanted = [_pair(text) for text in pay]

    async def work(conn: AsyncConnection) -> tuple[list[Match], Money]:
        from settlement.matching.by_hand import match_by_hand, match_bytes

        me, other = await first.person(conn), await second.person(conn)
        money = await Money.load(conn)
        waiting = await _waiting(conn, book, receipt)
        shares = await _shares(conn, book, waiting, wanted, money, bear=bear)
        done = await match_by_hand(
            conn,
            receipt,
            shares,
            book=book,
            by=me.operator,
            second=other.operator,
            signature=other.sign(match_bytes(waiting, shares, reason)),
            reason=reason,
            now=clock().now(),
        )
        return done, money

    done, money = write(work, dry_run=dry_run)
    rows = [_match_row(match, money) for match in done]
    show("Matched", MATCH_COLUMNS, rows, as_json=as_json)


@app.command("apart")
def apart(
    receipt: ReceiptId,
    *,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    book: Book = BOOK_DEFAULT,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take the matches of a receipt apart; from then on only people match it.

    Example: `causeway settle match apart 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "another invoice" --as dan
    --key dan.key --approver ada --approver-key ada.key`
    """
    first, second = credentials(as_, key), credentials(approver, approver_key)

    async def work(conn: AsyncConnection) -> tuple[list[Instruction], Money]:
        from settlement.matching.by_hand import list_standing, unmatch, unmatch_bytes

        me, other = await first.person(conn), await second.person(conn)
        standing = await list_standing(conn, receipt)
        done = await unmatch(
            conn,
            receipt,
            book=book,
            by=me.operator,
            second=other.operator,
            signature=other.sign(unmatch_bytes(receipt, [m.id for m in standing], reason)),
            reason=reason,
            now=clock().now(),
        )
        return done, await Money.load(conn)

    done, money = write(work, dry_run=dry_run)
    rows = [(str(i.id), i.party, money.text(i.remaining, i.asset), str(i.state)) for i in done]
    show("Awaited again", ("id", "party", "open", "state"), rows, as_json=as_json)


@app.command("returned")
def returned(
    receipt: ReceiptId,
    instruction: Annotated[
        UUID, typer.Argument(metavar="INSTRUCTION", help="Our payment that came back.")
    ],
    *,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    book: Book = BOOK_DEFAULT,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Say that a receipt is a payment of ours that came back: the desk owes it again.

    Example: `causeway settle match returned 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80
    0198f2c4-7d21-8a6e-9c30-000000000001 --reason "account closed" --as dan --key dan.key --approver ada
    --approver-key ada.key`
    """
    first, second = credentials(as_, key), credentials(approver, approver_key)

    async def work(conn: AsyncConnection) -> tuple[PaymentReturn, Money]:
        from settlement.returns import returned_bytes, take_returned

        me, other = await first.person(conn), await second.person(conn)
        waiting = await _waiting(conn, book, receipt)
        made = await take_returned(
            conn,
            receipt,
            instruction,
            book=book,
            by=me.operator,
            second=other.operator,
            signature=other.sign(returned_bytes(waiting, instruction, reason)),
            reason=reason,
            now=clock().now(),
        )
        return made, await Money.load(conn)

    made, money = write(work, dry_run=dry_run)
    facts = {
        "id": str(made.id),
        "party": made.party,
        "amount": money.text(made.amount, made.asset),
        "obligation": str(made.obligation_id),
    }
    show_one("Owed again", facts, as_json=as_json, dry_run=dry_run)


@app.command("unapplied")
def unapplied(
    receipt: ReceiptId,
    party: Annotated[str, typer.Argument(metavar="PARTY", help="Whose it is.")],
    *,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    book: Book = BOOK_DEFAULT,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Say that a receipt pays for nothing: from then on it is owed to its party.

    Example: `causeway settle match unapplied 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 acme --reason "paid twice" --as dan
    --key dan.key --approver ada --approver-key ada.key`
    """
    first, second = credentials(as_, key), credentials(approver, approver_key)

    async def work(conn: AsyncConnection) -> tuple[Unapplied, Money]:
        from settlement.matching.unapplied import take_unapplied, unapplied_bytes

        me, other = await first.person(conn), await second.person(conn)
        waiting = await _waiting(conn, book, receipt)
        made = await take_unapplied(
            conn,
            receipt,
            party,
            book=book,
            by=me.operator,
            second=other.operator,
            signature=other.sign(unapplied_bytes(waiting, party, reason)),
            reason=reason,
            now=clock().now(),
        )
        return made, await Money.load(conn)

    made, money = write(work, dry_run=dry_run)
    facts = {
        "receipt": str(made.receipt_id),
        "party": made.party,
        "amount": money.text(made.amount, made.asset),
        "account": made.account,
    }
    show_one("Owed to its party", facts, as_json=as_json, dry_run=dry_run)


@app.command("give-back")
def give_back(
    party: Annotated[str, typer.Argument(metavar="PARTY", help="Who paid too much.")],
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help='"30 USD".')],
    *,
    ref: Annotated[str, typer.Option("--ref", help="Its identity for ever.")],
    clients: Annotated[
        bool, typer.Option("--clients", help="It lies with clients' coins: it becomes a balance.")
    ] = False,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    book: Book = BOOK_DEFAULT,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Give back what a party paid too much: the next cycle nets and pays it.

    Example: `causeway settle match give-back acme "30 USDT" --ref over-7 --reason "it asked for it" --as dan --key dan.key
    --approver ada --approver-key ada.key`
    """
    first, second = credentials(as_, key), credentials(approver, approver_key)
    asked_amount = Amount.parse(amount)

    async def work(conn: AsyncConnection) -> tuple[Obligation | None, Money]:
        from settlement.matching.giving_back import GiveBack, give_back_bytes
        from settlement.matching.giving_back import give_back as verb

        me, other = await first.person(conn), await second.person(conn)
        money = await Money.load(conn)
        asked = GiveBack(
            party=party,
            asset=asked_amount.asset,
            amount=money.units(asked_amount),
            reference=ref,
            is_clients=clients,
        )
        made = await verb(
            conn,
            asked,
            book=book,
            by=me.operator,
            second=other.operator,
            signature=other.sign(give_back_bytes(asked, reason)),
            reason=reason,
            now=clock().now(),
        )
        return made, money

    made, money = write(work, dry_run=dry_run)
    facts = {"party": party, "amount": amount, "obligation": "", "value_date": ""}
    if made is not None:
        facts["amount"] = money.text(made.amount, made.asset)
        facts["obligation"] = str(made.id)
        facts["value_date"] = made.value_date.isoformat()
    show_one("Given back", facts, as_json=as_json, dry_run=dry_run)


@app.command("rules")
def rules(*, as_json: AsJson = False) -> None:
    """Show the rules in force: what may match by its amount, tolerances, who bears charges.

    Example: `causeway settle match rules --json`
    """

    async def work(conn: AsyncConnection) -> dict[str, Any]:
        from settlement.matching.rules import get_rules
        from settlement.matching.rules_document import document_of

        found = await get_rules(conn)
        return {"version": found.version, **document_of(found)}

    document = read(work)
    if as_json:
        emit(document)
        return
    rows = [
        (rail, "yes" if body["unique_amount"] else "no", _pairs(body["tolerance"]))
        for rail, body in document["rails"].items()
    ]
    title = f"Rules of matching, version {document['version']}"
    show(title, ("rail", "by amount alone", "tolerance, smallest units"), rows, as_json=False)
    if document["charges"]:
        show("Charges", ("party", "borne by"), list(document["charges"].items()), as_json=False)


@app.command("set-rules")
def set_rules(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The rules as JSON.")],
    *,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Put rules in force as the next version, signed by a second operator.

    The file is as `causeway settle match rules --json` prints it, without the version.

    Example: `causeway settle match set-rules rules.json --reason "fees of the new bank" --as ada --key ada.key
    --approver cleo --approver-key cleo.key`
    """
    first, second = credentials(as_, key), credentials(approver, approver_key)
    document = _read_rules(file)

    async def work(conn: AsyncConnection) -> int:
        from settlement.matching.rules import get_rules, rules_bytes
        from settlement.matching.rules import set_rules as verb
        from settlement.matching.rules_document import rules_of

        me, other = await first.person(conn), await second.person(conn)
        made = rules_of(document, (await get_rules(conn)).version + 1)
        await verb(
            conn,
            made,
            by=me.operator,
            second=other.operator,
            signature=other.sign(rules_bytes(made, reason)),
            reason=reason,
            now=clock().now(),
        )
        return made.version

    version = write(work, dry_run=dry_run)
    show_one("Rules", {"version": str(version)}, as_json=as_json, dry_run=dry_run)


@app.command("history")
def history(receipt: ReceiptId, *, as_json: AsJson = False) -> None:
    """Tell every match of a receipt, those that were taken apart too: by which rule, by whom, why.

    Example: `causeway settle match history 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """

    async def work(conn: AsyncConnection) -> list[dict[str, Any]]:
        from settlement.matching.by_hand import match_history

        return await match_history(conn, receipt)

    columns = (
        *("at", "rule", "by", "second", "reason", "instruction_id", "applied", "charge", "excess"),
        *("undone_at", "undone_by", "undone_second", "undone_reason"),
    )
    rows = [tuple(_cell(row[name]) for name in columns) for row in read(work)]
    show(f"Receipt {receipt}", columns, rows, as_json=as_json)


async def _waiting(conn: AsyncConnection, book: int, receipt_id: UUID) -> Incoming:
    from settlement.matching.by_hand import get_waiting

    return await get_waiting(conn, book, receipt_id)


async def _shares(
    conn: AsyncConnection,
    book: int,
    receipt: Incoming,
    wanted: Sequence[tuple[UUID, str]],
    money: Money,
    *,
    bear: bool,
) -> list[Share]:
    """Read amounts in the receipt's asset; what is missing of an instruction is a charge, if borne."""
    from settlement.matching.by_hand import Share
    from settlement.matching.posting import list_awaited

    asset = money.asset(receipt.asset)
    left = {item.id: item.remaining for item in await list_awaited(conn, book)}
    made = []
    for instruction_id, number in wanted:
        units = asset.parse(number)
        charge = max(0, left.get(instruction_id, units) - units) if bear else 0
        made.append(Share(instruction_id=instruction_id, amount=units, charge=charge))
    return made


def _pair(text: str) -> tuple[UUID, str]:
    name, _, number = text.partition("=")
    try:
        return UUID(name), number
    except ValueError as error:
        raise BadInput(
            f"{text!r} says not what is paid", remedy="Write the id of an instruction=600.25"
        ) from error


def _read_rules(file: Path) -> object:
    try:
        if file.stat().st_size > RULES_BYTES_MAX:
            raise BadInput("no rules are that long", where=str(file))
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(
            "the file does not hold rules as JSON",
            where=str(file),
            remedy="Begin with what `causeway settle match rules --json` prints",
        ) from error


def _waiting_row(item: Incoming, verdict: Verdict, money: Money) -> tuple[str, ...]:
    best = verdict.suggestions[0] if verdict.suggestions else None
    return (
        str(item.id),
        str(item.rail),
        item.party or "",
        money.text(item.value, item.asset),
        item.value_date.isoformat(),
        f"{item.end_to_end} {item.reference}".strip(),
        f"{item.name} {item.iban}".strip(),
        "" if best is None else " ".join(map(str, best.expected)),
        "" if best is None else best.why,
    )


def _waiting_json(item: Incoming, verdict: Verdict, money: Money) -> dict[str, Any]:
    facts = dict(zip(WAITING_COLUMNS[:7], _waiting_row(item, verdict, money), strict=False))
    return {
        **facts,
        "suggestions": [
            {"instructions": [str(key) for key in one.expected], "why": one.why}
            for one in verdict.suggestions
        ],
    }


def _match_row(match: Match, money: Money) -> tuple[str, ...]:
    row, item = match.row, match.instruction
    amounts = (money.text(n, item.asset) for n in (row.applied, row.charge, row.excess))
    return (str(row.receipt_id), str(item.id), item.party, *amounts, str(row.rule))


def _pairs(body: dict[str, str]) -> str:
    return ", ".join(f"{asset} {units}" for asset, units in body.items())


def _cell(value: object) -> str:
    if value is None:
        return ""
    return iso(value) if hasattr(value, "tzinfo") else str(value)  # type: ignore[arg-type]  # times only
