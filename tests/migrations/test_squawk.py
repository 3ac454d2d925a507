"""Every migration's SQL is linted: what would lock the desk out, or break the code that still runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pytest

from app.local.migrate import URL_VARIABLE, migrations_folder
from tests.migrations.test_revisions import revisions

REPOSITORY: Final = Path(__file__).absolute().parents[2]
SQUAWK: Final = Path(sys.executable).with_name("squawk")
RUNNING: Final = re.compile(r"^-- Running upgrade .*?-> (\S+)$", re.MULTILINE)
SECONDS_MAX: Final = 100

LANDED: Final[Mapping[str, tuple[str, ...]]] = {
    "0011_pre_ledger": (
        "adding-required-field", "ban-drop-constraint", "constraint-missing-not-valid",
        "disallowed-unique-constraint", "require-concurrent-index-creation",
        "require-concurrent-index-deletion",
    ),
    "0012_pre_ledger_reads": (
        "changing-column-type", "require-concurrent-index-creation",
    ),
    "0016_pre_following": (
        "ban-drop-default",
    ),
    "0017_pre_compliance": (
        "constraint-missing-not-valid", "require-concurrent-index-creation",
    ),
    "0018_pre_payout_control": (
        "adding-foreign-key-constraint", "adding-required-field", "ban-drop-column",
        "constraint-missing-not-valid", "renaming-column", "require-concurrent-index-creation",
    ),
    "0019_pre_payout_execution": (
        "adding-required-field", "ban-drop-constraint", "constraint-missing-not-valid",
        "require-concurrent-index-creation",
    ),
    "0023_pre_disbelief": (
        "constraint-missing-not-valid",
    ),
    "0025_pre_coins": (
        "ban-drop-constraint", "constraint-missing-not-valid",
    ),
    "0027_pre_wallet_keys": (
        "ban-drop-constraint", "ban-drop-default", "constraint-missing-not-valid",
        "renaming-column", "require-concurrent-index-creation",
    ),
    "0028_pre_reconciled_pages": (
        "ban-drop-constraint", "ban-drop-not-null", "constraint-missing-not-valid",
    ),
    "0029_pre_venue_orders": (
        "adding-not-nullable-field", "ban-drop-default", "ban-drop-not-null",
        "constraint-missing-not-valid", "disallowed-unique-constraint",
        "require-concurrent-index-creation", "require-concurrent-index-deletion",
    ),
    "0035_pre_prices": (
        "adding-foreign-key-constraint", "adding-not-nullable-field",
        "constraint-missing-not-valid", "require-concurrent-index-creation",
    ),
    "0037_pre_terms": (
        "ban-set-schema",
    ),
    "0038_pre_deals": (
        "adding-foreign-key-constraint", "constraint-missing-not-valid",
        "require-concurrent-index-creation", "require-concurrent-index-deletion",
    ),
    "0041_pre_hedge_places": (
        "ban-drop-not-null", "constraint-missing-not-valid",
    ),
    "0044_pre_cycle": (
        "adding-foreign-key-constraint", "ban-drop-constraint", "ban-drop-not-null",
        "constraint-missing-not-valid", "disallowed-unique-constraint",
        "require-concurrent-index-creation",
    ),
    "0046_pre_bank_payouts": (
        "ban-drop-constraint", "constraint-missing-not-valid",
    ),
    "0048_pre_matching": (
        "adding-field-with-default", "adding-serial-primary-key-field", "ban-drop-constraint",
        "ban-drop-default", "constraint-missing-not-valid", "disallowed-unique-constraint",
        "require-concurrent-index-creation",
    ),
    "0049_pre_releases": (
        "require-concurrent-index-creation",
    ),
}  # fmt: skip
"""What revisions did before anybody linted them, when no house had run them yet. Nothing is added here:
a new revision expands, and what breaks older code waits for a ``_post_`` one, a release later."""


def sql_of_revisions() -> dict[str, str]:
    """Return the statements of each revision, as alembic would run them."""
    told = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head", "--sql"],
        cwd=migrations_folder().parent,
        env={**os.environ, URL_VARIABLE: "postgresql+asyncpg://nobody@localhost/nothing"},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=True,
    )
    # Before the first revision there is alembic's own version table, behind the last one the end.
    _, *parts = RUNNING.split(told.stdout.removesuffix("COMMIT;\n\n"))
    return dict(zip(parts[::2], parts[1::2], strict=True))


def linted(folder: Path, *, config: Path = REPOSITORY / ".squawk.toml") -> dict[str, set[str]]:
    """Return the rules that each file of SQL in *folder* breaks, by the file's name."""
    told = subprocess.run(
        [str(SQUAWK), "--config", str(config), "--reporter", "json", *map(str, files_of(folder))],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    found: dict[str, set[str]] = {}
    for finding in json.loads(told.stdout):
        found.setdefault(Path(finding["file"]).stem, set()).add(finding["rule_name"])
    return found


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.sql"))


def test_no_migration_does_what_the_linter_warns_of(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    statements = sql_of_revisions()
    assert list(statements) == revisions()
    for revision, sql in statements.items():
        (tmp_path / f"{revision}.sql").write_text(sql)

    found = {revision: tuple(sorted(rules)) for revision, rules in linted(tmp_path).items()}

    assert found == {name: rules for name, rules in LANDED.items() if name in statements}
    record_property("counts", f"migrations linted: {len(statements)}, as landed: {len(LANDED)}")


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("ALTER TABLE custody.payout DROP COLUMN note;", "ban-drop-column"),
        ("ALTER TABLE custody.payout ADD COLUMN must text NOT NULL;", "adding-required-field"),
        ("ALTER TABLE custody.payout RENAME note TO remark;", "renaming-column"),
        ("ALTER TABLE custody.payout ALTER COLUMN n TYPE bigint;", "changing-column-type"),
        (
            "ALTER TABLE custody.payout ADD CONSTRAINT positive CHECK (n > 0);",
            "constraint-missing-not-valid",
        ),
        ("DROP TABLE custody.payout;", "ban-drop-table"),
    ],
)
def test_the_linter_as_it_is_set_up_finds_what_stops_a_desk(
    tmp_path: Path, sql: str, rule: str
) -> None:
    (tmp_path / "bad.sql").write_text(sql)

    assert rule in linted(tmp_path)["bad"]


def test_every_rule_that_is_left_out_has_its_reason() -> None:
    lines = (REPOSITORY / ".squawk.toml").read_text().splitlines()
    rules = [number for number, line in enumerate(lines) if line.startswith('    "')]

    assert rules
    for number in rules:
        before = next(n for n in range(number - 1, -1, -1) if not lines[n].startswith('    "'))
        assert lines[before].strip().startswith("#"), lines[number]


def test_what_landed_is_counted_by_rule_and_only_shrinks() -> None:
    assert Counter(rule for rules in LANDED.values() for rule in rules).total() <= 66
    assert set(LANDED) <= set(revisions())
