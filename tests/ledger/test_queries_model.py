"""Every read against a list that is added up anew: at every sequence number, block, time and day."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.ids import derive_id
from ledger.account_statement import page_effective_statement, page_statement
from ledger.coverage import Coverage, coverage, page_coverage
from ledger.holds import get_position, page_open_holds
from ledger.model import Balance, Kind, Side
from ledger.points import Point
from ledger.queries import (
    get_balance,
    head,
    list_accounts,
    list_open_holds,
    page_accounts,
    sequence_at,
    statement,
    trial_balance,
)
from ledger.search import find_transfer, page_transfers
from ledger.tree import account_tree
from ledger.trial import page_trial_balance, sum_trial_balance
from ledger.views import EffectiveCursor, EffectiveLine, TransferFilter, TreeNode
from tests.ledger.history import BEGIN, BOOK, CODES, OWNERS, PATHS, Fact, History, Key, Writer

SEEDS = range(4)
BLOCKS = 25


@pytest.fixture(params=SEEDS)
async def history(request: pytest.FixtureRequest, engine: AsyncEngine) -> History:
    return await Writer(engine, request.param).write(BLOCKS)


@pytest.fixture
async def conn(engine: AsyncEngine, history: History) -> Any:
    async with engine.connect() as connection:
        yield connection


async def test_the_model_follows_the_book(conn: AsyncConnection, history: History) -> None:
    """And the history is worth asking: every kind, back-dated ones, holds that stayed open."""
    assert (await head(conn, BOOK)).sequence == history.head
    assert {fact.kind for fact in history.facts} >= {Kind.SINGLE, Kind.PENDING, Kind.POST}
    assert any(fact.effective_on != fact.recorded_at.date() for fact in history.facts)
    assert history.open_holds(history.head)


async def test_balances_at_every_sequence(conn: AsyncConnection, history: History) -> None:
    for key in history.opened:
        assert await get_balance(conn, BOOK, *key) == history.at_sequence(key, history.head)
        for sequence in range(history.head + 2):
            found = await get_balance(conn, BOOK, *key, at_sequence=sequence)
            assert found == history.at_sequence(key, sequence), (key, sequence)


async def test_balances_at_every_recorded_time(conn: AsyncConnection, history: History) -> None:
    times = {when for _, when in history.blocks}
    for at in sorted(times | {when - timedelta(microseconds=1) for when in times}):
        last = history.last_at(at)
        assert await sequence_at(conn, BOOK, at) == last
        for key in history.opened:
            found = await get_balance(conn, BOOK, *key, at_time=at)
            assert found == history.at_sequence(key, last)


async def test_balances_on_every_effective_date_as_known_now_and_then(
    conn: AsyncConnection, history: History
) -> None:
    for day in history.days():
        for key in history.opened:
            now = await get_balance(conn, BOOK, *key, effective_on=day)
            assert now == history.effective(key, day), (key, day)
            known = history.head * 2 // 3
            then = await get_balance(conn, BOOK, *key, effective_on=day, at_sequence=known)
            assert then == history.effective(key, day, known), (key, day, known)


def rows_of(history: History, found: Callable[[Key], Balance], keys: list[Key]) -> list[Any]:
    rows = []
    for path, asset in keys:
        it = found((path, asset))
        rows.append((path, asset, it.debits_posted, it.credits_posted, it.posted))
    return sorted(rows, key=lambda row: (row[1], row[0]))


async def test_the_trial_balance_is_zero_at_every_sequence_and_date(
    conn: AsyncConnection, history: History
) -> None:
    for sequence in range(0, history.head + 1, 3):
        rows = await trial_balance(conn, BOOK, at_sequence=sequence)
        told = [(row.path, row.asset, row.debits, row.credits, row.balance) for row in rows]
        keys = history.keys_at(sequence)
        assert told == rows_of(
            history,
            lambda key, sequence=sequence: history.at_sequence(key, sequence),  # type: ignore[misc]
            keys,
        )
        totals = await sum_trial_balance(conn, BOOK, Point(at_sequence=sequence))
        assert all(total.is_zero for total in totals)
        assert sum(total.accounts for total in totals) == len(keys)
    for day in history.days():
        rows = await trial_balance(conn, BOOK, effective_on=day)
        for asset in {row.asset for row in rows}:
            mine = [row for row in rows if row.asset == asset]
            assert sum(row.debits - row.credits for row in mine) == 0
            assert sum(row.debits_pending - row.credits_pending for row in mine) == 0
        for row in rows:
            assert row.balance == history.effective((row.path, row.asset), day).posted
        listed = {(row.path, row.asset) for row in rows}
        for key in history.opened:
            balance = history.effective(key, day)
            assert key in listed or not (balance.debits_posted or balance.credits_posted)


async def test_pages_of_accounts_and_trial_balances_are_of_one_instant(
    conn: AsyncConnection, engine: AsyncEngine, history: History
) -> None:
    """What is posted between two pages is in neither."""
    all_at_once = sorted(
        await trial_balance(conn, BOOK), key=lambda row: (row.path.encode(), row.asset)
    )
    first = await page_trial_balance(conn, BOOK, limit=3)
    accounts = await page_accounts(conn, BOOK, limit=3)
    holds = await page_open_holds(conn, BOOK, limit=2)
    listed = [*await list_accounts(conn, BOOK)]
    open_before = await list_open_holds(conn, BOOK)
    await conn.rollback()

    later = Writer(engine, 99)
    later.history, later.at, later.made = history, history.blocks[-1][1], 10_000
    before = history.head
    for _ in range(4):
        later.at += timedelta(hours=1)
        async with engine.begin() as other:
            await later._block(other)
    assert history.head > before

    rows, page = list(first.items), first
    while page.after is not None:
        page = await page_trial_balance(
            conn, BOOK, Point(at_sequence=first.sequence), after=page.after, limit=3
        )
        rows += page.items
    assert rows == all_at_once
    found, more = list(accounts.items), accounts
    while more.after is not None:
        more = await page_accounts(
            conn, BOOK, at_sequence=accounts.sequence, after=more.after, limit=3
        )
        found += more.items
    assert found == listed
    still, held = list(holds.items), holds
    while held.after is not None:
        held = await page_open_holds(
            conn, BOOK, at_sequence=holds.sequence, after=held.after, limit=2
        )
        still += held.items
    assert still == open_before


async def test_the_tree_sums_every_segment(conn: AsyncConnection, history: History) -> None:
    for point, balance in (
        (Point(), lambda key: history.at_sequence(key, history.head)),
        (Point(at_sequence=history.head // 2), lambda k: history.at_sequence(k, history.head // 2)),
    ):
        known = history.head if point.is_now else history.head // 2
        expected = brute_tree(history.keys_at(known), balance)
        assert await account_tree(conn, BOOK, point=point) == expected
        for prefix in ("client", "client:a", "custody:pool:cold", "nothing"):
            below = [
                node
                for node in expected
                if node.path == prefix or node.path.startswith(f"{prefix}:")
            ]
            assert await account_tree(conn, BOOK, prefix, point) == below
        assert await account_tree(conn, BOOK, point=point, depth=1) == [
            node for node in expected if node.depth == 1
        ]
    day = history.days()[len(history.days()) // 2]
    nodes = await account_tree(conn, BOOK, point=Point(effective_on=day), depth=1)
    for asset in {node.asset for node in nodes}:
        assert sum(n.debits - n.credits for n in nodes if n.asset == asset) == 0


def brute_tree(keys: list[Key], balance: Callable[[Key], Balance]) -> list[TreeNode]:
    found: dict[tuple[tuple[str, ...], str], TreeNode] = {}
    for path, asset in keys:
        it = balance((path, asset))
        parts = path.split(":")
        for depth in range(1, len(parts) + 1):
            node = found.setdefault(
                (tuple(parts[:depth]), asset),
                TreeNode(
                    path=":".join(parts[:depth]),
                    asset=asset,
                    depth=depth,
                    accounts=0,
                    side=it.side,
                    debits=0,
                    credits=0,
                    debits_pending=0,
                    credits_pending=0,
                ),
            )
            found[tuple(parts[:depth]), asset] = replace(
                node,
                accounts=node.accounts + 1,
                side=node.side if node.side is it.side else None,
                debits=node.debits + it.debits_posted,
                credits=node.credits + it.credits_posted,
                debits_pending=node.debits_pending + it.debits_pending,
                credits_pending=node.credits_pending + it.credits_pending,
            )
    return [found[key] for key in sorted(found)]


async def test_statements_as_recorded_chain_and_page(
    conn: AsyncConnection, history: History
) -> None:
    middle = history.blocks[len(history.blocks) // 2][1]
    end = history.blocks[-1][1] + timedelta(hours=1)
    for key in history.opened:
        facts = [fact for fact in history.facts if key in {fact.debit, fact.credit}]
        for start, stop in ((BEGIN, middle), (middle, end), (BEGIN, end), (end, end)):
            told = await statement(conn, BOOK, *key, start, stop)
            edge = timedelta(microseconds=1)
            low, high = history.last_at(start - edge), history.last_at(stop - edge)
            assert told.opening == history.at_sequence(key, low).posted
            assert told.closing == history.at_sequence(key, high).posted
            within = [fact for fact in facts if low < fact.sequence <= high]
            assert [line.sequence for line in told.lines] == [fact.sequence for fact in within]
            assert sum(line.change for line in told.lines) == told.closing - told.opening
            for line in told.lines:
                then = history.at_sequence(key, line.sequence)
                assert (line.balance, line.held) == (then.posted, then.posted - then.available)
            page = await page_statement(conn, BOOK, *key, start, stop, limit=2)
            lines = list(page.lines)
            while page.after is not None:
                page = await page_statement(
                    conn, BOOK, *key, start, stop, after=page.after, known=page.sequence, limit=2
                )
                assert (page.opening, page.closing) == (told.opening, told.closing)
                lines += page.lines
            assert lines == list(told.lines)


async def test_statements_by_effective_date_chain_and_page(
    conn: AsyncConnection, history: History
) -> None:
    days = history.days()
    third = days[len(days) // 3]
    for key in history.opened:
        side = PATHS[key[0]]
        for first, last in ((days[0], third), (third, days[-1]), (days[1], days[-1])):
            expected = [
                (day, fact.sequence, change_of(fact, key, side))
                for fact in history.facts
                if key in {fact.debit, fact.credit}
                for day in [fact.effective_on if fact.posted else fact.recorded_at.date()]
                if first <= day <= last
            ]
            expected.sort(key=lambda item: item[:2])
            opening = history.effective(key, first - timedelta(days=1)).posted
            closing = history.effective(key, last).posted
            for limit in (1, 3, 1_000):
                lines: list[EffectiveLine] = []
                cursor: EffectiveCursor | None = None
                while True:
                    page = await page_effective_statement(
                        conn, BOOK, *key, first, last, after=cursor, limit=limit
                    )
                    assert (page.opening, page.closing) == (opening, closing)
                    lines += page.lines
                    cursor = page.after
                    if cursor is None:
                        break
                told = [(it.effective_on, it.line.sequence, it.line.change) for it in lines]
                assert told == expected, (key, first, last, limit)
                balance = opening
                for item in lines:
                    balance += item.line.change
                    assert item.line.balance == balance
                assert balance == closing


def change_of(fact: Fact, key: Key, side: Side) -> int:
    net = fact.posted if fact.debit == key else -fact.posted
    return net if side is Side.DEBIT else -net


FILTERS: dict[str, Callable[[History], TransferFilter]] = {
    "nothing": lambda _: TransferFilter(),
    "path": lambda _: TransferFilter(path="client:a"),
    "path and asset": lambda _: TransferFilter(path="client:a", asset="X"),
    "asset": lambda _: TransferFilter(asset="Y"),
    "code": lambda _: TransferFilter(code=CODES[0]),
    "unknown code": lambda _: TransferFilter(code="never"),
    "kind": lambda _: TransferFilter(kind=Kind.POST),
    "reference": lambda _: TransferFilter(reference="ref-2"),
    "no reference": lambda _: TransferFilter(reference=""),
    "correlation": lambda _: TransferFilter(correlation=derive_id(BEGIN, "row", 1)),
    "metadata": lambda _: TransferFilter(metadata={"order": {"n": 1}}),
    "metadata list": lambda _: TransferFilter(metadata={"tags": ["b"]}),
    "recorded": lambda h: TransferFilter(recorded_from=middle(h, 1), recorded_to=middle(h, 3)),
    "recorded from": lambda h: TransferFilter(recorded_from=middle(h, 2)),
    "effective": lambda h: TransferFilter(effective_from=middle(h, 1), effective_to=middle(h, 2)),
    "effective to": lambda h: TransferFilter(effective_to=middle(h, 2)),
    "effective of a path": lambda h: TransferFilter(path="client:a", effective_to=middle(h, 2)),
    "code and path": lambda _: TransferFilter(path="client:b", code=CODES[1]),
    "everything": lambda h: TransferFilter(
        path="custody:pool",
        asset="X",
        code=CODES[0],
        kind=Kind.SINGLE,
        metadata={"tags": ["a"]},
        recorded_to=middle(h, 3),
        effective_from=middle(h, 1),
    ),
}


def middle(history: History, quarter: int) -> datetime:
    return history.blocks[len(history.blocks) * quarter // 4][1]


def matches(fact: Fact, wanted: TransferFilter) -> bool:
    effective = fact.effective_at or fact.recorded_at
    asked = fact.request
    return all(
        (
            wanted.path is None or wanted.path in {fact.debit[0], fact.credit[0]},
            wanted.asset is None or wanted.asset == fact.asset,
            wanted.code is None or wanted.code == asked.code,
            wanted.kind is None or wanted.kind is fact.kind,
            wanted.reference is None or wanted.reference == asked.reference,
            wanted.correlation is None or wanted.correlation == asked.correlation,
            wanted.metadata is None or contains(asked.metadata, wanted.metadata),
            wanted.recorded_from is None or wanted.recorded_from <= fact.recorded_at,
            wanted.recorded_to is None or fact.recorded_at < wanted.recorded_to,
            wanted.effective_from is None or wanted.effective_from <= effective,
            wanted.effective_to is None or effective < wanted.effective_to,
        )
    )


def contains(has: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(has, dict) and all(
            name in has and contains(has[name], value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(has, list) and all(value in has for value in wanted)
    return bool(has == wanted)


async def test_every_filter_finds_what_matches_in_pages_of_both_directions(
    conn: AsyncConnection, history: History
) -> None:
    for name, filter_of in FILTERS.items():
        wanted = filter_of(history)
        expected = [fact.sequence for fact in history.facts if matches(fact, wanted)]
        for limit in (2, 1_000):
            assert await walk(conn, wanted, limit) == expected, name
            assert await walk_back(conn, history.head + 1, wanted, limit) == expected, name


async def walk(conn: AsyncConnection, wanted: TransferFilter, limit: int) -> list[int]:
    found: list[int] = []
    after: int | None = 0
    while after is not None:
        page = await page_transfers(conn, BOOK, wanted, after=after, limit=limit)
        found += [item.sequence for item in page.items]
        after = page.after
    return found


async def walk_back(
    conn: AsyncConnection, before: int | None, wanted: TransferFilter, limit: int
) -> list[int]:
    found: list[int] = []
    while before is not None:
        page = await page_transfers(conn, BOOK, wanted, before=before, limit=limit)
        found = [item.sequence for item in page.items] + found
        before = page.before
    return found


async def test_one_transfer_is_told_with_all_its_ties(
    conn: AsyncConnection, history: History
) -> None:
    for fact in history.facts:
        found = await find_transfer(conn, BOOK, fact.request.id)
        assert found is not None
        assert found.transfer.sequence == fact.sequence
        assert found.transfer.metadata == dict(fact.request.metadata)
        assert found.debit_balance == history.at_sequence(fact.debit, fact.sequence)
        assert found.credit_balance == history.at_sequence(fact.credit, fact.sequence)
        assert history.blocks[found.height - 1][0] >= fact.sequence
        assert found.height == 1 or history.blocks[found.height - 2][0] < fact.sequence
        hold_id = fact.request.id if fact.kind is Kind.PENDING else fact.request.pending_id
        assert (found.hold and found.hold.id) == hold_id
        if hold_id is not None:
            assert found.hold is not None
            assert found.hold.state is history.hold_state(hold_id)
        ties = [
            (found.pending, [f for f in history.facts if f.request.id == fact.request.pending_id]),
            (found.original, [f for f in history.facts if f.request.id == fact.request.reverses]),
            (
                found.resolved_by,
                [f for f in history.facts if f.request.pending_id == fact.request.id],
            ),
            (
                found.reversed_by,
                [f for f in history.facts if f.request.reverses == fact.request.id],
            ),
        ]
        for told, those in ties:
            assert (told and told.sequence) == (those[0].sequence if those else None)


async def test_open_holds_at_every_sequence(conn: AsyncConnection, history: History) -> None:
    for sequence in range(history.head + 1):
        holds = history.open_holds(sequence)
        page = await page_open_holds(conn, BOOK, at_sequence=sequence)
        assert [item.id for item in page.items] == [fact.request.id for fact in holds]
        assert [item.amount for item in page.items] == [fact.amount for fact in holds]
    for key in history.opened:
        for sequence in range(0, history.head + 1, 5):
            mine = [f for f in history.open_holds(sequence) if key in {f.debit, f.credit}]
            found = await get_position(conn, BOOK, *key, at_sequence=sequence)
            assert found.balance == history.at_sequence(key, sequence)
            assert [item.id for item in found.holds] == [fact.request.id for fact in mine]
            out = sum(item.amount for item in found.holds if item.debit == key[0])
            into = sum(item.amount for item in found.holds if item.credit == key[0])
            assert (found.balance.debits_pending, found.balance.credits_pending) == (out, into)
    for path in PATHS:
        mine = [f for f in history.open_holds(history.head) if path in {f.debit[0], f.credit[0]}]
        held = await list_open_holds(conn, BOOK, path=path)
        assert [item.id for item in held] == [fact.request.id for fact in mine]


def coverage_at(history: History, sequence: int) -> list[Coverage]:
    found = []
    for asset in ("X", "Y"):
        keys = [key for key in history.keys_at(sequence) if key[1] == asset]
        held = [key for key in keys if key[0] in OWNERS]
        owed = [key for key in keys if key[0].startswith("client:")]
        if held or owed:
            holdings = sum(history.at_sequence(key, sequence).posted for key in held)
            liabilities = sum(history.at_sequence(key, sequence).posted for key in owed)
            found.append(Coverage(asset=asset, holdings=holdings, liabilities=liabilities))
    return found


async def test_coverage_at_every_block_and_its_history(
    conn: AsyncConnection, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: dict[str, tuple[int, int]] = {}
    changes: list[tuple[int, int, datetime, Coverage]] = []
    short: dict[str, int] = {}
    for height, (last, when) in enumerate(history.blocks, start=1):
        expected = coverage_at(history, last)
        assert await coverage(conn, BOOK, at_block=height) == expected
        assert await coverage(conn, BOOK, at_sequence=last) == expected
        for item in expected:
            if (item.holdings, item.liabilities) != before.get(item.asset, (0, 0)):
                changes.append((height, last, when, item))
                if not item.covered:
                    short.setdefault(item.asset, height)
            before[item.asset] = (item.holdings, item.liabilities)
    for window in (1, 7, 100_000):
        monkeypatch.setattr("ledger.coverage.WINDOW", window)
        told = []
        after: int | None = 0
        while after is not None:
            page = await page_coverage(conn, BOOK, after=after)
            told += [(i.height, i.sequence, i.recorded_at, i.coverage) for i in page.items]
            after = page.after
        assert told == changes
        for asset in ("X", "Y"):
            alone = await page_coverage(conn, BOOK, asset=asset)
            if alone.after is None:
                shorts = [item.height for item in alone.items if not item.coverage.covered]
                assert shorts[:1] == ([short[asset]] if asset in short else [])
