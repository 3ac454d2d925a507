"""Following a scripted chain into real PostgreSQL; `apply` keeps a log in the same transaction."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local.databases import Database
from chain.errors import BlockGone, ChainHalted, CursorMoved, IncompleteAnswer, NodeUnavailable
from chain.follow import (
    confirmations,
    follow,
    get_block,
    get_following,
    is_canonical,
    require_running,
)
from chain.halts import halt, resume, resume_request
from chain.model import (
    Block,
    BlockContents,
    ChainStep,
    FollowPolicy,
    FollowState,
    WatchList,
)
from chain.testing import ScriptedGateway, ScriptedTransaction
from kernel.db import transact
from kernel.errors import Refused
from registry.changes import found
from registry.errors import NotAuthorised
from registry.testing import demo_founding, operator_keypair
from tests.chain.books import (
    NOW,
    WATCH,
    Books,
    Crash,
    make_books,
    pay,
    pay_token,
)


@pytest.fixture
async def books(engine: AsyncEngine, database: Database, owner_engine: AsyncEngine) -> Books:
    return await make_books(engine, owner_engine)


async def enrol(books: Books) -> None:
    """Let ada, ben, cleo and dan be operators."""
    await transact(books.engine, lambda conn: found(conn, demo_founding(), now=NOW))


async def signed(conn: AsyncConnection, *people: str, reason: str, depth: int) -> dict[str, bytes]:
    """Return the people's signatures of what would resume the chain now."""
    request = await resume_request(conn, "evm", reason=reason, depth=depth)
    return {code: operator_keypair(code).sign(request.payload()) for code in people}


async def test_every_block_is_included_once_in_order_and_the_cursor_is_the_head(
    books: Books,
) -> None:
    books.gateway.mine(pay(0), pay_token(1))
    books.gateway.mine()

    report = await books.run()

    assert await books.log() == [("+", 0), ("+", 1), ("+", 2)]
    assert (report.included, report.orphaned, report.caught_up) == (3, 0, True)
    assert report.cursor == await books.cursor() == books.gateway.blocks[-1]
    assert [m.position for m in (await books.stored())[1].movements] == ["top", "log:0"]
    assert (await books.run()).included == 0


async def test_following_begins_at_the_height_given(books: Books) -> None:
    for _ in range(5):
        books.gateway.mine()
    books.policy = FollowPolicy(start_height=3)

    await books.run()

    assert await books.log() == [("+", 2), ("+", 3), ("+", 4), ("+", 5)]


async def test_of_the_block_below_the_first_nothing_counts(books: Books) -> None:
    for nonce in range(3):
        books.gateway.mine(pay(nonce))
    books.policy = FollowPolicy(start_height=2)

    await books.run()

    stored = await books.stored()
    assert [(c.block.height, len(c.movements)) for c in stored] == [(1, 0), (2, 1), (3, 1)]


async def test_the_first_block_may_be_replaced(books: Books) -> None:
    books.gateway.mine()
    books.gateway.mine(pay(0))
    books.policy = FollowPolicy(start_height=2)
    await books.run()

    books.gateway.reorg(1, [[], [pay(0)]])
    report = await books.run()

    assert (report.state, report.orphaned, report.caught_up) == (FollowState.RUNNING, 1, True)
    assert [len(contents.movements) for contents in await books.stored()] == [0, 0, 1]


async def test_below_what_was_read_nothing_is_known_and_the_chain_halts(books: Books) -> None:
    for _ in range(2):
        books.gateway.mine()
    books.policy = FollowPolicy(start_height=2)
    await books.run()

    books.gateway.reorg(2, [[], [], []])
    report = await books.run()

    assert (report.state, report.orphaned) == (FollowState.HALTED, 0)
    assert "below height 1, the first block that was read" in report.reason


async def test_a_start_height_that_is_not_mined_yet_is_waited_for(books: Books) -> None:
    books.policy = FollowPolicy(start_height=2)
    report = await books.run()

    assert (report.included, report.cursor, report.caught_up) == (0, None, False)

    books.gateway.mine()
    books.gateway.mine()
    assert (await books.run()).included == 2


async def test_no_more_steps_are_taken_than_asked_for(books: Books) -> None:
    for _ in range(5):
        books.gateway.mine()

    first = await books.run(blocks_max=4)
    second = await books.run(blocks_max=4)

    assert (first.included, first.caught_up) == (4, False)
    assert (second.included, second.caught_up) == (2, True)


