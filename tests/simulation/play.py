"""A day is played: its seed chooses what happens, its trace says what came of it.

First everything goes wrong that can (safety: what must never happen does not). Then the faults are over
(liveness: everything that was begun comes to its end). The same seed gives the same trace, to the last
record of the journal.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.scripted import ScriptedChain
from custody.bitcoin.testing import CHAIN as COIN_CHAIN
from custody.payout_model import PayoutState
from custody.testing import approve
from ledger.queries import head
from settlement.model import RunState
from tests.settlement.desk import BOOK
from tests.simulation.catalogue import STEPS
from tests.simulation.fates import Life, Moment, flat, one_connection
from tests.simulation.promises import any_time, at_rest, unfinished
from tests.simulation.stalling import Stall
from tests.simulation.stepping import judged, payouts, runs_of
from tests.simulation.steps import chase, pay, receivables, settle_dispute
from tests.simulation.steps_bank import look_after_bank
from tests.simulation.steps_compliance import look_after_cases
from tests.simulation.steps_venue import look_after_venue
from tests.simulation.world import SATURDAY, Workers, World, calm, open_world

CHECK_EVERY: Final = 20
"""Steps between two looks at what must hold at any moment."""
REPLICAS: Final = 2
KILL_SHARE: Final = 0.15
"""Turns of workers in which something ends at a commit."""
PAUSE_SHARE: Final = 0.06
"""Turns in which a process is paused, and again as many in which one goes on."""
SERVER_SHARE: Final = 0.05
"""Of these, where the database may be killed."""
FOLLOWED_SHARE: Final = 0.8
"""Steps after which the worker that they wait for has its turn at once."""
COMMITS_MAX: Final = 12
WORK_SHARE: Final = 0.45
"""Steps that are a turn of a worker."""
CALM_ROUNDS: Final = 80
"""Rounds of all workers within which everything comes to rest: days pass in them."""
CALM_PAUSE: Final = timedelta(minutes=45)
CALM_PAUSE_MAX: Final = timedelta(hours=3)
BURIED: Final = 8
"""Blocks on top of one, after which nobody waits for another one; the venue is the most patient."""
ON_A_CHAIN: Final = (
    PayoutState.APPROVED,
    PayoutState.ALLOCATED,
    PayoutState.SIGNED,
    PayoutState.CANCELLING,
    PayoutState.MINED,
)
DAWN: Final = time(9, 30)
DUSK: Final = time(19)
LAST_ROUNDS: Final = 2
"""Rounds after everything is at rest, so that what nothing waits for is done as well."""
SHOWN: Final = 25
"""Steps that are shown of a day that has failed."""


class Broken(AssertionError):
    """Something that must hold does not."""


@dataclass(slots=True)
class Day:
    """What one day came to.

    Attributes:
        trace: a line for each step.
        counts: steps, kills and what else was counted, by name.
        edges: what moved between which states, as the events say.
    """

    seed: int
    steps: int
    trace: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    edges: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        """Return a hash of everything that happened."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]

    def note(self, line: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{len(self.trace)} {line}")


@dataclass(frozen=True, slots=True)
class Paused:
    """A process that waits for an answer, and does not know how long already."""

    workers: Workers
    turn: str
    stall: Stall
    life: asyncio.Task[bool]


@dataclass
class Player:
    """Who plays a day: the world, the processes of the house, and the dice."""

    day: Day
    people: AsyncEngine
    url: str
    random: Random
    checker: AsyncEngine
    server: Callable[[int], None] | None = None
    world: World = field(init=False)
    processes: asyncio.TaskGroup = field(init=False)
    told: list[str] = field(default_factory=list)
    lives: list[Workers] = field(default_factory=list)
    paused: list[Paused] = field(default_factory=list)
    born: int = 0

    async def begin(self) -> None:
        """Start the processes of the house."""
        self.lives = [self.bear() for _ in range(REPLICAS)]

    def bear(self) -> Workers:
        """Return a process that knows nothing but the database."""
        self.born += 1
        life = Life(self.url, f"life-{self.born}")
        life.fate.server = self.server
        return Workers(self.world, life, self.told.append)

    async def end(self) -> None:
        """End the processes in peace."""
        for one in self.paused:
            one.life.cancel()
            await asyncio.wait({one.life})
            await one.workers.life.close()
        for workers in self.lives:
            await workers.life.close()

    async def safety(self, steps: int) -> None:
        """Let anything happen, and look now and then at what must hold."""
        for number in range(steps):
            if self.random.random() < WORK_SHARE:
                await self.some_work()
            else:
                (step,) = self.random.choices(STEPS, weights=[step.weight for step in STEPS])
                self.day.note(f"{step.name}: {await step.do(self.world, self.random)}")
                if step.then and self.random.random() < FOLLOWED_SHARE:
                    await self.work(self.random.randrange(REPLICAS), step.then)
            self.day.counts["steps"] += 1
            if number % CHECK_EVERY == CHECK_EVERY - 1:
                self.require(await any_time(self.world, self.checker, self.told))

    async def some_work(self) -> None:
        """Let a process work, pause one in the middle, or wake one."""
        dice, replica = self.random.random(), self.random.randrange(REPLICAS)
        if dice < PAUSE_SHARE:
            await self.pause(replica, self.random.choice(CALLING))
        elif dice < 2 * PAUSE_SHARE:
            await self.wake()
        else:
            await self.work(replica, self.choose_turn())

    async def pause(self, replica: int, turn: str) -> None:
        """Pause a process at its next call to the outside, for longer than its leases."""
        workers = self.lives[replica]
        workers.life.fate.arm(None, 0)
        stall = self.world.stall = Stall(armed=True)

        async def take() -> bool:
            try:
                return await workers.life.take(lambda: turn_of(workers, turn))
            finally:
                stall.reached.set()

        life = self.processes.create_task(take())
        await stall.reached.wait()
        stall.armed = False
        if not stall.paused:
            await life
            self.day.note(f"{workers.life.name} {turn}: {workers.life.trouble or 'done'}, no call")
            return
        self.day.note(f"{workers.life.name} {turn}: paused")
        self.day.counts["paused"] += 1
        self.paused.append(Paused(workers, turn, stall, life))
        self.lives[replica] = self.bear()

    async def wake(self) -> None:
        """Let the process that was paused first go on, as if nothing had happened meanwhile."""
        if not self.paused:
            return
        one = self.paused.pop(0)
        one.stall.released.set()
        await one.life
        life = one.workers.life
        self.day.note(f"{life.name} {one.turn}: woken, {life.trouble or 'done'}")
        await life.close()

    async def work(self, replica: int, turn: str, *, faults: bool = True) -> None:
        """Let a worker take a turn; it may be its process's last."""
        workers = self.lives[replica]
        life = workers.life
        moment = self.fate() if faults else None
        life.fate.arm(moment, self.random.randrange(COMMITS_MAX) if moment else 0)
        lives = await life.take(lambda: turn_of(workers, turn))
        said = [life.trouble] if life.trouble else []
        if moment is not None and life.fate.met:
            said.append(str(moment.value))
            self.day.counts[moment.value] += 1
        self.day.note(f"{life.name} {turn}: {', '.join(said) or 'done'}")
        if moment is Moment.SERVER_KILLED and life.fate.met:
            await self.checker.dispose()
        if not lives:
            await life.bury(self.checker)
            self.lives[replica] = self.bear()

    def choose_turn(self) -> str:
        """Draw whose turn it is."""
        (turn,) = self.random.choices(TURNS, weights=[OFTEN.get(turn, 1) for turn in TURNS])
        return turn

    def fate(self) -> Moment | None:
        """Draw what ends in a turn; mostly nothing."""
        if self.random.random() >= KILL_SHARE:
            return None
        if self.random.random() < SERVER_SHARE and self.server is not None:
            return Moment.SERVER_KILLED
        return self.random.choice([Moment.BEFORE_COMMIT, Moment.AFTER_COMMIT, Moment.ANSWER_LOST])

    async def liveness(self) -> None:
        """End the faults, and let everybody do what is to be done until nothing is left.

        Raises:
            Broken: something stays open, or the books are not the outside's truth.
        """
        while self.paused:
            await self.wake()
        while self.world.disputed:
            await settle_dispute(self.world, self.random)
        self.mend()
        self.day.note("calm")
        rounds, left, pause = 0, [""], CALM_PAUSE
        while left:
            if rounds == CALM_ROUNDS:
                raise Broken(f"not at rest after {rounds} rounds: {left}")
            await self.round(rounds, [turn for turn in TURNS if turn not in ASIDE], pause)
            rounds += 1
            async with self.checker.connect() as conn:
                before, left = left, await unfinished(self.world, conn)
            # Where nothing moves, it is a cut-off or a day that is waited for.
            pause = CALM_PAUSE if left != before else min(2 * pause, CALM_PAUSE_MAX)
        self.day.counts["rounds to rest"] += rounds
        for _ in range(LAST_ROUNDS):
            await self.round(0, TURNS)
        self.require(await at_rest(self.world, self.checker, self.told))

    async def round(self, number: int, turns: Sequence[str], pause: timedelta = CALM_PAUSE) -> None:
        """Let time pass and people do their part, then workers."""
        self.day.note(f"{pass_time(self.world, pause):%a %H:%M}")
        await self.act()
        for turn in turns:
            await self.work(number % REPLICAS, turn, faults=False)

    def mend(self) -> None:
        """End every fault of the outside."""
        world = self.world
        gateway = world.desk.gateway
        gateway.faults.clear()
        gateway.lag = gateway.lose_broadcasts = gateway.refuse_broadcasts = 0
        world.signer.down = False
        world.coins.mend()
        world.screener.is_away = False
        world.screener.learn(set(), set())
        world.vault.down = False
        world.vault.answers.clear()
        world.door.answers.clear()
        world.bank.execute({"verb": "clear-faults"})
        world.bank.execute({"verb": "deliver"})
        calm(world.venue)

    async def act(self) -> None:
        """Let blocks be mined, people sign and parties pay."""
        world = self.world
        for chain, node in (("evm", world.desk.gateway), (COIN_CHAIN, world.coins.node)):
            if await is_lively(world, chain, node):
                for _ in range(4):
                    node.mine_pool()
        waiting = await payouts(world, PayoutState.PENDING_APPROVAL)
        if waiting:
            await judged(
                lambda: world.do(lambda conn: approve(conn, waiting, now=world.now, by="ben"))
            )
        for run in await runs_of(world, RunState.CALCULATED):
            await judged(lambda run=run: world.desk.affirm_all(run.id))  # type: ignore[misc]
        for item in await receivables(world):
            pay(world, item, item.amount - world.paid.get(item.id, 0))
        await chase(world)
        await world.sign_files()
        await look_after_cases(world)
        await look_after_bank(world)
        await look_after_venue(world)
        while world.bank.today < world.now.date():
            world.bank.execute({"verb": "end-of-day"})

    def require(self, faults: list[str]) -> None:
        """Stop at what is broken.

        Raises:
            Broken: naming all of it.
        """
        if faults:
            raise Broken("\n".join(faults))


async def is_lively(world: World, chain: str, node: ScriptedChain[Any]) -> bool:
    """Tell whether anything waits for blocks of a chain."""
    if node.pool or any(node.transactions[-BURIED:]):
        return True
    return bool(await payouts(world, *ON_A_CHAIN, chain=chain))


def pass_time(world: World, pause: timedelta) -> datetime:
    """Let some of a day pass, or the night, or the days on which nobody works."""
    now = world.clock.advance(pause)
    if now.time() < DUSK and now.weekday() < SATURDAY:
        return now
    day = now.date() + timedelta(days=1)
    while day.weekday() >= SATURDAY:
        day += timedelta(days=1)
    return world.clock.advance(datetime.combine(day, DAWN, now.tzinfo) - now)


async def turn_of(workers: Workers, turn: str) -> object:
    """Take the turn of one worker."""
    return await TURN[turn](workers)


TURN: Final[dict[str, Callable[[Workers], Awaitable[object]]]] = {
    # First, for a payout to a venue wants the venue's word of the last minutes.
    "transfers": lambda workers: workers.transfers(),
    "watch": lambda workers: workers.watcher.turn(),
    "watch coins": lambda workers: workers.coins.turn(),
    "quotes": lambda workers: workers.quotes(),
    "cycles": lambda workers: workers.cycles.turn(),
    "settle": lambda workers: workers.settlement.turn(),
    "bank payments": lambda workers: workers.payer.turn(),
    "statements": lambda workers: workers.statements(),
    "hedge": lambda workers: workers.hedge(),
    "relay": lambda workers: workers.relay.turn(),
    "client money": lambda workers: workers.money.turn(),
}
TURNS: Final = (*TURN,)
ASIDE: Final = frozenset({"relay", "client money"})
"""Those that nobody waits for."""
CALLING: Final = ("watch", "watch coins", "bank payments", "hedge", "transfers")
"""Those that act on the outside."""
OFTEN: Final = {
    "watch": 6,
    "watch coins": 4,
    "cycles": 3,
    "settle": 2,
    "bank payments": 2,
    "statements": 2,
    "hedge": 4,
    "transfers": 3,
}
"""How often a worker has its turn in a day, beside the others."""


async def play(
    url: str,
    folder: Path,
    seed: int,
    steps: int,
    *,
    server: Callable[[int], None] | None = None,
) -> Day:
    """Play the day of *seed* in a fresh database and return what it came to.

    Raises:
        Broken: something that must hold did not; with the last steps, and how to see it again.
    """
    random = Random(seed)
    day = Day(seed, steps)
    people = one_connection(url)
    checker = one_connection(url)
    try:
        await _play(Player(day, people, url, random, checker, server), folder, steps)
        day.note(f"journal {await journal(checker)}")
        day.edges = await edges(checker)
    except BaseException as error:
        error.add_note(story(day))
        raise
    finally:
        await people.dispose()
        await checker.dispose()
    return day


async def _play(player: Player, folder: Path, steps: int) -> None:
    try:
        async with (
            open_world(player.people, folder, player.random) as player.world,
            asyncio.TaskGroup() as player.processes,
        ):
            try:
                await player.begin()
                await player.safety(steps)
                await player.liveness()
            finally:
                await player.end()
    except BaseExceptionGroup as group:
        # Whatever ended the day, ended it once.
        raise flat(group)[0] from None


async def journal(engine: AsyncEngine) -> str:
    """Return the length of the journal and the root of the tree over it."""

    async def read(conn: AsyncConnection) -> str:
        found = await head(conn, BOOK)
        return f"{found.sequence} {found.root.hex()}"

    async with engine.connect() as conn:
        return await read(conn)


async def edges(engine: AsyncEngine) -> frozenset[str]:
    """Return every edge of a machine that an event tells of."""
    query = text("SELECT DISTINCT entity_type, from_state, to_state FROM kernel.history")
    async with engine.connect() as conn:
        rows = await conn.execute(query)
        return frozenset(
            f"{kind}: {before or 'new'} → {after}"
            for kind, before, after in rows
            if before != after
        )


def story(day: Day) -> str:
    """Return the last steps of a day and the command that plays it again."""
    last = "\n".join(day.trace[-SHOWN:])
    again = f"make soak SEED={day.seed} STEPS={day.steps}"
    return f"the last steps:\n{last}\nseed {day.seed}, digest {day.digest}; again: {again}"
