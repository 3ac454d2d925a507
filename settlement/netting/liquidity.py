"""Which payments can settle with what there is: in order, as much as can be, or in part.

Everything chosen settles at one moment, against everything else that is chosen. Priority classes
are chosen one after the other, each with what those before it leave.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from settlement.netting.exact import BUILT_IN
from settlement.netting.fifo import choose_in_order
from settlement.netting.model import Account, Choice, Method, Payment, Solvers
from settlement.netting.optimal import choose_best
from settlement.netting.parts import choose_parts, whole_only

Rooms = dict[Account, int | None]


def choose(
    payments: Sequence[Payment],
    funds: Mapping[Account, int],
    limits: Mapping[Account, int | None],
    *,
    method: Method,
    time_limit_s: float,
    priority: Mapping[str, int] | None = None,
    solvers: Solvers = BUILT_IN,
) -> Choice:
    """Choose what settles at one moment, all of it against all of it.

    Args:
        funds: what each account holds; one that is not named holds nothing.
        limits: how far below zero an account may go; one that is not named may not, and None means
            that it is not watched here.
        time_limit_s: for `Method.OPTIMAL`; what was found by then is taken.
        priority: class of each payment by id, lower classes first; one that is not named is 0.
        solvers: `settlement.solvers.loading.load_solvers()`; without a solver of choices
            `Method.OPTIMAL` rounds the optimum in parts, and trades settle in order.

    Raises:
        ValueError: payments that cannot be (an id twice, an amount not above zero), or a trade of
            several movements where parts are asked for.
    """
    classes = priority or {}
    ordered = sorted(payments, key=lambda p: (classes.get(p.id, 0), p.order_key, p.id))
    _require(ordered)
    rooms = _rooms(ordered, funds, limits)
    match method:
        case Method.FIFO:
            return _fifo(ordered, rooms)
        case Method.OPTIMAL:
            return _optimal(ordered, rooms, classes, time_limit_s, solvers)
        case Method.PARTIAL:
            return _partial(ordered, rooms, classes, solvers)


def _fifo(ordered: Sequence[Payment], rooms: Rooms) -> Choice:
    chosen = [ordered[number] for number in choose_in_order(ordered, rooms)]
    value = sum(p.value for p in chosen)
    # In this order there is no other set: what it comes to is the bound.
    return Choice(frozenset(p.id for p in chosen), {}, Method.FIFO.value, value, value)


def _optimal(
    ordered: Sequence[Payment],
    rooms: Rooms,
    classes: Mapping[str, int],
    time_limit_s: float,
    solvers: Solvers,
) -> Choice:
    in_order = _fifo(ordered, rooms)
    groups = _by_class(ordered, classes)
    left = dict(rooms)
    chosen: list[Payment] = []
    methods: dict[str, None] = {}
    each_s = time_limit_s * 1_000 // max(1, len(groups)) * 0.001
    bound = 0
    for members in groups:
        best = choose_best(members, left, solvers=solvers, time_limit_s=each_s)
        settled = [members[number] for number in choose_in_order(members, left)]
        method = Method.FIFO.value
        if best is not None and _value(best.payments) > _value(settled):
            settled, method = list(best.payments), best.method
        methods[method] = None
        bound = _value(members) if best is None else best.bound
        chosen += settled
        _take(left, ((p, None) for p in settled))
    if len(groups) != 1:
        bound = _bound(ordered, rooms, solvers)
    ids = frozenset(p.id for p in chosen)
    if _by_class_values(ids, groups) <= _by_class_values(in_order.chosen, groups):
        return Choice(
            in_order.chosen, {}, in_order.method, in_order.value, max(bound, in_order.value)
        )
    value = _value(chosen)
    return Choice(ids, {}, "+".join(methods), value, max(bound, value))


def _partial(
    ordered: Sequence[Payment], rooms: Rooms, classes: Mapping[str, int], solvers: Solvers
) -> Choice:
    left = dict(rooms)
    amounts: dict[str, int] = {}
    for members in _by_class(ordered, classes):
        parts = choose_parts(members, left, solvers=solvers)
        _take(left, ((p, parts[p.id]) for p in members if p.id in parts))
        amounts |= parts
    whole = {p.id: p.movements[0].amount for p in ordered}
    value = sum(amounts.values())
    return Choice(
        chosen=frozenset(name for name, part in amounts.items() if part == whole[name]),
        partial={name: part for name, part in amounts.items() if part < whole[name]},
        method=solvers.flow.name,
        value=value,
        bound=max(value, _bound(ordered, rooms, solvers)),
    )


def _bound(ordered: Sequence[Payment], rooms: Rooms, solvers: Solvers) -> int:
    """Return what no choice exceeds: the optimum in parts where that is exact, else everything."""
    if whole_only(ordered) is None:
        return sum(choose_parts(ordered, rooms, solvers=solvers).values())
    return _value(ordered)


def _require(ordered: Sequence[Payment]) -> None:
    if len({p.id for p in ordered}) != len(ordered):
        raise ValueError("a payment comes twice")
    for payment in ordered:
        if not payment.movements or payment.value < 0:
            raise ValueError(f"a payment moves something and is worth something: {payment.id}")
        for move in payment.movements:
            if move.amount <= 0 or move.payer == move.payee:
                raise ValueError(f"a movement goes to another, by more than nothing: {payment.id}")


def _rooms(
    ordered: Iterable[Payment],
    funds: Mapping[Account, int],
    limits: Mapping[Account, int | None],
) -> Rooms:
    """Return how far each account that has a part may fall; below its limit already, not at all."""
    rooms: Rooms = {}
    for payment in ordered:
        for move in payment.movements:
            for account in ((move.payer, move.asset), (move.payee, move.asset)):
                limit = limits.get(account, 0)
                rooms[account] = None if limit is None else max(0, funds.get(account, 0) + limit)
    return rooms


def _take(left: Rooms, settled: Iterable[tuple[Payment, int | None]]) -> None:
    """Book what settles (None: whole) on the rooms that are left."""
    for payment, part in settled:
        for move in payment.movements:
            amount = move.amount if part is None else part
            for account, change in (
                ((move.payer, move.asset), -amount),
                ((move.payee, move.asset), amount),
            ):
                room = left[account]
                if room is not None:
                    left[account] = room + change


def _by_class(ordered: Sequence[Payment], classes: Mapping[str, int]) -> list[list[Payment]]:
    groups: dict[int, list[Payment]] = {}
    for payment in ordered:
        groups.setdefault(classes.get(payment.id, 0), []).append(payment)
    return list(groups.values())


def _by_class_values(ids: frozenset[str], groups: Sequence[Sequence[Payment]]) -> list[int]:
    """Return the value chosen in each class: classes before count for more than all behind."""
    return [_value([p for p in members if p.id in ids]) for members in groups]


def _value(payments: Iterable[Payment]) -> int:
    return sum(p.value for p in payments)
