"""The settings as docs/settings.md lists them."""

from __future__ import annotations

import re

from kernel.settings import describe
from tests.docs.machines import REPOSITORY

SETTINGS = REPOSITORY / "docs" / "settings.md"
SETTINGS_TABLE = re.compile(r"<!-- settings -->\n(?P<text>.*?)<!-- end -->", re.DOTALL)


def settings_text() -> str:
    """Return the table of all settings, in the order of the code."""
    lines = ["| variable | default | what it is |", "|---|---|---|"]
    for variable, default, purpose in describe():
        shown = f"`{default}`" if default else "unset"
        lines.append(f"| `{variable}` | {shown} | {purpose} |")
    return "\n".join(lines) + "\n"
