"""Small graphs of obligations, and what is true of them by brute force."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from itertools import product
from random import Random

from settlement.netting.model import Account, Edge, Movement, Payment

DAY = date(2026, 1, 5)


def edges(*rows: tuple[str, str, int]) -> list[Edge]:
    """Edges by (debtor, creditor, amount), each a day younger than the one before."""
    return [
        Edge(f"o{n:04}", debtor, creditor, amount, (DAY + timedelta(n), f"o{n:04}"))
        for n, (debtor, creditor, amount) in enumerate(rows)
    ]


def drawn(seed: int, *, count: int, parties: int, amount_max: int) -> list[Edge]:
    """Edges of a random graph, clients owing clients among them."""
    rng = Random(seed)
    rows: list[tuple[str, str, int]] = []
    while len(rows) < count:
        debtor, creditor = rng.choices("ABCDEFGHIJ"[:parties], k=2)
        if debtor != creditor:
            rows.append((debtor, creditor, rng.randint(1, amount_max)))
    return edges(*rows)


def payments(*rows: tuple[str, str, int]) -> list[Payment]:
    """Payments of one asset by (payer, payee, amount)."""
    return [
        Payment(e.id, (Movement(e.debtor, e.creditor, "USD", e.amount),), e.amount, e.order_key)
        for e in edges(*rows)
    ]


def positions(rows: Sequence[Edge], amounts: Mapping[str, int] | None = None) -> Counter[str]:
    found: Counter[str] = Counter()
    for edge in rows:
        amount = edge.amount if amounts is None else amounts[edge.id]
        found[edge.debtor] -= amount
        found[edge.creditor] += amount
    return found


def greatest_circulation(rows: Sequence[Edge]) -> int:
    """Clear simple circles in every order there is: the most that any order clears.

    A greatest circulation is a sum of simple circles, each run as far as it goes in some order.
    """
    amounts = tuple(edge.amount for edge in rows)
    seen: dict[tuple[int, ...], int] = {}

    def best(left: tuple[int, ...]) -> int:
        if left not in seen:
            seen[left] = 0
            for circle in circles(rows, left):
                # One unit at a time decides everything; amounts in these tests are small.
                after = list(left)
                for edge in circle:
                    after[edge] -= 1
                seen[left] = max(seen[left], len(circle) + best(tuple(after)))
        return seen[left]

    return best(amounts)


def circles(rows: Sequence[Edge], left: Sequence[int]) -> Iterator[list[int]]:
    """Yield simple circles of edges that have something left, each once by its least edge."""

    def walk(path: list[int], seen: frozenset[str]) -> Iterator[list[int]]:
        here = rows[path[-1]].creditor
        if here == rows[path[0]].debtor:
            yield path
            return
        if here in seen:
            return
        for number in range(path[0] + 1, len(rows)):
            if left[number] and rows[number].debtor == here:
                yield from walk([*path, number], seen | {here})

    for first in range(len(rows)):
        if left[first]:
            yield from walk([first], frozenset())


def can_settle(
    chosen: Sequence[Payment], funds: Mapping[Account, int], limits: Mapping[Account, int | None]
) -> bool:
    """Tell whether *chosen* can be paid, all at one moment."""
    change: Counter[Account] = Counter()
    for payment in chosen:
        for move in payment.movements:
            change[move.payer, move.asset] -= move.amount
            change[move.payee, move.asset] += move.amount
    for account, delta in change.items():
        limit = limits.get(account, 0)
        if limit is not None and delta < -max(0, funds.get(account, 0) + limit):
            return False
    return True


def best_value(
    wanted: Sequence[Payment], funds: Mapping[Account, int], limits: Mapping[Account, int | None]
) -> int:
    """Return the most value of all the subsets that can settle."""
    best = 0
    for mask in product((False, True), repeat=len(wanted)):
        chosen = [p for p, is_in in zip(wanted, mask, strict=True) if is_in]
        value = sum(p.value for p in chosen)
        if value > best and can_settle(chosen, funds, limits):
            best = value
    return best
