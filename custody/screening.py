"""Does anything speak against crediting a deposit? Pure; compliance decides over what is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from custody.deposit_model import Deposit


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that speaks against a deposit, in words for whoever decides."""

    reason: str


Screen: TypeAlias = Callable[[Deposit], Finding | None]
"""Looks at a deposit that policy has confirmed; None: nothing speaks against it."""


@dataclass(frozen=True, slots=True)
class BlockedSenders:
    """A list of senders whose coins nobody is credited with, under a version number.

    Attributes:
        senders: addresses as the chain spells them; compared without regard to case.
    """

    version: int
    senders: frozenset[str]

    def __call__(self, deposit: Deposit) -> Finding | None:
        """Find a sender that is on the list."""
        if deposit.sender.lower() in {sender.lower() for sender in self.senders}:
            return Finding(f"sender {deposit.sender} is on list version {self.version}")
        return None


def nobody_blocked(deposit: Deposit) -> Finding | None:
    """Find nothing: for houses that screen elsewhere."""
    del deposit
    return None
