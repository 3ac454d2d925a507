"""The watcher: follows one EVM chain and carries deposits, receipts and payouts along."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.agreement import agreed_tip
from chain.follow import follow
from chain.model import Block, ChainStep, FollowPolicy, FollowReport, FollowState, WatchList
from chain.ports import ChainGateway
from custody.addresses import WatchListReader
from custody.compliance.address_list import NOBODY_LISTED
from custody.compliance.ports import Screening
from custody.compliance.screening import rescreen
from custody.compliance.travel_rule import NO_TRAVEL_RULE, TravelRule
from custody.deposit_model import Deposit, Receipt
from custody.deposits import advance_deposits
from custody.evm_rail import EvmRail
from custody.inclusion import apply_step
from custody.nonces import Alarm
from custody.payout_finality import confirm_payouts
from custody.payout_model import Payout
from custody.payout_rules import BumpPolicy
from custody.payout_worker import WorkReport, advance_payouts
from custody.pending import watch_pool
from custody.policy import ConfirmationPolicy, Requirement
from custody.ports import ControlledSigner
from custody.receipts import advance_receipts
from custody.received import prove
from custody.signer_sync import push_control
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import OutsideUnavailable

HOLDER: Final = "watcher"
CLAIMS_A_TURN: Final = 5
"""Claims of payouts between two looks at the chain: a block is not to wait for all of a backlog."""

log: Final = structlog.get_logger(HOLDER)


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
class Watcher:
    """Everything a watcher needs; `turn` is safe to call again after any error or crash."""

    engine: AsyncEngine
    gateway: ChainGateway
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
    bump: BumpPolicy = field(default_factory=BumpPolicy)
    watched: WatchListReader = field(default_factory=WatchListReader)
    rail: EvmRail = field(init=False)
    """Kept from turn to turn: it remembers which payees have no code."""
    blocked: set[tuple[str, int]] = field(default_factory=set, init=False)
    """Sending addresses and nonces of the alarms that were told and stand."""

    def __post_init__(self) -> None:
        """Make what is kept from turn to turn."""
        object.__setattr__(self, "rail", EvmRail(self.gateway))

    async def turn(self) -> Turn:
        """Follow the chain to the head, credit and confirm what is deep enough, send what is due."""
        followed = await self.follow()
        if followed.state is FollowState.HALTED or followed.cursor is None:
            return Turn(followed)
        await self._pool()
        turn = await self._confirm(Turn(followed), followed.cursor)
        await self._tell_signer()
        work = await advance_payouts(
            self.engine,
            self.gateway,
            self.signer,
            chain=self.chain,
            book=self.book,
            holder=self.holder,
            clock=self.clock,
            claims=CLAIMS_A_TURN,
            bump=self.bump,
            rail=self.rail,
            screening=self.screening,
            travel_rule=self.travel_rule,
        )
        self._warn(work.alarms)
        return replace(turn, work=work)

    def _warn(self, alarms: Sequence[Alarm]) -> None:
        """Say once which lines of nonces do not move, and again if they stop anew."""
        standing = {(item.sender, item.nonce) for item in alarms}
        for item in alarms:
            if (item.sender, item.nonce) not in self.blocked:
                log.warning(
                    "a line of payouts does not move",
                    chain=item.chain,
                    sender=item.sender,
                    nonce=item.nonce,
                    reason=item.reason,
                )
        self.blocked.clear()
        self.blocked.update(standing)

    async def _confirm(self, turn: Turn, cursor: Block) -> Turn:
        """Credit and confirm what is deep enough below the highest block that providers agree on."""
        now = self.clock.now()
        tip = await agreed_tip(self.engine, self.gateway, self.chain, cursor, now)
        if tip is None:
            return turn
        finalized = await self.gateway.finalized_height()
        return replace(
            turn,
            tip=tip,
            deposits=await self._deposits(tip, finalized),
            receipts=await self._receipts(tip, finalized),
            payouts=await transact(self.engine, lambda c: self._payouts(c, tip, finalized)),
        )

    async def follow(self) -> FollowReport:
        """Follow the chain to the node's head and nothing else."""
        now = self.clock.now()

        async def watch(conn: AsyncConnection) -> WatchList:
            return await self.watched.read(conn, self.chain)

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
            await watch_pool(self.engine, self.gateway, self.chain, watch, now=self.clock.now())
        except OutsideUnavailable as error:
            # Some providers never show their pool; what is mined is booked and confirmed all the same.
            log.warning("the pool was not read", error=error.render())

    async def _deposits(self, tip: Block, finalized: int) -> list[Deposit]:
        now = self.clock.now()
        # Who screens may be away; another version is asked again in the next turn.
        with contextlib.suppress(OutsideUnavailable):
            await rescreen(self.engine, self.screening, now=now)
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
            gateway=self.gateway,
        )

    async def _receipts(self, tip: Block, finalized: int) -> list[Receipt]:
        now = self.clock.now()
        await prove(
            self.engine, self.gateway, self.chain, Receipt, book=self.book, tip=tip, now=now
        )
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
                proven=True,
            ),
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
