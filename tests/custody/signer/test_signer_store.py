"""The signer's store: what it refuses to sign twice, and what it refuses to start on."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from custody.control_messages import ControlKind
from custody.signer import migrations
from custody.signer.errors import StoreUnusable
from custody.signer.migrations import migrate, schema_version
from custody.signer.service import Signer
from custody.signer.store import Memory
from custody.signer.wire import No
from kernel.clock import ManualClock
from tests.custody.signer.vault import (
    ETH,
    GWEI,
    PAYOUT,
    SENDER,
    START,
    approval,
    ask,
    ask_fully,
    ask_many,
    cancel,
    control,
    intent,
    later,
    limits,
    native,
    open_signer,
    pay,
    rules,
    told,
)


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[Signer]:
    with open_signer(tmp_path) as it:
        yield it


def bump(times: int, **changes: int) -> dict[str, int]:
    """Fees an eighth higher, so many times."""
    max_fee, priority = 8 * GWEI, GWEI
    for _ in range(times):
        max_fee, priority = -(-max_fee * 9 // 8), -(-priority * 9 // 8)
    return {"max_fee_per_gas": max_fee, "max_priority_fee_per_gas": priority, **changes}


def test_what_was_signed_before_makes_no_signature_slower(signer: Signer) -> None:
    def steps(nonce: int) -> int:
        """Sign, and count the instructions of SQLite's machine."""
        counted = 0

        def step() -> int:
            nonlocal counted
            counted += 1
            return 0

        signer.memory.database.set_progress_handler(step, 1)
        assert isinstance(pay(signer, nonce), bytes)
        signer.memory.database.set_progress_handler(None, 1)
        return counted

    first = steps(3)
    for nonce in range(4, 34):
        steps(nonce)

    assert steps(34) < first * 1.1


# One nonce, one payment.


def test_a_cancellation_needs_nobody_and_pays_nobody(signer: Signer) -> None:
    assert isinstance(pay(signer, 3), bytes)
    tx = cancel(nonce=3)
    meant = intent(tx, payout_id=UUID(int=1_003))

    assert isinstance(ask(signer, tx, meant), bytes)


def test_a_cancellation_outbids_the_payment(signer: Signer) -> None:
    assert isinstance(pay(signer, 3), bytes)
    tx = cancel(nonce=3, max_fee_per_gas=9 * GWEI - 1)

    answer = ask_fully(signer, tx, intent(tx, payout_id=UUID(int=1_003)))

    assert isinstance(answer, No)
    assert (answer.what, answer.signed_before) == (
        f"payout {UUID(int=1_003)} is signed with other fees",
        True,
    )


def test_a_cancellation_of_another_payouts_nonce_is_refused(signer: Signer) -> None:
    assert isinstance(pay(signer, 3), bytes)
    tx = cancel(nonce=3)

    assert ask(signer, tx, intent(tx)) == f"nonce 3 of {SENDER} is signed for another payment"


def test_after_a_cancellation_the_payment_outbids_it_or_is_refused(signer: Signer) -> None:
    first, stop = native(), cancel()
    meant = intent(first)
    assert isinstance(ask(signer, first, meant, approval(meant, "ann")), bytes)
    assert isinstance(ask(signer, stop, intent(stop)), bytes)
    low, high = native(**bump(1)), native(**bump(8))

    assert "is signed with other fees" in str(ask(signer, low, intent(low), approval(meant, "ann")))
    assert isinstance(ask(signer, high, intent(high), approval(meant, "ann")), bytes)
    other = native(nonce=4)
    moved = intent(other)
    assert "is signed at nonce 3" in str(ask(signer, other, moved, approval(moved, "ann")))


def test_a_nonce_that_only_filled_a_gap_never_pays(signer: Signer) -> None:
    filler = cancel()
    assert isinstance(ask(signer, filler, intent(filler)), bytes)
    for payout in (PAYOUT, UUID(int=8)):
        tx = native(**bump(10))
        meant = intent(tx, payout_id=payout)
        assert ask(signer, tx, meant, approval(meant, "ann")) == (
            f"nonce 3 of {SENDER} is signed for another payment"
        )
    # Nothing of the payout was ever signed, so it may be paid elsewhere.
    elsewhere = native(nonce=4)
    meant = intent(elsewhere)
    assert isinstance(ask(signer, elsewhere, meant, approval(meant, "ann")), bytes)


def test_a_payment_is_replaced_a_bounded_number_of_times(tmp_path: Path) -> None:
    with open_signer(tmp_path, rules(fee_cap_max=str(10**20))) as signer:
        answers = []
        for number in range(20):
            tx = native(**bump(number))
            meant = intent(tx)
            answers.append(ask(signer, tx, meant, approval(meant, "ann")))

    assert [isinstance(answer, bytes) for answer in answers] == [True] * 17 + [False] * 3


# Windows.


