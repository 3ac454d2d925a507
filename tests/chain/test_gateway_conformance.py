"""What every implementation of `ChainGateway` must do, on whatever chain."""

from __future__ import annotations

from datetime import UTC

import pytest

from chain.errors import BlockGone, CallReverted
from chain.evm.transactions import erc20_transfer_data, transaction_hash
from chain.model import (
    Block,
    BroadcastOutcome,
    BroadcastReport,
    CallResult,
    Movement,
    PendingMovement,
    WatchList,
)
from chain.simulators.testing import dev_account, sign_transaction, transfer_token
from tests.chain.conftest import ETHER, TOKENS, Stage

ANN, BOB, CAROL = (dev_account(index) for index in (0, 1, 5))
GWEI = 10**9


async def send(stage: Stage, raw: str) -> BroadcastReport:
    return await stage.gateway.broadcast(bytes.fromhex(raw[2:]), hash_of(raw))


def hash_of(raw: str) -> str:
    return transaction_hash(bytes.fromhex(raw[2:]))


def watch(stage: Stage, *addresses: str) -> WatchList:
    return WatchList(frozenset(addresses or {CAROL.address}), frozenset({stage.token}))


async def mine(stage: Stage, *raws: str) -> Block:
    """Send and mine, and return the block."""
    for raw in raws:
        assert (await send(stage, raw)).outcome is BroadcastOutcome.ACCEPTED
    await stage.mine()
    return await stage.gateway.head()


async def test_every_block_names_the_one_before_and_is_found_by_height(stage: Stage) -> None:
    await stage.mine()
    head = await stage.gateway.head()
    below = await stage.gateway.block_at(head.height - 1)

    assert below is not None
    assert head.parent == below.hash
    assert await stage.gateway.block_at(head.height) == head
    assert await stage.gateway.block_at(head.height + 1) is None
    assert head.time.tzinfo is UTC
    assert head.chain == "evm"


async def test_a_native_and_a_token_payment_are_seen_with_sender_recipient_and_amount(
    stage: Stage,
) -> None:
    native = sign_transaction(ANN, 0, to=CAROL.address, value=3 * ETHER)
    token = transfer_token(BOB, 0, stage.token, to=CAROL.address, amount=250)
    block = await mine(stage, native, token)

    contents = await stage.gateway.contents(block, watch(stage))

    assert contents.block == block
    assert set(contents.movements) == {
        Movement(hash_of(native), "top", ANN.address, CAROL.address, None, 3 * ETHER),
        Movement(hash_of(token), "log:0", BOB.address, CAROL.address, stage.token, 250),
    }
    assert contents.outcomes == ()


async def test_what_we_send_has_an_outcome_with_nonce_and_fee(stage: Stage) -> None:
    raw = transfer_token(ANN, 0, stage.token, to=CAROL.address, amount=1)
    before = await stage.gateway.balance(ANN.address, None, at=await stage.gateway.head())
    block = await mine(stage, raw)

    contents = await stage.gateway.contents(block, watch(stage, ANN.address))

    (outcome,) = contents.outcomes
    after = await stage.gateway.balance(ANN.address, None, at=block)
    assert (outcome.tx_hash, outcome.sender, outcome.nonce) == (hash_of(raw), ANN.address, 0)
    assert (outcome.succeeded, outcome.recipient) == (True, stage.token)
    assert outcome.fee == before - after > 0
    assert await stage.gateway.find_transaction(hash_of(raw)) == outcome


async def test_a_failed_transaction_moves_nothing_and_costs_its_fee(stage: Stage) -> None:
    raw = transfer_token(ANN, 0, stage.token, to=CAROL.address, amount=10 * TOKENS)
    before = await stage.gateway.balance(ANN.address, None, at=await stage.gateway.head())
    block = await mine(stage, raw)

    contents = await stage.gateway.contents(block, watch(stage, ANN.address, CAROL.address))

    (outcome,) = contents.outcomes
    assert contents.movements == ()
    assert not outcome.succeeded
    after = await stage.gateway.balance(ANN.address, None, at=block)
    assert outcome.fee == before - after > 0


