"""``causeway desk limits``: what orders of a desk and deals with a party may come to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.common import (
    AsJson,
    DryRun,
    Money,
    Reason,
    clock,
    read,
    show,
    show_one,
    write,
)
from app.cli.operators import Approver, ApproverKey, As, Key, Person, credentials
from kernel.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from risk.model import DeskLimits, PartyLimits

limits = typer.Typer(help="Limits of desks and of parties.", no_args_is_help=True)

NONE: Final = "none"
DESK_ONLY: Final = (
    *("asset_units", "venue_units", "notional_units", "order_notional_units", "loss_units"),
    *("orders_per_minute", "unknown_orders_max", "book_age_max_ms"),
)
PARTY_ONLY: Final = ("exposure_units", "settlement_units")
COLUMNS: Final = ("of", "version", "limit", "allowed")

Figure = Annotated[str | None, typer.Option(help='"100000 USDT", or none.')]
Count = Annotated[str | None, typer.Option(help="A number, or none.")]


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    limits.command("show")(show_)
    limits.command("set")(set_)
    app.add_typer(limits, name="limits")


def show_(
    *,
    desk: Annotated[str | None, typer.Option(help="Only of this desk.")] = None,
    party: Annotated[str | None, typer.Option(help="Only of this party.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the limits in force; `*` are those of whoever has none of their own.

    A desk or party without any is shown as without limit.

    Example: `causeway desk limits show --desk otc`
    """

    async def work(conn: AsyncConnection) -> tuple[list[tuple[str, str, str, str]], list[str]]:
        from risk.limits import (
            desk_limits_of,
            list_desk_limits,
            list_party_limits,
            party_limits_of,
        )

        money = await Money.load(conn)
        rows: list[tuple[str, str, str, str]] = []
        notes: list[str] = []
        if party is None:
            named = [await desk_limits_of(conn, desk)] if desk else await list_desk_limits(conn)
            for found in named:
                rows += _desk_rows(found, money, desk)
                notes += await _never_judged(conn, found)
        if desk is None:
            of_parties = (
                [await party_limits_of(conn, party)] if party else await list_party_limits(conn)
            )
            for item in of_parties:
                rows += _party_rows(item, money, party)
        return rows, notes

    rows, notes = read(work)
    show("Limits", COLUMNS, rows, as_json=as_json, right=("version", "allowed"))
    _note(notes)


