"""The root of every error that Causeway raises on purpose.

::

    CausewayError
    ├── Refused                 the request is understood and the answer is no        (exit code 1)
    │   └── StaleFence          another worker has taken the row over
    ├── BadInput                the request cannot be understood                      (exit code 2)
    │   └── SecretUnreadable    a secret's file, its key or its mode is wrong
    ├── OutsideUnavailable      a component outside this process does not answer      (exit code 3)
    └── OutcomeUnknown          the act may or may not have happened; look before retrying
        └── CommitUnknown       the connection was lost while COMMIT was under way

Every error says *what* is wrong, *where*, and what to do about it (*remedy*). Errors are for
operators and programmers; a decision of the domain (a refused transfer, a rejected payout) is a
value, not an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class CausewayError(Exception):
    """Something went wrong in a way that was foreseen."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(self.render())

    def render(self) -> str:
        """Return the message as one line: what (where). Remedy."""
        text = f"{self.what} ({self.where})" if self.where else self.what
        return f"{text}. {self.remedy}" if self.remedy else text


class Refused(CausewayError):
    """The request is understood and the answer is no."""


class StaleFence(Refused):
    """Another worker has claimed the row since: this worker's lease is over."""


class BadInput(CausewayError):
    """The request cannot be understood."""

    exit_code = 2


class SecretUnreadable(BadInput):
    """A secret cannot be opened: its file, the file's mode or the key that it is sealed with is wrong."""


class OutsideUnavailable(CausewayError):
    """A component outside this process (database, node, venue, signer) does not answer."""

    exit_code = 3


class OutcomeUnknown(CausewayError):
    """The act may or may not have happened: look for evidence before doing anything again."""

    exit_code = 3


class CommitUnknown(OutcomeUnknown):
    """The connection was lost while COMMIT was under way."""


@contextmanager
def ungrouped() -> Iterator[None]:
    """Let the first foreseen error of a task group through as itself.

    A `asyncio.TaskGroup` wraps what its tasks raise; an operator is told the error, not the group.
    A group without any foreseen error goes on as it is: that is a bug, and its trace is wanted.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        first = _first_foreseen(group)
        if first is None:
            raise
        raise first from group


def _first_foreseen(group: BaseExceptionGroup[BaseException]) -> CausewayError | None:
    for error in group.exceptions:
        if isinstance(error, CausewayError):
            return error
        if isinstance(error, BaseExceptionGroup):
            found = _first_foreseen(error)
            if found is not None:
                return found
    return None
