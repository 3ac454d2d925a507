"""Where a command finds a venue: in the house file, or by its options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from kernel.errors import BadInput

if TYPE_CHECKING:
    from app.workers.market_data_file import FeedSection

HouseFile = Annotated[
    Path | None,
    typer.Option(
        "--house", metavar="FILE", help="The house file, whose [[feed]] says how to reach it."
    ),
]
VenueName = Annotated[str, typer.Option("--venue", help="Our code of the venue.")]
HttpUrl = Annotated[
    str, typer.Option("--http-url", help="Where the venue is, if not where it really is.")
]
WsUrl = Annotated[str, typer.Option("--ws-url", help="The same of its WebSocket.")]
Recordings = Annotated[
    Path | None,
    typer.Option("--recordings", metavar="DIR", help="The folder; else that of the house file."),
]
FOLDER: Final = "recordings"


def feed_section(
    house: Path | None,
    venue: str,
    *,
    symbols: tuple[str, ...] = (),
    http_url: str = "",
    ws_url: str = "",
) -> FeedSection:
    """Return how a venue's public data is reached.

    Without a house file the venue's code is also the name of its record.

    Raises:
        BadInput: the house file says nothing of it.
    """
    from dataclasses import replace

    from app.workers.market_data_file import parse_feeds

    if house is None:
        table = {
            "venue": venue,
            "connector": venue,
            "symbols": list(symbols) or ["*"],
            "http_url": http_url,
            "ws_url": ws_url,
        }
        (section,) = parse_feeds([table], Path("--venue"))
        return section
    from app.workers.house_file import read_house

    found = {section.venue: section for section in read_house(house).feeds}
    if venue not in found:
        raise BadInput(
            f"the house file streams nothing of {venue!r}",
            where=str(house),
            remedy=f"It has {', '.join(found) or 'no [[feed]]'}",
        )
    section = found[venue]
    return replace(
        section,
        symbols=symbols or section.symbols,
        http_url=http_url or section.http_url,
        ws_url=ws_url or section.ws_url,
    )


def streaming(house: Path | None, symbol: str) -> tuple[str, ...]:
    """Return the venues of a house file that stream a pair.

    Raises:
        BadInput: there is no house file, or nothing in it streams the pair.
    """
    from app.workers.house_file import read_house

    if house is None:
        raise BadInput("every venue of which house?", remedy="Give --house FILE")
    pair = symbol.replace("/", "")
    found = tuple(
        one.venue
        for one in read_house(house).feeds
        if pair in {name.replace("/", "") for name in one.symbols}
    )
    if not found:
        raise BadInput(
            f"the house file streams {symbol} of no venue",
            where=str(house),
            remedy="Name venues with --venue",
        )
    return found


def recordings_folder(house: Path | None, recordings: Path | None) -> Path:
    """Return the folder of recordings: the one that is named, or the house file's.

    Raises:
        BadInput: neither names one, or it is no folder.
    """
    found = recordings
    if found is None and house is not None:
        from app.workers.house_file import read_house

        found = read_house(house).market_data.recordings
    if found is None:
        raise BadInput(
            "no folder of recordings is named",
            remedy="Give --recordings DIR, or --house FILE with recordings in its [marketdata]",
        )
    if not found.is_dir():
        raise BadInput("there is no such folder", where=str(found))
    return found
