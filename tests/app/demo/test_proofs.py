"""The story played once in this process; then one thing is falsified at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import make_url

from app.demo.desk import Room
from app.demo.proving import drain_outbox, look
from app.demo.run import played
from app.demo.stage import BOOK, Stage
from app.demo.world import open_world
from custody.addresses import list_addresses
from custody.model import AddressPurpose
from kernel.clock import SystemClock
from kernel.ids import derive_id
from kernel.settings import Secret, Settings
from ledger.accounts import ensure_accounts
from ledger.model import reversal, transfer
from ledger.posting import post, require_applied
from registry.testing import EVM
from venues.simulator.testing import control

Tamper = Callable[[Stage], AbstractAsyncContextManager[None]]


async def as_owner(stage: Stage, table: str, statement: str) -> None:
    """Change rows as somebody who owns the database and has switched its triggers off."""
    url = make_url(stage.world.owner_url).set(drivername="postgresql")
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    try:
        async with connection.transaction():
            await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            assert await connection.execute(statement) == "UPDATE 1", statement
            await connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
    finally:
        await connection.close()


def row(table: str, change: str, undo: str, where: str) -> Tamper:
    """Change one row of *table*, and change it back."""

    @asynccontextmanager
    async def tamper(stage: Stage) -> AsyncIterator[None]:
        await as_owner(stage, table, f"UPDATE {table} SET {change} WHERE {where}")  # noqa: S608  our own
        yield
        await as_owner(stage, table, f"UPDATE {table} SET {undo} WHERE {where}")  # noqa: S608  our own

    return tamper


@asynccontextmanager
async def one_wei_more_in_a_wallet(stage: Stage) -> AsyncIterator[None]:
    ours = await stage.do(lambda conn: list_addresses(conn, EVM))
    address = next(a.address for a in ours if a.purpose is AddressPurpose.HOT)
    out = stage.world.outsiders
    wei = int(await out.call("eth_getBalance", address, "latest"), 16)
    await out.call("anvil_setBalance", address, hex(wei + 1))
    await stage.mine_and_follow()
    yield
    await out.call("anvil_setBalance", address, hex(wei))
    await stage.mine_and_follow()


@asynccontextmanager
async def less_at_the_venue(stage: Stage) -> AsyncIterator[None]:
    url = str(stage.world.venue["url"])
    held = control(url, "GET", "state")["accounts"]["desk"]["balances"]["USDT"]["free"]
    asset = stage.assets["USDT"]
    less = asset.format(asset.parse(held.rstrip("0")) - 1, code=False).replace(",", "")
    control(url, "POST", "balance", {"account": "desk", "asset": "USDT", "free": less})
    yield
    control(url, "POST", "balance", {"account": "desk", "asset": "USDT", "free": held})


@asynccontextmanager
async def a_client_is_owed_more_than_is_held(stage: Stage) -> AsyncIterator[None]:
    now = stage.clock.now()
    gift = transfer(
        derive_id(now, "gift"),
        "expense:loss",
        "client:acme",
        stage.units("1000 ETH"),
        "ETH",
        code="test.gift",
    )

    async def give(conn: object) -> None:
        await ensure_accounts(conn, BOOK, {("expense:loss", "ETH")})  # type: ignore[arg-type]
        require_applied(await post(conn, BOOK, [gift]))  # type: ignore[arg-type]

    async def take(conn: object) -> None:
        back = reversal(derive_id(now, "gift back"), gift.id, code="test.gift")
        require_applied(await post(conn, BOOK, [back]))  # type: ignore[arg-type]

    await stage.do(give)
    yield
    await stage.do(take)


@asynccontextmanager
async def a_satoshi_that_no_coin_holds(stage: Stage) -> AsyncIterator[None]:
    now = stage.clock.now()
    made = transfer(
        *(derive_id(now, "satoshi"), "custody:btc-hot", "equity:capital", 1, "BTC"),
        code="test.satoshi",
    )

    async def post_it(conn: object) -> None:
        require_applied(await post(conn, BOOK, [made]))  # type: ignore[arg-type]

    async def take_back(conn: object) -> None:
        back = reversal(derive_id(now, "satoshi back"), made.id, code="test.satoshi")
        require_applied(await post(conn, BOOK, [back]))  # type: ignore[arg-type]

    await stage.do(post_it)
    yield
    await stage.do(take_back)


TAMPERS: dict[str, Tamper] = {
    "zero-sum": row(
        "ledger.balance",
        "credits_posted = credits_posted + 1",
        "credits_posted = credits_posted - 1",
        "account = (SELECT number FROM ledger.account WHERE path = 'income:fee')",
    ),
    "journal-verified": row(
        "ledger.transfer",
        "reference = reference || '!'",
        "reference = left(reference, -1)",
        "sequence = (SELECT min(sequence) FROM ledger.transfer WHERE code = 'deal.booked')",
    ),
    "holds-itemised": row(
        "custody.payout", "amount = amount + 1", "amount = amount - 1", "state = 'pending_approval'"
    ),
    "wallets-match-chain": one_wei_more_in_a_wallet,
    "venues-match": less_at_the_venue,
    "client-money-covered": a_client_is_owed_more_than_is_held,
}


async def failing(stage: Stage, room: Room, *, drain: bool = True) -> set[str]:
    if drain:
        await look(stage, room)  # what a look finds for the first time is an event to be delivered
        await drain_outbox(stage)
    return {proof.name for proof in (await look(stage, room)).proofs if not proof.held}


@pytest.mark.timeout(240)
async def test_what_is_falsified_fails_exactly_the_proof_of_that_name(
    tmp_path: Path, database_server: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    admin_url = Secret(database_server.owner_url("postgres"))  # type: ignore[attr-defined]
    settings = Settings(database_url=admin_url, state_dir=tmp_path)
    async with open_world(settings, seed=7) as world:
        stage = Stage(world, SystemClock(), lambda _: None)
        async with played(stage) as (examination, room):
            assert [proof for proof in examination.proofs if not proof.held] == []
            names = {proof.name for proof in examination.proofs}
            assert names == {*TAMPERS, "outbox-drained"}

            for name, tamper in TAMPERS.items():
                async with tamper(stage):
                    assert await failing(stage, room) == {name}
                assert await failing(stage, room) == set(), f"after {name} was undone"

            async with a_satoshi_that_no_coin_holds(stage):
                assert await failing(stage, room) == {"wallets-match-chain"}

            undelivered = "UPDATE kernel.outbox SET delivered_at = NULL WHERE position = 1"
            await as_owner(stage, "kernel.outbox", undelivered)
            assert await failing(stage, room, drain=False) == {"outbox-drained"}
