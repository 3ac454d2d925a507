"""Which transactions a node takes and relays, apart from scripts and replacement. Pure.

Each check raises `RuleRefused` with bitcoind's word for the rule, in bitcoind's order. Sources: Bitcoin
Core ``src/consensus/tx_check.cpp``, ``src/consensus/tx_verify.cpp``, ``src/policy/policy.cpp``; BIP 68,
BIP 113.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from chain.bitcoin.fees import dust_limit
from chain.bitcoin.scripts import (
    OP_16,
    OP_CHECKSIG,
    ScriptKind,
    recognise,
)
from chain.bitcoin.transactions import SEQUENCE_FINAL, Transaction
from chain.simulators.bitcoin.errors import RuleRefused
from chain.simulators.bitcoin.model import COINBASE_MATURITY, Block, Coin, Packed

STANDARD_VERSIONS: Final = range(1, 4)
MAX_STANDARD_WEIGHT: Final = 400_000
MIN_STRIPPED_BYTES: Final = 65
"""A shorter transaction could be taken for a node of a block's Merkle tree."""
MAX_INPUT_SCRIPT_BYTES: Final = 1_650
MAX_DATA_SCRIPT_BYTES: Final = 83
MAX_WITNESS_SCRIPT_BYTES: Final = 3_600
MAX_WITNESS_ITEMS: Final = 100
MAX_WITNESS_ITEM_BYTES: Final = 80
MAX_TAPSCRIPT_ITEM_BYTES: Final = 80
LOCK_TIME_IS_TIME: Final = 500_000_000
SEQUENCE_NO_LOCK: Final = 1 << 31
SEQUENCE_IS_TIME: Final = 1 << 22
SEQUENCE_VALUE: Final = 0xFFFF
SEQUENCE_STEP_BITS: Final = 9
CURVE_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
ANCHOR_SCRIPT: Final = bytes.fromhex("51024e73")
"""Pay-to-anchor: the one script of an unknown witness program that nodes let be spent."""


def format_money(satoshi: int) -> str:
    """Return bitcoins as bitcoind writes them in messages: two decimals at least."""
    whole, rest = divmod(satoshi, 100_000_000)
    digits = f"{rest:08d}"
    return f"{whole}.{digits[:2]}{digits[2:].rstrip('0')}"


def check_standard(packed: Packed) -> None:
    """Refuse what nodes do not relay, as far as the transaction alone shows it."""
    if packed.body.is_coinbase:
        raise RuleRefused("coinbase")
    if packed.body.version not in STANDARD_VERSIONS:
        raise RuleRefused("version")
    if packed.weight > MAX_STANDARD_WEIGHT:
        raise RuleRefused("tx-size")
    for item in packed.body.inputs:
        if len(item.script) > MAX_INPUT_SCRIPT_BYTES:
            raise RuleRefused("scriptsig-size")
        if not is_push_only(item.script):
            raise RuleRefused("scriptsig-not-pushonly")
    _check_outputs(packed.body)
    if packed.stripped < MIN_STRIPPED_BYTES:
        raise RuleRefused("tx-size-small")


def _check_outputs(body: Transaction) -> None:
    data = 0
    for output in body.outputs:
        kind = recognise(output.script).kind
        if kind is ScriptKind.DATA:
            data += 1
            if len(output.script) > MAX_DATA_SCRIPT_BYTES or not is_push_only(output.script[1:]):
                raise RuleRefused("scriptpubkey")
        elif kind is ScriptKind.OTHER and not is_key_script(output.script):
            raise RuleRefused("scriptpubkey")
        elif output.amount < dust_limit(output.script):
            raise RuleRefused("dust")
    if data > 1:
        raise RuleRefused("multi-op-return")


def is_key_script(script: bytes) -> bool:
    """Tell whether a script pays to a key itself (P2PK)."""
    sizes = {35: (2, 3), 67: (4,)}
    heads = sizes.get(len(script), ())
    return (
        bool(heads)
        and script[0] == len(script) - 2
        and script[1] in heads
        and (script[-1] == OP_CHECKSIG)
    )


def is_push_only(script: bytes) -> bool:
    """Tell whether a script only pushes data."""
    at = 0
    while at < len(script):
        opcode = script[at]
        at += 1
        if opcode > OP_16:
            return False
        if opcode < 0x4C:
            at += opcode
        elif opcode <= 0x4E:
            width = 1 << (opcode - 0x4C)
            at += width + int.from_bytes(script[at : at + width], "little")
    return at == len(script)


def check_final(body: Transaction, height: int, median_time: int) -> None:
    """Refuse what may not be in a block at *height* yet, by its lock time."""
    if body.lock_time == 0:
        return
    bound = height if body.lock_time < LOCK_TIME_IS_TIME else median_time
    if body.lock_time >= bound and any(item.sequence != SEQUENCE_FINAL for item in body.inputs):
        raise RuleRefused("non-final")


