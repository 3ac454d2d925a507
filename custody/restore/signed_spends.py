"""What the signer has signed on Bitcoin and the database does not know: taken in from its log.

A record says which coins a transaction spends, whom it pays and what comes back. The transaction is
drafted again from that, and only if it is the very one that was signed, the spend is written as it was:
its coins are taken, its payouts are in it, and its bytes are stored. A coin that is not known here is
one that no block which was read has; the blocks that are read again bring it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.transactions import Outpoint, Transaction, decode
from custody import payout_store
from custody import store as addresses
from custody.addresses import assign_address
from custody.bitcoin import coin_store, spend_store
from custody.bitcoin.coin_model import CoinLock, CoinState, new_coin
from custody.bitcoin.cold_keys import input_weight
from custody.bitcoin.spend_model import (
    SENT,
    Spend,
    SpendPayout,
    SpendState,
    SpentCoin,
    share_fee,
)
from custody.bitcoin.spend_moves import Carried, SpendMove, begun, load_carried, move_spend
from custody.bitcoin.spend_moves import move_attempt as move_spend_attempt
from custody.bitcoin.spend_plan import Drafted, draft, payee_of
from custody.bitcoin.spend_sign import drop_unsigned, read_signed, store_signed
from custody.bitcoin.spend_steps import build_attempt, script_of
from custody.bitcoin.spend_tables import spend_attempt
from custody.errors import NotPossible, UnknownRow
from custody.model import BRANCHES, Address, AddressPurpose
from custody.payout_model import AttemptKind, AttemptState, Payout, PayoutState
from custody.payout_postings import allocated, replaced, signed
from custody.payout_rows import lock_many
from custody.restore import rebuilding, store
from custody.restore.model import SIGNER_LOG, WHAT_LENGTH_MAX, Item, ItemState, Restore
from custody.restore.signer_log import SignedSince, SpentRecord
from custody.restore.taking import take
from custody.restore_gate import BY
from custody.restore_marks import About
from custody.signer.wire import SpendIntent, SpendLine
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import Refused
from kernel.events import record
from ledger.posting import post, require_applied
from registry.model import Wallet
from registry.queries import get_wallet

ADDRESSES_MAX: Final = 1_000
"""Change addresses that are handed out again for one spend, at most."""
WHY: Final = "the database was restored, and took coins or payouts of what was signed"


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a signed transaction is made of."""

    wallet: Wallet
    transaction: Transaction
    coins: tuple[SpentCoin, ...]
    change: Address | None


async def take_spends(
    engine: AsyncEngine, standing: Restore, found: SignedSince, clock: Clock
) -> list[Item]:
    """Take in every spend of the log that is missing; return what was found missing."""
    async with engine.connect() as conn:
        contradicted = await _list_contradicted(conn, found)
    for spend_id in contradicted:
        give_back = partial(drop_unsigned, spend_id=spend_id, reason=WHY, actor=BY, now=clock.now())
        await transact(engine, give_back)
    items = []
    for index, spent in found.spends:
        async with engine.connect() as conn:
            key = f"spend-{index}"
            if await _is_known(conn, spent) or await store.is_settled(
                conn, standing.id, SIGNER_LOG, key
            ):
                continue
        now = clock.now()
        item = _item(standing, key, index, spent.intent, now)
        write = partial(_take, spent=spent, about=found.about, now=now)
        paid = [line.payout_id for line in spent.intent.lines]
        items.append(await take(engine, item, write, payouts=paid))
    return items


async def _is_known(conn: AsyncConnection, spent: SpentRecord) -> bool:
    query = select(func.count()).select_from(spend_attempt)
    return bool(await conn.scalar(query.where(spend_attempt.c.raw == spent.raw)))


async def _list_contradicted(conn: AsyncConnection, found: SignedSince) -> list[UUID]:
    """Return the unsigned spends that took a coin or a payout of another one, which was signed."""
    coins = {
        (spent.intent.chain, Outpoint(item.tx_id, item.index)): spent.intent.spend_id
        for _, spent in found.spends
        for item in spent.intent.inputs
    }
    payouts = {
        line.payout_id: spent.intent.spend_id
        for _, spent in found.spends
        for line in spent.intent.lines
    }
    wrong = []
    for chain in sorted({chain for chain, _ in coins}):
        for item in await spend_store.list_spends(conn, chain, states={SpendState.ALLOCATED}):
            seen = await load_carried(conn, item.id)
            takers = {coins.get((chain, coin.outpoint), item.id) for coin in seen.current.coins}
            takers |= {payouts.get(payout.id, item.id) for payout in seen.payouts}
            if takers != {item.id} and not seen.signed:
                wrong.append(item.id)
    return wrong


