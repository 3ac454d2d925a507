"""How good is the choice of coins, and what does it cost where there are many?

Small sets are compared with the exhaustive optimum: every subset, with change and without. Large ones
are timed; the memory of the process after many choices is held against that after a few.
"""

from __future__ import annotations

import random
from math import inf
from time import perf_counter
from typing import Final

from bench.measure import Measured, Result, Shared, peak_memory_kib, percentile, versions
from chain.bitcoin.fees import KEY_HASH_INPUT_WEIGHT, OVERHEAD_WEIGHT, fee_of, output_weight
from chain.bitcoin.scripts import witness_script
from chain.bitcoin.selection import Coin, Selection, Terms, select
from chain.bitcoin.transactions import Outpoint, Output

SEED: Final = 11
SETS: Final = 200
COINS_MAX: Final = 15
AT_LEAST: Final = 95.0
MANY: Final = 10_000
AT_MOST_MS: Final = 50.0
FEW_CHOICES: Final = 20
MANY_CHOICES: Final = 200
TURNS: Final = 3
"""Each payment is chosen for so often, and the fastest counts: what else the machine runs only adds."""
AT_MOST_MEMORY: Final = 1.02
PAYEE: Final = output_weight(Output(0, witness_script(0, bytes(20))))
WEIGHT: Final = OVERHEAD_WEIGHT + PAYEE
CHANGE_MIN: Final = 294
RATES: Final = (1_000, 5_000, 20_000, 80_000)
LATER: Final = (2_000, 10_000)


def measure(shared: Shared) -> Measured:
    """Compare small choices with the best there is, and time large ones."""
    del shared
    chance = random.Random(SEED)
    same = sum(_is_best(chance) for _ in range(SETS))
    coins = _coins([chance.randint(500, 5_000_000) for _ in range(MANY)])
    times, few = [], 0
    for number in range(MANY_CHOICES):
        times.append(_time(coins, chance))
        if number == FEW_CHOICES:
            few = peak_memory_kib()
    results = [
        Result(
            name="bitcoin_selection",
            value=100 * same / SETS,
            unit="% as good as the exhaustive optimum",
            at_least=AT_LEAST,
        ),
        Result(
            name="bitcoin_selection.p95",
            value=percentile(times, 95),
            unit="ms",
            at_most=AT_MOST_MS,
        ),
        Result(name="bitcoin_selection.p50", value=percentile(times, 50), unit="ms"),
        Result(
            name="bitcoin_selection.memory",
            value=peak_memory_kib(),
            unit="KiB",
            baseline=f"after {FEW_CHOICES} choices",
            baseline_value=few,
            at_most=AT_MOST_MEMORY,
        ),
    ]
    facts = {
        "small": f"{SETS} seeded sets of 1 to {COINS_MAX} coins, rates {RATES}, later {LATER}",
        "large": f"{MANY:,} coins, {MANY_CHOICES} payments, the fastest of {TURNS} turns each",
    }
    return Measured(results, facts, versions())


def _terms(chance: random.Random) -> Terms:
    return Terms(
        rate=chance.choice(RATES),
        later_rate=chance.choice(LATER),
        change_weight=PAYEE,
        change_spend_weight=KEY_HASH_INPUT_WEIGHT,
        change_min=CHANGE_MIN,
    )


def _coins(amounts: list[int]) -> list[Coin]:
    return [
        Coin(Outpoint(f"{number:064x}", 0), amount, KEY_HASH_INPUT_WEIGHT)
        for number, amount in enumerate(amounts)
    ]


def _is_best(chance: random.Random) -> bool:
    have = _coins([chance.randint(500, 400_000) for _ in range(chance.randint(1, COINS_MAX))])
    terms = _terms(chance)
    amount = chance.randint(1_000, sum(item.amount for item in have))
    found = select(have, amount, WEIGHT, terms)
    return (found.waste if isinstance(found, Selection) else inf) == _least(have, amount, terms)


def _least(have: list[Coin], amount: int, terms: Terms) -> float:
    """Return the least waste over every subset."""
    now, later = (fee_of(KEY_HASH_INPUT_WEIGHT, rate) for rate in (terms.rate, terms.later_rate))
    values = [item.amount - now for item in have if item.amount > now]
    target, best = amount + fee_of(WEIGHT, terms.rate), inf
    sums = [0] * (1 << len(values))
    for chosen in range(1, len(sums)):
        lowest = chosen & -chosen
        sums[chosen] = sums[chosen ^ lowest] + values[lowest.bit_length() - 1]
        excess = sums[chosen] - target
        if excess < 0:
            continue
        waste = chosen.bit_count() * (now - later)
        best = min(best, waste + excess)
        if excess >= terms.change_fee + terms.change_min:
            best = min(best, waste + terms.change_cost)
    return best


def _time(coins: list[Coin], chance: random.Random) -> float:
    """Return the milliseconds of one choice."""
    terms, amount = _terms(chance), chance.randint(10_000, 200_000_000)
    turns = []
    for _ in range(TURNS):
        began = perf_counter()
        found = select(coins, amount, WEIGHT, terms)
        turns.append((perf_counter() - began) * 1_000)
        assert isinstance(found, Selection), "the coins pay every one of these amounts"
    return min(turns)
