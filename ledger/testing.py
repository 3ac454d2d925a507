"""For tests of whoever posts: the lock order, watched.

After the ledger's head has been locked, every other poster of the book waits for this transaction,
so nothing in it may wait any more. `enforce_lock_order` makes a statement that could wait an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine

_POSTED: Final = "ledger_posted"
_LEDGER: Final = re.compile(r"\bledger\.", re.IGNORECASE)
_HEAD_LOCKED: Final = re.compile(r"FROM ledger\.lock_and_read\(")
_OUTBOX: Final = re.compile(r"^\s*INSERT\s+INTO\s+kernel\.(outbox|history)\b", re.IGNORECASE)
_UPDATE: Final = re.compile(r"^\s*UPDATE\b", re.IGNORECASE)
_READ: Final = re.compile(
    r"^\s*(SELECT|WITH|SHOW|SAVEPOINT|RELEASE\s+SAVEPOINT|ROLLBACK\s+TO)\b", re.IGNORECASE
)
_WAITS: Final = re.compile(
    r"\bFOR\s+(UPDATE|NO\s+KEY\s+UPDATE|SHARE|KEY\s+SHARE)\b|\b(INSERT|DELETE|MERGE)\b"
    r"|\bpg_advisory",
    re.IGNORECASE,
)


class LockOrderViolated(AssertionError):
    """A statement that may wait ran after the ledger was posted to."""


def may_wait(statement: str) -> bool:
    """Tell whether a statement could wait for another transaction.

    The ledger's own statements do not: they run under the head's lock. UPDATE is taken to be of
    rows this transaction has locked before; the rows themselves cannot be seen from here.
    """
    if _LEDGER.search(statement) or _OUTBOX.match(statement) or _UPDATE.match(statement):
        return False
    return not _READ.match(statement) or _WAITS.search(statement) is not None


@contextmanager
def enforce_lock_order(engine: AsyncEngine) -> Iterator[None]:
    """Within the block, refuse statements that may wait after the head was locked.

    Raises:
        LockOrderViolated: from the offending statement, before it runs.
    """
    sync = engine.sync_engine

    def before(
        conn: Connection,
        cursor: Any,
        statement: str,
        parameters: Any,
        context: Any,
        executemany: bool,  # noqa: FBT001  the signature is SQLAlchemy's
    ) -> None:
        del cursor, parameters, context, executemany
        if conn.info.get(_POSTED) and may_wait(statement):
            raise LockOrderViolated(f"this may wait while the ledger's head is locked: {statement}")
        if _HEAD_LOCKED.search(statement):
            conn.info[_POSTED] = True

    def ended(conn: Connection) -> None:
        # A connection that was lost has no facts left to forget.
        if not conn.invalidated:
            conn.info.pop(_POSTED, None)

    listeners = (("before_cursor_execute", before), ("commit", ended), ("rollback", ended))
    for name, listener in listeners:
        event.listen(sync, name, listener)
    try:
        yield
    finally:
        for name, listener in listeners:
            event.remove(sync, name, listener)
