"""What a chapter plays on: the stage with its people, the bank, the viewer, and what was proven."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final, Protocol

import asyncpg
from sqlalchemy import make_url

from app.demo.desk import Room, open_room
from app.demo.guided.told import Place, Proof, Told
from app.demo.settling import allow
from app.demo.stage import Happening, Stage
from app.local.postgres import SUPERUSER
from banks.simulator.testing import BankClient
from custody.allow_list import list_destinations
from custody.signer.client import SignerClient
from registry.testing import EVM

if TYPE_CHECKING:
    from rich.console import RenderableType

CLIENT_IBAN: Final = "FR1420041010050500013M02606"
HOUSE_IBAN: Final = "DE89370400440532013000"
CLIENT_EUR: Final = 50_000
HOUSE_EUR: Final = 250_000
"""What lies at the bank when the tour begins, in whole euros."""
BANK_ACCOUNTS: Final = (f"{CLIENT_IBAN}:EUR:{CLIENT_EUR}", f"{HOUSE_IBAN}:EUR:{HOUSE_EUR}")


class Teller(Protocol):
    """Shows a tour to whoever watches."""

    def say(self, words: str) -> None:
        """Show what the viewer is to know, in plain words."""

    def happened(self, line: Happening) -> None:
        """Show a line of the time line."""

    def exhibit(self, title: str, what: RenderableType) -> None:
        """Show a piece of evidence."""

    def places(self, places: Sequence[Place]) -> None:
        """Show where the money is."""

    def proved(self, proof: Proof) -> None:
        """Show an assertion and whether it holds."""

    async def choose(self, question: str, options: Sequence[str], default: int) -> int:
        """Let the viewer pick one of *options*; return its index."""


class Look(Protocol):
    """Looks at every place that holds money."""

    async def __call__(self, tour: Tour) -> Sequence[Place]:
        """Return where each asset is now."""


@dataclass(slots=True)
class Tour:
    """The house and its viewer.

    Attributes:
        chance: everything that is picked at random is picked by this.
        look: says where the money is.
        told: the chapter that plays.
    """

    stage: Stage
    teller: Teller
    chance: Random
    look: Look
    told: Told
    _bank: BankClient | None = None
    _room: Room | None = None
    _signer: SignerClient | None = None
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    @property
    def room(self) -> Room:
        """Return the connections to the venue."""
        assert self._room is not None, "the first chapter connects to the venue"
        return self._room

    @property
    def signer(self) -> SignerClient:
        """Return the signer's client."""
        assert self._signer is not None, "the first chapter starts the signer"
        return self._signer

    @property
    def bank(self) -> BankClient:
        """Return what an operator of the simulated bank sees."""
        if self._bank is None:
            assert self.stage.world.bank is not None, "a guided world has a bank"
            self._bank = BankClient(str(self.stage.world.bank["url"]))
        return self._bank

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Close at the end what the chapters connect to."""
        async with self._stack:
            yield

    async def connect(self, signer: SignerClient) -> Room:
        """Keep the signer's client, and connect to the venue: both exist once the house does."""
        self._signer = signer
        self._room = await self._stack.enter_async_context(open_room(self.stage))
        return self._room

    def say(self, *words: str) -> None:
        """Tell the viewer something, one paragraph."""
        paragraph = " ".join(words)
        self.told.words.append(paragraph)
        self.teller.say(paragraph)

    def exhibit(self, title: str, what: RenderableType) -> None:
        """Show a piece of evidence."""
        self.teller.exhibit(title, what)

    def prove(self, claim: str, held: bool, detail: str) -> None:  # noqa: FBT001  it is what is said
        """Put an assertion before the viewer: the chapter holds only if all of them do."""
        proof = Proof(claim, held, detail)
        self.told.proofs.append(proof)
        self.teller.proved(proof)

    async def show_places(self) -> Sequence[Place]:
        """Look where the money is, show it, and return it."""
        self.told.places = await self.look(self)
        self.teller.places(self.told.places)
        return self.told.places

    async def prove_places(self) -> None:
        """Prove that books, chain, venue and bank agree now."""
        places = await self.show_places()
        wrong = [item for item in places if item.difference]
        detail = ", ".join(
            f"{item.asset.code} differs by {item.asset.format(item.difference, code=False)}"
            for item in wrong
        )
        codes = ", ".join(item.asset.code for item in places)
        self.prove(
            "the books equal what chain, venue and bank hold", not wrong, detail or f"in {codes}"
        )

    async def allow(self, party: str, address: str, *, chain: str = EVM) -> None:
        """Let two people say that a party may be paid there, unless they have said so already."""
        found = await self.stage.do(partial(list_destinations, party=party))
        if not any((item.chain, item.address) == (chain, address) for item in found):
            await allow(self.stage, party, address, chain=chain)

    async def at_bank(self, command: str, **sent: object) -> object:
        """Let the bank's own staff do something."""
        return await asyncio.to_thread(self.bank.control, command, **sent)

    @contextlib.asynccontextmanager
    async def insider(self, database: str | None = None) -> AsyncIterator[asyncpg.Connection]:
        """Connect as somebody who may do everything to the database that there is."""
        world = self.stage.world
        owner = make_url(world.owner_url)
        name = database or owner.database or ""
        url = owner.set(database=name)
        if world.server is not None:
            url = make_url(world.server.url(name, user=SUPERUSER))
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        connection = await asyncpg.connect(plain)
        try:
            yield connection
        finally:
            await connection.close()
