"""Catching up below finality: runs of blocks, few statements, and the books of a slow walk."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database
from chain.errors import IncompleteAnswer, RangeTooLarge
from chain.model import Block, BlockContents, FollowPolicy, Movement, WatchList
from chain.runs import FAST_S, RUN_MAX, SLOW_S, next_length, shorter, transactions
from chain.scripted import GENESIS_TIME
from chain.testing import FINALITY_LAG, ScriptedGateway
from tests.chain.books import Books, Crash, make_books, pay, pay_token


@dataclass
class Counting(ScriptedGateway):
    """Counts the questions that are asked for each block."""

    ranges: list[int] = field(default_factory=list)
    singles: int = 0

    async def contents_of_range(
        self, first: Block, last: Block, watch: WatchList
    ) -> list[BlockContents]:
        found = await super().contents_of_range(first, last, watch)
        self.ranges.append(len(found))
        return found

    async def contents(self, block: Block, watch: WatchList) -> BlockContents:
        self.singles += 1
        return await super().contents(block, watch)


@pytest.fixture
async def books(engine: AsyncEngine, database: Database, owner_engine: AsyncEngine) -> Books:
    made = await make_books(engine, owner_engine)
    made.gateway = Counting()
    return made


def counting(books: Books) -> Counting:
    assert isinstance(books.gateway, Counting)
    return books.gateway


async def test_what_is_final_is_read_in_runs_and_the_rest_block_by_block(books: Books) -> None:
    for height in range(400):
        books.gateway.mine(*([pay(height)] if height % 100 == 7 else []))

    report = await books.run()

    assert (report.included, report.caught_up) == (401, True)
    assert counting(books).ranges[:2] == [128, 400 - FINALITY_LAG - 128]
    assert counting(books).singles == 1 + FINALITY_LAG
    stored = await books.stored()
    assert [item.block for item in stored] == books.gateway.blocks
    paid = [item.block.height for item in stored if item.movements]
    assert paid == [8, 108, 208, 308]
    # Only blocks that hold something are handed over while they are final, every one afterwards.
    final = 400 - FINALITY_LAG
    log = [height for _, height in await books.log()]
    assert log == [0, 8, 108, 208, 308, *range(final + 1, 401)]


async def test_a_run_ends_where_the_caller_wants_no_more_steps(books: Books) -> None:
    for _ in range(300):
        books.gateway.mine()

    report = await books.run(100)
    assert (report.included, report.caught_up) == (100, False)
    report = await books.run()

    assert (report.included, report.caught_up) == (201, True)
    assert [item.block for item in await books.stored()] == books.gateway.blocks


async def test_a_run_the_node_finds_too_long_is_halved_until_it_is_not(books: Books) -> None:
    books.gateway.range_max = 20
    for _ in range(200):
        books.gateway.mine(pay_token(0))

    report = await books.run()

    assert report.caught_up
    assert max(counting(books).ranges) == 16
    assert len(await books.stored()) == 201


async def test_a_node_that_reads_no_ranges_is_read_block_by_block(books: Books) -> None:
    books.gateway.range_max = 0
    for _ in range(120):
        books.gateway.mine()

    report = await books.run()

    assert report.caught_up
    assert counting(books).ranges == []
    assert counting(books).singles == 121


async def test_a_crash_in_a_run_replays_it_to_the_same_books(books: Books) -> None:
    for height in range(200):
        books.gateway.mine(*([pay(height)] if height % 10 == 0 else []))
    books.crash_at = {4}

    with pytest.raises(Crash):
        await books.run()
    books.crash_at = set()
    report = await books.run()

    assert report.caught_up
    log = await books.log()
    assert len(log) == len(set(log))
    assert [item.block for item in await books.stored()] == books.gateway.blocks


class Unlinked(Counting):
    """Leaves a block out of a range."""

    async def contents_of_range(
        self, first: Block, last: Block, watch: WatchList
    ) -> list[BlockContents]:
        found = await super().contents_of_range(first, last, watch)
        return [*found[:3], *found[4:]]


async def test_a_range_with_a_hole_is_refused(books: Books) -> None:
    books.gateway = Unlinked()
    for _ in range(120):
        books.gateway.mine()

    with pytest.raises(IncompleteAnswer):
        await books.run()

    assert [item.block.height for item in await books.stored()] == [0]


async def test_what_was_deep_when_it_was_read_needs_no_second_reading(books: Books) -> None:
    books.policy = FollowPolicy(reread_after=4)
    for _ in range(200):
        books.gateway.mine()
    assert (await books.run()).reread == 0

    for _ in range(4):
        books.gateway.mine()

    # The four that were the newest; those below had four on top of them already.
    assert (await books.run()).reread == 4


class TooLarge(ScriptedGateway):
    """Answers for ranges, but says only afterwards that they are too long."""

    async def contents_of_range(
        self, first: Block, last: Block, watch: WatchList
    ) -> list[BlockContents]:
        raise RangeTooLarge("always")


async def test_a_node_that_refuses_even_one_block_as_a_range_does_not_stop_the_chain(
    books: Books,
) -> None:
    books.gateway = TooLarge()
    for _ in range(100):
        books.gateway.mine()

    assert (await books.run()).caught_up


def block(height: int) -> Block:
    return Block("evm", height, f"0x{height:064x}", f"0x{height + 1_000:064x}", GENESIS_TIME)


@given(st.lists(st.booleans(), max_size=40))
def test_no_two_blocks_that_hold_something_share_a_transaction(full: list[bool]) -> None:
    move = Movement("0x", "top", "a", "b", None, 1)
    run = [BlockContents(block(at), (move,) if held else ()) for at, held in enumerate(full)]

    pieces = list(transactions(run))

    assert [item for piece in pieces for item in piece] == run
    for piece in pieces:
        assert not any(item.movements for item in piece[:-1])


def test_a_fast_run_grows_a_slow_one_shrinks_and_both_have_ends() -> None:
    assert next_length(128, FAST_S / 2) == 256
    assert next_length(128, (FAST_S + SLOW_S) / 2) == 128
    assert next_length(128, SLOW_S + 1) == 64
    assert next_length(RUN_MAX, 0.1) == RUN_MAX
    assert next_length(1, SLOW_S + 1) == shorter(1) == 1
