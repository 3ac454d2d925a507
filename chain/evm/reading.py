"""Reading blocks from one node: one by its hash near the head, many by their heights when final.

By hash everything is held against the block. By heights the blocks must link by their parents, the
events must belong to them, and every block that holds something for us is still read with all its
receipts, which must make up its filter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

from chain.errors import (
    BlockGone,
    IncompleteAnswer,
    NodeTrouble,
    NodeUnavailable,
    RangeTooLarge,
    UnreadableAnswer,
)
from chain.evm.parse import (
    FullBlock,
    Receipt,
    check_receipts,
    contents_of,
    needs_receipts,
    parse_full_block,
    parse_receipt,
)
from chain.evm.ranges import (
    LogDigest,
    Needle,
    Scanned,
    check_links,
    check_places,
    digest_logs,
    log_filter,
    must_be_read,
    recipient_filter,
    scan_block,
)
from chain.evm.refusals import (
    METHOD_UNKNOWN,
    says_block_gone,
    says_range_too_large,
    says_untraceable,
)
from chain.evm.traces import Moves, moves_of_flat, moves_of_frames
from chain.jsonrpc import Call, Rpc, RpcRefusal
from chain.model import Block, BlockContents, WatchList
from chain.shapes import as_list, as_object

BLOCKS_AT_ONCE: Final = 16
"""Blocks in full of one batch: some megabytes on a busy chain."""
BATCHES_AT_ONCE: Final = 3
TRACER_PATIENCE_S: Final = 60.0
"""A node that did not say whether it traces is asked again after this."""

Read = tuple[Scanned, BlockContents]


class Tracer(StrEnum):
    """How a node shows call frames, in the order of preference.

    Where there is ``trace_block`` it is kept for this; the other runs the whole block again, which took
    anvil 1.7.1 22 s for 400 token transfers against 10 ms.
    """

    FLAT = "trace_block"
    FRAMES = "debug_traceBlockByHash"


class Reading:
    """Reads blocks of one chain from one node."""

    def __init__(self, rpc: Rpc, chain: str, *, trace: bool) -> None:
        """Read through *rpc*; *trace*: see what contracts pass on, if the node shows it."""
        self._rpc = rpc
        self._chain = chain
        self._trace = trace
        self._ask_tracer_at_s: float | None = 0.0
        self._batches = True
        self._block_receipts = True
        self._needle: tuple[WatchList, Needle] | None = None
        self.tracer: Tracer | None = None

    async def find_tracer(self) -> None:
        """Learn how the node shows call frames, if it does; once it has said so, nothing changes.

        Trouble with this question is no trouble with the node: some answer it with HTTP 403, or are
        too slow to trace their newest block. They are read without traces, and asked again later.
        """
        now_s = asyncio.get_running_loop().time()
        if not self._trace or self._ask_tracer_at_s is None or now_s < self._ask_tracer_at_s:
            return
        body = as_object(await self._rpc.ask("eth_getBlockByNumber", "latest", False), "the block")
        again_s: float | None = None
        for tracer in Tracer:
            try:
                await self._ask_traces(tracer, str(body.get("hash")), str(body.get("number")))
            except RpcRefusal as refusal:
                if not says_untraceable(refusal.message):
                    continue
            except NodeTrouble:
                again_s = now_s + TRACER_PATIENCE_S
                continue
            self.tracer, again_s = tracer, None
            break
        self._ask_tracer_at_s = again_s

    async def contents(self, block: Block, watch: WatchList) -> BlockContents:
        """Return what exactly this block holds for *watch*."""
        await self.find_tracer()
        body = await self._body(block.hash)
        scanned = scan_block(body, self._chain, self._needle_of(watch))
        if scanned.block != block:
            raise IncompleteAnswer(f"the node tells another story of block {block.hash}")
        moves = None if self.tracer is None else await self._moves(self.tracer, scanned)
        full = parse_full_block(body, self._chain)
        recipients = self._needle_of(watch).recipients
        if not needs_receipts(full, watch, recipients) and not _touches(moves, watch):
            return BlockContents(block, traced=moves is not None)
        return await self._strict(full, watch, moves)

    async def contents_of_range(
        self, first: Block, last: Block, watch: WatchList
    ) -> list[BlockContents]:
        """Return what the blocks from *first* to *last* hold for *watch*."""
        await self.find_tracer()
        needle = self._needle_of(watch)
        # The events first: a node that refuses so many blocks does so before any were read.
        digest = await self._digest(first, last, needle)
        heights = range(first.height, last.height + 1)
        parts = [heights[at : at + BLOCKS_AT_ONCE] for at in range(0, len(heights), BLOCKS_AT_ONCE)]
        seats = asyncio.Semaphore(BATCHES_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._part(part, watch, needle, digest, seats)) for part in parts
            ]
        run: list[Read] = []
        for task in tasks:
            part_read = task.result()
            if isinstance(part_read, NodeTrouble):
                raise part_read
            run += part_read
        check_links([scanned for scanned, _ in run], first, last)
        check_places(digest, [scanned for scanned, _ in run])
        return [contents for _, contents in run]

    async def full_block(self, block_hash: str) -> FullBlock:
        """Return a block with its transactions.

        Raises:
            BlockGone: the node does not have it.
        """
        full = parse_full_block(await self._body(block_hash), self._chain)
        if full.block.hash != block_hash:
            raise IncompleteAnswer(f"asked for {block_hash}, the node gave {full.block.hash}")
        return full

    async def ask_at(self, block: Block, method: str, *params: Any) -> Any:
        """Return the answer to a question about *block*.

        Raises:
            BlockGone: the node refuses because it does not have the block, or not its state.
        """
        try:
            return await self._rpc.ask(method, *params)
        except RpcRefusal as refusal:
            if says_block_gone(refusal.code, refusal.message):
                raise BlockGone(
                    f"the node does not have block {block.hash}, or its state"
                ) from refusal
            raise

    async def _body(self, block_hash: str) -> Any:
        answer = await self._rpc.ask("eth_getBlockByHash", block_hash, True)
        if answer is None:
            raise BlockGone(f"the node does not have block {block_hash}")
        return answer

    async def _part(
        self,
        heights: Sequence[int],
        watch: WatchList,
        needle: Needle,
        digest: LogDigest,
        seats: asyncio.Semaphore,
    ) -> list[Read] | NodeTrouble:
        """Return a part of a run, or the trouble: inside a group an error would come out wrapped."""
        async with seats:
            try:
                bodies = await self._bodies(heights)
                return [await self._read(body, watch, needle, digest) for body in bodies]
            except NodeTrouble as trouble:
                return trouble

    async def _read(self, body: Any, watch: WatchList, needle: Needle, digest: LogDigest) -> Read:
        scanned = scan_block(body, self._chain, needle)
        moves = None if self.tracer is None else await self._moves(self.tracer, scanned)
        if not must_be_read(scanned, digest, needle) and not _touches(moves, watch):
            return scanned, BlockContents(scanned.block, traced=moves is not None)
        return scanned, await self._strict(parse_full_block(body, self._chain), watch, moves)

    async def _bodies(self, heights: Sequence[int]) -> list[Any]:
        calls = [("eth_getBlockByNumber", (hex(height), True)) for height in heights]
        answers = await self._ask_all(calls)
        for answer in answers:
            if isinstance(answer, RpcRefusal):
                raise answer
            if answer is None:
                raise BlockGone(f"the node has no block between {heights[0]} and {heights[-1]} now")
        return answers

    async def _ask_all(self, calls: Sequence[Call]) -> list[Any]:
        """Ask in a batch, or one after the other where the node takes no batches."""
        if self._batches:
            try:
                return await self._rpc.ask_many(calls)
            except RpcRefusal:
                self._batches = False
        return [await self._rpc.ask(method, *params) for method, params in calls]

    async def _strict(
        self, full: FullBlock, watch: WatchList, moves: Moves | None
    ) -> BlockContents:
        receipts = await self._receipts(full)
        check_receipts(full, receipts)
        return contents_of(full, receipts, watch, moves)

    async def _digest(self, first: Block, last: Block, needle: Needle) -> LogDigest:
        logs: list[Any] = []
        if needle.contracts:
            logs += await self._logs(log_filter(first, last, needle))
        asked = recipient_filter(first, last, needle)
        if asked is not None:
            logs += await self._logs(asked)
        return digest_logs(logs, needle)

    async def _logs(self, asked: dict[str, Any]) -> list[Any]:
        try:
            answer = await self._rpc.ask("eth_getLogs", asked)
        except RpcRefusal as refusal:
            if says_range_too_large(refusal.code, refusal.message):
                raise RangeTooLarge(refusal.what) from refusal
            raise
        return as_list(answer, "the logs")

    async def _moves(self, tracer: Tracer, scanned: Scanned) -> Moves | None:
        """Return what contracts passed on; None when the node does not say, in time or at all.

        A block that the node cannot trace, or not in time, or not in a form that is understood, must
        not stop the chain. It counts as not traced, is listed as such, and asked for again by the
        second reading. Traces of another block are the exception: the block is read again at once.
        """
        if not scanned.runs_code:
            return {}
        block = scanned.block
        try:
            answer = await self._ask_traces(tracer, block.hash, hex(block.height))
            read = moves_of_frames if tracer is Tracer.FRAMES else moves_of_flat
            return read(block.hash, scanned.hashes, answer)
        except (NodeUnavailable, UnreadableAnswer):
            return None

    async def _ask_traces(self, tracer: Tracer, block_hash: str, height: str) -> Any:
        if tracer is Tracer.FRAMES:
            return await self._rpc.ask_once(tracer, block_hash, {"tracer": "callTracer"})
        return await self._rpc.ask_once(tracer, height)

    async def _receipts(self, full: FullBlock) -> list[Receipt]:
        """Return the block's receipts in one answer, or one by one where a node cannot."""
        if self._block_receipts:
            try:
                answer = await self.ask_at(full.block, "eth_getBlockReceipts", full.block.hash)
            except RpcRefusal as refusal:
                if refusal.code != METHOD_UNKNOWN:
                    raise
                self._block_receipts = False
            else:
                if answer is None:
                    raise BlockGone(f"the node has no receipts of block {full.block.hash}")
                return [parse_receipt(item) for item in as_list(answer, "the receipts")]
        return [await self._receipt(item.tx_hash) for item in full.transactions]

    async def _receipt(self, tx_hash: str) -> Receipt:
        answer = await self._rpc.ask("eth_getTransactionReceipt", tx_hash)
        if answer is None:
            raise BlockGone(f"the node has no receipt of {tx_hash}")
        return parse_receipt(answer)

    def _needle_of(self, watch: WatchList) -> Needle:
        """Return the watch list as nodes spell it, made anew only when the list has changed."""
        if self._needle is None or self._needle[0] != watch:
            self._needle = (watch, Needle.of(watch))
        return self._needle[1]


def _touches(moves: Moves | None, watch: WatchList) -> bool:
    return moves is not None and any(
        move.sender in watch.addresses or move.recipient in watch.addresses
        for found in moves.values()
        for move in found
    )
