"""What each step of a transfer to or from a venue posts: the account book, section "Own transfer". Pure.

To a venue, the payout posts its own part (`custody.payout_postings`): from the block that has it on, its
coins are in ``transit:<wallet>-<venue>/<account>``. Here is the rest: what the venue credits, and
everything of a withdrawal from it. Every function returns one chain; ids follow from the row and the
step, so a step that is repeated after a crash is recognised as the same.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from custody.venues.model import VenueDeposit, VenueWithdrawal
from kernel.ids import derive_id
from ledger.model import Transfer, chain, hold, post_hold, reversal, transfer, void_hold

VENUE_FEE: Final = "expense:venue-fee"
LOSS: Final = "expense:loss"
PURPOSE_WITHDRAWAL: Final = "venue-withdrawal"
PURPOSE_FEE: Final = "venue-fee"


def deposit_accounts(item: VenueDeposit) -> set[tuple[str, str]]:
    """Return every account that the end of a transfer to a venue can touch."""
    return {(path, item.asset) for path in (item.place.path, item.route, LOSS)}


def credited(item: VenueDeposit, amount: int) -> tuple[Transfer, ...]:
    """Post that the venue credits *amount*, under the next epoch; what is short of it is lost."""
    parts = (
        ("credited", item.place.path, amount),
        ("short", LOSS, item.amount - amount),
    )
    lines = [
        transfer(
            _of_deposit(item, what, item.epoch + 1),
            debit,
            item.route,
            units,
            item.asset,
            code=f"venue-deposit.{what}",
            correlation=item.id,
        )
        for what, debit, units in parts
        if units
    ]
    return chain(*lines)


def uncredited(item: VenueDeposit) -> tuple[Transfer, ...]:
    """Take `credited` back: the sending is not on the chain any more."""
    amount = item.credited or 0
    lines = [
        reversal(
            _of_deposit(item, f"{what}-reversed", item.epoch),
            _of_deposit(item, what, item.epoch),
            code="venue-deposit.reversed",
            correlation=item.id,
        )
        for what, units in (("credited", amount), ("short", item.amount - amount))
        if units
    ]
    return chain(*lines)


def accounts(item: VenueWithdrawal) -> set[tuple[str, str]]:
    """Return every account that the withdrawal can touch: opened when it is requested."""
    paths = {item.place.path, item.route, item.target, VENUE_FEE, LOSS}
    return {(path, item.asset) for path in paths}


def reserved(item: VenueWithdrawal) -> tuple[Transfer, ...]:
    """Hold at the venue what is asked of it, and the most that it may keep beside that."""
    coins = hold(
        _id(item, "coins"),
        item.route,
        item.place.path,
        item.amount,
        item.asset,
        code="venue-withdrawal.reserved",
        purpose=PURPOSE_WITHDRAWAL,
        correlation=item.id,
    )
    if not item.fee_max:
        return (coins,)
    fee = hold(
        _id(item, "fee"),
        VENUE_FEE,
        item.place.path,
        item.fee_max,
        item.asset,
        code="venue-withdrawal.fee-cap",
        purpose=PURPOSE_FEE,
        correlation=item.id,
    )
    return chain(coins, fee)


def released(item: VenueWithdrawal) -> tuple[Transfer, ...]:
    """Give back what is held for a withdrawal that the venue does not make."""
    undone = [_void(item, "coins")]
    if item.fee_max:
        undone.append(_void(item, "fee"))
    return chain(*undone)


def debited(item: VenueWithdrawal, sent: int, fee: int) -> tuple[Transfer, ...]:
    """Post what the venue shows it has taken; the rest of what was held is free.

    A fact is never refused: what exceeds the holds, or comes when nothing is held any more, is
    posted beside them.
    """
    held, fee_held = (0, 0) if item.released_at is not None else (item.amount, item.fee_max)
    lines = [
        *_take(item, "coins", item.route, sent, held),
        *_take(item, "fee", VENUE_FEE, fee, fee_held),
    ]
    return chain(*lines)


def returned(item: VenueWithdrawal) -> tuple[Transfer, ...]:
    """Take `debited` back: the venue did not pay, and has given back what it took."""
    held, fee_held = (0, 0) if item.released_at is not None else (item.amount, item.fee_max)
    lines: list[Transfer] = []
    for what, amount, cap in (("coins", item.sent or 0, held), ("fee", item.fee or 0, fee_held)):
        for part, posted in (("debited", min(amount, cap)), ("beyond", amount - min(amount, cap))):
            if posted:
                lines.append(
                    reversal(
                        _id(item, f"{what}-{part}-reversed"),
                        _id(item, f"{what}-{part}"),
                        code="venue-withdrawal.returned",
                        correlation=item.id,
                    )
                )
    return chain(*lines)


def lost(item: VenueWithdrawal) -> tuple[Transfer, ...]:
    """Write off what the venue sent and what never came."""
    if not item.sent:
        return ()
    return (
        transfer(
            _id(item, "lost"),
            LOSS,
            item.route,
            item.sent,
            item.asset,
            code="venue-withdrawal.lost",
            correlation=item.id,
        ),
    )


def _take(item: VenueWithdrawal, what: str, debit: str, amount: int, held: int) -> list[Transfer]:
    """Post *amount* out of what is held, and beside it what is more than that."""
    lines: list[Transfer] = []
    from_hold = min(amount, held)
    if from_hold:
        lines.append(
            post_hold(
                _id(item, f"{what}-debited"),
                _id(item, what),
                from_hold,
                code="venue-withdrawal.debited",
                correlation=item.id,
            )
        )
    elif held:
        lines.append(_void(item, what))
    if amount > from_hold:
        lines.append(
            transfer(
                _id(item, f"{what}-beyond"),
                debit,
                item.place.path,
                amount - from_hold,
                item.asset,
                code="venue-withdrawal.debited",
                correlation=item.id,
            )
        )
    return lines


def _void(item: VenueWithdrawal, what: str) -> Transfer:
    return void_hold(
        _id(item, f"{what}-void"),
        _id(item, what),
        code="venue-withdrawal.released",
        correlation=item.id,
    )


def _id(item: VenueWithdrawal, what: str) -> UUID:
    return derive_id(item.requested_at, f"venue-withdrawal.{what}", item.id)


def _of_deposit(item: VenueDeposit, what: str, epoch: int) -> UUID:
    return derive_id(item.created_at, f"venue-deposit.{what}", item.id, epoch)
