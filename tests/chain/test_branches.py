from __future__ import annotations

from datetime import UTC, datetime

import pytest

from chain.branches import Ancestor, DeepReorg, NotLinked, find_ancestor, linked_prefix
from chain.model import Block


def block(name: str) -> Block:
    """``a3<a2`` is the block a3 at height 3 whose parent is a2."""
    own, _, parent = name.partition("<")
    return Block("evm", int(own[1:]), own, parent, datetime(2026, 1, 1, tzinfo=UTC))


def blocks(text: str) -> list[Block | None]:
    return [None if name == "-" else block(name) for name in text.split()]


def ours(text: str) -> list[Block]:
    return [found for found in blocks(text) if found is not None]


@pytest.mark.parametrize(
    ("parent", "given", "linked"),
    [
        ("a1", "a2<a1 a3<a2", "a2<a1 a3<a2"),
        (None, "a2<a1 a3<a2", "a2<a1 a3<a2"),
        ("b1", "a2<a1 a3<a2", ""),
        ("a1", "a2<a1 b3<b2 b4<b3", "a2<a1"),
        ("a1", "a2<a1 - a4<a3", "a2<a1"),
        ("a1", "-", ""),
    ],
)
def test_blocks_are_taken_as_long_as_each_names_the_one_before(
    parent: str | None, given: str, linked: str
) -> None:
    assert linked_prefix(parent, blocks(given)) == ours(linked)


@pytest.mark.parametrize(
    ("stored", "theirs", "depth_max", "decided"),
    [
        ("a3<a2 a2<a1", "a3<a2", 5, Ancestor(())),
        ("a3<a2 a2<a1", "b3<a2 a2<a1", 5, Ancestor((block("a3<a2"),))),
        (
            "a3<a2 a2<a1 a1<a0",
            "b3<b2 b2<a1 a1<a0",
            2,
            Ancestor((block("a3<a2"), block("a2<a1"))),
        ),
        ("a3<a2 a2<a1", "-", 5, NotLinked()),
        ("a3<a2 a2<a1", "b3<b2 -", 5, NotLinked()),
        ("a3<a2 a2<a1", "", 5, NotLinked()),
        ("a3<a2 a2<a1", "b3<c2 a2<a1", 5, NotLinked()),
        ("a3<a2 a2<a1", "b3<c2 b2<b1", 1, NotLinked()),
    ],
)
def test_only_a_linked_branch_of_the_node_orphans_our_blocks(
    stored: str, theirs: str, depth_max: int, decided: object
) -> None:
    assert find_ancestor(ours(stored), blocks(theirs), depth_max) == decided


def test_a_branch_that_meets_ours_too_deep_says_how_deep() -> None:
    found = find_ancestor(ours("a3<a2 a2<a1 a1<a0"), blocks("b3<b2 b2<b1 b1<b0"), 2)

    assert found == DeepReorg("a reorganisation orphans more than 2 blocks")


def test_a_branch_that_never_meets_what_was_read_says_so() -> None:
    found = find_ancestor(ours("a3<a2 a2<a1"), blocks("b3<b2 b2<b1"), 5)

    assert isinstance(found, DeepReorg)
    assert "below height 2" in found.reason
