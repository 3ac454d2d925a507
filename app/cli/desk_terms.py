"""``causeway desk terms``: on what terms the desk deals with each party."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.common import (
    AsJson,
    DryRun,
    Money,
    clock,
    emit,
    parse_date,
    read,
    show,
    show_one,
    write,
)
from app.cli.operators import Approver, ApproverKey, As, Key, credentials
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from sqlalchemy.ext.asyncio import AsyncConnection

    from registry.calendars import KeptCalendar
    from trading.terms.model import ClientTerms, LastLook, SettlementQuestion, SpreadRule

terms = typer.Typer(help="Tenor, fee, spreads and last look of a party.", no_args_is_help=True)

PartyCode = Annotated[str, typer.Argument(metavar="PARTY", help="Whose terms.")]
SPREAD_FORM: Final = "BTC/USDT=8bp, BTC/USDT@10=5bp (from 10 BTC on) or */*=10bp"
PPM_OF_A_BP: Final = 100

_SHARE: Final = re.compile(r"(?P<bp>\d{1,5})(?:\.(?P<places>\d{1,2}))?bp|(?P<ppm>\d{1,7})ppm")
_SPREAD: Final = re.compile(
    r"(?P<base>\*|[A-Z][A-Z0-9.\-]*)/(?P<quote>\*|[A-Z][A-Z0-9.\-]*)"
    r"(?:@(?P<size>[0-9.,_]+))?=(?P<share>\S+)"
)
_LOOK: Final = re.compile(r"(?P<window>\d{1,6})ms:(?P<share>\S+)")


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    terms.command("set")(set_)
    terms.command("show")(show_)
    terms.command("list")(list_)
    terms.command("value-date")(value_date)
    app.add_typer(terms, name="terms")


def set_(
    party: PartyCode,
    *,
    tenor: Annotated[
        int | None, typer.Option(help="Business days from the deal to its value date.")
    ] = None,
    fee: Annotated[str | None, typer.Option(help="On top of a deal: 5bp.")] = None,
    spread: Annotated[
        list[str] | None,
        typer.Option(help=f"Half spreads, in place of all there are: {SPREAD_FORM}."),
    ] = None,
    quote_seconds: Annotated[
        int | None, typer.Option(help="How long a quote can be accepted.")
    ] = None,
    last_look: Annotated[
        str | None, typer.Option(help="Window and tolerance, 300ms:5bp; or none.")
    ] = None,
    off_market: Annotated[
        str | None, typer.Option(help="Further from the market a deal needs a reason: 200bp.")
    ] = None,
    desk: Annotated[str | None, typer.Option(help="Whose position the deals change.")] = None,
    effective_from: Annotated[
        str | None, typer.Option("--effective-from", help="ISO date; else today in UTC.")
    ] = None,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Give a party new terms, entered by one operator and signed by another.

    What is not named stays as in the newest version; for a party without terms, as the house has it.
    Deals and quotes that were made keep the terms they were made under.

    Example: `causeway desk terms set acme --tenor 1 --spread "*/*=10bp" --spread BTC/USDT@10=5bp --as dan --key dan.key
    --approver ada --approver-key ada.key`
    """
    first, second = credentials(as_, key), credentials(approver, approver_key)
    now = clock().now()
    begins = parse_date(effective_from, now)
    changes: dict[str, Any] = {
        "tenor_days": tenor,
        "fee_ppm": None if fee is None else parse_share(fee),
        "quote_seconds": quote_seconds,
        "off_market_ppm": None if off_market is None else parse_share(off_market),
        "desk": desk,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    if last_look is not None:
        changes["last_look"] = parse_last_look(last_look)

    async def work(conn: AsyncConnection) -> tuple[ClientTerms, Money]:
        from trading.terms.client_terms import newest_terms, set_terms, terms_bytes

        me, other = await first.person(conn), await second.person(conn)
        money = await Money.load(conn)
        if spread:
            changes["spreads"] = tuple(parse_spread(text, money) for text in spread)
        newest = await newest_terms(conn, party)
        version = newest.version + 1
        made = replace(newest, version=version, effective_from=begins, **changes)
        written = await set_terms(
            conn,
            made,
            by=me.operator,
            approver=other.operator,
            signature=other.sign(terms_bytes(made)),
            now=now,
        )
        return (made if written == version else newest), money

    made, money = write(work, dry_run=dry_run)
    show_one(f"Terms of {party}", _facts(made, money), as_json=as_json, dry_run=dry_run)


def show_(
    party: PartyCode,
    *,
    on: Annotated[str | None, typer.Option(help="On which day, ISO; else today in UTC.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the terms that hold for a party on a day; version 0 are the house's own.

    Example: `causeway desk terms show acme`
    """
    day = parse_date(on, clock().now())

    async def work(conn: AsyncConnection) -> tuple[ClientTerms, Money]:
        from registry.queries import get_party
        from trading.terms.client_terms import terms_of

        await get_party(conn, party)
        return await terms_of(conn, party, on=day), await Money.load(conn)

    found, money = read(work)
    show_one(f"Terms of {party} on {day.isoformat()}", _facts(found, money), as_json=as_json)


def list_(
    party: Annotated[str | None, typer.Option(help="Only of this party.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List every version of terms, and which one holds today.

    Example: `causeway desk terms list --party acme`
    """
    today = clock().now().date()

    async def work(conn: AsyncConnection) -> tuple[list[ClientTerms], Money]:
        from trading.terms.client_terms import list_terms

        return await list_terms(conn, party), await Money.load(conn)

    found, money = read(work)
    rows = [{**_facts(item, money), "state": _state(item, found, today)} for item in found]
    if as_json:
        emit(rows)
        return
    columns = (
        *("party", "version", "state", "effective_from", "tenor", "fee", "spreads"),
        *("quote_seconds", "last_look", "off_market", "desk"),
    )
    cells = [tuple(row[name] for name in columns) for row in rows]
    show("Terms", columns, cells, as_json=False, right=("version", "fee", "off_market"))


def value_date(
    party: PartyCode,
    pair: Annotated[str, typer.Argument(metavar="PAIR", help="Base and quote: EUR/USDT.")],
    *,
    trade_date: Annotated[
        str | None,
        typer.Option(help="ISO date; else now, and what is over for today does not count."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say when a deal with a party settles by its terms, and until when a payment is in time.

    Example: `causeway desk terms value-date acme ETH/USDT`
    """
    now = clock().now()
    day = parse_date(trade_date, now)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from registry.kept_calendars import find_calendars
        from registry.queries import get_party
        from trading.terms.client_terms import terms_of
        from trading.terms.model import SettlementQuestion
        from trading.terms.value_dates import countries_of, find_value_date

        await get_party(conn, party)
        money = await Money.load(conn)
        base, _, quote = pair.partition("/")
        asked = SettlementQuestion(
            party=party,
            base=money.asset(base),
            quote=money.asset(quote),
            trade_date=day,
            value_date=None,
            terms=await terms_of(conn, party, on=day),
            agreed_at=now if trade_date is None else None,
        )
        kept = await find_calendars(conn, countries_of((asked.base.code, asked.quote.code)))
        return value_date_facts(asked, find_value_date(asked, kept), kept)

    show_one(f"Value date of {pair}", read(work), as_json=as_json)


def value_date_facts(
    asked: SettlementQuestion, settles: date, kept: Mapping[str, KeptCalendar] | None = None
) -> dict[str, str]:
    """Return what is told of a deal that settles on a day, by the kept calendars of countries."""
    from registry.cutoffs import find_cutoff
    from trading.terms.value_dates import calendars_of, describe_calendars

    calendars = calendars_of(asked.base.code, asked.quote.code, kept=kept or {})
    cutoffs = [find_cutoff(calendar, settles) for calendar in calendars]
    known = [moment for moment in cutoffs if moment is not None]
    return {
        "pair": f"{asked.base.code}/{asked.quote.code}",
        "trade_date": asked.trade_date.isoformat(),
        "tenor": f"T+{asked.terms.tenor_days}",
        "terms": str(asked.terms.version),
        "value_date": settles.isoformat(),
        "calendars": describe_calendars(calendars),
        "cutoff": iso(min(known)) if known else "none",
    }


def parse_share(text: str) -> int:
    """Read ``8bp``, ``0.25bp`` or ``800ppm`` as millionths.

    Raises:
        BadInput: it is none of these.
    """
    match = _SHARE.fullmatch(text.replace(" ", ""))
    if match is None:
        raise BadInput(f"{text!r} is not a share", remedy="Write 8bp, 0.25bp or 800ppm")
    if match["ppm"]:
        return int(match["ppm"])
    return int(match["bp"]) * PPM_OF_A_BP + int((match["places"] or "").ljust(2, "0"))


def share_text(ppm: int) -> str:
    """Return millionths as `parse_share` reads them: ``8bp``, ``0.25bp``."""
    whole, places = divmod(ppm, PPM_OF_A_BP)
    return f"{whole}.{places:02}".rstrip("0").rstrip(".") + "bp" if places else f"{whole}bp"


def parse_spread(text: str, money: Money) -> SpreadRule:
    """Read ``BTC/USDT@10=5bp``: pair, from which size on in whole units of the base, half spread.

    Raises:
        BadInput: it is not spelled so.
    """
    from trading.terms.model import SpreadRule

    match = _SPREAD.fullmatch(text)
    if match is None:
        raise BadInput(f"{text!r} is not a spread", remedy=f"Write {SPREAD_FORM}")
    base, size = match["base"], match["size"]
    if size is not None and base == "*":
        raise BadInput(
            f"{text!r} is for any asset, of a size", remedy="Name the asset whose size it is"
        )
    return SpreadRule(
        base=base,
        quote=match["quote"],
        from_units=0 if size is None else money.asset(base).parse(size),
        half_spread_ppm=parse_share(match["share"]),
    )


def spread_text(rule: SpreadRule, money: Money) -> str:
    """Return a rule as `parse_spread` reads it."""
    size = ""
    if rule.from_units:
        size = "@" + money.asset(rule.base).format(rule.from_units, code=False).replace(",", "")
    return f"{rule.base}/{rule.quote}{size}={share_text(rule.half_spread_ppm)}"


def parse_last_look(text: str) -> LastLook | None:
    """Read ``300ms:5bp`` or ``none``.

    Raises:
        BadInput: it is neither.
    """
    from trading.terms.model import LastLook

    if text == "none":
        return None
    match = _LOOK.fullmatch(text)
    if match is None:
        raise BadInput(f"{text!r} is not a last look", remedy="Write 300ms:5bp, or none")
    return LastLook(window_ms=int(match["window"]), tolerance_ppm=parse_share(match["share"]))


def _facts(item: ClientTerms, money: Money) -> dict[str, str]:
    look = item.last_look
    return {
        "party": item.party,
        "version": str(item.version),
        "effective_from": "" if item.version == 0 else item.effective_from.isoformat(),
        "tenor": f"T+{item.tenor_days}",
        "fee": share_text(item.fee_ppm),
        "spreads": " ".join(spread_text(rule, money) for rule in item.spreads),
        "quote_seconds": str(item.quote_seconds),
        "last_look": "none"
        if look is None
        else f"{look.window_ms}ms:{share_text(look.tolerance_ppm)}",
        "off_market": share_text(item.off_market_ppm),
        "desk": item.desk,
    }


def _state(item: ClientTerms, known: list[ClientTerms], today: date) -> str:
    from trading.terms.client_terms import holding_on

    theirs = [other for other in known if other.party == item.party]
    if holding_on(theirs, today) == item:
        return "holds"
    newer = any(o.version > item.version and o.effective_from <= today for o in theirs)
    return "past" if newer or item.effective_from <= today else "to come"
