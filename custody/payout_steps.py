"""The steps of the worker. Each looks outside first, then writes in one transaction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.errors import CallReverted, WrongChain
from chain.evm.transactions import (
    SignedTransaction,
    UnsignedTransaction,
    decode_signed,
    decode_unsigned,
    encode_unsigned,
)
from chain.model import BroadcastOutcome, BroadcastReport, FeeQuote
from chain.ports import ChainGateway
from custody import payout_store as store
from custody.allow_list import require_allowed
from custody.errors import ClientsUncovered
from custody.payout_allocation import (
    Allocation,
    BooksView,
    ChainView,
    Waiting,
    build_transaction,
    find_uncovered,
    plan_allocation,
)
from custody.payout_approvals import from_document
from custody.payout_coverage import count_spare, leaves_clients
from custody.payout_events import WORKER, move_attempt, step_payout
from custody.payout_model import (
    SPENDABLE,
    Attempt,
    AttemptState,
    ClaimKind,
    NonceState,
    Payout,
    PayoutState,
)
from custody.payout_postings import allocated, released, signed
from custody.ports import PayoutSigner
from custody.signer.errors import SignerRefused
from custody.signer.wire import Intent, Line, SignedApproval
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import OutsideUnavailable, StaleFence
from kernel.events import DomainEvent, record
from kernel.ids import derive_id
from ledger.posting import post, require_applied
from ledger.queries import get_balance
from registry.queries import get_wallet

REBROADCAST_AFTER: Final = timedelta(seconds=30)
"""How often accepted bytes are offered again while no block has them: a pool may forget them."""
AMBIGUOUS_RETRY_AFTER: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Bench:
    """What the worker works with."""

    engine: AsyncEngine
    gateway: ChainGateway
    signer: PayoutSigner
    clock: Clock


@dataclass(frozen=True, slots=True)
class Sent:
    """The bytes were handed to the node; *detail* says what is not known, "" when it took them."""

    look_again: timedelta
    detail: str = ""


# Allocate: a nonce, a transaction, and the coins and fee held for it.


async def allocate(bench: Bench, payout: Payout) -> Payout | Waiting:
    """Give the payout its nonce and its first attempt, or say why it has to wait.

    Raises:
        NotPossible: the destination is not allowed any more.
    """
    seen = await look_at_chain(bench.gateway, payout)

    async def write(conn: AsyncConnection) -> Payout | Waiting:
        mine = await _lock_mine(conn, payout)
        claim = mine.parsed_claim
        if claim.kind is not ClaimKind.OWN:
            # It may have been revoked since the payout was approved.
            now = bench.clock.now()
            await require_allowed(conn, claim.name, mine.chain, mine.destination, now=now)
        books = await look_at_books(conn, mine, seen.next_nonce)
        planned = plan_allocation(mine, seen, books)
        if isinstance(planned, Waiting):
            return planned
        return await _book(bench, conn, mine, planned, books)

    try:
        return await transact(bench.engine, write)
    except ClientsUncovered as error:
        return Waiting(error.what)


async def look_at_chain(gateway: ChainGateway, payout: Payout) -> ChainView:
    """Return what the node says about the sending address.

    Raises:
        WrongChain: the node serves another chain.
        NodeTrouble: it cannot be relied on now.
    """
    served = await gateway.chain_id()
    if served != payout.chain_id:
        raise WrongChain(f"the node serves chain {served}, the payout is for {payout.chain_id}")
    head, gas, revert = await gateway.head(), 0, ""
    # Any nonce and fee do: only recipient, value and data are looked at.
    call = build_transaction(payout, 0, FeeQuote(0, 0), _GAS_TO_ASK_WITH)
    try:
        gas = await gateway.estimate_gas(
            sender=payout.sender, recipient=call.recipient, value=call.value, data=call.data
        )
    except CallReverted as error:
        revert = error.what
    native = await gateway.balance(payout.sender, None, at=head)
    coins = native
    if payout.contract is not None:
        coins = await gateway.balance(payout.sender, payout.contract, at=head)
    return ChainView(
        next_nonce=await gateway.next_nonce(payout.sender),
        fees=await gateway.fees(),
        gas=gas,
        native=native,
        coins=coins,
        revert=revert,
    )


async def look_at_books(conn: AsyncConnection, payout: Payout, next_nonce: int) -> BooksView:
    """Return what the books say; locks every sending address of the wallet."""
    frozen = await store.lock_sender(conn, payout.chain, payout.sender, payout.source_wallet)
    first, nonces = await store.load_nonces(conn, payout.chain, payout.sender, next_nonce)
    coins, gas = await store.sum_promised(conn, payout.chain, payout.sender, payout.contract)
    assets = {payout.asset, payout.native_asset}
    path = f"custody:{payout.source_wallet}"
    available = {
        asset: (await get_balance(conn, payout.book, path, asset)).available for asset in assets
    }
    wallet = await get_wallet(conn, payout.source_wallet)
    claim = payout.parsed_claim
    leaves = claim.kind is ClaimKind.OWN and await leaves_clients(conn, wallet.code, claim.name)
    return BooksView(
        first_nonce=first,
        nonces=nonces,
        promised_coins=coins,
        promised_gas=gas,
        available=available,
        spare=await count_spare(conn, payout.book, assets) if wallet.holds_client_money else {},
        leaves_clients=leaves,
        frozen=frozen,
    )


async def _book(
    bench: Bench, conn: AsyncConnection, payout: Payout, planned: Allocation, books: BooksView
) -> Payout:
    now, tx, number = bench.clock.now(), planned.unsigned, payout.attempt + 1
    await store.take_nonce(conn, payout.chain, payout.sender, planned.nonce, payout.id, now)
    attempt = new_attempt(payout, number, tx, now)
    await store.insert_attempt(conn, attempt)
    require_applied(await post(conn, payout.book, allocated(payout, tx.fee_max), now=now))
    await _require_covered(conn, payout, books, tx.fee_max)
    return await step_payout(
        conn,
        payout,
        PayoutState.ALLOCATED,
        actor=WORKER,
        now=now,
        fence=payout.fence,
        payload={"nonce": planned.nonce, "fee_cap": str(tx.fee_max)},
        attempt=number,
        nonce=planned.nonce,
        fee_cap=tx.fee_max,
        waiting_for="",
    )


async def _require_covered(
    conn: AsyncConnection, payout: Payout, books: BooksView, fee_cap: int
) -> None:
    """Look again once the ledger's head is locked: nobody else can spend the same cover now."""
    if not books.spare:
        return
    spare = await count_spare(conn, payout.book, books.spare)
    uncovered = find_uncovered(payout, replace(books, spare=spare), fee_cap)
    if uncovered:
        raise ClientsUncovered(uncovered, remedy="Move house coins into the wallet first")


