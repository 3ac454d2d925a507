"""Numbered cards: what the simulator claims that real nodes do, held against a real geth.

``real`` is a chain on which Alice, Bob and Carol have ether, transactions are mined as they come, and
only methods that every node has are used. What anvil does otherwise stands in ``test_cards``.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from chain.contracts.artefact import load_artefact
from chain.evm.addresses import address_from_node
from chain.evm.fee_oracle import parse_history
from chain.evm.gateway import EvmGateway
from chain.evm.refusals import SendWord, read_refusal, says_block_gone, says_call_fails
from chain.evm.transactions import transaction_hash
from chain.model import BroadcastOutcome, WatchList
from chain.simulators.evm.model import DEFAULT_CHAIN_ID
from chain.simulators.geth import DEV_CHAIN_ID, Geth, find_geth, start_geth
from chain.simulators.testing import (
    GWEI,
    EvmProcess,
    JsonRpc,
    RpcFailed,
    Subscription,
    deploy_test_dollar,
    dev_account,
    encode_call,
    hash_of,
    sign_transaction,
    subscribe,
    transfer_token,
)

REPOSITORY = Path(__file__).resolve().parents[3]
REQUIRE_GETH = os.environ.get("CAUSEWAY_REQUIRE_GETH") == "1"
People = tuple[LocalAccount, LocalAccount, LocalAccount, LocalAccount]
ETHER = 10**18
FUNDED_S = 20.0
HEADS_LOST_MAX = 5
UNKNOWN_HASH = "0x" + "22" * 32
SUPPLY = 1_000_000


@dataclass(frozen=True)
class Real:
    """A node, whatever program keeps it; ``chain_id`` is what transactions are signed for."""

    url: str
    ws_url: str
    chain_id: int
    rpc: JsonRpc
    session: aiohttp.ClientSession
    alice: LocalAccount
    bob: LocalAccount
    carol: LocalAccount
    nobody: LocalAccount

    def sign(self, account: Any, nonce: int, **fields: Any) -> str:
        return sign_transaction(account, nonce, chain_id=self.chain_id, **fields)

    async def send(self, raw: str) -> str:
        """Send a transaction, again while geth's pool has not looked at the block that paid us."""
        async with asyncio.timeout(FUNDED_S):
            while True:
                try:
                    return str(await self.rpc.call("eth_sendRawTransaction", raw))
                except RpcFailed as failure:
                    if "balance 0," not in failure.message:
                        raise
                await asyncio.sleep(0.05)

    async def run(self, nonce: int, **fields: Any) -> dict[str, Any]:
        raw = self.sign(self.alice, nonce, **{"gas": 2_000_000, **fields})
        return await self.rpc.wait_receipt(await self.send(raw))

    async def refusal(self, method: str, *params: Any) -> RpcFailed:
        with pytest.raises(RpcFailed) as failure:
            await self.rpc.call(method, *params)
        return failure.value


@pytest.fixture(scope="session")
def geth_process() -> Iterator[Geth]:
    binary = find_geth(os.environ, [REPOSITORY / ".cache" / "go"])
    if binary is None:
        reason = "no geth: scripts/fetch-geth builds it where there is a Go toolchain"
        if REQUIRE_GETH:
            pytest.fail(reason)
        pytest.skip(reason)
    with start_geth(binary) as geth:
        yield geth


@pytest.fixture(scope="session")
def rich_nonces() -> Iterator[int]:
    """The nonces of geth's rich account, which nobody else uses.

    Asked for the next one while it takes in a block, geth may name one that is waiting already.
    """
    return count()


#: geth takes blocks into its pool and its indexes whenever it likes; a card that met it in between is
#: played again, with other people, and the report says so. One that fails on us fails every time.
AGAIN = pytest.mark.flaky(reruns=2)


@pytest.fixture(params=["simulator", pytest.param("geth", marks=AGAIN)])
async def real(request: pytest.FixtureRequest) -> AsyncIterator[Real]:
    """A simulator at height zero, or the one geth with people who have done nothing yet."""
    async with aiohttp.ClientSession() as session:
        if request.param == "simulator":
            process: EvmProcess = request.getfixturevalue("simulator_process")
            rpc = JsonRpc(process.url, session)
            await rpc.call("anvil_reset")
            people = (dev_account(0), dev_account(1), dev_account(2), dev_account(8))
            yield Real(process.url, process.ws_url, DEFAULT_CHAIN_ID, rpc, session, *people)
            return
        geth: Geth = request.getfixturevalue("geth_process")
        rpc = JsonRpc(geth.url, session)
        nonces = request.getfixturevalue("rich_nonces")
        times_played = getattr(request.node, "execution_count", 1)
        people = await strangers(rpc, f"{request.node.nodeid} {times_played}", nonces)
        yield Real(geth.url, geth.ws_url, DEV_CHAIN_ID, rpc, session, *people)


