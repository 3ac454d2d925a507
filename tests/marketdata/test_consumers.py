"""Two kinds of consumers: the newest value only, and everything with its gaps."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from marketdata.consumers import LatestSlot, LosslessQueue, Overflow
from marketdata.raw import RawItem, RawKind

PATIENCE_S = 10


def item(number: int) -> RawItem:
    return RawItem(RawKind.FRAME, received_ns=number, connection=1, data=b"%d" % number)


async def test_a_slot_shows_the_newest_value_and_forgets_the_others() -> None:
    slot = LatestSlot[int]()
    empty = slot.get()
    for value in (1, 2, 3):
        slot.put(value)

    assert empty is None
    assert slot.get() == 3
    assert await slot.wait() == 3
    assert slot.version == 3


async def test_whoever_waits_for_a_slot_is_given_a_value_that_it_has_not_seen() -> None:
    slot = LatestSlot[int]()
    slot.put(1)
    first = await slot.wait()

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        reader = group.create_task(slot.wait(slot.version))
        await asyncio.sleep(0)
        waited = not reader.done()
        slot.put(2)

    assert (first, waited, reader.result()) == (1, True, 2)


async def test_a_slot_without_a_usable_value_keeps_its_readers_waiting() -> None:
    slot = LatestSlot[int]()
    slot.put(1)
    slot.put(None)

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        readers = [group.create_task(slot.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        shown = [slot.get(), *(reader.done() for reader in readers)]
        slot.put(4)

    assert shown == [None, False, False, False]
    assert [reader.result() for reader in readers] == [4, 4, 4]


async def test_a_queue_delivers_everything_in_order() -> None:
    queue = LosslessQueue[RawItem](10)
    for number in range(7):
        assert queue.put_nowait(item(number))

    batches = [await queue.get_batch(3) for _ in range(3)]

    assert batches == [[item(n) for n in part] for part in ((0, 1, 2), (3, 4, 5), (6,))]


async def test_a_reader_of_an_empty_queue_waits_for_the_next_item() -> None:
    queue = LosslessQueue[RawItem](10)

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        reader = group.create_task(queue.get_batch(5))
        await asyncio.sleep(0)
        waited = not reader.done()
        queue.put_nowait(item(1))
        queue.put_nowait(item(2))

    assert waited
    assert reader.result() == [item(1), item(2)]


def test_a_full_queue_drops_and_says_so_once_in_the_place_where_it_happened() -> None:
    told: list[Overflow] = []
    queue = LosslessQueue[RawItem](4, told.append)
    added = [queue.put_nowait(item(n)) for n in range(1, 8)]
    first = queue.take_nowait(3)
    after = queue.put_nowait(item(8))

    assert added == [True] * 4 + [False] * 3
    assert first == [item(1), item(2), item(3)]
    assert after
    assert queue.take_nowait(9) == [item(4), Overflow(5, 7, 3), item(8)]
    assert told == [Overflow(5, 5, 1)]
    assert queue.dropped == 3


def test_an_overflow_is_delivered_although_nothing_comes_after_it() -> None:
    queue = LosslessQueue[RawItem](2)
    for number in range(1, 6):
        queue.put_nowait(item(number))

    assert queue.take_nowait(2) == [item(1), item(2)]
    assert len(queue) == 1
    assert queue.take_nowait(2) == [Overflow(3, 5, 3)]
    assert not len(queue)


def test_a_slow_moment_makes_one_gap_and_not_many() -> None:
    queue = LosslessQueue[RawItem](10)
    for number in range(10):
        queue.put_nowait(item(number))
    for number in range(10, 14):
        queue.put_nowait(item(number))
        queue.take_nowait(1)

    rest = queue.take_nowait(100)

    assert [x for x in rest if isinstance(x, Overflow)] == [Overflow(10, 13, 4)]


@given(
    maxsize=st.integers(1, 6),
    moves=st.lists(st.one_of(st.none(), st.integers(1, 5)), max_size=60),
)
def test_whatever_was_put_is_delivered_or_counted_and_the_queue_never_grows(
    maxsize: int, moves: list[int | None]
) -> None:
    """A move puts the next number (None) or takes up to so many."""
    queue = LosslessQueue[RawItem](maxsize)
    put = 0
    out: deque[RawItem | Overflow] = deque()
    for move in moves:
        if move is None:
            put += 1
            queue.put_nowait(item(put))
        else:
            out.extend(queue.take_nowait(move))
        assert len(queue) <= maxsize + 1
    out.extend(queue.take_nowait(10**6))

    expected = 1
    for found in out:
        if isinstance(found, Overflow):
            assert found.since_ns == expected
            assert found.until_ns == found.since_ns + found.dropped - 1
            expected = found.until_ns + 1
        else:
            assert found.received_ns == expected
            expected += 1
    assert expected == put + 1


def test_a_queue_without_room_is_refused() -> None:
    with pytest.raises(BadInput):
        LosslessQueue[RawItem](0)
