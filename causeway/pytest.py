"""Fixtures that give another project's tests a chain, a venue and a ledger of their own.

Installed with Causeway and loaded by itself. Everything runs on loopback, on free ports, one set for
each worker of pytest-xdist, and ends with the session, also when pytest is killed::

    def test_a_deposit(causeway_chain):
        height = causeway_chain.mine(3)

    def test_a_bitcoin_deposit(causeway_bitcoin):
        tx_id = causeway_bitcoin.fund(address, 150_000_000)

    def test_an_order(causeway_venue):
        exchange = ccxt.binance({"apiKey": causeway_venue.api_key, ...})

    def test_the_books(causeway_ledger):
        engine = create_engine(causeway_ledger.app_url, role=APP_ROLE)

``--causeway-seed N`` makes keys and prices others than those of seed 1.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from app.local.databases import Clones, Database, Server
    from app.local.processes import Processes

TIMEOUT_S = 30
BOOK = 1


@dataclass(frozen=True, slots=True)
class LocalChain:
    """An anvil-compatible EVM chain.

    Attributes:
        ready: the simulator's ready line.
        accounts: addresses of the node's funded development accounts.
    """

    url: str
    ws_url: str
    chain_id: int
    accounts: tuple[str, ...]
    ready: Mapping[str, Any] = field(repr=False)

    def call(self, method: str, *params: object) -> Any:
        """Return the result of a JSON-RPC call; raises `AssertionError` with the node's error."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        answer = _post(self.url, body)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def mine(self, blocks: int = 1) -> int:
        """Make blocks and return the new height."""
        self.call("anvil_mine", hex(blocks))
        return int(self.call("eth_blockNumber"), 16)

    def snapshot(self) -> str:
        """Keep the state of the chain and return what `revert` takes."""
        return str(self.call("evm_snapshot"))

    def revert(self, snapshot: str) -> None:
        """Go back to a snapshot, which is used up by this."""
        assert self.call("evm_revert", snapshot), f"there is no snapshot {snapshot}"


@dataclass(frozen=True, slots=True)
class LocalBitcoin:
    """A Bitcoin node on regtest with bitcoind's JSON-RPC.

    Attributes:
        user, password: what callers show.
        ready: the simulator's ready line.
    """

    url: str
    user: str
    password: str = field(repr=False)
    ready: Mapping[str, Any] = field(repr=False)

    def call(self, method: str, *params: object) -> Any:
        """Return the result of a call; raises `AssertionError` with the node's error."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        shown = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        answer = _post(self.url, body, {"Authorization": f"Basic {shown}"})
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def mine(self, blocks: int = 1) -> int:
        """Make blocks and return the new height."""
        self.call("simulate_mine", blocks)
        return int(self.call("getblockcount"))

    def fund(self, address: str, satoshi: int, *, blocks: int = 1) -> str:
        """Pay an address from the faucet, make *blocks* on it, and return the transaction's id."""
        amount = f"{satoshi // 10**8}.{satoshi % 10**8:08d}"
        return str(self.call("simulate_fund", address, amount, blocks))


