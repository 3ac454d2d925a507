"""Which coins pay which payouts, and what replaces a transaction that no block takes. Pure.

Inputs and outputs stand in the order of BIP 69, so the order tells nobody which output is change.
A replacement follows BIP 125 as nodes apply it (Bitcoin Core ``doc/policy/mempool-replacements.md``):
it pays a higher rate than what it replaces, and in all at least as much plus its own relay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from chain.bitcoin.addresses import parse_address
from chain.bitcoin.fees import (
    KEY_HASH_INPUT_WEIGHT,
    OVERHEAD_WEIGHT,
    RATE_MAX,
    fee_of,
    output_weight,
)
from chain.bitcoin.networks import network_of
from chain.bitcoin.scripts import witness_script
from chain.bitcoin.selection import Coin as Choice
from chain.bitcoin.selection import NotEnough, Selection, Terms, select
from chain.bitcoin.transactions import Input, Output, Transaction, decode, encode
from custody.bitcoin.spend_model import INPUTS_MAX, PAYOUTS_MAX, SpendAttempt, SpentCoin
from custody.payout_model import AttemptKind, ClaimKind, Payout
from custody.payout_rules import Bump
from kernel.errors import BadInput

CHANGE_WEIGHT: Final = output_weight(Output(0, witness_script(0, bytes(20))))
CHANGE_WEIGHT_SHARED: Final = output_weight(Output(0, witness_script(0, bytes(32))))
"""Change of a wallet of cosigners pays to the hash of a script."""
CHANGE_MIN: Final = 1_000
"""Satoshi: less does not come back; spending it one day would cost about as much."""
FEE_PERCENT_MAX: Final = 50
"""A fee above half of what is paid cannot be meant: it waits for cheaper times, or for more payouts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendPolicy:
    """What the worker pays for a block by itself.

    Attributes:
        target_blocks: within how many blocks a payout shall be mined.
        later_rate: what spending a coin is expected to cost one day, in sat/kvB: below it a
            consolidation takes all the coins it may. Payments take the fewest, so that others can be
            paid from the rest.
        rate_max: sat/kvB; above it people decide.
        fee_max: satoshi for one transaction, whatever it carries; above it people decide.
        bump_after: age of the newest attempt from which on more is offered.
        underpriced_after: the same where the network asks more than twice what it offers, or its
            pools do not take it any more.
        times_first_max: the fee may grow to so many times the first attempt's.
        deadline: age of the first attempt from which on people decide.
        cancel_after: the same from which on the spend is cancelled by a transaction that returns
            everything; None: only two people cancel.
    """

    target_blocks: int = 6
    later_rate: int = 10_000
    rate_max: int = 500_000
    fee_max: int = 2_000_000
    bump_after: timedelta = timedelta(minutes=40)
    underpriced_after: timedelta = timedelta(minutes=10)
    times_first_max: int = 10
    deadline: timedelta = timedelta(hours=24)
    cancel_after: timedelta | None = None

    def __post_init__(self) -> None:
        if not 0 < self.rate_max <= RATE_MAX or self.fee_max < 1 or self.later_rate < 1:
            raise BadInput(f"rates are 1 to {RATE_MAX} sat/kvB, a fee is at least a satoshi")
        if self.underpriced_after <= timedelta(0) or self.bump_after < self.underpriced_after:
            raise BadInput("a payment is bumped after some time, a cheap one no later than others")
        if self.deadline <= self.bump_after or self.times_first_max < 1:
            raise BadInput("a rule that never bumps: leave the rule out instead")


@dataclass(frozen=True, slots=True)
class Market:
    """What the node says of prices, in sat/kvB: for our target, to relay at all, and to replace."""

    rate: int
    relay: int
    step: int

    @property
    def asked(self) -> int:
        """Return what a new transaction pays."""
        return max(self.rate, self.relay)


