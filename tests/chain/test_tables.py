"""The chain schema keeps its promises without the help of Python."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.model import BLOCK_STATES, FOLLOW_STATES
from chain.tables import block, following, movement
from kernel.ids import derive_id
from kernel.states import StateTable, trigger_name, trigger_statements

NOW = datetime(2026, 1, 5, tzinfo=UTC)
A = "0x" + "aa" * 32
B = "0x" + "bb" * 32
ROW = {
    "chain": "evm",
    "hash": A,
    "height": 1,
    "parent": B,
    "time": NOW,
    "state": "canonical",
    "inclusion": 1,
    "traced": False,
}


@pytest.mark.parametrize("machine", [BLOCK_STATES, FOLLOW_STATES], ids=lambda m: m.table)
async def test_the_state_triggers_are_those_of_the_model(
    owner_engine: AsyncEngine, machine: StateTable
) -> None:
    function, _ = trigger_statements(machine)
    async with owner_engine.connect() as conn:
        source = await conn.scalar(
            text(
                "SELECT prosrc FROM pg_proc WHERE proname = :n AND pronamespace = 'chain'::regnamespace"
            ),
            {"n": trigger_name(machine)},
        )

    assert source == function.split("$$")[1]


async def test_one_block_of_a_height_is_canonical(engine: AsyncEngine) -> None:
    async with engine.begin() as conn:
        await conn.execute(insert(block).values(ROW))
        await conn.execute(update(block).values(state="orphaned"))
        await conn.execute(insert(block).values({**ROW, "hash": "0x" + "cc" * 32}))

    with pytest.raises(DBAPIError, match="uq_block_canonical_height"):
        async with engine.begin() as conn:
            await conn.execute(update(block).where(block.c.hash == A).values(state="canonical"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"state": "orphaned"}, "cannot begin as"),
        ({"state": "lost"}, "cannot begin as"),
        ({"height": -1}, "ck_block_height"),
        ({"parent": A}, "ck_block_parent"),
    ],
)
async def test_blocks_that_cannot_be_are_refused(
    engine: AsyncEngine, change: dict[str, object], complaint: str
) -> None:
    with pytest.raises(DBAPIError, match=complaint):
        async with engine.begin() as conn:
            await conn.execute(insert(block).values({**ROW, **change}))


async def test_a_chain_cannot_begin_halted(engine: AsyncEngine) -> None:
    with pytest.raises(DBAPIError, match="cannot begin as halted"):
        async with engine.begin() as conn:
            await conn.execute(
                insert(following).values(
                    chain="evm", id=derive_id(NOW, "x"), state="halted", reason=""
                )
            )


async def test_a_movement_of_nothing_is_refused(engine: AsyncEngine) -> None:
    row = {
        "chain": "evm",
        "block_hash": A,
        "inclusion": 1,
        "ordinal": 0,
        "tx_hash": B,
        "position": "top",
        "sender": "a",
        "recipient": "b",
        "contract": None,
        "amount": 0,
    }
    async with engine.begin() as conn:
        await conn.execute(insert(block).values(ROW))

    with pytest.raises(DBAPIError, match="ck_movement_amount"):
        async with engine.begin() as conn:
            await conn.execute(insert(movement).values(row))
