"""Blocks as a tree, the coins at the tip, and what a change of the best chain does to them.

The kernel validates and says which block is the tip. This room follows it: it walks from its own tip
to the kernel's, takes blocks off and puts blocks on, and keeps what the kernel does not tell, the
table of coins.

The kernel cannot be told that a block is invalid. A new kernel is then given every other block, in the
order in which they came, and so finds the tip that bitcoind finds: most work, and of equal work
the chain that came first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from chain.bitcoin.scripts import OP_RETURN
from chain.bitcoin.transactions import Outpoint
from chain.errors import BadTransaction
from chain.simulators.bitcoin.blocks import (
    HEADER_BYTES,
    MEDIAN_BLOCKS,
    block_hash,
    decode_header,
    median_time,
)
from chain.simulators.bitcoin.consensus import Consensus
from chain.simulators.bitcoin.errors import InvalidParameter, NotFound, Undecodable
from chain.simulators.bitcoin.model import Block, Change, Coin, Packed

MAX_SCRIPT_BYTES: Final = 10_000
"""A longer script can never be satisfied: nodes do not keep its coin."""


class BlockRefused(Exception):
    """The block is not taken; the reason is bitcoind's word for it where one is known."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Tip:
    """The last block of a branch, as ``getchaintips`` tells of it."""

    height: int
    hash: str
    branch_length: int
    status: str


