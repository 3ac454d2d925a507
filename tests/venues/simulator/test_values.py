"""Decimal text, signatures, request times, fault schedules, settings texts."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venues.simulator.binance import auth
from venues.simulator.binance.refusals import ApiError
from venues.simulator.decimals import UNIT, text_from_units, units_from_text
from venues.simulator.errors import Refusal, SettingsInvalid, VenueRefusal
from venues.simulator.faults import Fault, FaultKind, FaultSchedule
from venues.simulator.model import ApiKeySpec
from venues.simulator.settings import symbol_from_text

NOW_MS = 1_700_000_000_000
KEY = ApiKeySpec("k" * 64, "secret")


@given(st.integers(0, 10**28 - 1))
def test_amounts_survive_the_wire(units: int) -> None:
    assert units_from_text("x", text_from_units(units)) == units


@pytest.mark.parametrize(
    ("text", "units"),
    [("1", UNIT), ("1.5", UNIT * 3 // 2), ("0.00000001", 1), ("1.1000000000", 110_000_000)],
)
def test_decimal_texts_are_read_exactly(text: str, units: int) -> None:
    assert units_from_text("x", text) == units


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", Refusal.MALFORMED),
        ("-1", Refusal.MALFORMED),
        ("1e3", Refusal.MALFORMED),
        (".5", Refusal.MALFORMED),
        ("1.", Refusal.MALFORMED),
        ("1,5", Refusal.MALFORMED),
        ("0.000000001", Refusal.TOO_PRECISE),
        ("1" * 21, Refusal.MALFORMED),
        ("1\n", Refusal.MALFORMED),
    ],
)
def test_other_texts_are_refused(text: str, reason: Refusal) -> None:
    with pytest.raises(VenueRefusal) as refusal:
        units_from_text("x", text)

    assert refusal.value.refusal is reason


def test_negative_amounts_can_be_written() -> None:
    assert text_from_units(-150_000_000) == "-1.50000000"


def signed(payload: str, secret: str) -> str:
    return hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("query", "body", "payload"),
    [
        ("a=1&b=2&signature=", "", "a=1&b=2"),
        ("", "a=1&b=x%20y&signature=", "a=1&b=x%20y"),
        ("a=1", "b=2&signature=", "a=1b=2"),
    ],
)
def test_the_signature_is_over_the_raw_query_and_body(query: str, body: str, payload: str) -> None:
    signature = signed(payload, "secret")

    auth.require_signature(
        KEY,
        query.replace("signature=", f"signature={signature}"),
        body.replace("signature=", f"signature={signature}"),
    )


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("a=1", -1102),
        ("a=1&signature=", -1102),
        (f"a=2&signature={signed('a=1', 'secret')}", -1022),
        (f"a=1&signature={signed('a=1', 'other')}", -1022),
        ("a=1&signature=%C3%A4", -1022),
    ],
)
def test_wrong_signatures_are_refused(query: str, code: int) -> None:
    with pytest.raises(ApiError) as refusal:
        auth.require_signature(KEY, query, "")

    assert refusal.value.code == code


@pytest.mark.parametrize(
    ("behind_ms", "window", "code"),
    [
        (0, None, None),
        (5_000, None, None),
        (5_001, None, -1021),
        (-999, None, None),
        (-1_000, None, -1021),
        (9_000, "10000", None),
        (101, "100", -1021),
        (0, "60001", -1131),
        (0, "x", -1100),
    ],
)
def test_requests_must_be_timely(behind_ms: int, window: str | None, code: int | None) -> None:
    sent = {"timestamp": str(NOW_MS - behind_ms)}
    if window is not None:
        sent["recvWindow"] = window

    if code is None:
        auth.require_timely(sent, NOW_MS)
        return
    with pytest.raises(ApiError) as refusal:
        auth.require_timely(sent, NOW_MS)

    assert refusal.value.code == code


def test_a_parameter_sent_twice_is_refused() -> None:
    with pytest.raises(ApiError) as refusal:
        auth.parameters("a=1", "a=2")

    assert refusal.value.code == -1101


def test_faults_are_spent_in_order_on_what_they_match() -> None:
    schedule = FaultSchedule()
    schedule.add(Fault(FaultKind.RESET_BEFORE, "/api/v3/order", method="POST", skip=1))
    schedule.add(Fault(FaultKind.STATUS_503, "/api", count=2))
    schedule.add(Fault(FaultKind.WS_DROP, "depth"))

    kinds = [
        fault.kind if fault else None
        for fault in (
            schedule.for_request("POST", "/api/v3/order"),
            schedule.for_request("POST", "/api/v3/order"),
            schedule.for_request("GET", "/api/v3/order"),
            schedule.for_request("GET", "/api/v3/order"),
            schedule.for_frame("ethusdt@trade"),
            schedule.for_frame("ethusdt@depth@100ms"),
        )
    ]

    assert kinds == [
        FaultKind.STATUS_503,
        FaultKind.RESET_BEFORE,
        FaultKind.STATUS_503,
        None,
        None,
        FaultKind.WS_DROP,
    ]
    assert schedule.pending() == ()


def test_a_silent_socket_stays_silent_until_the_schedule_is_cleared() -> None:
    schedule = FaultSchedule()
    schedule.add(Fault(FaultKind.WS_SILENT, "user"))

    silenced = [schedule.for_frame("user") is not None for _ in range(1_000)]
    schedule.clear()

    assert all(silenced)
    assert schedule.for_frame("user") is None


def test_symbols_can_be_written_as_text() -> None:
    spec = symbol_from_text("SOL/USDC:tick=0.01:lot=0.001:min=5:mid=150")

    assert (spec.name, spec.base, spec.quote) == ("SOLUSDC", "SOL", "USDC")
    assert (spec.tick_units, spec.lot_units, spec.mid_ticks) == (10**6, 10**5, 15_000)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SOL",
        "SOL/USDC:tick=0.01",
        "SOL/USDC:tick=x:lot=0.001:min=5:mid=150",
        "SOL/USDC:tick=0:lot=0.001:min=5:mid=150",
        "SOL/USDC:tick=0.02:lot=0.001:min=5:mid=0.01",
    ],
)
def test_other_symbol_texts_are_refused(text: str) -> None:
    with pytest.raises(SettingsInvalid):
        symbol_from_text(text)