async def test_a_token_that_is_not_registered_is_shown_where_it_comes_in(stage: Stage) -> None:
    block = await mine(stage, transfer_token(ANN, 0, stage.token, to=CAROL.address, amount=9))

    contents = await stage.gateway.contents(
        block, WatchList(frozenset({CAROL.address}), frozenset())
    )
    (movement,) = contents.movements
    assert (movement.contract, movement.recipient, movement.amount) == (
        stage.token,
        CAROL.address,
        9,
    )
    for addresses in ({ANN.address}, {ANN.address, CAROL.address}):
        watch_of = WatchList(frozenset(addresses), frozenset())
        assert (await stage.gateway.contents(block, watch_of)).movements == ()


async def test_a_run_shows_a_token_that_is_not_registered_as_well(stage: Stage) -> None:
    first = await mine(stage, transfer_token(ANN, 0, stage.token, to=CAROL.address, amount=9))
    last = await mine(stage)

    run = await stage.gateway.contents_of_range(
        first, last, WatchList(frozenset({CAROL.address}), frozenset())
    )

    assert [[m.amount for m in contents.movements] for contents in run] == [[9], []]


async def test_a_payment_of_nothing_is_no_movement(stage: Stage) -> None:
    block = await mine(stage, sign_transaction(ANN, 0, to=CAROL.address, value=0))

    contents = await stage.gateway.contents(block, watch(stage, ANN.address, CAROL.address))

    assert contents.movements == ()
    assert len(contents.outcomes) == 1


async def test_balances_are_those_after_the_block_asked_for(stage: Stage) -> None:
    first = await mine(stage, transfer_token(ANN, 0, stage.token, to=CAROL.address, amount=4))
    second = await mine(stage, transfer_token(ANN, 1, stage.token, to=CAROL.address, amount=5))
    third = await mine(stage, sign_transaction(ANN, 2, to=CAROL.address, value=6))

    async def tokens(at: Block) -> int:
        return await stage.gateway.balance(CAROL.address, stage.token, at=at)

    async def wei(at: Block) -> int:
        return await stage.gateway.balance(CAROL.address, None, at=at)

    assert [await tokens(block) for block in (first, second, third)] == [4, 9, 9]
    assert await wei(third) - await wei(second) == 6


async def test_an_orphaned_block_has_no_balances_any_more(stage: Stage) -> None:
    block = await mine(stage, sign_transaction(ANN, 0, to=CAROL.address, value=6))
    await stage.reorg(1)

    with pytest.raises(BlockGone):
        await stage.gateway.balance(CAROL.address, None, at=block)


async def test_a_payment_mined_again_elsewhere_is_the_same_movement(stage: Stage) -> None:
    ours = transfer_token(ANN, 0, stage.token, to=CAROL.address, amount=7)
    before = await mine(stage, ours)
    first = (await stage.gateway.contents(before, watch(stage))).movements
    other = transfer_token(BOB, 0, stage.token, to=ANN.address, amount=1)
    await stage.reorg(1, [(other, 0), (ours, 0)])
    after = await stage.gateway.head()

    again = (await stage.gateway.contents(after, watch(stage))).movements

    assert after.height == before.height
    assert after.hash != before.hash
    assert first == again
    assert [m.position for m in again] == ["log:0"]


async def test_after_a_reorganisation_the_same_height_has_another_hash(stage: Stage) -> None:
    await stage.mine()
    await stage.mine()
    old = await stage.gateway.head()
    await stage.reorg(2)

    new = await stage.gateway.block_at(old.height)

    assert new is not None
    assert new.hash != old.hash


async def test_bytes_that_the_node_has_already_are_accepted_again(stage: Stage) -> None:
    raw = sign_transaction(ANN, 0, to=CAROL.address, value=1)

    first = await send(stage, raw)
    waiting = await send(stage, raw)
    await stage.mine()
    mined = await send(stage, raw)

    assert {first.outcome, waiting.outcome, mined.outcome} == {BroadcastOutcome.ACCEPTED}