async def strangers(rpc: JsonRpc, name: str, nonces: Iterator[int]) -> People:
    """Return four accounts of a test's own, of which geth's rich account has funded three."""
    keys = [keccak(f"{name} {number}".encode()) for number in range(4)]
    alice, bob, carol, nobody = (Account.from_key(key) for key in keys)
    (rich,) = await rpc.call("eth_accounts")

    async def give(to: str, wei: int) -> None:
        body = {"from": rich, "to": to, "value": hex(wei), "nonce": hex(next(nonces))}
        await rpc.call("eth_sendTransaction", body)

    for account in (alice, bob, carol):
        await give(account.address, 10_000 * ETHER)
    async with asyncio.timeout(FUNDED_S):
        while await rpc.number("eth_getBalance", carol.address, "latest") == 0:
            # Right after its start geth may sleep over a transaction until the next one comes.
            await asyncio.sleep(0.1)
            await give(rich, 1)
    return alice, bob, carol, nobody


async def test_g01_the_same_bytes_are_known_while_they_wait_and_spent_once_mined(
    real: Real,
) -> None:
    """Card G01.

    Prerequisite: none.
    Action: send nonce 1 twice, then nonce 0, then nonce 1 again.
    Expectation: already known, then mined, then nonce too low; each read as what it means.
    """
    raw = real.sign(real.alice, 1, to=real.bob.address)
    await real.send(raw)

    known = await real.refusal("eth_sendRawTransaction", raw)
    await real.send(real.sign(real.alice, 0, to=real.bob.address))
    await real.rpc.wait_receipt(hash_of(raw))
    spent = await real.refusal("eth_sendRawTransaction", raw)

    assert read_refusal(known.message) is SendWord.ALREADY_KNOWN
    assert read_refusal(spent.message) is SendWord.NONCE_SPENT


