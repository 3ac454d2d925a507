"""Sign: many attempts in one question to the signer; the exact bytes are stored before any is sent."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import payout_rows as rows
from custody import payout_store as store
from custody.payout_allocation import Waiting
from custody.payout_approvals import from_document
from custody.payout_events import WORKER, move_attempt, step_payout
from custody.payout_gates import find_stopped
from custody.payout_model import (
    SENT,
    SPENDABLE,
    Attempt,
    AttemptKind,
    AttemptState,
    ClaimKind,
    NonceState,
    Payout,
    PayoutState,
)
from custody.payout_moves import AttemptMove, Move, move_attempts, move_payouts
from custody.payout_postings import released, signed
from custody.payout_rules import ask_again_after
from custody.payout_steps import Bench, Lost, Result, Results, lock_mine
from custody.signer.wire import (
    APPROVALS_MANY_MAX,
    Line,
    No,
    Signed,
    SignedApproval,
    SignRequest,
)
from kernel.db import transact
from kernel.errors import CausewayError
from kernel.events import record
from ledger.posting import post, require_applied
from registry.queries import get_wallet


@dataclass(frozen=True, slots=True)
class _Work:
    """A payout, its attempt to be signed, and what the signer is asked about it."""

    payout: Payout
    attempt: Attempt
    request: SignRequest


async def sign(bench: Bench, payouts: Sequence[Payout]) -> Results:
    """Have the current attempts signed and store their bytes.

    What the signer refuses is rejected and its reservation given back, unless the signer has ever
    signed anything for that payout: then people must look. One refusal does not touch the others.
    """
    results: dict[UUID, Result] = {}
    async with bench.engine.connect() as conn:
        attempts = await rows.list_current(conn, payouts)
        paying = [p for p in payouts if attempts[p.id].kind is AttemptKind.PAY]
        # What pays nobody is never stopped: it is what ends a payment.
        stopped = await find_stopped(conn, paying, now=bench.clock.now())
        results |= {key: Waiting(reason) for key, reason in stopped.items()}
        due = [item for item in payouts if item.id not in stopped]
        approvals = await _list_approvals(conn, due)
        paths = await _own_paths(conn, due)
    work = [
        _Work(
            item,
            attempts[item.id],
            SignRequest(
                bench.rail.intent(item, attempts[item.id], paths.get(item.id)),
                attempts[item.id].unsigned,
            ),
        )
        for item in due
        if attempts[item.id].state is AttemptState.BUILT
    ]
    return results | await _ask(bench, work, approvals)


async def _ask(
    bench: Bench, work: Sequence[_Work], approvals: Mapping[UUID, Sequence[SignedApproval]]
) -> dict[UUID, Result]:
    if not work:
        return {}
    # One signature may approve many payouts: it travels, and is verified, once.
    wanted = {
        (item.operator, item.signature): item
        for one in work
        for item in approvals.get(one.payout.id, ())
    }
    if len(wanted) > APPROVALS_MANY_MAX and len(work) > 1:
        half = len(work) // 2
        first = await _ask(bench, work[:half], approvals)
        return first | await _ask(bench, work[half:], approvals)
    answers = await bench.signer.sign_many([item.request for item in work], list(wanted.values()))
    return await _store(bench, list(zip(work, answers, strict=True)))


async def _store(bench: Bench, answered: Sequence[tuple[_Work, Signed | No]]) -> dict[UUID, Result]:
    results: dict[UUID, Result] = {}
    bytes_of: dict[UUID, tuple[_Work, Signed, str]] = {}
    for item, answer in answered:
        if isinstance(answer, No):
            results[item.payout.id] = await _refused(bench, item, answer)
            continue
        try:
            tx_hash = bench.rail.read_signed(item.payout, item.attempt, answer.raw)
        except CausewayError as error:
            results[item.payout.id] = Waiting(error.render())
            continue
        bytes_of[item.payout.id] = item, answer, tx_hash
    if not bytes_of:
        return results
    return results | await transact(bench.engine, lambda conn: _store_signed(bench, conn, bytes_of))


async def _store_signed(
    bench: Bench, conn: AsyncConnection, bytes_of: Mapping[UUID, tuple[_Work, Signed, str]]
) -> dict[UUID, Result]:
    now = bench.clock.now()
    mine, lost = await lock_mine(conn, [item.payout for item, _, _ in bytes_of.values()])
    attempts = await rows.list_all_attempts(conn, list(mine))
    results: dict[UUID, Result] = {**lost, **mine}
    moved: list[AttemptMove] = []
    firsts: list[Payout] = []
    moves: list[Move] = []
    for key, payout in mine.items():
        item, answer, tx_hash = bytes_of[key]
        current = next(a for a in attempts[key] if a.number == item.attempt.number)
        if current.state is not AttemptState.BUILT:
            # While the signer worked, the chain or people ended it: these bytes are not to be sent.
            continue
        values = {"raw": answer.raw, "tx_hash": tx_hash, "signed_at": now}
        moved.append(AttemptMove(attempt=current, to=AttemptState.SIGNED, values=values))
        if all(a.raw is None for a in attempts[key]):
            firsts.append(payout)
        if payout.state is PayoutState.ALLOCATED:
            payload = {"tx_hash": tx_hash, "attempt": current.number}
            moves.append(_signed_move(payout, payload))
    events = await move_attempts(conn, moved, now=now) if moved else []
    # Whatever the state is: from the first signature on only the chain gives the claim back.
    batch = [transfer for payout in firsts for transfer in signed(payout)]
    if batch:
        require_applied(await post(conn, firsts[0].book, batch, now=now))
    if moves:
        stepped, told = await move_payouts(conn, moves, now=now)
        results |= stepped
        events += told
    await record(conn, events)
    return results


def _signed_move(payout: Payout, payload: Mapping[str, object]) -> Move:
    return Move(payout=payout, to=PayoutState.SIGNED, payload=payload, values={"waiting_for": ""})


async def _list_approvals(
    conn: AsyncConnection, payouts: Collection[Payout]
) -> dict[UUID, list[SignedApproval]]:
    found = await store.list_approvals_of(conn, [item.id for item in payouts])
    made: dict[tuple[str, bytes], SignedApproval] = {}
    by_payout: dict[UUID, list[SignedApproval]] = {}
    for item in found:
        key = item.operator, item.signature
        if key not in made:
            made[key] = SignedApproval(
                operator=item.operator,
                signature=item.signature,
                lines=[Line.of(from_document(dict(line))) for line in item.lines],
            )
        by_payout.setdefault(item.payout_id, []).append(made[key])
    return by_payout


async def _own_paths(conn: AsyncConnection, payouts: Collection[Payout]) -> dict[UUID, str]:
    """Return where the signer finds the receiving keys of moves between our own wallets."""
    own = [item for item in payouts if item.parsed_claim.kind is ClaimKind.OWN]
    if not own:
        return {}
    sources = await store.find_sources(conn, own[0].chain, {item.destination for item in own})
    paths: dict[UUID, str] = {}
    for item in own:
        source = sources.get(item.destination)
        if source is not None:
            wallet = await get_wallet(conn, source.wallet)
            paths[item.id] = wallet.key_path(source.branch, source.index)
    return paths


# What the signer refuses.


async def _refused(bench: Bench, item: _Work, refusal: No) -> Result:
    if refusal.later:
        pause = ask_again_after(item.attempt.built_at, bench.clock.now())
        return Waiting(f"the signer will not sign it yet: {refusal.what}", pause)
    try:
        return await transact(bench.engine, lambda conn: _store_refusal(bench, conn, item, refusal))
    except CausewayError as error:
        return Waiting(error.render())


async def _store_refusal(bench: Bench, conn: AsyncConnection, item: _Work, refusal: No) -> Result:
    found, lost = await lock_mine(conn, [item.payout])
    if lost:
        return Lost()
    mine, now = found[item.payout.id], bench.clock.now()
    if mine.state is not PayoutState.ALLOCATED:
        return await _drop_replacement(bench, conn, mine, item.attempt, refusal)
    if refusal.signed_before:
        return await step_payout(
            conn,
            mine,
            PayoutState.SECURITY_HOLD,
            actor=WORKER,
            now=now,
            reason=refusal.what,
            fence=mine.fence,
            waiting_for=refusal.what,
        )
    _, event = await move_attempt(
        conn, item.attempt, AttemptState.SUPERSEDED, now=now, reason=refusal.what
    )
    nonce = item.attempt.nonce
    await store.end_nonce(conn, mine.chain, mine.sender, nonce, NonceState.RELEASED, now)
    require_applied(await post(conn, mine.book, released(mine), now=now))
    await record(conn, [event])
    is_over = mine.expires_at is not None and mine.expires_at <= now
    return await step_payout(
        conn,
        mine,
        PayoutState.EXPIRED if is_over else PayoutState.REJECTED,
        actor=WORKER,
        now=now,
        reason=f"the signer refused: {refusal.what}",
        fence=mine.fence,
        nonce=None,
        waiting_for="",
    )


async def _drop_replacement(
    bench: Bench, conn: AsyncConnection, payout: Payout, attempt: Attempt, refusal: No
) -> Payout:
    attempts = {item.number: item for item in await store.list_attempts(conn, payout.id)}
    before = max((n for n, item in attempts.items() if item.state in SPENDABLE), default=0)
    if not before or attempts[attempt.number].state is not AttemptState.BUILT:
        # Nothing is replaced: a block put the payout on hold, or ended it, while the signer worked.
        return payout
    # The attempt before it is signed and goes on; the larger fee hold stays, which harms nobody.
    now = bench.clock.now()
    _, event = await move_attempt(
        conn, attempt, AttemptState.SUPERSEDED, now=now, reason=refusal.what
    )
    await record(conn, [event])
    state = payout.state
    if state is PayoutState.CANCELLING and attempts[before].kind is AttemptKind.PAY:
        return await step_payout(
            conn,
            payout,
            PayoutState.SIGNED,
            actor=WORKER,
            now=now,
            reason=f"the signer refused: {refusal.what}",
            name="PayoutGoesOn",
            fence=payout.fence,
            attempt=before,
        )
    await store.update_payout(conn, payout.id, fence=payout.fence, attempt=before)
    return replace(payout, attempt=before)


def waits_for_signature(payout: Payout, attempt: Attempt) -> bool:
    """Tell whether a payout that was signed has a replacement that is not."""
    return payout.state in SENT and attempt.state is AttemptState.BUILT
