"""The demo's components: started, watched, and ended, whatever happens in between.

Every run starts clean: a database of its own name, a new chain, a new venue, new keys. What a
killed run left behind is ended first and named in `World.notices`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import msgspec
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from app.demo.outsiders import MNEMONIC, Outsiders
from app.local.migrate import migrate
from app.local.postgres import LocalPostgres, OldData
from app.local.processes import Child, Processes, foreign_program, python_module
from chain.bitcoin.kernel import INSTALL, is_available
from chain.simulators.anvil import find_anvil
from chain.simulators.bitcoin.testing import SimulatedNode
from custody.signer.client import SignerClient
from kernel.db import APP_ROLE, create_engine
from kernel.errors import OutsideUnavailable, Refused
from kernel.settings import Settings

DATABASE: Final = "causeway_demo"
DATABASE_MARK: Final = "made by causeway demo; dropped and made anew by every run"
CHAIN_ID: Final = 31_337
SLOTS_IN_AN_EPOCH: Final = 1
"""Finality after two blocks, so that the demo shows it; a public chain takes sixty-four."""

BITCOIN_FEE_RATE: Final = 5_000
"""What the demo's node estimates, in satoshi for 1,000 virtual bytes."""
BITCOIN_TIMEOUT_S: Final = 30.0

SIGNER_INIT_TIMEOUT_S: Final = 30
EVENTS_FILE: Final = "events.jsonl"
SIGNER: Final = "signer"
SIGNER_COPY: Final = "signer-copy"
"""Of a copy of the house, where one is made to try what the house itself does not do."""
EXPORTS: Final = "exports"


@dataclass(slots=True)
class World:
    """What the story runs on.

    Attributes:
        owner_url: of the demo's database, as the role that migrates.
        evm: ``anvil`` or ``simulator``.
        venue: the simulator's ready line: url, ws_url, api_key, secret, …
        bitcoin: a Bitcoin node; None where it is not wanted, or its consensus code is not installed.
        server: the embedded PostgreSQL; None where the settings name another one.
        server_url: of the database from which that of the demo was made, as the same role.
        bank: the simulated bank's ready line; None where no bank is wanted.
        notices: what an operator should know about this start, one sentence each.
    """

    folder: Path
    owner_url: str
    engine: AsyncEngine
    outsiders: Outsiders
    processes: Processes
    evm: str
    evm_url: str
    venue: Mapping[str, Any]
    bitcoin: SimulatedNode | None
    seed: int
    notices: list[str] = field(default_factory=list)
    server: LocalPostgres | None = None
    server_url: str = ""
    bank: Mapping[str, Any] | None = None

    async def start_signer(self, rules: object, seed: bytes, *, name: str = SIGNER) -> SignerClient:
        """Make a keystore from *seed*, start a signer on it and return its client."""
        home = self.folder / name
        home.mkdir(mode=0o700)
        keystore, kek, path = home / "keystore.json", home / "kek", home / "rules.json"
        _write_private(kek, secrets.token_hex(32).encode())
        _write_private(path, msgspec.json.encode(rules))
        command = [sys.executable, "-m", "custody.signer", "init"]
        command += ["--keystore", str(keystore), "--kek", str(kek)]
        await asyncio.to_thread(
            subprocess.run,
            command,
            input=seed.hex().encode(),
            check=True,
            timeout=SIGNER_INIT_TIMEOUT_S,
        )
        listening = _socket_folder(self.folder) / f"{name}.sock"
        spec = python_module(
            name,
            "custody.signer",
            *("--socket", str(listening), "--keystore", str(keystore)),
            *("--kek", str(kek), "--rules", str(path), "--init"),
        )
        await asyncio.to_thread(self.processes.start, spec)
        return SignerClient(listening)


