"""What each step of a payout posts: the account book's section "Payout", line by line. Pure.

Every function returns one chain, which stands or falls as a whole. The ids follow from the payout
and the step, so a step that is repeated after a crash is recognised as the same.

Custody follows inclusion: coins and fee leave ``custody:<wallet>`` in the block that has them gone,
be the transaction a success or a failure. The fee of a failed transaction is therefore posted with
its block; the rest of what the account book says of a failure is posted once the block is deep.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from custody.model import bank_account_path, custody_account, route_account, venue_account
from custody.payout_model import ClaimKind, ForeignSpend, Payout, PayoutState
from kernel.ids import derive_id
from ledger.model import Transfer, chain, hold, post_hold, reversal, transfer, void_hold
from registry.model import BANK

NETWORK_FEE: Final = "expense:network-fee"
BANK_CHARGE: Final = "expense:bank-charge"
PURPOSE_PAYOUT: Final = "payout"
PURPOSE_FEE: Final = "network-fee"
SHORTFALL: Final = "payout.shortfall"
"""The code of what a claim is lent that a restore finds too short for what was sent."""


def transit_account(chain_code: str) -> str:
    """Return the path of what left in a block that is not final."""
    return f"transit:out:{chain_code}"


def way_account(payout: Payout) -> str:
    """Return the path of the payout's coins between the block that has them and their end.

    What goes to a venue is nobody else's: it is on its way between two locations of ours.
    """
    venue = payout.parsed_claim.venue
    if venue is not None:
        return route_account(payout.source_wallet, venue)
    return transit_account(payout.chain)


def in_flight_account(rail: str) -> str:
    """Return the path of signed payouts to others that are not final."""
    return f"in-flight:{rail}"


def accounts(payout: Payout) -> set[tuple[str, str]]:
    """Return every account that the payout can touch: opened when it is requested."""
    claim = payout.parsed_claim
    if payout.rail == BANK:
        paths = (claim.account, bank_account_path(payout.source_wallet), owed_again_account(payout))
        ours = (in_flight_account(payout.rail), BANK_CHARGE)
        return {(path, payout.asset) for path in (*paths, *ours) if path is not None}
    held_by = custody_account(claim.name) if claim.venue is None else venue_account(claim.venue)
    return {
        (claim.account or held_by, payout.asset),
        (custody_account(payout.source_wallet), payout.asset),
        (custody_account(payout.source_wallet), payout.native_asset),
        (way_account(payout), payout.asset),
        (in_flight_account(payout.rail), payout.asset),
        (NETWORK_FEE, payout.native_asset),
    }


def owed_again_account(payout: Payout) -> str | None:
    """Return whom we owe again when a payment through a bank comes back after it was final."""
    claim = payout.parsed_claim
    return f"payable:{claim.name}:open" if claim.kind is ClaimKind.PAYABLE else claim.account


def reserved(payout: Payout) -> tuple[Transfer, ...]:
    """Reserve the claim; of an own transfer, which has none, reserve the coins at once."""
    account = payout.parsed_claim.account
    if account is None:
        return _hold_coins(payout, 0)
    return (
        hold(
            _id(payout, "reserved"),
            account,
            in_flight_account(payout.rail),
            payout.amount,
            payout.asset,
            code="payout.reserved",
            purpose=PURPOSE_PAYOUT,
            correlation=payout.id,
        ),
    )


def allocated(payout: Payout, fee_cap: int) -> tuple[Transfer, ...]:
    """Reserve the wallet's coins and the most that the network may take."""
    fee = _hold_fee(payout, payout.hold_epoch, fee_cap)
    if payout.parsed_claim.kind is ClaimKind.OWN:
        return (fee,)
    return chain(*_hold_coins(payout, payout.hold_epoch), fee)


def released(payout: Payout) -> tuple[Transfer, ...]:
    """Give back what is reserved for a payout that will never be signed."""
    undone: list[Transfer] = []
    own = payout.parsed_claim.kind is ClaimKind.OWN
    # One that had an attempt and is approved again has freed what that held (`unallocated`).
    is_allocated = bool(payout.attempt) and payout.state is not PayoutState.APPROVED
    if not own:
        undone.append(_void(payout, "reserved"))
    if own or is_allocated:
        undone += _free_coins(payout, payout.hold_epoch)
    if is_allocated:
        undone.append(_void(payout, "fee", payout.hold_epoch))
    return chain(*undone)


