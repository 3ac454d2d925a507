"""Whatever goes wrong, in whatever order: a book that is shown is the venue's at that very update.

`World` holds every book against the truth after every item, so the property is checked all the time;
what is asserted here is that the feed comes back, and that what it told can be told again.
"""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketdata.events import BookUpdate, Channel, GapSeen
from tests.venues.binance.world import BOTH, World
from venues.binance.feed import BinanceFeed
from venues.simulator.faults import FaultKind

STEPS_TO_RECOVER = 150
"""15 seconds: a silence found, subscribed to again, and found to be over."""

FRAMES = st.sampled_from(
    (
        FaultKind.WS_DROP,
        FaultKind.WS_DUPLICATE,
        FaultKind.WS_SWAP,
        FaultKind.WS_BAD_JSON,
        FaultKind.WS_WRONG_TYPES,
        FaultKind.WS_SILENT,
        FaultKind.WS_CLOSE,
        FaultKind.WS_DEAF,
    )
)
PATHS = st.sampled_from(("", "ethusdt@", "depth", "ethusdt@depth", "btcusdt@trade", "bookTicker"))
TROUBLE = st.one_of(
    st.tuples(st.just("frame"), FRAMES, PATHS, st.integers(1, 4)),
    st.tuples(
        st.just("answer"),
        st.sampled_from(("lost", "truncated", "malformed", "crossed", "stale")),
        st.integers(1, 3),
    ),
    st.tuples(st.just("slow"), st.integers(0, 12)),
    st.tuples(st.just("lose")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("quiet"), st.integers(1, 40)),
    st.tuples(st.just("clock"), st.integers(-5_000, 5_000)),
)


def make_trouble(world: World, trouble: tuple[object, ...]) -> None:
    match trouble:
        case ("frame", FaultKind() as kind, str(path), int(count)):
            world.fault(kind, path, count=count)
        case ("answer", str(broken), int(count)):
            world.breaks_answers.extend([broken] * count)
        case ("slow", int(steps)):
            world.answer_steps = steps
        case ("lose",):
            world.lose("close code 1006")
        case ("restart",):
            world.restart()
        case ("quiet", int(steps)):
            world.step(steps, moves=False)
        case ("clock", int(by_ms)):
            world.now_ms += by_ms
        case _:
            raise AssertionError(trouble)


def left_open(world: World) -> list[GapSeen]:
    """Gaps that have not ended."""
    every = [world.gaps(one.symbol, channel) for one in BOTH for channel in Channel]
    return [gap for gaps in every for gap in gaps if gap.until_ns < gap.since_ns]


def is_true(world: World) -> bool:
    """Whether every book is shown, and is the venue's of now."""
    return all(world.shown(one.symbol) == world.true_rows(one.symbol) for one in BOTH)


@settings(max_examples=max(10, settings().max_examples // 8))
@example(seed=1, troubles=[(("answer", "stale", 1), 1), (("restart",), 1)])
@given(
    seed=st.integers(1, 10**6),
    troubles=st.lists(st.tuples(TROUBLE, st.integers(1, 10)), max_size=5),
)
def test_a_book_that_is_shown_is_the_venues(
    seed: int, troubles: list[tuple[tuple[object, ...], int]]
) -> None:
    world = World(seed=seed)
    world.step(5)
    for trouble, steps in troubles:
        make_trouble(world, trouble)
        world.step(steps)
    world.faults.clear()
    world.breaks_answers.clear()
    world.answer_steps = 0
    for _ in range(STEPS_TO_RECOVER):
        world.step()
        if is_true(world) and not left_open(world):
            break

    assert is_true(world)
    assert not left_open(world)
    for one in BOTH:
        told = world.trade_ids(one.symbol)
        assert len(told) == len({*told}) or ("restart",) in [trouble for trouble, _ in troubles]
    again = BinanceFeed(BOTH)
    found = [event for item in world.items for event in again.take(item)]
    assert [one for one in found if isinstance(one, BookUpdate | GapSeen)] == [
        one for one in world.events if isinstance(one, BookUpdate | GapSeen)
    ]
