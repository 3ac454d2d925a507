"""A small house on a chain of Bitcoin, in memory or a real one, for the stories of what arrives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.ports import BitcoinReader
from chain.bitcoin.testing import ScriptedBitcoin
from chain.bitcoin.transactions import Transaction
from chain.follow import follow, get_cursor
from chain.model import Block, ChainStep, FollowPolicy, FollowReport
from custody.addresses import assign_address, watch_list
from custody.bitcoin.coin_model import Coin
from custody.bitcoin.coins import list_coins, list_spendable
from custody.bitcoin.testing import CHAIN, HOT, POOL, SETTLEMENT, with_bitcoin
from custody.compliance.address_list import NOBODY_LISTED
from custody.compliance.ports import Screening
from custody.deposit_model import Deposit, PendingArrival, Receipt
from custody.deposits import advance_deposits, list_deposits
from custody.inclusion import apply_step
from custody.model import AddressPurpose
from custody.pending import PoolReport, list_pending, watch_coin_pool
from custody.policy import ConfirmationPolicy
from custody.receipts import advance_receipts, list_receipts
from kernel.clock import ManualClock
from kernel.db import transact
from ledger.posting import open_book
from ledger.queries import list_accounts, list_open_holds
from registry.changes import found
from registry.testing import ENTITY, demo_founding

T = TypeVar("T")

BOOK = ENTITY.book
COIN = 10**8
BLOCK_TIME = timedelta(minutes=10)


@dataclass
class CoinHouse:
    """Two clients with deposit addresses, a settlement address, a hot address, all on Bitcoin."""

    engine: AsyncEngine
    node: ScriptedBitcoin = field(default_factory=ScriptedBitcoin)
    reader: BitcoinReader | None = None
    clock: ManualClock = field(
        default_factory=lambda: ManualClock(datetime(2026, 1, 5, tzinfo=UTC))
    )
    policy: ConfirmationPolicy = field(default_factory=lambda: ConfirmationPolicy.uniform(3))
    screening: Screening = NOBODY_LISTED
    acme: str = ""
    birch: str = ""
    settlement: str = ""
    hot: str = ""

    async def open(self) -> CoinHouse:
        await self.do(lambda conn: found(conn, with_bitcoin(demo_founding()), now=self.now))
        await self.do(lambda conn: open_book(conn, BOOK, entity=ENTITY.code, now=self.now))
        self.acme = await self.assign(POOL, AddressPurpose.DEPOSIT, "acme")
        self.birch = await self.assign(POOL, AddressPurpose.DEPOSIT, "birch")
        self.settlement = await self.assign(SETTLEMENT, AddressPurpose.SETTLEMENT, "acme", "run-7")
        self.hot = await self.assign(HOT, AddressPurpose.HOT, None)
        return self

    @property
    def now(self) -> datetime:
        return self.clock.now()

    @property
    def gateway(self) -> BitcoinReader:
        return self.node if self.reader is None else self.reader

    async def do(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        return await transact(self.engine, work)

    async def assign(
        self, wallet: str, purpose: AddressPurpose, party: str | None, reference: str = ""
    ) -> str:
        async def work(conn: AsyncConnection) -> str:
            assigned = await assign_address(
                conn, wallet, purpose=purpose, party=party, reference=reference, now=self.now
            )
            return assigned.address

        return await self.do(work)

    # What happens on the chain in memory.

    def mine(self, *transactions: Transaction, empty_after: int = 0) -> None:
        self.node.mine(*transactions)
        for _ in range(empty_after):
            self.node.mine()

    # What the house does.

    async def follow(self, *, reorg_depth_max: int = 64) -> FollowReport:
        async def apply(conn: AsyncConnection, step: ChainStep) -> None:
            await apply_step(conn, step, book=BOOK, now=self.now, policy=self.policy)

        self.clock.advance(BLOCK_TIME)
        return await follow(
            self.engine,
            self.gateway,
            CHAIN,
            watch=lambda conn: watch_list(conn, CHAIN),
            apply=apply,
            now=self.now,
            policy=FollowPolicy(reorg_depth_max=reorg_depth_max),
        )

    async def tip(self) -> Block:
        tip = await self.do(lambda conn: get_cursor(conn, CHAIN))
        assert tip is not None
        return tip

    async def advance(self) -> tuple[Sequence[Deposit], Sequence[Receipt]]:
        """Take deposits and receipts further."""
        tip, finalized = await self.tip(), await self.gateway.finalized_height()
        deposits = await advance_deposits(
            self.engine,
            CHAIN,
            book=BOOK,
            tip=tip,
            finalized=finalized,
            policy=self.policy,
            now=self.now,
            screening=self.screening,
        )
        receipts = await self.do(
            lambda conn: advance_receipts(
                conn,
                CHAIN,
                book=BOOK,
                tip=tip,
                finalized=finalized,
                policy=self.policy,
                now=self.now,
            )
        )
        return deposits, receipts

    async def catch_up(self) -> None:
        await self.follow()
        await self.advance()

    async def look_at_the_pool(self) -> PoolReport:
        self.clock.advance(timedelta(minutes=1))
        watch = await self.do(lambda conn: watch_list(conn, CHAIN))
        return await watch_coin_pool(self.engine, self.gateway, CHAIN, watch, now=self.now)

    # What the books say.

    async def deposits(self) -> list[Deposit]:
        return await self.do(list_deposits)

    async def receipts(self) -> list[Receipt]:
        return await self.do(list_receipts)

    async def pending(self) -> list[PendingArrival]:
        return await self.do(list_pending)

    async def states(self) -> list[str]:
        return [str(item.state) for item in await self.deposits()]

    async def coins(self) -> list[Coin]:
        return await self.do(lambda conn: list_coins(conn, CHAIN))

    async def spendable(self, wallet: str = POOL) -> list[int]:
        """Return the amounts that may be spent, the largest first."""
        tip = await self.tip()
        found = await self.do(lambda conn: list_spendable(conn, CHAIN, wallet, tip=tip))
        return [item.amount for item in found]

    async def balances(self) -> dict[str, tuple[int, int]]:
        """Return (posted, incoming) of every account that has something."""
        accounts = await self.do(lambda conn: list_accounts(conn, BOOK))
        return {
            a.path: (a.balance.posted, a.balance.incoming)
            for a in accounts
            if a.balance.posted or a.balance.incoming
        }

    async def open_holds(self) -> list[tuple[str, str, int]]:
        holds = await self.do(lambda conn: list_open_holds(conn, BOOK))
        return [(item.debit, item.credit, item.amount) for item in holds]