def unallocated(payout: Payout) -> tuple[Transfer, ...]:
    """Free what `allocated` holds, because the transaction was not signed; the claim stays reserved.

    The next allocation holds under the next epoch.
    """
    old = payout.hold_epoch
    freed = (*_free_coins(payout, old), _void(payout, "fee", old))
    if payout.parsed_claim.kind is ClaimKind.OWN:
        return chain(*freed, *_hold_coins(payout, old + 1))
    return chain(*freed)


def signed(payout: Payout) -> tuple[Transfer, ...]:
    """Debit the claim: from now on only the chain decides."""
    if payout.parsed_claim.account is None:
        return ()
    return (
        post_hold(
            _id(payout, "signed"),
            _id(payout, "reserved"),
            code="payout.signed",
            correlation=payout.id,
        ),
    )


def replaced(payout: Payout, fee_cap: int) -> tuple[Transfer, ...]:
    """Hold coins and fee anew for a replacement, in one chain: nothing is free in between."""
    old, new = payout.hold_epoch, payout.hold_epoch + 1
    return chain(
        *_free_coins(payout, old),
        _void(payout, "fee", old),
        *_hold_coins(payout, new),
        _hold_fee(payout, new, fee_cap),
    )


def mined(payout: Payout, fee: int, *, succeeded: bool) -> tuple[Transfer, ...]:
    """Follow the block: coins out if they moved, the actual fee out, the rest of the cap free."""
    epoch = payout.hold_epoch
    posted = [
        post_hold(
            _id(payout, "fee-mined", epoch),
            _id(payout, "fee", epoch),
            min(fee, payout.fee_cap),
            code="payout.fee",
            correlation=payout.id,
        )
    ]
    if fee > payout.fee_cap:
        posted.append(
            transfer(
                _id(payout, "fee-above", epoch),
                NETWORK_FEE,
                custody_account(payout.source_wallet),
                fee - payout.fee_cap,
                payout.native_asset,
                code="payout.fee",
                correlation=payout.id,
            )
        )
    return chain(*(_coins_out(payout) if succeeded else ()), *posted)


def orphaned(payout: Payout) -> tuple[Transfer, ...]:
    """Take back what `mined` posted, and hold again: the same bytes may be mined once more."""
    old, new = payout.hold_epoch, payout.hold_epoch + 1
    fee = payout.fee_paid or 0
    undone: list[Transfer] = []
    if payout.state is PayoutState.CONFIRMED and payout.parsed_claim.account is not None:
        undone.append(_reverse(payout, "confirmed", old))
    if min(fee, payout.fee_cap):
        undone.append(_reverse(payout, "fee-mined", old))
    if fee > payout.fee_cap:
        undone.append(_reverse(payout, "fee-above", old))
    if not payout.succeeded:
        undone += _free_coins(payout, old)
    elif not is_within_wallet(payout):
        undone.append(_reverse(payout, "coins-mined", old))
    return chain(*undone, *_hold_coins(payout, new), _hold_fee(payout, new, payout.fee_cap))


def failure_orphaned(payout: Payout) -> tuple[Transfer, ...]:
    """Take back the fee of a failure whose block is gone though it was final; people must look.

    The claim has its money back, so neither coins nor fee are held again.
    """
    fee, epoch = payout.fee_paid or 0, payout.hold_epoch
    undone = [_reverse(payout, "fee-mined", epoch)] if min(fee, payout.fee_cap) else []
    if fee > payout.fee_cap:
        undone.append(_reverse(payout, "fee-above", epoch))
    return chain(*undone)


def confirmed(payout: Payout) -> tuple[Transfer, ...]:
    """Close what was in flight against what left.

    Of a move between wallets nothing is open; what goes to a venue stays in transit until the venue
    shows it (`custody.venues`).
    """
    if payout.parsed_claim.account is None:
        return ()
    return (
        transfer(
            _id(payout, "confirmed", payout.hold_epoch),
            in_flight_account(payout.rail),
            transit_account(payout.chain),
            payout.amount,
            payout.asset,
            code="payout.confirmed",
            correlation=payout.id,
        ),
    )


