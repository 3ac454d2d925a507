"""The registry of crash points covers every machine, and the journeys of the matrix cover the registry."""

from __future__ import annotations

import pytest

from app.faults.edges import (
    ACTS,
    MILESTONES,
    NEW,
    Edge,
    Kind,
    Moment,
    Point,
    edges,
    find_machines,
    points,
    points_of,
)
from app.faults.marks import WORD, edge_of
from kernel.errors import BadInput
from tests.crash.matrix import record
from tests.crash.matrix.journeys.catalogue import FAMILIES, JOURNEYS
from tests.crash.matrix.scope import IN_SCOPE, LEFT_OUT, NOT_YET
from tests.crash.matrix.test_matrix import STRIKES

TAKEN = frozenset[Edge]().union(*(record.record_of(journey).edges for journey in JOURNEYS))
EDGES = frozenset(edge for edge in edges() if edge.machine in IN_SCOPE)


def test_every_edge_of_every_machine_is_in_the_registry() -> None:
    there = set(edges())

    for name, machine in find_machines().items():
        assert {Edge(name, str(a), str(b)) for a, b in machine.edges} <= there
        assert {Edge(name, NEW, str(state)) for state in machine.initial} <= there
    assert {edge for item in MILESTONES for edge in item.edges()} <= there


def test_every_machine_is_in_the_matrix_or_left_out_with_a_reason() -> None:
    machines = {edge.machine for edge in edges()}

    assert machines == IN_SCOPE | set(LEFT_OUT)
    assert not IN_SCOPE & set(LEFT_OUT)


def test_an_edge_that_no_journey_takes_fails_the_build() -> None:
    missing = {str(edge) for edge in EDGES - TAKEN}

    assert missing == set(NOT_YET), (
        f"without a crash point: {sorted(missing - set(NOT_YET))};"
        f" taken by now, to be removed from the list: {sorted(set(NOT_YET) - missing)}"
    )


def test_every_journey_is_on_record_and_each_family_is_struck() -> None:
    assert {str(journey) for journey in JOURNEYS} == set(record.read())
    assert set(STRIKES) == set(FAMILIES)
    assert all(count > 0 for count in STRIKES.values())


def test_what_records_an_act_dies_after_the_act() -> None:
    for edge in EDGES:
        moments = {point.moment for point in points_of(edge)}
        before = Moment.AFTER_ACT if edge in ACTS else Moment.BEFORE_COMMIT
        assert moments == {before, Moment.AFTER_COMMIT}
    assert set(ACTS) <= set(edges())


def test_a_point_is_read_as_it_is_written() -> None:
    for point in points():
        assert Point.parse(str(point)) == point
        assert edge_of(f"{WORD}{point.edge}") == point.edge


@pytest.mark.parametrize(
    "typed",
    [
        "custody.payout",
        "custody.payout signed>mined",
        "custody.payout signed-mined after-commit cut",
        "custody.payout signed>mined whenever cut",
        "custody.payout signed>mined after-commit hit",
    ],
)
def test_what_names_no_point_is_refused_with_what_to_write(typed: str) -> None:
    with pytest.raises(BadInput, match=r"names no (crash point|edge)"):
        Point.parse(typed)


def test_no_kind_is_left_out() -> None:
    assert {point.kind for point in points()} == set(Kind)
