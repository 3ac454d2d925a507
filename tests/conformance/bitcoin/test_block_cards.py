"""Numbered cards: blocks, coins and answers of a node, on the simulator and on a real bitcoind.

Each card says what it needs, does and expects. ``node`` is a fresh chain on regtest at a mocked time.
Where the two differ, the card asserts the difference for each side.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from chain.bitcoin.scripts import (
    sorted_multisig_script,
    witness_key_hash_script,
    witness_script_hash_script,
)
from chain.bitcoin.transactions import Outpoint, Output, encode
from chain.keys.bip32 import ExtendedPublicKey
from tests.conformance.bitcoin.coins_at_hand import (
    BTC,
    HOME,
    OTHER,
    PUBLIC,
    REWARD,
    SCRIPT,
    START,
    UNKNOWN,
    NodeUnderTest,
    address,
    first,
    pay,
    satoshi,
    spend,
)

GENESIS = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
LONG_POLL_MS = 20_000
REST = REWARD - 7 * BTC - 1_000


async def test_b01_the_same_calls_at_the_same_time_give_the_same_blocks(
    node: NodeUnderTest,
) -> None:
    """Card B01. A mocked time; two blocks to one address; hashes and ids that never change."""
    assert await node.call("getblockhash", 0) == GENESIS
    hashes = await node.call("generatetoaddress", 2, HOME)
    block = await node.call("getblock", hashes[0], 1)
    if not await node.locks_coinbases():
        assert hashes == [
            "7770d299d14ded9bdfbb3b13fbf06828f71f2151f5789f87c94655f9380e08ae",
            "7f7e97d796e2d747f21026ad5ae2e85cd978d8d3cc8aea57b994ce9cf40134df",
        ]
        assert block["tx"] == ["1ad3196797122f98bde30a47903bcd72305badb273094cd9c4cd97a869f957da"]
    assert (block["time"], block["mediantime"], block["height"]) == (START, START, 1)
    assert (block["size"], block["strippedsize"], block["weight"]) == (248, 212, 884)
    assert block["chainwork"] == f"{4:064x}"
    assert block["nextblockhash"] == hashes[1]
    assert block["previousblockhash"] == GENESIS


async def test_b02_a_block_tells_prevouts_and_fees_at_verbosity_3_and_fees_at_2(
    node: NodeUnderTest,
) -> None:
    """Card B02. A coin is spent for 1,234 satoshi and mined; the block is read four ways."""
    [coin] = await node.fund(1)
    paid = pay(coin, 1_234)
    await node.send(paid)
    [hash_] = await node.mine()

    raw = await node.call("getblock", hash_, 0)
    assert encode(paid).hex() in raw
    assert (await node.call("getblock", hash_, 1))["tx"][1] == paid.tx_id
    [_, second] = (await node.call("getblock", hash_, 2))["tx"]
    assert satoshi(second["fee"]) == 1_234
    assert "prevout" not in second["vin"][0]
    [coinbase, third] = (await node.call("getblock", hash_, 3))["tx"]
    assert satoshi(coinbase["vout"][0]["value"]) == REWARD + 1_234
    prevout = third["vin"][0]["prevout"]
    assert (prevout["generated"], prevout["height"]) == (True, 1)
    assert satoshi(prevout["value"]) == REWARD
    assert prevout["scriptPubKey"]["address"] == HOME
    assert prevout["scriptPubKey"]["type"] == "witness_v0_keyhash"
    assert third["hex"] == encode(paid).hex()
    assert (third["txid"], third["hash"]) == (paid.tx_id, paid.witness_id)
    assert (third["vsize"], third["weight"]) == (paid.virtual_size, paid.weight)
    assert third["vin"][0]["sequence"] == 0xFFFFFFFD


async def test_b03_amounts_have_eight_decimals_and_no_exponent(node: NodeUnderTest) -> None:
    """Card B03. The very text of answers is looked at."""
    [coin] = await node.fund(1)
    await node.send(pay(coin, 1_000))
    body = {"id": 1, "method": "gettxout", "params": [coin.tx_id, 0, False]}
    _, text, _ = await node.text(body)
    assert '"value":50.00000000' in text
    _, text, _ = await node.text({"id": 1, "method": "getmempoolinfo"})
    assert '"total_fee":0.00001000' in text
    _, text, _ = await node.text({"id": 1, "method": "getblockchaininfo"})
    assert '"difficulty":4.656542373906925e-10' in text
    assert '"chain":"regtest"' in text


REFUSALS: list[tuple[str, list[Any], int, str]] = [
    ("getblock", [UNKNOWN], -5, "Block not found"),
    ("getblock", ["zz"], -8, "blockhash must be of length 64 (not 2, for 'zz')"),
    ("getblockheader", [UNKNOWN], -5, "Block not found"),
    ("getblockhash", [1], -8, "Block height out of range"),
    ("getblockhash", [-1], -8, "Block height out of range"),
    ("getblockhash", ["x"], -3, "Position 1 (height)"),
    ("getblockcount", [1], -1, "getblockcount"),
    ("getblock", [], -1, "getblock"),
    ("nosuch", [], -32601, "Method not found"),
    ("getrawtransaction", [UNKNOWN], -5, "No such mempool or blockchain transaction."),
    ("getrawtransaction", [UNKNOWN, 0, UNKNOWN], -5, "Block hash not found"),
    ("getrawtransaction", [UNKNOWN, 0, GENESIS], -5, "No such transaction found in the provided"),
    ("getmempoolentry", [UNKNOWN], -5, "Transaction not in mempool"),
    ("gettxspendingprevout", [[]], -8, "Invalid parameter, outputs are missing"),
    ("getrawmempool", [True, True], -8, "Verbose results cannot contain mempool sequence"),
    ("sendrawtransaction", ["00"], -22, "TX decode failed. Make sure the tx has at least one"),
    ("sendrawtransaction", ["zz"], -22, "TX decode failed"),
    ("testmempoolaccept", [[]], -8, "Array must contain between 1 and 25 transactions."),
    ("testmempoolaccept", [["00"]], -22, "TX decode failed: 00"),
    ("decoderawtransaction", ["00"], -22, "TX decode failed"),
    ("submitblock", ["00"], -22, "Block decode failed"),
    ("estimatesmartfee", [0], -8, "Invalid conf_target, must be between 1 and 1008"),
    ("estimatesmartfee", [1009], -8, "Invalid conf_target, must be between 1 and 1008"),
    ("estimatesmartfee", [6, "fast"], -8, "Invalid estimate_mode parameter"),
    ("generatetoaddress", [1, "mistyped"], -5, "Error: Invalid address"),
    ("generateblock", [HOME, [UNKNOWN]], -5, f"Transaction {UNKNOWN} not in mempool."),
    ("generateblock", [HOME, ["00"]], -22, "Transaction decode failed for 00."),
    ("invalidateblock", [UNKNOWN], -5, "Block not found"),
    ("reconsiderblock", [UNKNOWN], -5, "Block not found"),
    ("scantxoutset", ["pause"], -8, "Invalid action 'pause'"),
    ("scantxoutset", ["start"], -1, "scanobjects argument is required for the start action"),
    ("scantxoutset", ["start", ["addr(foo)"]], -5, "Address is not valid"),
    ("scantxoutset", ["start", ["raw(51)#aaaaaaaa"]], -5, "does not match computed checksum"),
    ("getdescriptorinfo", ["raw(51)#abc"], -5, "Expected 8 character checksum, not 3 characters"),
]


async def test_b04_errors_have_bitcoinds_codes_and_words(node: NodeUnderTest) -> None:
    """Card B04. An empty chain; calls that cannot be answered."""
    for method, params, code, message in REFUSALS:
        said = await node.refusal(method, *params)
        assert said[0] == code, (method, params, said)
        assert message in said[1], (method, params, said)


async def test_b05_who_does_not_know_the_password_is_told_nothing(node: NodeUnderTest) -> None:
    """Card B05. A wrong password, none, and another verb than POST."""
    body = {"id": 1, "method": "getblockcount"}
    user, password = node.caller.cookie
    assert user == "__cookie__"
    for wrong in ((user, password + "x"), ("somebody", password)):
        assert (await node.text(body, password=wrong))[:2] == (401, "")
    async with aiohttp.ClientSession() as session:
        async with session.post(node.caller.url, data="{}") as got:
            assert got.status == 401
            assert got.headers["WWW-Authenticate"] == 'Basic realm="jsonrpc"'
        async with session.get(node.caller.url) as got:
            assert got.status == 405
    assert (await node.text(body))[0] == 200


async def test_b06_batches_and_both_versions_of_json_rpc(node: NodeUnderTest) -> None:
    """Card B06. Single calls and batches, of version 1 and 2; the statuses that go with them."""
    count: dict[str, Any] = {"method": "getblockcount", "id": 1}
    nope: dict[str, Any] = {"method": "nope", "id": 2}
    second = {"jsonrpc": "2.0"}
    missing = {"code": -32601, "message": "Method not found"}

    assert await node.text([count, nope]) == (
        200,
        (
            '[{"result":0,"error":null,"id":1},'
            '{"result":null,"error":{"code":-32601,"message":"Method not found"},"id":2}]\n'
        ),
        [{"result": 0, "error": None, "id": 1}, {"result": None, "error": missing, "id": 2}],
    )
    assert (await node.text(nope))[0] == 404
    assert (await node.text({"id": 1}))[0] == 400
    assert (await node.text({**count, "params": [1]}))[0] == 500
    assert (await node.text({**nope, **second}))[::2] == (
        *(200, {"jsonrpc": "2.0", "error": missing, "id": 2}),
    )
    assert (await node.text({**count, **second}))[2] == {"jsonrpc": "2.0", "result": 0, "id": 1}
    assert (await node.text({"method": "getblockcount", **second}))[:2] == (204, "")
    assert (await node.text("{"))[::2] == (
        *(500, {"result": None, "error": {"code": -32700, "message": "Parse error"}, "id": None}),
    )
    assert (await node.text("[]"))[:2] == (200, "[]\n")
    named = {"method": "getblockhash", "id": 1, "params": {"height": 0}}
    assert (await node.text(named))[2]["result"] == GENESIS
    [status, _, said] = await node.text({**named, "params": {"depth": 0}})
    assert (status, said["error"]["code"]) == (500, -8)


async def test_b07_a_coin_is_there_until_the_pool_spends_it(node: NodeUnderTest) -> None:
    """Card B07. A coin before and after a spend of it waits, with and without the pool."""
    [coin] = await node.fund(1)
    before = await node.call("gettxout", coin.tx_id, 0)
    assert (before["confirmations"], before["coinbase"], satoshi(before["value"])) == (
        *(101, True, REWARD),
    )
    paid = pay(coin, 1_000)
    await node.send(paid)

    assert await node.call("gettxout", coin.tx_id, 0) is None
    assert await node.call("gettxout", coin.tx_id, 0, False) == before
    waiting = await node.call("gettxout", paid.tx_id, 0)
    assert (waiting["confirmations"], waiting["coinbase"]) == (0, False)
    assert await node.call("gettxout", paid.tx_id, 0, False) is None
    assert await node.call("gettxout", paid.tx_id, 1) is None
    assert await node.call("gettxspendingprevout", [{"txid": coin.tx_id, "vout": 0}]) == [
        {"txid": coin.tx_id, "vout": 0, "spendingtxid": paid.tx_id}
    ]


async def test_b08_a_scan_finds_coins_by_address_script_and_descriptor(
    node: NodeUnderTest,
) -> None:
    """Card B08. Coins of a key and of a 2-of-3 multisignature; five ways to ask for them."""
    shared = witness_script_hash_script(sorted_multisig_script(2, PUBLIC))
    [coin] = await node.fund(1)
    await node.send(spend([coin], [Output(7 * BTC, shared), Output(REST, SCRIPT)]))
    [hash_] = await node.mine(script=OTHER)

    keys = ",".join(key.hex() for key in reversed(PUBLIC))
    asked: list[tuple[Any, int]] = [
        (f"addr({address(shared)})", 7 * BTC),
        (f"raw({shared.hex()})", 7 * BTC),
        (f"wsh(sortedmulti(2,{keys}))", 7 * BTC),
        (f"wpkh({PUBLIC[0].hex()})", REST),
        ({"desc": f"addr({HOME})"}, REST),
    ]
    for descriptor, expected in asked:
        found = await node.call("scantxoutset", "start", [descriptor])
        assert satoshi(found["total_amount"]) == expected, descriptor
        [item] = found["unspents"]
        assert (item["height"], item["blockhash"], item["confirmations"]) == (102, hash_, 1)
        assert (item["coinbase"], satoshi(item["amount"])) == (False, expected)
        assert (found["height"], found["bestblock"], found["success"]) == (102, hash_, True)
    assert await node.call("scantxoutset", "status") is None
    assert await node.call("scantxoutset", "abort") is False


async def test_b09_keys_of_an_account_are_derived_for_a_scan(node: NodeUnderTest) -> None:
    """Card B09. An extended key of a test network and a range; a key of the main network."""
    key = ExtendedPublicKey(0, bytes(4), 0, bytes(32), PUBLIC[0]).serialize(test=True)
    text = f"wpkh({key}/0/*)"
    info = await node.call("getdescriptorinfo", text)
    assert (info["isrange"], info["issolvable"]) == (True, True)
    third = ExtendedPublicKey(0, bytes(4), 0, bytes(32), PUBLIC[0]).child(0).child(3).public_key
    script = witness_key_hash_script(third)
    [hash_] = await node.mine(script=script)
    for last, expected in ((2, []), (3, [script.hex()])):
        scan = {"desc": info["descriptor"], "range": last}
        found = await node.call("scantxoutset", "start", [scan])
        assert [item["scriptPubKey"] for item in found["unspents"]] == expected
        assert found["bestblock"] == hash_
    main = ExtendedPublicKey(0, bytes(4), 0, bytes(32), PUBLIC[0]).serialize()
    code, message = await node.refusal("scantxoutset", "start", [f"wpkh({main}/0/*)"])
    assert (code, message) == (-5, f"wpkh(): key '{main}' is not valid")


async def test_b10_an_invalid_block_gives_its_transactions_back(node: NodeUnderTest) -> None:
    """Card B10. A payment is mined; its block is called invalid, then reconsidered."""
    [coin] = await node.fund(1)
    paid = pay(coin, 1_000)
    await node.send(paid)
    [hash_] = await node.mine()
    assert await node.pool() == set()

    assert await node.call("invalidateblock", hash_) is None
    assert await node.call("getblockcount") == 101
    assert await node.pool() == {paid.tx_id}
    tips = await node.call("getchaintips")
    assert [(tip["height"], tip["branchlen"], tip["status"]) for tip in tips] == [
        (102, 1, "invalid"),
        (101, 0, "active"),
    ]
    assert (await node.call("getblockheader", hash_))["confirmations"] == -1
    assert satoshi((await node.call("getmempoolentry", paid.tx_id))["fees"]["base"]) == 1_000

    assert await node.call("reconsiderblock", hash_) is None
    assert await node.call("getbestblockhash") == hash_
    assert await node.pool() == set()
    assert (await node.call("getrawtransaction", paid.tx_id, 1))["confirmations"] == 1


async def test_b11_a_longer_branch_wins_and_leaves_out_what_it_wants(node: NodeUnderTest) -> None:
    """Card B11. One block with a payment; a branch of two without it, made beside it."""
    [coin] = await node.fund(1)
    paid = pay(coin, 1_000)
    await node.send(paid)
    [old] = await node.mine()
    await node.call("invalidateblock", old)
    for _ in range(2):
        await node.tick()
        await node.call("generateblock", HOME, [])
    await node.call("reconsiderblock", old)

    assert await node.call("getblockcount") == 103
    assert await node.pool() == {paid.tx_id}
    tips = await node.call("getchaintips")
    assert [(tip["height"], tip["branchlen"], tip["status"]) for tip in tips] == [
        (103, 0, "active"),
        (102, 1, "valid-fork"),
    ]
    assert (await node.call("getblock", old, 1))["confirmations"] == -1
    assert (await node.call("getblock", old, 3))["tx"][1]["vin"][0]["prevout"]["height"] == 1


async def test_b12_a_branch_with_a_double_spend_empties_the_pool_of_the_first(
    node: NodeUnderTest,
) -> None:
    """Card B12. A payment with a child; a block with another spend of the same coin."""
    [coin] = await node.fund(1)
    paid = pay(coin, 1_000)
    child = pay(first(paid), 1_000, amount=REWARD - 1_000)
    await node.send(paid)
    await node.send(child)
    double = pay(coin, 500, script=OTHER)
    await node.tick()
    await node.call("generateblock", HOME, [encode(double).hex()])

    assert await node.pool() == set()
    assert await node.refused(paid) == (-25, "bad-txns-inputs-missingorspent")


async def test_b13_a_coin_of_a_lost_block_takes_its_spends_with_it(node: NodeUnderTest) -> None:
    """Card B13. A mature coin is spent in the pool; its own block is called invalid."""
    [coin] = await node.fund(1)
    paid = pay(coin, 1_000)
    await node.send(paid)
    await node.call("invalidateblock", await node.call("getblockhash", 100))
    assert await node.pool() == set()
    assert await node.refused(paid) == (
        -26,
        "bad-txns-premature-spend-of-coinbase, tried to spend coinbase at depth 99",
    )


async def test_b14_a_block_of_chosen_transactions_is_valid_or_not_made(
    node: NodeUnderTest,
) -> None:
    """Card B14. Parent and child by bytes, in both orders, and one that spends nothing real."""
    [coin] = await node.fund(1)
    paid = pay(coin, 0)
    child = pay(first(paid), 0, amount=REWARD)
    raws = [encode(one).hex() for one in (paid, child)]

    code, message = await node.refusal("generateblock", HOME, raws[::-1])
    assert code == -25
    assert message.startswith("TestBlockValidity failed: bad-txns-inputs-missingorspent")
    made = await node.call("generateblock", HOME, raws)
    block = await node.call("getblock", made["hash"], 1)
    assert block["tx"][1:] == [paid.tx_id, child.tx_id]
    premature = pay(Outpoint(block["tx"][0], 0), 0)
    code, message = await node.refusal("generateblock", HOME, [encode(premature).hex()])
    assert code == -25
    assert message.startswith("TestBlockValidity failed: bad-txns-premature-spend-of-coinbase"), (
        message
    )


async def test_b15_who_waits_for_a_block_is_told_of_it(node: NodeUnderTest) -> None:
    """Card B15. A call waits; a block is made; then nothing happens and the time runs out."""
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(node.call("waitfornewblock", LONG_POLL_MS))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        [hash_] = await node.mine()
    assert waiting.result() == {"hash": hash_, "height": 1}
    assert await node.call("waitfornewblock", 50) == {"hash": hash_, "height": 1}
    assert await node.call("waitforblockheight", 1, LONG_POLL_MS) == {"hash": hash_, "height": 1}
    assert await node.call("waitforblock", hash_, LONG_POLL_MS) == {"hash": hash_, "height": 1}
    assert await node.call("waitforblockheight", 9, 50) == {"hash": hash_, "height": 1}


async def test_b16_an_address_is_told_apart_from_one_of_another_network(
    node: NodeUnderTest,
) -> None:
    """Card B16. An address of regtest, of the main network, and a mistyped one."""
    said = await node.call("validateaddress", HOME)
    assert (said["isvalid"], said["scriptPubKey"]) == (True, SCRIPT.hex())
    for wrong in ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", HOME[:-1] + "x"):
        assert (await node.call("validateaddress", wrong))["isvalid"] is False
        assert await node.refusal("generatetoaddress", 1, wrong) == (-5, "Error: Invalid address")


@pytest.mark.parametrize("verbosity", [1, 2])
async def test_b17_a_transaction_is_told_from_pool_and_block(
    node: NodeUnderTest, verbosity: int
) -> None:
    """Card B17. A payment is read while it waits and when it is mined."""
    [coin] = await node.fund(1)
    paid = pay(coin, 2_000)
    await node.send(paid)
    waiting = await node.call("getrawtransaction", paid.tx_id, verbosity)
    assert "confirmations" not in waiting
    [hash_] = await node.mine()
    mined = await node.call("getrawtransaction", paid.tx_id, verbosity)
    assert (mined["blockhash"], mined["confirmations"]) == (hash_, 1)
    assert mined["hex"] == waiting["hex"] == encode(paid).hex()
    assert ("fee" in mined, "prevout" in mined["vin"][0]) == (verbosity == 2, verbosity == 2)
    inside = await node.call("getrawtransaction", paid.tx_id, verbosity, hash_)
    assert inside["in_active_chain"] is True
