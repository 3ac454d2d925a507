"""A chain in memory: blocks, forks and faults by script, behind the same port as a real node.

It is shipped for the tests of whoever builds on `chain.ports.ChainGateway`, and passes the same
conformance tests as the gateway to a real node for what it covers. It executes nothing: a scripted
transaction moves what it says it moves. Signed EIP-1559 bytes are understood as far as Causeway
sends them (value, or one ERC-20 transfer).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from chain.errors import (
    BadTransaction,
    CallReverted,
    TokenUnreadable,
)
from chain.evm.transactions import (
    SignedTransaction,
    decode_erc20_transfer,
    decode_signed,
    intrinsic_gas,
)
from chain.model import (
    TOP,
    Block,
    BlockContents,
    BroadcastOutcome,
    BroadcastReport,
    CallResult,
    FeeQuote,
    Movement,
    PendingMovement,
    TransactionOutcome,
    WatchList,
    log_position,
    shown,
    trace_position,
)
from chain.scripted import Mined, ScriptedChain

BLOCK_TIME: Final = timedelta(seconds=12)
FINALITY_LAG: Final = 64
BASE_FEE: Final = 10**9
PRIORITY_FEE: Final = 10**8
TOKEN_GAS: Final = 52_000
SCRIPTED_FEE: Final = 21_000 * BASE_FEE
NO_PARENT: Final = "0x" + "0" * 64


@dataclass(frozen=True, slots=True)
class ScriptedTransfer:
    """A token transfer, as the event that proves it."""

    contract: str
    sender: str
    recipient: str
    amount: int


@dataclass(frozen=True, slots=True)
class ScriptedCall:
    """Native value that a contract passes on."""

    sender: str
    recipient: str
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedTransaction:
    """A transaction that does what it says.

    Attributes:
        calls: value that contracts pass on; seen only by a node that traces.
        logs_before: events of no interest that its receipt has before *transfers*.
        salt: makes two otherwise equal transactions differ.
        tx_hash: given for signed bytes; otherwise derived from the content.
    """

    sender: str
    recipient: str
    nonce: int = 0
    value: int = 0
    transfers: tuple[ScriptedTransfer, ...] = ()
    calls: tuple[ScriptedCall, ...] = ()
    succeeded: bool = True
    fee: int = SCRIPTED_FEE
    logs_before: int = 0
    salt: str = ""
    tx_hash: str = ""

    @property
    def hash(self) -> str:
        """Return the transaction's hash: the same wherever it is mined."""
        return self.tx_hash or _hash("transaction", self)

    def movements(self) -> tuple[Movement, ...]:
        """Return everything that it moves; nothing when it failed."""
        if not self.succeeded:
            return ()
        top = Movement(self.hash, TOP, self.sender, self.recipient, None, self.value)
        logs = (
            Movement(
                self.hash,
                log_position(self.logs_before + n),
                item.sender,
                item.recipient,
                item.contract,
                item.amount,
            )
            for n, item in enumerate(self.transfers)
        )
        passed_on = (
            Movement(self.hash, trace_position(n), item.sender, item.recipient, None, item.amount)
            for n, item in enumerate(self.calls)
        )
        return tuple(m for m in (top, *logs, *passed_on) if m.amount > 0)

    def outcome(self) -> TransactionOutcome:
        """Return what became of it."""
        return TransactionOutcome(
            self.hash, self.sender, self.nonce, self.succeeded, self.fee, self.recipient
        )


