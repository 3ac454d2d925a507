"""What is looked for, on a founded house: nothing in a quiet one, each trouble in its own words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.alerts.conditions import LATE_JOB, conditions
from kernel.clock import ManualClock
from kernel.db import transact
from kernel.ids import derive_id
from kernel.jobs import JOB_ATTEMPTS_MAX, claim_due, enqueue, retry_later
from ledger.accounts import ensure_accounts
from ledger.model import chain, transfer
from ledger.posting import open_book, post, require_applied
from registry.changes import found
from registry.queries import get_operator
from registry.testing import demo_founding, operator_keypair
from reporting.alerts.model import AlertKind
from reporting.recon.runs import reconcile_house
from trading.terms.model import Rail
from trading.terms.standing import instruct, standing_instruction_bytes

BOOK = 1
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
PAYEE = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
ELSEWHERE = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncEngine:
    async def work(conn: AsyncConnection) -> None:
        await found(conn, demo_founding(), now=NOW)
        await open_book(conn, BOOK, entity="causeway-desk", now=NOW)

    await transact(engine, work)
    return engine


async def findings(house: AsyncEngine, now: datetime = NOW) -> dict[AlertKind, list[str]]:
    clock = ManualClock(now)
    seen = {}
    for condition in conditions(BOOK, clock):
        if items := await transact(house, condition.find):
            seen[condition.kind] = [item.text for item in items]
    return seen


async def test_every_kind_but_the_trial_is_looked_for_and_a_quiet_house_is_quiet(
    house: AsyncEngine,
) -> None:
    looked_for = {condition.kind for condition in conditions(BOOK, ManualClock(NOW))}

    assert looked_for == set(AlertKind) - {AlertKind.TEST}
    assert await findings(house) == {}


async def test_a_slot_that_nobody_does_is_told_and_so_is_one_that_was_given_up(
    house: AsyncEngine,
) -> None:
    slot = NOW - LATE_JOB
    await transact(house, lambda conn: enqueue(conn, "settlement.calculate/noon", slot))
    late = await findings(house)
    soon = await findings(house, NOW - timedelta(seconds=1))

    now = NOW
    for _ in range(JOB_ATTEMPTS_MAX):
        now += timedelta(hours=1)
        await transact(house, partial(fail_once, at=now))
    dead = await findings(house, now)

    assert late == {
        AlertKind.RUN_MISSED: ["settlement.calculate/noon of 2026-11-20T11:45:00.000Z is not done"]
    }
    assert soon == {}
    (text,) = dead[AlertKind.RUN_MISSED]
    assert f"given up after {JOB_ATTEMPTS_MAX} attempts: no funds" in text


async def fail_once(conn: AsyncConnection, at: datetime) -> None:
    (job,) = await claim_due(
        conn,
        ["settlement.calculate/noon"],
        holder="a",
        now=at,
        lease_for=timedelta(minutes=1),
    )
    await retry_later(conn, job, now=at, error="no funds")


async def test_a_change_of_where_a_party_is_paid_is_told_until_it_holds(house: AsyncEngine) -> None:
    await pay_to(house, PAYEE, version=1, since=NOW)
    quiet = await findings(house)
    await pay_to(house, ELSEWHERE, version=2, since=NOW + timedelta(days=2))

    told = await findings(house)

    assert quiet == {}
    assert told == {
        AlertKind.INSTRUCTION_CHANGED: [
            "where acme is paid ETH by evm was changed by ada and ben: awaiting call back"
        ]
    }


async def test_a_break_is_told_once_it_is_older_than_a_business_day(house: AsyncEngine) -> None:
    async def hold(conn: AsyncConnection) -> None:
        keys = {("custody:house-hot", "ETH"), ("equity:capital", "ETH")}
        await ensure_accounts(conn, BOOK, keys, now=NOW)
        held = transfer(
            derive_id(NOW, "x"),
            "custody:house-hot",
            "equity:capital",
            5,
            "ETH",
            code="test.opening",
        )
        require_applied(await post(conn, BOOK, chain(held), now=NOW))
        await reconcile_house(conn, BOOK, now=NOW)

    await transact(house, hold)

    assert await findings(house, NOW + timedelta(days=1)) == {}
    told = await findings(house, NOW + timedelta(days=2))
    (text,) = told[AlertKind.BREAK_AGED]
    assert text.startswith("unknown at chain house-hot for 2 business days, nobody looks after it")


async def pay_to(house: AsyncEngine, destination: str, *, version: int, since: datetime) -> None:
    begins = since.date()
    payload = standing_instruction_bytes(
        "acme", "ETH", Rail.EVM, destination, effective_from=begins, version=version
    )

    async def work(conn: AsyncConnection) -> None:
        await instruct(
            conn,
            party="acme",
            asset="ETH",
            rail=Rail.EVM,
            destination=destination,
            effective_from=begins,
            by=await get_operator(conn, "ada"),
            approver=await get_operator(conn, "ben"),
            signature=operator_keypair("ben").sign(payload),
            now=NOW,
        )

    await transact(house, work)
