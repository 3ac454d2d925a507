"""Settlement in part: the exact optimum, with fewer payments in part than there are accounts.

Per asset, liquidity is a node that lends each account its room and takes back what it holds more
(Fleischman and Dini, as in `settlement.netting.cycles`): the greatest circulation then says how much
of each payment settles. It is the optimum of the linear relaxation, in integers. What is settled in
part is then pushed round circles until no circle of parts is left, so parts are a forest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from settlement.netting.model import Account, Circulation, Payment, Solvers

LIQUIDITY = 0
"""The node that lends each account its room."""


def whole_only(payments: Sequence[Payment]) -> Payment | None:
    """Return the first payment that cannot settle in part, or whose worth is not its amount."""
    return next(
        (p for p in payments if len(p.movements) != 1 or p.value != p.movements[0].amount), None
    )


def choose_parts(
    payments: Sequence[Payment], rooms: Mapping[Account, int | None], *, solvers: Solvers
) -> dict[str, int]:
    """Return how much of each payment settles, zeros left out; the oldest of a pair first.

    Raises:
        ValueError: a trade of several movements, or a payment whose worth is not its amount.
    """
    stuck = whole_only(payments)
    if stuck is not None:
        raise ValueError(f"it settles whole or not at all: {stuck.id}")
    by_asset: dict[str, list[Payment]] = {}
    for payment in payments:
        by_asset.setdefault(payment.movements[0].asset, []).append(payment)
    found: dict[str, int] = {}
    for members in by_asset.values():
        found |= _of_one_asset(members, rooms, solvers)
    return found


def _of_one_asset(
    payments: Sequence[Payment], rooms: Mapping[Account, int | None], solvers: Solvers
) -> dict[str, int]:
    pairs: dict[tuple[Account, Account], list[Payment]] = {}
    nodes: dict[Account, int] = {}
    for payment in payments:
        move = payment.movements[0]
        pair = ((move.payer, move.asset), (move.payee, move.asset))
        pairs.setdefault(pair, []).append(payment)
        for account in pair:
            nodes.setdefault(account, len(nodes) + 1)
    network = _network(pairs, nodes, rooms)
    flows = list(solvers.flow(network))
    _push_round(network, flows)
    found = {}
    for members, flow in zip(pairs.values(), flows, strict=False):
        left = flow
        for payment in members:
            part = min(left, payment.movements[0].amount)
            if part:
                found[payment.id] = part
            left -= part
    return found


def _network(
    pairs: Mapping[tuple[Account, Account], Sequence[Payment]],
    nodes: Mapping[Account, int],
    rooms: Mapping[Account, int | None],
) -> Circulation:
    """Return the pairs as arcs that gain, then what liquidity lends, then what it takes back."""
    owed = [sum(p.movements[0].amount for p in members) for members in pairs.values()]
    everything = sum(owed)
    lent = [
        everything if (room := rooms[account]) is None else min(room, everything)
        for account in nodes
    ]
    hub = [LIQUIDITY] * len(nodes)
    numbers = list(nodes.values())
    return Circulation(
        nodes=len(nodes) + 1,
        tails=[*(nodes[payer] for payer, _ in pairs), *hub, *numbers],
        heads=[*(nodes[payee] for _, payee in pairs), *numbers, *hub],
        capacities=[*owed, *lent, *([everything] * len(nodes))],
        gains=[*([1] * len(pairs)), *([0] * (2 * len(nodes)))],
    )


def _push_round(network: Circulation, flows: list[int]) -> None:
    """Push what flows in part round circles of such arcs, until they are a forest.

    A circle of arcs that could carry both more and less gains nothing either way: otherwise the
    circulation would not be the greatest.
    """
    at: list[dict[int, int]] = [{} for _ in range(network.nodes)]
    """Of each node: the arcs of the forest that end there, and the node at their other end."""
    for arc in range(len(flows)):
        while _is_part(network, flows, arc):
            path = _path(network, at, network.heads[arc], network.tails[arc])
            if path is None:
                at[network.tails[arc]][arc] = network.heads[arc]
                at[network.heads[arc]][arc] = network.tails[arc]
                break
            _push(network, flows, [(arc, 1), *path])
            for member, _ in path:
                if not _is_part(network, flows, member):
                    del at[network.tails[member]][member]
                    del at[network.heads[member]][member]


def _is_part(network: Circulation, flows: Sequence[int], arc: int) -> bool:
    return 0 < flows[arc] < network.capacities[arc]


def _path(
    network: Circulation, at: Sequence[Mapping[int, int]], start: int, end: int
) -> list[tuple[int, int]] | None:
    """Return the arcs of the forest from *start* to *end*, each with 1 along it or -1 against it."""
    came: dict[int, tuple[int, int] | None] = {start: None}
    waiting = [start]
    for node in waiting:
        if node == end:
            break
        for arc, there in at[node].items():
            if there not in came:
                came[there] = (arc, node)
                waiting.append(there)
    if end not in came:
        return None
    path = []
    step = came[end]
    while step is not None:
        arc, before = step
        path.append((arc, 1 if network.tails[arc] == before else -1))
        step = came[before]
    return path


def _push(network: Circulation, flows: list[int], circle: Sequence[tuple[int, int]]) -> None:
    """Push along the circle what the first arc to be full or empty allows."""
    amount = min(
        network.capacities[arc] - flows[arc] if sign > 0 else flows[arc] for arc, sign in circle
    )
    for arc, sign in circle:
        flows[arc] += sign * amount