async def test_a_reorganisation_orphans_from_the_tip_down_and_includes_the_other_branch(
    books: Books,
) -> None:
    for nonce in range(4):
        books.gateway.mine(pay(nonce))
    await books.run()
    books.gateway.reorg(2, [[pay(2)], [], [pay(3)]])

    report = await books.run()

    assert (await books.log())[5:] == [("-", 4), ("-", 3), ("+", 3), ("+", 4), ("+", 5)]
    assert (report.orphaned, report.included) == (2, 3)
    assert [c.block for c in await books.stored()] == books.gateway.blocks


async def test_a_branch_of_the_same_height_is_noticed(books: Books) -> None:
    books.gateway.mine(pay(0))
    await books.run()
    books.gateway.reorg(1, [[]])

    await books.run()

    assert (await books.log())[2:] == [("-", 1), ("+", 1)]


async def test_a_payment_mined_again_elsewhere_keeps_its_identity(books: Books) -> None:
    payment = pay_token(3)
    books.gateway.mine(payment)
    await books.run()
    before = (await books.stored())[1].movements
    books.gateway.reorg(1, [[pay(0), pay_token(1)], [payment]])
    await books.run()

    after = (await books.stored())[2].movements

    assert before == after


async def test_a_block_that_comes_back_is_included_again_with_what_counts_now(
    books: Books,
) -> None:
    gateway = books.gateway
    books.watch_list = WatchList(frozenset(), frozenset())
    gateway.mine(pay(0))
    await books.run()
    kept = gateway._branch.copy()
    gateway.reorg(1, [[], []])
    await books.run()
    gateway._branch = kept
    gateway.mine()
    gateway.mine()
    books.watch_list = WATCH

    await books.run()

    assert [op for op, _ in await books.log()] == list("++-++--+++")
    assert len((await books.stored())[1].movements) == 1
    events = [(event.name, event.payload["height"]) for event in await books.events()]
    assert events == [
        ("BlockOrphaned", 1),
        ("BlockOrphaned", 2),
        ("BlockOrphaned", 1),
        ("BlockRestored", 1),
    ]


class Gateway(ScriptedGateway):
    """Remembers which blocks it has told of."""

    told: ClassVar[list[Block]] = []

    async def block_at(self, height: int) -> Block | None:
        found = await super().block_at(height)
        self.told.extend([] if found is None else [found])
        return found


async def test_an_address_given_out_before_its_payment_was_mined_is_never_missed(
    books: Books,
) -> None:
    """It was committed before the block existed: the list is read after the block is known."""
    gateway = Gateway()
    gateway.told.clear()
    books.gateway = gateway
    paid = gateway.mine(pay(0))

    async def watch(conn: AsyncConnection) -> WatchList:
        assert paid in gateway.told
        return WATCH

    await follow(books.engine, gateway, "evm", watch=watch, apply=books.apply, now=NOW)

    assert [len(c.movements) for c in await books.stored()] == [0, 1]


async def test_orphaned_contents_are_those_that_were_included(books: Books) -> None:
    seen: list[ChainStep] = []
    books.gateway.mine(pay(0), pay_token(1))
    await books.run()
    included = (await books.stored())[1]
    books.watch_list = WatchList(frozenset(), frozenset())
    books.gateway.reorg(1, [[], []])

    async def apply(conn: AsyncConnection, step: ChainStep) -> None:
        seen.append(step)

    await follow(books.engine, books.gateway, "evm", watch=books.watch, apply=apply, now=NOW)

    assert seen[0].contents == included
    assert [m.amount for m in seen[0].contents.movements] == [5, 7]


async def test_a_node_that_falls_behind_orphans_nothing(books: Books) -> None:
    for _ in range(4):
        books.gateway.mine()
    await books.run()
    books.gateway.lag = 3

    report = await books.run()

    assert (report.orphaned, report.caught_up) == (0, False)
    assert "height 1" in report.reason
    books.gateway.lag = 0
    assert (await books.run()).caught_up


async def test_a_shorter_branch_is_waited_out_until_it_reaches_our_height(books: Books) -> None:
    for _ in range(4):
        books.gateway.mine()
    await books.run()
    books.gateway.rollback(3)
    books.gateway.mine(pay(0))

    assert (await books.run()).orphaned == 0

    books.gateway.mine()
    books.gateway.mine()
    report = await books.run()

    assert (report.orphaned, report.included, report.caught_up) == (3, 3, True)


