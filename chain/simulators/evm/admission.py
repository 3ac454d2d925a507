"""Whether a node takes a transaction at all, before the pool looks at its place in the queue.

The checks and their order follow geth's ``core/txpool/validation.go``
(``ValidateTransaction``, then ``ValidateTransactionWithState``).
"""

from __future__ import annotations

from chain.simulators.evm.errors import TransactionRefused
from chain.simulators.evm.model import Transaction


def require_admissible(
    transaction: Transaction, *, intrinsic_gas: int, gas_limit: int, nonce: int, balance: int
) -> None:
    """Raise TransactionRefused unless the transaction can be included now or later.

    *gas_limit* is that of a block; *nonce* and *balance* (wei) are the sender's at the head. A
    transaction that does not cover the present base fee is admissible: it waits.
    """
    if transaction.gas > gas_limit:
        raise TransactionRefused("exceeds block gas limit")
    if transaction.max_priority_fee_per_gas > transaction.max_fee_per_gas:
        raise TransactionRefused(
            "max priority fee per gas higher than max fee per gas: "
            f"maxPriorityFeePerGas: {transaction.max_priority_fee_per_gas}, "
            f"maxFeePerGas: {transaction.max_fee_per_gas}"
        )
    if transaction.gas < intrinsic_gas:
        raise TransactionRefused(
            f"intrinsic gas too low: gas {transaction.gas}, minimum needed {intrinsic_gas}"
        )
    if transaction.nonce < nonce:
        raise TransactionRefused(f"nonce too low: next nonce {nonce}, tx nonce {transaction.nonce}")
    cost = transaction.gas * transaction.max_fee_per_gas + transaction.value
    if balance < cost:
        raise TransactionRefused(
            "insufficient funds for gas * price + value: "
            f"balance {balance}, tx cost {cost}, overshot {cost - balance}"
        )
