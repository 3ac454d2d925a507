"""The command line as a function, and a small house to give commands in."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.cli import main
from app.local.databases import Database
from kernel.clock import SystemClock
from kernel.db import transact
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import open_book, post, require_applied
from registry.changes import found
from registry.testing import DEMO_OPERATORS, ENTITY, ETH, USDT, demo_founding, operator_keypair

BOOK = ENTITY.book
OPENING = (
    ("custody:client-pool", "client:acme", ETH.parse("10"), "ETH"),
    ("custody:client-pool", "equity:capital", ETH.parse("5"), "ETH"),
    ("custody:client-pool", "client:birch", USDT.parse("20000"), "USDT"),
    ("custody:house-hot", "equity:capital", ETH.parse("20"), "ETH"),
)


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out, self.err
        return json.loads(self.out)


Cli = Callable[..., Answer]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run ``causeway`` with these arguments, as the console script does."""

    def call(*arguments: str) -> Answer:
        capsys.readouterr()
        # A thread of its own: the command runs an event loop of its own.
        with ThreadPoolExecutor(max_workers=1) as pool:
            ended = pool.submit(run_command, arguments).result()
        captured = capsys.readouterr()
        return Answer(ended, captured.out, captured.err)

    return call


def run_command(arguments: tuple[str, ...]) -> int:
    """Run the program and return its exit code."""
    try:
        main(list(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The key files of the demo's operators, and of somebody who is none."""
    folder = tmp_path_factory.mktemp("keys")
    found = {}
    for code in (*(item.code for item in DEMO_OPERATORS), "mallory"):
        path = folder / f"{code}.key"
        path.write_text(operator_keypair(code).private.private_bytes_raw().hex())
        path.chmod(0o600)
        found[code] = path
    return found


@pytest.fixture
def as_(keys: dict[str, Path]) -> Callable[[str], tuple[str, ...]]:
    """The options by which an operator gives a command."""
    return lambda code: ("--as", code, "--key", str(keys[code]))


@pytest.fixture
def environment(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line's settings name this test's database and nothing else."""
    for name in ("CAUSEWAY_EVM_URL",):
        monkeypatch.delenv(name, raising=False)
    for name, value in database.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
async def house(engine: AsyncEngine, environment: None) -> AsyncEngine:
    """A founded house whose clients and wallets hold something."""

    async def work(conn: AsyncConnection) -> None:
        now = SystemClock().now()
        await found(conn, demo_founding(), now=now)
        await open_book(conn, BOOK, entity=ENTITY.code)
        await ensure_accounts(
            conn,
            BOOK,
            {(path, asset) for debit, credit, _, asset in OPENING for path in (debit, credit)},
            owners={"custody:client-pool": "client"},
        )
        batch = [
            transfer(
                derive_id(now, "opening", number),
                debit,
                credit,
                amount,
                asset,
                code="opening",
            )
            for number, (debit, credit, amount, asset) in enumerate(OPENING)
        ]
        require_applied(await post(conn, BOOK, batch))

    await transact(engine, work)
    return engine


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    """A document that somebody signed."""
    path = tmp_path / "agreement.txt"
    path.write_text("agreed")
    return path