def check_relative_locks(
    body: Transaction, spent: Sequence[Coin], tip: Block, median_time_at: Callable[[int], int]
) -> None:
    """Refuse what spends coins that are too young for its own sequence numbers (BIP 68).

    Args:
        median_time_at: of the block at a height of the best chain.
    """
    if body.version < 2:
        return
    for item, coin in zip(body.inputs, spent, strict=True):
        if item.sequence & SEQUENCE_NO_LOCK:
            continue
        value = item.sequence & SEQUENCE_VALUE
        if item.sequence & SEQUENCE_IS_TIME:
            since = median_time_at(max(coin.height - 1, 0))
            is_locked = since + (value << SEQUENCE_STEP_BITS) - 1 >= tip.median_time
        else:
            is_locked = coin.height + value - 1 >= tip.height + 1
        if is_locked:
            raise RuleRefused("non-BIP68-final")


def check_amounts(body: Transaction, spent: Sequence[Coin], height: int) -> int:
    """Return the fee of a transaction in a block at *height*; coins of a block must be old enough."""
    for coin in spent:
        depth = height - coin.height
        if coin.is_coinbase and depth < COINBASE_MATURITY:
            raise RuleRefused(
                "bad-txns-premature-spend-of-coinbase",
                f"tried to spend coinbase at depth {depth}",
            )
    available = sum(coin.output.amount for coin in spent)
    paid = sum(output.amount for output in body.outputs)
    if paid > available:
        raise RuleRefused(
            "bad-txns-in-belowout",
            f"value in ({format_money(available)}) < value out ({format_money(paid)})",
        )
    return available - paid


def check_spent_kinds(body: Transaction, spent: Sequence[Coin]) -> None:
    """Refuse inputs whose scripts nodes do not relay, and signatures that somebody could change."""
    for item, coin in zip(body.inputs, spent, strict=True):
        found = recognise(coin.output.script)
        unknown = found.kind is ScriptKind.WITNESS_UNKNOWN and coin.output.script != ANCHOR_SCRIPT
        if unknown or (found.kind is ScriptKind.OTHER and not is_key_script(coin.output.script)):
            raise RuleRefused("bad-txns-nonstandard-inputs")
        if not _is_standard_witness(found.kind, item.witness):
            raise RuleRefused("bad-witness-nonstandard")


def _is_standard_witness(kind: ScriptKind, witness: Sequence[bytes]) -> bool:
    if kind is ScriptKind.WITNESS_SCRIPT_HASH and witness:
        *items, script = witness
        return (
            len(script) <= MAX_WITNESS_SCRIPT_BYTES
            and len(items) <= MAX_WITNESS_ITEMS
            and all(len(item) <= MAX_WITNESS_ITEM_BYTES for item in items)
        )
    if kind in {ScriptKind.KEY_HASH, ScriptKind.DATA, ScriptKind.OTHER}:
        return not witness
    return True


def malleable_input(body: Transaction, spent: Sequence[Coin]) -> tuple[int, str] | None:
    """Return the first input whose valid proof nodes do not relay, and why.

    Consensus takes a signature with a high ``s`` and an uncompressed key in a witness; nodes do not,
    because a third party could make one out of the other.
    """
    for index, (item, coin) in enumerate(zip(body.inputs, spent, strict=True)):
        parts = [*item.witness, *pushes(item.script)]
        if any(has_high_s(part) for part in parts):
            return index, "Non-canonical signature: S value is unnecessarily high"
        is_key = recognise(coin.output.script).kind is ScriptKind.WITNESS_KEY_HASH
        if is_key and len(item.witness) == 2 and len(item.witness[1]) != 33:
            return index, "Using non-compressed keys in segwit"
    return None


def pushes(script: bytes) -> list[bytes]:
    """Return the data that a script of pushes pushes, as far as it can be read."""
    found = []
    at = 0
    while at < len(script) and script[at] <= 0x4E:
        opcode = script[at]
        at += 1
        size = opcode
        if opcode >= 0x4C:
            width = 1 << (opcode - 0x4C)
            size = int.from_bytes(script[at : at + width], "little")
            at += width
        found.append(script[at : at + size])
        at += size
    return found


def has_high_s(proof: bytes) -> bool:
    """Tell whether bytes are a DER signature whose ``s`` is above half of the curve's order."""
    if not 9 <= len(proof) <= 73 or proof[0] != 0x30 or proof[1] != len(proof) - 3:
        return False
    r_size = proof[3]
    at = 4 + r_size
    if at + 2 > len(proof) or proof[2] != 2 or proof[at] != 2:
        return False
    s = int.from_bytes(proof[at + 2 : at + 2 + proof[at + 1]], "big")
    return s > CURVE_ORDER // 2


def check_fee(fee: int, size: int, *, relay_rate: int, pool_rate: int) -> None:
    """Refuse a fee below what the node relays, or below what its pool demands at the moment."""
    for name, rate in (
        ("mempool min fee not met", pool_rate),
        ("min relay fee not met", relay_rate),
    ):
        least = fee_at(rate, size)
        if fee < least:
            raise RuleRefused(name, f"{fee} < {least}")


def fee_at(rate: int, size: int) -> int:
    """Return the fee of *size* virtual bytes at a rate for 1,000, rounded up."""
    return -(-rate * size // 1_000)