@dataclass(slots=True)
class ScriptedGateway(ScriptedChain[ScriptedTransaction]):
    """A chain in memory and the node that serves it.

    Attributes:
        tokens: contracts whose ``transfer`` signed calls are understood.
        unreadable: contracts that tell nobody's balance.
        traces: whether the node shows value that contracts pass on.
        codes: the code of contracts other than *tokens*.
        simulated: what calls to an address are answered, instead of what they would do.
        hide_logs: for how many of the next blocks read the node leaves out what it shows of events.
    """

    chain: str = "evm"
    network_id: int = 31337
    tokens: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)
    traces: bool = False
    codes: dict[str, bytes] = field(default_factory=dict)
    simulated: dict[str, CallResult] = field(default_factory=dict)
    hide_logs: int = 0
    _funds: dict[tuple[str, str | None], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with a genesis block."""
        self.mine()

    # What a script does to the chain.

    def fund(self, address: str, amount: int, contract: str | None = None) -> None:
        """Let *address* have had *amount* from the beginning."""
        self._funds[address, contract] = self._funds.get((address, contract), 0) + amount

    def mine(self, *transactions: ScriptedTransaction) -> Block:
        """Add a block with exactly these transactions."""
        parent = self._branch[-1].block.hash if self._branch else NO_PARENT
        height = len(self._branch)
        block = Block(
            self.chain,
            height,
            _hash("block", parent, self._forks, [item.hash for item in transactions]),
            parent,
            self.begins + BLOCK_TIME * height,
        )
        self._branch.append(Mined(block, transactions))
        for item in transactions:
            self._pool.pop(item.hash, None)
        return block

    def mine_pool(self) -> Block:
        """Add a block with everything that waits in the pool and whose turn it is."""
        chosen: list[ScriptedTransaction] = []
        counts: dict[str, int] = {}
        for item in sorted(self._pool.values(), key=lambda item: (item.sender, item.nonce)):
            turn = counts.setdefault(item.sender, self._count(item.sender))
            if item.nonce == turn:
                chosen.append(self._decided(item))
                counts[item.sender] = turn + 1
        return self.mine(*chosen)

    def reorg(
        self, depth: int, blocks: Sequence[Sequence[ScriptedTransaction]]
    ) -> list[ScriptedTransaction]:
        """Replace the newest *depth* blocks; return what was in them and is not in the new ones.

        As on a real node, those transactions wait in the pool again.
        """
        orphaned = self.rollback(depth)
        for transactions in blocks:
            self.mine(*transactions)
        mined = {item.hash for block in blocks for item in block}
        left = [item for item in orphaned if item.hash not in mined]
        self._pool.update({item.hash: item for item in left})
        return left

    def read(self, raw: bytes) -> ScriptedTransaction:
        """Return what signed bytes will do when they are mined."""
        return self._decided(_scripted(decode_signed(raw, chain_id=self.network_id), self.tokens))

    def announce(self, item: ScriptedTransaction) -> None:
        """Let a transaction wait in the pool, as somebody else's do."""
        self._pool[item.hash] = item

    def drop(self, tx_hash: str) -> bool:
        """Take a transaction out of the pool; tell whether it was there."""
        return self._pool.pop(tx_hash, None) is not None

    # The port.

    async def chain_id(self) -> int:
        """Return the network id."""
        self._stumble()
        return self.network_id

    async def pending(self, watch: WatchList) -> tuple[PendingMovement, ...]:
        """Return what the pool would move to watched addresses."""
        self._stumble()
        return tuple(
            PendingMovement(
                item.hash, item.sender, item.nonce, move.recipient, move.contract, move.amount
            )
            for item in self._pool.values()
            for move in item.movements()
            if move.recipient in watch.addresses
            and (move.contract is None or move.contract in watch.contracts)
        )

    async def finalized_height(self) -> int:
        """Return the height that lies `FINALITY_LAG` blocks back."""
        self._stumble()
        return max(0, len(self._visible()) - 1 - FINALITY_LAG)

    async def balance(self, address: str, contract: str | None, *, at: Block) -> int:
        """Return what *address* holds after the block *at*."""
        self._stumble()
        self._find(at)
        if contract in self.unreadable:
            raise TokenUnreadable(f"{contract}: its contract refuses to tell balances")
        return self._balance(address, contract, at.height)

    async def next_nonce(self, address: str) -> int:
        """Return how many transactions of *address* are mined."""
        self._stumble()
        return self._count(address)

    async def fees(self) -> FeeQuote:
        """Return fees that never change."""
        self._stumble()
        return FeeQuote(2 * BASE_FEE + PRIORITY_FEE, PRIORITY_FEE)

    async def estimate_gas(
        self, *, sender: str, recipient: str, value: int = 0, data: bytes = b""
    ) -> int:
        """Return what the two known calls use; refuse when the sender has not enough."""
        self._stumble()
        if self._balance(sender, None) < value:
            raise CallReverted(f"{sender} has not enough for {value}")
        if recipient not in self.tokens:
            return intrinsic_gas(data)
        if self._balance(sender, recipient) < decode_erc20_transfer(data).amount:
            raise CallReverted(f"{sender} has not enough of {recipient}")
        return TOKEN_GAS

    async def code_at(self, address: str) -> bytes:
        """Return some code for a token, what *codes* says for another address."""
        self._stumble()
        return self.codes.get(address, b"\x60" if address in self.tokens else b"")

    async def simulate(
        self, *, sender: str, recipient: str, value: int = 0, data: bytes = b""
    ) -> CallResult:
        """Return what *simulated* says, or what the two known calls would do."""
        if recipient in self.simulated:
            self._stumble()
            return self.simulated[recipient]
        try:
            await self.estimate_gas(sender=sender, recipient=recipient, value=value, data=data)
        except CallReverted as error:
            return CallResult(succeeded=False, revert=error.what)
        returned = (1).to_bytes(32, "big") if recipient in self.tokens else b""
        return CallResult(succeeded=True, returned=returned)

    async def find_transaction(self, tx_hash: str) -> TransactionOutcome | None:
        """Return the outcome of a mined transaction."""
        self._stumble()
        for mined in self._visible():
            for item in mined.transactions:
                if item.hash == tx_hash:
                    return item.outcome()
        return None

    def _admit(self, raw: bytes, tx_hash: str) -> BroadcastReport:
        try:
            signed = decode_signed(raw, chain_id=self.network_id)
        except BadTransaction as error:
            return BroadcastReport(BroadcastOutcome.REJECTED, error.what)
        if signed.tx_hash != tx_hash:
            return BroadcastReport(BroadcastOutcome.REJECTED, "the hash is another one's")
        if tx_hash in self._pool or self._is_mined(tx_hash):
            return BroadcastReport(BroadcastOutcome.ACCEPTED, "already known")
        tx = signed.unsigned
        spender = self._spender(signed.sender, tx.nonce)
        if spender is not None:
            return BroadcastReport(
                BroadcastOutcome.REJECTED, f"the nonce was spent by {spender.hash}"
            )
        if self._balance(signed.sender, None) < tx.fee_max + tx.value:
            return BroadcastReport(BroadcastOutcome.UNKNOWN, "insufficient funds")
        self._replace(signed)
        return BroadcastReport(BroadcastOutcome.ACCEPTED)

    def _replace(self, signed: SignedTransaction) -> None:
        nonce, sender = signed.unsigned.nonce, signed.sender
        for other in [*self._pool.values()]:
            if (other.sender, other.nonce) == (sender, nonce):
                del self._pool[other.hash]
        self._pool[signed.tx_hash] = _scripted(signed, self.tokens)

    def _decided(self, item: ScriptedTransaction) -> ScriptedTransaction:
        """Let a token transfer fail that the sender cannot cover."""
        for transfer in item.transfers:
            if self._balance(transfer.sender, transfer.contract) < transfer.amount:
                return ScriptedTransaction(
                    sender=item.sender,
                    recipient=item.recipient,
                    nonce=item.nonce,
                    succeeded=False,
                    fee=item.fee,
                    tx_hash=item.hash,
                )
        return item

    def _contents(self, block: Block, watch: WatchList) -> BlockContents:
        found = watched(block, self._find(block).transactions, watch)
        told = [m for m in found.movements if self.traces or not m.position.startswith("trace:")]
        if self.hide_logs:
            self.hide_logs -= 1
            told = [m for m in told if m.contract is None]
        return replace(found, movements=tuple(told), traced=self.traces)

    def _is_mined(self, tx_hash: str) -> bool:
        return any(item.hash == tx_hash for mined in self._branch for item in mined.transactions)

    def _spender(self, address: str, nonce: int) -> ScriptedTransaction | None:
        sent = (i for mined in self._branch for i in mined.transactions if i.sender == address)
        return next((item for place, item in enumerate(sent) if place == nonce), None)

    def _count(self, address: str) -> int:
        return sum(item.sender == address for mined in self._branch for item in mined.transactions)

    def _balance(self, address: str, contract: str | None, height: int | None = None) -> int:
        total = self._funds.get((address, contract), 0)
        for mined in self._branch if height is None else self._branch[: height + 1]:
            for item in mined.transactions:
                if contract is None and item.sender == address:
                    total -= item.fee
                for move in item.movements():
                    if move.contract == contract:
                        total += move.amount * (move.recipient == address)
                        total -= move.amount * (move.sender == address)
        return total


def watched(
    block: Block, transactions: Iterable[ScriptedTransaction], watch: WatchList
) -> BlockContents:
    """Return what *transactions* mean to *watch*, in the order in which they stand."""
    movements: list[Movement] = []
    outcomes: list[TransactionOutcome] = []
    for item in transactions:
        movements += item.movements()
        if item.sender in watch.addresses:
            outcomes.append(item.outcome())
    kept, left_out = shown(movements, watch)
    return BlockContents(block, kept, tuple(outcomes), left_out=left_out)


def _scripted(signed: SignedTransaction, tokens: set[str]) -> ScriptedTransaction:
    tx = signed.unsigned
    transfers: tuple[ScriptedTransfer, ...] = ()
    gas = intrinsic_gas(tx.data)
    if tx.recipient in tokens:
        call = decode_erc20_transfer(tx.data)
        transfers = (ScriptedTransfer(tx.recipient, signed.sender, call.recipient, call.amount),)
        gas = TOKEN_GAS
    price = min(tx.max_fee_per_gas, BASE_FEE + tx.max_priority_fee_per_gas)
    return ScriptedTransaction(
        sender=signed.sender,
        recipient=tx.recipient,
        nonce=tx.nonce,
        value=tx.value,
        transfers=transfers,
        fee=gas * price,
        tx_hash=signed.tx_hash,
    )


def _hash(*parts: object) -> str:
    return "0x" + hashlib.sha256(repr(parts).encode()).hexdigest()
