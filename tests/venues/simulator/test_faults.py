"""Faults by control and by random schedule, as a client of the in-process simulator meets them."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
import pytest_asyncio

from venues.simulator import schedule
from venues.simulator.errors import SettingsInvalid
from venues.simulator.faults import Fault, FaultKind, FaultSchedule
from venues.simulator.schedule import Rate, Schedule, SeededFaults
from venues.simulator.server import VenueSimulator
from venues.simulator.settings import VenueSimulatorSettings

ORDER = "/api/v3/order"
PATIENT_S, HURRIED_S = 10.0, 0.5
"""How long a client waits: only what hangs is given up, so that a slow machine is no fault."""


@pytest_asyncio.fixture
async def venue(tmp_path: Path) -> AsyncIterator[VenueSimulator]:
    simulator = VenueSimulator(
        VenueSimulatorSettings(data_dir=tmp_path, step_interval_ms=0, fsync=False)
    )
    await simulator.start()
    yield simulator
    await simulator.stop()


async def signed(
    venue: VenueSimulator, method: str, path: str, *, wait_s: float = PATIENT_S, **sent: object
) -> tuple[int, Any]:
    """Ask as the desk; answers status and JSON, or status 0 and the kind of failure."""
    desk = venue.accounts[0]
    query = urlencode({**sent, "timestamp": venue.core.now_ms() - 1_000, "recvWindow": 5_000})
    signature = hmac.new(desk.secret.encode(), query.encode(), hashlib.sha256).hexdigest()
    url = f"{venue.url}{path}?{query}&signature={signature}"
    timeout = aiohttp.ClientTimeout(total=wait_s)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        try:
            headers = {"X-MBX-APIKEY": desk.api_key}
            async with http.request(method, url, headers=headers) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            return 0, type(error).__name__
    try:
        return answer.status, json.loads(text)
    except json.JSONDecodeError:
        return answer.status, text


async def control(venue: VenueSimulator, verb: str, **body: object) -> Any:
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{venue.url}/control/{verb}", json=body) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def place(
    venue: VenueSimulator, name: str = "c", wait_s: float = PATIENT_S, **changes: object
) -> tuple[int, Any]:
    order = {"symbol": "ETHUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC"}
    order |= {"quantity": "0.1", "price": "2000", "newClientOrderId": name}
    return await signed(venue, "POST", ORDER, wait_s=wait_s, **(order | changes))


def orders(venue: VenueSimulator) -> int:
    return len(venue.core.state.all_orders_of("desk"))


@pytest.mark.parametrize(
    ("kind", "status", "lands"),
    [
        ("hang_before_accept", 0, False),
        ("hang_after_accept", 0, True),
        ("reset_before", 0, False),
        ("reset_after_accept", 0, True),
        ("truncated_200", 200, True),
        ("timeout_1007", 408, False),
        ("timeout_1007_after_accept", 408, True),
        ("unexpected_1006", 400, False),
        ("unexpected_1006_after_accept", 400, True),
        ("status_503", 503, False),
        ("status_503_after_accept", 503, True),
        ("html_502", 502, False),
        ("html_502_after_accept", 502, True),
        ("html_504", 504, False),
        ("html_504_after_accept", 504, True),
        ("rate_limited_429", 429, False),
        ("banned_418", 418, False),
        ("withhold_order", 408, True),
        ("clock_skew", 400, False),
        ("fee_in_third_asset", 200, True),
        ("late_fill_after_cancel", 200, True),
    ],
)
async def test_every_fault_on_an_order_request_lands_or_not(
    venue: VenueSimulator,
    kind: str,
    status: int,
    lands: bool,  # noqa: FBT001  a column of the table
) -> None:
    await control(venue, "faults", kind=kind, path=ORDER, method="POST")

    answered, _ = await place(venue, wait_s=HURRIED_S if kind.startswith("hang") else PATIENT_S)

    assert (answered, orders(venue)) == (status, int(lands))


async def test_a_withheld_order_is_denied_for_a_while_though_it_lives(
    venue: VenueSimulator,
) -> None:
    await control(venue, "faults", kind="withhold_order", path=ORDER, method="POST", seconds=2)
    await place(venue)

    denied, answer = await signed(venue, "GET", ORDER, symbol="ETHUSDT", origClientOrderId="c")
    listed = await signed(venue, "GET", "/api/v3/openOrders", symbol="ETHUSDT")
    async with asyncio.timeout(20):
        shown = denied
        while shown != 200:
            shown, _ = await signed(venue, "GET", ORDER, symbol="ETHUSDT", origClientOrderId="c")
            await asyncio.sleep(0.05)

    assert (denied, answer["code"], listed) == (400, -2013, (200, []))


async def test_a_cancelled_order_is_filled_late(venue: VenueSimulator) -> None:
    await place(venue)
    await control(
        venue, "faults", kind="late_fill_after_cancel", path=ORDER, method="DELETE", seconds=0.01
    )

    status, answer = await signed(venue, "DELETE", ORDER, symbol="ETHUSDT", origClientOrderId="c")
    async with asyncio.timeout(20):
        while not venue.core.state.fills_of("desk"):  # noqa: ASYNC110  the venue's own time
            await asyncio.sleep(0.01)

    order = venue.core.state.all_orders_of("desk")[0]
    assert (status, answer["status"], answer["executedQty"]) == (200, "CANCELED", "0.00000000")
    assert order.filled_lots == 1_000
    assert len(venue.core.state.fills_of("desk")) == 1


async def test_a_commission_can_come_out_of_a_third_asset(venue: VenueSimulator) -> None:
    await control(venue, "faults", kind="fee_in_third_asset", path=ORDER)
    await place(venue, "a", price="3100")
    await place(venue, "b", price="3100")

    fees = {f.client_order_id: f.fee_asset for f in venue.core.state.fills_of("desk")}
    assert fees == {"a": "BNB", "b": "ETH"}


async def test_time_goes_on_where_it_was_when_a_skew_is_over(venue: VenueSimulator) -> None:
    for skew_ms in (120_000, -120_000):
        before = venue.core.accepted_at()
        await control(venue, "clock", skew_ms=skew_ms)
        assert venue.core.accepted_at() >= before + skew_ms
        await control(venue, "clock", skew_ms=0)

        assert 0 <= venue.core.accepted_at() - before < 60_000


async def test_a_schedule_by_control_is_reproducible(tmp_path: Path) -> None:
    drawn = []
    for name in ("a", "b"):
        simulator = VenueSimulator(
            VenueSimulatorSettings(data_dir=tmp_path / name, step_interval_ms=0, fsync=False)
        )
        await simulator.start()
        rates = [
            {"kind": kind, "ppm": 200_000, "path": ORDER} for kind in ("status_503", "html_504")
        ]
        await control(simulator, "schedule", seed=5, rates=rates)
        for number in range(30):
            await place(simulator, str(number))
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{simulator.url}/control/schedule") as answer,
        ):
            drawn.append((await answer.json())["drawn"])
        await simulator.stop()

    assert drawn[0] == drawn[1]
    assert {row["kind"] for row in drawn[0]} == {"status_503", "html_504"}


def hits(seed: int, requests: int = 400) -> list[str | None]:
    faults = FaultSchedule()
    faults.random = SeededFaults(schedule.mixed(seed, 100_000))
    found = [faults.for_request("POST", ORDER) for _ in range(requests)]
    return [fault.kind.value if fault else None for fault in found]


def test_a_random_schedule_follows_from_its_seed_and_keeps_its_rate() -> None:
    assert hits(1) == hits(1) != hits(2)
    assert 20 <= sum(hit is not None for hit in hits(1)) <= 70


def test_a_schedule_ends_at_its_limit() -> None:
    faults = FaultSchedule()
    faults.random = SeededFaults(
        Schedule(1, (Rate(FaultKind.RESET_BEFORE, 1_000_000, path="/"),), limit=3)
    )

    assert [faults.for_request("GET", "/x") is not None for _ in range(5)] == [True] * 3 + [
        False
    ] * 2


def test_faults_that_were_scheduled_one_by_one_come_first() -> None:
    faults = FaultSchedule()
    faults.random = SeededFaults(Schedule(1, (Rate(FaultKind.RESET_BEFORE, 1_000_000),)))
    faults.add(Fault(FaultKind.HTML_504, "/"))

    kinds = [fault.kind for _ in range(2) if (fault := faults.for_request("GET", "/")) is not None]
    assert kinds == [FaultKind.HTML_504, FaultKind.RESET_BEFORE]


def test_frames_of_accounts_are_doubled_or_swapped_and_public_ones_are_not() -> None:
    faults = FaultSchedule()
    faults.add(Fault(FaultKind.DUPLICATE_REPORT, ""))

    assert faults.for_frame("ethusdt@trade") is None
    assert faults.for_frame("user", is_private=True) is not None


def test_a_checksum_is_falsified_only_where_there_is_one() -> None:
    faults = FaultSchedule()
    faults.add(Fault(FaultKind.WRONG_CHECKSUM, "book"))

    assert faults.for_frame("book", '{"bids":[]}') is None
    assert faults.for_frame("book", '{"checksum":1}') is not None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("7:2", "from 0 to 1"),
        ("7:x", "from 0 to 1"),
        ("no-such-file", "write seed:rate like 7:0.05"),
    ],
)
def test_a_bad_schedule_is_explained(text: str, complaint: str) -> None:
    with pytest.raises(SettingsInvalid, match=complaint):
        schedule.from_text(text)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"seed": 1}, "rates"),
        ({"seed": 1, "rates": [{"kind": "earthquake", "ppm": 1}]}, "earthquake"),
        ({"seed": 1, "rates": [{"kind": "reset_before", "ppm": 10**7}]}, "from 0 to 1000000"),
    ],
)
def test_a_bad_schedule_in_a_file_is_explained(
    tmp_path: Path, value: dict[str, Any], complaint: str
) -> None:
    path = tmp_path / "faults.json"
    path.write_text(json.dumps(value))

    with pytest.raises(SettingsInvalid, match=complaint):
        schedule.from_text(str(path))


async def test_a_schedule_can_be_a_setting(tmp_path: Path) -> None:
    rates = (Rate(FaultKind.STATUS_503, 1_000_000, path="/api/v3/time"),)
    options = VenueSimulatorSettings(data_dir=tmp_path, step_interval_ms=0, fsync=False)
    simulator = VenueSimulator(replace(options, faults=Schedule(1, rates)))
    await simulator.start()

    status, _ = await signed(simulator, "GET", "/api/v3/time")

    await simulator.stop()
    assert status == 503
