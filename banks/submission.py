"""Handing a payment file to a bank: one door, and three things that it can say.

Whoever hands over never raises for trouble outside: no answer, a broken connection, an error of the
other side, an answer that cannot be read are all `UNKNOWN`, and the same bytes go again. The name of a
file is its message id, so a bank tells a second copy by its name, its MsgId and its EndToEndIds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Outcome(StrEnum):
    """What is known after a file was handed over."""

    TAKEN = "taken"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    """This copy was not taken, as the door says itself. An earlier copy may have been."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What the door said; *detail* in words, for people."""

    outcome: Outcome
    detail: str = ""


class BankGateway(Protocol):
    """The door of a bank."""

    async def submit(self, name: str, content: bytes) -> Submission:
        """Hand *content* over under *name*; the same again has no second effect."""
        ...
