"""Native value that contracts pass on, read from the call frames of a block. Pure.

A frame moves value if its transaction succeeded, it succeeded itself, *and so did every frame around
it*: what a frame that reverted had passed on went back. Only calls, creations and destructions move value: a
DELEGATECALL shows the value of the frame around it and a CALLCODE pays itself.

A movement's position is its place among all that its transaction passed on, in the order of
execution, whoever it was paid to. The path of its frame is not the same on every node: geth counts
calls of precompiled contracts and calls that could not be made, Erigon and Nethermind leave them
out. What moved is the same everywhere.

Two forms are understood and give the same positions: the nested frames of geth's ``callTracer``
(``debug_traceBlockByHash``; geth ``eth/tracers/native/call.go``) and the flat list of
``trace_block`` (OpenEthereum's trace module, also Erigon, Nethermind, reth and anvil).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, Final

from chain.errors import IncompleteAnswer, NodeUnavailable, UnreadableAnswer
from chain.evm.quantities import Json, as_address, as_hash, as_int, get
from chain.model import Movement, trace_position
from chain.shapes import as_list, as_object

MOVING: Final = frozenset({"CALL", "CREATE", "CREATE2", "SELFDESTRUCT"})
"""Types of frames of ``callTracer`` whose value leaves the sender."""
FLAT_MOVING: Final = frozenset({"call", "create", "suicide"})
DEPTH_MAX: Final = 1_024
"""Calls inside calls, at most (Ethereum yellow paper, section 9.4.2)."""
PLAIN_GAS: Final = 21_000
"""The gas of a plain payment: a transaction that may use no more runs no code."""

Path = tuple[int, ...]
Payment = tuple[str, str, int]
"""Payer, payee and amount."""
Moves = dict[str, list[Movement]]
"""Movements by the hash of their transaction, in the order in which they happened."""


def moves_of_frames(block_hash: str, hashes: Sequence[str], answer: object) -> Moves:
    """Return what the frames of ``debug_traceBlockByHash`` with ``callTracer`` moved.

    *hashes* are those of the block's transactions, in order.

    Raises:
        NodeUnavailable: the answer is not one trace for each transaction of the block.
        IncompleteAnswer: a trace is another transaction's.
    """
    traces = as_list(answer, "the traces")
    _require_count(block_hash, hashes, len(traces))
    moves: Moves = {}
    for tx_hash, trace in zip(hashes, traces, strict=True):
        body = as_object(trace, "a trace")
        if "result" not in body:
            raise NodeUnavailable(f"the node could not trace {tx_hash}")
        # Not every node says whose trace it is; where it does, it must be the right one's.
        if body.get("txHash") and as_hash(body["txHash"], "txHash") != tx_hash:
            raise IncompleteAnswer(f"the trace given for {tx_hash} is another one's")
        moves[tx_hash] = _placed(tx_hash, _frames(tx_hash, as_object(body["result"], "a frame")))
    return moves


def moves_of_flat(block_hash: str, hashes: Sequence[str], answer: object) -> Moves:
    """Return what the frames of ``trace_block`` moved.

    The method takes a height, so every frame must name the block that was meant.

    Raises:
        NodeUnavailable: there is not a frame for each transaction of the block.
        IncompleteAnswer: frames of another block, or of an unknown transaction, or without the one
            around them.
    """
    frames: dict[str, list[tuple[Path, Json]]] = {tx_hash: [] for tx_hash in hashes}
    for entry in as_list(answer, "the traces"):
        body = as_object(entry, "a frame")
        if as_hash(get(body, "blockHash"), "blockHash") != block_hash:
            raise IncompleteAnswer(f"traces of another block than {block_hash}")
        if body.get("type") == "reward":
            continue
        owner = as_hash(get(body, "transactionHash"), "transactionHash")
        if owner not in frames:
            raise IncompleteAnswer(f"a trace of {owner}, which is not in block {block_hash}")
        frames[owner].append((_path(body), body))
    _require_count(block_hash, hashes, sum(bool(found) for found in frames.values()))
    return {tx_hash: _placed(tx_hash, _flat(tx_hash, found)) for tx_hash, found in frames.items()}


def _require_count(block_hash: str, hashes: Sequence[str], count: int) -> None:
    if count != len(hashes):
        raise NodeUnavailable(
            f"block {block_hash} has {len(hashes)} transactions, the node traced {count}"
        )


def _placed(tx_hash: str, payments: Iterator[Payment]) -> list[Movement]:
    return [
        Movement(tx_hash, trace_position(place), payer, payee, None, amount)
        for place, (payer, payee, amount) in enumerate(payments)
    ]


def _path(body: Json) -> Path:
    path = tuple(as_list(get(body, "traceAddress"), "traceAddress"))
    if not all(isinstance(step, int) for step in path):
        raise UnreadableAnswer(f"{path!r} is no place among frames")
    return path


def _frames(tx_hash: str, root: Json) -> Iterator[Payment]:
    """Yield what the frames below *root* moved, depth first, skipping all inside a failed one."""
    waiting: list[tuple[Path, Json]] = [((), root)]
    while waiting:
        path, frame = waiting.pop()
        if frame.get("error") is not None:
            continue
        if path and frame.get("type") in MOVING:
            yield from _payment(get(frame, "from"), frame.get("to"), frame.get("value"))
        inner = as_list(frame.get("calls") or [], "calls")
        if inner and len(path) >= DEPTH_MAX:
            raise IncompleteAnswer(f"the trace of {tx_hash} is deeper than calls can be")
        waiting += [
            ((*path, place), as_object(call, "a frame")) for place, call in enumerate(inner)
        ][::-1]


def _flat(tx_hash: str, found: Sequence[tuple[Path, Json]]) -> Iterator[Payment]:
    """Yield what flat frames moved, depth first, in whatever order they were listed."""
    alive: dict[Path, bool] = {}
    for path, body in sorted(found, key=itemgetter(0)):
        around = path[:-1]
        if path and around not in alive:
            raise IncompleteAnswer(f"a frame of {tx_hash} comes without the one around it")
        alive[path] = body.get("error") is None and (not path or alive[around])
        if path and alive[path] and body.get("type") in FLAT_MOVING:
            yield from _flat_payment(body)


def _flat_payment(body: Json) -> Iterator[Payment]:
    action = as_object(get(body, "action"), "an action")
    kind = body["type"]
    if kind == "suicide":
        sender, recipient, value = (
            get(action, "address"),
            get(action, "refundAddress"),
            get(action, "balance"),
        )
    elif kind == "create":
        made = as_object(get(body, "result"), "a result")
        sender, recipient, value = get(action, "from"), get(made, "address"), get(action, "value")
    elif action.get("callType") != "call":
        return
    else:
        sender, recipient, value = get(action, "from"), get(action, "to"), get(action, "value")
    yield from _payment(sender, recipient, value)


def _payment(sender: object, recipient: object, value: Any) -> Iterator[Payment]:
    amount = 0 if value is None else as_int(value, "value")
    if not amount:
        return
    payer, payee = as_address(sender, "from"), as_address(recipient, "to")
    if payer != payee:
        yield payer, payee, amount
