"""What the chapters of the story share: the wiring, the clock of events, and small verbs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from app.demo.world import World
from app.workers.bitcoin_watcher import BitcoinWatcher
from app.workers.watcher import Watcher
from app.workers.watching import Turn
from chain.bitcoin.gateway import BitcoinGateway
from chain.evm.gateway import EvmGateway
from custody.addresses import assign_address
from custody.model import AddressPurpose
from custody.payout_approvals import approval_bytes
from custody.payout_model import Payout, PayoutRequest, PayoutState
from custody.payouts import approval_line, approve_payout, get_payout, request_payout
from kernel.clock import Clock, iso
from kernel.db import transact
from kernel.errors import OutsideUnavailable
from kernel.money import Asset
from ledger.model import Balance
from ledger.queries import get_balance
from registry.model import Operator
from registry.queries import get_operator
from registry.testing import operator_keypair

BOOK: Final = 1
TURNS_MAX: Final = 30
"""More than any step of the story needs; a step that needs more is stuck, and says so."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of the time line."""

    at: datetime
    chapter: str
    what: str
    evidence: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the line as data."""
        return {
            "at": iso(self.at),
            "chapter": self.chapter,
            "what": self.what,
            "evidence": self.evidence,
        }


@dataclass(slots=True)
class Stage:
    """Where the story plays.

    Attributes:
        tell: called with each happening as it happens.
    """

    world: World
    clock: Clock
    tell: Callable[[Happening], None]
    assets: dict[str, Asset] = field(default_factory=dict)
    timeline: list[Happening] = field(default_factory=list)
    chapter: str = ""
    _gateway: EvmGateway | None = None
    _watcher: Watcher | None = None
    _bitcoin_gateway: BitcoinGateway | None = None
    _bitcoin: BitcoinWatcher | None = None

    @property
    def gateway(self) -> EvmGateway:
        """Return the node's gateway."""
        assert self._gateway is not None, "the first chapter wires the gateway"
        return self._gateway

    @property
    def watcher(self) -> Watcher:
        """Return the watcher."""
        assert self._watcher is not None, "the first chapter wires the watcher"
        return self._watcher

    @property
    def bitcoin(self) -> BitcoinWatcher:
        """Return the watcher of the chain of Bitcoin."""
        assert self._bitcoin is not None, "this world has no Bitcoin, or it is not wired yet"
        return self._bitcoin

    def wire_bitcoin(self, gateway: BitcoinGateway, watcher: BitcoinWatcher) -> None:
        """Set what exists where the world has a chain of Bitcoin."""
        self._bitcoin_gateway, self._bitcoin = gateway, watcher

    def wire(self, gateway: EvmGateway, watcher: Watcher) -> None:
        """Set what exists only once the chain's token and the signer do."""
        self._gateway, self._watcher = gateway, watcher

    @asynccontextmanager
    async def connections(self) -> AsyncIterator[None]:
        """Close at the end what the chapters open."""
        try:
            yield
        finally:
            if self._gateway is not None:
                await self._gateway.close()
            if self._bitcoin_gateway is not None:
                await self._bitcoin_gateway.close()

    def note(self, what: str, evidence: str = "") -> None:
        """Add a line to the time line."""
        line = Happening(self.clock.now(), self.chapter, what, evidence)
        self.timeline.append(line)
        self.tell(line)

    def money(self, units: int, asset: str) -> str:
        """Return an amount as people read it."""
        return self.assets[asset].format(units)

    def units(self, text: str) -> int:
        """Return ``"1.5 ETH"`` in smallest units."""
        return self.assets[text.rsplit(" ", 1)[1]].parse(text)

    async def do(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run one transaction."""
        return await transact(self.world.engine, work)

    async def operator(self, code: str) -> Operator:
        """Return an operator as registered."""
        return await self.do(lambda conn: get_operator(conn, code))

    async def address(self, wallet: str, purpose: AddressPurpose, party: str | None = None) -> str:
        """Hand out a wallet's next address."""
        found = await self.do(
            lambda conn: assign_address(
                conn, wallet, purpose=purpose, party=party, now=self.clock.now()
            )
        )
        return found.address

    async def balance(self, path: str, asset: str) -> Balance:
        """Return an account's four columns."""
        return await self.do(lambda conn: get_balance(conn, BOOK, path, asset))

    async def mine_and_follow(self, blocks: int = 1) -> Turn:
        """Make blocks and let the watcher take its turn."""
        await self.world.outsiders.mine(blocks)
        return await self.watcher.turn()

    async def until(self, done: Callable[[], Awaitable[bool]], what: str) -> None:
        """Mine and follow until *done*.

        Raises:
            OutsideUnavailable: it did not come in `TURNS_MAX` blocks.
        """
        for _ in range(TURNS_MAX):
            if await done():
                return
            await self.mine_and_follow()
        raise OutsideUnavailable(f"{what} did not happen within {TURNS_MAX} blocks")

    async def request(self, request: PayoutRequest) -> Payout:
        """Ask for a payout."""
        return await self.do(
            lambda conn: request_payout(conn, request, book=BOOK, now=self.clock.now())
        )

    def sign(self, by: str, payload: bytes) -> bytes:
        """Let an operator sign something with the key that only that person has."""
        return operator_keypair(by).sign(payload)

    async def approve(self, payout: Payout, by: str) -> Payout:
        """Let an operator sign what the payout says, and record the approval."""
        signature = self.sign(by, approval_bytes([approval_line(payout)]))
        approver = await self.operator(by)
        return await self.do(
            lambda conn: approve_payout(
                conn, payout.id, by=approver, signature=signature, book=BOOK, now=self.clock.now()
            )
        )

    async def payout(self, request: PayoutRequest, approver: str) -> Payout:
        """Request, approve, and follow a payout to its confirmation."""
        payout = await self.approve(await self.request(request), approver)

        async def confirmed() -> bool:
            return (await self.find(payout)).state is PayoutState.CONFIRMED

        await self.watcher.turn()
        await self.until(confirmed, f"the confirmation of payout {payout.id}")
        return await self.find(payout)

    async def find(self, payout: Payout) -> Payout:
        """Return the payout as it now is."""
        return await self.do(lambda conn: get_payout(conn, payout.id))
