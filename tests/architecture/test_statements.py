"""The choice of tests for the second PostgreSQL: nothing that the suite sends is left out."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from app.local.databases import Database
from kernel.db import create_engine, driver
from tests.conftest import IDLE_MS
from tests.statements import WAYS, Recorder, Sent, choose, is_about_the_server, listen, normal

SENT = st.builds(
    Sent,
    test=st.sampled_from([f"tests/{name}.py::test" for name in ("a", "b", "c", "kernel/d", "e")]),
    seconds=st.floats(0, 10),
    statements=st.lists(st.sampled_from("uvwxyz"), unique=True).map(tuple),
)


@given(st.lists(SENT, unique_by=lambda item: item.test))
def test_what_is_chosen_sends_every_statement_and_has_all_tests_about_the_server(
    record: list[Sent],
) -> None:
    chosen = choose(record)

    kept = [item for item in record if item.test in chosen]
    assert {s for item in kept for s in item.statements} == {
        s for item in record for s in item.statements
    }
    assert {item.test for item in record if is_about_the_server(item.test)} <= set(chosen)
    assert len(set(chosen)) == len(chosen)


def test_of_two_that_send_the_same_the_quicker_is_chosen_whatever_their_order() -> None:
    record = [
        Sent("tests/custody/test_slow.py::test", 9.0, ("a", "b")),
        Sent("tests/custody/test_quick.py::test", 0.5, ("a", "b")),
        Sent("tests/custody/test_other.py::test", 3.0, ("c",)),
    ]

    for known in (record, record[::-1]):
        assert choose(known) == [
            "tests/custody/test_other.py::test",
            "tests/custody/test_quick.py::test",
        ]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("SELECT 1", "SELECT\n  22", True),
        ("a IN ($1::UUID, $2::UUID)", "a IN ($1::UUID, $2::UUID, $3::UUID)", True),
        ("VALUES ($1, $2), ($3, $4)", "VALUES ($1, $2), ($3, $4), ($5, $6)", True),
        ("DROP DATABASE causeway_0a1b2c3d4e5f", "DROP DATABASE causeway_ffffffffffff", True),
        ("SELECT a FROM t", "SELECT b FROM t", False),
        ("a = $1::UUID", "a = $1::TEXT", False),
    ],
)
def test_numbers_names_and_lengths_make_no_other_statement(
    one: str, other: str, *, same: bool
) -> None:
    assert (normal(one) == normal(other)) is same


async def test_every_way_to_the_server_is_heard(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    heard: list[str] = []
    recorder = Recorder(tmp_path / "record.jsonl")
    monkeypatch.setattr(recorder, "saw", heard.append)
    for name in WAYS:
        monkeypatch.setattr(asyncpg.Connection, name, getattr(asyncpg.Connection, name))
    listen(recorder)
    engine = create_engine(database.owner_url, idle_in_transaction_timeout_ms=IDLE_MS)
    async with engine.begin() as conn:
        await conn.execute(text("SELECT 11"))
        async with driver(conn) as raw:
            await raw.execute("CREATE TEMP TABLE heard (n int)")
            await raw.fetchval("SELECT 22")
            await raw.executemany("INSERT INTO heard VALUES ($1)", [(33,)])
            await raw.copy_records_to_table("heard", records=[(44,)])
            await raw.copy_from_query("SELECT 55", output=tmp_path / "copied")
    await engine.dispose()

    told = " ".join(heard)
    for part in ("SELECT 11", "CREATE TEMP", "SELECT 22", "INSERT INTO", "COPY", "SELECT 55"):
        assert part in told