class Chain:
    """All blocks, and the coins of the best chain."""

    def __init__(self) -> None:
        self._consensus = Consensus()
        genesis = self._read(self._consensus.genesis(), None)
        self.blocks: dict[str, Block] = {genesis.hash: genesis}
        self.active: list[str] = [genesis.hash]
        self.coins: dict[Outpoint, Coin] = {}
        self.undo: dict[str, tuple[tuple[Coin, ...], ...]] = {}
        self.mined: dict[str, str] = {genesis.coinbase.tx_id: genesis.hash}
        self.invalid: set[str] = set()

    # ------------------------------------------------------------------ questions

    @property
    def tip(self) -> Block:
        """Return the last block of the best chain."""
        return self.blocks[self.active[-1]]

    @property
    def height(self) -> int:
        """Return the height of the tip."""
        return len(self.active) - 1

    def find(self, hash_: str) -> Block | None:
        """Return a block of any branch, if it is known."""
        return self.blocks.get(hash_)

    def at(self, height: int) -> Block:
        """Return a block of the best chain.

        Raises:
            InvalidParameter: there is none.
        """
        if not 0 <= height <= self.height:
            raise InvalidParameter("Block height out of range")
        return self.blocks[self.active[height]]

    def is_active(self, block: Block) -> bool:
        """Tell whether a block is on the best chain."""
        return block.height <= self.height and self.active[block.height] == block.hash

    def confirmations(self, block: Block) -> int:
        """Return how deep a block lies, itself included; -1 off the best chain."""
        return self.height - block.height + 1 if self.is_active(block) else -1

    def tips(self) -> list[Tip]:
        """Return the ends of all branches, the highest first."""
        parents = {block.header.previous for block in self.blocks.values()}
        ends = [block for hash_, block in self.blocks.items() if hash_ not in parents]
        if self.tip not in ends:
            ends.append(self.tip)
        ends.sort(key=lambda block: (-block.height, block.arrival))
        return [self._tip_of(block) for block in ends]

    def _tip_of(self, block: Block) -> Tip:
        if self.is_active(block):
            return Tip(block.height, block.hash, 0, "active")
        length = sum(1 for _ in self._off_chain(block))
        if self.is_invalid(block):
            status = "invalid"
        else:
            status = "valid-fork" if block.hash in self.undo else "valid-headers"
        return Tip(block.height, block.hash, length, status)

    def is_invalid(self, block: Block) -> bool:
        """Tell whether a block or one below it was called invalid."""
        return any(one.hash in self.invalid for one in self._off_chain(block))

    def _off_chain(self, block: Block) -> Iterator[Block]:
        """Yield the block and those below it, down to the best chain."""
        while not self.is_active(block):
            yield block
            block = self.blocks[block.header.previous]

    # ------------------------------------------------------------------ changes

    def submit(self, raw: bytes) -> tuple[Block, Change]:
        """Take a block; the best chain may move to it.

        Raises:
            Undecodable: the bytes are no block.
            BlockRefused: it breaks a rule, or its parent is not known or called invalid.
        """
        if len(raw) <= HEADER_BYTES:
            raise Undecodable("Block decode failed")
        hash_ = block_hash(raw)
        known = self.blocks.get(hash_)
        if known is not None:
            raise BlockRefused("duplicate-invalid" if self.is_invalid(known) else "duplicate")
        parent = self.blocks.get(decode_header(raw).previous)
        if parent is None:
            raise BlockRefused("prev-blk-not-found")
        if self.is_invalid(parent):
            raise BlockRefused("bad-prevblk")
        block = self._read(raw, parent)
        extends_tip = parent.hash == self.tip.hash
        if not self._consensus.submit(raw) or (extends_tip and self._consensus.tip != hash_):
            raise BlockRefused("block-validation-failed")
        self.blocks[hash_] = block
        return block, self._follow()

    def invalidate(self, hash_: str) -> Iterator[Change]:
        """Call a block invalid, with everything on it: first down from it, then to another branch.

        Raises:
            NotFound: no such block.
            InvalidParameter: the genesis block.
        """
        block = self._need(hash_)
        if block.height == 0:
            raise InvalidParameter("the genesis block cannot be called invalid")
        # Each of them is marked, as bitcoind marks them: one may be reconsidered without the others.
        self.invalid.add(hash_)
        for other in self.blocks.values():
            if other.header.previous in self.invalid:
                self.invalid.add(other.hash)
        if self.is_active(block):
            off = [self._disconnect() for _ in range(self.height - block.height + 1)]
            yield Change(disconnected=tuple(off))
        yield self._rebuild()

    def reconsider(self, hash_: str) -> Change:
        """Take back what was said of a block, of those below it and of those on it.

        Raises:
            NotFound: no such block.
        """
        block = self._need(hash_)
        self.invalid = {
            one for one in self.invalid if not self._same_branch(self.blocks[one], block)
        }
        return self._rebuild()

    def close(self) -> None:
        """Let go of the kernel."""
        self._consensus.close()

    def _need(self, hash_: str) -> Block:
        block = self.blocks.get(hash_)
        if block is None:
            raise NotFound("Block not found")
        return block

    def _same_branch(self, one: Block, other: Block) -> bool:
        low, high = sorted((one, other), key=lambda block: block.height)
        while high.height > low.height:
            high = self.blocks[high.header.previous]
        return high.hash == low.hash

    def _read(self, raw: bytes, parent: Block | None) -> Block:
        header = decode_header(raw)
        try:
            parts = self._consensus.split(raw)
            transactions = tuple(Packed.read(part) for part in parts)
        except (RuntimeError, BadTransaction) as exc:
            raise Undecodable("Block decode failed") from exc
        if not transactions:
            raise Undecodable("Block decode failed")
        times = [header.time]
        below = parent
        while below is not None and len(times) < MEDIAN_BLOCKS:
            times.append(below.header.time)
            below = self.blocks.get(below.header.previous)
        return Block(
            hash=block_hash(raw),
            height=0 if parent is None else parent.height + 1,
            header=header,
            raw=raw,
            transactions=transactions,
            arrival=0 if parent is None else len(self.blocks),
            median_time=median_time(times),
        )

    def _rebuild(self) -> Change:
        self._consensus.close()
        self._consensus = Consensus()
        skipped = set(self.invalid)
        # A block never arrives before its parent, so that the order of arrival is one of the tree.
        for block in self.blocks.values():
            if block.header.previous in skipped:
                skipped.add(block.hash)
            if block.height and block.hash not in skipped:
                self._consensus.submit(block.raw)
        return self._follow()

    def _follow(self) -> Change:
        """Move the coins to the kernel's tip."""
        wanted = self._consensus.tip
        onto: list[Block] = list(self._off_chain(self.blocks[wanted]))
        fork = self.blocks[wanted].height - len(onto)
        off = []
        while self.height > fork:
            off.append(self._disconnect())
        onto.reverse()
        for block in onto:
            self._connect(block)
        return Change(tuple(off), tuple(onto))

    def _connect(self, block: Block) -> None:
        undo: list[tuple[Coin, ...]] = []
        for number, packed in enumerate(block.transactions):
            if number:
                undo.append(tuple(self.coins.pop(outpoint) for outpoint in packed.spends))
            self.coins.update(_coins_of(packed, block.height, is_coinbase=number == 0))
            self.mined[packed.tx_id] = block.hash
        self.undo[block.hash] = tuple(undo)
        self.active.append(block.hash)

    def _disconnect(self) -> Block:
        block = self.tip
        undo: Sequence[tuple[Coin, ...]] = self.undo[block.hash]
        for number in range(len(block.transactions) - 1, -1, -1):
            packed = block.transactions[number]
            for outpoint in _coins_of(packed, block.height, is_coinbase=number == 0):
                del self.coins[outpoint]
            if number:
                self.coins.update(zip(packed.spends, undo[number - 1], strict=True))
            del self.mined[packed.tx_id]
        self.active.pop()
        return block


def can_be_spent(script: bytes) -> bool:
    """Tell whether nodes keep a coin of this script: some can be seen to be lost."""
    return not script.startswith(bytes([OP_RETURN])) and len(script) <= MAX_SCRIPT_BYTES


def _coins_of(packed: Packed, height: int, *, is_coinbase: bool) -> dict[Outpoint, Coin]:
    return {
        packed.outpoint(index): Coin(output, height, is_coinbase)
        for index, output in enumerate(packed.body.outputs)
        if can_be_spent(output.script)
    }
