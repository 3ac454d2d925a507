"""Runs and obligations in words, for ``causeway settle``."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from app.cli.common import Money
from app.cli.explain import Section, Story, events, postings
from kernel.clock import iso
from kernel.errors import Refused

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from settlement.model import Calculation, Instruction, Obligation, Run

INSTRUCTION_COLUMNS = (
    *("id", "party", "direction", "amount", "applied", "rail", "state", "payout", "evidence"),
)


async def explain_object(conn: AsyncConnection, object_id: UUID, *, book: int) -> Story:
    """Return the story of the run or the obligation with this id.

    Raises:
        Refused: settlement has neither.
    """
    from settlement.errors import RunNotFound
    from settlement.queries import get_run, list_obligations

    money = await Money.load(conn)
    try:
        return await _run(conn, await get_run(conn, object_id), money)
    except RunNotFound:
        pass
    for item in await list_obligations(conn, book):
        if item.id == object_id:
            return await _obligation(conn, item, money, book)
    raise Refused(
        f"settlement has no run or obligation {object_id}",
        remedy="Look at `causeway settle runs` and `causeway obligations list`",
    )


def run_facts(run: Run) -> dict[str, str]:
    """Return a run as names and values."""
    return {
        "id": str(run.id),
        "state": str(run.state),
        "value_date": run.value_date.isoformat(),
        "window": run.window,
        "version": str(run.version),
        "created": iso(run.created_at),
    }


def item_rows(result: Calculation, money: Money) -> list[tuple[str, ...]]:
    """Return the net items of a calculation, one row each."""
    return [
        (
            item.party,
            str(item.direction),
            money.text(item.amount, item.asset),
            str(item.rail),
            money.text(item.gross_pay, item.asset),
            money.text(item.gross_receive, item.asset),
            str(len(item.obligations)),
        )
        for item in result.items
    ]


def instruction_row(item: Instruction, money: Money) -> tuple[str, ...]:
    """Return an instruction as a row of `INSTRUCTION_COLUMNS`."""
    return (
        str(item.id),
        item.party,
        str(item.direction),
        money.text(item.amount, item.asset),
        money.text(item.applied, item.asset),
        str(item.rail),
        str(item.state),
        str(item.payout_id or ""),
        item.evidence,
    )


async def _run(conn: AsyncConnection, run: Run, money: Money) -> Story:
    from kernel.events import list_history
    from ledger.queries import list_transfers
    from settlement.queries import get_calculation, list_run_instructions

    timeline = events(await list_history(conn, "settlement-run", run.id))
    timeline += postings(await list_transfers(conn, run.book, correlation=run.id), money)
    instructions = await list_run_instructions(conn, run.id)
    for item in instructions:
        timeline += events(await list_history(conn, "settlement-instruction", item.id))
        timeline += postings(await list_transfers(conn, run.book, correlation=item.id), money)
    versions = [await get_calculation(conn, run.id, n) for n in range(1, run.version + 1)]
    return Story(
        f"Run {run.id}",
        {"kind": "run", **run_facts(run)},
        timeline,
        {
            "versions": Section(
                ("version", "method", "items", "inputs"),
                [
                    (str(one.version), one.method, str(len(one.items)), one.input_hash)
                    for one in versions
                ],
            ),
            "instructions": Section(
                INSTRUCTION_COLUMNS, [instruction_row(item, money) for item in instructions]
            ),
        },
    )


async def _obligation(conn: AsyncConnection, item: Obligation, money: Money, book: int) -> Story:
    from kernel.events import list_history
    from ledger.queries import list_transfers

    facts = {
        "kind": "obligation",
        "id": str(item.id),
        "state": str(item.state),
        "party": item.party,
        "direction": str(item.direction),
        "amount": money.text(item.amount, item.asset),
        "leg": item.leg,
        "deal": str(item.deal_id),
        "value_date": item.value_date.isoformat(),
        "created": iso(item.created_at),
    }
    timeline = events(await list_history(conn, "deal", item.deal_id))
    timeline += postings(await list_transfers(conn, book, correlation=item.deal_id), money)
    return Story(f"Obligation {item.id}", facts, timeline)
