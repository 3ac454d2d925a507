"""Reading a node's JSON strictly: an answer that is not exactly in form proves nothing. Pure.

Amounts are numbers with up to eight decimals, which arrive here as their digits, never as floats.
"""

from __future__ import annotations

import re
from decimal import Decimal, DecimalException
from typing import Final

from chain.bitcoin.transactions import MONEY_MAX
from chain.errors import UnreadableAnswer

DECIMALS: Final = 8
HEIGHT_MAX: Final = 2**31
SHOWN_MAX: Final = 80
"""Characters of a wrong value that an error shows: a node may send millions."""
AMOUNT_DIGITS_MAX: Final = 32
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*")


def shortened(value: object) -> str:
    """Return how an error shows what a node said."""
    if isinstance(value, str):
        return ascii(value[:SHOWN_MAX])[:SHOWN_MAX]
    return str(value)[:SHOWN_MAX] if isinstance(value, int) else f"a {type(value).__name__}"


def as_number(value: object, what: str, maximum: int = HEIGHT_MAX) -> int:
    """Return a whole number from 0 to *maximum*."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= maximum:
        raise UnreadableAnswer(f"{what} is {shortened(value)}, not a number from 0 to {maximum}")
    return value


def as_hash(value: object, what: str) -> str:
    """Return a hash: 64 lower-case hexadecimal digits."""
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise UnreadableAnswer(f"{what} is {shortened(value)}, not a hash")
    return value


def as_bytes(value: object, what: str) -> bytes:
    """Return bytes written in hexadecimal digits."""
    try:
        return bytes.fromhex(value) if isinstance(value, str) else _refuse(what)
    except ValueError:
        return _refuse(what)


def satoshi(value: object, what: str) -> int:
    """Return an amount of a node, in coins with up to eight decimals, as satoshi. Exact.

    Raises:
        UnreadableAnswer: not a number, finer than a satoshi, negative, or more than can exist.
    """
    amount = _scaled(value, what)
    if not 0 <= amount <= MONEY_MAX:
        raise UnreadableAnswer(f"{what} is {shortened(value)}, which cannot be")
    return amount


def _scaled(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise UnreadableAnswer(f"{what} is not an amount")
    if isinstance(value, str) and len(value) > AMOUNT_DIGITS_MAX:
        # More digits than are reckoned with would be rounded without a word.
        raise UnreadableAnswer(f"{what} is {shortened(value)}, which no node writes")
    try:
        scaled = Decimal(value).scaleb(DECIMALS)
        whole = int(scaled)
    except (DecimalException, ValueError, OverflowError):
        raise UnreadableAnswer(f"{what} is not an amount") from None
    if scaled != whole:
        raise UnreadableAnswer(f"{what} is {shortened(value)}, finer than a satoshi")
    return whole


def _refuse(what: str) -> bytes:
    raise UnreadableAnswer(f"{what} is not hexadecimal")
