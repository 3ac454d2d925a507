"""The import contracts hold, and each of them bites: a wrong import is named with its line."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LINT = Path(sys.executable).with_name("lint-imports")


def contracts() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / ".importlinter")
    return parser


def root_packages() -> list[str]:
    return contracts()["importlinter"]["root_packages"].split()


def top_level_packages() -> list[str]:
    folders = [path.parent.name for path in REPOSITORY.glob("*/__init__.py")]
    return sorted(name for name in folders if name not in {"tests", "bench"})


def lint(tree: Path) -> tuple[int, str]:
    answer = subprocess.run(
        [str(LINT), "--no-logo", "--no-cache"],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", "NO_COLOR": "1"},
    )
    return answer.returncode, answer.stdout + answer.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the house that may be spoiled."""
    copy = tmp_path_factory.mktemp("house")
    for package in root_packages():
        shutil.copytree(
            REPOSITORY / package,
            copy / package,
            ignore=lambda _, names: [name for name in names if name == "__pycache__"],
        )
    shutil.copy(REPOSITORY / ".importlinter", copy)
    return copy


@contextmanager
def extra_line(module: Path, line: str) -> Iterator[int]:
    """Append a line to a module (made if absent) and take it back; give its number."""
    before = module.read_text() if module.exists() else None
    text = (before or "").rstrip("\n") + "\n"
    module.write_text(text + line + "\n")
    try:
        yield text.count("\n") + 1
    finally:
        if before is None:
            module.unlink()
        else:
            module.write_text(before)


def test_every_contract_is_kept() -> None:
    code, said = lint(REPOSITORY)

    assert code == 0, said


WRONG = {
    "a chain module that posts": ("chain/ports.py", "import ledger.posting", "2 Banks, chain"),
    "a venue that posts": ("venues/ports.py", "from ledger import posting", "2 Banks, chain"),
    "the ledger looking up": ("ledger/errors.py", "import custody.errors", "1 Floors"),
    "the kernel looking up": ("kernel/errors.py", "import registry.model", "1 Floors"),
    "a chain knowing venues": ("chain/errors.py", "import venues.model", "1 Floors"),
    "settlement reading reports": ("settlement/errors.py", "import reporting.model", "1 Floors"),
    "risk looking at what trading does": (
        "risk/errors.py",
        "import trading.model",
        "3 Risk decides",
    ),
    "somebody writing SQL on another's tables": (
        "custody/errors.py",
        "from ledger import tables",
        "4 Tables and stores are private to ledger",
    ),
    "somebody using another's store": (
        "settlement/errors.py",
        "import chain.store",
        "4 Tables and stores are private to chain",
    ),
    "a model that does I/O": ("ledger/model.py", "import asyncio", "5 Models, decisions"),
    "a decision that asks the clock": ("ledger/decide.py", "import time", "5 Models, decisions"),
    "an order book that rolls dice": ("matching/book.py", "import random", "5 Models, decisions"),
    "netting that reads the database": (
        "settlement/netting/bilateral.py",
        "import sqlalchemy",
        "5 Models, decisions",
    ),
    "a desk that signs": ("trading/__init__.py", "import eth_account", "6 Only custody.signer"),
    "custody that signs": ("custody/errors.py", "import coincurve", "6 Only custody.signer"),
    "the command line opening the keystore": (
        "app/cli/__init__.py",
        "import custody.signer.keystore",
        "6 The rooms of the signer",
    ),
}


@pytest.mark.parametrize(("module", "line", "contract"), WRONG.values(), ids=WRONG)
def test_a_wrong_import_breaks_its_contract_and_is_named_with_its_line(
    tree: Path, module: str, line: str, contract: str
) -> None:
    with extra_line(tree / module, line) as number:
        code, said = lint(tree)

    assert code == 1
    assert re.search(rf"^{re.escape(contract)}.* BROKEN", said, re.MULTILINE), said
    name = module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    assert re.search(rf"{re.escape(name)} -> \S+ \((?:l\.\d+, )*l\.{number}\)", said), said


def test_every_package_of_the_house_is_under_contract() -> None:
    assert sorted(root_packages()) == top_level_packages()


def modules_named(*endings: str) -> set[str]:
    found = set()
    for package in root_packages():
        for path in (REPOSITORY / package).rglob("*.py"):
            if path.stem.endswith(endings):
                found.add(".".join(path.relative_to(REPOSITORY).with_suffix("").parts))
    return found


def test_every_private_module_is_under_contract_by_its_name() -> None:
    listed = {
        module
        for section in contracts().sections()
        if section.startswith("importlinter:contract:private-")
        for module in contracts()[section]["protected_modules"].split()
    }

    private = modules_named("tables", "store") - modules_named("keystore", "restore")
    assert sorted(private - listed) == [], "list them in .importlinter, under their package"


def test_every_model_is_under_contract_by_its_name() -> None:
    listed = set(contracts()["importlinter:contract:pure"]["source_modules"].split())

    unlisted = sorted(modules_named("_model") - listed)
    assert unlisted == [], "list them in .importlinter, in the contract `pure`"


def test_every_module_a_contract_names_exists() -> None:
    """A contract about a module that was renamed would hold for ever and mean nothing."""
    missing = []
    for section in contracts().sections():
        names = contracts()[section].get("source_modules", "").split()
        names += contracts()[section].get("protected_modules", "").split()
        for name in names:
            path = REPOSITORY / name.replace(".", "/")
            if "*" not in name and not (path.is_dir() or path.with_suffix(".py").is_file()):
                missing.append(f"{section}: {name}")

    assert missing == []
