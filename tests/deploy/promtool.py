"""promtool, and the questions that are put to it: what fires, given what was scraped before and after."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.deploy.house_at_fault import Series

REPOSITORY: Final = Path(__file__).resolve().parents[2]
RULES: Final = REPOSITORY / "deploy" / "prometheus" / "alerts.yml"
FETCHED: Final = REPOSITORY / ".cache" / "prometheus" / "promtool"
REQUIRED: Final = "CAUSEWAY_REQUIRE_PROMTOOL"
METRIC: Final = re.compile(r"\b(?:causeway_\w+|up)\b")
SAMPLES: Final = 50
"""Scrapes before a fault, and after it, one a minute."""
BEFORE: Final = "45m"
AFTER: Final = "70m"
"""Long enough for every ``for`` of a rule, short enough for a rate over half an hour."""


def find_promtool() -> str:
    """Return the program; skip the test where there is none and nobody demands it."""
    found = str(FETCHED) if FETCHED.is_file() else shutil.which("promtool")
    if found is None:
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"there is no promtool, and {REQUIRED}=1: run scripts/fetch-promtool")
        pytest.skip("there is no promtool: run scripts/fetch-promtool")
    return found


def promtool(*arguments: str) -> tuple[int, str]:
    """Run it; return how it ended and what it said."""
    answer = subprocess.run(
        [find_promtool(), *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    return answer.returncode, answer.stdout + answer.stderr


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert rule."""

    name: str
    expr: str
    severity: str
    annotations: Mapping[str, str]

    @property
    def metrics(self) -> frozenset[str]:
        """Return the names of the metrics that it reads."""
        return frozenset(METRIC.findall(self.expr))


def read_rules() -> list[Rule]:
    """Return every alert rule of the file."""
    document = yaml.safe_load(RULES.read_text())
    return [
        Rule(item["alert"], item["expr"], item["labels"]["severity"], item["annotations"])
        for group in document["groups"]
        for item in group["rules"]
    ]


def question(
    name: str, before: Series, after: Series, *, fires: Collection[str], of: Iterable[Rule]
) -> dict[str, Any]:
    """Return a test group of promtool: none of the rules fires before, these do after."""
    asked = list(of)
    metrics = frozenset().union(*(rule.metrics for rule in asked))
    wanted = "|".join(sorted(rule.name for rule in asked))
    firing = f'group by (alertname) (ALERTS{{alertstate="firing", alertname=~"{wanted}"}})'
    return {
        "name": name,
        "interval": "1m",
        "input_series": [
            {"series": series_of(key), "values": f"{_values(before, key)} {_values(after, key)}"}
            for key in sorted({*before, *after})
            if key[0] in metrics
        ],
        "promql_expr_test": [
            {"expr": firing, "eval_time": BEFORE, "exp_samples": []},
            {
                "expr": firing,
                "eval_time": AFTER,
                "exp_samples": [
                    {"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(fires)
                ],
            },
        ],
    }


def ask(folder: Path, questions: Sequence[Mapping[str, Any]]) -> tuple[int, str]:
    """Let promtool answer; return how it ended and what it said."""
    path = folder / "questions.yml"
    path.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(RULES)],
                "evaluation_interval": "5m",
                "tests": list(questions),
            }
        )
    )
    return promtool("test", "rules", str(path))


def series_of(key: tuple[str, tuple[tuple[str, str], ...]]) -> str:
    """Return a series as PromQL writes it."""
    name, labels = key
    escaped = (
        f'{label}="{value.replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34))}"'
        for label, value in labels
    )
    return f"{name}{{{', '.join(escaped)}}}"


def _values(scraped: Series, key: tuple[str, tuple[tuple[str, str], ...]]) -> str:
    if key not in scraped:
        return f"_x{SAMPLES}"
    return f"{scraped[key]!r}x{SAMPLES - 1}"
