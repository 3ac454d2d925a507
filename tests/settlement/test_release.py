"""Value only against value, the paying wallet, failed payments and further attempts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.payout_model import PayoutState
from custody.payouts import list_payouts
from kernel.events import list_history
from ledger.accounts import set_frozen
from registry.model import Role
from registry.testing import USDT, change, operator
from settlement.errors import NotCovered, NotReleasable
from settlement.model import Direction, Instruction, InstructionState, Run, RunState
from settlement.release import releasable, reschedule
from tests.settlement.desk import ACME_WALLET, BOOK, CONFIRMATIONS, ELSEWHERE, FINAL, Desk, refusal
from trading.terms.errors import NoStandingInstruction
from trading.terms.model import Rail

NOW = datetime(2026, 1, 5, tzinfo=UTC)
PAY, RECEIVE = Direction.PAY, Direction.RECEIVE
S = InstructionState


def item(
    number: int, party: str, direction: Direction, state: S, rail: Rail = Rail.EVM
) -> Instruction:
    return Instruction(
        id=UUID(int=number),
        run_id=UUID(int=99),
        party=party,
        asset="ETH",
        direction=direction,
        amount=5,
        applied=5 if state is S.FINAL else 0,
        rail=rail,
        state=state,
        attempt=1,
        payout_id=None,
        standing_version=None,
        evidence="",
        created_at=NOW,
    )


@pytest.mark.parametrize(
    ("story", "items", "expected"),
    [
        ("nothing is owed to the desk", [item(1, "a", PAY, S.PLANNED)], [1]),
        (
            "the party's payment is awaited",
            [item(1, "a", PAY, S.PLANNED), item(2, "a", RECEIVE, S.RELEASED)],
            [],
        ),
        (
            "the party's payment is not even awaited",
            [item(1, "a", PAY, S.PLANNED), item(2, "a", RECEIVE, S.PLANNED)],
            [],
        ),
        (
            "one of two payments of the party is open",
            [
                item(1, "a", PAY, S.PLANNED),
                item(2, "a", RECEIVE, S.FINAL),
                item(3, "a", RECEIVE, S.RELEASED),
            ],
            [],
        ),
        (
            "the party has paid",
            [item(1, "a", PAY, S.PLANNED), item(2, "a", RECEIVE, S.FINAL)],
            [1],
        ),
        (
            "another party has not paid",
            [item(1, "a", PAY, S.PLANNED), item(2, "b", RECEIVE, S.RELEASED)],
            [1],
        ),
        ("it is released already", [item(1, "a", PAY, S.RELEASED)], []),
        ("it is final", [item(1, "a", PAY, S.FINAL)], []),
        ("it failed", [item(1, "a", PAY, S.FAILED)], []),
        ("it is rescheduled", [item(1, "a", PAY, S.RESCHEDULED)], [1]),
        ("it is settled by book", [item(1, "a", PAY, S.PLANNED, Rail.BOOK)], []),
        ("it is to be received", [item(1, "a", RECEIVE, S.PLANNED)], []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_may_leave(story: str, items: list[Instruction], expected: list[int]) -> None:
    assert [i.id.int for i in releasable(items)] == expected


async def ready(
    desk: Desk, *, payee: str = ACME_WALLET, **deal: object
) -> tuple[Run, Instruction, Instruction]:
    """A released run in which acme owes 30,300 USDT and is owed 10 ETH; the desk has 20."""
    await desk.agree("acme")
    await desk.instruct("acme", "ETH", payee)
    await desk.capital(("custody:house-hot", "equity:capital", "20", "ETH"))
    await desk.deal("sold", **deal)
    run = await desk.released()
    items = await desk.instructions(run.id)
    return run, items["acme ETH"], items["acme USDT"]


async def paid_in(desk: Desk, *, payee: str = ACME_WALLET) -> tuple[Run, Instruction]:
    """`ready`, and acme has paid."""
    run, ours, _ = await ready(desk, payee=payee)
    await desk.receive(USDT.parse("30300"))
    await desk.match()
    return run, ours


async def test_nothing_leaves_before_the_receipt_is_final_and_matched(desk: Desk) -> None:
    _, ours, _ = await ready(desk)

    assert "acme still owes 30300000000 of USDT" in await refusal(desk.pay(ours))
    desk.gateway.mine(desk.transaction(desk.settlement["acme"], USDT.parse("30300")))
    await desk.follow()
    assert await desk.match() is None
    assert "still owes" in await refusal(desk.pay(ours))
    await desk.mine(CONFIRMATIONS)
    # Final in custody is not enough: it has to be known what it pays.
    assert "still owes" in await refusal(desk.pay(ours))
    await desk.match()
    await desk.pay(ours)


async def test_nothing_leaves_before_the_run_is_released(desk: Desk) -> None:
    await desk.buys("bought", amount="1")
    await desk.instruct("acme", "USDT", ACME_WALLET)
    run, _ = await desk.calculate()
    await desk.affirm_all(run.id)
    await desk.seal(run.id)
    ours = (await desk.instructions(run.id))["acme USDT"]

    assert "is sealed. Only a released run pays" in await refusal(desk.pay(ours))


async def test_a_wallet_of_clients_does_not_pay_what_the_desk_owes(desk: Desk) -> None:
    _, ours = await paid_in(desk)
    await desk.capital(("custody:client-pool", "client:birch", "50", "ETH"))

    assert "owned by client and cannot pay a payable" in await refusal(
        desk.pay(ours, wallet="client-pool")
    )
    assert (await desk.states(ours.run_id))["acme ETH"] == "planned"


@pytest.mark.parametrize(
    ("wallet", "short"), [("house-hot", "2.042 ETH"), ("house-settlement", "10 ETH")]
)
async def test_a_wallet_that_is_short_is_named_with_what_it_lacks(
    desk: Desk, wallet: str, short: str
) -> None:
    await desk.agree("acme")
    await desk.instruct("acme", "ETH", ACME_WALLET)
    await desk.capital(("custody:house-hot", "equity:capital", "8", "ETH"))
    await desk.deal("sold")
    run = await desk.released()
    await desk.receive(USDT.parse("30300"))
    await desk.match()
    ours = (await desk.instructions(run.id))["acme ETH"]

    with pytest.raises(NotCovered, match=f"{wallet} is short of {short}"):
        await desk.pay(ours, wallet=wallet)


async def test_a_party_without_a_standing_instruction_is_not_paid(desk: Desk) -> None:
    await desk.agree("acme")
    await desk.capital(("custody:house-hot", "equity:capital", "20", "ETH"))
    await desk.deal("sold")
    run = await desk.released()
    await desk.receive(USDT.parse("30300"))
    await desk.match()
    ours = (await desk.instructions(run.id))["acme ETH"]

    with pytest.raises(NoStandingInstruction, match="acme has no standing instruction for ETH"):
        await desk.pay(ours)


async def test_an_address_that_is_not_allowed_is_not_paid(desk: Desk) -> None:
    _, ours = await paid_in(desk, payee=ELSEWHERE)

    assert "not an allowed destination of acme" in await refusal(desk.pay(ours))
    assert (await desk.states(ours.run_id))["acme ETH"] == "planned"


async def test_an_address_that_changed_after_the_deal_is_not_paid(desk: Desk) -> None:
    _, ours = await paid_in(desk)
    await desk.redirect("acme", "ETH", ELSEWHERE)

    said = await refusal(desk.pay(ours))
    assert "by evm, version 2, and the deals" in said
    assert "were made under evm, version 1" in said
    assert (await desk.states(ours.run_id))["acme ETH"] == "planned"


async def test_the_payout_remembers_the_version_that_it_was_made_from(desk: Desk) -> None:
    run, ours = await paid_in(desk)
    payout_id = await desk.pay(ours)
    await desk.redirect("acme", "ETH", ELSEWHERE)

    payout = await desk.payout(payout_id)
    assert (payout.destination, payout.client_ref) == (ACME_WALLET, f"settlement/{ours.id}/1")
    assert (await desk.instructions(run.id))["acme ETH"].standing_version == 1


async def again(desk: Desk, ours: Instruction) -> Instruction:
    return await desk.do(
        lambda conn: reschedule(
            conn,
            ours.run_id,
            ours.id,
            by=desk.operators["ada"],
            reason="try once more",
            now=desk.now,
        )
    )


async def fail_on_chain(desk: Desk) -> None:
    """What waits in the pool is mined, fails, and is final."""
    (tx_hash,) = desk.gateway.pool
    waiting = desk.gateway._pool[tx_hash]
    desk.gateway.mine(replace(waiting, succeeded=False, tx_hash=tx_hash))
    await desk.mine(FINAL)


async def test_a_rejected_payout_fails_its_instruction_which_is_paid_at_the_next_attempt(
    desk: Desk,
) -> None:
    run, ours = await paid_in(desk)
    first = await desk.pay(ours)
    await desk.reject(first)

    assert (await desk.finality(run.id)).state is RunState.RELEASED
    assert (await desk.states(run.id))["acme ETH"] == "failed"
    assert "is failed" in await refusal(desk.pay(ours))
    assert (await again(desk, ours)).attempt == 2
    assert (await again(desk, ours)).attempt == 2
    second = await desk.pay(ours)
    assert second != first
    assert (await desk.payout(second)).client_ref == f"settlement/{ours.id}/2"
    await desk.send(second)
    await desk.mine(CONFIRMATIONS)
    assert (await desk.finality(run.id)).state is RunState.FINAL

    assert await desk.books("payable", "in-flight") == {}
    names = [
        e.name for e in await desk.do(lambda c: list_history(c, "settlement-instruction", ours.id))
    ]
    assert names == [
        "InstructionPlanned",
        "InstructionReleased",
        "InstructionFailed",
        "InstructionRescheduled",
        "InstructionReleased",
        "InstructionFinal",
    ]


async def test_a_payment_that_fails_on_chain_is_owed_again_and_paid_again(desk: Desk) -> None:
    run, ours = await paid_in(desk)
    first = await desk.pay(ours)
    await desk.send(first)
    await fail_on_chain(desk)
    assert (await desk.payout(first)).state is PayoutState.FAILED_ON_CHAIN
    assert (await desk.books("payable"))["payable:acme:netted ETH"] == "10"

    await desk.finality(run.id)
    await again(desk, ours)
    second = await desk.pay(ours)
    await desk.send(second)
    await desk.mine(CONFIRMATIONS)

    assert (await desk.finality(run.id)).state is RunState.FINAL
    assert await desk.books("payable", "in-flight", "transit") == {}


async def test_a_payout_that_the_ledger_does_not_reserve_fails_its_instruction(desk: Desk) -> None:
    run, ours = await paid_in(desk)

    async def freeze(conn: AsyncConnection, *, frozen: bool) -> None:
        await set_frozen(
            conn,
            BOOK,
            "payable:acme:netted",
            "ETH",
            frozen=frozen,
            reason="an inquiry",
            now=desk.now,
        )

    await desk.do(partial(freeze, frozen=True))
    first = await desk.pay(ours)
    assert (await desk.payout(first)).state is PayoutState.REJECTED
    await desk.finality(run.id)
    assert (await desk.states(run.id))["acme ETH"] == "failed"

    await desk.do(partial(freeze, frozen=False))
    await again(desk, ours)
    assert (await desk.payout(await desk.pay(ours))).state is PayoutState.PENDING_APPROVAL


async def test_only_what_failed_is_rescheduled(desk: Desk) -> None:
    _, ours = await paid_in(desk)
    assert "is planned, not failed" in await refusal(again(desk, ours))
    await desk.pay(ours)
    assert "is released, not failed" in await refusal(again(desk, ours))


async def test_no_further_attempt_while_the_last_one_may_still_pay(desk: Desk) -> None:
    """A payout that failed for good and was reorganised is in security hold: people must look."""
    run, ours = await paid_in(desk)
    first = await desk.pay(ours)
    await desk.send(first)
    await fail_on_chain(desk)
    await desk.finality(run.id)
    await again(desk, ours)
    desk.reorg_depth_max = 2 * FINAL
    desk.gateway.rollback(FINAL + 1)
    for _ in range(FINAL + 2):
        desk.gateway.mine()
    await desk.follow()
    assert (await desk.payout(first)).state is PayoutState.SECURITY_HOLD

    with pytest.raises(NotReleasable, match="is security_hold and may still pay"):
        await desk.pay(ours)

    assert len(await desk.do(lambda conn: list_payouts(conn, book=BOOK))) == 1


async def test_a_payment_that_is_only_mined_is_not_final(desk: Desk) -> None:
    run, ours = await paid_in(desk)
    await desk.send(await desk.pay(ours))
    await desk.mine(1)

    assert (await desk.finality(run.id)).state is RunState.RELEASED
    assert (await desk.states(run.id))["acme ETH"] == "released"


@pytest.mark.parametrize("verb", ["seal", "release", "pay", "reschedule"])
async def test_only_a_treasurer_moves_value(desk: Desk, verb: str) -> None:
    _, ours = await paid_in(desk)
    desk.operators["ada"] = desk.operators["dan"]
    acts: dict[str, Callable[[], Awaitable[object]]] = {
        "seal": lambda: desk.seal(ours.run_id),
        "release": lambda: desk.release(ours.run_id),
        "pay": lambda: desk.pay(ours),
        "reschedule": lambda: again(desk, ours),
    }
    act = acts[verb]

    assert "dan is not treasurer" in await refusal(act())


async def test_who_was_a_treasurer_is_asked_again_at_every_step(desk: Desk) -> None:
    """The value in the caller's hand still says treasurer."""
    _, ours = await paid_in(desk)
    await desk.do(lambda conn: change(conn, operator("ada", Role.ADMIN), now=desk.now))

    assert "ada is not treasurer" in await refusal(desk.pay(ours))


async def test_a_party_that_owes_nothing_is_paid_at_once(desk: Desk) -> None:
    await desk.capital(("custody:house-hot", "equity:capital", "50000", "USDT"))
    await desk.instruct("acme", "USDT", ACME_WALLET)
    await desk.instruct("acme", "ETH", ACME_WALLET)
    await desk.agree("acme")
    await desk.buys("bought", amount="2")
    await desk.deal("sold", amount="2", price="2000", fee="0")

    run = await desk.released()

    items = await desk.instructions(run.id)
    assert list(items) == ["acme USDT"]
    assert items["acme USDT"].amount == USDT.parse("2000")
    await desk.pay(items["acme USDT"])
    assert (await desk.holds())["payable:acme:netted USDT"] == "2,000"
