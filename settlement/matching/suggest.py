"""What a person may look at where nothing matches by itself; the best first, never carried out. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from typing import Final
from uuid import UUID

from settlement.matching.board import Board
from settlement.matching.model import SUGGESTIONS_MAX, Expected, Incoming, Suggestion
from settlement.matching.subsets import chosen, sums
from trading.terms.model import Rail

SAME_AMOUNT: Final = "the party owes exactly this"
ANY_AMOUNT: Final = "somebody owes exactly this"
NEARLY: Final = "it is short by no more than banks may keep"
SUM: Final = "it is the sum of these"
SAME_PARTY: Final = "the party owes this"


class Suggester:
    """The open instructions of a board, as they are looked for."""

    def __init__(self, board: Board) -> None:
        """Sort what is open."""
        self._board = board
        self._sums: dict[tuple[Rail, str, str], dict[int, int]] = {}
        self._parties: dict[tuple[Rail, str, str], list[Expected]] = defaultdict(list)
        amounts: dict[tuple[Rail, str], list[tuple[int, int]]] = defaultdict(list)
        for place, item in enumerate(board.expected):
            if board.is_open(item):
                self._parties[item.rail, item.asset, item.party].append(item)
                amounts[item.rail, item.asset].append((board.left[item.id.int], place))
        self._amounts = {key: sorted(found) for key, found in amounts.items()}

    def suggest(self, receipt: Incoming) -> tuple[Suggestion, ...]:
        """Return at most `SUGGESTIONS_MAX` suggestions, none twice."""
        found: dict[tuple[UUID, ...], Suggestion] = {}
        for suggestion in self._all(receipt):
            found.setdefault(suggestion.expected, suggestion)
            if len(found) == SUGGESTIONS_MAX:
                break
        return tuple(found.values())

    def _all(self, receipt: Incoming) -> Iterator[Suggestion]:
        board = self._board
        named = board.blocked.get(receipt.id.int)
        if named is not None and named.items:
            yield Suggestion(expected=tuple(item.id for item in named.items), why=named.why)
        theirs = self._theirs(receipt)
        for item in theirs:
            if board.left[item.id.int] == receipt.value:
                yield _one(item, SAME_AMOUNT)
        yield from self._near(receipt)
        yield from self._sum(receipt, theirs)
        for item in theirs:
            yield _one(item, SAME_PARTY)

    def _theirs(self, receipt: Incoming) -> list[Expected]:
        if receipt.party is None:
            return []
        return self._parties.get((receipt.rail, receipt.asset, receipt.party), [])

    def _near(self, receipt: Incoming) -> Iterator[Suggestion]:
        """Give what is owed in this amount, then what is within the tolerance, of whatever party."""
        amounts = self._amounts.get((receipt.rail, receipt.asset), [])
        tolerance = self._board.rules.of(receipt.rail).tolerance.get(receipt.asset, 0)
        first = bisect_left(amounts, (receipt.value, -1))
        last = bisect_right(amounts, (receipt.value + tolerance, len(self._board.expected)))
        for amount, place in amounts[first : min(last, first + SUGGESTIONS_MAX)]:
            item = self._board.expected[place]
            if receipt.party in {None, item.party}:
                yield _one(item, ANY_AMOUNT if amount == receipt.value else NEARLY)

    def _sum(self, receipt: Incoming, theirs: list[Expected]) -> Iterator[Suggestion]:
        if not theirs:
            return
        key = (theirs[0].rail, theirs[0].asset, theirs[0].party)
        # Once for a party: strangers may send it as many receipts as they like.
        if key not in self._sums:
            self._sums[key] = sums([self._board.left[item.id.int] for item in theirs])
        mask = self._sums[key].get(receipt.value, 0)
        if mask:
            yield Suggestion(expected=tuple(theirs[i].id for i in chosen(mask)), why=SUM)


def _one(item: Expected, why: str) -> Suggestion:
    return Suggestion(expected=(item.id,), why=why)
