"""How an instruction is named in a payment, and how the name is found again in what a bank passes on.

Pure. A reference has to survive the SEPA character set, 35 characters of ``EndToEndId`` (ISO 20022
``Max35Text``), lines that banks break anywhere, and people who type it.
"""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

PREFIX: Final = "CW"
ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: no letter that is taken for a digit. https://www.crockford.com/base32.html"""
LETTERS: Final = 16
"""80 bits: all 74 bits of an id's hash (`kernel.ids.derive_id`) are among them."""

_WORD: Final = re.compile(r"[A-Z0-9]+")
_OURS: Final = re.compile(rf"{PREFIX}[{ALPHABET}]{{{LETTERS}}}")


def reference_of(instruction_id: UUID) -> str:
    """Return the reference that a payment of the instruction should carry: 18 characters."""
    number, letters = instruction_id.int & ((1 << 5 * LETTERS) - 1), []
    for _ in range(LETTERS):
        number, digit = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[digit])
    return PREFIX + "".join(reversed(letters))


def normal(text: str) -> str:
    """Return a reference as it is compared: letters and digits, in capitals."""
    upper = text.upper()
    return upper if upper.isascii() and upper.isalnum() else "".join(_WORD.findall(upper))


def names_in(*texts: str) -> list[str]:
    """Return what the texts may name, normal and each once: words, whole texts, references of ours.

    A reference of ours is found across blanks, hyphens and the ends of lines.
    """
    found: dict[str, None] = {}
    for text in texts:
        if not text:
            continue
        words = _WORD.findall(text.upper())
        whole = "".join(words)
        found.update(dict.fromkeys(words))
        found[whole] = None
        if PREFIX in whole:
            found.update(dict.fromkeys(_OURS.findall(whole)))
    return list(found)


def looks_like_ours(names: list[str]) -> bool:
    """Tell whether one of *names* has the form of a reference of ours."""
    return any(_OURS.fullmatch(name) for name in names)
