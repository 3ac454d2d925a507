"""Clearing of circles: worked examples, and what is true of every graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.netting.cycles import clear_cycles
from settlement.netting.exact import BUILT_IN
from settlement.netting.model import Circulation, Edge, Solvers
from settlement.netting.multilateral import multilateral
from settlement.solvers.loading import load_solvers
from tests.settlement.netting.graphs import drawn, edges, greatest_circulation, positions

SOLVERS = {"ours": BUILT_IN, "installed": load_solvers()}
EVERY_SOLVER = pytest.mark.parametrize("solvers", SOLVERS.values(), ids=SOLVERS)
WEI = 10**24


@EVERY_SOLVER
@pytest.mark.parametrize(
    ("story", "rows", "set_off"),
    [
        (
            "three in a circle, and one who owes one of them",
            [("10", "20", 100), ("20", "30", 100), ("30", "10", 200), ("40", "30", 100)],
            [100, 100, 100, 0],
        ),
        ("a pair is the shortest circle", [("A", "B", 5), ("B", "A", 3)], [3, 3]),
        ("a chain has no circle", [("A", "B", 5), ("B", "C", 5)], [0, 0]),
        (
            "of parallel obligations the oldest is set off first",
            [("A", "B", 4), ("A", "B", 4), ("B", "A", 6)],
            [4, 2, 6],
        ),
        (
            "the longer circle wins where they compete",
            [("A", "B", 1), ("B", "A", 1), ("B", "C", 1), ("C", "A", 1)],
            [1, 0, 1, 1],
        ),
        ("nothing", [], []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_clearing_by_example(
    story: str, rows: list[tuple[str, str, int]], set_off: list[int], solvers: Solvers
) -> None:
    owed = edges(*rows)

    found = clear_cycles(owed, solvers=solvers)

    assert [found.set_off[edge.id] for edge in owed] == set_off
    assert (found.gross, found.cleared) == (sum(r[2] for r in rows), sum(set_off))


@pytest.mark.parametrize("seed", range(0, 500, 50))
def test_what_is_cleared_equals_brute_force(seed: int) -> None:
    for number in range(seed, seed + 50):
        owed = drawn(number, count=2 + number % 11, parties=3 + number % 3, amount_max=2)
        best = greatest_circulation(owed)

        for name, solvers in SOLVERS.items():
            assert clear_cycles(owed, solvers=solvers).cleared == best, (number, name)


@EVERY_SOLVER
@pytest.mark.parametrize("amount_max", [1_000, WEI, 10**40])
def test_what_is_cleared_equals_network_simplex_whatever_the_amounts(
    amount_max: int, solvers: Solvers
) -> None:
    for seed in range(20):
        owed = drawn(seed, count=60, parties=10, amount_max=amount_max)

        assert clear_cycles(owed, solvers=solvers).cleared == by_network_simplex(owed)


def by_network_simplex(owed: Sequence[Edge]) -> int:
    graph: nx.MultiDiGraph[str] = nx.MultiDiGraph()
    for edge in owed:
        graph.add_edge(edge.debtor, edge.creditor, capacity=edge.amount, weight=-1)
    cost, _ = nx.network_simplex(graph)
    return -int(cost)


graphs = st.builds(
    drawn,
    st.integers(0, 10**6),
    count=st.integers(1, 30),
    parties=st.integers(2, 8),
    amount_max=st.sampled_from([3, 1_000, WEI]),
)


@EVERY_SOLVER
@given(owed=graphs)
def test_clearing_moves_no_position_grows_nothing_and_makes_no_new_pair(
    owed: list[Edge], solvers: Solvers
) -> None:
    found = clear_cycles(owed, solvers=solvers)

    assert set(found.set_off) == {edge.id for edge in owed}
    assert all(0 <= found.set_off[edge.id] <= edge.amount for edge in owed)
    assert not any(positions(owed, found.set_off).values())
    assert found.cleared == sum(found.set_off.values()) <= found.bound
    assert found.bound == found.gross - multilateral(owed)[1]


@EVERY_SOLVER
@given(owed=graphs)
def test_what_remains_has_no_circle(owed: list[Edge], solvers: Solvers) -> None:
    found = clear_cycles(owed, solvers=solvers)

    left = [(e.debtor, e.creditor) for e in owed if found.set_off[e.id] < e.amount]
    assert nx.is_directed_acyclic_graph(nx.DiGraph(left))


@EVERY_SOLVER
@given(owed=graphs, seed=st.integers(0, 1_000))
def test_neither_the_order_of_the_inputs_nor_the_names_of_parties_matter(
    owed: list[Edge], seed: int, solvers: Solvers
) -> None:
    rng = Random(seed)
    names = dict(zip("ABCDEFGHIJ", rng.sample("abcdefghij", 10), strict=True))
    renamed = [Edge(e.id, names[e.debtor], names[e.creditor], e.amount, e.order_key) for e in owed]
    rng.shuffle(renamed)

    first, again = (clear_cycles(rows, solvers=solvers) for rows in (owed, renamed))

    assert first.set_off == again.set_off


@given(owed=graphs)
def test_positions_add_up_to_zero_and_nothing_less_than_the_net_claims_moves(
    owed: list[Edge],
) -> None:
    found, moved = multilateral(owed)

    assert Counter(found) == positions(owed)
    assert sum(found.values()) == 0
    assert moved == sum(map(abs, found.values())) // 2


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([Edge("a", "A", "A", 1, (edges(("A", "B", 1))[0].order_key))], "nobody owes himself"),
        (edges(("A", "B", 0)), "above zero"),
        (edges(("A", "B", 1)) * 2, "comes twice"),
    ],
    ids=["himself", "nothing", "twice"],
)
def test_what_cannot_be_owed_is_refused(rows: list[Edge], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        clear_cycles(rows)


class Fixed:
    """A solver that is wrong."""

    name = "wrong"

    def __init__(self, *flows: int) -> None:
        self.flows = flows

    def __call__(self, network: Circulation) -> Sequence[int]:
        return self.flows


@pytest.mark.parametrize(
    ("flows", "words"),
    [
        ((1, 0), "change a position"),
        ((0, 0), "leave a circle"),
        ((6, 6), "a set-off of 6 of 5"),
        ((-1, -1), "a set-off of -1"),
    ],
    ids=["position", "circle", "too much", "less than nothing"],
)
def test_what_a_solver_finds_is_verified(flows: tuple[int, int], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        clear_cycles(edges(("A", "B", 5), ("B", "A", 5)), solvers=Solvers(flow=Fixed(*flows)))
