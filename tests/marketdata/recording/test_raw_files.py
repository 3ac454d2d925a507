"""Segments: what was written is read; whatever was cut off or changed is named, and nothing else lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.clock import ManualClock
from marketdata.consumers import Overflow
from marketdata.raw import RawItem, RawKind
from marketdata.recording.errors import (
    NotARecording,
    RecorderRunning,
    RecordingDamaged,
    RecordingUnfinished,
)
from marketdata.recording.framing import (
    Packer,
    decode_head,
    decode_header,
    decode_items,
    encode_header,
    encode_items,
)
from marketdata.recording.layout import list_open, list_segments, open_path
from marketdata.recording.model import LossReason, SegmentHeader, WritePolicy
from marketdata.recording.raw_reader import Block, blocks, checked, header_size, read, read_header
from marketdata.recording.raw_writer import RawWriter
from marketdata.testing import eth_usdt

POLICY = WritePolicy(free_bytes_min=0)
PACKER = Packer(3)
START_NS = ManualClock().now_ns()


def frames(count: int, *, start: int = 0, size: int = 40) -> list[RawItem]:
    return [
        RawItem(RawKind.FRAME, START_NS + number, 1, "", f'{{"u":{number}}}'.encode().ljust(size))
        for number in range(start, start + count)
    ]


def writer_at(directory: Path, clock: ManualClock | None = None, **changes: Any) -> RawWriter:
    policy = replace(POLICY, **changes)
    return RawWriter(
        directory,
        "sim",
        clock or ManualClock(),
        feed="tiny",
        policy=policy,
    )


@pytest.fixture
def left_open(tmp_path: Path) -> Path:
    """A segment of three blocks of five frames, as it lies there while its writer lives."""
    writer = writer_at(tmp_path)
    for start in (0, 5, 10):
        writer.write(frames(5, start=start))
        writer.flush()
    (path,) = list_open(tmp_path)
    content = path.read_bytes()
    writer.close()
    for whole in list_segments(tmp_path):
        whole.unlink()
    path.write_bytes(content)
    return path


raw_items = st.builds(
    RawItem,
    st.sampled_from(RawKind),
    st.integers(0, 2**62),
    st.integers(0, 2**32 - 1),
    st.text(max_size=20),
    st.binary(max_size=200),
)


@given(st.lists(raw_items, min_size=1, max_size=30))
def test_what_is_put_into_a_block_comes_out_of_it(items: list[RawItem]) -> None:
    block = encode_items(items, 7, PACKER)
    head = decode_head(block)

    assert head is not None
    assert (head.number, head.items) == (7, len(items))
    assert head.first_ns == min(item.received_ns for item in items)
    assert head.last_ns == max(item.received_ns for item in items)
    found = Block(0, head, block)
    assert decode_items(head, found.body()) == items


def test_a_header_says_everything_that_its_machine_needs() -> None:
    header = SegmentHeader(
        venue="sim",
        feed="binance",
        session="0001",
        number=3,
        started_ns=10**18,
        instruments=(eth_usdt(),),
        options=(("channels", "book"), ("depth", "10")),
    )

    assert decode_header(encode_header(header)) == header


def test_what_was_written_is_read_in_its_order_across_segments(tmp_path: Path) -> None:
    with writer_at(tmp_path, block_bytes=500, segment_bytes=900) as writer:
        writer.write(frames(200))
        session = writer.session
    paths = list_segments(tmp_path)

    assert len(paths) > 3
    assert list_open(tmp_path) == []
    assert [item for path in paths for item in read(path)] == frames(200)
    assert [read_header(path).number for path in paths] == list(range(1, len(paths) + 1))
    assert {read_header(path).session for path in paths} == {session}
    assert sum(file.rows for file in writer.finished) == 200


def test_a_segment_ends_with_its_hour(tmp_path: Path) -> None:
    clock = ManualClock()
    with writer_at(tmp_path, clock) as writer:
        writer.write(frames(1))
        writer.flush()
        clock.advance(timedelta(hours=1))
        writer.write(frames(1, start=1))
        writer.flush()
        writer.write(frames(1, start=2))

    assert [file.rows for file in writer.finished] == [2, 1]


def test_a_recorder_of_which_nothing_came_leaves_nothing(tmp_path: Path) -> None:
    writer_at(tmp_path).close()

    assert list_segments(tmp_path) == []
    assert list_open(tmp_path) == []


def test_only_one_process_records_a_venue_into_a_directory(tmp_path: Path) -> None:
    with writer_at(tmp_path) as writer:
        writer.write(frames(3))
        with pytest.raises(RecorderRunning):
            writer_at(tmp_path)
        RawWriter(tmp_path, "other", ManualClock(), policy=POLICY).close()
    writer_at(tmp_path).close()


def test_a_cut_at_any_byte_costs_only_what_is_behind_it_and_is_said(
    left_open: Path, tmp_path: Path
) -> None:
    """Every length of the last block, as a power cut may leave it."""
    content, begin = left_open.read_bytes(), header_size(left_open)
    ends = [begin, *[found.end for found in blocks(left_open) if isinstance(found, Block)]]
    clock = ManualClock()
    clock.advance(timedelta(seconds=1))
    seen = set()
    for length in range(ends[2], len(content) + 1):
        left_open.write_bytes(content[:length])
        whole = sum(end <= length for end in ends) - 1
        seen.add(whole)
        expected = frames(5 * whole)

        with pytest.raises(RecordingUnfinished) as refused:
            list(read(left_open))
        assert str(left_open) in str(refused.value)
        assert list(read(left_open, unfinished=True)) == expected

        with writer_at(tmp_path, clock) as writer:
            (file,) = writer.recovery.files
        path = tmp_path / file.path
        (*before, last) = list(read(path))
        assert before == expected
        assert last.kind is RawKind.LOST
        assert b"killed" in last.data
        (loss,) = file.losses
        torn = length - ends[whole]
        assert (loss.reason, loss.items, loss.size) == (LossReason.KILLED, None, torn)
        assert (f"at byte {ends[whole]}" in loss.detail) == (torn > 0)
        assert loss.until_ns == clock.now_ns()
        assert list_open(tmp_path) == []
        path.unlink()
    assert seen == {2, 3}


def test_a_whole_segment_that_is_cut_at_any_byte_is_not_taken_for_whole(tmp_path: Path) -> None:
    with writer_at(tmp_path) as writer:
        writer.write(frames(4))
    (path,) = list_segments(tmp_path)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises((RecordingDamaged, NotARecording), match=str(path)):
            list(read(path))


def test_a_byte_that_has_changed_anywhere_is_found(tmp_path: Path) -> None:
    with writer_at(tmp_path) as writer:
        for start in (0, 4):
            writer.write(frames(4, start=start))
            writer.flush()
    (path,) = list_segments(tmp_path)
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :])
        with pytest.raises((RecordingDamaged, NotARecording), match=str(path)):
            list(read(path))
    path.write_bytes(content + b"x")
    with pytest.raises(RecordingDamaged, match="follows its end"):
        list(read(path))


def test_blocks_behind_damage_are_kept_and_the_hole_is_said(
    left_open: Path, tmp_path: Path
) -> None:
    content = bytearray(left_open.read_bytes())
    first, second, _ = [found for found in blocks(left_open) if isinstance(found, Block)]
    content[second.offset + 60] ^= 1
    left_open.write_bytes(content)

    with writer_at(tmp_path) as writer:
        (file,) = writer.recovery.files
    parts = list(checked(tmp_path / file.path))

    assert parts[0] == frames(5)
    assert parts[2] == frames(5, start=10)
    damaged, killed = file.losses
    assert (damaged.reason, damaged.since_ns) == (LossReason.DAMAGED, first.head.last_ns)
    assert damaged.size == second.end - second.offset
    assert killed.reason is LossReason.KILLED
    assert file.rows == 10


def test_a_block_that_was_taken_out_is_missed(tmp_path: Path) -> None:
    with writer_at(tmp_path) as writer:
        for start in (0, 5, 10):
            writer.write(frames(5, start=start))
            writer.flush()
    (path,) = list_segments(tmp_path)
    content = path.read_bytes()
    _, second, _, _ = [found for found in blocks(path) if isinstance(found, Block)]
    path.write_bytes(content[: second.offset] + content[second.end :])

    with pytest.raises(RecordingDamaged, match="blocks 1 to 1 are missing"):
        list(read(path))


def test_a_file_without_a_header_is_put_aside_and_recording_goes_on(
    left_open: Path, tmp_path: Path
) -> None:
    left_open.write_bytes(left_open.read_bytes()[:20])
    with writer_at(tmp_path) as writer:
        writer.write(frames(1))

    assert [path.suffix for path in writer.recovery.put_aside] == [".broken"]
    assert [file.rows for file in writer.finished] == [1]


def test_a_segment_that_only_lacks_its_name_is_named(tmp_path: Path) -> None:
    with writer_at(tmp_path) as writer:
        writer.write(frames(4))
    (path,) = list_segments(tmp_path)
    path.rename(open_path(path))
    with writer_at(tmp_path) as again:
        pass

    assert again.recovery.files == tuple(writer.finished)
    assert list(read(path)) == frames(4)


def test_what_the_queue_dropped_is_said_where_it_was(tmp_path: Path) -> None:
    items: list[RawItem | Overflow] = [
        *frames(3),
        Overflow(START_NS + 3, START_NS + 9, 7),
        *frames(2, start=10),
    ]
    with writer_at(tmp_path) as writer:
        writer.write(items)
    (file,) = writer.finished
    found = list(read(tmp_path / file.path))

    assert [item.kind for item in found] == [RawKind.FRAME] * 3 + [RawKind.LOST] + [
        RawKind.FRAME
    ] * 2
    assert found[3].data == b"overflow: 7 items not recorded (overflow)"
    assert (writer.lost, file.rows, file.gaps) == (7, 5, 1)


def test_a_frame_beyond_every_bound_is_not_kept_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marketdata.recording.raw_writer.ITEM_BYTES_MAX", 100)
    with writer_at(tmp_path) as writer:
        writer.write([*frames(1), *frames(1, start=1, size=101), *frames(1, start=2)])
    (file,) = writer.finished

    assert [(loss.reason, loss.items) for loss in file.losses] == [(LossReason.OVERSIZED, 1)]
    assert file.rows == 2
