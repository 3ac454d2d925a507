"""Reading what a plan is made of: what each place says, and, under the line's lock, what is on record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.freezes import find_freeze
from ledger.queries import list_accounts
from marketdata.fees import VenueFee
from marketdata.model import BookView, Instrument
from marketdata.ports import Feed
from registry.queries import get_asset
from risk.controls import control_of
from risk.desk_book import read_desk_book
from risk.model import ControlState, DeskBook
from risk.ports import BookReader
from risk.venue_health import venue_is_open
from trading.hedges import store
from trading.hedges.decision import LeftOut, Market, Situation, client_price, hedge_needed
from trading.hedges.flow import added, flows, recent_deals
from trading.hedges.model import HedgeLine, HedgePlace, HedgePolicy, HedgeState, HedgeVerdict
from trading.position import position
from trading.postings import venue_account
from trading.routing import Place
from venues.account_state import account_state
from venues.exposure import list_exposures
from venues.model import AccountMode, VenueBalance
from venues.worst_case import OrderExposure, Uncertainty, uncertainty


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A place whose venue has answered: its grid, and what is free there.

    Attributes:
        balances: None: nobody asked, because nothing seemed to be needed.
    """

    place: HedgePlace
    instrument: Instrument
    fee: VenueFee
    balances: Sequence[VenueBalance] | None


@dataclass(frozen=True, slots=True)
class Exposure:
    """What is under way at the places of a line."""

    by_place: Mapping[HedgePlace, Sequence[OrderExposure]]

    @property
    def uncertainty(self) -> Uncertainty:
        """Return the worst case either way, over all places."""
        return uncertainty([item for found in self.by_place.values() for item in found])

    def unsettled(self, place: HedgePlace) -> int:
        """Return how many orders of unknown outcome there are at one place."""
        return sum(item.is_unsettled for item in self.by_place[place])


async def read_exposure(conn: AsyncConnection, line: HedgeLine) -> Exposure:
    """Return what is under way at every place of *line*, closed ones too."""
    return Exposure(
        {
            place: await list_exposures(conn, place.venue, place.account, place.symbol)
            for place in line.places
        }
    )


async def need_of(conn: AsyncConnection, book: int, line: HedgeLine) -> tuple[int, bool]:
    """Return what is needed, and whether anything is under way; to look at, not to act on."""
    exposure = await read_exposure(conn, line)
    held = (await position(conn, book, line.desk)).get(line.asset, 0)
    return hedge_needed(held, exposure.uncertainty, line.target), any(exposure.by_place.values())


async def read_situation(
    conn: AsyncConnection,
    book: int,
    line: HedgeLine,
    reached: Sequence[Reached],
    feeds: Mapping[str, Feed],
    *,
    policy: HedgePolicy,
    now: datetime,
) -> Situation:
    """Return what a plan for the locked *line* is made of.

    The books are looked at last, so that they are as young as they can be.
    """
    exposure = await read_exposure(conn, line)
    held = (await position(conn, book, line.desk)).get(line.asset, 0)
    need = hedge_needed(held, exposure.uncertainty, line.target)
    stopped = await _why_line_stopped(conn, line)
    rooms = [
        (await _place(conn, book, item, held), await _why_not(conn, item, exposure, policy, now))
        for item in reached
    ]
    deals = await recent_deals(conn, book, line.desk, line.asset) if need else []
    priced = [
        (added(item, line.asset), item.quote_units)
        for item in deals
        if (item.request.base.code, item.request.quote.code) == (line.asset, line.quote)
    ]
    asset = await get_asset(conn, line.asset)
    quote = None if not priced or line.quote is None else await get_asset(conn, line.quote)
    return Situation(
        asset=asset,
        position=held,
        under_way=exposure.uncertainty,
        target=line.target,
        markets=[
            Market(place=replace(room, view=_view(feeds, item.place)), left_out=stopped or left_out)
            for item, (room, left_out) in zip(reached, rooms, strict=True)
        ],
        young=flows(deals, line.asset, now - policy.internalise) if policy.internalise else (),
        client_price=None if quote is None else client_price(priced, need, asset, quote),
        pace=line.pace,
    )


