from __future__ import annotations

from typing import Any

import pytest
import rlp as reference  # type: ignore[import-untyped]  # it has no types
from hypothesis import given
from hypothesis import strategies as st

from chain.errors import BadTransaction
from chain.evm.rlp import decode, decode_int, encode, encode_int

ITEMS: st.SearchStrategy[Any] = st.recursive(
    st.binary(max_size=80), lambda inner: st.lists(inner, max_size=4), max_leaves=12
).filter(lambda item: depth(item) <= 8)


def depth(item: Any) -> int:
    return 1 + max(map(depth, item), default=0) if isinstance(item, list) else 0


@given(ITEMS)
def test_encoding_is_that_of_the_reference_library_and_reads_back(item: Any) -> None:
    encoded = encode(item)

    assert encoded == reference.encode(item)
    assert decode(encoded) == item


@given(st.binary(max_size=120))
def test_whatever_decodes_encodes_to_the_same_bytes(data: bytes) -> None:
    try:
        item = decode(data)
    except BadTransaction:
        return
    assert encode(item) == data


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ("", "cut short"),
        ("8100", "stand for itself"),
        ("817f", "stand for itself"),
        ("83aabb", "cut short"),
        ("b800", "leading zeros"),
        ("b837" + "aa" * 55, "longer than needed"),
        ("b90038" + "aa" * 56, "leading zeros"),
        ("b9", "cut short"),
        ("bf" + "ff" * 8, "cut short"),
        ("f800", "leading zeros"),
        ("c101c0", "follow"),
        ("c28201", "cut short"),
        ("c1" * 10 + "c0", "cut short|deep"),
    ],
)
def test_other_encodings_of_the_same_are_refused(data: str, complaint: str) -> None:
    with pytest.raises(BadTransaction, match=complaint):
        decode(bytes.fromhex(data))


def test_deep_nesting_is_refused_instead_of_recursed_into() -> None:
    nested: Any = []
    for _ in range(20):
        nested = [nested]

    with pytest.raises(BadTransaction, match="deep"):
        decode(encode(nested))


@given(st.integers(0, 2**256 - 1))
def test_integers_read_back(value: int) -> None:
    assert decode_int(encode_int(value), "it", 2**256 - 1) == value


def test_negative_integers_have_no_encoding() -> None:
    with pytest.raises(BadTransaction):
        encode_int(-1)