def set_(
    *,
    desk: Annotated[str | None, typer.Option(help="Whose orders; * for every other desk.")] = None,
    party: Annotated[str | None, typer.Option(help="Whose deals; * for every other party.")] = None,
    currency: Annotated[
        str | None, typer.Option(help="In which amounts are valued; needed the first time.")
    ] = None,
    asset: Annotated[
        list[str] | None, typer.Option(help='A position, either way: "10 ETH"; "ETH none".')
    ] = None,
    venue: Annotated[
        list[str] | None, typer.Option(help='Under way there: "kraken=50000 USDT"; "kraken=none".')
    ] = None,
    notional: Figure = None,
    order: Figure = None,
    loss: Figure = None,
    orders_per_minute: Count = None,
    unknown_orders: Count = None,
    book_age_ms: Count = None,
    exposure: Figure = None,
    settlement: Figure = None,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Set limits of a desk or of a party: one operator enters them, another signs.

    What is not named stays as it is; `none` takes a limit away.

    Example: `causeway desk limits set --desk otc --currency USDT --asset "50 ETH" --notional "200000 USDT"
    --loss "5000 USDT" --reason "risk committee" --as ada --key ada.key --approver ben --approver-key ben.key`
    """
    if (desk is None) == (party is None):
        raise BadInput(
            "limits are of a desk or of a party", remedy="Give one of --desk and --party"
        )
    first, second = credentials(as_, key), credentials(approver, approver_key)
    figures = {
        "notional_units": notional,
        "order_notional_units": order,
        "loss_units": loss,
        "exposure_units": exposure,
        "settlement_units": settlement,
    }
    counts = {
        "orders_per_minute": orders_per_minute,
        "unknown_orders_max": unknown_orders,
        "book_age_max_ms": book_age_ms,
    }
    named = [name for name, text in (figures | counts).items() if text is not None]
    named += ["asset_units"] * bool(asset) + ["venue_units"] * bool(venue)
    _require_of(
        named, PARTY_ONLY if desk is None else DESK_ONLY, "party" if desk is None else "desk"
    )

    async def work(conn: AsyncConnection) -> tuple[list[tuple[str, str, str, str]], list[str]]:
        money = await Money.load(conn)
        people = await first.person(conn), await second.person(conn)
        if desk is not None:
            before = await _desk_before(conn, desk, currency)
            made = _changed(before, figures, counts, currency, money)
            made = replace(
                made,
                asset_units=_per_asset(before.asset_units, asset or (), money),
                venue_units=_per_venue(before.venue_units, venue or (), made.currency, money),
            )
            done = await _set_desk(conn, made, people, reason)
            return _desk_rows(done, money, desk), await _never_judged(conn, done)
        known = await _party_before(conn, party or "", currency)
        wanted = _changed(known, figures, {}, currency, money)
        return _party_rows(await _set_party(conn, wanted, people, reason), money, party), []

    rows, notes = write(work, dry_run=dry_run)
    _note(notes)
    if as_json:
        facts = {name: allowed for _, _, name, allowed in rows}
        show_one("", {"version": rows[0][1], **facts}, as_json=True, dry_run=dry_run)
        return
    show("Limits", COLUMNS, rows, as_json=False, right=("version", "allowed"))


async def _set_desk(
    conn: AsyncConnection, made: DeskLimits, people: tuple[Person, Person], reason: str
) -> DeskLimits:
    from risk.limits import desk_limits_bytes, set_desk_limits

    me, other = people
    return await set_desk_limits(
        conn,
        made,
        by=me.operator,
        approver=other.operator,
        signature=other.sign(desk_limits_bytes(made)),
        reason=reason,
        now=clock().now(),
    )


async def _set_party(
    conn: AsyncConnection, made: PartyLimits, people: tuple[Person, Person], reason: str
) -> PartyLimits:
    from risk.limits import party_limits_bytes, set_party_limits

    me, other = people
    return await set_party_limits(
        conn,
        made,
        by=me.operator,
        approver=other.operator,
        signature=other.sign(party_limits_bytes(made)),
        reason=reason,
        now=clock().now(),
    )


async def _desk_before(conn: AsyncConnection, desk: str, currency: str | None) -> DeskLimits:
    from risk.limits import list_desk_limits
    from risk.model import DeskLimits

    found = {item.desk: item for item in await list_desk_limits(conn)}
    return found.get(desk) or DeskLimits(desk=desk, currency=_first_currency(currency))


async def _party_before(conn: AsyncConnection, party: str, currency: str | None) -> PartyLimits:
    from risk.limits import list_party_limits
    from risk.model import PartyLimits

    found = {item.party: item for item in await list_party_limits(conn)}
    return found.get(party) or PartyLimits(party=party, currency=_first_currency(currency))


def _first_currency(currency: str | None) -> str:
    if currency is None:
        raise BadInput("there are no limits yet", remedy="Give their --currency")
    return currency


def _require_of(named: list[str], possible: Iterable[str], what: str) -> None:
    wrong = sorted(set(named) - set(possible))
    if wrong:
        raise BadInput(f"{_words(wrong[0])} is no limit of a {what}")


def _changed(
    before: Any,
    figures: dict[str, str | None],
    counts: dict[str, str | None],
    currency: str | None,
    money: Money,
) -> Any:
    """Return the next version of limits, with the figures that were named."""
    code = money.asset(currency or before.currency).code
    changes: dict[str, Any] = {"currency": code, "version": before.version + 1}
    for name, text in figures.items():
        if text is not None:
            changes[name] = _units(text, code, money)
    for name, text in counts.items():
        if text is not None:
            changes[name] = None if text == NONE else _count(text)
    kept = [n for n in (*DESK_ONLY, *PARTY_ONLY) if n.endswith("_units") and n not in changes]
    if code != before.currency and any(getattr(before, name, None) for name in kept):
        raise BadInput(
            f"the limits are in {before.currency}", remedy=f"Name each of them anew in {code}"
        )
    return replace(before, **changes)


def _per_asset(before: Any, texts: Iterable[str], money: Money) -> dict[str, int]:
    found = dict(before)
    for text in texts:
        if text.endswith(f" {NONE}"):
            found.pop(text.removesuffix(f" {NONE}"), None)
            continue
        code = text.strip().rpartition(" ")[2]
        found[code] = money.asset(code).parse(text)
    return found


def _per_venue(before: Any, texts: Iterable[str], currency: str, money: Money) -> dict[str, int]:
    found = dict(before)
    for text in texts:
        venue, _, figure = text.partition("=")
        units = _units(figure, currency, money)
        if units is None:
            found.pop(venue, None)
        else:
            found[venue] = units
    return found


def _units(text: str, currency: str, money: Money) -> int | None:
    """Read ``100000 USDT`` in the limits' currency, ``0 USDT`` too; ``none`` is no limit."""
    if text == NONE:
        return None
    if text.strip().rpartition(" ")[2] != currency:
        raise BadInput(f"{text!r} is not in {currency}", remedy=f'Write it as "1000 {currency}"')
    units = money.asset(currency).parse(text)
    if units < 0:
        raise BadInput(f"{text!r} is below zero")
    return units


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise BadInput(f"{text!r} is not a number", remedy="Write 60, or none")
    return int(text)


def _desk_rows(
    found: DeskLimits | None, money: Money, asked: str | None
) -> list[tuple[str, str, str, str]]:
    if found is None:
        return [(f"desk {asked}", "", "all", "no limit")]
    rows = [(f"position in {a}", money.text(u, a)) for a, u in sorted(found.asset_units.items())]
    rows += [
        (f"under way at {venue}", money.text(units, found.currency))
        for venue, units in sorted(found.venue_units.items())
    ]
    for name in DESK_ONLY[2:]:
        rows.append((_words(name), _told(getattr(found, name), name, found.currency, money)))
    return [(f"desk {found.desk}", str(found.version), name, text) for name, text in rows]


async def _never_judged(conn: AsyncConnection, found: DeskLimits | None) -> list[str]:
    """Return what to say of limits by which no order is judged, as no line trades that or there."""
    from risk.model import EVERY
    from trading.hedges.lines import list_lines

    if found is None or not (found.asset_units or found.venue_units):
        return []
    lines = [line for line in await list_lines(conn) if found.desk in {EVERY, line.desk}]
    assets = set(found.asset_units) - {line.asset for line in lines}
    venues = set(found.venue_units) - {place.venue for line in lines for place in line.places}
    why = [f"buys or sells {asset}" for asset in sorted(assets)]
    why += [f"trades at {venue}" for venue in sorted(venues)]
    return [
        f"No line of {found.desk} {item}: while that is so, no order is judged by the limit on it"
        for item in why
    ]


def _note(notes: Iterable[str]) -> None:
    for text in notes:
        typer.echo(text, err=True)


def _party_rows(
    found: PartyLimits | None, money: Money, asked: str | None
) -> list[tuple[str, str, str, str]]:
    if found is None:
        return [(f"party {asked}", "", "all", "no limit")]
    return [
        (
            f"party {found.party}",
            str(found.version),
            _words(name),
            _told(getattr(found, name), name, found.currency, money),
        )
        for name in PARTY_ONLY
    ]


def _told(value: int | None, name: str, currency: str, money: Money) -> str:
    if value is None:
        return "no limit"
    return money.text(value, currency) if name.endswith("_units") else str(value)


def _words(name: str) -> str:
    """Return a limit's name as people say it: ``order notional``."""
    return name.removesuffix("_units").removesuffix("_max").replace("_", " ")
