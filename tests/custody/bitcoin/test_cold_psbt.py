"""Transactions that people sign by hand: what they say, what may come back, and a real node's view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from chain.bitcoin.addresses import address_of
from chain.bitcoin.digests import SIGHASH_ALL
from chain.bitcoin.fees import OVERHEAD_WEIGHT, output_weight
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.psbt import Psbt, PsbtOutput, decode_psbt, encode_psbt, from_base64, to_base64
from chain.bitcoin.psbt_finish import combine, finalise
from chain.bitcoin.scripts import witness_script
from chain.bitcoin.transactions import Input, Outpoint, Output, Transaction, decode, encode
from chain.errors import BadTransaction
from chain.simulators.bitcoind import Bitcoind
from custody.bitcoin.cold_keys import WalletKeys
from custody.bitcoin.cold_psbt import build, check_part, finish, story_facts, tell
from custody.errors import NotPossible
from registry.model import Wallet
from tests.custody.bitcoin.cold_people import (
    ANN,
    BEN,
    CLEO,
    PEOPLE,
    descriptors,
    keys,
    load_wallet,
    shared_wallet,
    signed_by,
    single_wallet,
)

PAYEE = witness_script(1, b"\7" * 32)
COINS = [(60_000, (0, 3)), (50_000, (1, 1))]
CHANGE = (1, 9)
SHARED, SINGLE = shared_wallet(), single_wallet()


def given_out(wallet: Wallet, coins: Any = COINS, outpoints: Any = None) -> Psbt:
    """Two coins of a wallet pay 100,000; 9,000 come back for a fee of 1,000."""
    own: WalletKeys = keys(wallet)
    spent = outpoints or [Outpoint(f"{n + 1:064x}", n) for n in range(len(coins))]
    left = sum(amount for amount, _ in coins) - 101_000
    unsigned = Transaction(
        tuple(Input(item) for item in spent),
        (Output(100_000, PAYEE), Output(left, own.script(*CHANGE))),
    )
    return build(unsigned, coins, own, (own.script(*CHANGE), CHANGE))


@pytest.mark.parametrize("wallet", [SHARED, SINGLE])
def test_the_file_says_what_leaves_what_comes_back_and_what_it_costs(wallet: Wallet) -> None:
    story = tell(given_out(wallet), keys(wallet))
    assert [(item.amount, item.place) for item in story.outputs] == [
        (100_000, None),
        (9_000, CHANGE),
    ]
    assert (story.brought, story.fee, story.strange) == (110_000, 1_000, 0)
    assert (story.signed, story.is_complete) == ((0, 0), False)
    facts = story_facts(story)
    assert facts["leaves"] == f"100000 to {address_of(PAYEE, REGTEST)}"
    assert facts["comes back"].endswith("(1/9)")
    assert facts["signatures"] == f"0 of {story.required}"


def test_an_output_that_only_claims_to_come_back_is_told_to_leave() -> None:
    psbt = given_out(SHARED)
    liar = replace(psbt, outputs=(psbt.outputs[1], psbt.outputs[1]))
    assert [item.place for item in tell(liar, keys(SHARED)).outputs] == [None, CHANGE]


def test_a_coin_that_is_not_the_wallets_is_told() -> None:
    assert tell(given_out(SHARED), keys(SINGLE)).strange == 2


@pytest.mark.parametrize(
    "people", [(ANN, BEN), (BEN, CLEO), (CLEO, ANN), (ANN, BEN, CLEO), (CLEO, BEN)]
)
def test_two_of_three_people_in_any_order_finish_it(people: tuple[Any, ...]) -> None:
    psbt = given_out(SHARED)
    parts = [decode_psbt(encode_psbt(part)) for part in signed_by(psbt, SHARED, people)]
    assert tell(combine(parts), keys(SHARED)).is_complete

    signed = finish(psbt, parts, keys(SHARED))

    read = decode(signed.raw)
    assert read.without_proofs() == psbt.transaction
    assert (signed.tx_id, signed.fee) == (psbt.transaction.tx_id, 1_000)
    weight = OVERHEAD_WEIGHT + 2 * keys(SHARED).input_weight
    weight += sum(output_weight(item) for item in read.outputs)
    assert weight - 4 <= signed.weight <= weight, "what was paid for"


def test_one_person_after_another_signs_the_same_file() -> None:
    psbt = given_out(SHARED)
    [first] = signed_by(psbt, SHARED, [ANN])
    [both] = signed_by(first, SHARED, [CLEO])
    assert finish(psbt, [both], keys(SHARED)) == finish(
        psbt, signed_by(psbt, SHARED, [ANN, CLEO]), keys(SHARED)
    )


def test_a_file_that_another_program_has_finished_is_taken() -> None:
    psbt = given_out(SHARED)
    done = finalise(combine(signed_by(psbt, SHARED, [ANN, BEN])))
    assert finish(psbt, [done], keys(SHARED)).tx_id == psbt.transaction.tx_id


@pytest.mark.parametrize(
    ("people", "words"), [((), "no signed file"), ((ANN,), "1 of 2"), ((ANN, ANN), "1 of 2")]
)
def test_too_few_signatures_are_not_enough(people: tuple[Any, ...], words: str) -> None:
    psbt = given_out(SHARED)
    with pytest.raises(NotPossible, match=words):
        finish(psbt, signed_by(psbt, SHARED, people), keys(SHARED))


def with_output(psbt: Psbt, place: int, **changes: Any) -> Psbt:
    outputs = list(psbt.transaction.outputs)
    outputs[place] = replace(outputs[place], **changes)
    return replace(psbt, transaction=replace(psbt.transaction, outputs=tuple(outputs)))


def with_input(psbt: Psbt, **changes: Any) -> Psbt:
    return replace(psbt, inputs=(replace(psbt.inputs[0], **changes), *psbt.inputs[1:]))


def with_transaction(psbt: Psbt, **changes: Any) -> Psbt:
    return replace(psbt, transaction=replace(psbt.transaction, **changes))


INPUTS = given_out(SHARED).transaction.inputs
FALSE_AMOUNT = Output(61_000, keys(SHARED).script(0, 3))
FALSE_SCRIPT = keys(SHARED).witness_script(0, 4)
OTHER_KEYS = PsbtOutput(derivations=keys(SHARED).sources(1, 8))


@pytest.mark.parametrize(
    ("forge", "words"),
    [
        (lambda p: with_output(p, 0, amount=100_001), "pays something else: 100001 to"),
        (lambda p: with_output(p, 0, script=witness_script(1, b"\1" * 32)), "pays something else"),
        (lambda p: with_output(p, 1, amount=8_000), "pays something else: 8000 to"),
        (lambda p: with_output(p, 1, script=keys(SINGLE).script(1, 9)), "pays something else"),
        (lambda p: with_output(p, 1, script=keys(SHARED).script(1, 8)), "pays something else"),
        (lambda p: with_transaction(p, inputs=INPUTS[::-1]), "other coins"),
        (
            lambda p: with_transaction(p, inputs=(replace(INPUTS[0], sequence=0), INPUTS[1])),
            "other",
        ),
        (lambda p: with_transaction(p, lock_time=9), "lock time"),
        (lambda p: with_transaction(p, version=1), "another version"),
        (
            lambda p: with_input(p, witness_utxo=FALSE_AMOUNT),
            "61000 satoshi by the file, and 60000",
        ),
        (lambda p: with_input(p, witness_script=FALSE_SCRIPT), "another script"),
        (lambda p: with_input(p, sighash=SIGHASH_ALL | 0x80), "without the whole transaction"),
        (lambda p: replace(p, outputs=(p.outputs[0], OTHER_KEYS)), "keys that are not ours"),
        (
            lambda p: replace(p, outputs=(p.outputs[0], PsbtOutput(witness_script=b"\x51"))),
            "another script",
        ),
    ],
)
def test_a_file_that_says_something_else_is_refused_though_it_is_rightly_signed(
    forge: Callable[[Psbt], Psbt], words: str
) -> None:
    meant = given_out(SHARED)
    good, forged = signed_by(meant, SHARED, [ANN, BEN])
    with pytest.raises(NotPossible, match=words):
        finish(meant, [good, forge(forged)], keys(SHARED))
    with pytest.raises(NotPossible, match=words):
        check_part(meant, forge(meant), keys(SHARED))


def test_a_false_signature_is_found_and_one_of_a_stranger_does_not_count() -> None:
    meant = given_out(SHARED)
    [good] = signed_by(meant, SHARED, [ANN])
    [other] = signed_by(given_out(SHARED, [(60_001, (0, 3)), (50_000, (1, 1))]), SHARED, [BEN])
    false = replace(
        good,
        inputs=tuple(
            replace(item, signatures=theirs.signatures)
            for item, theirs in zip(good.inputs, other.inputs, strict=True)
        ),
    )
    with pytest.raises(NotPossible, match="1 of 2"):
        finish(meant, [good, false], keys(SHARED))
    stranger = replace(
        good,
        inputs=tuple(
            replace(item, signatures={ANN.root.public_key: next(iter(item.signatures.values()))})
            for item in good.inputs
        ),
    )
    with pytest.raises(NotPossible, match="1 of 2"):
        finish(meant, [good, stranger], keys(SHARED))


def test_a_witness_that_proves_nothing_is_refused() -> None:
    meant = given_out(SHARED)
    done = finalise(combine(signed_by(meant, SHARED, [ANN, BEN])))
    swapped = replace(
        done,
        inputs=(
            replace(done.inputs[0], final_witness=done.inputs[1].final_witness),
            done.inputs[1],
        ),
    )
    with pytest.raises(BadTransaction):
        finish(meant, [swapped], keys(SHARED))


# A real node.


async def fund(node: Bitcoind, wallet: Wallet) -> tuple[list[Any], list[Outpoint]]:
    """Give the wallet a coin at 0/3 and one at 1/1."""
    own = keys(wallet)
    places = [(0, 3), (1, 1)]
    for place in places:
        await node.call("generatetoaddress", 1, own.account.address(*place))
    await node.call("generatetoaddress", 100, address_of(PAYEE, REGTEST))
    coins, outpoints = [], []
    for place in places:
        found = await node.call("scantxoutset", "start", [f"raw({own.script(*place).hex()})"])
        [coin] = found["unspents"]
        coins.append((int(Decimal(str(coin["amount"])) * 10**8), place))
        outpoints.append(Outpoint(coin["txid"], coin["vout"]))
    return coins, outpoints


async def test_a_real_node_signs_what_we_give_out_and_takes_what_we_finish(
    bitcoind: Bitcoind,
) -> None:
    coins, outpoints = await fund(bitcoind, SINGLE)
    meant = given_out(SINGLE, coins, outpoints)
    call = await load_wallet(bitcoind, "cold", descriptors(SINGLE, ANN))

    told = await bitcoind.call("decodepsbt", to_base64(meant))
    processed = await call("walletprocesspsbt", to_base64(meant), True, "ALL", True, False)
    theirs = await bitcoind.call("finalizepsbt", processed["psbt"])
    ours = finish(meant, [from_base64(processed["psbt"])], keys(SINGLE))

    assert told["tx"]["txid"] == ours.tx_id
    assert theirs["complete"]
    assert theirs["hex"] == ours.raw.hex()
    assert Decimal(str(told["fee"])) * 10**8 == ours.fee
    assert await bitcoind.call("sendrawtransaction", ours.raw.hex(), 0) == ours.tx_id


async def test_two_of_three_real_wallets_sign_and_the_node_combines_as_we_do(
    bitcoind: Bitcoind,
) -> None:
    coins, outpoints = await fund(bitcoind, SHARED)
    meant = given_out(SHARED, coins, outpoints)
    texts = []
    for number, person in enumerate(PEOPLE[:2]):
        call = await load_wallet(bitcoind, f"p{number}", descriptors(SHARED, person))
        assert await call(
            "deriveaddresses", (await call("listdescriptors"))["descriptors"][0]["desc"], [3, 3]
        )
        done = await call("walletprocesspsbt", to_base64(meant), True, "ALL", True, False)
        assert not done["complete"]
        texts.append(done["psbt"])

    combined = await bitcoind.call("combinepsbt", texts)
    theirs = await bitcoind.call("finalizepsbt", combined)
    ours = finish(meant, [from_base64(text) for text in texts], keys(SHARED))

    assert theirs["complete"]
    assert theirs["hex"] == ours.raw.hex()
    assert encode(decode(ours.raw)) == ours.raw
    assert finish(meant, [from_base64(combined)], keys(SHARED)) == ours
    seen = await bitcoind.call("decoderawtransaction", ours.raw.hex())
    assert (seen["txid"], seen["weight"]) == (ours.tx_id, ours.weight)
    assert await bitcoind.call("sendrawtransaction", ours.raw.hex(), 0) == ours.tx_id
