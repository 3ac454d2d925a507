"""Settlement that takes more than one go: parts, withdrawals, runs that come to nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from custody.payout_model import Payout, PayoutState
from custody.payouts import list_payouts
from registry.testing import ETH, USDT
from settlement.holding import let_go
from settlement.model import ObligationState, RunState
from settlement.netting.model import Method
from settlement.queries import get_run, list_obligations
from settlement.runs import pull_obligations, withdraw_deal
from tests.crash.matrix.journeys import settlement
from tests.crash.matrix.mortal import Mortal
from tests.crash.matrix.stage import Journey, Stage
from tests.settlement import test_holding
from tests.settlement.desk import ACME_WALLET, BOOK, CONFIRMATIONS, Desk, release_all
from tests.settlement.test_sealing import by_deal, disputed
from trading.deals import cancel_deal
from trading.model import DealState

Story = Callable[[Desk, Mortal], Awaitable[None]]


async def payouts(desk: Desk, *states: PayoutState) -> list[Payout]:
    return await desk.do(lambda conn: list_payouts(conn, book=BOOK, states=states))


async def is_paid_in_two_parts(desk: Desk, mortal: Mortal) -> None:
    """The desk has 9,000 of the 30,000 USDT that it owes, then the rest."""
    await desk.agree("acme")
    await desk.instruct("acme", "USDT", ACME_WALLET)
    await desk.capital(
        ("custody:house-hot", "equity:capital", "9000", "USDT"),
        ("custody:house-hot", "equity:capital", "1", "ETH"),
    )
    await desk.buys("bought")
    run = await desk.released()
    await desk.receive(ETH.parse("10"), asset="ETH")
    await desk.match()
    for rest in ("21000", "0.000001"):
        await mortal.act(partial(release_all, desk, run, method=Method.PARTIAL))
        (payout,) = await payouts(desk, PayoutState.PENDING_APPROVAL)
        await desk.send(payout.id)
        await desk.mine(CONFIRMATIONS)
        await desk.finality(run.id)
        await desk.capital(("custody:house-hot", "equity:capital", rest, "USDT"))
    ours = (await desk.instructions(run.id))["acme USDT"]
    assert (str(ours.state), ours.applied, ours.attempt) == ("final", USDT.parse("30000"), 2)
    paid = await payouts(desk, *PayoutState)
    assert sorted(item.amount for item in paid) == [USDT.parse("9000"), USDT.parse("21000")]
    assert await desk.books("payable", "in-flight", "transit") == {}


async def is_held_let_go_and_held_again(desk: Desk, mortal: Mortal) -> None:
    run = await test_holding.sealed(desk)
    release = partial(release_all, desk, run)
    await mortal.act(release)
    ours = (await desk.instructions(run.id))["acme ETH"]
    await desk.do(
        lambda conn: let_go(
            conn, [run.id], [ours.id], by=desk.operators["ada"], reason="no", now=desk.now
        )
    )
    assert await desk.holds() == {}
    await mortal.act(release)
    assert await desk.holds() == {"transit:out:evm ETH": "10"}
    assert [mark.attempt for mark in await test_holding.earmarks(desk, run)] == [1, 2]


async def is_withdrawn_before_a_run_has_it(desk: Desk, _: Mortal) -> None:
    deal = await desk.deal("one", fee="0")
    await desk.do(lambda conn: pull_obligations(conn, book=BOOK, now=desk.now))
    await desk.do(
        lambda conn: withdraw_deal(
            conn, deal.id, by=desk.operators["ada"], reason="booked twice", now=desk.now
        )
    )
    legs = await desk.do(lambda conn: list_obligations(conn, BOOK))
    assert {leg.state for leg in legs} == {ObligationState.WITHDRAWN}
    gone = await desk.do(
        lambda conn: cancel_deal(conn, deal.id, by="dan", reason="booked twice", now=desk.now)
    )
    assert gone.state is DealState.CANCELLED
    assert await desk.books("payable", "receivable") == {}


async def is_disputed_when_all_have_affirmed(desk: Desk, _: Mortal) -> None:
    deal = await desk.deal("one", fee="0")
    run, _calculation = await desk.calculate()
    await desk.affirm_all(run.id)
    await disputed(desk, run.id, list((await by_deal(desk, deal.id)).values()))
    legs = await desk.do(lambda conn: list_obligations(conn, BOOK))
    assert {leg.state for leg in legs} == {ObligationState.DISPUTED}
    assert (await desk.do(lambda conn: get_run(conn, run.id))).state is RunState.EMPTY


STORIES: Final[tuple[Story, ...]] = (
    is_paid_in_two_parts,
    is_held_let_go_and_held_again,
    is_withdrawn_before_a_run_has_it,
    is_disputed_when_all_have_affirmed,
)


async def play(story: Story, stage: Stage) -> Any:
    await settlement.play(partial(_told, story, stage.mortal), "desk", stage)


async def _told(story: Story, mortal: Mortal, desk: Desk) -> None:
    await story(desk, mortal)


JOURNEYS: Final = tuple(
    Journey("settlement", story.__name__.replace("_", " "), partial(play, story))
    for story in STORIES
)
