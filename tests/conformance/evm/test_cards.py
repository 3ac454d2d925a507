"""Numbered cards: what an EVM development node does, played against the simulator and anvil.

Each card states its prerequisite, action and expectation. ``node`` is a fresh chain at height
zero with automine on, ten funded accounts and safe/finalized lags of 2 and 4 blocks. Where anvil
differs from a real node, the card asserts the difference for each side, so that a change of
either is noticed.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from chain.simulators.testing import (
    GWEI,
    TRANSFER_TOPIC,
    NodeUnderTest,
    RpcFailed,
    addresses_of,
    deploy_test_dollar,
    dev_account,
    encode_call,
    hash_of,
    sign_transaction,
    subscribe,
    topic_of,
    transfer_token,
    unwrap,
)

SUPPLY = 1_000_000_000_000
UNKNOWN_HASH = "0x" + "22" * 32
SILENCE_S = 0.3
CALM_S = 5.0

ALICE, BOB, CAROL = dev_account(0), dev_account(1), dev_account(2)


async def stop_automine(node: NodeUnderTest) -> None:
    await node.rpc.call("evm_setAutomine", False)


async def pool(node: NodeUnderTest) -> tuple[int, int]:
    status = await node.rpc.call("txpool_status")
    return int(status["pending"], 16), int(status["queued"], 16)


async def block(node: NodeUnderTest, reference: str, *, full: bool = False) -> Any:
    return await node.rpc.call("eth_getBlockByNumber", reference, full)


async def send(node: NodeUnderTest, raw: str) -> str:
    transaction_hash: str = await node.rpc.call("eth_sendRawTransaction", raw)
    return transaction_hash


async def refusal(node: NodeUnderTest, method: str, *params: Any) -> RpcFailed:
    with pytest.raises(RpcFailed) as failure:
        await node.rpc.call(method, *params)
    return failure.value


async def test_e01_the_chain_id_is_31337(node: NodeUnderTest) -> None:
    """Card E01.

    Prerequisite: none.
    Action: ask for the chain id.
    Expectation: 31337, both ways.
    """
    assert await node.rpc.number("eth_chainId") == 31337
    assert await node.rpc.call("net_version") == "31337"


async def test_e02_ten_accounts_of_the_test_mnemonic_hold_10000_ether_each(
    node: NodeUnderTest,
) -> None:
    """Card E02.

    Prerequisite: none.
    Action: list accounts.
    Expectation: the standard ten, funded.
    """
    accounts = await node.rpc.call("eth_accounts")

    assert accounts == addresses_of([dev_account(index) for index in range(10)])
    assert accounts[0] == "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"
    for account in accounts:
        assert await node.rpc.number("eth_getBalance", account, "latest") == 10_000 * 10**18


async def test_e03_a_raw_transfer_is_mined_and_has_a_receipt(node: NodeUnderTest) -> None:
    """Card E03.

    Prerequisite: automine.
    Action: send raw.
    Expectation: one block, receipt, balances.
    """
    before = await node.rpc.number("eth_getBalance", BOB.address, "latest")
    raw = sign_transaction(ALICE, 0, to=BOB.address, value=5)

    sent = await send(node, raw)
    receipt = await node.rpc.wait_receipt(sent)

    assert sent == hash_of(raw) == receipt["transactionHash"]
    assert receipt["status"] == "0x1"
    assert receipt["gasUsed"] == receipt["cumulativeGasUsed"] == hex(21_000)
    assert (receipt["type"], receipt["blockNumber"], receipt["transactionIndex"]) == (
        *("0x2", "0x1"),
        "0x0",
    )
    assert (receipt["from"], receipt["to"]) == tuple(addresses_of([ALICE, BOB]))
    assert receipt["logs"] == []
    mined = await block(node, "0x1")
    assert mined["hash"] == receipt["blockHash"]
    assert mined["transactions"] == [sent]
    base_fee = int(mined["baseFeePerGas"], 16)
    assert int(receipt["effectiveGasPrice"], 16) == base_fee + GWEI
    assert await node.rpc.number("eth_getBalance", BOB.address, "latest") == before + 5
    assert await node.rpc.number("eth_getTransactionCount", ALICE.address, "latest") == 1
    cost = 21_000 * (base_fee + GWEI) + 5
    assert await node.rpc.number("eth_getBalance", ALICE.address, "latest") == 10**22 - cost
    assert await node.rpc.number("eth_getBalance", ALICE.address, "0x0") == 10**22


async def test_e04_a_block_and_its_transactions_carry_the_fields_that_watchers_read(
    node: NodeUnderTest,
) -> None:
    """Card E04.

    Prerequisite: one block.
    Action: read it in full.
    Expectation: linked, complete.
    """
    sent = await send(node, sign_transaction(ALICE, 0, to=BOB.address, value=5))
    receipt = await node.rpc.wait_receipt(sent)

    full = await block(node, "latest", full=True)
    (transaction,) = full["transactions"]

    assert full["parentHash"] == (await block(node, "0x0"))["hash"]
    assert await node.rpc.call("eth_getBlockByHash", full["hash"], True) == full
    assert await node.rpc.call("eth_getTransactionByHash", sent) == transaction
    assert await node.rpc.call("eth_getBlockReceipts", "latest") == [receipt]
    assert await node.rpc.call("eth_getBlockReceipts", full["hash"]) == [receipt]
    assert {"hash", "blockHash", "blockNumber", "from", "to", "nonce", "value", "input"} <= set(
        transaction
    )
    assert {"maxFeePerGas", "maxPriorityFeePerGas", "gasPrice", "chainId", "r", "s", "v"} <= set(
        transaction
    )
    assert transaction["gasPrice"] == receipt["effectiveGasPrice"]
    assert len(full["logsBloom"]) == 2 + 512
    assert await block(node, "0x99") is None
    assert await node.rpc.call("eth_getBlockByHash", UNKNOWN_HASH, False) is None
    assert await node.rpc.call("eth_getTransactionReceipt", UNKNOWN_HASH) is None
    assert await node.rpc.call("eth_getTransactionByHash", UNKNOWN_HASH) is None


async def test_e05_a_token_is_deployed_and_its_transfers_are_found_as_logs(
    node: NodeUnderTest,
) -> None:
    """Card E05.

    Prerequisite: a TestDollar.
    Action: transfer.
    Expectation: logs by hash and range.
    """
    token = await deploy_test_dollar(node.rpc, ALICE, supply=SUPPLY)
    first = await node.rpc.wait_receipt(
        await send(node, transfer_token(ALICE, 1, token, to=BOB.address, amount=7))
    )
    second = await node.rpc.wait_receipt(
        await send(node, transfer_token(ALICE, 2, token, to=CAROL.address, amount=9))
    )

    by_hash = await node.rpc.call("eth_getLogs", {"blockHash": first["blockHash"]})
    every = await node.rpc.call(
        "eth_getLogs", {"fromBlock": "0x0", "toBlock": "latest", "address": token}
    )
    to_carol = {"fromBlock": "earliest", "topics": [TRANSFER_TOPIC, None, topic_of(CAROL.address)]}
    to_either = {
        **to_carol,
        "topics": [None, topic_of(ALICE.address), [topic_of(BOB.address), topic_of(CAROL.address)]],
    }

    assert by_hash == first["logs"]
    (log,) = by_hash
    assert log["address"] == token
    assert log["topics"] == [TRANSFER_TOPIC, topic_of(ALICE.address), topic_of(BOB.address)]
    assert int(log["data"], 16) == 7
    assert (log["logIndex"], log["transactionIndex"], log["removed"]) == ("0x0", "0x0", False)
    assert [int(one["data"], 16) for one in every] == [SUPPLY, 7, 9]
    assert await node.rpc.call("eth_getLogs", to_carol) == second["logs"]
    assert await node.rpc.call("eth_getLogs", to_either) == first["logs"] + second["logs"]
    elsewhere = {"fromBlock": "0x0", "address": BOB.address}
    assert await node.rpc.call("eth_getLogs", elsewhere) == []


async def test_e06_a_contract_is_read_by_call_code_and_storage(node: NodeUnderTest) -> None:
    """Card E06.

    Prerequisite: a TestDollar.
    Action: eth_call, getCode.
    Expectation: values, old too.
    """
    token = await deploy_test_dollar(node.rpc, ALICE, supply=SUPPLY)
    await node.rpc.wait_receipt(
        await send(node, transfer_token(ALICE, 1, token, to=BOB.address, amount=7))
    )

    async def call(signature: str, *values: Any, at: str = "latest") -> int:
        data = "0x" + encode_call(signature, *values).hex()
        return int(await node.rpc.call("eth_call", {"to": token, "data": data}, at), 16)

    assert await call("decimals()") == 6
    assert await call("totalSupply()") == SUPPLY
    assert await call("balanceOf(address)", BOB.address) == 7
    assert await call("balanceOf(address)", BOB.address, at="0x1") == 0
    assert len(await node.rpc.call("eth_getCode", token, "latest")) > 1000
    assert await node.rpc.call("eth_getCode", token, "0x0") == "0x"
    total_supply_slot = "0x2"
    word = await node.rpc.call("eth_getStorageAt", token, total_supply_slot, "latest")
    assert word == f"0x{SUPPLY:064x}"


async def test_e07_a_reverting_call_and_estimate_answer_with_the_revert_data(
    node: NodeUnderTest,
) -> None:
    """Card E07.

    Prerequisite: a TestDollar.
    Action: transfer too much.
    Expectation: code 3 and data.
    """
    token = await deploy_test_dollar(node.rpc, ALICE, supply=SUPPLY)
    data = encode_call("transfer(address,uint256)", CAROL.address, 1)
    message = {"from": BOB.address, "to": token, "data": "0x" + data.hex()}

    for method in ("eth_call", "eth_estimateGas"):
        error = await refusal(node, method, message, "latest")

        assert error.code == 3
        assert "execution reverted" in error.message
        selector = encode_call("BalanceTooLow(address,uint256,uint256)", BOB.address, 0, 1)
        assert error.data == "0x" + selector.hex()


async def test_e08_an_estimate_is_enough_gas_and_little_more(node: NodeUnderTest) -> None:
    """Card E08.

    Prerequisite: a TestDollar.
    Action: estimate, send with it.
    Expectation: success.
    """
    token = await deploy_test_dollar(node.rpc, ALICE, supply=SUPPLY)
    data = encode_call("transfer(address,uint256)", BOB.address, 1)
    message = {"from": ALICE.address, "to": token, "data": "0x" + data.hex()}
    plain = {"from": ALICE.address, "to": BOB.address, "value": "0x1"}

    estimate = await node.rpc.number("eth_estimateGas", message)
    raw = sign_transaction(ALICE, 1, to=token, data=data, gas=estimate)
    receipt = await node.rpc.wait_receipt(await send(node, raw))

    assert await node.rpc.number("eth_estimateGas", plain) == 21_000
    assert receipt["status"] == "0x1"
    assert int(receipt["gasUsed"], 16) <= estimate <= int(receipt["gasUsed"], 16) * 1.3


async def test_e09_a_nonce_gap_is_queued_and_runs_once_it_is_filled(node: NodeUnderTest) -> None:
    """Card E09.

    Prerequisite: manual mining.
    Action: send 0, 2, then 1.
    Expectation: queued, then all.
    """
    await stop_automine(node)
    await send(node, sign_transaction(ALICE, 0, to=BOB.address))
    gapped = await send(node, sign_transaction(ALICE, 2, to=BOB.address))

    assert await pool(node) == (1, 1)
    assert await node.rpc.number("eth_getTransactionCount", ALICE.address, "pending") == 1
    await node.rpc.call("evm_mine")
    assert await pool(node) == (0, 1)
    assert await node.rpc.call("eth_getTransactionReceipt", gapped) is None
    waiting = await node.rpc.call("eth_getTransactionByHash", gapped)
    assert waiting["blockHash"] is waiting["blockNumber"] is None

    await send(node, sign_transaction(ALICE, 1, to=BOB.address))
    assert await pool(node) == (2, 0)
    assert await node.rpc.number("eth_getTransactionCount", ALICE.address, "pending") == 3
    await node.rpc.call("evm_mine")

    assert await pool(node) == (0, 0)
    assert (await node.rpc.wait_receipt(gapped))["blockNumber"] == "0x2"
    assert await node.rpc.number("eth_getTransactionCount", ALICE.address, "latest") == 3


async def test_e10_a_replacement_must_pay_more_and_then_wins(node: NodeUnderTest) -> None:
    """Card E10.

    Prerequisite: manual mining.
    Action: same nonce, same fee, then +10 %.
    Expectation: refused as underpriced, then accepted; the replaced one is gone.
    """
    await stop_automine(node)
    old = await send(node, sign_transaction(ALICE, 0, to=BOB.address, value=1))

    error = await refusal(
        node, "eth_sendRawTransaction", sign_transaction(ALICE, 0, to=BOB.address, value=2)
    )
    bumped = sign_transaction(
        *(ALICE, 0),
        to=BOB.address,
        value=2,
        max_fee_per_gas=11 * GWEI,
        max_priority_fee_per_gas=11 * GWEI // 10,
    )
    new = await send(node, bumped)
    await node.rpc.call("evm_mine")

    assert "replacement transaction underpriced" in error.message
    assert error.code == -32003
    assert (await node.rpc.wait_receipt(new))["status"] == "0x1"
    assert await node.rpc.call("eth_getTransactionByHash", old) is None
    assert await pool(node) == (0, 0)


@pytest.mark.parametrize(
    ("max_fee", "tip"),
    [
        pytest.param(10 * GWEI + 1, GWEI + 1, id="one-wei-more"),
        pytest.param(11 * GWEI - 1, 11 * GWEI // 10, id="fee-just-below-ten-per-cent"),
        pytest.param(11 * GWEI, 11 * GWEI // 10 - 1, id="tip-just-below-ten-per-cent"),
    ],
)
async def test_e11_a_bump_below_ten_per_cent_is_refused_by_us_and_accepted_by_anvil(
    node: NodeUnderTest, max_fee: int, tip: int
) -> None:
    """Card E11.

    Prerequisite: manual mining.
    Action: same nonce, too small a bump in one field.
    Expectation: the simulator refuses as geth does; anvil accepts any bump.
    """
    await stop_automine(node)
    await send(node, sign_transaction(ALICE, 0, to=BOB.address, value=1))
    raw = sign_transaction(
        *(ALICE, 0),
        to=BOB.address,
        value=2,
        max_fee_per_gas=max_fee,
        max_priority_fee_per_gas=tip,
    )

    if node.is_anvil:
        assert await send(node, raw) == hash_of(raw)
    else:
        error = await refusal(node, "eth_sendRawTransaction", raw)
        assert "replacement transaction underpriced" in error.message


async def test_e12_the_same_raw_bytes_again_are_known(node: NodeUnderTest) -> None:
    """Card E12.

    Prerequisite: manual mining.
    Action: send twice, mine, send again.
    Expectation: known while it waits, nonce too low once it is mined; the hash is the same
        throughout.
    """
    await stop_automine(node)
    raw = sign_transaction(ALICE, 0, to=BOB.address)
    await send(node, raw)

    known = await refusal(node, "eth_sendRawTransaction", raw)
    await node.rpc.call("evm_mine")
    mined = await refusal(node, "eth_sendRawTransaction", raw)

    expected = "transaction already imported" if node.is_anvil else "already known"
    assert expected in known.message
    assert "nonce too low" in mined.message
    assert (await node.rpc.wait_receipt(hash_of(raw)))["status"] == "0x1"


async def test_e13_a_used_nonce_is_too_low(node: NodeUnderTest) -> None:
    """Card E13.

    Prerequisite: nonce 0 is mined.
    Action: another one with nonce 0.
    Expectation: refused.
    """
    await node.rpc.wait_receipt(await send(node, sign_transaction(ALICE, 0, to=BOB.address)))

    error = await refusal(
        node, "eth_sendRawTransaction", sign_transaction(ALICE, 0, to=CAROL.address, value=3)
    )

    assert "nonce too low" in error.message


async def test_e14_a_transaction_for_another_chain_is_refused(node: NodeUnderTest) -> None:
    """Card E14.

    Prerequisite: none.
    Action: sign for chain 1, send.
    Expectation: invalid chain id.
    """
    raw = sign_transaction(ALICE, 0, to=BOB.address, chain_id=1)

    error = await refusal(node, "eth_sendRawTransaction", raw)

    assert "invalid chain id for signer" in error.message
    assert await node.rpc.number("eth_getTransactionCount", ALICE.address, "pending") == 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"gas": 20_000}, "intrinsic gas too low", id="gas"),
        pytest.param({"value": 10**30}, "insufficient funds for gas * price + value", id="funds"),
        pytest.param(
            {"max_fee_per_gas": GWEI, "max_priority_fee_per_gas": 2 * GWEI},
            "max priority fee per gas higher than max fee per gas",
            id="tip",
        ),
    ],
)
async def test_e15_an_impossible_transaction_is_refused_with_the_reason(
    node: NodeUnderTest, fields: dict[str, Any], words: str
) -> None:
    """Card E15.

    Prerequisite: none.
    Action: send one that can never run.
    Expectation: named reason.
    """
    raw = sign_transaction(ALICE, 0, to=BOB.address, **fields)

    error = await refusal(node, "eth_sendRawTransaction", raw)

    assert words in error.message.replace("Insufficient", "insufficient")


async def test_e16_bytes_that_are_no_transaction_are_refused(node: NodeUnderTest) -> None:
    """Card E16.

    Prerequisite: none.
    Action: send garbage.
    Expectation: invalid params.
    """
    error = await refusal(node, "eth_sendRawTransaction", "0x02deadbeef")

    assert error.code == -32602
    assert "Failed to decode transaction" in error.message


async def test_e17_a_fee_below_the_base_fee_waits_with_us_and_is_refused_by_anvil(
    node: NodeUnderTest,
) -> None:
    """Card E17.

    Prerequisite: automine.
    Action: offer 10 wei per gas.
    Expectation: the simulator keeps it waiting, as geth does, and a bump unsticks it; anvil
        refuses it.
    """
    raw = sign_transaction(ALICE, 0, to=BOB.address, max_fee_per_gas=10, max_priority_fee_per_gas=1)

    if node.is_anvil:
        error = await refusal(node, "eth_sendRawTransaction", raw)
        assert "max fee per gas less than block base fee" in error.message
        return
    stuck = await send(node, raw)
    await node.rpc.call("evm_mine")
    assert await node.rpc.call("eth_getTransactionReceipt", stuck) is None
    assert await pool(node) == (1, 0)
    unstuck = await send(node, sign_transaction(ALICE, 0, to=BOB.address))
    assert (await node.rpc.wait_receipt(unstuck))["status"] == "0x1"
    assert await node.rpc.call("eth_getTransactionByHash", stuck) is None


async def test_e18_a_reorg_gives_new_hashes_at_the_same_heights(node: NodeUnderTest) -> None:
    """Card E18.

    Prerequisite: 5 blocks.
    Action: reorg depth 2.
    Expectation: 4 and 5 differ, 3 stays; the old blocks cannot be found by hash.
    """
    await node.rpc.call("anvil_mine", "0x5")
    before = [(await block(node, hex(height)))["hash"] for height in range(6)]

    await node.rpc.call("anvil_reorg", 2, [])

    after = [await block(node, hex(height)) for height in range(6)]
    assert await node.rpc.number("eth_blockNumber") == 5
    assert [one["hash"] for one in after[:4]] == before[:4]
    assert {one["hash"] for one in after[4:]}.isdisjoint(before)
    assert after[4]["parentHash"] == before[3]
    assert after[5]["parentHash"] == after[4]["hash"]
    assert await node.rpc.call("eth_getBlockByHash", before[5], False) is None


async def test_e19_an_orphaned_transaction_returns_to_our_pool_and_vanishes_from_anvil(
    node: NodeUnderTest,
) -> None:
    """Card E19.

    Prerequisite: a transfer in the newest block.
    Action: reorg depth 1.
    Expectation: no receipt; the simulator has it pending and mines it again, anvil has lost it.
    """
    sent = await send(node, sign_transaction(ALICE, 0, to=BOB.address, value=5))
    old = await node.rpc.wait_receipt(sent)
    await stop_automine(node)

    await node.rpc.call("anvil_reorg", 1, [])

    assert await node.rpc.call("eth_getTransactionReceipt", sent) is None
    assert await node.rpc.number("eth_getTransactionCount", ALICE.address, "latest") == 0
    if node.is_anvil:
        assert await node.rpc.call("eth_getTransactionByHash", sent) is None
        assert await pool(node) == (0, 0)
        return
    waiting = await node.rpc.call("eth_getTransactionByHash", sent)
    assert waiting["blockHash"] is None
    assert await pool(node) == (1, 0)
    assert await node.rpc.number("eth_getTransactionCount", ALICE.address, "pending") == 1
    await node.rpc.call("evm_mine")
    again = await node.rpc.wait_receipt(sent)
    assert again["blockNumber"] == "0x2"
    assert again["blockHash"] != old["blockHash"]


async def test_e20_a_transfer_reincluded_at_another_place_has_another_log_index(
    node: NodeUnderTest,
) -> None:
    """Card E20.

    Prerequisite: Alice's transfer is log 0 of block 3.
    Action: reorg with Bob's transfer before it.
    Expectation: same transaction hash, other block hash, log index 1.
    """
    token = await deploy_test_dollar(node.rpc, ALICE, supply=SUPPLY)
    await node.rpc.wait_receipt(
        await send(node, transfer_token(ALICE, 1, token, to=BOB.address, amount=100))
    )
    alice = transfer_token(ALICE, 2, token, to=CAROL.address, amount=7)
    bob = transfer_token(
        BOB, 0, token, to=CAROL.address, amount=9, max_priority_fee_per_gas=2 * GWEI
    )
    old = await node.rpc.wait_receipt(await send(node, alice))

    await node.rpc.call("anvil_reorg", 1, [[bob, 0], [alice, 0]])

    new = await node.rpc.wait_receipt(hash_of(alice))
    assert old["blockNumber"] == new["blockNumber"] == "0x3"
    assert old["blockHash"] != new["blockHash"]
    assert (old["logs"][0]["logIndex"], new["logs"][0]["logIndex"]) == ("0x0", "0x1")
    assert (old["transactionIndex"], new["transactionIndex"]) == ("0x0", "0x1")
    logs = await node.rpc.call("eth_getLogs", {"blockHash": new["blockHash"]})
    assert [int(log["data"], 16) for log in logs] == [9, 7]


async def test_e21_a_transfer_can_be_reincluded_one_block_later(node: NodeUnderTest) -> None:
    """Card E21.

    Prerequisite: a transfer in block 1 of 2.
    Action: reorg depth 2, offset 1.
    Expectation: block 1 is empty and block 2 has it.
    """
    raw = sign_transaction(ALICE, 0, to=BOB.address, value=5)
    await node.rpc.wait_receipt(await send(node, raw))
    await node.rpc.call("evm_mine")

    await node.rpc.call("anvil_reorg", 2, [[raw, 1]])

    assert (await node.rpc.wait_receipt(hash_of(raw)))["blockNumber"] == "0x2"
    assert (await block(node, "0x1"))["transactions"] == []
    assert await pool(node) == (0, 0)


async def test_e22_a_double_spend_in_the_new_branch_displaces_the_first_payment(
    node: NodeUnderTest,
) -> None:
    """Card E22.

    Prerequisite: a payment to Bob is mined.
    Action: reorg with the same nonce paid to Carol.
    Expectation: Carol has it, the first payment can never come back.
    """
    first = sign_transaction(ALICE, 0, to=BOB.address, value=5)
    second = sign_transaction(ALICE, 0, to=CAROL.address, value=5)
    await node.rpc.wait_receipt(await send(node, first))

    await node.rpc.call("anvil_reorg", 1, [[second, 0]])
    await node.rpc.call("evm_mine")

    assert (await node.rpc.wait_receipt(hash_of(second)))["blockNumber"] == "0x1"
    assert await node.rpc.call("eth_getTransactionByHash", hash_of(first)) is None
    assert await node.rpc.number("eth_getBalance", BOB.address, "latest") == 10**22
    assert await pool(node) == (0, 0)


async def test_e23_a_reorg_deeper_than_the_chain_is_refused(node: NodeUnderTest) -> None:
    """Card E23.

    Prerequisite: height 2.
    Action: reorg depth 3; offset past the depth.
    Expectation: invalid params, chain unchanged.
    """
    await node.rpc.call("anvil_mine", "0x2")
    head = await block(node, "latest")
    raw = sign_transaction(ALICE, 0, to=BOB.address)

    deep = await refusal(node, "anvil_reorg", 3, [])
    far = await refusal(node, "anvil_reorg", 1, [[raw, 1]])

    assert (deep.code, far.code) == (-32602, -32602)
    assert "Reorg depth must not exceed current chain height" in deep.message
    assert "will exceed the reorged chain height" in far.message
    assert await block(node, "latest") == head


async def test_e24_a_rollback_shortens_the_chain(node: NodeUnderTest) -> None:
    """Card E24.

    Prerequisite: a transfer in block 3.
    Action: rollback 2.
    Expectation: height 1, no receipt; the simulator has the transfer pending, anvil has lost
        it.
    """
    await node.rpc.call("anvil_mine", "0x2")
    sent = await send(node, sign_transaction(ALICE, 0, to=BOB.address))
    await node.rpc.wait_receipt(sent)

    await node.rpc.call("anvil_rollback", 2)

    assert await node.rpc.number("eth_blockNumber") == 1
    assert await node.rpc.call("eth_getTransactionReceipt", sent) is None
    assert await pool(node) == ((0, 0) if node.is_anvil else (1, 0))


async def test_e25_a_snapshot_brings_back_the_chain_once(node: NodeUnderTest) -> None:
    """Card E25.

    Prerequisite: one transfer.
    Action: snapshot, transfer, revert twice.
    Expectation: state and height of then; the snapshot is used up.
    """
    await node.rpc.wait_receipt(
        await send(node, sign_transaction(ALICE, 0, to=BOB.address, value=5))
    )
    head = await block(node, "latest")
    snapshot = await node.rpc.call("evm_snapshot")
    later = await send(node, sign_transaction(ALICE, 1, to=BOB.address, value=7))
    await node.rpc.wait_receipt(later)

    assert await node.rpc.call("evm_revert", snapshot) is True

    assert await block(node, "latest") == head
    assert await node.rpc.number("eth_getBalance", BOB.address, "latest") == 10**22 + 5
    assert await node.rpc.number("eth_getTransactionCount", ALICE.address, "latest") == 1
    assert await node.rpc.call("eth_getTransactionReceipt", later) is None
    assert await node.rpc.call("evm_revert", snapshot) is False
    again = await send(node, sign_transaction(ALICE, 1, to=BOB.address, value=7))
    assert (await node.rpc.wait_receipt(again))["blockNumber"] == "0x2"


async def test_e26_safe_and_finalized_lag_behind_the_head(node: NodeUnderTest) -> None:
    """Card E26.

    Prerequisite: two slots in an epoch.
    Action: mine 10.
    Expectation: 8 safe, 6 final; near the genesis both are the genesis.
    """

    async def heights() -> list[int]:
        tags = ("earliest", "finalized", "safe", "latest")
        return [int((await block(node, tag))["number"], 16) for tag in tags]

    assert await heights() == [0, 0, 0, 0]
    await node.rpc.call("anvil_mine", "0x3")
    assert await heights() == [0, 0, 1, 3]
    await node.rpc.call("anvil_mine", "0x7")
    assert await heights() == [0, 6, 8, 10]


async def test_e27_logs_of_an_unknown_block_are_an_error_and_not_an_empty_list(
    node: NodeUnderTest,
) -> None:
    """Card E27.

    Prerequisite: an orphaned block.
    Action: getLogs by its hash.
    Expectation: error.
    """
    await node.rpc.call("anvil_mine", "0x1")
    orphan = (await block(node, "latest"))["hash"]
    await node.rpc.call("anvil_reorg", 1, [])

    for block_hash in (UNKNOWN_HASH, orphan):
        error = await refusal(node, "eth_getLogs", {"blockHash": block_hash})

        assert "unknown block" in error.message
        assert error.code == -32000


async def test_e28_a_log_range_past_the_head_is_an_error_and_an_inverted_one_too_with_us(
    node: NodeUnderTest,
) -> None:
    """Card E28.

    Prerequisite: height 3.
    Action: getLogs above it; inverted.
    Expectation: error above; inverted is an error with us (as in geth) and empty with anvil.
    """
    await node.rpc.call("anvil_mine", "0x3")
    above = await refusal(node, "eth_getLogs", {"fromBlock": "0x5", "toBlock": "0x9"})
    assert "block height is 3 but requested was 5" in above.message
    inverted = {"fromBlock": "0x2", "toBlock": "0x1"}

    if node.is_anvil:
        assert await node.rpc.call("eth_getLogs", inverted) == []
    else:
        assert "invalid block range" in (await refusal(node, "eth_getLogs", inverted)).message


async def test_e29_interval_mining_makes_blocks_by_itself(node: NodeUnderTest) -> None:
    """Card E29.

    Prerequisite: none.
    Action: set an interval of 1 s, then 0.
    Expectation: a waiting transfer is mined by the clock, and after 0 nothing is.
    """
    await node.rpc.call("evm_setIntervalMining", 1)
    sent = await send(node, sign_transaction(ALICE, 0, to=BOB.address))

    assert await node.rpc.call("eth_getTransactionReceipt", sent) is None
    assert (await node.rpc.wait_receipt(sent))["status"] == "0x1"
    await node.rpc.wait_height(2)
    await node.rpc.call("evm_setIntervalMining", 0)
    height = await node.rpc.number("eth_blockNumber")
    await asyncio.sleep(1.2)
    assert await node.rpc.number("eth_blockNumber") == height


async def test_e30_new_heads_are_announced_in_order_and_again_after_a_reorg(
    node: NodeUnderTest,
) -> None:
    """Card E30.

    Prerequisite: a newHeads subscription.
    Action: mine 2, reorg 1.
    Expectation: heads 1, 2, and the new 2, each the child of the one before.
    """
    async with subscribe(node.session, node.ws_url, "newHeads") as heads:
        await node.rpc.call("evm_mine")
        await node.rpc.call("evm_mine")
        first, second = await heads.next(), await heads.next()
        await node.rpc.call("anvil_reorg", 1, [])
        replaced = await heads.next()

    assert [int(head["number"], 16) for head in (first, second, replaced)] == [1, 2, 2]
    assert first["hash"] == second["parentHash"] == replaced["parentHash"]
    assert second["hash"] != replaced["hash"] == (await block(node, "latest"))["hash"]
    assert ("transactions" in first) is node.is_anvil  # a real node sends the header only


async def test_e31_a_reorg_announces_removed_logs_with_us_and_nothing_with_anvil(
    node: NodeUnderTest,
) -> None:
    """Card E31.

    Prerequisite: a logs subscription, a token transfer.
    Action: reorg.
    Expectation: the simulator sends the log again with removed true, as geth does; anvil is
        silent.
    """
    token = await deploy_test_dollar(node.rpc, ALICE, supply=SUPPLY)
    async with subscribe(node.session, node.ws_url, "logs", {"address": token}) as logs:
        sent = await send(node, transfer_token(ALICE, 1, token, to=BOB.address, amount=7))
        announced = await logs.next()
        await stop_automine(node)
        await node.rpc.call("anvil_reorg", 1, [])
        if node.is_anvil:
            with pytest.raises(TimeoutError):
                await logs.next(timeout_s=SILENCE_S)
            return
        removed = await logs.next()
        await node.rpc.call("evm_mine")
        again = await logs.next()

    assert announced["transactionHash"] == sent
    assert announced["removed"] is False
    assert removed == {**announced, "removed": True}
    assert again["transactionHash"] == sent
    assert again["blockHash"] != announced["blockHash"]


async def test_e32_pending_transactions_are_announced_and_unsubscribing_ends_it(
    node: NodeUnderTest,
) -> None:
    """Card E32.

    Prerequisite: a subscription.
    Action: send, unsubscribe, send.
    Expectation: one hash.
    """
    await stop_automine(node)
    async with subscribe(node.session, node.ws_url, "newPendingTransactions") as waiting:
        sent = await send(node, sign_transaction(ALICE, 0, to=BOB.address))
        assert await waiting.next() == sent
        request = {"jsonrpc": "2.0", "id": 9, "method": "eth_unsubscribe", "params": [waiting.id]}
        await waiting.socket.send_json(request)
        answer = await waiting.socket.receive_json()
        await send(node, sign_transaction(ALICE, 1, to=BOB.address))
        with pytest.raises(TimeoutError):
            await waiting.next(timeout_s=SILENCE_S)

    assert unwrap(answer) is True


async def test_e33_ordinary_calls_work_over_the_websocket(node: NodeUnderTest) -> None:
    """Card E33.

    Prerequisite: a WebSocket.
    Action: a call and an unknown one.
    Expectation: answers; the unknown method is -32601 with us as over HTTP, whereas anvil says
        invalid params.
    """
    async with node.session.ws_connect(node.ws_url) as socket:
        await socket.send_json({"jsonrpc": "2.0", "id": 7, "method": "eth_chainId", "params": []})
        answer = await socket.receive_json()
        await socket.send_json({"jsonrpc": "2.0", "id": 8, "method": "eth_nope", "params": []})
        unknown = await socket.receive_json()

    assert answer == {"jsonrpc": "2.0", "id": 7, "result": hex(31337)}
    assert unknown["id"] == 8
    assert unknown["error"]["code"] == (-32602 if node.is_anvil else -32601)


async def test_e34_a_dropped_transaction_is_gone_and_its_successors_wait(
    node: NodeUnderTest,
) -> None:
    """Card E34.

    Prerequisite: nonces 0 and 1 wait.
    Action: drop 0, then drop all.
    Expectation: 1 is behind a gap, then nothing is left.
    """
    await stop_automine(node)
    first = await send(node, sign_transaction(ALICE, 0, to=BOB.address))
    await send(node, sign_transaction(BOB, 0, to=CAROL.address))

    await node.rpc.call("anvil_dropTransaction", first)

    assert await node.rpc.call("eth_getTransactionByHash", first) is None
    assert await pool(node) == (1, 0)
    await node.rpc.call("anvil_dropAllTransactions")
    assert await pool(node) == (0, 0)
    assert await node.rpc.number("eth_getTransactionCount", ALICE.address, "pending") == 0


async def test_e35_a_reverted_transaction_is_mined_with_status_0(node: NodeUnderTest) -> None:
    """Card E35.

    Prerequisite: a TestDollar.
    Action: Bob transfers what he does not have.
    Expectation: status 0, no logs, the nonce is used and the gas is paid.
    """
    token = await deploy_test_dollar(node.rpc, ALICE, supply=SUPPLY)
    raw = transfer_token(BOB, 0, token, to=CAROL.address, amount=1)

    receipt = await node.rpc.wait_receipt(await send(node, raw))

    assert receipt["status"] == "0x0"
    assert receipt["logs"] == []
    assert await node.rpc.number("eth_getTransactionCount", BOB.address, "latest") == 1
    paid = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
    assert await node.rpc.number("eth_getBalance", BOB.address, "latest") == 10**22 - paid


async def test_e36_the_fee_history_has_one_base_fee_more_than_blocks(node: NodeUnderTest) -> None:
    """Card E36.

    Prerequisite: a transfer with a tip of 1 gwei in block 3.
    Action: history of 2 blocks.
    Expectation: three base fees, two ratios, two rows of rewards; the newest pays the tip.
    """
    await node.rpc.call("anvil_mine", "0x2")
    await node.rpc.wait_receipt(await send(node, sign_transaction(ALICE, 0, to=BOB.address)))

    history = await node.rpc.call("eth_feeHistory", "0x2", "latest", [25, 75])

    assert history["oldestBlock"] == "0x2"
    assert len(history["baseFeePerGas"]) == 3
    assert history["baseFeePerGas"][1] == (await block(node, "latest"))["baseFeePerGas"]
    assert history["gasUsedRatio"] == [0.0, pytest.approx(21_000 / 30_000_000, abs=1e-6)]
    assert history["reward"] == [["0x0", "0x0"], [hex(GWEI), hex(GWEI)]]


async def test_e37_the_base_fee_falls_with_empty_blocks_and_can_be_fixed(
    node: NodeUnderTest,
) -> None:
    """Card E37.

    Prerequisite: none.
    Action: mine empty; fix the next base fee.
    Expectation: 7/8 of the one before; then the fixed one.
    """
    await node.rpc.call("anvil_mine", "0x2")
    first, second = [int((await block(node, hex(h)))["baseFeePerGas"], 16) for h in (1, 2)]
    await node.rpc.call("anvil_setNextBlockBaseFeePerGas", hex(5 * GWEI))
    await node.rpc.call("evm_mine")

    assert second == first - first // 8
    assert int((await block(node, "latest"))["baseFeePerGas"], 16) == 5 * GWEI
    assert await node.rpc.number("eth_maxPriorityFeePerGas") == GWEI
    assert await node.rpc.number("eth_gasPrice") > GWEI


async def test_e38_a_batch_is_answered_in_order_with_errors_in_place(node: NodeUnderTest) -> None:
    """Card E38.

    Prerequisite: none.
    Action: a batch of three.
    Expectation: three answers by id.
    """
    batch = [
        {"jsonrpc": "2.0", "id": "a", "method": "eth_chainId", "params": []},
        {"jsonrpc": "2.0", "id": "b", "method": "eth_nope", "params": []},
        {"jsonrpc": "2.0", "id": "c", "method": "eth_blockNumber", "params": []},
    ]

    answers = {answer["id"]: answer for answer in await node.rpc.post(batch)}

    assert unwrap(answers["a"]) == hex(31337)
    assert answers["b"]["error"]["code"] == -32601
    assert unwrap(answers["c"]) == "0x0"


async def test_e39_an_unknown_method_is_named_by_us(node: NodeUnderTest) -> None:
    """Card E39.

    Prerequisite: none.
    Action: call a method that does not exist.
    Expectation: -32601; the simulator's message names the method.
    """
    error = await refusal(node, "eth_madeUp")

    assert error.code == -32601
    assert error.message == (
        "Method not found" if node.is_anvil else "Method not found: eth_madeUp"
    )


async def test_e40_a_balance_can_be_set_and_is_spendable(node: NodeUnderTest) -> None:
    """Card E40.

    Prerequisite: a new account.
    Action: set its balance, mine.
    Expectation: it stays.
    """
    nobody = "0x" + "11" * 20

    await node.rpc.call("anvil_setBalance", nobody, hex(12345))
    assert await node.rpc.number("eth_getBalance", nobody, "latest") == 12345
    await node.rpc.call("anvil_mine", "0x2")
    assert await node.rpc.number("eth_getBalance", nobody, "latest") == 12345
    await node.rpc.call("anvil_setBalance", ALICE.address, "0x0")
    error = await refusal(
        node, "eth_sendRawTransaction", sign_transaction(ALICE, 0, to=BOB.address)
    )
    assert "insufficient funds" in error.message.lower()


async def test_e41_the_chain_clock_can_be_moved_forward_only(node: NodeUnderTest) -> None:
    """Card E41.

    Prerequisite: none.
    Action: increase time; fix the next timestamp; fix one in the past.
    Expectation: the blocks carry them; the past is refused.
    """
    before = int((await block(node, "latest"))["timestamp"], 16)
    await node.rpc.call("evm_increaseTime", 1000)
    await node.rpc.call("evm_mine")
    later = int((await block(node, "latest"))["timestamp"], 16)
    await node.rpc.call("evm_setNextBlockTimestamp", later + 500)
    await node.rpc.call("evm_mine")
    fixed = int((await block(node, "latest"))["timestamp"], 16)
    error = await refusal(node, "evm_setNextBlockTimestamp", later)

    assert later >= before + 1000
    assert fixed == later + 500
    assert "Timestamp error" in error.message


async def test_e42_the_node_signs_for_its_own_accounts_only(node: NodeUnderTest) -> None:
    """Card E42.

    Prerequisite: none.
    Action: eth_sendTransaction from a dev account and from another.
    Expectation: mined with defaults filled in; no signer.
    """
    mine = {"from": ALICE.address, "to": BOB.address, "value": "0x5"}
    receipt = await node.rpc.wait_receipt(await node.rpc.call("eth_sendTransaction", mine))
    error = await refusal(node, "eth_sendTransaction", {**mine, "from": "0x" + "12" * 20})

    assert (receipt["status"], receipt["gasUsed"]) == ("0x1", hex(21_000))
    assert "No Signer available" in error.message


async def test_e43_the_pool_shows_its_content_by_sender_and_nonce(node: NodeUnderTest) -> None:
    """Card E43.

    Prerequisite: nonces 0 and 5 wait.
    Action: content, inspect.
    Expectation: pending and queued, keyed by address and decimal nonce; the pending block has
        the pending one.
    """
    await stop_automine(node)
    pending = await send(node, sign_transaction(ALICE, 0, to=BOB.address, value=3))
    queued = await send(node, sign_transaction(ALICE, 5, to=BOB.address))

    content = await node.rpc.call("txpool_content")
    inspect = await node.rpc.call("txpool_inspect")
    (alice,) = addresses_of([ALICE])

    assert list(content["pending"]) == list(content["queued"]) == [alice]
    assert content["pending"][alice]["0"]["hash"] == pending
    assert content["queued"][alice]["5"]["hash"] == queued
    assert "3 wei + 21000 gas" in inspect["pending"][alice]["0"]
    preview = await block(node, "pending")
    assert preview["transactions"] == [pending]
    assert preview["number"] == "0x1"
    assert await node.rpc.number("eth_blockNumber") == 0


async def test_e44_the_best_payer_is_mined_first(node: NodeUnderTest) -> None:
    """Card E44.

    Prerequisite: Alice, Bob and Carol wait; Bob bids more in both fields, Carol only in her
        tip.
    Action: mine.
    Expectation: Bob first; then by tip with us (as in geth), whereas anvil orders by the fee
        cap and then by arrival.
    """
    await stop_automine(node)
    alice = await send(node, sign_transaction(ALICE, 0, to=CAROL.address))
    bid: dict[str, Any] = {"max_fee_per_gas": 20 * GWEI, "max_priority_fee_per_gas": 5 * GWEI}
    bob = await send(node, sign_transaction(BOB, 0, to=CAROL.address, **bid))
    carol = await send(
        node, sign_transaction(CAROL, 0, to=BOB.address, max_priority_fee_per_gas=2 * GWEI)
    )

    await node.rpc.call("evm_mine")

    expected = [bob, alice, carol] if node.is_anvil else [bob, carol, alice]
    assert (await block(node, "latest"))["transactions"] == expected
    receipts = await node.rpc.call("eth_getBlockReceipts", "latest")
    assert [one["transactionHash"] for one in receipts] == expected
    assert [int(one["gasUsed"], 16) for one in receipts] == [21_000] * 3
    assert [int(one["cumulativeGasUsed"], 16) for one in receipts] == [21_000, 42_000, 63_000]


async def test_e45_a_legacy_transaction_is_accepted(node: NodeUnderTest) -> None:
    """Card E45.

    Prerequisite: none.
    Action: send type 0 with EIP-155.
    Expectation: mined at its price.
    """
    body: dict[str, Any] = {
        "to": BOB.address,
        "value": 5,
        "gas": 21_000,
        "gasPrice": 3 * GWEI,
        "nonce": 0,
        "chainId": 31337,
    }
    raw = "0x" + bytes(ALICE.sign_transaction(body).raw_transaction).hex()

    receipt = await node.rpc.wait_receipt(await send(node, raw))
    transaction = await node.rpc.call("eth_getTransactionByHash", hash_of(raw))

    assert (receipt["status"], receipt["type"]) == ("0x1", "0x0")
    assert int(receipt["effectiveGasPrice"], 16) == int(transaction["gasPrice"], 16) == 3 * GWEI
    assert int(transaction["v"], 16) in {31337 * 2 + 35, 31337 * 2 + 36}


async def test_e46_malformed_parameters_are_refused_as_such(node: NodeUnderTest) -> None:
    """Card E46.

    Prerequisite: none.
    Action: a short address, a missing one.
    Expectation: -32602.
    """
    short = await refusal(node, "eth_getBalance", "0x12", "latest")
    missing = await refusal(node, "eth_sendRawTransaction")

    assert (short.code, missing.code) == (-32602, -32602)


async def test_e47_switching_automine_on_mines_what_waits(node: NodeUnderTest) -> None:
    """Card E47.

    Prerequisite: a transfer waits, automine is off.
    Action: switch it on.
    Expectation: the transfer is mined, in one block.
    """
    await stop_automine(node)
    sent = await send(node, sign_transaction(ALICE, 0, to=BOB.address))

    await node.rpc.call("evm_setAutomine", True)

    assert (await node.rpc.wait_receipt(sent))["blockNumber"] == "0x1"
    # anvil shows the receipt a moment before it takes the transaction out of its pool.
    async with asyncio.timeout(CALM_S):
        while await pool(node) != (0, 0):  # noqa: ASYNC110  it is another process's pool
            await asyncio.sleep(0.01)


async def test_e48_blocks_mined_at_an_interval_are_that_many_seconds_apart(
    node: NodeUnderTest,
) -> None:
    """Card E48.

    Prerequisite: one block.
    Action: mine 2 blocks with an interval of 12 s.
    Expectation: each is 12 s younger than its parent.
    """
    await node.rpc.call("evm_mine")

    await node.rpc.call("anvil_mine", "0x2", "0xc")

    times = [int((await block(node, hex(height)))["timestamp"], 16) for height in (1, 2, 3)]
    assert times == [times[0], times[0] + 12, times[0] + 24]


def test_every_card_has_its_number_in_order() -> None:
    names = [name for name in dir(sys.modules[__name__]) if name.startswith("test_e")]
    numbers = sorted(int(match[1]) for name in names if (match := re.match(r"test_e(\d\d)_", name)))
    text = Path(__file__).read_text(encoding="utf-8")

    assert numbers == list(range(1, len(numbers) + 1))
    for number in numbers:
        (card,) = re.findall(rf'"""Card E{number:02}\..*?"""', text, flags=re.DOTALL)
        for part in ("Prerequisite:", "Action:", "Expectation:"):
            assert part in card, f"card E{number:02} lacks {part}"
