"""A process that works for a desk on Bitcoin, turn after turn, until it is killed.

It carries payouts out; or it is a whole watcher, which follows the chain and its pool, books and credits
deposits and confirms payouts as well.

``python -m tests.crash.spender`` is a nursery: it reads one order a line (JSON), forks a worker for each
and says its process id, so that a worker is born without importing anything.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from app.workers.bitcoin_watcher import BitcoinWatcher
from chain.bitcoin.gateway import BitcoinGateway
from chain.bitcoin.networks import REGTEST
from chain.model import FollowPolicy
from custody.bitcoin.spend_worker import advance_spends
from custody.bitcoin.testing import CHAIN
from custody.policy import ConfirmationPolicy, Requirement
from custody.signer.client import SignerClient
from kernel.clock import Clock, to_unix_ns
from kernel.db import APP_ROLE, create_engine

PAUSE_S: Final = 0.01
DEPTH: Final = 3
"""Blocks after which a watcher believes what it saw."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker works on: database, node, signer, and what its clock says when it begins.

    Attributes:
        start: the height from which a watcher follows the chain; None: it only pays.
    """

    url: str
    node: str
    cookie: str
    socket: str
    book: int
    holder: str
    now: str
    start: int | None = None


class Running:
    """A clock that begins where it is told."""

    def __init__(self, began: datetime) -> None:
        self._began = began
        self._at = asyncio.get_running_loop().time()

    def now(self) -> datetime:
        """Return the beginning and what has passed since."""
        return self._began + timedelta(seconds=asyncio.get_running_loop().time() - self._at)

    def now_ns(self) -> int:
        """Return the same in nanoseconds since 1970."""
        return to_unix_ns(self.now())


async def run(order: Order) -> None:
    """Carry an order out: for ever."""
    engine = create_engine(order.url, role=APP_ROLE, pool_size=2, injected_clock=True)
    clock, signer = Running(datetime.fromisoformat(order.now)), SignerClient(Path(order.socket))
    cookie = Path(order.cookie)
    async with BitcoinGateway(order.node, chain=CHAIN, network=REGTEST, cookie=cookie) as node:
        if order.start is not None:
            await watch(order, engine, node, signer, clock)
        while True:
            await advance_spends(
                engine,
                node,
                signer,
                chain=CHAIN,
                book=order.book,
                holder=order.holder,
                clock=clock,
            )
            await asyncio.sleep(PAUSE_S)


async def watch(
    order: Order, engine: AsyncEngine, node: BitcoinGateway, signer: SignerClient, clock: Clock
) -> None:
    """Be the watcher of the chain: for ever."""
    assert order.start is not None
    watcher = BitcoinWatcher(
        engine=engine,
        node=node,
        signer=signer,
        clock=clock,
        chain=CHAIN,
        book=order.book,
        policy=ConfirmationPolicy.uniform(DEPTH),
        payout_requirement=Requirement(DEPTH),
        follow_policy=FollowPolicy(start_height=order.start),
        holder=order.holder,
    )
    while True:
        await watcher.turn()
        await asyncio.sleep(PAUSE_S)


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main() -> None:
    """Fork a worker for each order that is read."""
    _say("ready")
    for line in sys.stdin:
        child = os.fork()
        if not child:
            # What the worker logs is not what the nursery says.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            asyncio.run(run(Order(**json.loads(line))))
        _say(str(child))


if __name__ == "__main__":
    main()
