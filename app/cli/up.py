"""``causeway up``: the house at work: PostgreSQL, migrations, and the workers until a signal."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import async_url, clock, node_url, run, settings
from app.cli.operators import read_key
from app.cli.registry import found_house, parse_founding, read_json
from kernel.errors import ungrouped
from kernel.settings import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from app.cli.trial import Trial
    from app.health import Endpoint as Answers
    from app.vitals import Vitals
    from app.workers.house_file import HouseFile
    from app.workers.house_parts import House
    from app.workers.service import Service
    from app.workers.stopping import Deadline
    from kernel.settings import Settings


def up(
    *,
    house: Annotated[
        Path | None, typer.Option("--house", metavar="FILE", help="The house file (TOML).")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Log one JSON object a line, as with CAUSEWAY_LOG_JSON.")
    ] = False,
) -> None:
    """Run the bridge until SIGTERM or Ctrl-C: watch the chain, pay, settle, hand events on.

    PostgreSQL is CAUSEWAY_DATABASE_URL, or an embedded one; the node is CAUSEWAY_EVM_URL. Without
    --house a house for trying out is made below CAUSEWAY_STATE_DIR, with keys, a signer and, where
    no node is named, chains of its own. Standard output is JSON: one line when it is ready, then
    one for each event. The log is on standard error. With CAUSEWAY_HEALTH_PORT it answers /livez,
    /readyz, /startupz and /metrics. After the signal it ends within 30 seconds.

    Example: `causeway up --house /etc/causeway/house.toml`
    """
    from app.workers.house_file import read_house
    from app.workers.stopping import deadline
    from kernel.telemetry import configure_logging

    found = settings()
    file = None if house is None else read_house(house)
    configure_logging(found.log_level, as_json=as_json or found.log_json)
    # Around all of it: the event loop does not end before its threads, and one of them may hang.
    with deadline() as end, ungrouped():
        run(lambda: _run(found, file, end))


async def _run(found: Settings, file: HouseFile | None, end: Deadline) -> None:
    import asyncio

    from app.vitals import Vitals
    from app.workers.house import stop_on_signals
    from app.workers.stopping import until_stopped

    stop = asyncio.Event()
    vitals = Vitals(stop=stop)
    stop_on_signals(stop, end.begin)
    async with _health(found, vitals) as answers:
        await until_stopped(_house(found, file, vitals, answers), stop, lambda: vitals.is_started)


@contextlib.asynccontextmanager
async def _health(found: Settings, vitals: Vitals) -> AsyncIterator[Answers | None]:
    """Serve the health endpoint while the context is open, if a port is named; gives it."""
    from app.health import served

    if found.health_port is None:
        yield None
        return
    host, port = found.health_host, found.health_port
    async with served(vitals, clock(), host=host, port=port) as answers:
        yield answers


async def _house(
    found: Settings, file: HouseFile | None, vitals: Vitals, answers: Answers | None
) -> None:
    """Run the house until it was told to stop: PostgreSQL, migrations, workers."""
    from app.local.migrate import migrate
    from app.workers.house import run_house
    from app.workers.house_parts import House
    from kernel.db import APP_ROLE, create_engine

    async with contextlib.AsyncExitStack() as stack:
        if file is None:
            trial, file = await _try_out(found, stack)
            evm_url, name = trial.evm_url, trial.database
        else:
            trial, evm_url, name = None, node_url(), None
        owner, facts = await _database(found, stack, name)
        if found.evm_url is None:
            # A node that was named is not repeated: its URL may hold a key.
            facts |= {"CAUSEWAY_EVM_URL": evm_url}
        if trial is not None and trial.bitcoin_url is not None and found.bitcoin_url is None:
            facts |= {"CAUSEWAY_BITCOIN_URL": trial.bitcoin_url}
            found = replace(found, bitcoin_url=Secret(trial.bitcoin_url))
        await migrate(owner)
        app_url = found.app_database_url
        url = async_url(app_url.reveal()) if app_url else owner
        engine = create_engine(url, role=APP_ROLE)
        stack.push_async_callback(engine.dispose)
        if answers is not None:
            facts["health"] = answers.url
            stack.push_async_callback(await _examined(answers, vitals, engine, url))
        house = House(
            engine=engine,
            settings=found,
            evm_url=evm_url,
            file=file,
            clock=clock(),
            write=_write,
            facts={"pid": os.getpid(), **facts},
            service=_service(file),
            vitals=vitals,
        )
        await _found(house, file)
        await run_house(house, _ready, vitals.stop)


async def _examined(
    answers: Answers, vitals: Vitals, engine: AsyncEngine, url: str
) -> Callable[[], Awaitable[None]]:
    """Let the health endpoint look at the database; return what closes its connections.

    They are its own: what it says is also true, and said, while the workers hold all of theirs.
    """
    from app.service_levels import ServiceLevels
    from app.vitals import CHECK_TIMEOUT_S, database_check, migration_check
    from kernel.db import APP_ROLE, create_engine

    own = create_engine(url, role=APP_ROLE, pool_size=3, command_timeout_s=CHECK_TIMEOUT_S)
    vitals.engine = engine
    vitals.postings.watch(engine)
    vitals.checks["database"] = database_check(own, clock())
    vitals.checks["schema"] = migration_check(own)
    answers.levels = ServiceLevels(engine=own, clock=clock())
    return own.dispose


def _service(file: HouseFile) -> Service | None:
    """Return the service that the house file names, with its key."""
    from app.workers.service import Service

    if file.service is None or file.service_key is None:
        return None
    key = read_key(file.service_key)
    return Service(file.service, key.public_key().public_bytes_raw(), key.sign)


async def _try_out(found: Settings, stack: contextlib.AsyncExitStack) -> tuple[Trial, HouseFile]:
    """Open the house for trying out; return it and what its file says."""
    from app.cli.trial import open_trial
    from app.local.processes import opened
    from app.workers.house_file import read_house

    components = found.state_dir.absolute() / "trial" / "components"
    processes = await stack.enter_async_context(opened(components))
    trial = await open_trial(found, processes, clock())
    for notice in (*processes.notices, *trial.notices):
        sys.stderr.write(f"{notice}\n")
    file = read_house(trial.file)
    return trial, file if trial.bitcoin_url is not None else replace(file, bitcoin=None)


async def _database(
    found: Settings, stack: contextlib.AsyncExitStack, name: str | None
) -> tuple[str, dict[str, Any]]:
    """Return the owner's URL, and what the ready line says of an embedded server.

    Args:
        name: of a new database on the embedded server; None: the one that is always there.
    """
    if found.database_url is not None:
        return async_url(found.database_url.reveal()), {}
    from app.local.postgres import LocalPostgres, running

    server = LocalPostgres(found.state_dir / "postgres")
    await stack.enter_async_context(running(server))
    for notice in server.notices:
        sys.stderr.write(f"{notice}\n")
    url = server.url()
    if name is not None:
        from app.cli.trial import create_database

        url = await create_database(url, name)
    # Only this machine's user can open its socket, so the URL is no secret.
    return url, {"CAUSEWAY_DATABASE_URL": url}


async def _found(house: House, file: HouseFile) -> None:
    """Found an empty registry, if the house file names what with."""
    from app.workers.house import is_founded
    from kernel.db import transact

    if file.founding is None:
        return
    founding = parse_founding(read_json(file.founding), file.founding)

    async def work(conn: AsyncConnection) -> None:
        if not await is_founded(conn):
            await found_house(conn, founding)

    await transact(house.engine, work)


def _ready(facts: Mapping[str, Any]) -> None:
    import orjson

    _write(orjson.dumps(dict(facts)).decode())


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
