"""Partially signed transactions: the vectors of BIP 174, 371 and 373, and what must be refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from coincurve import PrivateKey
from embit.psbt import PSBT
from hypothesis import given
from hypothesis import strategies as st

from chain.bitcoin.digests import SIGHASH_ALL, Spent, signing_digests
from chain.bitcoin.multisig import KeySource
from chain.bitcoin.psbt import (
    MAGIC,
    Psbt,
    PsbtInput,
    PsbtOutput,
    create,
    decode_psbt,
    encode_psbt,
    from_base64,
    read_psbt,
    spent_outputs,
    to_base64,
)
from chain.bitcoin.psbt_finish import add_signatures, combine, extract, finalise
from chain.bitcoin.scripts import (
    sorted_multisig_script,
    witness_key_hash_script,
    witness_script_hash_script,
)
from chain.bitcoin.transactions import (
    Input,
    Outpoint,
    Output,
    Transaction,
    encode,
    encode_bytes,
)
from chain.errors import BadTransaction

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "psbt_vectors.json").read_text()
)
WITHOUT_INPUTS = 5
"""The place of the one valid vector that we refuse: a transaction without inputs."""
SAYS_ITS_VERSION = 6
"""The place of the one vector with a version number, which version 0 need not write."""
KEYS = [PrivateKey(bytes([number]) * 32) for number in (1, 2, 3)]
PUBLIC = [bytes(key.public_key.format()) for key in KEYS]
SCRIPT = sorted_multisig_script(2, PUBLIC)
SINGLE = Spent(Output(70_000, witness_key_hash_script(PUBLIC[0])))
SHARED = Spent(Output(50_000, witness_script_hash_script(SCRIPT)), SCRIPT)
PAYEE = Output(100_000, witness_key_hash_script(PUBLIC[2]))


def unsigned() -> Psbt:
    """Two inputs, of one key and of two of three keys, and one output."""
    inputs = (Input(Outpoint("11" * 32, 0)), Input(Outpoint("22" * 32, 3)))
    source = KeySource(b"\1\2\3\4", (84 + 2**31, 2**31, 2**31, 0, 5))
    known = (
        PsbtInput(witness_utxo=SINGLE.output, sighash=SIGHASH_ALL, derivations={PUBLIC[0]: source}),
        PsbtInput(witness_utxo=SHARED.output, witness_script=SCRIPT),
    )
    return create(Transaction(inputs, (PAYEE,)), known)


def signature(psbt: Psbt, place: int, key: PrivateKey) -> bytes:
    digest = signing_digests(psbt.transaction, spent_outputs(psbt))[place]
    return bytes(key.sign(digest, hasher=None)) + bytes([SIGHASH_ALL])


def signed_by(*who: int) -> Psbt:
    """`unsigned`, with the first key's signature of the first input and *who*'s of the second."""
    psbt = unsigned()
    return add_signatures(
        psbt,
        [
            {PUBLIC[0]: signature(psbt, 0, KEYS[0])},
            {PUBLIC[n]: signature(psbt, 1, KEYS[n]) for n in who},
        ],
    )


@pytest.mark.parametrize("place", range(len(VECTORS["invalid"])))
def test_what_the_standards_call_invalid_is_refused(place: int) -> None:
    with pytest.raises(BadTransaction):
        from_base64(VECTORS["invalid"][place])


@pytest.mark.parametrize("place", range(len(VECTORS["valid"])))
def test_what_the_standards_call_valid_is_read_and_written_again(place: int) -> None:
    text = VECTORS["valid"][place]
    if place == WITHOUT_INPUTS:
        with pytest.raises(BadTransaction):
            from_base64(text)
        return

    psbt = from_base64(text)

    assert from_base64(to_base64(psbt)) == psbt
    if place != SAYS_ITS_VERSION:
        assert len(to_base64(psbt)) == len(text), "nothing that was read is left out"


@pytest.mark.parametrize("vector", VECTORS["combiner"])
def test_parts_are_combined_as_the_standard_combines_them(vector: dict[str, Any]) -> None:
    parts = [from_base64(text) for text in vector["combine"]]
    assert combine(parts) == combine(parts[::-1]) == from_base64(vector["result"])


def test_a_finished_transaction_is_extracted_as_the_standard_extracts_it() -> None:
    [vector] = VECTORS["extractor"]
    assert encode(extract(from_base64(vector["extract"]))).hex() == vector["result"]


def test_a_file_holds_the_bytes_or_their_base64() -> None:
    psbt = unsigned()
    for content in (encode_psbt(psbt), to_base64(psbt).encode(), f"\n{to_base64(psbt)}\n".encode()):
        assert read_psbt(content) == psbt
    for content in (b"", b"hello world!", b"\xff\xfe"):
        with pytest.raises(BadTransaction):
            read_psbt(content)


def test_one_key_and_two_of_three_keys_finish_a_transaction() -> None:
    done = finalise(combine([signed_by(1), signed_by(2)]))

    transaction = extract(done)

    assert transaction.without_proofs() == unsigned().transaction
    assert [len(item.witness) for item in transaction.inputs] == [2, 4]
    assert done.inputs[1].witness_script is None, "what signers needed to know is left out"
    assert finalise(done) == done, "what another program has finished is verified and kept"
    tampered = replace(done.inputs[0], witness_utxo=replace(SINGLE.output, amount=1))
    with pytest.raises(BadTransaction, match="signs something else"):
        finalise(replace(done, inputs=(tampered, done.inputs[1])))


def test_a_third_signature_too_many_is_left_out() -> None:
    [_, witness] = [item.witness for item in extract(finalise(signed_by(0, 1, 2))).inputs]
    assert len(witness) == 4


@pytest.mark.parametrize(
    ("psbt", "words"),
    [
        (signed_by(1), "input 1: 1 of 2 signatures"),
        (unsigned(), "input 0: the signature of the key"),
        (
            add_signatures(signed_by(1), [{}, {PUBLIC[2]: signature(unsigned(), 0, KEYS[2])}]),
            "signs something else",
        ),
        (
            add_signatures(unsigned(), [{PUBLIC[0]: b"\x30\x06\2\1\1\2\1\1\3"}, {}]),
            "does not commit to the whole",
        ),
        (
            replace(
                signed_by(1, 2),
                inputs=tuple(replace(item, sighash=3) for item in signed_by(1, 2).inputs),
            ),
            "would not commit to the whole transaction",
        ),
    ],
)
def test_what_is_not_rightly_signed_is_not_finished(psbt: Psbt, words: str) -> None:
    with pytest.raises(BadTransaction, match=words):
        finalise(psbt)


@pytest.mark.parametrize("amount", [69_999, 70_001])
def test_an_amount_that_was_forged_gives_a_signature_that_does_not_fit(amount: int) -> None:
    psbt, both = unsigned(), signed_by(1, 2)
    forged = replace(psbt.inputs[0], witness_utxo=replace(SINGLE.output, amount=amount))
    made = signature(replace(psbt, inputs=(forged, psbt.inputs[1])), 0, KEYS[0])
    right = replace(both.inputs[0], signatures={PUBLIC[0]: made})

    with pytest.raises(BadTransaction, match="signs something else"):
        finalise(replace(both, inputs=(right, both.inputs[1])))


def test_an_input_that_is_not_finished_is_not_extracted() -> None:
    with pytest.raises(BadTransaction, match="not finished"):
        extract(signed_by(1, 2))


def test_parts_of_different_transactions_and_parts_that_disagree_are_not_combined() -> None:
    psbt = unsigned()
    other = replace(psbt, transaction=replace(psbt.transaction, lock_time=1))
    forged = replace(psbt.inputs[0], witness_utxo=replace(SINGLE.output, amount=1))
    for parts, words in [
        ([psbt, other], "different transactions"),
        ([psbt, replace(psbt, inputs=(forged, psbt.inputs[1]))], "contradict each other"),
        ([], "nothing to combine"),
    ]:
        with pytest.raises(BadTransaction, match=words):
            combine(parts)


def test_a_previous_transaction_is_the_one_that_is_spent() -> None:
    previous = Transaction((Input(Outpoint("33" * 32, 0)),), (PAYEE, SINGLE.output))
    spend = Transaction((Input(Outpoint(previous.tx_id, 1)),), (PAYEE,))
    right = PsbtInput(previous=previous, witness_utxo=SINGLE.output)
    assert decode_psbt(encode_psbt(create(spend, [right]))).inputs == (right,)

    more = replace(SINGLE.output, amount=SINGLE.output.amount + 1)
    for transaction, known, words in [
        (spend, replace(right, witness_utxo=more), "two different outputs"),
        (spend, replace(right, previous=replace(previous, lock_time=9)), "another transaction"),
        (Transaction((Input(Outpoint(previous.tx_id, 2)),), (PAYEE,)), right, "does not exist"),
    ]:
        with pytest.raises(BadTransaction, match=words):
            create(transaction, [known])


def test_a_field_that_occurs_twice_is_refused() -> None:
    raw = encode_psbt(unsigned())
    field = encode_bytes(b"\x03") + encode_bytes(SIGHASH_ALL.to_bytes(4, "little"))
    assert raw.count(field) == 1
    with pytest.raises(BadTransaction, match="occurs twice"):
        decode_psbt(raw.replace(field, field + field))


def test_something_behind_the_end_is_refused() -> None:
    with pytest.raises(BadTransaction, match="follow where nothing should"):
        decode_psbt(encode_psbt(unsigned()) + b"\0")


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_and_nothing_else_happens(data: bytes) -> None:
    for raw in (data, MAGIC + data):
        with pytest.raises(BadTransaction):
            decode_psbt(raw)


@given(place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_another_value(place: int, byte: int) -> None:
    raw = encode_psbt(signed_by(1, 2))
    place %= len(raw)
    changed = raw[:place] + bytes([byte]) + raw[place + 1 :]
    try:
        read = decode_psbt(changed)
    except BadTransaction:
        return
    assert (read == signed_by(1, 2)) is (changed == raw)


points = st.integers(1, 2**200).map(
    lambda number: bytes(PrivateKey(number.to_bytes(32, "big")).public_key.format())
)
paths = st.lists(st.integers(0, 2**32 - 1), max_size=6).map(tuple)
sources = st.builds(KeySource, st.binary(min_size=4, max_size=4), paths)
derivations = st.dictionaries(points, sources, max_size=3)
unknown = st.dictionaries(
    st.binary(max_size=8).map(lambda data: b"\xfc" + data), st.binary(max_size=40), max_size=3
)
scripts = st.none() | st.binary(max_size=300)
signatures = st.dictionaries(points, st.just(b"\x30\x06\2\1\1\2\1\1\1"), max_size=3)
amounts = st.integers(0, 21 * 10**12)
known_inputs = st.builds(
    PsbtInput,
    witness_utxo=st.none() | st.builds(Output, amounts, st.binary(max_size=60)),
    signatures=signatures,
    sighash=st.none() | st.integers(0, 2**32 - 1),
    redeem_script=scripts,
    witness_script=scripts,
    derivations=derivations,
    final_script=scripts,
    final_witness=st.none() | st.lists(st.binary(max_size=300), max_size=4).map(tuple),
    unknown=unknown,
)
known_outputs = st.builds(PsbtOutput, scripts, scripts, derivations, unknown)


@st.composite
def psbts(draw: st.DrawFn) -> Psbt:
    inputs = draw(st.lists(known_inputs, min_size=1, max_size=3))
    outputs = draw(st.lists(known_outputs, min_size=1, max_size=3))
    transaction = Transaction(
        tuple(Input(Outpoint("ab" * 32, n)) for n in range(len(inputs))),
        tuple(Output(n, b"\x51") for n in range(len(outputs))),
    )
    return replace(create(transaction, inputs, outputs), unknown=draw(unknown))


@given(psbts())
def test_reading_what_was_written_gives_the_same_value(psbt: Psbt) -> None:
    raw = encode_psbt(psbt)
    assert decode_psbt(raw) == psbt
    assert encode_psbt(decode_psbt(raw)) == raw


def test_a_second_library_reads_the_same() -> None:
    ours = signed_by(1, 2)
    theirs = PSBT.parse(encode_psbt(ours))
    assert theirs.tx.txid().hex() == ours.transaction.tx_id
    assert [item.witness_utxo.value for item in theirs.inputs] == [70_000, 50_000]
    assert decode_psbt(theirs.serialize()) == ours