@dataclass(frozen=True, slots=True)
class LocalVenue:
    """A venue that speaks Binance's spot dialect over HTTP and WebSocket."""

    url: str
    ws_url: str
    api_key: str
    secret: str = field(repr=False)
    symbols: tuple[str, ...]
    ready: Mapping[str, Any] = field(repr=False)

    def control(self, verb: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask the control endpoint: ``state`` without a body, else schedule a fault or fund an account."""
        url = f"{self.url}/control/{verb}"
        if body is not None:
            return _post(url, body)
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310  our own
            return json.load(response)


@dataclass(frozen=True, slots=True)
class LocalLedger:
    """A migrated database with an open book.

    Attributes:
        owner_url: as the role that migrates.
        app_url: for ``kernel.db.create_engine(app_url, role=APP_ROLE)``.
        environment: what a child process needs to use it.
    """

    owner_url: str
    app_url: str
    environment: Mapping[str, str]
    book: int = BOOK


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--causeway-seed``."""
    parser.getgroup("causeway").addoption(
        "--causeway-seed", type=int, default=1, help="seed of Causeway's chain and venue"
    )


@pytest.fixture(scope="session")
def causeway_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Where the session's simulators run; all of them end with it."""
    from app.local.processes import Processes

    with Processes(tmp_path_factory.mktemp("causeway")) as processes:
        yield processes


@pytest.fixture(scope="session")
def causeway_chain_process(
    causeway_processes: Processes, pytestconfig: pytest.Config
) -> LocalChain:
    """One chain for the session; tests take `causeway_chain`, which reverts it."""
    from app.local.processes import python_module

    seed = str(pytestconfig.getoption("--causeway-seed"))
    spec = python_module("evm", "chain.simulators.evm", "--port", "0", "--seed", seed)
    ready = causeway_processes.start(spec).ready
    return LocalChain(
        url=ready["url"],
        ws_url=ready["ws_url"],
        chain_id=ready["chain_id"],
        accounts=tuple(ready["accounts"]),
        ready=ready,
    )


@pytest.fixture
def causeway_chain(causeway_chain_process: LocalChain) -> Iterator[LocalChain]:
    """The session's chain, as it was at its start: what this test does is reverted."""
    snapshot = causeway_chain_process.snapshot()
    yield causeway_chain_process
    causeway_chain_process.revert(snapshot)


@pytest.fixture
def causeway_bitcoin(
    causeway_processes: Processes, pytestconfig: pytest.Config
) -> Iterator[LocalBitcoin]:
    """A Bitcoin node of this test's own, with an empty chain."""
    from app.local.processes import python_module

    spec = python_module(
        f"bitcoin-{secrets.token_hex(4)}",
        "chain.simulators.bitcoin",
        *("--port", "0", "--seed", str(pytestconfig.getoption("--causeway-seed"))),
    )
    child = causeway_processes.start(spec)
    user, _, password = Path(child.ready["cookie_file"]).read_text().partition(":")
    yield LocalBitcoin(child.ready["url"], user, password, child.ready)
    causeway_processes.stop(child)


@pytest.fixture
def causeway_venue(
    causeway_processes: Processes, pytestconfig: pytest.Config, tmp_path: Path
) -> Iterator[LocalVenue]:
    """A venue of this test's own, with balances in its account; prices move only when told."""
    from app.local.processes import python_module

    spec = python_module(
        f"venue-{secrets.token_hex(4)}",
        "venues.simulator",
        *("--port", "0", "--seed", str(pytestconfig.getoption("--causeway-seed"))),
        *("--data-dir", str(tmp_path / "causeway-venue"), "--step-ms", "0"),
    )
    child = causeway_processes.start(spec)
    ready = child.ready
    yield LocalVenue(
        url=ready["url"],
        ws_url=ready["ws_url"],
        api_key=ready["api_key"],
        secret=ready["secret"],
        symbols=tuple(ready["symbols"]),
        ready=ready,
    )
    causeway_processes.stop(child)


@pytest.fixture(scope="session")
def causeway_postgres() -> Iterator[Server]:
    """The PostgreSQL server of this session (of this worker, under xdist)."""
    from app.local.databases import opened_server

    with opened_server(os.environ) as server:
        yield server


@pytest.fixture(scope="session")
def causeway_template(causeway_postgres: Server) -> Iterator[str]:
    """The name of a database at the newest revision."""
    from app.local.databases import migrated_template

    name = f"causeway_template_{secrets.token_hex(4)}"
    with migrated_template(causeway_postgres, name) as template:
        yield template


@pytest.fixture(scope="session")
def causeway_clones(causeway_postgres: Server, causeway_template: str) -> Iterator[Clones]:
    """Copies of the template: the next is made while a test runs."""
    from app.local.databases import Clones

    clones = Clones(causeway_postgres, causeway_template)
    yield clones
    clones.close()


@pytest.fixture
def causeway_database(causeway_clones: Clones) -> Iterator[Database]:
    """This test's own database: migrated, and empty."""
    database = causeway_clones.take()
    yield database
    causeway_clones.give_back(database)


@pytest.fixture
def causeway_ledger(causeway_database: Database) -> LocalLedger:
    """This test's own ledger: a migrated database with book 1 open."""
    from app.local.databases import run_apart
    from kernel.db import create_engine, transact
    from ledger.posting import open_book

    async def open_it() -> None:
        engine = create_engine(causeway_database.owner_url)
        try:
            await transact(engine, lambda conn: open_book(conn, BOOK, entity="test"))
        finally:
            await engine.dispose()

    run_apart(open_it)
    return LocalLedger(
        owner_url=causeway_database.owner_url,
        app_url=causeway_database.app_url,
        environment=causeway_database.environment,
    )


def _post(url: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Any:
    request = urllib.request.Request(  # noqa: S310  our own simulator on loopback
        url,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **(headers or {})},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
        return json.load(response)
