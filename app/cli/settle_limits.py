"""``causeway settle limits``: what a party may owe in settlement while our own leg leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    AsJson,
    Book,
    Money,
    Reason,
    clock,
    read,
    show,
    show_one,
    write,
)
from app.cli.operators import Approver, ApproverKey, As, Key, credentials
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from risk.settlement_limit_model import LimitUse, SettlementLimit

NOTHING = "none"
HUNDRED = 100

app = typer.Typer(help="Settlement limits, gross and net.", no_args_is_help=True)


@app.command("set")
def set_(
    party: Annotated[str, typer.Argument(help="Code of the party; * for all that have none.")],
    asset: Annotated[str, typer.Argument(help="Code of the asset that is owed.")],
    *,
    gross: Annotated[
        str | None, typer.Option(help="Of all that is sealed and unpaid; none: not limited.")
    ] = None,
    net: Annotated[
        str | None, typer.Option(help="Less what we owe and what we took as security.")
    ] = None,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    as_json: AsJson = False,
) -> None:
    """Set how much a party may owe us in an asset while our own leg leaves; two people sign.

    Without a limit nothing leaves on a party's word: it pays first, or it is prefunded.

    Example: `causeway settle limits set acme USDT --gross 1000000 --net 250000 --reason "credit committee" --as ada
    --key ada.key --approver ben --approver-key ben.key`
    """
    if gross is None and net is None:
        raise BadInput("no limit is named", remedy="Give --gross, --net or both; 0 is nothing")
    first, second = credentials(as_, key), credentials(approver, approver_key)
    now = clock().now()

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from risk.settlement_limit_model import SettlementLimit
        from risk.settlement_limits import (
            set_settlement_limit,
            settlement_limit_bytes,
            settlement_limit_version,
        )

        money = await Money.load(conn)
        limit = SettlementLimit(
            party=party,
            asset=asset,
            version=await settlement_limit_version(conn, party, asset) + 1,
            gross_units=_units(money, asset, gross),
            net_units=_units(money, asset, net),
        )
        me, other = await first.person(conn), await second.person(conn)
        await set_settlement_limit(
            conn,
            limit,
            by=me.operator,
            approver=other.operator,
            signature=other.sign(settlement_limit_bytes(limit, reason)),
            reason=reason,
            now=now,
        )
        return _facts(limit, money)

    show_one("Settlement limit", write(work), as_json=as_json)


@app.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List the settlement limits in force.

    Example: `causeway settle limits list`
    """

    async def work(conn: AsyncConnection) -> list[dict[str, str]]:
        from risk.settlement_limits import list_settlement_limits

        money = await Money.load(conn)
        return [_facts(limit, money) for limit in await list_settlement_limits(conn)]

    columns = ("party", "asset", "version", "gross", "net")
    rows = [tuple(facts[column] for column in columns) for facts in read(work)]
    show("Settlement limits", columns, rows, as_json=as_json, right=("gross", "net"))


@app.command("usage")
def usage_(
    *,
    over: Annotated[
        int, typer.Option("--over", min=0, max=HUNDRED, help="Only those used so far, in percent.")
    ] = 0,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Say how far the settlement limits are used, by what the books say is owed.

    Example: `causeway settle limits usage --over 80`
    """

    async def work(conn: AsyncConnection) -> tuple[list[LimitUse], Money]:
        from risk.settlement_limits import usage

        return await usage(conn, book), await Money.load(conn)

    found, money = read(work, book=book)
    columns = ("party", "asset", "bound", "used", "allowed")
    rows = [
        (
            use.party,
            use.asset,
            str(use.bound),
            money.text(use.used, use.asset),
            money.text(use.allowed, use.asset),
        )
        for use in found
        if not over or use.reaches(over)
    ]
    show("Use of settlement limits", columns, rows, as_json=as_json, right=("used", "allowed"))


def _units(money: Money, asset: str, text: str | None) -> int | None:
    return None if text is None else money.asset(asset).parse(text)


def _facts(limit: SettlementLimit, money: Money) -> dict[str, str]:
    def text(units: int | None) -> str:
        return NOTHING if units is None else money.text(units, limit.asset)

    return {
        "party": limit.party,
        "asset": limit.asset,
        "version": str(limit.version),
        "gross": text(limit.gross_units),
        "net": text(limit.net_units),
    }
