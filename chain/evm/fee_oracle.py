"""What to bid per unit of gas, decided from the fees of recent blocks (EIP-1559). Pure.

The base fee is known for the next block and bounded for those after it: it grows by at most 1/8 per
block (EIP-1559, ``BASE_FEE_MAX_CHANGE_DENOMINATOR``). A bid that is to stay valid for a horizon of
full blocks covers that growth; what is not needed is never paid. The tip is what recent blocks were
content with: the median over blocks of the tip at a percentile of each block's gas. Blocks that
carry nothing say nothing and are left out.

Wire format: ``eth_feeHistory`` of the Ethereum JSON-RPC specification.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chain.errors import UnreadableAnswer
from chain.evm.quantities import Json, as_int, get
from chain.model import FeeQuote
from chain.shapes import as_list, as_object
from kernel.errors import BadInput

GWEI: Final = 10**9
GROWTH_DENOMINATOR: Final = 8
BLOCKS_MAX: Final = 1_024
"""geth answers for at most this many blocks at once."""
HORIZON_MAX: Final = 64
PERCENTILES: Final = 101
WEI_MAX: Final = 1 << 64
"""18 ether per unit of gas: no chain has asked for a billionth of that. More is a broken answer."""


@dataclass(frozen=True, slots=True)
class FeePolicy:
    """How eager, and how generous at most, a bid is. Fees are wei per unit of gas.

    Attributes:
        blocks: how many recent blocks count.
        percentile: of each block's gas, cheapest first, whose tip is taken.
        horizon_blocks: for how many full blocks in a row the bid stays above the base fee.
        tip_min, tip_max: bounds of the tip.
        fee_max: never bid more in all; a chain that asks for more is waited for.
    """

    blocks: int = 20
    percentile: int = 50
    horizon_blocks: int = 6
    tip_min: int = 1_000_000
    tip_max: int = 50 * GWEI
    fee_max: int = 1_000 * GWEI

    def __post_init__(self) -> None:
        if not 0 < self.blocks <= BLOCKS_MAX or not 0 <= self.percentile < PERCENTILES:
            raise BadInput("a fee policy looks at 1 to 1,024 blocks and a percentile of 0 to 100")
        if not 0 <= self.horizon_blocks <= HORIZON_MAX:
            raise BadInput(f"a fee policy looks at most {HORIZON_MAX} blocks ahead")
        if not 0 <= self.tip_min <= self.tip_max <= self.fee_max:
            raise BadInput("a fee policy needs tip_min <= tip_max <= fee_max")


@dataclass(frozen=True, slots=True)
class RecentFees:
    """What the chain asked for lately.

    Attributes:
        next_base_fee: of the next block, which every node derives from the newest one.
        tips: of each recent block that carries something, at the policy's percentile.
    """

    next_base_fee: int
    tips: tuple[int, ...]


def quote(recent: RecentFees, policy: FeePolicy, *, suggested_tip: int | None = None) -> FeeQuote:
    """Return the bid for the next blocks.

    *suggested_tip* is the node's own suggestion, taken when no recent block says anything.
    """
    tip = _median(recent.tips) if recent.tips else suggested_tip
    tip = min(max(tip or 0, policy.tip_min), policy.tip_max)
    fee = min(grown(recent.next_base_fee, policy.horizon_blocks) + tip, policy.fee_max)
    return FeeQuote(fee, min(tip, fee))


def grown(base_fee: int, blocks: int) -> int:
    """Return the highest base fee possible after *blocks* further full blocks.

    Source: EIP-1559, ``base_fee_per_gas_delta = max(parent * gas_delta // target // 8, 1)``.
    """
    for _ in range(blocks):
        base_fee += max(base_fee // GROWTH_DENOMINATOR, 1)
    return base_fee


def parse_history(answer: object) -> RecentFees:
    """Return what ``eth_feeHistory`` says, asked with exactly one percentile.

    Raises:
        UnreadableAnswer: it breaks the protocol.
    """
    body = as_object(answer, "the fee history")
    base_fees = _quantities(body, "baseFeePerGas")
    ratios = as_list(get(body, "gasUsedRatio"), "gasUsedRatio")
    rewards = body.get("reward")
    if len(base_fees) != len(ratios) + 1:
        raise UnreadableAnswer("the fee history does not hold one base fee more than blocks")
    if rewards is None:
        return RecentFees(base_fees[-1], ())
    rows = as_list(rewards, "reward")
    if len(rows) != len(ratios):
        raise UnreadableAnswer("the fee history does not hold a tip for each block")
    tips = [_only(row) for row, ratio in zip(rows, ratios, strict=True) if ratio]
    return RecentFees(base_fees[-1], tuple(tips))


def next_base_fee(head: object) -> int:
    """Return an upper bound of the next block's base fee, from the newest block's header.

    For nodes without ``eth_feeHistory``.
    """
    body = as_object(head, "the newest block")
    if "baseFeePerGas" not in body:
        raise UnreadableAnswer("the node's chain has no base fee (EIP-1559)")
    return grown(as_int(body["baseFeePerGas"], "baseFeePerGas", WEI_MAX), 1)


def middle_quote(quotes: Sequence[FeeQuote]) -> FeeQuote:
    """Return the median of several providers' quotes, of two the lower.

    One liar among three moves it nowhere that an honest provider is not; of two the lower one costs
    time at worst, which a bump makes good, where the higher one would cost money.
    """
    fee = _median([one.max_fee_per_gas for one in quotes])
    tip = _median([one.max_priority_fee_per_gas for one in quotes])
    return FeeQuote(fee, min(tip, fee))


def _median(values: Sequence[int]) -> int:
    return sorted(values)[(len(values) - 1) // 2]


def _quantities(body: Json, key: str) -> list[int]:
    return [as_int(item, key, WEI_MAX) for item in as_list(get(body, key), key)]


def _only(row: object) -> int:
    (*others, tip) = as_list(row, "reward") or [None]
    if others:
        raise UnreadableAnswer("the fee history holds more than one tip for a block")
    return as_int(tip, "reward", WEI_MAX)
