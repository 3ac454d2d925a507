"""Runs are closed together, and each by itself: what keeps one of them open holds up no other."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import text

from app.workers.settlement import SettlementWorker
from kernel.ids import derive_id
from registry.testing import ETH, USDT
from settlement import store
from settlement.book_rail import accept_book, settle_book
from settlement.model import Run, RunState
from settlement.release import find_ripe_runs, record_finality
from settlement.release_model import BookSettlement
from tests.settlement.desk import BOOK, Desk
from tests.settlement.test_reopening import vanish
from trading.deals import get_deal
from trading.model import DealState

PARAMETERS_MAX = 32_767
"""Of one statement: PostgreSQL counts them in two bytes, and asyncpg reads them as signed."""
PULLED = "UPDATE trading.deal SET pulled_at = :pulled_at WHERE id = :id"


async def by_book(desk: Desk, window: str, ref: str, *, settled: bool = True) -> Run:
    """Birch buys 1 ETH, and both sides are held; if asked, settled too."""
    await desk.deal(ref, party="birch", amount="1", fee="0")
    run, ada = await desk.released(window), desk.operators["ada"]
    asked = [BookSettlement(run.id, "birch")]
    await desk.do(lambda conn: accept_book(conn, asked, by=ada, now=desk.now))
    if settled:
        await desk.do(lambda conn: settle_book(conn, asked, by=ada, now=desk.now))
    return run


async def prefund(desk: Desk) -> None:
    await desk.agree("birch", prefunded=True)
    await desk.capital(
        ("custody:client-pool", "client:birch", "20000", "USDT"),
        ("custody:client-pool", "equity:capital", "20", "ETH"),
    )


async def paid_and_vanished(desk: Desk) -> Run:
    """Acme owes 1,300 USDT of two deals, and pays them; then the chain takes that away."""
    await desk.agree("acme")
    await desk.deal("sold")
    await desk.buys("bought", price="2900")
    run = await desk.released("night")
    await desk.receive(USDT.parse("1300"))
    assert await desk.match() is not None
    await vanish(desk)
    assert await desk.states(run.id) == {"acme USDT": "final"}
    return run


async def test_of_runs_that_are_closed_together_those_close_that_are_over(desk: Desk) -> None:
    await prefund(desk)
    stale = await paid_and_vanished(desk)
    over = await by_book(desk, "noon", "over")
    open_still = await by_book(desk, "evening", "open", settled=False)
    asked = [stale.id, over.id, open_still.id]

    after = await desk.do(lambda conn: record_finality(conn, asked, now=desk.now))

    assert {run.id: run.state for run in after} == {
        stale.id: RunState.RELEASED,
        over.id: RunState.FINAL,
        open_still.id: RunState.RELEASED,
    }


async def pulled(desk: Desk, deal_id: UUID, at: datetime | None) -> None:
    await desk.do(lambda conn: conn.execute(text(PULLED), {"pulled_at": at, "id": deal_id}))


async def test_a_run_that_cannot_be_closed_is_told_and_the_others_are_closed(desk: Desk) -> None:
    await prefund(desk)
    runs = [await by_book(desk, window, window) for window in ("noon", "evening", "night")]
    worker = SettlementWorker(engine=desk.engine, clock=desk.clock, book=BOOK)
    stuck = runs[1]
    [found] = [
        item.deal_id
        for item, _ in await desk.do(lambda conn: store.lock_members(conn, [stuck.id]))
        if item.asset == ETH.code and item.has_deal
    ]
    await pulled(desk, found, None)

    turn = await worker.turn()

    assert {run.id for run in turn.final} == {runs[0].id, runs[2].id}
    assert set(turn.failed) == {str(stuck.id)}
    assert "are not taken" in turn.failed[str(stuck.id)]
    await pulled(desk, found, desk.now)
    assert [run.id for run in (await worker.turn()).final] == [stuck.id]
    settled = await desk.do(lambda conn: get_deal(conn, found))
    assert settled.state is DealState.SETTLED


async def test_a_run_that_is_ripe_is_counted(desk: Desk) -> None:
    await prefund(desk)
    run = await by_book(desk, "noon", "one")

    assert await desk.do(lambda conn: find_ripe_runs(conn, BOOK)) == {run.id: 2}


async def test_deals_are_asked_for_however_many_there_are(desk: Desk) -> None:
    deals = [derive_id(desk.now, "deal", number) for number in range(PARAMETERS_MAX + 1)]

    assert await desk.do(lambda conn: store.discharged_deals(conn, deals)) == []
