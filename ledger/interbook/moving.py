"""The verbs of a move between books. Each call of `advance_move` is one step in one book.

Locks of a step: the move's row, then the head of the one book; behind that nothing waits. The ids
follow from the row, and the row says which step is next: so a step is done once, whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.clock import to_unix_ms
from kernel.errors import Refused
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from kernel.jobs import enqueue
from ledger.accounts import ensure_accounts
from ledger.answers import first_refusal
from ledger.interbook import store
from ledger.interbook.errors import MoveNotPossible, MoveReferenceTaken
from ledger.interbook.model import JOB, NOT_COVERED, NOT_HELD, Move, MoveRequest, MoveState
from ledger.interbook.postings import arrived, check_request, held, move_bytes, returned, settled
from ledger.model import Transfer
from ledger.people import require_approver, require_proposer
from ledger.posting import lock_book, post, require_applied
from ledger.queries import get_balance, head
from registry.queries import get_asset

ENTITY: Final = "book-move"
WORKER: Final = "system:book-mover"
SLOTS_MAX: Final = 1_000
"""Milliseconds after the request at which its job may be slotted: each slot takes one move."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

get_move = store.get_move


async def list_moves(
    conn: AsyncConnection,
    *,
    book: int | None = None,
    states: Collection[MoveState] = tuple(MoveState),
    after: UUID | None = None,
    limit: int = store.PAGE_MAX,
) -> list[Move]:
    """Return a page of the moves in the given states, oldest first.

    Args:
        conn: a connection to read with.
        book: only those from or to this book.
        states: only those in one of these.
        after: id of the last one of the page before.
        limit: how many at most; never more than `store.PAGE_MAX`.
    """
    return await store.list_moves(conn, book=book, states=states, after=after, limit=limit)


def derive_move_id(request: MoveRequest, now: datetime) -> UUID:
    """Return the id that the move gets when it is requested at *now*: the approver signs it."""
    return derive_id(now, ENTITY, request.from_book, request.reference)


async def request_move(
    conn: AsyncConnection,
    request: MoveRequest,
    *,
    by: str,
    approver: str,
    signature: bytes,
    now: datetime,
) -> Move:
    """Enter a move and the job that drives it; the same request again returns it as it stands.

    Args:
        conn: the caller's transaction.
        request: what goes where.
        by: code of the operator who asks, authenticated by the caller.
        approver: code of another operator.
        signature: the approver's, Ed25519, over `postings.move_bytes` with `derive_move_id`.
        now: the time of the request.

    Raises:
        NotAuthorised: one person, a missing role, or a signature of other content.
        MoveNotPossible: the accounts do not fit each other, or do not exist.
        BookNotOpen: one of the books is not open.
        MoveReferenceTaken: the reference names a move of other content.
    """
    check_request(request)
    operator = await require_proposer(conn, by)
    move = Move(
        id=derive_move_id(request, now),
        request=request,
        state=MoveState.REQUESTED,
        outcome="",
        requested_by=operator.code,
        approved_by=approver,
        created_at=now,
    )
    await require_approver(
        conn,
        approver,
        proposed_by=operator.code,
        payload=move_bytes(move.id, request, operator.code),
        signature=signature,
    )
    await get_asset(conn, request.asset)
    await _require_accounts(conn, request)
    if not await store.insert_move(conn, move, signature):
        known = await store.get_move_by_reference(conn, request.from_book, request.reference)
        if known.request != request:
            raise MoveReferenceTaken(
                f"{request.reference} is on record with other content",
                where=f"move {known.id}",
                remedy="Use a reference of its own for a new move",
            )
        return known
    await _enqueue(conn, move)
    await _record(conn, move, None, actor=operator.code, reason=request.reason, now=now)
    return move


async def advance_move(conn: AsyncConnection, move_id: UUID, *, now: datetime) -> Move:
    """Do the next step of a move, in one book; where none is left, return the move as it stands.

    Commit whatever comes back: what a book refuses is recorded and takes the move another way.
    """
    move = await store.get_move(conn, move_id, lock=True)
    match move.state:
        case MoveState.REQUESTED:
            return await _hold(conn, move, now)
        case MoveState.HELD:
            return await _arrive(conn, move, now)
        case MoveState.ARRIVED:
            return await _resolve(conn, move, settled, MoveState.SETTLED, now)
        case MoveState.BOUNCED:
            return await _resolve(conn, move, returned, MoveState.RETURNED, now)
        case MoveState.SETTLED | MoveState.REFUSED | MoveState.RETURNED:
            return move


async def rehearse_arrival(conn: AsyncConnection, move: Move, *, now: datetime) -> Move:
    """Ask the second book whether it would take a move; return what would become of it.

    The caller rolls back: a rehearsal, too, is one transaction for each book.
    """
    request = move.request
    refusal = await _post(conn, request.to_book, arrived(move), _arriving(request), now=now)
    state = MoveState.RETURNED if refusal else MoveState.SETTLED
    return replace(move, state=state, outcome=refusal)


async def _hold(conn: AsyncConnection, move: Move, now: datetime) -> Move:
    request = move.request
    refusal = await _post(conn, request.from_book, held(move), _leaving(request), now=now)
    to = MoveState.REFUSED if refusal else MoveState.HELD
    return await _step(conn, move, to, refusal, now)


