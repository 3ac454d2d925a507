"""Which transactions of a block are our payouts, and which spent our coins without us. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from chain.model import BlockContents, Movement, TransactionOutcome
from custody.model import custody_account, unattributed_account
from custody.payout_model import SENT, Attempt, ForeignLeg, Payout, PayoutState, Source
from custody.payout_postings import NETWORK_FEE
from kernel.money import Rounding, rescale

PAYABLE_IN: Final = frozenset({*SENT, PayoutState.SECURITY_HOLD})


@dataclass(frozen=True, slots=True)
class OursMined:
    """One of our attempts is in the block; *succeeded*: exactly the payout's coins moved."""

    payout: Payout
    attempt: Attempt
    outcome: TransactionOutcome
    succeeded: bool


@dataclass(frozen=True, slots=True)
class ForeignMined:
    """A transaction that we did not make, or that did something else than it was made for.

    Attributes:
        outcome: if one of our addresses sent it; then its nonce is gone.
        legs: what it took from our wallets, fee included.
    """

    tx_hash: str
    sender: str
    outcome: TransactionOutcome | None
    legs: tuple[ForeignLeg, ...]


@dataclass(frozen=True, slots=True)
class AssetView:
    """How a chain's units of an asset become the ledger's."""

    asset: str
    decimals: int
    scale: int

    def units(self, chain_amount: int) -> int:
        """Return the amount in the asset's unit, rounded down: a fact is never refused."""
        return rescale(chain_amount, self.decimals, self.scale, Rounding.DOWN)


def match_block(
    contents: BlockContents,
    attempts: Mapping[str, tuple[Payout, Attempt]],
    ours: Mapping[str, Source],
    assets: Mapping[str | None, AssetView],
) -> list[OursMined | ForeignMined]:
    """Return what left our addresses in the block, transaction by transaction, in its order.

    Args:
        contents: the block.
        attempts: our payouts and attempts by transaction hash.
        ours: our addresses.
        assets: registered assets by contract; None is the native coin.
    """
    leaving: dict[str, list[Movement]] = {}
    outcomes: dict[str, TransactionOutcome] = {}
    for outcome in contents.outcomes:
        if outcome.sender in ours:
            outcomes[outcome.tx_hash] = outcome
            leaving[outcome.tx_hash] = []
    for movement in contents.movements:
        if movement.sender in ours and movement.contract in assets:
            leaving.setdefault(movement.tx_hash, []).append(movement)
    found: list[OursMined | ForeignMined] = []
    for tx_hash, movements in leaving.items():
        known, outcome_of = attempts.get(tx_hash), outcomes.get(tx_hash)
        if known is not None and outcome_of is not None:
            moved = did_pay(known[0], movements) if outcome_of.succeeded else False
            payable = known[0].state in PAYABLE_IN and not known[0].claim_returned
            if payable and moved is not None:
                found.append(OursMined(*known, outcome_of, moved))
                continue
        legs = _legs(contents.block.chain, movements, outcome_of, ours, assets)
        sender = outcome_of.sender if outcome_of else movements[0].sender
        found.append(ForeignMined(tx_hash, sender, outcome_of, legs))
    return found


def did_pay(payout: Payout, movements: list[Movement]) -> bool | None:
    """Tell whether exactly the payout's coins left: True; nothing left: False; else: None.

    A token may split what leaves between the payee and itself; a token that returns false without
    reverting moves nothing although its transaction succeeded. What only fills a gap between
    nonces has nothing to move.
    """
    if not movements:
        return payout.fills_gap
    right = all(m.sender == payout.sender and m.contract == payout.contract for m in movements)
    paid = any(m.recipient == payout.destination for m in movements)
    exact = sum(m.amount for m in movements) == payout.chain_amount
    return True if right and paid and exact else None


def _legs(
    chain: str,
    movements: list[Movement],
    outcome: TransactionOutcome | None,
    ours: Mapping[str, Source],
    assets: Mapping[str | None, AssetView],
) -> tuple[ForeignLeg, ...]:
    legs = []
    for movement in movements:
        source, target = ours[movement.sender], ours.get(movement.recipient)
        if target is not None and target.wallet == source.wallet:
            continue
        account = custody_account(target.wallet) if target else unattributed_account(chain)
        view = assets[movement.contract]
        legs.append(ForeignLeg(source.wallet, account, view.asset, view.units(movement.amount)))
    if outcome is not None and outcome.fee:
        view = assets[None]
        wallet = ours[outcome.sender].wallet
        legs.append(ForeignLeg(wallet, NETWORK_FEE, view.asset, view.units(outcome.fee)))
    return tuple(leg for leg in legs if leg.amount)
