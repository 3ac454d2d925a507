"""Verification: silent on a sound book, and naming whatever was changed behind the ledger's back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import POOL_SIZE_MAX, transact
from kernel.errors import BadInput
from ledger.accounts import ensure_accounts, set_credit_limit, set_frozen
from ledger.audit import Fault
from ledger.model import Transfer, hold, post_hold, void_hold
from ledger.posting import open_book, post
from ledger.scenarios import name_id
from ledger.verification import examine, verify


async def test_a_sound_book_has_no_fault(busy: AsyncEngine) -> None:
    seen: list[tuple[int, int]] = []

    faults = await verify(busy, 1, progress=lambda done, of: seen.append((done, of)))

    assert faults == []
    assert seen[-1][0] == seen[-1][1] > 0


CHANGES = {
    "an amount in the journal": (
        "UPDATE ledger.transfer SET amount = amount + 1 WHERE id = :a",
        {("entry", "client:a ETH"), ("entry", "{a}"), ("block", "height")},
    ),
    "the text of a record": (
        "UPDATE ledger.transfer SET reference = 'forged' WHERE id = :a",
        {("block", "height")},
    ),
    "an entry": (
        (
            "UPDATE ledger.entry SET credits_posted = credits_posted + 1"
            " WHERE sequence = (SELECT sequence FROM ledger.transfer WHERE id = :a) AND credits_posted > 0"
        ),
        {("entry", "{a}")},
    ),
    "an entry's version": (
        (
            "UPDATE ledger.entry SET version = version + 1"
            " WHERE sequence = (SELECT sequence FROM ledger.transfer WHERE id = :a)"
        ),
        {("entry", "{a}")},
    ),
    "a balance": (
        (
            "UPDATE ledger.balance SET credits_posted = credits_posted + 1"
            " WHERE account = (SELECT number FROM ledger.account WHERE path = 'client:b')"
        ),
        {("balance", "client:b ETH")},
    ),
    "a frozen account": (
        "UPDATE ledger.balance SET frozen = false",
        {("balance", "client:b ETH")},
    ),
    "a deleted transfer": (
        "DELETE FROM ledger.transfer WHERE id = :a",
        {("transfer", "sequence"), ("entry", "client:a ETH")},
    ),
    "a deleted entry": (
        "DELETE FROM ledger.entry WHERE sequence = (SELECT sequence FROM ledger.transfer WHERE id = :a)",
        {("entry", "{a}")},
    ),
    "a deleted balance": (
        "DELETE FROM ledger.balance WHERE account = (SELECT number FROM ledger.account WHERE path = 'client:b')",
        {("balance", "client:b ETH")},
    ),
    "a deleted refusal": (
        "DELETE FROM ledger.refusal",
        {("transfer", "sequence")},
    ),
    "a changed refusal": (
        "UPDATE ledger.refusal SET outcome = 'exceeds_debits'",
        {("block", "height")},
    ),
    "an invented entry": (
        (
            "INSERT INTO ledger.entry SELECT book, account, sequence + 1, version + 9, 0, 0, 0, 0"
            " FROM ledger.entry WHERE sequence = (SELECT sequence FROM ledger.transfer WHERE id = :a)"
            " AND credits_posted > 0"
        ),
        {("entry", "client:a ETH, sequence")},
    ),
    "a block's root": (
        "UPDATE ledger.block SET root = sha256('forged') WHERE height = 2",
        {("block", "height 2")},
    ),
    "a block's time": (
        "UPDATE ledger.block SET recorded_at = recorded_at - interval '1 hour' WHERE height = 4",
        {("block", "height 4")},
    ),
    "the head's frontier": (
        "UPDATE ledger.head SET frontier = sha256('forged')",
        {("head", "book 1")},
    ),
    "a hold's state": (
        "UPDATE ledger.hold SET state = 'voided' WHERE id = :h",
        {("hold", "{h}")},
    ),
    "a hold reopened": (
        (
            "UPDATE ledger.hold SET state = 'open', remaining = amount, resolved_sequence = NULL"
            " WHERE id = :h"
        ),
        {("hold", "{h}"), ("hold", "client:a ETH"), ("hold", "in-flight:evm ETH")},
    ),
    "a deleted open hold": (
        "DELETE FROM ledger.hold WHERE id = :k",
        {("hold", "{k}"), ("hold", "client:b ETH")},
    ),
    "a hold's deadline": (
        "UPDATE ledger.hold SET expires_at = now() WHERE id = :k",
        {("hold", "{k}")},
    ),
    "whose account it is": (
        "UPDATE ledger.account SET owner = 'house' WHERE path = 'custody:client'",
        {("block", "height")},
    ),
    "an account's guard": (
        "UPDATE ledger.balance SET debits_must_not_exceed_credits = false",
        {("balance", "client:a ETH")},
    ),
    "an event of an account": (
        "DELETE FROM ledger.account_event WHERE kind = 'frozen'",
        {("transfer", "sequence"), ("balance", "client:b ETH")},
    ),
}


SMALL = 256
"""Records in a chunk: the least."""

MANY = [
    Transfer(
        id=name_id(f"many-{n}"),
        debit="custody:w",
        credit="suspense:x",
        asset="ETH",
        amount=n,
        code="many",
    )
    for n in range(600)
]


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_behind_the_ledgers_back_is_named(
    busy: AsyncEngine, owner_engine: AsyncEngine, name: str
) -> None:
    statement, expected = CHANGES[name]
    ids = {key: name_id(key) for key in "ahk"}
    async with owner_engine.begin() as conn:
        for (table,) in (
            await conn.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'ledger'"))
        ).all():
            await conn.execute(text(f"ALTER TABLE ledger.{table} DISABLE TRIGGER USER"))
        changed = await conn.execute(
            text(statement), {k: v for k, v in ids.items() if f":{k}" in statement}
        )
        assert changed.rowcount

    faults = await verify(busy, 1)

    wanted = {(table, key.format(**ids)) for table, key in expected}
    missed = {
        (table, key)
        for table, key in wanted
        if not any(fault.table == table and key in fault.key for fault in faults)
    }
    assert missed == set(), faults


async def test_a_record_below_a_complete_tile_is_named_itself(
    busy: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    """And the blocks behind it still verify, from the tile's hashes."""
    await transact(
        busy, lambda conn: ensure_accounts(conn, 1, [("custody:w", "ETH"), ("suspense:x", "ETH")])
    )
    for start in range(0, 600, 100):
        await transact(busy, lambda conn: post(conn, 1, MANY[start : start + 100]))  # noqa: B023  run at once
    assert await verify(busy, 1) == []
    async with owner_engine.begin() as conn:
        await conn.execute(text("ALTER TABLE ledger.transfer DISABLE TRIGGER USER"))
        await conn.execute(
            text("UPDATE ledger.transfer SET code = 'few' WHERE id = :id"),
            {"id": name_id("many-7")},
        )
        sequence = await conn.scalar(
            text("SELECT sequence FROM ledger.transfer WHERE id = :id"), {"id": name_id("many-7")}
        )

    assert await verify(busy, 1) == [
        Fault(
            "transfer",
            f"{name_id('many-7')} (sequence {sequence})",
            "is not what the tree was built over",
        )
    ]


