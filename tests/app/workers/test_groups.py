"""Many in one transaction: who is refused holds up nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

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


async def test_without_a_refusal_each_group_is_one_step() -> None:
    steps = 0

    async def step(group: Sequence[int]) -> Sequence[int]:
        nonlocal steps
        steps += 1
        return group

    await in_groups(range(2 * SIZE + 1), step, size=SIZE)

    assert steps == 3
