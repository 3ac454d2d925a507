"""Numbered cards: what the pool takes, at what fee, and what takes the place of what.

On the simulator and on a real bitcoind. Where the two differ, or Core and Knots do, the card asserts
the difference for each side.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from chain.bitcoin.digests import Spent, signing_digests
from chain.bitcoin.fees import dust_limit, fee_of
from chain.bitcoin.scripts import (
    key_hash_script,
    sorted_multisig_script,
    witness_script,
    witness_script_hash_script,
)
from chain.bitcoin.transactions import Input, Outpoint, Output, Transaction, encode
from tests.conformance.bitcoin.coins_at_hand import (
    HOME,
    KEYS,
    OTHER,
    PUBLIC,
    REWARD,
    SCRIPT,
    SIGHASH,
    UNKNOWN,
    NodeUnderTest,
    first,
    pay,
    satoshi,
    spend,
)

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
FAILED_SCRIPT = "script-verify-flag-failed"


async def test_p01_a_payment_is_tested_without_a_trace_and_sent_twice_without_harm(
    node: NodeUnderTest,
) -> None:
    """Card P01. A good payment: tested, sent, sent again, mined, sent again, spent, sent again."""
    [coin] = await node.fund(1)
    paid = pay(coin, 1_000)
    verdict = await node.test(paid)
    assert verdict["allowed"] is True
    assert (verdict["txid"], verdict["wtxid"]) == (paid.tx_id, paid.witness_id)
    assert (verdict["vsize"], satoshi(verdict["fees"]["base"])) == (paid.virtual_size, 1_000)
    rate = 1_000 * 1_000 // paid.virtual_size
    assert satoshi(verdict["fees"]["effective-feerate"]) == rate
    assert await node.pool() == set()

    assert await node.send(paid) == paid.tx_id
    assert (await node.test(paid))["reject-reason"] == "txn-already-in-mempool"
    assert await node.send(paid) == paid.tx_id
    await node.mine()
    assert await node.refused(paid) == (-27, "Transaction outputs already in utxo set")
    assert (await node.test(paid))["reject-reason"] == "txn-already-known"
    await node.send(pay(first(paid), 1_000, amount=REWARD - 1_000))
    await node.mine()
    assert await node.refused(paid) == (-25, "bad-txns-inputs-missingorspent")
    assert (await node.test(paid))["reject-reason"] == "missing-inputs"


async def test_p02_what_breaks_a_rule_is_refused_with_its_word(node: NodeUnderTest) -> None:
    """Card P02. One mature coin; payments with one fault each, tested and sent."""
    [coin] = await node.fund(1)
    tip = await node.call("getblock", await node.call("getbestblockhash"), 1)
    data = [Output(0, bytes.fromhex("6a0161")), Output(0, bytes.fromhex("6a0162"))]
    good = Output(REWARD - 1_000, SCRIPT)
    cases: list[tuple[Transaction, int, str]] = [
        (pay(Outpoint(UNKNOWN, 0), 1_000), -25, "bad-txns-inputs-missingorspent"),
        (
            pay(Outpoint(tip["tx"][0], 0), 1_000),
            -26,
            "bad-txns-premature-spend-of-coinbase, tried to spend coinbase at depth 1",
        ),
        (
            pay(coin, -1),
            -26,
            "bad-txns-in-belowout, value in (50.00) < value out (50.00000001)",
        ),
        (spend([coin], [good], lock_time=500), -26, "non-final"),
        (spend([coin], [good], sequence=500), -26, "non-BIP68-final"),
        (spend([coin], [good], version=0), -26, "version"),
        (spend([coin], [good], version=4), -26, "version"),
        (spend([coin], [Output(REWARD - 1_000, b"\x51")]), -26, "scriptpubkey"),
        (spend([coin], [Output(10_000, SCRIPT)] * 3_300), -26, "tx-size"),
        (
            Transaction((Input(Outpoint("00" * 32, 0xFFFFFFFF), script=b"\1\2\3"),), (good,)),
            -26,
            "coinbase",
        ),
        (
            spend([coin], [good, Output(1, data[0].script)]),
            -25,
            "Unspendable output exceeds maximum configured by user (maxburnamount)",
        ),
    ]
    if node.flavour != "core":  # since version 30 Core takes several
        cases.append((spend([coin], [good, *data]), -26, "multi-op-return"))
    for packed, code, message in cases:
        assert await node.refused(packed) == (code, message)
        if code == -26:
            verdict = await node.test(packed)
            assert (verdict["allowed"], verdict["reject-details"]) == (False, message)
            assert verdict["reject-reason"] == message.split(",")[0]
    assert await node.pool() == set()


async def test_p03_a_wrong_proof_is_refused_and_its_input_named(node: NodeUnderTest) -> None:
    """Card P03. Proofs that do not fit. Why is bitcoind's to say: our kernel gives no reason."""
    [coin] = await node.fund(1)
    good = pay(coin, 1_000)
    [item] = good.inputs
    changed = replace(good, outputs=(Output(REWARD - 1_001, SCRIPT),))
    other_key = replace(item, witness=(item.witness[0], PUBLIC[1]))
    other_amount = spend([coin], [Output(REWARD - 1_000, SCRIPT)], amounts=[REWARD - 1])
    for wrong, why in (
        (changed, "Signature must be zero for failed CHECK(MULTI)SIG operation"),
        (replace(good, inputs=(other_key,)), "Script failed an OP_EQUALVERIFY operation"),
        (other_amount, "Signature must be zero for failed CHECK(MULTI)SIG operation"),
        (good.without_proofs(), "Witness program hash mismatch"),
    ):
        code, message = await node.refused(wrong)
        assert code == -26
        assert FAILED_SCRIPT in message
        assert ("the consensus library gives no reason" if node.is_ours else why) in message
        assert message.endswith(
            f"input 0 of {wrong.tx_id} (wtxid {wrong.witness_id}), spending {coin}"
        )


