"""What we signed is what Bitcoin's own consensus code takes; every wrong proof is refused by it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace

import pytest
from coincurve import PrivateKey

from chain.bitcoin import kernel
from chain.bitcoin.digests import SIGHASH_ALL, Spent, signing_digests
from chain.bitcoin.kernel import KernelMissing, is_available, verify_inputs
from chain.bitcoin.reading import encode_size
from chain.bitcoin.scripts import (
    sorted_multisig_script,
    witness_key_hash_script,
    witness_script,
    witness_script_hash_script,
)
from chain.bitcoin.transactions import (
    Input,
    Outpoint,
    Output,
    Transaction,
    encode,
    encode_outpoint,
    encode_output,
)
from chain.errors import BadTransaction

KEYS = [PrivateKey(bytes([number]) * 32) for number in (1, 2, 3)]
PUBLIC = [bytes(key.public_key.format()) for key in KEYS]
PAYEE = witness_key_hash_script(PUBLIC[2])
AMOUNT = 50_000
COIN = Output(AMOUNT, witness_key_hash_script(PUBLIC[0]))
MULTISIG = sorted_multisig_script(2, PUBLIC)
SHARED = Output(AMOUNT, witness_script_hash_script(MULTISIG))


def unsigned(inputs: int = 1, paid: int = 40_000) -> Transaction:
    spent = tuple(Input(Outpoint(f"{number:064x}", number)) for number in range(1, inputs + 1))
    return Transaction(spent, (Output(paid, PAYEE),))


def prove(transaction: Transaction, *witnesses: tuple[bytes, ...]) -> bytes:
    inputs = tuple(
        replace(item, witness=witness)
        for item, witness in zip(transaction.inputs, witnesses, strict=True)
    )
    return encode(replace(transaction, inputs=inputs))


def signature(key: PrivateKey, digest: bytes) -> bytes:
    return bytes(key.sign(digest, hasher=None)) + bytes([SIGHASH_ALL])


def sign_one(key: PrivateKey, coin: Output = COIN) -> bytes:
    [digest] = signing_digests(unsigned(), [Spent(coin)])
    return prove(unsigned(), (signature(key, digest), bytes(key.public_key.format())))


def tagged(tag: str, data: bytes) -> bytes:
    """Return the tagged hash of BIP 340."""
    head = hashlib.sha256(tag.encode()).digest()
    return hashlib.sha256(head + head + data).digest()


def taproot_digest(transaction: Transaction, spent: Output) -> bytes:
    """Return what the key path of one taproot input signs by default (BIP 341)."""
    [item] = transaction.inputs
    parts = (
        encode_outpoint(item.outpoint),
        spent.amount.to_bytes(8, "little"),
        encode_size(len(spent.script)) + spent.script,
        item.sequence.to_bytes(4, "little"),
        b"".join(map(encode_output, transaction.outputs)),
    )
    head = bytes(2) + transaction.version.to_bytes(4, "little") + bytes(4)
    body = b"".join(hashlib.sha256(part).digest() for part in parts)
    return tagged("TapSighash", head + body + bytes(5))


def taproot_coin(key: PrivateKey) -> tuple[Output, PrivateKey]:
    """Return an output of the key alone (BIP 86) and the key that spends it."""
    inner = bytes(key.public_key_xonly.format())
    secret = key.secret
    if bytes(key.public_key.format())[0] == 3:
        order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
        secret = (order - int.from_bytes(secret, "big")).to_bytes(32, "big")
    tweaked = PrivateKey(secret).add(tagged("TapTweak", inner))
    return Output(AMOUNT, witness_script(1, bytes(tweaked.public_key_xonly.format()))), tweaked


def test_the_kernel_is_installed_where_the_tests_run() -> None:
    assert is_available()


def test_our_signature_of_one_key_is_taken() -> None:
    verify_inputs(sign_one(KEYS[0]), [COIN])


def test_another_keys_signature_is_refused() -> None:
    with pytest.raises(BadTransaction, match="proof of input 0"):
        verify_inputs(sign_one(KEYS[1]), [COIN])


def test_a_flipped_bit_of_the_signature_is_refused() -> None:
    raw = bytearray(sign_one(KEYS[0]))
    raw[raw.index(PUBLIC[0]) - 10] ^= 1
    with pytest.raises(BadTransaction, match="proof of input 0"):
        verify_inputs(bytes(raw), [COIN])


def test_a_signature_over_another_amount_is_refused() -> None:
    raw = sign_one(KEYS[0], replace(COIN, amount=AMOUNT + 1))
    with pytest.raises(BadTransaction, match="proof of input 0"):
        verify_inputs(raw, [COIN])


def test_a_missing_witness_is_refused() -> None:
    with pytest.raises(BadTransaction, match="proof of input 0"):
        verify_inputs(encode(unsigned()), [COIN])


def test_two_of_three_signatures_are_taken_and_one_is_not() -> None:
    [digest] = signing_digests(unsigned(), [Spent(SHARED, MULTISIG)])
    keys = sorted(KEYS, key=lambda key: bytes(key.public_key.format()))
    first, second = (signature(key, digest) for key in keys[:2])
    verify_inputs(prove(unsigned(), (b"", first, second, MULTISIG)), [SHARED])
    for proofs in ((first, first), (second, first), (first, b"")):
        with pytest.raises(BadTransaction, match="proof of input 0"):
            verify_inputs(prove(unsigned(), (b"", *proofs, MULTISIG)), [SHARED])


@pytest.mark.parametrize("key", KEYS)
def test_a_taproot_key_path_is_taken_and_its_wrong_amount_is_not(key: PrivateKey) -> None:
    coin, spender = taproot_coin(key)
    proof = bytes(spender.sign_schnorr(taproot_digest(unsigned(), coin)))
    verify_inputs(prove(unsigned(), (proof,)), [coin])
    with pytest.raises(BadTransaction, match="proof of input 0"):
        verify_inputs(prove(unsigned(), (proof,)), [replace(coin, amount=AMOUNT + 1)])


def test_the_refused_input_is_named() -> None:
    spend = unsigned(2, paid=60_000)
    good, bad = signing_digests(spend, [Spent(COIN), Spent(COIN)])
    raw = prove(
        spend,
        (signature(KEYS[0], good), PUBLIC[0]),
        (signature(KEYS[1], bad), PUBLIC[0]),
    )
    with pytest.raises(BadTransaction, match=f"proof of input 1 .* of {2:064x}:2"):
        verify_inputs(raw, [COIN, COIN])


def test_more_cannot_be_paid_than_is_spent() -> None:
    with pytest.raises(BadTransaction, match="40000 satoshi are paid, 39999 are spent"):
        verify_inputs(sign_one(KEYS[0]), [replace(COIN, amount=39_999)])


def test_every_input_needs_what_it_spends() -> None:
    with pytest.raises(BadTransaction, match="1 inputs spend 2 outputs"):
        verify_inputs(sign_one(KEYS[0]), [COIN, COIN])


def test_without_the_library_the_answer_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel, "MODULE", "a_module_that_is_not_there")
    assert not is_available()
    with pytest.raises(KernelMissing, match="bitcoin-kernel"):
        verify_inputs(sign_one(KEYS[0]), [COIN])
    monkeypatch.undo()
    verify_inputs(sign_one(KEYS[0]), [COIN])


LOADED_AT_ONCE = """
import threading
from chain.bitcoin.kernel import load_kernel

gate = threading.Barrier(8)

def load():
    gate.wait()
    load_kernel()

threads = [threading.Thread(target=load) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
load_kernel()
"""


def test_threads_that_load_the_library_at_once_do_not_end_the_process() -> None:
    # It aborts when its log is turned off twice, so this has a process of its own.
    ended = subprocess.run(
        [sys.executable, "-c", LOADED_AT_ONCE], capture_output=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
