"""Views on the world outside: what a node, a venue and a bank themselves say is there.

Each view reads the books and asks the outside so that both speak of the same moment, and never asks
within a transaction. A view that gets no answer raises what its port raises: the examination says then
that it does not know, which is not "equal".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.oracles.model import Held
from app.oracles.snapshots import snapshot
from chain.bitcoin.ports import BitcoinReader
from chain.model import TransactionOutcome
from chain.ports import ChainGateway, ChainReader
from custody.banks.statements import StatementGap, get_bank_balance, sum_entries_after
from custody.bitcoin.scan_reconciliation import compare_coins
from custody.model import bank_account_path, custody_account
from custody.reconciliation import Reconciled, reconcile_chain
from custody.venues.explain import list_unsettled
from kernel.clock import Clock
from kernel.errors import OutsideUnavailable
from ledger.queries import list_accounts
from registry.queries import list_bank_accounts
from trading.postings import venue_account
from trading.venue_balances import Known, compare_balances
from venues.account_reading import count_fills, unposted_by_asset
from venues.exposure import dust_by_asset
from venues.ports import VenueGateway

READINGS_MAX: Final = 5
"""How often books and outside are read until nothing moved between two readings of the books."""


class PlaceView(Protocol):
    """Somebody who holds something for us."""

    async def look(self, engine: AsyncEngine, book: int) -> Sequence[Held]:
        """Return every asset there, and what the books of *book* say of it at the same moment.

        Raises:
            CausewayError: there is no answer that can be relied on.
        """
        ...


class ChainView(PlaceView, Protocol):
    """A chain: it can also be asked about single transactions and blocks."""

    @property
    def chain(self) -> str:
        """Code of the chain."""
        ...

    async def find_transaction(self, tx_hash: str) -> TransactionOutcome | None:
        """Return the outcome of a mined transaction; None where it is in no block."""
        ...

    async def block_hash(self, height: int) -> str | None:
        """Return the hash of the block that stands at *height* now."""
        ...


@dataclass(frozen=True, slots=True)
class Outside:
    """Whoever is to be asked; a place that nobody answers for is unknown."""

    chains: Sequence[ChainView] = ()
    venues: Sequence[PlaceView] = ()
    banks: Sequence[PlaceView] = ()

    @property
    def places(self) -> tuple[PlaceView, ...]:
        """Return them all."""
        return (*self.chains, *self.venues, *self.banks)


@dataclass(frozen=True, slots=True)
class _OnChain:
    """What every chain answers."""

    chain: str
    gateway: ChainReader

    async def find_transaction(self, tx_hash: str) -> TransactionOutcome | None:
        """See `ChainView`."""
        return await self.gateway.find_transaction(tx_hash)

    async def block_hash(self, height: int) -> str | None:
        """See `ChainView`."""
        block = await self.gateway.block_at(height)
        return None if block is None else block.hash


@dataclass(frozen=True, slots=True)
class EvmView(_OnChain):
    """A chain with accounts: every address and registered asset, at the block of our cursor."""

    gateway: ChainGateway

    async def look(self, engine: AsyncEngine, book: int) -> Sequence[Held]:
        """See `PlaceView`."""
        return _wallets(await reconcile_chain(engine, self.gateway, self.chain, book=book))


@dataclass(frozen=True, slots=True)
class BitcoinView(_OnChain):
    """A chain with coins: every unspent output of our addresses, at the node's newest block."""

    gateway: BitcoinReader

    async def look(self, engine: AsyncEngine, book: int) -> Sequence[Held]:
        """See `PlaceView`."""
        return _wallets(await compare_coins(engine, self.gateway, self.chain, book=book))


def _wallets(found: Sequence[Reconciled]) -> list[Held]:
    return [
        Held(
            place=custody_account(item.wallet),
            asset=item.asset,
            books=item.ledger,
            outside=item.chain,
        )
        for item in found
    ]


