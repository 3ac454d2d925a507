# ruff: noqa: S608  the names of tables and columns come from our own metadata
"""Every column of every table is changed behind the ledger's back, and verification names the row.

Tables and columns are those of the ledger's own metadata, so a new one cannot be forgotten. The owner
takes triggers and constraints away first: what is left is only what verification derives again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Table, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import metadata, transact
from ledger import tables
from ledger.accounts import ensure_accounts, open_accounts, set_credit_limit, set_frozen
from ledger.audit import Fault
from ledger.checkpoint import Checkpoint, origin_of
from ledger.errors import BookNotOpen
from ledger.model import AccountSpec, Side, Transfer
from ledger.periods import close_period
from ledger.posting import post, require_applied
from ledger.proofs import make_checkpoint
from ledger.queries import head
from ledger.scenarios import START, name_id, play
from ledger.verification import examine, verify

TABLES: dict[str, Table] = {
    table.name: table for table in metadata.tables.values() if table.schema == tables.SCHEMA
}
STORY = """
own custody:client client
a  move  custody:client  client:a  100 ETH   -> created
b  move  custody:client  client:b  50 ETH    -> created
h  hold  client:a  in-flight:evm  30 ETH  purpose=payout           -> created
i  hold  client:a  in-flight:evm  10 ETH  purpose=quote timeout=5s -> created
j  hold  custody:client  client:b  5 ETH  purpose=deposit          -> created
k  hold  custody:client  client:b  7 ETH  purpose=deposit          -> created

