"""What every watcher of a chain does in a turn, whatever kind of chain it is.

It follows the chain to the head, credits and confirms what is deep enough below the highest block that
the providers agree on, tells the signer what people have signed for it, and sends what is due. What
differs by the kind of chain, `Watching` asks of those that derive from it.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.agreement import agreed_tip
from chain.follow import follow
from chain.model import Block, ChainStep, FollowPolicy, FollowReport, FollowState, WatchList
from chain.ports import ChainGateway, ChainReader
from custody.addresses import WatchListReader
from custody.compliance.address_list import NOBODY_LISTED
from custody.compliance.ports import Screening
from custody.compliance.screening import rescreen
from custody.compliance.travel_rule import NO_TRAVEL_RULE, TravelRule
from custody.deposit_model import Deposit, Receipt
from custody.deposits import advance_deposits
from custody.inclusion import apply_step
from custody.payout_model import Payout
from custody.payout_worker import WorkReport
from custody.policy import ConfirmationPolicy, Requirement
from custody.ports import ControlledSigner
from custody.receipts import advance_receipts
from custody.received import prove
from custody.signer_sync import push_control
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import OutsideUnavailable

log: Final = structlog.get_logger("watcher")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn did.

    Attributes:
        tip: the block that was confirmed against; None where too few providers have one of ours.
    """

    followed: FollowReport
    tip: Block | None = None
    deposits: list[Deposit] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    payouts: list[Payout] = field(default_factory=list)
    work: WorkReport = field(default_factory=WorkReport)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching(ABC):
    """Everything a watcher needs; `turn` is safe to call again after any error or crash."""

    engine: AsyncEngine
    signer: ControlledSigner
    clock: Clock
    chain: str
    book: int
    policy: ConfirmationPolicy
    payout_requirement: Requirement
    follow_policy: FollowPolicy = field(default_factory=FollowPolicy)
    screening: Screening = NOBODY_LISTED
    travel_rule: TravelRule = NO_TRAVEL_RULE
    watched: WatchListReader = field(default_factory=WatchListReader)

    async def turn(self) -> Turn:
        """Follow the chain to the head, credit and confirm what is deep enough, send what is due."""
        followed = await self.follow()
        if followed.state is FollowState.HALTED or followed.cursor is None:
            return Turn(followed)
        await self._pool()
        turn = await self._confirm(Turn(followed), followed.cursor)
        await self._tell_signer()
        work = await self._send()
        self._warn(work)
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
            self._reader,
            self.chain,
            watch=watch,
            apply=apply,
            now=now,
            policy=self.follow_policy,
        )

    async def _confirm(self, turn: Turn, cursor: Block) -> Turn:
        """Credit and confirm what is deep enough below the highest block that providers agree on."""
        now = self.clock.now()
        tip = await agreed_tip(self.engine, self._reader, self.chain, cursor, now)
        if tip is None:
            return turn
        finalized = await self._reader.finalized_height()
        # Who screens may be away; another version is asked again in the next turn.
        with contextlib.suppress(OutsideUnavailable):
            await rescreen(self.engine, self.screening, now=now)
        return replace(
            turn,
            tip=tip,
            deposits=await self._deposits(tip, finalized),
            receipts=await self._receipts(tip, finalized),
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
            log.warning("the signer was not told", chain=self.chain, error=error.render())

    async def _pool(self) -> None:
        """Note what is on its way to us: for people to see, and never posted."""
        watch = await transact(self.engine, lambda c: self.watched.read(c, self.chain))
        try:
            await self._watch_pool(watch)
        except OutsideUnavailable as error:
            # Some providers never show their pool; what is mined is booked and confirmed all the same.
            log.warning("the pool was not read", chain=self.chain, error=error.render())

    @property
    @abstractmethod
    def _reader(self) -> ChainReader:
        """The node, or several that agree."""

    @abstractmethod
    async def _watch_pool(self, watch: WatchList) -> None:
        """Note what waits in the pool for addresses of ours."""

    @property
    def _prover(self) -> ChainGateway | None:
        """Who tells the balances that prove what arrived; None where an arrival proves itself."""
        return None

    async def _deposits(self, tip: Block, finalized: int) -> list[Deposit]:
        return await advance_deposits(
            self.engine,
            self.chain,
            book=self.book,
            tip=tip,
            finalized=finalized,
            policy=self.policy,
            now=self.clock.now(),
            screening=self.screening,
            travel_rule=self.travel_rule,
            gateway=self._prover,
        )

    async def _receipts(self, tip: Block, finalized: int) -> list[Receipt]:
        now, prover = self.clock.now(), self._prover
        if prover is not None:
            await prove(self.engine, prover, self.chain, Receipt, book=self.book, tip=tip, now=now)
        return await transact(
            self.engine,
            lambda conn: advance_receipts(
                conn,
                self.chain,
                book=self.book,
                tip=tip,
                finalized=finalized,
                policy=self.policy,
                now=now,
                proven=prover is not None,
            ),
        )

    @abstractmethod
    async def _payouts(self, conn: AsyncConnection, tip: Block, finalized: int) -> list[Payout]:
        """Confirm the payments that are deep enough."""

    @abstractmethod
    async def _send(self) -> WorkReport:
        """Take payouts on their way."""

    @abstractmethod
    def _warn(self, work: WorkReport) -> None:
        """Say once what does not move, and again if it stops anew."""
