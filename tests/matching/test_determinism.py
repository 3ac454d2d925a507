"""The same tape gives the same events, on every run, machine and Python."""

import subprocess
import sys
from collections import Counter

import pytest

from matching.book import OrderBook
from matching.digest import EventHash, event_hash, line_of
from matching.model import (
    Accepted,
    Expired,
    ExpireReason,
    NewOrder,
    Replaced,
    SelfTradePrevention,
    Side,
    TimeInForce,
    Traded,
)
from matching.testing import Cancel, Replace, limit_cancel_tape, mixed_tape, play

SEED, LENGTH = 7, 5_000
MIXED = "f657e03d110b2fe303b00f0a48e0cdf6cb54d397a94dad3bd7dabc3fab7ae670"
LIMIT_CANCEL = "04a58a96057952290fd35d81fdb9ba3faf2f6f5e741d77ac5fe84c03b4545881"
"""Pinned: they change only with a rule of the book, the tape, or the form of an event."""


def test_the_events_of_a_fixed_tape_are_pinned() -> None:
    assert event_hash(play(OrderBook(), mixed_tape(SEED, LENGTH))) == MIXED
    assert event_hash(play(OrderBook(), limit_cancel_tape(SEED, LENGTH))) == LIMIT_CANCEL


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_another_process_gives_the_same_hash(hash_seed: str) -> None:
    script = (
        "from matching.book import OrderBook; from matching.digest import event_hash; "
        "from matching.testing import mixed_tape, play; "
        f"print(event_hash(play(OrderBook(), mixed_tape({SEED}, {LENGTH}))))"
    )
    environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
    )

    assert found.stdout.strip() == MIXED


def test_a_mixed_tape_has_every_kind_of_order_and_every_prevention() -> None:
    tape = mixed_tape(SEED, LENGTH)
    orders = [command for command in tape if isinstance(command, NewOrder)]

    assert {type(command) for command in tape} == {NewOrder, Cancel, Replace}
    assert {order.time_in_force for order in orders} == set(TimeInForce)
    assert {order.self_trade_prevention for order in orders} == set(SelfTradePrevention)
    assert {order.price_ticks is None for order in orders} == {True, False}
    assert {order.post_only for order in orders} == {True, False}
    events = play(OrderBook(), tape)
    assert len({type(event) for event in events}) == 7
    assert {event.kept_priority for event in events if isinstance(event, Replaced)} == {True, False}


def test_a_limit_and_cancel_tape_names_only_orders_that_rest() -> None:
    tape = limit_cancel_tape(SEED, LENGTH)
    names = Counter(type(event).__name__ for event in play(OrderBook(), tape))

    assert set(names) == {"Accepted", "Cancelled", "Traded"}
    assert names["Cancelled"] == sum(isinstance(command, Cancel) for command in tape)


def test_an_event_is_told_by_its_name_and_fields() -> None:
    expired = Expired(3, 5, ExpireReason.SELF_TRADE)

    assert line_of(Accepted(7)) == "Accepted 7"
    assert line_of(expired) == "Expired 3 5 SELF_TRADE"
    assert line_of(Traded(1, 2, 3, Side.BUY, 100, 4, 0, 5)) == "Traded 1 2 3 BUY 100 4 0 5"


def test_a_hash_depends_on_the_order_of_events_and_not_on_their_batches() -> None:
    one, two = Accepted(1), Accepted(2)
    digest = EventHash()
    digest.add((one,))
    digest.add((two,))

    assert digest.hexdigest() == event_hash((one, two))
    assert digest.hexdigest() != event_hash((two, one))
