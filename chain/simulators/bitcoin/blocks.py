"""Bytes of blocks: headers, Merkle roots, the coinbase, and the search for a nonce. Pure.

Sources: BIP 34 (height in the coinbase), BIP 141 (commitment to witnesses), BIP 113 (median time),
Bitcoin Core ``src/consensus/merkle.cpp``, ``src/node/miner.cpp`` and ``src/kernel/chainparams.cpp``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chain.bitcoin.reading import encode_size
from chain.bitcoin.scripts import OP_0, OP_1, OP_RETURN
from chain.bitcoin.transactions import (
    SEQUENCE_FINAL,
    Input,
    Outpoint,
    Output,
    Transaction,
    encode_bytes,
)
from chain.keys.hashes import double_sha256
from chain.simulators.bitcoin.model import Header, Packed

HEADER_BYTES: Final = 80
BLOCK_VERSION: Final = 0x20000000
REGTEST_BITS: Final = 0x207FFFFF
REGTEST_TARGET: Final = 0x7FFFFF << 8 * (0x20 - 3)
HALVING_BLOCKS: Final = 150
"""On regtest; 210,000 on the main network."""
FIRST_SUBSIDY: Final = 50 * 100_000_000
MEDIAN_BLOCKS: Final = 11
NO_HASH: Final = "00" * 32
MAX_WEIGHT: Final = 4_000_000

_COMMITMENT_HEAD: Final = bytes([OP_RETURN, 0x24, 0xAA, 0x21, 0xA9, 0xED])


def subsidy_at(height: int) -> int:
    """Return the new coins of a block."""
    halvings = height // HALVING_BLOCKS
    return FIRST_SUBSIDY >> halvings if halvings < 64 else 0


def encode_header(header: Header) -> bytes:
    """Return the 80 bytes."""
    return (
        header.version.to_bytes(4, "little")
        + bytes.fromhex(header.previous)[::-1]
        + bytes.fromhex(header.merkle_root)[::-1]
        + header.time.to_bytes(4, "little")
        + header.bits.to_bytes(4, "little")
        + header.nonce.to_bytes(4, "little")
    )


def decode_header(raw: bytes) -> Header:
    """Return the fields of a block's first 80 bytes."""
    return Header(
        version=int.from_bytes(raw[:4], "little"),
        previous=raw[4:36][::-1].hex(),
        merkle_root=raw[36:68][::-1].hex(),
        time=int.from_bytes(raw[68:72], "little"),
        bits=int.from_bytes(raw[72:76], "little"),
        nonce=int.from_bytes(raw[76:80], "little"),
    )


def block_hash(raw: bytes) -> str:
    """Return the hash of a block's header."""
    return double_sha256(raw[:HEADER_BYTES])[::-1].hex()


def merkle_root(hashes: Sequence[str]) -> str:
    """Return the root over hashes as people write them."""
    level = [bytes.fromhex(one)[::-1] for one in hashes]
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        level = [
            double_sha256(level[index] + level[index + 1]) for index in range(0, len(level), 2)
        ]
    return level[0][::-1].hex()


def push_number(number: int) -> bytes:
    """Return the script that pushes a number, in its shortest form."""
    if number == 0:
        return bytes([OP_0])
    if 1 <= number <= 16:
        return bytes([OP_1 - 1 + number])
    data = number.to_bytes(number.bit_length() // 8 + 1, "little")
    return bytes([len(data)]) + data


def coinbase(
    height: int,
    script: bytes,
    fees: int,
    others: Sequence[Packed],
    *,
    extra: bytes,
) -> Packed:
    """Return the transaction that makes the block's coins and commits to its witnesses.

    Args:
        extra: what follows the height in its input, to make blocks differ.
    """
    reserved = bytes(32)
    hashes = [NO_HASH, *(one.witness_id for one in others)]
    committed = double_sha256(bytes.fromhex(merkle_root(hashes))[::-1] + reserved)
    spend = Input(
        Outpoint(NO_HASH, 0xFFFFFFFF), SEQUENCE_FINAL, push_number(height) + extra, (reserved,)
    )
    outputs = (
        Output(subsidy_at(height) + fees, script),
        Output(0, _COMMITMENT_HEAD + committed),
    )
    return Packed.of(Transaction((spend,), outputs))


def assemble(previous: str, time: int, transactions: Sequence[Packed]) -> bytes:
    """Return the bytes of a block with a nonce that regtest takes: every other one does."""
    root = merkle_root([one.tx_id for one in transactions])
    head = encode_header(Header(BLOCK_VERSION, previous, root, time, REGTEST_BITS, 0))[:-4]
    nonce = 0
    while not _is_enough(head + nonce.to_bytes(4, "little")):
        nonce += 1
    body = b"".join(one.raw for one in transactions)
    return head + nonce.to_bytes(4, "little") + encode_size(len(transactions)) + body


def _is_enough(header: bytes) -> bool:
    return int.from_bytes(double_sha256(header), "little") <= REGTEST_TARGET


def median_time(times: Sequence[int]) -> int:
    """Return the median of the last eleven block times, the newest one last."""
    last = sorted(times[-MEDIAN_BLOCKS:])
    return last[len(last) // 2]


def tag(seed: int) -> bytes:
    """Return what tells blocks of one seed from another's; nothing for seed 0."""
    return encode_bytes(f"seed {seed}".encode()) if seed else b""