@dataclass(frozen=True, slots=True)
class Payee:
    """A payout as an output."""

    payout: Payout
    script: bytes

    @property
    def output(self) -> Output:
        """Return the output that pays it."""
        return Output(self.payout.chain_amount, self.script)

    @property
    def weight(self) -> int:
        """Return what it adds to the transaction."""
        return output_weight(self.output)


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletView:
    """What the books say of a wallet, under its lock.

    Attributes:
        coins: what may be spent.
        available: satoshi that the wallet has and nobody is promised.
        spare: by how much clients' holdings exceed what they are owed; None: the wallet is the
            house's.
        leaving: own transfers whose coins go from clients' holdings to the house.
    """

    coins: tuple[SpentCoin, ...]
    available: int
    spare: int | None = None
    leaving: frozenset[UUID] = frozenset()


@dataclass(frozen=True, slots=True)
class Chosen:
    """Payouts, and the coins that pay them."""

    payees: tuple[Payee, ...]
    coins: tuple[SpentCoin, ...]
    change: int
    fee: int


@dataclass(frozen=True, slots=True)
class Drafted:
    """A transaction to be signed.

    Attributes:
        weight: of the signed bytes, at most.
        places: which output pays each payout.
    """

    kind: AttemptKind
    unsigned: Transaction
    coins: tuple[SpentCoin, ...]
    change: int
    fee: int
    weight: int
    places: Mapping[UUID, int]

    @property
    def encoded(self) -> bytes:
        """Return the bytes without proofs."""
        return encode(self.unsigned)


def payee_of(payout: Payout) -> Payee:
    """Return a payout as an output.

    Raises:
        BadAddress: its destination is not an address of its network.
    """
    network = network_of(payout.chain_id)
    return Payee(payout, parse_address(payout.destination, network))


# The first transaction.


def choose(
    payees: Sequence[Payee],
    view: WalletView,
    market: Market,
    policy: SpendPolicy,
    *,
    consolidates: bool = False,
) -> tuple[Chosen | None, dict[UUID, str]]:
    """Return which payouts go into one transaction with which coins, and why others wait.

    In their order, each that can be paid beside those before it; a large one that cannot be paid
    holds nobody up.
    """
    refusal = _refuse_market(market, policy)
    waiting = {item.payout.id: refusal for item in payees if refusal}
    taken: list[Payee] = []
    brought = count_brought(view.coins, market)
    later = policy.later_rate if consolidates else min(policy.later_rate, market.asked)
    terms = _terms(market, later, view.coins)
    for item in payees if not refusal else ():
        if len(taken) == PAYOUTS_MAX:
            break
        missing = _missing([*taken, item], brought, view, market)
        if missing:
            waiting[item.payout.id] = missing
        else:
            taken.append(item)
    while taken:
        found = _select(taken, view.coins, terms)
        refusal = found if isinstance(found, str) else _refuse(taken, found, view, policy)
        if not refusal:
            assert not isinstance(found, str)
            return found, waiting
        waiting[taken.pop().payout.id] = refusal
    return None, waiting


def _refuse_market(market: Market, policy: SpendPolicy) -> str:
    if market.asked <= policy.rate_max:
        return ""
    return f"{market.asked} sat/kvB is more than {policy.rate_max}"


def _missing(payees: Sequence[Payee], brought: int, view: WalletView, market: Market) -> str:
    """Return what is not there to pay all of *payees* with, in words; a fee at its lowest."""
    fee = fee_of(_weight_without_inputs(payees), market.asked)
    needed = sum(item.payout.chain_amount for item in payees) + fee
    if brought < needed:
        wallet = payees[-1].payout.source_wallet
        return f"the coins of {wallet} bring {brought} satoshi, {needed} are needed"
    return _refuse_books(payees, fee, view)


def count_brought(coins: Sequence[SpentCoin], market: Market) -> int:
    """Return what the largest coins bring once their inputs are paid for."""
    values = sorted(
        (coin.amount - fee_of(coin.weight, market.asked) for coin in coins), reverse=True
    )[:INPUTS_MAX]
    return sum(value for value in values if value > 0)


