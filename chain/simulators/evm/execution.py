"""py-evm behind four verbs: make the genesis, build a block, run a call, edit a balance.

The chain of blocks is not kept by py-evm but by ``node``: a block here is a value that knows its
state root, and every state ever made stays readable in the content-addressed store. A reorg or a
revert is therefore nothing but continuing from another block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import rlp  # type: ignore[import-untyped]  # rlp ships no types
from eth._utils.address import generate_contract_address
from eth.consensus.context import ConsensusContext
from eth.constants import (
    EMPTY_SHA256,
    EMPTY_UNCLE_HASH,
    GAS_TX,
    POST_MERGE_NONCE,
    ZERO_ADDRESS,
)
from eth.db.atomic import AtomicDB
from eth.db.chain import ChainDB
from eth.db.trie import make_trie_root_and_nodes
from eth.exceptions import Revert, VMError
from eth.vm.chain_context import ChainContext
from eth.vm.forks.prague import PragueVM
from eth.vm.forks.prague.blocks import PragueBlockHeader
from eth.vm.forks.prague.constants import STANDARD_TOKEN_COST, TOTAL_COST_FLOOR_PER_TOKEN
from eth.vm.forks.prague.transactions import PragueTransactionBuilder
from eth.vm.spoof import SpoofTransaction
from eth_abi.abi import decode as abi_decode
from eth_abi.exceptions import DecodingError
from eth_typing import Address, BlockNumber, Hash32
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from chain.simulators.evm.errors import ExecutionReverted, ServerRefusal
from chain.simulators.evm.model import (
    GENESIS_BASE_FEE_WEI,
    Block,
    BlockPlan,
    Call,
    CallOutcome,
    LogEntry,
    Receipt,
    Transaction,
)
from chain.simulators.evm.tracing import CallFrame, TracedState, frame_of

#: How many ancestors the BLOCKHASH instruction can see.
VISIBLE_ANCESTORS = 256

#: ``Error(string)``, the selector of a revert with a reason.
ERROR_STRING_SELECTOR = bytes.fromhex("08c379a0")

ZERO_HASH = Hash32(bytes(32))


class _BlockVM(PragueVM):
    """Prague's rules with ancestors given as values instead of being read from a database."""

    ancestors: Sequence[bytes] = ()

    @property
    def previous_hashes(self) -> Any:
        """Return the hashes of the ancestors, nearest first."""
        return self.ancestors


class _TracingVM(_BlockVM):
    """The same rules, noting what each frame begins."""

    _state_class = TracedState


