"""How questions and answers travel: a frame is four bytes of length (big-endian) and that much JSON.

One answer follows each question.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

import msgspec

from custody.signer.wire import Answer, Question
from kernel.errors import BadInput

FRAME_BYTES_MAX: Final = 1_048_576
NESTING_MAX: Final = 32
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A string of JSON; one that does not end takes the rest, so that the search stays linear."""
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


def require_shallow(body: bytes) -> None:
    """Refuse JSON nested so deep that reading it could exhaust the stack, before it is read.

    Raises:
        BadInput: deeper than any question is.
    """
    depth = 0
    for bracket in _STRING.sub(b"", body).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > NESTING_MAX:
            raise BadInput(f"a frame nested in more than {NESTING_MAX} levels")


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Return the next frame.

    Raises:
        BadInput: its announced length is out of bounds.
        asyncio.IncompleteReadError: the other side closed.
    """
    length = int.from_bytes(await reader.readexactly(4), "big")
    if not 0 < length <= FRAME_BYTES_MAX:
        raise BadInput(f"a frame of {length} bytes; 1 to {FRAME_BYTES_MAX} are possible")
    return await reader.readexactly(length)


async def write_frame(writer: asyncio.StreamWriter, message: Question | Answer) -> None:
    """Send *message* as one frame."""
    await write_body(writer, msgspec.json.encode(message))


async def write_body(writer: asyncio.StreamWriter, body: bytes) -> None:
    """Send the encoded message *body* as one frame."""
    if len(body) > FRAME_BYTES_MAX:
        raise BadInput(f"a frame of {len(body)} bytes; {FRAME_BYTES_MAX} are possible")
    writer.write(len(body).to_bytes(4, "big") + body)
    await writer.drain()
