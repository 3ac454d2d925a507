"""Reads: balances at any sequence and time, statements, trial balance, coverage."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput
from ledger.account_statement import page_effective_statement
from ledger.accounts import open_accounts
from ledger.chart import account_spec
from ledger.coverage import Coverage, count_payable_cover, coverage, page_coverage
from ledger.errors import BookNotOpen, NotInChart
from ledger.holds import get_position, page_open_holds
from ledger.model import Balance, Kind, Side, transfer
from ledger.points import Point
from ledger.posting import open_book, post
from ledger.queries import (
    get_balance,
    head,
    list_accounts,
    list_open_holds,
    list_transfers,
    page_periods,
    sequence_at,
    statement,
    trial_balance,
)
from ledger.scenarios import START, Story, name_id, play
from ledger.search import page_transfers
from ledger.tree import account_tree
from ledger.views import PeriodPage, TransferFilter

DAY = """
own custody:client client
a  move  custody:client  client:a  10 X                           -> created
@ +1h
h  hold  client:a  in-flight:evm  4 X  purpose=payout reference=w1 -> created
b  move  custody:client  client:b  5 X                            -> created
@ +1h
p  post  h  3                                                     -> created
m  move  in-flight:evm  custody:client  3 X                       -> created
@ +1h
c  move  client:b  client:a  1 X                                  -> created
"""
HOUR = timedelta(hours=1)


@pytest.fixture
async def day(engine: AsyncEngine) -> AsyncEngine:
    assert await play(engine, DAY) == DAY
    return engine


async def test_a_balance_at_any_recorded_time(day: AsyncEngine) -> None:
    expected = {-HOUR: (0, 0), 0 * HOUR: (10, 10), HOUR / 2: (10, 10), HOUR: (10, 6)}
    expected |= {2 * HOUR: (7, 7), 3 * HOUR - timedelta(microseconds=1): (7, 7), 9 * HOUR: (8, 8)}
    async with day.connect() as conn:
        for after, (posted, available) in expected.items():
            balance = await get_balance(conn, 1, "client:a", "X", at_time=START + after)
            assert (balance.posted, balance.available) == (posted, available), after
            assert balance.sequence == await sequence_at(conn, 1, START + after)


async def test_a_balance_at_every_sequence_is_what_it_was_then(day: AsyncEngine) -> None:
    async with day.connect() as conn:
        now = await get_balance(conn, 1, "client:a", "X")
        history = [
            (await get_balance(conn, 1, "client:a", "X", at_sequence=n)).posted
            for n in range(now.sequence + 1)
        ]
        assert history == [0, 0, 0, 10, 10, 10, 10, 10, 7, 7, 8]
        assert await get_balance(conn, 1, "client:a", "X", at_sequence=now.sequence) == now
        with pytest.raises(BadInput):
            await get_balance(conn, 1, "client:a", "X", at_sequence=1, at_time=START)
        with pytest.raises(BookNotOpen):
            await get_balance(conn, 1, "client:nobody", "X")


async def test_holds_and_balance_of_one_instant_agree(day: AsyncEngine) -> None:
    story = Story(1, at=START + 4 * HOUR)
    more = "i  hold  client:a  in-flight:evm  2 X  purpose=payout timeout=60s  -> created\n"
    assert await play(day, more, story=story) == more
    async with day.connect() as conn:
        [found] = await list_open_holds(conn, 1, path="client:a")
        balance = await get_balance(conn, 1, "client:a", "X")
        assert await list_open_holds(conn, 1) == [found]
        assert await list_open_holds(conn, 1, path="client:b") == []
    assert (found.id, found.debit, found.credit, found.asset) == (
        name_id("i"),
        "client:a",
        "in-flight:evm",
        "X",
    )
    assert found.amount == balance.posted - balance.available == 2
    assert (found.purpose, found.expires_at) == ("payout", story.at + timedelta(seconds=60))


async def test_a_statement_opens_and_closes_on_the_balances_of_its_ends(day: AsyncEngine) -> None:
    async with day.connect() as conn:
        told = await statement(conn, 1, "client:a", "X", START + HOUR, START + 3 * HOUR)
        rest = await statement(conn, 1, "client:a", "X", START + 3 * HOUR, START + 4 * HOUR)

    assert (told.opening, told.closing, rest.opening, rest.closing) == (10, 7, 7, 8)
    assert [(line.kind, line.change, line.balance, line.held) for line in told.lines] == [
        (Kind.PENDING, 0, 10, 4),
        (Kind.POST, -3, 7, 0),
    ]
    assert [line.reference for line in told.lines] == ["w1", ""]
    assert [(line.counterpart, line.change) for line in rest.lines] == [("client:b", 1)]


async def test_the_trial_balance_is_zero_per_asset_at_any_time(day: AsyncEngine) -> None:
    async with day.connect() as conn:
        last = (await get_balance(conn, 1, "client:a", "X")).sequence
        for sequence in [*range(last + 1), None]:
            rows = await trial_balance(conn, 1, at_sequence=sequence)
            assert sum(row.debits - row.credits for row in rows) == 0
            assert sum(row.debits_pending - row.credits_pending for row in rows) == 0
        assert [row.path for row in await trial_balance(conn, 1, at_time=START)] == [
            "client:a",
            "custody:client",
        ]
        now = {row.path: row.balance for row in await trial_balance(conn, 1)}
    assert now == {"client:a": 8, "client:b": 4, "custody:client": 12, "in-flight:evm": 0}


async def test_transfers_are_found_by_what_is_asked(day: AsyncEngine) -> None:
    item = transfer(
        name_id("z"), "client:a", "client:b", 1, "X", code="special", correlation=name_id("row")
    )
    await transact(day, lambda conn: post(conn, 1, [item], now=START + 5 * HOUR))
    async with day.connect() as conn:
        assert [t.id for t in await list_transfers(conn, 1, code="special")] == [item.id]
        assert [t.id for t in await list_transfers(conn, 1, correlation=name_id("row"))] == [
            item.id
        ]
        of_b = await list_transfers(conn, 1, path="client:b")
        assert [t.id for t in of_b] == [name_id(name) for name in "bcz"]
        first = await list_transfers(conn, 1, limit=2)
        rest = await list_transfers(conn, 1, after=first[-1].sequence)
        assert [*first, *rest] == await list_transfers(conn, 1)
        assert len(rest) == 5


async def test_client_holdings_cover_what_clients_are_owed(day: AsyncEngine) -> None:
    """House coins in the same wallets do not count; coins spent for a client do."""
    async with day.connect() as conn:
        [sound] = await coverage(conn, 1)
    assert sound == Coverage(asset="X", holdings=12, liabilities=12)
    assert sound.covered

    story = Story(1, at=START + 4 * HOUR)
    taken = "x  move  expense:loss  custody:client  2 X  -> created\n"
    taken += "y  move  custody:house  equity:capital  9 X  -> created\n"
    assert await play(day, taken, story=story) == taken
    async with day.connect() as conn:
        [short] = await coverage(conn, 1)
        assert await coverage(conn, 1, at_time=START + 3 * HOUR) == [sound]
    assert (short.covered, short.shortfall) == (False, 2)


async def test_a_page_looks_at_a_bounded_number_of_records_and_leads_on(
    day: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What matches little is found all the same, over pages that are short or empty."""
    monkeypatch.setattr("ledger.search.SCAN_MAX", 2)
    voids = TransferFilter(kind=Kind.POST)
    async with day.connect() as conn:
        first = await page_transfers(conn, 1, voids)
        assert first.items == ()
        pages, found = 0, []
        after = first.after
        while after is not None:
            page = await page_transfers(conn, 1, voids, after=after)
            found += [item.id for item in page.items]
            after, pages = page.after, pages + 1
        assert found == [name_id("p")]
        assert pages == 3
        assert [
            t.id for t in await list_transfers(conn, 1, path="client:b", code="story.move")
        ] == [
            name_id("b"),
            name_id("c"),
        ]


