"""Asking the signer in the name of a database that shows itself: a mark before every question.

The mark is committed before the signer is asked, so the database never knows less than what was signed
for it; if it does, it was set back. Then the signer refuses, and so does this side, which first compares:
the signer's newest mark must be among the database's own, and the signer must know at least the newest
that it has told this database before.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.control_messages import ControlMessage
from custody.payout_tables import payout as payout_table
from custody.restore import store
from custody.restore.finding import begin
from custody.restore.model import RestoreState
from custody.restore.ports import MarkedSigner
from custody.restore_gate import STATUS, find_gate
from custody.restore_marks import FIRST_TOKEN, MARKS_MAX, About, Mark, Shown
from custody.signer.errors import SignerPostponed, StoreUnusable
from custody.signer.wire import (
    Accepted,
    Audited,
    Checkpointed,
    Health,
    Intent,
    No,
    Signed,
    SignedApproval,
    SignRequest,
    SpendIntent,
)
from kernel.clock import Clock
from kernel.db import transact

SIGNER: Final = "signer:"
SHOWN_BYTES_MAX: Final = 262_144
"""Most bytes of marks in a question: a quarter of the largest frame, the rest is for what is asked."""


@dataclass(frozen=True, slots=True)
class WitnessedSigner:
    """A signer that is shown a mark with every question; implements `custody.ports.ControlledSigner`."""

    engine: AsyncEngine
    signer: MarkedSigner
    clock: Clock

    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        """Return the signed bytes; see `custody.ports.PayoutSigner`."""
        shown = await self._show([intent.payout_id])
        return await self.signer.sign(intent, unsigned, approvals, shown=shown)

    async def sign_many(
        self, requests: Sequence[SignRequest], approvals: Sequence[SignedApproval]
    ) -> list[Signed | No]:
        """Return one answer for each request; see `custody.ports.PayoutSigner`."""
        shown = await self._show([item.intent.payout_id for item in requests])
        return await self.signer.sign_many(requests, approvals, shown=shown)

    async def sign_spend(
        self, intent: SpendIntent, psbt: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        """Return the signed Bitcoin transaction; see `custody.ports.PayoutSigner`."""
        shown = await self._show([line.payout_id for line in intent.lines])
        return await self.signer.sign_spend(intent, psbt, approvals, shown=shown)

    async def account_xpub(self, path: str) -> str:
        """Return the extended public key of the account at *path*."""
        return await self.signer.account_xpub(path)

    async def health(self) -> Health:
        """Return which keys and which store answer."""
        return await self.signer.health()

    async def control(self, message: ControlMessage) -> Accepted | No:
        """Hand a control message over."""
        return await self.signer.control(message)

    async def checkpoint(self, *, since: int = 0) -> Checkpointed:
        """Return the signed checkpoint of the signer's log."""
        return await self.signer.checkpoint(since=since)

    async def audit(self, index: int, *, size: int) -> Audited:
        """Return a record of the signer's log."""
        return await self.signer.audit(index, size=size)

    async def _show(self, payouts: Collection[UUID]) -> Shown:
        health = await self.signer.health()

        async def prepare(conn: AsyncConnection) -> Shown | str:
            return await _prepare(conn, health, payouts, self.clock)

        shown = await transact(self.engine, prepare)
        if isinstance(shown, str):
            raise SignerPostponed(shown, remedy=STATUS)
        while len(fitting := fit(shown.marks)) < len(shown.marks) or len(fitting) == MARKS_MAX:
            # More than one question may carry: those of a long time in which no answer came.
            known = await self.signer.witness(Shown(marks=fitting, seen=shown.seen))
            async with self.engine.connect() as conn:
                marks = await store.list_marks(conn, known, MARKS_MAX)
            shown = Shown(marks=marks or shown.marks[-1:], seen=known)
        return shown


