"""Methods about transactions, the pool and fees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from chain.bitcoin.fees import rate_of
from chain.bitcoin.transactions import Outpoint
from chain.errors import BadTransaction
from chain.simulators.bitcoin.calls import (
    Argument,
    Context,
    Method,
    read_amount,
    read_hash,
    read_integer,
    read_rate,
)
from chain.simulators.bitcoin.chain import can_be_spent
from chain.simulators.bitcoin.errors import (
    AlreadyInChain,
    InvalidParameter,
    NotFound,
    RuleRefused,
    TransactionRefused,
    Undecodable,
)
from chain.simulators.bitcoin.model import DEFAULT_MAX_FEE_RATE, Block, Coin, Packed
from chain.simulators.bitcoin.node import Candidate, MissingInputs, Node
from chain.simulators.bitcoin.policy import fee_at
from chain.simulators.bitcoin.wire import amount, entry_json, transaction_json

Json = Any

MAX_POOL_BYTES: Final = 300_000_000
MAX_TESTED: Final = 25
MAX_TARGET: Final = 1_008
DUST_RATE: Final = 3_000
ESTIMATE_MODES: Final = ("unset", "economical", "conservative")
MAKE_SURE: Final = "Make sure the tx has at least one input."
NO_SUCH: Final = "Use gettransaction for wallet transactions."


def _send_transaction(context: Context, raw: str, max_rate: Any, max_burn: Any) -> Json:
    node = context.node
    most, burn = read_rate(max_rate), read_amount(max_burn)
    packed = read_transaction(raw, f"TX decode failed. {MAKE_SURE}")
    for output in packed.body.outputs:
        if not can_be_spent(output.script) and output.amount > burn:
            raise TransactionRefused(
                "Unspendable output exceeds maximum configured by user (maxburnamount)"
            )
    if node.is_unspent_in_chain(packed):
        raise AlreadyInChain("Transaction outputs already in utxo set")
    if packed.tx_id not in node.pool:
        candidate = node.examine(packed)
        if is_above(candidate, most):
            raise TransactionRefused(
                "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)"
            )
        node.take(candidate)
    return packed.tx_id


def is_above(candidate: Candidate, most: int) -> bool:
    """Tell whether a fee is above what the caller wants to pay; a rate of 0 is no limit."""
    return bool(most) and candidate.fee > fee_at(most, candidate.packed.virtual_size)


def _test_transactions(context: Context, raws: Sequence[Any], max_rate: Any) -> Json:
    node = context.node
    if not 1 <= len(raws) <= MAX_TESTED:
        raise InvalidParameter(f"Array must contain between 1 and {MAX_TESTED} transactions.")
    most = read_rate(max_rate)
    tested = [read_transaction(raw, f"TX decode failed: {raw} {MAKE_SURE}") for raw in raws]
    if len({packed.tx_id for packed in tested}) < len(tested):
        error = {"package-error": "package-contains-duplicates"}
        return [{"txid": one.tx_id, "wtxid": one.witness_id, **error} for one in tested]
    return _test_in_order(node, tested, most)


def _test_in_order(node: Node, tested: Sequence[Packed], most: int) -> list[Json]:
    """Return a verdict for each; later ones may spend from earlier ones. The pool stays as it was."""
    verdicts = []
    sequence = node.pool.sequence
    added: list[str] = []
    is_open = True
    for packed in tested:
        ids: dict[str, Json] = {"txid": packed.tx_id, "wtxid": packed.witness_id}
        if not is_open:
            # One is refused: nothing is said of those after it.
            verdicts.append(ids)
            continue
        verdict, candidate = _verdict(node, packed, most)
        verdicts.append({**ids, **verdict})
        is_open = candidate is not None and not candidate.leaving
        if is_open and candidate is not None:
            node.take(candidate)
            added.append(packed.tx_id)
    node.pool.remove(reversed(added))
    node.pool.sequence = sequence
    return verdicts


def _verdict(node: Node, packed: Packed, most: int) -> tuple[dict[str, Json], Candidate | None]:
    try:
        candidate = node.examine(packed)
    except MissingInputs:
        return {"allowed": False, "reject-reason": "missing-inputs"}, None
    except RuleRefused as exc:
        why = {"reject-reason": exc.reason, "reject-details": exc.what}
        return {"allowed": False, **why}, None
    if is_above(candidate, most):
        return {"allowed": False, "reject-reason": "max-fee-exceeded"}, None
    size = packed.virtual_size
    fees = {
        "base": amount(candidate.fee),
        "effective-feerate": amount(rate_of(candidate.fee, size)),
        "effective-includes": [packed.witness_id],
    }
    return {"allowed": True, "vsize": size, "fees": fees}, candidate


def _get_pool_info(context: Context) -> Json:
    node = context.node
    return {
        "loaded": True,
        "size": len(node.pool),
        "bytes": node.pool.total_size,
        "usage": sum(entry.packed.size for entry in node.pool.entries.values()),
        "total_fee": amount(node.pool.total_fee),
        "maxmempool": MAX_POOL_BYTES,
        "mempoolminfee": amount(max(node.pool_rate, node.settings.relay_rate)),
        "minrelaytxfee": amount(node.settings.relay_rate),
        "incrementalrelayfee": amount(node.settings.incremental_rate),
        "dustrelayfee": amount(DUST_RATE),
        "unbroadcastcount": sum(entry.is_new for entry in node.pool.entries.values()),
        "fullrbf": True,
    }


def _get_raw_pool(context: Context, verbose: bool, with_sequence: bool) -> Json:  # noqa: FBT001  by position, as JSON-RPC gives them
    pool = context.node.pool
    if verbose and with_sequence:
        raise InvalidParameter("Verbose results cannot contain mempool sequence values.")
    if verbose:
        return {tx_id: entry_json(pool, entry) for tx_id, entry in pool.entries.items()}
    tx_ids = [entry.packed.tx_id for entry in pool.by_depth()]
    return {"txids": tx_ids, "mempool_sequence": pool.sequence} if with_sequence else tx_ids


def _get_pool_entry(context: Context, tx_id: str) -> Json:
    return entry_json(context.node.pool, context.node.pool.entries[_need_waiting(context, tx_id)])


def _get_pool_ancestors(context: Context, tx_id: str, verbose: bool) -> Json:  # noqa: FBT001  by position, as JSON-RPC gives it
    known = _need_waiting(context, tx_id)
    return _list(context, context.node.pool.ancestors([known]) - {known}, verbose=verbose)


def _get_pool_descendants(context: Context, tx_id: str, verbose: bool) -> Json:  # noqa: FBT001  by position, as JSON-RPC gives it
    known = _need_waiting(context, tx_id)
    return _list(context, context.node.pool.descendants([known]) - {known}, verbose=verbose)


def _list(context: Context, tx_ids: set[str], *, verbose: bool) -> Json:
    pool = context.node.pool
    if not verbose:
        return sorted(tx_ids)
    return {one: entry_json(pool, pool.entries[one]) for one in sorted(tx_ids)}


def _need_waiting(context: Context, tx_id: str) -> str:
    known = read_hash(tx_id, "txid")
    if known not in context.node.pool:
        raise NotFound("Transaction not in mempool")
    return known


def _get_spending(context: Context, outputs: Sequence[Any]) -> Json:
    if not outputs:
        raise InvalidParameter("Invalid parameter, outputs are missing")
    answers = []
    for one in outputs:
        outpoint = Outpoint(read_hash(one["txid"], "txid"), read_integer(one["vout"]))
        if outpoint.index < 0:
            raise InvalidParameter("Invalid parameter, vout cannot be negative")
        answer: dict[str, Json] = {"txid": outpoint.tx_id, "vout": outpoint.index}
        spender = context.node.pool.spenders.get(outpoint)
        answers.append(answer if spender is None else {**answer, "spendingtxid": spender})
    return answers


def _get_transaction(context: Context, tx_id: str, verbosity: Any, hash_: str | None) -> Json:
    node = context.node
    known = read_hash(tx_id, "parameter 1")
    packed, block, spent = _find(node, known, hash_)
    level = int(verbosity)
    if level <= 0:
        return packed.raw.hex()
    with_prevouts = level >= 2
    shown: dict[str, Json] = {}
    if hash_ is not None and block is not None:
        shown["in_active_chain"] = node.chain.is_active(block)
    shown |= transaction_json(packed, spent if with_prevouts else None, with_prevouts=with_prevouts)
    if block is not None:
        shown["blockhash"] = block.hash
        shown["confirmations"] = max(0, node.chain.confirmations(block))
        if node.chain.is_active(block):
            shown |= {"time": block.header.time, "blocktime": block.header.time}
    return shown


def _find(
    node: Node, tx_id: str, hash_: str | None
) -> tuple[Packed, Block | None, Sequence[Coin] | None]:
    if hash_ is None and tx_id in node.pool:
        return node.pool.entries[tx_id].packed, None, None
    at = node.chain.mined.get(tx_id) if hash_ is None else read_hash(hash_, "parameter 3")
    block = None if at is None else node.chain.find(at)
    if hash_ is not None and block is None:
        raise NotFound("Block hash not found")
    if block is None:
        raise NotFound(f"No such mempool or blockchain transaction. {NO_SUCH}")
    if block.height == 0 and block.coinbase.tx_id == tx_id:
        raise NotFound(
            "The genesis block coinbase is not considered an ordinary transaction and cannot be "
            "retrieved"
        )
    undo = node.chain.undo.get(block.hash)
    for number, packed in enumerate(block.transactions):
        if packed.tx_id == tx_id:
            return packed, block, undo[number - 1] if number and undo is not None else None
    raise NotFound(f"No such transaction found in the provided block. {NO_SUCH}")


def _decode_transaction(_: Context, raw: str) -> Json:
    shown = transaction_json(read_transaction(raw, "TX decode failed"))
    del shown["hex"]
    return shown


def _estimate_fee(context: Context, target: Any, mode: str) -> Json:
    blocks = read_integer(target)
    if not 1 <= blocks <= MAX_TARGET:
        raise InvalidParameter(f"Invalid conf_target, must be between 1 and {MAX_TARGET}")
    if mode.lower() not in ESTIMATE_MODES:
        known = ", ".join(f'"{one}"' for one in ESTIMATE_MODES)
        raise InvalidParameter(f"Invalid estimate_mode parameter, must be one of: {known}")
    rate = context.node.fee_rate
    if rate is None:
        return {"errors": ["Insufficient data or no feerate found"], "blocks": 0}
    # bitcoind never estimates below what it would relay, nor for one block.
    least = max(context.node.pool_rate, context.node.settings.relay_rate)
    return {"feerate": amount(max(rate, least)), "blocks": max(2, blocks)}


def read_transaction(raw: Any, refusal: str) -> Packed:
    """Return the transaction that a text of hexadecimal digits is.

    Raises:
        Undecodable: it is none.
    """
    if not isinstance(raw, str):
        raise Undecodable(refusal)
    try:
        return Packed.read(bytes.fromhex(raw))
    except (ValueError, BadTransaction) as exc:
        raise Undecodable(refusal) from exc


TX_ID: Final = Argument("txid", "string")
MAX_RATE: Final = Argument("maxfeerate", "number|string", DEFAULT_MAX_FEE_RATE / 100_000_000)

METHODS: Final[Mapping[str, Method]] = {
    "sendrawtransaction": Method(
        _send_transaction,
        (
            Argument("hexstring", "string"),
            MAX_RATE,
            Argument("maxburnamount", "number|string", 0),
        ),
    ),
    "testmempoolaccept": Method(_test_transactions, (Argument("rawtxs", "array"), MAX_RATE)),
    "getmempoolinfo": Method(_get_pool_info),
    "getrawmempool": Method(
        _get_raw_pool,
        (Argument("verbose", "bool", False), Argument("mempool_sequence", "bool", False)),
    ),
    "getmempoolentry": Method(_get_pool_entry, (TX_ID,)),
    "getmempoolancestors": Method(_get_pool_ancestors, (TX_ID, Argument("verbose", "bool", False))),
    "getmempooldescendants": Method(
        _get_pool_descendants, (TX_ID, Argument("verbose", "bool", False))
    ),
    "gettxspendingprevout": Method(_get_spending, (Argument("outputs", "array"),)),
    "getrawtransaction": Method(
        _get_transaction,
        (
            TX_ID,
            Argument("verbosity", "number|bool", 0),
            Argument("blockhash", "string", None),
        ),
    ),
    "decoderawtransaction": Method(_decode_transaction, (Argument("hexstring", "string"),)),
    "estimatesmartfee": Method(
        _estimate_fee,
        (Argument("conf_target", "number"), Argument("estimate_mode", "string", "economical")),
    ),
}
