"""Whose approval the signer counts, and until when."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import permutations
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.control_messages import ControlKind, OperatorsInForce
from custody.payout_approvals import LIFETIME_MAX
from custody.payout_model import Quorum
from custody.payout_policy import is_complete
from custody.signer.decision import find_missing
from custody.signer.service import Signer
from custody.signer.wire import Accepted, No, SignedApproval
from kernel.clock import ManualClock, to_unix_ms
from tests.custody.signer.vault import (
    GWEI,
    LAPSES,
    PUBLIC,
    RULES,
    START,
    approval,
    ask,
    ask_fully,
    control,
    intent,
    later,
    native,
    open_signer,
    operators,
    rules,
    tell,
)


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[Signer]:
    with open_signer(tmp_path) as opened:
        yield opened


def test_an_unknown_operator_cannot_approve_and_is_waited_for(signer: Signer) -> None:
    tx = native()
    meant = intent(tx)

    answer = ask_fully(signer, tx, meant, approval(meant, "eve"))

    assert isinstance(answer, No)
    assert answer.what == (
        "0 of 1 approvals; eve approved it, too, and the signer does not know them"
    )
    assert "operators' message" in answer.remedy
    assert answer.later


def test_an_unknown_operator_beside_enough_known_ones_is_left_out(signer: Signer) -> None:
    tx = native()
    meant = intent(tx)

    assert isinstance(ask(signer, tx, meant, approval(meant, "eve"), approval(meant, "ann")), bytes)


def test_a_payment_is_not_held_for_somebody_unknown_who_would_not_be_enough(
    tmp_path: Path,
) -> None:
    tx = native()
    meant = intent(tx)
    with open_signer(tmp_path, rules(asset_approvals=3)) as signer:
        answer = ask_fully(signer, tx, meant, approval(meant, "ann"), approval(meant, "eve"))

    assert answer == No("1 of 3 approvals", "Have more operators approve the payout")


def test_a_payment_goes_on_when_the_signer_is_told_of_its_approver(signer: Signer) -> None:
    tx = native()
    meant = intent(tx)
    approved = approval(meant, "eve")
    waits = ask_fully(signer, tx, meant, approved)
    people = dict(PUBLIC)
    message = control(ControlKind.OPERATORS, operators(operators=people), "ann", "bob")
    assert isinstance(tell(signer, message), Accepted)

    assert isinstance(waits, No)
    assert waits.later
    assert isinstance(ask(signer, tx, meant, approved), bytes)


def by_new_key(approved: SignedApproval, who: str) -> SignedApproval:
    """What *who* has approved with a key that the signer was not told of: that of the approver."""
    return msgspec.structs.replace(approved, operator=who)


def test_an_approval_by_a_new_key_waits_until_the_signer_is_told_of_the_key(
    signer: Signer,
) -> None:
    tx = native()
    meant = intent(tx)
    approved = by_new_key(approval(meant, "eve"), "ann")

    waits = ask_fully(signer, tx, meant, approved)
    people = {**PUBLIC, "ann": PUBLIC["eve"]}
    people.pop("eve")
    message = control(ControlKind.OPERATORS, operators(operators=people), "ann", "bob")
    assert isinstance(tell(signer, message), Accepted)

    assert isinstance(waits, No)
    assert waits.later
    assert isinstance(ask(signer, tx, meant, approved), bytes)


def test_an_approval_by_another_key_beside_enough_valid_ones_is_left_out(signer: Signer) -> None:
    tx = native()
    meant = intent(tx)
    other = by_new_key(approval(meant, "eve"), "bob")

    assert isinstance(ask(signer, tx, meant, other, approval(meant, "ann")), bytes)


def test_a_signature_that_no_key_can_have_made_is_not_waited_for(signer: Signer) -> None:
    tx = native()
    meant = intent(tx)
    cut = msgspec.structs.replace(approval(meant, "ann"), signature=b"short")

    assert ask_fully(signer, tx, meant, cut) == No(
        "0 of 1 approvals", "Have more operators approve the payout"
    )


@pytest.mark.parametrize("who", ["eve", "ann"], ids=["unknown", "another key"])
def test_nobody_is_waited_for_beyond_the_end_of_the_approval(tmp_path: Path, who: str) -> None:
    """A payout that waits in line stops those behind it: it waits no longer than it may be signed."""
    clock = ManualClock(START)
    tx = native()
    meant = intent(tx)
    ends = to_unix_ms(START + timedelta(hours=1))
    approved = by_new_key(approval(meant, "eve", expires_at=ends), who)
    with open_signer(tmp_path, clock=clock) as signer:
        waits = ask_fully(signer, tx, meant, approved)
        later(clock, 3_600)
        over = ask_fully(signer, tx, meant, approved)

    assert isinstance(waits, No)
    assert waits.later
    assert isinstance(over, No)
    assert (over.later, over.what) == (
        False,
        f"0 of 1 approvals; the approval of {who} has lapsed",
    )


def test_a_larger_fee_waits_for_nobody_since_what_was_signed_goes_on(tmp_path: Path) -> None:
    tx, dearer = native(), native(max_fee_per_gas=9 * GWEI, max_priority_fee_per_gas=2 * GWEI)
    approved = approval(intent(tx), "ann")
    with open_signer(tmp_path) as signer:
        assert isinstance(ask(signer, tx, intent(tx), approved), bytes)
        people = {**PUBLIC, "ann": PUBLIC["eve"]}
        people.pop("eve")
        message = control(ControlKind.OPERATORS, operators(operators=people), "ann", "bob")
        assert isinstance(tell(signer, message), Accepted)
        answer = ask_fully(signer, dearer, intent(dearer), approved)

    assert isinstance(answer, No)
    assert not answer.later


def test_an_approval_ends_by_the_clock_of_the_signer(tmp_path: Path) -> None:
    clock = ManualClock(START)
    tx = native()
    meant = intent(tx)
    ends = to_unix_ms(START + timedelta(hours=1))
    with open_signer(tmp_path, clock=clock) as signer:
        later(clock, 3_600)
        answer = ask_fully(signer, tx, meant, approval(meant, "ann", expires_at=ends))
        assert answer == No(
            "0 of 1 approvals; the approval of ann has lapsed",
            "Request the payout anew, and have it approved before it ends",
        )
        both = [approval(meant, "ann", expires_at=ends), approval(meant, "ann")]
        assert isinstance(ask(signer, tx, meant, *both), bytes)


def test_an_approval_that_has_lapsed_still_allows_a_larger_fee(tmp_path: Path) -> None:
    clock = ManualClock(START)
    tx = native()
    meant = intent(tx)
    approved = approval(meant, "ann", expires_at=to_unix_ms(START + timedelta(hours=1)))
    with open_signer(tmp_path, clock=clock) as signer:
        first = ask(signer, tx, meant, approved)
        later(clock, 7_200)
        dearer = native(max_fee_per_gas=9 * GWEI, max_priority_fee_per_gas=2 * GWEI)

        assert ask(signer, tx, meant, approved) == first
        assert isinstance(ask(signer, dearer, intent(dearer), approved), bytes)


def test_an_approval_for_ever_is_none(signer: Signer) -> None:
    tx = native()
    meant = intent(tx)
    ends = to_unix_ms(START + LIFETIME_MAX) + 1

    assert "holds for longer than 31 days" in str(
        ask(signer, tx, meant, approval(meant, "ann", expires_at=ends))
    )
    held = approval(meant, "ann", expires_at=ends - 1)
    assert isinstance(ask(signer, tx, meant, held), bytes)


def test_the_end_of_an_approval_cannot_be_moved(tmp_path: Path) -> None:
    clock = ManualClock(START)
    tx = native()
    meant = intent(tx)
    approved = approval(meant, "ann", expires_at=to_unix_ms(START) + 1)
    moved = msgspec.structs.replace(
        approved, lines=[msgspec.structs.replace(approved.lines[0], expires_at=LAPSES)]
    )
    with open_signer(tmp_path, clock=clock) as signer:
        later(clock, 60)
        assert "signature" in str(ask(signer, tx, meant, moved))


TWO_GROUPS = {"desk": 1, "risk": 1}


def test_one_person_does_not_stand_for_two_groups(tmp_path: Path) -> None:
    tx = native()
    meant = intent(tx)
    both = {"desk": ["ann", "bob"], "risk": ["ann", "cat"]}
    with open_signer(tmp_path, rules(groups=both, asset_groups=TWO_GROUPS)) as signer:
        assert ask(signer, tx, meant, approval(meant, "ann")) == (
            "1 of 2 approvals, nobody counted for two groups"
        )
        assert ask(signer, tx, meant, approval(meant, "cat")) == "0 of 1 approvals of desk"
        approved = [approval(meant, "ann"), approval(meant, "bob")]
        assert isinstance(ask(signer, tx, meant, *approved), bytes)


@given(
    people=st.dictionaries(
        st.sampled_from("abcd"), st.frozensets(st.sampled_from("xy"), min_size=1), min_size=1
    ),
    needed=st.dictionaries(st.sampled_from("xy"), st.integers(1, 2), min_size=1),
)
def test_signer_and_application_count_people_as_trying_every_seat_would(
    people: dict[str, frozenset[str]], needed: dict[str, int]
) -> None:
    places = [group for group in sorted(needed) for _ in range(needed[group])]
    fits = any(
        all(group in people[code] for group, code in zip(places, seated, strict=True))
        for seated in permutations(sorted(people), len(places))
    )
    groups = {name: sorted(c for c in people if name in people[c]) for name in "xy"}
    known = OperatorsInForce(
        version=1, operators={}, services=[], administrators=[], groups=groups, quorum=2
    )
    rule = msgspec.structs.replace(RULES.assets[0], approvals=0, groups=needed)

    assert (find_missing(known, rule, frozenset(people)) == "") == fits
    assert is_complete([Quorum(name, needed[name]) for name in sorted(needed)], people) == fits
