"""Settings, glossary, links and guarantees: what the pages say is so."""

from __future__ import annotations

import re
from pathlib import Path

from kernel.settings import describe
from tests.docs.machines import REPOSITORY
from tests.docs.pages import FENCE, PAGES
from tests.docs.variables import SETTINGS, SETTINGS_TABLE, settings_text

VARIABLE = re.compile(r"\bCAUSEWAY_[A-Z][A-Z_]*[A-Z]\b")
LINK = re.compile(r"\[[^\]]+\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
TERM = re.compile(r"^\| \*\*(?P<term>[^*]+)\*\* \| (?P<meaning>.+) \|$", re.MULTILINE)
NAMED_TEST = re.compile(r"`(?P<file>tests/[\w/]+\.py)::(?P<test>test_\w+)`")
GUARANTEE = re.compile(
    r"^\| (?P<promise>[^|]+) \| [^|]+ \| (?P<tests>[^|]+) \| [^|]+ \|$", re.MULTILINE
)


def test_the_settings_page_lists_every_setting() -> None:
    """After a change: ``python -m tests.docs.rewrite``."""
    found = SETTINGS_TABLE.search(SETTINGS.read_text())

    assert found is not None
    assert found["text"] == settings_text()


def test_every_variable_on_a_page_is_one_that_something_reads() -> None:
    settings = {variable for variable, _, _ in describe()}
    readers = [REPOSITORY / "tests" / "conftest.py", REPOSITORY / "Makefile"]
    readers += [REPOSITORY / "app" / "local" / "databases.py", REPOSITORY / ".ci" / "run"]
    readers += [REPOSITORY / "tests" / "faults" / "seeds.py"]
    for_tests = set(VARIABLE.findall("".join(path.read_text() for path in readers)))
    named = {(page.name, v) for page in PAGES for v in VARIABLE.findall(page.read_text())}

    assert {v for _, v in named} >= settings
    assert [(page, v) for page, v in sorted(named) if v not in settings | for_tests] == []


def test_the_terms_of_the_glossary_are_sorted_and_unique() -> None:
    text = (REPOSITORY / "docs" / "glossary.md").read_text()
    terms = [found["term"].lower() for found in TERM.finditer(text)]

    assert len(terms) == text.count("\n|") - 2
    assert terms == sorted(terms)
    assert len(terms) == len(set(terms))


def test_every_link_inside_the_repository_leads_somewhere() -> None:
    dead = []
    for page in PAGES:
        for found in LINK.finditer(FENCE.sub("", page.read_text())):
            target, _, anchor = found["target"].partition("#")
            if "://" in target or target.startswith("mailto:"):
                continue
            there = (page.parent / target).resolve() if target else page
            if not there.exists() or (anchor and anchor not in anchors(there)):
                dead.append((page.name, found["target"]))

    assert dead == []


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in a link, as GitHub has it."""
    titles = HEADING.findall(FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_test_that_a_guarantee_names_exists() -> None:
    text = (REPOSITORY / "GUARANTEES.md").read_text()
    named = list(NAMED_TEST.finditer(text))

    assert len(named) > 20
    missing = [found[0] for found in named if not is_there(found["file"], found["test"])]
    assert missing == []


def test_every_guarantee_names_a_test() -> None:
    text = (REPOSITORY / "GUARANTEES.md").read_text()
    rows = [row for row in GUARANTEE.finditer(text) if set(row["promise"]) - set("-| ")]
    promises = [row for row in rows if row["promise"] != "guarantee"]

    assert len(promises) > 20
    assert [row["promise"] for row in promises if not NAMED_TEST.search(row["tests"])] == []


def is_there(file: str, test: str) -> bool:
    path = REPOSITORY / file
    return path.is_file() and f"def {test}(" in path.read_text()