@contextlib.asynccontextmanager
async def open_world(
    settings: Settings, *, seed: int, bitcoin: bool = True, bank_accounts: Sequence[str] = ()
) -> AsyncIterator[World]:
    """Start everything, and end it.

    Args:
        settings: where state is kept, and which components are not to be the embedded ones.
        seed: of keys and prices.
        bitcoin: whether a Bitcoin node is wanted.
        bank_accounts: ``IBAN:CURRENCY:BALANCE`` (whole units) of each account at a simulated bank;
            none: no bank is started.

    Raises:
        OutsideUnavailable, Refused: a component cannot be had; says which and what to do.
    """
    folder = settings.state_dir.absolute() / "demo"
    async with contextlib.AsyncExitStack() as stack:
        processes = Processes(folder / "components")
        await asyncio.to_thread(processes.open)
        stack.callback(processes.close)
        notices = [*processes.notices, *_start_clean(folder)]
        async with asyncio.TaskGroup() as starting:
            # Both take a second or two, most of it waiting for others.
            database = starting.create_task(_database(settings, folder, stack))
            outside = starting.create_task(_start_outside(settings, processes, folder, seed))
        found = database.result()
        evm, evm_url, venue = outside.result()
        node = await _start_bitcoin(processes, seed, stack) if bitcoin else None
        if bitcoin and node is None:
            notices.append(f"Bitcoin is left out: its consensus code is missing. {INSTALL}")
        notices += found.notices
        bank = await _start_bank(processes, folder, bank_accounts)
        engine = create_engine(found.url, role=APP_ROLE)
        stack.push_async_callback(engine.dispose)
        outsiders = await stack.enter_async_context(Outsiders(evm_url))
        yield World(
            folder=folder,
            owner_url=found.url,
            engine=engine,
            outsiders=outsiders,
            processes=processes,
            evm=evm,
            evm_url=evm_url,
            venue=venue.ready,
            bitcoin=node,
            seed=seed,
            notices=notices,
            server=found.server,
            server_url=found.server_url,
            bank=bank,
        )


async def _start_outside(
    settings: Settings, processes: Processes, folder: Path, seed: int
) -> tuple[str, str, Child]:
    evm, evm_url = await _start_evm(settings, processes)
    spec = _venue_spec(folder, seed, settings.venue_port)
    return evm, evm_url, await asyncio.to_thread(processes.start, spec)


async def _start_bitcoin(
    processes: Processes, seed: int, stack: contextlib.AsyncExitStack
) -> SimulatedNode | None:
    if not is_available():
        return None
    options = ("--port", "0", "--seed", str(seed), "--fee-rate", str(BITCOIN_FEE_RATE))
    spec = python_module("bitcoin", "chain.simulators.bitcoin", *options)
    child = await asyncio.to_thread(processes.start, spec)
    cookie = Path(str(child.ready["cookie_file"]))
    user, _, password = (await asyncio.to_thread(cookie.read_text)).partition(":")
    timeout = aiohttp.ClientTimeout(total=BITCOIN_TIMEOUT_S)
    session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
    return SimulatedNode(str(child.ready["url"]), (user, password), cookie, session)


async def _start_bank(
    processes: Processes, folder: Path, accounts: Sequence[str]
) -> Mapping[str, Any] | None:
    if not accounts:
        return None
    options = ("--port", "0", "--data-dir", str(folder / "bank"), "--account", *accounts)
    spec = python_module("bank", "banks.simulator", *options)
    return (await asyncio.to_thread(processes.start, spec)).ready


def _start_clean(folder: Path) -> list[str]:
    """Remove what an earlier run wrote for its venue and signer; the books are dropped apart."""
    removed = []
    for name in ("venue", "bank", SIGNER, SIGNER_COPY, EXPORTS):
        if (folder / name).exists():
            shutil.rmtree(folder / name)
            removed.append(name)
    (folder / EVENTS_FILE).unlink(missing_ok=True)
    if removed:
        return [f"The last run's {' and '.join(removed)} data was removed: every run starts clean."]
    return []


@dataclass(frozen=True, slots=True)
class _Database:
    """A fresh database: the owner's URL, its server where that is ours, how to reach the server."""

    url: str
    server: LocalPostgres | None
    server_url: str
    notices: list[str]


