"""A house whose database was set back, and an account at a venue that it first used after the moment."""

from __future__ import annotations

import secrets
from functools import partial
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local.databases import Database, Server
from app.workers.house_file import parse_house
from app.workers.house_parts import House
from app.workers.restore_loop import RestoreWatch
from app.workers.venue_desk import open_desk
from chain.errors import WrongChain
from chain.model import Block
from chain.testing import ScriptedGateway
from custody.restore import store
from custody.restore.coverage import vouch
from custody.restore.finding import begin
from custody.restore.model import (
    SourceState,
    opening_bytes,
    vouching_bytes,
)
from custody.restore.opening import open_restore
from custody.signer.testing import local_signer, rules_for
from kernel.db import transact
from kernel.settings import Settings
from registry.testing import DEMO_OPERATORS, demo_founding, operator_keypair
from tests.app.workers.test_venue_desk import (
    BOOK,
    CLOCK,
    HELD,
    HOUSE,
    at,
    bought,
    enrolled,
    house,
    opened,
)
from tests.venues.in_thread import SimulatorThread
from venues.account_state import account_state
from venues.fills import list_fills
from venues.model import AccountMode

__all__ = ["house"]
VENUE = "venue:binance/desk"
WHY = "the disk was lost"


class OtherNode(ScriptedGateway):
    """A node that was started for another network by mistake."""

    async def head(self) -> Block:
        raise WrongChain("the node serves network 5, evm is 1")


async def vouch_for_the_rest(engine: AsyncEngine) -> None:
    async def work(conn: AsyncConnection) -> None:
        standing = await store.require_standing(conn)
        for item in await store.list_sources(conn, standing.id):
            if item.state is SourceState.WAITING:
                await vouch(
                    conn,
                    item.source,
                    by="dan",
                    signature=operator_keypair("dan").sign(vouching_bytes(item, WHY)),
                    reason=WHY,
                    now=CLOCK.now(),
                )

    await transact(engine, work)


async def source(engine: AsyncEngine) -> SourceState:
    standing = await transact(engine, store.require_standing)
    found = await transact(engine, lambda conn: store.get_source(conn, standing.id, VENUE))
    return found.state


async def mode(engine: AsyncEngine) -> AccountMode:
    found = await transact(engine, lambda conn: account_state(conn, "binance", "desk"))
    return found.mode


async def test_an_account_that_was_first_used_after_the_moment_is_halted_read_and_opened(
    house: AsyncEngine, database_server: Server, database: Database, tmp_path: Path
) -> None:
    rules = rules_for(demo_founding().chains, demo_founding().chain_assets, DEMO_OPERATORS)
    copy = f"causeway_backup_{secrets.token_hex(6)}"
    (tmp_path / "signer").mkdir()
    with (
        SimulatorThread(tmp_path / "venue", "--step-ms", "0", *HELD) as sim,
        local_signer(tmp_path / "signer", rules) as signer,
    ):
        await enrolled(house, sim)
        await house.dispose()
        await database_server.execute(f'CREATE DATABASE "{copy}" TEMPLATE "{database.name}"')
        async with open_desk(
            house, at(sim, tmp_path), book=BOOK, clock=CLOCK, chance=lambda: 0.0
        ) as desk:
            await opened(house, desk)
            await bought(house, desk)
            assert (await desk.turn())["trades"] == 1
            await house.dispose()
            await database_server.execute(
                f'DROP DATABASE "{database.name}"',
                f'ALTER DATABASE "{copy}" RENAME TO "{database.name}"',
            )
            await transact(house, lambda conn: begin(conn, WHY, now=CLOCK.now()))
            assert await mode(house) is AccountMode.ACTIVE
            watch = RestoreWatch(
                house=House(
                    engine=house,
                    settings=Settings(),
                    evm_url="",
                    file=parse_house(HOUSE, tmp_path / "house.toml"),
                    clock=CLOCK,
                    write=lambda _: None,
                    facts={},
                ),
                signer=signer,
                readers={"evm": OtherNode()},
                desks=[desk],
            )

            await watch.turn()

            assert await mode(house) is AccountMode.HALTED
            assert await source(house) is SourceState.DONE
            trades = await transact(
                house, lambda conn: list_fills(conn, "binance", "desk", "ETHUSDT")
            )
            assert len(trades) == 1
            await vouch_for_the_rest(house)
            payload = opening_bytes(await transact(house, store.require_standing), WHY)
            signed = {code: operator_keypair(code).sign(payload) for code in ("ben", "cleo")}
            await transact(
                house,
                partial(open_restore, signatures=signed, reason=WHY, now=CLOCK.now()),
            )
            assert await mode(house) is AccountMode.ACTIVE
