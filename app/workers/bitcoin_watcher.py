"""The watcher of a Bitcoin chain: follows it and carries deposits, receipts and spends along."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.workers.watcher import Turn
from chain.agreement import agreed_tip
from chain.bitcoin.ports import BitcoinReader
from chain.errors import BlockGone
from chain.follow import follow, get_cursor
from chain.model import Block, ChainStep, FollowPolicy, FollowReport, FollowState, WatchList
from custody.addresses import WatchListReader
from custody.bitcoin.scan_reconciliation import reconcile_coins
from custody.bitcoin.spend_finality import confirm_spends
from custody.bitcoin.spend_worker import advance_spends
from custody.compliance.address_list import NOBODY_LISTED
from custody.compliance.ports import Screening
from custody.compliance.screening import rescreen
from custody.compliance.travel_rule import NO_TRAVEL_RULE, TravelRule
from custody.deposit_model import Deposit, Receipt
from custody.deposits import advance_deposits
from custody.inclusion import apply_step
from custody.payout_model import Payout
from custody.pending import watch_coin_pool
from custody.policy import ConfirmationPolicy, Requirement
from custody.ports import ControlledSigner
from custody.receipts import advance_receipts
from custody.signer_sync import push_control
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import OutsideUnavailable

HOLDER: Final = "bitcoin-watcher"

log: Final = structlog.get_logger(HOLDER)


@dataclass(frozen=True, slots=True, kw_only=True)
class BitcoinWatcher:
    """Everything a watcher needs; `turn` is safe to call again after any error or crash."""

    engine: AsyncEngine
    node: BitcoinReader
    signer: ControlledSigner
    clock: Clock
    chain: str
    book: int
    policy: ConfirmationPolicy
    payout_requirement: Requirement
    follow_policy: FollowPolicy = field(default_factory=FollowPolicy)
    holder: str = HOLDER
    screening: Screening = NOBODY_LISTED
    travel_rule: TravelRule = NO_TRAVEL_RULE
    watched: WatchListReader = field(default_factory=WatchListReader)
    waiting: set[str] = field(default_factory=set, init=False)
    """Spends of the alarms that were told and stand."""

    async def turn(self) -> Turn:
        """Follow the chain to the head, credit and confirm what is deep enough, send what is due."""
        followed = await self.follow()
        if followed.state is FollowState.HALTED or followed.cursor is None:
            return Turn(followed)
        await self._pool()
        turn = await self._confirm(Turn(followed), followed.cursor)
        await self._tell_signer()
        work = await advance_spends(
            self.engine,
            self.node,
            self.signer,
            chain=self.chain,
            book=self.book,
            holder=self.holder,
            clock=self.clock,
            screening=self.screening,
            travel_rule=self.travel_rule,
        )
        told = {item.reason for item in work.alarms}
        for reason in sorted(told - self.waiting):
            log.warning("a spend does not move", chain=self.chain, reason=reason)
        self.waiting.clear()
        self.waiting.update(told)
        return replace(turn, work=work)

    async def follow(self) -> FollowReport:
        """Follow the chain to the node's head and nothing else."""
        now = self.clock.now()

        async def watch(conn: AsyncConnection) -> WatchList:
            return await self.watched.read(conn, self.chain)

        async def apply(conn: AsyncConnection, step: ChainStep) -> None:
            await apply_step(conn, step, book=self.book, now=now, policy=self.policy)

        return await follow(
            self.engine,
            self.node,
            self.chain,
            watch=watch,
            apply=apply,
            now=now,
            policy=self.follow_policy,
        )

    async def reconcile(self) -> Mapping[str, object]:
        """Compare every wallet with the chain, coin by coin; follow to the node's block before."""
        if await transact(self.engine, lambda conn: get_cursor(conn, self.chain)) is None:
            return {}
        await self.follow()
        try:
            run = await reconcile_coins(
                self.engine, self.node, self.chain, book=self.book, now=self.clock.now()
            )
        except BlockGone as error:
            # Blocks came faster than the scan: the next round compares.
            log.warning("nothing was compared", error=error.render())
            return {}
        for item in run.differences:
            log.error(
                "the books differ from the chain",
                wallet=item.wallet,
                place=item.address,
                difference=item.difference,
                height=run.block.height,
            )
        return {"differences": len(run.differences)}

    async def _confirm(self, turn: Turn, cursor: Block) -> Turn:
        """Credit and confirm what is deep enough below the highest block that nodes agree on."""
        now = self.clock.now()
        tip = await agreed_tip(self.engine, self.node, self.chain, cursor, now)
        if tip is None:
            return turn
        finalized = await self.node.finalized_height()
        return replace(
            turn,
            tip=tip,
            deposits=await self._deposits(tip, finalized),
            receipts=await transact(self.engine, lambda c: self._receipts(c, tip, finalized)),
            payouts=await transact(self.engine, lambda c: self._payouts(c, tip, finalized)),
        )

    async def _tell_signer(self) -> None:
        """Hand over what people have signed for the signer.

        Raises:
            StoreUnusable: the signer's store was set back; nothing is asked of it.
        """
        try:
            await push_control(self.engine, self.signer, now=self.clock.now())
        except OutsideUnavailable as error:
            # Payouts wait for it by themselves, and the queue does.
            log.warning("the signer was not told", error=error.render())

    async def _pool(self) -> None:
        """Note what is on its way to us: for people to see, and never posted."""
        watch = await transact(self.engine, lambda c: self.watched.read(c, self.chain))
        try:
            await watch_coin_pool(self.engine, self.node, self.chain, watch, now=self.clock.now())
        except OutsideUnavailable as error:
            log.warning("the pool was not read", error=error.render())

    async def _deposits(self, tip: Block, finalized: int) -> list[Deposit]:
        now = self.clock.now()
        # Who screens may be away; another version is asked again in the next turn.
        with contextlib.suppress(OutsideUnavailable):
            await rescreen(self.engine, self.screening, now=now)
        # An output is what it says it is: no balance has to prove it.
        return await advance_deposits(
            self.engine,
            self.chain,
            book=self.book,
            tip=tip,
            finalized=finalized,
            policy=self.policy,
            now=now,
            screening=self.screening,
            travel_rule=self.travel_rule,
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
        return await confirm_spends(
            conn,
            self.chain,
            book=self.book,
            tip=tip,
            finalized=finalized,
            requirement=self.payout_requirement,
            now=self.clock.now(),
        )