p  post  h  20 ETH                            -> created
v  void  j                                    -> created
x  move  client:b  client:a  51 ETH           -> exceeds_credits
r  reverse  b                                 -> created
@ +5s
"""
FILLER = 300
"""Enough for a complete tile above everything that the story did."""

DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
DAY = timedelta(days=1)
LATER = START + timedelta(days=40)


def move(name: str, debit: str, credit: str, **more: Any) -> Transfer:
    return Transfer(
        id=name_id(name), debit=debit, credit=credit, asset="ETH", amount=3, code="t", **more
    )


async def build(engine: AsyncEngine) -> None:
    """A book that has met every kind of record, row and column."""
    assert await play(engine, STORY) == STORY

    async def rest(conn: AsyncConnection) -> None:
        described = AccountSpec(
            path="client:c",
            asset="ETH",
            side=Side.CREDIT,
            owner="client:c",
            debits_must_not_exceed_credits=True,
            credit_limit=5,
            purpose="loan",
            metadata={"desk": "otc"},
            effective_at=START - 3 * DAY,
        )
        await open_accounts(conn, 1, [described], now=LATER)
        await ensure_accounts(conn, 1, [("equity:opening", "ETH")], now=LATER)
        await set_credit_limit(conn, 1, "client:c", "ETH", 9, reason="more", now=LATER)
        await close_period(
            conn,
            1,
            (START - 10 * DAY).date(),
            reason="month",
            proposed_by="ann",
            approved_by="bob",
            now=LATER,
        )
        imported = move(
            "imported", "equity:opening", "client:c", imported=True, effective_at=START + DAY
        )
        with pytest.raises(Exception, match="refused"):
            require_applied(await post(conn, 1, [imported], now=LATER))
        imported = move("im", "client:c", "client:a", imported=True, effective_at=LATER - DAY)
        require_applied(await post(conn, 1, [imported], now=LATER))
        dated = [
            move("dated", "client:a", "client:c", effective_at=LATER - 2 * DAY),
            move("noted", "client:a", "client:c", metadata={"ticket": "T-1"}, reference="r-1"),
        ]
        require_applied(await post(conn, 1, dated, now=LATER))
        await set_frozen(conn, 1, "client:b", "ETH", frozen=True, reason="why", now=LATER)
        filler = [move(f"f{n}", "custody:client", "client:a") for n in range(FILLER)]
        require_applied(await post(conn, 1, filler, now=LATER))

    await transact(engine, rest)


def changed(column: Any) -> str:
    """An expression for another value of a column, whatever it holds: one byte, one unit."""
    name = column.name
    kind = column.type.compile(dialect=DIALECT).upper()
    if name == "book":
        return "2"
    if "BYTEA" in kind:
        return f"set_byte({name}, 3, get_byte({name}, 3) # 1)"
    if "JSONB" in kind:
        return f"""{name} || '{{"x": 1}}'"""
    if "BOOL" in kind:
        return f"NOT {name}"
    if "UUID" in kind:
        return f"coalesce(overlay({name}::text placing '0f' from 35)::uuid, '{name_id('other')}')"
    if "TIMESTAMP" in kind:
        return f"coalesce({name} + interval '1 microsecond', now())"
    if "DATE" in kind:
        return f"coalesce({name} + 1, current_date)"
    if "TEXT" in kind:
        return f"overlay({name} || '-' placing 'x' from 1 for 1)"
    return f"coalesce({name} + 1, 1)"


@dataclass(frozen=True)
class Victim:
    """The row that is changed, and what a fault must say: table, and a part of the key."""

    where: str
    named: tuple[tuple[str, str], ...]


SEQUENCE = "(SELECT sequence FROM ledger.transfer WHERE id = '{}')"


async def victims(engine: AsyncEngine) -> dict[str, Victim]:
    async def scalar(statement: str) -> Any:
        async with engine.connect() as conn:
            return await conn.scalar(text(statement))

    a, noted, dated = name_id("a"), name_id("noted"), name_id("dated")
    at = {
        "c": await scalar("SELECT number FROM ledger.account WHERE path = 'client:c'"),
        "limited": await scalar("SELECT sequence FROM ledger.account_event WHERE kind = 'limited'"),
        "opened": await scalar(
            "SELECT sequence FROM ledger.account_event e JOIN ledger.account a"
            " ON a.number = e.account WHERE a.path = 'client:c' AND kind = 'opened'"
        ),
        "closed": await scalar("SELECT sequence FROM ledger.period_event"),
        "refused": await scalar(f"SELECT sequence FROM ledger.refusal WHERE id = '{name_id('x')}'"),
        **{
            str(t): await scalar(f"SELECT sequence FROM ledger.transfer WHERE id = '{t}'")
            for t in (a, noted, dated)
        },
    }
    return {
        "head": Victim("true", (("head", "book 1"),)),
        "account": Victim(
            f"number = {at['c']}",
            (("account", "client:c"), ("account_event", f"sequence {at['opened']}")),
        ),
        "account_event": Victim(
            f"sequence = {at['limited']}",
            (
                ("account_event", f"sequence {at['limited']}"),
                ("transfer", f"sequence {at['limited']}"),
            ),
        ),
        "balance": Victim(f"account = {at['c']}", (("balance", "client:c ETH"),)),
        "transfer": Victim(
            f"id = '{a}'", (("transfer", str(a)), ("transfer", f"sequence {at[str(a)]}"))
        ),
        "transfer_metadata": Victim(
            f"sequence = {at[str(noted)]}", (("transfer_metadata", str(noted)),)
        ),
        "entry": Victim(
            f"sequence = {at[str(a)]} AND credits_posted > 0",
            (("entry", f"client:a ETH, transfer {a}"),),
        ),
        "effective_entry": Victim(
            f"sequence = {at[str(dated)]} AND account = {at['c']}",
            (("effective_entry", f"client:c ETH, transfer {dated}"),),
        ),
        "hold": Victim(f"id = '{name_id('h')}'", (("hold", str(name_id("h"))),)),
        "refusal": Victim(
            f"sequence = {at['refused']}",
            (
                ("refusal", str(name_id("x"))),
                ("refusal", f"sequence {at['refused']}"),
                ("transfer", f"sequence {at['refused']}"),
            ),
        ),
        "block": Victim("height = 2", (("block", "height 2"), ("block", "height 3"))),
        "tile": Victim("position = 0", (("tile", "level 0 index 0"),)),
        "period_event": Victim(
            f"sequence = {at['closed']}",
            (
                ("period_event", f"sequence {at['closed']}"),
                ("transfer", f"sequence {at['closed']}"),
            ),
        ),
    }


@pytest.fixture
async def open_house(engine: AsyncEngine, owner_engine: AsyncEngine) -> AsyncEngine:
    """The owner's engine of a database that guards nothing any more, with a copy of each table."""
    await build(engine)
    assert await verify(engine, 1) == []
    async with owner_engine.begin() as conn:
        await conn.execute(text("CREATE SCHEMA kept"))
        for name in TABLES:
            await conn.execute(text(f"CREATE TABLE kept.{name} AS TABLE ledger.{name}"))
            await conn.execute(text(f"ALTER TABLE ledger.{name} DISABLE TRIGGER USER"))
        found = await conn.execute(
            text(
                "SELECT c.conrelid::regclass, c.conname FROM pg_constraint c"
                " JOIN pg_namespace n ON n.oid = c.connamespace"
                " WHERE n.nspname = 'ledger' AND c.contype IN ('c', 'u', 'p')"
            )
        )
        for table, constraint in found.all():
            await conn.execute(text(f'ALTER TABLE {table} DROP CONSTRAINT "{constraint}"'))
        for index in ("uq_transfer_reverses", "uq_transfer_pending_id"):
            await conn.execute(text(f"DROP INDEX ledger.{index}"))
        await conn.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO PUBLIC"))
    return owner_engine


async def faults_after(
    engine: AsyncEngine, owner: AsyncEngine, table: str, *statements: str
) -> list[Fault]:
    """Verify with a table changed, and put it back."""
    async with owner.begin() as conn:
        for statement in statements:
            assert (await conn.execute(text(statement))).rowcount > 0, statement
    try:
        return await verify(engine, 1)
    finally:
        async with owner.begin() as conn:
            await conn.execute(text(f"DELETE FROM ledger.{table}"))
            await conn.execute(text(f"INSERT INTO ledger.{table} SELECT * FROM kept.{table}"))


def is_named(faults: Iterable[Fault], victim: Victim) -> bool:
    return any(
        fault.table == table and key in fault.key for fault in faults for table, key in victim.named
    )