def failed(payout: Payout) -> tuple[Transfer, ...]:
    """Free the coins that never moved and give the claim back; the fee is gone with its block."""
    account = payout.parsed_claim.account
    freed = _free_coins(payout, payout.hold_epoch)
    if account is None:
        return freed
    returned = transfer(
        _id(payout, "failed"),
        in_flight_account(payout.rail),
        account,
        payout.amount,
        payout.asset,
        code="payout.failed",
        correlation=payout.id,
    )
    return chain(*freed, returned)


def abandoned(payout: Payout) -> tuple[Transfer, ...]:
    """Free coins and fee and give the claim back: the nonce of the signed bytes is gone for good."""
    return chain(_void(payout, "fee", payout.hold_epoch), *failed(payout))


def is_within_wallet(payout: Payout) -> bool:
    """Tell whether coins only change addresses inside one wallet (a sweep, a gas top-up)."""
    claim = payout.parsed_claim
    return claim.kind is ClaimKind.OWN and claim.name == payout.source_wallet


def foreign_included(spend: ForeignSpend) -> tuple[Transfer, ...]:
    """Post a spend that we did not make: a fact, so it is posted and then looked into.

    A leg below zero is what one of our wallets gained by it.
    """
    return chain(
        *(
            transfer(
                _foreign_id(spend, "included", number),
                leg.account if leg.amount > 0 else custody_account(leg.wallet),
                custody_account(leg.wallet) if leg.amount > 0 else leg.account,
                abs(leg.amount),
                leg.asset,
                code="foreign.included",
                correlation=spend.id,
            )
            for number, leg in enumerate(spend.legs)
        )
    )


def foreign_orphaned(spend: ForeignSpend) -> tuple[Transfer, ...]:
    """Take back what `foreign_included` posted."""
    return chain(
        *(
            reversal(
                _foreign_id(spend, "orphaned", number),
                _foreign_id(spend, "included", number),
                code="foreign.orphaned",
                correlation=spend.id,
            )
            for number in range(len(spend.legs))
        )
    )


def _coins_out(payout: Payout) -> tuple[Transfer, ...]:
    claim, epoch = payout.parsed_claim, payout.hold_epoch
    if claim.kind is not ClaimKind.OWN or claim.venue is not None:
        return (
            post_hold(
                _id(payout, "coins-mined", epoch),
                _id(payout, "coins", epoch),
                code="payout.mined",
                correlation=payout.id,
            ),
        )
    freed = _free_coins(payout, epoch)
    if is_within_wallet(payout):
        return freed
    moved = transfer(
        _id(payout, "coins-mined", epoch),
        custody_account(claim.name),
        custody_account(payout.source_wallet),
        payout.amount,
        payout.asset,
        code="own-transfer.mined",
        correlation=payout.id,
    )
    return (*freed, moved)


def _hold_coins(payout: Payout, epoch: int) -> tuple[Transfer, ...]:
    if payout.fills_gap:
        return ()  # it moves no coins: only its fee is held
    held = hold(
        _id(payout, "coins", epoch),
        way_account(payout),
        custody_account(payout.source_wallet),
        payout.amount,
        payout.asset,
        code="payout.allocated",
        purpose=PURPOSE_PAYOUT,
        correlation=payout.id,
    )
    return (held,)


def _free_coins(payout: Payout, epoch: int) -> tuple[Transfer, ...]:
    return () if payout.fills_gap else (_void(payout, "coins", epoch),)


def _hold_fee(payout: Payout, epoch: int, cap: int) -> Transfer:
    return hold(
        _id(payout, "fee", epoch),
        NETWORK_FEE,
        custody_account(payout.source_wallet),
        cap,
        payout.native_asset,
        code="payout.fee-cap",
        purpose=PURPOSE_FEE,
        correlation=payout.id,
    )


def _void(payout: Payout, what: str, *parts: int) -> Transfer:
    return void_hold(
        _id(payout, f"{what}-void", *parts),
        _id(payout, what, *parts),
        code="payout.released",
        correlation=payout.id,
    )


def _reverse(payout: Payout, what: str, epoch: int) -> Transfer:
    return reversal(
        _id(payout, f"{what}-reversed", epoch),
        _id(payout, what, epoch),
        code="payout.orphaned",
        correlation=payout.id,
    )


def _id(payout: Payout, what: str, *parts: int) -> UUID:
    return derive_id(payout.created_at, f"payout.{what}", payout.id, *parts)


def _foreign_id(spend: ForeignSpend, what: str, number: int) -> UUID:
    return derive_id(spend.seen_at, f"foreign.{what}", spend.id, spend.epoch, number)
