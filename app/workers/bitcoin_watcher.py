"""The watcher of a Bitcoin chain: follows it and carries deposits, receipts and spends along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.workers.watching import Watching
from chain.bitcoin.ports import BitcoinReader
from chain.errors import BlockGone
from chain.follow import get_cursor
from chain.model import Block, WatchList
from custody.bitcoin.scan_reconciliation import reconcile_coins
from custody.bitcoin.spend_finality import confirm_spends
from custody.bitcoin.spend_worker import advance_spends
from custody.payout_model import Payout
from custody.payout_worker import WorkReport
from custody.pending import watch_coin_pool
from kernel.db import transact

HOLDER: Final = "bitcoin-watcher"

log: Final = structlog.get_logger(HOLDER)


@dataclass(frozen=True, slots=True, kw_only=True)
class BitcoinWatcher(Watching):
    """A watcher of a chain of outputs."""

    node: BitcoinReader
    holder: str = HOLDER
    waiting: set[str] = field(default_factory=set, init=False)
    """Spends of the alarms that were told and stand."""

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

    @property
    def _reader(self) -> BitcoinReader:
        return self.node

    async def _watch_pool(self, watch: WatchList) -> None:
        await watch_coin_pool(self.engine, self.node, self.chain, watch, now=self.clock.now())

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

    async def _send(self) -> WorkReport:
        return await advance_spends(
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

    def _warn(self, work: WorkReport) -> None:
        told = {item.reason for item in work.alarms}
        for reason in sorted(told - self.waiting):
            log.warning("a spend does not move", chain=self.chain, reason=reason)
        self.waiting.clear()
        self.waiting.update(told)