def new_attempt(payout: Payout, number: int, tx: UnsignedTransaction, now: datetime) -> Attempt:
    """Return an attempt that is built and not signed."""
    return Attempt(
        id=derive_id(payout.created_at, "payout_attempt", payout.id, number),
        payout_id=payout.id,
        number=number,
        chain=payout.chain,
        sender=payout.sender,
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
    )


# Sign: the exact bytes are stored before anybody can send them.


async def sign(bench: Bench, payout: Payout) -> Payout | Waiting:
    """Have the current attempt signed and store its bytes.

    What the signer refuses is rejected and its reservation given back, unless the signer has ever
    signed anything for this payout: then people must look.
    """
    async with bench.engine.connect() as conn:
        attempt = await store.get_attempt(conn, payout.id, payout.attempt)
        approvals = await store.list_approvals(conn, payout.id)
        own_path = await _own_path(conn, payout)
    try:
        raw = await bench.signer.sign(
            make_intent(payout, attempt, own_path),
            attempt.unsigned,
            [
                SignedApproval(
                    operator=item.operator,
                    signature=item.signature,
                    lines=[Line.of(from_document(dict(line))) for line in item.lines],
                )
                for item in approvals
            ],
        )
    except SignerRefused as error:
        refusal = error
        return await transact(
            bench.engine, lambda conn: _signing_refused(bench, conn, payout, attempt, refusal)
        )
    tx = read_signed(payout, attempt, raw)
    return await transact(
        bench.engine, lambda conn: _store_signed(bench, conn, payout, attempt, tx)
    )


async def _own_path(conn: AsyncConnection, payout: Payout) -> str | None:
    """Return where the signer finds the receiving key of a move between our own wallets."""
    if payout.parsed_claim.kind is not ClaimKind.OWN:
        return None
    found = await store.find_sources(conn, payout.chain, [payout.destination])
    source = found.get(payout.destination)
    if source is None:
        return None
    wallet = await get_wallet(conn, source.wallet)
    return f"{wallet.account_path}/{source.branch}/{source.index}"


