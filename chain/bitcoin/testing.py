"""A chain of Bitcoin in memory: blocks, forks, a pool and faults by script, behind the node's port.

It is shipped for the tests of whoever builds on `chain.bitcoin.ports.BitcoinReader`. Transactions are real
ones; signatures and scripts are not verified. What a node's policy refuses (a fee below the relay
rate, a replacement that pays too little, a conflict) it refuses as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from chain.bitcoin.addresses import canonical_address, parse_address
from chain.bitcoin.blocks import (
    FINAL_DEPTH,
    BlockTransaction,
    Needle,
    Spending,
    contents_of,
    outcome_of,
    payee_of,
)
from chain.bitcoin.fees import fee_of
from chain.bitcoin.model import FeeRate, PoolVerdict, RateSource, ScannedCoin, UnspentScan
from chain.bitcoin.networks import REGTEST, Network
from chain.bitcoin.scripts import witness_script
from chain.bitcoin.transactions import Input, Outpoint, Output, Transaction, decode
from chain.errors import BadTransaction
from chain.model import (
    Block,
    BlockContents,
    BroadcastOutcome,
    BroadcastReport,
    PendingMovement,
    TransactionOutcome,
    WatchList,
)
from chain.scripted import Mined, ScriptedChain

BLOCK_TIME: Final = timedelta(minutes=10)
NO_PARENT: Final = "0" * 64
SUBSIDY: Final = 50 * 100_000_000
STRANGER_FEE: Final = 1_000
COINBASE_OUTPOINT: Final = Outpoint("0" * 64, 0xFFFFFFFF)


@dataclass(slots=True)
class ScriptedBitcoin(ScriptedChain[Transaction]):
    """A chain in memory and the node that serves it.

    Attributes:
        rate: what it estimates, in sat/kvB, for targets that are not in *rates*; None: no data.
        fallback_rate: what is paid then.
        relay_rate, step_rate: the lowest rate that its pool takes, and the step of a replacement.
        hide: for how many of the next blocks read the node shows nothing.
    """

    chain: str = "bitcoin"
    network: Network = REGTEST
    rate: int | None = 5_000
    rates: dict[int, int] = field(default_factory=dict)
    fallback_rate: int = 20_000
    relay_rate: int = 1_000
    step_rate: int = 1_000
    hide: int = 0
    traces: bool = True
    _given: dict[Outpoint, Output] = field(default_factory=dict)
    _known: dict[str, Transaction] = field(default_factory=dict)
    _needle: Needle = field(init=False)
    _gifts: int = 0

    def __post_init__(self) -> None:
        """Begin with a genesis block."""
        self._needle = Needle(self.network)
        self.mine()

    # What a script does to the chain.

    def fund(self, address: str, amount: int) -> Outpoint:
        """Let *address* have had *amount* satoshi from the beginning; return where."""
        return self._give(parse_address(address, self.network), amount)

    def pay(
        self, *payments: tuple[str, int], fee: int = STRANGER_FEE, spend: Sequence[Outpoint] = ()
    ) -> Transaction:
        """Return a stranger's transaction with an output for each (address, amount).

        It spends a coin of the stranger's, made for it, or *spend*: two transactions that spend the
        same cannot both be mined.
        """
        outputs = tuple(
            Output(amount, parse_address(address, self.network)) for address, amount in payments
        )
        if not spend:
            stranger = witness_script(0, b"\xee" * 20)
            spend = [self._give(stranger, sum(item.amount for item in outputs) + fee)]
        return Transaction(tuple(Input(outpoint) for outpoint in spend), outputs)

    def new_coins(self, address: str, amount: int = SUBSIDY) -> Transaction:
        """Return a transaction that makes new coins; put it first into the next block."""
        height = len(self._branch).to_bytes(4, "little") + self._forks.to_bytes(4, "little")
        output = Output(amount, parse_address(address, self.network))
        return Transaction((Input(COINBASE_OUTPOINT, script=height),), (output,))

    def mine(self, *transactions: Transaction) -> Block:
        """Add a block with exactly these transactions.

        Raises:
            ValueError: an input that does not exist or is spent: no node would take the block.
        """
        self._require_spendable(transactions)
        parent = self._branch[-1].block.hash if self._branch else NO_PARENT
        height = len(self._branch)
        ids = [item.tx_id for item in transactions]
        name = hashlib.sha256(repr((parent, self._forks, ids)).encode()).hexdigest()
        block = Block(self.chain, height, name, parent, self.begins + BLOCK_TIME * height)
        self._branch.append(Mined(block, transactions))
        spent = {item.outpoint for one in transactions for item in one.inputs}
        for item in transactions:
            self._known[item.tx_id] = item
            self._pool.pop(item.tx_id, None)
        for other in [*self._pool.values()]:
            if any(item.outpoint in spent for item in other.inputs):
                self._evict(other.tx_id)
        return block

    def mine_pool(self) -> Block:
        """Add a block with everything that waits, parents first."""
        return self.mine(*self._pool.values())

    def reorg(self, depth: int, blocks: Sequence[Sequence[Transaction]]) -> list[Transaction]:
        """Replace the newest *depth* blocks; return what was in them and is not in the new ones.

        As on a real node, those that can still be mined wait in the pool again.
        """
        orphaned = self.rollback(depth)
        waiting = {**{item.tx_id: item for item in orphaned if not item.is_coinbase}, **self._pool}
        self._pool = {}
        for transactions in blocks:
            self.mine(*transactions)
        mined = {item.tx_id for block in blocks for item in block}
        for tx_id, item in waiting.items():
            if tx_id not in mined and self._missing(item) is None:
                self._pool[tx_id] = item
        return [item for item in orphaned if item.tx_id not in mined]

    def submit(self, transaction: Transaction) -> None:
        """Put a transaction into the pool in place of what it conflicts with, whatever it pays."""
        for other in self._conflicts(transaction):
            self._evict(other)
        self._known[transaction.tx_id] = transaction
        self._pool[transaction.tx_id] = transaction

    def drop(self, tx_id: str) -> bool:
        """Take a transaction, and what spends it, out of the pool; tell whether it was there."""
        there = tx_id in self._pool
        self._evict(tx_id)
        return there

    def transaction(self, tx_id: str) -> Transaction:
        """Return a transaction that was ever mined or waited."""
        return self._known[tx_id]

    # The port.

    async def chain_id(self) -> int:
        """Return the network id."""
        self._stumble()
        return self.network.network_id

    async def pending(self, watch: WatchList) -> tuple[PendingMovement, ...]:
        """Return what the pool would move to watched addresses."""
        self._stumble()
        scripts = self._needle.thread(watch).scripts
        return tuple(
            PendingMovement(
                item.tx_id,
                outcome_of(self._resolved(item), self.network).sender,
                0,
                scripts[output.script],
                None,
                output.amount,
                tuple((one.outpoint.tx_id, one.outpoint.index) for one in item.inputs),
            )
            for item in self._pool.values()
            for output in item.outputs
            if output.script in scripts and output.amount
        )

    async def finalized_height(self) -> int:
        """Return the height that lies `FINAL_DEPTH` blocks back."""
        self._stumble()
        return max(0, len(self._visible()) - 1 - FINAL_DEPTH)

    async def find_transaction(self, tx_hash: str) -> TransactionOutcome | None:
        """Return the outcome of a mined transaction."""
        self._stumble()
        for mined in self._visible():
            for item in mined.transactions:
                if item.tx_id == tx_hash:
                    return outcome_of(self._resolved(item), self.network)
        return None

    async def fee_rate(self, target_blocks: int) -> FeeRate:
        """Return the scripted rate, or the fallback."""
        self._stumble()
        rate = self.rates.get(target_blocks, self.rate)
        if rate is None:
            return FeeRate(max(self.fallback_rate, self.relay_rate), RateSource.FALLBACK)
        return FeeRate(max(rate, self.relay_rate), RateSource.NODE)

    async def min_relay_rate(self) -> int:
        """Return `relay_rate`."""
        self._stumble()
        return self.relay_rate

    async def incremental_rate(self) -> int:
        """Return `step_rate`."""
        self._stumble()
        return self.step_rate

    async def is_unspent(self, outpoint: Outpoint, *, with_pool: bool) -> bool:
        """Tell whether the output exists and nothing spends it."""
        self._stumble()
        if with_pool and any(
            item.outpoint == outpoint for one in self._pool.values() for item in one.inputs
        ):
            return False
        parent = self._pool.get(outpoint.tx_id) if with_pool else None
        if parent is not None:
            return outpoint.index < len(parent.outputs)
        return outpoint in self._unspent()

    async def scan(self, addresses: Sequence[str]) -> UnspentScan:
        """Return the unspent outputs of *addresses* at the newest block."""
        self._stumble()
        wanted = {canonical_address(address, self.network) for address in addresses}
        found = [
            ScannedCoin(outpoint.tx_id, outpoint.index, address, output.amount, height)
            for outpoint, (output, height) in sorted(self._unspent().items())
            if (address := payee_of(output.script, self.network)) in wanted
        ]
        tip = self._visible()[-1].block
        return UnspentScan(tip.height, tip.hash, tuple(found))

    async def pool_spender(self, outpoint: Outpoint) -> str | None:
        """Return the transaction in the pool that spends the output."""
        self._stumble()
        return next(
            (
                tx_id
                for tx_id, item in self._pool.items()
                if any(one.outpoint == outpoint for one in item.inputs)
            ),
            None,
        )

    async def accepts(self, raw: bytes) -> PoolVerdict:
        """Return what `broadcast` would do, as policy sees it."""
        self._stumble()
        try:
            item = decode(raw)
        except BadTransaction as error:
            return PoolVerdict(accepted=False, reason=error.what)
        reason = self._refusal(item)
        if reason:
            return PoolVerdict(accepted=False, reason=reason)
        return PoolVerdict(True, "", self._resolved(item).fee, item.virtual_size)

    # How it decides.

    def _admit(self, raw: bytes, tx_id: str) -> BroadcastReport:
        try:
            item = decode(raw)
        except BadTransaction as error:
            return BroadcastReport(BroadcastOutcome.REJECTED, error.what)
        if item.tx_id != tx_id:
            return BroadcastReport(BroadcastOutcome.REJECTED, f"the bytes are {item.tx_id}")
        if tx_id in self._pool or self._is_mined(tx_id):
            return BroadcastReport(BroadcastOutcome.ACCEPTED, "already known")
        spender = self._mined_spender(item)
        if spender is not None:
            return BroadcastReport(
                BroadcastOutcome.REJECTED, f"an input was spent by {spender}, which is confirmed"
            )
        reason = self._refusal(item)
        if reason:
            return BroadcastReport(BroadcastOutcome.UNKNOWN, reason)
        self.submit(item)
        return BroadcastReport(BroadcastOutcome.ACCEPTED)

    def _refusal(self, item: Transaction) -> str:
        """Return why the pool does not take the transaction now; empty if it does."""
        if self._missing(item) is not None:
            return "bad-txns-inputs-missingorspent"
        fee, size = self._resolved(item).fee, item.virtual_size
        if fee < fee_of(item.weight, self.relay_rate):
            return "min relay fee not met"
        conflicts = [self._resolved(self._pool[tx_id]) for tx_id in self._conflicts(item)]
        if not conflicts:
            return ""
        paid = sum(other.fee for other in conflicts)
        sizes = [self._pool[other.tx_id].virtual_size for other in conflicts]
        too_slow = any(
            fee * other_size <= other.fee * size
            for other, other_size in zip(conflicts, sizes, strict=True)
        )
        if too_slow or fee < paid + fee_of(item.weight, self.step_rate):
            return "insufficient fee, rejecting replacement"
        return ""

    def _contents(self, block: Block, watch: WatchList) -> BlockContents:
        mined = self._find(block)
        if self.hide:
            self.hide -= 1
            return BlockContents(block, traced=True)
        resolved = [self._resolved(item) for item in mined.transactions]
        scripts = self._needle.thread(watch).scripts
        return contents_of(block, resolved, scripts, self.network)

    def _resolved(self, item: Transaction) -> BlockTransaction:
        inputs: tuple[Spending, ...] = ()
        if not item.is_coinbase:
            inputs = tuple(Spending(i.outpoint, self._output(i.outpoint)) for i in item.inputs)
        return BlockTransaction(item.tx_id, inputs, item.outputs)

    def _output(self, outpoint: Outpoint) -> Output | None:
        if outpoint in self._given:
            return self._given[outpoint]
        parent = self._known.get(outpoint.tx_id)
        if parent is None or outpoint.index >= len(parent.outputs):
            return None
        return parent.outputs[outpoint.index]

    def _give(self, script: bytes, amount: int) -> Outpoint:
        self._gifts += 1
        outpoint = Outpoint(hashlib.sha256(f"gift {self._gifts}".encode()).hexdigest(), 0)
        self._given[outpoint] = Output(amount, script)
        return outpoint

    def _unspent(self) -> dict[Outpoint, tuple[Output, int]]:
        """Return every output that no visible block spends, with the height of its block."""
        coins = {outpoint: (output, 0) for outpoint, output in self._given.items()}
        for mined in self._visible():
            for item in mined.transactions:
                for spent in item.inputs:
                    coins.pop(spent.outpoint, None)
                for place, output in enumerate(item.outputs):
                    coins[Outpoint(item.tx_id, place)] = (output, mined.block.height)
        return coins

    def _require_spendable(self, transactions: Sequence[Transaction]) -> None:
        coins = set(self._unspent()) if transactions else set()
        for item in transactions:
            for spent in item.inputs:
                if spent.outpoint != COINBASE_OUTPOINT and spent.outpoint not in coins:
                    raise ValueError(f"{item.tx_id} spends {spent.outpoint}, which is not there")
                coins.discard(spent.outpoint)
            coins.update(Outpoint(item.tx_id, place) for place in range(len(item.outputs)))

    def _missing(self, item: Transaction) -> Outpoint | None:
        """Return an input that neither the chain nor the pool has."""
        coins = self._unspent()
        for spent in item.inputs:
            parent = self._pool.get(spent.outpoint.tx_id)
            there = parent is not None and spent.outpoint.index < len(parent.outputs)
            if not there and spent.outpoint not in coins:
                return spent.outpoint
        return None

    def _conflicts(self, item: Transaction) -> list[str]:
        spent = {one.outpoint for one in item.inputs}
        return [
            tx_id
            for tx_id, other in self._pool.items()
            if tx_id != item.tx_id and any(one.outpoint in spent for one in other.inputs)
        ]

    def _evict(self, tx_id: str) -> None:
        if self._pool.pop(tx_id, None) is None:
            return
        for other_id, other in [*self._pool.items()]:
            if any(one.outpoint.tx_id == tx_id for one in other.inputs):
                self._evict(other_id)

    def _mined_spender(self, item: Transaction) -> str | None:
        spent = {one.outpoint for one in item.inputs}
        for mined in self._branch:
            for other in mined.transactions:
                if any(one.outpoint in spent for one in other.inputs):
                    return other.tx_id
        return None

    def _is_mined(self, tx_id: str) -> bool:
        return any(item.tx_id == tx_id for mined in self._branch for item in mined.transactions)
