"""What a block did to our spends: called by `custody.inclusion` in the transaction of each block.

Rows are locked and written here; the postings are returned and made by the caller, in one batch
with those of the deposits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.bitcoin.transactions import Outpoint
from chain.model import Block, BlockContents
from custody import payout_store
from custody.bitcoin import coins
from custody.bitcoin import spend_store as store
from custody.bitcoin.coin_model import CoinState
from custody.bitcoin.spend_matching import Taking, find_own, foreign_legs, list_takings
from custody.bitcoin.spend_model import SENT, SpendAttempt, SpendState, share_fee
from custody.bitcoin.spend_moves import (
    NOT_MINED,
    PAYOUT_NOT_MINED,
    Carried,
    SpendMove,
    load_carried,
    move_attempt,
    move_spend,
)
from custody.control_messages import ScopeKind
from custody.errors import NotPossible
from custody.foreign_spends import include_foreign, orphan_foreign
from custody.freezes import Scope, close_automatically
from custody.payout_events import WORKER
from custody.payout_model import (
    AttemptKind,
    AttemptState,
    Payout,
    Source,
)
from custody.payout_postings import (
    failure_orphaned,
    mined,
    orphaned,
)
from custody.plan import Plan
from kernel.events import DomainEvent
from registry.queries import get_chain

MAY_BE_HELD: Final = frozenset({SpendState.ALLOCATED, *SENT})


async def spends_included(
    conn: AsyncConnection, contents: BlockContents, *, book: int, now: datetime
) -> Plan:
    """Write what a block that was included did to our spends; return what is to be posted.

    An attempt of ours becomes mined, and its payouts with it. Whatever else took coins of ours is
    posted as a foreign spend, the spends whose coins it took go to SECURITY_HOLD, and the wallet is
    frozen.
    """
    plan, chain, takings = Plan(), contents.block.chain, list_takings(contents)
    if not takings:
        return plan
    ids = {item.tx_id for item in takings}
    attempts = await store.find_attempts(conn, chain, ids)
    outpoints = {key for item in takings for key in item.outpoints}
    owners = await store.find_takers(conn, chain, outpoints)
    wanted = {item.spend_id for item in attempts.values()} | set(owners.values())
    spends = await _lock(conn, wanted, book)
    # Read again under the locks: the worker may have written them meanwhile.
    attempts = await store.find_attempts(conn, chain, ids)
    texts = {end.recipient for item in takings for end in item.outputs}
    texts |= {spent.address for item in takings for spent in item.spent}
    ours = await payout_store.find_sources(conn, chain, texts)
    takers = {key: spends[owner] for key, owner in owners.items()}
    for taking in takings:
        found = find_own(taking, attempts, takers, spends, ours)
        if found is None:
            await _foreign(conn, taking, takers, ours, contents.block, plan, now)
        else:
            await _mined(conn, *found, taking, contents.block, plan, now)
    return plan


async def spends_orphaned(
    conn: AsyncConnection, contents: BlockContents, *, book: int, now: datetime
) -> Plan:
    """Write what follows from a block that is gone; return what is to be posted.

    A mined spend is SIGNED (or CANCELLING) again and the same bytes go out again, its coins locked.
    """
    plan, block = Plan(), contents.block
    mined_here = await store.find_mined_in(conn, block.chain, block.hash)
    for carried in (await _lock(conn, mined_here, book)).values():
        if carried.spend.mined_block == block.hash:
            await _unmined(conn, carried, block, plan, now)
    movers = {item.tx_hash for item in contents.spends}
    await orphan_foreign(conn, plan, block, movers, now=now)
    return plan


async def _lock(conn: AsyncConnection, ids: Collection[UUID], book: int) -> dict[UUID, Carried]:
    found: dict[UUID, Carried] = {}
    await store.lock_spends(conn, ids)
    for key in sorted(ids):
        found[key] = await load_carried(conn, key, lock=True)
        if found[key].spend.book != book:
            raise NotPossible(f"spend {key} is in book {found[key].spend.book}, not {book}")
    return found


async def _mined(
    conn: AsyncConnection,
    carried: Carried,
    attempt: SpendAttempt | None,
    taking: Taking,
    block: Block,
    plan: Plan,
    now: datetime,
) -> None:
    fee = taking.outcome.fee
    succeeded = attempt is None or attempt.kind is AttemptKind.PAY
    if attempt is not None:
        _, told = await move_attempt(conn, attempt, AttemptState.MINED, now=now)
        plan.tell(told)
    shares = share_fee(fee, carried.parts)
    here = {"mined_height": block.height, "mined_block": block.hash, "succeeded": succeeded}
    moved, events = await move_spend(
        conn,
        SpendMove(
            carried=carried,
            to=SpendState.MINED,
            values={**here, "tx_id": taking.tx_id, "fee_paid": fee, "waiting_for": ""},
            of_payout=lambda item: {
                **here,
                "tx_hash": taking.tx_id,
                "fee_paid": shares[item.id],
                "waiting_for": "",
            },
            payload={
                "tx_id": taking.tx_id,
                "height": block.height,
                "block": block.hash,
                "fee": str(fee),
                "succeeded": succeeded,
                "known": attempt is not None,
            },
        ),
        now=now,
    )
    for item in moved.payouts:
        plan.post(*mined(item, shares[item.id], succeeded=succeeded))
    plan.tell(*events)


async def _unmined(
    conn: AsyncConnection, carried: Carried, block: Block, plan: Plan, now: datetime
) -> None:
    orphan = next((a for a in carried.signed if a.tx_id == carried.spend.tx_id), None)
    if orphan is not None:
        _, told = await move_attempt(
            conn, orphan, AttemptState.AMBIGUOUS, now=now, name="SpendAttemptOrphaned"
        )
        plan.tell(told)
    if carried.spend.state is SpendState.FINAL:
        await _lock_again(conn, carried, orphan, now)
        if not carried.spend.succeeded:
            await _cancellation_unmined(conn, carried, plan, now)
            return
    for item in carried.payouts:
        plan.post(*orphaned(item))
    going_on = _going_on(carried, orphan)
    cancels = going_on.kind is AttemptKind.CANCEL
    _, events = await move_spend(
        conn,
        SpendMove(
            carried=carried,
            to=SpendState.CANCELLING if cancels else SpendState.SIGNED,
            name="SpendOrphaned",
            payout_name="PayoutOrphaned",
            values={**NOT_MINED, "attempt": going_on.number, "run_after": now},
            of_payout=lambda item: {
                **PAYOUT_NOT_MINED,
                "hold_epoch": item.hold_epoch + 1,
                "attempt": going_on.number,
                "run_after": now,
            },
            reason=f"block {block.height} {block.hash} is no longer on the chain",
        ),
        now=now,
    )
    plan.tell(*events)


def _going_on(carried: Carried, orphan: SpendAttempt | None) -> SpendAttempt:
    """Return the attempt with which the spend waits for a block: its newest, if it has bytes.

    After a final block it is the orphan: coins that only others spend were given away meanwhile.
    """
    if carried.spend.state is SpendState.FINAL and orphan is not None:
        return orphan
    newest = carried.current
    never = newest.state is AttemptState.SUPERSEDED and newest.raw is None
    return carried.signed[-1] if never else newest


async def _lock_again(
    conn: AsyncConnection, carried: Carried, orphan: SpendAttempt | None, now: datetime
) -> None:
    spent = carried.signed[-1].coins if orphan is None else orphan.coins
    keys = [coin.outpoint for coin in spent]
    # A block that made one of the coins may be gone as well: it is locked when it is mined again.
    there = await coins.list_coins(conn, carried.spend.chain, outpoints=keys)
    unspent = [coin.outpoint for coin in there if coin.state is CoinState.UNSPENT]
    await coins.lock(conn, carried.spend.id, unspent, chain=carried.spend.chain, now=now)


async def _cancellation_unmined(
    conn: AsyncConnection, carried: Carried, plan: Plan, now: datetime
) -> None:
    """Take the fee back of a cancellation that was final and whose block is gone.

    The claims have their money back, so nothing is held and nobody may send the bytes again. Should
    a block have them once more, that is a spend like a stranger's.
    """
    reason = (
        "a cancellation that was final is orphaned: the bytes may pay, the claims are paid back"
    )
    await _freeze(conn, carried.spend.wallet, reason, now)
    for item in carried.payouts:
        plan.post(*failure_orphaned(item))
    _, events = await move_spend(
        conn,
        SpendMove(
            carried=carried,
            to=SpendState.SECURITY_HOLD,
            values={**NOT_MINED, "claims_returned": True, "waiting_for": reason},
            of_payout=lambda _: {
                **PAYOUT_NOT_MINED,
                "claim_returned": True,
                "waiting_for": reason,
            },
            reason=reason,
        ),
        now=now,
    )
    plan.tell(*events)


async def _foreign(
    conn: AsyncConnection,
    taking: Taking,
    takers: Mapping[Outpoint, Carried],
    ours: Mapping[str, Source],
    block: Block,
    plan: Plan,
    now: datetime,
) -> None:
    asset = (await get_chain(conn, block.chain)).native_asset
    await include_foreign(
        conn,
        plan,
        block,
        tx_hash=taking.tx_id,
        sender=taking.spent[0].address,
        nonce=None,
        legs=foreign_legs(block.chain, asset, taking, ours),
        now=now,
    )
    reason = f"transaction {taking.tx_id} is not ours and spent {taking.outpoints[0]}"
    for wallet in sorted({ours[item.address].wallet for item in taking.spent}):
        await _freeze(conn, wallet, reason, now)
    victims = {takers[key].spend.id: takers[key] for key in taking.outpoints if key in takers}
    for victim in victims.values():
        if victim.spend.state in MAY_BE_HELD:
            plan.tell(*await _hold(conn, victim, reason, now))


async def _hold(
    conn: AsyncConnection, carried: Carried, reason: str, now: datetime
) -> list[DomainEvent]:
    values = {"waiting_for": reason}

    def of_payout(_: Payout) -> Mapping[str, object]:
        return values

    move = SpendMove(
        carried=carried,
        to=SpendState.SECURITY_HOLD,
        values=values,
        of_payout=of_payout,
        reason=reason,
    )
    _, events = await move_spend(conn, move, now=now)
    return events


async def _freeze(conn: AsyncConnection, wallet: str, reason: str, now: datetime) -> None:
    scope = Scope(ScopeKind.WALLET, wallet)
    await close_automatically(conn, scope, by=WORKER, reason=reason, now=now)