async def test_every_column_of_every_table(engine: AsyncEngine, open_house: AsyncEngine) -> None:
    found = await victims(engine)
    assert found.keys() == TABLES.keys(), "a table is not tampered with"
    unnamed = []
    tried = 0
    for name, table in TABLES.items():
        for column in table.c:
            if (name, column.name) in {("head", "book"), ("head", "entity")}:
                continue
            tried += 1
            act = (
                f"UPDATE ledger.{name} SET {column.name} = {changed(column)}"
                f" WHERE {found[name].where}"
            )
            faults = await faults_after(engine, open_house, name, act)
            if not is_named(faults, found[name]):
                unnamed.append((name, column.name, [str(fault) for fault in faults[:4]]))
    assert unnamed == []
    assert tried > 100
    assert await verify(engine, 1) == []


async def test_a_book_that_is_called_something_else_is_found_by_its_checkpoint(
    engine: AsyncEngine, open_house: AsyncEngine
) -> None:
    async with engine.connect() as conn:
        origin = origin_of((await head(conn, 1)).entity, 1)
        claimed = await make_checkpoint(conn, 1, origin=origin)
        earlier = await make_checkpoint(conn, 1, origin=origin, size=9)
    assert (await examine(engine, 1, checkpoint=claimed)).faults == []
    assert (await examine(engine, 1, checkpoint=earlier)).faults == []
    wrong = Checkpoint(origin, earlier.size, claimed.root)
    assert [f.table for f in (await examine(engine, 1, checkpoint=wrong)).faults] == ["head"]

    async with open_house.begin() as conn:
        await conn.execute(text("UPDATE ledger.head SET entity = 'other'"))

    assert await verify(engine, 1) == []
    named = (await examine(engine, 1, checkpoint=claimed)).faults
    assert [(fault.table, fault.key) for fault in named] == [("head", "book 1")]

    async with open_house.begin() as conn:
        await conn.execute(text("UPDATE ledger.head SET book = 2"))
    with pytest.raises(BookNotOpen):
        await verify(engine, 1)


ROWS = sorted(set(TABLES) - {"head"})


async def test_every_kind_of_row_deleted_or_doubled(
    engine: AsyncEngine, open_house: AsyncEngine
) -> None:
    found = await victims(engine)
    unnamed = []
    for name in ROWS:
        where = found[name].where
        for act in (
            f"DELETE FROM ledger.{name} WHERE {where}",
            f"INSERT INTO ledger.{name} SELECT * FROM kept.{name} WHERE {where}",
        ):
            faults = await faults_after(engine, open_house, name, act)
            if not is_named(faults, found[name]):
                unnamed.append((act, [str(fault) for fault in faults[:4]]))
    doubled = await faults_after(
        engine, open_house, "head", "INSERT INTO ledger.head SELECT * FROM kept.head"
    )
    assert unnamed == [], "\n".join(map(str, unnamed))
    assert ("head", "book 1") in {(fault.table, fault.key) for fault in doubled}


async def test_rows_that_changed_places(engine: AsyncEngine, open_house: AsyncEngine) -> None:
    """Two transfers, two entries of one account, two account events, two holds."""
    a, b, f1, f2 = (name_id(name) for name in ("a", "b", "f1", "f2"))
    at_a, at_b = SEQUENCE.format(a), SEQUENCE.format(b)
    swaps = {
        "transfer": (
            f"UPDATE ledger.transfer t SET sequence = o.sequence FROM ledger.transfer o"
            f" WHERE (t.id, o.id) IN (('{a}', '{b}'), ('{b}', '{a}'))"
        ),
        "entry": (
            f"UPDATE ledger.entry e SET sequence = CASE e.sequence WHEN {at_a} THEN {at_b}"
            f" ELSE {at_a} END WHERE sequence IN ({at_a}, {at_b})"
        ),
        "account_event": (
            "UPDATE ledger.account_event SET account = 3 - account"
            " WHERE account IN (1, 2) AND kind = 'opened'"
        ),
        "hold": (
            f"UPDATE ledger.hold t SET id = o.id FROM ledger.hold o WHERE (t.id, o.id) IN"
            f" (('{name_id('h')}', '{name_id('k')}'), ('{name_id('k')}', '{name_id('h')}'))"
        ),
        "balance": "UPDATE ledger.balance SET account = 3 - account WHERE account IN (1, 2)",
        "block": "UPDATE ledger.block SET root = (SELECT root FROM ledger.block WHERE height = 3)"
        " WHERE height = 2",
    }
    for table, act in swaps.items():
        faults = await faults_after(engine, open_house, table, act)
        assert table in {fault.table for fault in faults}, (table, faults)
    ids = f"('{f1}', '{f2}')"
    faults = await faults_after(
        engine,
        open_house,
        "transfer",
        f"UPDATE ledger.transfer SET id = CASE id WHEN '{f1}' THEN '{f2}'::uuid"
        f" ELSE '{f1}'::uuid END WHERE id IN {ids}",
    )
    assert any(f.table == "block" and str(f1) in f.what for f in faults) or is_named(
        faults, Victim("", (("transfer", str(f1)),))
    )