def test_a_window_bounds_what_leaves_within_it(tmp_path: Path) -> None:
    clock = ManualClock(START)
    using = rules(asset_window_s=3_600, asset_window_max=str(2 * ETH))
    with open_signer(tmp_path, using, clock) as signer:
        assert isinstance(pay(signer, 1), bytes)
        later(clock, 1_800)
        assert isinstance(pay(signer, 2), bytes)
        third = native(nonce=3)
        meant = intent(third)
        answer = ask_fully(signer, third, meant, approval(meant, "ann"))
        assert isinstance(answer, No)
        assert answer.what == f"ETH reaches the signer's {2 * ETH} in 3600 s"
        assert answer.later
        later(clock, 1_800)
        assert isinstance(ask(signer, third, meant, approval(meant, "ann")), bytes)
        assert "reaches" in str(pay(signer, 4))


def test_a_window_is_counted_again_after_a_restart(tmp_path: Path) -> None:
    using = rules(asset_window_max=str(2 * ETH))
    with open_signer(tmp_path, using) as signer:
        assert isinstance(pay(signer, 1), bytes)
        assert isinstance(pay(signer, 2), bytes)
    with open_signer(tmp_path, told=False) as again:
        assert "reaches" in str(pay(again, 3))


def test_a_replacement_counts_once_and_its_fee_by_what_it_adds(tmp_path: Path) -> None:
    fee = native().fee_max
    using = rules(asset_window_max=str(ETH), fee_window_max=str(fee * 9 // 8))
    with open_signer(tmp_path, using) as signer:
        for number in range(2):
            tx = native(**bump(number))
            meant = intent(tx)
            assert isinstance(ask(signer, tx, meant, approval(meant, "ann")), bytes)
        tx = native(**bump(2))
        meant = intent(tx)
        answer = ask_fully(signer, tx, meant, approval(meant, "ann"))

    assert isinstance(answer, No)
    assert answer.what.startswith("fees on evm reach the signer's")
    assert answer.later


def test_a_window_holds_within_one_question(tmp_path: Path) -> None:
    with open_signer(tmp_path, rules(asset_window_max=str(2 * ETH))) as signer:
        payments = [
            (native(nonce=number), intent(native(nonce=number), payout_id=UUID(int=number + 50)))
            for number in range(4)
        ]
        approvals = [approval(meant, "ann") for _, meant in payments]

        answers = ask_many(signer, payments, approvals)

    assert [isinstance(answer, No) for answer in answers] == [False, False, True, True]


def test_a_payment_larger_than_the_window_is_refused_for_good(tmp_path: Path) -> None:
    with open_signer(tmp_path, rules(asset_window_max=str(ETH - 1))) as signer:
        tx = native()
        meant = intent(tx)
        answer = ask_fully(signer, tx, meant, approval(meant, "ann"))

    assert isinstance(answer, No)
    assert not answer.later


def test_higher_limits_open_a_full_window(tmp_path: Path) -> None:
    using = rules(asset_window_max=str(ETH))
    with open_signer(tmp_path, using) as signer:
        assert isinstance(pay(signer, 1), bytes)
        assert "reaches" in str(pay(signer, 2))
        first, *rest = using.assets
        more = [msgspec.structs.replace(first, window_max=str(2 * ETH)), *rest]
        raised = limits(using=using, assets=more)
        assert told(signer, control(ControlKind.LIMITS, raised, "ann", "bob")) == ""
        assert isinstance(pay(signer, 2), bytes)
        assert "reaches" in str(pay(signer, 3))


# What a service may approve alone.


def test_a_service_approves_within_its_own_bounds(signer: Signer) -> None:
    assert isinstance(pay(signer, 1, "robot"), bytes)
    assert isinstance(pay(signer, 2, "robot", value=2 * ETH), bytes)
    # Three ether of services are the window; people are asked from here on.
    full = str(pay(signer, 3, "robot", value=1))
    assert full == f"services have approved {3 * ETH} of ETH in 86400 s"
    assert isinstance(pay(signer, 3, "robot", "ann", value=1), bytes)


def test_a_service_approves_nothing_above_its_bound(signer: Signer) -> None:
    assert pay(signer, 1, "robot", value=2 * ETH + 1) == (
        f"0 of 1 approvals; a service may approve at most {2 * ETH} of ETH"
    )


def test_a_service_that_asked_for_the_payout_cannot_approve_it(signer: Signer) -> None:
    tx = native()
    meant = intent(tx, initiator="robot")

    assert ask(signer, tx, meant, approval(meant, "robot")) == (
        "robot asked for the payout and cannot approve it"
    )


# What it starts on.


def test_a_missing_store_is_not_a_new_one(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="store is missing"):
        Memory.open(tmp_path / "signed")
    assert not (tmp_path / "signed").exists()


def test_a_store_is_private(tmp_path: Path, signer: Signer) -> None:
    assert stat.S_IMODE((tmp_path / "signed").stat().st_mode) == 0o600


def test_a_store_that_is_newer_than_the_program_is_refused(tmp_path: Path) -> None:
    with open_signer(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "signed") as database:
        database.execute("UPDATE schema_version SET version = version + 1")
    database.close()

    with pytest.raises(StoreUnusable, match="at version 4 and this program knows 3"):
        Memory.open(tmp_path / "signed")


def test_a_store_is_brought_to_the_programs_version(tmp_path: Path) -> None:
    with open_signer(tmp_path) as signer:
        assert isinstance(pay(signer, 1), bytes)
    steps = (*migrations.MIGRATIONS, "CREATE TABLE later (at INTEGER) STRICT;")
    database = sqlite3.connect(tmp_path / "signed", isolation_level=None)

    migrate(database, steps)
    migrate(database, steps)

    assert schema_version(database) == len(steps)
    assert database.execute("SELECT count(*) FROM later").fetchone() == (0,)
    assert database.execute("SELECT count(*) FROM signed").fetchone() == (1,)
    database.close()


def test_a_step_that_fails_leaves_the_version_before_it() -> None:
    database = sqlite3.connect(":memory:", isolation_level=None)
    migrate(database)
    broken = (*migrations.MIGRATIONS, "CREATE TABLE half (a INTEGER) STRICT; SELECT nothing;")

    with pytest.raises(sqlite3.OperationalError):
        migrate(database, broken)

    assert schema_version(database) == migrations.VERSION
    migrate(database, (*migrations.MIGRATIONS, "CREATE TABLE half (a INTEGER) STRICT;"))
    assert schema_version(database) == migrations.VERSION + 1


@pytest.mark.parametrize("content", [b"", b"not a database at all, by no means"])
def test_another_file_is_no_store(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "signed").write_bytes(content)

    with pytest.raises(StoreUnusable):
        Memory.open(tmp_path / "signed")


def test_a_database_of_something_else_is_no_store(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "signed") as database:
        database.execute("CREATE TABLE other (a)")
    database.close()

    with pytest.raises(StoreUnusable, match="not a store of the signer"):
        Memory.open(tmp_path / "signed")


def test_a_store_older_than_its_last_checkpoint_is_refused(tmp_path: Path) -> None:
    with open_signer(tmp_path) as signer:
        assert isinstance(pay(signer, 1), bytes)
    shutil.copy(tmp_path / "signed", tmp_path / "backup")
    with open_signer(tmp_path, told=False) as signer:
        assert isinstance(pay(signer, 2), bytes)
    shutil.copy(tmp_path / "signed", tmp_path / "newest")

    shutil.copy(tmp_path / "backup", tmp_path / "signed")
    with pytest.raises(StoreUnusable, match="4 records and its last checkpoint 5"):
        open_signer(tmp_path).__enter__()

    # The drill: the newest copy is brought back, and everything goes on.
    shutil.copy(tmp_path / "newest", tmp_path / "signed")
    with open_signer(tmp_path, told=False) as signer:
        assert isinstance(pay(signer, 3), bytes)


def test_a_store_that_went_another_way_is_refused(tmp_path: Path) -> None:
    with open_signer(tmp_path) as signer:
        assert isinstance(pay(signer, 1), bytes)
    for name in ("signed", "signed.key", "checkpoint"):
        shutil.copy(tmp_path / name, tmp_path / f"{name}.before")
    with open_signer(tmp_path, told=False) as signer:
        assert isinstance(pay(signer, 2), bytes)
    kept = (tmp_path / "checkpoint").read_bytes()
    for name in ("signed", "checkpoint"):
        shutil.copy(tmp_path / f"{name}.before", tmp_path / name)
    with open_signer(tmp_path, told=False) as signer:
        assert isinstance(pay(signer, 3), bytes)
        assert isinstance(pay(signer, 4), bytes)
    (tmp_path / "checkpoint").write_bytes(kept)

    with pytest.raises(StoreUnusable, match="first 5 records are not those of its checkpoint"):
        open_signer(tmp_path).__enter__()


def test_a_missing_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    with open_signer(tmp_path):
        pass
    note = (tmp_path / "checkpoint").read_text()
    (tmp_path / "checkpoint").write_text(note.replace("\n3\n", "\n2\n"))
    with pytest.raises(StoreUnusable, match="not this signer's checkpoint"):
        open_signer(tmp_path).__enter__()
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(StoreUnusable, match="checkpoint of the signer's store is missing"):
        open_signer(tmp_path).__enter__()


def test_another_stores_key_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with open_signer(tmp_path / name):
            pass
    shutil.copy(tmp_path / "two" / "signed.key", tmp_path / "one" / "signed.key")

    with pytest.raises(StoreUnusable, match="key is not that of this store"):
        open_signer(tmp_path / "one").__enter__()


def test_nothing_leaves_before_its_checkpoint_is_written(tmp_path: Path, signer: Signer) -> None:
    place = signer.places.paths[0]
    signer.places.paths = [tmp_path / "gone" / "checkpoint"]
    with pytest.raises(FileNotFoundError):
        pay(signer, 1)
    # It is signed and remembered; it leaves once the checkpoint can be written.
    signer.places.paths = [place]
    raw = pay(signer, 1)

    assert isinstance(raw, bytes)
    assert f"\n{signer.memory.log.size}\n" in place.read_text()
    assert signer.memory.count() == 1
