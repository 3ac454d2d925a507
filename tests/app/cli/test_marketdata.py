"""``causeway marketdata`` as a user has it: on simulated venues of both dialects, and on recordings."""

from __future__ import annotations

import gzip
import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import ManualClock, SystemClock, iso, to_unix_ms
from kernel.db import transact
from marketdata.backfill_model import GAP_MARGIN
from marketdata.events import Channel, GapReason, GapSeen
from marketdata.gaps import open_gap
from marketdata.model import StreamState, StreamStatus
from marketdata.raw import RawItem, RawKind
from marketdata.recording.raw_writer import RawWriter
from marketdata.status import write_status
from marketdata.testing import eth_usdt
from tests.app.cli.conftest import Cli, run_command
from venues.feeds.factory import BINANCE, FeedPlan
from venues.simulator.testing import SimulatorProcess

CLOCK = SystemClock()


@dataclass(frozen=True)
class Venue:
    code: str
    process: SimulatorProcess

    @property
    def at(self) -> tuple[str, ...]:
        """The options that say where it is."""
        process = self.process
        return (
            *("--venue", self.code),
            *("--http-url", process.url, "--ws-url", process.ws_url),
        )


@pytest.fixture(scope="module")
def venues(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Venue]]:
    folder = tmp_path_factory.mktemp("venues")
    with (
        SimulatorProcess(folder / "binance", "--step-ms", "50") as binance,
        SimulatorProcess(folder / "kraken", "--step-ms", "50", "--dialect", "kraken") as kraken,
    ):
        yield {"binance": Venue("binance", binance), "kraken": Venue("kraken", kraken)}


