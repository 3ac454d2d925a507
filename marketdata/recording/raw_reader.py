"""Reading segments: every byte is checked, and what is wrong is named with the byte it begins at."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from marketdata.raw import RawItem, RawKind
from marketdata.recording.durable import sha256_of
from marketdata.recording.errors import NotARecording, RecordingDamaged, RecordingUnfinished
from marketdata.recording.framing import (
    BLOCK_MAGIC,
    HEAD_BYTES,
    MAGIC,
    BlockHead,
    BlockKind,
    decode_end,
    decode_head,
    decode_header,
    decode_items,
    decode_loss,
    header_length,
    is_whole,
    unpack,
)
from marketdata.recording.model import FileKind, Loss, RecordedFile, SegmentHeader

_SEARCH_BYTES: Final = 1 << 20
_PREFIX_BYTES: Final = len(MAGIC) + 4
_REMEDY: Final = "Recover it: a recorder does when it starts"


@dataclass(frozen=True, slots=True)
class Block:
    """A block that is what was written, and where it begins."""

    offset: int
    head: BlockHead
    raw: bytes

    @property
    def end(self) -> int:
        """Return the byte behind it."""
        return self.offset + len(self.raw)

    def body(self) -> bytes:
        """Return what is in it, unpacked."""
        return unpack(self.head, self.raw[HEAD_BYTES:])


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no block: cut off, or changed. `is_tail`: nothing that is whole follows."""

    offset: int
    size: int
    what: str
    is_tail: bool


def read_header(path: Path) -> SegmentHeader:
    """Return what a segment says about itself.

    Raises:
        NotARecording, RecordingDamaged: with the path.
    """
    with path.open("rb") as file:
        return _header(path, file)[0]


def header_size(path: Path) -> int:
    """Return where the first block of a segment begins."""
    with path.open("rb") as file:
        return _header(path, file)[1]


def describe(directory: Path, path: Path) -> RecordedFile:
    """Read a whole segment and return what the manifest says of it.

    Raises:
        RecordingDamaged: something is wrong with it.
    """
    header = read_header(path)
    items, first_ns, last_ns = 0, 0, 0
    losses: list[Loss] = []
    for found in checked(path):
        if isinstance(found, Loss):
            losses.append(found)
            continue
        times = [item.received_ns for item in found]
        items += len(found)
        first_ns = min(first_ns or times[0], *times)
        last_ns = max(last_ns, *times)
    return RecordedFile(
        kind=FileKind.RAW,
        path=path.relative_to(directory).as_posix(),
        venue=header.venue,
        session=header.session,
        size=path.stat().st_size,
        sha256=sha256_of(path),
        rows=items,
        first_ns=first_ns or header.started_ns,
        last_ns=last_ns or header.started_ns,
        gaps=len(losses),
        losses=tuple(losses),
    )


def blocks(path: Path) -> Iterator[Block | Damage]:
    """Yield what is in a segment behind its header, in order, memory bounded by one block.

    Behind damage it looks for the next whole block. Nothing is judged: whether blocks are missing,
    whether there is an end.

    Raises:
        NotARecording, RecordingDamaged: the header cannot be read.
    """
    with path.open("rb") as file:
        offset = _header(path, file)[1]
        while True:
            file.seek(offset)
            found = _block(file, offset)
            if found is None:
                return
            if isinstance(found, Block):
                yield found
                offset = found.end
                continue
            resumed = _search(file, offset + 1)
            size = (path.stat().st_size if resumed is None else resumed) - offset
            yield Damage(offset, size, found.what, is_tail=resumed is None)
            if resumed is None:
                return
            offset = resumed


def read(path: Path, *, unfinished: bool = False) -> Iterator[RawItem]:
    """Yield the items of a segment, in order; a loss on record comes as a LOST item in its place.

    That item has connection 0: it is of none, and concerns all.

    Args:
        path: a segment.
        unfinished: take a file that has no end, up to its last whole block: one being written.

    Raises:
        NotARecording: the file is something else.
        RecordingDamaged: after everything that is whole before it; the message says from which byte.
        RecordingUnfinished: it ends without an end.
    """
    for found in checked(path, unfinished=unfinished):
        if isinstance(found, Loss):
            yield item_of(found)
        else:
            yield from found


