"""What the runtime role may not do to payouts, whatever a program or a person at a prompt tries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from custody.payout_tables import payout
from kernel.db import constraint_name, metadata, sqlstate
from tests.custody.payout_world import World, make_world

DENIED = "42501"
CHECKED = "23514"
OTHERS = {
    *("allowed_destination", "foreign_spend", "freeze", "approval_statement", "receivable_due"),
}
TABLES = sorted(
    table.fullname
    for table in metadata.tables.values()
    if table.schema == payout.schema and (table.name.startswith("payout") or table.name in OTHERS)
)
FIXED = {
    "custody.payout": (
        *("id", "book", "client_ref", "claim", "rail", "chain", "chain_id", "source_wallet"),
        *("sender", "sender_path", "asset", "amount", "contract", "chain_amount", "native_asset"),
        *("destination", "requested_by", "reason", "policy_version", "approvals_required"),
        *("created_at", "expires_at", "rule", "required", "party", "destination_id"),
        "requested_expiry",
    ),
    "custody.payout_attempt": (
        *("id", "payout_id", "number", "chain", "sender", "nonce", "unsigned", "gas_limit"),
        *("max_fee_per_gas", "max_priority_fee_per_gas", "built_at"),
    ),
    "custody.payout_approval": ("payout_id", "operator", "statement_id", "at"),
    "custody.approval_statement": ("id", "operator", "signature", "lines", "at"),
    "custody.payout_decision": (
        *("payout_id", "book", "decided_at", "policy_version", "rule", "action", "required"),
        *("reason", "facts"),
    ),
    "custody.freeze": (
        *("id", "kind", "name", "closed_by", "closed_signature", "closed_reason", "closed_at"),
    ),
    "custody.receivable_due": ("book", "reference", "party", "asset", "amount", "due_at"),
    "custody.payout_nonce": ("chain", "sender", "nonce"),
    "custody.payout_sender": ("chain", "address", "wallet"),
    "custody.payout_policy": (
        "version",
        "document",
        "proposed_by",
        "proposed_at",
        "proposal_signature",
    ),
    "custody.allowed_destination": (
        *("id", "party", "chain", "address", "label", "proposed_by", "proposed_at"),
        *("cooling_off_s", "chain_id", "kind", "look", "acknowledged", "proposal_signature"),
    ),
    "custody.foreign_spend": ("id", "chain", "tx_hash", "sender", "nonce", "seen_at"),
}


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(engine, tmp_path) as made:
        yield made


async def refusal(engine: AsyncEngine, statement: str) -> str | None:
    async with engine.connect() as conn:
        with pytest.raises(DBAPIError) as caught:
            await conn.execute(text(statement))
    return sqlstate(caught.value)


def test_every_table_of_payouts_is_looked_at() -> None:
    assert sorted(FIXED) == TABLES


@pytest.mark.parametrize("table", TABLES)
async def test_no_row_is_deleted_and_what_was_asked_or_said_is_not_rewritten(
    engine: AsyncEngine, table: str
) -> None:
    change = "UPDATE <table> SET <column> = <column>"
    acts = ["DELETE FROM <table>", "TRUNCATE <table>"]
    acts += [change.replace("<column>", column) for column in FIXED[table]]
    statements = [act.replace("<table>", table) for act in acts]

    assert {statement: await refusal(engine, statement) for statement in statements} == (
        dict.fromkeys(statements, DENIED)
    )


async def test_signed_bytes_never_become_others(world: World) -> None:
    await world.approved()
    await world.advance()

    for statement in (
        "UPDATE custody.payout_attempt SET raw = '\\x00'",
        "UPDATE custody.payout_attempt SET raw = NULL, state = 'superseded'",
        "UPDATE custody.payout_attempt SET tx_hash = '0x00'",
    ):
        assert await refusal(world.engine, statement) == CHECKED, statement


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE custody.allowed_destination SET state = 'active'",
        (
            "UPDATE custody.allowed_destination SET state = 'active', approved_by = proposed_by,"
            " signature = '\\x00', usable_from = proposed_at"
        ),
        (
            "UPDATE custody.allowed_destination SET state = 'active', approved_by = 'ben',"
            " usable_from = proposed_at"
        ),
    ],
)
async def test_a_destination_is_not_allowed_without_a_second_signature(
    engine: AsyncEngine, statement: str
) -> None:
    async with engine.connect() as conn:
        await conn.execute(
            text(
                "INSERT INTO custody.allowed_destination (id, party, chain, address, label, state,"
                " proposed_by, proposed_at, cooling_off_s, chain_id, kind, look, acknowledged,"
                " proposal_signature) VALUES (gen_random_uuid(), 'acme', 'evm', '0x', '',"
                " 'proposed', 'ada', now(), 0, 1, 'eoa', '', '[]', 'x')"
            )
        )
        with pytest.raises(DBAPIError) as caught:
            await conn.execute(text(statement))
    assert (constraint_name(caught.value) or "").startswith("ck_allowed_destination_")


async def test_a_policy_is_not_in_force_without_a_second_signature(engine: AsyncEngine) -> None:
    async with engine.connect() as conn:
        await conn.execute(
            text(
                "INSERT INTO custody.payout_policy (version, document, state, proposed_by,"
                " proposed_at, proposal_signature) VALUES (7, '{}', 'proposed', 'ada', now(), 'x')"
            )
        )
        with pytest.raises(DBAPIError) as caught:
            await conn.execute(text("UPDATE custody.payout_policy SET state = 'active'"))
    assert constraint_name(caught.value) == "ck_payout_policy_approved_by_somebody"
