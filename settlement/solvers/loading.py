"""Who solves: what is installed, and our own where nothing is."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache

from settlement.netting.exact import BUILT_IN
from settlement.netting.model import ChoiceSolver, FlowSolver, Solvers


@cache
def load_solvers() -> Solvers:
    """Return the best solvers there are; the libraries are loaded by the first call."""
    flow: FlowSolver = BUILT_IN.flow
    choice: ChoiceSolver | None = None
    if _has("ortools"):
        flow = importlib.import_module("settlement.solvers.ortools_flow").OrToolsFlow()
    if _has("scipy"):
        choice = importlib.import_module("settlement.solvers.highs").HighsChoice()
    return Solvers(flow=flow, choice=choice)


def _has(library: str) -> bool:
    """Tell whether an optional library, and the arrays that it takes, are installed."""
    return all(importlib.util.find_spec(name) is not None for name in (library, "numpy"))
