"""Who screens for the simulated house: a list that changes during the day, and somebody who may be away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from custody.compliance.model import Answer, Question, Verdict
from kernel.errors import OutsideUnavailable


@dataclass
class Screener:
    """A provider elsewhere; it is asked all anew whenever it knows more.

    Attributes:
        listed: addresses that it has something against.
        silent: addresses of which it cannot say anything yet.
        number: by which version it answers.
        is_away: whether it answers at all.
    """

    listed: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    number: int = 1
    is_away: bool = False

    @property
    def name(self) -> str:
        """Return the provider's name."""
        return "elsewhere"

    async def version(self) -> str:
        """See `custody.compliance.ports.Screening`."""
        self._answer()
        return str(self.number)

    async def screen(self, questions: Sequence[Question]) -> Sequence[Answer]:
        """See `custody.compliance.ports.Screening`."""
        self._answer()
        return [self._about(question.address) for question in questions]

    def learn(self, listed: set[str], silent: set[str]) -> None:
        """Know something else from now on."""
        self.listed, self.silent = listed, silent
        self.number += 1

    def _answer(self) -> None:
        if self.is_away:
            raise OutsideUnavailable("nobody answers")

    def _about(self, address: str) -> Answer:
        if address in self.silent:
            return Answer(Verdict.UNKNOWN)
        if address in self.listed:
            return Answer(Verdict.HIT, "it is known to us")
        return Answer(Verdict.CLEAR)
