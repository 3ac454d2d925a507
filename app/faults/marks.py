"""Triggers that say which edge a row has just taken, for whoever watches the wire.

They are put into a database of a test or of a demo, never into one that works: each is an AFTER row
trigger that raises a NOTICE. The wire takes the notices out again, so no client sees them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import asyncpg
from sqlalchemy import make_url

from app.faults.edges import MILESTONES, NEW, Edge, Milestone, find_machines

WORD: Final = "causeway.edge "
"""How the text of a mark begins; the edge follows."""
_FUNCTION: Final = f"""\
CREATE OR REPLACE FUNCTION kernel.causeway_mark() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before text := '{NEW}';
BEGIN
    IF TG_OP = 'UPDATE' THEN
        before := OLD.state;
    END IF;
    RAISE NOTICE '{WORD}%.% %>%', TG_TABLE_SCHEMA, TG_TABLE_NAME, before, NEW.state;
    RETURN NULL;
END
$$"""
_STEP: Final = f"""\
CREATE OR REPLACE FUNCTION kernel.causeway_mark_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE '{WORD}%.% %>%', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[0], TG_ARGV[1];
    RETURN NULL;
END
$$"""


def edge_of(notice: str) -> Edge | None:
    """Return the edge that the text of a notice tells; None for any other notice."""
    return Edge.parse(notice.removeprefix(WORD)) if notice.startswith(WORD) else None


def statements() -> Iterator[str]:
    """Return the SQL that puts a mark on every machine and milestone."""
    yield _FUNCTION
    yield _STEP
    for table in find_machines():
        yield (
            f"CREATE OR REPLACE TRIGGER causeway_mark_new AFTER INSERT ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION kernel.causeway_mark()"
        )
        yield (
            f"CREATE OR REPLACE TRIGGER causeway_mark_moved AFTER UPDATE ON {table} FOR EACH ROW "
            "WHEN (NEW.state IS DISTINCT FROM OLD.state) EXECUTE FUNCTION kernel.causeway_mark()"
        )
    for milestone in MILESTONES:
        yield from _of_milestone(milestone)


def _of_milestone(milestone: Milestone) -> Iterator[str]:
    call = "EXECUTE FUNCTION kernel.causeway_mark_step"
    if milestone.inserted is not None:
        yield (
            f"CREATE OR REPLACE TRIGGER causeway_mark_new AFTER INSERT ON {milestone.table} "
            f"FOR EACH ROW {call}('{NEW}', '{milestone.inserted}')"
        )
    if milestone.updated is not None:
        before, after = milestone.updated
        column = milestone.column
        yield (
            f"CREATE OR REPLACE TRIGGER causeway_mark_moved AFTER UPDATE ON {milestone.table} "
            f"FOR EACH ROW WHEN (OLD.{column} IS NULL AND NEW.{column} IS NOT NULL) "
            f"{call}('{before}', '{after}')"
        )


async def mark_edges(owner_url: str) -> None:
    """Put the marks into a database; again has no effect.

    Args:
        owner_url: as the role that owns the tables, an URL as `kernel.db.create_engine` takes it.
    """
    url = make_url(owner_url).set(drivername="postgresql")
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    try:
        async with connection.transaction():
            for statement in statements():
                await connection.execute(statement)
    finally:
        await connection.close()
