"""What compliance holds, lets go and holds again, of what has passed already."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any, Final

from custody.compliance import decisions, people
from custody.compliance.address_list import AddressList
from custody.compliance.cases import list_cases
from custody.compliance.model import CaseState, Subject
from custody.compliance.screening import rescreen, screen_payouts
from ledger.verification import verify
from tests.crash.matrix.stage import Journey, Stage
from tests.custody import test_compliance as told
from tests.custody.house import BOOK, OTHER, STRANGER, House

NEWER: Final = AddressList.blocking(2, {STRANGER, OTHER}, "found out")


async def play(stage: Stage) -> Any:
    """A newer list speaks against all that passed; two people let a payout go, and one holds it."""
    mortal = stage.mortal
    house = House(mortal.engine)
    mortal.make_mortal(stage.patch, House, "follow", "advance")
    mortal.make_asking_mortal(stage.patch, House, "do")
    mortal.pass_lease = partial(house.clock.advance, timedelta(minutes=2))
    await house.open()
    await told.ready_to_pay(house)
    await told.paid_in(house)
    payout = await told.asked_for(house)
    listed = AddressList(1)
    await mortal.act(lambda: screen_payouts(mortal.engine, listed, "evm", now=house.now))
    assert await told.waits(house, payout) == ""

    await mortal.act(lambda: rescreen(mortal.engine, NEWER, now=house.now))
    held = await house.do(lambda conn: list_cases(conn, states=[CaseState.HELD]))
    assert {case.subject for case in held} == set(Subject)
    assert "speaks against the destination" in await told.waits(house, payout)

    await house.release(payout.id)
    case, reason = await house.case(payout.id), "a tip"
    assert case.state is CaseState.RELEASED
    signatures = told.signed(people.case_bytes(people.HOLD_VERB, case, reason), "dan")
    await house.do(
        lambda conn: decisions.hold(
            conn, payout.id, signatures=signatures, reason=reason, now=house.now
        )
    )
    assert (await house.case(payout.id)).state is CaseState.HELD
    # What was credited before stays so: people have been told.
    assert await house.states() == ["credited"]
    assert await verify(mortal.direct, BOOK) == []


JOURNEYS: Final = (Journey("compliance", "a newer list speaks against what passed", play),)