class Execution:
    """A store of states and the rules to get from one to the next. Not safe for two threads."""

    def __init__(self, *, chain_id: int, gas_limit: int) -> None:
        self._db = AtomicDB()
        self._chaindb = ChainDB(self._db)
        self._context = ChainContext(chain_id)
        self._consensus = ConsensusContext(self._db)
        self.chain_id = chain_id
        self.gas_limit = gas_limit

    def make_genesis(self, balances: dict[bytes, int], *, timestamp: int, seed: bytes) -> Block:
        """Return block 0 with the given balances (wei)."""
        header = PragueBlockHeader(
            difficulty=0,
            block_number=BlockNumber(0),
            gas_limit=self.gas_limit,
            timestamp=timestamp,
            nonce=POST_MERGE_NONCE,
            base_fee_per_gas=GENESIS_BASE_FEE_WEI,
            mix_hash=Hash32(seed),
        )
        state = self._vm(header, ()).state
        for address, balance in balances.items():
            state.set_balance(Address(address), balance)
        state.persist()
        return _as_block(header.copy(state_root=state.state_root), ())

    def state(self, block: Block) -> Any:
        """Return py-evm's view of the state after *block*: balances, nonces, code, storage."""
        return self._vm(block.header.copy(state_root=block.state_root), ()).state

    def build(
        self,
        parent: Block,
        ancestors: Sequence[bytes],
        plan: BlockPlan,
        candidates: Iterable[Transaction],
    ) -> Block:
        """Return the block after *parent* with the candidates that fit, in their order.

        *ancestors* are the hashes from *parent* backwards. A candidate that cannot run here, or
        for which no gas is left, holds back the later ones of its sender.
        """
        header = self._next_header(parent, plan)
        vm = self._vm(header, ancestors)
        receipts: list[Receipt] = []
        evm_receipts: list[Any] = []
        held_back: set[bytes] = set()
        for transaction in candidates:
            if transaction.sender in held_back:
                continue
            if header.gas_used + transaction.gas > header.gas_limit:
                held_back.add(transaction.sender)
                continue
            try:
                evm_receipt, _ = vm.apply_transaction(header, transaction.evm)
            except ValidationError:
                held_back.add(transaction.sender)
                continue
            receipts.append(_as_receipt(transaction, evm_receipt, header, receipts))
            evm_receipts.append(evm_receipt)
            header = vm.add_receipt_to_header(header, evm_receipt)
        if receipts:
            vm.state.persist()
            header = header.copy(
                state_root=vm.state.state_root,
                transaction_root=make_trie_root_and_nodes([r.transaction.evm for r in receipts])[0],
                receipt_root=make_trie_root_and_nodes(evm_receipts)[0],
            )
        return _as_block(header, tuple(receipts))

    def with_balance(self, block: Block, address: bytes, balance: int) -> Block:
        """Return *block* with an edited state: what follows it sees the new balance (wei)."""
        state = self.state(block)
        state.set_balance(address, balance)
        state.persist()
        return replace(block, state_root=state.state_root)

    def call(self, block: Block, ancestors: Sequence[bytes], call: Call) -> CallOutcome:
        """Run a message on the state after *block* and forget what it changed.

        Raises:
            ServerRefusal: the sender cannot pay for it.
        """
        base_fee = block.base_fee_per_gas if call.gas_price else 0
        header = block.header.copy(state_root=block.state_root, base_fee_per_gas=base_fee)
        state = self._vm(header, ancestors).state
        gas = self.gas_limit if call.gas is None else min(call.gas, self.gas_limit)
        unsigned = PragueTransactionBuilder.new_unsigned_dynamic_fee_transaction(
            chain_id=self.chain_id,
            nonce=state.get_nonce(Address(call.sender)),
            max_priority_fee_per_gas=0,
            max_fee_per_gas=call.gas_price,
            gas=gas,
            to=Address(call.to),
            value=call.value,
            data=call.data,
            access_list=(),
        )
        if minimum_gas(unsigned) > gas:
            raise ServerRefusal(f"intrinsic gas too low: have {gas}, want {minimum_gas(unsigned)}")
        try:
            spoofed: Any = SpoofTransaction(unsigned, from_=call.sender)
            computation = state.apply_transaction(spoofed)
        except ValidationError as exc:
            raise ServerRefusal(f"insufficient funds for gas * price + value: {exc}") from exc
        return _as_outcome(computation, gas)

    def estimate_gas(self, block: Block, ancestors: Sequence[bytes], call: Call) -> int:
        """Return the least gas limit with which the call succeeds.

        Raises:
            ExecutionReverted: it reverts whatever the limit.
            ServerRefusal: it fails in another way.
        """
        if call.to and not call.data and not self.state(block).get_code(call.to):
            require_success(self.call(block, ancestors, call))
            return GAS_TX
        ceiling = self.gas_limit if call.gas is None else min(call.gas, self.gas_limit)
        outcome = require_success(self.call(block, ancestors, _with_gas(call, ceiling)))
        # What was used is a lower bound: refunds and the 1/64 that a caller keeps (EIP-150) may
        # ask for a higher limit, which the search finds.
        guess = outcome.gas_used
        low, high = guess - 1, ceiling
        while low + 1 < high:
            if self._succeeds(block, ancestors, _with_gas(call, guess)):
                high = guess
            else:
                low = guess
            guess = min((low + high) // 2, low * 2)
        return high

    def _succeeds(self, block: Block, ancestors: Sequence[bytes], call: Call) -> bool:
        try:
            return self.call(block, ancestors, call).error is None
        except ServerRefusal:
            return False

    def trace(
        self, parent: Block, ancestors: Sequence[bytes], block: Block
    ) -> tuple[CallFrame, ...]:
        """Return the frames of each transaction of *block*, by running it again after *parent*."""
        header = self._next_header(
            parent,
            BlockPlan(block.timestamp, block.base_fee_per_gas, bytes(block.header.mix_hash)),
        )
        vm = self._vm(header, ancestors, _TracingVM)
        frames = []
        for receipt in block.receipts:
            evm_receipt, computation = vm.apply_transaction(header, receipt.transaction.evm)
            header = vm.add_receipt_to_header(header, evm_receipt)
            frames.append(
                frame_of(computation, gas=receipt.transaction.gas, gas_used=receipt.gas_used)
            )
        if header.gas_used != block.gas_used:
            raise AssertionError(f"block {block.number} runs otherwise the second time")
        return tuple(frames)

    def _vm(
        self, header: Any, ancestors: Sequence[bytes], kind: type[_BlockVM] = _BlockVM
    ) -> _BlockVM:
        vm = kind(header, self._chaindb, self._context, self._consensus)
        vm.ancestors = ancestors
        return vm

    def _next_header(self, parent: Block, plan: BlockPlan) -> Any:
        return PragueBlockHeader(
            difficulty=0,
            block_number=BlockNumber(parent.number + 1),
            gas_limit=self.gas_limit,
            timestamp=plan.timestamp,
            coinbase=ZERO_ADDRESS,
            parent_hash=Hash32(parent.hash),
            uncles_hash=EMPTY_UNCLE_HASH,
            state_root=Hash32(parent.state_root),
            nonce=POST_MERGE_NONCE,
            mix_hash=Hash32(plan.mix_hash),
            base_fee_per_gas=plan.base_fee_per_gas,
            parent_beacon_block_root=ZERO_HASH,
            requests_hash=EMPTY_SHA256,
        )


def minimum_gas(evm: Any) -> int:
    """Return the least gas limit with which a py-evm transaction is valid.

    That is the intrinsic gas or, for much calldata, the floor of EIP-7623.
    """
    zeros = evm.data.count(0)
    tokens = zeros + STANDARD_TOKEN_COST * (len(evm.data) - zeros)
    floor: int = GAS_TX + TOTAL_COST_FLOOR_PER_TOKEN * tokens
    return max(int(evm.intrinsic_gas), floor)


def require_success(outcome: CallOutcome) -> CallOutcome:
    """Return the outcome, or raise what a node answers to a call that failed."""
    if outcome.revert_data is not None:
        raise ExecutionReverted(outcome.error or "execution reverted", outcome.revert_data)
    if outcome.error is not None:
        raise ServerRefusal(outcome.error)
    return outcome


def _with_gas(call: Call, gas: int) -> Call:
    return replace(call, gas=gas)


def _as_block(header: Any, receipts: tuple[Receipt, ...]) -> Block:
    return Block(
        header=header,
        hash=header.hash,
        parent_hash=header.parent_hash,
        number=header.block_number,
        timestamp=header.timestamp,
        base_fee_per_gas=header.base_fee_per_gas,
        gas_limit=header.gas_limit,
        gas_used=header.gas_used,
        receipts=receipts,
        state_root=header.state_root,
    )


def _as_receipt(
    transaction: Transaction, evm_receipt: Any, header: Any, before: Sequence[Receipt]
) -> Receipt:
    previous = before[-1] if before else None
    created = None
    if not transaction.to:
        created = generate_contract_address(Address(transaction.sender), transaction.nonce)
    return Receipt(
        transaction=transaction,
        index=len(before),
        status=int.from_bytes(evm_receipt.state_root, "big"),
        gas_used=evm_receipt.gas_used - (previous.cumulative_gas_used if previous else 0),
        cumulative_gas_used=evm_receipt.gas_used,
        effective_gas_price=min(
            transaction.max_fee_per_gas,
            header.base_fee_per_gas + transaction.max_priority_fee_per_gas,
        ),
        contract_address=created,
        logs=tuple(
            LogEntry(
                address=log.address,
                topics=tuple(topic.to_bytes(32, "big") for topic in log.topics),
                data=log.data,
            )
            for log in evm_receipt.logs
        ),
        first_log_index=(previous.first_log_index + len(previous.logs)) if previous else 0,
        bloom=evm_receipt.bloom,
    )


def _as_outcome(computation: Any, gas: int) -> CallOutcome:
    gas_used = gas - computation.get_gas_remaining()
    if computation.is_success:
        return CallOutcome(output=computation.output, gas_used=gas_used)
    error = computation.error
    if isinstance(error, Revert):
        reason = _revert_reason(computation.output)
        text = f"execution reverted: {reason}" if reason else "execution reverted"
        return CallOutcome(b"", gas_used, error=text, revert_data=computation.output)
    return CallOutcome(b"", gas_used, error=_describe(error))


def _describe(error: VMError) -> str:
    name = type(error).__name__
    return "out of gas" if name == "OutOfGas" else f"execution failed: {name}: {error}"


def _revert_reason(output: bytes) -> str | None:
    if output[:4] != ERROR_STRING_SELECTOR:
        return None
    try:
        (reason,) = abi_decode(["string"], output[4:])
    except (DecodingError, OverflowError, UnicodeDecodeError):
        return None
    return str(reason)


def block_size(block: Block) -> int:
    """Return the size in bytes of the block's header and transactions as they are encoded."""
    return len(rlp.encode(block.header)) + sum(len(r.transaction.raw) for r in block.receipts)


def mix_hash(seed: int, ordinal: int) -> bytes:
    """Return the randomness of the *ordinal*-th block ever made under *seed*.

    It counts blocks made, not heights, so that two branches never share a block by accident.
    """
    return bytes(keccak(f"causeway-evm-simulator/{seed}/{ordinal}".encode()))
