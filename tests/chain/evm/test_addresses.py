from __future__ import annotations

import pytest
from eth_utils.address import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from chain.errors import BadAddress
from chain.evm.addresses import (
    address_bytes,
    address_from_node,
    address_of_public_key,
    checksum_address,
    parse_address,
)


@pytest.mark.parametrize(
    "address",
    [
        # The examples of EIP-55.
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
        "0xde709f2102306220921060314715629080e2fb77",
        "0x27b1fdb04752bbc536007a920d24acb045561c26",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ],
)
def test_the_examples_of_the_standard_are_right(address: str) -> None:
    assert parse_address(address) == address
    assert address_from_node(address.lower()) == address
    assert checksum_address(address_bytes(address)) == address


@given(st.binary(min_size=20, max_size=20))
def test_any_address_is_cased_as_another_library_does_it(raw: bytes) -> None:
    assert checksum_address(raw) == to_checksum_address(raw)


@pytest.mark.parametrize(
    "text",
    [
        "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
        "0x5AAEB6053F3E94C9B9A09F33669435E7EF1BEAED",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAee",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAedd",
        "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        " 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed\n",
        "",
    ],
)
def test_mistyped_or_unchecked_addresses_are_refused(text: str) -> None:
    with pytest.raises(BadAddress):
        parse_address(text)


@pytest.mark.parametrize("value", [None, 5, "0x", "0x12", b"\0" * 20])
def test_what_is_no_address_is_not_taken_from_a_node(value: object) -> None:
    with pytest.raises(BadAddress):
        address_from_node(value)


@pytest.mark.parametrize("key", [b"", b"\x02" + bytes(32), b"\x06" + bytes(64)])
def test_only_an_uncompressed_public_key_has_an_address(key: bytes) -> None:
    with pytest.raises(BadAddress):
        address_of_public_key(key)
