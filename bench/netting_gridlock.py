"""A hundred parties, 5,000 payments and half a percent of liquidity: how much settles in 30 s?

Each party holds the named share of what it is to pay; amounts are lognormal. Five named seeds, the
median counts. Beside the optimum stand what settles in order, what settles in part, and the bound
that no choice exceeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Final

from bench.measure import Measured, Result, Shared, versions
from bench.netting_graphs import draw_edges
from settlement.netting.liquidity import choose
from settlement.netting.model import Account, Method, Movement, Payment
from settlement.netting.verification import verify_choice
from settlement.solvers.loading import load_solvers

SEEDS: Final = (1, 2, 3, 4, 5)
PARTIES: Final = 100
PAYMENTS: Final = 5_000
LIQUIDITY_PER_MILLE: Final = 5
LIMIT_S: Final = 20
"""For the solver; what it finds is checked, mended and filled in the two seconds that remain."""
GOAL_PERCENT: Final = 80
GOAL_S: Final = 30
ASSET: Final = "USD"


@dataclass(frozen=True, slots=True)
class _Told:
    """What one seed came to, in percent of the gross value."""

    optimal: float
    bound: float
    fifo: float
    parts: float
    took_s: float


def measure(shared: Shared) -> Measured:  # noqa: ARG001  the shape of a benchmark
    """Choose for each seed, and take medians."""
    told = [_choose(seed) for seed in SEEDS]

    def middle(name: str) -> float:
        found: float = median(getattr(one, name) for one in told)
        return found

    return Measured(
        results=[
            Result(
                name="netting_gridlock", value=middle("optimal"), unit="%", at_least=GOAL_PERCENT
            ),
            Result(name="netting_gridlock.bound", value=middle("bound"), unit="%"),
            Result(
                name="netting_gridlock.time",
                value=max(one.took_s for one in told),
                unit="s",
                at_most=GOAL_S,
            ),
            Result(name="netting_gridlock.fifo", value=middle("fifo"), unit="%"),
            Result(name="netting_gridlock.parts", value=middle("parts"), unit="%"),
        ],
        conditions={
            "payments": f"{PAYMENTS:,} of {PARTIES} parties",
            "liquidity": f"{LIQUIDITY_PER_MILLE / 10} % of what each is to pay",
            "seeds": ", ".join(map(str, SEEDS)),
            "each": ", ".join(f"{one.optimal:.2f} of {one.bound:.2f} %" for one in told),
        },
        versions=versions("scipy", "ortools"),
    )


def _choose(seed: int) -> _Told:
    edges = draw_edges(seed, parties=PARTIES, count=PAYMENTS)
    payments = [
        Payment(e.id, (Movement(e.debtor, e.creditor, ASSET, e.amount),), e.amount, e.order_key)
        for e in edges
    ]
    owed: dict[Account, int] = {}
    for edge in edges:
        owed[edge.debtor, ASSET] = owed.get((edge.debtor, ASSET), 0) + edge.amount
    funds = {account: amount * LIQUIDITY_PER_MILLE // 1_000 for account, amount in owed.items()}
    gross = sum(owed.values())
    fifo = _value(payments, funds, Method.FIFO)
    parts = _value(payments, funds, Method.PARTIAL)
    began = perf_counter()
    found = choose(
        payments,
        funds,
        {},
        method=Method.OPTIMAL,
        time_limit_s=LIMIT_S,
        solvers=load_solvers(),
    )
    took_s = perf_counter() - began
    if verify_choice(payments, funds, {}, found):
        raise ValueError("the choice cannot be paid")
    return _Told(
        optimal=100 * found.value / gross,
        bound=100 * found.bound / gross,
        fifo=100 * fifo / gross,
        parts=100 * parts / gross,
        took_s=took_s,
    )


def _value(payments: Sequence[Payment], funds: dict[Account, int], method: Method) -> int:
    found = choose(payments, funds, {}, method=method, time_limit_s=LIMIT_S, solvers=load_solvers())
    if verify_choice(payments, funds, {}, found):
        raise ValueError("the choice cannot be paid")
    return found.value