async def _take(
    conn: AsyncConnection, *, spent: SpentRecord, about: Mapping[UUID, About], now: datetime
) -> None:
    intent = spent.intent
    known = await spend_store.lock_spends(conn, [intent.spend_id])
    if intent.spend_id not in known:
        await _whole(conn, spent, about, now)
        return
    mine = await load_carried(conn, intent.spend_id, lock=True)
    tx_id = decode(spent.raw).tx_id
    same = [item for item in mine.attempts if item.tx_id == tx_id]
    if same:
        read_signed(same[-1], spent.raw, intent.chain_id)
        if same[-1].state is not AttemptState.BUILT:
            raise NotPossible(f"attempt {same[-1].number} is {same[-1].state} here")
        number, raw = same[-1].number, spent.raw
        await store_signed(conn, intent.spend_id, number, raw, fence=None, now=now, actor=BY)
    else:
        await _replacement(conn, mine, spent, now)


async def _whole(
    conn: AsyncConnection, spent: SpentRecord, about: Mapping[UUID, About], now: datetime
) -> None:
    """Write a spend of which nothing is here."""
    intent = spent.intent
    if intent.kind != "pay":
        raise NotPossible("what it cancels is not in the log")
    payouts, lost = await _payouts(conn, intent, about)
    first = payouts[0]
    await payout_store.lock_sender(conn, first.chain, first.sender, first.source_wallet)
    parts = await _parts(conn, spent, now)
    drafted = _draft(payouts, spent, parts)
    change = parts.change
    made = Spend(
        id=intent.spend_id,
        book=first.book,
        chain=intent.chain,
        chain_id=intent.chain_id,
        wallet=intent.wallet,
        state=SpendState.ALLOCATED,
        anchor=_anchor(intent),
        attempt=1,
        fee_cap=intent.fee_cap,
        change_address=None if change is None else change.address,
        change_path=None if intent.change is None else intent.change.key_path,
        created_at=rebuilding.born_at(intent.spend_id),
        run_after=now,
    )
    attempt = build_attempt(made, 1, drafted, now)
    read_signed(attempt, spent.raw, intent.chain_id)
    shared = [
        SpendPayout(
            spend_id=made.id,
            payout_id=item.id,
            weight=payee_of(item).weight,
            output=drafted.places[item.id],
        )
        for item in payouts
    ]
    await spend_store.insert_spend(conn, made)
    await spend_store.insert_attempt(conn, attempt)
    await spend_store.insert_payouts(conn, shared)
    await _lock(conn, made, parts.coins, now)
    await rebuilding.open_accounts(conn, payouts, now)
    shares = share_fee(made.fee_cap, shared)
    batch = await rebuilding.reserve_lost(conn, lost, now) if lost else []
    batch += [line for item in payouts for line in allocated(item, shares[item.id])]
    batch += [line for item in payouts for line in signed(item)]
    require_applied(await post(conn, made.book, batch, now=now))
    moved = []
    for item in payouts:
        values = {"attempt": 1, "fee_cap": shares[item.id]}
        moved.append(await rebuilding.walk(conn, item, PayoutState.ALLOCATED, now=now, **values))
    await record(conn, [begun(made, payouts, now=now, fee=drafted.fee)])
    carried = Carried(made, tuple(moved), tuple(shared), (attempt,))
    await _sign(conn, carried, spent.raw, SpendState.SIGNED, {"waiting_for": ""}, {}, now)


