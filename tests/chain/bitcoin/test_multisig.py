"""Wallets of several keys: addresses and descriptors, as a second library and a real node see them."""

from __future__ import annotations

import pytest
from embit.bip32 import HDKey
from embit.descriptor.checksum import add_checksum
from hypothesis import given
from hypothesis import strategies as st

from chain.bitcoin.multisig import Cosigner, KeySource, MultisigAccount, derive_multisig_checked
from chain.bitcoin.networks import MAIN, REGTEST
from chain.errors import BadKey
from chain.keys.account import parse_path
from chain.simulators.bitcoind import Bitcoind

PATH = "48h/1h/0h/2h"


def cosigner(number: int, *, with_origin: bool = True) -> str:
    root = HDKey.from_seed(bytes([number]) * 32)
    xpub = root.derive(f"m/{PATH}").to_public().to_string()
    return f"[{root.my_fingerprint.hex()}/{PATH}]{xpub}" if with_origin else str(xpub)


THREE = [cosigner(1), cosigner(2, with_origin=False), cosigner(3)]


@given(branch=st.sampled_from([0, 1]), index=st.integers(0, 2**31 - 1))
def test_two_libraries_agree_about_every_address(branch: int, index: int) -> None:
    address = derive_multisig_checked(THREE, 2, branch, index, network=REGTEST)
    assert address.startswith("bcrt1q")
    assert len(address) == 64


def test_the_order_of_the_cosigners_makes_no_difference() -> None:
    one, other = (
        derive_multisig_checked(keys, 2, 0, 7, network=MAIN) for keys in (THREE, THREE[::-1])
    )
    assert one == other
    assert one != derive_multisig_checked(THREE, 3, 0, 7, network=MAIN)


def test_keys_are_known_by_where_they_come_from() -> None:
    account = MultisigAccount.parse(THREE, 2, network=REGTEST)
    sources = list(account.sources(1, 5).values())
    assert str(sources[0]) == f"{sources[0].fingerprint.hex()}/48'/1'/0'/2'/1/5"
    assert sources[1] == KeySource(Cosigner.parse(THREE[1]).key.fingerprint, (1, 5))
    assert sources[2].path == (*parse_path("m/48'/1'/0'/2'"), 1, 5)


@pytest.mark.parametrize(
    ("cosigners", "required", "words"),
    [
        (THREE, 4, "4 of 3"),
        (THREE, 0, "0 of 3"),
        (THREE[:1], 1, "1 of 1"),
        ([*THREE, THREE[1]], 2, "stands for two"),
        ([THREE[0], THREE[0].partition("]")[2]], 1, "stands for two"),
        ([THREE[0][:-1] + "1", THREE[1]], 2, "checksum"),
        ([THREE[0].replace("48h", "48h/7"), THREE[1]], 2, "not the one at"),
        (["[12345678/9h]" + THREE[1], THREE[2]], 2, "not the one at"),
        (["[1234567]" + THREE[1], THREE[2]], 2, "not a letter of base58"),
    ],
)
def test_keys_that_do_not_fit_are_refused(cosigners: list[str], required: int, words: str) -> None:
    with pytest.raises(BadKey, match=words):
        MultisigAccount.parse(cosigners, required, network=REGTEST)


def test_a_descriptor_has_the_checksum_that_another_library_computes() -> None:
    text = MultisigAccount.parse(THREE, 2, network=REGTEST).descriptor(0)
    assert text == add_checksum(text.partition("#")[0])


async def test_a_real_node_derives_the_same_addresses(bitcoind: Bitcoind) -> None:
    account = MultisigAccount.parse(THREE, 2, network=REGTEST)
    derived = await bitcoind.call("deriveaddresses", account.descriptor(1), [0, 4])
    assert derived == [account.address(1, index) for index in range(5)]
