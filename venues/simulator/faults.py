"""Faults: what goes wrong, and which request, frame or event it happens to.

A fault is scheduled over `/control/faults` and spent on what it matches, oldest fault first; a
random schedule (`schedule`) may add others. *After accept* means that the request was processed,
journal included, before the client is treated badly: the unknown outcomes software has to survive.
How an answer looks is the dialect's; what happens is the same in all.

Requests of an open socket (placing orders over it) are matched by faults with the method `WS`, whose
path is the beginning of the request's method; they know hangs and resets only.
"""

from collections.abc import Callable
from enum import Enum, unique
from typing import Final, Protocol

import msgspec

ALWAYS: Final = 10**9
HANG_S: Final = 60.0
LATE_FILL_S: Final = 0.05
WITHHELD_S: Final = 30.0
SOCKET_METHOD: Final = "WS"


@unique
class FaultKind(Enum):
    """What goes wrong: with requests, with the venue's behaviour, with frames of streams."""

    HANG_BEFORE_ACCEPT = "hang_before_accept"
    HANG_AFTER_ACCEPT = "hang_after_accept"
    DELAY_BEFORE_ACCEPT = "delay_before_accept"
    RESET_BEFORE = "reset_before"
    RESET_AFTER_ACCEPT = "reset_after_accept"
    STATUS_503 = "status_503"
    STATUS_503_AFTER_ACCEPT = "status_503_after_accept"
    HTML_502 = "html_502"
    HTML_502_AFTER_ACCEPT = "html_502_after_accept"
    HTML_504 = "html_504"
    HTML_504_AFTER_ACCEPT = "html_504_after_accept"
    TIMEOUT_1007 = "timeout_1007"
    TIMEOUT_1007_AFTER_ACCEPT = "timeout_1007_after_accept"
    UNEXPECTED_1006 = "unexpected_1006"
    UNEXPECTED_1006_AFTER_ACCEPT = "unexpected_1006_after_accept"
    TRUNCATED_200 = "truncated_200"
    RATE_LIMITED_429 = "rate_limited_429"
    BANNED_418 = "banned_418"

    CLOCK_SKEW = "clock_skew"
    WITHHOLD_ORDER = "withhold_order"
    LATE_FILL_AFTER_CANCEL = "late_fill_after_cancel"
    FEE_IN_THIRD_ASSET = "fee_in_third_asset"
    BALANCE_BEFORE_FILL = "balance_before_fill"

    WS_SILENT = "ws_silent"
    WS_DROP = "ws_drop"
    WS_GAP = "ws_gap"
    WS_BAD_JSON = "ws_bad_json"
    WS_WRONG_TYPES = "ws_wrong_types"
    WS_DUPLICATE = "ws_duplicate"
    WS_SWAP = "ws_swap"
    WS_CLOSE = "ws_close"
    WS_DEAF = "ws_deaf"
    WS_REFUSE = "ws_refuse"
    DUPLICATE_REPORT = "duplicate_report"
    REPORTS_OUT_OF_ORDER = "reports_out_of_order"
    WRONG_CHECKSUM = "wrong_checksum"

    @property
    def is_for_frames(self) -> bool:
        """Whether the fault is spent on frames of streams."""
        return self.value.startswith("ws_") or self in _OF_FRAMES

    @property
    def is_for_requests(self) -> bool:
        """Whether the fault is spent on requests."""
        return not self.is_for_frames and self is not FaultKind.BALANCE_BEFORE_FILL


_OF_FRAMES: Final = frozenset(
    (
        FaultKind.DUPLICATE_REPORT,
        FaultKind.REPORTS_OUT_OF_ORDER,
        FaultKind.WRONG_CHECKSUM,
    )
)
_OF_REPORTS: Final = frozenset((FaultKind.DUPLICATE_REPORT, FaultKind.REPORTS_OUT_OF_ORDER))
_OF_SOCKETS: Final = frozenset((FaultKind.WS_DEAF, FaultKind.WS_REFUSE))
_LASTING_S: Final = {
    FaultKind.LATE_FILL_AFTER_CANCEL: LATE_FILL_S,
    FaultKind.WITHHOLD_ORDER: WITHHELD_S,
}