async def _replacement(
    conn: AsyncConnection, mine: Carried, spent: SpentRecord, now: datetime
) -> None:
    """Write an attempt that takes the place of an earlier one: any of them may be mined."""
    intent, spend = spent.intent, mine.spend
    if spend.state not in SENT or mine.current.raw is None:
        raise NotPossible(
            f"spend {spend.id} is {spend.state} here, and another one of it was signed"
        )
    first = mine.payouts[0]
    await payout_store.lock_sender(conn, spend.chain, first.sender, spend.wallet)
    parts = await _parts(conn, spent, now)
    drafted = _draft(mine.payouts if intent.kind == "pay" else (), spent, parts)
    changed: dict[str, Any] = {}
    if parts.change is not None and spend.change_address is None:
        assert intent.change is not None  # its address comes from it
        changed = {
            "change_address": parts.change.address,
            "change_path": intent.change.key_path,
        }
    number = mine.attempts[-1].number + 1
    attempt = build_attempt(spend, number, drafted, now)
    read_signed(attempt, spent.raw, intent.chain_id)
    await spend_store.insert_attempt(conn, attempt)
    await spend_store.place_payouts(conn, spend.id, drafted.places)
    await _lock(conn, spend, parts.coins, now)
    fee_cap = max(spend.fee_cap, intent.fee_cap)
    shares = share_fee(fee_cap, mine.parts)
    batch = [line for item in mine.payouts for line in replaced(item, shares[item.id])]
    require_applied(await post(conn, spend.book, batch, now=now))
    values = {**changed, "attempt": number, "fee_cap": fee_cap, "waiting_for": ""}
    of_payout = {
        item.id: {
            "attempt": number,
            "fee_cap": shares[item.id],
            "hold_epoch": item.hold_epoch + 1,
            "waiting_for": "",
        }
        for item in mine.payouts
    }
    carried = replace(mine, attempts=(*mine.attempts, attempt))
    to = SpendState.CANCELLING if intent.kind == "cancel" else spend.state
    await _sign(conn, carried, spent.raw, to, values, of_payout, now)


async def _sign(
    conn: AsyncConnection,
    carried: Carried,
    raw: bytes,
    to: SpendState,
    values: Mapping[str, Any],
    of_payout: Mapping[UUID, Mapping[str, Any]],
    now: datetime,
) -> None:
    """Store the bytes of the newest attempt, and take its spend and payouts to where they were."""
    attempt = carried.attempts[-1]
    _, told = await move_spend_attempt(
        conn,
        attempt,
        AttemptState.SIGNED,
        now=now,
        reason=rebuilding.WHY,
        actor=BY,
        raw=raw,
        signed_at=now,
        asked_at=now,
    )
    _, moved = await move_spend(
        conn,
        SpendMove(
            carried=carried,
            to=to,
            values=values,
            of_payout=lambda item: of_payout.get(item.id, {"waiting_for": ""}),
            payload={"tx_id": attempt.tx_id, "attempt": attempt.number},
            reason=rebuilding.WHY,
            actor=BY,
        ),
        now=now,
    )
    await record(conn, [told, *moved])


async def _payouts(
    conn: AsyncConnection, intent: SpendIntent, about: Mapping[UUID, About]
) -> tuple[list[Payout], list[Payout]]:
    """Return the payouts of a transaction, locked, and those among them that were lost.

    Raises:
        NotPossible: one of them is elsewhere by now.
        UnknownRow: nothing but its signature is known of one.
    """
    locked = await lock_many(conn, [line.payout_id for line in intent.lines])
    source = await payout_store.find_hot_source(conn, intent.wallet)
    if source is None:
        raise NotPossible(f"wallet {intent.wallet} has no hot address here")
    account = (await get_wallet(conn, intent.wallet)).account_path
    payouts, lost = [], []
    for line in sorted(intent.lines, key=lambda item: item.payout_id):
        payout = locked.get(line.payout_id)
        if payout is None:
            wanted = _lost(intent, line, about.get(line.payout_id))
            path = f"{account}/{source.branch}/{source.index}"
            wanted = replace(wanted, sender=source.address, sender_path=path)
            payout = await rebuilding.insert_lost(conn, wanted)
            lost.append(payout)
        elif payout.state not in rebuilding.WALK:
            raise NotPossible(f"payout {payout.id} is {payout.state} here, and it was signed")
        if (payout.destination, payout.chain_amount) != (line.destination, line.amount):
            raise NotPossible(f"payout {payout.id} pays somebody else, or something else")
        payouts.append(payout)
    return payouts, lost


def _lost(intent: SpendIntent, line: SpendLine, about: About | None) -> Payout:
    if about is None:
        raise UnknownRow(f"nothing but its signature is known of payout {line.payout_id}")
    return rebuilding.lost_payout(
        line.payout_id,
        about,
        chain=intent.chain,
        chain_id=intent.chain_id,
        source_wallet=intent.wallet,
        sender="",
        sender_path="",
        contract=None,
        chain_amount=line.amount,
        destination=line.destination,
        requested_by=line.initiator,
        policy_version=line.policy_version,
        rule=line.rule,
    )


