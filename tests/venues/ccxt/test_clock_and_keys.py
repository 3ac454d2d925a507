"""The difference of the clocks as a measurement, nonces, and which keys may trade."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from venues.ccxt.clock import (
    ClockOffset,
    ClockPolicy,
    better,
    is_due,
    jumped,
    measured,
    require_believable,
)
from venues.ccxt.kraken import KrakenReading
from venues.ccxt.nonce import NonceSource, nonce_source
from venues.errors import KeyRefused, VenueUnavailable
from venues.model import KeyPermissions
from venues.permissions import key_fault, require_trading_key
from venues.records import BINANCE, RECORDS, capabilities_of

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
MS = timedelta(milliseconds=1)
POLICY = ClockPolicy()


@given(
    ahead_ms=st.integers(-60_000, 60_000),
    there_us=st.integers(0, 400_000),
    back_us=st.integers(0, 400_000),
    resolution=st.sampled_from([MS, timedelta(seconds=1)]),
)
def test_the_true_difference_lies_within_the_error(
    ahead_ms: int, there_us: int, back_us: int, resolution: timedelta
) -> None:
    """However the round trip is split, and however coarsely the venue states its time."""
    ahead = ahead_ms * MS
    asked_there = NOW + timedelta(microseconds=there_us) + ahead
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    stated = asked_there - (asked_there - epoch) % resolution

    offset = measured(NOW, stated, NOW + timedelta(microseconds=there_us + back_us), resolution)

    assert abs(offset.ahead - ahead) <= offset.error + timedelta(microseconds=1)


def offset(ahead_ms: int, error_ms: int = 1, at: datetime = NOW) -> ClockOffset:
    return ClockOffset(ahead_ms * MS, error_ms * MS, at)


def test_the_more_exact_measurement_is_kept() -> None:
    rough, fine = offset(0, 90), offset(5, 3)

    assert better(None, rough) is rough
    assert better(rough, fine) is better(fine, rough) is fine


def test_a_measurement_ages_and_a_clock_turned_back_is_noticed() -> None:
    known = offset(0)

    assert is_due(None, NOW, POLICY)
    assert not is_due(known, NOW + POLICY.age_max - MS, POLICY)
    assert is_due(known, NOW + POLICY.age_max, POLICY)
    assert is_due(known, NOW - POLICY.age_max, POLICY)


def test_a_jump_is_what_the_errors_do_not_explain() -> None:
    assert not jumped(None, offset(9_000), POLICY)
    assert not jumped(offset(0), offset(400), POLICY)
    assert not jumped(offset(0, 300), offset(1_000, 300), POLICY)
    assert jumped(offset(0), offset(600), POLICY)
    assert jumped(offset(0), offset(-600), POLICY)


def test_a_difference_that_nobody_would_believe_is_refused() -> None:
    near, far = offset(1_000), offset(3_600_000)

    assert require_believable(near, POLICY, where="sim") is near
    with pytest.raises(VenueUnavailable, match="ahead of ours"):
        require_believable(far, POLICY, where="sim")


@given(st.lists(st.integers(0, 10**6), min_size=2))
def test_a_nonce_is_above_all_before_it_whatever_the_clock_does(times: list[int]) -> None:
    source = NonceSource()

    drawn = [source.next(now) for now in times]

    assert drawn == sorted(set(drawn))
    assert all(nonce >= now for nonce, now in zip(drawn, times, strict=True))


def test_a_key_has_one_source_in_a_process() -> None:
    assert nonce_source("a") is nonce_source("a")
    assert nonce_source("a") is not nonce_source("b")


TRADES = KeyPermissions(trade=True, withdraw=False, read=True)


@pytest.mark.parametrize(
    ("permissions", "accept_unknown", "fault"),
    [
        (TRADES, False, None),
        (KeyPermissions(trade=True, withdraw=True, read=True), False, "can withdraw"),
        (KeyPermissions(trade=True, withdraw=True, read=True), True, "can withdraw"),
        (KeyPermissions(trade=True, withdraw=None, read=True), False, "may be able to withdraw"),
        (KeyPermissions(trade=True, withdraw=None, read=True), True, None),
        (KeyPermissions(trade=False, withdraw=False, read=True), False, "cannot trade"),
        (KeyPermissions(trade=True, withdraw=False, read=False), False, "cannot read"),
    ],
)
async def test_a_key_for_trading_trades_and_reads_and_never_withdraws(
    permissions: KeyPermissions, *, accept_unknown: bool, fault: str | None
) -> None:
    gateway: Any = Keyed(permissions)

    found = key_fault(permissions, accept_unknown=accept_unknown)

    assert (found is None) is (fault is None)
    if fault is None:
        assert await require_trading_key(gateway, accept_unknown=accept_unknown) == permissions
    else:
        with pytest.raises(KeyRefused, match=fault):
            await require_trading_key(gateway, accept_unknown=accept_unknown)


class Keyed:
    """A gateway that knows no more than what its key may do."""

    venue, account = "sim", "desk"

    def __init__(self, permissions: KeyPermissions) -> None:
        self._permissions = permissions

    async def permissions(self) -> KeyPermissions:
        return self._permissions


def test_the_words_of_krakens_keys_are_read() -> None:
    reads = ["query-funds", "query-open-trades", "query-closed-trades", "query-ledger"]
    words = [*reads, "modify-trades", "close-trades"]
    reading = KrakenReading()

    assert reading.permissions({"result": {"permissions": words}}) == TRADES
    can = reading.permissions({"result": {"permissions": [*words, "withdraw-funds"]}})
    assert can.withdraw
    for word in ("withdraw-funds", "add-withdraw-address", "update-withdraw-address"):
        assert reading.permissions({"result": {"permissions": [*words, word]}}).withdraw
    for word in words:  # every one of them is needed: for orders, for cancels, to find both again
        left = reading.permissions({"result": {"permissions": [w for w in words if w != word]}})
        assert left == KeyPermissions(trade=word in reads, withdraw=False, read=word not in reads)
    for odd in ({}, {"result": {"permissions": "all"}}, {"result": {"permissions": [7]}}):
        with pytest.raises(BadInput):
            reading.permissions(odd)


def test_a_record_is_found_by_its_name_and_no_other_is_made_up() -> None:
    assert capabilities_of("binance") is BINANCE
    assert {record.ccxt_id for record in RECORDS.values()} == set(RECORDS)
    with pytest.raises(BadInput, match="no record"):
        capabilities_of("nowhere")
