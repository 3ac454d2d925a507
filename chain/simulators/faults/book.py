"""Which rules meet a call: counted per rule, so that a script replays. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from chain.simulators.faults.model import NOTIFICATION_FAULTS, Fault, Rule, rule_json


@dataclass(slots=True)
class Tally:
    """A rule and how often it was met."""

    rule: Rule
    seen: int = 0
    struck: int = 0

    def meet(self) -> bool:
        """Count one matching call and tell whether the fault strikes it."""
        place, self.seen = self.seen - self.rule.skip, self.seen + 1
        spent = self.rule.times is not None and self.struck >= self.rule.times
        if place < 0 or place % self.rule.every or spent:
            return False
        self.struck += 1
        return True


@dataclass(slots=True)
class RuleBook:
    """The rules in force, in order, and how many calls of each method there were."""

    calls: Counter[str] = field(default_factory=Counter)
    _tallies: list[Tally] = field(default_factory=list)

    def set(self, *rules: Rule) -> None:
        """Put these rules in force instead of all others; their counts begin at zero."""
        self._tallies = [Tally(rule) for rule in rules]

    def add(self, *rules: Rule) -> None:
        """Put further rules in force, after the others."""
        self._tallies += [Tally(rule) for rule in rules]

    def clear(self) -> None:
        """Let the node behind speak for itself."""
        self._tallies = []

    def meet_call(self, method: str) -> tuple[Rule, ...]:
        """Count a call and return the rules that strike it, in order."""
        self.calls[method] += 1
        return self._meet(method, (t for t in self._tallies if not _of_notification(t)))

    def meet_notification(self, kind: str) -> tuple[Rule, ...]:
        """Count a notification of a subscription of *kind* and return the rules that strike it."""
        return self._meet(kind, (t for t in self._tallies if _of_notification(t)))

    def peek(self, fault: Fault) -> Rule | None:
        """Return the first rule with this fault, counting nothing."""
        return next((t.rule for t in self._tallies if t.rule.fault is fault), None)

    def show(self) -> dict[str, Any]:
        """Return the rules with their counts, and the calls by method, as JSON."""
        return {
            "rules": [
                {**rule_json(tally.rule), "seen": tally.seen, "struck": tally.struck}
                for tally in self._tallies
            ],
            "calls": dict(sorted(self.calls.items())),
        }

    @staticmethod
    def _meet(name: str, tallies: Iterable[Tally]) -> tuple[Rule, ...]:
        return tuple(t.rule for t in tallies if t.rule.matches(name) and t.meet())


def _of_notification(tally: Tally) -> bool:
    return tally.rule.fault in NOTIFICATION_FAULTS
