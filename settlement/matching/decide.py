"""What arrived against what is awaited: the whole decision, pure, deterministic, without a guess.

The rules are tried in the order of `model.Rule`. A rule takes only what fits in one way: where two
receipts or two instructions would do as well, neither is taken, and a person gets the suggestions. So
the answer depends neither on the order of the input nor on what ids happen to be.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Final, TypeVar
from uuid import UUID

from settlement.matching.board import Board
from settlement.matching.model import Expected, Incoming, Rule, Rules, Verdict
from settlement.matching.subsets import chosen, sums
from settlement.matching.suggest import Suggester

ROUNDS_MAX: Final = 32

T = TypeVar("T", Incoming, Expected)


def match_all(
    incoming: Iterable[Incoming], expected: Iterable[Expected], rules: Rules
) -> list[Verdict]:
    """Return one verdict for every receipt, matched together or left to people.

    Args:
        incoming: what waits; each once.
        expected: what is awaited, each with something left.
        rules: tolerances, and where an amount may match by itself.

    Returns:
        Matches in the order in which they were found, then what does not match, as it was seen.
    """
    board = _matched(incoming, expected, rules)
    suggester = Suggester(board)
    unmatched = [
        Verdict(incoming=(receipt.id,), suggestions=suggester.suggest(receipt))
        for receipt in board.incoming
        if board.is_free(receipt)
    ]
    return board.verdicts + unmatched


def find_matches(
    incoming: Iterable[Incoming], expected: Iterable[Expected], rules: Rules
) -> list[Verdict]:
    """Return the matches alone, as `match_all` finds them; nothing is suggested about the rest."""
    return _matched(incoming, expected, rules).verdicts


def _matched(incoming: Iterable[Incoming], expected: Iterable[Expected], rules: Rules) -> Board:
    board = Board(incoming, expected, rules)
    board.by_reference()
    for receipts, items in board.groups():
        _by_amount(board, receipts, items)
    return board


def _by_amount(board: Board, receipts: list[Incoming], items: list[Expected]) -> None:
    """Try the rules on one party's receipts and instructions until none of them finds anything.

    At most `ROUNDS_MAX` times: a party whose amounts were made so that each match opens just one more
    is not worth more, and what is left is tried again when it is matched the next time.
    """
    for _ in range(ROUNDS_MAX):
        if not receipts or not items:
            return
        taken = (
            _exact(board, receipts, items)
            or _within_tolerance(board, receipts, items)
            or _split(board, receipts, items)
            or _combined(board, receipts, items)
            or _sole(board, receipts, items)
        )
        if not taken:
            return
        receipts = [receipt for receipt in receipts if board.is_free(receipt)]
        items = [item for item in items if board.is_open(item)]


def _exact(board: Board, receipts: Sequence[Incoming], items: Sequence[Expected]) -> bool:
    by_value: dict[int, list[Incoming]] = defaultdict(list)
    for receipt in receipts:
        by_value[receipt.value].append(receipt)
    by_left: dict[int, list[Expected]] = defaultdict(list)
    for item in items:
        by_left[board.left[item.id.int]].append(item)
    pairs = [
        (by_value[value][0], by_left[value][0])
        for value in by_value.keys() & by_left.keys()
        if len(by_value[value]) == len(by_left[value]) == 1
    ]
    for receipt, item in sorted(pairs, key=lambda pair: (pair[0].first_seen_at, pair[0].id.int)):
        board.pay(Rule.EXACT, receipt, item)
    return bool(pairs)


def _within_tolerance(
    board: Board, receipts: Sequence[Incoming], items: Sequence[Expected]
) -> bool:
    # One group is one rail, asset and party.
    tolerance = board.rules.tolerance(items[0].rail, items[0].asset, items[0].party)
    if not tolerance:
        return False
    ordered = sorted(items, key=lambda item: board.left[item.id.int])
    lefts = [board.left[item.id.int] for item in ordered]
    exact, claims = set(lefts), defaultdict(list)
    for receipt in receipts:
        if receipt.value in exact:
            continue
        first = bisect_right(lefts, receipt.value)
        if bisect_right(lefts, receipt.value + tolerance) - first == 1:
            claims[first].append(receipt)
    pairs = [(claimed[0], ordered[place]) for place, claimed in claims.items() if len(claimed) == 1]
    for receipt, item in sorted(pairs, key=lambda pair: (pair[0].first_seen_at, pair[0].id.int)):
        board.pay(Rule.TOLERANCE, receipt, item)
    return bool(pairs)


def _split(board: Board, receipts: Sequence[Incoming], items: Sequence[Expected]) -> bool:
    days = _by_day(items)
    tables = {
        day: sums([board.left[item.id.int] for item in of_day]) for day, of_day in days.items()
    }
    taken = {board.left[item.id.int] for item in items}
    claims = {
        receipt.id: _only_choice(days, tables, receipt.value)
        for receipt in receipts
        if receipt.value not in taken
    }
    alone = _apart(claims)
    for receipt in receipts:
        if receipt.id in alone:
            board.split(Rule.SPLIT, receipt, claims[receipt.id])
    return bool(alone)


def _combined(board: Board, receipts: Sequence[Incoming], items: Sequence[Expected]) -> bool:
    days = _by_day(receipts)
    tables = {day: sums([receipt.value for receipt in of_day]) for day, of_day in days.items()}
    taken = {receipt.value for receipt in receipts}
    claims = {
        item.id: _only_choice(days, tables, board.left[item.id.int])
        for item in items
        if board.left[item.id.int] not in taken
    }
    alone = _apart(claims)
    for item in items:
        if item.id in alone:
            board.combine(claims[item.id], item)
    return bool(alone)


def _sole(board: Board, receipts: Sequence[Incoming], items: Sequence[Expected]) -> bool:
    if len(items) != 1:
        return False
    item, found = items[0], False
    if sum(receipt.value >= board.left[item.id.int] for receipt in receipts) > 1:
        # Each of them would pay it: which one was meant, and which is too much, a person says.
        return False
    for receipt in receipts:
        if board.is_open(item):
            board.pay(Rule.SOLE, receipt, item)
            found = True
    return found


def _by_day(items: Sequence[T]) -> dict[date, list[T]]:
    days: dict[date, list[T]] = defaultdict(list)
    for item in items:
        days[item.value_date].append(item)
    return days


def _only_choice(
    days: Mapping[date, Sequence[T]], tables: Mapping[date, Mapping[int, int]], total: int
) -> tuple[T, ...]:
    """Return the items of one day that add up to *total*, if there is one such choice; else none."""
    masks = [(day, table[total]) for day, table in tables.items() if total in table]
    if len(masks) != 1:
        return ()
    day, mask = masks[0]
    return tuple(days[day][place] for place in chosen(mask))


def _apart(claims: Mapping[UUID, Sequence[T]]) -> set[UUID]:
    """Return the claims of which no item is claimed by another one too."""
    claimed: dict[UUID, int] = defaultdict(int)
    for items in claims.values():
        for item in items:
            claimed[item.id] += 1
    return {
        key for key, items in claims.items() if items and all(claimed[i.id] == 1 for i in items)
    }
