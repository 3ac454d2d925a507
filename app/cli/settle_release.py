"""``causeway settle release``: everything of a sealed run or cycle that may move, one step at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer

from app.cli.common import (
    AsJson,
    DryRun,
    Money,
    Reason,
    clock,
    emit,
    on_database,
    rehearse,
    run,
    show,
    show_one,
    write,
)
from app.cli.operators import As, Credentials, Key, credentials
from app.cli.settle_explain import INSTRUCTION_COLUMNS, instruction_row, run_facts
from kernel.errors import Refused

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from app.workers.cycle_release import CycleReleased, Do
    from registry.model import Operator
    from settlement.model import Instruction, Run
    from settlement.netting.model import Method

SOLVER_LIMIT_S: Final = 20.0
REHEARSAL_LIMIT_S: Final = 1.0
"""A rehearsal is one transaction, in which nobody may think for long."""


@dataclass(slots=True)
class _Release:
    """One call of the command: what it was asked, what it found, what could not move and why."""

    target: UUID
    wallet: str | None
    who: Credentials
    waits: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    rows: list[tuple[str, ...]] = field(default_factory=list)
    _operator: Operator | None = None
    _runs: list[Run] = field(default_factory=list)

    @property
    def operator(self) -> Operator:
        assert self._operator is not None, "begin comes first"
        return self._operator

    async def all(self, do: Do, *, time_limit_s: float) -> None:
        """Do every step; one that is refused leaves the others to go on."""
        from app.workers.cycle_release import CycleRelease
        from settlement.solvers.loading import load_solvers

        method = await do(self.begin)
        if self.wallet is not None:
            await do(self._release_runs)
            await self._pay_from(do, self.wallet)
            await do(self.read)
        job = CycleRelease(
            do=do,
            clock=clock(),
            book=self._runs[0].book,
            by=self.operator,
            method=method,
            solvers=load_solvers,
            time_limit_s=time_limit_s,
        )
        done = await job.all(self._runs)
        self.waits += [why for _, why in sorted(done.waits.items()) if why not in self.waits]
        await do(self.finish)
        self._tell_plan(done)

    async def begin(self, conn: AsyncConnection) -> Method:
        """Say who it is; find the runs of the cycle, or the run, and how is chosen among them."""
        from settlement.model import RunState
        from settlement.netting.model import Method
        from settlement.queries import get_cycle
        from settlement.windows import get_window

        self._operator = (await self.who.person(conn)).operator
        await self.read(conn)
        if all(item.id == self.target for item in self._runs) and self._runs[0].state in {
            RunState.CALCULATED,
            RunState.AFFIRMED,
        }:
            raise Refused(
                f"run {self.target} is {self._runs[0].state}",
                remedy="Only a sealed run is released",
            )
        cycle_id = self._runs[0].cycle_id
        if cycle_id is None:
            return Method.OPTIMAL
        cycle = await get_cycle(conn, cycle_id)
        window = await get_window(conn, cycle.book, cycle.window, cycle.window_version)
        return Method(window.method)

    async def read(self, conn: AsyncConnection) -> None:
        """Read the runs as they stand."""
        from settlement.queries import get_run, list_cycle_runs

        runs = await list_cycle_runs(conn, self.target)
        self._runs = runs or [await get_run(conn, self.target)]

    async def finish(self, conn: AsyncConnection) -> None:
        """Record what is final, and read how everything stands."""
        from settlement.model import Direction, InstructionState, cycle_state
        from settlement.release import record_finality

        now = clock().now()
        done = await record_finality(conn, [item.id for item in self._runs], now=now)
        money = await Money.load(conn)
        items = await self._instructions(conn)
        self.rows = [instruction_row(item, money) for item in items]
        self.waits += [
            f"{item.party} has to pay {money.text(item.remaining, item.asset)}"
            for item in items
            if item.direction is Direction.RECEIVE and item.state is InstructionState.RELEASED
        ]
        self.facts = (
            run_facts(done[0])
            if done[0].id == self.target
            else {
                "id": str(self.target),
                "state": str(cycle_state({item.state for item in done})),
                "runs": str(len(done)),
            }
        )

    async def _release_runs(self, conn: AsyncConnection) -> None:
        from settlement.model import RunState
        from settlement.releasing import release_runs

        sealed = [item.id for item in self._runs if item.state is RunState.SEALED]
        await release_runs(conn, sealed, by=self.operator, now=clock().now())

    async def _pay_from(self, do: Do, wallet: str) -> None:
        """Make the payouts of what may leave, from the place that was named."""
        from settlement.release import releasable, release_payment

        by_run: dict[UUID, list[Instruction]] = {}
        for item in await do(self._instructions):
            by_run.setdefault(item.run_id, []).append(item)
        for items in by_run.values():
            for item in releasable(items):

                async def pay(conn: AsyncConnection, item: Instruction = item) -> None:
                    await release_payment(
                        conn,
                        item.run_id,
                        item.id,
                        source_wallet=wallet,
                        by=self.operator,
                        now=clock().now(),
                    )

                try:
                    await do(pay)
                except Refused as no:
                    self.waits.append(str(no))

    async def _instructions(self, conn: AsyncConnection) -> list[Instruction]:
        from settlement.queries import list_instructions_of_runs

        return await list_instructions_of_runs(conn, [item.id for item in self._runs])

    def _tell_plan(self, done: CycleReleased) -> None:
        if done.plan is None:
            return
        choice = done.plan.choice
        self.facts |= {
            "plan": str(done.plan.number),
            "method": choice.method,
            "chosen": str(len(choice.chosen) + len(choice.partial)),
            "gap_ppm": str(choice.gap_ppm),
        }


def release(
    run_id: Annotated[UUID, typer.Argument(metavar="RUN", help="Id of the run, or of the cycle.")],
    *,
    wallet: Annotated[
        str | None,
        typer.Option("--from", help="What pays: a wallet or bank account; else it is chosen."),
    ] = None,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Release a sealed run or cycle, and move everything of it that may move now.

    Receipts are awaited; prefunded parties settle by book; what can be paid with what is held is chosen
    and held, and becomes a payout, which needs its approvals, once what its party owes is final or a
    settlement limit bears it. Give the command again to go on.

    Example: `causeway settle release 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --from house-hot --as ada --key ada.key`
    """
    job = _Release(run_id, wallet, credentials(as_, key))

    async def on(engine: AsyncEngine) -> None:
        from app.workers.cycle_release import BehindSavepoints, InTransactions

        if dry_run:
            await rehearse(
                engine,
                lambda conn: job.all(BehindSavepoints(conn), time_limit_s=REHEARSAL_LIMIT_S),
            )
        else:
            await job.all(InTransactions(engine), time_limit_s=SOLVER_LIMIT_S)

    run(lambda: on_database(on))
    if as_json:
        items = [dict(zip(INSTRUCTION_COLUMNS, row, strict=True)) for row in job.rows]
        document: dict[str, object] = {**job.facts, "instructions": items, "waits": job.waits}
        emit({**document, "dry_run": True} if dry_run else document)
        return
    show(f"Release of {run_id}, {job.facts['state']}", INSTRUCTION_COLUMNS, job.rows, as_json=False)
    for reason in job.waits:
        typer.echo(f"waits: {reason}")


