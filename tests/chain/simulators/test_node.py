"""The node without a network: chain, pool and reorgs under arbitrary sequences of events."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chain.simulators.evm.errors import InvalidParams, ServerRefusal, TransactionRefused
from chain.simulators.evm.mempool import minimum_replacement_fee
from chain.simulators.evm.model import (
    BlockAdded,
    BlockRemoved,
    Call,
    EvmSimulatorSettings,
    PendingSeen,
    Transaction,
)
from chain.simulators.evm.node import MAX_BLOCKS_PER_CALL, Node
from chain.simulators.evm.transactions import TransactionRequest, sign_request
from kernel.clock import ManualClock

GWEI = 10**9
FIXED_TIME = 1_700_000_000
FIXED = EvmSimulatorSettings(timestamp=FIXED_TIME, accounts=3, automine=False)


def transfer(
    node: Node, sender: int, nonce: int, *, fee: int = 10 * GWEI, tip: int = GWEI
) -> Transaction:
    request = TransactionRequest(
        nonce=nonce,
        gas=21_000,
        to=b"\x99" * 20,
        value=1,
        data=b"",
        max_fee_per_gas=fee,
        max_priority_fee_per_gas=tip,
    )
    return sign_request(request, node.accounts[sender].key, chain_id=node.chain_id)


def play(node: Node) -> list[bytes]:
    """Do a bit of everything and return the hashes of the chain."""
    for nonce in range(3):
        node.send(transfer(node, 0, nonce))
    node.mine(2)
    node.send(transfer(node, 1, 0))
    node.mine()
    node.reorg(2, [])
    node.increase_time(60)
    node.mine(3)
    return [block.hash for block in node.blocks_between(0, node.head.number)]


def test_the_same_calls_give_the_same_hashes() -> None:
    assert play(Node(FIXED)) == play(Node(FIXED))


def test_a_reset_is_a_new_beginning() -> None:
    node = Node(FIXED)
    first = play(node)

    node.reset()

    assert play(node) == first


def test_another_seed_gives_another_chain() -> None:
    one, other = Node(FIXED), Node(replace(FIXED, seed=1))

    assert set(play(one)).isdisjoint(play(other))


def test_two_branches_never_share_a_block_by_accident() -> None:
    node = Node(FIXED)
    node.mine(3)
    seen = {block.hash for block in node.blocks_between(1, 3)}

    node.reorg(3, [])

    assert seen.isdisjoint(block.hash for block in node.blocks_between(1, 3))


def test_blocks_follow_the_clock_that_was_passed_in_and_never_stand_still() -> None:
    clock = ManualClock()
    node = Node(replace(FIXED, timestamp=None, clock=clock))
    start = int(clock.now().timestamp())
    node.mine()
    clock.advance(timedelta(seconds=100))
    node.mine()
    node.increase_time(50)
    node.mine()

    assert [block.timestamp - start for block in node.blocks_between(0, 3)] == [0, 1, 100, 150]


def test_a_fixed_timestamp_moves_the_clock() -> None:
    clock = ManualClock()
    node = Node(replace(FIXED, timestamp=None, clock=clock))
    start = int(clock.now().timestamp())
    node.set_next_timestamp(start + 1000)
    node.mine()
    clock.advance(timedelta(seconds=5))
    node.mine()

    assert [block.timestamp - start for block in node.blocks_between(1, 2)] == [1000, 1005]


def test_blocks_can_be_mined_at_intervals() -> None:
    node = Node(FIXED)

    node.mine(3, interval_s=12)

    times = [block.timestamp - FIXED_TIME for block in node.blocks_between(0, 3)]
    assert times == [0, 12, 24, 36]


@pytest.mark.parametrize("beyond", [2**40, 2**64])
def test_times_and_fees_stay_in_ranges_that_every_client_can_hold(beyond: int) -> None:
    node = Node(FIXED)

    with pytest.raises(InvalidParams, match="Timestamp error"):
        node.increase_time(beyond)
    with pytest.raises(InvalidParams, match="Timestamp error"):
        node.set_next_timestamp(beyond + 1)
    with pytest.raises(InvalidParams, match="base fee"):
        node.set_next_base_fee(2**64 + 1)
    node.mine()
    assert node.head.timestamp == FIXED_TIME + 1


def test_the_number_of_blocks_per_call_is_bounded() -> None:
    with pytest.raises(InvalidParams, match=str(MAX_BLOCKS_PER_CALL)):
        Node(FIXED).mine(MAX_BLOCKS_PER_CALL + 1)


def test_a_reorg_tells_removed_blocks_newest_first_then_new_ones_then_orphans() -> None:
    node = Node(FIXED)
    node.mine()
    orphan = transfer(node, 0, 0)
    node.send(orphan)
    node.mine()
    old = list(node.blocks_between(1, 2))
    node.take_events()

    node.reorg(2, [])

    new = list(node.blocks_between(1, 2))
    assert node.take_events() == [
        *(BlockRemoved(old[1]), BlockRemoved(old[0])),
        *(BlockAdded(new[0]), BlockAdded(new[1])),
        PendingSeen(orphan),
    ]
    assert node.take_events() == []


def test_a_reorg_that_cannot_include_its_transaction_changes_nothing() -> None:
    node = Node(FIXED)
    node.mine(2)
    head = node.head

    with pytest.raises(InvalidParams, match="cannot be executed in block 2 of the new branch"):
        node.reorg(1, [(transfer(node, 0, 7), 0)])

    assert node.head == head
    assert node.take_events()[-1] == BlockAdded(head)


def test_a_full_block_leaves_the_rest_for_the_next() -> None:
    node = Node(replace(FIXED, gas_limit=21_000 * 3))
    for nonce in range(5):
        node.send(transfer(node, 0, nonce))

    node.mine(2)

    assert [len(block.receipts) for block in node.blocks_between(1, 2)] == [3, 2]


def test_automine_empties_the_pool_when_a_gap_is_filled() -> None:
    node = Node(replace(FIXED, automine=True))
    node.send(transfer(node, 0, 1))
    assert (node.head.number, len(node.pool)) == (0, 1)

    node.send(transfer(node, 0, 0))

    assert (node.head.number, len(node.pool), node.nonce_of(node.accounts[0].address)) == (1, 0, 2)


def test_a_sender_who_can_no_longer_pay_holds_back_nobody_else() -> None:
    node = Node(FIXED)
    node.send(transfer(node, 0, 0))
    node.send(transfer(node, 1, 0))
    node.set_balance(node.accounts[0].address, 0)

    node.mine()

    assert [r.transaction.sender for r in node.head.receipts] == [node.accounts[1].address]
    assert len(node.pool) == 1


def test_a_call_that_costs_more_than_the_sender_has_is_refused() -> None:
    node = Node(FIXED)

    with pytest.raises(ServerRefusal, match="insufficient funds"):
        node.call(Call(sender=b"\x42" * 20, to=b"\x01" * 20, value=1), node.head)


def test_a_revert_also_undoes_an_edited_balance() -> None:
    node = Node(FIXED)
    account = node.accounts[0].address
    node.mine()
    node.set_balance(account, 7)
    snapshot = node.snapshot()
    node.set_balance(account, 9)

    assert node.revert(snapshot)

    assert node.state(node.head).get_balance(account) == 7


def test_a_call_leaves_no_trace() -> None:
    node = Node(FIXED)
    account = node.accounts[0].address
    before = node.state(node.head).get_balance(account)

    assert node.call(Call(sender=account, to=b"\x01" * 20, value=5), node.head).error is None

    assert node.state(node.head).get_balance(account) == before
    assert node.nonce_of(account) == 0


@pytest.mark.parametrize(
    "raw", [b"", b"\x03\x01", b"\xc0", b"\x02\xc0", b"\x7f", b"\x00" * 10, b"\xf8"]
)
def test_bytes_that_are_no_transaction_are_refused(raw: bytes) -> None:
    with pytest.raises((InvalidParams, TransactionRefused)):
        Node(FIXED).decode(raw)


def test_a_transaction_without_replay_protection_is_refused() -> None:
    node = Node(FIXED)
    request = TransactionRequest(0, 21_000, b"\x99" * 20, 1, b"", 0, 0, gas_price=10 * GWEI)

    with pytest.raises(TransactionRefused, match="EIP-155"):
        sign_request(request, node.accounts[0].key, chain_id=None)  # type: ignore[arg-type]


def test_a_raw_transaction_with_bytes_after_its_end_is_refused() -> None:
    node = Node(FIXED)
    raw = transfer(node, 0, 0).raw

    assert node.decode(raw).raw == raw
    with pytest.raises(InvalidParams):
        node.decode(raw + b"\x00")


class NodeMachine(RuleBasedStateMachine):
    """Any sequence of sends, blocks, reorgs and reverts keeps chain and pool consistent."""

    @initialize()
    def begin(self) -> None:
        self.node = Node(FIXED)
        self.alive: dict[bytes, Transaction] = {}
        self.snapshots: list[int] = []

    @rule(sender=st.integers(0, 2), ahead=st.integers(0, 2))
    def send(self, sender: int, ahead: int) -> None:
        account = self.node.accounts[sender].address
        nonce = self.node.next_nonce(account) + ahead
        transaction = transfer(self.node, sender, nonce)
        if self.node.pool.find(transaction.hash) is None:
            self.node.send(transaction)
            self.alive[transaction.hash] = transaction

    @rule(sender=st.integers(0, 2))
    def replace(self, sender: int) -> None:
        account = self.node.accounts[sender].address
        pending, _ = self.node.pool.split(account, self.node.nonce_of(account))
        if not pending:
            return
        old = pending[-1]
        new = transfer(
            *(self.node, sender, old.nonce),
            fee=minimum_replacement_fee(old.max_fee_per_gas),
            tip=minimum_replacement_fee(old.max_priority_fee_per_gas),
        )
        self.node.send(new)
        del self.alive[old.hash]
        self.alive[new.hash] = new

    @rule(count=st.integers(1, 3))
    def mine(self, count: int) -> None:
        self.node.mine(count)

    @rule(depth=st.integers(0, 4))
    def reorg(self, depth: int) -> None:
        self.node.reorg(min(depth, self.node.head.number), [])

    @rule(depth=st.integers(0, 3))
    def rollback(self, depth: int) -> None:
        self.node.rollback(min(depth, self.node.head.number))

    @rule(depth=st.integers(1, 4))
    def reorg_with_the_first_orphan_moved_to_the_end(self, depth: int) -> None:
        depth = min(depth, self.node.head.number)
        height = self.node.head.number
        lost = [
            receipt.transaction
            for block in self.node.blocks_between(height - depth + 1, height)
            for receipt in block.receipts
        ]
        if lost:
            self.node.reorg(depth, [(lost[0], depth - 1)])
            assert self.node.find_receipt(lost[0].hash) is not None

    @rule()
    def snapshot(self) -> None:
        self.snapshots.append(self.node.snapshot())

    @rule()
    def revert(self) -> None:
        if not self.snapshots:
            return
        assert self.node.revert(self.snapshots.pop())
        # Time travel: what was mined since is gone, what waits stays.
        self.alive = {
            key: transaction
            for key, transaction in self.alive.items()
            if self.node.find_receipt(key) or self.node.pool.find(key)
        } | {
            receipt.transaction.hash: receipt.transaction
            for block in self.node.blocks_between(0, self.node.head.number)
            for receipt in block.receipts
        }

    @invariant()
    def blocks_are_linked_and_found(self) -> None:
        blocks = self.node.blocks_between(0, self.node.head.number)
        for parent, child in itertools.pairwise(blocks):
            assert child.parent_hash == parent.hash
            assert child.number == parent.number + 1
            assert child.timestamp > parent.timestamp
        for block in blocks:
            assert self.node.find_block_by_hash(block.hash) is block

    @invariant()
    def every_transaction_is_mined_once_or_waits(self) -> None:
        mined = [
            receipt.transaction.hash
            for block in self.node.blocks_between(0, self.node.head.number)
            for receipt in block.receipts
        ]
        assert len(mined) == len(set(mined))
        assert set(mined) <= set(self.alive)
        for key in self.alive:
            assert (self.node.pool.find(key) is None) == (key in mined)
            assert (self.node.find_receipt(key) is not None) == (key in mined)
        assert len(self.node.pool) == len(self.alive) - len(mined)

    @invariant()
    def the_receiver_has_one_wei_per_mined_transaction(self) -> None:
        mined = sum(len(b.receipts) for b in self.node.blocks_between(0, self.node.head.number))
        assert self.node.state(self.node.head).get_balance(b"\x99" * 20) == mined


NodeMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
test_the_chain_and_the_pool_stay_consistent = NodeMachine.TestCase