@pytest.mark.parametrize("column", ["hashes", "root"])
async def test_a_forged_tile_is_named(
    busy: AsyncEngine, owner_engine: AsyncEngine, column: str
) -> None:
    await transact(
        busy, lambda conn: ensure_accounts(conn, 1, [("custody:w", "ETH"), ("suspense:x", "ETH")])
    )
    await transact(busy, lambda conn: post(conn, 1, MANY))
    async with owner_engine.begin() as conn:
        await conn.execute(text("ALTER TABLE ledger.tile DISABLE TRIGGER USER"))
        forge = "UPDATE ledger.tile SET COLUMN = overlay(COLUMN placing '\\x0011'::bytea from 3)"
        where = " WHERE level = 0 AND position = 1"
        await conn.execute(text(forge.replace("COLUMN", column) + where))

    faults = await verify(busy, 1)

    assert ("tile", "level 0 index 1") in {(fault.table, fault.key) for fault in faults}


async def test_a_book_that_goes_on_working_verifies(busy: AsyncEngine) -> None:
    """Small chunks, so that balances, holds and the head move on behind each watermark."""
    paths = ("custody:w", "suspense:x", "suspense:y", "suspense:z")
    keys = [(path, "ETH") for path in paths]
    await transact(busy, lambda conn: ensure_accounts(conn, 1, keys))
    working = True

    async def work() -> None:
        for n in range(0, 600, 12):
            made = hold(
                name_id(f"hold-{n}"), "custody:w", "client:a", 1, "ETH", code="c", purpose="p"
            )
            done = post_hold(name_id(f"post-{n}"), name_id(f"hold-{n - 24}"), code="c")
            closing = hold(
                name_id(f"closing-{n}"),
                "suspense:y",
                "custody:w",
                0,
                "ETH",
                code="c",
                purpose="close",
                closing_debit=True,
            )
            reopened = void_hold(name_id(f"reopen-{n}"), name_id(f"closing-{n - 12}"), code="c")
            batch = [*MANY[n : n + 12], made, done, reopened, closing]
            await transact(busy, lambda conn: stand(conn, n, batch))  # noqa: B023  run at once

    async def stand(conn: AsyncConnection, n: int, batch: list[Transfer]) -> None:
        """Post, freeze or unfreeze, set another limit: everything that a balance row carries."""
        await post(conn, 1, batch)
        frozen = n % 24 == 0
        await set_frozen(conn, 1, "suspense:z", "ETH", frozen=frozen, reason="test")
        await set_credit_limit(conn, 1, "client:a", "ETH", n + 1, reason="test")

    async def watch() -> int:
        times = 0
        while working:
            assert (await examine(busy, 1, chunk=SMALL)).faults == []
            times += 1
        return times

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        await group.create_task(work())
        working = False

    assert watching.result() > 1
    assert await verify(busy, 1) == []


