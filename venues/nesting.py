"""How deeply nested a JSON text may be before the standard library reads it.

That reader recurses on the C stack, and only the interpreter's recursion limit stops it. Libraries raise
the limit for the whole process (py_ecc, to 100,000); a hostile text then ends it without an exception.
"""

from __future__ import annotations

from typing import Final

import orjson

NESTING_MAX: Final = 500
"""No more brackets than this are read at once without another look: they cannot be nested too deeply."""


def require_shallow(text: str) -> None:
    """Return if *text* can be read without harm; orjson has a depth of its own, 1,024.

    Raises:
        ValueError: it is nested more deeply, or many brackets are no JSON.
    """
    if text.count("[") + text.count("{") <= NESTING_MAX:
        return
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError("the JSON is nested too deeply, or is none") from error
