"""Recordings: what a simulator recorded is what a replay of it shows."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kernel.clock import ManualClock
from matching.model import Side, TimeInForce
from venues.simulator.commands import CancelAll, PlaceOrder, StepMaker
from venues.simulator.core import VenueCore
from venues.simulator.errors import RecordingInvalid
from venues.simulator.market_maker import PHASES, phase_of
from venues.simulator.model import MakerSpec, OrderType
from venues.simulator.replay import Recorder, Recording, Replay
from venues.simulator.server import VenueSimulator
from venues.simulator.settings import VenueSimulatorSettings

AT_MS = 1_700_000_000_000
CLOCK = ManualClock(datetime.fromtimestamp(AT_MS // 1000, tz=UTC))
HEADER = {
    "recording": "causeway-market",
    "version": 1,
    "symbols": ["ETH/USDT:tick=0.01:lot=0.0001:min=5:mid=3000"],
}


def core_at(directory: Path, **changes: Any) -> VenueCore:
    options = VenueSimulatorSettings(data_dir=directory, fsync=False, **changes)
    return VenueCore(options, CLOCK, publish=lambda _: None, failed=lambda _: None)


def seen(core: VenueCore) -> dict[str, Any]:
    """Books and trades as everybody sees them, whatever the ids."""
    return {
        name: (
            market.depth(Side.BUY),
            market.depth(Side.SELL),
            [(t.price_ticks, t.quantity_lots, t.buyer_is_maker) for t in market.trades],
        )
        for name, market in core.state.markets.items()
    }


def order(number: int, kind: OrderType, side: Side, lots: int) -> PlaceOrder:
    price = (300_100 if side is Side.BUY else 299_900) if kind is OrderType.LIMIT else None
    shown = 50 if number % 7 == 0 and price is not None else 0
    return PlaceOrder(
        AT_MS,
        "desk",
        "ETHUSDT",
        "",
        side,
        kind,
        TimeInForce.GTC,
        price,
        lots,
        display_lots=shown,
    )


@pytest.mark.parametrize("name", ["market.jsonl", "market.jsonl.gz"])
def test_a_replay_shows_the_books_and_trades_that_were_recorded(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    core = core_at(tmp_path / "recorded")
    recorder = Recorder(path, core.state, AT_MS)
    core.overhear(lambda events: recorder.heard(events, AT_MS))
    for number in range(150):
        core.execute(StepMaker(AT_MS))
        side = (Side.BUY, Side.SELL)[number % 2]
        kind = (OrderType.LIMIT, OrderType.MARKET)[number // 2 % 2]
        core.execute(order(number, kind, side, 5_000 + 100 * number))
        if number % 10 == 9:
            core.execute(CancelAll(AT_MS, "desk"))
    recorder.close()
    core.close()

    recording = Recording(path)
    again = core_at(tmp_path / "replayed", symbols=recording.symbols)
    replay = Replay(recording, again.state)
    while not replay.is_over:
        for command in replay.due(AT_MS):
            again.execute(command)
    again.close()

    assert seen(again) == seen(core)
    assert len(seen(core)["ETHUSDT"][2]) > 200


def test_a_replay_goes_on_after_a_restart_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "market.jsonl"
    rows = [
        {"ns": 1, "symbol": "ETH/USDT", "book": "delta", "bids": [[f"29{n:02}.5", "1"]]}
        for n in range(1, 21)
    ]
    path.write_text("\n".join(json.dumps(row) for row in [HEADER, *rows]) + "\n")
    recording = Recording(path)
    core = core_at(tmp_path / "venue", symbols=recording.symbols)
    for command, _ in zip(Replay(recording, core.state).due(AT_MS), range(7), strict=False):
        core.execute(command)
    core.close()

    again = core_at(tmp_path / "venue", symbols=recording.symbols)
    left = list(Replay(recording, again.state).due(AT_MS))

    again.close()
    assert [command.row for command in left] == list(range(8, 21))


def test_rows_come_at_their_time_and_faster_if_wanted(tmp_path: Path) -> None:
    path = tmp_path / "market.jsonl"
    rows = [{"ns": n * 10**9, "symbol": "ETH/USDT", "book": "delta"} for n in range(10)]
    path.write_text("\n".join(json.dumps(row) for row in [HEADER, *rows]) + "\n")
    core = core_at(tmp_path / "venue")
    counts = []
    for speed in (1.0, 4.0):
        replay = Replay(Recording(path), core.state, speed=speed)
        counts.append([len(list(replay.due(AT_MS + ms))) for ms in (0, 999, 1_000, 2_000)])
    core.close()

    assert counts == [[1, 0, 1, 1], [1, 3, 1, 4]]


def test_what_is_off_the_grid_is_rounded_and_a_trade_always_happens(tmp_path: Path) -> None:
    path = tmp_path / "market.jsonl"
    trade = {"price": "3000.10", "quantity": "0.5", "taker": "buy"}
    rows = [
        {
            "ns": 1,
            "symbol": "ETH/USDT",
            "book": "snapshot",
            "bids": [["2999.999", "1.00009"]],
            "asks": [["3000.001", "0.1"]],
        },
        {"ns": 1, "symbol": "ETH/USDT", "trade": trade},
    ]
    path.write_text("\n".join(json.dumps(row) for row in [HEADER, *rows]) + "\n")
    core = core_at(tmp_path / "venue", symbols=Recording(path).symbols)
    for command in Replay(Recording(path), core.state).due(AT_MS):
        core.execute(command)
    core.close()

    bids, asks, trades = seen(core)["ETHUSDT"]
    assert [(level.price_ticks, level.quantity_lots) for level in bids] == [(299_999, 10_000)]
    assert asks == ()
    assert trades == [(300_010, 5_000, False)]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["{}"], "no header"),
        ([json.dumps(HEADER | {"version": 2})], "version 2"),
        ([json.dumps(HEADER | {"symbols": ["x"]})], "symbols"),
        ([json.dumps(HEADER), "nonsense"], "line 2"),
        ([json.dumps(HEADER), '{"ns":1,"symbol":"SOL/USDT","book":"delta"}'], "no symbol SOL/USDT"),
        (
            [json.dumps(HEADER), '{"ns":1,"symbol":"ETH/USDT","book":"delta","bids":[["x","1"]]}'],
            "row 1",
        ),
    ],
)
def test_what_is_wrong_with_a_recording_is_said(
    tmp_path: Path, lines: list[str], complaint: str
) -> None:
    path = tmp_path / "market.jsonl"
    path.write_text("\n".join(lines) + "\n")
    core = core_at(tmp_path / "venue")

    with pytest.raises(RecordingInvalid, match=complaint):
        list(Replay(Recording(path), core.state).due(AT_MS))

    core.close()


def test_a_recording_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "market.jsonl"
    path.write_text("precious")
    core = core_at(tmp_path / "venue")

    with pytest.raises(RecordingInvalid, match="exists already"):
        Recorder(path, core.state, AT_MS)

    core.close()
    assert path.read_text() == "precious"


async def test_a_venue_records_and_another_replays_what_it_recorded(tmp_path: Path) -> None:
    path = tmp_path / "market.jsonl"
    options = VenueSimulatorSettings(
        data_dir=tmp_path / "a", step_interval_ms=5, fsync=False, record_to=path
    )
    first = VenueSimulator(options)
    await first.start()
    for _ in range(500):
        if first.core.state.step >= 20:
            break
        await asyncio.sleep(0.005)
    shown = seen(first.core)
    await first.stop()

    recording = Recording(path)
    second = VenueSimulator(
        VenueSimulatorSettings(
            data_dir=tmp_path / "b",
            fsync=False,
            symbols=recording.symbols,
            replay_from=path,
            replay_speed=100.0,
        )
    )
    await second.start()
    for _ in range(200):
        if seen(second.core) == shown:
            break
        await asyncio.sleep(0.01)
    replayed = seen(second.core)
    await second.stop()

    assert replayed == shown


def test_a_lively_market_goes_through_all_phases_and_a_dull_one_through_none() -> None:
    lively = {phase_of(MakerSpec(), 3, "ETHUSDT", step) for step in range(0, 20_000, 80)}
    dull = {phase_of(MakerSpec(lively=False), 3, "ETHUSDT", step) for step in range(0, 20_000, 80)}

    assert lively == set(PHASES)
    assert len(dull) == 1
