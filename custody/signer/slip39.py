"""Backup of a seed as SLIP-39 shares: words on paper, of which some are needed and one tells nothing.

A scheme is ``3of5``: any three of five people. Or groups, of which some are needed: ``2; board:2of3;
office:3of5``. The shares' checksums find a word that was written wrong.
Source: SLIP-0039 (Shamir's secret-sharing for mnemonic codes); `shamir-mnemonic`, its reference code.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from shamir_mnemonic import (  # type: ignore[import-untyped]  # it ships no types
    MnemonicError,
    combine_mnemonics,
    generate_mnemonics,
)
from shamir_mnemonic.share import Share  # type: ignore[import-untyped]  # it ships no types

from kernel.errors import BadInput, Refused

SEED_BYTES: Final = 32
SHARES_MAX: Final = 16
"""SLIP-39 has four bits for the number of a member, and for that of a group."""
HOLDERS_MAX: Final = 64
WORDS: Final = 33
"""Of one share of a 256-bit seed."""
ITERATION_EXPONENT: Final = 1
ONLY_GROUP: Final = "holders"

_SIMPLE = re.compile(r"([1-9]\d?) ?of ?([1-9]\d?)")
_GROUP = re.compile(r"([a-z][a-z0-9-]{0,31}):\s*([1-9]\d?) ?of ?([1-9]\d?)")


@dataclass(frozen=True, slots=True)
class Group:
    """*threshold* of *count* people."""

    name: str
    threshold: int
    count: int


@dataclass(frozen=True, slots=True)
class Scheme:
    """*threshold* of these groups are needed."""

    threshold: int
    groups: tuple[Group, ...]

    def __str__(self) -> str:
        if len(self.groups) == 1:
            return f"{self.groups[0].threshold}of{self.groups[0].count}"
        told = [f"{group.name}:{group.threshold}of{group.count}" for group in self.groups]
        return "; ".join([str(self.threshold), *told])

    @property
    def count(self) -> int:
        """Return how many shares there are."""
        return sum(group.count for group in self.groups)


@dataclass(frozen=True, slots=True, repr=False)
class PersonalShare:
    """One person's words. Shown to that person once, and kept nowhere."""

    holder: str
    group: str
    number: int
    words: str

    def __repr__(self) -> str:
        return f"PersonalShare({self.holder!r}, {self.group!r}, {self.number}, …)"

    @property
    def check(self) -> str:
        """Return by what the share is known again; see `check_of`."""
        return check_of(self.words)


def parse_scheme(text: str) -> Scheme:
    """Read ``3of5``, or ``2; board:2of3; office:3of5``.

    Raises:
        BadInput: another form, or a scheme in which one person alone has the seed.
    """
    simple = _SIMPLE.fullmatch(text.strip())
    if simple is not None:
        return _checked(Scheme(1, (Group(ONLY_GROUP, int(simple[1]), int(simple[2])),)))
    head, *rest = (part.strip() for part in text.split(";"))
    found = [_GROUP.fullmatch(part) for part in rest]
    if not head.isascii() or not head.isdigit() or not found or None in found:
        raise BadInput(
            f"{text!r} is not a scheme of shares",
            remedy="Write 3of5, or 2; board:2of3; office:3of5",
        )
    groups = tuple(Group(one[1], int(one[2]), int(one[3])) for one in found if one is not None)
    return _checked(Scheme(int(head), groups))


