"""Rules of the house that no linter knows: read from the syntax tree of every module."""

from __future__ import annotations

import ast
import configparser
import functools
import gc
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

#: Rooms that move or count money; `app` only carries settings and shows figures.
MONEY_PACKAGES = (
    "banks",
    "chain",
    "custody",
    "kernel",
    "ledger",
    "marketdata",
    "matching",
    "registry",
    "reporting",
    "risk",
    "settlement",
    "trading",
    "venues",
)
#: What may be a float: durations, and what a node's JSON-RPC says in floats.
FLOAT_NAMES = re.compile(r"(.*_)?(s|seconds|ratios|percentiles|chance|speed)")

#: Doors at which a float from outside is turned into something exact, each with its reason.
FLOAT_DOORS = {
    ("ledger/scenarios.py", "_interval"): "a duration in a story, such as 1.5h",
    ("venues/ccxt/decimal_text.py", "decimal_text"): "ccxt.pro gives floats and nothing else",
}

#: Names that stand for public halves of keys, wherever they come from.
PUBLIC_KEY_NAMES = {
    "PublicKey",
    "HDKey",
    "EmbitError",
    "p2wpkh",
    "Descriptor",
    "Transaction",
    "NETWORKS",
}
KEY_LIBRARIES = {"bitcoinlib", "coincurve", "embit", "eth_account", "eth_keyfile", "eth_keys"}
#: The signer; and play money: the simulated chain's own accounts, the demo's outside world.
PRIVATE_KEY_ROOMS = ("custody/signer/", "chain/simulators/", "app/demo/")


def modules(*packages: str) -> list[Path]:
    roots = packages or tuple(path.parent.name for path in REPOSITORY.glob("*/__init__.py"))
    return sorted(path for root in roots for path in (REPOSITORY / root).rglob("*.py"))


def trees(*packages: str) -> list[tuple[str, ast.Module]]:
    wanted, all_of_them = modules(*packages), every_tree()
    return [(str(path.relative_to(REPOSITORY)), all_of_them[path]) for path in wanted]


@functools.cache
def every_tree() -> dict[Path, ast.Module]:
    """Parse every module once, out of the collector's sight.

    It is a million objects that stay to the end of the run: the collector would go through them again and
    again while they are made, and for seconds whenever it runs afterwards.
    """
    gc.disable()
    try:
        return {path: ast.parse(path.read_text(), str(path)) for path in modules()}
    finally:
        gc.freeze()
        gc.enable()


def floats(node: ast.AST, function: str = "") -> Iterator[tuple[str, int, str]]:
    """Find conversions to float and annotations that say float: function, line, what."""
    match node:
        case ast.Call(func=ast.Name(id="float")):
            yield function, node.lineno, "float(...)"
        case ast.AnnAssign(target=ast.Name(id=name) | ast.Attribute(attr=name)):
            if says_float(node.annotation) and not FLOAT_NAMES.fullmatch(name.lower()):
                yield function, node.lineno, f"{name}: float"
        case ast.arg(arg=name, annotation=annotation):
            if says_float(annotation) and not FLOAT_NAMES.fullmatch(name):
                yield function, node.lineno, f"{name}: float"
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            function = node.name
            if says_float(node.returns) and not FLOAT_NAMES.fullmatch(function):
                yield function, node.lineno, f"{function}() -> float"
        case _:
            pass
    for child in ast.iter_child_nodes(node):
        yield from floats(child, function)


def says_float(annotation: ast.expr | None) -> bool:
    if annotation is None:
        return False
    return any(isinstance(node, ast.Name) and node.id == "float" for node in ast.walk(annotation))


def divisions(tree: ast.Module) -> Iterator[int]:
    """Find true divisions: of two integers they make a float."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            yield node.lineno


def test_money_is_never_a_float() -> None:
    found = [
        f"{path}:{line}: {what}"
        for path, tree in trees(*MONEY_PACKAGES)
        for function, line, what in floats(tree)
        if (path, function) not in FLOAT_DOORS
    ]

    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "x = float('1.5')",
        "amount: float = 1",
        "def f(amount: float) -> None: ...",
        "def f(*, price: int | float) -> None: ...",
        "def price() -> float: ...",
        "class A:\n    fees: dict[str, float]",
        "async def f(self, amounts: list[float]) -> None: ...",
    ],
)
def test_a_float_near_money_is_found(text: str) -> None:
    assert list(floats(ast.parse(text))) != []


def test_every_door_for_floats_is_still_there() -> None:
    found = {(path, function) for path, tree in trees() for function, _, _ in floats(tree)}

    assert set(FLOAT_DOORS) - found == set()


@pytest.mark.parametrize(
    "text",
    [
        "TIMEOUT_S: float = 1.5",
        "def f(timeout_seconds: float, n: int) -> int: ...",
        "def f(chance: float, replay_speed: float) -> int: ...",
        "x = 0.5",
    ],
)
def test_a_duration_may_be_a_float(text: str) -> None:
    assert list(floats(ast.parse(text))) == []


def test_pure_modules_never_divide_into_floats() -> None:
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / ".importlinter")
    names = parser["importlinter:contract:pure"]["source_modules"].split()
    paths = [name.replace(".", "/") for name in names if "*" not in name]
    found = [
        f"{path}:{line}: use // with the rounding named, or kernel.money"
        for path, tree in trees(*MONEY_PACKAGES)
        if path.endswith("model.py")
        or any(path == f"{pure}.py" or path.startswith(f"{pure}/") for pure in paths)
        for line in divisions(tree)
    ]

    assert found == []


@pytest.mark.parametrize("text", ["x = a / b", "x /= 2"])
def test_a_true_division_is_found(text: str) -> None:
    assert list(divisions(ast.parse(text))) == [1]


def test_private_halves_of_keys_are_named_only_where_money_is_signed() -> None:
    found = [
        f"{path}:{node.lineno}: {alias.name}"
        for path, tree in trees()
        if not path.startswith(PRIVATE_KEY_ROOMS)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if _library(node, alias) in KEY_LIBRARIES and alias.name not in PUBLIC_KEY_NAMES
    ]

    assert found == []


def _library(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
    name = node.module if isinstance(node, ast.ImportFrom) else alias.name
    return (name or "").partition(".")[0]


def test_the_folder_of_migrations_never_becomes_a_package() -> None:
    """An alembic/__init__.py would hide the library of the same name."""
    assert list((REPOSITORY / "alembic").rglob("__init__.py")) == []


def test_test_folders_are_no_packages() -> None:
    assert list((REPOSITORY / "tests").rglob("__init__.py")) == []


def test_every_package_says_what_it_is_for() -> None:
    silent = [
        path
        for path, tree in trees()
        if path.endswith("__init__.py") and not ast.get_docstring(tree)
    ]

    assert silent == []


def test_no_package_re_exports_what_lies_in_its_modules() -> None:
    hubs = [
        f"{path}:{node.lineno}"
        for path, tree in trees()
        if path.endswith("__init__.py") and not path.startswith("app/cli/")
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom) and _is_ours(node)
    ]

    assert hubs == []


def _is_ours(node: ast.Import | ast.ImportFrom) -> bool:
    ours = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")}
    return any(_library(node, alias) in ours for alias in node.names)


def test_no_module_is_a_drawer_for_everything() -> None:
    drawers = {"helpers", "misc", "util", "utils"}

    assert [str(path) for path in modules() if path.stem in drawers] == []


def test_every_package_is_shipped_with_its_types() -> None:
    packages = [path.parent for path in REPOSITORY.glob("*/__init__.py")]

    assert [str(path) for path in packages if not (path / "py.typed").is_file()] == []
