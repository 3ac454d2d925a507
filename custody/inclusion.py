"""What a block did to our wallets: one step of a chain, posted once.

`apply_step` is what `chain.follow.follow` calls in the transaction of each block. Deposits, receipts
and payouts lock and write their rows first and return plans; then the ledger is posted to once.
So the books are exact at the block where the cursor stands.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeAlias
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.follow import get_contents
from chain.model import DELTA, Block, BlockContents, ChainStep, Included, Movement
from custody import arrivals, store
from custody.allow_list import list_destinations
from custody.arrivals import Judgement, Token
from custody.bitcoin.coin_inclusion import coins_included, coins_orphaned
from custody.bitcoin.spend_inclusion import spends_included, spends_orphaned
from custody.books import apply_plan
from custody.control_messages import ScopeKind
from custody.deposit_model import (
    OUTSIDE,
    POSTED,
    Deposit,
    DepositKind,
    DepositState,
    Observation,
    Receipt,
    ReceiptState,
    SourceClass,
)
from custody.freezes import Scope, close_automatically
from custody.model import Address, AddressPurpose, client_account, custody_account
from custody.payout_inclusion import payouts_included, payouts_orphaned
from custody.payout_model import ControlState
from custody.pending import pending_included, pending_orphaned
from custody.plan import Plan
from custody.policy import ConfirmationPolicy
from custody.remainders import move_remainders
from custody.restore_gate import require_facts_wanted
from custody.reversals import open_frozen, reverse, shut_again
from custody.unregistered import admit
from custody.venues.arrivals import find_expected
from kernel.events import DomainEvent
from ledger.queries import list_accounts
from registry.model import BITCOIN
from registry.queries import get_asset, get_chain, list_chain_assets, list_wallets


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
    address nobody's; what comes from an address of our own is an own transfer, never a client's, and
    so is what a venue sends back (`custody.venues`).

    Args:
        policy: names the smallest deposits; None: every deposit counts.

    Raises:
        PostingRefused: the ledger refuses; the caller's transaction must not commit.
        Frozen: the database was restored, and what it has sent is not known again.
    """
    await require_facts_wanted(conn)
    contents = step.contents
    of_outputs = (await get_chain(conn, contents.block.chain)).kind == BITCOIN
    if isinstance(step, Included):
        if of_outputs:
            await coins_included(conn, contents)
        plan = await _arrived(conn, contents, book=book, now=now, policy=policy)
        included = spends_included if of_outputs else payouts_included
        payouts = await included(conn, contents, book=book, now=now)
        await apply_plan(conn, plan.merge([payouts]), book=book, now=now)
        return
    if of_outputs:
        await coins_orphaned(conn, contents)
    plan, undone = await _vanished(conn, contents.block, now=now)
    vanished = spends_orphaned if of_outputs else payouts_orphaned
    payouts = await vanished(conn, contents, book=book, now=now)
    plan = plan.merge([payouts])
    shut = await reverse(conn, plan, undone, book=book, now=now)
    await apply_plan(conn, plan, book=book, now=now)
    await shut_again(conn, shut, book=book, now=now)


async def include_again(
    conn: AsyncConnection,
    address: Address,
    *,
    book: int,
    now: datetime,
    policy: ConfirmationPolicy | None = None,
) -> int:
    """Take what arrived at *address* for whose it is by now; return how many arrivals that are.

    An address that was nobody's is somebody's since. What lies there and nobody was credited with leaves
    the books as if its block had vanished, and comes in again as the block says it: held for its owner,
    confirmed, screened and credited as any other.

    Raises:
        PostingRefused: as `apply_step`.
    """
    found: list[Deposit | Receipt] = [
        *await store.lock_at(conn, Deposit, address.chain, address.address, _RETAKEN),
        *await store.lock_at(conn, Receipt, address.chain, address.address, _RETAKEN),
    ]
    taken = [item for item in found if not item.position.startswith(DELTA)]
    if not taken:
        return 0
    plan, posted = await _gone(conn, address.chain, taken, now=now)
    # Of what nobody was credited with nobody has spent anything: no balance is asked for, and the ledger
    # is waited for last.
    await store.save_arrivals(conn, [_reversed(plan, item, now) for item in posted])
    again = {(item.tx_hash, item.position) for item in taken}
    for block_hash in dict.fromkeys(item.block_hash for item in sorted(taken, key=_by_height)):
        contents = await get_contents(conn, address.chain, block_hash)
        assert contents is not None, f"block {block_hash} of an arrival is not on the chain"
        mine = tuple(m for m in contents.movements if _identity(m) in again)
        part = replace(contents, movements=mine, outcomes=(), spends=(), left_out=0)
        came = await _arrived(conn, part, book=book, now=now, policy=policy)
        plan = plan.merge([came])
    touched = {key for item in taken for key in arrivals.accounts_of(item)}
    shut = await open_frozen(conn, touched, book=book, now=now)
    await apply_plan(conn, plan, book=book, now=now)
    await shut_again(conn, shut, book=book, now=now)
    return len(taken)


