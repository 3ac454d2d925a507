"""Secrets kept out of what is written for others: logs, traces, what is said of an uncaught error.

Three nets, because each has holes: what is *called* a secret (a key of that name), what *looks* like one
(a password in a URL, what lets a request in), and what *is* one: every `kernel.settings.Secret` of this
process is known by its text, and that text is shown nowhere.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final
from urllib.parse import unquote, urlsplit

HIDDEN: Final = "…"
LENGTH_MIN: Final = 6
"""Shorter texts are not looked for: they are in half of all words."""
WORD_MAX: Final = 12
"""A text of letters alone is a word of the language, unless it is longer: it would hide that word everywhere."""
KNOWN_MAX: Final = 2_000
"""Secrets that are looked for; beyond it the oldest is forgotten."""
DEPTH_MAX: Final = 8
"""How deep values in values are looked at; deeper ones are not shown."""

_NAMES: Final = re.compile(
    r"(^|[_\-. ])(pass(word|wd|phrase)|secret|api[_-]?key|private[_-]?key|mnemonic|seed(_phrase)?|kek|pin"
    r"|authorization|cookie|credentials?|access[_-]?token|webhook[_-]?url)s?($|[_\-. ])",
    re.IGNORECASE,
)
_IN_URLS: Final = re.compile(
    # A bounded scheme: of a long word without an end, each letter would else be read once for each.
    r"(?P<before>[a-z][a-z0-9+.\-]{0,30}://[^\s/:@?#]*:)[^\s/@]+@",
    re.IGNORECASE,
)
_LETTING_IN: Final = re.compile(r"\b(?P<kind>Bearer|Basic)\s+[A-Za-z0-9+/=._\-]{8,}")


@dataclass(slots=True)
class KnownSecrets:
    """The texts that this process must show to nobody."""

    texts: dict[str, None] = field(default_factory=dict)
    _pattern: re.Pattern[str] | None = None

    def remember(self, text: str) -> None:
        """Keep *text* out of everything from now on; of a URL, and of several, its password as well."""
        for part in text.split() if "://" in text else [text]:
            for secret in _secrets_in(part):
                if _can_be_looked_for(secret) and secret not in self.texts:
                    self.texts[secret] = None
                    self._pattern = None
        while len(self.texts) > KNOWN_MAX:
            del self.texts[next(iter(self.texts))]

    def hide(self, text: str) -> str:
        """Return *text* without any of them."""
        if not self.texts:
            return text
        # Another thread may remember one meanwhile.
        pattern = self._pattern
        if pattern is None:
            # The longest first: one secret may be the beginning of another.
            longest = sorted(self.texts, key=len, reverse=True)
            pattern = self._pattern = re.compile("|".join(re.escape(item) for item in longest))
        return pattern.sub(HIDDEN, text)


KNOWN: Final = KnownSecrets()
"""Those of this process."""


def redact_text(text: str) -> str:
    """Return *text* without secrets: known ones, passwords in URLs, what lets a request in."""
    shown = KNOWN.hide(text)
    if "://" in shown:
        shown = _IN_URLS.sub(rf"\g<before>{HIDDEN}@", shown)
    return _LETTING_IN.sub(rf"\g<kind> {HIDDEN}", shown)


def redact(name: str, value: Any, *, depth: int = 0) -> Any:
    """Return what may be shown of the *value* that is called *name*.

    Numbers, times and None are shown whatever they are called. Other objects are left for the renderer,
    as text that was looked through.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if _NAMES.search(name) or depth > DEPTH_MAX:
        return HIDDEN
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {
            redact_text(str(key)): redact(str(key), item, depth=depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [redact("", item, depth=depth + 1) for item in value]
    return redact_text(repr(value) if isinstance(value, bytes | bytearray) else str(value))


def show_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Write what is said of an uncaught error to standard error, without secrets: an exception hook."""
    sys.stderr.write(redact_text("".join(traceback.format_exception(kind, error, trace))))


def _can_be_looked_for(secret: str) -> bool:
    return len(secret) >= LENGTH_MIN and (len(secret) > WORD_MAX or not secret.isalpha())


def _secrets_in(text: str) -> list[str]:
    """Return what is secret in a text that is one: of a URL its password, and the whole if it has more."""
    if "://" not in text:
        return [text]
    try:
        parts = urlsplit(text)
        password = parts.password
    except ValueError:
        return [text]
    found = [] if not password else [password, unquote(password)]
    # An address alone is no secret; with many services the path or the query is the key.
    if password or parts.query or parts.path.strip("/"):
        found.append(text)
    return found
