"""The base fee of the next block and the history of fees (EIP-1559)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chain.simulators.evm.mempool import effective_tip
from chain.simulators.evm.model import Block

ELASTICITY_MULTIPLIER = 2
BASE_FEE_MAX_CHANGE_DENOMINATOR = 8


@dataclass(frozen=True, slots=True)
class FeeHistory:
    """Fees of consecutive blocks; ``base_fees`` has one entry more, for the next block."""

    oldest_block: int
    base_fees: tuple[int, ...]
    gas_used_ratios: tuple[float, ...]
    rewards: tuple[tuple[int, ...], ...]


def next_base_fee(parent: Block) -> int:
    """Return the base fee (wei per gas) of the block after *parent*.

    Source: EIP-1559, "Specification", ``expected_base_fee_per_gas``.
    """
    target = parent.gas_limit // ELASTICITY_MULTIPLIER
    fee = parent.base_fee_per_gas
    if parent.gas_used > target:
        surplus = fee * (parent.gas_used - target) // target // BASE_FEE_MAX_CHANGE_DENOMINATOR
        return fee + max(surplus, 1)
    shortfall = fee * (target - parent.gas_used) // target // BASE_FEE_MAX_CHANGE_DENOMINATOR
    return fee - shortfall


def tips_at_percentiles(block: Block, percentiles: Sequence[float]) -> tuple[int, ...]:
    """Return the tips (wei per gas) paid at the given percentiles of the block's used gas."""
    by_tip = sorted(
        (effective_tip(receipt.transaction, block.base_fee_per_gas), receipt.gas_used)
        for receipt in block.receipts
    )
    tips = []
    for percentile in percentiles:
        threshold = block.gas_used * percentile / 100
        gas_so_far, tip_here = 0, 0
        for tip, gas_used in by_tip:
            gas_so_far, tip_here = gas_so_far + gas_used, tip
            if gas_so_far >= threshold:
                break
        tips.append(tip_here)
    return tuple(tips)


def fee_history(blocks: Sequence[Block], percentiles: Sequence[float]) -> FeeHistory:
    """Return the fee history of consecutive *blocks*, oldest first (at least one)."""
    return FeeHistory(
        oldest_block=blocks[0].number,
        base_fees=(*(b.base_fee_per_gas for b in blocks), next_base_fee(blocks[-1])),
        gas_used_ratios=tuple(b.gas_used / b.gas_limit for b in blocks),
        rewards=tuple(tips_at_percentiles(b, percentiles) for b in blocks) if percentiles else (),
    )
