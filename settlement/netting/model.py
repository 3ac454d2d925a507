"""Nouns of netting: edges and what is cleared of them, payments and which of them can settle.

Amounts are in the smallest unit of their asset, integers of any size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Protocol, TypeAlias

OrderKey: TypeAlias = tuple[date, str]
"""Value date, then id: what is older is cleared and paid first."""

Account: TypeAlias = tuple[str, str]
"""Party and asset: one balance that payments draw on."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One obligation of the asset that is cleared: *debtor* owes *creditor* an amount above zero."""

    id: str
    debtor: str
    creditor: str
    amount: int
    order_key: OrderKey


@dataclass(frozen=True, slots=True)
class Clearing:
    """What is set off in circles. Nobody's position changes, and no obligation grows.

    Attributes:
        set_off: how much of each edge is discharged, zeros among them.
        gross: Σ of the amounts.
        cleared: Σ of *set_off*; no other set-off in circles clears more.
        method: the solver that found it.
        bound: gross less what must move in any case (Σ of the net claims): no clearing, not even
            with novation, can exceed it.
    """

    set_off: Mapping[str, int]
    gross: int
    cleared: int
    method: str
    bound: int

    @property
    def remaining(self) -> int:
        """Return what is still owed afterwards."""
        return self.gross - self.cleared


@dataclass(frozen=True, slots=True)
class Forms:
    """The forms of netting side by side, for the edges of one asset.

    Attributes:
        gross: what moves without netting.
        bilateral: what moves when each pair nets.
        multilateral: what moves through a hub, counted once: Σ of the net claims.
        cleared: what cycle clearing sets off, without novation; ``gross - cleared`` moves after it.
        note: says so where the wider forms add nothing, else empty.
    """

    gross: int
    bilateral: int
    multilateral: int
    cleared: int
    note: str


@dataclass(frozen=True, slots=True)
class Movement:
    """One leg of a payment: value of one asset from payer to payee."""

    payer: str
    payee: str
    asset: str
    amount: int


@dataclass(frozen=True, slots=True)
class Payment:
    """What settles as one: a single movement, or the legs of a trade, value against value.

    Attributes:
        value: what settling it is worth to the choice, in a unit common to all payments; of one
            asset, its amount.
        order_key: its place in the queue of each account it draws on.
    """

    id: str
    movements: tuple[Movement, ...]
    value: int
    order_key: OrderKey


class Method(StrEnum):
    """How payments are chosen."""

    FIFO = "fifo"
    """Each account pays in order: the one largest set there is."""
    OPTIMAL = "optimal"
    """The most value, in any order within a priority class; never less than FIFO's."""
    PARTIAL = "partial"
    """The most value where payments of a single movement may settle in part."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which payments settle. Store it: a solver stopped by its time limit may choose otherwise again.

    Attributes:
        chosen: payments that settle whole.
        partial: amounts of those that settle in part; none of them is in *chosen*.
        method: what found it: ``fifo``, or a solver by name.
        value: of what is chosen, parts counted by their amount.
        bound: no choice is worth more, as far as the solver could prove.
    """

    chosen: frozenset[str]
    partial: Mapping[str, int]
    method: str
    value: int
    bound: int

    @property
    def gap_ppm(self) -> int:
        """Return how far the bound lies above the value, in millionths of the bound, rounded up."""
        return 0 if self.bound == 0 else -(-(self.bound - self.value) * 1_000_000 // self.bound)


@dataclass(frozen=True, slots=True)
class Shortfall:
    """An account that a choice would leave below its limit."""

    account: Account
    short: int


@dataclass(frozen=True, slots=True)
class Circulation:
    """A network in which something may go round; arcs lie in parallel lists.

    Attributes:
        nodes: how many; they are 0, 1, …
        capacities: zero or above.
        gains: of one unit that flows along the arc; -1, 0 or 1.
    """

    nodes: int
    tails: Sequence[int]
    heads: Sequence[int]
    capacities: Sequence[int]
    gains: Sequence[int]


@dataclass(frozen=True, slots=True)
class ChoiceProblem:
    """A choice of whole payments in floats' reach: maximise Σ weight of the chosen.

    Attributes:
        weights: of each payment.
        rows: of each account, (payment, change of the balance) of those that touch it.
        floors: of each account: the Σ of changes must not be less.
    """

    weights: Sequence[int]
    rows: Sequence[Sequence[tuple[int, int]]]
    floors: Sequence[int]


@dataclass(frozen=True, slots=True)
class Found:
    """What a solver of choices found: nothing is proven of it until it is verified in integers.

    Attributes:
        chosen: indexes of the payments; None if the time was over before there was any.
        bound: of Σ weight, by the solver's own word.
    """

    chosen: Sequence[int] | None
    bound: int


class FlowSolver(Protocol):
    """Finds circulations of the greatest gain, exactly."""

    @property
    def name(self) -> str:
        """Return what records call it."""

    def __call__(self, network: Circulation) -> Sequence[int]:
        """Return the flow on each arc: as much into each node as out of it, Σ gain as can be."""


class ChoiceSolver(Protocol):
    """Chooses whole payments under linear constraints."""

    @property
    def name(self) -> str:
        """Return what records call it."""

    def __call__(self, problem: ChoiceProblem, *, time_limit_s: float) -> Found:
        """Return the best choice found in the time."""

    def relax(self, problem: ChoiceProblem, *, time_limit_s: float) -> Found:
        """Return the linear relaxation, rounded to the nearest, and its value as a bound."""


@dataclass(frozen=True, slots=True)
class Solvers:
    """Who solves. `settlement.solvers.loading.load_solvers` gives the best that are installed."""

    flow: FlowSolver
    choice: ChoiceSolver | None = field(default=None)
