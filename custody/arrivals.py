"""What an arrival is, and what each of its steps posts. Pure.

The postings are the account book's section "Deposit", line by line. The ids of transfers follow from
the arrival, its epoch and the step, so a step that is repeated is recognised as the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

from chain.model import DELTA, Block, Movement
from custody.deposit_model import (
    DEPOSIT_STATES,
    PLAUSIBLE_AMOUNT_MAX,
    RECEIPT_STATES,
    Arrival,
    Deposit,
    DepositKind,
    DepositState,
    Receipt,
    ReceiptState,
    SourceClass,
)
from custody.errors import NotPossible
from custody.model import (
    DUST_ACCOUNT,
    Address,
    AddressPurpose,
    client_account,
    custody_account,
    held_account,
    rail_account,
    reorg_account,
    unattributed_account,
)
from kernel.events import DomainEvent
from kernel.ids import derive_id
from kernel.money import Asset, Rounding, rescale
from kernel.states import StateTable
from ledger.model import Transfer, chain, hold, post_hold, reversal, transfer, void_hold
from registry.model import CLIENT, ChainAsset

PURPOSE: Final = "deposit"
FOLLOWER: Final = "system:follower"

A = TypeVar("A", Deposit, Receipt)


@dataclass(frozen=True, slots=True)
class Token:
    """An asset on a chain, and what it is in the books."""

    on_chain: ChainAsset
    asset: Asset

    def split(self, amount: int) -> tuple[int, int]:
        """Return the chain's amount in whole units of the asset, and what is left of it.

        What is left is less than one unit, and counted as the chain counts; it is 0 wherever the asset
        has at least as many places as the chain.
        """
        decimals, scale = self.on_chain.decimals, self.asset.scale
        units = rescale(amount, decimals, scale, Rounding.DOWN)
        return units, 0 if scale >= decimals else amount - rescale(units, scale, decimals)

    def on_the_chain(self, units: int, remainder: int) -> int:
        """Return the chain's amount again."""
        return rescale(units, self.asset.scale, self.on_chain.decimals) + remainder


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a movement to one of our addresses is."""

    kind: DepositKind
    credit: str
    asset: str
    amount: int
    reason: str = ""
    remainder: int = 0
    impossible: bool = False
    """A registered contract says more than there can be: the asset is not to be trusted."""


def judge(
    movement: Movement,
    address: Address,
    token: Token | None,
    *,
    minimum: int = 0,
    blocked: bool = False,
) -> Judgement:
    """Decide whose account a movement to *address* credits.

    Args:
        token: what its contract is registered as; None if it is not.
        minimum: smallest deposit that is worth a client's account, in the asset's units.
        blocked: the client's account takes nothing (frozen or closed).
    """
    if token is None:
        return Judgement(
            kind=DepositKind.QUARANTINED,
            credit="",
            asset="",
            amount=movement.amount,
            reason=f"contract {movement.contract} is not registered",
        )
    asset, (amount, remainder) = token.asset.code, token.split(movement.amount)
    impossible = _impossible(movement.amount, amount, token)
    doubt = impossible or ("" if amount else "less than one unit of the asset")
    if doubt:
        return Judgement(
            kind=DepositKind.QUARANTINED,
            credit="",
            asset=asset,
            amount=movement.amount,
            reason=doubt,
            # What cannot be true adds nothing to what is kept in pieces either.
            remainder=0 if impossible else remainder,
            impossible=bool(impossible),
        )
    if movement.position.startswith(DELTA):
        # A balance says that it came, and no transaction: nobody can say for whom.
        return Judgement(
            kind=DepositKind.UNATTRIBUTED,
            credit=unattributed_account(address.chain),
            asset=asset,
            amount=amount,
            reason="a balance shows it, and no transaction",
            remainder=remainder,
        )
    kind, credit, reason = _credited(address, dust=amount < minimum, blocked=blocked)
    return Judgement(
        kind=kind, credit=credit, asset=asset, amount=amount, reason=reason, remainder=remainder
    )


def _impossible(on_chain: int, amount: int, token: Token) -> str:
    """Say why there cannot be so much; empty where there can."""
    bound = token.on_chain.supply_max
    if bound is not None and on_chain > bound:
        return f"more than the {bound} smallest units that there are of {token.on_chain.code}"
    return "no real asset has so many units" if amount > PLAUSIBLE_AMOUNT_MAX else ""


def _credited(address: Address, *, dust: bool, blocked: bool) -> tuple[DepositKind, str, str]:
    nobodys = unattributed_account(address.chain)
    match address.purpose:
        case AddressPurpose.SETTLEMENT:
            # Whose receipt it is stands on the receipt; here only the account matters.
            return DepositKind.CLIENT, rail_account(address.chain), ""
        case AddressPurpose.SKIPPED:
            return DepositKind.UNATTRIBUTED, nobodys, "sent to an address of the lost hours"
        case AddressPurpose.HOT | AddressPurpose.CHANGE:
            return DepositKind.UNATTRIBUTED, nobodys, f"sent to a {address.purpose} address"
        case AddressPurpose.DEPOSIT:
            if dust:
                return DepositKind.DUST, DUST_ACCOUNT, "below the smallest deposit"
            if blocked or address.party is None:
                return DepositKind.UNATTRIBUTED, nobodys, "the client's account is shut"
            return DepositKind.CLIENT, client_account(address.party), ""


def first_deposit(
    movement: Movement,
    block: Block,
    address: Address,
    judged: Judgement,
    source: SourceClass,
) -> Deposit:
    """Return the row of a deposit that is seen for the first time."""
    quarantined = judged.kind is DepositKind.QUARANTINED
    return Deposit(
        id=_arrival_id("deposit", movement, block),
        chain=block.chain,
        tx_hash=movement.tx_hash,
        position=movement.position,
        contract=movement.contract,
        asset=judged.asset,
        amount=judged.amount,
        sender=movement.sender,
        address=address.address,
        wallet=address.wallet,
        party=address.party,
        credit=judged.credit,
        epoch=1,
        block_hash=block.hash,
        height=block.height,
        postings=(),
        version=1,
        first_seen_at=block.time,
        state=DepositState.QUARANTINED if quarantined else DepositState.INCLUDED,
        kind=judged.kind,
        source=source,
        reason=judged.reason,
        remainder=judged.remainder,
    )


def first_receipt(movement: Movement, block: Block, address: Address, judged: Judgement) -> Receipt:
    """Return the row of a receipt that is seen for the first time."""
    return Receipt(
        id=_arrival_id("receipt", movement, block),
        chain=block.chain,
        tx_hash=movement.tx_hash,
        position=movement.position,
        contract=movement.contract,
        asset=judged.asset,
        amount=judged.amount,
        sender=movement.sender,
        address=address.address,
        wallet=address.wallet,
        party=address.party,
        credit=judged.credit,
        epoch=1,
        block_hash=block.hash,
        height=block.height,
        postings=(),
        version=1,
        first_seen_at=block.time,
        state=ReceiptState.INCLUDED,
        reference=address.reference,
        remainder=judged.remainder,
    )


def deposit_again(known: Deposit, fresh: Deposit) -> Deposit:
    """Return a deposit mined again: the same row in its next epoch.

    Everything else is taken from *fresh*, what the block says now: a contract may log another amount
    at the same place when it runs on another branch. What policy asked for is forgotten with the
    block it was asked about; what the client owes since the deposit vanished stays.
    """
    _require_gone(known, known.state in {DepositState.ORPHANED, DepositState.REVERSED})
    return replace(
        fresh,
        id=known.id,
        first_seen_at=known.first_seen_at,
        epoch=known.epoch + 1,
        version=known.version + 1,
        shortfall=known.shortfall if fresh.credit == known.credit else 0,
    )


def receipt_again(known: Receipt, fresh: Receipt) -> Receipt:
    """Return a receipt mined again; a match made before has to be made again."""
    _require_gone(known, known.state in {ReceiptState.ORPHANED, ReceiptState.REVERSED})
    return replace(
        fresh,
        id=known.id,
        first_seen_at=known.first_seen_at,
        epoch=known.epoch + 1,
        version=known.version + 1,
    )


def moved(known: A, state: DepositState | ReceiptState, **changes: object) -> A:
    """Return the arrival in its next state, refusing an edge that does not exist."""
    _machine(known).require(known.state, state)
    return replace(known, state=state, version=known.version + 1, **changes)  # type: ignore[arg-type]  # fields of the row


def event(
    before: Deposit | Receipt | None,
    after: Deposit | Receipt,
    name: str,
    *,
    at: datetime,
    actor: str,
    reason: str = "",
) -> DomainEvent:
    """Return the event of a step; its payload says what and where, no personal data."""
    return DomainEvent(
        entity_type=_noun(after),
        entity_id=after.id,
        version=after.version,
        name=name,
        at=at,
        actor=actor,
        reason=reason,
        from_state=None if before is None else str(before.state),
        to_state=str(after.state),
        payload={
            "asset": after.asset,
            "amount": str(after.amount),
            "wallet": after.wallet,
            "party": after.party,
            "credit": after.credit,
            "epoch": after.epoch,
            "tx_hash": after.tx_hash,
            "position": after.position,
            "block": after.block_hash,
            "height": after.height,
        },
    )


def adopted(deposit: Deposit, judged: Judgement, *, reason: str) -> Deposit:
    """Return a quarantined deposit as what its movement is now that its token is registered."""
    return moved(
        deposit,
        DepositState.INCLUDED,
        kind=judged.kind,
        credit=judged.credit,
        asset=judged.asset,
        amount=judged.amount,
        remainder=judged.remainder,
        reason=reason,
        depth_required=0,
        finality_required=False,
    )


# Postings.


def included(arrival: Arrival) -> Transfer:
    """Hold Dr custody / Cr whoever it is for."""
    return hold(
        transfer_id(arrival, "included"),
        custody_account(arrival.wallet),
        arrival.credit,
        arrival.amount,
        arrival.asset,
        code=f"{_noun(arrival)}.included",
        purpose=PURPOSE,
        correlation=arrival.id,
    )


def orphaned(arrival: Arrival) -> Transfer:
    """Void the hold: the block is not on the chain any more."""
    return void_hold(
        transfer_id(arrival, "orphaned"),
        transfer_id(arrival, "included"),
        code=f"{_noun(arrival)}.orphaned",
        correlation=arrival.id,
    )


def posted(arrival: Arrival, step: str) -> Transfer:
    """Post the hold; *step* says why: ``credited``, ``dust``, ``unattributed``, ``final``."""
    return post_hold(
        transfer_id(arrival, step),
        transfer_id(arrival, "included"),
        code=f"{_noun(arrival)}.{step}",
        correlation=arrival.id,
    )


def held(deposit: Deposit, party: str) -> tuple[Transfer, ...]:
    """Void the hold and credit the client's held account instead."""
    return chain(
        void_hold(
            transfer_id(deposit, "held-void"),
            transfer_id(deposit, "included"),
            code="deposit.held",
            correlation=deposit.id,
        ),
        transfer(
            transfer_id(deposit, "held"),
            custody_account(deposit.wallet),
            held_account(party),
            deposit.amount,
            deposit.asset,
            code="deposit.held",
            correlation=deposit.id,
        ),
    )


