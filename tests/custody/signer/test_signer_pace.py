"""A machine's clock that is put forward ends nothing that time has to end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.signer.pace import DOWNTIME_MAX_MS, DRIFT, SLACK_MS, Pace
from custody.signer.service import Signer
from custody.signer.wire import Accepted
from kernel.clock import ManualClock, iso, to_unix_ms
from tests.custody.signer.vault import (
    ETH,
    START,
    STRANGER,
    allowed,
    approval,
    ask,
    intent,
    native,
    open_signer,
    pay,
    rules,
    tell,
)

DAY = 86_400
USING = rules(asset_window_max=str(2 * ETH), asset_window_s=DAY, cooling_off_s_min=2 * DAY)


@dataclass
class Times:
    """The machine's clock, and one that nobody sets."""

    wall: ManualClock = field(default_factory=lambda: ManualClock(START))
    steady_ms: int = 5_000

    def pass_(self, seconds: int) -> None:
        self.wall.advance(timedelta(seconds=seconds))
        self.steady_ms += seconds * 1_000

    def put_forward(self, seconds: int) -> None:
        self.wall.advance(timedelta(seconds=seconds))


@pytest.fixture
def times() -> Times:
    return Times()


@contextmanager
def started(folder: Path, times: Times) -> Iterator[Signer]:
    with open_signer(folder, USING, clock=times.wall, told=False) as opened:
        yield Signer.open(
            *(opened.keys, opened.memory, opened.places, times.wall),
            steady=lambda: times.steady_ms,
        )


def pay_acme(signer: Signer, times: Times, number: int) -> bytes | str:
    tx = native(nonce=number)
    meant = intent(tx, payout_id=UUID(int=1_000 + number))
    ends = to_unix_ms(times.wall.now()) + 60_000
    return ask(signer, tx, meant, approval(meant, "ann", expires_at=ends))


def allow(signer: Signer, times: Times, number: int = 1, address: str = "") -> None:
    more = {"address": address} if address else {}
    message = allowed("acme", number, proposed_at=iso(times.wall.now()), **more)
    assert isinstance(tell(signer, message), Accepted)


def test_a_clock_put_forward_ends_no_cooling_off(tmp_path: Path, times: Times) -> None:
    with started(tmp_path, times) as signer:
        allow(signer, times)
        times.put_forward(30 * DAY)
        assert "cools off" in str(pay_acme(signer, times, 1))
        # Time that has passed does.
        times.pass_(2 * DAY)
        assert isinstance(pay_acme(signer, times, 2), bytes)


def test_a_clock_put_forward_frees_no_window(tmp_path: Path, times: Times) -> None:
    with started(tmp_path, times) as signer:
        allow(signer, times)
        times.pass_(2 * DAY)
        assert all(isinstance(pay_acme(signer, times, number), bytes) for number in (1, 2))
        times.put_forward(DAY)
        assert "reaches the signer's" in str(pay_acme(signer, times, 3))
        times.pass_(DAY)
        assert isinstance(pay_acme(signer, times, 4), bytes)


def test_a_clock_put_forward_ends_approvals_all_the_same(tmp_path: Path, times: Times) -> None:
    with started(tmp_path, times) as signer:
        allow(signer, times)
        times.pass_(2 * DAY)
        times.put_forward(30 * DAY)
        assert "has lapsed" in str(pay(signer, 1, "ann"))


def test_a_start_believes_a_day_at_most_and_people_the_rest(tmp_path: Path, times: Times) -> None:
    with started(tmp_path, times) as signer:
        allow(signer, times)
    times.put_forward(30 * DAY)
    with started(tmp_path, times) as signer:
        assert "cools off" in str(pay_acme(signer, times, 1))
        # Two people have signed today that another address is allowed: so it is today.
        allow(signer, times, 2, STRANGER)
        assert isinstance(pay_acme(signer, times, 2), bytes)


def test_what_people_sign_is_not_believed_beyond_the_machine_s_clock() -> None:
    pace = Pace.begin(1_000, newest_ms=0, steady=lambda: 0)
    pace.witness(10**9, wall_ms=200_000)

    assert pace.believe(10**12) == 200_000


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 10**7), st.integers(-(10**8), 10**9)), min_size=1, max_size=20
    ),
    newest=st.integers(0, 10**9),
)
def test_however_the_clock_is_set_no_more_time_is_believed_than_passed(
    steps: list[tuple[int, int]], newest: int
) -> None:
    steady = [0]
    wall = newest
    pace = Pace.begin(wall, newest_ms=newest, steady=lambda: steady[0])
    for passed, jump in steps:
        steady[0] += passed
        wall += passed + jump
        most = newest + DOWNTIME_MAX_MS + steady[0] + steady[0] // DRIFT + SLACK_MS
        assert pace.believe(wall) <= min(wall, most)
        if wall <= newest + steady[0]:
            assert pace.believe(wall) == wall