def make_intent(payout: Payout, attempt: Attempt, own_path: str | None) -> Intent:
    """Return what the signer is told that the attempt does."""
    claim = payout.parsed_claim
    return Intent(
        payout_id=payout.id,
        kind="own" if claim.kind is ClaimKind.OWN else "pay",
        wallet=payout.source_wallet,
        client=None if claim.kind is ClaimKind.OWN else claim.name,
        destination_path=own_path,
        chain=payout.chain,
        chain_id=payout.chain_id,
        key_path=payout.sender_path,
        sender=payout.sender,
        nonce=attempt.nonce,
        destination=payout.destination,
        asset=payout.asset,
        contract=payout.contract,
        amount=str(payout.chain_amount),
        fee_cap=str(attempt.gas_limit * attempt.max_fee_per_gas),
        initiator=payout.requested_by,
        policy_version=payout.policy_version,
        rule=payout.rule,
    )


def read_signed(payout: Payout, attempt: Attempt, raw: bytes) -> SignedTransaction:
    """Return the signed transaction, found to be the attempt and signed by the sender.

    Raises:
        OutsideUnavailable: the signer answered with something else.
    """
    tx = decode_signed(raw, chain_id=payout.chain_id)
    meant = decode_unsigned(attempt.unsigned, chain_id=payout.chain_id)
    if tx.unsigned != meant or tx.sender != payout.sender:
        raise OutsideUnavailable(
            "the signer signed something else, or with another key",
            where=f"payout {payout.id}",
            remedy="Check which keystore the signer runs with",
        )
    return tx


async def _store_signed(
    bench: Bench, conn: AsyncConnection, payout: Payout, attempt: Attempt, tx: SignedTransaction
) -> Payout:
    mine, now = await _lock_mine(conn, payout), bench.clock.now()
    attempts = {item.number: item for item in await store.list_attempts(conn, payout.id)}
    if attempts[attempt.number].state is not AttemptState.BUILT:
        # While the signer worked, the chain or people ended it: these bytes are not to be sent.
        return mine
    is_first = all(item.raw is None for item in attempts.values())
    _, event = await move_attempt(
        conn,
        attempt,
        AttemptState.SIGNED,
        now=now,
        raw=tx.raw,
        tx_hash=tx.tx_hash,
        signed_at=now,
    )
    if is_first:
        # Whatever the state is: from the first signature on only the chain gives the claim back.
        require_applied(await post(conn, mine.book, signed(mine), now=now))
    await record(conn, [event])
    if mine.state is not PayoutState.ALLOCATED:
        return mine  # a replacement, or a block put it on hold while the signer worked
    return await step_payout(
        conn,
        mine,
        PayoutState.SIGNED,
        actor=WORKER,
        now=now,
        fence=mine.fence,
        payload={"tx_hash": tx.tx_hash, "attempt": attempt.number},
        waiting_for="",
    )


async def _signing_refused(
    bench: Bench,
    conn: AsyncConnection,
    payout: Payout,
    attempt: Attempt,
    refusal: SignerRefused,
) -> Payout:
    mine, now = await _lock_mine(conn, payout), bench.clock.now()
    if mine.state is not PayoutState.ALLOCATED:
        return await _drop_replacement(bench, conn, mine, attempt, refusal)
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
        conn, attempt, AttemptState.SUPERSEDED, now=now, reason=refusal.what
    )
    await store.end_nonce(conn, mine.chain, mine.sender, attempt.nonce, NonceState.RELEASED, now)
    require_applied(await post(conn, mine.book, released(mine), now=now))
    await record(conn, [event])
    return await step_payout(
        conn,
        mine,
        PayoutState.REJECTED,
        actor=WORKER,
        now=now,
        reason=f"the signer refused: {refusal.what}",
        fence=mine.fence,
        nonce=None,
        waiting_for="",
    )


async def _drop_replacement(
    bench: Bench,
    conn: AsyncConnection,
    payout: Payout,
    attempt: Attempt,
    refusal: SignerRefused,
) -> Payout:
    attempts = {item.number: item for item in await store.list_attempts(conn, payout.id)}
    before = max((n for n, item in attempts.items() if item.state in SPENDABLE), default=0)
    if not before or attempts[attempt.number].state is not AttemptState.BUILT:
        # Nothing is replaced: a block put the payout on hold, or ended it, while the signer worked.
        return payout
    # The attempt before it is signed and goes on; the larger fee hold stays, which harms nobody.
    _, event = await move_attempt(
        conn, attempt, AttemptState.SUPERSEDED, now=bench.clock.now(), reason=refusal.what
    )
    await record(conn, [event])
    await store.update_payout(conn, payout.id, fence=payout.fence, attempt=before)
    return replace(payout, attempt=before)


