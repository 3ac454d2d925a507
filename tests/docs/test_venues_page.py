"""The console blocks of docs/venues.md are run, from top to bottom, against a simulator and a database."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.cli import main
from app.local.databases import Database
from kernel.clock import SystemClock
from kernel.db import transact
from ledger.posting import open_book
from matching.model import TimeInForce
from registry.changes import found
from registry.testing import ENTITY, demo_founding, operator_keypair
from tests.app.cli.venue_day import BOOK, Day, private
from tests.docs.machines import REPOSITORY
from tests.docs.pages import FENCE
from venues.explain import explain_order
from venues.simulator.testing import SimulatorProcess

PAGE = REPOSITORY / "docs" / "venues.md"
REFUSED = ("venues decide", "venues reconcile")
"""What is shown with nothing escalated, and with a break: both end with exit code 1."""


def blocks(kind: str) -> list[str]:
    return [block["text"] for block in FENCE.finditer(PAGE.read_text()) if block["kind"] == kind]


def lines() -> list[str]:
    return [
        line.removeprefix("$ causeway ") for text in blocks("console") for line in text.splitlines()
    ]


def run_main(words: tuple[str, ...]) -> int:
    try:
        main(list(words))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


HELD = ("--balance", "ETH=1000", "USDT=5000000")
"""Nothing but what is registered."""


@pytest.fixture
def venue(tmp_path: Path) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path / "binance", "--step-ms", "0", *HELD) as process:
        yield process


@pytest.mark.timeout(240)
async def test_the_commands_of_the_page_do_what_it_says(
    engine: AsyncEngine,
    database: Database,
    venue: SimulatorProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = SystemClock().now()
    await transact(engine, lambda conn: found(conn, demo_founding(), now=now))
    await transact(engine, lambda conn: open_book(conn, BOOK, entity=ENTITY.code, now=now))
    for name, value in database.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    for name in ("dan", "ada"):
        private(tmp_path / f"{name}.key", operator_keypair(name).private.private_bytes_raw().hex())
    day = Day(engine, tmp_path, venue)
    (section,) = blocks("toml")
    ids: dict[str, str] = {}
    said = ""
    for line in lines():
        if line.startswith("venues key new-kek"):
            day.write(section.replace("venues.kek", shlex.split(line)[-1]))
        if line.startswith("venues orders") and "ORDER" not in ids:
            ids["ORDER"] = str((await day.order("one", "2000", TimeInForce.GTC)).id)
        if line.startswith("venues reconcile"):
            sent = {"account": "desk", "asset": "USDT", "free": "4000000"}
            venue.control("POST", "balance", sent)
        words = [ids.get(word, word) for word in shlex.split(line)]
        code = await asyncio.to_thread(run_main, tuple(words))
        answer = capsys.readouterr()
        assert code == int(line.startswith(REFUSED)), f"{line}\n{answer.out}\n{answer.err}"
        said += answer.out + answer.err
        if line.startswith("venues reconcile"):
            await asyncio.to_thread(run_main, ("venues", "breaks", "--json"))
            ids["BREAK"] = capsys.readouterr().out.partition('"id": "')[2].partition('"')[0]

    async with engine.connect() as conn:
        order = (await explain_order(conn, UUID(ids["ORDER"]))).order
    assert len(lines()) > 20
    assert "is cancelled" in said
    assert (str(order.state), "dismissed" in said) == ("cancelled", True)
    assert [secret for secret in day.secrets if secret in said] == []
