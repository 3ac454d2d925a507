"""Two people, or two processes, at once: one effect. And a step that dies leaves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.payouts import list_payouts
from kernel.db import transact
from kernel.errors import CausewayError
from ledger.queries import head, list_transfers
from registry.testing import USDT, operator_keypair
from settlement.book_rail import accept_book, settle_book
from settlement.cycles import advance_cycle, open_cycle, seal_cycle
from settlement.disputes import dispute, resolve_dispute
from settlement.errors import ChangedMeanwhile
from settlement.instruction_store import move_instruction
from settlement.matching.posting import match_receipts
from settlement.model import Calculation, Cycle, InstructionState, Run, RunState
from settlement.preview import preview_cycle
from settlement.queries import (
    get_calculation,
    list_cycle_runs,
    list_inputs,
    list_obligations,
    list_obligations_of,
    list_runs,
)
from settlement.release import record_finality, release_payment, release_run
from settlement.release_model import BookSettlement
from settlement.reopening import take_back
from settlement.runs import (
    affirm,
    affirmation_bytes,
    open_run,
    pull_obligations,
    seal,
    withdraw_deal,
)
from settlement.testing import EVIDENCE
from tests.locks import until_waiting
from tests.settlement.desk import ACME_WALLET, BOOK, CONFIRMATIONS, DAY, Desk, refusal
from trading.deals import get_deal
from trading.model import DealState

T = TypeVar("T")


async def at_once(
    desk: Desk, work: Callable[[AsyncConnection], Awaitable[T]], *, count: int = 4
) -> list[T]:
    """Run the same work in several transactions that start together."""
    barrier = asyncio.Barrier(count)

    async def start() -> T:
        await barrier.wait()
        return await transact(desk.engine, work)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(start()) for _ in range(count)]
    return [task.result() for task in tasks]


async def stand(desk: Desk) -> None:
    await desk.agree("acme")
    await desk.instruct("acme", "ETH", ACME_WALLET)
    await desk.capital(("custody:house-hot", "equity:capital", "30", "ETH"))
    await desk.deal("sold")


async def test_deals_are_pulled_once(desk: Desk) -> None:
    await stand(desk)

    await at_once(desk, lambda conn: pull_obligations(conn, book=BOOK, now=desk.now))

    assert len(await desk.do(lambda conn: list_obligations(conn, BOOK))) == 3


async def test_a_window_has_one_run(desk: Desk) -> None:
    await stand(desk)
    await desk.do(lambda conn: pull_obligations(conn, book=BOOK, now=desk.now))

    results = await at_once(
        desk,
        lambda conn: open_run(
            conn, book=BOOK, value_date=DAY, window="noon", by="ada", now=desk.now
        ),
    )

    assert all(result == results[0] for result in results)
    assert len(await desk.do(lambda conn: list_runs(conn, BOOK))) == 1


async def test_two_windows_at_once_share_no_obligation(desk: Desk) -> None:
    """The second window waits for the first one's commit, and finds nothing open then."""
    await stand(desk)
    await desk.do(lambda conn: pull_obligations(conn, book=BOOK, now=desk.now))
    calculated = asyncio.Event()

    async def first() -> None:
        async with desk.engine.begin() as conn:
            await open_run(conn, book=BOOK, value_date=DAY, window="a", by="ada", now=desk.now)
            calculated.set()
            await until_waiting(desk.engine)

    async with asyncio.TaskGroup() as group:
        group.create_task(first())
        await calculated.wait()
        second = group.create_task(refusal(desk.open("b")))

    assert "nothing is owed for 2026-01-05 in window b" in second.result()


