"""The loops of a house that settle: matching and finality, the slots of windows, scheduled jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Final

from app.workers.book_mover import BookMover
from app.workers.calculator import Calculator
from app.workers.cycle_release import InTransactions
from app.workers.cycles import CycleWorker
from app.workers.house_parts import House, holder, nonzero
from app.workers.jobs import Handler, JobWorker
from app.workers.loops import Loop
from app.workers.settlement import SettlementWorker
from app.workers.venue_desk import VenueDesk
from ledger.interbook.model import JOB as MOVE_BETWEEN_BOOKS

CYCLES_PAUSE_MIN: Final = timedelta(seconds=2)
"""Between two looks at what is due in settlement, at least."""


def settlement_loop(house: House) -> Loop:
    """Return the loop that matches what came, takes up what came back and records what is final."""
    worker = SettlementWorker(engine=house.engine, clock=house.clock, book=house.file.book)

    async def settle() -> Mapping[str, object]:
        turn = await worker.turn()
        return nonzero(
            {
                "matched": len(turn.matched),
                "final": len(turn.final),
                "expired": len(turn.expired),
                "taken_back": len(turn.taken_back),
                "recalled": len(turn.recalled),
                "returned": len(turn.returned),
                "fails": len(turn.fails),
                "failed": dict(turn.failed),
            }
        )

    return Loop(name="settlement", turn=settle, pause=house.file.pause)


def job_loops(house: House, desks: Sequence[VenueDesk]) -> list[Loop]:
    """Return the loop of jobs: settlement windows, what moves between books, the venues' days."""
    calculator = Calculator(engine=house.engine, clock=house.clock, book=house.file.book)
    mover = BookMover(house.engine, house.clock)
    windows: dict[str, Handler] = {
        window.schedule.name: partial(calculator.calculate, window) for window in house.file.windows
    }
    days: dict[str, Handler] = {desk.job: desk.close_the_day for desk in desks}
    worker = JobWorker(
        engine=house.engine,
        clock=house.clock,
        handlers={**windows, **days, MOVE_BETWEEN_BOOKS: mover.move},
        holder=holder(house, "jobs"),
    )

    async def work() -> Mapping[str, object]:
        turn = await worker.turn()
        return nonzero(
            {"done": len(turn.done), "failed": dict(turn.failed), "dead": len(turn.dead)}
        )

    return [Loop(name="jobs", turn=work, pause=house.file.pause)]


def cycle_loop(house: House) -> Loop:
    """Return the loop that opens the slots of settlement windows and goes on with live cycles."""
    worker = CycleWorker(
        do=InTransactions(house.engine),
        clock=house.clock,
        book=house.file.book,
        holder=holder(house, "settlement"),
    )

    async def settle() -> Mapping[str, object]:
        turn = await worker.turn()
        return nonzero(
            {
                "opened": len(turn.opened),
                "lapsed": len(turn.lapsed),
                "sealed": len(turn.sealed),
                "payouts": sum(len(found.payouts) for found in turn.released),
                "by_book": sum(len(found.settled) for found in turn.released),
                "failed": dict(turn.failed),
                "dead": len(turn.dead),
            }
        )

    return Loop(name="cycles", turn=settle, pause=max(house.file.pause, CYCLES_PAUSE_MIN))
