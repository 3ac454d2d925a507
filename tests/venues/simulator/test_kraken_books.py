"""A client that follows Kraken's rules for books ends with the venue's own view. No server."""

import msgspec
import orjson
from hypothesis import given
from hypothesis import strategies as st

from matching.model import NewOrder, Side
from venues.simulator.connections import Json
from venues.simulator.decimals import UNIT
from venues.simulator.kraken.checksum import checksum
from venues.simulator.kraken.market_frames import book_snapshot, book_update, view_of
from venues.simulator.kraken.names import Pair
from venues.simulator.market import Market
from venues.simulator.model import SymbolSpec

BTC = SymbolSpec("BTCUSD", "BTC", "USD", UNIT // 10, UNIT // 100_000, 5 * UNIT, 100)
PAIR = Pair(0, BTC)
DEPTH = 10

# Numbers as they were written; a whole one comes without a point.
_EXACT = msgspec.json.Decoder(float_hook=str)


class Follower:
    """What the venue's guide tells a client to do."""

    def __init__(self, snapshot: Json) -> None:
        self.sides: dict[str, dict[str, str]] = {"asks": {}, "bids": {}}
        self.apply(snapshot)

    def apply(self, frame: Json) -> None:
        row = _EXACT.decode(orjson.dumps(frame))["data"][0]
        for side, levels in self.sides.items():
            for level in row[side]:
                levels.pop(level["price"], None)
                if float(level["qty"]):
                    levels[level["price"]] = level["qty"]
            best = sorted(levels, key=float, reverse=side == "bids")[:DEPTH]
            self.sides[side] = {price: levels[price] for price in best}
        self.checksum = row["checksum"]

    def own_checksum(self) -> int:
        return checksum(self.sides["asks"].items(), self.sides["bids"].items())


orders = st.tuples(
    st.sampled_from(Side),
    st.integers(85, 115),
    st.integers(1, 50),
    st.booleans(),
    st.integers(0, 5),
)


@given(moves=st.lists(orders, min_size=1, max_size=120))
def test_updates_lead_to_the_venues_view(
    moves: list[tuple[Side, int, int, bool, int]],
) -> None:
    market = Market(BTC)
    before = view_of(market, DEPTH)
    follower = Follower(book_snapshot(PAIR, before, 0))
    prices: dict[int, int] = {}
    for number, (side, price, lots, is_cancel, pause) in enumerate(moves, start=1):
        resting = market.book.orders(side)
        if is_cancel and resting:
            market.cancel(resting[price % len(resting)].order_id)
        else:
            order = NewOrder(number, f"owner-{number}", side, lots, price)
            prices[number] = price
            market.submit(order, 0, prices.__getitem__)
        if pause:
            continue
        after = view_of(market, DEPTH)
        update = book_update(PAIR, before, after, market, 0)
        before = after
        if update is not None:
            follower.apply(update)
            assert follower.checksum == follower.own_checksum()

    update = book_update(PAIR, before, view_of(market, DEPTH), market, 0)
    if update is not None:
        follower.apply(update)
    shown = book_snapshot(PAIR, view_of(market, DEPTH), 0)
    assert follower.sides == Follower(shown).sides