def reschedule(
    run_id: Annotated[UUID, typer.Argument(metavar="RUN", help="Id of the settlement run.")],
    instruction_id: Annotated[UUID, typer.Argument(metavar="INSTRUCTION", help="It has failed.")],
    *,
    reason: Reason,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Begin the next attempt of a failed instruction: `causeway settle release` can move it again.

    Example: `causeway settle reschedule 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 0198f2c4-7d21-8a6e-9c30-000000000001
    --reason "new address" --as ada --key ada.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from settlement.release import reschedule as verb

        me = await who.person(conn)
        done = await verb(
            conn, run_id, instruction_id, by=me.operator, reason=reason, now=clock().now()
        )
        row = instruction_row(done, await Money.load(conn))
        return dict(zip(INSTRUCTION_COLUMNS, row, strict=True))

    show_one("Instruction", write(work), as_json=as_json)


def let_go(
    run_id: Annotated[UUID, typer.Argument(metavar="RUN", help="Id of the settlement run.")],
    instruction_id: Annotated[
        UUID, typer.Argument(metavar="INSTRUCTION", help="Its coins are held.")
    ],
    *,
    reason: Reason,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Give back the coins that are held for a payment, which can then be chosen anew.

    Of a book settlement that is held and not settled every side is given back; each has failed then, and
    `causeway settle reschedule` begins its next attempt. For a party in default nothing is held again. Of others, a window that the clock releases chooses
    again at its next turn, from what there is then.

    Example: `causeway settle let-go 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 0198f2c4-7d21-8a6e-9c30-000000000001
    --reason "its party is in default" --as ada --key ada.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from settlement.book_rail import cancel_book
        from settlement.errors import NotReleasable
        from settlement.holding import let_go as verb
        from settlement.queries import list_run_instructions
        from settlement.release_model import BookSettlement
        from trading.terms.model import Rail

        me = await who.person(conn)
        now = clock().now()
        named = [i for i in await list_run_instructions(conn, run_id) if i.id == instruction_id]
        if named and named[0].rail is Rail.BOOK:
            asked = [BookSettlement(run_id, named[0].party)]
            sides = await cancel_book(conn, asked, by=me.operator, reason=reason, now=now)
            done = [side for side in sides if side.id == instruction_id]
        else:
            done = await verb(
                conn, [run_id], [instruction_id], by=me.operator, reason=reason, now=now
            )
        if not done:
            raise NotReleasable(
                f"no coins are held for instruction {instruction_id} of run {run_id}",
                remedy="`causeway settle explain RUN` shows its instructions",
            )
        row = instruction_row(done[0], await Money.load(conn))
        return dict(zip(INSTRUCTION_COLUMNS, row, strict=True))

    facts = write(work, dry_run=dry_run)
    show_one("Instruction", facts, as_json=as_json, dry_run=dry_run)