async def _database(
    settings: Settings, folder: Path, stack: contextlib.AsyncExitStack
) -> _Database:
    """Return a fresh database."""
    server = None
    if settings.database_url is not None:
        url = make_url(settings.database_url.reveal()).set(drivername="postgresql+asyncpg")
        server_url = url.render_as_string(hide_password=False)
        notices: list[str] = []
    else:
        server = LocalPostgres(folder / "postgres", old_data=OldData.MOVE_ASIDE)
        await asyncio.to_thread(server.start)
        stack.callback(server.stop)
        server_url, notices = server.url(), list(server.notices)
    dropped = await _recreate(server_url)
    if dropped:
        notices.append("The last run's books were dropped: every run starts clean.")
    owner_url = make_url(server_url).set(database=DATABASE).render_as_string(hide_password=False)
    await migrate(owner_url)
    return _Database(owner_url, server, server_url, notices)


async def _recreate(server_url: str) -> bool:
    plain = make_url(server_url).set(drivername="postgresql")
    try:
        connection = await asyncpg.connect(plain.render_as_string(hide_password=False))
    except (OSError, asyncpg.PostgresError) as error:
        raise OutsideUnavailable(
            f"PostgreSQL does not answer: {error}",
            where=plain.render_as_string(hide_password=True),
            remedy="Start it, correct CAUSEWAY_DATABASE_URL, or unset it to use an embedded one",
        ) from error
    try:
        mark = await connection.fetchval(
            "SELECT coalesce(shobj_description(oid, 'pg_database'), '') "
            "FROM pg_database WHERE datname = $1",
            DATABASE,
        )
        if mark is not None and mark != DATABASE_MARK:
            raise Refused(
                f"the server has a database {DATABASE} that the demo did not make",
                where=plain.render_as_string(hide_password=True),
                remedy="Rename it, or give the demo another server",
            )
        if mark is not None:
            await connection.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
        await connection.execute(f"CREATE DATABASE {DATABASE}")
        await connection.execute(f"COMMENT ON DATABASE {DATABASE} IS '{DATABASE_MARK}'")
    finally:
        await connection.close()
    return mark is not None


async def _start_evm(settings: Settings, processes: Processes) -> tuple[str, str]:
    environment = dict(os.environ)
    if settings.anvil is not None:
        environment["ANVIL"] = str(settings.anvil)
    binary = find_anvil(environment, [Path.cwd(), Path.cwd() / ".cache" / "npm"])
    if binary is not None:
        port = settings.evm_port or _free_port()
        url = f"http://127.0.0.1:{port}"
        command = [str(binary), "--host", "127.0.0.1", "--port", str(port), "--no-mining"]
        command += ["--chain-id", str(CHAIN_ID), "--slots-in-an-epoch", str(SLOTS_IN_AN_EPOCH)]
        command += ["--silent"]
        spec = foreign_program("evm", *command, probe=lambda: _listens(port))
        await asyncio.to_thread(processes.start, spec)
        return "anvil", url
    spec = python_module(
        "evm",
        "chain.simulators.evm",
        *("--port", str(settings.evm_port), "--chain-id", str(CHAIN_ID), "--no-mining"),
        *("--slots-in-an-epoch", str(SLOTS_IN_AN_EPOCH), "--mnemonic", MNEMONIC),
    )
    child = await asyncio.to_thread(processes.start, spec)
    return "simulator", str(child.ready["url"])


def _venue_spec(folder: Path, seed: int, port: int) -> Any:
    return python_module(
        "venue",
        "venues.simulator",
        *("--port", str(port), "--seed", str(seed), "--data-dir", str(folder / "venue")),
        *("--balance", "USDT=500000", "ETH=0", "BTC=0"),
        *("--step-ms", "0"),
    )


def _socket_folder(folder: Path) -> Path:
    """Return a short private folder: the path of a Unix socket has about 100 bytes."""
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    home = Path(tempfile.gettempdir()) / f"causeway-{os.geteuid()}" / digest
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return home


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        return bool(probe.connect_ex(("127.0.0.1", port)) == 0)