async def test_whoever_looks_at_the_cut_off_keeps_no_deal_from_its_cycle(desk: Desk) -> None:
    """A preview has pulled what deals owe, and rolls back; the cycle waits for it meanwhile."""
    await stand(desk)

    async def opening(conn: AsyncConnection) -> Cycle:
        return await open_cycle(
            conn, book=BOOK, business_date=DAY, window="noon", by="ada", now=desk.now
        )

    async with desk.engine.connect() as looking, asyncio.TaskGroup() as group:
        seen = await preview_cycle(
            looking, book=BOOK, business_date=DAY, window="noon", now=desk.now
        )
        opened = group.create_task(desk.do(opening))
        await until_waiting(desk.engine)
        await looking.rollback()

    assert len(seen.items) == 2
    (run,) = await desk.do(lambda conn: list_cycle_runs(conn, opened.result().id))
    assert (run.party, run.state) == ("acme", RunState.CALCULATED)


ORDERS = (
    ("dispute", "seal", "disputed", "0 sealed"),
    ("seal", "dispute", "sealed", "a sealed run never changes"),
    # Its party has half an hour more by the dispute: the clock finds that it is not late.
    ("dispute", "lapse", "disputed", "0 lapsed"),
    ("affirm", "lapse", "affirmed", "0 lapsed"),
    ("affirm", "dispute", "disputed", "version 2"),
    ("dispute", "affirm", "disputed", "is not open to affirmation"),
    ("seal", "withdraw", "sealed", "cannot be withdrawn"),
    # What lapses is in the run of the next story, too; these are the last ones.
    ("lapse", "affirm", "lapsed", "is not open to affirmation"),
    ("lapse", "dispute", "lapsed", "not every obligation named is part of run"),
)


@dataclass(slots=True)
class Steps:
    """What people and the clock do to one run."""

    desk: Desk
    cycle: Cycle
    run: Run
    result: Calculation
    deal_id: UUID
    disputed: list[UUID]

    async def dispute(self, conn: AsyncConnection) -> str:
        now = self.cycle.affirm_until - timedelta(seconds=1)
        dan = self.desk.operators["dan"]
        after, _ = await dispute(conn, self.run.id, self.disputed, by=dan, reason="x", now=now)
        return f"version {after.version}"

    async def seal(self, conn: AsyncConnection) -> str:
        ada = self.desk.operators["ada"]
        return f"{len(await seal_cycle(conn, self.cycle.id, by=ada, now=self.desk.now))} sealed"

    async def lapse(self, conn: AsyncConnection) -> str:
        done = await advance_cycle(conn, self.cycle.id, self.cycle.affirm_until)
        return f"{len(done.lapsed)} lapsed"

    async def affirm(self, conn: AsyncConnection) -> str:
        payload = affirmation_bytes(self.run, self.result, "acme", EVIDENCE)
        after = await affirm(
            conn,
            self.run.id,
            version=1,
            party="acme",
            by=self.desk.operators["dan"],
            witness=self.desk.operators["ada"],
            signature=operator_keypair("ada").sign(payload),
            evidence_hash=EVIDENCE,
            now=self.desk.now,
        )
        return str(after.state)

    async def withdraw(self, conn: AsyncConnection) -> str:
        ada = self.desk.operators["ada"]
        await withdraw_deal(conn, self.deal_id, by=ada, reason="x", now=self.desk.now)
        return "withdrawn"


async def calculated(desk: Desk, window: str) -> Steps:
    """Two deals of acme in one run."""
    deal = await desk.deal(f"{window}-one", fee="0")
    await desk.deal(f"{window}-two", fee="0")
    cycle = await desk.do(
        lambda conn: open_cycle(
            conn, book=BOOK, business_date=DAY, window=window, by="ada", now=desk.now
        )
    )
    (run,) = await desk.do(lambda conn: list_cycle_runs(conn, cycle.id))
    result = await desk.do(lambda conn: get_calculation(conn, run.id, 1))
    disputed = await desk.do(lambda conn: list_obligations_of(conn, deal.id))
    return Steps(desk, cycle, run, result, deal.id, [o.id for o in disputed])


