"""Test vectors of BIP32: vectors 1 to 4 for derivation, vector 5 for what must be refused."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from embit.base import EmbitError
from embit.bip32 import HDKey

from chain.errors import BadKey
from chain.keys.base58 import decode_base58check, encode_base58check
from chain.keys.bip32 import HARDENED, ExtendedPublicKey

# Vectors 1 and 2, public keys by path; H marks a hardened step.
VECTORS = {
    "1 m": "xpub661MyMwAqRbcFtXgS5sYJABqqG9YLmC4Q1Rdap9gSE8NqtwybGhePY2gZ29ESFjqJoCu1Rupje8YtGqsefD265TMg7usUDFdp6W1EGMcet8",
    "1 m/0H": "xpub68Gmy5EdvgibQVfPdqkBBCHxA5htiqg55crXYuXoQRKfDBFA1WEjWgP6LHhwBZeNK1VTsfTFUHCdrfp1bgwQ9xv5ski8PX9rL2dZXvgGDnw",
    "1 m/0H/1": "xpub6ASuArnXKPbfEwhqN6e3mwBcDTgzisQN1wXN9BJcM47sSikHjJf3UFHKkNAWbWMiGj7Wf5uMash7SyYq527Hqck2AxYysAA7xmALppuCkwQ",
    "1 m/0H/1/2H": "xpub6D4BDPcP2GT577Vvch3R8wDkScZWzQzMMUm3PWbmWvVJrZwQY4VUNgqFJPMM3No2dFDFGTsxxpG5uJh7n7epu4trkrX7x7DogT5Uv6fcLW5",
    "1 m/0H/1/2H/2": "xpub6FHa3pjLCk84BayeJxFW2SP4XRrFd1JYnxeLeU8EqN3vDfZmbqBqaGJAyiLjTAwm6ZLRQUMv1ZACTj37sR62cfN7fe5JnJ7dh8zL4fiyLHV",
    "1 m/0H/1/2H/2/1000000000": "xpub6H1LXWLaKsWFhvm6RVpEL9P4KfRZSW7abD2ttkWP3SSQvnyA8FSVqNTEcYFgJS2UaFcxupHiYkro49S8yGasTvXEYBVPamhGW6cFJodrTHy",
    "2 m": "xpub661MyMwAqRbcFW31YEwpkMuc5THy2PSt5bDMsktWQcFF8syAmRUapSCGu8ED9W6oDMSgv6Zz8idoc4a6mr8BDzTJY47LJhkJ8UB7WEGuduB",
    "2 m/0": "xpub69H7F5d8KSRgmmdJg2KhpAK8SR3DjMwAdkxj3ZuxV27CprR9LgpeyGmXUbC6wb7ERfvrnKZjXoUmmDznezpbZb7ap6r1D3tgFxHmwMkQTPH",
    "2 m/0/2147483647H": "xpub6ASAVgeehLbnwdqV6UKMHVzgqAG8Gr6riv3Fxxpj8ksbH9ebxaEyBLZ85ySDhKiLDBrQSARLq1uNRts8RuJiHjaDMBU4Zn9h8LZNnBC5y4a",
    "2 m/0/2147483647H/1": "xpub6DF8uhdarytz3FWdA8TvFSvvAh8dP3283MY7p2V4SeE2wyWmG5mg5EwVvmdMVCQcoNJxGoWaU9DCWh89LojfZ537wTfunKau47EL2dhHKon",
    "2 m/0/2147483647H/1/2147483646H": "xpub6ERApfZwUNrhLCkDtcHTcxd75RbzS1ed54G1LkBUHQVHQKqhMkhgbmJbZRkrgZw4koxb5JaHWkY4ALHY2grBGRjaDMzQLcgJvLJuZZvRcEL",
    "2 m/0/2147483647H/1/2147483646H/2": "xpub6FnCn6nSzZAw5Tw7cgR9bi15UV96gLZhjDstkXXxvCLsUXBGXPdSnLFbdpq8p9HmGsApME5hQTZ3emM2rnY5agb9rXpVGyy3bdW6EEgAtqt",
    # Vectors 3 and 4 test that leading zeros are kept.
    "3 m": "xpub661MyMwAqRbcEZVB4dScxMAdx6d4nFc9nvyvH3v4gJL378CSRZiYmhRoP7mBy6gSPSCYk6SzXPTf3ND1cZAceL7SfJ1Z3GC8vBgp2epUt13",
    "3 m/0H": "xpub68NZiKmJWnxxS6aaHmn81bvJeTESw724CRDs6HbuccFQN9Ku14VQrADWgqbhhTHBaohPX4CjNLf9fq9MYo6oDaPPLPxSb7gwQN3ih19Zm4Y",
    "4 m/0H": "xpub69AUMk3qDBi3uW1sXgjCmVjJ2G6WQoYSnNHyzkmdCHEhSZ4tBok37xfFEqHd2AddP56Tqp4o56AePAgCjYdvpW2PU2jbUPFKsav5ut6Ch1m",
    "4 m/0H/1H": "xpub6BJA1jSqiukeaesWfxe6sNK9CCGaujFFSJLomWHprUL9DePQ4JDkM5d88n49sMGJxrhpjazuXYWdMf17C9T5XnxkopaeS7jGk1GyyVziaMt",
}

# Vector 5, in the order of the standard.
INVALID = {
    "public version, private key": "xpub661MyMwAqRbcEYS8w7XLSVeEsBXy79zSzH1J8vCdxAZningWLdN3zgtU6LBpB85b3D2yc8sfvZU521AAwdZafEz7mnzBBsz4wKY5fTtTQBm",
    "private version, public key": "xprv9s21ZrQH143K24Mfq5zL5MhWK9hUhhGbd45hLXo2Pq2oqzMMo63oStZzFGTQQD3dC4H2D5GBj7vWvSQaaBv5cxi9gafk7NF3pnBju6dwKvH",
    "public key prefix 04": "xpub661MyMwAqRbcEYS8w7XLSVeEsBXy79zSzH1J8vCdxAZningWLdN3zgtU6Txnt3siSujt9RCVYsx4qHZGc62TG4McvMGcAUjeuwZdduYEvFn",
    "private key prefix 04": "xprv9s21ZrQH143K24Mfq5zL5MhWK9hUhhGbd45hLXo2Pq2oqzMMo63oStZzFGpWnsj83BHtEy5Zt8CcDr1UiRXuWCmTQLxEK9vbz5gPstX92JQ",
    "public key prefix 01": "xpub661MyMwAqRbcEYS8w7XLSVeEsBXy79zSzH1J8vCdxAZningWLdN3zgtU6N8ZMMXctdiCjxTNq964yKkwrkBJJwpzZS4HS2fxvyYUA4q2Xe4",
    "private key prefix 01": "xprv9s21ZrQH143K24Mfq5zL5MhWK9hUhhGbd45hLXo2Pq2oqzMMo63oStZzFAzHGBP2UuGCqWLTAPLcMtD9y5gkZ6Eq3Rjuahrv17fEQ3Qen6J",
    "private, depth 0 with a parent": "xprv9s2SPatNQ9Vc6GTbVMFPFo7jsaZySyzk7L8n2uqKXJen3KUmvQNTuLh3fhZMBoG3G4ZW1N2kZuHEPY53qmbZzCHshoQnNf4GvELZfqTUrcv",
    "public, depth 0 with a parent": "xpub661no6RGEX3uJkY4bNnPcw4URcQTrSibUZ4NqJEw5eBkv7ovTwgiT91XX27VbEXGENhYRCf7hyEbWrR3FewATdCEebj6znwMfQkhRYHRLpJ",
    "private, depth 0 with a number": "xprv9s21ZrQH4r4TsiLvyLXqM9P7k1K3EYhA1kkD6xuquB5i39AU8KF42acDyL3qsDbU9NmZn6MsGSUYZEsuoePmjzsB3eFKSUEh3Gu1N3cqVUN",
    "public, depth 0 with a number": "xpub661MyMwAuDcm6CRQ5N4qiHKrJ39Xe1R1NyfouMKTTWcguwVcfrZJaNvhpebzGerh7gucBvzEQWRugZDuDXjNDRmXzSZe4c7mnTK97pTvGS8",
    "unknown version, private": "DMwo58pR1QLEFihHiXPVykYB6fJmsTeHvyTp7hRThAtCX8CvYzgPcn8XnmdfHGMQzT7ayAmfo4z3gY5KfbrZWZ6St24UVf2Qgo6oujFktLHdHY4",
    "unknown version, public": "DMwo58pR1QLEFihHiXPVykYB6fJmsTeHvyTp7hRThAtCX8CvYzgPcn8XnmdfHPmHJiEDXkTiJTVV9rHEBUem2mwVbbNfvT2MTcAqj3nesx8uBf9",
    "private key 0": "xprv9s21ZrQH143K24Mfq5zL5MhWK9hUhhGbd45hLXo2Pq2oqzMMo63oStZzF93Y5wvzdUayhgkkFoicQZcP3y52uPPxFnfoLZB21Teqt1VvEHx",
    "private key n": "xprv9s21ZrQH143K24Mfq5zL5MhWK9hUhhGbd45hLXo2Pq2oqzMMo63oStZzFAzHGBP2UuGCqWLTAPLcMtD5SDKr24z3aiUvKr9bJpdrcLg1y3G",
    "no point on the curve": "xpub661MyMwAqRbcEYS8w7XLSVeEsBXy79zSzH1J8vCdxAZningWLdN3zgtU6Q5JXayek4PRsn35jii4veMimro1xefsM58PgBMrvdYre8QyULY",
    "wrong checksum": "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHL",
}

COMPLAINTS = {
    "public version, private key": "does not begin a compressed",
    "public key prefix 04": "does not begin a compressed",
    "public key prefix 01": "does not begin a compressed",
    "public, depth 0 with a parent": "parent fingerprint",
    "public, depth 0 with a number": "child number",
    "unknown version, public": "not the version of an xpub",
    "no point on the curve": "not a point",
    "wrong checksum": "checksum",
}


@pytest.mark.parametrize("name", VECTORS)
def test_valid_keys_are_read_and_written_back(name: str) -> None:
    key = ExtendedPublicKey.parse(VECTORS[name])

    assert key.serialize() == VECTORS[name]
    assert key.depth == name.count("/")


@pytest.mark.parametrize("name", [n for n in VECTORS if not n.endswith(("m", "H"))])
def test_public_children_are_those_of_the_vectors(name: str) -> None:
    above, _, number = name.rpartition("/")

    child = ExtendedPublicKey.parse(VECTORS[above]).child(int(number))

    assert child.serialize() == VECTORS[name]


@pytest.mark.parametrize("name", [n for n in VECTORS if n.endswith("H")])
def test_hardened_children_name_their_parent_by_fingerprint(name: str) -> None:
    above, _, step = name.rpartition("/")
    child = ExtendedPublicKey.parse(VECTORS[name])

    if above in VECTORS:
        assert child.parent_fingerprint == ExtendedPublicKey.parse(VECTORS[above]).fingerprint
    assert child.child_number == int(step[:-1]) + HARDENED


@pytest.mark.parametrize("name", INVALID)
def test_the_sixteen_invalid_keys_are_refused(name: str) -> None:
    with pytest.raises(BadKey, match=COMPLAINTS.get(name, "private key|not the version")):
        ExtendedPublicKey.parse(INVALID[name])


def test_a_private_key_is_refused_as_what_it_is() -> None:
    private = HDKey.from_seed(bytes(range(16))).to_string()

    with pytest.raises(BadKey, match="private key"):
        ExtendedPublicKey.parse(private)


@pytest.mark.parametrize("number", [-1, HARDENED, HARDENED + 44])
def test_a_hardened_step_from_a_public_key_is_refused(number: int) -> None:
    with pytest.raises(BadKey, match="cannot be derived"):
        ExtendedPublicKey.parse(VECTORS["1 m"]).child(number)


def test_every_single_wrong_letter_is_noticed() -> None:
    text = VECTORS["1 m"]
    for place in range(len(text)):
        wrong = "2" if text[place] != "2" else "3"
        with pytest.raises(BadKey):
            ExtendedPublicKey.parse(text[:place] + wrong + text[place + 1 :])


@pytest.mark.parametrize("text", ["", "xpub", "0" * 111, VECTORS["1 m"] + "1", "1" * 200, "é" * 9])
def test_what_is_no_key_at_all_is_refused(text: str) -> None:
    with pytest.raises(BadKey):
        ExtendedPublicKey.parse(text)


@pytest.mark.parametrize("payload", [b"", b"\0", b"\0\0\1", bytes(78), b"\xff" * 20])
def test_base58_keeps_leading_zeros(payload: bytes) -> None:
    assert decode_base58check(encode_base58check(payload)) == payload


def test_a_thousand_children_are_those_of_another_library() -> None:
    text = VECTORS["1 m/0H"]
    ours, theirs = ExtendedPublicKey.parse(text), HDKey.from_string(text)
    for index in range(1_000):
        number = int.from_bytes(hashlib.sha256(bytes([index % 256, index // 256])).digest()[:4]) % (
            HARDENED
        )
        try:
            other: Any = theirs.child(number).to_string()
        except EmbitError as error:
            other = error
        assert ours.child(number).serialize() == other