@pytest.fixture
async def long(busy: AsyncEngine) -> AsyncEngine:
    """A busy book with 600 records more: two whole chunks and a part of a third."""
    keys = [("custody:w", "ETH"), ("suspense:x", "ETH")]
    await transact(busy, lambda conn: ensure_accounts(conn, 1, keys))
    await transact(busy, lambda conn: post(conn, 1, MANY))
    return busy


def another(name: str) -> Transfer:
    return replace(MANY[0], id=name_id(name))


async def test_a_check_begins_where_the_last_one_ended(long: AsyncEngine, tmp_path: Path) -> None:
    state = tmp_path / "verified"

    first = await examine(long, 1, chunk=SMALL, state=state)
    await transact(long, lambda conn: post(conn, 1, [another("new")]))
    second = await examine(long, 1, chunk=SMALL, state=state)
    more = [another(f"more-{n}") for n in range(SMALL)]
    await transact(long, lambda conn: post(conn, 1, more))
    third = await examine(long, 1, chunk=SMALL, state=state)
    fourth = await examine(long, 1, chunk=SMALL, state=state)

    assert [found.faults for found in (first, second, third, fourth)] == [[]] * 4
    assert (first.since, second.since, third.since) == (0, 2 * SMALL, 2 * SMALL)
    assert fourth.since == 3 * SMALL
    assert second.sequence == first.sequence + 1


OLD = {
    "a balance": ("UPDATE ledger.balance SET credits_posted = credits_posted + 1", "balance"),
    "a hold": ("UPDATE ledger.hold SET amount = amount + 1 WHERE state <> 'open'", "hold"),
    "a deleted hold": ("DELETE FROM ledger.hold WHERE state <> 'open'", "hold"),
    "a new transfer": (
        "UPDATE ledger.transfer SET reference = 'forged' WHERE sequence = 600",
        "block",
    ),
    "a new entry": (
        "UPDATE ledger.entry SET credits_posted = credits_posted + 1 WHERE sequence = 600",
        "entry",
    ),
    "the head": ("UPDATE ledger.head SET frontier = sha256('forged')", "head"),
    "the journal's end": ("UPDATE ledger.head SET sequence = 300", "head"),
    "a row beyond": (
        (
            "INSERT INTO ledger.refusal SELECT book, 9999, :id, outcome, recorded_at"
            " FROM ledger.refusal LIMIT 1"
        ),
        "refusal",
    ),
}