async def test_a_nonce_that_another_transaction_spent_is_a_rejection_that_names_it(
    stage: Stage,
) -> None:
    other = sign_transaction(ANN, 0, to=BOB.address, value=1)
    await mine(stage, other)
    await stage.mine()

    report = await send(stage, sign_transaction(ANN, 0, to=CAROL.address, value=2))

    assert report.outcome is BroadcastOutcome.REJECTED
    assert hash_of(other) in report.detail


async def test_too_little_money_for_now_is_not_a_rejection(stage: Stage) -> None:
    poor = dev_account(0)
    raw = sign_transaction(poor, 0, to=CAROL.address, value=1_000_000 * ETHER)

    assert (await send(stage, raw)).outcome is BroadcastOutcome.UNKNOWN


async def test_bytes_for_another_chain_are_rejected_and_never_sent(stage: Stage) -> None:
    raw = sign_transaction(ANN, 0, to=CAROL.address, value=1, chain_id=1)

    report = await send(stage, raw)
    await stage.mine()

    assert report.outcome is BroadcastOutcome.REJECTED
    assert await stage.gateway.next_nonce(ANN.address) == 0


async def test_bytes_under_a_wrong_hash_are_rejected(stage: Stage) -> None:
    raw = sign_transaction(ANN, 0, to=CAROL.address, value=1)

    report = await stage.gateway.broadcast(bytes.fromhex(raw[2:]), "0x" + "ab" * 32)

    assert report.outcome is BroadcastOutcome.REJECTED


async def test_the_next_nonce_counts_what_is_mined_not_what_waits(stage: Stage) -> None:
    await mine(stage, sign_transaction(ANN, 0, to=CAROL.address, value=1))
    await send(stage, sign_transaction(ANN, 1, to=CAROL.address, value=1))

    assert await stage.gateway.next_nonce(ANN.address) == 1


async def test_a_transaction_in_no_block_has_no_outcome(stage: Stage) -> None:
    raw = sign_transaction(ANN, 0, to=CAROL.address, value=1)
    await send(stage, raw)

    assert await stage.gateway.find_transaction(hash_of(raw)) is None


async def test_the_fees_quoted_get_a_transaction_mined(stage: Stage) -> None:
    quote = await stage.gateway.fees()
    raw = sign_transaction(
        ANN,
        0,
        to=CAROL.address,
        value=1,
        max_fee_per_gas=quote.max_fee_per_gas,
        max_priority_fee_per_gas=quote.max_priority_fee_per_gas,
    )
    await mine(stage, raw)

    assert quote.max_fee_per_gas > quote.max_priority_fee_per_gas >= 0
    assert await stage.gateway.find_transaction(hash_of(raw)) is not None


async def test_gas_is_estimated_for_a_call_that_works(stage: Stage) -> None:
    native = await stage.gateway.estimate_gas(
        sender=ANN.address, recipient=CAROL.address, value=ETHER
    )
    token = await stage.gateway.estimate_gas(
        sender=ANN.address, recipient=stage.token, data=erc20_transfer_data(CAROL.address, 5)
    )

    assert native == 21_000
    assert 21_000 < token < 100_000


async def test_a_call_that_would_fail_is_refused_before_it_is_sent(stage: Stage) -> None:
    with pytest.raises(CallReverted):
        await stage.gateway.estimate_gas(
            sender=CAROL.address,
            recipient=stage.token,
            data=erc20_transfer_data(ANN.address, 5),
        )


async def test_finality_lies_at_or_below_the_head(stage: Stage) -> None:
    head = await stage.gateway.head()

    assert 0 <= await stage.gateway.finalized_height() <= head.height


async def test_the_chain_id_is_the_configured_one(stage: Stage) -> None:
    assert await stage.gateway.chain_id() == 31337


