"""``causeway settle agree, agreements``: what nets with what, from when until when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import AsJson, clock, one_of, parse_date, read, show, show_one, write
from app.cli.evidence_files import hash_file
from app.cli.operators import Approver, ApproverKey, As, Key, credentials

if TYPE_CHECKING:
    from datetime import date

    from sqlalchemy.ext.asyncio import AsyncConnection

    from trading.terms.netting_model import Signed

EVERY = "every"


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    app.command()(agree)
    app.command()(agreements)


def agree(
    party: str,
    *,
    document: Annotated[Path, typer.Option(help="The signed agreement; its hash stays.")],
    name: Annotated[str, typer.Option(help="Which of the party's agreements.")] = "master",
    kind: Annotated[
        str, typer.Option(help="isda-2002, isda-1992, terms-of-business or bespoke.")
    ] = "bespoke",
    product: Annotated[
        list[str] | None,
        typer.Option(help="spot, collateral or other; repeat it; else every one."),
    ] = None,
    office: Annotated[
        list[str] | None,
        typer.Option(help="Code of our legal entity; repeat it; else every one."),
    ] = None,
    asset: Annotated[
        list[str] | None, typer.Option(help="Code of an asset; repeat it; else every one.")
    ] = None,
    effective_from: Annotated[
        str | None, typer.Option("--effective-from", help="ISO date; else today in UTC.")
    ] = None,
    ends_on: Annotated[
        str | None, typer.Option("--ends-on", help="The last value date that nets; else no end.")
    ] = None,
    trades_from: Annotated[
        str | None, typer.Option("--trades-from", help="Only what was traded from that day on.")
    ] = None,
    prefunded: Annotated[
        bool, typer.Option("--prefunded", help="It settles by book, from what it holds here.")
    ] = False,
    multilateral: Annotated[
        bool, typer.Option("--multilateral", help="Set-off in cycles with others is agreed.")
    ] = False,
    close_out: Annotated[
        bool, typer.Option("--close-out", help="On default everything becomes one sum.")
    ] = False,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    as_json: AsJson = False,
) -> None:
    """Put a netting agreement into force, entered by one operator and signed by another.

    What it does not name, it covers. Without an agreement nothing nets across trades.

    Example: `causeway settle agree acme --document isda.pdf --as ada --key ada.key --approver ben
    --approver-key ben.key`
    """
    first, second = credentials(as_, key), credentials(approver, approver_key)
    digest = hash_file(document)
    now = clock().now()
    start = parse_date(effective_from, now)
    end = None if ends_on is None else parse_date(ends_on, now)
    traded = None if trades_from is None else parse_date(trades_from, now)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from trading.terms.agreements import agree as verb
        from trading.terms.agreements import agreement_bytes, agreement_version, list_agreements
        from trading.terms.netting_model import AgreementKind, NettingAgreement, Product

        products = [one_of(Product, word, "product") for word in product or ()]
        made = NettingAgreement(
            party=party,
            name=name,
            kind=one_of(AgreementKind, kind, "kind of agreement"),
            products=frozenset(products) if products else None,
            offices=frozenset(office) if office else None,
            assets=frozenset(asset) if asset else None,
            effective_from=start,
            ends_on=end,
            trades_from=traded,
            prefunded=prefunded,
            multilateral=multilateral,
            close_out=close_out,
        )
        me, other = await first.person(conn), await second.person(conn)
        version = await agreement_version(conn, party, name) + 1
        await verb(
            conn,
            made,
            document_hash=digest,
            by=me.operator,
            approver=other.operator,
            signature=other.sign(agreement_bytes(made, digest, version=version)),
            now=now,
        )
        (found,) = [
            item for item in await list_agreements(conn, party) if item.agreement.name == name
        ]
        return _facts(found)

    show_one("Netting agreement", write(work), as_json=as_json)


def agreements(
    party: Annotated[str | None, typer.Argument(help="Only of this party.")] = None,
    *,
    on: Annotated[
        str | None, typer.Option("--on", help="Only what is in force on that day.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the netting agreements, each as it stands now.

    Example: `causeway settle agreements acme`
    """
    day = None if on is None else parse_date(on, clock().now())

    async def work(conn: AsyncConnection) -> list[dict[str, str]]:
        from trading.terms.agreements import list_agreements

        found = await list_agreements(conn, party)
        return [_facts(item) for item in found if day is None or item.agreement.covers(day)]

    columns = (
        *("party", "name", "version", "kind", "products", "offices", "assets", "effective_from"),
        *("ends_on", "trades_from", "prefunded", "multilateral", "close_out", "agreed_by"),
        *("approved_by", "document"),
    )
    rows = [tuple(facts[column] for column in columns) for facts in read(work)]
    show("Netting agreements", columns, rows, as_json=as_json, right=("version",))


def _facts(item: Signed) -> dict[str, str]:
    made = item.agreement
    return {
        "party": made.party,
        "name": made.name,
        "version": str(made.version),
        "kind": str(made.kind),
        "products": _scope(made.products),
        "offices": _scope(made.offices),
        "assets": _scope(made.assets),
        "effective_from": made.effective_from.isoformat(),
        "ends_on": _day(made.ends_on),
        "trades_from": _day(made.trades_from),
        "prefunded": str(made.prefunded).lower(),
        "multilateral": str(made.multilateral).lower(),
        "close_out": str(made.close_out).lower(),
        "document": item.document_hash,
        "entered_by": item.agreed_by,
        "agreed_by": item.agreed_by,
        "approved_by": item.approved_by,
    }


def _scope(names: frozenset[str] | None) -> str:
    return EVERY if names is None else ", ".join(sorted(str(name) for name in names))


def _day(day: date | None) -> str:
    return "" if day is None else day.isoformat()
