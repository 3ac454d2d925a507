"""Addresses from account keys: the vectors of BIP 84, and keys that must be refused."""

from __future__ import annotations

import pytest
from embit.descriptor.checksum import add_checksum
from hypothesis import given
from hypothesis import strategies as st

from chain.bitcoin.derivation import (
    CHANGE,
    GIVEN_OUT,
    SegwitAccount,
    derive_checked,
    descriptor_checksum,
)
from chain.bitcoin.networks import MAIN, REGTEST, Network
from chain.errors import BadKey
from chain.keys.base58 import ALPHABET, decode_base58check, encode_base58check
from chain.simulators.bitcoind import Bitcoind

# BIP 84, "Test vectors": the account m/84'/0'/0' of the phrase "abandon … about".
ZPUB = (
    "zpub6rFR7y4Q2AijBEqTUquhVz398htDFrtymD9xYYfG1m4wAcvPhXNfE3EfH1r1ADqtfSdVCToUG868RvUUkgDKf31mGDtKs"
    "AYz2oz2AGutZYs"
)
XPUB = encode_base58check(bytes.fromhex("0488b21e") + decode_base58check(ZPUB)[4:])
PATH = "m/84'/0'/0'"
ADDRESSES = {
    (GIVEN_OUT, 0): "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu",
    (GIVEN_OUT, 1): "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g",
    (CHANGE, 0): "bc1q8c6fshw2dlwun7ekn9qwf37cu2rn755upcp6el",
}


@pytest.mark.parametrize(("place", "address"), ADDRESSES.items())
def test_the_vectors_of_bip_84(place: tuple[int, int], address: str) -> None:
    assert derive_checked(XPUB, *place, network=MAIN, path=PATH) == address
    assert SegwitAccount.parse(XPUB, network=MAIN, path=PATH).address(*place) == address


@given(branch=st.sampled_from([0, 1]), index=st.integers(0, 2**31 - 1))
def test_two_libraries_agree_about_every_address(branch: int, index: int) -> None:
    address = derive_checked(XPUB, branch, index, network=REGTEST, path="m/84'/1'/0'")
    assert address.startswith("bcrt1q")


@given(place=st.integers(0, len(XPUB) - 1), letter=st.sampled_from(ALPHABET))
def test_a_key_with_one_wrong_letter_is_refused(place: int, letter: str) -> None:
    if XPUB[place] != letter:
        wrong = XPUB[:place] + letter + XPUB[place + 1 :]
        with pytest.raises(BadKey):
            derive_checked(wrong, 0, 0, network=MAIN, path=PATH)


@pytest.mark.parametrize(
    ("xpub", "network", "path", "words"),
    [
        (XPUB, MAIN, "m/44'/0'/0'", "not an account of BIP 84"),
        (XPUB, REGTEST, PATH, "not an account of BIP 84 on regtest"),
        (XPUB, MAIN, "m/84'/0'/1'", "account 0, not at"),
        (ZPUB, MAIN, PATH, "not the version of an xpub"),
        ("", MAIN, PATH, "letters"),
    ],
)
def test_a_key_of_another_place_is_refused(
    xpub: str, network: Network, path: str, words: str
) -> None:
    with pytest.raises(BadKey, match=words):
        SegwitAccount.parse(xpub, network=network, path=path)


@pytest.mark.parametrize(("branch", "index"), [(2, 0), (-1, 0), (0, -1), (0, 2**31)])
def test_a_step_that_does_not_exist_is_refused(branch: int, index: int) -> None:
    with pytest.raises(BadKey):
        derive_checked(XPUB, branch, index, network=MAIN, path=PATH)


def test_the_checksum_of_a_descriptor() -> None:
    # BIP 380, "Test Vectors".
    assert descriptor_checksum("raw(deadbeef)") == "89f8spxm"
    account = SegwitAccount.parse(XPUB, network=MAIN, path=PATH)
    text, _, checksum = account.descriptor(GIVEN_OUT).partition("#")
    assert add_checksum(text) == f"{text}#{checksum}"
    with pytest.raises(BadKey, match="does not occur"):
        descriptor_checksum("raw(ü)")


async def test_a_node_derives_the_same_addresses_from_the_descriptor(bitcoind: Bitcoind) -> None:
    account = SegwitAccount.parse(XPUB, network=REGTEST, path="m/84'/1'/0'")
    for branch in (GIVEN_OUT, CHANGE):
        said = await bitcoind.call("deriveaddresses", account.descriptor(branch), [0, 9])
        assert said == [account.address(branch, index) for index in range(10)]
