from __future__ import annotations

import pytest
from eth_abi.abi import encode as abi_encode
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from chain.errors import BadAddress, BadTransaction
from chain.evm.addresses import checksum_address
from chain.evm.erc20 import (
    TRANSFER_TOPIC,
    Erc20Transfer,
    balance_of_data,
    decode_erc20_transfer,
    erc20_transfer_data,
)

TO = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"


@given(st.binary(min_size=20, max_size=20), st.integers(1, 2**256 - 1))
def test_call_data_is_what_the_abi_library_writes_and_reads_back(raw: bytes, amount: int) -> None:
    to = checksum_address(raw)
    selector = keccak(b"transfer(address,uint256)")[:4]

    data = erc20_transfer_data(to, amount)

    assert data == selector + abi_encode(["address", "uint256"], [to, amount])
    assert decode_erc20_transfer(data) == Erc20Transfer(to, amount)


def test_the_constants_are_the_hashes_of_what_they_name() -> None:
    assert "0x" + keccak(b"Transfer(address,address,uint256)").hex() == TRANSFER_TOPIC
    selector = keccak(b"balanceOf(address)")[:4]
    assert balance_of_data(TO) == selector + abi_encode(["address"], [TO])


@pytest.mark.parametrize("amount", [0, -1, 2**256])
def test_amounts_that_cannot_be_sent_are_refused(amount: int) -> None:
    with pytest.raises(BadTransaction):
        erc20_transfer_data(TO, amount)


def test_a_recipient_without_its_checksum_is_refused() -> None:
    with pytest.raises(BadAddress):
        erc20_transfer_data(TO.lower(), 1)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (erc20_transfer_data(TO, 5)[:-1], "68 bytes"),
        (erc20_transfer_data(TO, 5) + b"\0", "68 bytes"),
        (b"", "68 bytes"),
        (bytes.fromhex("23b872dd") + erc20_transfer_data(TO, 5)[4:], "selector"),
        (
            erc20_transfer_data(TO, 5)[:4] + b"\1" + erc20_transfer_data(TO, 5)[5:],
            "not an address",
        ),
        (erc20_transfer_data(TO, 5)[:36] + bytes(32), "zero"),
    ],
)
def test_anything_but_one_transfer_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(BadTransaction, match=complaint):
        decode_erc20_transfer(data)
