"""What text the journal may hold: opaque tokens, no personal data, one spelling of each value.

The journal can never be changed, so nothing may enter it that somebody may one day demand to have
removed (rule 9 of the account book). A token has no blank and no ``@``, so it is no name in plain
writing and no address of a person; an IBAN is refused by its check digits. A token has neither
backslash nor control character, so a journal record never needs escaping.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from kernel.errors import BadInput

TEXT_LENGTH_MAX: Final = 200
CODE_LENGTH_MAX: Final = 64
METADATA_LENGTH_MAX: Final = 4_000
METADATA_DEPTH_MAX: Final = 8
TOKENS_REMEMBERED: Final = 65_536

_TOKEN: Final = re.compile(r"[A-Za-z0-9._:/#+-]*")
_IBAN: Final = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}")
_REMEDY: Final = (
    "Use letters, digits and . _ : / # + - only, and keep what tells who somebody is elsewhere"
)


def require_token(text: str, name: str, length_max: int = TEXT_LENGTH_MAX) -> None:
    """Refuse a text that is not an opaque token of at most *length_max* characters.

    Raises:
        BadInput: names the text and what it is for.
    """
    if len(text) > length_max:
        raise BadInput(f"a {name} has at most {length_max} characters, not {len(text)}")
    if _TOKEN.fullmatch(text) is None:
        raise BadInput(f"the {name} {text!r} is not an opaque token", remedy=_REMEDY)
    if _IBAN.fullmatch(text) is not None and is_iban(text):
        raise BadInput(f"the {name} is an IBAN, which is personal data", remedy=_REMEDY)


@lru_cache(maxsize=TOKENS_REMEMBERED)
def is_short_token(text: str) -> bool:
    """Tell whether a text is a token that is short enough for every field; quick for paths and codes."""
    return (
        len(text) <= CODE_LENGTH_MAX
        and _TOKEN.fullmatch(text) is not None
        and not (_IBAN.fullmatch(text) and is_iban(text))
    )


def is_iban(text: str) -> bool:
    """Tell whether the check digits of an IBAN are right (ISO 13616: modulo 97 of ISO 7064)."""
    digits = "".join(str(int(character, 36)) for character in text[4:] + text[:4])
    return int(digits) % 97 == 1


def canonical_metadata(metadata: Mapping[str, Any]) -> str:
    """Return *metadata* as JSON with sorted keys and no spaces, "" where there is none.

    Raises:
        BadInput: a float or another type whose text is not unique, a text that is no token, too
            long, or too deep.
    """
    if not metadata:
        return ""
    _require_plain(dict(metadata), 0)
    text = json.dumps(dict(metadata), sort_keys=True, separators=(",", ":"))
    if len(text) > METADATA_LENGTH_MAX:
        raise BadInput(f"metadata is at most {METADATA_LENGTH_MAX} characters long")
    return text


def metadata_hash(text: str) -> str:
    """Return the SHA-256 of canonical metadata in hex, "" for none: what the journal record holds."""
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def _require_plain(value: object, depth: int) -> None:
    if depth > METADATA_DEPTH_MAX:
        raise BadInput(f"metadata is at most {METADATA_DEPTH_MAX} levels deep")
    match value:
        case None | bool() | int():
            pass
        case str():
            require_token(value, "text in metadata")
        case list():
            for item in value:
                _require_plain(item, depth + 1)
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise BadInput(f"a metadata key must be text, not {key!r}")
                require_token(key, "metadata key")
                _require_plain(item, depth + 1)
        case _:
            raise BadInput(f"metadata cannot hold a {type(value).__name__}")


def require_reason(text: str) -> None:
    """Refuse a reason that no record could hold; unlike a token it may have blanks.

    Raises:
        BadInput: empty, too long, or not printable.
    """
    if not text or len(text) > TEXT_LENGTH_MAX or not text.isprintable():
        raise BadInput(f"a reason is 1 to {TEXT_LENGTH_MAX} printable characters, not {text!r}")
