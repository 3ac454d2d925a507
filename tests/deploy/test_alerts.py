"""The alert rules: each fires by the fault that it is there for, and not before; each has its page."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database
from app.service_levels import metric_names
from tests.custody.payout_world import make_world
from tests.deploy.house_at_fault import FAULTS, SHARED, Series, at_fault
from tests.deploy.promtool import (
    REPOSITORY,
    REQUIRED,
    RULES,
    ask,
    find_promtool,
    promtool,
    question,
    read_rules,
)

SEVERITIES = {"page", "ticket", "info"}
HEADINGS = ("## What it means", "## Look", "## Do")


def test_the_rules_are_rules() -> None:
    ended, said = promtool("check", "rules", str(RULES))

    assert ended == 0, said


def test_every_rule_says_how_bad_it_is_and_which_page_helps() -> None:
    for rule in read_rules():
        page = REPOSITORY / rule.annotations["runbook"]
        assert rule.severity in SEVERITIES, rule.name
        assert rule.annotations["summary"], rule.name
        assert page.parent == REPOSITORY / "docs" / "runbooks", rule.name
        assert f"`{rule.name}`" in page.read_text(), f"{page.name} does not speak of {rule.name}"


def test_every_page_of_the_runbooks_says_what_it_means_where_to_look_and_what_to_do() -> None:
    pages = sorted((REPOSITORY / "docs" / "runbooks").glob("*.md"))
    used = {rule.annotations["runbook"] for rule in read_rules()}

    assert {f"docs/runbooks/{page.name}" for page in pages} == used
    for page in pages:
        assert [line for line in HEADINGS if line not in page.read_text()] == [], page.name
        assert re.search(r"^\$ causeway ", page.read_text(), re.MULTILINE), page.name


def test_every_alert_has_a_fault_that_makes_it_fire() -> None:
    names = [fault.alert for fault in FAULTS]

    assert len(names) == len(set(names))
    assert {*names, *SHARED} == {rule.name for rule in read_rules()}


async def test_each_alert_fires_by_its_fault_and_not_before(
    engine: AsyncEngine,
    owner_engine: AsyncEngine,
    database: Database,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    find_promtool()
    rules = {rule.name: rule for rule in read_rules()}
    questions: list[dict[str, Any]] = []
    seen: set[str] = set()
    async with (
        make_world(engine, tmp_path) as world,
        at_fault(world, owner_engine, database.app_url, tmp_path / "proofs") as house,
    ):
        before = well = await house.scrape()
        for fault in FAULTS:
            await fault.happen(house)
            after = await house.scrape()
            fires = {fault.alert, *(one for one, by in SHARED.items() if by == fault.alert)}
            asked = [rules[name] for name in fires]
            questions.append(question(fault.alert, before, after, fires=fires, of=asked))
            before = after
            seen |= names_of(after)
    questions.append(question("a house that is well", well, well, fires=(), of=rules.values()))

    ended, said = ask(tmp_path, questions)

    assert ended == 0, said
    exported = {name for rule in rules.values() for name in rule.metrics} - {"up"}
    assert exported - seen == set(), "no house has told these"
    record_property("counts", f"{len(rules)} alerts, each by its fault: {len(FAULTS)} faults")


def test_an_alert_that_does_not_fire_is_found(tmp_path: Path) -> None:
    """The questions can fail: a fault after which nothing is different answers with no alert."""
    (rule,) = [one for one in read_rules() if one.name == "JobDead"]
    quiet: Series = {("causeway_jobs_dead", ()): 0.0}

    ended, said = ask(tmp_path, [question("quiet", quiet, quiet, fires={rule.name}, of=[rule])])

    assert ended != 0
    assert "JobDead" in said


def names_of(series: Series) -> set[str]:
    return {name for name, _ in series}


def test_every_metric_of_a_rule_is_one_that_a_house_tells() -> None:
    process = (REPOSITORY / "app" / "vitals.py").read_text()
    process += (REPOSITORY / "app" / "health.py").read_text()
    process += (REPOSITORY / "app" / "metrics.py").read_text()
    told = metric_names() | set(re.findall(r"causeway_\w+", process))
    told |= {"up", "causeway_posting_seconds_bucket"}
    asked = {name for rule in read_rules() for name in rule.metrics}

    assert asked - told == set()


def test_every_metric_is_explained_on_the_page_of_operations() -> None:
    page = (REPOSITORY / "docs" / "operations.md").read_text()

    assert sorted(name for name in metric_names() if f"`{name}`" not in page) == []


@pytest.mark.parametrize("rule", read_rules(), ids=lambda rule: str(rule.name))
def test_every_command_that_an_alert_names_is_in_quotes(rule: Any) -> None:
    text = f"{rule.annotations['summary']} {rule.annotations['description']}"

    assert text.count("`") % 2 == 0
    assert ("causeway " in text) == ("`causeway " in text)


def test_promtool_may_be_absent_unless_it_is_demanded(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    (tmp_path / "scripts").mkdir()
    programs.mkdir()
    script = shutil.copy(REPOSITORY / "scripts" / "fetch-promtool", tmp_path / "scripts")
    for name in ("dirname", "rm", "mkdir"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)

    answers = [
        subprocess.run(
            ["/bin/sh", str(script)],
            env={"PATH": str(programs), **demand},
            capture_output=True,
            text=True,
            check=False,
        )
        for demand in ({}, {REQUIRED: "1"})
    ]

    assert [answer.returncode for answer in answers] == [0, 3]
    assert "are skipped" in answers[0].stderr
    assert f"{REQUIRED}=1 demands it" in answers[1].stderr