async def test_a_reorganisation_deeper_than_policy_halts_the_chain_and_takes_no_step(
    books: Books,
) -> None:
    for _ in range(12):
        books.gateway.mine()
    await books.run()
    log = await books.log()
    books.gateway.reorg(9, [[]] * 10)

    report = await books.run()
    again = await books.run()

    assert report.state is again.state is FollowState.HALTED
    assert "more than 8 blocks" in report.reason == again.reason
    assert await books.log() == log
    with pytest.raises(ChainHalted, match="more than 8"):
        await transact(books.engine, lambda conn: require_running(conn, "evm"))


async def test_a_reorganisation_as_deep_as_policy_does_not_halt(books: Books) -> None:
    for _ in range(12):
        books.gateway.mine()
    await books.run()
    books.gateway.reorg(8, [[]] * 8)

    assert (await books.run()).orphaned == 8


async def test_two_operators_resume_a_halted_chain_as_deep_as_they_say_and_only_once(
    books: Books,
) -> None:
    for _ in range(12):
        books.gateway.mine()
    await books.run()
    books.gateway.reorg(9, [[]] * 9)
    await books.run()

    await enrol(books)

    async def allow(conn: AsyncConnection) -> None:
        signatures = await signed(conn, "ada", "dan", reason="fork seen", depth=9)
        await resume(conn, "evm", signatures=signatures, reason="fork seen", depth=9, now=NOW)

    await transact(books.engine, allow)
    report = await books.run()

    assert (report.orphaned, report.included, report.caught_up) == (9, 9, True)
    books.gateway.reorg(9, [[]] * 9)
    assert (await books.run()).state is FollowState.HALTED

    events = await books.events()
    names = [event.name for event in events]
    assert names == ["ChainHalted", "ChainResumed", *["BlockOrphaned"] * 9, "ChainHalted"]
    assert (events[1].actor, events[1].reason) == ("ada", "fork seen")
    assert events[1].payload is not None
    assert (events[1].payload["approved_by"], events[1].payload["depth"]) == ("dan", 9)


@pytest.mark.parametrize(
    ("people", "problem"),
    [
        (("ada",), "two different"),
        (("ada", "cleo"), "cleo is not"),
        (("ada", "dan", "ben"), "two different"),
    ],
)
async def test_a_chain_is_resumed_by_two_people_who_may(
    books: Books, people: tuple[str, ...], problem: str
) -> None:
    await enrol(books)

    async def work(conn: AsyncConnection) -> None:
        await halt(conn, "evm", by="ada", reason="looks odd", now=NOW)
        signatures = await signed(conn, *people, reason="fine", depth=0)
        await resume(conn, "evm", signatures=signatures, reason="fine", depth=0, now=NOW)

    with pytest.raises(Refused, match=problem):
        await transact(books.engine, work)


@pytest.mark.parametrize(("depth", "reason"), [(1, "fine"), (0, "other")])
async def test_a_signature_covers_the_depth_and_the_reason(
    books: Books, depth: int, reason: str
) -> None:
    await enrol(books)

    async def work(conn: AsyncConnection) -> None:
        await halt(conn, "evm", by="ada", reason="looks odd", now=NOW)
        signatures = await signed(conn, "ada", "dan", reason="fine", depth=0)
        await resume(conn, "evm", signatures=signatures, reason=reason, depth=depth, now=NOW)

    with pytest.raises(NotAuthorised):
        await transact(books.engine, work)


async def test_signatures_for_one_halt_do_not_end_the_next_one(books: Books) -> None:
    await enrol(books)

    async def work(conn: AsyncConnection) -> None:
        await halt(conn, "evm", by="ada", reason="looks odd", now=NOW)
        signatures = await signed(conn, "ada", "dan", reason="fine", depth=0)
        await resume(conn, "evm", signatures=signatures, reason="fine", depth=0, now=NOW)
        await halt(conn, "evm", by="ada", reason="looks odd", now=NOW)
        await resume(conn, "evm", signatures=signatures, reason="fine", depth=0, now=NOW)

    with pytest.raises(NotAuthorised):
        await transact(books.engine, work)


async def test_a_chain_that_is_not_halted_cannot_be_resumed(books: Books) -> None:
    with pytest.raises(Refused, match="not halted"):
        await transact(
            books.engine,
            lambda conn: resume(
                conn, "evm", signatures={"a": b"", "b": b""}, reason="x", depth=0, now=NOW
            ),
        )


