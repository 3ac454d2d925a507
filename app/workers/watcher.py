"""The watcher: follows one EVM chain and carries deposits, receipts and payouts along."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.follow import follow
from chain.model import Block, ChainStep, FollowPolicy, FollowReport, FollowState, WatchList
from chain.ports import ChainGateway
from custody.addresses import watch_list
from custody.deposit_model import Deposit, Receipt
from custody.deposits import advance_deposits
from custody.inclusion import apply_step
from custody.payout_finality import confirm_payouts
from custody.payout_model import Payout
from custody.payout_worker import WorkReport, advance_payouts
from custody.policy import ConfirmationPolicy, Requirement
from custody.ports import PayoutSigner
from custody.receipts import advance_receipts
from custody.screening import Screen
from kernel.clock import Clock
from kernel.db import transact

HOLDER: Final = "watcher"


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn did."""

    followed: FollowReport
    deposits: list[Deposit] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    payouts: list[Payout] = field(default_factory=list)
    work: WorkReport = field(default_factory=WorkReport)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """Everything a watcher needs; `turn` is safe to call again after any error or crash."""

    engine: AsyncEngine
    gateway: ChainGateway
    signer: PayoutSigner
    clock: Clock
    chain: str
    book: int
    policy: ConfirmationPolicy
    payout_requirement: Requirement
    screen: Screen
    follow_policy: FollowPolicy = field(default_factory=FollowPolicy)
    holder: str = HOLDER

    async def turn(self) -> Turn:
        """Follow the chain to the head, credit and confirm what is deep enough, send what is due."""
        followed = await self.follow()
        if followed.state is FollowState.HALTED or followed.cursor is None:
            return Turn(followed)
        tip, finalized = followed.cursor, await self.gateway.finalized_height()
        deposits = await transact(self.engine, lambda c: self._deposits(c, tip, finalized))
        receipts = await transact(self.engine, lambda c: self._receipts(c, tip, finalized))
        payouts = await transact(self.engine, lambda c: self._payouts(c, tip, finalized))
        work = await advance_payouts(
            self.engine,
            self.gateway,
            self.signer,
            chain=self.chain,
            book=self.book,
            holder=self.holder,
            clock=self.clock,
        )
        return Turn(followed, deposits, receipts, payouts, work)

    async def follow(self) -> FollowReport:
        """Follow the chain to the node's head and nothing else."""
        now = self.clock.now()

        async def watch(conn: AsyncConnection) -> WatchList:
            return await watch_list(conn, self.chain)

        async def apply(conn: AsyncConnection, step: ChainStep) -> None:
            await apply_step(conn, step, book=self.book, now=now, policy=self.policy)

        return await follow(
            self.engine,
            self.gateway,
            self.chain,
            watch=watch,
            apply=apply,
            now=now,
            policy=self.follow_policy,
        )

    async def _deposits(self, conn: AsyncConnection, tip: Block, finalized: int) -> list[Deposit]:
        return await advance_deposits(
            conn,
            self.chain,
            book=self.book,
            tip=tip,
            finalized=finalized,
            policy=self.policy,
            now=self.clock.now(),
            screen=self.screen,
        )

    async def _receipts(self, conn: AsyncConnection, tip: Block, finalized: int) -> list[Receipt]:
        return await advance_receipts(
            conn,
            self.chain,
            book=self.book,
            tip=tip,
            finalized=finalized,
            policy=self.policy,
            now=self.clock.now(),
        )

    async def _payouts(self, conn: AsyncConnection, tip: Block, finalized: int) -> list[Payout]:
        return await confirm_payouts(
            conn,
            self.chain,
            book=self.book,
            tip=tip,
            finalized=finalized,
            requirement=self.payout_requirement,
            now=self.clock.now(),
        )
