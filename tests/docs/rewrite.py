"""Write what the documentation takes from the code: ``python -m tests.docs.rewrite``.

It rewrites the tables of docs/state-machines.md, docs/settings.md and docs/outcomes.md between their
markers, and with ``--demo`` what the README says that the demo prints. The lettered arrows are written by hand;
the tests hold them against the same tables.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from app.faults.edges import find_machines
from tests.docs.machines import STATE_MACHINES, TABLE, table_text
from tests.docs.outcomes import (
    ACCOUNT_TABLE,
    OUTCOME_TABLE,
    OUTCOMES,
    account_outcomes_text,
    outcomes_text,
)
from tests.docs.pages import DEMO, README
from tests.docs.test_readme import run_demo
from tests.docs.variables import SETTINGS, SETTINGS_TABLE, settings_text


def rewrite() -> None:
    """Bring the pages up to date."""
    machines = find_machines()

    def table(found: re.Match[str]) -> str:
        return f"<!-- table {found['name']} -->\n{table_text(machines[found['name']])}<!-- end -->"

    STATE_MACHINES.write_text(TABLE.sub(table, STATE_MACHINES.read_text()))
    text = f"<!-- settings -->\n{settings_text()}<!-- end -->"
    SETTINGS.write_text(SETTINGS_TABLE.sub(lambda _: text, SETTINGS.read_text()))
    made = f"<!-- outcomes -->\n{outcomes_text()}<!-- end -->"
    of_accounts = f"<!-- account outcomes -->\n{account_outcomes_text()}<!-- end -->"
    page = OUTCOME_TABLE.sub(lambda _: made, OUTCOMES.read_text())
    OUTCOMES.write_text(ACCOUNT_TABLE.sub(lambda _: of_accounts, page))


def rewrite_demo() -> None:
    """Run the demo and put its output into the README."""
    with tempfile.TemporaryDirectory() as folder:
        lines = [line.rstrip() for line in run_demo(Path(folder)).rstrip().splitlines()]
    text = "<!-- demo -->\n```text\n" + "\n".join(lines) + "\n```"
    README.write_text(DEMO.sub(lambda _: text, README.read_text()))


if __name__ == "__main__":
    rewrite()
    if "--demo" in sys.argv[1:]:
        rewrite_demo()
