"""What is on the table while receipts are matched: what is left of each instruction, and who is free.

Pure working state of one call of `decide.match_all`; nobody else keeps one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

from settlement.matching.model import Expected, Incoming, Part, Rule, Rules, Verdict
from settlement.matching.references import looks_like_ours, names_in, normal
from trading.terms.model import Rail

GroupKey: TypeAlias = tuple[Rail, str, str]
"""Rail, asset, party."""
NAMES_PARTY: Final = "it names this, and came from another party"
NAMES_SEVERAL: Final = "it names these, and is not their sum"


class Named(NamedTuple):
    """A receipt that names something, and why that does not match by itself."""

    items: tuple[Expected, ...]
    why: str


class Board:
    """The receipts in the order in which they were seen, the instructions by value date."""

    def __init__(
        self, incoming: Iterable[Incoming], expected: Iterable[Expected], rules: Rules
    ) -> None:
        """Lay everything out; the order of the arguments does not matter."""
        self.rules = rules
        self.incoming = sorted(incoming, key=lambda item: (item.first_seen_at, item.id.int))
        self.expected = sorted(expected, key=lambda item: (item.value_date, item.id.int))
        # Keyed by the number of the id: hashing a UUID itself is what would take most of the time.
        self.left: dict[int, int] = {item.id.int: item.remaining for item in self.expected}
        self.verdicts: list[Verdict] = []
        self.blocked: dict[int, Named] = {}
        self._done: set[int] = set()

    def is_free(self, item: Incoming) -> bool:
        """Tell whether nothing was decided about a receipt yet."""
        return item.id.int not in self._done

    def is_open(self, item: Expected) -> bool:
        """Tell whether something is left of an instruction."""
        return self.left[item.id.int] > 0

    def pay(self, rule: Rule, receipt: Incoming, item: Expected) -> None:
        """Let a receipt pay one instruction: a part of it, all of it, or more."""
        self._decide(rule, [receipt], [self._part(receipt, item, receipt.value)])

    def split(self, rule: Rule, receipt: Incoming, items: Sequence[Expected]) -> None:
        """Let a receipt pay exactly what is left of several instructions."""
        parts = [
            Part(incoming=receipt.id, expected=item.id, applied=self.left[item.id.int])
            for item in items
        ]
        for item in items:
            self.left[item.id.int] = 0
        self._decide(rule, [receipt], parts)

    def combine(self, receipts: Sequence[Incoming], item: Expected) -> None:
        """Let several receipts pay exactly what is left of one instruction."""
        self.left[item.id.int] = 0
        parts = [
            Part(incoming=receipt.id, expected=item.id, applied=receipt.value)
            for receipt in receipts
        ]
        self._decide(Rule.COMBINED, receipts, parts)

    def by_reference(self) -> None:
        """Decide about every receipt that names what it pays."""
        index: dict[str, list[Expected]] = {}
        for item in self.expected:
            for text in item.references:
                index.setdefault(normal(text), []).append(item)
        if not index:
            return
        for receipt in self.incoming:
            names = names_in(receipt.end_to_end, receipt.reference)
            if names:
                self._by_names(receipt, names, index)

    def groups(self) -> list[tuple[list[Incoming], list[Expected]]]:
        """Return what may match by amount: the free receipts and open instructions of one key each."""
        waiting: dict[GroupKey, list[Incoming]] = {}
        for receipt in self.incoming:
            if receipt.party is None or receipt.id.int in self.blocked or not self.is_free(receipt):
                continue
            if self.rules.of(receipt.rail).unique_amount:
                key = (receipt.rail, receipt.asset, receipt.party)
                waiting.setdefault(key, []).append(receipt)
        awaited: dict[GroupKey, list[Expected]] = {}
        for item in self.expected:
            key = (item.rail, item.asset, item.party)
            if key in waiting and self.is_open(item):
                awaited.setdefault(key, []).append(item)
        return [(waiting[key], items) for key, items in awaited.items()]

    def _by_names(
        self, receipt: Incoming, names: list[str], index: dict[str, list[Expected]]
    ) -> None:
        items = self._named(receipt, names, index)
        if not items:
            if looks_like_ours(names):
                self.blocked[receipt.id.int] = Named((), "")
            return
        if any(receipt.party not in {None, item.party} for item in items):
            self.blocked[receipt.id.int] = Named(items, NAMES_PARTY)
        elif len(items) == 1:
            self.pay(Rule.REFERENCE, receipt, items[0])
        elif sum(self.left[item.id.int] for item in items) == receipt.value:
            self.split(Rule.REFERENCE, receipt, items)
        else:
            self.blocked[receipt.id.int] = Named(items, NAMES_SEVERAL)

    def _named(
        self, receipt: Incoming, names: list[str], index: dict[str, list[Expected]]
    ) -> tuple[Expected, ...]:
        """Return the open instructions that are named, each once."""
        found: list[Expected] = []
        for name in names:
            for item in index.get(name, ()):
                fits = item.rail is receipt.rail and item.asset == receipt.asset
                if fits and self.is_open(item) and not any(item is known for known in found):
                    found.append(item)
        return tuple(found)

    def _part(self, receipt: Incoming, item: Expected, value: int) -> Part:
        left = self.left[item.id.int]
        short = left - value
        charge = 0
        if 0 < short <= self.rules.tolerance(item.rail, item.asset, item.party):
            charge = short
        applied = min(value, left)
        self.left[item.id.int] = left - applied - charge
        return Part(
            incoming=receipt.id,
            expected=item.id,
            applied=applied,
            charge=charge,
            excess=value - applied,
        )

    def _decide(self, rule: Rule, receipts: Sequence[Incoming], parts: Sequence[Part]) -> None:
        ids = tuple(receipt.id for receipt in receipts)
        self._done.update(key.int for key in ids)
        self.verdicts.append(Verdict(incoming=ids, rule=rule, parts=tuple(parts)))