Identity: TypeAlias = tuple[str, str]
"""Transaction hash and position."""

_GONE: Final = frozenset(
    {
        *(DepositState.ORPHANED, DepositState.REVERSED),
        *(ReceiptState.ORPHANED, ReceiptState.REVERSED),
    }
)
_RETAKEN: Final = frozenset(
    {
        *(DepositState.INCLUDED, DepositState.CONFIRMED, DepositState.SCREENED),
        *(DepositState.UNATTRIBUTED, DepositState.QUARANTINED, DepositState.DISMISSED),
        DepositState.HELD,
        *(ReceiptState.INCLUDED, ReceiptState.FINAL, ReceiptState.NOT_RECEIVED),
    }
)
"""States of arrivals that nobody was credited with."""
_BOOKED: Final = frozenset({*POSTED, ReceiptState.FINAL, ReceiptState.MATCHED})


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
    tokens = await load_tokens(conn, block.chain)
    arriving = await _judge_all(conn, contents, tokens, book=book, policy=policy)
    await pending_included(conn, contents, now=now)
    if not arriving:
        return Plan()
    identities = {_identity(item.movement) for item in arriving}
    deposits = await store.lock_known(conn, Deposit, block.chain, identities)
    receipts = await store.lock_known(conn, Receipt, block.chain, identities)
    arriving = await _bounded(conn, contents, arriving, tokens, deposits, now=now)
    await _freeze_impossible(conn, arriving, deposits, tokens, now=now)
    written = [_written(item, block, deposits, receipts) for item in arriving]
    await store.insert_arrivals(conn, [new for known, new in written if known is None])
    await store.save_arrivals(conn, [new for known, new in written if known is not None])
    await store.insert_observations(
        conn, [Observation(new.id, new.epoch, block.hash, block.height, now) for _, new in written]
    )
    owners = {w.code: w.owner for w in await list_wallets(conn, block.chain)}
    plan = Plan()
    for known, new in written:
        plan.tell(_included_event(known, new, now))
        if new.credit:
            plan.need(custody_account(new.wallet), new.asset, owner=owners[new.wallet])
            plan.post(arrivals.included(new))
    await move_remainders(conn, plan, [new for _, new in written], tokens, sign=1, now=now)
    return plan


async def _bounded(
    conn: AsyncConnection,
    contents: BlockContents,
    arriving: Sequence[_Arriving],
    tokens: Mapping[str | None, Token],
    deposits: Mapping[Identity, Deposit],
    *,
    now: datetime,
) -> list[_Arriving]:
    """Leave out what unregistered contracts press on us beyond what a day takes."""
    fresh = [
        item.movement
        for item in arriving
        if item.movement.contract not in tokens and _identity(item.movement) not in deposits
    ]
    taken = await admit(conn, contents.block, fresh, left_out=contents.left_out, now=now)
    beyond = {_identity(item) for item in fresh} - {_identity(item) for item in taken}
    return [item for item in arriving if _identity(item.movement) not in beyond]


async def _freeze_impossible(
    conn: AsyncConnection,
    arriving: Sequence[_Arriving],
    deposits: Mapping[Identity, Deposit],
    tokens: Mapping[str | None, Token],
    *,
    now: datetime,
) -> None:
    """Stop an asset whose registered contract says more than there can be; each finding once.

    Whoever opens the asset again knows of it: the same transfer mined again does not close it.
    """
    for item in arriving:
        known, token = deposits.get(_identity(item.movement)), tokens.get(item.movement.contract)
        if not item.judged.impossible or token is None:
            continue
        if known is not None and known.reason == item.judged.reason:
            continue
        reason = (
            f"{token.on_chain.code} claims {item.movement.amount} in {item.movement.tx_hash}: "
            f"{item.judged.reason}"
        )
        scope = Scope(ScopeKind.ASSET, token.asset.code)
        await close_automatically(conn, scope, by=arrivals.FOLLOWER, reason=reason, now=now)


def _identity(movement: Movement) -> Identity:
    return movement.tx_hash, movement.position


def _written(
    item: _Arriving,
    block: Block,
    deposits: Mapping[Identity, Deposit],
    receipts: Mapping[Identity, Receipt],
) -> tuple[Deposit | Receipt | None, Deposit | Receipt]:
    """Return the arrival as it is known, if it is, and as it stands after this block."""
    identity = (item.movement.tx_hash, item.movement.position)
    if _is_receipt(item):
        receipt = arrivals.first_receipt(item.movement, block, item.address, item.judged)
        before = receipts.get(identity)
        return before, receipt if before is None else arrivals.receipt_again(before, receipt)
    deposit = arrivals.first_deposit(item.movement, block, item.address, item.judged, item.source)
    known = deposits.get(identity)
    return known, deposit if known is None else arrivals.deposit_again(known, deposit)


