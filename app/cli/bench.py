"""``causeway bench``: how fast it is on this machine, as ratios against limits and peers.

The benchmarks lie in ``bench/`` of the source tree and are not part of an installation.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import AsJson, emit, show
from kernel.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.measure import Measured, Result

COLUMNS = ("benchmark", "value", "baseline", "its value", "ratio", "goal", "met")


def register(app: typer.Typer) -> None:
    """Add this command to the program."""
    app.command()(bench)


def bench(
    name: Annotated[str, typer.Argument(help="A benchmark, or what names begin with.")] = "",
    *,
    size: Annotated[
        int | None, typer.Option(min=10_000, help="Of a benchmark that grows: how many transfers.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure speed on this machine, against a limit and peers in the same run.

    A missed goal does not change the exit code: it says as much about the machine's other work.

    Example: `causeway bench ledger`
    """
    try:
        from bench.catalogue import BENCHMARKS, find
        from bench.measure import Shared, load, machine
    except ModuleNotFoundError as error:
        raise BadInput(
            f"the benchmarks cannot be loaded: {error}",
            remedy="They are part of the source tree: run `make bench` in a checkout",
        ) from error

    chosen = find(name)
    if not chosen:
        raise BadInput(
            f"no benchmark begins with {name!r}", remedy=f"There are {', '.join(BENCHMARKS)}"
        )
    here = machine()
    found: dict[str, Measured] = {}
    with Shared(size=size) as shared:
        for known in chosen:
            typer.echo(f"measuring {known} …", err=True)
            began, before = perf_counter(), load()
            measured = BENCHMARKS[known](shared)
            around = {"took": f"{perf_counter() - began:.0f} s", "load": f"{before} to {load()}"}
            found[known] = replace(measured, conditions={**measured.conditions, **around})
    if as_json:
        emit(_document(here, found))
        return
    results = [result for measured in found.values() for result in measured.results]
    show("Benchmarks", COLUMNS, list(map(_row, results)), as_json=False, right=COLUMNS[1:2])
    for title, facts in (("machine", here), *((k, m.conditions) for k, m in found.items())):
        sys.stdout.write(f"{title}\n")
        sys.stdout.writelines(f"  {key:<10} {value}\n" for key, value in facts.items())


def _document(here: Mapping[str, str], found: Mapping[str, Measured]) -> dict[str, object]:
    versions: dict[str, str] = {}
    for measured in found.values():
        versions |= measured.versions
    conditions = {name: dict(measured.conditions) for name, measured in found.items()}
    return {
        "machine": {**here, "conditions": conditions},
        "versions": versions,
        "results": [r.to_json() for measured in found.values() for r in measured.results],
    }


def _row(result: Result) -> tuple[str, ...]:
    data = result.to_json()
    baseline = data["baseline_value"]
    return (
        result.name,
        f"{data['value']:,} {result.unit}",
        result.baseline,
        "" if baseline is None else f"{baseline:,}",
        "" if result.ratio is None else f"{result.ratio:.2f}",
        data["goal"] or "",
        "" if result.goal is None else "yes" if result.met else "NO",
    )
