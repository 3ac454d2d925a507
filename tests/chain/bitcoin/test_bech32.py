"""The vectors of BIP 173 and BIP 350, and what no vector covers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.bitcoin.bech32 import Checksum, decode, decode_program, encode, encode_program
from chain.bitcoin.scripts import witness_script
from chain.errors import BadAddress

BECH32 = [
    "A12UEL5L",
    "a12uel5l",
    "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1tt5tgs",
    "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw",
    "split1checkupstagehandshakeupstreamerranterredcaperred2y9e3w",
    "?1ezyfcl",
]
BECH32M = [
    "A1LQFN3A",
    "a1lqfn3a",
    "an83characterlonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11sg7hg6",
    "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx",
    "split1checkupstagehandshakeupstreamerranterredcaperredlc445v",
    "?1v759aa",
]
NOT_BECH32M = [
    "\x201xj0phk",
    "\x7f1g6xzxy",
    "\x801vctc34",
    "an84characterslonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11d6pts4",
    "qyrz8wqd2c9m",
    "1qyrz8wqd2c9m",
    "y1b0jsk6g",
    "lt1igcx5c0",
    "in1muywd",
    "mm1crxm3i",
    "au1s5cgom",
    "M1VUXWEZ",
    "16plkw9",
    "1p2gdwpf",
]
PROGRAMS = [
    ("BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", "0014751e76e8199196d454941c45d1b3a323f1433bd6"),
    (
        "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
        "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
    ),
    (
        "bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y",
        "5128751e76e8199196d454941c45d1b3a323f1433bd6751e76e8199196d454941c45d1b3a323f1433bd6",
    ),
    ("BC1SW50QGDZ25J", "6002751e"),
    ("bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs", "5210751e76e8199196d454941c45d1b3a323"),
    (
        "tb1qqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesrxh6hy",
        "0020000000c4a5cad46221b2a187905e5266362b99d5e91c6ce24d165dab93e86433",
    ),
    (
        "tb1pqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesf3hn0c",
        "5120000000c4a5cad46221b2a187905e5266362b99d5e91c6ce24d165dab93e86433",
    ),
    (
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
        "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    ),
]
NO_PROGRAMS = {
    "another human-readable part": "tc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq5zuyut",
    "version 1 in bech32": "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd",
    "version 2 in bech32": "tb1z0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqglt7rf",
    "version 16 in bech32": "BC1S0XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ54WELL",
    "key hash in bech32m": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kemeawh",
    "script hash in bech32m": "tb1q0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq24jc47",
    "a letter outside": "bc1p38j9r5y49hruaue7wxjce0updqjuyyx0kh56v8s25huc6995vvpql3jow4",
    "version 17": "BC130XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ7ZWS8R",
    "one byte": "bc1pw5dgrnzv",
    "41 bytes": "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v8n0nx0muaewav253zgeav",
    "version 0 of 16 bytes": "BC1QR508D6QEJXTDG4Y5R3ZARVARYV98GJ9P",
    "mixed case": "tb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq47Zagq",
    "too much padding": "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v07qwwzcrf",
    "padding that is not zero": "tb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vpggkg4j",
    "nothing": "bc1gmk9yu",
}


@pytest.mark.parametrize(
    ("text", "code"),
    [(text, Checksum.BECH32) for text in BECH32] + [(text, Checksum.BECH32M) for text in BECH32M],
)
def test_a_valid_text_is_one_of_the_two_codes_and_is_written_the_same(
    text: str, code: Checksum
) -> None:
    hrp, data, found = decode(text)
    assert found is code
    assert encode(hrp, data, found) == text.lower()


@pytest.mark.parametrize("text", NOT_BECH32M)
def test_what_is_neither_code_is_refused(text: str) -> None:
    with pytest.raises(BadAddress):
        decode(text)


@pytest.mark.parametrize(("text", "script"), PROGRAMS)
def test_a_witness_program_is_read_and_written(text: str, script: str) -> None:
    hrp = text.lower().partition("1")[0]
    version, program = decode_program(hrp, text)
    assert witness_script(version, program).hex() == script
    assert encode_program(hrp, version, program) == text.lower()


@pytest.mark.parametrize("text", NO_PROGRAMS.values(), ids=NO_PROGRAMS)
def test_what_is_no_witness_program_of_the_network_is_refused(text: str) -> None:
    hrp = "tb" if text.startswith("tb") else "bc"
    with pytest.raises(BadAddress):
        decode_program(hrp, text)


@given(version=st.integers(1, 16), program=st.binary(min_size=2, max_size=40))
def test_every_future_witness_version_can_be_paid(version: int, program: bytes) -> None:
    text = encode_program("bcrt", version, program)
    assert decode_program("bcrt", text) == (version, program)
    assert decode_program("bcrt", text.upper()) == (version, program)
    assert witness_script(version, program)[0] == 0x50 + version


@given(
    program=st.binary(min_size=32, max_size=32),
    place=st.integers(3, 61),
    letter=st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l"),
)
def test_one_wrong_letter_is_always_seen(program: bytes, place: int, letter: str) -> None:
    text = encode_program("bc", 1, program)
    if text[place] != letter:
        with pytest.raises(BadAddress):
            decode_program("bc", text[:place] + letter + text[place + 1 :])
