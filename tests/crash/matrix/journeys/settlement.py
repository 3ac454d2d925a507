"""Settlement and matching: stories that the tests of settlement tell, with people and workers mortal.

A story is a test of one desk, or of one day at its bank: it does one thing after another by single
transactions and says how each has to end. Here each of them may be struck.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any, Final

from custody.payout_worker import LEASE
from ledger.verification import verify
from tests.crash.matrix.journeys.told_by_tests import Test, stories_of
from tests.crash.matrix.stage import Journey, Stage
from tests.settlement import (
    test_book_rail,
    test_cycles,
    test_fails,
    test_release,
    test_reopening,
    test_returns,
    test_sealing,
)
from tests.settlement.desk import BOOK, Desk, open_desk
from tests.settlement.matching import test_banks
from tests.settlement.matching.bank_day import BankDay

STORIES: Final = {
    test_book_rail: {
        "test_both_sides_are_held_and_then_posted_in_one_commit",
        "test_what_is_cancelled_is_free_again_and_can_be_accepted_anew",
    },
    test_release: {
        "test_a_rejected_payout_fails_its_instruction_which_is_paid_at_the_next_attempt",
        "test_a_payment_that_fails_on_chain_is_owed_again_and_paid_again",
        "test_a_payout_that_the_ledger_does_not_reserve_fails_its_instruction",
    },
    test_sealing: {
        "test_a_dispute_freezes_its_own_and_makes_the_next_version_of_the_rest",
        "test_a_dispute_of_everything_leaves_an_empty_run_and_the_next_window_takes_over",
        "test_a_disputed_deal_is_withdrawn_and_cancelled_in_trading",
        "test_a_withdrawn_deal_that_stays_booked_is_pulled_again",
    },
    test_reopening: {"test_a_final_run_is_opened_again_and_closes_again"},
    test_fails: {"test_a_short_payment_leaves_the_rest_late_and_people_say_why"},
    test_cycles: {"test_what_is_disputed_stays_so_when_the_rest_lapses"},
    test_returns: {
        "test_a_receipt_on_a_chain_is_taken_apart_and_matched_by_hand",
        "test_what_a_bank_takes_back_before_its_run_is_final_is_awaited_again",
        "test_what_a_bank_takes_back_after_its_run_is_final_is_owed_anew",
    },
    test_banks: {"test_two_people_match_by_hand_and_take_it_apart_again"},
}


async def play(test: Test, needs: str, stage: Stage) -> Any:
    mortal = stage.mortal
    async with open_desk(mortal.engine, stage.folder) as desk:
        mortal.make_mortal(stage.patch, Desk, "follow", "send")
        mortal.make_asking_mortal(stage.patch, Desk, "do")
        mortal.pass_lease = partial(desk.clock.advance, LEASE + timedelta(seconds=1))
        await test(desk if needs == "desk" else await BankDay(desk).open())
        assert not await verify(mortal.direct, BOOK)


JOURNEYS: Final = tuple(
    Journey("settlement", name, partial(play, test, needs))
    for module, names in STORIES.items()
    for name, needs, test in stories_of(module, "desk", "day", only=names)
)
