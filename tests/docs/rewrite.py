"""Write what the documentation takes from the code: ``python -m tests.docs.rewrite``.

It rewrites the tables of docs/state-machines.md and of docs/settings.md between their markers. The
lettered arrows are written by hand; the tests hold them against the same tables.
"""

from __future__ import annotations

import re

from tests.docs.machines import STATE_MACHINES, TABLE, find_machines, table_text
from tests.docs.variables import SETTINGS, SETTINGS_TABLE, settings_text


def rewrite() -> None:
    """Bring both pages up to date."""
    machines = find_machines()

    def table(found: re.Match[str]) -> str:
        return f"<!-- table {found['name']} -->\n{table_text(machines[found['name']])}<!-- end -->"

    STATE_MACHINES.write_text(TABLE.sub(table, STATE_MACHINES.read_text()))
    text = f"<!-- settings -->\n{settings_text()}<!-- end -->"
    SETTINGS.write_text(SETTINGS_TABLE.sub(lambda _: text, SETTINGS.read_text()))


if __name__ == "__main__":
    rewrite()
