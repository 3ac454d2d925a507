"""The loop that looks whether the database was set back, and that reads again what it had lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.workers.house_parts import House, nonzero
from app.workers.loops import Loop
from app.workers.venue_desk import VenueDesk
from chain.ports import ChainReader
from custody.errors import NotPossible
from custody.restore.coverage import (
    cover_chain,
    cover_statements,
    cover_venue,
    cover_withdrawals,
)
from custody.restore.finding import add_account
from custody.restore.model import SIGNER_LOG, SourceState, venue_of, withdrawals_of
from custody.restore.ports import MarkedSigner
from custody.restore.signed_payouts import take_signed
from custody.restore.skipping import watch_skipped
from custody.restore.status import Status, find_status
from custody.restore.watching import look
from kernel.db import transact
from kernel.errors import BadInput, OutsideUnavailable, Refused

PAUSE: Final = timedelta(seconds=5)
"""Between two looks; how long a house waits at most after a start of the server."""

T = TypeVar("T")

log = structlog.get_logger("restore")


@dataclass(slots=True, kw_only=True)
class RestoreWatch:
    """Looks, and while a restore stands takes in what can be taken in without people.

    Attributes:
        readers: of each chain by its code.
        desks: accounts at venues that this house speaks to.
    """

    house: House
    signer: MarkedSigner
    readers: Mapping[str, ChainReader]
    desks: Sequence[VenueDesk]
    _told: str = field(default="")

    async def turn(self) -> Mapping[str, object]:
        """Look once; go on with a restore that stands."""
        house = self.house
        seen = await look(
            house.engine, clock=house.clock, witness=house.file.restore_witness, signer=self.signer
        )
        status = await transact(house.engine, find_status)
        if status.restore is None:
            self._told = ""
            return nonzero({"compared": seen.compared})
        if self._told != str(status.restore.id):
            self._told = str(status.restore.id)
            log.error("the database was restored", evidence=status.restore.evidence)
        for desk in self.desks:
            await transact(house.engine, partial(self._add, desk=desk))
        return nonzero({"items": await self._go_on(await transact(house.engine, find_status))})

    async def _add(self, conn: AsyncConnection, desk: VenueDesk) -> None:
        has_funds, now = desk.treasury is not None, self.house.clock.now()
        place = desk.section
        await add_account(conn, place.venue, place.account, has_funds=has_funds, now=now)

    async def _go_on(self, status: Status) -> int:
        house, clock = self.house, self.house.clock
        waiting = {item.source for item in status.sources if item.state is SourceState.WAITING}
        # First: what the signer has signed may spend a coin that lies at one of them.
        items = len(await watch_skipped(house.engine, clock=clock))
        if SIGNER_LOG in waiting:
            items += len(await take_signed(house.engine, self.signer, clock=clock))
        if (await transact(house.engine, find_status)).facts_wait:
            return items
        for chain, reader in self.readers.items():
            await self._read(chain, partial(cover_chain, house.engine, reader, chain, clock=clock))

        async def statements(conn: AsyncConnection) -> None:
            await cover_statements(conn, now=clock.now())

        await transact(house.engine, statements)
        for desk in self.desks:
            items += await self._read(desk.section.name, partial(self._cover, desk, waiting)) or 0
        return items

    async def _read(self, place: str, read: Callable[[], Awaitable[T]]) -> T | None:
        """Read a place again; one that does not answer, or says no, keeps none of the others waiting."""
        try:
            return await read()
        except NotPossible:
            raise
        except (OutsideUnavailable, Refused, BadInput) as error:
            log.warning("a place is not read again yet", place=place, error=str(error))
            return None

    async def _cover(self, desk: VenueDesk, waiting: Collection[str]) -> int:
        """Read an account at a venue again; return how many of its acts people have to look at."""
        house, place = self.house, (desk.section.venue, desk.section.account)
        if venue_of(*place) in waiting:
            symbols = await desk.symbols()
            await cover_venue(house.engine, desk.gateway, clock=house.clock, symbols=symbols)
        if desk.treasury is None or withdrawals_of(*place) not in waiting:
            return 0
        found = await cover_withdrawals(house.engine, desk.treasury, clock=house.clock)
        return len(found)


def restore_loop(
    house: House,
    signer: MarkedSigner,
    readers: Mapping[str, ChainReader],
    desks: Sequence[VenueDesk],
) -> Loop:
    """Return the loop."""
    watch = RestoreWatch(house=house, signer=signer, readers=readers, desks=desks)

    async def take() -> Mapping[str, object]:
        try:
            return await watch.turn()
        except NotPossible as error:
            # Two people have opened, or a person has shut, while this looked.
            return {"waits": error.what}

    return Loop(name="restore", turn=take, pause=PAUSE)
