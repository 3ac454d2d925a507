"""A founded house with prices: its commands, its indexes, its recordings, files of rates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import ManualClock, SystemClock, to_unix_ns
from kernel.db import transact
from kernel.money import Asset
from ledger.posting import open_book
from marketdata.ecb import is_publication_day
from marketdata.fx import last_publication
from marketdata.index_price import IndexPolicy, IndexVenue
from marketdata.index_publisher import publish_index
from marketdata.instruments import record_instrument
from marketdata.model import RecordedPrice
from marketdata.raw import RawItem, RawKind
from marketdata.recording.manifest import record_file
from marketdata.recording.model import RecordedFile, WritePolicy
from marketdata.recording.raw_writer import RawWriter
from marketdata.testing import ETH, USDT, StillFeed, book_view, eth_usdt
from registry.changes import found
from registry.testing import ENTITY, demo_founding
from tests.app.cli.conftest import Answer, Cli

As = Callable[[str], tuple[str, ...]]
EUR, USD = Asset("EUR", 2), Asset("USD", 2)
GRIDS = [eth_usdt(venue) for venue in ("sim", "other", "third")]
MINUTE = timedelta(minutes=1)
POLICY = WritePolicy(free_bytes_min=0)


@dataclass(frozen=True, slots=True)
class Desk:
    """The command line of a founded house that has euros and dollars too."""

    cli: Cli
    engine: AsyncEngine
    folder: Path
    as_: As

    async def ask(self, *words: str, by: str = "", code: int = 0) -> Answer:
        who = self.as_(by) if by else ()
        answer = await asyncio.to_thread(self.cli, "prices", *words, *who, "--json")
        assert answer.code == code, f"{words}: {answer.out}{answer.err}"
        assert "Traceback" not in answer.err
        return answer

    async def index(
        self, *mids: int, at: datetime, base: Asset = ETH, quote: Asset = USDT
    ) -> RecordedPrice:
        grids = [replace(grid, base=base, quote=quote, version=1) for grid in GRIDS]
        policy = IndexPolicy(
            base=base, quote=quote, venues=tuple(map(IndexVenue, grids)), venues_min=2
        )
        feeds = {
            grid.venue: StillFeed(
                book_view([(f"{mid - 1}", "1")], [(f"{mid + 1}", "1")], at=at, instrument=grid)
            )
            for grid, mid in zip(grids, mids, strict=False)
        }
        made = await transact(self.engine, lambda conn: publish_index(conn, policy, feeds, now=at))
        assert isinstance(made, RecordedPrice), made
        return made

    async def recorded(self, at: datetime, frames: Sequence[bytes] = (b"{}",)) -> None:
        """Write raw frames of the first venue from *at* on, and enter their file."""
        start_ns = to_unix_ns(at)
        with RawWriter(self.folder, "sim", ManualClock(at), policy=POLICY) as writer:
            writer.write(
                [
                    RawItem(RawKind.FRAME, start_ns + number, 1, "", frame)
                    for number, frame in enumerate(frames)
                ]
            )
        await self.entered(writer.finished, at)

    async def entered(self, files: Sequence[RecordedFile], at: datetime) -> None:
        async def work(conn: AsyncConnection) -> None:
            for file in files:
                await record_file(conn, file, at=at)

        await transact(self.engine, work)


async def opened_desk(engine: AsyncEngine, cli: Cli, folder: Path, as_: As) -> Desk:
    """Found the house, with euros, dollars and the grids of three venues."""
    founding = demo_founding()
    founding = replace(founding, assets=(*founding.assets, EUR, USD))

    async def work(conn: AsyncConnection) -> None:
        now = SystemClock().now()
        await found(conn, founding, now=now)
        await open_book(conn, ENTITY.book, entity=ENTITY.code)
        for grid in GRIDS:
            await record_instrument(conn, grid, now=now)

    await transact(engine, work)
    return Desk(cli, engine, folder, as_)


def last_month(now: datetime) -> date:
    """The first day of the month that is over."""
    return (now.date().replace(day=1) - timedelta(days=1)).replace(day=1)


def rates(now: datetime, days: int = 70) -> dict[str, dict[str, str]]:
    """Rates of the publication days up to now, as a file has them."""
    last = last_publication(now)
    back = (last - timedelta(days=n) for n in range(days))
    return {day.isoformat(): {"USD": "1.2500"} for day in back if is_publication_day(day)}