def _refuse_books(payees: Sequence[Payee], fee: int, view: WalletView) -> str:
    wallet, asset = payees[-1].payout.source_wallet, payees[-1].payout.asset
    # The coins of an own transfer are held since it was requested.
    to_others = sum(p.payout.amount for p in payees if not is_own(p.payout))
    if view.available < to_others + fee:
        return f"custody:{wallet} has not {to_others + fee} of {asset} available"
    leaving = sum(p.payout.amount for p in payees if p.payout.id in view.leaving)
    if view.spare is not None and view.spare < leaving + fee:
        return f"clients' {asset} would not be covered: {view.spare} to spare"
    return ""


def _select(payees: Sequence[Payee], coins: Sequence[SpentCoin], terms: Terms) -> Chosen | str:
    by_outpoint = {coin.outpoint: coin for coin in coins}
    amount = sum(item.payout.chain_amount for item in payees)
    weight = _weight_without_inputs(payees)
    found = select(
        [Choice(coin.outpoint, coin.amount, coin.weight) for coin in coins],
        amount,
        weight,
        terms,
        inputs_max=INPUTS_MAX,
    )
    if isinstance(found, NotEnough):
        return f"the coins bring {found.available} satoshi, {found.needed} are needed"
    assert isinstance(found, Selection)
    chosen = tuple(by_outpoint[item.outpoint] for item in found.coins)
    return Chosen(tuple(payees), chosen, found.change, found.fee)


def _refuse(payees: Sequence[Payee], found: Chosen, view: WalletView, policy: SpendPolicy) -> str:
    amount = sum(item.payout.chain_amount for item in payees)
    if found.fee > policy.fee_max:
        return f"the fee would be {found.fee} satoshi, more than {policy.fee_max}"
    if found.fee * 100 > amount * FEE_PERCENT_MAX:
        return f"the fee would be {found.fee} satoshi to pay {amount}"
    return _refuse_books(payees, found.fee, view)


def _terms(market: Market, later_rate: int, coins: Sequence[SpentCoin]) -> Terms:
    return Terms(
        rate=market.asked,
        later_rate=later_rate,
        change_weight=_change_weight(coins),
        change_spend_weight=max((coin.weight for coin in coins), default=KEY_HASH_INPUT_WEIGHT),
        change_min=CHANGE_MIN,
    )


def _change_weight(coins: Sequence[SpentCoin]) -> int:
    shared = any(coin.weight > KEY_HASH_INPUT_WEIGHT for coin in coins)
    return CHANGE_WEIGHT_SHARED if shared else CHANGE_WEIGHT


def _weight_without_inputs(payees: Sequence[Payee]) -> int:
    return OVERHEAD_WEIGHT + sum(item.weight for item in payees)


def draft(
    payees: Sequence[Payee],
    coins: Collection[SpentCoin],
    change: int,
    change_script: bytes | None,
    kind: AttemptKind = AttemptKind.PAY,
) -> Drafted:
    """Return the transaction: inputs and outputs in the order of BIP 69."""
    spent = tuple(sorted(coins, key=lambda coin: coin.outpoint))
    outputs: list[tuple[Output, UUID | None]] = [(p.output, p.payout.id) for p in payees]
    if change:
        assert change_script is not None  # change goes somewhere
        outputs.append((Output(change, change_script), None))
    outputs.sort(key=lambda item: (item[0].amount, item[0].script, str(item[1])))
    fee = sum(coin.amount for coin in spent) - sum(output.amount for output, _ in outputs)
    weight = OVERHEAD_WEIGHT + sum(coin.weight for coin in spent)
    weight += sum(output_weight(output) for output, _ in outputs)
    unsigned = Transaction(
        tuple(Input(coin.outpoint) for coin in spent), tuple(output for output, _ in outputs)
    )
    places = {owner: place for place, (_, owner) in enumerate(outputs) if owner is not None}
    return Drafted(kind, unsigned, spent, change, fee, weight, places)


# What takes its place.


@dataclass(frozen=True, slots=True)
class Replaced:
    """What a replacement spends and returns; its outputs are the payees' unless it cancels."""

    coins: tuple[SpentCoin, ...]
    change: int
    fee: int


