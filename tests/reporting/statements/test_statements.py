"""Statements on a real ledger: what they say, that their bytes never change, and that the hash is kept."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local.databases import Clones, Database, Server, cloned, run_apart
from kernel.clock import SystemClock
from kernel.db import APP_ROLE, create_engine, transact
from kernel.errors import BadInput
from kernel.events import list_history
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import hold, transfer
from ledger.posting import open_book, post, require_applied
from registry.changes import found
from registry.errors import UnknownRecord
from registry.testing import ETH, USDT, demo_founding
from reporting.errors import NoStatement, StatementRefused
from reporting.statements.document import COLUMNS, sha256_hex, statement_csv
from reporting.statements.gathering import gather_statement
from reporting.statements.issuing import (
    ENTITY,
    SETTLED,
    get_statement_pdf,
    issue_statement,
    list_statements,
    verify_statement,
)
from reporting.statements.model import ClientStatement, Period, StatementFile
from reporting.statements.pdf import draw
from tests.trading.conftest import BOOK, NOW, booked, request
from trading.model import DealSide

MONDAY = datetime.fromisoformat("2026-01-05T09:00:00+00:00")
WEEK = Period(first=date(2026, 1, 5), last=date(2026, 1, 11))
NEXT = MONDAY + timedelta(days=7)


async def posted(
    engine: AsyncEngine,
    name: str,
    debit: str,
    credit: str,
    amount: str,
    *,
    at: datetime,
    effective_at: datetime | None = None,
    only_held: bool = False,
) -> None:
    units, asset = ETH.parse(amount), "ETH"

    async def work(conn: AsyncConnection) -> None:
        await ensure_accounts(conn, BOOK, {(debit, asset), (credit, asset)}, now=at)
        ident = derive_id(at, name)
        more = {"reference": name, "effective_at": effective_at}
        made = (
            hold(ident, debit, credit, units, asset, code="test.held", purpose="payout")
            if only_held
            else transfer(ident, debit, credit, units, asset, code="test.moved", **more)
        )
        require_applied(await post(conn, BOOK, [made], now=at))

    await transact(engine, work)


@pytest.fixture(scope="module")
def weeks(database_server: Server, database_template: str) -> Iterator[Clones]:
    """Databases in each of which that week has been."""
    name = f"causeway_week_{secrets.token_hex(6)}"
    with cloned(database_server, database_template, name) as made:
        run_apart(lambda: live_through(made))
        clones = Clones(database_server, name)
        yield clones
        clones.close()


async def live_through(made: Database) -> None:
    """Acme brings 5 ETH, buys 10 more, takes one out; somebody of a similar name brings some too."""
    engine = create_engine(made.app_url, role=APP_ROLE, injected_clock=True)
    await transact(engine, open_house)
    await posted(engine, "in", "custody:client-pool", "client:acme", "5", at=MONDAY)
    await posted(engine, "in2", "custody:client-pool", "client:acme2", "7", at=MONDAY)
    asked = request("otc-77", side=DealSide.DESK_SELLS, agreed_at=MONDAY)
    await booked(engine, asked, MONDAY + timedelta(days=1))
    out = MONDAY + timedelta(days=2)
    back = MONDAY - timedelta(days=3)
    await posted(
        engine, "out", "client:acme", "custody:client-pool", "1", at=out, effective_at=back
    )
    await posted(engine, "h", "client:acme", "in-flight:evm", "2", at=out, only_held=True)
    await posted(engine, "late", "client:acme", "custody:client-pool", "2", at=NEXT)
    await engine.dispose()


async def open_house(conn: AsyncConnection) -> None:
    await found(conn, demo_founding(), now=SystemClock().now())
    await open_book(conn, BOOK, entity="causeway-desk", now=NOW)


@pytest.fixture
def database(weeks: Clones) -> Iterator[Database]:
    """That week in a database of the test's own."""
    made = weeks.take()
    yield made
    weeks.give_back(made)


@pytest.fixture
def week(engine: AsyncEngine) -> AsyncEngine:
    """That week."""
    return engine


@pytest.fixture(scope="module")
def kept(weeks: Clones) -> Iterator[Database]:
    """That week in a database that nobody writes to."""
    made = weeks.take()
    yield made
    weeks.give_back(made)


