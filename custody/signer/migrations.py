"""The signer's own migrations: numbered steps, forward only, each in one transaction.

The store says in one row which step it is at. A store that is newer than the program is refused: an
older program does not know what the newer one remembers. There is no way back, because every step
back would lose something that was signed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from custody.signer.errors import StoreUnusable

# `audit` is the truth; `payment` and `signed` are its index by nonce and by bytes, and `verify`
# rebuilds them from it. Times are milliseconds since 1970, amounts decimal text.
FIRST: Final = """
CREATE TABLE schema_version (version INTEGER NOT NULL) STRICT;
INSERT INTO schema_version VALUES (0);
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
    body TEXT NOT NULL, leaf BLOB NOT NULL
) STRICT;
CREATE INDEX audit_subject ON audit (subject, seq);
CREATE INDEX audit_kind ON audit (kind, seq);
CREATE TABLE head (
    one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, frontier BLOB NOT NULL
) STRICT;
INSERT INTO head VALUES (1, 0, x'');
CREATE TABLE tile (number INTEGER PRIMARY KEY, root BLOB NOT NULL) STRICT;
CREATE TABLE payment (
    chain_id INTEGER NOT NULL, sender TEXT NOT NULL, nonce INTEGER NOT NULL,
    payout_id TEXT NOT NULL, content BLOB NOT NULL, pays INTEGER NOT NULL,
    first_seq INTEGER NOT NULL, dead_seq INTEGER,
    PRIMARY KEY (chain_id, sender, nonce)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX payment_payout ON payment (payout_id) WHERE pays = 1 AND dead_seq IS NULL;
CREATE TABLE signed (
    sender TEXT NOT NULL, unsigned_hash BLOB NOT NULL, payout_id TEXT NOT NULL,
    chain_id INTEGER NOT NULL, nonce INTEGER NOT NULL, pays INTEGER NOT NULL,
    max_fee TEXT NOT NULL, max_priority_fee TEXT NOT NULL, gas_limit INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (sender, unsigned_hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX signed_nonce ON signed (chain_id, sender, nonce);
CREATE INDEX signed_payout ON signed (payout_id);
"""

# Bitcoin: `spend` is indexed by the coin that all transactions of a spend have, `coin` remembers what
# each coin held when it was first signed for.
SECOND: Final = """
CREATE TABLE spend (
    chain_id INTEGER NOT NULL, anchor TEXT NOT NULL, spend_id TEXT NOT NULL, content BLOB NOT NULL,
    pays INTEGER NOT NULL, first_seq INTEGER NOT NULL, dead_seq INTEGER,
    PRIMARY KEY (chain_id, anchor)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX spend_id ON spend (spend_id);
CREATE TABLE spend_payout (
    payout_id TEXT NOT NULL, spend_id TEXT NOT NULL, first_seq INTEGER NOT NULL, dead_seq INTEGER,
    PRIMARY KEY (payout_id, spend_id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX spend_payout_alive ON spend_payout (payout_id) WHERE dead_seq IS NULL;
CREATE TABLE spend_signed (
    unsigned_hash BLOB NOT NULL, spend_id TEXT NOT NULL, chain_id INTEGER NOT NULL,
    anchor TEXT NOT NULL, pays INTEGER NOT NULL, fee INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (unsigned_hash, spend_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX spend_signed_anchor ON spend_signed (chain_id, anchor);
CREATE TABLE coin (
    chain_id INTEGER NOT NULL, outpoint TEXT NOT NULL, amount INTEGER NOT NULL,
    key_path TEXT NOT NULL, first_seq INTEGER NOT NULL,
    PRIMARY KEY (chain_id, outpoint)
) STRICT, WITHOUT ROWID;
"""

# Marks of the database that asks: `token` names the line up to it.
THIRD: Final = """
CREATE TABLE mark (
    number INTEGER PRIMARY KEY, token TEXT NOT NULL, seq INTEGER NOT NULL
) STRICT;
"""

MIGRATIONS: Final[Sequence[str]] = (FIRST, SECOND, THIRD)
"""Step n + 1 is at place n. A released step never changes."""
VERSION: Final = len(MIGRATIONS)

_SET_VERSION: Final = "UPDATE schema_version SET version = {}"


def schema_version(database: sqlite3.Connection) -> int:
    """Return the step that the store is at; 0 for an empty file.

    Raises:
        StoreUnusable: the file is something else than a signer's store.
    """
    tables = {
        row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    }
    if not tables:
        return 0
    if "schema_version" not in tables:
        raise StoreUnusable("this is not a store of the signer")
    [version] = database.execute("SELECT max(version) FROM schema_version").fetchone()
    return int(version)


def migrate(database: sqlite3.Connection, steps: Sequence[str] = MIGRATIONS) -> None:
    """Bring the store to the program's version.

    Raises:
        StoreUnusable: it is newer than the program.
    """
    version = schema_version(database)
    if version > len(steps):
        raise StoreUnusable(
            f"the signer's store is at version {version} and this program knows {len(steps)}",
            remedy="Start the program that wrote it, or a newer one",
        )
    for number, step in enumerate(steps[version:], start=version + 1):
        # One transaction for each step: the file is at a whole version after any crash.
        try:
            database.executescript(f"BEGIN IMMEDIATE;{step};{_SET_VERSION.format(number)};COMMIT;")
        except sqlite3.Error:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
