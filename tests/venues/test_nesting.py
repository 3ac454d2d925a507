"""Texts of venues that are nested without end, in a process whose recursion limit a library raised."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kernel.errors import BadInput
from venues.ccxt.instance import exact_json
from venues.nesting import NESTING_MAX, require_shallow
from venues.streams.reading import decode


@pytest.fixture(params=[1_000, 100_000], ids=["usual limit", "raised limit"])
def limit(request: pytest.FixtureRequest) -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(request.param, before))
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("limit")
@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "[" * 2_000 + "]" * 2_000],
    ids=["lists", "objects", "lists that end"],
)
@pytest.mark.parametrize(
    ("read", "refused"), [(exact_json, ValueError), (decode, BadInput)], ids=["answer", "frame"]
)
def test_a_text_without_a_bottom_is_refused(
    read: Callable[[str], Any], refused: type[Exception], text: str
) -> None:
    with pytest.raises(refused, match="JSON"):
        read(text)


def test_many_brackets_beside_each_other_are_read() -> None:
    rows = ",".join(["[1]"] * (2 * NESTING_MAX))

    require_shallow(f"[{rows}]")

    assert len(exact_json(f"[{rows}]")) == 2 * NESTING_MAX
