"""What a killed recorder has left is made whole, and what it lost is said in the file itself.

Bytes that are no block are taken out and counted. Whatever was whole stays, in its order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from marketdata.raw import RawItem
from marketdata.recording.durable import rename
from marketdata.recording.errors import NotARecording, RecordingDamaged
from marketdata.recording.framing import BlockHead, BlockKind, Packer, decode_items, decode_loss
from marketdata.recording.layout import (
    OPEN_SUFFIX,
    list_open,
    list_unfinished,
)
from marketdata.recording.model import Loss, LossReason, RecordedFile, SegmentHeader
from marketdata.recording.raw_reader import (
    Block,
    Damage,
    blocks,
    describe,
    header_size,
    read_header,
)
from marketdata.recording.segment_file import SegmentFile

BROKEN_SUFFIX: Final = ".broken"


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was left open: finished now, or put aside because not even its header can be read."""

    files: tuple[RecordedFile, ...] = ()
    put_aside: tuple[Path, ...] = ()


def recover(directory: Path, venue: str, packer: Packer, now_ns: int) -> Recovery:
    """Finish every segment of *venue* that was left open, and return what is in it now.

    The caller holds the right to write the venue's recording.

    Raises:
        OSError: the disk refuses; what was left open stays so.
    """
    for stray in list_unfinished(directory, venue):
        stray.unlink()
    files: list[RecordedFile] = []
    put_aside: list[Path] = []
    for path in list_open(directory, venue):
        try:
            files.append(_recovered(directory, path, packer, now_ns))
        except (NotARecording, RecordingDamaged):
            aside = path.with_name(path.name + BROKEN_SUFFIX)
            rename(path, aside)
            put_aside.append(aside)
    return Recovery(tuple(files), tuple(put_aside))


@dataclass(slots=True)
class _Survey:
    """What is in a file that was left open.

    Attributes:
        size: bytes up to the last whole block.
        tail: what follows it and is no block.
        is_broken: something is wrong before that.
    """

    size: int
    last_ns: int
    tail: Damage | None = None
    is_broken: bool = False
    has_end: bool = False


def _recovered(directory: Path, path: Path, packer: Packer, now_ns: int) -> RecordedFile:
    header = read_header(path)
    survey = _surveyed(path, header)
    if survey.has_end and not survey.is_broken:
        # It was killed between its last byte and its name.
        final = path.with_name(path.name.removesuffix(OPEN_SUFFIX))
        rename(path, final)
        return describe(directory, final)
    segment = SegmentFile(directory, header, packer)
    if survey.is_broken:
        segment.rewrite(_parts(path, header.started_ns))
    else:
        segment.resume(survey.size, _heads(path))
    tail = survey.tail
    segment.add_loss(
        Loss(
            reason=LossReason.KILLED,
            since_ns=survey.last_ns,
            until_ns=max(now_ns, survey.last_ns),
            size=tail.size if tail else 0,
            detail=f"{tail.what} at byte {tail.offset}" if tail else "",
        )
    )
    return segment.finish()


def _surveyed(path: Path, header: SegmentHeader) -> _Survey:
    survey = _Survey(size=header_size(path), last_ns=header.started_ns)
    expected = 0
    for found in blocks(path):
        # Nothing may follow an end, and a block that follows damage shows that it is no tail.
        survey.is_broken |= survey.has_end or survey.tail is not None
        if isinstance(found, Damage):
            survey.tail = found
            continue
        survey.is_broken |= found.head.number != expected
        expected += 1
        survey.size = found.end
        survey.has_end = found.head.kind is BlockKind.END
        survey.last_ns = max(survey.last_ns, found.head.last_ns)
    survey.is_broken |= survey.has_end and survey.tail is not None
    return survey


def _heads(path: Path) -> Iterator[BlockHead | Loss]:
    for found in blocks(path):
        if isinstance(found, Block):
            is_loss = found.head.kind is BlockKind.LOSS
            yield decode_loss(found.body()) if is_loss else found.head


def _parts(path: Path, last_ns: int) -> Iterator[Sequence[RawItem] | Loss]:
    """Yield what is whole, with a loss where something is not."""
    expected, missing = 0, Loss(reason=LossReason.DAMAGED, since_ns=0, until_ns=0)
    damage: Damage | None = None
    for found in blocks(path):
        if isinstance(found, Damage):
            damage = found
            continue
        head = found.head
        if damage is not None or head.number != expected:
            yield replace(
                missing,
                since_ns=last_ns,
                until_ns=max(last_ns, head.first_ns),
                size=damage.size if damage else 0,
                detail=f"{damage.what} at byte {damage.offset}" if damage else "",
            )
        damage, expected = None, head.number + 1
        last_ns = max(last_ns, head.last_ns)
        match head.kind:
            case BlockKind.ITEMS:
                yield decode_items(head, found.body())
            case BlockKind.LOSS:
                yield decode_loss(found.body())
            case BlockKind.END:
                pass
