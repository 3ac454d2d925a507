"""How faults on requests look on Binance. Source: binance-spot-api-docs, errors.md."""

from typing import Final

from venues.simulator.dialect import Canned
from venues.simulator.faults import FaultKind

CANNED: Final = {
    FaultKind.STATUS_503: Canned(
        False, 503, '{"code":-1008,"msg":"Server is currently overloaded."}'
    ),
    FaultKind.STATUS_503_AFTER_ACCEPT: Canned(
        True,
        503,
        '{"code":-1000,"msg":"Unknown error, please check your request or try again later."}',
    ),
    FaultKind.TIMEOUT_1007_AFTER_ACCEPT: Canned(
        True,
        408,
        '{"code":-1007,"msg":"Timeout waiting for response from backend server. '
        'Send status unknown; execution status unknown."}',
    ),
    FaultKind.UNEXPECTED_1006_AFTER_ACCEPT: Canned(
        True,
        400,
        '{"code":-1006,"msg":"An unexpected response was received from the message bus. '
        'Execution status unknown."}',
    ),
    FaultKind.RATE_LIMITED_429: Canned(False, 429, '{"code":-1003,"msg":"Too many requests."}'),
    FaultKind.BANNED_418: Canned(
        False, 418, '{"code":-1003,"msg":"Way too many requests; IP banned."}'
    ),
}