def received_less(arrival: Arrival) -> tuple[Transfer, ...]:
    """Void the hold and post what really arrived; nothing where nothing did.

    Of a deposit it is nobody's. A receipt stays in suspense, less than it claimed: whoever owed pays the
    fee of a token that takes one.
    """
    code = f"{_noun(arrival)}.less"
    void = void_hold(
        transfer_id(arrival, "less-void"),
        transfer_id(arrival, "included"),
        code=code,
        correlation=arrival.id,
    )
    if not arrival.value:
        return (void,)
    nobodys = isinstance(arrival, Deposit)
    return chain(
        void,
        transfer(
            transfer_id(arrival, "less"),
            custody_account(arrival.wallet),
            unattributed_account(arrival.chain) if nobodys else arrival.credit,
            arrival.value,
            arrival.asset,
            code=code,
            correlation=arrival.id,
        ),
    )


def released(deposit: Deposit, party: str) -> Transfer:
    """Move from the client's held account to the client."""
    return _moved_on(deposit, "released", held_account(party), client_account(party))


def attributed(deposit: Deposit, credit: str) -> Transfer:
    """Move from suspense to whom two people named."""
    return _moved_on(deposit, "attributed", deposit.credit, credit)


def recognised(deposit: Deposit, route: str) -> Transfer:
    """Move from suspense to the way on which a venue sent it: it is an own transfer."""
    return _moved_on(deposit, "recognised", deposit.credit, route)