def _included_event(
    known: Deposit | Receipt | None, new: Deposit | Receipt, now: datetime
) -> DomainEvent:
    name, reason = "ReceiptIncluded", ""
    if isinstance(new, Deposit):
        quarantined = new.state is DepositState.QUARANTINED
        name = "DepositQuarantined" if quarantined else "DepositIncluded"
        reason = new.reason
    return arrivals.event(known, new, name, at=now, actor=arrivals.FOLLOWER, reason=reason)


async def _vanished(
    conn: AsyncConnection, block: Block, *, now: datetime
) -> tuple[Plan, list[Deposit | Receipt]]:
    """Void what was only held; return what is posted and has to be reversed, newest first."""
    found: list[Deposit | Receipt] = [
        *await store.lock_in_block(conn, Deposit, block.chain, block.hash),
        *await store.lock_in_block(conn, Receipt, block.chain, block.hash),
    ]
    await pending_orphaned(conn, block.chain, {item.tx_hash for item in found}, now=now)
    return await _gone(conn, block.chain, found, now=now)


async def _gone(
    conn: AsyncConnection, chain: str, found: Sequence[Deposit | Receipt], *, now: datetime
) -> tuple[Plan, list[Deposit | Receipt]]:
    """Void what of these arrivals is only held; return what is posted and has to be reversed."""
    plan = Plan()
    there = [item for item in found if item.state not in _GONE]
    undone = [item for item in there if item.state in _BOOKED]
    gone = []
    for item in there:
        if item.state in _BOOKED:
            continue
        after: Deposit | Receipt
        if isinstance(item, Deposit):
            after, name = arrivals.moved(item, DepositState.ORPHANED), "DepositOrphaned"
        else:
            after, name = arrivals.moved(item, ReceiptState.ORPHANED), "ReceiptOrphaned"
        gone.append(after)
        if item.state not in OUTSIDE and item.state is not ReceiptState.NOT_RECEIVED:
            plan.post(arrivals.orphaned(item))
        plan.tell(arrivals.event(item, after, name, at=now, actor=arrivals.FOLLOWER))
    await store.save_arrivals(conn, gone)
    if any(item.remainder for item in there):
        tokens = await load_tokens(conn, chain)
        await move_remainders(conn, plan, there, tokens, sign=-1, now=now)
    return plan, undone


async def _judge_all(
    conn: AsyncConnection,
    contents: BlockContents,
    tokens: Mapping[str | None, Token],
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
    parties = {ours[m.recipient].party for m in incoming} - {None}
    blocked = await shut_accounts(conn, parties, book=book)
    known = await _known_senders(conn, parties, chain)
    to_hot = {m.tx_hash for m in incoming if ours[m.recipient].purpose is AddressPurpose.HOT}
    expected = await find_expected(conn, chain, to_hot, book=book)
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
        if judged.kind is DepositKind.UNATTRIBUTED and address.purpose is AddressPurpose.HOT:
            route = expected.take(movement.tx_hash, address.address, judged.asset, judged.amount)
            judged = arrivals.returning(judged, route) if route else judged
        seen_before = (address.party, movement.sender) in known
        source = SourceClass.KNOWN if seen_before else SourceClass.UNKNOWN
        arriving.append(_Arriving(movement, address, judged, source))
    return arriving


async def load_tokens(conn: AsyncConnection, chain: str) -> dict[str | None, Token]:
    """Return what is registered, by contract: never by symbol."""
    on_chain = await list_chain_assets(conn, chain)
    assets = {code: await get_asset(conn, code) for code in {item.asset for item in on_chain}}
    return {item.contract: Token(item, assets[item.asset]) for item in on_chain}


async def shut_accounts(
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


def _reversed(plan: Plan, item: Deposit | Receipt, now: datetime) -> Deposit | Receipt:
    """Plan what reverses an arrival that is nobody's, in suspense or held; return it as it is then."""
    after: Deposit | Receipt
    if isinstance(item, Deposit):
        after, name = arrivals.moved(item, DepositState.REVERSED), "DepositReversed"
    else:
        after, name = arrivals.moved(item, ReceiptState.REVERSED), "ReceiptReversed"
    after = replace(after, postings=())
    plan.post(*arrivals.undone(item, shortfall=0))
    plan.tell(arrivals.event(item, after, name, at=now, actor=arrivals.FOLLOWER))
    return after


def _by_height(item: Deposit | Receipt) -> tuple[int, UUID]:
    return item.height, item.id


def _is_receipt(item: _Arriving) -> bool:
    settles = item.address.purpose is AddressPurpose.SETTLEMENT
    return settles and item.judged.kind is not DepositKind.QUARANTINED
