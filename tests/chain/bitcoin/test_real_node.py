"""What the pure rooms make is what a real node understands, takes and calls by the same names."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from coincurve import PrivateKey

from chain.bitcoin.addresses import address_of, parse_address
from chain.bitcoin.digests import SIGHASH_ALL, Spent, signing_digests
from chain.bitcoin.fees import (
    KEY_HASH_INPUT_WEIGHT,
    OVERHEAD_WEIGHT,
    dust_limit,
    fee_of,
    output_weight,
)
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.scripts import (
    key_hash_script,
    script_hash_script,
    sorted_multisig_script,
    witness_key_hash_script,
    witness_script,
    witness_script_hash_script,
)
from chain.bitcoin.selection import Coin, Selection, Terms, select
from chain.bitcoin.transactions import Input, Outpoint, Output, Transaction, decode, encode
from chain.simulators.bitcoind import Bitcoind, NodeRefusal

KEYS = [PrivateKey(bytes([number]) * 32) for number in (1, 2, 3)]
PUBLIC = [bytes(key.public_key.format()) for key in KEYS]
RATE = 5_000
MATURE = 101
"""Blocks, counting its own, on a new coin before it can be spent."""
BTC = 100_000_000


def satoshi(amount: Any) -> int:
    return int(Decimal(str(amount)) * BTC)


async def coins_of(node: Bitcoind, script: bytes) -> list[Coin]:
    """Return the outputs that pay *script*, as the node's own scan of its coins finds them."""
    found = await node.call("scantxoutset", "start", [f"raw({script.hex()})"])
    return [
        Coin(Outpoint(item["txid"], item["vout"]), satoshi(item["amount"]), KEY_HASH_INPUT_WEIGHT)
        for item in found["unspents"]
    ]


async def mine(node: Bitcoind, script: bytes, blocks: int) -> None:
    await node.call("generatetoaddress", blocks, address_of(script, REGTEST))


async def fund(node: Bitcoind, script: bytes, coins: int = 1) -> list[Coin]:
    """Return new coins that can be spent: those of a block take 100 more blocks."""
    await mine(node, script, coins)
    await mine(node, witness_key_hash_script(PUBLIC[2]), MATURE - 1)
    return await coins_of(node, script)


def sign_key_hash(transaction: Transaction, coins: list[Coin], key: PrivateKey) -> Transaction:
    """Return the transaction with a witness for each input, as a wallet of one key signs it."""
    public = bytes(key.public_key.format())
    spent = [Spent(Output(coin.amount, witness_key_hash_script(public))) for coin in coins]
    proofs = [
        (key.sign(digest, hasher=None) + bytes([SIGHASH_ALL]), public)
        for digest in signing_digests(transaction, spent)
    ]
    inputs = tuple(
        Input(item.outpoint, item.sequence, witness=proof)
        for item, proof in zip(transaction.inputs, proofs, strict=True)
    )
    return Transaction(inputs, transaction.outputs, transaction.version, transaction.lock_time)


def pay(
    coins: list[Coin], outputs: tuple[Output, ...], change: bytes, key: PrivateKey
) -> tuple[Transaction, Selection]:
    """Return a signed payment and the choice of coins behind it."""
    back = Output(0, change)
    terms = Terms(
        rate=RATE,
        later_rate=RATE,
        change_weight=output_weight(back),
        change_spend_weight=KEY_HASH_INPUT_WEIGHT,
        change_min=dust_limit(change),
    )
    weight = OVERHEAD_WEIGHT + sum(output_weight(item) for item in outputs)
    chosen = select(coins, sum(item.amount for item in outputs), weight, terms)
    assert isinstance(chosen, Selection)
    rest = (Output(chosen.change, change),) if chosen.change else ()
    unsigned = Transaction(tuple(Input(coin.outpoint) for coin in chosen.coins), outputs + rest)
    return sign_key_hash(unsigned, list(chosen.coins), key), chosen


async def test_every_kind_of_address_is_the_nodes_own(bitcoind: Bitcoind) -> None:
    for script in (
        key_hash_script(bytes(range(20))),
        script_hash_script(bytes(range(20))),
        witness_script(0, bytes(range(20))),
        witness_script(0, bytes(range(32))),
        witness_script(1, bytes(range(32))),
        witness_script(16, bytes(range(2))),
    ):
        address = address_of(script, REGTEST)
        assert address is not None
        said = await bitcoind.call("validateaddress", address)
        assert said["isvalid"] is True
        assert said["scriptPubKey"] == script.hex()
        assert parse_address(said["address"], REGTEST) == script


