"""Moving a spend, its attempts and its payouts along their machines together: rows and events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import payout_rows
from custody.bitcoin import spend_store as store
from custody.bitcoin.spend_model import (
    PAYOUT_STATE,
    SPEND_ATTEMPT_STATES,
    SPEND_STATES,
    Spend,
    SpendAttempt,
    SpendPayout,
    SpendState,
)
from custody.payout_events import WORKER, event_name
from custody.payout_model import AttemptState, Payout, PayoutState
from custody.payout_moves import Move, move_payouts
from kernel.events import DomainEvent, next_version

SPEND: Final = "spend"
ATTEMPT: Final = "spend_attempt"
REASON_LENGTH_MAX: Final = 500
NOT_MINED: Final = {
    "tx_id": None,
    "mined_height": None,
    "mined_block": None,
    "fee_paid": None,
    "succeeded": None,
}
PAYOUT_NOT_MINED: Final = {
    "fee_paid": None,
    "succeeded": None,
    "tx_hash": None,
    "mined_height": None,
    "mined_block": None,
}


@dataclass(frozen=True, slots=True)
class Carried:
    """A spend with what it carries and its attempts; its row and its payouts' are locked."""

    spend: Spend
    payouts: tuple[Payout, ...]
    parts: tuple[SpendPayout, ...]
    attempts: tuple[SpendAttempt, ...]

    @property
    def current(self) -> SpendAttempt:
        """Return the attempt that is worked on."""
        return next(item for item in self.attempts if item.number == self.spend.attempt)

    @property
    def signed(self) -> tuple[SpendAttempt, ...]:
        """Return the attempts that have bytes, the first one first."""
        return tuple(item for item in self.attempts if item.raw is not None)


async def load_carried(conn: AsyncConnection, spend_id: UUID, *, lock: bool = False) -> Carried:
    """Return a spend and what belongs to it; with *lock* its row and then its payouts' are locked."""
    found = await store.get_spend(conn, spend_id, lock=lock)
    parts = await store.list_payouts(conn, spend_id)
    ids = [item.payout_id for item in parts]
    if lock:
        payouts = await payout_rows.lock_many(conn, ids)
    else:
        payouts = await store.find_payouts(conn, ids)
    attempts = await store.list_attempts(conn, spend_id)
    return Carried(found, tuple(payouts[key] for key in ids), tuple(parts), tuple(attempts))


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendMove:
    """A spend on its way to another state, and its payouts with it.

    Attributes:
        values: what is written to the spend.
        of_payout: what is written to each payout.
        payouts_to: where the payouts go, if not where the spend's state puts them.
        fence: under which the worker claimed it; None: the caller has locked the row.
    """

    carried: Carried
    to: SpendState
    values: Mapping[str, Any] = field(default_factory=dict)
    of_payout: Callable[[Payout], Mapping[str, Any]] = lambda _: {}
    payouts_to: PayoutState | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    name: str = ""
    payout_name: str = ""
    actor: str = WORKER
    fence: int | None = None


async def move_spend(
    conn: AsyncConnection, move: SpendMove, *, now: datetime
) -> tuple[Carried, list[DomainEvent]]:
    """Write the new states; return the spend and its payouts as they are now, and the events.

    Raises:
        Refused: a machine has no such edge.
        StaleFence: another worker has claimed the spend.
    """
    spend = move.carried.spend
    SPEND_STATES.require(spend.state, move.to)
    reason = move.reason[:REASON_LENGTH_MAX]
    await store.update_spend(conn, spend.id, fence=move.fence, state=move.to, **move.values)
    told = DomainEvent(
        entity_type=SPEND,
        entity_id=spend.id,
        version=await next_version(conn, SPEND, spend.id),
        name=move.name or event_name("Spend", move.to),
        at=now,
        actor=move.actor,
        reason=reason,
        from_state=spend.state,
        to_state=move.to,
        payload={"wallet": spend.wallet, **move.payload},
    )
    target = move.payouts_to or PAYOUT_STATE[move.to]
    moved, events = await move_payouts(
        conn,
        [
            Move(
                payout=payout,
                to=target,
                values=move.of_payout(payout),
                payload={"spend_id": str(spend.id), **move.payload},
                reason=reason,
                name=move.payout_name,
                actor=move.actor,
            )
            for payout in move.carried.payouts
        ],
        now=now,
    )
    after = replace(
        move.carried,
        spend=replace(spend, state=move.to, **move.values),
        payouts=tuple(moved[item.id] for item in move.carried.payouts),
    )
    return after, [told, *events]


async def move_attempt(
    conn: AsyncConnection,
    attempt: SpendAttempt,
    to: AttemptState,
    *,
    now: datetime,
    reason: str = "",
    name: str = "",
    actor: str = WORKER,
    **values: Any,
) -> tuple[SpendAttempt, DomainEvent]:
    """Write an attempt's new state; its spend is locked."""
    SPEND_ATTEMPT_STATES.require(attempt.state, to)
    await store.update_attempt(conn, attempt.id, state=to, **values)
    told = DomainEvent(
        entity_type=ATTEMPT,
        entity_id=attempt.id,
        version=await next_version(conn, ATTEMPT, attempt.id),
        name=name or event_name("SpendAttempt", to),
        at=now,
        actor=actor,
        reason=reason[:REASON_LENGTH_MAX],
        from_state=attempt.state,
        to_state=to,
        payload={"spend_id": str(attempt.spend_id), "tx_id": attempt.tx_id},
    )
    return replace(attempt, state=to, **values), told


async def given_out(
    conn: AsyncConnection, attempt: SpendAttempt, *, by: str, now: datetime
) -> DomainEvent:
    """Return the event of an attempt that a person took away to be signed."""
    return DomainEvent(
        entity_type=ATTEMPT,
        entity_id=attempt.id,
        version=await next_version(conn, ATTEMPT, attempt.id),
        name="SpendAttemptGivenOut",
        at=now,
        actor=by,
        from_state=attempt.state,
        to_state=attempt.state,
        payload={"spend_id": str(attempt.spend_id), "tx_id": attempt.tx_id},
    )


def begun(spend: Spend, payouts: Sequence[Payout], *, now: datetime, fee: int) -> DomainEvent:
    """Return the event with which a spend begins."""
    return DomainEvent(
        entity_type=SPEND,
        entity_id=spend.id,
        version=1,
        name="SpendAllocated",
        at=now,
        actor=WORKER,
        from_state=None,
        to_state=spend.state,
        payload={
            "wallet": spend.wallet,
            "anchor": str(spend.anchor),
            "payouts": [str(item.id) for item in payouts],
            "fee": str(fee),
        },
    )
