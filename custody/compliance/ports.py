"""What compliance asks of the outside: somebody who knows which addresses are bad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from custody.compliance.model import Answer, Question


class Screening(Protocol):
    """Whoever screens: a list in a file (`address_list.AddressList`), or a provider elsewhere."""

    @property
    def name(self) -> str:
        """Return the provider's name, as cases show it."""
        ...

    async def version(self) -> str:
        """Return by which version of its knowledge it answers; with another one all is asked anew.

        Raises:
            OutsideUnavailable: no answer; ask again later.
        """
        ...

    async def screen(self, questions: Sequence[Question]) -> Sequence[Answer]:
        """Return one answer for each question, in their order.

        What it cannot answer is `Verdict.UNKNOWN`. It is called outside every transaction, at most
        `ASKED_AT_ONCE_MAX` questions at once, and may be asked the same again.

        Raises:
            OutsideUnavailable: no answer to any of them; ask again later.
        """
        ...