@pytest.fixture
async def read_week(kept: Database) -> AsyncIterator[AsyncEngine]:
    """That week, to be read only."""
    engine = create_engine(kept.app_url, role=APP_ROLE, injected_clock=True)
    yield engine
    await engine.dispose()


async def gathered(engine: AsyncEngine, period: Period = WEEK) -> ClientStatement:
    return await transact(engine, lambda conn: gather_statement(conn, BOOK, "acme", period))


async def issued(engine: AsyncEngine, *, now: datetime = NEXT) -> StatementFile:
    return await transact(
        engine, lambda conn: issue_statement(conn, BOOK, "acme", WEEK, by="cleo", now=now)
    )


async def test_it_has_opening_every_posting_with_its_dates_and_closing(
    read_week: AsyncEngine,
) -> None:
    found = await gathered(read_week)

    lines = {
        f"{account.path} {account.asset.code}": [
            account.opening,
            *(
                (x.reference, f"{x.trade_date:%d}", f"{x.value_date:%d}", x.change, x.balance)
                for x in account.postings
            ),
            account.closing,
        ]
        for account in found.accounts
    }
    ten, fee, cost = ETH.parse("10"), USDT.parse("300"), USDT.parse("30000")
    one = ETH.parse("1")
    assert lines == {
        "client:acme ETH": [
            *(0, ("in", "05", "05", 5 * one, 5 * one), ("out", "07", "02", -one, 4 * one)),
            4 * one,
        ],
        "payable:acme:open ETH": [0, ("otc-77", "05", "06", ten, ten), ten],
        "receivable:acme:open USDT": [
            *(0, ("otc-77", "05", "06", -cost, -cost)),
            *(("otc-77", "05", "06", -fee, -cost - fee), -cost - fee),
        ],
    }
    assert found.line_count == 5


async def test_the_next_period_opens_where_this_one_closed(read_week: AsyncEngine) -> None:
    first = await gathered(read_week)
    second = await gathered(read_week, Period(first=date(2026, 1, 12), last=date(2026, 1, 12)))

    closings = {(a.path, a.asset.code): a.closing for a in first.accounts}
    assert {(a.path, a.asset.code): a.opening for a in second.accounts} == closings
    assert [a.line_count for a in (second,)] == [1]


async def test_csv_is_the_same_bytes_whatever_is_posted_later(week: AsyncEngine) -> None:
    before = statement_csv(await gathered(week))
    await posted(week, "x", "custody:client-pool", "client:acme", "9", at=NEXT)

    assert statement_csv(await gathered(week)) == before
    rows = list(csv.reader(io.StringIO(before.decode())))
    assert rows[0] == ["statement", "acme", "of", "causeway-desk"]
    assert tuple(rows[3]) == COLUMNS
    assert [row[2] for row in rows[4:8]] == ["opening", "posting", "posting", "closing"]
    assert rows[6][8:10] == ["-1.000000000000000000", "4.000000000000000000"]


async def test_it_is_issued_once_with_its_hash_and_an_event(week: AsyncEngine) -> None:
    first = await issued(week)
    again = await issued(week, now=NEXT + timedelta(days=3))

    assert again == first
    assert first.csv_sha256 == hashlib.sha256(first.csv).hexdigest()
    async with week.connect() as conn:
        (listed,) = await list_statements(conn, BOOK, party="acme")
        assert (listed.id, listed.csv_sha256) == (first.id, first.csv_sha256)
        assert not hasattr(listed, "csv"), "of five hundred it would be more than memory holds"
        (event,) = await list_history(conn, ENTITY, first.id)
        assert (event.name, event.actor) == ("ClientStatementIssued", "cleo")
        assert (await verify_statement(conn, first.id)).differences == ()


async def test_days_that_are_not_over_are_not_issued(week: AsyncEngine) -> None:
    sunday = MONDAY.replace(day=11)

    with pytest.raises(StatementRefused, match="2026-01-11 is not over"):
        await issued(week, now=sunday)
    midnight = sunday.replace(day=12, hour=0)
    with pytest.raises(StatementRefused, match="2026-01-11 is not over"):
        await issued(week, now=midnight + SETTLED - timedelta(microseconds=1))
    assert (await issued(week, now=midnight + SETTLED)).lines == 5