async def test_a_range_holds_what_its_blocks_hold_one_by_one(stage: Stage) -> None:
    first = await mine(stage, sign_transaction(ANN, 0, to=CAROL.address, value=3))
    await stage.mine()
    await mine(stage, transfer_token(BOB, 0, stage.token, to=CAROL.address, amount=4))
    await mine(stage, transfer_token(BOB, 1, stage.token, to=ANN.address, amount=5))
    last = await mine(stage, sign_transaction(BOB, 2, to=ANN.address, value=6))
    ours = watch(stage, CAROL.address, BOB.address)

    run = await stage.gateway.contents_of_range(first, last, ours)

    assert [contents.block for contents in (run[0], run[-1])] == [first, last]
    assert run == [await stage.gateway.contents(item.block, ours) for item in run]
    assert [sum(m.amount for m in item.movements) for item in run] == [3, 0, 4, 5, 6]
    assert [len(item.outcomes) for item in run] == [0, 0, 1, 1, 1]


async def test_a_range_that_ends_on_a_block_that_is_gone_is_trouble(stage: Stage) -> None:
    first = await mine(stage)
    last = await mine(stage, sign_transaction(ANN, 0, to=CAROL.address, value=1))
    await stage.reorg(1)

    with pytest.raises(BlockGone):
        await stage.gateway.contents_of_range(first, last, watch(stage))


async def test_what_waits_for_us_is_shown_and_says_what_would_replace_it(stage: Stage) -> None:
    native = sign_transaction(ANN, 0, to=CAROL.address, value=3)
    token = transfer_token(BOB, 0, stage.token, to=CAROL.address, amount=4)
    other = transfer_token(BOB, 1, stage.token, to=ANN.address, amount=5)
    for raw in (native, token, other):
        await send(stage, raw)

    found = await stage.gateway.pending(watch(stage))

    assert sorted(found, key=lambda item: item.amount) == [
        PendingMovement(hash_of(native), ANN.address, 0, CAROL.address, None, 3),
        PendingMovement(hash_of(token), BOB.address, 0, CAROL.address, stage.token, 4),
    ]
    await stage.mine()
    assert await stage.gateway.pending(watch(stage)) == ()


async def test_several_are_sent_at_once_and_each_has_its_own_answer(stage: Stage) -> None:
    good = [sign_transaction(ANN, nonce, to=CAROL.address, value=1) for nonce in range(3)]
    foreign = sign_transaction(ANN, 3, to=CAROL.address, value=1, chain_id=1)
    poor = sign_transaction(BOB, 0, to=CAROL.address, value=1_000_000 * ETHER)
    items = [(bytes.fromhex(raw[2:]), hash_of(raw)) for raw in (good[0], foreign, good[1], poor)]
    last = [(bytes.fromhex(good[2][2:]), hash_of(good[2]))]

    reports = await stage.gateway.broadcast_many([*items, *items[:1], *last])
    await stage.mine()

    accepted, rejected, unknown = (
        BroadcastOutcome.ACCEPTED,
        BroadcastOutcome.REJECTED,
        BroadcastOutcome.UNKNOWN,
    )
    found = [report.outcome for report in reports]
    assert found == [accepted, rejected, accepted, unknown, accepted, accepted]
    assert await stage.gateway.next_nonce(ANN.address) == 3


async def test_code_is_where_contracts_are(stage: Stage) -> None:
    assert await stage.gateway.code_at(stage.token)
    assert await stage.gateway.code_at(CAROL.address) == b""


async def test_a_call_is_tried_out_without_being_sent(stage: Stage) -> None:
    async def transfer(sender: str) -> CallResult:
        return await stage.gateway.simulate(
            sender=sender, recipient=stage.token, data=erc20_transfer_data(ANN.address, 5)
        )

    assert await transfer(BOB.address) == CallResult(True, (1).to_bytes(32, "big"))
    refused = await transfer(CAROL.address)
    assert (refused.succeeded, refused.returned) == (False, b"")
    assert refused.revert


async def test_every_node_counts_for_itself_and_only_for_the_blocks_it_has(stage: Stage) -> None:
    block = await mine(stage, sign_transaction(ANN, 0, to=CAROL.address, value=1))
    heads = await stage.gateway.heads()

    assert [(head.block, head.trouble) for head in heads] == [(block, "")] * len(heads)
    assert 1 <= stage.gateway.quorum <= len(heads)
    assert await stage.gateway.has_block(block) == len(heads)
    await stage.reorg(1)
    assert await stage.gateway.has_block(block) == 0
