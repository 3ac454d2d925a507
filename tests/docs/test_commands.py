"""Every command that a page shows exists, with the options that it shows."""

from __future__ import annotations

import os
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
from click.testing import CliRunner

from app.cli import app
from tests.docs.machines import REPOSITORY
from tests.docs.pages import PAGES, commands

TARGET = re.compile(r"^([a-z]+):", re.MULTILINE)


def shown(program: str) -> list[tuple[str, str]]:
    return [(page.name, line) for page in PAGES for line in commands(page, program)]


@cache
def program() -> Any:
    """The whole tree of commands: typer makes a new one of every parameter each time it is asked."""
    return typer.main.get_command(app)


@cache
def helped(*path: str) -> tuple[int, str]:
    """How `--help` of a command ends, and what it prints."""
    answer = CliRunner(env={**os.environ, "COLUMNS": "200", "TERMINAL_WIDTH": "200"}).invoke(
        program(), [*path, "--help"]
    )
    return answer.exit_code, answer.output


def help_of(line: str) -> tuple[list[str], list[str]]:
    """The command that a line calls, and the options that it gives."""
    words = shlex.split(line)[1:]
    path: list[str] = []
    here: Any = program()
    while hasattr(here, "commands") and words and not words[0].startswith("-"):
        path.append(words.pop(0))
        assert path[-1] in here.commands, f"{line}: there is no command {' '.join(path)}"
        here = here.commands[path[-1]]
    options = [
        word.strip("[]").partition("=")[0] for word in words if word.strip("[").startswith("-")
    ]
    return path, options


def wrong(line: str) -> str:
    path, options = help_of(line)
    ended, printed = helped(*path)
    if ended != 0:
        return f"{line}: {' '.join(path)} --help ends with {ended}"
    missing = [option for option in options if option not in printed]
    return f"{line}: no option {missing}" if missing else ""


def test_every_causeway_command_on_a_page_exists() -> None:
    lines = shown("causeway")

    assert len(lines) > 10
    assert [f"{page}: {problem}" for page, line in lines if (problem := wrong(line))] == []


@pytest.mark.parametrize("line", ["causeway nothing", "causeway ledger nothing"])
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    with pytest.raises(AssertionError, match="there is no command"):
        wrong(line)


def test_an_option_that_does_not_exist_is_found() -> None:
    assert "--nothing" in wrong("causeway demo --nothing")


def test_every_make_target_on_a_page_exists() -> None:
    targets = set(TARGET.findall((REPOSITORY / "Makefile").read_text()))
    lines = shown("make")

    assert len(lines) > 4
    assert [(page, line) for page, line in lines if line.split()[1] not in targets] == []


def test_every_python_module_on_a_page_exists() -> None:
    modules = [line.split()[2] for page in PAGES for line in commands(page, "python")]

    assert modules != []
    assert [m for m in modules if not is_runnable(Path(REPOSITORY, *m.split(".")))] == []


def is_runnable(path: Path) -> bool:
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
