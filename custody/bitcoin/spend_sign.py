"""Sign: one transaction in one question to the signer; its bytes are stored before any is sent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.bitcoin import kernel
from chain.bitcoin.psbt import Psbt, PsbtInput, create, encode_psbt
from chain.bitcoin.second_opinion import confirm_transaction
from chain.bitcoin.transactions import Output, Transaction, decode
from custody import payout_store
from custody.bitcoin import coins
from custody.bitcoin import spend_store as store
from custody.bitcoin.cold_wallets import is_cold
from custody.bitcoin.spend_model import SENT, Spend, SpendAttempt, SpendState
from custody.bitcoin.spend_moves import (
    Carried,
    SpendMove,
    load_carried,
    move_attempt,
    move_spend,
)
from custody.bitcoin.spend_plan import is_own
from custody.bitcoin.spend_steps import SpendBench, Stopped, script_of
from custody.payout_approvals import from_document
from custody.payout_events import WORKER
from custody.payout_gates import find_stopped
from custody.payout_model import AttemptKind, AttemptState, Payout, PayoutState
from custody.payout_postings import released, signed, unallocated
from custody.payout_rules import ask_again_after
from custody.signer.errors import SignerPostponed, SignerRefused
from custody.signer.wire import (
    Line,
    SignedApproval,
    SpendChange,
    SpendInput,
    SpendIntent,
    SpendLine,
)
from kernel.db import transact
from kernel.errors import OutsideUnavailable
from kernel.events import record
from ledger.posting import post, require_applied
from registry.queries import get_wallet


async def sign(bench: SpendBench, spend: Spend) -> Stopped:
    """Have the current attempt signed and store its bytes.

    Raises:
        StaleFence: another worker has claimed the spend.
        OutsideUnavailable: the node or the signer does not answer; ask again.
    """
    async with bench.engine.connect() as conn:
        seen = await load_carried(conn, spend.id)
        stopped = await _find_stop(bench, conn, seen)
        cold = await is_cold(conn, await get_wallet(conn, seen.spend.wallet))
    if stopped:
        if seen.spend.state is SpendState.ALLOCATED and seen.current.asked_at is None:
            # Nobody has a signature of it: those that may be paid go on without the one that may not.
            await transact(bench.engine, lambda conn: _drop(bench, conn, spend, stopped))
        return Stopped(stopped)
    spent = await _find_spent(bench, seen)
    if spent:
        return Stopped(spent)
    if cold:
        return Stopped(
            f"wallet {seen.spend.wallet} is cold: people sign by hand, and import what they signed"
        )
    await transact(bench.engine, lambda conn: _note_asked(bench, conn, spend, seen.current))
    async with bench.engine.connect() as conn:
        approvals = await _list_approvals(conn, seen)
        intent = await _intent(conn, seen)
    psbt = encode_psbt(make_psbt(seen))
    try:
        raw = await bench.signer.sign_spend(intent, psbt, approvals)
    except SignerPostponed as error:
        pause = ask_again_after(seen.current.built_at, bench.clock.now())
        return Stopped(error.render(), look_again=pause)
    except SignerRefused as error:
        refusal = error
    else:
        read_signed(seen.current, raw, seen.spend.chain_id)
        await transact(
            bench.engine,
            lambda conn: store_signed(
                conn,
                spend.id,
                seen.current.number,
                raw,
                fence=spend.fence,
                now=bench.clock.now(),
            ),
        )
        return Stopped("")
    return await transact(bench.engine, lambda conn: _refused(bench, conn, spend, seen, refusal))


async def _find_stop(bench: SpendBench, conn: AsyncConnection, seen: Carried) -> str:
    # What pays nobody is never stopped: it is what ends a payment.
    if seen.current.kind is AttemptKind.CANCEL:
        return ""
    found = await find_stopped(conn, seen.payouts, now=bench.clock.now())
    return "; ".join(f"payout {key}: {reason}" for key, reason in found.items())


async def _find_spent(bench: SpendBench, seen: Carried) -> str:
    """Return which coin of a first attempt the node does not have any more, in words."""
    if seen.signed or seen.spend.state is not SpendState.ALLOCATED:
        return ""
    for coin in seen.current.coins:
        if not await bench.node.is_unspent(coin.outpoint, with_pool=True):
            spender = await bench.node.pool_spender(coin.outpoint)
            by = f"spent by {spender} in its pool" if spender else "not unspent"
            return f"the node says that {coin.outpoint} is {by}"
    return ""


async def _note_asked(
    bench: SpendBench, conn: AsyncConnection, spend: Spend, attempt: SpendAttempt
) -> None:
    await store.update_spend(conn, spend.id, fence=spend.fence, attempt=attempt.number)
    if attempt.asked_at is None:
        await store.update_attempt(conn, attempt.id, asked_at=bench.clock.now())


def make_psbt(seen: Carried) -> Psbt:
    """Return the current attempt as the signer gets it: with what each input spends."""
    attempt = seen.current
    known = [PsbtInput(witness_utxo=item) for item in spent_outputs(attempt, seen.spend.chain_id)]
    return create(decode(attempt.unsigned), known)


def spent_outputs(attempt: SpendAttempt, chain_id: int) -> list[Output]:
    """Return what each input of an attempt spends."""
    outputs = []
    for coin in attempt.coins:
        script = script_of(coin.address, chain_id)
        assert script is not None  # a coin pays an address of ours
        outputs.append(Output(coin.amount, script))
    return outputs


def read_signed(attempt: SpendAttempt, raw: bytes, chain_id: int) -> Transaction:
    """Return the signed transaction, read from its bytes and found to be the attempt.

    Inputs, outputs, id and size are those of the bytes, and another library reads the same; where
    libbitcoinkernel is installed, it verifies every input.

    Raises:
        OutsideUnavailable: they are something else.
        BadTransaction: they are no transaction, or a proof is wrong.
    """
    found, meant = decode(raw), decode(attempt.unsigned)
    same = found.without_proofs() == meant and found.tx_id == attempt.tx_id
    if not same or not all(item.witness and not item.script for item in found.inputs):
        raise OutsideUnavailable(
            "the signer signed something else, or not all of it",
            where=f"transaction {attempt.tx_id}",
            remedy="Check which keystore the signer runs with",
        )
    if found.weight > attempt.weight:
        raise OutsideUnavailable(
            f"the signed transaction weighs {found.weight}, {attempt.weight} was paid for",
            where=f"transaction {attempt.tx_id}",
        )
    confirm_transaction(raw)
    if kernel.is_available():
        kernel.verify_inputs(raw, spent_outputs(attempt, chain_id))
    return found


async def _intent(conn: AsyncConnection, seen: Carried) -> SpendIntent:
    spend, attempt = seen.spend, seen.current
    pays = attempt.kind is AttemptKind.PAY
    paths = await _own_paths(conn, seen.payouts)
    change = None
    if attempt.change:
        assert spend.change_path is not None  # change goes somewhere
        change = SpendChange(amount=attempt.change, key_path=spend.change_path)
    return SpendIntent(
        spend_id=spend.id,
        chain=spend.chain,
        chain_id=spend.chain_id,
        wallet=spend.wallet,
        kind="pay" if pays else "cancel",
        lines=[_line(item, paths.get(item.id)) for item in seen.payouts] if pays else [],
        inputs=[
            SpendInput(
                tx_id=coin.outpoint.tx_id,
                index=coin.outpoint.index,
                amount=coin.amount,
                key_path=coin.path,
            )
            for coin in attempt.coins
        ],
        change=change,
        fee=attempt.fee,
        fee_cap=spend.fee_cap,
        anchor=str(spend.anchor),
    )


def _line(payout: Payout, own_path: str | None) -> SpendLine:
    return SpendLine(
        payout_id=payout.id,
        kind="own" if is_own(payout) else "pay",
        client=payout.signed_client,
        destination=payout.destination,
        destination_path=own_path,
        asset=payout.asset,
        amount=payout.chain_amount,
        initiator=payout.requested_by,
        policy_version=payout.policy_version,
        rule=payout.rule,
    )


async def _own_paths(conn: AsyncConnection, payouts: Sequence[Payout]) -> dict[UUID, str]:
    """Return where the signer finds the receiving keys of moves between our own wallets."""
    own = [item for item in payouts if is_own(item)]
    if not own:
        return {}
    sources = await payout_store.find_sources(conn, own[0].chain, {x.destination for x in own})
    paths: dict[UUID, str] = {}
    for item in own:
        source = sources.get(item.destination)
        if source is not None:
            account = (await get_wallet(conn, source.wallet)).account_path
            paths[item.id] = f"{account}/{source.branch}/{source.index}"
    return paths


async def _list_approvals(conn: AsyncConnection, seen: Carried) -> list[SignedApproval]:
    """Return the approvals of all payouts; one signature may approve many of them, and travels once."""
    if seen.current.kind is AttemptKind.CANCEL:
        return []
    found = await payout_store.list_approvals_of(conn, [item.id for item in seen.payouts])
    made: dict[tuple[str, bytes], SignedApproval] = {}
    for item in found:
        key = item.operator, item.signature
        if key not in made:
            lines = [Line.of(from_document(dict(line))) for line in item.lines]
            made[key] = SignedApproval(
                operator=item.operator, signature=item.signature, lines=lines
            )
    return list(made.values())


async def store_signed(
    conn: AsyncConnection,
    spend_id: UUID,
    number: int,
    raw: bytes,
    *,
    fence: int | None,
    now: datetime,
    actor: str = WORKER,
) -> None:
    """Store the bytes of attempt *number*; from the first ones on only the chain decides.

    Args:
        fence: under which a worker has claimed the spend; None: people brought the bytes.
        actor: who brought them.

    Raises:
        StaleFence: another worker has claimed it.
    """
    mine = await load_carried(conn, spend_id, lock=True)
    attempt = next(item for item in mine.attempts if item.number == number)
    if attempt.state is not AttemptState.BUILT:
        # While the signer worked, the chain or people ended it: these bytes are not to be sent.
        return
    first = not mine.signed
    _, told = await move_attempt(
        conn, attempt, AttemptState.SIGNED, now=now, actor=actor, raw=raw, signed_at=now
    )
    events = [told]
    if first:
        # Whatever the state is: from the first signature on only the chain gives the claim back.
        batch = [transfer for item in mine.payouts for transfer in signed(item)]
        if batch:
            require_applied(await post(conn, mine.spend.book, batch, now=now))
    if mine.spend.state is SpendState.ALLOCATED:
        _, moved = await move_spend(
            conn,
            SpendMove(
                carried=mine,
                to=SpendState.SIGNED,
                values={"waiting_for": ""},
                of_payout=lambda _: {"waiting_for": ""},
                payload={"tx_id": attempt.tx_id, "attempt": attempt.number},
                fence=fence,
                actor=actor,
            ),
            now=now,
        )
        events += moved
    await record(conn, events)


# What is not signed.


async def _refused(
    bench: SpendBench, conn: AsyncConnection, spend: Spend, seen: Carried, error: SignerRefused
) -> Stopped:
    now = bench.clock.now()
    mine = await load_carried(conn, spend.id, lock=True)
    attempt = next(item for item in mine.attempts if item.number == seen.current.number)
    if attempt.state is not AttemptState.BUILT:
        return Stopped(error.what)
    if mine.spend.state in SENT:
        await _drop_replacement(bench, conn, mine, attempt, error.what)
        return Stopped(error.what)
    if mine.spend.state is not SpendState.ALLOCATED:
        return Stopped(error.what)
    if error.signed_before:
        values = {"waiting_for": error.what[:500]}
        move = SpendMove(
            carried=mine,
            to=SpendState.SECURITY_HOLD,
            values=values,
            of_payout=lambda _: values,
            reason=error.what,
            fence=spend.fence,
        )
        _, events = await move_spend(conn, move, now=now)
        await record(conn, events)
        return Stopped(error.what)
    if len(mine.payouts) > 1:
        await _drop(bench, conn, spend, f"the signer refused: {error.what}")
    else:
        await _reject(bench, conn, mine, attempt, error.what, spend.fence)
    return Stopped(error.what)


async def _drop(bench: SpendBench, conn: AsyncConnection, spend: Spend, reason: str) -> None:
    now = bench.clock.now()
    await drop_unsigned(conn, spend.id, reason=reason, now=now, fence=spend.fence)


async def drop_unsigned(
    conn: AsyncConnection,
    spend_id: UUID,
    *,
    reason: str,
    now: datetime,
    fence: int | None = None,
    actor: str = WORKER,
) -> None:
    """End a spend of which no signature exists: its payouts are approved again, its coins free.

    Raises:
        StaleFence: another worker has claimed it.
    """
    mine = await load_carried(conn, spend_id, lock=True)
    if mine.spend.state is not SpendState.ALLOCATED or mine.signed:
        return
    _, told = await move_attempt(
        conn, mine.current, AttemptState.SUPERSEDED, now=now, reason=reason, actor=actor
    )
    await _free(conn, mine)
    move = SpendMove(
        carried=mine,
        to=SpendState.DROPPED,
        payouts_to=PayoutState.APPROVED,
        payout_name="PayoutUnallocated",
        values={"waiting_for": ""},
        of_payout=lambda item: {
            "attempt": 0,
            "fee_cap": 0,
            "hold_epoch": item.hold_epoch + 1,
            "run_after": now,
            "waiting_for": "",
        },
        reason=reason,
        fence=fence,
        actor=actor,
    )
    _, events = await move_spend(conn, move, now=now)
    batch = [transfer for item in mine.payouts for transfer in unallocated(item)]
    require_applied(await post(conn, mine.spend.book, batch, now=now))
    await record(conn, [told, *events])


async def _reject(
    bench: SpendBench,
    conn: AsyncConnection,
    mine: Carried,
    attempt: SpendAttempt,
    reason: str,
    fence: int,
) -> None:
    now = bench.clock.now()
    _, told = await move_attempt(conn, attempt, AttemptState.SUPERSEDED, now=now, reason=reason)
    await _free(conn, mine)
    [payout] = mine.payouts
    is_over = payout.expires_at is not None and payout.expires_at <= now
    move = SpendMove(
        carried=mine,
        to=SpendState.DROPPED,
        payouts_to=PayoutState.EXPIRED if is_over else PayoutState.REJECTED,
        values={"waiting_for": ""},
        of_payout=lambda _: {"waiting_for": ""},
        reason=f"the signer refused: {reason}",
        fence=fence,
    )
    _, events = await move_spend(conn, move, now=now)
    batch = [transfer for item in mine.payouts for transfer in released(item)]
    require_applied(await post(conn, mine.spend.book, batch, now=now))
    await record(conn, [told, *events])


async def _free(conn: AsyncConnection, mine: Carried) -> None:
    await store.free_payouts(conn, mine.spend.id)
    await coins.unlock(conn, mine.spend.id)


async def _drop_replacement(
    bench: SpendBench, conn: AsyncConnection, mine: Carried, attempt: SpendAttempt, reason: str
) -> None:
    """Go on with the newest attempt that has bytes; the larger fee hold stays, which harms nobody."""
    now = bench.clock.now()
    before = mine.signed[-1]
    _, told = await move_attempt(conn, attempt, AttemptState.SUPERSEDED, now=now, reason=reason)
    events = [told]
    goes_on = mine.spend.state is SpendState.CANCELLING and before.kind is AttemptKind.PAY
    move = SpendMove(
        carried=mine,
        to=SpendState.SIGNED if goes_on else mine.spend.state,
        values={"attempt": before.number},
        of_payout=lambda _: {"attempt": before.number},
        name="SpendGoesOn",
        payout_name="PayoutGoesOn",
        reason=f"the signer refused: {reason}",
    )
    _, moved = await move_spend(conn, move, now=now)
    await record(conn, [*events, *moved])


def waits_for_signature(seen: Carried) -> bool:
    """Tell whether the current attempt is to be signed."""
    return seen.current.state is AttemptState.BUILT
