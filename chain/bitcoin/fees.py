"""Fees by weight, and outputs that are too small to be worth a fee. Pure.

A fee rate is satoshi for 1,000 virtual bytes, as nodes count it (``feerate`` of ``estimatesmartfee``
times 10**8): an integer, so that no fee depends on a float. Sources: BIP 141 (virtual size), Bitcoin
Core ``src/policy/feerate.h`` and ``GetDustThreshold`` of ``src/policy/policy.cpp``.
"""

from __future__ import annotations

from typing import Final

from chain.bitcoin.scripts import ScriptKind, recognise, witness_version
from chain.bitcoin.transactions import Output, encode_output
from kernel.errors import BadInput

DUST_RATE: Final = 3_000
"""What nodes value outputs at when they decide that one is dust, unless they are told otherwise."""
RATE_MAX: Final = 100_000_000
"""100,000 satoshi for a virtual byte: no market ever asked for that, so it is a mistake."""
WEIGHT_PER_BYTE: Final = 4

OVERHEAD_WEIGHT: Final = 4 * (4 + 1 + 1 + 4) + 2
"""Version, two counts below 253, lock time; marker and flag of the witness part."""
KEY_HASH_INPUT_WEIGHT: Final = 4 * (32 + 4 + 1 + 4) + (1 + 1 + 72 + 1 + 33)
"""An input that spends a P2WPKH output: a signature with low s has 71 or 72 bytes with its type."""

_SPEND_BYTES: Final = 32 + 4 + 1 + 107 + 4
_SPEND_WITNESS_BYTES: Final = 32 + 4 + 1 + 107 // 4 + 4


def fee_of(weight: int, rate: int) -> int:
    """Return the satoshi that *rate* asks for *weight*, rounded up: never below the rate."""
    return -(-weight * rate // (1_000 * WEIGHT_PER_BYTE))


def rate_of(fee: int, virtual_size: int) -> int:
    """Return the rate that a fee comes to, rounded down."""
    return fee * 1_000 // virtual_size


def require_rate(rate: int) -> None:
    """Refuse a rate that cannot be meant.

    Raises:
        BadInput: it is not positive, or absurdly high.
    """
    if not 0 < rate <= RATE_MAX:
        raise BadInput(
            f"a fee rate of {rate} satoshi for 1,000 virtual bytes",
            remedy=f"Give 1 to {RATE_MAX}",
        )


def output_weight(output: Output) -> int:
    """Return what an output adds to a transaction's weight."""
    return WEIGHT_PER_BYTE * len(encode_output(output))


def dust_limit(script: bytes, rate: int = DUST_RATE) -> int:
    """Return the smallest amount that nodes relay for an output script; 0 where any will do.

    What spending the output would cost at the dust rate, together with the output itself.
    """
    if recognise(script).kind is ScriptKind.DATA:
        return 0
    size = len(encode_output(Output(0, script)))
    size += _SPEND_BYTES if witness_version(script) is None else _SPEND_WITNESS_BYTES
    return size * rate // 1_000