def item_of(loss: Loss) -> RawItem:
    """Return what a machine is told in place of what is missing."""
    return RawItem(RawKind.LOST, loss.until_ns, 0, "", loss.text().encode())


def checked(path: Path, *, unfinished: bool = False) -> Iterator[list[RawItem] | Loss]:
    """Yield the items of a segment block by block, and losses in their place; see `read`."""
    expected, items, digest = 0, 0, hashlib.sha256()
    size = header_size(path)
    with path.open("rb") as file:
        digest.update(file.read(size))
    for found in blocks(path):
        if isinstance(found, Damage):
            if unfinished and found.is_tail:
                return
            kind = RecordingUnfinished if found.is_tail else RecordingDamaged
            raise kind(f"{found.what} at byte {found.offset}", where=str(path), remedy=_REMEDY)
        head = found.head
        if head.number != expected:
            what = f"blocks {expected} to {head.number - 1} are missing before byte {found.offset}"
            raise RecordingDamaged(what, where=str(path))
        if head.kind is BlockKind.END:
            _check_end(path, found, items, digest.hexdigest())
            return
        expected += 1
        digest.update(found.raw)
        if head.kind is BlockKind.LOSS:
            yield decode_loss(found.body())
            continue
        items += head.items
        yield decode_items(head, found.body())
    if not unfinished:
        what = f"it has no end behind block {expected - 1}"
        raise RecordingUnfinished(what, where=str(path), remedy=_REMEDY)


def _check_end(path: Path, block: Block, items: int, digest: str) -> None:
    end = decode_end(block.body())
    if (end.items, end.blocks, end.sha256) != (items, block.head.number, digest):
        raise RecordingDamaged(
            f"it says that it has {end.items} items in {end.blocks} blocks, and has {items} in"
            f" {block.head.number}, or other ones",
            where=str(path),
        )
    if path.stat().st_size != block.end:
        raise RecordingDamaged(f"something follows its end at byte {block.end}", where=str(path))


def _header(path: Path, file: BinaryIO) -> tuple[SegmentHeader, int]:
    prefix = file.read(_PREFIX_BYTES)
    try:
        length = header_length(prefix)
        return decode_header(prefix + file.read(length - len(prefix))), length
    except NotARecording as error:
        raise NotARecording(error.what, where=str(path)) from error
    except RecordingDamaged as error:
        raise RecordingDamaged(error.what, where=str(path)) from error


def _block(file: BinaryIO, offset: int) -> Block | Damage | None:
    """Return what begins at the file's position; None: it ends here."""
    first = file.read(HEAD_BYTES)
    if not first:
        return None
    head = decode_head(first)
    if head is None:
        cut = len(first) < HEAD_BYTES
        what = "a block's head is cut off" if cut else "there is no block, or its head has changed"
        return Damage(offset, 0, what, is_tail=False)
    stored = file.read(head.stored)
    if not is_whole(head, stored):
        cut = len(stored) < head.stored
        what = f"block {head.number} is cut off" if cut else f"block {head.number} has changed"
        return Damage(offset, 0, what, is_tail=False)
    return Block(offset, head, first + stored)


def _search(file: BinaryIO, offset: int) -> int | None:
    """Return where the next whole block begins at or behind *offset*; None: there is none."""
    while True:
        file.seek(offset)
        window = file.read(_SEARCH_BYTES)
        at = window.find(BLOCK_MAGIC)
        while at >= 0:
            file.seek(offset + at)
            if isinstance(_block(file, offset + at), Block):
                return offset + at
            at = window.find(BLOCK_MAGIC, at + 1)
        if len(window) < _SEARCH_BYTES:
            return None
        # A magic may lie across the border of two windows.
        offset += len(window) - len(BLOCK_MAGIC) + 1
