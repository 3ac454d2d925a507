from __future__ import annotations

from typing import Any

import pytest
from eth_bloom.bloom import BloomFilter
from hypothesis import given
from hypothesis import strategies as st

from chain.errors import IncompleteAnswer, NodeTrouble, UnreadableAnswer
from chain.evm.bloom import bloom_of, may_contain
from chain.evm.erc20 import TRANSFER_TOPIC, address_word
from chain.evm.parse import (
    TIME_MAX,
    FullBlock,
    Receipt,
    check_receipts,
    contents_of,
    needs_receipts,
    parse_block,
    parse_full_block,
    parse_receipt,
)
from chain.model import UNREGISTERED_PER_BLOCK_MAX, BlockContents, Movement, WatchList

OURS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
STRANGER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
TOKEN = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
OTHER_TOKEN = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"
WATCH = WatchList(frozenset({OURS}), frozenset({TOKEN}))
BLOCK_HASH = "0x" + "b1" * 32
TX_HASH = "0x" + "aa" * 32
APPROVAL_TOPIC = "0x8c5be1e5ebec7d5bd14f71427d1e84f3dd0314c0f7b2291e5b200ac8c7c3b925"

Body = dict[str, Any]


def word(value: str | int) -> str:
    digits = f"{value:x}" if isinstance(value, int) else value[2:].lower()
    return "0x" + digits.rjust(64, "0")


def log(
    *,
    address: str = TOKEN,
    topics: list[str] | None = None,
    data: str = word(7),
    index: int = 0,
) -> Body:
    usual = [TRANSFER_TOPIC, word(STRANGER), word(OURS)]
    return {
        "address": address.lower(),
        "topics": usual if topics is None else topics,
        "data": data,
        "logIndex": hex(index),
    }


def receipt(*logs: Body, **changes: Any) -> Body:
    return {
        "transactionHash": TX_HASH,
        "blockHash": BLOCK_HASH,
        "transactionIndex": "0x0",
        "status": "0x1",
        "gasUsed": "0x5208",
        "effectiveGasPrice": "0x2",
        "contractAddress": None,
        "logs": [item | {"logIndex": hex(40 + place)} for place, item in enumerate(logs)],
        **changes,
    }


def transaction(**changes: Any) -> Body:
    return {
        "hash": TX_HASH,
        "blockHash": BLOCK_HASH,
        "transactionIndex": "0x0",
        "from": STRANGER.lower(),
        "to": OURS.lower(),
        "nonce": "0x9",
        "value": "0x5",
        **changes,
    }


def block(*transactions: Body, bloom: int = 0, **changes: Any) -> Body:
    return {
        "number": "0x10",
        "hash": BLOCK_HASH,
        "parentHash": "0x" + "b0" * 32,
        "timestamp": "0x65000000",
        "logsBloom": "0x" + bloom.to_bytes(256, "big").hex(),
        "transactions": list(transactions),
        **changes,
    }


def bloom_over(*bodies: Body) -> int:
    return bloom_of(
        bytes.fromhex(item[2:])
        for body in bodies
        for entry in body["logs"]
        for item in (entry["address"], *entry["topics"])
    )


def read(sent: Body, answered: Body, watch: WatchList = WATCH) -> BlockContents:
    """One transaction and its receipt, through everything that an answer goes through."""
    full = parse_full_block(block(sent, bloom=bloom_over(answered)), "evm")
    receipts = [parse_receipt(answered)]
    check_receipts(full, receipts)
    contents = contents_of(full, receipts, watch)
    recipients = [address_word(address) for address in watch.addresses]
    assert needs_receipts(full, watch, recipients) or contents == BlockContents(full.block)
    return contents


def test_native_value_moves_from_sender_to_recipient() -> None:
    assert read(transaction(), receipt()).movements == (
        Movement(TX_HASH, "top", STRANGER, OURS, None, 5),
    )


def test_a_failed_transaction_moves_nothing() -> None:
    assert read(transaction(), receipt(status="0x0")).movements == ()


def test_value_sent_to_a_contract_that_is_being_created_goes_to_the_contract() -> None:
    contents = read(
        transaction(**{"from": OURS.lower(), "to": None}),
        receipt(contractAddress=OTHER_TOKEN.lower()),
    )

    assert contents.movements == (Movement(TX_HASH, "top", OURS, OTHER_TOKEN, None, 5),)
    assert contents.outcomes[0].recipient is None