# Send: the same bytes, for as long as nobody knows.


async def send(bench: Bench, payout: Payout) -> Payout | Waiting | Sent:
    """Hand the stored bytes of the current attempt to the node and store what it said.

    A replacement that is not signed yet is signed instead.
    """
    async with bench.engine.connect() as conn:
        attempt = await store.get_attempt(conn, payout.id, payout.attempt)
    if attempt.state is AttemptState.BUILT:
        return await sign(bench, payout)
    assert attempt.raw is not None and attempt.tx_hash is not None  # noqa: PT018  the table says so
    report = await bench.gateway.broadcast(attempt.raw, attempt.tx_hash)
    if report.outcome is BroadcastOutcome.REJECTED and await _other_is_mined(
        bench, payout, attempt
    ):
        report = BroadcastReport(BroadcastOutcome.UNKNOWN, "another attempt of the payout is mined")
    return await transact(
        bench.engine, lambda conn: _store_sent(bench, conn, payout, attempt, report)
    )


async def _other_is_mined(bench: Bench, payout: Payout, attempt: Attempt) -> bool:
    async with bench.engine.connect() as conn:
        attempts = await store.list_attempts(conn, payout.id)
    for other in attempts:
        if other.tx_hash is None or other.id == attempt.id:
            continue
        if await bench.gateway.find_transaction(other.tx_hash) is not None:
            return True
    return False


async def _store_sent(
    bench: Bench,
    conn: AsyncConnection,
    payout: Payout,
    attempt: Attempt,
    report: BroadcastReport,
) -> Payout | Sent:
    mine, now = await _lock_mine(conn, payout), bench.clock.now()
    current = await store.get_attempt(conn, payout.id, attempt.number)
    counted: dict[str, Any] = {"broadcasts": current.broadcasts + 1, "last_broadcast_at": now}
    # A block may have been followed while the node was asked; then its word counts.
    if mine.state is not PayoutState.SIGNED or current.state is AttemptState.MINED:
        await store.update_attempt(conn, current.id, **counted)
        return Sent(REBROADCAST_AFTER)
    match report.outcome:
        case BroadcastOutcome.ACCEPTED:
            await _told(bench, conn, current, AttemptState.BROADCAST, report, counted)
            return Sent(REBROADCAST_AFTER)
        case BroadcastOutcome.UNKNOWN:
            await _told(bench, conn, current, AttemptState.AMBIGUOUS, report, counted)
            detail = report.detail or "nobody knows whether the bytes arrived"
            return Sent(AMBIGUOUS_RETRY_AFTER, detail)
        case BroadcastOutcome.REJECTED:
            await _told(bench, conn, current, AttemptState.AMBIGUOUS, report, counted)
            reason = f"the node says that the bytes can never be valid: {report.detail}"
            return await step_payout(
                conn,
                mine,
                PayoutState.SECURITY_HOLD,
                actor=WORKER,
                now=now,
                reason=reason,
                fence=mine.fence,
                waiting_for=reason,
            )


async def _told(
    bench: Bench,
    conn: AsyncConnection,
    attempt: Attempt,
    to: AttemptState,
    report: BroadcastReport,
    counted: dict[str, Any],
) -> None:
    events: list[DomainEvent] = []
    if attempt.state is to:
        await store.update_attempt(conn, attempt.id, detail=report.detail, **counted)
    else:
        _, event = await move_attempt(
            conn,
            attempt,
            to,
            now=bench.clock.now(),
            reason=report.detail,
            detail=report.detail,
            **counted,
        )
        events.append(event)
    await record(conn, events)


async def _lock_mine(conn: AsyncConnection, payout: Payout) -> Payout:
    """Lock the payout's row, found as this worker left it under its fence.

    Raises:
        StaleFence: another worker has claimed it.
    """
    found = await store.get_payout(conn, payout.id, lock=True)
    if found.fence != payout.fence:
        raise StaleFence(f"payout {payout.id} was taken over by another worker")
    return found


_GAS_TO_ASK_WITH: Final = 100_000
