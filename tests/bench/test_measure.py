from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.catalogue import BENCHMARKS, LONG, find
from bench.measure import Result, Shared, alternate, percentile

ISSUED = (
    "ledger_batch_1000",
    "ledger_batch_8192",
    "ledger_hot",
    "ledger_1m",
    "ledger_writer",
    "ledger_caller",
    "ledger_asof",
    "ledger_verify",
    "ledger_growth",
)


@pytest.mark.parametrize(
    ("result", "ratio", "goal", "met"),
    [
        (Result(name="a", value=7, unit="x/s"), None, None, True),
        (
            Result(name="a", value=7, unit="x/s", baseline="b", baseline_value=10, at_least=0.7),
            0.7,
            "≥ 0.7",
            True,
        ),
        (
            Result(name="a", value=6.9, unit="x/s", baseline="b", baseline_value=10, at_least=0.7),
            0.69,
            "≥ 0.7",
            False,
        ),
        (
            Result(name="a", value=31, unit="us", baseline="b", baseline_value=10, at_most=3),
            3.1,
            "≤ 3",
            False,
        ),
        (Result(name="a", value=0.5, unit="s", at_most=1), None, "≤ 1 s", True),
        (
            Result(name="a", value=99_000, unit="x/s", at_least=100_000),
            None,
            "≥ 100,000 x/s",
            False,
        ),
        (
            Result(name="a", value=7, unit="x/s", baseline="not installed", at_least=0.5),
            None,
            "≥ 0.5",
            False,
        ),
    ],
    ids=["no goal", "met", "missed", "too slow", "in time", "absolute", "nothing to compare"],
)
def test_a_goal_is_a_ratio_or_a_figure_and_says_so(
    result: Result, ratio: float | None, goal: str | None, *, met: bool
) -> None:
    data = result.to_json()

    assert (data["ratio"], data["goal"], data["met"]) == (ratio, goal, met)


def test_rates_are_whole_numbers_and_latencies_are_not() -> None:
    def told(value: float) -> float:
        found: float = Result(name="a", value=value, unit="x").to_json()["value"]
        return found

    assert told(28_123.4) == 28_123
    assert told(1.2345) == 1.23


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(n) for n in range(100, 0, -1)]

    assert [percentile(values, p) for p in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert percentile([3.0], 50) == 3


def test_the_first_turn_of_each_contestant_does_not_count() -> None:
    prepared: list[str] = []

    def contestant(name: str) -> int:
        prepared.append(name)
        return len(prepared)

    rates = alternate(
        {"a": lambda: lambda: contestant("a"), "b": lambda: lambda: contestant("b")}, rounds=2
    )

    assert prepared == ["a", "b"] * 3
    assert set(rates) == {"a", "b"}


def test_what_is_shared_is_made_once_and_closed_at_the_end() -> None:
    seen: list[str] = []

    @contextmanager
    def server() -> Iterator[str]:
        seen.append("started")
        yield "server"
        seen.append("stopped")

    with Shared() as shared:
        assert [shared.once(server), shared.once(server)] == ["server", "server"]
        assert seen == ["started"]

    assert seen == ["started", "stopped"]


def test_every_question_about_the_ledger_has_its_program() -> None:
    assert [name for name in BENCHMARKS if name.startswith("ledger")] == list(ISSUED)


def test_a_long_benchmark_runs_by_its_full_name_only() -> None:
    assert find("ledger_growth") == ["ledger_growth"]
    assert not LONG & {*find(""), *find("ledger"), *find("ledger_g")}
    assert find("ledger_batch") == ["ledger_batch_1000", "ledger_batch_8192"]
    assert find("nothing") == []
