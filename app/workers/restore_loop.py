"""The loop that looks whether the database was set back, and that reads again what it had lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.workers.house_parts import House, nonzero
from app.workers.loops import Loop
from app.workers.venue_desk import VenueDesk
from chain.ports import ChainReader
from custody.errors import NotPossible
from custody.restore.coverage import cover_chain, cover_statements, cover_venue
from custody.restore.model import SIGNER_LOG, SourceState, venue_of
from custody.restore.ports import MarkedSigner
from custody.restore.signed_payouts import take_signed
from custody.restore.status import Status, find_status
from custody.restore.watching import look
from kernel.db import transact

PAUSE: Final = timedelta(seconds=5)
"""Between two looks; how long a house waits at most after a start of the server."""

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
        return nonzero({"items": await self._go_on(status)})

    async def _go_on(self, status: Status) -> int:
        house, clock = self.house, self.house.clock
        waiting = {item.source for item in status.sources if item.state is SourceState.WAITING}
        items = 0
        if SIGNER_LOG in waiting:
            items = len(await take_signed(house.engine, self.signer, clock=clock))
        if (await transact(house.engine, find_status)).facts_wait:
            return items
        for chain, reader in self.readers.items():
            await cover_chain(house.engine, reader, chain, clock=clock)

        async def statements(conn: AsyncConnection) -> None:
            await cover_statements(conn, now=clock.now())

        await transact(house.engine, statements)
        for desk in self.desks:
            if venue_of(desk.section.venue, desk.section.account) in waiting:
                await cover_venue(house.engine, desk.gateway, clock=clock)
        return items


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