async def test_a_payment_to_every_kind_is_taken_under_the_id_and_size_that_we_compute(
    bitcoind: Bitcoind,
) -> None:
    mine_to = witness_key_hash_script(PUBLIC[0])
    coins = await fund(bitcoind, mine_to, 2)
    outputs = tuple(
        Output(10_000 + number, script)
        for number, script in enumerate(
            (
                key_hash_script(bytes(20)),
                script_hash_script(bytes(20)),
                witness_script(0, bytes(range(32))),
                witness_key_hash_script(PUBLIC[1]),
                witness_script(1, PUBLIC[1][1:]),
            )
        )
    )
    signed, chosen = pay(coins, outputs, mine_to, KEYS[0])
    raw = encode(signed)
    assert decode(raw) == signed

    [tested] = await bitcoind.call("testmempoolaccept", [raw.hex()])
    assert tested["allowed"] is True, tested
    assert tested["txid"] == signed.tx_id
    assert tested["wtxid"] == signed.witness_id
    assert tested["vsize"] == signed.virtual_size
    assert satoshi(tested["fees"]["base"]) == chosen.fee
    # A signature is a byte shorter than it may be, about every other time.
    assert 0 <= chosen.fee - fee_of(signed.weight, RATE) <= fee_of(2 * len(chosen.coins), RATE) + 2

    assert await bitcoind.call("sendrawtransaction", raw.hex()) == signed.tx_id
    await mine(bitcoind, mine_to, 1)
    known = await bitcoind.call("getrawtransaction", signed.tx_id, 1)
    assert known["hex"] == raw.hex()
    assert known["confirmations"] == 1
    assert [satoshi(item["value"]) for item in known["vout"]] == [o.amount for o in signed.outputs]


async def test_coins_of_two_of_three_keys_are_spent(bitcoind: Bitcoind) -> None:
    script = sorted_multisig_script(2, PUBLIC)
    pays = witness_script_hash_script(script)
    [coin] = await fund(bitcoind, pays)
    unsigned = Transaction(
        (Input(coin.outpoint),), (Output(coin.amount - 1_000, witness_key_hash_script(PUBLIC[1])),)
    )
    [digest] = signing_digests(unsigned, [Spent(Output(coin.amount, pays), script)])
    # Signatures stand in the order of the keys in the script.
    two = sorted(KEYS[:2], key=lambda key: bytes(key.public_key.format()))
    proofs = [key.sign(digest, hasher=None) + bytes([SIGHASH_ALL]) for key in two]
    signed = Transaction((Input(coin.outpoint, witness=(b"", *proofs, script)),), unsigned.outputs)
    assert await bitcoind.call("sendrawtransaction", encode(signed).hex()) == signed.tx_id


async def test_a_node_refuses_a_signature_over_another_amount(bitcoind: Bitcoind) -> None:
    mine_to = witness_key_hash_script(PUBLIC[0])
    [coin] = await fund(bitcoind, mine_to)
    unsigned = Transaction((Input(coin.outpoint),), (Output(coin.amount - 1_000, mine_to),))
    wrong = [Coin(coin.outpoint, coin.amount - 1, coin.weight)]
    signed = sign_key_hash(unsigned, wrong, KEYS[0])
    with pytest.raises(NodeRefusal, match="script-verify-flag"):
        await bitcoind.call("sendrawtransaction", encode(signed).hex())


async def test_dust_is_where_the_node_draws_the_line(bitcoind: Bitcoind) -> None:
    mine_to = witness_key_hash_script(PUBLIC[0])
    coins = await fund(bitcoind, mine_to)
    for script in (key_hash_script(bytes(20)), mine_to, witness_script(1, PUBLIC[1][1:])):
        limit = dust_limit(script)
        for amount, taken in ((limit, True), (limit - 1, False)):
            signed, _ = pay(coins, (Output(amount, script),), mine_to, KEYS[0])
            [tested] = await bitcoind.call("testmempoolaccept", [encode(signed).hex()])
            assert tested["allowed"] is taken, (script.hex(), amount, tested)
