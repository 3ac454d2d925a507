"""For the verification of the ledger: a range of entries is found by its range index at any time."""

from __future__ import annotations

from alembic import op

revision = "0014_pre_ledger_ranges"
down_revision: str | None = "0013_pre_books"
branch_labels = None
depends_on = None

# Pages behind the last summary are read with every range. Vacuum summarises them, but it may be a fifth
# of the table late; the runtime role may not do it, so it is done in the owner's name.
SUMMARIZE = """\
CREATE FUNCTION ledger.summarize_entries() RETURNS integer
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS
$$ SELECT brin_summarize_new_values('ledger.ix_entry_sequence'::regclass) $$"""


def upgrade() -> None:
    op.execute("ALTER INDEX ledger.ix_entry_sequence SET (autosummarize = on)")
    op.execute(SUMMARIZE)
    op.execute("REVOKE ALL ON FUNCTION ledger.summarize_entries() FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION ledger.summarize_entries() TO causeway_app")


def downgrade() -> None:
    op.execute("DROP FUNCTION ledger.summarize_entries()")
    op.execute("ALTER INDEX ledger.ix_entry_sequence RESET (autosummarize)")
