"""The most value in any order: solvers propose, integers decide.

There are two proposals. The optimum in parts leaves few payments in part; rounded to the nearest it is
nearly payable, whatever time there is. Branch and bound improves on it as long as it may.

To a solver in floats amounts are told in quanta of each asset. Where these are more than a unit it is asked
twice, for half of the time each. First debits are rounded down, credits and rooms up: nothing payable is ruled
out, not even what takes the last unit there is, so that its bound holds. Then the other way, so that what it
may choose can be paid. Every proposal is checked in integers, mended where it fails, and filled up where there
is room left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from settlement.netting.model import Account, ChoiceProblem, Found, Payment, Solvers
from settlement.netting.parts import choose_parts, whole_only

QUANTA_MAX: Final = 2**40
"""Σ of the amounts of an asset, in quanta: far inside what a float counts exactly."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """Payments that somebody proposes; once they are mended, they can be paid.

    Attributes:
        bound: no choice is worth more.
        method: who proposes it.
    """

    payments: Sequence[Payment]
    bound: int
    method: str


def choose_best(
    payments: Sequence[Payment],
    rooms: Mapping[Account, int | None],
    *,
    solvers: Solvers,
    time_limit_s: float,
) -> Proposal | None:
    """Return the best of the proposals, mended and filled, under the least of their bounds.

    None without a solver that could propose anything. Of equals the first: parts before branches.
    """
    best: Proposal | None = None
    for proposed in _proposals(payments, rooms, solvers, time_limit_s):
        settled = _payable(payments, rooms, proposed.payments)
        bound = proposed.bound if best is None else min(best.bound, proposed.bound)
        if best is None or _worth(settled) > _worth(best.payments):
            best = Proposal(settled, bound, proposed.method)
        else:
            best = Proposal(best.payments, bound, best.method)
        if _worth(best.payments) >= best.bound:
            break
    return best


def _proposals(
    payments: Sequence[Payment],
    rooms: Mapping[Account, int | None],
    solvers: Solvers,
    time_limit_s: float,
) -> Iterator[Proposal]:
    exact = whole_only(payments) is None
    if exact:
        parts = choose_parts(payments, rooms, solvers=solvers)
        nearest = [p for p in payments if 2 * parts.get(p.id, 0) > p.value]
        yield Proposal(nearest, sum(parts.values()), solvers.flow.name)
    if solvers.choice is not None:
        ask, relax, name = solvers.choice, solvers.choice.relax, solvers.choice.name
        rough = any(quantum > 1 for quantum in _quanta(payments).values())
        each_s = time_limit_s * 0.5 if rough else time_limit_s
        if not exact:
            yield _ask(payments, rooms, relax, name, time_limit_s, favour=True)
        yield _ask(payments, rooms, ask, name, each_s, favour=True)
        if rough:
            found = _ask(payments, rooms, ask, name, each_s, favour=False)
            # What is payable may be ruled out here: what the solver says bounds only itself.
            yield replace(found, bound=_worth(payments))


def _ask(
    payments: Sequence[Payment],
    rooms: Mapping[Account, int | None],
    solve: Callable[..., Found],
    name: str,
    time_limit_s: float,
    *,
    favour: bool,
) -> Proposal:
    """Ask for whole payments, or for the relaxation; with *favour* nothing payable is ruled out, and the bound holds."""
    weight = _quantum(_worth(payments))
    problem = _problem(payments, rooms, _quanta(payments), weight, favour=favour)
    found = solve(problem, time_limit_s=time_limit_s)
    return Proposal([payments[n] for n in found.chosen or ()], found.bound * weight, name)


def _payable(
    payments: Sequence[Payment],
    rooms: Mapping[Account, int | None],
    proposed: Iterable[Payment],
) -> list[Payment]:
    plan = _Plan(payments, rooms)
    wanted = {payment.id for payment in proposed}
    for number, payment in enumerate(payments):
        if payment.id in wanted:
            plan.put(number)
    plan.mend()
    plan.fill()
    return plan.settled()


def _worth(payments: Iterable[Payment]) -> int:
    return sum(p.value for p in payments)


def _quanta(payments: Sequence[Payment]) -> dict[str, int]:
    """Return the quantum of each asset, by all that is paid in it."""
    sums: dict[str, int] = {}
    for payment in payments:
        for move in payment.movements:
            sums[move.asset] = sums.get(move.asset, 0) + move.amount
    return {asset: _quantum(total) for asset, total in sums.items()}


def _quantum(total: int) -> int:
    return max(1, -(-total // QUANTA_MAX))


def _problem(
    payments: Sequence[Payment],
    rooms: Mapping[Account, int | None],
    quanta: Mapping[str, int],
    weight: int,
    *,
    favour: bool,
) -> ChoiceProblem:
    """Return the problem in quanta; with *favour* rounded so that nothing payable is ruled out."""
    watched = [account for account, room in rooms.items() if room is not None]
    row_of = {account: row for row, account in enumerate(watched)}
    rows: list[list[tuple[int, int]]] = [[] for _ in watched]
    for number, payment in enumerate(payments):
        changes: dict[Account, int] = {}
        for move in payment.movements:
            for account, change in (
                ((move.payer, move.asset), -move.amount),
                ((move.payee, move.asset), move.amount),
            ):
                changes[account] = changes.get(account, 0) + change
        for account, change in changes.items():
            if account in row_of:
                rounded = _rounded(change, quanta[account[1]], up=favour)
                rows[row_of[account]].append((number, rounded))
    # A room beyond everything that is paid in the asset is cut to that: it needs no more digits.
    return ChoiceProblem(
        weights=[_rounded(p.value, weight, up=True) for p in payments],
        rows=rows,
        floors=[
            -_rounded(
                min(rooms[account] or 0, QUANTA_MAX * quanta[account[1]]),
                quanta[account[1]],
                up=favour,
            )
            for account in watched
        ],
    )


def _rounded(amount: int, quantum: int, *, up: bool) -> int:
    return -(-amount // quantum) if up else amount // quantum


class _Plan:
    """Payments put in and taken out, with the exact room that is left in every watched account."""

    def __init__(self, payments: Sequence[Payment], rooms: Mapping[Account, int | None]) -> None:
        self.payments = payments
        self.left = {account: room for account, room in rooms.items() if room is not None}
        self.is_in = [False] * len(payments)

    def put(self, number: int) -> None:
        """Put a payment in."""
        self._book(number, 1)

    def settled(self) -> list[Payment]:
        """Return what is in, in order."""
        return [p for p, is_in in zip(self.payments, self.is_in, strict=True) if is_in]

    def mend(self) -> None:
        """Take out, while an account is short, the least of its payments that helps."""
        paying: dict[Account, list[int]] = {}
        for number, payment in enumerate(self.payments):
            if self.is_in[number]:
                for move in payment.movements:
                    paying.setdefault((move.payer, move.asset), []).append(number)
        short = [account for account, left in self.left.items() if left < 0]
        while short:
            account = short.pop()
            while self.left[account] < 0:
                candidates = [n for n in paying[account] if self.is_in[n]]
                number = min(candidates, key=lambda n: self._cost_of(n, account))
                self._book(number, -1)
                short += [
                    payee
                    for move in self.payments[number].movements
                    if self.left.get(payee := (move.payee, move.asset), 0) < 0
                ]

    def fill(self) -> None:
        """Put in what still fits, the most worth first, until nothing more does."""
        order = sorted(range(len(self.payments)), key=lambda n: (-self.payments[n].value, n))
        waiting = [number for number in order if not self.is_in[number]]
        while waiting:
            before = len(waiting)
            for number in waiting:
                if self._fits(number):
                    self._book(number, 1)
            waiting = [number for number in waiting if not self.is_in[number]]
            if len(waiting) == before:
                return

    def _fits(self, number: int) -> bool:
        return all(
            self.left.get(account, 0) + change >= 0 or account not in self.left
            for account, change in self._changes(number).items()
            if change < 0
        )

    def _cost_of(self, number: int, account: Account) -> tuple[bool, bool, int, int]:
        """Order what helps *account*, the least harm first.

        What makes nobody else short goes before all others, or one gap would tear the next: then
        enough before too little, the least worth, the latest.
        """
        changes = self._changes(number)
        harms = any(
            change > 0 and other in self.left and self.left[other] < change
            for other, change in changes.items()
        )
        enough = self.left[account] - changes.get(account, 0) >= 0
        value = self.payments[number].value
        return harms, not enough, value if enough else -value, -number

    def _changes(self, number: int) -> dict[Account, int]:
        changes: dict[Account, int] = {}
        for move in self.payments[number].movements:
            payer, payee = (move.payer, move.asset), (move.payee, move.asset)
            changes[payer] = changes.get(payer, 0) - move.amount
            changes[payee] = changes.get(payee, 0) + move.amount
        return changes

    def _book(self, number: int, sign: int) -> None:
        self.is_in[number] = sign > 0
        for account, change in self._changes(number).items():
            if account in self.left:
                self.left[account] += sign * change
