"""Numbered cards: what a node shows of the inside of transactions, on the simulator and anvil.

``node`` is as in ``test_cards``. Frames are compared by type, recipient, value and whether they failed:
gas differs (anvil's outermost frame begins after the intrinsic gas), and so do the words of errors.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from chain.contracts.artefact import load_artefact
from chain.simulators.testing import (
    NodeUnderTest,
    RpcFailed,
    dev_account,
    encode_call,
    sign_transaction,
)

ALICE, BOB, CAROL = dev_account(0), dev_account(1), dev_account(2)
STRANGER = dev_account(7).address.lower()
UNKNOWN_HASH = "0x" + "22" * 32
CALL_TRACER = {"tracer": "callTracer"}
IDENTITY = "0x" + "00" * 19 + "04"
ETHER = 10**18
CALL, CALLCODE, DELEGATECALL, STATICCALL = 0xF1, 0xF2, 0xF4, 0xFA

Frame = tuple[Any, ...]


async def run(
    node: NodeUnderTest, to: str | None, data: bytes = b"", *, value: int = 0, gas: int = 2_000_000
) -> dict[str, Any]:
    """Send from Alice, and return the receipt."""
    nonce = await node.rpc.number("eth_getTransactionCount", ALICE.address, "latest")
    raw = sign_transaction(ALICE, nonce, to=to, data=data, value=value, gas=gas)
    return await node.rpc.wait_receipt(await node.rpc.call("eth_sendRawTransaction", raw))


async def splitter(node: NodeUnderTest) -> str:
    receipt = await run(node, None, load_artefact("TestSplitter").bytecode)
    return str(receipt["contractAddress"])


async def nested(node: NodeUnderTest, receipt: dict[str, Any]) -> Any:
    """Return the frames by ``callTracer``, which must be the same by transaction and by block."""
    trace = await node.rpc.call("debug_traceTransaction", receipt["transactionHash"], CALL_TRACER)
    (of_block,) = await node.rpc.call("debug_traceBlockByHash", receipt["blockHash"], CALL_TRACER)
    assert of_block == {"txHash": receipt["transactionHash"], "result": trace}
    assert trace["gasUsed"] == receipt["gasUsed"]
    return trace


def shape(frame: dict[str, Any]) -> Frame:
    """Return type, recipient, value, whether it failed, and what is inside."""
    return (
        frame["type"],
        frame["to"],
        int(frame.get("value", "0x0"), 16),
        "error" in frame,
        *(shape(inner) for inner in frame.get("calls", [])),
    )


def flattened(frame: Frame, path: tuple[int, ...] = ()) -> list[Frame]:
    """Return path, value and failure of each frame, as the flat form orders them."""
    _, _, value, failed, *inner = frame
    rows: list[Frame] = [(path, value, failed)]
    for place, one in enumerate(inner):
        rows += flattened(one, (*path, place))
    return rows


def flat_shape(entry: dict[str, Any]) -> Frame:
    value = entry["action"].get("value", entry["action"].get("balance", "0x0"))
    return tuple(entry["traceAddress"]), int(value, 16), "error" in entry


def creation_of(runtime: bytes) -> bytes:
    """Return creation code that leaves *runtime*: PUSH2 n DUP1 PUSH1 10 PUSH0 CODECOPY PUSH0 RETURN."""
    return b"\x61" + len(runtime).to_bytes(2, "big") + b"\x80\x60\x0a\x5f\x39\x5f\xf3" + runtime


def begin(instruction: int, to: str, value: int | None = None) -> bytes:
    """Return code that makes one call with all gas and no data, and drops its result."""
    code = bytes.fromhex("5f5f5f5f")
    if value is not None:
        code += b"\x67" + value.to_bytes(8, "big")
    return code + b"\x73" + bytes.fromhex(to[2:]) + b"\x5a" + bytes([instruction]) + b"\x50"


async def test_t01_a_plain_payment_is_one_frame(node: NodeUnderTest) -> None:
    """Card T01.

    Prerequisite: none.
    Action: pay Bob 5 wei.
    Expectation: one frame, its gas that of the receipt.
    """
    receipt = await run(node, BOB.address, value=5, gas=21_000)

    trace = await nested(node, receipt)

    assert shape(trace) == ("CALL", BOB.address.lower(), 5, False)
    assert trace["from"] == ALICE.address.lower()
    assert trace["input"] == "0x"
    assert "calls" not in trace


async def test_t02_a_creation_shows_the_new_contract_and_its_code(node: NodeUnderTest) -> None:
    """Card T02.

    Prerequisite: none.
    Action: create a splitter.
    Expectation: a CREATE frame to the new address; its output is the code there.
    """
    artefact = load_artefact("TestSplitter")
    receipt = await run(node, None, artefact.bytecode)

    trace = await nested(node, receipt)

    assert shape(trace) == ("CREATE", receipt["contractAddress"], 0, False)
    assert trace["input"] == "0x" + artefact.bytecode.hex()
    code = await node.rpc.call("eth_getCode", receipt["contractAddress"], "latest")
    assert trace["output"] == code


async def test_t03_what_a_contract_passes_on_is_inside(node: NodeUnderTest) -> None:
    """Card T03.

    Prerequisite: a splitter.
    Action: split 100 wei.
    Expectation: two frames of 50 wei inside one of 100.
    """
    contract = await splitter(node)
    data = encode_call("split(address[])", [BOB.address, CAROL.address])

    trace = await nested(node, await run(node, contract, data, value=100))

    assert shape(trace) == (
        *("CALL", contract, 100, False),
        ("CALL", BOB.address.lower(), 50, False),
        ("CALL", CAROL.address.lower(), 50, False),
    )


async def test_t04_a_transaction_that_reverts_shows_what_it_had_paid(node: NodeUnderTest) -> None:
    """Card T04.

    Prerequisite: a splitter.
    Action: split, then revert.
    Expectation: the payments stand inside, without error of their own; the outermost has one.
    """
    contract = await splitter(node)
    data = encode_call("splitAndRevert(address[])", [BOB.address, CAROL.address])

    receipt = await run(node, contract, data, value=100)
    trace = await nested(node, receipt)

    assert receipt["status"] == "0x0"
    assert shape(trace) == (
        *("CALL", contract, 100, True),
        ("CALL", BOB.address.lower(), 50, False),
        ("CALL", CAROL.address.lower(), 50, False),
    )
    assert trace["error"] == "execution reverted"


async def test_t05_a_part_that_was_reverted_and_forgiven_is_marked(node: NodeUnderTest) -> None:
    """Card T05.

    Prerequisite: a splitter.
    Action: pay one for good and another in a call that reverts.
    Expectation: the transaction succeeds; the frame around the lost payment has the error.
    """
    contract = await splitter(node)
    data = encode_call("splitWithRevertedPart(address,address)", BOB.address, CAROL.address)

    receipt = await run(node, contract, data, value=100)

    assert receipt["status"] == "0x1"
    assert shape(await nested(node, receipt)) == (
        *("CALL", contract, 100, False),
        ("CALL", BOB.address.lower(), 50, False),
        ("CALL", contract, 50, True, ("CALL", CAROL.address.lower(), 50, False)),
    )


async def test_t06_a_destruction_pays_its_heir(node: NodeUnderTest) -> None:
    """Card T06.

    Prerequisite: a splitter.
    Action: pay by a contract that destroys itself.
    Expectation: a SELFDESTRUCT frame with what it paid.
    """
    contract = await splitter(node)
    data = encode_call("payByDestruction(address)", BOB.address)

    trace = await nested(node, await run(node, contract, data, value=7))

    (creation,) = trace["calls"]
    assert (creation["type"], creation["value"]) == ("CREATE", "0x7")
    assert shape(creation["calls"][0]) == ("SELFDESTRUCT", BOB.address.lower(), 7, False)
    assert creation["calls"][0]["from"] == creation["to"]


async def test_t07_every_kind_of_call_is_a_frame_even_one_that_cannot_begin(
    node: NodeUnderTest,
) -> None:
    """Card T07.

    Prerequisite: a contract with 10 wei that makes each kind of call.
    Action: run it.
    Expectation: a frame for each in order, also of precompiled contracts and of the call that has
        no funds; a DELEGATECALL shows the value around it, a STATICCALL none.
    """
    code = b"".join(
        [
            begin(CALL, IDENTITY, 0),
            begin(CALL, STRANGER, ETHER),
            begin(CALL, STRANGER, 5),
            begin(STATICCALL, IDENTITY),
            begin(DELEGATECALL, STRANGER),
            begin(CALLCODE, STRANGER, 3),
            b"\x00",
        ]
    )
    contract = (await run(node, None, creation_of(code)))["contractAddress"]

    trace = await nested(node, await run(node, contract, value=10))

    assert shape(trace) == (
        *("CALL", contract, 10, False),
        ("CALL", IDENTITY, 0, False),
        ("CALL", STRANGER, ETHER, True),
        ("CALL", STRANGER, 5, False),
        ("STATICCALL", IDENTITY, 0, False),
        ("DELEGATECALL", STRANGER, 10, False),
        ("CALLCODE", STRANGER, 3, False),
    )
    assert trace["calls"][1]["error"] == "insufficient balance for transfer"
    assert "value" not in trace["calls"][3]
    assert await node.rpc.number("eth_getBalance", STRANGER, "latest") == 10_000 * ETHER + 5


async def test_t08_a_block_is_traced_transaction_by_transaction_in_its_order(
    node: NodeUnderTest,
) -> None:
    """Card T08.

    Prerequisite: three transactions in one block, the second runs out of gas.
    Action: trace the block by hash and by number.
    Expectation: three traces in order, each as its transaction's own.
    """
    contract = await splitter(node)
    await node.rpc.call("evm_setAutomine", False)
    data = encode_call("split(address[])", [BOB.address])
    for nonce, (to, gas) in enumerate(
        [(BOB.address, 21_000), (contract, 23_000), (contract, 10**6)]
    ):
        raw = sign_transaction(
            ALICE, nonce + 1, to=to, value=6, gas=gas, data=data if to == contract else b""
        )
        await node.rpc.call("eth_sendRawTransaction", raw)
    await node.rpc.call("evm_mine")
    block = await node.rpc.call("eth_getBlockByNumber", "latest", False)

    traces = await node.rpc.call("debug_traceBlockByHash", block["hash"], CALL_TRACER)

    assert [trace["txHash"] for trace in traces] == block["transactions"]
    assert ["error" in trace["result"] for trace in traces] == [False, True, False]
    assert await node.rpc.call("debug_traceBlockByNumber", block["number"], CALL_TRACER) == traces
    for trace in traces:
        own = await node.rpc.call("debug_traceTransaction", trace["txHash"], CALL_TRACER)
        assert trace["result"] == own


async def test_t09_the_flat_form_has_the_same_frames_at_the_same_places(
    node: NodeUnderTest,
) -> None:
    """Card T09.

    Prerequisite: a splitter.
    Action: trace each of its payments in both forms.
    Expectation: the same paths, values and failures; blocks are named by hash and number.
    """
    contract = await splitter(node)
    entries: list[Any] = []
    for signature, arguments in (
        ("split(address[])", ([BOB.address, CAROL.address],)),
        ("splitAndRevert(address[])", ([BOB.address, CAROL.address],)),
        ("splitWithRevertedPart(address,address)", (BOB.address, CAROL.address)),
        ("payByDestruction(address)", (BOB.address,)),
    ):
        receipt = await run(node, contract, encode_call(signature, *arguments), value=100)

        entries = await node.rpc.call("trace_block", receipt["blockNumber"])

        assert [flat_shape(entry) for entry in entries] == flattened(
            shape(await nested(node, receipt))
        )
        for entry in entries:
            assert entry["blockHash"] == receipt["blockHash"]
            assert entry["blockNumber"] == int(receipt["blockNumber"], 16)
            assert entry["transactionHash"] == receipt["transactionHash"]
            assert entry["transactionPosition"] == 0
        assert await node.rpc.call("trace_transaction", receipt["transactionHash"]) == entries
    kinds = [entry["type"] for entry in entries]
    assert kinds == ["call", "create", "suicide"]
    assert entries[2]["action"]["refundAddress"] == BOB.address.lower()


async def test_t10_only_the_outermost_frame_on_request(node: NodeUnderTest) -> None:
    """Card T10.

    Prerequisite: a split payment.
    Action: trace it with ``onlyTopCall``.
    Expectation: nothing inside.
    """
    contract = await splitter(node)
    receipt = await run(node, contract, encode_call("split(address[])", [BOB.address]), value=4)
    settings = {**CALL_TRACER, "tracerConfig": {"onlyTopCall": True}}

    trace = await node.rpc.call("debug_traceTransaction", receipt["transactionHash"], settings)

    assert shape(trace) == ("CALL", contract, 4, False)


async def test_t11_a_block_that_is_not_there_has_no_traces(node: NodeUnderTest) -> None:
    """Card T11.

    Prerequisite: none.
    Action: trace an unknown block by hash, and one above the head in the flat form.
    Expectation: an error (not an empty list) by hash; the flat form is empty.
    """
    with pytest.raises(RpcFailed) as failure:
        await node.rpc.call("debug_traceBlockByHash", UNKNOWN_HASH, CALL_TRACER)

    if node.is_anvil:
        assert (failure.value.code, failure.value.message) == (-32001, "Resource not found")
    else:
        assert failure.value.message == f"block {UNKNOWN_HASH} not found"
    assert await node.rpc.call("trace_block", "0x99") == []
    genesis = await node.rpc.call("eth_getBlockByNumber", "0x0", False)
    assert await node.rpc.call("debug_traceBlockByHash", genesis["hash"], CALL_TRACER) == []


async def test_t12_a_transaction_that_is_not_there_is_an_error_with_us(
    node: NodeUnderTest,
) -> None:
    """Card T12.

    Prerequisite: none.
    Action: trace an unknown transaction.
    Expectation: the simulator says so, as geth does; anvil answers with the trace of nothing.
    """
    if node.is_anvil:
        answer = await node.rpc.call("debug_traceTransaction", UNKNOWN_HASH, CALL_TRACER)
        assert answer == {"failed": False, "gas": 0, "returnValue": "0x", "structLogs": []}
        return
    with pytest.raises(RpcFailed, match="transaction not found"):
        await node.rpc.call("debug_traceTransaction", UNKNOWN_HASH, CALL_TRACER)


async def test_t13_another_tracer_is_refused(node: NodeUnderTest) -> None:
    """Card T13.

    Prerequisite: a mined transfer.
    Action: ask for a tracer that is not there.
    Expectation: an error.
    """
    receipt = await run(node, BOB.address, gas=21_000)

    with pytest.raises(RpcFailed):
        await node.rpc.call(
            "debug_traceTransaction", receipt["transactionHash"], {"tracer": "nopeTracer"}
        )


async def test_t14_traces_of_a_replaced_block_are_gone(node: NodeUnderTest) -> None:
    """Card T14.

    Prerequisite: a transfer in the newest block.
    Action: reorg with the same transfer.
    Expectation: the new block has its trace, the old one is unknown.
    """
    raw = sign_transaction(ALICE, 0, to=BOB.address, value=5)
    sent = await node.rpc.call("eth_sendRawTransaction", raw)
    old = await node.rpc.wait_receipt(sent)

    await node.rpc.call("anvil_reorg", 1, [[raw, 0]])

    new = await node.rpc.wait_receipt(sent)
    assert shape(await nested(node, new)) == ("CALL", BOB.address.lower(), 5, False)
    with pytest.raises(RpcFailed):
        await node.rpc.call("debug_traceBlockByHash", old["blockHash"], CALL_TRACER)


def test_every_card_has_its_number_in_order() -> None:
    names = [name for name in dir(sys.modules[__name__]) if name.startswith("test_t")]
    numbers = sorted(int(match[1]) for name in names if (match := re.match(r"test_t(\d\d)_", name)))
    text = Path(__file__).read_text(encoding="utf-8")

    assert numbers == list(range(1, len(numbers) + 1))
    for number in numbers:
        (card,) = re.findall(rf'"""Card T{number:02}\..*?"""', text, flags=re.DOTALL)
        for part in ("Prerequisite:", "Action:", "Expectation:"):
            assert part in card, f"card T{number:02} lacks {part}"