@pytest.mark.parametrize(
    ("max_fee", "tip", "accepted"),
    [
        pytest.param(11 * GWEI, 11 * GWEI // 10, True, id="ten-per-cent-in-both"),
        pytest.param(11 * GWEI - 1, 11 * GWEI // 10, False, id="fee-just-below"),
        pytest.param(11 * GWEI, 11 * GWEI // 10 - 1, False, id="tip-just-below"),
        pytest.param(10 * GWEI + 1, GWEI + 1, False, id="one-wei-more"),
        pytest.param(9 * GWEI, GWEI, False, id="less"),
    ],
)
async def test_g02_a_replacement_pays_ten_per_cent_more_in_both_fields(
    real: Real, max_fee: int, tip: int, *, accepted: bool
) -> None:
    """Card G02.

    Prerequisite: nonce 1 waits for nonce 0.
    Action: another transaction with nonce 1.
    Expectation: accepted from ten per cent more on, in both fields; else underpriced, for now.
    """
    await real.send(real.sign(real.alice, 1, to=real.bob.address, value=1))
    raw = real.sign(
        real.alice,
        1,
        to=real.bob.address,
        value=2,
        max_fee_per_gas=max_fee,
        max_priority_fee_per_gas=tip,
    )

    if accepted:
        assert await real.send(raw) == hash_of(raw)
        return
    refused = await real.refusal("eth_sendRawTransaction", raw)
    assert "replacement transaction underpriced" in refused.message
    assert read_refusal(refused.message) is SendWord.NOT_NOW


async def test_g03_a_fee_below_the_base_fee_waits(real: Real) -> None:
    """Card G03.

    Prerequisite: none.
    Action: offer 10 wei per gas.
    Expectation: taken, counted as pending, not mined.
    """
    sent = await real.send(
        real.sign(
            real.alice, 0, to=real.bob.address, max_fee_per_gas=10, max_priority_fee_per_gas=1
        )
    )

    assert (await real.rpc.call("eth_getTransactionByHash", sent))["blockHash"] is None
    assert await real.rpc.number("eth_getTransactionCount", real.alice.address, "latest") == 0
    assert await real.rpc.call("eth_getTransactionReceipt", sent) is None


async def test_g04_a_gap_is_queued_and_runs_once_it_is_filled(real: Real) -> None:
    """Card G04.

    Prerequisite: none.
    Action: send nonce 1, then nonce 0.
    Expectation: queued, then both mined.
    """
    gapped = await real.send(real.sign(real.alice, 1, to=real.bob.address))
    content = await real.rpc.call("txpool_content")
    await real.send(real.sign(real.alice, 0, to=real.bob.address))

    mine = {
        part: content[part].get(real.alice.address) or content[part].get(real.alice.address.lower())
        for part in ("pending", "queued")
    }
    assert mine["pending"] is None
    assert list(mine["queued"]) == ["1"]
    assert (await real.rpc.wait_receipt(gapped))["status"] == "0x1"
    assert await real.rpc.number("eth_getTransactionCount", real.alice.address, "latest") == 2


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        pytest.param({"gas": 20_000}, SendWord.INVALID, id="intrinsic-gas"),
        pytest.param({"value": 10**30}, SendWord.NOT_NOW, id="funds"),
        pytest.param({"chain_id": 1}, SendWord.INVALID, id="chain-id"),
        pytest.param(
            {"max_fee_per_gas": GWEI, "max_priority_fee_per_gas": 2 * GWEI},
            SendWord.INVALID,
            id="tip-above-fee",
        ),
        pytest.param({"gas": 100_000_000_000}, SendWord.NOT_NOW, id="gas-limit"),
    ],
)
async def test_g05_what_can_never_be_mined_is_told_from_what_cannot_now(
    real: Real, fields: dict[str, Any], word: SendWord
) -> None:
    """Card G05.

    Prerequisite: none.
    Action: send one that is refused.
    Expectation: its words are read as what they prove.
    """
    raw = sign_transaction(
        real.alice, 0, to=real.bob.address, **{"chain_id": real.chain_id, **fields}
    )

    refused = await real.refusal("eth_sendRawTransaction", raw)

    assert read_refusal(refused.message) is word, refused.message


async def test_g06_a_block_that_is_not_there_is_named_as_gone(real: Real) -> None:
    """Card G06.

    Prerequisite: none.
    Action: ask for state, logs, traces and the block itself by an unknown hash.
    Expectation: errors that are read as such; null for the block and its receipts.
    """
    place = {"blockHash": UNKNOWN_HASH, "requireCanonical": True}
    for method, params in (
        ("eth_getBalance", [real.bob.address, place]),
        ("eth_getLogs", [{"blockHash": UNKNOWN_HASH}]),
        ("debug_traceBlockByHash", [UNKNOWN_HASH, {"tracer": "callTracer"}]),
    ):
        refused = await real.refusal(method, *params)
        assert says_block_gone(refused.code, refused.message), refused.message

    assert await real.rpc.call("eth_getBlockByHash", UNKNOWN_HASH, False) is None
    assert await real.rpc.call("eth_getBlockReceipts", UNKNOWN_HASH) is None
    assert await real.rpc.call("eth_getTransactionReceipt", UNKNOWN_HASH) is None


async def test_g07_a_call_that_reverts_is_told_with_code_3(real: Real) -> None:
    """Card G07.

    Prerequisite: a TestDollar.
    Action: move more than there is, by call and by estimate.
    Expectation: code 3 with the revert data.
    """
    token = await deploy_test_dollar(real.rpc, real.alice, supply=SUPPLY, chain_id=real.chain_id)
    data = "0x" + encode_call("transfer(address,uint256)", real.bob.address, 1).hex()
    message = {"from": real.carol.address, "to": token, "data": data}

    for method in ("eth_call", "eth_estimateGas"):
        refused = await real.refusal(method, message, "latest")

        assert refused.code == 3
        assert says_call_fails(refused.code, refused.message)
        assert refused.data.startswith("0x")


async def test_g08_traces_have_the_same_frames(real: Real) -> None:
    """Card G08.

    Prerequisite: a splitter.
    Action: pay through it in each of its ways.
    Expectation: the frames, with type, recipient, value and failure, that card T03 to T06 expect.
    """
    created = await real.run(0, to=None, data=load_artefact("TestSplitter").bytecode)
    contract, bob, carol = (
        created["contractAddress"],
        real.bob.address.lower(),
        real.carol.address.lower(),
    )
    shapes = []
    calls = [
        encode_call("split(address[])", [bob, carol]),
        encode_call("splitAndRevert(address[])", [bob, carol]),
        encode_call("splitWithRevertedPart(address,address)", bob, carol),
        encode_call("payByDestruction(address)", bob),
    ]
    for nonce, data in enumerate(calls, start=1):
        receipt = await real.run(nonce, to=contract, data=data, value=100)
        traces = await real.rpc.call(
            "debug_traceBlockByHash", receipt["blockHash"], {"tracer": "callTracer"}
        )
        # The one geth may have taken another test's payment into the same block.
        own = receipt["transactionHash"]
        (trace,) = [trace for trace in traces if trace["txHash"] == own]
        assert trace["result"]["gasUsed"] == receipt["gasUsed"]
        assert trace["result"]["gas"] == hex(2_000_000)
        shapes.append(shape(trace["result"]))

    paid = (("CALL", bob, 50, False), ("CALL", carol, 50, False))
    assert shapes[0] == ("CALL", contract, 100, False, *paid)
    assert shapes[1] == ("CALL", contract, 100, True, *paid)
    lost = ("CALL", contract, 50, True, paid[1])
    assert shapes[2] == ("CALL", contract, 100, False, paid[0], lost)
    ((kind, _, value, failed, heir),) = shapes[3][4:]
    assert (kind, value, failed, heir) == ("CREATE", 100, False, ("SELFDESTRUCT", bob, 100, False))


def shape(frame: dict[str, Any]) -> tuple[Any, ...]:
    return (
        frame["type"],
        frame["to"],
        int(frame.get("value", "0x0"), 16),
        "error" in frame,
        *(shape(inner) for inner in frame.get("calls", [])),
    )


async def test_g09_every_kind_of_call_is_a_frame_even_one_that_cannot_begin(real: Real) -> None:
    """Card G09.

    Prerequisite: a contract with 10 wei that makes each kind of call.
    Action: run it.
    Expectation: a frame for each in order, as card T07 expects.
    """
    nobody, identity = real.nobody.address.lower(), "0x" + "00" * 19 + "04"
    code = b""
    for instruction, to, value in (
        *((0xF1, identity, 0), (0xF1, nobody, ETHER), (0xF1, nobody, 5)),
        *((0xFA, identity, None), (0xF4, nobody, None), (0xF2, nobody, 3)),
    ):
        pushed = b"" if value is None else b"\x67" + value.to_bytes(8, "big")
        target = b"\x73" + bytes.fromhex(to[2:])
        code += b"\x5f\x5f\x5f\x5f" + pushed + target + b"\x5a" + bytes([instruction]) + b"\x50"
    creation = b"\x61" + len(code).to_bytes(2, "big") + bytes.fromhex("80600a5f395ff3") + code
    contract = (await real.run(0, to=None, data=creation))["contractAddress"]

    receipt = await real.run(1, to=contract, value=10)
    trace = await real.rpc.call(
        "debug_traceTransaction", receipt["transactionHash"], {"tracer": "callTracer"}
    )

    assert shape(trace) == (
        *("CALL", contract, 10, False),
        ("CALL", identity, 0, False),
        ("CALL", nobody, ETHER, True),
        ("CALL", nobody, 5, False),
        ("STATICCALL", identity, 0, False),
        ("DELEGATECALL", nobody, 10, False),
        ("CALLCODE", nobody, 3, False),
    )
    assert trace["calls"][1]["error"] == "insufficient balance for transfer"
    assert "value" not in trace["calls"][3]


async def test_g10_unknown_ranges_methods_and_transactions_are_errors(real: Real) -> None:
    """Card G10.

    Prerequisite: none.
    Action: an inverted log range, an unknown method, the trace of an unknown transaction.
    Expectation: an error each; the method's has code -32601.
    """
    for nonce in range(2):
        await real.run(nonce, to=real.bob.address, gas=21_000)

    await real.refusal("eth_getLogs", {"fromBlock": "0x2", "toBlock": "0x1"})
    unknown = await real.refusal("eth_nothing")
    untraced = await real.refusal("debug_traceTransaction", UNKNOWN_HASH, {"tracer": "callTracer"})

    assert unknown.code == -32601
    assert "transaction not found" in untraced.message


async def test_g11_the_fee_history_is_read(real: Real) -> None:
    """Card G11.

    Prerequisite: a block with a transfer.
    Action: ask for its fees at the highest percentile.
    Expectation: one tip, and the base fee of the block after it.
    """
    receipt = await real.run(0, to=real.bob.address, gas=21_000)

    recent = parse_history(
        await real.rpc.call("eth_feeHistory", "0x1", receipt["blockNumber"], [100])
    )

    assert len(recent.tips) == 1
    assert recent.tips[0] >= GWEI
    assert recent.next_base_fee > 0


async def test_g12_new_heads_are_announced_in_order(real: Real) -> None:
    """Card G12.

    Prerequisite: a subscription to new heads.
    Action: transfers until a head is announced, and one more.
    Expectation: two heads that link.
    """
    async with subscribe(real.session, real.ws_url, "newHeads") as heads:
        nonce, first = await first_head(real, heads)
        await real.run(nonce, to=real.bob.address, gas=21_000)
        second = await heads.next()

    assert second["parentHash"] == first["hash"]


async def first_head(real: Real, heads: Subscription) -> tuple[int, dict[str, Any]]:
    """Return Alice's next nonce and the first head that is announced.

    geth answers a subscription before it listens itself: the head of a block made at once is lost.
    """
    for nonce in range(HEADS_LOST_MAX + 1):
        await real.run(nonce, to=real.bob.address, gas=21_000)
        with suppress(TimeoutError):
            return nonce + 1, await heads.next(timeout_s=1.0)
    raise AssertionError("no head is announced")


async def test_g13_our_gateway_follows_and_pays_on_it(real: Real) -> None:
    """Card G13.

    Prerequisite: a TestDollar.
    Action: pay ether and tokens through the gateway, read the blocks, send the same bytes again.
    Expectation: movements, outcomes, balances and nonces as everywhere; bytes are known again.
    """
    token = await deploy_test_dollar(real.rpc, real.alice, supply=SUPPLY, chain_id=real.chain_id)
    watch = WatchList(frozenset({real.nobody.address}), frozenset({address_from_node(token)}))
    raws = [
        real.sign(real.alice, 1, to=real.nobody.address, value=7),
        transfer_token(
            real.alice, 2, token, to=real.nobody.address, amount=9, chain_id=real.chain_id
        ),
    ]
    async with EvmGateway(real.url, chain="evm", network_id=real.chain_id) as gateway:
        first = await gateway.head()
        before = await gateway.balance(real.nobody.address, None, at=first)
        for raw in raws:
            report = await gateway.broadcast(bytes.fromhex(raw[2:]), hash_of(raw))
            assert report.outcome is BroadcastOutcome.ACCEPTED
            await real.rpc.wait_receipt(hash_of(raw))
        last = await gateway.head()
        amounts = []
        for height in range(first.height + 1, last.height + 1):
            block = await gateway.block_at(height)
            assert block is not None
            amounts += [move.amount for move in (await gateway.contents(block, watch)).movements]
        again = await gateway.broadcast(bytes.fromhex(raws[0][2:]), hash_of(raws[0]))
        other = real.sign(real.alice, 1, to=real.nobody.address, value=8)
        foreign = await gateway.broadcast(
            bytes.fromhex(other[2:]), transaction_hash(bytes.fromhex(other[2:]))
        )
        fees = await gateway.fees()

        assert amounts == [7, 9]
        assert await gateway.balance(real.nobody.address, None, at=last) == before + 7
        assert await gateway.balance(real.nobody.address, address_from_node(token), at=last) == 9
        assert await gateway.next_nonce(real.alice.address) == 3
        assert again.outcome is BroadcastOutcome.ACCEPTED
        assert foreign.outcome is BroadcastOutcome.REJECTED
        assert hash_of(raws[0]) in foreign.detail
        assert 0 < fees.max_priority_fee_per_gas < fees.max_fee_per_gas


async def test_g14_a_batch_is_answered_with_errors_in_place(real: Real) -> None:
    """Card G14.

    Prerequisite: none.
    Action: a batch with an unknown method in it.
    Expectation: an answer for each, by id.
    """
    batch = [
        {"jsonrpc": "2.0", "id": 7, "method": "eth_chainId", "params": []},
        {"jsonrpc": "2.0", "id": 8, "method": "eth_nothing", "params": []},
    ]

    answers = {answer["id"]: answer for answer in await real.rpc.post(batch)}

    assert answers[7]["result"] == hex(real.chain_id)
    assert answers[8]["error"]["code"] == -32601


def test_every_card_has_its_number_in_order() -> None:
    names = [name for name in dir(sys.modules[__name__]) if name.startswith("test_g")]
    numbers = sorted(int(match[1]) for name in names if (match := re.match(r"test_g(\d\d)_", name)))
    text = Path(__file__).read_text(encoding="utf-8")

    assert numbers == list(range(1, len(numbers) + 1))
    for number in numbers:
        (card,) = re.findall(rf'"""Card G{number:02}\..*?"""', text, flags=re.DOTALL)
        for part in ("Prerequisite:", "Action:", "Expectation:"):
            assert part in card, f"card G{number:02} lacks {part}"