async def _arrive(conn: AsyncConnection, move: Move, now: datetime) -> Move:
    request = move.request
    refusal = await _post(conn, request.to_book, arrived(move), _arriving(request), now=now)
    to = MoveState.BOUNCED if refusal else MoveState.ARRIVED
    return await _step(conn, move, to, refusal, now)


async def _resolve(
    conn: AsyncConnection,
    move: Move,
    postings: Callable[[Move], Sequence[Transfer]],
    to: MoveState,
    now: datetime,
) -> Move:
    # Holds of moves have no expiry and nobody else resolves them, so this is never refused.
    require_applied(await post(conn, move.request.from_book, postings(move), now=now))
    return await _step(conn, move, to, "", now)


async def _post(
    conn: AsyncConnection,
    book: int,
    transfers: Sequence[Transfer],
    change: tuple[str, str, int],
    *,
    now: datetime,
) -> str:
    """Post a chain and return why it was refused, "" where it was not.

    Args:
        conn: the step's transaction.
        book: the one book of the step.
        transfers: the chain.
        change: path of the holding, path of the claim, and by how much both change (below zero:
            they leave).
        now: block time.
    """
    asset = transfers[0].asset
    await lock_book(conn, book)
    if not await _is_held(conn, book, asset, change):
        return NOT_HELD
    if not await _is_covered(conn, book, asset, change):
        return NOT_COVERED
    keys = {(path, asset) for item in transfers for path in (item.debit, item.credit)}
    await ensure_accounts(conn, book, keys, now=now)
    return str(first_refusal(await post(conn, book, transfers, now=now)) or "")


async def _is_held(
    conn: AsyncConnection, book: int, asset: str, change: tuple[str, str, int]
) -> bool:
    """Tell whether a holding has what is to leave it, less what other holds have reserved.

    Nothing guards holdings, because facts move them too: a decision looks, under the lock.
    """
    holding, _, units = change
    if not holding or units >= 0:
        return True
    return (await get_balance(conn, book, holding, asset)).available + units >= 0


async def _is_covered(
    conn: AsyncConnection, book: int, asset: str, change: tuple[str, str, int]
) -> bool:
    """Tell whether clients stay covered; a change that does not concern them always may be."""
    holding, claim, units = change
    owner = "" if not holding else await store.find_owner(conn, book, holding, asset) or ""
    holdings = units if _is_clients(owner) else 0
    owed = units if claim.startswith("client:") else 0
    if holdings >= owed:
        return True
    held_now, owed_now = await store.read_cover(conn, book, asset)
    return held_now + holdings >= owed_now + owed


def _leaving(request: MoveRequest) -> tuple[str, str, int]:
    return request.funds_from, request.claim_from, -request.amount


def _arriving(request: MoveRequest) -> tuple[str, str, int]:
    return request.funds_to, request.claim_to, request.amount


def _is_clients(owner: str) -> bool:
    return owner == "client" or owner.startswith("client:")


async def _require_accounts(conn: AsyncConnection, request: MoveRequest) -> None:
    """Refuse holdings that are not open, or that belong to clients here and to the house there."""
    await head(conn, request.from_book)
    await head(conn, request.to_book)
    if not request.funds_from:
        return
    owners = []
    for book, path in (
        (request.from_book, request.funds_from),
        (request.to_book, request.funds_to),
    ):
        owner = await store.find_owner(conn, book, path, request.asset)
        if owner is None:
            raise MoveNotPossible(
                f"book {book} has no account {path} {request.asset}",
                remedy="A holding is opened with its owner class first",
            )
        owners.append(owner)
    if _is_clients(owners[0]) != _is_clients(owners[1]):
        raise MoveNotPossible(
            f"{request.funds_from} belongs to {owners[0]}, {request.funds_to} to {owners[1]}",
            remedy="Clients' money stays clients' money",
        )


async def _enqueue(conn: AsyncConnection, move: Move) -> None:
    """Insert the job in the first free millisecond: the slot is what makes a job unique."""
    begins = EPOCH + timedelta(milliseconds=to_unix_ms(move.created_at))
    for later in range(SLOTS_MAX):
        slot = begins + timedelta(milliseconds=later)
        payload = {"move": str(move.id)}
        if await enqueue(conn, JOB, slot, payload, run_after=move.created_at):
            return
    raise Refused(
        f"{SLOTS_MAX} moves between books were requested in one second", remedy="Try again"
    )


async def _step(
    conn: AsyncConnection, move: Move, state: MoveState, outcome: str, now: datetime
) -> Move:
    after = await store.step_move(conn, move, state, outcome=outcome or None)
    reason = f"the book refused it: {outcome}" if outcome else ""
    await _record(conn, after, move.state, actor=WORKER, reason=reason, now=now)
    return after


async def _record(
    conn: AsyncConnection,
    move: Move,
    before: MoveState | None,
    *,
    actor: str,
    reason: str,
    now: datetime,
) -> None:
    request = move.request
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=move.id,
        version=await next_version(conn, ENTITY, move.id),
        name=f"BookMove{move.state.capitalize()}",
        at=now,
        actor=actor,
        reason=reason,
        from_state=before,
        to_state=move.state,
        payload={
            "reference": request.reference,
            "from_book": request.from_book,
            "to_book": request.to_book,
            "asset": request.asset,
            "amount": str(request.amount),
            "claim": [request.claim_from, request.claim_to],
            "funds": [request.funds_from, request.funds_to],
            "approved_by": move.approved_by,
            "outcome": move.outcome,
        },
    )
    await record(conn, [event])
