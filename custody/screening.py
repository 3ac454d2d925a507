"""Does anything speak against crediting a deposit? Pure; compliance decides over what is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeAlias

from custody.deposit_model import Deposit
from kernel.errors import BadInput


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

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``{"version": 3, "senders": ["0x…"]}``.

        Raises:
            BadInput: says what cannot be read; a list that is half understood screens nobody.
        """
        try:
            document = json.loads(text)
            version, senders = document["version"], document["senders"]
            readable = isinstance(version, int) and all(isinstance(s, str) for s in senders)
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"the list of blocked senders cannot be read: {error}") from error
        if not readable or set(document) != {"version", "senders"}:
            raise BadInput(
                "the list of blocked senders has other contents than a version and senders",
                remedy='Write {"version": 1, "senders": ["0x…"]}',
            )
        return cls(version, frozenset(senders))

    def __call__(self, deposit: Deposit) -> Finding | None:
        """Find a sender that is on the list."""
        if deposit.sender.lower() in {sender.lower() for sender in self.senders}:
            return Finding(f"sender {deposit.sender} is on list version {self.version}")
        return None


def nobody_blocked(deposit: Deposit) -> Finding | None:
    """Find nothing: for houses that screen elsewhere."""
    del deposit
    return None