async def test_a_chain_halted_by_an_operator_takes_no_step(books: Books) -> None:
    await transact(books.engine, lambda conn: halt(conn, "evm", by="ann", reason="drill", now=NOW))

    report = await books.run()
    following = await transact(books.engine, lambda conn: get_following(conn, "evm"))

    assert (report.included, report.state, following.reason) == (0, FollowState.HALTED, "drill")


async def test_a_chain_halted_between_reading_and_writing_takes_no_step(books: Books) -> None:
    async def halted_meanwhile(conn: AsyncConnection) -> WatchList:
        await halt(conn, "evm", by="ann", reason="drill", now=NOW)
        return WATCH

    with pytest.raises(ChainHalted):
        await follow(
            books.engine, books.gateway, "evm", watch=halted_meanwhile, apply=books.apply, now=NOW
        )

    assert await books.log() == []


@pytest.mark.parametrize("started", [False, True], ids=["at the start", "on the way"])
async def test_of_two_followers_at_the_same_place_one_is_refused(
    books: Books, *, started: bool
) -> None:
    if started:
        await books.run()
    books.gateway.mine()
    rival = Books(books.engine, books.gateway)

    async def rival_first(conn: AsyncConnection) -> WatchList:
        await rival.run()
        return WATCH

    with pytest.raises(CursorMoved):
        await follow(
            books.engine, books.gateway, "evm", watch=rival_first, apply=books.apply, now=NOW
        )

    assert await books.log() == [("+", 0), ("+", 1)]


async def test_a_follower_that_was_overtaken_on_another_branch_is_refused_by_name(
    books: Books,
) -> None:
    books.gateway.mine()
    await books.run(blocks_max=1)
    rival = Books(books.engine, ScriptedGateway())
    rival.gateway.mine(pay(0))

    async def rival_first(conn: AsyncConnection) -> WatchList:
        await rival.run()
        return WATCH

    with pytest.raises(CursorMoved):
        await follow(
            books.engine, books.gateway, "evm", watch=rival_first, apply=books.apply, now=NOW
        )

    assert (await books.cursor()) == rival.gateway.blocks[1]
    assert await books.log() == [("+", 0), ("+", 1)]


class Overtaking:
    """A node that answers slowly at genesis: meanwhile another follower takes its steps."""

    def __init__(self, node: ScriptedGateway, meanwhile: Callable[[], Awaitable[object]]) -> None:
        self.node = node
        self.meanwhile: Callable[[], Awaitable[object]] | None = meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self.node, name)

    async def block_at(self, height: int) -> Block | None:
        found = await self.node.block_at(height)
        if height == 0 and self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return found


async def test_a_follower_that_was_overtaken_while_walking_back_is_refused_by_name(
    books: Books,
) -> None:
    for _ in range(3):
        books.gateway.mine()
    await books.run()
    books.gateway.reorg(3, [[], [], [], []])
    rival = Books(books.engine, books.gateway)
    node: Any = Overtaking(books.gateway, lambda: rival.run(blocks_max=2))
    overtaken = Books(books.engine, node)

    with pytest.raises(CursorMoved):
        await overtaken.run()

    await books.run()
    assert await books.cursor() == books.gateway.blocks[-1]
    assert sum(1 if sign == "+" else -1 for sign, _ in await books.log()) == 5


async def test_trouble_with_the_node_keeps_what_was_booked_and_the_next_call_goes_on(
    books: Books,
) -> None:
    books.gateway.mine()
    await books.run()
    books.gateway.mine()
    for trouble in (NodeUnavailable("down"), BlockGone("gone")):
        books.gateway.faults.append(trouble)
        with pytest.raises(type(trouble)):
            await books.run()

    assert (await books.run()).included == 1


class Contradictory(ScriptedGateway):
    """A node behind which two nodes answer in turn."""

    async def contents(self, block: Block, watch: WatchList) -> BlockContents:
        found = await super().contents(block, watch)
        return replace(found, block=replace(block, hash="0x" + "ee" * 32))


async def test_contents_of_another_block_are_refused(books: Books) -> None:
    books.gateway = Contradictory()

    with pytest.raises(IncompleteAnswer):
        await books.run()

    assert await books.log() == []