async def test_what_would_not_be_bounded_is_refused(
    day: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.holds.HOLD_LOOKBACK_MAX", 2)
    monkeypatch.setattr("ledger.tree.NODES_MAX", 2)
    monkeypatch.setattr("ledger.queries.STATEMENT_LINES_MAX", 1)
    monkeypatch.setattr("ledger.account_statement.PAGE_MAX", 1)
    async with day.connect() as conn:
        last = (await get_balance(conn, 1, "client:a", "X")).sequence
        assert (await page_open_holds(conn, 1, at_sequence=last - 2)).sequence == last - 2
        with pytest.raises(BadInput, match="have followed"):
            await page_open_holds(conn, 1, at_sequence=last - 3)
        with pytest.raises(BadInput, match="have followed"):
            await get_position(conn, 1, "client:a", "X", at_sequence=3)
        with pytest.raises(BadInput, match="nodes"):
            await account_tree(conn, 1)
        with pytest.raises(BadInput, match="more than 1 lines"):
            await statement(conn, 1, "client:a", "X", START, START + 9 * HOUR)


@pytest.mark.parametrize(
    "point",
    [
        {"at_sequence": 1, "at_time": START},
        {"at_sequence": -1},
        {"at_sequence": 2**63},
        {"at_time": START.replace(tzinfo=None)},
        {"effective_on": START},
    ],
)
def test_a_point_without_meaning_is_refused(point: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        Point(**point)


async def test_a_book_that_is_not_open_has_nothing(engine: AsyncEngine) -> None:
    async with engine.connect() as conn:
        assert await list_accounts(conn, 1) == []
        assert await list_open_holds(conn, 1) == []
        assert await list_transfers(conn, 1) == []
        assert await trial_balance(conn, 1) == []
        assert await account_tree(conn, 1) == []
        assert await coverage(conn, 1) == []
        assert (await page_coverage(conn, 1)).items == ()
        assert (await page_periods(conn, 1)).items == ()
        with pytest.raises(BookNotOpen):
            await head(conn, 1)
        with pytest.raises(BookNotOpen):
            await get_position(conn, 1, "client:a", "X")
        with pytest.raises(BookNotOpen):
            await page_effective_statement(conn, 1, "client:a", "X", START.date(), START.date())


async def test_periods_are_listed_in_order_and_the_head_knows_the_last(engine: AsyncEngine) -> None:
    told = "close-period 2026-01-02\nreopen-period 2026-01-01\nclose-period 2026-01-03\n"
    assert await play(engine, told) == told
    async with engine.connect() as conn:
        found = (await page_periods(conn, 1)).items
        assert [item.kind for item in found] == ["closed", "reopened", "closed"]
        assert await page_periods(conn, 1, limit=2) == PeriodPage(
            items=found[:2], after=found[1].sequence
        )
        # The last page says that it is the last, also where it is full.
        last = await page_periods(conn, 1, after=found[1].sequence, limit=1)
        assert last == PeriodPage(items=found[2:], after=None)
        assert (await head(conn, 1)).closed_through == found[2].through


async def test_an_account_tells_what_it_was_opened_with(engine: AsyncEngine) -> None:
    spec = replace(
        account_spec("client:a", "X"), purpose="trading", metadata={"desk": "otc"}, credit_limit=5
    )

    async def work(conn: AsyncConnection) -> None:
        await open_book(conn, 1, entity="desk", now=START)
        await open_accounts(conn, 1, [spec], now=START)

    await transact(engine, work)
    async with engine.connect() as conn:
        [account] = await list_accounts(conn, 1)
    assert account.spec == spec


def test_the_chart_has_every_path_of_the_account_book_and_no_other() -> None:
    debit = """custody:evm-client venue:sim/main bank:chase transit:bank-evm transit:venue/main-evm
        transit:out:evm receivable:acme:open receivable:acme:netted receivable:acme:reorg
        collateral:given:acme clearing:2 expense:network-fee expense:venue-fee
        expense:bank-charge expense:interest expense:loss"""
    credit = """collateral:taken:acme client:acme client:acme:held client:acme:unapplied
        payable:acme:open payable:acme:netted payable:acme:unapplied in-flight:evm suspense:evm suspense:dust
        suspense:unattributed:evm conversion:desk income:spread income:fee income:withdrawal-fee
        income:interest income:fx house:rounding equity:capital equity:opening"""
    for paths, side in ((debit, Side.DEBIT), (credit, Side.CREDIT)):
        assert {account_spec(path, "X").side for path in paths.split()} == {side}
    guarded = {p for p in credit.split() if account_spec(p, "X").debits_must_not_exceed_credits}
    assert guarded == {
        "client:acme",
        "client:acme:held",
        "client:acme:unapplied",
        "payable:acme:netted",
    }
    for wrong in (
        "",
        "client",
        "client:",
        "client:a b",
        "client:a:open",
        "income:gifts",
        "cash:till",
    ):
        with pytest.raises(NotInChart):
            account_spec(wrong, "X")
    with pytest.raises(NotInChart):
        account_spec("client:acme", "")


def test_what_a_balance_says_depends_on_the_side() -> None:
    columns = {"debits_pending": 1, "debits_posted": 20, "credits_pending": 3, "credits_posted": 4}
    asset = Balance(side=Side.DEBIT, **columns)
    liability = Balance(side=Side.CREDIT, **columns)

    assert (asset.posted, asset.available, asset.incoming) == (16, 13, 1)
    assert (liability.posted, liability.available, liability.incoming) == (-16, -17, 3)


PAYABLE = """
own custody:omnibus client
own custody:own house
own venue:x/1 client
a  move  custody:omnibus  client:a          100 X  -> created
b  move  custody:own      equity:capital     70 X  -> created
c  move  venue:x/1        client:b           50 X  -> created
s  move  client:a         in-flight:evm      30 X  -> created
m  move  transit:out:evm  custody:omnibus    30 X  -> created
h  hold  client:b         in-flight:evm       9 X  purpose=payout reference=w1 -> created
g  move  custody:omnibus  equity:capital      6 X  -> created
y  move  custody:omnibus  client:a            2 Y  -> created
"""


async def test_payouts_may_spend_what_wallets_hold_for_clients_beyond_their_claims(
    engine: AsyncEngine,
) -> None:
    """A signed payout counts as owed and its coins as held; house wallets and venues do not count."""
    assert await play(engine, PAYABLE) == PAYABLE
    async with engine.connect() as conn:
        found = await count_payable_cover(conn, 1, {"X", "Y", "Z"})
    # X: 76 in the wallet and 30 on the way, against 70 and 50 of clients and 30 in flight.
    assert found == {"X": -44, "Y": 0, "Z": 0}