async def test_two_steps_of_a_run_at_once_are_one_after_the_other(desk: Desk) -> None:
    """The second one waits for the commit of the first, and decides on what that left."""
    await desk.agree("acme")
    for first, then, left, told in ORDERS:
        story = f"{first}-{then}"
        steps = await calculated(desk, story)
        if "seal" in {first, then}:
            await desk.affirm_all(steps.run.id)

        said = await one_after_the_other(desk, getattr(steps, first), getattr(steps, then))

        assert told in said, story
        within = await desk.do(partial(list_inputs, run_id=steps.run.id, version=1))
        frozen = {o.state for o in within if o.id in steps.disputed}
        others = {o.state for o in within if o.id not in steps.disputed}
        (after,) = await desk.do(partial(list_cycle_runs, cycle_id=steps.cycle.id))
        found = (after.state, after.version, frozen, others)
        if left == "disputed":
            assert found == (RunState.CALCULATED, 2, {"disputed"}, {"calculated"}), story
        else:
            state = "open" if left == "lapsed" else left
            assert found == (left, 1, {state}, {state}), story


async def one_after_the_other(
    desk: Desk,
    first: Callable[[AsyncConnection], Awaitable[str]],
    then: Callable[[AsyncConnection], Awaitable[str]],
) -> str:
    """Let *then* wait for the commit of *first*, and return what it says."""

    async def second() -> str:
        try:
            return await desk.do(then)
        except CausewayError as error:
            return str(error)

    async with desk.engine.connect() as conn, asyncio.TaskGroup() as group:
        await first(conn)
        waiting = group.create_task(second())
        await until_waiting(desk.engine)
        await conn.commit()
    return waiting.result()


async def test_a_run_is_sealed_once(desk: Desk) -> None:
    await stand(desk)
    run, _ = await desk.calculate()
    await desk.affirm_all(run.id)

    await at_once(desk, lambda conn: seal(conn, run.id, by=desk.operators["ada"], now=desk.now))

    lines = await desk.do(lambda conn: list_transfers(conn, BOOK, correlation=run.id))
    assert len(lines) == 3
    assert len(await desk.instructions(run.id)) == 2


async def test_a_payment_has_one_payout(desk: Desk) -> None:
    await stand(desk)
    run = await desk.released()
    await desk.receive(USDT.parse("30300"))
    await desk.match()
    ours = (await desk.instructions(run.id))["acme ETH"]

    results = await at_once(
        desk,
        lambda conn: release_payment(
            conn,
            run.id,
            ours.id,
            source_wallet="house-hot",
            by=desk.operators["ada"],
            now=desk.now,
        ),
    )

    assert len(set(results)) == 1
    assert len(await desk.do(lambda conn: list_payouts(conn, book=BOOK))) == 1
    assert (await desk.holds())["payable:acme:netted ETH"] == "10"


async def test_a_receipt_is_matched_once(desk: Desk) -> None:
    await stand(desk)
    run = await desk.released()
    await desk.receive(USDT.parse("100"))

    results = await at_once(desk, lambda conn: match_receipts(conn, book=BOOK, now=desk.now))

    assert len([match for found in results for match in found]) == 1
    assert (await desk.instructions(run.id))["acme USDT"].applied == USDT.parse("100")
    assert await desk.books("suspense") == {}


async def test_a_receipt_that_is_matched_anew_meanwhile_is_not_taken_back(
    desk: Desk, owner_engine: AsyncEngine
) -> None:
    """Whoever waited for the locks had found the old match; the new one is none of its business."""
    await stand(desk)
    run = await desk.released()
    paid = await desk.receive(USDT.parse("30300"))
    await desk.match()
    desk.gateway.rollback(CONFIRMATIONS)
    for _ in range(CONFIRMATIONS + 1):
        desk.gateway.mine()
    await desk.follow()
    desk.gateway.mine(paid)
    await desk.mine(CONFIRMATIONS)

    # One transaction, which the watched engine forbids, so that the late one never gets in between.
    async with asyncio.TaskGroup() as group, owner_engine.begin() as first:
        assert len(await take_back(first, book=BOOK, now=desk.now)) == 1
        late = group.create_task(desk.do(lambda conn: take_back(conn, book=BOOK, now=desk.now)))
        await asyncio.sleep(0.3)
        assert not late.done()
        assert await match_receipts(first, book=BOOK, now=desk.now)

    assert (await desk.states(run.id))["acme USDT"] == "final"
    assert await desk.books("suspense", "receivable") == {}


