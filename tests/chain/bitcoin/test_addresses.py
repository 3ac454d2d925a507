"""Addresses of every kind, of every network, and those that must be refused."""

from __future__ import annotations

import hashlib

import pytest
from embit import script as embit_script
from embit.networks import NETWORKS as EMBIT_NETWORKS
from hypothesis import given
from hypothesis import strategies as st

from chain.bitcoin.addresses import address_of, canonical_address, parse_address, recognise_address
from chain.bitcoin.networks import MAIN, NETWORKS, REGTEST, SIGNET, TEST, Network, find_network
from chain.bitcoin.scripts import (
    ScriptKind,
    key_hash_script,
    recognise,
    script_hash_script,
    sorted_multisig_script,
    witness_key_hash_script,
    witness_script,
    witness_script_hash_script,
)
from chain.errors import BadAddress, BadKey
from kernel.errors import BadInput

# BIP 173, "Examples": all of the public key of BIP 173.
KEY = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
OTHER = bytes.fromhex("02f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9")
GENESIS = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"
"""Where the first coins went (block 0 of the main network)."""
NAMES = {MAIN: "main", TEST: "test", SIGNET: "signet", REGTEST: "regtest"}


def test_the_examples_of_bip_173() -> None:
    key_hash = witness_key_hash_script(KEY)
    assert address_of(key_hash, MAIN) == "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
    assert address_of(key_hash, TEST) == "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx"
    checksig = bytes([33]) + KEY + bytes([0xAC])
    script_hash = witness_script_hash_script(checksig)
    assert (
        address_of(script_hash, MAIN)
        == "bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3"
    )


def test_a_legacy_address_is_read_and_written() -> None:
    script = parse_address(GENESIS, MAIN)
    assert script == key_hash_script(bytes.fromhex("62e907b15cbf27d5425399ebf6f0fb50ebb88f18"))
    assert address_of(script, MAIN) == GENESIS


@given(
    network=st.sampled_from(list(NETWORKS.values())),
    payload=st.binary(min_size=20, max_size=20),
    wide=st.binary(min_size=32, max_size=32),
)
def test_every_standard_script_agrees_with_the_second_library(
    network: Network, payload: bytes, wide: bytes
) -> None:
    theirs = EMBIT_NETWORKS[NAMES[network]]
    for script in (
        key_hash_script(payload),
        script_hash_script(payload),
        witness_script(0, payload),
        witness_script(0, wide),
        witness_script(1, wide),
    ):
        address = address_of(script, network)
        assert address is not None
        assert address == embit_script.Script(script).address(theirs)
        assert parse_address(address, network) == script
        assert canonical_address(address, network) == address


def test_segwit_in_upper_case_is_stored_in_lower_case() -> None:
    address = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
    assert canonical_address(address.upper(), MAIN) == address


@pytest.mark.parametrize(
    ("text", "network", "words"),
    [
        (GENESIS, TEST, "an address of main, not of test"),
        (GENESIS, REGTEST, "an address of main, not of regtest"),
        ("tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx", MAIN, "begins with 'tb'"),
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", REGTEST, "begins with 'bc'"),
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", MAIN, "checksum"),
        ("bc1Qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", MAIN, "mixes upper and lower case"),
        ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb", MAIN, "checksum"),
        ("1A1zP1eP5QGefi2DMPTfTL5SLmv7Divf0a", MAIN, "'0' is not a letter"),
        ("", MAIN, "is not an address"),
        ("0x52908400098527886E0F7030069857D2E4169EE7", MAIN, "is not an address"),
        ("bc1", MAIN, "is not an address"),
        ("x" * 10_000, MAIN, "is not an address"),
    ],
)
def test_a_wrong_address_says_what_is_wrong(text: str, network: Network, words: str) -> None:
    with pytest.raises(BadAddress, match=words):
        parse_address(text, network)


def test_a_valid_address_followed_by_white_space_is_refused() -> None:
    for text in (f"{GENESIS} ", f" {GENESIS}", f"{GENESIS}\n"):
        with pytest.raises(BadAddress):
            parse_address(text, MAIN)


def test_scripts_that_have_no_address() -> None:
    for script, kind in (
        (bytes([0x6A, 4]) + b"data", ScriptKind.DATA),
        (bytes([33]) + KEY + bytes([0xAC]), ScriptKind.OTHER),
        (witness_script(0, bytes(21)), ScriptKind.OTHER),
        (b"", ScriptKind.OTHER),
    ):
        assert recognise(script).kind is kind
        assert address_of(script, MAIN) is None


def test_kinds_are_told_apart() -> None:
    script = witness_script(1, bytes(32))
    assert recognise(script).kind is ScriptKind.TAPROOT
    assert recognise_address(address_of(script, MAIN) or "", MAIN).kind is ScriptKind.TAPROOT
    assert recognise(witness_script(1, bytes(33))).kind is ScriptKind.WITNESS_UNKNOWN
    assert recognise(witness_script(2, bytes(32))).kind is ScriptKind.WITNESS_UNKNOWN


def test_a_multisignature_script_does_not_depend_on_the_order_of_keys() -> None:
    script = sorted_multisig_script(2, [KEY, OTHER])
    assert script == sorted_multisig_script(2, [OTHER, KEY])
    assert script == bytes([0x52, 33]) + KEY + bytes([33]) + OTHER + bytes([0x52, 0xAE])
    pays = witness_script_hash_script(script)
    assert recognise(pays).payload == hashlib.sha256(script).digest()


@pytest.mark.parametrize(
    ("required", "keys"),
    [(0, [KEY]), (2, [KEY]), (1, []), (1, [KEY, KEY]), (1, [KEY[:32]]), (1, [b"\x04" + KEY[1:]])],
)
def test_an_impossible_multisignature_script_is_refused(required: int, keys: list[bytes]) -> None:
    with pytest.raises(BadKey):
        sorted_multisig_script(required, keys)


def test_an_uncompressed_key_has_no_witness_address() -> None:
    with pytest.raises(BadKey, match="compressed"):
        witness_key_hash_script(b"\x04" + bytes(64))


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(BadInput, match="'testnet4'"):
        find_network("testnet4")
