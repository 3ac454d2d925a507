"""A payout is one trace, from its request to its confirmation, whatever dies on the way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.cli import main
from app.local.databases import Database
from app.local.postgres_binaries import find_binaries
from custody.payout_model import PayoutState
from custody.signer.testing import PHRASE, SEED
from kernel.db import create_engine, transact
from kernel.otlp import exporting
from kernel.settings import Secret
from kernel.tracing import TraceContext
from tests.canaries import Canaries
from tests.crash.test_payouts_killed import REPOSITORY, Desk, Nursery, opened_desk
from tests.telemetry.collector import Collector, collecting
from venues.ccxt.endpoint import Credentials
from venues.credentials.model import KeyPurpose, Slot
from venues.credentials.vault import enrol

ROWS = """
    SELECT source, traceparent FROM (
        SELECT 'history ' || name AS source, entity_id::text AS id, traceparent FROM kernel.history
        UNION ALL
        SELECT 'outbox ' || type, aggregateid, traceparent FROM kernel.outbox
    ) AS told WHERE id = ANY (CAST(:ids AS text[]))
"""


@contextlib.asynccontextmanager
async def traced_nursery(url: str) -> AsyncIterator[Nursery]:
    """Give the nursery of workers that are traced."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.telemetry.traced_payer"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "CAUSEWAY_OTLP_URL": url},
    )
    try:
        yield Nursery(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def attempts_of(desk: Desk, payout: UUID) -> list[UUID]:
    async def read(conn: AsyncConnection) -> list[UUID]:
        statement = text("SELECT id FROM custody.payout_attempt WHERE payout_id = :id")
        return list((await conn.execute(statement, {"id": payout})).scalars())

    return await desk.world.run(read)


async def traceparents(desk: Desk, ids: list[UUID]) -> dict[str, str | None]:
    async def read(conn: AsyncConnection) -> dict[str, str | None]:
        rows = await conn.execute(text(ROWS), {"ids": [str(key) for key in ids]})
        return {row.source: row.traceparent for row in rows}

    return await desk.world.run(read)


async def plant(desk: Desk, canaries: Canaries) -> None:
    """Put a venue's key into the house, sealed, and look for its parts from then on."""
    secret, api_key = (secrets.token_urlsafe(24) for _ in range(2))
    kek = secrets.token_bytes(32)
    for what, value in (("venue secret", secret), ("venue key", api_key), ("KEK", kek)):
        canaries.plant(what, value)
    canaries.plant("seed of the signer", SEED)
    canaries.plant("phrase of the signer", PHRASE)
    await desk.world.run(
        lambda conn: enrol(
            conn,
            Slot("binance", "main", KeyPurpose.TRADING),
            Credentials(api_key=api_key, secret=Secret(secret)),
            kek,
            random=secrets.token_bytes,
            by="dan",
            reason="a canary",
            now=desk.world.clock.now(),
        )
    )


async def command(*arguments: str) -> None:
    """Run ``causeway`` with these arguments, in a thread: it has an event loop of its own."""

    def run() -> int:
        try:
            main(arguments)
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    assert await asyncio.to_thread(run) == 0


async def dump(database: Database) -> bytes:
    """Return all there is in the database, as pg_dump writes it: bytes are in hexadecimal."""
    process = await asyncio.create_subprocess_exec(
        str(find_binaries(os.environ).folder / "pg_dump"),
        make_url(database.owner_url)
        .set(drivername="postgresql")
        .render_as_string(hide_password=False),
        stdout=asyncio.subprocess.PIPE,
    )
    content, _ = await process.communicate()
    assert process.returncode == 0
    return content


async def server_log(owner_url: str) -> dict[str, bytes]:
    """Return what the server said; nothing where it is not ours and keeps that to itself."""

    async def read(conn: AsyncConnection) -> str:
        return str(await conn.scalar(text("SELECT current_setting('data_directory')")))

    engine = create_engine(owner_url)
    try:
        log = Path(await transact(engine, read)).parent / "postgres.log"
    except DBAPIError:
        return {}
    finally:
        await engine.dispose()
    return {"server log": log.read_bytes()} if log.is_file() else {}


def died_and_went_on(collector: Collector, payout: UUID) -> dict[int, set[str]]:
    """Return the names of the payout's spans by the process that made them."""
    found: dict[int, set[str]] = {}
    for span in collector.of(payout):
        found.setdefault(span.process, set()).add(span.name)
    return found


@pytest.mark.timeout(120)
async def test_a_payout_stays_one_trace_when_its_worker_is_killed(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    canaries = Canaries()
    async with collecting() as collector, opened_desk(database) as desk:
        await plant(desk, canaries)
        with exporting(collector.url, service="desk"):
            async with traced_nursery(collector.url) as nursery:
                desk.nursery = nursery
                [payout] = await desk.ask(1)

                # The first worker finds no signer: it gets as far as a nonce, and dies there.
                signer, desk.socket = desk.socket, desk.socket.with_name("nobody")
                async with desk.worker(1):
                    await desk.until("built", {payout})
                    await collector.until(lambda c: "payout sign" in c.names(payout))
                desk.socket = signer
                async with desk.worker(1):
                    await desk.until("broadcast", {payout})
                    await collector.until(lambda c: "AttemptBroadcast" in c.names(payout))
            await desk.settle()
            # What is left is sent while there is somebody to take it: this loop is the collector.
            await collector.until(lambda c: "PayoutConfirmed" in c.names(payout))
        attempts = await attempts_of(desk, payout)
        rows = await traceparents(desk, [payout, *attempts])
        ended = await desk.world.get(desk.payouts[0])
        left = {item.name: item.read_bytes() for item in signer.parent.iterdir() if item.is_file()}

    assert ended.state is PayoutState.CONFIRMED
    by_process = died_and_went_on(collector, payout)
    here = by_process.pop(os.getpid())
    first, second = by_process.values()
    assert {"PayoutRequested", "PayoutApproved", "PayoutMined", "PayoutConfirmed"} <= here
    assert {"payout allocate", "PayoutAllocated", "payout sign"} <= first
    assert not any("Signed" in name or "Broadcast" in name for name in first)
    assert {"payout sign", "PayoutSigned", "payout send", "AttemptBroadcast"} <= second
    assert {"signer AskSignMany", "node eth_sendRawTransaction"} <= second
    assert "payout allocate" not in second

    # One tree: every span hangs below the root, which is the request.
    spans = {span.span_id: span for span in collector.of(payout)}
    roots = [span.name for span in spans.values() if span.parent == 0]
    assert roots == ["PayoutRequested"]
    assert [s.name for s in spans.values() if s.parent and s.parent not in spans] == []
    # And nothing of it is anywhere else.
    ours = {str(key) for key in [payout, *attempts]}
    about = [s for s in collector.spans if s.attributes.get("causeway.entity_id") in ours]
    assert {span.trace_id for span in about} == {payout.int}

    # The rows say it too: each of the life of the payout and its attempts, for people and machines.
    places = [TraceContext.parse(value) for value in rows.values()]
    assert {place.trace_id if place else None for place in places} == {payout.int}
    lives = {"PayoutRequested", "PayoutSigned", "PayoutConfirmed", "AttemptSigned"}
    assert {f"{kind} {name}" for kind in ("history", "outbox") for name in lives} <= rows.keys()

    # No secret of the house is in what it leaves: traces, output, dump, export, evidence, its files.
    for name, value in database.environment.items():
        monkeypatch.setenv(name, value)
    book = tmp_path / "book.beancount"
    await command("ledger", "export", "--format", "beancount", "--output", str(book))
    await command("custody", "explain", str(payout), "--json")
    said = capfd.readouterr()
    left |= {"traces": b"".join(collector.bodies), "export": book.read_bytes()}
    left |= {"output": said.out.encode(), "errors": said.err.encode(), "dump": await dump(database)}
    left |= await server_log(database.owner_url)
    assert b"PayoutConfirmed" in left["dump"]
    assert b"PayoutConfirmed" in left["traces"]
    assert str(payout).encode() in left["output"]
    found = {name: canaries.find(content) for name, content in left.items()}
    assert {name: what for name, what in found.items() if what} == {}
    sizes = sum(len(content) for content in left.values())
    record_property(
        "counts", f"canaries: {len(canaries.needles)} forms in {len(left)} places, {sizes:,} bytes"
    )
