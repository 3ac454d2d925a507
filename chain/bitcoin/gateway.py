"""The port of a chain, spoken to one bitcoind.

What books rest on is asked for by block hash and held against the block: header, merkle root and the
bytes of every transaction. A height is only a way to learn a hash. What a node refuses to take is
judged by what its chain shows, never by the words of the refusal.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from chain.bitcoin.blocks import FINAL_DEPTH, Needle, outcome_of, payee_of
from chain.bitcoin.fees import RATE_MAX
from chain.bitcoin.mempool import Pool
from chain.bitcoin.model import FeeRate, PoolVerdict, RateSource, ScannedCoin, UnspentScan
from chain.bitcoin.networks import Network
from chain.bitcoin.node import BAD_PARAMETER, METHOD_UNKNOWN, NOT_FOUND, WARMING_UP, NodeRpc
from chain.bitcoin.parse import find_transaction, parse_header, read_contents
from chain.bitcoin.quantities import as_bytes, as_hash, as_number, satoshi, shortened
from chain.bitcoin.raw import check_transactions, read_block
from chain.bitcoin.shown import ShownBlock, read_block_answer
from chain.bitcoin.transactions import (
    Outpoint,
    Transaction,
    decode,
    encode_outpoint,
)
from chain.errors import (
    BadTransaction,
    BlockGone,
    IncompleteAnswer,
    NodeTrouble,
    NodeUnavailable,
    UnreadableAnswer,
    WrongChain,
)
from chain.jsonrpc import TIMEOUT_S, RpcRefusal, readable
from chain.keys.hashes import double_sha256
from chain.model import (
    Block,
    BlockContents,
    BroadcastOutcome,
    BroadcastReport,
    Head,
    PendingMovement,
    TransactionOutcome,
    WatchList,
)
from chain.shapes import as_list, as_object

GENESIS: Final = {
    "main": "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
    "test": "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
    "signet": "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
    "regtest": "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
}
"""First blocks (Bitcoin Core ``src/kernel/chainparams.cpp``; of signet that of the default one)."""

BLOCKS_AT_ONCE: Final = 4
"""Whole blocks that are asked for at one time: each takes the node a thread, and us some megabytes."""
SPENDER_SEARCH_MAX: Final = 144
"""Blocks searched, from the head down, for who spent an input: a day."""
SEARCHES_MAX: Final = 1_000
"""Searches that are remembered by the head they began at: the next one ends there."""
OUTPUTS_TRIED: Final = 16
"""Outputs by which a transaction is looked for at a node without an index of transactions."""
SCAN_TIMEOUT_S: Final = 900.0
SCAN_WAIT_S: Final = 0.25
SCAN_WAITS: Final = 40
SCAN_RUNS: Final = "in progress"
FALLBACK_RATE: Final = 20_000
FEE_RATE_MAX: Final = 10_000_000
"""10,000 satoshi for a virtual byte; what a node's own ``maxfeerate`` is unless it is told."""
TARGET_MAX: Final = 1_008
NO_BURN: Final = "0"
DESCRIPTOR_MARK: Final = "("