async def test_a_step_whose_caller_fails_leaves_no_trace_and_is_taken_again(books: Books) -> None:
    books.gateway.mine(pay(0))
    books.crash_at = {2}

    with pytest.raises(Crash):
        await books.run()

    assert await books.log() == [("+", 0)]
    cursor = await books.cursor()
    assert cursor is not None
    assert cursor.height == 0
    await books.run()
    assert await books.log() == [("+", 0), ("+", 1)]


async def test_blocks_can_be_looked_up_by_height_and_by_hash(books: Books) -> None:
    books.gateway.mine()
    await books.run()
    old = books.gateway.blocks[1]
    books.gateway.reorg(1, [[pay(0)]])
    await books.run()
    new = books.gateway.blocks[1]

    async def look(conn: AsyncConnection) -> tuple[object, ...]:
        return (
            await get_block(conn, "evm", 1),
            await get_block(conn, "evm", 9),
            await is_canonical(conn, "evm", old.hash),
            await is_canonical(conn, "evm", new.hash),
        )

    assert await transact(books.engine, look) == (new, None, False, True)
    assert confirmations(new, 1) == 1
    assert confirmations(new, 2) == 0


async def test_the_runtime_role_cannot_rewrite_what_a_block_held(books: Books) -> None:
    books.gateway.mine(pay(0))
    await books.run()
    for statement in (
        "UPDATE chain.movement SET amount = 6",
        "DELETE FROM chain.movement",
        "DELETE FROM chain.block",
        "UPDATE chain.block SET height = 7",
    ):
        with pytest.raises(DBAPIError, match="permission denied"):
            async with books.engine.begin() as conn:
                await conn.execute(text(statement))


@dataclass
class Schedule:
    """What happens to a chain and to its follower, drawn from a seed."""

    books: Books
    rng: random.Random
    nonces: Iterator[int] = field(default_factory=itertools.count)

    def transactions(self) -> list[ScriptedTransaction]:
        kinds = self.rng.choices((pay, pay_token), k=self.rng.randint(0, 3))
        return [kind(next(self.nonces), self.rng.randint(1, 9)) for kind in kinds]

    def grow(self) -> None:
        for _ in range(self.rng.randint(1, 4)):
            self.books.gateway.mine(*self.transactions())

    def reorganise(self) -> None:
        """Replace up to four blocks; some payments come back in other blocks, at other places."""
        gateway = self.books.gateway
        depth = self.rng.randint(1, 4)
        if depth >= len(gateway.blocks):
            return
        back = [item for item in gateway.rollback(depth) if self.rng.random() < 0.7]
        for _ in range(depth + self.rng.randint(0, 2)):
            keep, back = back[:2], back[2:]
            gateway.mine(*self.transactions(), *keep)

    async def look(self) -> None:
        """Follow a little, with a node that may lag and a crash that may come."""
        self.books.gateway.lag = self.rng.choice((0, 0, 0, 2))
        if self.rng.random() < 0.3:
            self.books.crash_at = {self.books.calls + self.rng.randint(1, 4)}
        with contextlib.suppress(Crash):
            await self.books.run(blocks_max=self.rng.choice((1, 3, 1_000)))

    async def run(self, acts: int) -> None:
        for _ in range(acts):
            match self.rng.randrange(10):
                case 0 | 1 | 2 | 3:
                    self.grow()
                case 4 | 5 | 6:
                    self.reorganise()
                case _:
                    await self.look()

    async def settle(self) -> None:
        self.books.gateway.lag = 0
        self.books.crash_at = set()
        self.books.gateway.mine()
        while not (await self.books.run()).caught_up:
            # Only a branch shorter than ours is waited for: let it grow.
            self.books.gateway.mine()


@pytest.mark.parametrize("seed", range(12))
async def test_any_schedule_of_reorganisations_and_crashes_ends_like_a_clean_sync(
    books: Books, seed: int
) -> None:
    books.policy = FollowPolicy(reorg_depth_max=500)
    schedule = Schedule(books, random.Random(seed))

    await schedule.run(acts=30)
    await schedule.settle()

    gateway = books.gateway
    assert await books.stored() == [await gateway.contents(b, WATCH) for b in gateway.blocks]
    stack: list[str] = []
    for included, block_hash in await books.hashes():
        if included:
            stack.append(block_hash)
        else:
            assert stack.pop() == block_hash
    assert stack == [block.hash for block in gateway.blocks]