async def _parts(conn: AsyncConnection, spent: SpentRecord, now: datetime) -> _Parts:
    """Return what a transaction spends and returns, with rows for coins that no block has yet.

    Raises:
        NotPossible: a coin pays an address that is not handed out here, or is spent by another one.
    """
    intent = spent.intent
    wallet = await get_wallet(conn, intent.wallet)
    reference = f"spend:{intent.spend_id}"
    change = None
    if intent.change is not None:
        change = await _address(conn, wallet, intent.change.key_path, reference, now)
    given = {Outpoint(item.tx_id, item.index): item for item in intent.inputs}
    known = await coin_store.lock_coins(conn, intent.chain, given.keys())
    coins = []
    for outpoint in sorted(given):
        item = given[outpoint]
        coin = known.get(outpoint)
        if coin is None:
            address = await _address(conn, wallet, item.key_path, "", now)
            coin = new_coin(intent.chain, outpoint, address, item.amount, state=CoinState.ORPHANED)
            await coin_store.insert_coins(conn, [coin])
        if coin.spent_by not in {None, decode(spent.raw).tx_id} or coin.amount != item.amount:
            raise NotPossible(f"{outpoint} is another coin here, or {coin.spent_by} has spent it")
        weight = input_weight(wallet)
        coins.append(SpentCoin(outpoint, item.amount, coin.address, item.key_path, weight))
    return _Parts(wallet, decode(spent.raw), tuple(coins), change)


async def _address(
    conn: AsyncConnection, wallet: Wallet, path: str, reference: str, now: datetime
) -> Address:
    """Return the wallet's address at a path; change addresses up to it are handed out again.

    Raises:
        NotPossible: it is not one of those that are handed out here.
    """
    root, branch, index = path.rsplit("/", 2)
    if root != wallet.account_path:
        raise NotPossible(f"{path} is no key of wallet {wallet.code}")
    for _ in range(ADDRESSES_MAX):
        for item in await addresses.list_addresses(conn, wallet.chain, wallet=wallet.code):
            if (item.branch, item.index) == (int(branch), int(index)):
                return item
        if int(branch) != BRANCHES[AddressPurpose.CHANGE]:
            break
        number = await addresses.lock_branch(conn, wallet.code, int(branch))
        if number > int(index):
            break
        what = reference if number == int(index) and reference else f"restored:{number}"
        change = AddressPurpose.CHANGE
        await assign_address(conn, wallet.code, purpose=change, reference=what, now=now, by=BY)
    raise NotPossible(
        f"address {path} of wallet {wallet.code} is handed out to nobody here",
        remedy="`causeway custody address give-back`, then run `causeway restore import`",
    )


async def _lock(
    conn: AsyncConnection, spend: Spend, coins: Sequence[SpentCoin], now: datetime
) -> None:
    """Take the coins for a spend: its rows are locked, and it was signed.

    Raises:
        NotPossible: another spend has one of them.
    """
    wanted = [CoinLock(spend.chain, coin.outpoint, spend.id) for coin in coins]
    for item in await coin_store.insert_locks(conn, wanted, now=now):
        if item.spend_id != spend.id:
            raise NotPossible(f"{item.outpoint} is taken by spend {item.spend_id} here")


def _draft(payouts: Sequence[Payout], spent: SpentRecord, parts: _Parts) -> Drafted:
    """Return the transaction as it is drafted from what the record says.

    Raises:
        Refused: it is not the one that was signed.
    """
    intent = spent.intent
    kind = AttemptKind.PAY if intent.kind == "pay" else AttemptKind.CANCEL
    script = script_of(None if parts.change is None else parts.change.address, intent.chain_id)
    amount = 0 if intent.change is None else intent.change.amount
    payees = [payee_of(item) for item in payouts]
    drafted = draft(payees, parts.coins, amount, script, kind)
    if drafted.unsigned != parts.transaction.without_proofs() or drafted.fee != intent.fee:
        raise Refused(f"the signer's bytes of spend {intent.spend_id} are something else")
    return drafted


def _anchor(intent: SpendIntent) -> Outpoint:
    tx_id, _, index = intent.anchor.rpartition(":")
    return Outpoint(tx_id, int(index))


def _item(standing: Restore, key: str, index: int, intent: SpendIntent, now: datetime) -> Item:
    lines = ", ".join(
        f"{line.amount} to {line.destination} (payout {line.payout_id})" for line in intent.lines
    )
    what = f"{intent.kind} of {intent.wallet} on {intent.chain}, record {index}: {lines}"
    return Item(
        restore_id=standing.id,
        source=SIGNER_LOG,
        key=key,
        state=ItemState.RESTORED,
        what=what[:WHAT_LENGTH_MAX],
        found_at=now,
    )
