"""The watcher of an EVM chain: follows it and carries deposits, receipts and payouts along."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.workers.watching import Watching
from chain.model import Block, WatchList
from chain.ports import ChainGateway
from custody.evm_rail import EvmRail
from custody.payout_finality import confirm_payouts
from custody.payout_model import Payout
from custody.payout_rules import BumpPolicy
from custody.payout_worker import WorkReport, advance_payouts
from custody.pending import watch_pool

HOLDER: Final = "watcher"
CLAIMS_A_TURN: Final = 5
"""Claims of payouts between two looks at the chain: a block is not to wait for all of a backlog."""

log: Final = structlog.get_logger(HOLDER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher(Watching):
    """A watcher of a chain with accounts."""

    gateway: ChainGateway
    holder: str = HOLDER
    bump: BumpPolicy = field(default_factory=BumpPolicy)
    rail: EvmRail = field(init=False)
    """Kept from turn to turn: it remembers which payees have no code."""
    blocked: set[tuple[str, int]] = field(default_factory=set, init=False)
    """Sending addresses and nonces of the alarms that were told and stand."""

    def __post_init__(self) -> None:
        """Make what is kept from turn to turn."""
        object.__setattr__(self, "rail", EvmRail(self.gateway))

    @property
    def _reader(self) -> ChainGateway:
        return self.gateway

    @property
    def _prover(self) -> ChainGateway:
        return self.gateway

    async def _watch_pool(self, watch: WatchList) -> None:
        await watch_pool(self.engine, self.gateway, self.chain, watch, now=self.clock.now())

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

    async def _send(self) -> WorkReport:
        return await advance_payouts(
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

    def _warn(self, work: WorkReport) -> None:
        standing = {(item.sender, item.nonce) for item in work.alarms}
        for item in work.alarms:
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