def fit(marks: Sequence[Mark]) -> list[Mark]:
    """Return as many of the first marks as a question has room for, at least one. Pure."""
    total, taken = 0, 0
    for item in marks:
        total += len(msgspec.json.encode(item))
        if taken and total > SHOWN_BYTES_MAX:
            break
        taken += 1
    return list(marks[:taken])


async def compare(conn: AsyncConnection, health: Health) -> str:
    """Return what the signer's marks say against this database, in words; "": nothing.

    Raises:
        StoreUnusable: it is the signer's store that is older.
        SignerPostponed: two people have opened a restore, and the signer was not told yet.
    """
    seen = await store.witnessed(conn, SIGNER + health.verifier_key)
    if seen is not None and health.mark < seen and not await _was_opened_at(conn, health.mark):
        raise StoreUnusable(
            f"the signer knows mark {health.mark}, and it told this database of mark {seen}",
            where=health.verifier_key,
            remedy="Stop it: its store is older than what it has signed. Bring the newest copy back",
        )
    if health.mark == 0:
        return ""
    if await store.token_of(conn, health.mark) == health.mark_token:
        return ""
    for item in await store.list_restores(conn):
        known = (item.signer_mark, item.signer_token) == (health.mark, health.mark_token)
        if item.state is RestoreState.OPEN and known:
            raise SignerPostponed(
                "two people have opened the doors after a restore; the signer was not told yet",
                remedy="The house tells it by itself; see `causeway custody signer messages`",
            )
    last, _, _ = await store.last_mark(conn)
    return (
        f"the signer was shown mark {health.mark}, which this database does not have: it knows {last}"
        " of them"
    )


async def _was_opened_at(conn: AsyncConnection, mark: int) -> bool:
    """Tell whether an opened restore went on from this mark: the signer knows no later one then."""
    return any(
        item.state is RestoreState.OPEN and item.mark == mark
        for item in await store.list_restores(conn)
    )


async def find_common(engine: AsyncEngine, signer: MarkedSigner, newest: int) -> tuple[int, str]:
    """Return the newest mark that this database and the signer both know; (0, "") if none.

    Args:
        engine: the database; no connection is held while the signer is asked.
        signer: the signer.
        newest: the newest mark that it has.
    """
    async with engine.connect() as conn:
        last, _, _ = await store.last_mark(conn)
    # Two lines are one up to where they part, and never again: what is asked for is halved.
    low, high, common = 0, min(last, newest), FIRST_TOKEN
    while low < high:
        middle = (low + high + 1) // 2
        async with engine.connect() as conn:
            token = await store.token_of(conn, middle)
        if token is not None and await signer.mark(middle) == token:
            low, common = middle, token
        else:
            high = middle - 1
    return low, common


async def _prepare(
    conn: AsyncConnection, health: Health, payouts: Collection[UUID], clock: Clock
) -> Shown | str:
    """Commit a mark, and return what the signer is shown; or why it is not asked, which is kept."""
    now = clock.now()
    gate = await find_gate(conn)
    if gate is not None:
        return gate.reason
    found = await compare(conn, health)
    if found:
        await begin(conn, found, now=now)
        return f"the database was restored: {found}"
    await store.append_mark(conn, await _about(conn, payouts), now=now)
    await store.save_witnessed(conn, SIGNER + health.verifier_key, health.mark, now)
    marks = await store.list_marks(conn, health.mark, MARKS_MAX)
    return Shown(marks=marks, seen=health.mark)


async def _about(conn: AsyncConnection, payouts: Collection[UUID]) -> list[About]:
    table = payout_table
    rows = await conn.execute(select(table).where(table.c.id.in_(payouts)).order_by(table.c.id))
    return [_about_row(row) for row in rows]


def _about_row(row: Any) -> About:
    return About(
        payout_id=row.id,
        book=row.book,
        claim=row.claim,
        client_ref=row.client_ref,
        rail=row.rail,
        asset=row.asset,
        amount=str(row.amount),
        native_asset=row.native_asset,
        reason=row.reason,
    )
