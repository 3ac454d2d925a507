"""Tests that are journeys as well: they do one thing after another and say how each has to end."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection
from types import ModuleType
from typing import Any

Test = Callable[[Any], Awaitable[None]]


def stories_of(
    module: ModuleType, *needs: str, only: Collection[str] = ()
) -> list[tuple[str, str, Test]]:
    """Return (name, what it needs, test) of each test of a module that needs one of these alone.

    Args:
        module: of tests.
        needs: names of fixtures.
        only: names of the tests; all if it is empty.
    """
    found = []
    for name, test in sorted(vars(module).items()):
        wanted = name in only if only else name.startswith("test_")
        if wanted and inspect.iscoroutinefunction(test) and not hasattr(test, "pytestmark"):
            asked = list(inspect.signature(test).parameters)
            if len(asked) == 1 and asked[0] in needs:
                found.append((name.removeprefix("test_").replace("_", " "), asked[0], test))
    assert len(found) == len(only) or not only, f"{module.__name__} has not all of {only}"
    return found
