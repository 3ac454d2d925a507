"""Reads: balances at any sequence and time, statements, trial balance, coverage."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput
from ledger.chart import account_spec
from ledger.coverage import Coverage, coverage
from ledger.errors import BookNotOpen, NotInChart
from ledger.model import Balance, Kind, Side, transfer
from ledger.posting import post
from ledger.queries import (
    get_balance,
    list_open_holds,
    list_transfers,
    sequence_at,
    statement,
    trial_balance,
)
from ledger.scenarios import START, Story, name_id, play

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
