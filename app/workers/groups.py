"""Many in one transaction, unless one of them is refused: it must not hold up the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from kernel.errors import Refused

T = TypeVar("T")
R = TypeVar("R")


def _one(_item: object) -> int:
    return 1


async def in_groups(
    items: Sequence[T],
    step: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
    *,
    size: int,
    weigh: Callable[[T], int] = _one,
) -> tuple[list[R], dict[T, Refused]]:
    """Take a step with every item, a group at a time; of a group that is refused, with its halves.

    Args:
        step: a transaction of its own, which takes all of its group or none of it.
        size: what the items of a group weigh together, at most; one that weighs more is a group alone.
        weigh: what an item weighs.

    Returns:
        What the steps returned, in order; and why each of those that went through none was refused.
    """
    done: list[R] = []
    refused: dict[T, Refused] = {}
    ahead = _split(items, size, weigh)[::-1]
    while ahead:
        group = ahead.pop()
        try:
            done += await step(group)
        except Refused as no:
            if len(group) == 1:
                refused[group[0]] = no
            else:
                middle = len(group) // 2
                ahead += [group[middle:], group[:middle]]
    return done, refused


def _split(items: Sequence[T], size: int, weigh: Callable[[T], int]) -> list[Sequence[T]]:
    groups: list[Sequence[T]] = []
    start = weight = 0
    for at, item in enumerate(items):
        weight += weigh(item)
        if at > start and weight > size:
            groups.append(items[start:at])
            start, weight = at, weigh(item)
    return [*groups, items[start:]] if items else groups