async def test_two_receipts_at_once_are_both_applied(desk: Desk) -> None:
    await stand(desk)
    run = await desk.released()
    await desk.receive(USDT.parse("100"))
    await desk.receive(USDT.parse("200"))

    await at_once(desk, lambda conn: match_receipts(conn, book=BOOK, now=desk.now), count=3)

    assert (await desk.instructions(run.id))["acme USDT"].applied == USDT.parse("300")
    assert await desk.books("suspense") == {}


async def test_a_match_is_taken_back_once(desk: Desk) -> None:
    await stand(desk)
    run = await desk.released()
    await desk.receive(USDT.parse("30300"))
    await desk.match()
    desk.gateway.rollback(CONFIRMATIONS)
    for _ in range(CONFIRMATIONS + 1):
        desk.gateway.mine()
    await desk.follow()

    await at_once(desk, lambda conn: take_back(conn, book=BOOK, now=desk.now))

    assert await desk.books("suspense", "receivable") == {"receivable:acme:netted USDT": "30,300"}
    assert (await desk.instructions(run.id))["acme USDT"].applied == 0


async def test_a_book_settlement_is_held_and_posted_once(desk: Desk) -> None:
    await desk.agree("birch", prefunded=True)
    await desk.capital(
        ("custody:client-pool", "client:birch", "60600", "USDT"),
        ("custody:client-pool", "equity:capital", "20", "ETH"),
    )
    await desk.deal("sold", party="birch")
    run = await desk.released()
    ada = desk.operators["ada"]
    birch = BookSettlement(run.id, "birch")

    await at_once(desk, lambda c: accept_book(c, [birch], by=ada, now=desk.now))
    assert (await desk.holds())["client:birch USDT"] == "30,300"
    await at_once(desk, lambda c: settle_book(c, [birch], by=ada, now=desk.now))

    assert await desk.books("client", "payable", "receivable") == {
        "client:birch ETH": "10",
        "client:birch USDT": "30,300",
    }


async def test_two_runners_take_a_run_to_its_end(desk: Desk) -> None:
    """Each of them tries every step, again and again, whatever the other one does."""
    await stand(desk)
    run, _ = await desk.calculate()
    await desk.affirm_all(run.id)
    await desk.receive(USDT.parse("30300"))
    ada = desk.operators["ada"]

    async def runner() -> None:
        await desk.do(lambda c: seal(c, run.id, by=ada, now=desk.now))
        await desk.do(lambda c: release_run(c, run.id, by=ada, now=desk.now))
        await desk.do(lambda c: match_receipts(c, book=BOOK, now=desk.now))
        ours = (await desk.instructions(run.id))["acme ETH"]
        await desk.pay(ours)
        await desk.do(lambda c: record_finality(c, [run.id], now=desk.now))

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(runner())

    (payout,) = await desk.do(lambda conn: list_payouts(conn, book=BOOK))
    await desk.send(payout.id)
    await desk.mine(CONFIRMATIONS)
    await at_once(desk, lambda conn: record_finality(conn, [run.id], now=desk.now))
    (done,) = await desk.do(lambda conn: list_runs(conn, BOOK))
    assert done.state is RunState.FINAL
    assert await desk.books("payable", "receivable", "suspense", "in-flight") == {}


