"""Stopping a chain, by the machine or by one person; going on, by two.

Two operators sign what they decide over: which halt it is, why it came, how deep the next walk-back
may go. A signature for one halt is none for the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.model import REORG_DEPTH_MAX, FollowState
from chain.store import FollowingRow, ensure_following, load_following, write_following
from kernel.errors import BadInput, Refused
from kernel.events import DomainEvent, list_history, next_version, record
from registry.authority import (
    require_role,
    signatures_document,
    signing_bytes,
    verify_signature,
)
from registry.model import Role
from registry.queries import get_operator

RESUME_VERB: Final = "chain.resume"
RESUMERS: Final = 2
RESUMER_ROLES: Final = (Role.OPERATIONS, Role.TREASURER, Role.ADMIN)
REASON_LENGTH_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """What two operators sign to let a chain be followed again.

    Attributes:
        halt: which halt of the chain it is: the version of the event that recorded it.
        halted_because: its reason.
        depth: blocks that the next walk-back may orphan; spent by it, or by the next block read.
        reason: why it is right to go on.
    """

    chain: str
    halt: int
    halted_because: str
    depth: int
    reason: str

    def payload(self) -> bytes:
        """Return the bytes to sign."""
        return signing_bytes(RESUME_VERB, asdict(self))


async def halt(conn: AsyncConnection, chain: str, *, by: str, reason: str, now: datetime) -> None:
    """Stop following *chain* until two operators resume it; halting twice changes nothing."""
    await ensure_following(conn, chain, now=now)
    row = await load_following(conn, chain, lock=True)
    if row is None or row.state is FollowState.HALTED:
        return
    await write_following(conn, chain, FollowState.HALTED, reason, None)
    change = (FollowState.RUNNING, FollowState.HALTED)
    await note(conn, row, "ChainHalted", change, by, now, reason=reason)


async def resume_request(
    conn: AsyncConnection, chain: str, *, reason: str, depth: int
) -> ResumeRequest:
    """Return what is to be signed to resume *chain* as it is halted now.

    Raises:
        Refused: the chain is not halted, or such a walk-back is not possible.
        BadInput: no reason, or too long a one.
    """
    return _request(await _require_halted(conn, chain), await _halts(conn, chain), reason, depth)


async def resume(
    conn: AsyncConnection,
    chain: str,
    *,
    signatures: Mapping[str, bytes],
    reason: str,
    depth: int,
    now: datetime,
) -> None:
    """Let a halted chain be followed again, and the next walk-back go as deep as *depth* blocks.

    Args:
        conn: a transaction of the caller's.
        chain: the chain's code.
        signatures: of `ResumeRequest.payload`, by operator; exactly two operators.
        reason: why it is right to go on.
        depth: blocks that the next walk-back may orphan; spent by it, or by the next block read.
        now: the time that the event carries.

    Raises:
        Refused: not two different operators, or the chain is not halted.
        NotAuthorised: a signature is not theirs, or not of this, or they may not do this.
    """
    if len(signatures) != RESUMERS or not all(signatures):
        raise Refused("a chain is resumed by two different operators")
    row = await _require_halted(conn, chain, lock=True)
    request = _request(row, await _halts(conn, chain), reason, depth)
    for code, signature in signatures.items():
        operator = await get_operator(conn, code)
        require_role(operator, *RESUMER_ROLES)
        verify_signature(operator, request.payload(), signature)
    await write_following(conn, chain, FollowState.RUNNING, "", depth)
    first, second = signatures
    payload = {
        "approved_by": second,
        "depth": depth,
        "signatures": signatures_document(signatures),
    }
    change = (FollowState.HALTED, FollowState.RUNNING)
    await note(conn, row, "ChainResumed", change, first, now, reason=reason, payload=payload)


async def list_chain_history(conn: AsyncConnection, chain: str) -> list[DomainEvent]:
    """Return what happened to following *chain*, oldest first; empty when it never was followed."""
    row = await load_following(conn, chain)
    return [] if row is None else await list_history(conn, "chain", row.id)


async def note(
    conn: AsyncConnection,
    row: FollowingRow,
    name: str,
    change: tuple[StrEnum, StrEnum] | None,
    actor: str,
    now: datetime,
    *,
    reason: str = "",
    payload: Mapping[str, object] | None = None,
) -> None:
    """Record an event of the chain, whose row the caller has locked."""
    event = DomainEvent(
        entity_type="chain",
        entity_id=row.id,
        version=await next_version(conn, "chain", row.id),
        name=name,
        at=now,
        actor=actor,
        reason=reason,
        from_state=None if change is None else change[0],
        to_state=None if change is None else change[1],
        payload={"chain": row.chain, **(payload or {})},
    )
    await record(conn, [event])


async def _require_halted(conn: AsyncConnection, chain: str, *, lock: bool = False) -> FollowingRow:
    row = await load_following(conn, chain, lock=lock)
    if row is None or row.state is not FollowState.HALTED:
        raise Refused(f"{chain} is not halted")
    return row


async def _halts(conn: AsyncConnection, chain: str) -> int:
    row = await load_following(conn, chain)
    return 0 if row is None else await next_version(conn, "chain", row.id) - 1


def _request(row: FollowingRow, halted_at: int, reason: str, depth: int) -> ResumeRequest:
    if not 0 <= depth <= REORG_DEPTH_MAX:
        raise Refused(f"a walk-back of {depth} blocks is not possible, at most {REORG_DEPTH_MAX}")
    if not 0 < len(reason) <= REASON_LENGTH_MAX:
        raise BadInput(f"a reason has 1 to {REASON_LENGTH_MAX} characters")
    return ResumeRequest(row.chain, halted_at, row.reason, depth, reason)
