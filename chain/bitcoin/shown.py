"""A block as ``getblock`` with verbosity 3 shows it: of its JSON only what is held against the block's hash.

Whole blocks are most of what a house reads that was away. What is not declared here is skipped by
the decoder and never becomes an object. Amounts stay digits until somebody needs one.

Source: Bitcoin Core's help of ``getblock``.
"""

from __future__ import annotations

import msgspec


class ShownScript(msgspec.Struct, gc=False):
    """The script of an output, in hexadecimal digits."""

    hex: str


class ShownOutput(msgspec.Struct, gc=False):
    """An output that is spent; *value* is coins with up to eight decimals, as the node's digits."""

    value: msgspec.Raw
    script: ShownScript = msgspec.field(name="scriptPubKey")


class ShownInput(msgspec.Struct, gc=False):
    """An input; a node without undo data, and new coins, show no *prevout*."""

    prevout: ShownOutput | None = None


class ShownTransaction(msgspec.Struct, gc=False):
    """A transaction: its bytes in hexadecimal digits, and what its inputs spend."""

    hex: str
    vin: list[ShownInput]


class ShownBlock(msgspec.Struct, gc=False):
    """A block: what its header is made of, and its transactions."""

    hash: str
    height: int
    version: int
    merkleroot: str
    time: int
    nonce: int
    bits: str
    tx: list[ShownTransaction]
    previousblockhash: str | None = None


class BlockAnswer(msgspec.Struct, gc=False):
    """The answer that a block comes in; without a block there is an error in it."""

    id: int
    result: ShownBlock | None = None


read_block_answer = msgspec.json.Decoder(BlockAnswer).decode
