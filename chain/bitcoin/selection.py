"""Which coins pay: a set that needs no change if there is one, else the fewest. Pure.

Every candidate is measured by its *waste*: what its inputs cost now beyond what spending them later
would cost, and what change costs (an output now, an input later) or what is given away where there
is none. Branch and bound looks for a set without change; with change, and all coins of one weight,
the best set is known outright. What is returned is the least waste of those.

Sources: Erhardt, "An Evaluation of Coin Selection Strategies" (2016), chapters 4 and 6; Bitcoin Core
``src/wallet/coinselection.cpp`` for the waste metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from chain.bitcoin.fees import fee_of
from chain.bitcoin.transactions import Outpoint

TRIES_MAX: Final = 30_000
"""Steps of the search for a set without change: some 20 ms. What it found by then counts."""
INPUTS_MAX: Final = 500
"""Coins in one transaction: far below what nodes relay, and a signer reads it in a moment."""


@dataclass(frozen=True, slots=True)
class Coin:
    """An output of ours that can be spent.

    Attributes:
        amount: satoshi.
        weight: of the input that spends it, with its proof.
    """

    outpoint: Outpoint
    amount: int
    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """At what prices coins are chosen.

    Attributes:
        rate: satoshi for 1,000 virtual bytes, now.
        later_rate: what spending a coin is expected to cost one day: above it few inputs are
            better, below it many are.
        change_weight: of a change output.
        change_spend_weight: of the input that will spend it.
        change_min: smallest change that is made; less is left to the fee.
    """

    rate: int
    later_rate: int
    change_weight: int
    change_spend_weight: int
    change_min: int

    @property
    def change_cost(self) -> int:
        """Return what change costs: the output now, the input later."""
        return self.change_fee + fee_of(self.change_spend_weight, self.later_rate)

    @property
    def change_fee(self) -> int:
        """Return what the change output costs now."""
        return fee_of(self.change_weight, self.rate)


@dataclass(frozen=True, slots=True)
class Selection:
    """Coins that pay, by outpoint.

    Attributes:
        change: satoshi that come back; 0: no change output.
        fee: what the network gets, at least what the rate asks.
        waste: see the module; comparable only among selections for the same payment.
    """

    coins: tuple[Coin, ...]
    change: int
    fee: int
    waste: int


@dataclass(frozen=True, slots=True)
class NotEnough:
    """The coins cannot pay.

    Attributes:
        available: what all that are worth their own fee would bring after it, in satoshi.
        needed: what the payment and its fee need.
    """

    available: int
    needed: int


def select(
    coins: Sequence[Coin],
    amount: int,
    weight: int,
    terms: Terms,
    *,
    inputs_max: int = INPUTS_MAX,
    tries_max: int = TRIES_MAX,
) -> Selection | NotEnough:
    """Return the coins that pay *amount* in a transaction whose other parts weigh *weight*.

    A coin that costs more than it brings is never chosen. The same coins in another order give the
    same answer.

    Args:
        coins: what may be spent.
        amount: satoshi of all outputs but change.
        weight: of everything but inputs and change.
        terms: prices.
        inputs_max: coins that may be chosen; in cheap times the answer uses what it is allowed.
        tries_max: steps that the search may take.
    """
    ordered = sorted(
        (item for item in coins if _value(item, terms) > 0),
        key=lambda item: (-_value(item, terms), item.outpoint),
    )
    target = amount + fee_of(weight, terms.rate)
    values = [_value(item, terms) for item in ordered]
    if sum(values[:inputs_max]) < target:
        return NotEnough(sum(values[:inputs_max]), target)
    found = [
        _measure([ordered[place] for place in places], target, amount, terms, change=change)
        for places, change in (
            (_without_change(ordered, values, target, terms, inputs_max, tries_max), False),
            (_with_change(ordered, values, target, terms, inputs_max), True),
            (_largest(values, target, inputs_max), False),
        )
        if places
    ]
    return min(found, key=lambda item: (item.waste, item.fee, item.coins[0].outpoint))


def _value(coin: Coin, terms: Terms) -> int:
    """Return what a coin brings once its own input is paid for."""
    return coin.amount - fee_of(coin.weight, terms.rate)


def _input_waste(coin: Coin, terms: Terms) -> int:
    return fee_of(coin.weight, terms.rate) - fee_of(coin.weight, terms.later_rate)


def _measure(
    coins: Sequence[Coin], target: int, amount: int, terms: Terms, *, change: bool
) -> Selection:
    excess = sum(_value(item, terms) for item in coins) - target
    waste = sum(_input_waste(item, terms) for item in coins)
    given_back = excess - terms.change_fee if change else 0
    waste += terms.change_cost if change else excess
    fee = sum(item.amount for item in coins) - amount - given_back
    return Selection(tuple(sorted(coins, key=lambda item: item.outpoint)), given_back, fee, waste)


def _largest(values: Sequence[int], target: int, inputs_max: int) -> range:
    """Return the places of the fewest coins that pay: the largest ones."""
    brought = 0
    for count, value in enumerate(values[:inputs_max], start=1):
        brought += value
        if brought >= target:
            return range(count)
    return range(0)


def _with_change(
    coins: Sequence[Coin], values: Sequence[int], target: int, terms: Terms, inputs_max: int
) -> range:
    """Return the places of the best set whose rest comes back; none if no set leaves enough.

    Above the later rate each input is a loss, so the fewest are best; below it a gain, so all are.
    """
    fewest = _largest(values, target + terms.change_fee + terms.change_min, inputs_max)
    if fewest and _input_waste(coins[0], terms) < 0:
        return range(min(len(coins), inputs_max))
    return fewest


def _without_change(
    coins: Sequence[Coin],
    values: Sequence[int],
    target: int,
    terms: Terms,
    inputs_max: int,
    tries_max: int,
) -> list[int]:
    """Search depth first for the set with the least waste whose excess is below what change costs.

    Each step takes the next coin or leaves it out; a branch ends when what is left cannot reach the
    target, when it is past the window, or when it cannot become better than what was found.
    """
    left = [*accumulate(reversed(values), initial=0)][::-1]
    wastes = [_input_waste(item, terms) for item in coins]
    losing = wastes[0] > 0
    window = target + terms.change_cost
    chosen: list[int] = []
    best: list[int] = []
    least: int | None = None
    brought = wasted = place = 0
    for _ in range(tries_max):
        ended = (
            brought + left[place] < target
            or brought > window
            or len(chosen) > inputs_max
            or (losing and least is not None and wasted >= least)
        )
        if not ended and brought >= target:
            if least is None or wasted + brought - target < least:
                best, least = chosen.copy(), wasted + brought - target
            ended = losing
        if not ended and place < len(values):
            # Of coins of one value only the first may be left out: the others make the same sets.
            after_gap = place > 0 and (not chosen or chosen[-1] != place - 1)
            if not (after_gap and values[place] == values[place - 1]):
                chosen.append(place)
                brought += values[place]
                wasted += wastes[place]
            place += 1
            continue
        if not chosen:
            break
        place = chosen.pop()
        brought -= values[place]
        wasted -= wastes[place]
        place += 1
    return best
