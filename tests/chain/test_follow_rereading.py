"""A second reading behind the head: what a lying head left out is included late, once, for good."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local.databases import Database
from chain.errors import NodeUnavailable
from chain.follow import get_following, list_untraced, read_again
from chain.model import (
    Block,
    BlockContents,
    ChainStep,
    FollowPolicy,
    FollowState,
    Included,
    Movement,
    WatchList,
)
from chain.rereading import Contradicted, Missed, compare
from chain.store import load_following, write_following
from chain.testing import ScriptedCall, ScriptedGateway, ScriptedTransaction
from chain.walk import REREAD_FAILURES_MAX
from kernel.db import transact
from tests.chain.books import OURS, STRANGER, TOKEN, WATCH, Books, Crash, make_books, pay, pay_token

AFTER = 4


@dataclass
class Remembering(Books):
    """Remembers the steps that were handed over."""

    steps: list[ChainStep] = field(default_factory=list)

    async def apply(self, conn: AsyncConnection, step: ChainStep) -> None:
        self.steps.append(step)
        await super().apply(conn, step)

    async def reread_to(self) -> int | None:
        """Up to which height no block needs a second reading."""
        row = await transact(self.engine, lambda conn: load_following(conn, "evm"))
        return None if row is None else row.reread

    def late(self) -> list[tuple[int, list[int]]]:
        """Height and amounts of what came late."""
        return [
            (step.contents.block.height, [m.amount for m in step.contents.movements])
            for step in self.steps
            if isinstance(step, Included) and step.late
        ]


@pytest.fixture
async def books(engine: AsyncEngine, database: Database, owner_engine: AsyncEngine) -> Remembering:
    made = await make_books(engine, owner_engine)
    return Remembering(engine, made.gateway, FollowPolicy(reorg_depth_max=8, reread_after=AFTER))


async def clean(books: Books) -> list[BlockContents]:
    """What a node that never lies says of every block."""
    return [await books.gateway.contents(item, WATCH) for item in books.gateway.blocks]


async def test_events_left_out_at_the_head_are_included_late_with_only_what_was_missed(
    books: Remembering,
) -> None:
    # Failure 20 of the catalogue: an answer without events at the head, believed for a while.
    await books.run()
    books.gateway.mine(pay(0, 5), pay_token(1, 7))
    books.gateway.hide_logs = 1
    await books.run()
    assert [m.amount for m in (await books.stored())[1].movements] == [5]

    for _ in range(AFTER):
        books.gateway.mine()
    report = await books.run()

    assert (report.reread, report.completed, report.reread_trouble) == (1, 1, "")
    assert books.late() == [(1, [7])]
    assert await books.stored() == await clean(books)
    assert [event.name for event in await books.events()] == ["BlockCompleted"]
    again = await books.run()
    assert (again.reread, again.completed) == (0, 0)


async def test_every_block_is_read_a_second_time_once(books: Remembering) -> None:
    for _ in range(20):
        books.gateway.mine()
        await books.run()

    report = await books.run()

    assert report.reread == 0
    assert books.late() == []


async def test_a_late_find_goes_away_with_its_block(books: Remembering) -> None:
    await books.run()
    books.gateway.hide_logs = 1
    books.gateway.mine(pay_token(0, 7))
    await books.run()
    for _ in range(AFTER):
        books.gateway.mine()
    await books.run()
    assert books.late() == [(1, [7])]

    books.gateway.reorg(AFTER + 1, [[]] * (AFTER + 1))
    await books.run()

    gone = [step for step in books.steps if not isinstance(step, Included)]
    assert [m.amount for step in gone for m in step.contents.movements] == [7]
    assert await books.stored() == await clean(books)


async def test_after_a_reorganisation_the_new_blocks_are_read_again_too(
    books: Remembering,
) -> None:
    for _ in range(AFTER + 6):
        books.gateway.mine()
    await books.run()
    assert (await books.reread_to()) == 6
    books.gateway.hide_logs = 6
    books.gateway.reorg(6, [[], [], [pay_token(0, 7)], [], [], []])
    await books.run()
    # Those below the payment had enough on top of them when they were read anew.
    assert (await books.reread_to()) == 6

    books.gateway.mine()
    await books.run()

    assert books.late() == [(7, [7])]

    assert await books.stored() == await clean(books)


async def test_a_branch_that_ends_lower_is_read_again_from_where_it_began(
    books: Remembering,
) -> None:
    for _ in range(AFTER + 6):
        books.gateway.mine()
    await books.run()
    books.gateway.reorg(6, [[]] * 6)
    assert (await books.run(6)).orphaned == 6
    # Half-way the node goes back to a shorter branch, whose first block is the newest of all.
    books.gateway.rollback(6)
    books.gateway.mine(pay_token(0, 7))
    books.gateway.hide_logs = 1
    await books.run()

    for _ in range(AFTER):
        books.gateway.mine()
    await books.run()

    assert books.late() == [(5, [7])]


async def test_a_payment_that_is_not_there_any_more_halts_the_chain_once(
    books: Remembering,
) -> None:
    await books.run()
    books.gateway.mine(pay_token(0, 7))
    await books.run()
    for _ in range(AFTER - 1):
        books.gateway.mine()
    await books.run()
    books.gateway.mine()
    # The first reading saw the event; the second one does not: one of the two was a lie.
    books.gateway.hide_logs = 100

    report = await books.run()

    assert report.state is FollowState.HALTED
    assert "was read twice and differs" in report.reason

    await transact(
        books.engine, lambda conn: write_following(conn, "evm", FollowState.RUNNING, "", 0)
    )
    for _ in range(2):
        books.gateway.mine()
        resumed = await books.run()
        assert (resumed.state, resumed.caught_up) == (FollowState.RUNNING, True)


@dataclass
class Stubborn(ScriptedGateway):
    """Does not read some block a second time."""

    once: set[str] = field(default_factory=set)

    async def contents(self, block: Block, watch: WatchList) -> BlockContents:
        if block.hash in self.once:
            raise NodeUnavailable("not again")
        self.once.add(block.hash)
        return await ScriptedGateway.contents(self, block, watch)


async def test_trouble_with_the_second_reading_does_not_stop_the_first(
    books: Remembering,
) -> None:
    books.gateway = Stubborn()
    for _ in range(10):
        books.gateway.mine()
        await books.run()

    report = await books.run()

    assert (report.caught_up, report.reread, report.reread_trouble) == (True, 0, "not again")


async def test_a_second_reading_that_never_gets_further_is_told_once_and_shown(
    books: Remembering,
) -> None:
    books.gateway = Stubborn()
    for _ in range(AFTER + 1):
        books.gateway.mine()
    for _ in range(REREAD_FAILURES_MAX + 5):
        books.gateway.mine()
        await books.run()

    told = [event for event in await books.events() if event.name == "RereadingFails"]
    stands = await transact(books.engine, lambda conn: get_following(conn, "evm"))
    assert [event.reason for event in told] == ["not again"]
    assert stands.reread_failures >= REREAD_FAILURES_MAX
    assert (stands.state, stands.reread_trouble) == (FollowState.RUNNING, "not again")
    assert told[0].payload is not None
    assert told[0].payload["height"] == (stands.reread or 0) + 1

    books.gateway.once.clear()
    await books.run()
    stands = await transact(books.engine, lambda conn: get_following(conn, "evm"))
    assert (stands.reread_failures, stands.reread_trouble) == (0, "")


async def test_a_crash_while_completing_a_block_completes_it_once(books: Remembering) -> None:
    await books.run()
    books.gateway.hide_logs = 1
    books.gateway.mine(pay_token(0, 7))
    await books.run()
    for _ in range(AFTER):
        books.gateway.mine()
    books.crash_at = {books.calls + AFTER + 1}
    with pytest.raises(Crash):
        await books.run()
    books.crash_at = set()

    await books.run()

    assert await books.stored() == await clean(books)
    assert [event.name for event in await books.events()] == ["BlockCompleted"]


async def test_blocks_read_without_traces_are_named_and_completed_when_they_are_traced(
    books: Remembering,
) -> None:
    passed_on = ScriptedCall(STRANGER, OURS, 9)
    books.gateway.mine()
    books.gateway.mine(ScriptedTransaction(sender=STRANGER, recipient=TOKEN, calls=(passed_on,)))
    await books.run()

    async def untraced() -> list[int]:
        found = await transact(
            books.engine, lambda conn: list_untraced(conn, "evm", first=0, last=99)
        )
        return [item.height for item in found]

    assert await untraced() == [0, 1, 2]
    books.gateway.traces = True
    for _ in range(AFTER):
        books.gateway.mine()
    await books.run()

    assert books.late() == [(2, [9])]
    assert await untraced() == [0, 1]


def contents(*amounts: int, traced: bool = False) -> BlockContents:
    at = ScriptedGateway().blocks[0]
    moves = tuple(Movement(f"0x{n}", "log:0", STRANGER, OURS, TOKEN, n) for n in amounts)
    return BlockContents(at, moves, traced=traced)


def test_only_what_was_asked_for_again_can_be_missing_from_a_second_reading() -> None:
    one, none = contents(1), contents()

    assert isinstance(compare(one, none, WATCH), Contradicted)
    assert compare(one, none, replace(WATCH, contracts=frozenset())) == Missed(none)
    assert compare(one, none, replace(WATCH, addresses=frozenset())) == Missed(none)
    assert compare(one, contents(1, 2), WATCH) == Missed(contents(2))
    changed = replace(one, movements=(replace(one.movements[0], amount=3),))
    assert isinstance(compare(one, changed, WATCH), Contradicted)


def test_a_second_reading_without_traces_says_nothing_against_traced_value() -> None:
    traced = replace(
        contents(1, traced=True),
        movements=(Movement("0x1", "trace:0", STRANGER, OURS, None, 1),),
    )

    assert isinstance(compare(traced, contents(traced=True), WATCH), Contradicted)
    assert compare(traced, contents(), WATCH) == Missed(contents())


async def test_what_nobody_looked_for_is_found_when_blocks_are_read_again(
    books: Remembering,
) -> None:
    books.watch_list = WatchList(frozenset(), frozenset())
    await books.run()
    books.gateway.mine(pay(0, 5))
    books.gateway.mine(pay(1, 7))
    for _ in range(2 * AFTER):
        books.gateway.mine()
        await books.run()
    since = books.gateway.blocks[2].time
    books.watch_list = WATCH
    assert (await books.run()).reread == 0

    first = await transact(books.engine, lambda conn: read_again(conn, "evm", since=since))
    report = await books.run()

    assert (first, report.completed) == (2, 1)
    assert books.late() == [(2, [7])]
    # Once more there is nothing to be found.
    await transact(books.engine, lambda conn: read_again(conn, "evm", since=since))
    assert (await books.run()).completed == 0
    # The first block of all stays below what is read.
    first = await transact(
        books.engine, lambda conn: read_again(conn, "evm", since=since - timedelta(days=9))
    )
    assert first == 1
    await books.run()
    assert books.late() == [(2, [7]), (1, [5])]


@dataclass
class Interrupted(ScriptedGateway):
    """While it is asked for a block a second time, the chain is to be read again."""

    once: set[str] = field(default_factory=set)
    between: Callable[[], Awaitable[object]] | None = None

    async def contents(self, block: Block, watch: WatchList) -> BlockContents:
        found = await ScriptedGateway.contents(self, block, watch)
        if block.hash in self.once and self.between is not None:
            between, self.between = self.between, None
            await between()
        self.once.add(block.hash)
        return found


async def test_a_second_reading_that_goes_on_meanwhile_does_not_count_for_the_blocks_to_be_read_again(
    books: Remembering,
) -> None:
    books.gateway = Interrupted()
    books.watch_list = WatchList(frozenset(), frozenset())
    for _ in range(2 * AFTER):
        books.gateway.mine()
        await books.run()
    paid = books.gateway.mine(pay(0, 5))
    for _ in range(AFTER - 1):
        books.gateway.mine()
        await books.run()
    assert (await books.reread_to()) == paid.height - 1

    async def set_back() -> None:
        books.watch_list = WATCH
        await transact(books.engine, lambda conn: read_again(conn, "evm", since=paid.time))

    books.gateway.mine()
    books.gateway.between = set_back
    await books.run()
    assert books.gateway.between is None
    await books.run()

    assert books.late() == [(paid.height, [5])]
