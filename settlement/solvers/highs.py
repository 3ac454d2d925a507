"""HiGHS, through scipy: mixed-integer choices with a time limit and a bound.

It counts in floats: whoever asks checks in integers what it says.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_array

from settlement.netting.model import ChoiceProblem, Found

GAP: Final = 1e-7
"""Relative; a choice as near to its bound as that is not worth more time."""

SLACK_SHARE: Final = 1e-9
"""A bound in floats is taken so much higher, and one unit more."""


class HighsChoice:
    """The solver of choices."""

    @property
    def name(self) -> str:
        """Return what records call it."""
        return "highs"

    def __call__(self, problem: ChoiceProblem, *, time_limit_s: float) -> Found:
        """Return the best choice found in the time; without one, only a bound."""
        result: Any = milp(
            -np.array(problem.weights, dtype=np.float64),
            integrality=np.ones(len(problem.weights), dtype=np.int8),
            bounds=Bounds(0, 1),
            constraints=_constraints(problem),
            options={"time_limit": time_limit_s, "mip_rel_gap": GAP},
        )
        return _found(problem, result.x, result.mip_dual_bound)

    def relax(self, problem: ChoiceProblem, *, time_limit_s: float) -> Found:
        """Return the linear relaxation, rounded to the nearest, and its value as a bound."""
        matrix, floors = _rows(problem)
        result: Any = linprog(
            -np.array(problem.weights, dtype=np.float64),
            **({"A_ub": -matrix, "b_ub": -floors} if problem.rows else {}),
            bounds=(0, 1),
            method="highs",
            options={"time_limit": time_limit_s},
        )
        return _found(problem, result.x, result.fun) if result.success else _found(problem)


def _found(problem: ChoiceProblem, shares: Any = None, cost: Any = None) -> Found:
    """Return what the solver minimised as what is maximised; no bound of its own: everything."""
    bound = sum(problem.weights)
    if cost is not None and math.isfinite(cost):
        bound = min(bound, _above(-cost))
    chosen = None if shares is None else np.flatnonzero(shares > 0.5).tolist()
    return Found(chosen=chosen, bound=bound)


def _constraints(problem: ChoiceProblem) -> Any:
    if not problem.rows:
        return ()
    matrix, floors = _rows(problem)
    return LinearConstraint(matrix, lb=floors, ub=np.inf)


def _rows(problem: ChoiceProblem) -> tuple[Any, Any]:
    """Return the changes as a matrix, and the floors."""
    entries = [(row, n, change) for row, pairs in enumerate(problem.rows) for n, change in pairs]
    rows, columns, changes = zip(*entries, strict=True) if entries else ((), (), ())
    matrix = csr_array(
        (np.array(changes, dtype=np.float64), (np.array(rows, int), np.array(columns, int))),
        shape=(len(problem.rows), len(problem.weights)),
    )
    return matrix, np.array(problem.floors, dtype=np.float64)


def _above(bound: Any) -> int:
    return int(math.ceil(bound * (1 + SLACK_SHARE)) + 1)
