"""What errors prove: every row of every table, on the exception that ccxt's own class raises."""

from __future__ import annotations

import json
from typing import Any

import ccxt
import pytest

from venues.capabilities import Capabilities, ErrorTable, Proof
from venues.ccxt.classify import (
    Failure,
    classify_placement,
    failure_of,
    proves,
    refusal_kind,
    wants_fewer_orders,
)
from venues.model import PlacementRefused, PlacementUnknown, RefusalKind
from venues.records import BINANCE, BINANCE_US, KRAKEN, RECORDS

PLACED = {"binance": "api/v3/order", "binanceus": "api/v3/order", "kraken": "0/private/AddOrder"}
STATUS = {"binance": 400, "binanceus": 400, "kraken": 200}


def body_of(record: Capabilities, code: str) -> str:
    """Write an error as the venue does."""
    if code.startswith("E"):
        return json.dumps({"error": [code]})
    return json.dumps({"code": int(code), "msg": "as it may be"})


def raised(record: Capabilities, status: int, body: str) -> Failure:
    """Let ccxt's own class look at an answer, and return what it makes of it."""
    exchange = getattr(ccxt, record.ccxt_id)()
    try:
        parsed: Any = json.loads(body)
    except ValueError:
        parsed = None
    url = f"https://host/{PLACED[record.ccxt_id]}"
    try:
        exchange.handle_errors(status, "reason", url, "POST", {}, body, parsed, {}, "")
        exchange.handle_http_status_code(status, "reason", url, "POST", body)
    except ccxt.BaseError as error:
        return failure_of(error, status=status, body=body)
    raise AssertionError(f"ccxt finds nothing wrong with {body}")


ROWS = [
    (record, code, kind)
    for record in RECORDS.values()
    for code, kind in record.errors.refusals.items()
]


@pytest.mark.parametrize(("record", "code", "kind"), ROWS)
def test_every_refusal_of_a_table_is_one(
    record: Capabilities, code: str, kind: RefusalKind
) -> None:
    failure = raised(record, STATUS[record.ccxt_id], body_of(record, code))

    found = classify_placement(failure, record.errors)

    assert isinstance(found, PlacementRefused)
    assert found.kind is kind
    fewer = code in record.errors.only_orders
    assert wants_fewer_orders(failure, record.errors) is fewer


@pytest.mark.parametrize(
    ("record", "code"),
    [(record, code) for record in RECORDS.values() for code in sorted(record.errors.unknown)],
)
def test_every_unknown_of_a_table_is_one(record: Capabilities, code: str) -> None:
    failure = raised(record, STATUS[record.ccxt_id], body_of(record, code))

    assert isinstance(classify_placement(failure, record.errors), PlacementUnknown)


@pytest.mark.parametrize("record", RECORDS.values())
@pytest.mark.parametrize("status", [418, 429])
def test_a_status_alone_can_say_that_too_much_was_asked(record: Capabilities, status: int) -> None:
    found = classify_placement(raised(record, status, "<html>slow down</html>"), record.errors)

    assert isinstance(found, PlacementRefused)
    assert found.kind is RefusalKind.BACK_OFF


@pytest.mark.parametrize("record", RECORDS.values())
@pytest.mark.parametrize("status", [403, 404, 408, 500, 502, 503, 504, 520])
def test_a_page_of_a_proxy_proves_nothing(record: Capabilities, status: int) -> None:
    failure = raised(record, status, "<html>not the venue</html>")

    assert isinstance(classify_placement(failure, record.errors), PlacementUnknown)


@pytest.mark.parametrize(("record", "code"), [(BINANCE, "-2010"), (KRAKEN, "EAPI:Bad request")])
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_venue_in_trouble_proves_nothing_whatever_its_code(
    record: Capabilities, code: str, status: int
) -> None:
    failure = raised(record, status, body_of(record, code))

    assert isinstance(classify_placement(failure, record.errors), PlacementUnknown)


@pytest.mark.parametrize(
    ("record", "body"),
    [
        (BINANCE, '{"code":-2010,"msg":"Duplicate order sent."}'),
        (BINANCE_US, '{"code":-2010,"msg":"Duplicate order sent."}'),
        (KRAKEN, '{"error":["EGeneral:Invalid arguments:cl_ord_id not unique"]}'),
    ],
)
def test_a_repeated_id_means_that_the_earlier_order_landed(record: Capabilities, body: str) -> None:
    found = classify_placement(raised(record, STATUS[record.ccxt_id], body), record.errors)

    assert isinstance(found, PlacementUnknown)
    assert "order of this id" in found.reason


