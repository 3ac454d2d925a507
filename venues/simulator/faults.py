"""Faults by schedule: "the next N requests matching this path".

A fault is scheduled over `/control/faults` and spent on the requests or frames it matches, oldest
fault first. *After accept* means that the request was processed, journal included, before the
client is treated badly: the unknown outcomes software has to survive.
"""

from collections.abc import Callable
from enum import Enum, unique
from typing import Final

import msgspec

ALWAYS: Final = 10**9


@unique
class FaultKind(Enum):
    """What goes wrong. The first group is for requests, the second for WebSocket frames."""

    HANG_BEFORE_ACCEPT = "hang_before_accept"
    HANG_AFTER_ACCEPT = "hang_after_accept"
    DELAY_BEFORE_ACCEPT = "delay_before_accept"
    RESET_BEFORE = "reset_before"
    RESET_AFTER_ACCEPT = "reset_after_accept"
    STATUS_503 = "status_503"
    STATUS_503_AFTER_ACCEPT = "status_503_after_accept"
    HTML_502_AFTER_ACCEPT = "html_502_after_accept"
    HTML_504 = "html_504"
    HTML_504_AFTER_ACCEPT = "html_504_after_accept"
    TIMEOUT_1007_AFTER_ACCEPT = "timeout_1007_after_accept"
    UNEXPECTED_1006_AFTER_ACCEPT = "unexpected_1006_after_accept"
    TRUNCATED_200 = "truncated_200"
    RATE_LIMITED_429 = "rate_limited_429"
    BANNED_418 = "banned_418"

    WS_SILENT = "ws_silent"
    WS_DROP = "ws_drop"
    WS_BAD_JSON = "ws_bad_json"
    WS_WRONG_TYPES = "ws_wrong_types"
    WS_DUPLICATE = "ws_duplicate"
    WS_SWAP = "ws_swap"
    WS_CLOSE = "ws_close"

    @property
    def is_for_frames(self) -> bool:
        """Whether the fault is spent on WebSocket frames."""
        return self.value.startswith("ws_")


class Fault(msgspec.Struct):
    """A scheduled fault.

    `path` matches the beginning of a request's path, or any part of a stream's name (`user` for the
    user data stream). The first `skip` matches pass unharmed, the next `count` do not; a silent
    socket stays silent until the schedule is cleared. `seconds` is how long a hang or a delay lasts.
    """

    kind: FaultKind
    path: str
    method: str = ""
    count: int = 1
    skip: int = 0
    seconds: float = 60.0


class FaultSchedule:
    """Faults waiting to be spent, in the order in which they were scheduled."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Schedule a fault."""
        if fault.kind is FaultKind.WS_SILENT:
            fault.count = ALWAYS
        self._faults.append(fault)

    def clear(self) -> None:
        """Forget all faults."""
        self._faults.clear()

    def pending(self) -> tuple[Fault, ...]:
        """Faults not yet spent."""
        return tuple(self._faults)

    def for_request(self, method: str, path: str) -> Fault | None:
        """Spend a fault on a request, or answer None."""
        return self._take(
            lambda fault: (
                not fault.kind.is_for_frames
                and path.startswith(fault.path)
                and fault.method in ("", method)
            )
        )

    def for_frame(self, stream: str) -> Fault | None:
        """Spend a fault on a frame of a stream, or answer None."""
        return self._take(lambda fault: fault.kind.is_for_frames and fault.path in stream)

    def _take(self, matches: Callable[[Fault], bool]) -> Fault | None:
        for fault in self._faults:
            if not matches(fault):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.count -= 1
            if fault.count == 0:
                self._faults.remove(fault)
            return fault
        return None