def desk_book_reader(book: int, desk: str) -> BookReader:
    """Return what reads everything that a desk has and has under way, for its limits."""
    return partial(_read_desk_book, book=book, desk=desk)


async def _read_desk_book(conn: AsyncConnection, *, book: int, desk: str) -> DeskBook:
    places = {
        line.asset: [(place.venue, place.account, place.symbol) for place in line.places]
        for line in await store.list_lines(conn)
        if line.desk == desk
    }
    return await read_desk_book(conn, book, desk, places)


async def _why_line_stopped(conn: AsyncConnection, line: HedgeLine) -> LeftOut | None:
    """Return why nothing at all may be ordered for the line; None: something may be."""
    if line.state is HedgeState.HALTED:
        return LeftOut(HedgeVerdict.HALTED, "the line is halted")
    frozen = await find_freeze(conn, asset=line.asset)
    if frozen is not None:
        return LeftOut(HedgeVerdict.HALTED, f"{frozen.scope} is frozen")
    control = await control_of(conn, line.desk)
    if control.state is ControlState.HALTED:
        return LeftOut(HedgeVerdict.HALTED, f"the desk is halted: {control.reason}")
    return None


async def _why_not(
    conn: AsyncConnection, item: Reached, exposure: Exposure, policy: HedgePolicy, now: datetime
) -> LeftOut | None:
    """Return why nothing may be ordered at this place, of all that may be; None: something may."""
    place = item.place
    account = await account_state(conn, place.venue, place.account)
    if account.mode is AccountMode.HALTED:
        return LeftOut(HedgeVerdict.HALTED, f"the account is halted: {account.reason}")
    unsettled = exposure.unsettled(place)
    if unsettled >= policy.unsettled_max:
        return LeftOut(HedgeVerdict.UNSETTLED, f"{unsettled} orders of unknown outcome")
    if not await venue_is_open(conn, place.venue, place.account, now):
        return LeftOut(HedgeVerdict.VENUE_DOWN, f"{place.name} has failed too often")
    if item.balances is None:
        # Nothing was needed when the venue was asked; what it has free is not known, and not nothing.
        return LeftOut(HedgeVerdict.IN_FLIGHT, "a deal came in meanwhile: the next look orders")
    return None


async def _place(conn: AsyncConnection, book: int, item: Reached, held: int) -> Place:
    account = await account_state(conn, item.place.venue, item.place.account)
    free = await _free(conn, book, item)
    return Place(
        venue=item.place.venue,
        account=item.place.account,
        instrument=item.instrument,
        view=None,
        fee=item.fee,
        base_free=free.get(item.instrument.base.code, 0),
        quote_free=free.get(item.instrument.quote.code, 0),
        units_max=abs(held) if account.mode is AccountMode.REDUCING else None,
    )


def _view(feeds: Mapping[str, Feed], place: HedgePlace) -> BookView | None:
    feed = feeds.get(place.venue)
    return None if feed is None else feed.book(place.symbol)


async def _free(conn: AsyncConnection, book: int, item: Reached) -> Mapping[str, int]:
    """Return what orders may use: what the venue calls free, less what is on its way out of there."""
    path = venue_account(item.place.venue, item.place.account)
    leaving = {
        row.asset: row.balance.posted - row.balance.available
        for row in await list_accounts(conn, book, path)
        if row.path == path
    }
    return {one.asset: max(0, one.free - leaving.get(one.asset, 0)) for one in item.balances or ()}


async def is_quiet(
    conn: AsyncConnection, book: int, line: HedgeLine, policy: HedgePolicy, *, since: datetime
) -> bool:
    """Tell whether a pass would find a line as the last one left it: flat, with nothing under way.

    Args:
        since: a look before this is too old to say so.
    """
    look = line.look
    if look is None or look.at < since or look.verdict is not HedgeVerdict.FLAT:
        return False
    need, is_under_way = await need_of(conn, book, line)
    return not is_under_way and abs(need) <= policy.band_units and need == look.need
