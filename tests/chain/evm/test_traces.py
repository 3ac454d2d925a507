"""Call frames: what a frame around reverted never moved, in both forms that nodes give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.errors import IncompleteAnswer, NodeUnavailable, UnreadableAnswer
from chain.evm.addresses import checksum_address
from chain.evm.traces import moves_of_flat, moves_of_frames
from chain.model import Movement

BLOCK = "0x" + "b1" * 32
TX = "0x" + "a1" * 32
OTHER = "0x" + "a2" * 32


def address(number: int) -> str:
    return checksum_address(number.to_bytes(20, "big"))


def raw(number: int) -> str:
    return address(number).lower()


def frame(
    sender: int, recipient: int, value: int | None, *calls: Any, kind: str = "CALL", **other: Any
) -> dict[str, Any]:
    made = {"type": kind, "from": raw(sender), "to": raw(recipient), **other}
    if value is not None:
        made["value"] = hex(value)
    return {**made, "calls": list(calls)} if calls else made


def traced(root: dict[str, Any]) -> list[Movement]:
    return moves_of_frames(BLOCK, [TX], [{"txHash": TX, "result": root}])[TX]


def moved(place: int, sender: int, recipient: int, amount: int) -> Movement:
    return Movement(TX, f"trace:{place}", address(sender), address(recipient), None, amount)


def test_value_passed_on_is_a_movement_at_its_place_among_all_of_its_transaction() -> None:
    root = frame(1, 2, 9, frame(2, 3, 4), frame(2, 4, None, frame(4, 5, 6), frame(4, 6, 7)))

    assert traced(root) == [
        moved(0, 2, 3, 4),
        moved(1, 4, 5, 6),
        moved(2, 4, 6, 7),
    ]


def test_an_internal_transfer_that_a_frame_around_it_reverted_is_not_credited() -> None:
    # Failure 1 of the catalogue: a contract pays several wallets, one refuses, all is taken back.
    refused = {"error": "execution reverted"}
    root = frame(1, 2, 9, frame(2, 3, 4), frame(2, 4, 5, frame(4, 5, 5), **refused))
    assert traced(root) == [moved(0, 2, 3, 4)]

    whole = frame(1, 2, 9, frame(2, 3, 4), frame(2, 4, 5), **refused)
    assert traced(whole) == []

    deep = frame(1, 2, 9, frame(2, 3, 0, frame(3, 4, 0, frame(4, 5, 6)), **refused))
    assert traced(deep) == []


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        ("CALL", True),
        ("CREATE", True),
        ("CREATE2", True),
        ("SELFDESTRUCT", True),
        ("DELEGATECALL", False),
        ("CALLCODE", False),
        ("STATICCALL", False),
    ],
)
def test_only_frames_that_pay_move_value(kind: str, counts: bool) -> None:  # noqa: FBT001  a parameter of the table
    found = traced(frame(1, 2, 9, frame(2, 3, 4, kind=kind)))

    assert found == ([moved(0, 2, 3, 4)] if counts else [])


def test_a_payment_inside_a_delegated_call_counts() -> None:
    root = frame(1, 2, 9, frame(2, 3, 9, frame(2, 4, 5), kind="DELEGATECALL"))

    assert traced(root) == [moved(0, 2, 4, 5)]


def test_a_contract_that_pays_itself_moves_nothing() -> None:
    assert traced(frame(1, 2, 9, frame(2, 2, 4))) == []


@pytest.mark.parametrize(
    "answer",
    [
        [],
        [{"txHash": TX, "error": "timeout"}],
        [{"txHash": TX, "result": frame(1, 2, 3)}, {"txHash": OTHER, "result": frame(1, 2, 3)}],
    ],
)
def test_fewer_or_more_traces_than_transactions_are_none(answer: Any) -> None:
    with pytest.raises(NodeUnavailable):
        moves_of_frames(BLOCK, [TX], answer)


def test_traces_that_are_not_those_of_the_block_are_refused() -> None:
    with pytest.raises(IncompleteAnswer):
        moves_of_frames(BLOCK, [TX], [{"txHash": OTHER, "result": frame(1, 2, 3)}])


@pytest.mark.parametrize("answer", [None, {}, [[]], [{"result": [], "txHash": TX}]])
def test_what_is_no_trace_is_unreadable(answer: Any) -> None:
    with pytest.raises(UnreadableAnswer):
        moves_of_frames(BLOCK, [TX], answer)


def flat(path: list[int], action: dict[str, Any], kind: str = "call", **other: Any) -> Any:
    return {
        "blockHash": BLOCK,
        "transactionHash": TX,
        "traceAddress": path,
        "type": kind,
        "action": action,
        **other,
    }


def call(sender: int, recipient: int, value: int, call_type: str = "call") -> dict[str, Any]:
    return {
        "from": raw(sender),
        "to": raw(recipient),
        "value": hex(value),
        "callType": call_type,
    }


def test_flat_frames_give_the_same_positions_and_end_with_the_frame_around() -> None:
    made = {"from": raw(2), "value": "0x3", "init": "0x"}
    gone = {"address": raw(7), "refundAddress": raw(8), "balance": "0x3"}
    answer = [
        flat([], call(1, 2, 9)),
        flat([0], call(2, 3, 4)),
        flat([1], call(2, 4, 5), error="Reverted"),
        flat([1, 0], call(4, 5, 5)),
        flat([2], call(2, 6, 9, "delegatecall")),
        flat([3], made, "create", result={"address": raw(7)}),
        flat([3, 0], gone, "suicide"),
        {"blockHash": BLOCK, "type": "reward", "traceAddress": [], "action": {}},
    ]

    assert moves_of_flat(BLOCK, [TX], answer)[TX] == [
        moved(0, 2, 3, 4),
        moved(1, 2, 7, 3),
        moved(2, 7, 8, 3),
    ]


@pytest.mark.parametrize(
    "entry",
    [
        {**flat([], call(1, 2, 9)), "blockHash": "0x" + "b2" * 32},
        {**flat([], call(1, 2, 9)), "transactionHash": OTHER},
        flat([0, 0], call(1, 2, 9)),
    ],
)
def test_flat_frames_of_another_block_or_without_their_surroundings_are_refused(
    entry: Any,
) -> None:
    with pytest.raises(IncompleteAnswer):
        moves_of_flat(BLOCK, [TX], [flat([], call(1, 2, 9)), entry])


trees = st.recursive(
    st.builds(
        lambda s, r, v, bad: frame(s, r, v, **({"error": "x"} if bad else {})),
        *(st.integers(1, 5), st.integers(1, 5), st.integers(0, 9), st.booleans()),
    ),
    lambda inner: st.builds(
        lambda s, r, v, calls, bad: frame(s, r, v, *calls, **({"error": "x"} if bad else {})),
        *(st.integers(1, 5), st.integers(1, 5), st.integers(0, 9)),
        st.lists(inner, max_size=3),
        st.booleans(),
    ),
    max_leaves=12,
)


def flattened(tree: dict[str, Any], path: tuple[int, ...] = ()) -> list[Any]:
    action = {**tree, "callType": "call"}
    error = {"error": tree["error"]} if "error" in tree else {}
    return [
        flat(list(path), action, **error),
        *(
            entry
            for place, inner in enumerate(tree.get("calls", []))
            for entry in flattened(inner, (*path, place))
        ),
    ]


def payments(tree: dict[str, Any]) -> Iterator[tuple[int, int, int]]:
    """Yield what a tree paid, its root always first: nothing in or below a frame that failed."""
    payer, payee = (int(tree[side], 16) for side in ("from", "to"))
    yield payer, payee, int(tree["value"], 16)
    for inner in tree.get("calls", []) if "error" not in tree else []:
        first, *below = payments(inner)
        if "error" not in inner:
            yield from (first, *below) if first[2] and first[0] != first[1] else below


@given(trees)
def test_both_forms_say_the_same_and_a_failed_frame_hides_all_below_it(tree: Any) -> None:
    nested = moves_of_frames(BLOCK, [TX], [{"result": tree}])[TX]

    assert moves_of_flat(BLOCK, [TX], flattened(tree))[TX] == nested
    assert nested == [moved(place, *paid) for place, paid in enumerate(list(payments(tree))[1:])]


def test_frames_that_not_every_node_shows_change_no_position() -> None:
    """Geth shows calls of precompiled contracts and calls that failed at once; Erigon does not."""
    paid = frame(2, 3, 4), frame(2, 4, 0, frame(4, 5, 6))
    shown = frame(1, 2, 9, frame(2, 1, 0), frame(2, 6, 99, error="insufficient balance"), *paid)
    bare = frame(1, 2, 9, *paid)

    assert traced(shown) == traced(bare) == [moved(0, 2, 3, 4), moved(1, 4, 5, 6)]
    assert moves_of_flat(BLOCK, [TX], flattened(bare))[TX] == traced(shown)


def test_flat_frames_are_counted_by_their_places_not_by_the_order_of_the_answer() -> None:
    listed = flattened(frame(1, 2, 9, frame(2, 3, 4), frame(2, 4, 5)))

    assert moves_of_flat(BLOCK, [TX], listed[::-1])[TX] == [moved(0, 2, 3, 4), moved(1, 2, 4, 5)]
