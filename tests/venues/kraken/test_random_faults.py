"""Any market, any faults: whatever the machine shows is the venue's book of that very frame."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketdata.events import Channel, GapSeen, TradeSeen
from tests.venues.kraken.bench import DEPTH, Rig, instrument_of, simulated
from tests.venues.kraken.bench import MARKETS as EVERY_MARKET
from venues.kraken.feed import KrakenMachine, KrakenPolicy
from venues.simulator.faults import FaultKind

MARKETS = (EVERY_MARKET[0], EVERY_MARKET[2])
"""One whose units are as fine as the venue's, one whose are not."""
SYMBOLS = tuple(spec.name for spec in MARKETS)
BOOKS = tuple(f"book/{spec.base}/{spec.quote}" for spec in MARKETS)
CHANNELS = frozenset({Channel.BOOK, Channel.TRADES})
FAULTS = (
    FaultKind.WS_DROP,
    FaultKind.WS_GAP,
    FaultKind.WS_DUPLICATE,
    FaultKind.WS_SWAP,
    FaultKind.WS_BAD_JSON,
    FaultKind.WS_WRONG_TYPES,
    FaultKind.WS_CLOSE,
    FaultKind.WRONG_CHECKSUM,
)

steps = st.one_of(
    st.just(("step",)),
    st.tuples(st.just("move"), st.sampled_from(MARKETS), st.integers(-200, 200)),
    st.tuples(
        st.just("fault"),
        st.sampled_from(FAULTS),
        st.sampled_from(("book", "trade", *BOOKS)),
        st.integers(0, 3),
    ),
    st.tuples(st.just("wait"), st.integers(1, 20)),
    st.just(("reconnect",)),
)


def act(rig: Rig, step: tuple[object, ...]) -> None:
    """Every book that a frame leads to is compared by the rig when it is told."""
    match step:
        case ("move", spec, by):
            rig.venue.move(spec.name, spec.mid_ticks + by)  # type: ignore[attr-defined]
        case ("fault", kind, path, skip):
            rig.venue.fault(kind, path, skip=skip)  # type: ignore[arg-type]
        case ("wait", count):
            for _ in range(count):  # type: ignore[call-overload]
                rig.go()
        case ("reconnect",):
            rig.lose()
            rig.connect()
        case _:
            rig.venue.step()
    rig.go()


# A quarter of the usual number: each example is a venue of its own.
@settings(max_examples=settings.default.max_examples // 4)  # type: ignore[union-attr]
@given(plan=st.lists(steps, min_size=1, max_size=12), seed=st.integers(1, 3))
@example(plan=[("step",), ("fault", FaultKind.WS_DROP, "book", 0), ("step",), ("step",)], seed=1)
def test_whatever_goes_wrong_no_wrong_book_is_shown_and_all_heals(
    plan: list[tuple[object, ...]], seed: int
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        simulated(Path(folder) / "venue", markets=MARKETS, channels=CHANNELS, seed=seed) as rig,
    ):
        for step in plan:
            act(rig, step)
        rig.venue.faults.clear()
        for _ in range(20):
            rig.venue.step()
            rig.go(by=timedelta(seconds=4))

        assert {symbol: rig.shown(symbol) for symbol in SYMBOLS} == rig.venue.truth()
        opened: dict[tuple[str, Channel, int], int] = {}
        for event in rig.events:
            if isinstance(event, GapSeen):
                key = (event.symbol, event.channel, event.since_ns)
                opened[key] = event.until_ns
        assert all(opened.values())
        for symbol in SYMBOLS:
            ids = [
                event.trade_id
                for event in rig.events
                if isinstance(event, TradeSeen) and event.symbol == symbol
            ]
            assert len(set(ids)) == len(ids)
        again = KrakenMachine(map(instrument_of, MARKETS), CHANNELS, KrakenPolicy(depth=DEPTH))
        for item in rig.items:
            again.take(item)
        for symbol in SYMBOLS:
            book = again.book(symbol)
            assert book is not None
            assert book.rows(10) == rig.shown(symbol)
