"""Many in one transaction: who is refused holds up nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.workers.groups import in_groups
from kernel.errors import Refused

SIZE = 7


@given(st.lists(st.booleans(), max_size=30))
def test_all_but_the_refused_take_the_step_once_and_in_order(closed: list[bool]) -> None:
    sizes: list[int] = []

    async def step(group: Sequence[int]) -> Sequence[int]:
        sizes.append(len(group))
        if any(closed[item] for item in group):
            raise Refused(f"one of {list(group)} is closed")
        return group

    done, refused = asyncio.run(in_groups(range(len(closed)), step, size=SIZE))

    assert done == [item for item, is_closed in enumerate(closed) if not is_closed]
    assert list(refused) == [item for item, is_closed in enumerate(closed) if is_closed]
    assert all(str(no) == f"one of [{item}] is closed" for item, no in refused.items())
    assert max(sizes, default=0) <= SIZE


@given(st.lists(st.integers(0, 2 * SIZE), max_size=30))
def test_groups_weigh_no_more_than_they_may_and_are_as_large_as_that_lets_them(
    weights: list[int],
) -> None:
    groups: list[list[int]] = []

    async def step(group: Sequence[int]) -> Sequence[int]:
        groups.append([weights[item] for item in group])
        return group

    items = range(len(weights))
    done, _ = asyncio.run(in_groups(items, step, size=SIZE, weigh=weights.__getitem__))

    assert done == list(items)
    assert all(len(group) == 1 or sum(group) <= SIZE for group in groups)
    assert all(sum(one) + other[0] > SIZE for one, other in pairwise(groups))


async def test_without_a_refusal_each_group_is_one_step() -> None:
    steps = 0

    async def step(group: Sequence[int]) -> Sequence[int]:
        nonlocal steps
        steps += 1
        return group

    await in_groups(range(2 * SIZE + 1), step, size=SIZE)

    assert steps == 3
