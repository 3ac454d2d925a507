"""Names that beancount and hledger accept, and the way back from them.

A mapping never joins two accounts or two assets: each has an inverse, and the tests hold
``inverse(name(x)) == x`` for any text.

beancount (its documentation: "Beancount Language Syntax", Accounts and Commodities):

- An account is one of five roots and then segments of letters, digits and hyphens, each beginning
  with a capital or a digit. The root follows from the path's first segment, for paths outside the
  chart from the normal side; ``income``, ``expense`` and ``equity`` are their own roots. A segment's
  first letter becomes a capital; what is not a letter, digit or hyphen becomes ``-x2E-``, the bytes of
  its UTF-8 in hex; a hyphen before an ``x`` is written so too; a segment that began with a
  capital or a mark has ``X-`` before it (and the hyphen of one that began with ``x-`` is in hex).
- A commodity has 2 to 24 capitals, digits, and ``' . _ -`` in between. Asset codes have no ``'`` and
  no ``_``: a code that is too short, ends in a mark or is a word of the language gets ``'X`` behind
  it; one that is too long is its first ten characters, ``_`` and 13 characters of its hash.

hledger takes paths and asset codes as they are; characters other than letters, digits and
``. _ : / # + -`` are percent-encoded.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote

from ledger.export.model import ExportRefused
from ledger.model import Side

_ROOTS: Final = {
    "custody": "Assets",
    "venue": "Assets",
    "bank": "Assets",
    "transit": "Assets",
    "receivable": "Assets",
    "clearing": "Assets",
    "client": "Liabilities",
    "payable": "Liabilities",
    "in-flight": "Liabilities",
    "suspense": "Liabilities",
    "conversion": "Equity",
    "equity": "Equity",
    "income": "Income",
    "house": "Income",
    "expense": "Expenses",
}
_OWN_ROOT: Final = {"equity": "Equity", "income": "Income", "expense": "Expenses"}
"""First segments that would only repeat the root: ``Income:Fee`` is ``income:fee``."""

_LENGTH_MAX: Final = 24
_PREFIX_LENGTH: Final = 10
_HASH_LENGTH: Final = 13
_LEGAL: Final = re.compile(r"[A-Z][A-Z0-9'._-]{0,22}[A-Z0-9]")
_WORDS: Final = frozenset({"TRUE", "FALSE", "NULL"})
_MADE_LEGAL: Final = "'X"
_PREFIX: Final = "X-"
_BYTES: Final = re.compile(r"(?:-x[0-9A-F]{2}-)+")
_HLEDGER_SAFE: Final = ":/#+"


def beancount_account(path: str, side: Side) -> str:
    """Return the beancount account of a path: ``client:acme`` is ``Liabilities:Client:Acme``."""
    segments = path.split(":")
    head = segments[0]
    # Collateral given is a claim, taken a debt: like whatever is not listed, it goes by its side.
    root = _ROOTS.get(head) or _root_of(side)
    if head in _OWN_ROOT and len(segments) > 1 and segments[1] not in _ROOTS:
        segments = segments[1:]
    return ":".join((root, *map(_segment, segments)))


def _root_of(side: Side) -> str:
    return "Assets" if side is Side.DEBIT else "Liabilities"


def path_of(name: str) -> str:
    """Return the path of a beancount account that `beancount_account` made."""
    root, *names = name.split(":")
    segments = [_unsegment(segment) for segment in names]
    own = next((head for head, its_root in _OWN_ROOT.items() if its_root == root), None)
    if own is not None and segments[0] not in _ROOTS:
        segments.insert(0, own)
    return ":".join(segments)


def _segment(text: str) -> str:
    escaped = "".join(
        character if _stays(text, at) else _hexed(character) for at, character in enumerate(text)
    )
    first = text[:1]
    if "a" <= first <= "z":
        return escaped[0].upper() + escaped[1:]
    return escaped if "0" <= first <= "9" else _PREFIX + escaped


def _stays(text: str, at: int) -> bool:
    """Tell whether a character is written as it is; a hyphen not where it would read as a mark."""
    character = text[at]
    if character == "-":
        return text[at + 1 : at + 2] != "x" and not (at == 1 and text[0] == "x")
    return character.isascii() and character.isalnum()


def _hexed(character: str) -> str:
    return "".join(f"-x{byte:02X}-" for byte in character.encode())


def _unsegment(name: str) -> str:
    # What stood before the prefix's rule applied never begins with an x: see `_stays`.
    if name.startswith(_PREFIX) and not name.startswith(_PREFIX + "x"):
        name = name.removeprefix(_PREFIX)
    else:
        name = name[:1].lower() + name[1:]
    return _BYTES.sub(_unhexed, name)


def _unhexed(match: re.Match[str]) -> str:
    return bytes(int(code[:2], 16) for code in match[0].split("-x")[1:]).decode()


def beancount_commodity(code: str) -> str:
    """Return the beancount commodity of an asset code."""
    if _LEGAL.fullmatch(code) and code not in _WORDS:
        return code
    if len(code) + len(_MADE_LEGAL) <= _LENGTH_MAX:
        return code + _MADE_LEGAL
    digest = base64.b32encode(hashlib.sha256(code.encode()).digest()).decode()
    return f"{code[:_PREFIX_LENGTH]}_{digest[:_HASH_LENGTH]}"


def beancount_commodities(codes: Iterable[str]) -> dict[str, str]:
    """Return the commodity of each asset code.

    Raises:
        ExportRefused: two codes have one name, which takes a collision of the hash.
    """
    names: dict[str, str] = {}
    owners: dict[str, str] = {}
    for code in sorted(codes):
        name = names[code] = beancount_commodity(code)
        if owners.setdefault(name, code) != code:
            raise ExportRefused(f"{code} and {owners[name]} would both be the commodity {name}")
    return names


def code_of(commodity: str) -> str | None:
    """Return the asset code of a commodity; None of a shortened one, whose declaration says it."""
    if "_" in commodity:
        return None
    return commodity.removesuffix(_MADE_LEGAL)


def percent(text: str, safe: str = _HLEDGER_SAFE) -> str:
    """Return *text* percent-encoded: letters, digits, ``. _ - ~`` and *safe* stay as they are."""
    return quote(text, safe=safe)


def unpercent(text: str) -> str:
    """Return what `percent` was given."""
    return unquote(text)
