"""Whether the providers of a chain are at odds, and for how long already. Pure.

Two things are a dispute: a provider has another block where the books stand, or the height that a
quorum has by hash stands still below the books. Both happen for seconds whenever two blocks are
found at once, or a provider is slow. Only a dispute that lasts is news, and its end is news then,
too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from chain.model import Block, Head

DETAIL_LENGTH_MAX = 400


class News(StrEnum):
    """What is to be told about a dispute."""

    BEGUN = "ProvidersDisagree"
    ENDED = "ProvidersAgree"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How it stands between the providers of a chain.

    Attributes:
        tip_height: of the highest block that a quorum had when last asked; None when none.
        disputed_since: when the present dispute was first seen; None while there is none.
        alarmed: whether the dispute has lasted so long that people were told.
        detail: what each provider says, in words; empty while there is no dispute.
    """

    tip_height: int | None = None
    disputed_since: datetime | None = None
    alarmed: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """What the providers said when they were asked about the books' newest block.

    Attributes:
        cursor: that block.
        heads: what each provider says is its newest block.
        holders: how many have exactly the cursor's hash at its height.
        tip: the highest block of the books that a quorum has; None when there is none in reach.
    """

    cursor: Block
    heads: Sequence[Head]
    holders: int
    tip: Block | None


def find_dispute(survey: Survey, before: Agreement) -> str:
    """Return what the dispute is, in words; empty when there is none."""
    reach = sum(
        head.block is not None and head.block.height >= survey.cursor.height
        for head in survey.heads
    )
    others = reach - survey.holders
    if others > 0:
        return f"{others} of {reach} providers have another block at height {survey.cursor.height}"
    if survey.tip is None:
        return f"no quorum has any recent block below height {survey.cursor.height}"
    stuck = before.tip_height is not None and survey.tip.height <= before.tip_height
    if stuck and survey.tip.height < survey.cursor.height:
        return f"a quorum has blocks only up to height {survey.tip.height}"
    return ""


def weigh(
    survey: Survey, before: Agreement, *, now: datetime, patience: timedelta
) -> tuple[Agreement, News | None]:
    """Return how it stands now, and what is news: a dispute older than *patience*, or its end."""
    dispute = find_dispute(survey, before)
    tip_height = None if survey.tip is None else survey.tip.height
    if not dispute:
        return Agreement(tip_height), News.ENDED if before.alarmed else None
    since = before.disputed_since or now
    after = replace(
        before,
        tip_height=tip_height,
        disputed_since=since,
        detail=f"{dispute}: {_said(survey.heads)}"[:DETAIL_LENGTH_MAX],
    )
    if before.alarmed or now - since < patience:
        return after, None
    return replace(after, alarmed=True), News.BEGUN


def _said(heads: Sequence[Head]) -> str:
    return ", ".join(
        f"{head.provider} is silent"
        if head.block is None
        else f"{head.provider} is at {head.block.height} ({head.block.hash[:10]})"
        for head in heads
    )