class BitcoinGateway:
    """One node of one Bitcoin chain: an implementation of `chain.bitcoin.ports.BitcoinReader`.

    Use it as an asynchronous context manager: entering asserts the network, leaving closes the
    connections.
    """

    quorum: Final = 1
    """One node can only agree with itself."""
    traces: Final = True
    """Nothing moves on Bitcoin that a block does not show."""

    def __init__(
        self,
        url: str,
        *,
        chain: str,
        network: Network,
        cookie: Path | None = None,
        user: str = "",
        password: str = "",
        timeout_s: float = TIMEOUT_S,
        name: str | None = None,
        rpc: NodeRpc | None = None,
        fallback_rate: int = FALLBACK_RATE,
        fee_rate_max: int = FEE_RATE_MAX,
    ) -> None:
        """Speak to the node at *url*, which must serve *network*, known here as *chain*.

        Args:
            url: where the node listens.
            chain: the chain's code in the registry.
            network: the network that it must serve.
            cookie: the file that lets us in, or else *user* and *password*.
            timeout_s: for one request.
            name: what people call the node; by default the host in *url*, which holds no secret.
            rpc: the transport (the attribute `rpc`), when it is not to be one with default settings.
            fallback_rate: what is paid while the node has no data (sat/kvB).
            fee_rate_max: the node takes nothing from us that pays more (sat/kvB).
        """
        self.chain = chain
        self.network = network
        self.network_id = network.network_id
        self.name = name or urlsplit(url).netloc.rpartition("@")[2]
        access: dict[str, Any] = {"cookie": cookie, "user": user, "password": password}
        self.rpc = rpc or NodeRpc(url, timeout_s=timeout_s, **access)
        self._scanner = self.rpc.patient(SCAN_TIMEOUT_S)
        self._fallback_rate = fallback_rate
        self._fee_rate_max = fee_rate_max
        self.needle = Needle(network)
        self._pool = Pool(self.rpc, network)
        self._searched: OrderedDict[tuple[Outpoint, ...], str] = OrderedDict()

    async def __aenter__(self) -> Self:
        """Assert the network."""
        try:
            await self.prove()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._scanner.close()
        await self.rpc.close()

    async def prove(self) -> None:
        """Assert the network.

        Raises:
            WrongChain: the node serves another one.
        """
        await self.chain_id()

    async def chain_id(self) -> int:
        """Return the network id: that of the configured network, which the node serves.

        Raises:
            WrongChain: the node serves another network.
        """
        info, genesis = await self.rpc.ask_every(
            [("getblockchaininfo", ()), ("getblockhash", (0,))]
        )
        name = as_object(info, "what the node says of its chain").get("chain")
        first = as_hash(genesis, "the first block's hash")
        if name != self.network.name or first != GENESIS[self.network.name]:
            raise WrongChain(
                f"the node serves {shortened(name)} from block {first}, {self.chain} is {self.network.name}",
                remedy="Correct the node's address or the registry's chain",
            )
        return self.network_id

    # ------------------------------------------------------------------ blocks

    async def head(self) -> Block:
        """Return the node's newest block."""
        best = as_hash(await self.rpc.ask("getbestblockhash"), "the newest block's hash")
        return await self._header(best)

    async def block_at(self, height: int) -> Block | None:
        """Return the block that the node has at *height* now."""
        try:
            found = as_hash(await self.rpc.ask("getblockhash", height), "the hash")
            block = await self._header(found)
        except RpcRefusal as refusal:
            if refusal.code == BAD_PARAMETER:
                return None
            raise
        except BlockGone:
            return None
        if block.height != height:
            raise IncompleteAnswer(f"asked for height {height}, the node gave {block.height}")
        return block

    async def contents(self, block: Block, watch: WatchList) -> BlockContents:
        """Return what exactly this block holds for *watch*; see `chain.bitcoin.parse`."""
        shown = await self._show(block.hash)
        found = read_contents(shown, self.chain, self.needle.thread(watch), self.network)
        if found.block != block:
            raise IncompleteAnswer(f"the node tells another story of block {block.hash}")
        return found

    async def contents_of_range(
        self, first: Block, last: Block, watch: WatchList
    ) -> list[BlockContents]:
        """Return what the blocks from *first* to *last* hold, read whole, a few at a time."""
        heights = range(first.height, last.height + 1)
        answers = await self.rpc.ask_many([("getblockhash", (height,)) for height in heights])
        seats = asyncio.Semaphore(BLOCKS_AT_ONCE)
        watched = self.needle.thread(watch)

        async def read(block_hash: str) -> BlockContents | NodeTrouble:
            async with seats:
                try:
                    shown = await self._show(block_hash)
                    return read_contents(shown, self.chain, watched, self.network)
                except NodeTrouble as trouble:
                    return trouble

        hashes = [_hash_or_gone(answer) for answer in answers]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(read(block_hash)) for block_hash in hashes]
        run = []
        for task in tasks:
            found = task.result()
            if isinstance(found, NodeTrouble):
                raise found
            run.append(found)
        blocks = [item.block for item in run]
        linked = all(upper.parent == lower.hash for lower, upper in pairwise(blocks))
        if not linked or (blocks[0], blocks[-1]) != (first, last):
            raise BlockGone(
                f"the node has other blocks between {first.height} and {last.height} now"
            )
        return run

    async def heads(self) -> tuple[Head, ...]:
        """Return the node's newest block, or why it says nothing."""
        try:
            return (Head(self.name, await self.head()),)
        except NodeTrouble as trouble:
            return (Head(self.name, None, trouble.what),)

    async def has_block(self, block: Block) -> int:
        """Return 1 when the node has exactly this block at its height, else 0."""
        found = await self.block_at(block.height)
        return int(found is not None and found.hash == block.hash)

    async def finalized_height(self) -> int:
        """Return the height that lies `FINAL_DEPTH` blocks back."""
        return max(0, (await self.head()).height - FINAL_DEPTH)

    async def find_transaction(self, tx_hash: str) -> TransactionOutcome | None:
        """Return the outcome of a mined transaction; None when it is in no block that is found.

        A node without an index of transactions finds it as long as one of its first outputs is
        unspent.
        """
        block = await self._block_of(tx_hash)
        if block is None:
            return None
        found = find_transaction(await self._show(block.hash), tx_hash, self.chain)
        if found is None:
            raise IncompleteAnswer(
                f"the node says that {tx_hash} is in {block.hash}, which lacks it"
            )
        return outcome_of(found, self.network)

    # ------------------------------------------------------------------ coins and the pool

    async def pending(self, watch: WatchList) -> tuple[PendingMovement, ...]:
        """Return what waits for watched addresses; see `chain.bitcoin.mempool`."""
        return await self._pool.pending(watch)

    async def is_unspent(self, outpoint: Outpoint, *, with_pool: bool) -> bool:
        """Tell whether the output exists and nothing spends it."""
        found = await self.rpc.ask("gettxout", outpoint.tx_id, outpoint.index, with_pool)
        return found is not None

    async def pool_spender(self, outpoint: Outpoint) -> str | None:
        """Return the id of the transaction in the pool that spends the output."""
        asked = [{"txid": outpoint.tx_id, "vout": outpoint.index}]
        answer = as_list(await self.rpc.ask("gettxspendingprevout", asked), "the spenders")
        if len(answer) != 1:
            raise UnreadableAnswer("the node names another number of spenders than asked for")
        spender = as_object(answer[0], "the spender").get("spendingtxid")
        return None if spender is None else as_hash(spender, "the spender")

    async def accepts(self, raw: bytes) -> PoolVerdict:
        """Return whether the pool would take the bytes; nothing is handed over."""
        answer = await self.rpc.ask("testmempoolaccept", [raw.hex()], self._rate_cap())
        told = as_list(answer, "the verdicts")
        verdict = as_object(told[0] if len(told) == 1 else None, "the verdict")
        if verdict.get("allowed") is not True:
            reason = verdict.get("reject-reason") or verdict.get("package-error")
            return PoolVerdict(
                accepted=False, reason=readable(str(reason or "refused without a word"))
            )
        fees = as_object(verdict.get("fees"), "the fees")
        size = as_number(verdict.get("vsize"), "the size")
        return PoolVerdict(True, "", satoshi(fees.get("base"), "the fee"), size)

    async def scan(self, addresses: Sequence[str]) -> UnspentScan:
        """Return all unspent outputs of *addresses* or descriptors, as of one block.

        A node runs one scan at a time. One that runs already is given a while to end; then it is
        taken for one that somebody stopped waiting for, and ended.
        """
        wanted = [item if DESCRIPTOR_MARK in item else f"addr({item})" for item in addresses]
        try:
            for waits in range(SCAN_WAITS + 1):
                try:
                    answer = await self._scanner.ask_once("scantxoutset", "start", wanted)
                    break
                except RpcRefusal as refusal:
                    if refusal.code != BAD_PARAMETER or SCAN_RUNS not in refusal.message:
                        raise
                if waits == SCAN_WAITS - 1:
                    await self.rpc.ask("scantxoutset", "abort")
                await asyncio.sleep(SCAN_WAIT_S)
            else:
                raise NodeUnavailable("the node scans its unspent outputs for somebody else")
        except asyncio.CancelledError:
            await asyncio.shield(self.rpc.ask("scantxoutset", "abort"))
            raise
        return self._read_scan(answer)

    def _read_scan(self, answer: object) -> UnspentScan:
        body = as_object(answer, "the scan")
        if body.get("success") is not True:
            raise NodeUnavailable("the node did not finish scanning its unspent outputs")
        coins = []
        for item in as_list(body.get("unspents"), "the unspent outputs"):
            told = as_object(item, "an unspent output")
            script = as_bytes(told.get("scriptPubKey"), "its script")
            coins.append(
                ScannedCoin(
                    as_hash(told.get("txid"), "its transaction"),
                    as_number(told.get("vout"), "its place", 2**32 - 1),
                    payee_of(script, self.network),
                    satoshi(told.get("amount"), "its amount"),
                    as_number(told.get("height"), "its height"),
                )
            )
        return UnspentScan(
            as_number(body.get("height"), "the height"),
            as_hash(body.get("bestblock"), "the block's hash"),
            tuple(sorted(coins, key=lambda coin: (coin.tx_id, coin.index))),
        )

    # ------------------------------------------------------------------ fees

    async def fee_rate(self, target_blocks: int) -> FeeRate:
        """Return what to pay to be mined within *target_blocks*; never below what is relayed."""
        target = min(max(1, target_blocks), TARGET_MAX)
        estimate, pool = await self.rpc.ask_every(
            [("estimatesmartfee", (target, "economical")), ("getmempoolinfo", ())]
        )
        floor = _relay_rate(pool)
        told = as_object(estimate, "the estimate").get("feerate")
        if told is None:
            return FeeRate(max(self._fallback_rate, floor), RateSource.FALLBACK)
        rate = min(satoshi(told, "the fee rate"), RATE_MAX)
        return FeeRate(max(rate, floor), RateSource.NODE)

    async def min_relay_rate(self) -> int:
        """Return the lowest rate that the node takes into its pool now."""
        return _relay_rate(await self.rpc.ask("getmempoolinfo"))

    async def incremental_rate(self) -> int:
        """Return by what rate a replacement must pay more than what it replaces."""
        pool = as_object(await self.rpc.ask("getmempoolinfo"), "the pool")
        told = pool.get("incrementalrelayfee")
        if told is None:
            network = as_object(await self.rpc.ask("getnetworkinfo"), "the network")
            told = network.get("incrementalfee")
        return satoshi(told, "the incremental rate")

    # ------------------------------------------------------------------ sending

    async def broadcast_many(self, items: Sequence[tuple[bytes, str]]) -> list[BroadcastReport]:
        """Send several, each once and in order: one may spend what an earlier one makes."""
        read = [_read_signed(raw, tx_hash) for raw, tx_hash in items]
        if not any(isinstance(item, Transaction) for item in read):
            return [item for item in read if isinstance(item, BroadcastReport)]
        trouble = ""
        try:
            await self.chain_id()
        except NodeTrouble as found:
            trouble = found.what
        reports = []
        for (raw, tx_hash), item in zip(items, read, strict=True):
            if isinstance(item, BroadcastReport):
                reports.append(item)
            elif trouble:
                reports.append(BroadcastReport(BroadcastOutcome.UNKNOWN, trouble))
            else:
                reports.append(await self._send(raw, tx_hash, item))
        return reports

    async def broadcast(self, raw: bytes, tx_hash: str) -> BroadcastReport:
        """Send *raw* once; classify by hash and by what the chain shows."""
        (report,) = await self.broadcast_many([(raw, tx_hash)])
        return report

    async def _send(self, raw: bytes, tx_id: str, item: Transaction) -> BroadcastReport:
        try:
            said = await self.rpc.ask_once(
                "sendrawtransaction", raw.hex(), self._rate_cap(), NO_BURN
            )
        except RpcRefusal as refusal:
            return await self._explain(refusal, tx_id, item)
        except NodeTrouble as trouble:
            return BroadcastReport(BroadcastOutcome.UNKNOWN, trouble.what)
        if said != tx_id:
            return BroadcastReport(BroadcastOutcome.UNKNOWN, f"the node answered {said!r:.80}")
        return BroadcastReport(BroadcastOutcome.ACCEPTED)

    async def _explain(self, refusal: RpcRefusal, tx_id: str, item: Transaction) -> BroadcastReport:
        """Say what is known of a transaction that was refused: by its id, and by its inputs."""
        try:
            if await self._waits(tx_id):
                return BroadcastReport(BroadcastOutcome.ACCEPTED, "already in the pool")
            if await self._block_of(tx_id, len(item.outputs)) is not None:
                return BroadcastReport(BroadcastOutcome.ACCEPTED, "already mined")
            spender = await self._find_spender(item)
        except NodeTrouble as trouble:
            return BroadcastReport(
                BroadcastOutcome.UNKNOWN, f"{refusal.message}; then {trouble.what}"
            )
        if spender == tx_id:
            return BroadcastReport(BroadcastOutcome.ACCEPTED, "already mined")
        if spender is not None:
            return BroadcastReport(
                BroadcastOutcome.REJECTED, f"an input was spent by {spender}, which is confirmed"
            )
        return BroadcastReport(BroadcastOutcome.UNKNOWN, refusal.message)

    async def _waits(self, tx_id: str) -> bool:
        try:
            await self.rpc.ask("getmempoolentry", tx_id)
        except RpcRefusal as refusal:
            if refusal.code == NOT_FOUND:
                return False
            raise
        return True

    async def _find_spender(self, item: Transaction) -> str | None:
        """Return the confirmed transaction that spent an input, found from the head downwards.

        Only what is neither unspent nor made by the pool is looked for, and along the hashes: of two
        nodes behind one address the one that lags would not have our own transaction.
        """
        asked = [
            ("gettxout", (spent.outpoint.tx_id, spent.outpoint.index, False))
            for spent in item.inputs
        ]
        there = await self.rpc.ask_every(asked)
        gone = [
            spent.outpoint for spent, found in zip(item.inputs, there, strict=True) if found is None
        ]
        if not gone:
            return None
        needles = [encode_outpoint(outpoint) for outpoint in gone]
        block_hash = newest = (await self.head()).hash
        searched = self._searched.get(tuple(gone))
        for _ in range(SPENDER_SEARCH_MAX):
            if block_hash == searched:
                break
            with _asking_about(block_hash):
                raw = as_bytes(await self.rpc.ask("getblock", block_hash, 0), "a block")
            if double_sha256(raw[:80])[::-1].hex() != block_hash:
                raise IncompleteAnswer(f"the node shows another block than {block_hash}")
            if any(needle in raw for needle in needles):
                found = _spender_in(raw, block_hash, set(gone))
                if found is not None:
                    return found
            block_hash = raw[4:36][::-1].hex()
            if block_hash == GENESIS[self.network.name]:
                break
        self._searched[tuple(gone)] = newest
        if len(self._searched) > SEARCHES_MAX:
            self._searched.popitem(last=False)
        return None

    # ------------------------------------------------------------------ asking

    async def _block_of(self, tx_id: str, outputs: int = OUTPUTS_TRIED) -> Block | None:
        """Return the block of the node's chain that a transaction is in, if that can be told."""
        try:
            told = as_object(await self.rpc.ask("getrawtransaction", tx_id, 1), "the transaction")
        except RpcRefusal as refusal:
            if refusal.code != NOT_FOUND:
                raise
            return await self._block_by_outputs(tx_id, min(outputs, OUTPUTS_TRIED))
        if told.get("blockhash") is None or not told.get("confirmations"):
            return None
        return await self._header(as_hash(told["blockhash"], "the block's hash"))

    async def _block_by_outputs(self, tx_id: str, outputs: int) -> Block | None:
        asked = [("gettxout", (tx_id, place, False)) for place in range(outputs)]
        for told in await self.rpc.ask_every(asked):
            if told is not None:
                body = as_object(told, "the output")
                best = await self._header(as_hash(body.get("bestblock"), "the newest block"))
                depth = as_number(body.get("confirmations"), "the confirmations")
                return await self.block_at(best.height - depth + 1)
        return None

    async def _header(self, block_hash: str) -> Block:
        with _asking_about(block_hash):
            body = await self.rpc.ask("getblockheader", block_hash)
        block, _ = parse_header(body, self.chain)
        if block.hash != block_hash:
            raise IncompleteAnswer(f"asked for {block_hash}, the node gave {block.hash}")
        return block

    async def _show(self, block_hash: str) -> ShownBlock:
        """Return a whole block, and what its transactions spend."""
        with _asking_about(block_hash):
            return await self.rpc.ask_shaped(read_block_answer, "getblock", block_hash, 3)

    def _rate_cap(self) -> str:
        whole, rest = divmod(self._fee_rate_max, 100_000_000)
        return f"{whole}.{rest:08}"