@pytest.mark.parametrize("name", OLD)
async def test_a_later_check_finds_what_is_new_and_what_may_change(
    long: AsyncEngine, owner_engine: AsyncEngine, tmp_path: Path, name: str
) -> None:
    state = tmp_path / "verified"
    assert (await examine(long, 1, chunk=SMALL, state=state)).faults == []
    statement, table = OLD[name]
    await tamper(owner_engine, statement)

    found = await examine(long, 1, chunk=SMALL, state=state)

    assert found.since == 2 * SMALL
    assert table in {fault.table for fault in found.faults}, found.faults


async def test_a_later_check_does_not_read_the_old_journal_again(
    long: AsyncEngine, owner_engine: AsyncEngine, tmp_path: Path
) -> None:
    """Which is what it says of itself; a check from the beginning finds it."""
    state = tmp_path / "verified"
    assert (await examine(long, 1, chunk=SMALL, state=state)).faults == []
    await tamper(owner_engine, "UPDATE ledger.transfer SET reference = 'x' WHERE sequence = 100")

    assert (await examine(long, 1, chunk=SMALL, state=state)).faults == []
    assert [fault.table for fault in await verify(long, 1)] == ["transfer"]


async def test_a_state_that_is_not_whole_is_refused(long: AsyncEngine, tmp_path: Path) -> None:
    state = tmp_path / "verified"
    await examine(long, 1, chunk=SMALL, state=state)
    whole = state.read_bytes()
    await transact(long, lambda conn: open_book(conn, 2, entity="another"))

    with pytest.raises(BadInput, match="another book"):
        await examine(long, 2, chunk=SMALL, state=state)
    with pytest.raises(BadInput, match="chunk size"):
        await examine(long, 1, chunk=8 * SMALL, state=state)
    for forged in (whole.replace(b"client:a", b"client:b", 1), whole[:-200], b""):
        state.write_bytes(forged)
        with pytest.raises(BadInput, match="not whole"):
            await examine(long, 1, chunk=SMALL, state=state)


async def test_a_fault_leaves_no_state(
    long: AsyncEngine, owner_engine: AsyncEngine, tmp_path: Path
) -> None:
    state = tmp_path / "verified"
    await tamper(owner_engine, "UPDATE ledger.transfer SET reference = 'x' WHERE sequence = 9")

    assert (await examine(long, 1, chunk=SMALL, state=state)).faults

    assert not state.exists()


async def tamper(owner: AsyncEngine, statement: str) -> None:
    """Run a statement with the triggers switched off."""
    given = {"id": name_id("forged")} if ":id" in statement else {}
    async with owner.begin() as conn:
        for table in ("transfer", "entry", "hold", "balance", "head", "refusal"):
            await conn.execute(text(f"ALTER TABLE ledger.{table} DISABLE TRIGGER USER"))
        assert (await conn.execute(text(statement), given)).rowcount


async def test_a_check_that_is_broken_off_leaves_no_broken_connection(long: AsyncEngine) -> None:
    """The next chunk is being read when it happens."""

    class Stop(Exception):
        pass

    def stop(_done: int, _of: int) -> None:
        raise Stop

    for _ in range(2 * POOL_SIZE_MAX):
        with pytest.raises((Stop, ExceptionGroup)):
            await examine(long, 1, chunk=SMALL, progress=stop)
        async with asyncio.TaskGroup() as group:
            checking = group.create_task(examine(long, 1, chunk=SMALL))
            await asyncio.sleep(0.001)
            checking.cancel()

    assert await verify(long, 1) == []
    async with long.connect() as conn:
        assert await conn.scalar(text("SHOW enable_seqscan")) == "on"