def plan_replacement(
    attempts: Sequence[SpendAttempt],
    payees: Sequence[Payee],
    more: Sequence[SpentCoin],
    market: Market,
    *,
    cancels: bool,
) -> Replaced | str:
    """Return what conflicts with every attempt and is preferred to each, or why there is nothing.

    It spends all that the newest attempt spends, the anchor among it. The fee is taken from the
    change first; where that is not enough, the largest of *more* coins are added.

    Args:
        attempts: every attempt of the spend, the newest last.
        payees: whom it pays; ignored when it *cancels*.
        more: confirmed coins that are free: a replacement may bring no unconfirmed ones.
        market: prices now.
        cancels: return everything.
    """
    coins = list(attempts[-1].coins)
    free = sorted(more, key=lambda coin: (-coin.amount, coin.outpoint))
    outputs = () if cancels else tuple(payees)
    amount = sum(item.payout.chain_amount for item in outputs)
    for extra in (None, *free[: max(0, INPUTS_MAX - len(coins))]):
        if extra is not None:
            coins.append(extra)
        brought = sum(coin.amount for coin in coins)
        weight = _weight_without_inputs(outputs) + sum(coin.weight for coin in coins)
        fee = fee_to_replace(attempts, weight + _change_weight(coins), market)
        change = brought - amount - fee
        if change >= CHANGE_MIN:
            return Replaced(tuple(coins), change, fee)
        given = brought - amount
        if not cancels and given >= fee_to_replace(attempts, weight, market):
            return Replaced(tuple(coins), 0, given)
        if cancels:
            break
    return "there are not coins enough for a higher fee"


def fee_to_replace(attempts: Sequence[SpendAttempt], weight: int, market: Market) -> int:
    """Return the least fee with which a transaction of *weight* takes the place of all *attempts*."""
    paid = max(item.fee for item in attempts)
    rate = max(_rate_of(item) for item in attempts) + market.step
    return max(
        fee_of(weight, market.asked), fee_of(weight, rate), paid + fee_of(weight, market.step)
    )


def _rate_of(attempt: SpendAttempt) -> int:
    """Return what an attempt pays at most: signatures may be a byte shorter than they were taken for."""
    weight = attempt.weight if attempt.raw is None else decode(attempt.raw).weight
    return -(-attempt.fee * 4_000 // weight)


def decide_bump(
    attempts: Sequence[SpendAttempt], market: Market, policy: SpendPolicy, now: datetime
) -> Bump:
    """Say what is to be done about a spend whose newest attempt waits for a block."""
    first, newest = attempts[0], attempts[-1]
    if newest.signed_at is None:
        return Bump.NOT_YET
    begun = now - (first.signed_at or first.built_at)
    over = policy.cancel_after is not None and begun >= policy.cancel_after
    if over and newest.kind is not AttemptKind.CANCEL:
        return Bump.CANCEL
    age = now - newest.signed_at
    underpriced = market.asked > 2 * newest.rate or newest.rate < market.relay
    if age < (policy.underpriced_after if underpriced else policy.bump_after):
        return Bump.NOT_YET
    fee = fee_to_replace(attempts, newest.weight, market)
    too_dear = fee > min(policy.fee_max, policy.times_first_max * first.fee)
    if begun >= policy.deadline or too_dear or market.asked > policy.rate_max:
        return Bump.PEOPLE
    return Bump.NOW


def require_fee(found: Replaced, drafted: Drafted, policy: SpendPolicy) -> str:
    """Return why a replacement is too dear, in words; "" when it is not."""
    if found.fee > policy.fee_max:
        return f"the fee would be {found.fee} satoshi, more than {policy.fee_max}"
    rate = drafted.fee * 4_000 // drafted.weight
    if rate > policy.rate_max:
        return f"{rate} sat/kvB is more than {policy.rate_max}"
    return ""


def is_own(payout: Payout) -> bool:
    """Tell whether it pays another address of our own."""
    return payout.parsed_claim.kind is ClaimKind.OWN
