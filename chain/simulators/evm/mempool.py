"""The transaction pool as a plain data structure: nonces, gaps, replacement, order.

Rules, after geth's ``core/txpool/legacypool``:

- a sender's transactions with consecutive nonces from the account's nonce are *pending*, the ones
  behind a gap are *queued*;
- a second transaction for the same sender and nonce replaces the first only if it raises **both**
  ``maxFeePerGas`` and ``maxPriorityFeePerGas`` by at least ten per cent
  (``core/txpool/legacypool/list.go``, ``list.Add``);
- miners take the best tip first, never a nonce before its predecessor.

The pool does not know account nonces: whoever asks passes them, because they change with every
block and with every reorg.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator

from chain.simulators.evm.errors import TransactionRefused
from chain.simulators.evm.model import Transaction

PRICE_BUMP_PERCENT = 10
MAX_POOL_TRANSACTIONS = 20_000

NonceOf = Callable[[bytes], int]


def minimum_replacement_fee(old_fee: int) -> int:
    """Return the least fee (wei per gas) that replaces *old_fee*, rounded up.

    A fee of zero cannot be raised by a percentage, so at least one wei more is asked for.
    """
    return max(old_fee + 1, -(-old_fee * (100 + PRICE_BUMP_PERCENT) // 100))


def may_replace(old: Transaction, new: Transaction) -> bool:
    """Return whether *new* pays enough more than *old* in both fee fields."""
    return new.max_fee_per_gas >= minimum_replacement_fee(
        old.max_fee_per_gas
    ) and new.max_priority_fee_per_gas >= minimum_replacement_fee(old.max_priority_fee_per_gas)


def effective_tip(transaction: Transaction, base_fee: int) -> int:
    """Return what the block producer earns per gas; negative if the base fee is not covered."""
    return min(
        transaction.max_priority_fee_per_gas,
        transaction.max_fee_per_gas - base_fee,
    )


class Mempool:
    """Signed transactions that no block contains, by sender and nonce, and by hash."""

    def __init__(self, *, capacity: int = MAX_POOL_TRANSACTIONS) -> None:
        self._capacity = capacity
        self._by_sender: dict[bytes, dict[int, Transaction]] = {}
        self._by_hash: dict[bytes, Transaction] = {}
        self._arrival: dict[bytes, int] = {}
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._by_hash)

    def find(self, transaction_hash: bytes) -> Transaction | None:
        """Return the transaction with that hash, or None."""
        return self._by_hash.get(transaction_hash)

    def add(self, transaction: Transaction, *, account_nonce: int) -> Transaction | None:
        """Take a transaction and return the one it replaced, if any.

        Raises:
            TransactionRefused: it is here already, its nonce is used up, it does not pay enough
                to replace the one in its place, or the pool is full.
        """
        if transaction.hash in self._by_hash:
            raise TransactionRefused("already known")
        if transaction.nonce < account_nonce:
            raise TransactionRefused(
                f"nonce too low: next nonce {account_nonce}, tx nonce {transaction.nonce}"
            )
        old = self._by_sender.get(transaction.sender, {}).get(transaction.nonce)
        if old is not None and not may_replace(old, transaction):
            raise TransactionRefused("replacement transaction underpriced")
        if old is None and len(self) >= self._capacity:
            raise TransactionRefused(f"txpool is full: it holds {self._capacity} transactions")
        if old is not None:
            self._remove(old)
        self._insert(transaction)
        return old

    def restore(self, orphans: Iterable[Transaction], nonce_of: NonceOf) -> list[Transaction]:
        """Take back transactions of abandoned blocks and return those that were taken.

        One whose nonce the new branch has used, or whose place is occupied, is gone for good.
        """
        taken = []
        for orphan in orphans:
            place = self._by_sender.get(orphan.sender, {})
            if orphan.nonce < nonce_of(orphan.sender) or orphan.nonce in place:
                continue
            self._insert(orphan)
            taken.append(orphan)
        return taken

    def drop(self, transaction_hash: bytes) -> Transaction | None:
        """Remove one transaction; its successors become queued. Return it, or None."""
        transaction = self._by_hash.get(transaction_hash)
        if transaction is not None:
            self._remove(transaction)
        return transaction

    def clear(self) -> None:
        """Remove every transaction."""
        self._by_sender.clear()
        self._by_hash.clear()
        self._arrival.clear()

    def forget_used(self, sender: bytes, account_nonce: int) -> None:
        """Remove the sender's transactions whose nonces lie below *account_nonce*."""
        for nonce in sorted(self._by_sender.get(sender, {})):
            if nonce < account_nonce:
                self._remove(self._by_sender[sender][nonce])

    def senders(self) -> list[bytes]:
        """Return every sender with at least one transaction, in order of address."""
        return sorted(self._by_sender)

    def next_nonce(self, sender: bytes, account_nonce: int) -> int:
        """Return the first nonce that neither the chain nor the pending run has used."""
        nonces = self._by_sender.get(sender, {})
        nonce = account_nonce
        while nonce in nonces:
            nonce += 1
        return nonce

    def split(
        self, sender: bytes, account_nonce: int
    ) -> tuple[list[Transaction], list[Transaction]]:
        """Return the sender's (pending, queued) transactions, each in order of nonce."""
        gap_at = self.next_nonce(sender, account_nonce)
        mine = self._by_sender.get(sender, {})
        pending = [mine[nonce] for nonce in range(account_nonce, gap_at)]
        queued = [mine[nonce] for nonce in sorted(mine) if nonce > gap_at]
        return pending, queued

    def in_block_order(self, nonce_of: NonceOf, base_fee: int) -> Iterator[Transaction]:
        """Yield pending transactions that cover the base fee: best tip first, then oldest first.

        A transaction that does not cover it holds back its successors.
        """
        runs = {sender: iter(self.split(sender, nonce_of(sender))[0]) for sender in self.senders()}
        heads: list[tuple[int, int, Transaction]] = []

        def push_next(sender: bytes) -> None:
            transaction = next(runs[sender], None)
            if transaction is not None and transaction.max_fee_per_gas >= base_fee:
                tip = effective_tip(transaction, base_fee)
                heapq.heappush(heads, (-tip, self._arrival[transaction.hash], transaction))

        for sender in runs:
            push_next(sender)
        while heads:
            transaction = heapq.heappop(heads)[2]
            yield transaction
            push_next(transaction.sender)

    def _insert(self, transaction: Transaction) -> None:
        self._by_sender.setdefault(transaction.sender, {})[transaction.nonce] = transaction
        self._by_hash[transaction.hash] = transaction
        self._arrival[transaction.hash] = self._arrivals
        self._arrivals += 1

    def _remove(self, transaction: Transaction) -> None:
        del self._by_hash[transaction.hash]
        del self._arrival[transaction.hash]
        mine = self._by_sender[transaction.sender]
        del mine[transaction.nonce]
        if not mine:
            del self._by_sender[transaction.sender]