@pytest.mark.parametrize("body", ['{"code":-4321,"msg":"new"}', '{"code":-1033,"msg":"new"}'])
def test_a_code_that_is_in_no_table_proves_nothing(body: str) -> None:
    failure = raised(BINANCE, 400, body)

    assert isinstance(classify_placement(failure, BINANCE.errors), PlacementUnknown)


def test_a_refusal_beside_a_reason_nobody_knows_proves_nothing() -> None:
    both = '{"error":["EOrder:Insufficient funds","EService:Busy"]}'
    fine = '{"error":["EAPI:Rate limit exceeded","EOrder:Insufficient funds"]}'

    assert refusal_kind(raised(KRAKEN, 200, both), KRAKEN.errors) is None
    assert refusal_kind(raised(KRAKEN, 200, fine), KRAKEN.errors) is RefusalKind.FINAL


def test_the_details_of_a_kraken_error_are_looked_up_without_them() -> None:
    failure = raised(KRAKEN, 200, '{"error":["EGeneral:Invalid arguments:volume:too odd"]}')

    assert refusal_kind(failure, KRAKEN.errors) is RefusalKind.FINAL


@pytest.mark.parametrize(
    "error",
    [
        ccxt.RequestTimeout("binance POST https://host/api/v3/order"),
        ccxt.ExchangeNotAvailable("binance POST https://host/api/v3/order"),
        ccxt.ExchangeError("binance POST payload is not completed"),
        ConnectionResetError("peer"),
        TypeError("'NoneType' object is not subscriptable"),
    ],
    ids=str,
)
def test_without_an_answer_nothing_is_known(error: Exception) -> None:
    assert isinstance(classify_placement(failure_of(error), BINANCE.errors), PlacementUnknown)


@pytest.mark.parametrize("body", ['{"symbol":"ETHU', "", '{"orderId": 7, "sta'])
def test_a_truncated_answer_proves_nothing(body: str) -> None:
    failure = failure_of(TypeError("no dict"), status=200, body=body)

    assert isinstance(classify_placement(failure, BINANCE.errors), PlacementUnknown)


def test_what_was_never_signed_was_never_sent() -> None:
    """Ccxt looks at an order first; what it does not like does not leave the machine."""
    found = classify_placement(
        failure_of(ccxt.InvalidOrder("must be greater than minimum"), signed=False), BINANCE.errors
    )

    assert isinstance(found, PlacementRefused)
    assert found.reason.startswith("not sent")


def test_a_class_of_ccxt_counts_last_and_only_with_an_answer_that_refuses() -> None:
    bare = ErrorTable(hints={"InsufficientFunds": RefusalKind.FINAL})
    error = ccxt.InsufficientFunds("somewhere too poor")

    assert refusal_kind(failure_of(error, status=400, body="poor"), bare) is RefusalKind.FINAL
    for status in (None, 200, 503):
        assert refusal_kind(failure_of(error, status=status, body="poor"), bare) is None


def test_only_the_venues_own_code_says_that_there_is_no_such_order() -> None:
    said = raised(BINANCE, 400, '{"code":-2013,"msg":"Order does not exist."}')
    cancelled = raised(BINANCE, 400, '{"code":-2011,"msg":"Unknown order sent."}')
    proxy = raised(BINANCE, 404, "<html>nothing here</html>")
    kraken = raised(KRAKEN, 200, '{"error":["EOrder:Unknown order"]}')

    assert proves(said, BINANCE.errors, Proof.NO_SUCH_ORDER)
    assert not proves(said, BINANCE.errors, Proof.NOTHING_TO_CANCEL)
    assert proves(cancelled, BINANCE.errors, Proof.NOTHING_TO_CANCEL)
    assert not proves(proxy, BINANCE.errors, Proof.NO_SUCH_ORDER)
    assert proves(kraken, KRAKEN.errors, Proof.NO_SUCH_ORDER)
    assert proves(kraken, KRAKEN.errors, Proof.NOTHING_TO_CANCEL)
