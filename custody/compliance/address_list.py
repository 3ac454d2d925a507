"""A list of addresses that something speaks against: the screening that is shipped. Pure.

The list is a file::

    {"version": 3,
     "addresses": [
       {"address": "0x…", "reason": "sanctioned"},
       {"address": "0x…", "direction": "in", "chain": "evm", "reason": "stolen coins"}]}

Without a direction both ways are meant, without a chain every chain.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from custody.compliance.model import REASON_LENGTH_MAX, Answer, Direction, Question, Verdict
from kernel.errors import BadInput

NAME: Final = "list"
ADDRESSES_MAX: Final = 1_000_000
_FIELDS: Final = frozenset({"address", "direction", "chain", "reason"})


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the list.

    Attributes:
        address: compared without regard to case.
        direction: None: both ways.
        chain: None: every chain.
    """

    address: str
    reason: str
    direction: Direction | None = None
    chain: str | None = None

    def speaks_against(self, question: Question) -> bool:
        """Tell whether this line is about what is asked."""
        return (
            self.address.lower() == question.address.lower()
            and self.direction in {None, question.direction}
            and self.chain in {None, question.chain}
        )


@dataclass(frozen=True, slots=True)
class AddressList:
    """Lines under a version number; it answers at once, and never with unknown."""

    number: int
    lines: tuple[Listed, ...] = ()
    _by_address: Mapping[str, tuple[Listed, ...]] = field(
        init=False, repr=False, compare=False, hash=False
    )

    def __post_init__(self) -> None:
        if self.number < 1:
            raise BadInput(f"a list has version {self.number}; versions count from 1")
        if len(self.lines) > ADDRESSES_MAX:
            raise BadInput(f"a list has at most {ADDRESSES_MAX} addresses, not {len(self.lines)}")
        found: dict[str, tuple[Listed, ...]] = {}
        for line in self.lines:
            key = line.address.lower()
            found[key] = (*found.get(key, ()), line)
        object.__setattr__(self, "_by_address", found)

    @classmethod
    def blocking(cls, number: int, addresses: Iterable[str], reason: str = "blocked") -> Self:
        """Return a list that speaks against these addresses both ways."""
        return cls(number, tuple(Listed(address, reason) for address in sorted(addresses)))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a list.

        Raises:
            BadInput: says what cannot be read; a list that is half understood screens nobody.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            raise BadInput(f"the list of addresses is not JSON: {error}") from error
        if (
            not isinstance(document, dict)
            or set(document) != {"version", "addresses"}
            or not isinstance(document["addresses"], list)
            or not isinstance(document["version"], int)
            or isinstance(document["version"], bool)
        ):
            raise BadInput(
                "the list of addresses has other contents than a version and addresses",
                remedy='Write {"version": 1, "addresses": [{"address": "0x…", "reason": "…"}]}',
            )
        lines = tuple(
            _parse_line(number, line) for number, line in enumerate(document["addresses"], start=1)
        )
        return cls(document["version"], lines)

    @property
    def name(self) -> str:
        """Return the name under which cases show it."""
        return NAME

    async def version(self) -> str:
        """Return the version number."""
        return str(self.number)

    async def screen(self, questions: Sequence[Question]) -> Sequence[Answer]:
        """Return what the list says, one answer for each question."""
        return [self.answer(question) for question in questions]

    def answer(self, question: Question) -> Answer:
        """Return what the first line about the address says."""
        for line in self._by_address.get(question.address.lower(), ()):
            if line.speaks_against(question):
                return Answer(
                    Verdict.HIT,
                    f"{question.address} is on list version {self.number}: {line.reason}"[
                        :REASON_LENGTH_MAX
                    ],
                )
        return Answer(Verdict.CLEAR)


NOBODY_LISTED: Final = AddressList(1)
"""For houses that screen elsewhere: it has nothing against anybody."""


def _parse_line(number: int, line: Any) -> Listed:
    what = f"line {number} of the list of addresses"
    if not isinstance(line, dict) or not all(isinstance(value, str) for value in line.values()):
        raise BadInput(f"{what} is not an object of texts")
    unknown = sorted(set(line) - _FIELDS)
    if unknown:
        raise BadInput(f"{what} has the field {unknown[0]!r}")
    address, direction = line.get("address", ""), line.get("direction")
    if not address or not address.isprintable() or " " in address:
        raise BadInput(f"{what} has the address {address!r}")
    if direction is not None and direction not in set(Direction):
        raise BadInput(f"{what} has the direction {direction!r}", remedy="Write in or out, or none")
    return Listed(
        address=address,
        reason=line.get("reason", ""),
        direction=None if direction is None else Direction(direction),
        chain=line.get("chain"),
    )
