"""The drill: a base backup, write-ahead log, a restore to a moment; then nothing is paid twice."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database, Server
from app.local.migrate import migrate
from app.local.postgres import DATABASE, DURABLE, PORT, SUPERUSER, LocalPostgres
from custody.errors import Frozen
from custody.payout_model import PayoutState
from custody.restore.watching import look
from custody.signer.verification import find_faults
from kernel.db import create_engine
from tests.custody.payout_world import ETH, PAYEE, USDT
from tests.custody.restore.world import SetBack, set_back_world

BLOCKS = 4
MOMENT = "before_it_was_lost"


class Cluster:
    """A server of its own that archives its log, and what is needed to take it back to a moment."""

    def __init__(self, folder: Path) -> None:
        self.server = LocalPostgres(folder / "pg", settings=self.settings(folder / "pg"))
        if self.server.home != self.server.asked_home:
            # Where we are root the server runs as somebody else, in a folder that they may reach.
            archive = self.settings(self.server.home)
            self.server = LocalPostgres(folder / "pg", settings=archive)
        self.backup = self.server.home / "backup"

    @staticmethod
    def settings(home: Path) -> dict[str, str]:
        return {
            **DURABLE,
            # The test kills nobody: what is written need not be on a disk.
            "fsync": "off",
            "wal_level": "replica",
            "archive_mode": "on",
            "archive_command": f"mkdir -p {home}/archive && cp %p {home}/archive/%f",
            "restore_command": f"cp {home}/archive/%f %p",
        }

    def back_up(self) -> None:
        programs = self.server.binaries.postgres.parent
        command = [
            *(str(programs / "pg_basebackup"), "-D", str(self.backup), "-X", "stream"),
            "--no-sync",
            *("-c", "fast", "-h", str(self.server.socket_folder), "-p", str(PORT)),
            *("-U", SUPERUSER),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        owner = self.server.data.stat()
        for path in (self.backup, *self.backup.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)

    def restore(self) -> None:
        """Put the backup in the place of the cluster, and have the log bring it to the moment."""
        owner = self.server.data.stat()
        self.server.stop()
        shutil.rmtree(self.server.data)
        self.backup.rename(self.server.data)
        signal = self.server.data / "recovery.signal"
        signal.touch()
        with (self.server.data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"recovery_target_name = '{MOMENT}'\n")
            settings.write("recovery_target_action = 'promote'\n")
            # It answers nobody before it is there.
            settings.write("hot_standby = off\n")
        os.chown(signal, owner.st_uid, owner.st_gid)
        self.server.start()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.server.start()
    yield made
    made.server.stop()
    shutil.rmtree(made.server.home, ignore_errors=True)


async def as_superuser(cluster: Cluster, statement: str) -> None:
    engine: AsyncEngine = create_engine(cluster.server.url(DATABASE, user=SUPERUSER))
    async with engine.connect() as conn:
        await conn.execute(text(statement))
    await engine.dispose()


async def paid(house: SetBack, payee: str, contract: str | None) -> int:
    head = await house.world.gateway.head()
    held: int = await house.world.gateway.balance(payee, contract, at=head)
    return held


async def test_a_restore_to_a_moment_pays_nothing_twice_and_the_books_converge(
    cluster: Cluster, tmp_path: Path
) -> None:
    url = cluster.server.url(DATABASE)
    await migrate(url)
    database = Database(name=DATABASE, owner_url=url, app_url=url)
    witness = tmp_path / "restore.witness"
    signer = tmp_path / "signer"
    signer.mkdir()
    async with set_back_world(Server(None, None), database, signer) as house:  # type: ignore[arg-type]
        world = house.world

        async def looked() -> str:
            seen = await look(world.engine, clock=world.clock, witness=witness, signer=house.inside)
            return seen.evidence

        assert await looked() == ""
        await asyncio.to_thread(cluster.back_up)

        await world.approved(client_ref="first", amount=ETH)
        await world.advance()
        await world.mine(BLOCKS)
        await world.confirm()
        await world.approved(client_ref="second", amount=2 * ETH)
        await as_superuser(cluster, f"SELECT pg_create_restore_point('{MOMENT}')")

        await world.advance()
        await world.approved(client_ref="third", amount=100 * USDT, asset="USDT")
        await world.advance()
        await world.mine(BLOCKS)
        await world.confirm()
        await world.approved(client_ref="fourth", amount=ETH)
        await world.advance()
        assert await looked() == ""
        books = await world.books()
        await as_superuser(cluster, "SELECT pg_switch_wal()")
        await world.engine.dispose()
        await asyncio.to_thread(cluster.restore)

        with pytest.raises(Frozen, match="nobody has looked yet"):
            await world.request(client_ref="fifth")
        assert (await world.advance()).signed == []

        evidence = await looked()
        assert "PostgreSQL is on time line 2 and was on 1" in evidence
        assert "the witness knows mark 4" in evidence
        assert "the signer was shown mark 4" in evidence
        with pytest.raises(Frozen, match="the database was restored"):
            await world.request(client_ref="fifth")

        items = await house.take_signed()
        assert [str(item.state) for item in items] == ["restored"] * 3
        await house.vouch_for_the_rest()
        await world.follow()
        await world.confirm()
        assert await world.books() == books
        await world.assert_rule_two()

        assert await house.cover_chain()
        await house.open("ben", "cleo")
        assert await looked() == ""
        again = await world.request(client_ref="third", amount=100 * USDT, asset="USDT")
        assert again.state is PayoutState.CONFIRMED
        fifth = await world.approved(client_ref="fifth", amount=ETH)
        await world.advance()
        await world.mine(BLOCKS)
        await world.confirm()

        assert (await world.get(fifth)).state is PayoutState.CONFIRMED
        assert house.inside.signer.memory.count() == 5
        assert find_faults(house.inside.signer.memory) == []
        assert await paid(house, PAYEE, None) == 5 * ETH
        assert await paid(house, PAYEE, world.token) == 100 * USDT
        await world.assert_rule_two()
