"""Every state machine of the house, found in the code, and what its documentation says.

Shared by the tests and by ``python -m tests.docs.rewrite``.
"""

from __future__ import annotations

import re
from pathlib import Path

from kernel.states import StateTable

REPOSITORY = Path(__file__).resolve().parents[2]
STATE_MACHINES = REPOSITORY / "docs" / "state-machines.md"

ARROW = re.compile(
    r"^\| (?P<letter>[a-z]{1,2}) \| (?P<edge>[^|]+→[^|]+) \| [^|]+ \| [^|]+ \|$", re.MULTILINE
)
TABLE = re.compile(r"<!-- table (?P<name>[a-z_.]+) -->\n(?P<text>.*?)<!-- end -->", re.DOTALL)


def table_text(machine: StateTable) -> str:
    """Return the table of a machine as the page has it: each state and where it may go."""
    lines = ["| state | may go to |", "|---|---|"]
    order = sorted(machine.states, key=lambda state: (state not in machine.initial, state))
    for state in order:
        after = sorted(str(b) for a, b in machine.edges if str(a) == state)
        mark = " (a row begins here)" if state in machine.initial else ""
        lines.append(f"| `{state}`{mark} | {', '.join(f'`{s}`' for s in after) or 'ends here'} |")
    return "\n".join(lines) + "\n"


def documented_tables(page: str) -> dict[str, str]:
    """Return the tables between the page's markers, by ``schema.table``."""
    return {found["name"]: found["text"] for found in TABLE.finditer(page)}


def documented_arrows(section: str) -> list[tuple[str, set[tuple[str, str]]]]:
    """Return the lettered arrows of a section: letter, and the edges it stands for."""
    arrows = []
    for found in ARROW.finditer(section):
        left, right = (
            [word.strip(" `") for word in part.split(",")] for part in found["edge"].split("→")
        )
        arrows.append((found["letter"], {(a, b) for a in left for b in right}))
    return arrows


def sections(page: str) -> dict[str, str]:
    """Return the text of each section that has a generated table, by ``schema.table``."""
    found = {}
    for text in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        for name in documented_tables(text):
            found[name] = text
    return found
