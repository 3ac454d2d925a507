"""A small house on a scripted chain, for the stories of what arrives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.follow import follow, get_cursor
from chain.model import ChainStep, FollowPolicy, FollowReport
from chain.testing import ScriptedGateway, ScriptedTransaction, ScriptedTransfer
from custody.addresses import assign_address, watch_list
from custody.compliance.address_list import NOBODY_LISTED
from custody.compliance.cases import get_case
from custody.compliance.decisions import release
from custody.compliance.model import Case
from custody.compliance.people import RELEASE_VERB, case_bytes
from custody.compliance.ports import Screening
from custody.compliance.travel_rule import NO_TRAVEL_RULE, TravelRule
from custody.deposit_model import Deposit, Receipt
from custody.deposits import advance_deposits, list_deposits
from custody.inclusion import apply_step
from custody.model import AddressPurpose
from custody.policy import ConfirmationPolicy
from custody.receipts import advance_receipts, list_receipts
from custody.received import prove
from custody.reconciliation import reconcile_chain
from kernel.clock import ManualClock
from kernel.db import transact
from ledger.posting import open_book
from ledger.queries import list_accounts, list_open_holds
from registry.changes import found
from registry.testing import ENTITY, TOKEN, demo_founding, operator_keypair

T = TypeVar("T")

BOOK = ENTITY.book
ETHER = 10**18
STRANGER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
OTHER = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
FAKE_TOKEN = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"


@dataclass
class House:
    """Two clients with deposit addresses, a settlement address, a hot address."""

    engine: AsyncEngine
    gateway: ScriptedGateway = field(default_factory=ScriptedGateway)
    clock: ManualClock = field(
        default_factory=lambda: ManualClock(datetime(2026, 1, 5, tzinfo=UTC))
    )
    policy: ConfirmationPolicy = field(default_factory=lambda: ConfirmationPolicy.uniform(3))
    screening: Screening = NOBODY_LISTED
    travel_rule: TravelRule = NO_TRAVEL_RULE
    proves: bool = False
    acme: str = ""
    birch: str = ""
    settlement: str = ""
    hot: str = ""
    salt: int = 0

    async def open(self) -> House:
        for address in (STRANGER, OTHER):
            self.gateway.fund(address, 10**6 * ETHER)
            for token in (TOKEN, FAKE_TOKEN):
                self.gateway.fund(address, 10**15, token)
        await self.do(lambda conn: found(conn, demo_founding(), now=self.now))
        await self.do(lambda conn: open_book(conn, BOOK, entity=ENTITY.code, now=self.now))
        self.acme = await self.assign("client-pool", AddressPurpose.DEPOSIT, "acme")
        self.birch = await self.assign("client-pool", AddressPurpose.DEPOSIT, "birch")
        self.settlement = await self.assign(
            "house-settlement", AddressPurpose.SETTLEMENT, "acme", "run-7"
        )
        self.hot = await self.assign("house-hot", AddressPurpose.HOT, None)
        return self

    @property
    def now(self) -> datetime:
        return self.clock.now()

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

    # What happens on the chain.

    def pay(
        self, to: str, amount: int, *, sender: str = STRANGER, **more: object
    ) -> ScriptedTransaction:
        """Return a transaction that sends ether; a new one each time."""
        self.salt += 1
        return ScriptedTransaction(
            sender=sender,
            recipient=to,
            value=amount,
            salt=str(self.salt),
            **more,  # type: ignore[arg-type]
        )

    def pay_token(
        self,
        *legs: tuple[str, int],
        sender: str = STRANGER,
        contract: str = TOKEN,
        **more: object,
    ) -> ScriptedTransaction:
        """Return a transaction that sends tokens: one Transfer event for each leg."""
        self.salt += 1
        return ScriptedTransaction(
            sender=sender,
            recipient=contract,
            transfers=tuple(ScriptedTransfer(contract, sender, to, n) for to, n in legs),
            salt=str(self.salt),
            **more,  # type: ignore[arg-type]
        )

    def mine(self, *transactions: ScriptedTransaction, empty_after: int = 0) -> None:
        self.gateway.mine(*transactions)
        for _ in range(empty_after):
            self.gateway.mine()

    # What the house does.

    async def follow(self, *, reorg_depth_max: int = 64, start_height: int = 0) -> FollowReport:
        async def apply(conn: AsyncConnection, step: ChainStep) -> None:
            await apply_step(conn, step, book=BOOK, now=self.now, policy=self.policy)

        self.clock.advance(timedelta(seconds=12))
        return await follow(
            self.engine,
            self.gateway,
            "evm",
            watch=lambda conn: watch_list(conn, "evm"),
            apply=apply,
            now=self.now,
            policy=FollowPolicy(reorg_depth_max=reorg_depth_max, start_height=start_height),
        )

    async def advance(self) -> tuple[Sequence[Deposit], Sequence[Receipt]]:
        """Take deposits and receipts further: a transaction each, both end with the ledger."""
        tip = await self.do(lambda conn: get_cursor(conn, "evm"))
        assert tip is not None
        finalized = await self.gateway.finalized_height()
        deposits = await advance_deposits(
            self.engine,
            "evm",
            book=BOOK,
            tip=tip,
            finalized=finalized,
            policy=self.policy,
            now=self.now,
            screening=self.screening,
            travel_rule=self.travel_rule,
            gateway=self.gateway if self.proves else None,
        )
        if self.proves:
            await prove(self.engine, self.gateway, "evm", Receipt, book=BOOK, tip=tip, now=self.now)
        receipts = await self.do(
            lambda conn: advance_receipts(
                conn,
                "evm",
                book=BOOK,
                tip=tip,
                finalized=finalized,
                policy=self.policy,
                now=self.now,
                proven=self.proves,
            )
        )
        return deposits, receipts

    async def catch_up(self) -> None:
        await self.follow()
        await self.advance()

    async def case(self, subject_id: UUID) -> Case:
        return await self.do(lambda conn: get_case(conn, subject_id))

    async def release(self, subject_id: UUID, *by: str, reason: str = "fine") -> Case:
        """Let go what compliance holds, as these operators (ben and cleo) say."""
        payload = case_bytes(RELEASE_VERB, await self.case(subject_id), reason)
        signatures = {code: operator_keypair(code).sign(payload) for code in by or ("ben", "cleo")}
        return await self.do(
            lambda conn: release(
                conn, subject_id, signatures=signatures, reason=reason, book=BOOK, now=self.now
            )
        )

    # What the books say.

    async def deposits(self) -> list[Deposit]:
        return await self.do(list_deposits)

    async def receipts(self) -> list[Receipt]:
        return await self.do(list_receipts)

    async def states(self) -> list[str]:
        return [str(item.state) for item in await self.deposits()]

    async def balances(self) -> dict[str, tuple[int, int]]:
        """Return (posted, incoming) of every account that has something, as ``path asset``."""
        accounts = await self.do(lambda conn: list_accounts(conn, BOOK))
        return {
            f"{a.path} {a.asset}": (a.balance.posted, a.balance.incoming)
            for a in accounts
            if a.balance.posted or a.balance.incoming
        }

    async def open_holds(self) -> list[tuple[str, str, int]]:
        holds = await self.do(lambda conn: list_open_holds(conn, BOOK))
        return [(item.debit, item.credit, item.amount) for item in holds]

    async def differences(self) -> dict[str, int]:
        """Return where chain and ledger differ, as ``wallet asset``; empty is right."""
        compared = await reconcile_chain(self.engine, self.gateway, "evm", book=BOOK)
        assert len(compared) == 6
        return {f"{c.wallet} {c.asset}": c.difference for c in compared if c.difference}
