"""Reading the results of a chain. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ledger.model import PostResult
from ledger.outcome import Outcome


def failing_member(results: Iterable[PostResult]) -> PostResult | None:
    """Return the result of the member that failed by itself, None where all was applied."""
    refused = [result for result in results if not result.applied]
    own = [r for r in refused if r.outcome is not Outcome.LINKED_EVENT_FAILED] or refused
    return own[0] if own else None


def first_refusal(results: Iterable[PostResult]) -> Outcome | None:
    """Return why a chain was refused: the outcome of the member that failed by itself.

    With an id that was spent before, that is the outcome that spent it. None where all was applied.
    """
    failed = failing_member(results)
    return None if failed is None else failed.first or failed.outcome
