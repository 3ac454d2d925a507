"""The bytes of a segment: a header, then blocks, each with a checksum over its head and its body.

::

    file    magic (8)  length (u32)  JSON of the header  CRC32 of magic, length and JSON (u32)
    block   "CWB1"  kind u8  -  number u32  items u32  plain u32  stored u32
            first_ns i64  last_ns i64  CRC32 of the body u32  CRC32 of this head u32, then the body

All integers are little-endian. Blocks are numbered from 0 without gaps, so one that is missing is
seen. A body is one zstd frame:

    ITEMS  kinds u8[n], times i64[n] as differences to first_ns, connections u32[n],
           symbol lengths u16[n], data lengths u32[n], symbols, data
    LOSS   JSON: a stretch of time of which frames are missing
    END    JSON: counts, and the SHA-256 of every byte before this block; only a whole file has it
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum, unique
from itertools import accumulate, pairwise
from typing import Any, Final
from zlib import crc32

import zstandard

from kernel.money import Asset
from marketdata.model import Instrument
from marketdata.raw import RawItem, RawKind
from marketdata.recording.errors import NotARecording, RecordingDamaged
from marketdata.recording.model import Loss, LossReason, SegmentHeader

MAGIC: Final = b"CWYRAW\x00\x01"
BLOCK_MAGIC: Final = b"CWB1"
HEADER_BYTES_MAX: Final = 16 << 20
PLAIN_BYTES_MAX: Final = 64 << 20
"""No block is larger when it is unpacked: what a damaged length could make us allocate."""

ITEM_BYTES_MAX: Final = 16 << 20

_U32: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<4sBxxxIIIIqqI")
_PREFIX: Final = len(MAGIC) + _U32.size
HEAD_BYTES: Final = _HEAD.size + _U32.size
_BIG_NUMBERS: Final = ("tick", "lot", "lots_min", "lots_max", "min_notional")


@unique
class BlockKind(IntEnum):
    """What is in a block. The numbers never change their meaning."""

    ITEMS = 1
    LOSS = 2
    END = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockHead:
    """The fixed part of a block."""

    kind: BlockKind
    number: int
    items: int
    plain: int
    stored: int
    first_ns: int
    last_ns: int
    body_crc: int


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """What a whole file says at its end."""

    items: int
    blocks: int
    first_ns: int
    last_ns: int
    sha256: str


def encode_header(header: SegmentHeader) -> bytes:
    """Return the first bytes of a file."""
    told = {
        "venue": header.venue,
        "feed": header.feed,
        "session": header.session,
        "number": header.number,
        "started_ns": header.started_ns,
        "options": dict(header.options),
        "instruments": [_instrument_json(one) for one in header.instruments],
    }
    text = json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
    head = MAGIC + _U32.pack(len(text)) + text
    return head + _U32.pack(crc32(head))


def header_length(prefix: bytes) -> int:
    """Return how many bytes the header has, from at least the first 12.

    Raises:
        NotARecording: it is something else.
    """
    if len(prefix) < _PREFIX or not prefix.startswith(MAGIC):
        raise NotARecording("the file does not begin as a recording does")
    (length,) = _U32.unpack_from(prefix, len(MAGIC))
    if length > HEADER_BYTES_MAX:
        raise RecordingDamaged(f"its header says that it has {length} bytes")
    return _PREFIX + int(length) + _U32.size


def decode_header(data: bytes) -> SegmentHeader:
    """Read the first bytes of a file.

    Raises:
        NotARecording: it is something else.
        RecordingDamaged: it was cut off, or its bytes have changed.
    """
    length = header_length(data[:_PREFIX])
    if len(data) < length:
        raise RecordingDamaged("it ends within its header")
    (crc,) = _U32.unpack_from(data, length - _U32.size)
    if crc != crc32(data[: length - _U32.size]):
        raise RecordingDamaged("its header has not the checksum that it says")
    told = json.loads(data[_PREFIX : length - _U32.size])
    return SegmentHeader(
        venue=told["venue"],
        feed=told["feed"],
        session=told["session"],
        number=told["number"],
        started_ns=told["started_ns"],
        options=tuple(sorted(told["options"].items())),
        instruments=tuple(map(_instrument_of, told["instruments"])),
    )


class Packer:
    """Makes blocks: keeps what zstd allocates from one to the next. Not for two threads at once."""

    def __init__(self, level: int) -> None:
        self._compressor = zstandard.ZstdCompressor(level=level)

    def block(
        self, kind: BlockKind, number: int, items: int, body: bytes, span_ns: tuple[int, int]
    ) -> bytes:
        """Return a whole block around *body*."""
        stored = self._compressor.compress(body)
        first_ns, last_ns = span_ns
        head = _HEAD.pack(
            BLOCK_MAGIC,
            kind,
            number,
            items,
            len(body),
            len(stored),
            first_ns,
            last_ns,
            crc32(stored),
        )
        return b"".join((head, _U32.pack(crc32(head)), stored))


def encode_items(items: Sequence[RawItem], number: int, packer: Packer) -> bytes:
    """Return a block of *items*, of which there is at least one."""
    count = len(items)
    times = [item.received_ns for item in items]
    symbols = [item.symbol.encode() for item in items]
    data = [item.data for item in items]
    first_ns, last_ns = min(times), max(times)
    body = b"".join(
        (
            bytes([item.kind for item in items]),
            struct.pack(f"<{count}q", *[at - first_ns for at in times]),
            struct.pack(f"<{count}I", *[item.connection for item in items]),
            struct.pack(f"<{count}H", *map(len, symbols)),
            struct.pack(f"<{count}I", *map(len, data)),
            *symbols,
            *data,
        )
    )
    return packer.block(BlockKind.ITEMS, number, count, body, (first_ns, last_ns))


def encode_loss(loss: Loss, number: int, packer: Packer) -> bytes:
    """Return a block that says what is missing here."""
    span_ns = (loss.since_ns, loss.until_ns)
    return packer.block(BlockKind.LOSS, number, 0, _json(loss), span_ns)


def encode_end(end: End, number: int, packer: Packer) -> bytes:
    """Return the last block of a whole file."""
    span_ns = (end.first_ns, end.last_ns)
    return packer.block(BlockKind.END, number, 0, _json(end), span_ns)


def decode_head(data: bytes, offset: int = 0) -> BlockHead | None:
    """Return the head of a block at *offset*; None: there is none, or not a whole one."""
    if len(data) - offset < HEAD_BYTES:
        return None
    (crc,) = _U32.unpack_from(data, offset + _HEAD.size)
    if crc != crc32(data[offset : offset + _HEAD.size]):
        return None
    magic, kind, number, items, plain, stored, first_ns, last_ns, body_crc = _HEAD.unpack_from(
        data, offset
    )
    if magic != BLOCK_MAGIC or kind not in _KINDS or plain > PLAIN_BYTES_MAX:
        return None
    return BlockHead(
        kind=BlockKind(kind),
        number=number,
        items=items,
        plain=plain,
        stored=stored,
        first_ns=first_ns,
        last_ns=last_ns,
        body_crc=body_crc,
    )


def is_whole(head: BlockHead, stored: bytes) -> bool:
    """Tell whether *stored* is the body that was written with *head*."""
    return len(stored) == head.stored and crc32(stored) == head.body_crc


def unpack(head: BlockHead, stored: bytes) -> bytes:
    """Return the body of a block that is whole, unpacked.

    Raises:
        RecordingDamaged: it is not what the head says, though the checksum is right.
    """
    try:
        if zstandard.frame_content_size(stored) != head.plain:
            raise RecordingDamaged(f"block {head.number} has not the length that it says")
        return zstandard.ZstdDecompressor().decompress(stored, max_output_size=head.plain)
    except zstandard.ZstdError as error:
        raise RecordingDamaged(f"block {head.number} cannot be unpacked: {error}") from error


def decode_items(head: BlockHead, body: bytes) -> list[RawItem]:
    """Return the items of an unpacked block.

    Raises:
        RecordingDamaged: it is not what `encode_items` makes.
    """
    count = head.items
    try:
        kinds = [_RAW_KINDS[kind] for kind in body[:count]]
        at = count
        times = struct.unpack_from(f"<{count}q", body, at)
        connections = struct.unpack_from(f"<{count}I", body, at + 8 * count)
        symbol_lengths = struct.unpack_from(f"<{count}H", body, at + 12 * count)
        data_lengths = struct.unpack_from(f"<{count}I", body, at + 14 * count)
        at += 18 * count
        symbols = _pieces(body, at, symbol_lengths)
        at += sum(symbol_lengths)
        data = _pieces(body, at, data_lengths)
        if at + sum(data_lengths) != len(body):
            raise RecordingDamaged(f"block {head.number} has bytes that belong to no item")
        texts = [symbol.decode() for symbol in symbols]
    except (struct.error, KeyError, UnicodeDecodeError) as error:
        raise RecordingDamaged(f"block {head.number} cannot be read: {error}") from error
    first_ns = head.first_ns
    return [
        RawItem(kind, first_ns + since, connection, symbol, one)
        for kind, since, connection, symbol, one in zip(
            kinds, times, connections, texts, data, strict=True
        )
    ]


def decode_loss(body: bytes) -> Loss:
    """Return what an unpacked block says is missing."""
    told = json.loads(body)
    return Loss(**told | {"reason": LossReason(told["reason"])})


def decode_end(body: bytes) -> End:
    """Return what an unpacked last block says."""
    return End(**json.loads(body))


_KINDS: Final = frozenset(BlockKind)
_RAW_KINDS: Final = {int(kind): kind for kind in RawKind}


def _pieces(body: bytes, at: int, lengths: Sequence[int]) -> list[bytes]:
    ends = list(accumulate(lengths, initial=at))
    return [body[start:end] for start, end in pairwise(ends)]


def _json(value: Loss | End) -> bytes:
    return json.dumps(asdict(value), sort_keys=True, separators=(",", ":")).encode()


def _instrument_json(one: Instrument) -> dict[str, Any]:
    told = asdict(one)
    # Numbers may have more digits than other readers of JSON keep.
    return told | {name: str(told[name]) for name in _BIG_NUMBERS}


def _instrument_of(told: dict[str, Any]) -> Instrument:
    numbers = {name: int(told[name]) for name in _BIG_NUMBERS}
    return Instrument(
        **told | numbers | {"base": Asset(**told["base"]), "quote": Asset(**told["quote"])}
    )
