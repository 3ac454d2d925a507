"""Two people, or two processes, at once: one effect. And a step that dies leaves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.payouts import list_payouts
from kernel.db import transact
from ledger.queries import head, list_transfers
from registry.testing import USDT
from settlement.book_rail import accept_book, settle_book
from settlement.errors import ChangedMeanwhile
from settlement.instruction_store import move_instruction
from settlement.matching import match_receipts
from settlement.model import InstructionState, RunState
from settlement.queries import list_obligations, list_runs
from settlement.release import record_finality, release_payment, release_run
from settlement.reopening import take_back
from settlement.runs import open_run, pull_obligations, seal
from tests.settlement.desk import ACME_WALLET, BOOK, CONFIRMATIONS, DAY, Desk, refusal

Work = Callable[[AsyncConnection], Awaitable[object]]


async def at_once(desk: Desk, work: Work, *, count: int = 4) -> list[object]:
    """Run the same work in several transactions that start together."""
    barrier = asyncio.Barrier(count)

    async def one(conn: AsyncConnection) -> object:
        return await work(conn)

    async def start() -> object:
        await barrier.wait()
        return await transact(desk.engine, one)

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
            await asyncio.sleep(0.3)

    async with asyncio.TaskGroup() as group:
        group.create_task(first())
        await calculated.wait()
        second = group.create_task(refusal(desk.open("b")))

    assert "nothing is owed for 2026-01-05 in window b" in second.result()


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

    assert len([match for match in results if match is not None]) == 1
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
        assert await match_receipts(first, book=BOOK, now=desk.now) is not None

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

    await at_once(desk, lambda c: accept_book(c, run.id, "birch", by=ada, now=desk.now))
    assert (await desk.holds())["client:birch USDT"] == "30,300"
    await at_once(desk, lambda c: settle_book(c, run.id, "birch", by=ada, now=desk.now))

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
        await desk.do(lambda c: record_finality(c, run.id, now=desk.now))

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(runner())

    (payout,) = await desk.do(lambda conn: list_payouts(conn, book=BOOK))
    await desk.send(payout.id)
    await desk.mine(CONFIRMATIONS)
    await at_once(desk, lambda conn: record_finality(conn, run.id, now=desk.now))
    (done,) = await desk.do(lambda conn: list_runs(conn, BOOK))
    assert done.state is RunState.FINAL
    assert await desk.books("payable", "receivable", "suspense", "in-flight") == {}


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

    async def pay(conn: AsyncConnection) -> object:
        ours = (await desk.instructions(run.id))["acme ETH"]
        return await release_payment(
            conn, run.id, ours.id, source_wallet="house-hot", by=ada, now=desk.now
        )

    steps: dict[str, Work] = {
        "seal": lambda c: seal(c, run.id, by=ada, now=desk.now),
        "release": lambda c: release_run(c, run.id, by=ada, now=desk.now),
        "match": lambda c: match_receipts(c, book=BOOK, now=desk.now),
        "pay": pay,
        "accept": lambda c: accept_book(c, run.id, "birch", by=ada, now=desk.now),
        "settle": lambda c: settle_book(c, run.id, "birch", by=ada, now=desk.now),
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
