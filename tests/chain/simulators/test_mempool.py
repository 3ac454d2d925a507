"""The transaction pool: places, replacement, order, and what happens to orphans."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chain.simulators.evm.errors import TransactionRefused
from chain.simulators.evm.mempool import (
    Mempool,
    effective_tip,
    may_replace,
    minimum_replacement_fee,
)
from chain.simulators.evm.model import Transaction

SENDERS = [bytes([n]) * 20 for n in (1, 2, 3)]
ALICE, BOB, CAROL = SENDERS


def make(sender: bytes, nonce: int, *, fee: int = 100, tip: int = 10, salt: int = 0) -> Transaction:
    text = f"{sender.hex()}/{nonce}/{fee}/{tip}/{salt}"
    return Transaction(
        hash=hashlib.sha256(text.encode()).digest(),
        sender=sender,
        nonce=nonce,
        gas=21_000,
        max_fee_per_gas=fee,
        max_priority_fee_per_gas=tip,
        to=bytes(20),
        value=0,
        data=b"",
        raw=b"",
    )


def zero(_: bytes) -> int:
    return 0


@pytest.mark.parametrize(
    ("old", "least"),
    [(0, 1), (1, 2), (9, 10), (10, 11), (100, 110), (101, 112), (10**9, 11 * 10**8)],
)
def test_the_least_replacing_fee_is_ten_per_cent_more_rounded_up(old: int, least: int) -> None:
    assert minimum_replacement_fee(old) == least


@given(st.integers(0, 10**15))
def test_a_replacing_fee_is_never_below_ten_per_cent_nor_a_wei_too_high(old: int) -> None:
    least = minimum_replacement_fee(old)

    assert least * 100 >= old * 110
    assert least > old
    assert (least - 1) * 100 < old * 110 or least - 1 <= old


@pytest.mark.parametrize(
    ("fee", "tip", "allowed"),
    [(110, 11, True), (109, 11, False), (110, 10, False), (1000, 10, False), (100, 1000, False)],
)
def test_a_replacement_must_raise_both_fields(fee: int, tip: int, *, allowed: bool) -> None:
    assert may_replace(make(ALICE, 0), make(ALICE, 0, fee=fee, tip=tip)) is allowed


def test_a_replacement_takes_the_place_and_the_old_one_is_forgotten() -> None:
    pool = Mempool()
    old, new = make(ALICE, 0), make(ALICE, 0, fee=110, tip=11)
    pool.add(old, account_nonce=0)

    assert pool.add(new, account_nonce=0) == old
    assert pool.find(old.hash) is None
    assert pool.find(new.hash) == new
    assert len(pool) == 1


@pytest.mark.parametrize(
    ("transaction", "words"),
    [
        (make(ALICE, 3), "already known"),
        (make(ALICE, 1), "nonce too low: next nonce 2, tx nonce 1"),
        (make(ALICE, 3, salt=1), "replacement transaction underpriced"),
        (make(ALICE, 5), "txpool is full"),
    ],
)
def test_a_refused_transaction_leaves_the_pool_as_it_was(
    transaction: Transaction, words: str
) -> None:
    pool = Mempool(capacity=2)
    for nonce in (3, 4):
        pool.add(make(ALICE, nonce), account_nonce=2)

    with pytest.raises(TransactionRefused, match=words):
        pool.add(transaction, account_nonce=2)

    assert len(pool) == 2
    assert pool.find(make(ALICE, 3).hash) == make(ALICE, 3)


def test_a_full_pool_still_takes_a_replacement() -> None:
    pool = Mempool(capacity=1)
    pool.add(make(ALICE, 0), account_nonce=0)

    assert pool.add(make(ALICE, 0, fee=110, tip=11), account_nonce=0) == make(ALICE, 0)


def test_nonces_behind_a_gap_are_queued_until_it_is_filled() -> None:
    pool = Mempool()
    zeroth, first, third = (make(ALICE, nonce) for nonce in (0, 1, 3))
    for transaction in (zeroth, first, third):
        pool.add(transaction, account_nonce=0)

    assert pool.split(ALICE, 0) == ([zeroth, first], [third])
    assert pool.next_nonce(ALICE, 0) == 2

    second = make(ALICE, 2)
    pool.add(second, account_nonce=0)

    assert pool.split(ALICE, 0) == ([zeroth, first, second, third], [])
    assert pool.next_nonce(ALICE, 0) == 4


def test_dropping_one_leaves_a_gap() -> None:
    pool = Mempool()
    for nonce in (0, 1):
        pool.add(make(ALICE, nonce), account_nonce=0)

    assert pool.drop(make(ALICE, 0).hash) == make(ALICE, 0)

    assert pool.split(ALICE, 0) == ([], [make(ALICE, 1)])
    assert pool.drop(make(ALICE, 0).hash) is None


def test_blocks_take_the_best_tip_first_then_the_oldest_and_never_break_a_sequence() -> None:
    pool = Mempool()
    cheap, dear = make(ALICE, 0, tip=1), make(ALICE, 1, tip=50)
    same_early, same_late = make(BOB, 0, tip=20), make(CAROL, 0, tip=20)
    for transaction in (cheap, dear, same_early, same_late):
        pool.add(transaction, account_nonce=0)

    assert list(pool.in_block_order(zero, 10)) == [same_early, same_late, cheap, dear]


def test_the_tip_that_counts_is_what_the_base_fee_leaves() -> None:
    generous, capped = make(ALICE, 0, fee=100, tip=30), make(BOB, 0, fee=60, tip=50)
    pool = Mempool()
    pool.add(capped, account_nonce=0)
    pool.add(generous, account_nonce=0)

    assert (effective_tip(generous, 50), effective_tip(capped, 50)) == (30, 10)
    assert list(pool.in_block_order(zero, 50)) == [generous, capped]


def test_a_transaction_below_the_base_fee_holds_back_its_successors() -> None:
    pool = Mempool()
    for transaction in (make(ALICE, 0, fee=40), make(ALICE, 1, fee=100), make(BOB, 0, fee=50)):
        pool.add(transaction, account_nonce=0)

    assert list(pool.in_block_order(zero, 50)) == [make(BOB, 0, fee=50)]


def test_orphans_return_unless_their_nonce_is_used_or_their_place_is_taken() -> None:
    pool = Mempool()
    taken = make(ALICE, 4)
    pool.add(taken, account_nonce=0)
    orphans = [make(ALICE, nonce, salt=9) for nonce in (2, 3, 4)]

    assert pool.restore(orphans, lambda _: 3) == [orphans[1]]
    assert pool.split(ALICE, 3) == ([orphans[1], taken], [])


def test_used_nonces_are_forgotten() -> None:
    pool = Mempool()
    for nonce in range(4):
        pool.add(make(ALICE, nonce), account_nonce=0)
    pool.add(make(BOB, 0), account_nonce=0)

    pool.forget_used(ALICE, 3)

    assert pool.split(ALICE, 3) == ([make(ALICE, 3)], [])
    assert pool.senders() == [ALICE, BOB]
    pool.clear()
    assert len(pool) == 0
    assert pool.senders() == []


class PoolMachine(RuleBasedStateMachine):
    """The pool against a dictionary: (sender, nonce) -> transaction."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Mempool(capacity=12)
        self.model: dict[tuple[bytes, int], Transaction] = {}
        self.nonces: dict[bytes, int] = defaultdict(int)
        self.mined: list[Transaction] = []

    @rule(
        sender=st.sampled_from(SENDERS),
        nonce=st.integers(0, 6),
        fee=st.integers(0, 300),
        tip=st.integers(0, 30),
    )
    def add(self, sender: bytes, nonce: int, fee: int, tip: int) -> None:
        new = make(sender, nonce, fee=fee, tip=tip)
        old = self.model.get((sender, nonce))
        fits = old is None and len(self.model) < 12
        better = old is not None and old.hash != new.hash and may_replace(old, new)
        if nonce >= self.nonces[sender] and (fits or better):
            assert self.pool.add(new, account_nonce=self.nonces[sender]) == old
            self.model[sender, nonce] = new
        else:
            with pytest.raises(TransactionRefused):
                self.pool.add(new, account_nonce=self.nonces[sender])

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(sorted(self.model)))
        transaction = self.model.pop(place)
        assert self.pool.drop(transaction.hash) == transaction

    @rule(base_fee=st.integers(0, 200), room=st.integers(1, 5))
    def mine(self, base_fee: int, room: int) -> None:
        chosen: list[Transaction] = []
        for transaction in self.pool.in_block_order(self.nonces.__getitem__, base_fee):
            assert transaction.nonce == self.nonces[transaction.sender] + sum(
                other.sender == transaction.sender for other in chosen
            )
            assert transaction.max_fee_per_gas >= base_fee
            chosen.append(transaction)
            if len(chosen) == room:
                break
        for transaction in chosen:
            self.nonces[transaction.sender] += 1
            self.pool.forget_used(transaction.sender, self.nonces[transaction.sender])
            del self.model[transaction.sender, transaction.nonce]
        self.mined.extend(chosen)

    @precondition(lambda self: self.mined)
    @rule(depth=st.integers(1, 5))
    def reorg(self, depth: int) -> None:
        orphans = self.mined[-depth:]
        del self.mined[-depth:]
        for orphan in orphans:
            self.nonces[orphan.sender] -= 1
        returned = self.pool.restore(orphans, self.nonces.__getitem__)
        assert returned == orphans
        self.model |= {(orphan.sender, orphan.nonce): orphan for orphan in orphans}

    @invariant()
    def the_pool_is_the_model(self) -> None:
        assert len(self.pool) == len(self.model)
        assert self.pool.senders() == sorted({sender for sender, _ in self.model})
        for transaction in self.model.values():
            assert self.pool.find(transaction.hash) == transaction
        for sender in SENDERS:
            pending, queued = self.pool.split(sender, self.nonces[sender])
            mine = [self.model[place] for place in sorted(self.model) if place[0] == sender]
            assert pending + queued == mine
            start = self.nonces[sender]
            assert [t.nonce for t in pending] == list(range(start, start + len(pending)))
            assert self.pool.next_nonce(sender, start) == start + len(pending)


test_the_pool_agrees_with_a_dictionary = PoolMachine.TestCase
