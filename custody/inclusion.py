"""What a block did to our wallets: one step of a chain, posted once.

`apply_step` is what `chain.follow.follow` calls in the transaction of each block. Deposits, receipts
and payouts lock and write their rows first and return plans; then the ledger is posted to once.
So the books are exact at the block where the cursor stands.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.model import Block, BlockContents, ChainStep, Included, Movement
from custody import arrivals, store
from custody.allow_list import list_destinations
from custody.arrivals import Judgement, Token
from custody.books import apply_plan
from custody.deposit_model import (
    HOLD_OPEN,
    POSTED,
    Deposit,
    DepositKind,
    DepositState,
    Observation,
    Receipt,
    ReceiptState,
    SourceClass,
)
from custody.model import Address, AddressPurpose, client_account, custody_account
from custody.payout_inclusion import payouts_included, payouts_orphaned
from custody.payout_model import ControlState
from custody.plan import Plan
from custody.policy import ConfirmationPolicy
from custody.reversals import reverse, shut_again
from ledger.queries import list_accounts
from registry.queries import get_asset, list_chain_assets, list_wallets


async def apply_step(
    conn: AsyncConnection,
    step: ChainStep,
    *,
    book: int,
    now: datetime,
    policy: ConfirmationPolicy | None = None,
) -> None:
    """Write what follows from a block that was included or orphaned.

    What arrives at a deposit address is a deposit, at a settlement address a receipt, at a hot
    address nobody's; what comes from an address of our own is an own transfer, never a client's.

    Args:
        policy: names the smallest deposits; None: every deposit counts.

    Raises:
        PostingRefused: the ledger refuses; the caller's transaction must not commit.
    """
    contents = step.contents
    if isinstance(step, Included):
        plan = await _arrived(conn, contents, book=book, now=now, policy=policy)
        payouts = await payouts_included(conn, contents, book=book, now=now)
        await apply_plan(conn, plan.merge([payouts]), book=book, now=now)
        return
    plan, undone = await _vanished(conn, contents.block, now=now)
    payouts = await payouts_orphaned(conn, contents, book=book, now=now)
    plan = plan.merge([payouts])
    shut = await reverse(conn, plan, undone, book=book, now=now)
    await apply_plan(conn, plan, book=book, now=now)
    await shut_again(conn, shut, book=book, now=now)


@dataclass(frozen=True, slots=True)
class _Arriving:
    """A movement to an address of ours that did not come from us."""

    movement: Movement
    address: Address
    judged: Judgement
    source: SourceClass


async def _arrived(
    conn: AsyncConnection,
    contents: BlockContents,
    *,
    book: int,
    now: datetime,
    policy: ConfirmationPolicy | None,
) -> Plan:
    block = contents.block
    arriving = await _judge_all(conn, contents, book=book, policy=policy)
    identities = {(item.movement.tx_hash, item.movement.position) for item in arriving}
    deposits = await store.lock_known(conn, Deposit, block.chain, identities)
    receipts = await store.lock_known(conn, Receipt, block.chain, identities)
    owners = {w.code: w.owner for w in await list_wallets(conn, block.chain)} if arriving else {}
    plan = Plan()
    for item in arriving:
        identity = (item.movement.tx_hash, item.movement.position)
        if _is_receipt(item):
            written: Deposit | Receipt = await _write_receipt(
                conn, item, block, receipts.get(identity), plan, now
            )
        else:
            written = await _write_deposit(conn, item, block, deposits.get(identity), plan, now)
        await store.insert_observations(
            conn, [Observation(written.id, written.epoch, block.hash, block.height, now)]
        )
        if written.credit:
            wallet = written.wallet
            plan.need(custody_account(wallet), written.asset, owner=owners[wallet])
            plan.post(arrivals.included(written))
    return plan


async def _write_deposit(
    conn: AsyncConnection,
    item: _Arriving,
    block: Block,
    known: Deposit | None,
    plan: Plan,
    now: datetime,
) -> Deposit:
    new = arrivals.first_deposit(item.movement, block, item.address, item.judged, item.source)
    if known is None:
        await store.insert_arrival(conn, new)
    else:
        new = arrivals.deposit_again(known, new)
        await store.save_arrival(conn, new)
    quarantined = new.state is DepositState.QUARANTINED
    name = "DepositQuarantined" if quarantined else "DepositIncluded"
    plan.tell(arrivals.event(known, new, name, at=now, actor=arrivals.FOLLOWER, reason=new.reason))
    return new


async def _write_receipt(
    conn: AsyncConnection,
    item: _Arriving,
    block: Block,
    known: Receipt | None,
    plan: Plan,
    now: datetime,
) -> Receipt:
    new = arrivals.first_receipt(item.movement, block, item.address, item.judged)
    if known is None:
        await store.insert_arrival(conn, new)
    else:
        new = arrivals.receipt_again(known, new)
        await store.save_arrival(conn, new)
    plan.tell(arrivals.event(known, new, "ReceiptIncluded", at=now, actor=arrivals.FOLLOWER))
    return new


async def _vanished(
    conn: AsyncConnection, block: Block, *, now: datetime
) -> tuple[Plan, list[Deposit | Receipt]]:
    """Void what was only held; return what is posted and has to be reversed, newest first."""
    plan = Plan()
    undone: list[Deposit | Receipt] = []
    for deposit in await store.lock_in_block(conn, Deposit, block.chain, block.hash):
        if deposit.state in POSTED:
            undone.append(deposit)
        elif deposit.state in HOLD_OPEN or deposit.state is DepositState.QUARANTINED:
            gone = arrivals.moved(deposit, DepositState.ORPHANED)
            await store.save_arrival(conn, gone)
            if deposit.state in HOLD_OPEN:
                plan.post(arrivals.orphaned(deposit))
            plan.tell(
                arrivals.event(deposit, gone, "DepositOrphaned", at=now, actor=arrivals.FOLLOWER)
            )
    for receipt in await store.lock_in_block(conn, Receipt, block.chain, block.hash):
        if receipt.state in {ReceiptState.FINAL, ReceiptState.MATCHED}:
            undone.append(receipt)
        elif receipt.state is ReceiptState.INCLUDED:
            lost = arrivals.moved(receipt, ReceiptState.ORPHANED)
            await store.save_arrival(conn, lost)
            plan.post(arrivals.orphaned(receipt))
            plan.tell(
                arrivals.event(receipt, lost, "ReceiptOrphaned", at=now, actor=arrivals.FOLLOWER)
            )
    return plan, undone


async def _judge_all(
    conn: AsyncConnection,
    contents: BlockContents,
    *,
    book: int,
    policy: ConfirmationPolicy | None,
) -> list[_Arriving]:
    """Return what strangers sent to addresses of ours, and what it is, in block order."""
    chain = contents.block.chain
    ends = {end for move in contents.movements for end in (move.sender, move.recipient)}
    if not ends:
        return []
    ours = {item.address: item for item in await store.list_addresses(conn, chain, only=ends)}
    incoming = [m for m in contents.movements if m.recipient in ours and m.sender not in ours]
    if not incoming:
        return []
    tokens = await _tokens(conn, chain)
    parties = {ours[m.recipient].party for m in incoming} - {None}
    blocked = await _shut_accounts(conn, parties, book=book)
    known = await _known_senders(conn, parties, chain)
    arriving = []
    for movement in incoming:
        address, token = ours[movement.recipient], tokens.get(movement.contract)
        asset = "" if token is None else token.asset.code
        judged = arrivals.judge(
            movement,
            address,
            token,
            minimum=0 if policy is None else policy.minimum(chain, asset),
            blocked=(address.party, asset) in blocked,
        )
        seen_before = (address.party, movement.sender) in known
        source = SourceClass.KNOWN if seen_before else SourceClass.UNKNOWN
        arriving.append(_Arriving(movement, address, judged, source))
    return arriving


async def _tokens(conn: AsyncConnection, chain: str) -> dict[str | None, Token]:
    """Return what is registered, by contract: never by symbol."""
    return {
        item.contract: Token(item, await get_asset(conn, item.asset))
        for item in await list_chain_assets(conn, chain)
    }


async def _shut_accounts(
    conn: AsyncConnection, parties: Collection[str | None], *, book: int
) -> set[tuple[str | None, str]]:
    """Return (party, asset) of clients' accounts that take nothing: frozen or closed.

    What arrives for them is real all the same, and the chain does not wait: it is nobody's until
    somebody decides.
    """
    shut: set[tuple[str | None, str]] = set()
    for party in parties:
        path = client_account(str(party))
        for account in await list_accounts(conn, book, path):
            if account.path == path and (account.frozen or account.closed):
                shut.add((party, account.asset))
    return shut


async def _known_senders(
    conn: AsyncConnection, parties: Collection[str | None], chain: str
) -> set[tuple[str | None, str]]:
    """Return (party, address) where two people allowed the address for the party."""
    return {
        (party, item.address)
        for party in parties
        for item in await list_destinations(conn, party=party)
        if item.chain == chain and item.state is ControlState.ACTIVE
    }


def _is_receipt(item: _Arriving) -> bool:
    settles = item.address.purpose is AddressPurpose.SETTLEMENT
    return settles and item.judged.kind is not DepositKind.QUARANTINED
