"""Play the demo from the command line: progress as it happens, one report, an exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import orjson
from rich.console import Console
from rich.markup import escape

from app.demo.coins import move_bitcoin, open_bitcoin
from app.demo.deposits import clients_pay_in
from app.demo.desk import Room, open_room, trade_and_hedge
from app.demo.founding import open_the_house, pay_in_capital
from app.demo.proving import leave_one_deposit_open, prove
from app.demo.report import Result, print_result
from app.demo.settling import settle, withdraw
from app.demo.stage import Happening, Stage
from app.demo.world import World, open_world
from kernel.clock import SystemClock
from kernel.errors import ungrouped
from kernel.settings import Settings
from kernel.telemetry import configure_logging
from reporting.gather import Examination

REPORT_WIDTH: Final = 120
FAILED: Final = 1


def run_demo(*, as_json: bool, keep: bool, seed: int) -> int:
    """Play the story and return the exit code: 0 if every proof held, 1 if one did not."""
    settings = Settings.from_env(os.environ)
    configure_logging("error", as_json=settings.log_json)
    with ungrouped():
        return asyncio.run(_run(settings, as_json=as_json, keep=keep, seed=seed))


async def _run(settings: Settings, *, as_json: bool, keep: bool, seed: int) -> int:
    progress = Console(stderr=True, quiet=as_json)
    began = time.monotonic()
    with progress.status("Starting PostgreSQL, two chains and a venue on this machine …") as live:

        def tell(line: Happening) -> None:
            live.update(f"[bold]{line.chapter}[/]: {escape(line.what)}")

        async with open_world(settings, seed=seed) as world:
            for notice in world.notices:
                progress.print(notice, style="yellow", highlight=False, soft_wrap=True)
            stage = Stage(world, SystemClock(), tell)
            async with played(stage) as (examination, _):
                live.stop()
                result = Result(
                    timeline=stage.timeline,
                    examination=examination,
                    evm=world.evm,
                    seconds=time.monotonic() - began,
                    notices=world.notices,
                )
                _show(result, as_json=as_json)
                if keep:
                    await keep_running(world, Console(stderr=True))
    return 0 if examination.held else FAILED


@asynccontextmanager
async def played(stage: Stage) -> AsyncIterator[tuple[Examination, Room]]:
    """Play every chapter; give what the proofs found, and the room for whoever looks again."""
    async with stage.connections():
        stage.chapter = "founding"
        signer = await open_the_house(stage)
        await open_bitcoin(stage, signer)
        await pay_in_capital(stage)
        stage.chapter = "deposits"
        await clients_pay_in(stage)
        async with open_room(stage) as room:
            stage.chapter = "desk"
            await trade_and_hedge(stage, room)
            stage.chapter = "settlement"
            await settle(stage)
            stage.chapter = "payout"
            await withdraw(stage)
            await leave_one_deposit_open(stage)
            stage.chapter = "bitcoin"
            await move_bitcoin(stage)
            stage.chapter = "proof"
            yield await prove(stage, room), room


def _show(result: Result, *, as_json: bool) -> None:
    if as_json:
        document = orjson.dumps(result.to_json(), option=orjson.OPT_INDENT_2)
        sys.stdout.write(document.decode() + "\n")
        sys.stdout.flush()
        return
    print_result(Console(width=None if sys.stdout.isatty() else REPORT_WIDTH), result)


def _bitcoin_line(world: World) -> list[str]:
    node = world.bitcoin
    return (
        []
        if node is None
        else [f"export CAUSEWAY_BITCOIN_URL='{node.url}#cookie={node.cookie_file}'"]
    )


async def keep_running(world: World, console: Console) -> None:
    """Say how to reach what is running, and wait until somebody ends it."""
    console.print("\nStill running; end it with Ctrl-C. In another shell:", style="bold")
    for line in (
        f"export CAUSEWAY_DATABASE_URL='{world.owner_url}'",
        f"export CAUSEWAY_EVM_URL={world.evm_url}",
        *_bitcoin_line(world),
        "causeway ledger trial-balance",
    ):
        console.print(f"  {line}", highlight=False, soft_wrap=True, markup=False)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
