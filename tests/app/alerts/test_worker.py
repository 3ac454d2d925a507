"""The worker of alerts on a real database: raised once, told level by level, cleared, given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.workers.alerts import AlertWorker
from kernel.clock import ManualClock, SystemClock
from kernel.db import transact
from kernel.errors import BadInput, OutsideUnavailable, Refused
from kernel.events import list_history
from registry.changes import found
from registry.errors import NotAuthorised, SamePerson
from registry.queries import get_operator
from registry.testing import demo_founding, operator_keypair
from reporting.alerts.alerts import FINDINGS_MAX, acknowledge, raise_test
from reporting.alerts.deliveries import ATTEMPTS_MAX
from reporting.alerts.model import (
    CHANNELS_MAX,
    Alert,
    AlertKind,
    AlertPolicy,
    AlertState,
    Channel,
    ChannelKind,
    Delivery,
    Finding,
    Route,
)
from reporting.alerts.policies import current_policy, policy_bytes, set_policy
from reporting.alerts.queries import list_alerts

BOOK = 1
NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
AGED = AlertKind.BREAK_AGED
DESK = Channel(name="desk", kind=ChannelKind.WEBHOOK, target="https://example.com/desk")
HEAD = Channel(name="head", kind=ChannelKind.EMAIL, target="head@example.com")
POLICY = AlertPolicy(
    version=1,
    channels=(DESK, HEAD),
    routes=(Route(level=1, channel="desk"), Route(level=2, channel="head")),
    escalate_after=timedelta(minutes=15),
)


@dataclass
class Trouble:
    """What is wrong at this moment, as a test says."""

    kind: AlertKind = AGED
    keys: Sequence[str] = ()

    async def find(self, conn: AsyncConnection) -> Sequence[Finding]:
        del conn
        return [Finding(kind=self.kind, key=key, text=f"{key} is wrong") for key in self.keys]


@dataclass
class Blind:
    """A look that fails."""

    kind: AlertKind = AlertKind.LIMIT_NEAR

    async def find(self, conn: AsyncConnection) -> Sequence[Finding]:
        del conn
        raise BadInput("cannot see")


@dataclass
class Told:
    """What was handed over, or refused."""

    messages: list[Delivery] = field(default_factory=list)
    is_down: bool = False
    tried: int = 0

    async def send(self, item: Delivery) -> None:
        self.tried += 1
        if self.is_down:
            raise OutsideUnavailable("nobody answers")
        self.messages.append(item)

    def said(self) -> list[tuple[str, str, bool]]:
        return [(m.alert.key, m.channel.name, m.is_clear) for m in self.messages]


@dataclass
class House:
    engine: AsyncEngine
    clock: ManualClock
    trouble: Trouble
    told: Told

    def worker(self, holder: str = "alerts") -> AlertWorker:
        return AlertWorker(
            engine=self.engine,
            clock=self.clock,
            book=BOOK,
            looks=[self.trouble],
            sender=self.told,
            holder=holder,
        )

    async def set_policy(self, policy: AlertPolicy, by: str = "ada", second: str = "ben") -> None:
        async def work(conn: AsyncConnection) -> None:
            await set_policy(
                conn,
                policy,
                by=await get_operator(conn, by),
                approver=await get_operator(conn, second),
                signature=operator_keypair(second).sign(policy_bytes(policy)),
                now=self.clock.now(),
            )

        await transact(self.engine, work)

    async def alerts(self) -> list[Alert]:
        return await transact(
            self.engine, lambda conn: list_alerts(conn, BOOK, states=tuple(AlertState))
        )

    async def acknowledge(self, alert: Alert, by: str) -> Alert:
        async def work(conn: AsyncConnection) -> Alert:
            operator = await get_operator(conn, by)
            return await acknowledge(conn, alert.id, by=operator, reason="mine", now=NOW)

        return await transact(self.engine, work)


@pytest.fixture
async def house(engine: AsyncEngine) -> House:
    made = House(engine, ManualClock(NOW), Trouble(), Told())
    await transact(engine, lambda conn: found(conn, demo_founding(), now=SystemClock().now()))
    await made.set_policy(POLICY)
    return made


async def test_what_lasts_is_one_alert_told_once_and_its_end_is_told_to_the_same_people(
    house: House,
) -> None:
    house.trouble.keys = ["a", "b"]
    first = await house.worker().turn()
    second = await house.worker().turn()
    house.trouble.keys = ["b"]
    third = await house.worker().turn()

    assert first == {"raised": 2, "planned": 2, "delivered": 2}
    assert second == {}
    assert third == {"cleared": 1, "planned": 1, "delivered": 1}
    assert sorted(house.told.said()) == [
        ("a", "desk", False),
        ("a", "desk", True),
        ("b", "desk", False),
    ]


async def test_what_comes_again_is_a_new_alert(house: House) -> None:
    for keys in (["a"], [], ["a"]):
        house.trouble.keys = keys
        house.clock.advance(timedelta(minutes=1))
        await house.worker().turn()

    assert [item.state for item in await house.alerts()] == [
        AlertState.RAISED,
        AlertState.CLEARED,
    ]


async def test_what_nobody_takes_on_goes_up_a_level_until_there_is_none(house: House) -> None:
    house.trouble.keys = ["a"]
    await house.worker().turn()
    house.clock.advance(timedelta(minutes=14))
    before = await house.worker().turn()
    house.clock.advance(timedelta(minutes=1))
    after = await house.worker().turn()
    house.clock.advance(timedelta(days=1))
    for _ in range(3):
        await house.worker().turn()

    assert before == {}
    assert after == {"escalated": 1, "planned": 1, "delivered": 1}
    assert house.told.said() == [("a", "desk", False), ("a", "head", False)]


async def test_what_somebody_has_taken_on_is_not_escalated_and_belongs_to_that_one(
    house: House,
) -> None:
    house.trouble.keys = ["a"]
    await house.worker().turn()
    (raised,) = await house.alerts()
    await house.acknowledge(raised, "dan")
    again = await house.acknowledge(raised, "dan")
    house.clock.advance(timedelta(hours=1))
    later = await house.worker().turn()

    assert later == {}
    assert again.acknowledged_by == "dan"
    with pytest.raises(Refused, match="dan has taken"):
        await house.acknowledge(raised, "cleo")
    history = await transact(house.engine, lambda conn: list_history(conn, "alert", raised.id))
    assert [event.name for event in history] == ["AlertRaised", "AlertAcknowledged"]


async def test_a_channel_that_is_down_is_tried_again_with_growing_pauses_and_then_given_up(
    house: House,
) -> None:
    house.trouble.keys = ["a"]
    house.told.is_down = True
    first = await house.worker().turn()
    at_once = await house.worker().turn()
    tries = 1
    for _ in range(ATTEMPTS_MAX + 3):
        house.clock.advance(timedelta(minutes=10))
        tries += (await house.worker().turn()).get("failed", 0)

    assert first["failed"] == 1
    assert at_once == {}
    # Both levels were tried to the end.
    assert tries == 2 * ATTEMPTS_MAX
    house.told.is_down = False
    house.clock.advance(timedelta(days=1))
    assert await house.worker().turn() == {}


async def test_a_look_that_fails_hides_no_other_and_fails_the_turn(house: House) -> None:
    house.trouble.keys = ["a"]
    worker = replace(house.worker(), looks=[Blind(), house.trouble])

    with pytest.raises(BadInput, match="cannot see"):
        await worker.turn()

    assert house.told.said() == [("a", "desk", False)]


async def test_a_channel_that_is_down_is_tried_once_a_turn_whatever_waits_for_it(
    house: House,
) -> None:
    house.trouble.keys = [f"{number:02}" for number in range(30)]
    house.told.is_down = True
    assert (await house.worker().turn())["failed"] == 1
    assert house.told.tried == 1

    house.told.is_down = False
    house.clock.advance(timedelta(seconds=10))
    assert await house.worker().turn() == {"delivered": 30}


async def test_a_flood_reaches_everybody_there_can_be(house: House) -> None:
    channels = tuple(replace(DESK, name=f"desk{number}") for number in range(CHANNELS_MAX))
    routes = tuple(Route(level=1, channel=item.name) for item in channels)
    await house.set_policy(replace(POLICY, version=2, channels=channels, routes=routes))
    house.trouble.keys = [f"{number:05}" for number in range(FINDINGS_MAX)]
    worker = house.worker()
    await worker._look(house.trouble)

    assert await transact(house.engine, worker._plan) == FINDINGS_MAX * CHANNELS_MAX


async def test_those_that_can_go_no_higher_keep_nobody_from_going_up(house: House) -> None:
    flood = Trouble(AlertKind.LIMIT_NEAR, [f"{number:05}" for number in range(FINDINGS_MAX)])
    lone = replace(POLICY.routes[1], kinds=frozenset({AGED}))
    await house.set_policy(replace(POLICY, version=2, routes=(POLICY.routes[0], lone)))
    worker = house.worker()
    await worker._look(flood)
    house.clock.advance(timedelta(seconds=1))
    house.trouble.keys = ["a"]
    await worker._look(house.trouble)
    house.clock.advance(timedelta(hours=1))

    up = await transact(house.engine, worker._escalate)

    assert [(item.key, item.level) for item in up] == [("a", 2)]


async def test_a_message_that_a_dead_worker_had_claimed_is_sent_by_the_next(house: House) -> None:
    house.trouble.keys = ["a"]
    worker = house.worker("dies")
    await worker._look(house.trouble)
    await transact(house.engine, worker._plan)
    await transact(house.engine, worker._claim)

    too_soon = await house.worker("next").turn()
    house.clock.advance(timedelta(minutes=6))
    taken_over = await house.worker("next").turn()

    assert too_soon == {}
    assert taken_over == {"delivered": 1}


async def test_a_flood_is_bounded_and_says_so(house: House) -> None:
    house.trouble.keys = [f"{number:05}" for number in range(FINDINGS_MAX + 10)]
    assert (await house.worker().turn())["raised"] == FINDINGS_MAX

    rest = [item for item in await house.alerts() if item.key == "~more"]
    assert [item.text for item in rest] == ["11 more of this kind are not listed"]


async def test_a_new_policy_tells_the_new_people_of_what_is_still_open(house: House) -> None:
    house.trouble.keys = ["a"]
    await house.worker().turn()
    both = (*POLICY.routes, Route(level=1, channel="head", kinds=frozenset({AGED})))
    changed = AlertPolicy(
        version=2, channels=POLICY.channels, routes=both, escalate_after=POLICY.escalate_after
    )
    await house.set_policy(changed)
    await house.worker().turn()

    assert house.told.said() == [("a", "desk", False), ("a", "head", False)]
    assert await transact(house.engine, current_policy) == changed


async def test_who_is_told_is_a_matter_of_two_people_and_of_the_next_version(house: House) -> None:
    def version(number: int) -> AlertPolicy:
        return AlertPolicy(
            version=number, channels=(DESK,), routes=(), escalate_after=timedelta(minutes=5)
        )

    with pytest.raises(SamePerson):
        await house.set_policy(version(2), second="ada")
    with pytest.raises(NotAuthorised):
        await house.set_policy(version(2), by="cleo")
    with pytest.raises(Refused, match="not the next one"):
        await house.set_policy(version(3))


async def test_a_trial_arrives_and_ends_with_its_acknowledgement(house: House) -> None:
    async def trial(conn: AsyncConnection) -> Alert:
        return await raise_test(conn, BOOK, by=await get_operator(conn, "ada"), now=NOW)

    raised = await transact(house.engine, trial)
    arrived = await house.worker().turn()
    after = await house.acknowledge(raised, "ada")

    assert arrived == {"planned": 1, "delivered": 1}
    assert after.state is AlertState.CLEARED
