"""What the database itself refuses, and that it says the same as the model."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local.migrate import load_tables
from kernel.db import constraint_name, metadata, sqlstate
from kernel.states import StateTable, trigger_name, trigger_statements
from registry.testing import USDT
from settlement.model import INSTRUCTION_STATES, OBLIGATION_STATES, RUN_STATES
from settlement.tables import SCHEMA
from tests.settlement.desk import ACME_WALLET, Desk

MACHINES = [OBLIGATION_STATES, RUN_STATES, INSTRUCTION_STATES]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.table)
async def test_the_state_triggers_say_what_the_model_says(
    owner_engine: AsyncEngine, machine: StateTable
) -> None:
    function, _ = trigger_statements(machine)
    body = function.split("$$")[1]
    async with owner_engine.connect() as conn:
        name = trigger_name(machine)
        source = await conn.scalar(
            text("SELECT prosrc FROM pg_proc WHERE oid = to_regprocedure(:name)"),
            {"name": f"{machine.schema}.{name}()"},
        )
        trigger = await conn.scalar(
            text(
                "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = :name"
                " AND tgrelid = to_regclass(:table)"
            ),
            {"name": name, "table": f"{machine.schema}.{machine.table}"},
        )
    assert source == body
    assert trigger is not None
    assert "BEFORE INSERT OR UPDATE" in trigger


async def test_the_migration_makes_the_tables_of_the_model(owner_engine: AsyncEngine) -> None:
    load_tables()

    def differences(conn: Connection) -> list[object]:
        context = MigrationContext.configure(
            conn,
            opts={
                "include_schemas": True,
                "include_name": lambda name, kind, _: kind != "schema" or name == SCHEMA,
                "compare_type": True,
                "compare_server_default": True,
            },
        )
        ours = {t.name for t in metadata.sorted_tables if t.schema == SCHEMA}
        assert ours >= {"cycle", "run", "window_policy", "statement", "obligation", "instruction"}
        found = compare_metadata(context, metadata)
        return [item for item in found if f"schema='{SCHEMA}'" in str(item)]

    async with owner_engine.connect() as conn:
        assert await conn.run_sync(differences) == []


async def paid(desk: Desk) -> None:
    """A run with every kind of row."""
    await desk.agree("acme")
    await desk.instruct("acme", "ETH", ACME_WALLET)
    await desk.deal("sold")
    await desk.released()
    await desk.receive(USDT.parse("300"))
    await desk.match()


@pytest.mark.parametrize(
    ("story", "statement", "refused"),
    [
        ("a calculation", "UPDATE settlement.calculation SET method = 'x'", "42501"),
        ("an affirmation", "UPDATE settlement.affirmation SET party = 'x'", "42501"),
        ("a match", "UPDATE settlement.receipt_match SET applied = 1", "42501"),
        ("an obligation that is owed", "DELETE FROM settlement.obligation", "42501"),
        ("a run", "DELETE FROM settlement.run", "42501"),
        (
            "final without its amount",
            "UPDATE settlement.instruction SET state = 'final' WHERE direction = 'receive'",
            "ck_instruction_final_in_full",
        ),
        (
            "more than is owed",
            "UPDATE settlement.instruction SET applied = amount + 1",
            "ck_instruction_applied",
        ),
        (
            "less than nothing",
            "UPDATE settlement.instruction SET applied = -1",
            "ck_instruction_applied",
        ),
        (
            "a direction",
            "UPDATE settlement.instruction SET direction = 'both'",
            "ck_instruction_direction",
        ),
        ("a rail", "UPDATE settlement.instruction SET rail = 'pigeon'", "ck_instruction_rail"),
        (
            "an edge of an instruction",
            "UPDATE settlement.instruction SET state = 'final', applied = amount WHERE direction = 'pay'",
            "instruction_state_edges",
        ),
        ("an edge of a run", "UPDATE settlement.run SET state = 'calculated'", "run_state_edges"),
        (
            "an edge of an obligation",
            "UPDATE settlement.obligation SET state = 'open'",
            "obligation_state_edges",
        ),
        (
            "a second run of the window",
            "INSERT INTO settlement.run SELECT gen_random_uuid(), book, value_date, \"window\", 'calculated', 1, created_at, party, netting_set FROM settlement.run",
            "uq_run_book_value_date_window_party_netting_set",
        ),
        (
            "an obligation twice",
            "INSERT INTO settlement.obligation (id, book, deal_id, leg, party, asset, amount, direction, value_date, state, created_at) SELECT gen_random_uuid(), book, deal_id, leg, party, asset, amount, direction, value_date, 'open', created_at FROM settlement.obligation",
            "uq_obligation_deal_id_leg",
        ),
        (
            "a receipt matched twice",
            "INSERT INTO settlement.receipt_match (receipt_id, epoch, instruction_id, applied, excess, first_seen_at, at, id, round, rail, charge, rule, rules_version, by, reason) SELECT receipt_id, epoch, instruction_id, applied, excess, first_seen_at, at, gen_random_uuid(), round + 1, rail, charge, rule, rules_version, by, reason FROM settlement.receipt_match",
            "uq_receipt_match_standing",
        ),
        (
            "nothing applied",
            "INSERT INTO settlement.receipt_match (receipt_id, epoch, instruction_id, applied, excess, first_seen_at, at, id, round, rail, charge, rule, rules_version, by, reason) SELECT gen_random_uuid(), epoch, instruction_id, 0, excess, first_seen_at, at, gen_random_uuid(), round, rail, charge, rule, rules_version, by, reason FROM settlement.receipt_match",
            "ck_receipt_match_amounts",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value and len(value) < 40 else "",
)
async def test_the_database_refuses(desk: Desk, story: str, statement: str, refused: str) -> None:
    await paid(desk)

    async def work(conn: AsyncConnection) -> None:
        await conn.execute(text(statement))

    with pytest.raises(DBAPIError) as caught:
        await desk.do(work)
    assert refused in {sqlstate(caught.value), constraint_name(caught.value)}
