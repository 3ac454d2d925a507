"""One reading of what the journal says of a client, from which both documents are written.

By recorded time: what was recorded in a period never changes, so a statement of it has the same bytes
whenever it is written. The reading stops at the last record of the period, whatever came after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from kernel.money import Asset
from ledger.model import Account, JournalTransfer, Kind, Side
from ledger.queries import get_balance, head, list_accounts, sequence_at
from ledger.search import page_transfers
from ledger.views import TransferFilter
from registry.queries import get_party, list_assets
from reporting.errors import StatementRefused
from reporting.statements.model import AccountPart, ClientStatement, Period, Posting
from trading.deals import find_deals_by_id
from trading.model import Deal

LINES_MAX: Final = 100_000
DAYS_MAX: Final = 366
DEALS_AT_ONCE: Final = 5_000

_MOVES: Final = frozenset({Kind.SINGLE, Kind.POST, Kind.REVERSAL})
_TICK: Final = timedelta(microseconds=1)
_DAY: Final = timedelta(days=1)


async def gather_statement(
    conn: AsyncConnection, book: int, party: str, period: Period
) -> ClientStatement:
    """Return what a client is told of a period.

    Raises:
        BadInput: the days are not in order, or more than `DAYS_MAX`.
        UnknownRecord: there is no such party.
        BookNotOpen: there is no such book.
        StatementRefused: more than `LINES_MAX` postings, or a balance that they do not come to.
    """
    if not timedelta(0) <= period.last - period.first < DAYS_MAX * _DAY:
        raise BadInput(
            f"a statement is of 1 to {DAYS_MAX} days in order, not {period.first} to {period.last}"
        )
    await get_party(conn, party)
    entity = (await head(conn, book)).entity
    start, end = _begin(period.first), _begin(period.last + _DAY)
    opened = await sequence_at(conn, book, start - _TICK)
    through = await sequence_at(conn, book, end - _TICK)
    assets = {asset.code: asset for asset in await list_assets(conn)}
    read: list[tuple[Account, int, list[JournalTransfer]]] = []
    count = 0
    for account in await _accounts(conn, book, party, through):
        opening = await _balance(conn, book, account, opened)
        moves = await _moves(conn, book, account, start, end, through, LINES_MAX - count)
        count += len(moves)
        if opening or moves:
            read.append((account, opening, moves))
    deals = await _deals(conn, [item for _, _, moves in read for item in moves])
    return ClientStatement(
        book=book,
        entity=entity,
        party=party,
        period=period,
        sequence=through,
        accounts=tuple(
            _part(account, assets[account.asset], opening, moves, deals)
            for account, opening, moves in read
        ),
    )


def _begin(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)


async def _accounts(conn: AsyncConnection, book: int, party: str, through: int) -> list[Account]:
    """Return the client's accounts as of sequence *through*, by path and asset."""
    if not through:
        return []
    found: list[Account] = []
    for path in (
        *(f"client:{party}", f"collateral:given:{party}", f"collateral:taken:{party}"),
        *(f"payable:{party}", f"receivable:{party}"),
    ):
        accounts = await list_accounts(conn, book, path, at_sequence=through)
        # Of a client "acme", "client:acme2" is somebody else's.
        found += [item for item in accounts if f"{item.path}:".startswith(f"{path}:")]
    return sorted(found, key=lambda item: (item.path, item.asset))


async def _balance(conn: AsyncConnection, book: int, account: Account, sequence: int) -> int:
    if not sequence:
        return 0
    found = await get_balance(conn, book, account.path, account.asset, at_sequence=sequence)
    return _owed(account, found.posted)


def _owed(account: Account, units: int) -> int:
    """Return *units* on the account's normal side as what the house owes the client."""
    return -units if account.spec.side is Side.DEBIT else units


async def _moves(
    conn: AsyncConnection,
    book: int,
    account: Account,
    start: datetime,
    end: datetime,
    through: int,
    room: int,
) -> list[JournalTransfer]:
    wanted = TransferFilter(
        path=account.path, asset=account.asset, recorded_from=start, recorded_to=end
    )
    found: list[JournalTransfer] = []
    cursor: int | None = 0
    while cursor is not None and cursor < through:
        page = await page_transfers(conn, book, wanted, after=cursor)
        found += [x for x in page.items if x.kind in _MOVES and x.sequence <= through]
        if len(found) > room:
            raise StatementRefused(
                f"the statement has more than {LINES_MAX} postings",
                where=account.path,
                remedy="Ask for fewer days",
            )
        cursor = page.after
    return found


async def _deals(conn: AsyncConnection, moves: Sequence[JournalTransfer]) -> dict[UUID, Deal]:
    ids = sorted({item.correlation for item in moves if item.correlation is not None})
    found: dict[UUID, Deal] = {}
    for at in range(0, len(ids), DEALS_AT_ONCE):
        found |= await find_deals_by_id(conn, ids[at : at + DEALS_AT_ONCE])
    return found


def _part(
    account: Account,
    asset: Asset,
    opening: int,
    moves: Sequence[JournalTransfer],
    deals: Mapping[UUID, Deal],
) -> AccountPart:
    postings: list[Posting] = []
    balance = opening
    for item in moves:
        change = item.amount if item.credit == account.path else -item.amount
        balance += change
        postings.append(_posting(item, change, balance, deals))
    closing = _owed(account, account.balance.posted)
    if balance != closing:
        raise StatementRefused(
            f"the postings of {account.path} come to {balance}, its balance is {closing}",
            remedy="Run `causeway ledger verify`: the journal and its balances differ",
        )
    return AccountPart(
        path=account.path, asset=asset, opening=opening, closing=closing, postings=tuple(postings)
    )


def _posting(
    item: JournalTransfer, change: int, balance: int, deals: Mapping[UUID, Deal]
) -> Posting:
    deal = None if item.correlation is None else deals.get(item.correlation)
    booked = item.recorded_at.astimezone(UTC).date()
    counts = booked if item.effective_at is None else item.effective_at.astimezone(UTC).date()
    return Posting(
        sequence=item.sequence,
        recorded_at=item.recorded_at,
        trade_date=booked if deal is None else deal.agreed_at.astimezone(UTC).date(),
        value_date=counts if deal is None else deal.value_date,
        what=item.code,
        reference=item.reference if deal is None else deal.request.client_ref,
        change=change,
        balance=balance,
    )
