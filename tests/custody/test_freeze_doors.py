"""Every door that value passes asks the switches: read off the code, call by call."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("custody", "settlement", "trading")
SWITCHES = "custody.freezes"
ASKING = frozenset({(SWITCHES, name) for name in ("require_open", "find_freeze", "load_freezes")})

Function = tuple[str, str]
"""(module, name)."""

DOORS: dict[str, Function] = {
    "requests": ("custody.payout_requests", "request_payouts"),
    "allocation": ("custody.payout_allocate", "allocate"),
    "signing": ("custody.payout_sign", "sign"),
    "first broadcast and rebroadcast": ("custody.payout_send", "send"),
    "credits": ("custody.deposits", "advance_deposits"),
    "attributions": ("custody.attributions", "attribute"),
    "settlement releases": ("settlement.release", "release_run"),
    "settlement payments": ("settlement.release", "release_payment"),
    "book rail, accepted": ("settlement.book_rail", "accept_book"),
    "book rail, settled": ("settlement.book_rail", "settle_book"),
    "hedging orders": ("trading.hedges.hedger", "hedge_once"),
}
"""What a global freeze stops. Sweeps and rebalancing are own transfers: they pass `requests`."""

MOVERS: dict[Function, str] = {
    ("custody.payout_store", "insert_payouts"): "requests",
    ("custody.payout_postings", "reserved"): "requests",
    ("settlement.book_rail", "_hold"): "book rail, accepted",
    ("trading.hedges.decision", "plan_hedge"): "hedging orders",
}
"""What value moves by, and the door in front of it: a new caller has to be let in here."""

NOT_PAST = {
    # Only a nonce is spent, by nothing to ourselves.
    ("custody.payout_store", "insert_payout"),
    # After a restore: it was paid before, behind all doors of then, and is put back into the books.
    ("custody.restore.rebuilding", "reserve_lost"),
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """One at a time: a syntax tree of everything would burden the collector to the end of the run."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name, ast.parse(path.read_text())


def names_in(module: str, tree: ast.Module) -> dict[str, Function]:
    """What the names of a module stand for: its own functions, and what it imports."""
    found: dict[str, Function] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found[node.name] = (module, node.name)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for item in node.names:
                found[item.asname or item.name] = (node.module, item.name)
    return found


@cache
def calls() -> dict[Function, frozenset[Function]]:
    """Which functions each function mentions, found through imports and aliases."""
    known: dict[Function, frozenset[Function]] = {}
    for module, tree in modules():
        names = names_in(module, tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                known[module, node.name] = frozenset(mentioned(node, names))
        for item in tree.body:
            if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
                alias = (module, item.targets[0].id)
                known.setdefault(alias, frozenset(mentioned(item.value, names)))
    return known


def mentioned(node: ast.AST, names: dict[str, Function]) -> Iterator[Function]:
    for below in ast.walk(node):
        if isinstance(below, ast.Name) and below.id in names:
            yield names[below.id]
        elif isinstance(below, ast.Attribute) and isinstance(below.value, ast.Name):
            package, name = names.get(below.value.id, ("", ""))
            yield (f"{package}.{name}", below.attr)


def reached(start: Function) -> set[Function]:
    seen, ahead = {start}, [start]
    while ahead:
        following = calls().get(ahead.pop(), frozenset()) - seen
        seen |= following
        ahead.extend(following)
    return seen


@pytest.mark.parametrize("door", DOORS)
def test_every_door_asks_whether_it_is_frozen(door: str) -> None:
    assert DOORS[door] in calls(), f"{DOORS[door]} has another name now"
    assert reached(DOORS[door]) & ASKING


@pytest.mark.parametrize("mover", MOVERS, ids=lambda item: item[1])
def test_nothing_moves_value_past_its_door(mover: Function) -> None:
    inside = reached(DOORS[MOVERS[mover]])
    callers = {key for key, named in calls().items() if mover in named and key != mover}

    assert callers
    assert callers - inside - NOT_PAST == set()
