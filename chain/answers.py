"""What several providers said to one question, and which of it is the same. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from chain.errors import NodeTrouble
from chain.model import Block, BlockContents

TRACE: Final = "trace:"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """What providers, by place, said to one question, and the troubles there were."""

    told: list[tuple[int, T]]
    troubles: list[NodeTrouble]

    def alike(self, key: Callable[[T], object], least: int) -> list[tuple[int, T]]:
        """Return the largest group whose *key* is the same; none if it is smaller than *least*."""
        groups: list[list[tuple[int, T]]] = []
        for place, answer in self.told:
            for group in groups:
                if key(group[0][1]) == key(answer):
                    group.append((place, answer))
                    break
            else:
                groups.append([(place, answer)])
        largest = max(groups, key=len, default=[])
        return largest if len(largest) >= least else []


def itself(answer: T) -> T:
    """Return the answer: all of it must be the same."""
    return answer


def blocks_of(run: Sequence[BlockContents]) -> list[Block]:
    """Return the blocks of a run, whatever they hold."""
    return [one.block for one in run]


def untraced(found: BlockContents) -> BlockContents:
    """Leave out what only traces show."""
    kept = tuple(move for move in found.movements if not move.position.startswith(TRACE))
    return replace(found, movements=kept, traced=False)
