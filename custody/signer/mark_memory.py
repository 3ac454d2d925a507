"""What the signer remembers of the databases that asked it: their marks (`custody.restore_marks`).

Once it was shown a mark, it signs for nobody who shows none, whose line parts from what it knows, or who
has seen more of this store than the store holds. Two people end that, who have read from its own log what
was signed meanwhile (``restore.open``): then the marks after the one that both know are void.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from custody.control_messages import RestoreOpened
from custody.restore_marks import FIRST_TOKEN, Mark, Shown, require_line
from custody.signer.audit import MARKED, SIGNATURES, AuditLog
from custody.signer.errors import SignerPostponed, SignerRefused

INSERT_MARK: Final = "INSERT INTO mark VALUES (?, ?, ?)"
VOID_MARKS: Final = "DELETE FROM mark WHERE number > ?"
SET_BACK: Final = "Look at `causeway restore status`: two people open what a restore has closed"

Statement = tuple[str, tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class MarkMemory:
    """The marks in the signer's database, and the log that they follow from."""

    database: sqlite3.Connection
    log: AuditLog

    def last(self) -> tuple[int, str]:
        """Return number and token of the newest mark; (0, `FIRST_TOKEN`) before the first."""
        row = self.database.execute(
            "SELECT number, token FROM mark ORDER BY number DESC LIMIT 1"
        ).fetchone()
        return (0, FIRST_TOKEN) if row is None else (int(row[0]), str(row[1]))

    def token_of(self, number: int) -> str | None:
        """Return the token of a mark; None: this store does not have it."""
        if number == 0:
            return FIRST_TOKEN
        row = self.database.execute("SELECT token FROM mark WHERE number = ?", (number,)).fetchone()
        return None if row is None else str(row[0])

    def take(self, shown: Shown | None, *, at_ms: int) -> None:
        """Compare what is shown with what is known, and keep what is new, inside `Memory.writing`.

        Raises:
            SignerPostponed: the database that asks, or this store, is older than it should be.
            BadInput: the marks are no line.
        """
        last, _ = self.last()
        if shown is None:
            if last:
                raise SignerPostponed(
                    "the question does not show which database asks", remedy=SET_BACK
                )
            return
        require_line(shown.marks)
        if shown.seen > last:
            raise SignerPostponed(
                f"the signer's store knows mark {last} and the database has seen it know mark"
                f" {shown.seen}: the store is older than what it has signed",
                remedy="Stop the signer and bring the newest copy of its store back",
            )
        if not shown.marks and last:
            raise SignerPostponed("the question shows no mark", remedy=SET_BACK)
        new = [item for item in shown.marks if not self._knows(item)]
        if not new:
            return
        before = self.token_of(new[0].number - 1) if new[0].number else None
        if new[0].number != last + 1 or before != new[0].previous:
            raise SignerPostponed(
                f"mark {new[0].number} of the database does not follow on mark {last}, the last one"
                " known",
                remedy=SET_BACK,
            )
        told = msgspec.json.encode(new).decode()
        record = self.log.append(MARKED, str(new[-1].number), told, at=at_ms)
        for statement, values in mark_rows(new, record.seq):
            self.database.execute(statement, values)

    def check_open(self, body: RestoreOpened) -> None:
        """Refuse an opening that this store contradicts.

        Raises:
            SignerRefused: it goes on from a mark that is not known, or something was signed after the
                log was read.
        """
        if self.token_of(body.mark) != body.token:
            raise SignerRefused(f"mark {body.mark} is not known with that token")
        row = self.database.execute(
            "SELECT max(seq) FROM audit WHERE kind IN (?, ?)", SIGNATURES
        ).fetchone()
        newest = -1 if row[0] is None else int(row[0])
        if newest >= body.records:
            raise SignerRefused(
                f"record {newest} was signed after the log was read up to {body.records}",
                remedy="Import what was signed again, and sign the opening anew",
            )

    def open(self, body: RestoreOpened) -> None:
        """Forget the marks that the restored database does not have, inside `Memory.writing`."""
        self.database.execute(VOID_MARKS, (body.mark,))

    def _knows(self, mark: Mark) -> bool:
        known = self.token_of(mark.number)
        if known is not None and known != mark.token:
            raise SignerPostponed(
                f"the database's mark {mark.number} is another than the one that was shown before:"
                " it was set back to an earlier moment",
                remedy=SET_BACK,
            )
        return known is not None


def mark_rows(marks: Sequence[Mark], seq: int) -> list[Statement]:
    """Return the statements that index the marks of a record."""
    return [(INSERT_MARK, (item.number, item.token, seq)) for item in marks]


def void_row(body: RestoreOpened) -> Statement:
    """Return the statement that an opening indexes as."""
    return VOID_MARKS, (body.mark,)