async def test_a_journal_that_was_changed_behind_the_back_is_found(
    week: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    kept = await issued(week)

    async def forge(conn: AsyncConnection) -> None:
        await conn.execute(text("ALTER TABLE trading.deal DISABLE TRIGGER USER"))
        await conn.execute(text("UPDATE trading.deal SET value_date = value_date + 1"))

    await transact(owner_engine, forge)

    async with week.connect() as conn:
        (said,) = (await verify_statement(conn, kept.id)).differences
    assert said.startswith(kept.csv_sha256)
    with pytest.raises(StatementRefused, match="says something else"):
        await issued(week)


CHANGES = (
    "SET csv = '\\x00', csv_sha256 = encode(sha256('\\x00'), 'hex')",
    "SET party = 'birch'",
    "SET pdf = '\\x00', pdf_sha256 = encode(sha256('\\x00'), 'hex')",
    "SET pdf = NULL, pdf_sha256 = NULL",
)


async def test_what_was_issued_never_changes(week: AsyncEngine, owner_engine: AsyncEngine) -> None:
    kept = await issued(week)
    await get_statement_pdf(week, kept.id, draw)

    for change in CHANGES:
        update = text(f"UPDATE reporting.client_statement {change}")
        with pytest.raises(DBAPIError, match="never changes"):
            await transact(owner_engine, partial(AsyncConnection.execute, statement=update))


async def test_the_pdf_has_the_same_bytes_and_names_the_hash_of_the_csv(week: AsyncEngine) -> None:
    kept = await issued(week)

    first = await get_statement_pdf(week, kept.id, draw)

    assert draw(kept.csv) == draw(kept.csv) == first
    assert first.startswith(b"%PDF-")
    assert kept.csv_sha256.encode() in first, "it is the document's subject"
    # What is kept is not drawn again.
    assert await get_statement_pdf(week, kept.id, lambda _: b"%PDF-another") == first
    async with week.connect() as conn:
        (again,) = await list_statements(conn, BOOK)
    assert again.pdf_sha256 == sha256_hex(first)


def test_the_pdf_of_a_long_statement_has_pages_and_of_a_longer_one_is_refused() -> None:
    line = ["client:a", "ETH", "posting", "t", "d", "v", "c", "中\\u0000 & <b>", "1", "1", "1"]
    head = [["statement", "a", "of", "e"], ["from", "x", "to", "y"], ["book", "1", "sequence", "9"]]

    def content(count: int) -> bytes:
        target = io.StringIO()
        ends = [["client:a", "ETH", word, *[""] * 8] for word in ("opening", "closing")]
        csv.writer(target).writerows([*head, COLUMNS, ends[0], *[line] * count, ends[1]])
        return target.getvalue().encode()

    assert len(re.findall(rb"/Type /Page\b", draw(content(200)))) > 3
    with pytest.raises(StatementRefused, match="more than 20000 lines"):
        draw(content(20_000))


async def test_no_spreadsheet_takes_a_reference_for_a_formula(read_week: AsyncEngine) -> None:
    found = await gathered(read_week)
    account = found.accounts[0]
    spoiled = replace(account, postings=(replace(account.postings[0], reference="=1+cmd"),))

    rows = csv.reader(io.StringIO(statement_csv(replace(found, accounts=(spoiled,))).decode()))

    assert list(rows)[5][7] == "'=1+cmd"


async def test_what_cannot_be_stated_is_refused(read_week: AsyncEngine) -> None:
    ask = partial(gather_statement, book=BOOK, period=WEEK)
    async with read_week.connect() as conn:
        with pytest.raises(UnknownRecord):
            await ask(conn, party="nobody")
        with pytest.raises(BadInput, match="in order"):
            await gather_statement(conn, BOOK, "acme", Period(first=WEEK.last, last=WEEK.first))
        with pytest.raises(NoStatement):
            await verify_statement(conn, derive_id(MONDAY, "none"))


async def test_a_client_without_accounts_has_an_empty_statement(read_week: AsyncEngine) -> None:
    found = await transact(read_week, lambda conn: gather_statement(conn, BOOK, "birch", WEEK))

    assert found.accounts == ()
