"""The crash matrix: people and workers die at the edges of every machine, and it ends as if nobody had.

A usual run strikes at a few points of each family, the same ones every time: it says whether a change
broke them. ``CAUSEWAY_CRASH_SEED=7`` chooses others; a soak draws a fresh seed for each round and
prints it. ``CAUSEWAY_CRASH=all``, which a soak asks for, strikes at every point, each in a journey that
the seed chooses; ``CAUSEWAY_CRASH='deposit: new to included @ custody.deposit new>included after-commit cut'`` strikes at
one point of one journey, as a failure names it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import Final

import pytest

from app.faults.edges import Point, points_of
from tests.crash.matrix import record
from tests.crash.matrix.journeys.catalogue import FAMILIES, JOURNEYS
from tests.crash.matrix.stage import Journey
from tests.crash.matrix.telling import Databases, Told, tell

ASKED: Final = os.environ.get("CAUSEWAY_CRASH", "")
ALL: Final = "all"
LEARN: Final = "learn"
USUAL_SEED: Final = "4"
SEED: Final = os.environ.get("CAUSEWAY_CRASH_SEED") or USUAL_SEED
STRIKES: Final = {
    "posting": 2,
    "deposit": 2,
    "receipt": 1,
    "statement": 1,
    "chain": 1,
    "pool": 1,
    "compliance": 1,
    "payout-decision": 1,
    "payout": 2,
    "payout-bitcoin": 1,
    "payout-bank": 2,
    "payout-book": 1,
    "own-transfer": 2,
    "order": 2,
    "hedge": 1,
    "settlement": 2,
    "cycle": 1,
    "relay": 2,
    "job": 1,
}
"""How many points of each family a usual run strikes at."""
IN_PEACE: Final = 2
"""How many journeys a usual run tells without any strike."""
HOURS_S: Final = 12 * 3_600
TOGETHER: Final = 40
"""How many strikes of a family are one test of a run of all, which says after each how they went."""

Strike = tuple[Journey, Point]


def strikes_of(family: str) -> list[Strike]:
    """Return every point of every journey of a family."""
    return [
        (journey, point)
        for journey in JOURNEYS
        if journey.family == family
        for edge in sorted(record.record_of(journey).edges)
        for point in points_of(edge)
    ]


@cache
def chosen(family: str) -> Sequence[Strike]:
    """Return where this run strikes: at an edge first, so that a rare one is not rarely struck."""
    every = strikes_of(family)
    if ASKED == ALL:
        # Every point once, in one of the journeys that come to it.
        random = Random(f"{SEED} {family}")
        there: dict[Point, list[Strike]] = {}
        for item in every:
            there.setdefault(item[1], []).append(item)
        found = [random.choice(there[point]) for point in sorted(there)]
        # One journey after the other: what it ends with in peace is asked for once.
        return sorted(found, key=lambda item: (str(item[0]), item[1]))
    if ASKED == LEARN:
        return []
    if ASKED:
        return [item for item in every if f"{item[0]} @ {item[1]}" == ASKED]
    random = Random(f"{SEED} {family}")
    edges = sorted({point.edge for _, point in every})
    picked = random.sample(edges, min(STRIKES[family], len(edges)))
    return [random.choice([item for item in every if item[1].edge == edge]) for edge in picked]


def parts() -> list[tuple[str, int]]:
    """Return what is a test each: a family, and the number of the first of its strikes."""
    if ASKED != ALL:
        return [(family, 0) for family in FAMILIES]
    return [(family, n) for family in FAMILIES for n in range(0, len(chosen(family)), TOGETHER)]


def test_a_point_that_is_asked_for_exists() -> None:
    every = {f"{journey} @ {point}" for family in FAMILIES for journey, point in strikes_of(family)}

    assert every
    assert ASKED in {"", ALL, LEARN} | every


@pytest.mark.timeout(HOURS_S if ASKED == ALL else 600)
@pytest.mark.parametrize(("family", "first"), parts())
async def test_whoever_dies_at_an_edge_it_ends_as_if_nobody_had(
    family: str, first: int, databases: Databases, record_property: Callable[[str, object], None]
) -> None:
    peace: dict[str, Told] = {}
    kinds = Counter[str]()
    failed: list[Exception] = []
    strikes = chosen(family)[first : first + TOGETHER]
    for journey, point in strikes:
        try:
            await end_as_if_nobody_had(journey, point, databases, peace)
        except Exception as error:
            # A run of hours says of all points how they ended.
            if ASKED != ALL:
                raise
            failed.append(error)
        kinds[str(point.kind)] += 1
    there = len(strikes_of(family))
    record_property(
        "counts",
        f"crash matrix, {family}{f' from {first}' if first else ''}: struck at {len(strikes)} of {there} points"
        f" ({', '.join(f'{kind} {n}' for kind, n in sorted(kinds.items()))}), seed {SEED}",
    )
    if failed:
        raise ExceptionGroup(f"{len(failed)} of {len(strikes)} points of {family}", failed)


async def end_as_if_nobody_had(
    journey: Journey, point: Point, databases: Databases, peace: dict[str, Told]
) -> None:
    """Tell a journey with a point that strikes, and compare it with one in which nobody dies."""
    case = f"CAUSEWAY_CRASH='{journey} @ {point}'"
    if journey.compared and str(journey) not in peace:
        peace[str(journey)] = await tell(journey, databases)
    told = await tell(journey, databases, point)
    assert told.struck, f"never came to the point: {case}"
    if journey.compared:
        assert told.seen == peace[str(journey)].seen, case
    assert told.found == record.record_of(journey).found, (case, told.findings)


@pytest.mark.timeout(HOURS_S if ASKED in {ALL, LEARN} else 300)
async def test_in_peace_a_journey_takes_the_edges_on_record(databases: Databases) -> None:
    """Every journey where all is asked for, else a few."""
    every = ASKED in {ALL, LEARN}
    told = JOURNEYS if every else Random(SEED).sample(JOURNEYS, IN_PEACE)
    found = {}
    for journey in told:
        one = await tell(journey, databases)
        found[str(journey)] = record.recorded(one.edges, one.found)
    if ASKED == LEARN:
        record.write(found)
    else:
        assert found == {str(journey): record.record_of(journey) for journey in told}
        assert not every or found == record.read()
