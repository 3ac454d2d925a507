"""The port of a chain, spoken to one EVM node over JSON-RPC.

Everything that books rest on is asked for by block hash and held against the block: its parent,
its transactions, its filter over all logs. A height is only a way to learn a hash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from chain.errors import (
    BadTransaction,
    BlockGone,
    CallReverted,
    IncompleteAnswer,
    NodeTrouble,
    NodeUnavailable,
    TokenUnreadable,
    UnreadableAnswer,
    WrongChain,
)
from chain.evm.erc20 import WORD_BYTES, balance_of_data
from chain.evm.fee_oracle import (
    WEI_MAX,
    FeePolicy,
    RecentFees,
    next_base_fee,
    parse_history,
    quote,
)
from chain.evm.parse import (
    outcome_of,
    parse_block,
    parse_receipt,
    parse_transaction,
)
from chain.evm.pending import POOL_MAX, pending_of, pool_transactions
from chain.evm.quantities import as_bytes, as_hash, as_int, get
from chain.evm.reading import Reading
from chain.evm.refusals import (
    METHOD_UNKNOWN,
    SendWord,
    read_refusal,
    says_block_gone,
    says_call_fails,
    says_contract_fails,
)
from chain.evm.transactions import SignedTransaction, decode_signed
from chain.jsonrpc import BATCH_MAX, TIMEOUT_S, Call, RateLimited, Rpc, RpcRefusal
from chain.model import (
    Block,
    BlockContents,
    BroadcastOutcome,
    BroadcastReport,
    CallResult,
    FeeQuote,
    Head,
    PendingMovement,
    TransactionOutcome,
    Unreadable,
    WatchList,
)
from chain.shapes import as_list, as_object
from kernel.errors import ungrouped

NONCE_SEARCH_MAX: Final = 64
"""Blocks searched, from the head down, for the transaction that spent a nonce."""
BALANCE_BATCHES_MAX: Final = 4
"""Batches of questions about balances that are open at one node at once."""
REFUSES: Final = "its contract refuses to tell balances"
NO_ANSWER: Final = "its contract does not answer balanceOf with one number"


class EvmGateway:
    """One node of one EVM chain: an implementation of `chain.ports.ChainGateway`.

    Use it as an asynchronous context manager: entering asserts the chain id, leaving closes the
    connections.
    """

    quorum: Final = 1
    """One node can only agree with itself."""

    def __init__(
        self,
        url: str,
        *,
        chain: str,
        network_id: int,
        timeout_s: float = TIMEOUT_S,
        name: str | None = None,
        fee_policy: FeePolicy | None = None,
        rpc: Rpc | None = None,
        trace: bool = True,
        balance_batches: int = BALANCE_BATCHES_MAX,
    ) -> None:
        """Speak to the node at *url*, which must serve *network_id*, known here as *chain*.

        Args:
            url: where the node listens.
            chain: the chain's code in the registry.
            network_id: the chain id that transactions are signed for.
            timeout_s: for one request.
            name: what people call the node; by default the host in *url*, which holds no secret.
            fee_policy: how eager, and how generous at most, a bid is.
            rpc: the transport, when it is not to be one with default settings.
            trace: see what contracts pass on, if the node shows call frames; False: do not ask.
            balance_batches: how many batches about balances may be open at once.
        """
        self.chain = chain
        self._balance_batches = balance_batches
        self.network_id = network_id
        self.name = name or urlsplit(url).netloc.rpartition("@")[2]
        self._rpc = rpc or Rpc(url, timeout_s=timeout_s)
        self._fee_policy = fee_policy or FeePolicy()
        self._fee_history = True
        self._reading = Reading(self._rpc, chain, trace=trace)

    async def __aenter__(self) -> Self:
        """Assert the chain id, and learn whether the node traces."""
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
        await self._rpc.close()

    async def prove(self) -> None:
        """Assert the chain id, and learn whether the node traces.

        Raises:
            WrongChain: the node serves another chain.
        """
        await self.chain_id()
        await self._reading.find_tracer()

    @property
    def traces(self) -> bool:
        """Whether the node shows native value that contracts pass on; known once it was asked."""
        return self._reading.tracer is not None

    async def chain_id(self) -> int:
        """Return the network id, which is the configured one.

        Raises:
            WrongChain: the node serves another chain.
        """
        found = as_int(await self._rpc.ask("eth_chainId"), "the chain id")
        if found != self.network_id:
            raise WrongChain(
                f"the node serves chain {found}, {self.chain} is chain {self.network_id}",
                remedy="Correct the node's address or the registry's chain",
            )
        return found

    async def head(self) -> Block:
        """Return the node's newest block."""
        answer = await self._rpc.ask("eth_getBlockByNumber", "latest", False)
        return parse_block(answer, self.chain)

    async def block_at(self, height: int) -> Block | None:
        """Return the block that the node has at *height* now."""
        try:
            answer = await self._rpc.ask("eth_getBlockByNumber", hex(height), False)
        except RpcRefusal as refusal:
            if says_block_gone(refusal.code, refusal.message):
                return None
            raise
        if answer is None:
            return None
        block = parse_block(answer, self.chain)
        if block.height != height:
            raise IncompleteAnswer(f"asked for height {height}, the node gave {block.height}")
        return block

    async def contents(self, block: Block, watch: WatchList) -> BlockContents:
        """Return what exactly this block holds for *watch*; see `chain.evm.reading`."""
        return await self._reading.contents(block, watch)

    async def contents_of_range(
        self, first: Block, last: Block, watch: WatchList
    ) -> list[BlockContents]:
        """Return what the blocks from *first* to *last* hold; see `chain.evm.reading`."""
        return await self._reading.contents_of_range(first, last, watch)

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

    async def pending(self, watch: WatchList) -> tuple[PendingMovement, ...]:
        """Return what waits for watched addresses; see `chain.evm.pending`."""
        try:
            counts = as_object(await self._rpc.ask("txpool_status"), "the pool's status")
            waiting = sum(as_int(get(counts, part), part) for part in ("pending", "queued"))
            if waiting <= POOL_MAX:
                pool = await self._rpc.ask("txpool_content")
                return pending_of(pool_transactions(pool), watch)
        except RpcRefusal as refusal:
            if refusal.code != METHOD_UNKNOWN:
                raise
        block = await self._rpc.ask("eth_getBlockByNumber", "pending", True)
        if block is None:
            return ()
        body = as_object(block, "the pending block")
        return pending_of(as_list(get(body, "transactions"), "transactions"), watch)

    async def finalized_height(self) -> int:
        """Return the height of the newest finalized block; 0 while there is none."""
        answer = await self._rpc.ask("eth_getBlockByNumber", "finalized", False)
        return 0 if answer is None else parse_block(answer, self.chain).height

    async def balance(self, address: str, contract: str | None, *, at: Block) -> int:
        """Return what *address* holds after the block *at*, asked for by hash (EIP-1898)."""
        place = {"blockHash": at.hash, "requireCanonical": True}
        if contract is None:
            answer = await self._reading.ask_at(at, "eth_getBalance", address, place)
            return as_int(answer, "the balance")
        call = {"to": contract, "data": "0x" + balance_of_data(address).hex()}
        try:
            answer = await self._reading.ask_at(at, "eth_call", call, place)
        except RpcRefusal as refusal:
            if says_contract_fails(refusal.code, refusal.message):
                raise TokenUnreadable(f"{contract}: {REFUSES}") from refusal
            raise
        found = _token_balance(answer)
        if isinstance(found, Unreadable):
            raise TokenUnreadable(f"{contract}: {found.why}")
        return found

    async def balances(
        self, wanted: Sequence[tuple[str, str | None]], *, at: Block
    ) -> list[int | Unreadable]:
        """Return the balances of many (address, contract) in few requests.

        A token that does not tell one has `Unreadable` in its place, and the others their balances.

        Raises:
            BlockGone: the node no longer has the block, or its state.
            NodeTrouble: it cannot be relied on now.
        """
        place = {"blockHash": at.hash, "requireCanonical": True}
        calls: list[Call] = []
        for address, contract in wanted:
            if contract is None:
                calls.append(("eth_getBalance", (address, place)))
            else:
                call = {"to": contract, "data": "0x" + balance_of_data(address).hex()}
                calls.append(("eth_call", (call, place)))
        found: list[int | Unreadable] = []
        for (_, contract), answer in zip(wanted, await self._ask_at_once(calls), strict=True):
            if isinstance(answer, RpcRefusal):
                if says_block_gone(answer.code, answer.message):
                    raise BlockGone(f"the node does not have block {at.hash}, or its state")
                if contract is None or not says_contract_fails(answer.code, answer.message):
                    raise answer
                found.append(Unreadable(REFUSES))
                continue
            found.append(
                as_int(answer, "the balance") if contract is None else _token_balance(answer)
            )
        return found

    async def _ask_at_once(self, calls: Sequence[Call]) -> list[Any | RpcRefusal]:
        """Return what the node answers to *calls*, in their order, several batches open at once."""
        answers: list[Any | RpcRefusal] = [None] * len(calls)
        starts = iter(range(0, len(calls), BATCH_MAX))

        async def ask() -> None:
            for start in starts:
                part = calls[start : start + BATCH_MAX]
                answers[start : start + len(part)] = await self._rpc.ask_many(part)

        try:
            with ungrouped():
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self._balance_batches, -(-len(calls) // BATCH_MAX))):
                        group.create_task(ask())
        except RateLimited:
            # So many at once are too many for this node: from now on one after the other.
            self._balance_batches = 1
            raise
        return answers

    async def next_nonce(self, address: str) -> int:
        """Return how many transactions of *address* are mined at the head."""
        answer = await self._rpc.ask("eth_getTransactionCount", address, "latest")
        return as_int(answer, "the transaction count")

    async def fees(self) -> FeeQuote:
        """Return what to bid, by the fees of recent blocks; see `chain.evm.fee_oracle`."""
        policy = self._fee_policy
        if self._fee_history:
            try:
                answer = await self._rpc.ask(
                    "eth_feeHistory", hex(policy.blocks), "latest", [policy.percentile]
                )
            except RpcRefusal as refusal:
                if refusal.code != METHOD_UNKNOWN:
                    raise
                self._fee_history = False
            else:
                recent = parse_history(answer)
                if recent.tips:
                    return quote(recent, policy)
                return quote(recent, policy, suggested_tip=await self._suggested_tip())
        head = await self._rpc.ask("eth_getBlockByNumber", "latest", False)
        recent = RecentFees(next_base_fee(head), ())
        return quote(recent, policy, suggested_tip=await self._suggested_tip())

    async def _suggested_tip(self) -> int:
        answer = await self._rpc.ask("eth_maxPriorityFeePerGas")
        return as_int(answer, "the suggested tip", WEI_MAX)

    async def estimate_gas(
        self, *, sender: str, recipient: str, value: int = 0, data: bytes = b""
    ) -> int:
        """Return the gas that the call would use at the head."""
        call = {"from": sender, "to": recipient, "value": hex(value), "data": "0x" + data.hex()}
        try:
            return as_int(await self._rpc.ask("eth_estimateGas", call), "the gas estimate")
        except RpcRefusal as refusal:
            if says_call_fails(refusal.code, refusal.message):
                raise CallReverted(f"{recipient} would refuse: {refusal.message}") from refusal
            raise

    async def code_at(self, address: str) -> bytes:
        """Return the code at *address* at the head."""
        return as_bytes(await self._rpc.ask("eth_getCode", address, "latest"), "the code")

    async def storage_at(self, address: str, slot: int) -> bytes:
        """Return the 32 bytes of a contract's storage slot at the head."""
        answer = await self._rpc.ask("eth_getStorageAt", address, hex(slot), "latest")
        return as_bytes(answer, "the storage").rjust(WORD_BYTES, b"\0")

    async def simulate(
        self, *, sender: str, recipient: str, value: int = 0, data: bytes = b""
    ) -> CallResult:
        """Return what the call would do at the head."""
        call = {"from": sender, "to": recipient, "value": hex(value), "data": "0x" + data.hex()}
        try:
            answer = await self._rpc.ask("eth_call", call, "latest")
        except RpcRefusal as refusal:
            if says_call_fails(refusal.code, refusal.message):
                return CallResult(succeeded=False, revert=refusal.message)
            raise
        return CallResult(succeeded=True, returned=as_bytes(answer, "what the call returns"))

    async def broadcast_many(self, items: Sequence[tuple[bytes, str]]) -> list[BroadcastReport]:
        """Send several, each once and in order, in batches of up to `BATCH_MAX`."""
        reports: list[BroadcastReport] = []
        for first in range(0, len(items), BATCH_MAX):
            reports += await self._broadcast(items[first : first + BATCH_MAX])
        return reports

    async def broadcast(self, raw: bytes, tx_hash: str) -> BroadcastReport:
        """Send *raw* once; classify by hash and by `chain.evm.refusals`."""
        (report,) = await self._broadcast([(raw, tx_hash)])
        return report

    async def _broadcast(self, items: Sequence[tuple[bytes, str]]) -> list[BroadcastReport]:
        """Send what can be sent in one request, after the chain id was asserted."""
        read = [self._read_signed(raw, tx_hash) for raw, tx_hash in items]
        signed = [item for item in read if isinstance(item, SignedTransaction)]
        said = iter(await self._send([raw for raw, _ in items], read) if signed else [])
        return [
            item if isinstance(item, BroadcastReport) else await self._judge(next(said), item)
            for item in read
        ]

    def _read_signed(self, raw: bytes, tx_hash: str) -> SignedTransaction | BroadcastReport:
        try:
            signed = decode_signed(raw, chain_id=self.network_id)
        except BadTransaction as error:
            return BroadcastReport(BroadcastOutcome.REJECTED, error.what)
        if signed.tx_hash != tx_hash:
            return BroadcastReport(BroadcastOutcome.REJECTED, f"the bytes are {signed.tx_hash}")
        return signed

    async def _send(
        self, raws: Sequence[bytes], read: Sequence[SignedTransaction | BroadcastReport]
    ) -> list[Any]:
        """Return what the node says to each that is to be sent: a hash, a refusal or trouble."""
        calls = [
            ("eth_sendRawTransaction", ("0x" + raw.hex(),))
            for raw, item in zip(raws, read, strict=True)
            if isinstance(item, SignedTransaction)
        ]
        try:
            await self.chain_id()
        except NodeTrouble as trouble:
            return [NodeUnavailable(trouble.what)] * len(calls)
        try:
            if len(calls) > 1:
                return await self._rpc.ask_many_once(calls)
        except RpcRefusal:
            # A batch that is refused as a whole was not looked into: one after the other, then.
            pass
        except NodeTrouble as trouble:
            return [trouble] * len(calls)
        return [await self._send_one(method, *params) for method, params in calls]

    async def _send_one(self, method: str, *params: Any) -> Any:
        try:
            return await self._rpc.ask_once(method, *params)
        except NodeTrouble as trouble:
            return trouble

    async def _judge(self, said: Any, signed: SignedTransaction) -> BroadcastReport:
        """Say what is known after the node said a hash, a refusal, or nothing."""
        if isinstance(said, RpcRefusal):
            return await self._explain(said, signed)
        if isinstance(said, NodeTrouble):
            return BroadcastReport(BroadcastOutcome.UNKNOWN, said.what)
        try:
            found = as_hash(said, "the hash")
        except UnreadableAnswer as trouble:
            return BroadcastReport(BroadcastOutcome.UNKNOWN, trouble.what)
        if found != signed.tx_hash:
            return BroadcastReport(BroadcastOutcome.UNKNOWN, f"the node answered {found}")
        return BroadcastReport(BroadcastOutcome.ACCEPTED)

    async def find_transaction(self, tx_hash: str) -> TransactionOutcome | None:
        """Return the outcome of a mined transaction; None when it is in no block of the node."""
        answer = await self._rpc.ask("eth_getTransactionReceipt", tx_hash)
        if answer is None:
            return None
        receipt = parse_receipt(answer)
        item = await self._rpc.ask("eth_getTransactionByHash", tx_hash)
        if item is None or receipt.tx_hash != tx_hash:
            raise IncompleteAnswer(f"the node has the receipt of {tx_hash}, not the transaction")
        transaction = parse_transaction(item)
        if transaction.tx_hash != tx_hash:
            raise IncompleteAnswer(f"asked for {tx_hash}, the node gave {transaction.tx_hash}")
        return outcome_of(transaction, receipt)

    async def _explain(self, refusal: RpcRefusal, signed: SignedTransaction) -> BroadcastReport:
        """Say what a refusal to take the bytes proves."""
        match read_refusal(refusal.message):
            case SendWord.ALREADY_KNOWN:
                return BroadcastReport(BroadcastOutcome.ACCEPTED, refusal.message)
            case SendWord.INVALID:
                return BroadcastReport(BroadcastOutcome.REJECTED, refusal.message)
            case SendWord.NOT_NOW:
                return BroadcastReport(BroadcastOutcome.UNKNOWN, refusal.message)
            case SendWord.NONCE_SPENT:
                return await self._explain_nonce(refusal, signed)

    async def _explain_nonce(
        self, refusal: RpcRefusal, signed: SignedTransaction
    ) -> BroadcastReport:
        """Find who spent the nonce: ours means accepted, a stranger must be named to reject."""
        try:
            spender = await self._find_spender(signed.sender, signed.unsigned.nonce)
            if spender is None and await self.find_transaction(signed.tx_hash) is not None:
                spender = signed.tx_hash
        except NodeTrouble as trouble:
            return BroadcastReport(
                BroadcastOutcome.UNKNOWN, f"{refusal.message}; then {trouble.what}"
            )
        if spender is None:
            return BroadcastReport(
                BroadcastOutcome.UNKNOWN, f"{refusal.message}; who spent it was not found"
            )
        if spender == signed.tx_hash:
            return BroadcastReport(BroadcastOutcome.ACCEPTED, "already mined")
        return BroadcastReport(
            BroadcastOutcome.REJECTED,
            f"nonce {signed.unsigned.nonce} of {signed.sender} was spent by {spender}",
        )

    async def _find_spender(self, sender: str, nonce: int) -> str | None:
        """Return the transaction that spent the nonce, from the head down along parent hashes.

        Along the hashes, because of two nodes behind one address the one that lags would not have
        our transaction, and we would take its silence for a stranger's act.
        """
        block_hash = (await self.head()).hash
        for _ in range(NONCE_SEARCH_MAX):
            full = await self._reading.full_block(block_hash)
            for item in full.transactions:
                if (item.sender, item.nonce) == (sender, nonce):
                    return item.tx_hash
            if full.block.height == 0:
                return None
            block_hash = full.block.parent
        return None


def _token_balance(answer: Any) -> int | Unreadable:
    word = as_bytes(answer, "the token balance")
    return int.from_bytes(word, "big") if len(word) == WORD_BYTES else Unreadable(NO_ANSWER)
