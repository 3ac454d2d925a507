"""What several providers said to one question, and which of it is the same. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from chain.errors import (
    BlockGone,
    IncompleteAnswer,
    NodeTrouble,
    NodeUnavailable,
    RangeTooLarge,
)
from chain.model import Block, BlockContents, BroadcastOutcome, BroadcastReport

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


def merge_reports(
    reports: Sequence[tuple[str, BroadcastReport]], *, quorum: int
) -> BroadcastReport:
    """Return what is known after several providers, named, were given the same bytes.

    ACCEPTED by one is accepted, whatever others say: the bytes are out. REJECTED needs the evidence
    of *quorum* providers and the consent of the rest that answered with evidence. All else is
    unknown: a provider that timed out may have them.
    """
    for name, report in reports:
        if report.outcome is BroadcastOutcome.ACCEPTED:
            detail = f"{name}: {report.detail}" if report.detail else name
            return BroadcastReport(BroadcastOutcome.ACCEPTED, detail)
    detail = "; ".join(f"{name}: {report.detail}" for name, report in reports)
    rejected = sum(report.outcome is BroadcastOutcome.REJECTED for _, report in reports)
    if rejected >= quorum:
        return BroadcastReport(BroadcastOutcome.REJECTED, detail)
    return BroadcastReport(BroadcastOutcome.UNKNOWN, detail or "no provider was reached")


def worst(troubles: Sequence[NodeTrouble], chain: str) -> NodeTrouble:
    """Return the trouble that tells the caller most: what it can act on comes first."""
    for kind in (RangeTooLarge, IncompleteAnswer, BlockGone):
        for trouble in troubles:
            if isinstance(trouble, kind):
                return trouble
    return troubles[-1] if troubles else NodeUnavailable(f"no provider of {chain} answers")