def test_a_log_is_named_by_its_place_among_all_logs_of_its_receipt() -> None:
    approval = log(topics=[APPROVAL_TOPIC, word(STRANGER), word(OURS)])
    foreign = log(address=OTHER_TOKEN, topics=[TRANSFER_TOPIC, word(STRANGER), word(STRANGER)])
    contents = read(
        transaction(to=OTHER_TOKEN.lower(), value="0x0"),
        receipt(approval, foreign, log(data=word(3)), approval, log(data=word(4))),
    )

    assert [(m.position, m.amount) for m in contents.movements] == [("log:2", 3), ("log:4", 4)]


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(
            log(topics=[TRANSFER_TOPIC, word(STRANGER), word(OURS), word(7)], data="0x"), id="NFT"
        ),
        pytest.param(
            log(
                topics=[TRANSFER_TOPIC],
                data=word(STRANGER) + word(OURS)[2:] + word(7)[2:],
            ),
            id="nothing indexed",
        ),
        pytest.param(
            log(topics=[TRANSFER_TOPIC, word(STRANGER)], data=word(OURS) + word(7)[2:]),
            id="half indexed",
        ),
        pytest.param(log(data="0x"), id="no amount"),
        pytest.param(log(data=word(7) + "00"), id="a byte too many"),
        pytest.param(log(data=word(0)), id="zero"),
        pytest.param(
            log(address=OTHER_TOKEN, topics=[TRANSFER_TOPIC, word(OURS), word(STRANGER)]),
            id="forged: what we sent of a contract that is not registered",
        ),
        pytest.param(
            log(address=OTHER_TOKEN, topics=[TRANSFER_TOPIC, word(OURS), word(OURS)]),
            id="forged: from us to us of a contract that is not registered",
        ),
        pytest.param(log(topics=[APPROVAL_TOPIC, word(STRANGER), word(OURS)]), id="approval"),
        pytest.param(
            log(topics=[TRANSFER_TOPIC, word(STRANGER), "0x01" + word(OURS)[4:]]),
            id="dirty address",
        ),
        pytest.param(log(topics=[]), id="anonymous"),
        pytest.param(
            log(topics=[TRANSFER_TOPIC, word(STRANGER), word(STRANGER)]), id="between strangers"
        ),
    ],
)
def test_events_that_are_no_erc20_transfer_of_ours_are_left_out(odd: Body) -> None:
    contents = read(transaction(to=TOKEN.lower(), value="0x0"), receipt(odd, log(data=word(9))))

    assert [(m.position, m.amount) for m in contents.movements] == [("log:1", 9)]


def test_a_token_that_is_not_registered_is_shown_with_its_contract() -> None:
    contents = read(transaction(value="0x0"), receipt(log(address=OTHER_TOKEN)))

    assert [(m.position, m.contract, m.recipient) for m in contents.movements] == [
        ("log:0", OTHER_TOKEN, OURS)
    ]
    assert contents.left_out == 0


def test_a_block_shows_a_bounded_number_of_tokens_that_are_not_registered() -> None:
    spam = [log(address=OTHER_TOKEN)] * (UNREGISTERED_PER_BLOCK_MAX + 5)

    contents = read(transaction(value="0x0"), receipt(*spam, log(data=word(9))))

    assert len(contents.movements) == UNREGISTERED_PER_BLOCK_MAX + 1
    assert (contents.movements[-1].contract, contents.movements[-1].amount) == (TOKEN, 9)
    assert contents.left_out == 5


def test_receipts_are_asked_for_when_the_filter_knows_a_recipient_of_ours() -> None:
    odd = log(address=OTHER_TOKEN)
    full = parse_full_block(
        block(transaction(to=STRANGER.lower()), bloom=bloom_over(receipt(odd))), "evm"
    )

    assert not needs_receipts(full, WATCH)
    assert needs_receipts(full, WATCH, [address_word(OURS)])
    assert not needs_receipts(full, WATCH, [address_word(TOKEN)])


def test_the_largest_amount_a_token_can_name_is_read() -> None:
    contents = read(transaction(value="0x0"), receipt(log(data="0x" + "ff" * 32)))

    assert contents.movements[0].amount == 2**256 - 1


def test_what_we_sent_has_an_outcome_even_when_it_failed() -> None:
    ours = transaction(**{"from": OURS.lower(), "to": TOKEN.lower()})

    (outcome,) = read(ours, receipt(status="0x0")).outcomes

    assert (outcome.sender, outcome.nonce, outcome.recipient) == (OURS, 9, TOKEN)
    assert (outcome.succeeded, outcome.fee) == (False, 42_000)


def test_the_fee_includes_blobs_and_what_a_rollup_charges() -> None:
    body = receipt(blobGasUsed="0x20000", blobGasPrice="0x3", l1Fee="0x64")

    assert parse_receipt(body).fee == 42_000 + 0x20000 * 3 + 100


def test_strangers_have_no_outcome() -> None:
    assert read(transaction(), receipt()).outcomes == ()


def test_logs_that_are_missing_are_noticed_by_the_blocks_filter() -> None:
    full = parse_full_block(block(transaction(), bloom=bloom_over(receipt(log()))), "evm")

    with pytest.raises(IncompleteAnswer, match="not all of its logs"):
        check_receipts(full, [parse_receipt(receipt())])