@contextmanager
def _asking_about(block_hash: str) -> Iterator[None]:
    """Say what a refusal of a question about a block means."""
    try:
        yield
    except RpcRefusal as refusal:
        if refusal.code == NOT_FOUND:
            raise BlockGone(f"the node does not have block {block_hash}") from refusal
        if refusal.code in {METHOD_UNKNOWN, WARMING_UP}:
            raise
        raise NodeUnavailable(
            f"the node cannot show block {block_hash}: {refusal.message}",
            remedy="A pruned node, or one without undo data, cannot be read so far back: "
            "use one that keeps all blocks",
        ) from refusal


def _read_signed(raw: bytes, tx_id: str) -> Transaction | BroadcastReport:
    try:
        item = decode(raw)
    except BadTransaction as error:
        return BroadcastReport(BroadcastOutcome.REJECTED, error.what)
    if item.tx_id != tx_id:
        return BroadcastReport(BroadcastOutcome.REJECTED, f"the bytes are {item.tx_id}")
    return item


def _spender_in(raw: bytes, block_hash: str, gone: set[Outpoint]) -> str | None:
    """Return the transaction of a block that spends one of these, the block held against its hash."""
    header, transactions = read_block(raw)
    check_transactions(header[36:68], [item.id for item in transactions], f"block {block_hash}")
    for item in transactions:
        if not gone.isdisjoint(item.outpoints):
            return item.tx_id
    return None


def _hash_or_gone(answer: object) -> str:
    if isinstance(answer, RpcRefusal):
        if answer.code == BAD_PARAMETER:
            raise BlockGone("the node has no block at one of these heights now")
        raise answer
    return as_hash(answer, "the hash")


def _relay_rate(pool: object) -> int:
    told = as_object(pool, "the pool")
    floors = [satoshi(told.get(key), key) for key in ("mempoolminfee", "minrelaytxfee")]
    return max(floors)