async def test_two_runs_that_close_at_once_settle_the_deal_that_has_a_leg_in_each(
    desk: Desk,
) -> None:
    """One leg was disputed, and is in a later run than the other one."""
    await desk.agree("birch", prefunded=True)
    await desk.capital(
        ("custody:client-pool", "client:birch", "40000", "USDT"),
        ("custody:client-pool", "equity:capital", "20", "ETH"),
    )
    deal = await desk.deal("split", party="birch")
    noon, _ = await desk.calculate("noon")
    legs = await desk.do(lambda c: list_obligations(c, BOOK))
    (coins,) = [leg.id for leg in legs if leg.asset == "ETH"]
    ada = desk.operators["ada"]
    await desk.do(lambda c: dispute(c, noon.id, [coins], by=ada, reason="how many?", now=desk.now))
    await desk.affirm_all(noon.id)
    await desk.seal(noon.id)
    await desk.release(noon.id)
    await desk.do(lambda c: resolve_dispute(c, noon.id, coins, by=ada, reason="so", now=desk.now))
    evening = await desk.released("evening")
    asked = [BookSettlement(run.id, "birch") for run in (noon, evening)]
    await desk.do(lambda c: accept_book(c, asked, by=ada, now=desk.now))
    await desk.do(lambda c: settle_book(c, asked, by=ada, now=desk.now))

    async with asyncio.TaskGroup() as group, desk.engine.begin() as first:
        await record_finality(first, [noon.id], now=desk.now)
        second = group.create_task(desk.finality(evening.id))
        await until_waiting(desk.engine)

    assert second.result().state is RunState.FINAL
    settled = await desk.do(lambda c: get_deal(c, deal.id))
    assert settled.state is DealState.SETTLED


class Killed(Exception):
    """The process ended here."""


@pytest.mark.parametrize("verb", ["seal", "match", "pay", "accept", "settle"])
async def test_a_step_that_dies_before_its_commit_leaves_nothing(desk: Desk, verb: str) -> None:
    await stand(desk)
    await desk.agree("birch", prefunded=True)
    await desk.capital(
        ("custody:client-pool", "client:birch", "40000", "USDT"),
        ("custody:client-pool", "equity:capital", "20", "ETH"),
    )
    await desk.deal("to-birch", party="birch")
    run, _ = await desk.calculate()
    await desk.affirm_all(run.id)
    await desk.receive(USDT.parse("30300"))
    ada = desk.operators["ada"]
    birch = BookSettlement(run.id, "birch")

    async def pay(conn: AsyncConnection) -> object:
        ours = (await desk.instructions(run.id))["acme ETH"]
        return await release_payment(
            conn, run.id, ours.id, source_wallet="house-hot", by=ada, now=desk.now
        )

    steps: dict[str, Callable[[AsyncConnection], Awaitable[object]]] = {
        "seal": lambda c: seal(c, run.id, by=ada, now=desk.now),
        "release": lambda c: release_run(c, run.id, by=ada, now=desk.now),
        "match": lambda c: match_receipts(c, book=BOOK, now=desk.now),
        "pay": pay,
        "accept": lambda c: accept_book(c, [birch], by=ada, now=desk.now),
        "settle": lambda c: settle_book(c, [birch], by=ada, now=desk.now),
    }
    for name, step in steps.items():
        if name == verb:
            break
        await desk.do(step)

    async def dies(conn: AsyncConnection) -> None:
        await step(conn)
        raise Killed

    before = await everything(desk)
    with pytest.raises(Killed):
        await desk.do(dies)
    assert await everything(desk) == before
    await desk.do(step)
    assert await everything(desk) != before


async def everything(desk: Desk) -> object:
    (run,) = await desk.do(lambda conn: list_runs(conn, BOOK))
    return (
        run,
        await desk.instructions(run.id),
        await desk.do(lambda conn: list_obligations(conn, BOOK)),
        await desk.receipt_states(),
        await desk.do(lambda conn: list_payouts(conn, book=BOOK)),
        await desk.do(lambda conn: head(conn, BOOK)),
    )


async def test_a_write_over_a_row_that_moved_is_refused(desk: Desk) -> None:
    """The lock comes first; if it were ever forgotten, the write itself notices."""
    await stand(desk)
    run = await desk.released()
    stale = (await desk.instructions(run.id))["acme ETH"]
    await desk.receive(USDT.parse("30300"))
    await desk.match()
    await desk.pay(stale)

    async def write(conn: AsyncConnection) -> None:
        await move_instruction(conn, stale, InstructionState.FUNDED)

    with pytest.raises(ChangedMeanwhile):
        await desk.do(write)
