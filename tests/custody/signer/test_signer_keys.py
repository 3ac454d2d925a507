"""Private derivation."""

from __future__ import annotations

import pytest
from coincurve import PublicKey
from embit import bip32
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.evm.transactions import CURVE_ORDER
from custody.signer.hd_keys import PrivateNode
from custody.signer.paths import HARDENED, parse_path
from kernel.errors import BadInput

# Test vectors 1 and 2 of BIP 32.
VECTORS = [
    (
        "000102030405060708090a0b0c0d0e0f",
        "m/0'/1/2'",
        "xpub6D4BDPcP2GT577Vvch3R8wDkScZWzQzMMUm3PWbmWvVJrZwQY4VUNgqFJPMM3No2dFDFGTsxxpG5uJh7n7epu4trkrX7x7DogT5Uv6fcLW5",
    ),
    (
        "fffcf9f6f3f0edeae7e4e1dedbd8d5d2cfccc9c6c3c0bdbab7b4b1aeaba8a5a29f9c999693908d8a8784817e7b7875726f6c696663605d5a5754514e4b484542",
        "m/0/2147483647'/1",
        "xpub6DF8uhdarytz3FWdA8TvFSvvAh8dP3283MY7p2V4SeE2wyWmG5mg5EwVvmdMVCQcoNJxGoWaU9DCWh89LojfZ537wTfunKau47EL2dhHKon",
    ),
]


@pytest.mark.parametrize(("seed", "path", "xpub"), VECTORS)
def test_derivation_gives_the_published_vectors(seed: str, path: str, xpub: str) -> None:
    assert PrivateNode.from_seed(bytes.fromhex(seed)).derive(path).xpub() == xpub


@settings(max_examples=25, deadline=None)
@given(
    seed=st.binary(min_size=16, max_size=64),
    steps=st.lists(st.integers(0, 2**32 - 1), max_size=5),
)
def test_derivation_agrees_with_a_second_library(seed: bytes, steps: list[int]) -> None:
    other = bip32.HDKey.from_seed(seed).derive(steps)
    node = PrivateNode.from_seed(seed)
    for step in steps:
        node = node.child(step)

    assert node.xpub() == other.to_public().to_base58()
    assert node.secret == other.key.serialize()


@settings(max_examples=40, deadline=None)
@given(digest=st.binary(min_size=32, max_size=32))
def test_signatures_have_a_low_s_and_recover_the_key(digest: bytes) -> None:
    node = PrivateNode.from_seed(bytes(32))

    signature = node.sign(digest)

    assert signature.s <= CURVE_ORDER // 2
    packed = signature.r.to_bytes(32, "big") + signature.s.to_bytes(32, "big")
    recovered = PublicKey.from_signature_and_message(
        packed + bytes([signature.y_parity]), digest, hasher=None
    )
    assert recovered.format() == node.public_key
    assert node.sign(digest) == signature


@pytest.mark.parametrize("path", ["", "44'/60'", "m/44h", "m/-1", "m/2147483648", "m/1/", "m/٣"])
def test_paths_that_are_not_paths_are_refused(path: str) -> None:
    with pytest.raises(BadInput, match="derivation path"):
        parse_path(path)


def test_a_path_is_read_with_hardened_steps() -> None:
    assert parse_path("m/44'/60'/0'/1/7") == (44 + HARDENED, 60 + HARDENED, HARDENED, 1, 7)


def test_a_key_never_shows_its_secret() -> None:
    node = PrivateNode.from_seed(bytes(range(32)))

    assert node.secret.hex() not in repr(node)
    assert str(node.secret) not in f"{node} {node!r}"