async def test_p04_a_signature_that_a_third_party_could_have_changed_is_not_relayed(
    node: NodeUnderTest,
) -> None:
    """Card P04. The same signature with the other s: valid in a block, refused by the pool."""
    [coin] = await node.fund(1)
    good = pay(coin, 1_000)
    [item] = good.inputs
    r, s = read_der(item.witness[0])
    changed = replace(item, witness=(write_der(r, ORDER - s) + SIGHASH, PUBLIC[0]))
    high = replace(good, inputs=(changed,))
    code, message = await node.refused(high)
    assert code == -26
    assert "(Non-canonical signature: S value is unnecessarily high)" in message
    assert high.tx_id == good.tx_id
    await node.tick()
    made = await node.call("generateblock", HOME, [encode(high).hex()])
    assert (await node.call("getblock", made["hash"], 1))["tx"][1] == good.tx_id


def read_der(proof: bytes) -> tuple[int, int]:
    size = proof[3]
    r, rest = proof[4 : 4 + size], proof[4 + size :]
    return int.from_bytes(r, "big"), int.from_bytes(rest[2 : 2 + rest[1]], "big")


def write_der(r: int, s: int) -> bytes:
    parts = b""
    for number in (r, s):
        data = number.to_bytes(number.bit_length() // 8 + 1, "big")
        parts += bytes([2, len(data)]) + data
    return bytes([0x30, len(parts)]) + parts


async def test_p05_the_least_fee_is_the_relay_rate_rounded_up(node: NodeUnderTest) -> None:
    """Card P05. One satoshi below what the node itself says, and exactly that."""
    [coin] = await node.fund(1)
    size = pay(coin, 1_000).virtual_size
    least = fee_of(4 * size, await node.relay_rate())
    low = pay(coin, least - 1)
    assert low.virtual_size == size
    code, message = await node.refused(low)
    assert (code, message) == (-26, f"min relay fee not met, {least - 1} < {least}")
    enough = pay(coin, least)
    assert enough.virtual_size == size
    assert await node.send(enough) == enough.tx_id


async def test_p06_dust_is_where_the_node_draws_the_line(node: NodeUnderTest) -> None:
    """Card P06. The smallest amounts of four kinds of output, and one satoshi less."""
    [coin] = await node.fund(1)
    shared = witness_script_hash_script(sorted_multisig_script(2, PUBLIC))
    for script in (SCRIPT, key_hash_script(bytes(20)), shared, witness_script(1, PUBLIC[1][1:])):
        limit = dust_limit(script)
        rest = Output(REWARD - 100_000, SCRIPT)
        verdict = await node.test(spend([coin], [Output(limit, script), rest]))
        assert verdict["allowed"] is True, (limit, verdict)
        verdict = await node.test(spend([coin], [Output(limit - 1, script), rest]))
        word = "dust-nonanchor" if node.flavour == "knots" else "dust"
        assert verdict["reject-reason"] == word, (limit, verdict)


async def test_p07_a_fee_above_the_callers_own_limit_is_refused(node: NodeUnderTest) -> None:
    """Card P07. Limits of the caller: by default, given as number and as text, none, absurd."""
    [coin] = await node.fund(1)
    raw = encode(pay(coin, 20_000)).hex()
    above = (-25, "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)")
    size = pay(coin, 20_000).virtual_size
    fits = Decimal(-(-20_000 * 1_000 // size)) / 100_000_000
    short = fits - Decimal("0.00000100")
    assert await node.refusal("sendrawtransaction", raw, 0.001) == above
    assert await node.refusal("sendrawtransaction", raw, f"{short:.8f}") == above
    assert await node.refusal("sendrawtransaction", encode(pay(coin, 20_000_000)).hex()) == above
    assert await node.refusal("sendrawtransaction", raw, 2) == (
        *(-8, "Fee rates larger than or equal to 1BTC/kvB are not accepted"),
    )
    assert await node.refusal("sendrawtransaction", raw, -1) == (-3, "Amount out of range")
    [verdict] = await node.call("testmempoolaccept", [raw], f"{short:.8f}")
    assert (verdict["allowed"], verdict["reject-reason"]) == (False, "max-fee-exceeded")
    assert await node.pool() == set()
    assert await node.call("sendrawtransaction", raw, f"{fits:.8f}")


async def test_p08_a_replacement_pays_the_old_fee_and_a_step_for_its_size(
    node: NodeUnderTest,
) -> None:
    """Card P08. Exactly the threshold, and one satoshi less. The old one need not signal (full RBF)."""
    [coin] = await node.fund(1)
    old = spend([coin], [Output(REWARD - 2_000, SCRIPT)], sequence=0xFFFFFFFF)
    await node.send(old)
    size = old.virtual_size
    least = 2_000 + fee_of(4 * size, await node.step())
    short = pay(coin, least - 1, script=OTHER)
    assert short.virtual_size == size
    code, message = await node.refused(short)
    assert code == -26
    assert message.startswith(f"insufficient fee, rejecting replacement {short.tx_id}")
    assert "not enough additional fees to relay" in message
    assert (await node.test(short))["reject-reason"] == "insufficient fee"
    assert await node.pool() == {old.tx_id}
    enough = pay(coin, least, script=OTHER)
    assert enough.virtual_size == size
    await node.send(enough)
    assert await node.pool() == {enough.tx_id}
    assert await node.refusal("getmempoolentry", old.tx_id) == (-5, "Transaction not in mempool")


async def test_p09_a_replacement_has_a_higher_rate_and_pays_for_the_children_too(
    node: NodeUnderTest,
) -> None:
    """Card P09. More fee at a lower rate; more than the parent alone; more than parent and child."""
    coins = await node.fund(3)
    old = spend(coins[:1], [Output(REWARD - 2_000, SCRIPT)])
    await node.send(old)
    wide = spend(coins, [Output(REWARD, SCRIPT)] * 2 + [Output(REWARD - 3_000, SCRIPT)])
    code, message = await node.refused(wide)
    assert code == -26
    if node.flavour != "core":
        rates = [1_000 * fee // one.virtual_size for fee, one in ((3_000, wide), (2_000, old))]
        new, was = (f"0.{rate:08d} BTC/kvB" for rate in rates)
        assert message.endswith(f"; new feerate {new} <= old feerate {was}")

    child = pay(first(old), 5_000, amount=REWARD - 2_000)
    await node.send(child)
    code, message = await node.refused(pay(coins[0], 6_999))
    assert code == -26
    assert message.endswith(", less fees than conflicting txs; 0.00006999 < 0.00007")
    enough = pay(coins[0], 7_000 + fee_of(4 * 111, await node.step()))
    await node.send(enough)
    assert await node.pool() == {enough.tx_id}


async def test_p10_a_replacement_neither_spends_what_it_replaces_nor_brings_new_unconfirmed(
    node: NodeUnderTest,
) -> None:
    """Card P10. A replacement that spends a child of the replaced, and one that spends another."""
    coins = await node.fund(2)
    old, other = pay(coins[0], 1_000), pay(coins[1], 1_000)
    child = pay(first(old), 1_000, amount=REWARD - 1_000)
    for packed in (old, other, child):
        await node.send(packed)

    circle = spend(
        [coins[0], first(child)],
        [Output(REWARD, SCRIPT)],
        amounts=[REWARD, REWARD - 2_000],
    )
    code, message = await node.refused(circle)
    assert code == -26
    assert message.startswith("bad-txns-spends-conflicting-tx")
    if node.flavour != "core":
        fresh = spend(
            [coins[0], first(other)], [Output(REWARD, SCRIPT)], amounts=[REWARD, REWARD - 1_000]
        )
        maximum = 0
        code, message = await node.refusal("sendrawtransaction", encode(fresh).hex(), maximum)
        assert (code, message) == (
            -26,
            f"replacement-adds-unconfirmed, replacement {fresh.tx_id} adds unconfirmed input, idx 1",
        )


@pytest.mark.parametrize("length", [20, 21])
async def test_p11_a_replacement_evicts_a_hundred_at_most(node: NodeUnderTest, length: int) -> None:
    """Card P11. Five coins with lines of 21 or of 20 transactions: 105 are too many, 100 are not."""
    coins = await node.fund(5)
    for coin in coins:
        at, amount = coin, REWARD
        for _ in range(length):
            one = pay(at, 1_000, amount=amount)
            await node.send(one)
            at, amount = first(one), amount - 1_000
    everything = spend(coins, [Output(5 * REWARD - 2_000_000, SCRIPT)])
    if length == 20:
        await node.send(everything)
        assert await node.pool() == {everything.tx_id}
    elif node.flavour != "core":  # which counts clusters since version 31: five are few
        assert await node.refused(everything) == (
            -26,
            (
                f"too many potential replacements, rejecting replacement {everything.tx_id}; "
                "too many potential replacements (105 > 100)"
            ),
        )
        assert len(await node.pool()) == 105


async def test_p12_a_line_has_25_transactions(node: NodeUnderTest) -> None:
    """Card P12. Children of children, until one is too many."""
    [coin] = await node.fund(1)
    at, amount = coin, REWARD
    for _ in range(25):
        one = pay(at, 1_000, amount=amount)
        await node.send(one)
        at, amount = first(one), amount - 1_000
    if node.flavour == "core":
        return  # since version 31 clusters are counted, not lines
    code, message = await node.refused(pay(at, 1_000, amount=amount))
    assert (code, message) == (
        -26,
        "too-long-mempool-chain, too many unconfirmed ancestors [limit: 25]",
    )


async def test_p13_an_entry_tells_of_its_line(node: NodeUnderTest) -> None:
    """Card P13. A parent with a child, its sizes and fees; the pool's own numbers and sequence."""
    [coin] = await node.fund(1)
    begun = (await node.call("getrawmempool", False, True))["mempool_sequence"]
    old = pay(coin, 1_500)
    child = pay(first(old), 2_500, amount=REWARD - 1_500)
    await node.send(old)
    await node.send(child)

    entry = await node.call("getmempoolentry", old.tx_id)
    assert (entry["vsize"], entry["weight"]) == (old.virtual_size, old.weight)
    assert (entry["ancestorcount"], entry["descendantcount"]) == (1, 2)
    assert entry["descendantsize"] == old.virtual_size + child.virtual_size
    said = {name: satoshi(fee) for name, fee in entry["fees"].items()}
    if node.flavour == "core":  # which tells of its chunk too since version 31
        assert said.pop("chunk", 4_000) == 4_000
    assert said == {"base": 1_500, "modified": 1_500, "ancestor": 1_500, "descendant": 4_000}
    assert (entry["depends"], entry["spentby"]) == ([], [child.tx_id])
    assert (entry["height"], entry["wtxid"]) == (101, old.witness_id)
    assert entry["unbroadcast"] is True
    below = await node.call("getmempoolentry", child.tx_id)
    assert (below["ancestorcount"], below["depends"]) == (2, [old.tx_id])
    assert satoshi(below["fees"]["ancestor"]) == 4_000
    listed = await node.call("getrawmempool", False, True)
    assert listed == {"txids": [old.tx_id, child.tx_id], "mempool_sequence": begun + 2}
    everything = await node.call("getrawmempool", True)
    assert everything == {old.tx_id: entry, child.tx_id: below}
    info = await node.call("getmempoolinfo")
    assert (info["size"], satoshi(info["total_fee"])) == (2, 4_000)
    assert info["bytes"] == old.virtual_size + child.virtual_size
    assert await node.call("getmempooldescendants", old.tx_id) == [child.tx_id]
    assert await node.call("getmempoolancestors", child.tx_id) == [old.tx_id]


async def test_p14_a_block_takes_the_best_paid_lines_first(node: NodeUnderTest) -> None:
    """Card P14. A poor parent with a rich child, a middling payment, a poor one."""
    coins = await node.fund(3)
    poor, middling, parent = pay(coins[0], 500), pay(coins[1], 3_000), pay(coins[2], 300)
    child = pay(first(parent), 50_000, amount=REWARD - 300)
    for packed in (poor, middling, parent, child):
        await node.send(packed)
    [hash_] = await node.mine()
    block = await node.call("getblock", hash_, 1)
    assert block["tx"][1:] == [one.tx_id for one in (parent, child, middling, poor)]


async def test_p15_without_data_no_fee_is_estimated(node: NodeUnderTest) -> None:
    """Card P15. An empty chain has no history of fees."""
    said = {"errors": ["Insufficient data or no feerate found"], "blocks": 0}
    assert await node.call("estimatesmartfee", 6) == said
    assert await node.call("estimatesmartfee", 6, "conservative") == said


async def test_p16_two_of_three_keys_spend_and_one_does_not(node: NodeUnderTest) -> None:
    """Card P16. A coin of a sorted multisignature script, spent with two signatures and with one."""
    script = sorted_multisig_script(2, PUBLIC)
    shared = Output(REWARD - 1_000, witness_script_hash_script(script))
    [coin] = await node.fund(1)
    paid = spend([coin], [shared])
    await node.send(paid)
    bare = Transaction((Input(first(paid)),), (Output(REWARD - 3_000, SCRIPT),))
    [digest] = signing_digests(bare, [Spent(shared, script)])
    keys = sorted(KEYS, key=lambda key: bytes(key.public_key.format()))
    one, two = (bytes(key.sign(digest, hasher=None)) + SIGHASH for key in keys[:2])

    def proven(*proofs: bytes) -> Transaction:
        return replace(bare, inputs=(replace(bare.inputs[0], witness=(b"", *proofs, script)),))

    for wrong in (proven(two, one), proven(one, one)):
        code, message = await node.refused(wrong)
        assert (code, FAILED_SCRIPT in message) == (-26, True)
    assert await node.send(proven(one, two)) == bare.tx_id


async def test_p17_transactions_are_tested_together_in_their_order(node: NodeUnderTest) -> None:
    """Card P17. Parent and child together; the same one twice; one that is refused first."""
    [coin] = await node.fund(1)
    old = pay(coin, 1_000)
    child = pay(first(old), 2_000, amount=REWARD - 1_000)
    raws = [encode(one).hex() for one in (old, child)]
    verdicts = await node.call("testmempoolaccept", raws)
    assert [(one["allowed"], satoshi(one["fees"]["base"])) for one in verdicts] == [
        *((True, 1_000), (True, 2_000)),
    ]
    twice = await node.call("testmempoolaccept", raws[:1] * 2)
    assert [one["package-error"] for one in twice] == ["package-contains-duplicates"] * 2
    await node.send(old)
    known = await node.call("testmempoolaccept", raws)
    assert known[0]["reject-reason"] == "txn-already-in-mempool"
    assert "allowed" not in known[1]
    assert await node.pool() == {old.tx_id}


@pytest.mark.parametrize("raw", ["inputs", "outputs"])
async def test_p18_what_can_never_be_valid_is_refused(node: NodeUnderTest, raw: str) -> None:
    """Card P18. One output spent twice, and no outputs at all. Ours is stricter: not decoded."""
    spent = UNKNOWN + "00000000" + "00" + "ffffffff"
    paid = "01" + "e803000000000000" + "16" + SCRIPT.hex()
    bodies: dict[str, tuple[str, str]] = {
        "inputs": ("02" + spent * 2 + paid, "bad-txns-inputs-duplicate"),
        "outputs": ("01" + spent + "00", "bad-txns-vout-empty"),
    }
    body, word = bodies[raw]
    said: Any = await node.refusal("sendrawtransaction", "02000000" + body + "00000000")
    if node.is_ours:
        assert said == (-22, "TX decode failed. Make sure the tx has at least one input.")
    else:
        assert said == (-26, word)
