"""The slow rounds of treasury: coins to where they should lie, wallets against the chain, tokens read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.bitcoin.ports import BitcoinReader
from chain.follow import get_cursor
from chain.ports import ChainGateway
from chain.tokens import TokenGateway
from custody.rebalance.model import RebalanceReport
from custody.rebalance.worker import advance_coins, advance_rebalance
from custody.reconciliation import reconcile_turn
from custody.token_watch import watch_tokens
from kernel.clock import Clock
from kernel.db import transact

log = structlog.get_logger("treasury")


class TreasuryGateway(ChainGateway, TokenGateway, Protocol):
    """What is asked of a chain's nodes here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreasuryWorker:
    """One chain's treasury; every turn is safe to take again, by any number of processes."""

    engine: AsyncEngine
    gateway: TreasuryGateway
    clock: Clock
    chain: str
    book: int

    async def rebalance(self) -> Mapping[str, object]:
        """Plan the present window, once, and ask for the own transfers that it proposes."""
        if await self._is_new():
            return {}
        report = await advance_rebalance(
            self.engine, self.gateway, chain=self.chain, book=self.book, clock=self.clock
        )
        return _told(report)

    async def reconcile(self) -> Mapping[str, object]:
        """Compare every wallet with the chain; book what two rounds show and nobody explains."""
        if await self._is_new():
            return {}
        run, booked = await reconcile_turn(
            self.engine, self.gateway, self.chain, book=self.book, now=self.clock.now()
        )
        # By address: two that cancel out within a wallet are two.
        for item in run.differences:
            log.error(
                "the books differ from the chain",
                wallet=item.wallet,
                asset=item.asset,
                address=item.address,
                difference=item.difference,
                height=run.block.height,
            )
        for wallet, asset in sorted(run.unknown):
            log.error("a token does not tell its balances", wallet=wallet, asset=asset)
        return {
            "differences": len(run.differences),
            "unknown": len(run.unknown),
            "unproven": sum(item.awaits_proof for item in run.items),
            "booked": len(booked),
        }

    async def read_tokens(self) -> Mapping[str, object]:
        """Read every registered token again; one that is not what it was is frozen."""
        checks = await watch_tokens(self.engine, self.gateway, self.chain, now=self.clock.now())
        for item in checks:
            if item.trouble:
                log.error("a token has changed", asset=item.asset, trouble=item.trouble)
        return {"changed": sum(bool(item.trouble) for item in checks)}

    async def _is_new(self) -> bool:
        return await transact(self.engine, lambda conn: get_cursor(conn, self.chain)) is None


@dataclass(frozen=True, slots=True, kw_only=True)
class CoinTreasury:
    """The treasury of a chain of Bitcoin, whose wallets `BitcoinWatcher.reconcile` compares."""

    engine: AsyncEngine
    node: BitcoinReader
    clock: Clock
    chain: str
    book: int

    async def rebalance(self) -> Mapping[str, object]:
        """Plan the present window, once, and ask for the own transfers that it proposes."""
        if await transact(self.engine, lambda conn: get_cursor(conn, self.chain)) is None:
            return {}
        report = await advance_coins(
            self.engine, self.node, chain=self.chain, book=self.book, clock=self.clock
        )
        return _told(report)


def _told(report: RebalanceReport) -> dict[str, object]:
    """Return the figures of a turn; each refusal is a warning."""
    for proposal, why in report.refused.items():
        log.warning("own transfer refused", proposal=str(proposal), reason=why)
    return {
        "proposed": len(report.proposed),
        "requested": len(report.requested),
        "refused": len(report.refused),
        "alarms": len(report.alarms),
    }