def returning(judged: Judgement, route: str) -> Judgement:
    """Return the judgement of our own coins that a venue sent on *route*."""
    return replace(judged, kind=DepositKind.OWN, credit=route, reason="")


def settled_shortfall(deposit: Deposit, party: str, amount: int) -> Transfer:
    """Let a deposit that came back pay what its client owed since it vanished."""
    return transfer(
        transfer_id(deposit, "shortfall-settled"),
        client_account(party),
        reorg_account(party),
        amount,
        deposit.asset,
        code="deposit.shortfall-settled",
        correlation=deposit.id,
    )


def undone(arrival: Arrival, *, shortfall: int) -> tuple[Transfer, ...]:
    """Reverse everything that is posted, newest first; a shortfall becomes a receivable before.

    Args:
        shortfall: what the client's account lacks, in units; 0 for other accounts.
    """
    steps: list[Transfer] = []
    guard = guarded(arrival)
    if shortfall and guard is not None:
        steps.append(
            transfer(
                transfer_id(arrival, "shortfall"),
                reorg_account(guard.party),
                guard.path,
                shortfall,
                arrival.asset,
                code=f"{_noun(arrival)}.shortfall",
                correlation=arrival.id,
            )
        )
    steps += (
        reversal(
            derive_id(arrival.first_seen_at, _noun(arrival), "reversed", posting),
            posting,
            code=f"{_noun(arrival)}.reversed",
            correlation=arrival.id,
        )
        for posting in reversed(arrival.postings)
    )
    return chain(*steps)