def test_logs_that_are_invented_are_noticed_by_the_blocks_filter() -> None:
    full = parse_full_block(block(transaction()), "evm")

    with pytest.raises(IncompleteAnswer, match="not all of its logs"):
        check_receipts(full, [parse_receipt(receipt(log()))])


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [receipt(), receipt()],
        [receipt(transactionHash="0x" + "cc" * 32)],
        [receipt(blockHash="0x" + "cc" * 32)],
        [receipt(transactionIndex="0x1")],
    ],
)
def test_receipts_that_are_not_the_blocks_are_refused(answers: list[Body]) -> None:
    full = parse_full_block(block(transaction()), "evm")

    with pytest.raises(IncompleteAnswer):
        check_receipts(full, [parse_receipt(body) for body in answers])


@pytest.mark.parametrize(
    ("changes", "watch", "asked"),
    [
        ({}, WATCH, True),
        ({"value": "0x0"}, WATCH, False),
        ({"to": STRANGER.lower()}, WATCH, False),
        ({"from": OURS.lower(), "to": STRANGER.lower(), "value": "0x0"}, WATCH, True),
        ({"to": STRANGER.lower(), "logs": True}, WATCH, True),
        (
            {"to": STRANGER.lower(), "logs": True},
            WatchList(frozenset({OURS}), frozenset({OTHER_TOKEN})),
            False,
        ),
    ],
)
def test_receipts_are_asked_for_when_the_block_may_hold_something(
    changes: Body, watch: WatchList, *, asked: bool
) -> None:
    bloom = bloom_over(receipt(log())) if "logs" in changes else 0
    full = parse_full_block(block(transaction(**changes), bloom=bloom), "evm")

    assert needs_receipts(full, watch) is asked


def without(body: Body, key: str) -> Body:
    return {name: value for name, value in body.items() if name != key}


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "0x1",
        *(without(block(), key) for key in ("number", "hash", "parentHash", "timestamp")),
        block(hash=None),
        block(hash="0x12"),
        block(number="16"),
        block(number=16),
        block(number="0x"),
        block(timestamp=hex(TIME_MAX + 1)),
        block(timestamp="0x" + "f" * 20),
        block(number=hex(2**63)),
        block(number="0x" + "1" * 65),
    ],
)
def test_blocks_out_of_form_prove_nothing(answer: object) -> None:
    with pytest.raises(UnreadableAnswer):
        parse_block(answer, "evm")


@pytest.mark.parametrize(
    "answer",
    [
        block(TX_HASH),  # type: ignore[arg-type]  # as a node answers that gives hashes only
        block(transaction(blockHash="0x" + "cc" * 32)),
        block(transaction(blockHash=None)),
        block(transaction(transactionIndex="0x1")),
        block(transaction(to="0x12")),
        block(transaction(value="5")),
        block(transaction(nonce=hex(2**63))),
        block(logsBloom="0xzz"),
        without(block(), "transactions"),
    ],
)
def test_transactions_out_of_form_prove_nothing(answer: object) -> None:
    with pytest.raises(NodeTrouble):
        parse_full_block(answer, "evm")


@pytest.mark.parametrize(
    "answer",
    [
        None,
        *(without(receipt(), key) for key in ("status", "logs", "gasUsed", "effectiveGasPrice")),
        receipt(status="0x2"),
        receipt(status=None),
        receipt(gasUsed="0x" + "f" * 64),
        receipt(log(), status="0x0"),
        receipt(log()) | {"logs": [log(index=1), log(index=3)]},
        receipt(log(data="0x1")),
        receipt(log(address="0x12")),
    ],
)
def test_receipts_out_of_form_prove_nothing(answer: object) -> None:
    with pytest.raises(NodeTrouble):
        parse_receipt(answer)


@given(st.lists(st.binary(min_size=20, max_size=32), max_size=20))
def test_filters_are_those_of_another_library(items: list[bytes]) -> None:
    ours = bloom_of(items)

    assert ours == int(BloomFilter.from_iterable(items))
    assert all(may_contain(ours, item) for item in items)


def test_a_filter_does_not_know_what_was_not_put_in() -> None:
    assert not may_contain(bloom_of([b"\1" * 20]), b"\2" * 20)


def test_the_latest_and_highest_block_that_can_be_stored_is_read() -> None:
    body = block(timestamp=hex(TIME_MAX), number=hex(2**63 - 1))

    assert parse_block(body, "evm").time.year == 9999


def test_a_block_without_transactions_needs_no_receipts() -> None:
    full = parse_full_block(block(), "evm")

    assert isinstance(full, FullBlock)
    assert not needs_receipts(full, WATCH)
    receipts: list[Receipt] = []
    check_receipts(full, receipts)
    assert contents_of(full, receipts, WATCH) == BlockContents(full.block)
