"""The signer knows the database that asks it again, and signs for none that was set back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from chain.evm.transactions import encode_unsigned
from custody.control_messages import ControlKind, RestoreOpened
from custody.restore_marks import Mark, Shown
from custody.signer.errors import StoreUnusable
from custody.signer.service import Signer
from custody.signer.verification import find_faults
from custody.signer.wire import AskHealth, AskSign, Health, No, Signed
from tests.custody.signer.vault import approval, control, intent, native, open_signer, told


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[Signer]:
    with open_signer(tmp_path) as opened:
        yield opened


def line(count: int, *, at: int = 0, after: Mark | None = None) -> list[Mark]:
    """Return marks that follow on one another; another *at* makes another line."""
    marks: list[Mark] = []
    for _ in range(count):
        before = marks[-1] if marks else after
        number = 1 if before is None else before.number + 1
        marks.append(Mark(number=number, previous=before.token if before else "", at=at + number))
    return marks


def pay(signer: Signer, number: int, shown: Shown | None) -> str:
    """Ask for a payment; return why not, "" when it was signed."""
    tx = native(nonce=number)
    meant = intent(tx, payout_id=UUID(int=1_000 + number))
    question = AskSign(meant, encode_unsigned(tx), [approval(meant, "ann")], shown)
    answer = signer.answer(question)
    if isinstance(answer, Signed):
        return ""
    assert isinstance(answer, No)
    assert answer.later
    return answer.what


def test_who_shows_marks_that_follow_on_one_another_is_signed_for(signer: Signer) -> None:
    marks = line(4)

    assert pay(signer, 1, Shown(marks=marks[:2])) == ""
    assert pay(signer, 2, Shown(marks=marks[2:], seen=2)) == ""

    health = signer.answer(AskHealth())
    assert isinstance(health, Health)
    assert (health.mark, health.mark_token) == (4, marks[3].token)
    assert find_faults(signer.memory) == []


def test_two_workers_of_one_database_may_overtake_each_other(signer: Signer) -> None:
    marks = line(3)
    assert pay(signer, 1, Shown(marks=marks)) == ""

    assert pay(signer, 2, Shown(marks=marks[:2])) == ""


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        pytest.param(None, "does not show which database asks", id="nothing"),
        pytest.param(Shown(marks=[]), "shows no mark", id="no-mark"),
        pytest.param(
            Shown(marks=line(3, at=50)[2:]), "is another than the one that was shown", id="fork"
        ),
        pytest.param(
            Shown(marks=line(7, at=50)[6:]), "does not follow on mark 4", id="unknown-line"
        ),
        pytest.param(Shown(marks=line(6)[5:]), "does not follow on mark 4", id="gap"),
        pytest.param(Shown(marks=line(4), seen=9), "the store is older", id="older-store"),
        pytest.param(
            Shown(marks=[line(4)[3], line(4)[2]]), "does not follow on mark 4", id="no-line"
        ),
    ],
)
def test_nobody_else_is_and_it_is_written_down(
    signer: Signer, shown: Shown | None, why: str
) -> None:
    assert pay(signer, 1, Shown(marks=line(4))) == ""
    signed = signer.memory.count()

    tx = native(nonce=2)
    meant = intent(tx, payout_id=UUID(int=1_002))
    answer = signer.answer(AskSign(meant, encode_unsigned(tx), [approval(meant, "ann")], shown))

    assert isinstance(answer, No)
    assert why in answer.what
    assert signer.memory.count() == signed
    assert signer.memory.log.read(signer.memory.log.size - 1).kind == "refused"


def test_not_even_bytes_that_were_signed_before_go_to_a_database_that_was_set_back(
    signer: Signer,
) -> None:
    assert pay(signer, 1, Shown(marks=line(4))) == ""

    assert "is another than" in pay(signer, 1, Shown(marks=line(2, at=50)))


def opening(mark: Mark | None, records: int) -> RestoreOpened:
    return RestoreOpened(
        id=UUID(int=7),
        mark=0 if mark is None else mark.number,
        token="" if mark is None else mark.token,
        records=records,
        reason="read again",
    )


def test_two_people_let_it_go_on_with_the_restored_database(signer: Signer) -> None:
    marks = line(4)
    assert pay(signer, 1, Shown(marks=marks)) == ""
    records = signer.memory.log.size
    other = line(2, at=50, after=marks[1])
    assert "is another than" in pay(signer, 2, Shown(marks=other))

    body = opening(marks[1], records)
    assert "1 of 2 people" in told(signer, control(ControlKind.RESTORE_OPEN, body, "ann"))
    assert told(signer, control(ControlKind.RESTORE_OPEN, body, "ann", "bob")) == ""

    assert pay(signer, 2, Shown(marks=other, seen=2)) == ""
    assert "is another than" in pay(signer, 3, Shown(marks=marks[2:]))
    assert find_faults(signer.memory) == []


def test_an_opening_that_has_not_read_everything_is_refused(signer: Signer) -> None:
    marks = line(2)
    assert pay(signer, 1, Shown(marks=marks)) == ""
    records = signer.memory.log.size
    assert pay(signer, 2, Shown(marks=marks)) == ""

    late = control(ControlKind.RESTORE_OPEN, opening(marks[0], records), "ann", "bob")
    strange = control(ControlKind.RESTORE_OPEN, opening(line(1, at=50)[0], 99), "ann", "bob")

    assert "was signed after the log was read" in told(signer, late)
    assert "is not known with that token" in told(signer, strange)


def test_a_store_that_is_brought_back_older_does_not_start(tmp_path: Path) -> None:
    marks = line(3)
    with open_signer(tmp_path) as opened:
        assert pay(opened, 1, Shown(marks=marks[:1])) == ""
    shutil.copy(tmp_path / "signed", tmp_path / "older")
    with open_signer(tmp_path) as opened:
        assert pay(opened, 2, Shown(marks=marks[1:])) == ""
    shutil.copy(tmp_path / "older", tmp_path / "signed")

    with pytest.raises(StoreUnusable, match="it is older than what was signed"):
        open_signer(tmp_path).__enter__()


def test_an_older_store_whose_checkpoint_went_back_too_signs_for_no_newer_database(
    tmp_path: Path,
) -> None:
    marks = line(3)
    with open_signer(tmp_path) as opened:
        assert pay(opened, 1, Shown(marks=marks[:1])) == ""
    older = tmp_path / "older"
    older.mkdir()
    for name in ("signed", "checkpoint"):
        shutil.copy(tmp_path / name, older / name)
    with open_signer(tmp_path) as opened:
        assert pay(opened, 2, Shown(marks=marks[1:2])) == ""
    for name in ("signed", "checkpoint"):
        shutil.copy(older / name, tmp_path / name)

    with open_signer(tmp_path) as opened:
        assert "the store is older" in pay(opened, 3, Shown(marks=marks[2:], seen=2))
