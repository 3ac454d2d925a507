"""``causeway settle release``: everything of a sealed run that may move now, one step at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeAlias
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

    from registry.model import Operator
    from settlement.model import Instruction

Step: TypeAlias = "Callable[[AsyncConnection], Awaitable[None]]"
Do: TypeAlias = Callable[[Step], Awaitable[None]]
"""Runs one step in a transaction of its own (or, in a rehearsal, behind a savepoint)."""


@dataclass(slots=True)
class _Release:
    """One call of the command: what it was asked, what it found, what could not move and why."""

    run_id: UUID
    wallet: str | None
    who: Credentials
    waits: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    rows: list[tuple[str, ...]] = field(default_factory=list)
    _operator: Operator | None = None
    _instructions: list[Instruction] = field(default_factory=list)

    @property
    def operator(self) -> Operator:
        assert self._operator is not None, "begin comes first"
        return self._operator

    async def all(self, do: Do) -> None:
        """Do every step; one that is refused leaves the others to go on."""
        from settlement.model import Direction, InstructionState, Rail
        from settlement.release import releasable

        await do(self.begin)
        for item in releasable(self._instructions):
            await self._try(do, partial(self.pay, item=item))
        ours = [i for i in self._instructions if i.rail is Rail.BOOK]
        planned = {i.party for i in ours if i.state is InstructionState.PLANNED}
        held = {i.party for i in ours if i.state is InstructionState.RELEASED}
        for party in sorted(planned | held):
            if party in planned and not await self._try(do, partial(self.accept, party=party)):
                continue
            await self._try(do, partial(self.settle, party=party))
        await do(self.finish)
        self.waits += [
            f"{row[1]} has to pay {row[3]}"
            for row in self.rows
            if row[2] == Direction.RECEIVE and row[6] == InstructionState.RELEASED
        ]

    async def begin(self, conn: AsyncConnection) -> None:
        """Release the run unless it is released already."""
        from settlement.model import RunState
        from settlement.queries import get_run, list_run_instructions
        from settlement.release import release_run

        self._operator = (await self.who.person(conn)).operator
        if (await get_run(conn, self.run_id)).state is not RunState.RELEASED:
            await release_run(conn, self.run_id, by=self.operator, now=clock().now())
        self._instructions = await list_run_instructions(conn, self.run_id)

    async def pay(self, conn: AsyncConnection, *, item: Instruction) -> None:
        """Make the payout of one instruction."""
        from settlement.release import release_payment

        if self.wallet is None:
            raise Refused(
                f"the desk owes {item.party} on chain", remedy="Name the wallet that pays: --from"
            )
        await release_payment(
            conn,
            self.run_id,
            item.id,
            source_wallet=self.wallet,
            by=self.operator,
            now=clock().now(),
        )

    async def accept(self, conn: AsyncConnection, *, party: str) -> None:
        """Hold both sides of a prefunded party's settlement."""
        from settlement.book_rail import accept_book

        await accept_book(conn, self.run_id, party, by=self.operator, now=clock().now())

    async def settle(self, conn: AsyncConnection, *, party: str) -> None:
        """Post both sides; that commit is final."""
        from settlement.book_rail import settle_book

        await settle_book(conn, self.run_id, party, by=self.operator, now=clock().now())

    async def finish(self, conn: AsyncConnection) -> None:
        """Record what is final, and read how everything stands."""
        from settlement.queries import list_run_instructions
        from settlement.release import record_finality

        done = await record_finality(conn, self.run_id, now=clock().now())
        money = await Money.load(conn)
        self.facts = run_facts(done)
        found = await list_run_instructions(conn, self.run_id)
        self.rows = [instruction_row(item, money) for item in found]

    async def _try(self, do: Do, step: Step) -> bool:
        try:
            await do(step)
        except Refused as no:
            self.waits.append(str(no))
            return False
        return True


def release(
    run_id: Annotated[UUID, typer.Argument(metavar="RUN", help="Id of the settlement run.")],
    *,
    wallet: Annotated[
        str | None, typer.Option("--from", help="The wallet that pays what the desk owes on chain.")
    ] = None,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Release a sealed run, and move everything of it that may move now.

    Receipts are awaited; prefunded parties settle by book; a payment on chain becomes a payout,
    which needs its approvals, once what its party owes is final. Give the command again to go on.

    Example: `causeway settle release 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --from house-hot --as ada --key ada.key`
    """
    job = _Release(run_id, wallet, credentials(as_, key))
    if dry_run:
        write(lambda conn: _rehearse(conn, job), dry_run=True)
    else:
        run(lambda: on_database(lambda engine: _for_real(engine, job)))
    if as_json:
        items = [dict(zip(INSTRUCTION_COLUMNS, row, strict=True)) for row in job.rows]
        document: dict[str, object] = {**job.facts, "instructions": items, "waits": job.waits}
        emit({**document, "dry_run": True} if dry_run else document)
        return
    show(f"Run {run_id}, {job.facts['state']}", INSTRUCTION_COLUMNS, job.rows, as_json=False)
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


async def _for_real(engine: AsyncEngine, job: _Release) -> None:
    from kernel.db import transact

    await job.all(lambda step: transact(engine, step))


async def _rehearse(conn: AsyncConnection, job: _Release) -> None:
    async def do(step: Step) -> None:
        async with conn.begin_nested():
            await step(conn)

    await job.all(do)
