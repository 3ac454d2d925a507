"""The code of the last tag, or of before the newest migration, works on today's schema under load."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.local.databases import Database
from app.local.migrate import head
from tests.migrations.rolling import earlier_commit, roll


@pytest.mark.timeout(480)
async def test_earlier_code_works_on_while_the_schema_is_upgraded_and_beside_todays(
    empty_database: Database, record_property: Callable[[str, object], None]
) -> None:
    commit = earlier_commit()
    if commit is None:
        # An export without history has nothing to upgrade from: the count says so.
        record_property("counts", "rolling upgrade: not run, this clone has no history")
        return

    rolled = await roll(commit, empty_database, rounds=1)

    assert rolled.before < rolled.after == head()
    assert min(rolled.rounds) > 0
    assert rolled.promises > 0
    record_property(
        "counts",
        f"rolling upgrade from {commit[:10]}: {rolled.before} to {rolled.after} under load, rounds "
        f"{rolled.rounds} (alone, upgraded, beside today's), {rolled.promises} promises of today's",
    )