# Kinds that look like another one and differ in that the request was not accepted.
UNACCEPTED: Final = {
    FaultKind.HTML_502: FaultKind.HTML_502_AFTER_ACCEPT,
    FaultKind.TIMEOUT_1007: FaultKind.TIMEOUT_1007_AFTER_ACCEPT,
    FaultKind.UNEXPECTED_1006: FaultKind.UNEXPECTED_1006_AFTER_ACCEPT,
}


class Fault(msgspec.Struct):
    """A scheduled fault.

    `path` matches the beginning of a request's path, or any part of a stream's name (`user` for
    Binance's user data stream). The first `skip` matches pass unharmed, the next `count` do not; a
    silent or deaf socket stays so, the former until the schedule is cleared. `seconds` is how long
    a hang or a delay lasts, how far the clock is ahead, how long an order is withheld, how long
    after its cancel an order is filled; without it 60, 30 for an order withheld, 0.05 for a late
    fill.
    """

    kind: FaultKind
    path: str
    method: str = ""
    count: int = 1
    skip: int = 0
    seconds: float | None = None

    @property
    def lasting_s(self) -> float:
        """`seconds`, or what is usual for the kind."""
        return _LASTING_S.get(self.kind, HANG_S) if self.seconds is None else self.seconds


class RandomFaults(Protocol):
    """Where faults come from that nobody scheduled one by one."""

    def draw(self, what: str, matches: Callable[[Fault], bool]) -> Fault | None:
        """A fault for this, or None; `what` names it for the record."""


class FaultSchedule:
    """Faults waiting to be spent, in the order in which they were scheduled."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self.random: RandomFaults | None = None

    def add(self, fault: Fault) -> None:
        """Schedule a fault."""
        if fault.kind is FaultKind.WS_SILENT:
            fault.count = ALWAYS
        self._faults.append(fault)

    def clear(self) -> None:
        """Forget all faults; a random schedule goes on."""
        self._faults.clear()

    def pending(self) -> tuple[Fault, ...]:
        """Faults not yet spent."""
        return tuple(self._faults)

    @property
    def is_idle(self) -> bool:
        """Whether nothing can go wrong now."""
        return not self._faults and self.random is None

    def for_request(self, method: str, path: str) -> Fault | None:
        """Spend a fault on a request, or answer None."""
        if self.is_idle:
            return None

        def matches(fault: Fault) -> bool:
            if method == SOCKET_METHOD and fault.method != SOCKET_METHOD:
                return False
            return (
                fault.kind.is_for_requests
                and path.startswith(fault.path)
                and fault.method in ("", method)
            )

        return self._take(f"{method} {path}", matches)

    def for_frame(self, stream: str, text: str = "", *, is_private: bool = False) -> Fault | None:
        """Spend a fault on a frame of a stream, or answer None."""
        if self.is_idle:
            return None

        def matches(fault: Fault) -> bool:
            if fault.kind is FaultKind.WRONG_CHECKSUM and '"checksum"' not in text:
                return False
            if fault.kind in _OF_REPORTS and not is_private:
                return False
            is_frame = fault.kind.is_for_frames and fault.kind is not FaultKind.WS_REFUSE
            return is_frame and fault.path in stream

        return self._take(f"frame {stream}", matches)

    def for_socket(self, kind: FaultKind) -> Fault | None:
        """Spend a fault of this kind on a socket as a whole, or answer None."""
        if self.is_idle or kind not in _OF_SOCKETS:
            return None
        return self._take("socket", lambda fault: fault.kind is kind)

    def for_events(self) -> Fault | None:
        """Spend a fault on a fill that is about to be told, or answer None."""
        if self.is_idle:
            return None
        return self._take("fill", lambda fault: fault.kind is FaultKind.BALANCE_BEFORE_FILL)

    def _take(self, what: str, matches: Callable[[Fault], bool]) -> Fault | None:
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
        return None if self.random is None else self.random.draw(what, matches)
