"""Errors of feeds.

::

    OutsideUnavailable
    ├── SocketLost       the socket could not be opened, or is of no more use
    └── NoAnswer         a request for a book had no answer that can be read
        └── AskedTooMuch     the venue says so, and until when it is to be left alone
"""

from __future__ import annotations

from collections.abc import Mapping

from kernel.errors import OutsideUnavailable
from marketdata.events import GapReason


class SocketLost(OutsideUnavailable):
    """The socket could not be opened, was closed, or has to be given up."""

    def __init__(self, reason: GapReason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


class NoAnswer(OutsideUnavailable):
    """A book that was asked for did not come."""


class AskedTooMuch(NoAnswer):
    """The venue refuses because it was asked too much; *headers* may name the time to wait."""

    def __init__(self, what: str, headers: Mapping[str, str]) -> None:
        super().__init__(what)
        self.headers = dict(headers)
