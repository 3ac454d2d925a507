"""The page of the state machines, the code and PostgreSQL say the same."""

from __future__ import annotations

import re
import string

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.faults.edges import NEW, find_machines
from kernel.states import StateTable, trigger_name, trigger_statements
from tests.docs.machines import (
    STATE_MACHINES,
    documented_arrows,
    documented_tables,
    sections,
    table_text,
)

MACHINES = find_machines()
PAGE = STATE_MACHINES.read_text()

INSTALLED = text(
    """
    SELECT n.nspname || '.' || c.relname AS name, t.tgname AS trigger, t.tgenabled AS enabled,
           pg_get_triggerdef(t.oid) AS definition, p.prosrc AS body
    FROM pg_trigger t
    JOIN pg_class c ON c.oid = t.tgrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE NOT t.tgisinternal AND t.tgname LIKE '%\\_state\\_edges'
    """
)


def test_every_machine_has_a_section_and_every_section_a_machine() -> None:
    """After a change: ``python -m tests.docs.rewrite``."""
    assert len(MACHINES) >= 18
    assert set(documented_tables(PAGE)) == set(MACHINES)


@pytest.mark.parametrize("name", MACHINES)
def test_the_table_of_a_section_is_that_of_the_code(name: str) -> None:
    assert documented_tables(PAGE)[name] == table_text(MACHINES[name])


@pytest.mark.parametrize("name", MACHINES)
def test_the_arrows_of_a_section_are_the_edges_of_the_code(name: str) -> None:
    machine, arrows = MACHINES[name], documented_arrows(sections(PAGE)[name])
    told = [edge for _, edges in arrows for edge in edges]
    edges = {(str(a), str(b)) for a, b in machine.edges}

    assert len(told) == len(set(told))
    assert set(told) == edges | {(NEW, str(state)) for state in machine.initial}


@pytest.mark.parametrize("name", MACHINES)
def test_arrows_are_lettered_in_order(name: str) -> None:
    letters = [letter for letter, _ in documented_arrows(sections(PAGE)[name])]

    assert letters == list(string.ascii_lowercase[: len(letters)])


async def test_every_machine_has_its_trigger_in_postgresql(engine: AsyncEngine) -> None:
    async with engine.connect() as conn:
        rows = (await conn.execute(INSTALLED)).all()

    assert {row.name for row in rows} == set(MACHINES)
    assert len(rows) == len(MACHINES)
    for row in rows:
        machine = MACHINES[row.name]
        assert row.trigger == trigger_name(machine)
        assert _enabled(row.enabled)
        assert "BEFORE INSERT OR UPDATE ON" in row.definition
        assert "FOR EACH ROW EXECUTE FUNCTION" in row.definition
        assert "WHEN" not in row.definition


async def test_the_functions_in_postgresql_are_those_of_the_model(engine: AsyncEngine) -> None:
    async with engine.connect() as conn:
        bodies = {row.name: row.body for row in (await conn.execute(INSTALLED)).all()}

    different = [name for name, m in MACHINES.items() if _plain(bodies[name]) != _plain(_body(m))]
    assert different == []


def _body(machine: StateTable) -> str:
    function, _ = trigger_statements(machine)
    return function.split("$$")[1]


def _plain(body: str) -> str:
    return re.sub(r"\s+", " ", body).strip()


def _enabled(flag: str | bytes) -> bool:
    # PostgreSQL's "char" comes as bytes from asyncpg. O: fires in ordinary sessions.
    return flag in {"O", b"O"}