@pytest.fixture(scope="module")
def tape(venues: dict[str, Venue], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of either venue, made by the command."""
    folder = tmp_path_factory.mktemp("tape")
    what = ("marketdata", "record", "ETH/USDT", "--recordings", str(folder), "--seconds", "2")
    with ThreadPoolExecutor() as pool:
        # At once: most of it is waiting.
        assert set(pool.map(run_command, [(*what, *venue.at) for venue in venues.values()])) == {0}
    return folder


@pytest.mark.parametrize("code", ["binance", "kraken"])
def test_watch_once_shows_both_sides_of_the_book(
    code: str, cli: Cli, venues: dict[str, Venue]
) -> None:
    drawn = cli("marketdata", "watch", "ETH/USDT", *venues[code].at, "--once", "--levels", "3")
    told = cli("marketdata", "watch", "ETHUSDT", *venues[code].at, "--once", "--json").json

    assert drawn.code == 0, drawn.err
    assert f"{code} ETHUSDT   mid " in drawn.out
    assert "book live" in drawn.out
    assert told["usable"] is True
    assert len(told["bids"]) == len(told["asks"]) == 10
    assert float(told["bid"]) < float(told["ask"])
    assert {stream["channel"] for stream in told["streams"]} == {"book", "trades", "best"}


def test_watch_as_lines_tells_trades_and_best_levels(cli: Cli, venues: dict[str, Venue]) -> None:
    words = ("marketdata", "watch", "ETHUSDT", *venues["binance"].at, "--json", "--seconds", "1")

    lines = [json.loads(line) for line in cli(*words).out.splitlines()]

    assert {line["event"] for line in lines} == {"book", "trade"}
    trades = [int(line["trade"]) for line in lines if line["event"] == "trade"]
    assert trades == list(range(trades[0], trades[0] + len(trades)))


@pytest.fixture
def both(venues: dict[str, Venue], tmp_path: Path) -> Path:
    """A house of both venues."""
    return house_file(tmp_path, *venues.values(), symbol="ETH/USDT")


def test_several_venues_are_one_ladder_and_each_level_says_whose_it_is(
    cli: Cli, both: Path
) -> None:
    words = ("marketdata", "watch", "ETH/USDT", "--house", str(both))

    drawn = cli(*words, "--all", "--once", "--levels", "4")
    told = cli(*words, "--venue", "kraken", "--venue", "binance", "--once", "--json").json

    assert drawn.code == 0, drawn.err
    assert "ETH/USDT   bid " in drawn.out
    assert {"binance", "kraken"} <= set(drawn.out.split())
    assert (told["venues"], told["evicted"]) == (["kraken", "binance"], {})
    shares = [level["venues"] for level in (*told["bids"], *told["asks"])]
    assert {name for share in shares for name in share} == {"binance", "kraken"}
    for level in (*told["bids"], *told["asks"]):
        assert sum(map(Decimal, level["venues"].values())) == Decimal(level["size"])
    assert {stream["venue"] for stream in told["streams"]} == {"binance", "kraken"}


def test_a_venue_that_does_not_answer_is_evicted_and_the_others_are_shown(
    cli: Cli, both: Path, venues: dict[str, Venue]
) -> None:
    kraken = venues["kraken"].process
    both.write_text(both.read_text().replace(kraken.url, "http://127.0.0.1:9"))
    words = ("marketdata", "watch", "ETH/USDT", "--all", "--house", str(both))

    told = cli(*words, "--json", "--seconds", "1")

    lines = [json.loads(line) for line in told.out.splitlines()]
    books = [line for line in lines if line["event"] == "book"]
    assert (told.code, books[0]["venues"]) == (0, ["binance"])
    assert list(books[0]["evicted"]) == ["kraken"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--all",), "--house"),
        (("--all", "--venue", "kraken"), "--all is every venue"),
        (("--venue", "kraken", "--venue", "binance", "--http-url", "http://x"), "one address"),
    ],
)
def test_what_several_venues_cannot_share_is_2(words: tuple[str, ...], says: str, cli: Cli) -> None:
    answer = cli("marketdata", "watch", "ETH/USDT", "--once", *words)

    assert (answer.code, says in answer.err) == (2, True)


def test_a_symbol_that_the_venue_does_not_have_is_1(cli: Cli, venues: dict[str, Venue]) -> None:
    answer = cli("marketdata", "watch", "NOPE", *venues["kraken"].at, "--once")

    assert (answer.code, answer.out) == (1, "")
    assert "kraken has no symbol NOPE" in answer.err


def test_a_venue_that_does_not_answer_is_3(cli: Cli) -> None:
    nowhere = ("--http-url", "http://127.0.0.1:9", "--ws-url", "ws://127.0.0.1:9")

    answer = cli("marketdata", "watch", "ETHUSDT", *nowhere, "--once")

    assert answer.code == 3
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("code", ["binance", "kraken"])
def test_a_recording_says_the_same_when_it_is_replayed(code: str, cli: Cli, tape: Path) -> None:
    folder = ("--recordings", str(tape), "--venue", code)

    played = cli("marketdata", "replay", *folder, "--json").json
    checked = cli("marketdata", "replay", *folder, "--check", "--json")

    assert {stream["channel"] for stream in played["streams"]} == {"book", "trades", "best"}
    assert all(stream["events"] > 5 for stream in played["streams"])
    assert checked.code == 0, checked.out
    assert {row["verdict"] for row in checked.json} == {"same"}


def test_a_parquet_file_that_is_not_what_was_recorded_is_found(cli: Cli, tape: Path) -> None:
    folder = ("--recordings", str(tape), "--venue", "kraken")
    path = next((tape / "parquet" / "trades" / "venue=kraken").rglob("*.parquet"))
    before = path.read_bytes()
    try:
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        differs = cli("marketdata", "replay", *folder, "--check", "--json")
        path.unlink()
        missing = cli("marketdata", "replay", *folder, "--check", "--json")
        made = cli("marketdata", "replay", *folder, "--derive", "--json")
        after = path.read_bytes()
    finally:
        path.write_bytes(before)

    assert (differs.code, missing.code, made.code) == (1, 1, 0)
    assert sorted(row["verdict"] for row in differs.json).count("differs") == 1
    assert sorted(row["verdict"] for row in missing.json).count("missing") == 1
    assert after == before


def test_recordings_are_asked_in_sql_and_only_asked(cli: Cli, tape: Path) -> None:
    folder = ("--recordings", str(tape))
    query = (
        "SELECT venue, count(*) AS n, min(price) AS low FROM trades GROUP BY venue ORDER BY venue"
    )

    answer = cli("marketdata", "query", query, *folder, "--json")
    cut = cli("marketdata", "query", "SELECT * FROM book_updates", *folder, "--rows", "2", "--json")
    written = cli("marketdata", "query", "CREATE TABLE t (a int)", *folder)
    other = cli("marketdata", "query", "SELECT * FROM read_csv('/etc/passwd')", *folder)

    assert [row["venue"] for row in answer.json] == ["binance", "kraken"]
    assert all(row["n"] > 5 and "." in row["low"] for row in answer.json)
    assert (len(cut.json), "only the first 2 rows" in cut.err) == (2, True)
    assert (written.code, other.code) == (1, 1)
    assert "only one SELECT" in written.err


def test_a_recording_is_written_for_other_tools(cli: Cli, tape: Path, tmp_path: Path) -> None:
    folder, out = ("--recordings", str(tape)), tmp_path / "trades.csv.gz"

    done = cli("marketdata", "export", "ETHUSDT", *folder, "--out", str(out), "--json")
    wrong = cli("marketdata", "export", "ETHUSDT", *folder, "--out", str(out), "--type", "all")
    none = cli("marketdata", "export", "NOSUCH", *folder, "--out", str(out))

    lines = gzip.decompress(out.read_bytes()).decode().splitlines()
    assert lines[0].startswith("exchange,symbol,timestamp,local_timestamp,id,side")
    assert int(done.json["rows"]) == len(lines) - 1 > 5
    assert (wrong.code, none.code) == (2, 2)


def test_a_symbol_whose_tick_changes_is_not_shown_on_one_grid(cli: Cli, tmp_path: Path) -> None:
    """Its prices of before would be others: it is shown before or after the change."""
    clock, fine = ManualClock(), eth_usdt("binance")
    for grid in (fine, replace(fine, tick=fine.tick * 10, version=2)):
        plan = FeedPlan(feed=BINANCE, instruments=(grid,), channels=frozenset({Channel.TRADES}))
        with RawWriter(
            tmp_path, "binance", clock, feed=BINANCE, instruments=(grid,), options=plan.options
        ) as writer:
            writer.write([RawItem(RawKind.CONNECTED, clock.now_ns(), 1, "", b"")])
        clock.advance(timedelta(hours=1))
    folder = ("--recordings", str(tmp_path))

    shown = cli("marketdata", "replay", "ETHUSDT", *folder)
    before = cli(
        "marketdata", "replay", "ETHUSDT", *folder, "--until", iso(clock.now() - timedelta(hours=1))
    )

    assert (shown.code, before.code) == (1, 0)
    assert "--until" in shown.err


def test_a_recording_that_is_being_written_is_asked_too(cli: Cli, tmp_path: Path) -> None:
    clock, grid = ManualClock(), eth_usdt("binance")
    plan = FeedPlan(feed=BINANCE, instruments=(grid,), channels=frozenset({Channel.TRADES}))
    ask = ("marketdata", "query", "SELECT trade_id FROM trades", "--recordings", str(tmp_path))
    frame = (
        b'{"stream":"ethusdt@trade","data":{"e":"trade","E":1,"s":"ETHUSDT","t":7,"p":"3000.10",'
        b'"q":"0.5","T":1,"m":true,"M":true}}'
    )
    with RawWriter(
        tmp_path, "binance", clock, feed=plan.feed, instruments=(grid,), options=plan.options
    ) as writer:
        now = clock.now_ns()
        acknowledged = b'{"result":null,"id":1}'
        writer.write(
            [
                RawItem(RawKind.CONNECTED, now, 1, "", b""),
                RawItem(RawKind.FRAME, now, 1, "", acknowledged),
                RawItem(RawKind.FRAME, now, 1, "", frame),
            ]
        )
        writer.flush()

        assert cli(*ask, "--json").json == [{"trade_id": "7"}]
        assert cli(*ask, "--no-live", "--json").json == []
        for option in ("--check", "--derive"):
            answer = cli("marketdata", "replay", option, "--recordings", str(tmp_path))
            assert (answer.code, "no session is finished" in answer.err) == (1, True)


def test_a_recording_is_drawn(cli: Cli, tape: Path, tmp_path: Path) -> None:
    out = tmp_path / "eth.png"
    words = ("marketdata", "plot", "ETH/USDT", "--venue", "kraken", "--out", str(out))

    answer = cli(*words, "--recordings", str(tape), "--json")

    assert answer.code == 0, answer.err
    assert int(answer.json["samples"]) > 5
    assert out.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("plot", "ETHUSDT", "--out", "eth.gif", "--venue", "kraken"), 2, ".png"),
        (("plot", "BTCUSDT", "--out", "a.png", "--venue", "kraken"), 1, "not recorded"),
        (("plot", "ETHUSDT", "--out", "a.png"), 1, "binance, kraken"),
        (("replay", "--venue", "okx"), 1, "no recording"),
        (("replay", "--venue", "kraken", "--until", "2020-01-01"), 1, "in that time"),
        (("replay", "--venue", "kraken", "--since", "soon"), 2, "not a time"),
    ],
)
def test_what_is_not_there_is_said(
    words: tuple[str, ...], code: int, says: str, cli: Cli, tape: Path
) -> None:
    answer = cli("marketdata", *words, "--recordings", str(tape))

    assert answer.code == code, answer.err
    assert says in answer.err


def test_a_folder_is_named_or_asked_for(cli: Cli, tmp_path: Path) -> None:
    assert cli("marketdata", "query", "SELECT 1").code == 2
    assert cli("marketdata", "query", "SELECT 1", "--recordings", str(tmp_path / "none")).code == 2


# With a database.


def house_file(folder: Path, *venues: Venue, symbol: str = "ETHUSDT") -> Path:
    path = folder / "house.toml"
    feeds = "".join(
        f"""
[[feed]]
venue = "{venue.code}"
connector = "{venue.code}"
symbols = ["{symbol}"]
http_url = "{venue.process.url}"
ws_url = "{venue.process.ws_url}"
"""
        for venue in venues
    )
    path.write_text(
        """
chain = "evm"
book = 1
signer_socket = "signer.sock"
confirmations = "confirmations.json"
payout_depth = 6
start_height = 0

[marketdata]
recordings = "tape"
"""
        + feeds
    )
    return path


@pytest.mark.parametrize("code", ["binance", "kraken"])
@pytest.mark.usefixtures("house")
async def test_a_gap_of_trades_is_fetched_once_and_marked(
    code: str, cli: Cli, venues: dict[str, Venue], tmp_path: Path, engine: AsyncEngine
) -> None:
    place = ("--venue", code, "--house", str(house_file(tmp_path, venues[code])))
    (tmp_path / "tape").mkdir()
    listed = cli("marketdata", "instruments", code, "--refresh", *place[2:], "--json")
    now = CLOCK.now_ns()
    gap = GapSeen(
        venue=code,
        symbol="ETHUSDT",
        channel=Channel.TRADES,
        reason=GapReason.CLOSED,
        since_ns=now - 20 * 10**9,
        until_ns=now - GAP_MARGIN // timedelta(microseconds=1) * 1000,
        detail="a test",
        received_ns=now,
    )
    await transact(engine, lambda conn: open_gap(conn, gap))

    before = cli("marketdata", "gaps", "--venue", code, "--unfilled", "--json").json
    filled = cli("marketdata", "backfill", *place, "--json")
    again = cli("marketdata", "backfill", *place, "--json")
    after = cli("marketdata", "gaps", "--venue", code, "--json").json
    counted = cli(
        *(
            "marketdata",
            "query",
            "SELECT count(*) AS n, count(DISTINCT trade_id) AS ids FROM trades",
        ),
        *("--house", place[-1], "--json"),
    )

    assert {row["symbol"] for row in listed.json} >= {"ETHUSDT"}
    assert [row["reason"] for row in before] == ["closed"]
    assert filled.code == 0, filled.err
    (done,) = filled.json
    assert int(done["rows"]) == int(done["new"]) > 0
    assert again.json == []
    assert counted.json == [{"n": int(done["new"]), "ids": int(done["new"])}]
    assert (after[0]["rows"], bool(after[0]["filled"])) == (done["rows"], True)


def minutes_over(venue: Venue) -> int:
    """Return how many candles of a venue have ended: none in its first minute."""
    query = "/api/v3/klines?symbol=ETHUSDT&interval=1m&limit=20"
    with urllib.request.urlopen(venue.process.url + query) as answer:  # noqa: S310  our own
        ends = [row[6] for row in json.load(answer)]
    return sum(end < to_unix_ms(CLOCK.now()) for end in ends)


@pytest.mark.usefixtures("house")
async def test_a_stretch_of_the_past_is_fetched_as_trades_and_as_candles(
    cli: Cli, venues: dict[str, Venue], tmp_path: Path
) -> None:
    place = ("--venue", "binance", "--house", str(house_file(tmp_path, venues["binance"])))
    assert cli("marketdata", "instruments", "binance", "--refresh", *place[2:]).code == 0
    since = ("--since", iso(CLOCK.now() - timedelta(minutes=10)))

    trades = cli("marketdata", "backfill", "ETH/USDT", *since, *place, "--json")
    earlier = minutes_over(venues["binance"])
    candles = cli(
        "marketdata", "backfill", "ETH/USDT", "--channel", "candles", *since, *place, "--json"
    )
    later = minutes_over(venues["binance"])
    books = cli("marketdata", "backfill", "ETH/USDT", "--channel", "book", *since, *place)
    half = cli("marketdata", "backfill", "ETH/USDT", *place)

    assert int(trades.json[0]["new"]) > 0
    assert earlier <= int(candles.json[0]["new"]) <= later
    assert (books.code, half.code) == (2, 2)
    assert "no venue tells the past of book" in books.err


@pytest.mark.usefixtures("house")
async def test_status_tells_what_needs_attention_and_check_ends_with_1(
    cli: Cli, engine: AsyncEngine
) -> None:
    nothing = cli("marketdata", "status", "--check")
    now = CLOCK.now()

    async def tell(conn: AsyncConnection, state: StreamState, ago_s: int) -> None:
        at = now - timedelta(seconds=ago_s)
        status = StreamStatus(
            venue="binance",
            symbol="ETHUSDT",
            channel=Channel.BOOK,
            state=state,
            since=now - timedelta(minutes=1),
            last_event_at=now,
            sequence=7,
            gaps=1,
            reconnects=0,
            messages=99,
            detail="" if state is StreamState.LIVE else "closed: gone",
        )
        await write_status(conn, [status], at=at)

    await transact(engine, lambda conn: tell(conn, StreamState.LIVE, 600))
    died = cli("marketdata", "status", "--check", "--json")
    await transact(engine, lambda conn: tell(conn, StreamState.LIVE, 0))
    good = cli("marketdata", "status", "--check", "--json")
    await transact(engine, lambda conn: tell(conn, StreamState.DOWN, -1))
    down = cli("marketdata", "status", "--venue", "binance", "--check")

    assert (nothing.code, died.code, good.code, down.code) == (1, 1, 0, 1)
    assert died.json[0]["attention"] == "nobody has told of it for too long"
    assert (good.json[0]["attention"], good.json[0]["messages"]) == ("", "99")
    assert "closed: gone" in down.out
