"""How faults on requests look on Kraken: most of its errors come with status 200.

Source: support.kraken.com, API error messages: after `EService:Timeout`, `EService:Unavailable`,
`EService:Busy` and `EGeneral:Internal error` a client does not know whether its request was done.
"""

from typing import Final

from venues.simulator.dialect import Canned
from venues.simulator.faults import FaultKind


def _error(text: str) -> str:
    return f'{{"error":["{text}"]}}'


CANNED: Final = {
    FaultKind.STATUS_503: Canned(False, 503, _error("EService:Unavailable")),
    FaultKind.STATUS_503_AFTER_ACCEPT: Canned(True, 503, _error("EService:Unavailable")),
    FaultKind.TIMEOUT_1007_AFTER_ACCEPT: Canned(True, 200, _error("EService:Timeout")),
    FaultKind.UNEXPECTED_1006_AFTER_ACCEPT: Canned(True, 200, _error("EGeneral:Internal error")),
    FaultKind.RATE_LIMITED_429: Canned(False, 200, _error("EAPI:Rate limit exceeded")),
    FaultKind.BANNED_418: Canned(False, 200, _error("EGeneral:Temporary lockout")),
}
