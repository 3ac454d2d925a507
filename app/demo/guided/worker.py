"""A worker of the house as a process of its own, so that it can be killed: chain, payouts, bank.

``python -m app.demo.guided.worker FILE --parent-pipe`` reads what it works on (JSON, `Order`), says that it
is ready, and takes turn after turn until it is killed or its parent's pipe closes. Its clock runs fast,
so that a viewer does not wait a minute for a dead worker's lease.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.demo.founding import BLOCKED, CONFIRMATIONS, DEPTH
from app.demo.stage import BOOK
from app.workers.bank import StatementInbox
from app.workers.bank_payments import REPORTS, BankPayer
from app.workers.watcher import Watcher
from banks.http_gateway import HttpGateway
from chain.evm.gateway import EvmGateway
from custody.compliance.address_list import AddressList
from custody.payout_rules import BumpPolicy
from custody.policy import ConfirmationPolicy
from custody.signer.client import SignerClient
from kernel.clock import SystemClock, to_unix_ns
from kernel.db import APP_ROLE, create_engine
from kernel.errors import CausewayError
from kernel.parent import wait_for_parent_end
from registry.testing import BANK_ACCOUNTS, EVM

SPEED: Final = 60
"""So many seconds pass for a worker in one."""
PAUSE_S: Final = 0.02
NEVER: Final = timedelta(days=365)
PATIENT: Final = BumpPolicy(bump_after=NEVER, underpriced_after=NEVER, deadline=2 * NEVER)
"""Fees are not raised: how fast the clock runs is not to show on the chain."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker works on.

    Attributes:
        url: of the database, or of a wire that leads there.
        evm_url: of the node.
        network_id: of its chain.
        socket: the signer's.
        bank_url: the bank's door.
        inbox: the folder in which the bank's files land.
        began: when the clock that all workers share began to run fast, ISO 8601.
        holder: the worker's name.
    """

    url: str
    evm_url: str
    network_id: int
    socket: str
    bank_url: str
    inbox: str
    began: str
    holder: str

    def to_json(self) -> str:
        """Return the order as a worker reads it."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Hurried:
    """A clock that runs fast from *began* on, the same for every worker that is told the same."""

    began: datetime

    def now(self) -> datetime:
        """Return the beginning and many times what has passed since."""
        return self.began + (SystemClock().now() - self.began) * SPEED

    def now_ns(self) -> int:
        """Return the same in nanoseconds since 1970."""
        return to_unix_ns(self.now())


async def work(order: Order) -> None:
    """Take turns for ever; what fails because the database is away is tried again."""
    engine = create_engine(order.url, role=APP_ROLE, pool_size=2)
    clock = Hurried(datetime.fromisoformat(order.began))
    payer = BankPayer(
        engine=engine,
        clock=clock,
        book=BOOK,
        holder=order.holder,
        gateways={item.code: HttpGateway(order.bank_url) for item in BANK_ACCOUNTS},
    )
    inbox = StatementInbox(
        engine=engine,
        clock=clock,
        folder=Path(order.inbox),
        readers={REPORTS: payer.read_report},
    )
    async with EvmGateway(order.evm_url, chain=EVM, network_id=order.network_id) as gateway:
        watcher = _watcher(order, engine, gateway, clock)
        while True:
            with contextlib.suppress(CausewayError, DBAPIError, OSError):
                await watcher.turn()
                await payer.turn()
                await inbox.turn()
            await asyncio.sleep(PAUSE_S)


def _watcher(order: Order, engine: AsyncEngine, gateway: EvmGateway, clock: Hurried) -> Watcher:
    return Watcher(
        engine=engine,
        gateway=gateway,
        signer=SignerClient(Path(order.socket)),
        clock=clock,
        chain=EVM,
        book=BOOK,
        policy=ConfirmationPolicy.uniform(DEPTH),
        payout_requirement=CONFIRMATIONS,
        screening=AddressList.blocking(1, {BLOCKED}),
        holder=order.holder,
        bump=PATIENT,
    )


async def _run(order: Order) -> None:
    working = asyncio.get_running_loop().create_task(work(order))
    sys.stdout.write(json.dumps({"event": "ready", "component": order.holder}) + "\n")
    sys.stdout.flush()
    await wait_for_parent_end()
    working.cancel()


def main() -> None:
    """Work until killed."""
    line = argparse.ArgumentParser(prog="app.demo.guided.worker", description="A worker.")
    line.add_argument("order", type=Path, help="what it works on, JSON")
    line.add_argument("--parent-pipe", action="store_true", help="end when stdin is closed")
    arguments = line.parse_args()
    asyncio.run(_run(Order(**json.loads(arguments.order.read_text()))))


if __name__ == "__main__":
    main()