@dataclass(frozen=True, slots=True)
class Guarded:
    """An account of a client's that may have been spent from, and whose it is."""

    path: str
    party: str


def guarded(arrival: Arrival) -> Guarded | None:
    """Return the account that a reversal debits and that may have been spent from; None if none.

    What compliance holds leaves only as a refund, and suspense and equity accounts are not guarded.
    """
    if not isinstance(arrival, Deposit) or not arrival.credit.startswith(f"{CLIENT}:"):
        return None
    party = arrival.credit.removeprefix(f"{CLIENT}:")
    if arrival.state in {DepositState.REFUNDING, DepositState.REFUNDED}:
        return Guarded(held_account(party), party)
    spendable = arrival.state in {DepositState.CREDITED, DepositState.ATTRIBUTED}
    return Guarded(client_account(party), party) if spendable else None


def accounts_of(arrival: Arrival) -> set[tuple[str, str]]:
    """Return (path, asset) of every account that a posted arrival may have passed."""
    paths = {custody_account(arrival.wallet), arrival.credit, unattributed_account(arrival.chain)}
    if isinstance(arrival, Deposit) and arrival.party is not None:
        paths |= {client_account(arrival.party), held_account(arrival.party)}
        paths.add(reorg_account(arrival.party))
    return {(path, arrival.asset) for path in paths}


def split_shortfalls(
    undone: Sequence[Deposit | Receipt], available: Mapping[tuple[str, str], int]
) -> list[tuple[Deposit | Receipt, int]]:
    """Return each arrival with what its client lacks when all are reversed one after the other.

    Args:
        undone: in the order of their reversal.
        available: what (account, asset) of each `guarded` account has before the first of them.
    """
    left = dict(available)
    result: list[tuple[Deposit | Receipt, int]] = []
    for arrival in undone:
        guard, short = guarded(arrival), 0
        if guard is not None:
            key, amount = (guard.path, arrival.asset), arrival.value
            short = max(0, amount - left[key])
            left[key] += short - amount
        result.append((arrival, short))
    return result


def _moved_on(deposit: Deposit, step: str, debit: str, credit: str) -> Transfer:
    return transfer(
        transfer_id(deposit, step),
        debit,
        credit,
        deposit.value,
        deposit.asset,
        code=f"deposit.{step}",
        correlation=deposit.id,
    )


def _require_gone(known: Arrival, gone: bool) -> None:  # noqa: FBT001  the caller's finding
    """Refuse to include twice what is in a block of the chain already."""
    if not gone:
        raise NotPossible(
            f"{_noun(known)} {known.tx_hash} {known.position} is in block {known.block_hash}",
            remedy="A block is included once; orphan it before it is included again",
        )


def _machine(arrival: Arrival) -> StateTable:
    return DEPOSIT_STATES if isinstance(arrival, Deposit) else RECEIPT_STATES


def _noun(arrival: Arrival) -> str:
    return "deposit" if isinstance(arrival, Deposit) else "receipt"


def _arrival_id(noun: str, movement: Movement, block: Block) -> UUID:
    return derive_id(block.time, noun, block.chain, movement.tx_hash, movement.position)


def transfer_id(arrival: Arrival, step: str) -> UUID:
    """Return the id of the transfer that a step of this epoch posts."""
    return derive_id(arrival.first_seen_at, _noun(arrival), step, arrival.id, arrival.epoch)
