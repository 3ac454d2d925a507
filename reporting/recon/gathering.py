"""What the outside has said of every place, and the books of now: read, nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, time
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.banks.entry_model import BankFile, BankFileState
from custody.banks.statements import (
    StatementGap,
    get_bank_balance,
    list_bank_files,
    list_gaps,
    sum_entries_after,
)
from custody.model import bank_account_path, custody_account
from custody.reconciliation import held_in_custody, list_differences
from custody.reconciliation import list_runs as list_chain_runs
from ledger.model import Account
from ledger.queries import list_accounts
from registry.queries import list_bank_accounts, list_chains, list_wallets
from reporting.recon.model import TEXT_LENGTH_MAX, BreakKind, Found, Line, PlaceKind
from trading.venue_reconciliation import list_breaks as list_venue_breaks
from trading.venue_reconciliation import list_runs as list_venue_runs
from trading.venue_reconciliation_model import VenueBreak

Said = tuple[list[Line], list[Found]]


async def gather(conn: AsyncConnection, book: int) -> Said:
    """Return every asset at every place, and what its own reconciliation has itemised."""
    parts = [await _chains(conn, book), await _venues(conn, book), await _banks(conn, book)]
    lines = sorted(
        (line for found, _ in parts for line in found),
        key=lambda line: (line.kind, line.place, line.asset),
    )
    return lines, [item for _, found in parts for item in found]


async def _chains(conn: AsyncConnection, book: int) -> Said:
    held = {
        (account.path, account.asset): held_in_custody(account.balance)
        for account in await list_accounts(conn, book, "custody:")
    }
    lines: list[Line] = []
    items: list[Found] = []
    for chain in await list_chains(conn):
        runs = await list_chain_runs(conn, book=book, chain=chain.code, limit=1)
        wallets = await list_wallets(conn, chain.code)
        places = {custody_account(wallet.code): wallet.code for wallet in wallets}
        figures = {(f["wallet"], f["asset"]): f for run in runs for f in run.figures}
        here = {
            (places[path], asset): units for (path, asset), units in held.items() if path in places
        }
        for wallet, asset in sorted(figures.keys() | here.keys()):
            figure = figures.get((wallet, asset))
            lines.append(
                Line(
                    kind=PlaceKind.CHAIN,
                    place=wallet,
                    asset=asset,
                    books=here.get((wallet, asset), 0),
                    books_then=None if figure is None else int(figure["ledger"]),
                    outside=_units(figure, "chain"),
                    as_of=runs[0].at if figure is not None else None,
                    evidence=f"reconciliation {runs[0].id} at {runs[0].height}" if runs else "",
                    note=_silent(figure),
                )
            )
        items += [
            Found(
                key=f"chain/{item.chain}/{item.wallet}/{item.asset}/{item.address}",
                kind=BreakKind.ITEM,
                place_kind=PlaceKind.CHAIN,
                place=item.wallet,
                asset=item.asset,
                amount=item.amount,
                text=f"address {item.address or '(none)'} since block {item.opened_height}",
            )
            for item in await list_differences(conn, book=book, chain=chain.code)
        ]
    return lines, items


async def _venues(conn: AsyncConnection, book: int) -> Said:
    lines: list[Line] = []
    accounts: dict[tuple[str, str], list[Account]] = {}
    for account in await list_accounts(conn, book, "venue:"):
        venue, _, name = account.path.removeprefix("venue:").partition("/")
        accounts.setdefault((venue, name), []).append(account)
    for (venue, name), held in sorted(accounts.items()):
        runs = [
            run for run in await list_venue_runs(conn, venue, name, limit=1) if run.book == book
        ]
        said = {balance["asset"]: balance for run in runs for balance in run.balances}
        for account in held:
            found = said.get(account.asset)
            lines.append(
                Line(
                    kind=PlaceKind.VENUE,
                    place=f"{venue}/{name}",
                    asset=account.asset,
                    books=account.balance.posted,
                    books_then=_units(found, "ledger"),
                    outside=_units(found, "venue"),
                    explained=sum(
                        _units(found, key) or 0
                        for key in ("explained", "unposted", "in_transit", "traded_after")
                    ),
                    as_of=runs[0].finished_at if found is not None else None,
                    evidence=f"reconciliation {runs[0].id}" if runs else "",
                )
            )
    return lines, [
        Found(
            key=f"venue/{item.venue}/{item.account}/{item.kind}/{item.subject}",
            kind=BreakKind.ITEM,
            place_kind=PlaceKind.VENUE,
            place=f"{item.venue}/{item.account}",
            asset="",
            amount=None,
            text=f"{item.kind} {item.subject}: ours {item.ours}, theirs {item.theirs}"[
                :TEXT_LENGTH_MAX
            ],
        )
        for item in await _venue_breaks(conn)
        # A balance that differs is a line of its own already.
        if item.book == book and not item.subject.startswith("balance:")
    ]


async def _venue_breaks(conn: AsyncConnection) -> list[VenueBreak]:
    """Return all of them: one that is left out would be taken for one that is over."""
    found = page = await list_venue_breaks(conn)
    while page:
        page = await list_venue_breaks(conn, after=page[-1])
        found = [*found, *page]
    return found


async def _quarantined(conn: AsyncConnection) -> list[BankFile]:
    found = page = await list_bank_files(conn, state=BankFileState.QUARANTINED)
    while page:
        page = await list_bank_files(conn, state=BankFileState.QUARANTINED, after=page[-1].id)
        found = [*found, *page]
    return found


async def _banks(conn: AsyncConnection, book: int) -> Said:
    held = {
        (account.path, account.asset): account.balance.posted
        for account in await list_accounts(conn, book, "bank:")
    }
    lines: list[Line] = []
    items: list[Found] = []
    for account in await list_bank_accounts(conn):
        books = held.pop((bank_account_path(account.code), account.asset), 0)
        line = Line(kind=PlaceKind.BANK, place=account.code, asset=account.asset, books=books)
        lines.append(await _told_by_bank(conn, line))
        for _, gap in await list_gaps(conn, [account.code]):
            text = f"between {gap.before.name} and {gap.after.name}: {gap.why}"
            items.append(_gap(account.code, account.asset, gap.before.name, text))
    # Books may hold what no bank account of the registry stands for: nobody can say what is there.
    lines += [
        Line(kind=PlaceKind.BANK, place=path.removeprefix("bank:"), asset=asset, books=units)
        for (path, asset), units in sorted(held.items())
        if units
    ]
    items += [
        _gap("", "", f"file/{file.id}", f"file {file.name}: {file.reason}")
        for file in await _quarantined(conn)
    ]
    return lines, items


async def _told_by_bank(conn: AsyncConnection, line: Line) -> Line:
    try:
        told = await get_bank_balance(conn, line.place)
    except StatementGap as error:
        return replace(line, note=str(error)[:TEXT_LENGTH_MAX])
    if told is None:
        return line
    later = await sum_entries_after(conn, line.place, told.day)
    return replace(
        line,
        books_then=line.books - later,
        outside=told.closing,
        as_of=datetime.combine(told.day, time.max, UTC),
        evidence=f"statement {told.name}",
    )


def _gap(account: str, asset: str, key: str, text: str) -> Found:
    return Found(
        key=f"bank/{account}/gap/{key}",
        kind=BreakKind.GAP,
        place_kind=PlaceKind.BANK,
        place=account,
        asset=asset,
        amount=None,
        text=text[:TEXT_LENGTH_MAX],
    )


def _units(figure: Mapping[str, Any] | None, key: str) -> int | None:
    value = None if figure is None else figure.get(key)
    return None if value is None else int(value)


def _silent(figure: Mapping[str, Any] | None) -> str:
    is_silent = figure is not None and figure["chain"] is None
    return "the token does not tell what it holds" if is_silent else ""
