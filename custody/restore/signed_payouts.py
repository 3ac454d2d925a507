"""What the signer has signed and the database does not know: taken in again from the signer's log.

Of each payout its attempts come back with nonce, bytes and hash, and with the postings that they had, so
that the block which holds one of them is recognised when it is read, as it would have been. A payout
that was requested and paid after the restore's moment comes back whole: the house told the signer with a
mark whose it is and under which reference, and its id proves that (`rebuilding.is_id_of`).

What cannot be taken in stays an item that two people settle; the doors stay shut until they have.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.evm.transactions import decode_signed, decode_unsigned, encode_unsigned
from custody import payout_rows as rows
from custody import payout_store as payouts_store
from custody.control_messages import ControlMessage
from custody.errors import NotPossible, UnknownRow
from custody.payout_model import (
    SENT,
    Attempt,
    AttemptKind,
    AttemptState,
    Nonce,
    NonceState,
    Payout,
    PayoutState,
)
from custody.payout_moves import AttemptMove, move_attempts
from custody.payout_postings import allocated, replaced, signed
from custody.restore import rebuilding, store
from custody.restore.giving_back import give_back, give_back_asked_again, list_contradicted
from custody.restore.model import (
    SIGNER_LOG,
    WHAT_LENGTH_MAX,
    Item,
    ItemState,
    Restore,
    SourceState,
)
from custody.restore.ports import MarkedSigner
from custody.restore.progress import note_sent
from custody.restore.signed_spends import take_spends
from custody.restore.signer_log import SignedRecord, SignedSince, read_log
from custody.restore.signing import find_common
from custody.restore.taking import take
from custody.restore_gate import BY
from custody.restore_marks import About
from custody.signer_tables import control_message
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import Refused
from kernel.events import record
from kernel.ids import derive_id
from ledger.model import Transfer
from ledger.posting import post, require_applied

UNSIGNED: Final = frozenset(
    {PayoutState.RESERVED, PayoutState.PENDING_APPROVAL, PayoutState.APPROVED}
)


async def take_signed(
    engine: AsyncEngine, signer: MarkedSigner, *, clock: Clock, by: str = BY
) -> list[Item]:
    """Take in what the signer's log has and this database has not; return what was found missing.

    Safe to call again, at any time, and after a crash: what is known is passed over.

    Raises:
        NotPossible: no restore stands.
        OutsideUnavailable: the signer does not answer.
        StoreUnusable: its log is not proved.
    """
    async with engine.connect() as conn:
        standing = await store.require_standing(conn)
    health = await signer.health()
    mark, token = await find_common(engine, signer, health.mark)
    found = await read_log(signer, since=standing.since, common=mark)
    async with engine.connect() as conn:
        contradicted = await list_contradicted(conn, found)
    for payout_id in contradicted:
        await transact(engine, partial(give_back, payout_id=payout_id, now=clock.now()))
    items = []
    for payout_id, payments in found.payments.items():
        items += await _take_payout(engine, standing, payout_id, payments, found, clock)
    items += await take_spends(engine, standing, found, clock)
    await give_back_asked_again(engine, clock=clock)
    for index, message in found.messages:
        items += await _take_message(engine, standing, index, message, clock)

    async def finish(conn: AsyncConnection) -> None:
        now = clock.now()
        await store.require_standing(conn, lock=True)
        known: dict[str, Any] = {
            "signer": found.store,
            "records": found.records,
            "mark": mark,
            "token": token,
            "signer_mark": health.mark,
            "signer_token": health.mark_token,
            # Who said since when may have been wrong; what the signer was shown is not.
            "since": min(standing.since, found.common_at or standing.since),
        }
        await store.update_restore(conn, standing.id, **known)
        source = await store.get_source(conn, standing.id, SIGNER_LOG)
        unresolved = await store.count_unresolved(conn, standing.id, SIGNER_LOG)
        detail = (
            f"{found.records} records: {sum(map(len, found.payments.values()))} payments and"
            f" {len(found.spends)} spends signed since, {unresolved} for people to look at"
        )
        if source.state is not SourceState.WAITING:
            await store.move_source(
                conn, source, SourceState.WAITING, detail=detail, by=by, now=now
            )
            source = await store.get_source(conn, standing.id, SIGNER_LOG)
        await store.move_source(conn, source, SourceState.DONE, detail=detail, by=by, now=now)
        await note_sent(conn, standing.id, now=now)

    await transact(engine, finish)
    return items


async def _take_payout(
    engine: AsyncEngine,
    standing: Restore,
    payout_id: UUID,
    payments: Sequence[tuple[int, SignedRecord]],
    found: SignedSince,
    clock: Clock,
) -> list[Item]:
    async with engine.connect() as conn:
        attempts = await payouts_store.list_attempts(conn, payout_id)
    known = {item.raw for item in attempts}
    missing = [(index, item) for index, item in payments if item.raw not in known]
    about = found.about.get(payout_id)
    return [
        await _take_payment(engine, standing, index, item, about, clock)
        for index, item in missing
        if not await _is_settled(engine, standing, f"payment-{index}")
    ]


async def _is_settled(engine: AsyncEngine, standing: Restore, key: str) -> bool:
    """Tell whether two people have dealt with an item by hand: what they did is not done again."""
    async with engine.connect() as conn:
        return await store.is_settled(conn, standing.id, SIGNER_LOG, key)


async def _take_payment(
    engine: AsyncEngine,
    standing: Restore,
    index: int,
    item: SignedRecord,
    about: About | None,
    clock: Clock,
) -> Item:
    """Take one signature in, in a transaction of its own; what cannot be is an item for people."""
    intent = item.intent
    key, payout_id = f"payment-{index}", intent.payout_id
    what = (
        f"{intent.kind} {intent.amount} of {intent.asset} from {intent.sender} nonce {intent.nonce}"
        f" to {intent.destination}: payout {payout_id}, record {index}"
    )

    lost = _item(standing, key, ItemState.RESTORED, what, clock, payout_id=payout_id)
    write = partial(_restore_payment, item=item, about=about, now=clock.now())
    return await take(engine, lost, write)


async def _restore_payment(
    conn: AsyncConnection, item: SignedRecord, about: About | None, now: datetime
) -> None:
    """Write what a signature made of its payout, and post it."""
    payout_id = item.intent.payout_id
    locked = await payouts_store.lock_payouts(conn, [payout_id])
    payout, is_lost = locked.get(payout_id), payout_id not in locked
    if payout is None:
        payout = await rebuilding.insert_lost(conn, _lost(payout_id, item, about))
    if payout.state in {*UNSIGNED, PayoutState.REQUESTED}:
        await _first(conn, payout, item, is_lost=is_lost, now=now)
    elif payout.state is PayoutState.ALLOCATED:
        await _signature(conn, payout, item, now=now)
    elif payout.state in SENT:
        await _replacement(conn, payout, item, now=now)
    else:
        raise NotPossible(f"payout {payout_id} is {payout.state} here, and it was signed")


def _lost(payout_id: UUID, item: SignedRecord, about: About | None) -> Payout:
    intent = item.intent
    if about is None:
        raise UnknownRow(f"nothing but its signature is known of payout {payout_id}")
    gap = intent.kind == "cancel" and int(about.amount) == 0
    if intent.kind == "cancel" and not gap:
        raise NotPossible(f"payout {payout_id} was cancelled and its payment is not in the log")
    # One that only fills a gap pays nobody, and has no reference of its own.
    make = rebuilding.made_payout if gap else rebuilding.lost_payout
    return make(
        payout_id,
        about,
        chain=intent.chain,
        chain_id=intent.chain_id,
        source_wallet=intent.wallet,
        sender=intent.sender,
        sender_path=intent.key_path,
        contract=intent.contract,
        chain_amount=int(intent.amount),
        destination=intent.destination,
        requested_by=intent.initiator,
        policy_version=intent.policy_version,
        rule=intent.rule,
    )


async def _first(
    conn: AsyncConnection, payout: Payout, item: SignedRecord, *, is_lost: bool, now: datetime
) -> Payout:
    """Give a payout the nonce, the attempt and the bytes that it had; post what they had posted."""
    attempt = _attempt(payout, item, payout.attempt + 1, now)
    fee_cap = attempt.gas_limit * attempt.max_fee_per_gas
    await payouts_store.lock_sender(conn, payout.chain, payout.sender, payout.source_wallet)
    await rows.take_nonces(
        conn,
        [
            Nonce(
                chain=payout.chain,
                sender=payout.sender,
                nonce=attempt.nonce,
                payout_id=payout.id,
                state=NonceState.LIVE,
                since=now,
            )
        ],
    )
    await rows.insert_attempts(conn, [attempt])
    await _sign(conn, attempt, item, now)
    await rebuilding.open_accounts(conn, [payout], now)
    batch: list[Transfer] = []
    if is_lost:
        batch += await rebuilding.reserve_lost(conn, [payout], now)
    batch += allocated(payout, fee_cap)
    batch += signed(payout)
    require_applied(await post(conn, payout.book, batch, now=now))
    values = {"attempt": attempt.number, "nonce": attempt.nonce, "fee_cap": fee_cap}
    moved = await rebuilding.walk(conn, payout, PayoutState.ALLOCATED, now=now, **values)
    return await rebuilding.walk(conn, moved, PayoutState.SIGNED, now=now)


async def _signature(
    conn: AsyncConnection, payout: Payout, item: SignedRecord, *, now: datetime
) -> Payout:
    """Store the bytes of an attempt that the database has unsigned."""
    attempt = await payouts_store.get_attempt(conn, payout.id, payout.attempt)
    if attempt.unsigned != item.unsigned:
        raise NotPossible(f"payout {payout.id} is allocated otherwise than it was signed")
    await _sign(conn, attempt, item, now)
    require_applied(await post(conn, payout.book, list(signed(payout)), now=now))
    return await rebuilding.walk(conn, payout, PayoutState.SIGNED, now=now)


async def _replacement(
    conn: AsyncConnection, payout: Payout, item: SignedRecord, *, now: datetime
) -> Payout:
    """Write an attempt that takes the place of an earlier one: any of them may be mined."""
    number = (await payouts_store.list_attempts(conn, payout.id))[-1].number + 1
    attempt = _attempt(payout, item, number, now)
    if attempt.nonce != payout.nonce:
        raise NotPossible(f"payout {payout.id} is at nonce {payout.nonce}, not {attempt.nonce}")
    await rows.insert_attempts(conn, [attempt])
    await _sign(conn, attempt, item, now)
    fee_cap = max(payout.fee_cap, attempt.gas_limit * attempt.max_fee_per_gas)
    require_applied(await post(conn, payout.book, list(replaced(payout, fee_cap)), now=now))
    cancels = attempt.kind is AttemptKind.CANCEL and not payout.fills_gap
    return await rebuilding.walk(
        conn,
        payout,
        PayoutState.CANCELLING if cancels else payout.state,
        now=now,
        attempt=number,
        fee_cap=fee_cap,
        hold_epoch=payout.hold_epoch + 1,
    )


async def _sign(conn: AsyncConnection, attempt: Attempt, item: SignedRecord, now: datetime) -> None:
    tx = decode_signed(item.raw, chain_id=item.intent.chain_id)
    meant = decode_unsigned(item.unsigned, chain_id=item.intent.chain_id)
    if tx.sender != attempt.sender or tx.unsigned != meant:
        raise Refused(f"the signer's bytes for payout {attempt.payout_id} are something else")
    values = {"raw": item.raw, "tx_hash": tx.tx_hash, "signed_at": now}
    move = AttemptMove(
        attempt=attempt, to=AttemptState.SIGNED, values=values, reason=rebuilding.WHY
    )
    await record(conn, await move_attempts(conn, [move], now=now))


def _attempt(payout: Payout, item: SignedRecord, number: int, now: datetime) -> Attempt:
    tx = decode_unsigned(item.unsigned, chain_id=item.intent.chain_id)
    return Attempt(
        id=derive_id(payout.created_at, "payout_attempt", payout.id, number),
        payout_id=payout.id,
        number=number,
        chain=payout.chain,
        sender=item.intent.sender,
        nonce=tx.nonce,
        state=AttemptState.BUILT,
        unsigned=encode_unsigned(tx),
        gas_limit=tx.gas_limit,
        max_fee_per_gas=tx.max_fee_per_gas,
        max_priority_fee_per_gas=tx.max_priority_fee_per_gas,
        tx_hash=None,
        raw=None,
        broadcasts=0,
        last_broadcast_at=None,
        detail="",
        built_at=now,
        signed_at=None,
        kind=AttemptKind.CANCEL if item.intent.kind == "cancel" else AttemptKind.PAY,
    )


async def _take_message(
    engine: AsyncEngine, standing: Restore, index: int, message: ControlMessage, clock: Clock
) -> list[Item]:
    """Say which message of people the signer has taken and the database has lost."""
    async with engine.connect() as conn:
        query = select(func.count()).select_from(control_message)
        if await conn.scalar(query.where(control_message.c.digest == message.digest)):
            return []
    people = " and ".join(item.operator for item in message.signatures)
    what = f"{message.kind} by {people}, record {index}: in force in the signer, not known here"

    item = _item(standing, f"message-{index}", ItemState.NOTED, what, clock)
    await transact(engine, partial(store.save_item, item=item))
    return [item]


def _item(
    standing: Restore,
    key: str,
    state: ItemState,
    what: str,
    clock: Clock,
    *,
    payout_id: UUID | None = None,
) -> Item:
    return Item(
        restore_id=standing.id,
        source=SIGNER_LOG,
        key=key,
        state=state,
        what=what[:WHAT_LENGTH_MAX],
        found_at=clock.now(),
        payout_id=payout_id,
    )
