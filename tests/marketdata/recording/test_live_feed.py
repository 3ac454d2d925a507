"""A real feed of a simulated venue: recorded, derived live and again, and played by a simulator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from kernel.clock import ManualClock, SystemClock
from marketdata.events import Channel
from marketdata.raw import RawItem, RawKind
from marketdata.recording.derive import Deriver, derive
from marketdata.recording.layout import list_parquet, list_segments
from marketdata.recording.model import RecordedFile, WritePolicy
from marketdata.recording.raw_writer import RawWriter
from marketdata.recording.recorder import Recorder
from marketdata.recording.testing import TinyMachine, trade_frame
from marketdata.recording.views import query
from marketdata.testing import eth_usdt
from matching.model import Side, TimeInForce
from tests.venues.binance.world import BOTH
from tests.venues.feeds.conftest import Streaming, streaming
from venues.feeds.factory import BINANCE, FeedPlan, machine_of, machines_of
from venues.simulator.commands import PlaceOrder, StepMaker
from venues.simulator.core import VenueCore
from venues.simulator.decimals import UNIT
from venues.simulator.errors import RecordingInvalid
from venues.simulator.market_recording import MarketRecording
from venues.simulator.model import OrderType
from venues.simulator.replay import Replay, open_recording
from venues.simulator.server import VenueSimulator
from venues.simulator.settings import VenueSimulatorSettings

TRADES = 12
PLAN = FeedPlan(feed=BINANCE, instruments=BOTH, channels=frozenset(Channel))


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a feed has left: files, and the venue as it was at the end."""

    directory: Path
    files: tuple[RecordedFile, ...]
    seen: dict[str, Any]


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


def trade(core: VenueCore, number: int) -> None:
    side = (Side.BUY, Side.SELL)[number % 2]
    core.execute(
        PlaceOrder(
            core.accepted_at(),
            "desk",
            "ETHUSDT",
            "",
            side,
            OrderType.MARKET,
            TimeInForce.GTC,
            None,
            1_000 + number,
        )
    )


def lively(venue: VenueSimulator) -> Callable[[], None]:
    """Return what makes something happen at the venue, once more with each call."""
    numbers = iter(range(TRADES))

    def live() -> None:
        core = venue.core
        core.execute(StepMaker(core.accepted_at()))
        trade(core, next(numbers))

    return live


def all_trades_seen(feed: Streaming) -> bool:
    messages = {
        one.symbol: one.messages for one in feed.runner.status() if one.channel is Channel.TRADES
    }
    markets = feed.venue.core.state.markets
    return all(messages[name] == len(market.trades) for name, market in markets.items())


@pytest.fixture
async def recorded(tmp_path: Path) -> Recorded:
    venue = VenueSimulator(
        VenueSimulatorSettings(
            data_dir=tmp_path / "venue", step_interval_ms=0, depth_interval_ms=20, fsync=False
        )
    )
    await venue.start()
    directory, files = tmp_path / "recordings", list[RecordedFile]()
    writer = RawWriter(
        directory,
        BOTH[0].venue,
        SystemClock(),
        feed=PLAN.feed,
        instruments=BOTH,
        options=PLAN.options,
        policy=WritePolicy(free_bytes_min=0, segment_bytes=4_000, block_bytes=1_000),
    )
    deriver = Deriver(directory, BOTH[0].venue, writer.session, BOTH)
    try:
        async with asyncio.TaskGroup() as group:
            async with streaming(venue, machines=machines_of(PLAN)) as feed:
                tasks = [
                    group.create_task(Recorder(feed.raw, writer, on_finished=files.append).run()),
                    group.create_task(
                        Recorder(feed.queue, deriver, on_finished=files.append).run()
                    ),
                ]
                await feed.until_true()
                live = lively(venue)
                for _ in range(TRADES):
                    live()
                    await feed.until_true()
                await feed.until(lambda: all_trades_seen(feed))
            for task in tasks:
                task.cancel()
        state = seen(venue.core)
    finally:
        await venue.stop()
    return Recorded(directory, tuple(files), state)


async def test_a_feed_of_a_venue_is_derived_and_played_again_as_it_was(
    recorded: Recorded, tmp_path: Path
) -> None:
    """One recording, looked at from every side: making one costs a venue and a second."""
    directory, segments = recorded.directory, list_segments(recorded.directory)
    assert len(segments) > 1

    derive(segments, tmp_path / "again", machine_of)
    contents = [
        {path.relative_to(root).as_posix(): path.read_bytes() for path in list_parquet(root)}
        for root in (directory, tmp_path / "again")
    ]
    assert contents[0] == contents[1]
    assert {name.split("/")[1] for name in contents[0]} >= {"book_updates", "trades", "gaps"}
    assert len(recorded.files) == len(contents[0]) + len(segments)

    found = query(directory, "SELECT count(*) FROM trades WHERE symbol = 'ETHUSDT'").rows
    assert found[0][0] == len(recorded.seen["ETHUSDT"][2]) >= TRADES

    recording = open_recording(directory)
    assert isinstance(recording, MarketRecording)
    core = VenueCore(
        VenueSimulatorSettings(
            data_dir=tmp_path / "played", fsync=False, symbols=recording.symbols
        ),
        SystemClock(),
        publish=lambda _: None,
        failed=lambda _: None,
    )
    replay = Replay(recording, core.state, speed=1e9)
    while not replay.is_over:
        for command in replay.due(core.now_ms() + 10**6):
            core.execute(command)
    played = seen(core)
    core.close()
    for name in ("ETHUSDT", "BTCUSDT"):
        assert played[name][:2] == recorded.seen[name][:2]
    assert sum(lots for _, lots, _ in played["ETHUSDT"][2]) == sum(
        lots for _, lots, _ in recorded.seen["ETHUSDT"][2]
    )


def test_what_is_no_recording_of_a_venue_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecordingInvalid, match="has no segments"):
        open_recording(tmp_path)
    (tmp_path / "x.raw").write_bytes(b"something else")
    with pytest.raises(RecordingInvalid, match="does not begin as a recording does"):
        open_recording(tmp_path / "x.raw")


def test_a_tick_size_that_changed_between_two_sessions_misreads_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "venues.simulator.market_recording.machine_of", lambda header: TinyMachine(header.venue)
    )
    fine, coarse = eth_usdt(), replace(eth_usdt(), tick=eth_usdt().tick * 5, version=2)
    clock = ManualClock()
    for number, (grid, ticks) in enumerate(((fine, 300_003), (coarse, 60_001)), 1):
        with RawWriter(
            tmp_path,
            "sim",
            clock,
            feed="tiny",
            instruments=[grid],
            policy=WritePolicy(free_bytes_min=0),
        ) as writer:
            data = trade_frame(number, ticks=ticks)
            writer.write([RawItem(RawKind.FRAME, clock.now_ns() + number, 1, "", data)])

    recording = MarketRecording(tmp_path)

    prices = [Decimal(row.trade.price) for _, row in recording.rows() if row.trade is not None]
    assert prices == [Decimal("3000.03"), Decimal("3000.05")]
    (spec,) = recording.symbols
    assert Decimal(spec.tick_units) / UNIT == Decimal("0.01")