@dataclass(frozen=True, slots=True)
class VenueView:
    """One account at a venue.

    What the venue has more or less because a recorded trade is not posted yet, or a transfer is under
    way, is no difference.
    """

    gateway: VenueGateway
    clock: Clock

    async def look(self, engine: AsyncEngine, book: int) -> Sequence[Held]:
        """See `PlaceView`."""
        venue, account = self.gateway.venue, self.gateway.account
        known = await self._known(engine, book)
        for _ in range(READINGS_MAX):
            stated = await self.gateway.balances()
            before, known = known, await self._known(engine, book)
            if before == known:
                rows = compare_balances(venue, account, known, stated, self.clock.now())
                return [
                    Held(
                        place=venue_account(venue, account),
                        asset=row.asset,
                        books=row.ledger,
                        outside=row.ledger + row.difference,
                    )
                    for row in rows
                ]
        raise OutsideUnavailable(
            f"the account {venue}/{account} traded during {READINGS_MAX} readings",
            remedy="Ask again when less is traded",
        )

    async def _known(self, engine: AsyncEngine, book: int) -> Known:
        venue, account = self.gateway.venue, self.gateway.account
        path = venue_account(venue, account)

        async def read(conn: AsyncConnection) -> Known:
            return Known(
                posted={
                    item.asset: item.balance.posted
                    for item in await list_accounts(conn, book, path)
                    if item.path == path
                },
                dust=await dust_by_asset(conn, venue, account),
                unposted=await unposted_by_asset(conn, venue, account),
                transfers=await list_unsettled(conn, venue, account),
                fills=await count_fills(conn, venue, account),
            )

        return await snapshot(engine, read)


@dataclass(frozen=True, slots=True)
class BankView:
    """Accounts at banks whose true balances somebody can be asked for: a simulator, a bank's door.

    Attributes:
        balances: returns smallest units by IBAN, of every account that it knows.
    """

    balances: Callable[[], Awaitable[Mapping[str, int]]]

    async def look(self, engine: AsyncEngine, book: int) -> Sequence[Held]:
        """See `PlaceView`."""
        known = await _bank_books(engine, book)
        for _ in range(READINGS_MAX):
            stated = await self.balances()
            before, known = known, await _bank_books(engine, book)
            if before == known:
                return [
                    Held(place=path, asset=asset, books=units, outside=stated.get(iban))
                    for path, asset, iban, units in known
                ]
        raise OutsideUnavailable(f"bank accounts moved during {READINGS_MAX} readings")


@dataclass(frozen=True, slots=True)
class StatementView:
    """Accounts at banks as their newest statements have them; what was noticed later is added.

    An account of which a statement is missing, or none was ever read, is unknown.
    """

    async def look(self, engine: AsyncEngine, book: int) -> Sequence[Held]:
        """See `PlaceView`."""

        async def read(conn: AsyncConnection) -> list[Held]:
            posted = await _posted(conn, book)
            return [
                Held(
                    place=bank_account_path(item.code),
                    asset=item.asset,
                    books=posted.get((bank_account_path(item.code), item.asset), 0),
                    outside=await _told(conn, item.code),
                )
                for item in await list_bank_accounts(conn)
            ]

        return await snapshot(engine, read)


async def _told(conn: AsyncConnection, account: str) -> int | None:
    try:
        told = await get_bank_balance(conn, account)
    except StatementGap:
        return None
    if told is None:
        return None
    return told.closing + await sum_entries_after(conn, account, told.day)


async def _bank_books(engine: AsyncEngine, book: int) -> list[tuple[str, str, str, int]]:
    async def read(conn: AsyncConnection) -> list[tuple[str, str, str, int]]:
        posted = await _posted(conn, book)
        return [
            (path, item.asset, item.iban, posted.get((path, item.asset), 0))
            for item in await list_bank_accounts(conn)
            if (path := bank_account_path(item.code))
        ]

    return await snapshot(engine, read)


async def _posted(conn: AsyncConnection, book: int) -> dict[tuple[str, str], int]:
    return {
        (account.path, account.asset): account.balance.posted
        for account in await list_accounts(conn, book, "bank:")
    }
