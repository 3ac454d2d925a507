"""Workers on Bitcoin killed by SIGKILL at any moment: each payout is paid once, and the books are exact.

Node, signer, database and worker are processes of their own. What a dead worker leaves is rows, the
signer's store, and what the node took.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Final

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database
from chain.simulators.bitcoind import COOKIE, Bitcoind
from custody.bitcoin.spend_model import SpendState
from custody.bitcoin.spend_worker import LEASE
from custody.bitcoin.testing import with_bitcoin
from custody.payout_model import PayoutState
from custody.signer.client import SignerClient
from custody.signer.testing import SEED, rules_for, write_signer_files
from custody.signer_sync import push_control
from kernel.clock import SystemClock
from registry.testing import DEMO_OPERATORS, demo_founding
from tests.chain.bitcoin.conftest import bitcoind, bitcoind_binary
from tests.crash.spender import Order
from tests.custody.bitcoin.spend_world import BOOK, BTC, DEPOSITS, PAYEES
from tests.custody.bitcoin.test_spend_real import RealSpendWorld, make_real_world

__all__ = ["bitcoind", "bitcoind_binary"]

REPOSITORY: Final = Path(__file__).absolute().parents[2]
KILLS: Final = 12
LIFE_MAX_S: Final = 0.6
"""A worker of a few payouts needs about half of it; some die before their first row."""
SETTLED_WITHIN_S: Final = 60.0


@contextmanager
def signer_of_bitcoin(folder: Path) -> Iterator[SignerClient]:
    founding = with_bitcoin(demo_founding())
    rules = rules_for(founding.chains, founding.chain_assets, DEMO_OPERATORS)
    files = write_signer_files(folder, rules, seed=SEED, random=secrets.token_bytes)
    socket = folder / "signer"
    command = [sys.executable, "-m", "custody.signer", *files.options]
    with subprocess.Popen(
        [*command, "--socket", str(socket), "--parent-pipe"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["ready"]
        yield SignerClient(socket)
        child.stdin.close()
        assert child.wait(20) == 0


@contextlib.asynccontextmanager
async def nursery() -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.crash.spender"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    assert (await process.stdout.readline()).strip() == b"ready"
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def bear(process: asyncio.subprocess.Process, order: Order) -> int:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
    await process.stdin.drain()
    return int(await process.stdout.readline())


@pytest.mark.timeout(300)
async def test_workers_killed_at_any_moment_pay_each_payout_once(
    database: Database, engine: AsyncEngine, tmp_path: Path, bitcoind: Bitcoind
) -> None:
    random = Random(5)
    with signer_of_bitcoin(tmp_path) as signer:
        async with (
            make_real_world(
                engine, tmp_path, bitcoind, signer=signer, began=SystemClock().now()
            ) as world,
            nursery() as process,
        ):
            order = Order(
                url=database.app_url,
                node=bitcoind.url,
                cookie=str(bitcoind.folder / COOKIE),
                socket=str(tmp_path / "signer"),
                book=BOOK,
                holder="",
                now="",
            )
            payouts = []
            for life in range(KILLS):
                if life % 3 == 0:
                    new = await world.approved(
                        client_ref=f"k-{life}",
                        amount=BTC // 50 + life,
                        destination=PAYEES[life % len(PAYEES)],
                    )
                    payouts.append(new)
                    await push_control(engine, signer, now=world.clock.now())
                pid = await bear(process, _order(order, world, life))
                await asyncio.sleep(random.random() * LIFE_MAX_S)
                os.kill(pid, signal.SIGKILL)
                world.clock.advance(2 * LEASE)
                if life % 4 == 3:
                    await world.mine()
            pid = await bear(process, _order(order, world, KILLS))
            async with asyncio.timeout(SETTLED_WITHIN_S):
                while await world.states(payouts) - {"confirmed"}:
                    await world.mine()
                    await world.confirm()
                    await asyncio.sleep(0.2)
            os.kill(pid, signal.SIGKILL)

            spends = await world.spends()
            assert {item.spend.state for item in spends} == {SpendState.FINAL}
            assert sorted(p.id for s in spends for p in s.payouts) == sorted(p.id for p in payouts)
            done = [await world.get(item) for item in payouts]
            assert {item.state for item in done} == {PayoutState.CONFIRMED}
            books = await world.books()
            paid = sum(item.amount for item in done)
            assert books["client:acme"] == (sum(DEPOSITS) - paid, 0, 0)
            await world.assert_exact()


def _order(order: Order, world: RealSpendWorld, life: int) -> Order:
    named = {"holder": f"worker-{life}", "now": world.clock.now().isoformat()}
    return Order(**{**asdict(order), **named})
