"""What shows that the server is not the one that was left, or an earlier moment of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.errors import Frozen, NotPossible
from custody.freezes import require_open
from custody.restore import store
from custody.restore.finding import begin, begin_by_hand
from custody.restore.model import begin_bytes
from custody.restore.store import Server
from custody.restore.watching import Look, Witness, find_evidence, look
from custody.restore_gate import find_gate, require_facts_wanted
from kernel.clock import ManualClock
from kernel.db import transact
from kernel.errors import Refused
from registry.changes import found
from registry.testing import demo_founding, operator_keypair

LEFT = Server(started="1", system="7", timeline=3, place=0)
HERE = Server(started="2", system="7", timeline=3, place=1_000)
TOLD = Witness(system="7", timeline=3, place=900, mark=0, token="")


def here(**changes: object) -> Server:
    values = {"started": "2", "system": "7", "timeline": 3, "place": 1_000}
    return Server(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("server", "left", "told", "evidence"),
    [
        pytest.param(HERE, None, None, [], id="never-watched"),
        pytest.param(HERE, LEFT, TOLD, [], id="started-again"),
        pytest.param(here(place=900), LEFT, TOLD, [], id="nothing-written-since"),
        pytest.param(here(timeline=4), LEFT, None, ["on time line 4 and was on 3"], id="moment"),
        pytest.param(here(system="8"), LEFT, None, ["cluster 7 has become cluster 8"], id="dump"),
        pytest.param(here(place=899), LEFT, TOLD, ["had written 1 bytes more"], id="copy-put-back"),
        pytest.param(
            HERE, None, TOLD, ["the database does not know of the witness"], id="before-the-watch"
        ),
        pytest.param(
            here(timeline=2, place=5_000),
            Server(started="1", system="7", timeline=2, place=0),
            TOLD,
            ["the witness has seen time line 3"],
            id="copy-of-an-older-time-line",
        ),
    ],
)
def test_what_a_server_shows(
    server: Server, left: Server | None, told: Witness | None, evidence: list[str]
) -> None:
    shown = find_evidence(server, left, told)

    assert len(shown) == len(evidence)
    for words, expected in zip(shown, evidence, strict=True):
        assert expected in words


@dataclass
class House:
    engine: AsyncEngine
    clock: ManualClock
    witness: Path

    async def look(self) -> Look:
        return await look(self.engine, clock=self.clock, witness=self.witness)

    async def is_open(self) -> bool:
        return await transact(self.engine, find_gate) is None

    async def start_again(self, owner: AsyncEngine) -> None:
        """Let the database take the server for one that was started since."""
        async with owner.begin() as conn:
            await conn.execute(text("UPDATE custody.restore_watch SET started = 'before'"))

    async def do(self, statement: str, owner: AsyncEngine) -> None:
        async with owner.begin() as conn:
            await conn.execute(text(statement))


@pytest.fixture
async def house(engine: AsyncEngine, tmp_path: Path) -> House:
    made = House(engine, ManualClock(), tmp_path / "witness")
    await transact(engine, lambda conn: found(conn, demo_founding(), now=made.clock.now()))
    return made


async def test_a_start_that_nobody_has_compared_shuts_every_door(
    house: House, owner_engine: AsyncEngine
) -> None:
    assert await house.is_open()
    assert (await house.look()) == Look(compared=True)
    assert await house.is_open()

    await house.start_again(owner_engine)
    with pytest.raises(Frozen, match="nobody has looked yet"):
        await transact(house.engine, require_open)
    with pytest.raises(Frozen, match="nothing is taken in"):
        await transact(house.engine, require_facts_wanted)

    assert await house.look() == Look(compared=True)
    assert await house.is_open()
    assert await house.look() == Look(compared=False)


async def test_a_copy_that_was_put_back_is_found_by_the_witness(
    house: House, owner_engine: AsyncEngine
) -> None:
    await house.look()
    ahead = house.witness.read_text().replace('"place":', '"place":9')
    house.witness.write_text(ahead)
    await house.start_again(owner_engine)

    seen = await house.look()

    assert "bytes more when it was seen last" in seen.evidence
    assert not await house.is_open()
    standing = await transact(house.engine, store.require_standing)
    assert standing.evidence == seen.evidence
    # Somebody may have looked without the witness since it was put back, and gone on.
    assert standing.worked_on is True


async def test_a_witness_that_is_lost_keeps_the_doors_shut(
    house: House, owner_engine: AsyncEngine
) -> None:
    await house.look()
    house.witness.unlink()
    await house.start_again(owner_engine)

    with pytest.raises(Refused, match="the witness of this database is lost"):
        await house.look()

    assert not await house.is_open()


async def test_a_witness_that_was_never_written_is_not_lost(
    house: House, owner_engine: AsyncEngine, tmp_path: Path
) -> None:
    house.witness = tmp_path / "unmounted" / "witness"
    with pytest.raises(Refused, match="the witness cannot be written"):
        await house.look()
    house.witness.parent.mkdir()
    await house.start_again(owner_engine)

    assert await house.look() == Look(compared=True)

    assert await house.is_open()
    assert house.witness.exists()


async def test_a_server_that_lost_what_was_not_on_its_disk_was_not_set_back(
    house: House, owner_engine: AsyncEngine
) -> None:
    async with owner_engine.connect() as conn:
        # A transaction that is not committed has written, and nothing of it is on the disk.
        await conn.execute(text("SET LOCAL synchronous_commit = off"))
        await conn.execute(text("CREATE TABLE passing AS SELECT generate_series(1, 100000)"))
        here = await transact(house.engine, store.read_server)
        flushed = await conn.scalar(text("SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn"))

        assert here.place <= int(flushed)


async def test_what_is_no_witness_is_not_believed(house: House) -> None:
    house.witness.write_text("{}")

    with pytest.raises(Refused, match="this is no witness"):
        await house.look()


async def test_one_person_shuts_every_door_before_the_house_finds_it(house: House) -> None:
    now = house.clock.now()
    since = now - timedelta(hours=1)

    async def say(conn: AsyncConnection, signer: str) -> None:
        signature = operator_keypair(signer).sign(begin_bytes(since, "disk lost"))
        await begin_by_hand(
            conn, since=since, by="dan", signature=signature, reason="disk lost", now=now
        )

    with pytest.raises(Refused, match="dan"):
        await transact(house.engine, lambda conn: say(conn, "ben"))
    assert await house.is_open()

    await transact(house.engine, lambda conn: say(conn, "dan"))

    with pytest.raises(Frozen, match="disk lost"):
        await transact(house.engine, require_open)
    standing = await transact(house.engine, store.require_standing)
    assert standing.since == since


async def test_a_database_from_before_its_first_mark_is_read_from_before_there_was_any_house(
    house: House,
) -> None:
    now = house.clock.now()
    await transact(house.engine, lambda conn: begin(conn, "the disk was lost", now=now))

    standing = await transact(house.engine, store.require_standing)

    # From 1970 on a venue's list of withdrawals would have to be asked for in hundreds of parts.
    assert standing.since == store.OLDEST
    assert timedelta(0) < now - standing.since < timedelta(days=400)


async def test_there_is_nothing_to_open_where_nothing_stands(house: House) -> None:
    with pytest.raises(NotPossible, match="no restore stands"):
        await transact(house.engine, store.require_standing)