def split(seed: bytes, scheme: Scheme, holders: Sequence[str]) -> tuple[PersonalShare, ...]:
    """Return a share for each of the *holders*, in the order of the scheme's groups.

    Every share has been used in a recovery of the seed before this returns.

    Raises:
        BadInput: as many holders are needed as there are shares, each of another name.
    """
    if len(seed) != SEED_BYTES:
        raise BadInput(f"shares are made of a seed of {SEED_BYTES} bytes")
    if len(holders) != scheme.count or len(set(holders)) != len(holders):
        raise BadInput(
            f"{scheme} needs {scheme.count} different holders, not {len(set(holders))}",
            remedy="Name each person who gets a share",
        )
    made = generate_mnemonics(
        scheme.threshold,
        [(group.threshold, group.count) for group in scheme.groups],
        seed,
        iteration_exponent=ITERATION_EXPONENT,
    )
    for chosen in _every_share_once(scheme, made):
        if combine_mnemonics(chosen) != seed:
            raise Refused("the shares do not give the seed back", remedy="Use none of them")
    names = iter(holders)
    return tuple(
        PersonalShare(next(names), group.name, number, words)
        for group, shares in zip(scheme.groups, made, strict=True)
        for number, words in enumerate(shares, start=1)
    )


def combine(shares: Iterable[str]) -> bytearray:
    """Return the seed that the words of enough people give.

    Raises:
        BadInput: a word or checksum is wrong, or too few, too many or mixed shares. Says nothing of
            the words.
    """
    spelled = [normalise(words) for words in shares]
    for number, words in enumerate(spelled, start=1):
        read_share(words, number)
    try:
        return bytearray(combine_mnemonics(spelled))
    except MnemonicError:
        # The library's own text quotes the words.
        raise BadInput(
            "these shares do not belong together, or are not exactly as many as are needed",
            remedy="Give the threshold's number of shares, all of one ceremony",
        ) from None


def read_share(words: str, number: int = 1) -> Share:
    """Return a share's numbers after its checksum was verified.

    Raises:
        BadInput: names the share by its *number* of order, and nothing of its content.
    """
    try:
        return Share.from_mnemonic(normalise(words))
    except MnemonicError:
        raise BadInput(
            f"share {number} is not spelled right: a word or its checksum is wrong",
            remedy="Read it word by word from the paper",
        ) from None


def check_of(words: str) -> str:
    """Return eight hexadecimal digits by which a share is known again without showing it.

    A share is 256 random bits and more, so its hash cannot be searched for.
    """
    return hashlib.sha256(b"causeway share\n" + normalise(words).encode()).hexdigest()[:8]


def normalise(words: str) -> str:
    """Return the words in lower case with single spaces."""
    return " ".join(words.lower().split())


def _checked(scheme: Scheme) -> Scheme:
    if not 1 <= scheme.threshold <= len(scheme.groups) <= SHARES_MAX:
        raise BadInput(f"{scheme.threshold} of {len(scheme.groups)} groups is not possible")
    if len({group.name for group in scheme.groups}) != len(scheme.groups):
        raise BadInput("two groups of one name")
    for group in scheme.groups:
        if not 1 <= group.threshold <= group.count <= SHARES_MAX:
            raise BadInput(f"{group.threshold} of {group.count} shares is not possible")
        if group.threshold == 1 and group.count > 1:
            raise BadInput(
                f"1 of {group.count} would be {group.count} copies of the same words",
                remedy="Ask for two or more people, or make a group of one",
            )
    if scheme.count > HOLDERS_MAX:
        raise BadInput(f"more than {HOLDERS_MAX} shares")
    if sum(sorted(group.threshold for group in scheme.groups)[: scheme.threshold]) < 2:
        raise BadInput("one person alone would have the seed", remedy="Ask for two or more people")
    return scheme


def _every_share_once(scheme: Scheme, made: list[list[str]]) -> Iterable[list[str]]:
    """Return recoveries in which each share takes part: neighbours in a ring of each group."""
    rings = [
        [
            [shares[(start + step) % group.count] for step in range(group.threshold)]
            for start in range(0, group.count, group.threshold)
        ]
        for group, shares in zip(scheme.groups, made, strict=True)
    ]
    total = len(rings)
    for start in range(total):
        chosen = [rings[(start + step) % total] for step in range(scheme.threshold)]
        longest = max(len(ring) for ring in chosen)
        for turn in range(longest):
            yield [words for ring in chosen for words in ring[turn % len(ring)]]
