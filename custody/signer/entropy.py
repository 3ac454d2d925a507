"""Where a seed comes from: the operating system's randomness, with people's dice mixed in. Pure.

Mixing by HMAC is safe both ways: the seed cannot be guessed as long as either of the two cannot.
What people bring is checked for length and for being random at all; no test can show that it is.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable
from typing import Final

from kernel.errors import BadInput, Refused

SEED_BYTES: Final = 32
DICE_MIN: Final = 100
"""Rolls of a die with six faces: 258 bits."""
HEX_MIN: Final = 64
BROUGHT_MAX: Final = 4_096
CHI_SQUARE_MAX: Final = {6: 31, 16: 50}
"""By the number of faces; an honest source is above it once in 100,000 times."""
SAME_PERCENT_MAX: Final = 60
"""Of the symbols may equal the one some places before: more is a pattern."""

DICE: Final = "123456"
HEX: Final = "0123456789abcdef"


def make_seed(random: Callable[[int], bytes], brought: str = "") -> bytes:
    """Return 32 bytes from *random*, mixed with what people have *brought*.

    Args:
        random: the operating system's source, such as `secrets.token_bytes`.
        brought: rolls of dice (digits 1 to 6), or hexadecimal digits from another machine.

    Raises:
        BadInput: *brought* is too short, or visibly not random.
        Refused: the operating system's source is broken.
    """
    mixed = check_brought(brought) if brought else ""
    first, second = random(SEED_BYTES), random(SEED_BYTES)
    if first == second or len(set(first)) == 1 or len(first) != SEED_BYTES:
        raise Refused("the operating system's randomness repeats itself", remedy="Do not go on")
    told = f"causeway seed\n{len(mixed)}\n{mixed}".encode()
    return hmac.digest(first + second, told, "sha512")[:SEED_BYTES]


def check_brought(text: str) -> str:
    """Return the symbols of *text* without spaces, if they may be random.

    Raises:
        BadInput: says what is wrong, and quotes nothing.
    """
    symbols = "".join(text.lower().split())
    if len(symbols) > BROUGHT_MAX:
        raise BadInput(f"more than {BROUGHT_MAX} symbols")
    faces = DICE if set(symbols) <= set(DICE) else HEX
    if not set(symbols) <= set(HEX):
        raise BadInput(
            "neither rolls of a die nor hexadecimal",
            remedy="Write the digits 1 to 6, one for each roll, or hexadecimal digits",
        )
    needed = DICE_MIN if faces is DICE else HEX_MIN
    if len(symbols) < needed:
        raise BadInput(f"{len(symbols)} symbols are too few; {needed} are needed")
    if is_uneven(symbols, faces) or has_pattern(symbols):
        raise BadInput("this is not random", remedy="Roll the dice, and write every roll down")
    return symbols


def is_uneven(symbols: str, faces: str) -> bool:
    """Tell whether the counts of the *faces* are too far from equal (Pearson's chi-square)."""
    counts, size = Counter(symbols), len(symbols)
    # The sum of (count - size/faces)**2 / (size/faces), multiplied until it is a whole number.
    squares = sum((counts[face] * len(faces) - size) ** 2 for face in faces)
    return squares > CHI_SQUARE_MAX[len(faces)] * size * len(faces)


def has_pattern(symbols: str) -> bool:
    """Tell whether the symbols repeat themselves at some distance."""
    for lag in range(1, len(symbols) // 2 + 1):
        same = sum(map(str.__eq__, symbols, symbols[lag:]))
        if 100 * same > SAME_PERCENT_MAX * (len(symbols) - lag):
            return True
    return False
