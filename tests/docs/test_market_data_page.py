"""The console blocks of docs/market-data.md are run, from top to bottom, against two simulated venues."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database
from app.workers.house_file import read_house
from kernel.clock import SystemClock
from kernel.db import transact
from marketdata.alarms import THRESHOLDS
from marketdata.events import GapReason
from marketdata.gaps import GapState
from marketdata.model import StreamState
from registry.changes import found
from registry.testing import demo_founding
from tests.app.cli.conftest import run_command
from tests.docs.machines import REPOSITORY
from tests.docs.pages import FENCE
from venues.simulator.testing import SimulatorProcess

PAGE = REPOSITORY / "docs" / "market-data.md"
HOUSE = """
chain = "evm"
book = 1
signer_socket = "signer.sock"
confirmations = "confirmations.json"
payout_depth = 6
start_height = 0
"""


def blocks(kind: str) -> list[str]:
    return [block["text"] for block in FENCE.finditer(PAGE.read_text()) if block["kind"] == kind]


def write(folder: Path, sections: str) -> None:
    (folder / "house.toml").write_text(HOUSE + sections)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.stat().st_size}


def lines() -> list[str]:
    return [
        line.removeprefix("$ causeway ") for text in blocks("console") for line in text.splitlines()
    ]


@pytest.fixture
def venues(tmp_path: Path) -> Iterator[dict[str, SimulatorProcess]]:
    step = ("--step-ms", "50")
    with (
        SimulatorProcess(tmp_path / "binance", *step) as binance,
        SimulatorProcess(tmp_path / "kraken", *step, "--dialect", "kraken") as kraken,
    ):
        yield {"9001": binance, "9002": kraken}


@pytest.mark.timeout(400)
async def test_the_commands_of_the_page_do_what_it_says(
    engine: AsyncEngine,
    database: Database,
    venues: dict[str, SimulatorProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await transact(engine, lambda conn: found(conn, demo_founding(), now=SystemClock().now()))
    for name, value in database.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (sections,) = blocks("toml")
    for port, venue in venues.items():
        sections = sections.replace(f"http://127.0.0.1:{port}", venue.url)
        sections = sections.replace(f"ws://127.0.0.1:{port}", venue.ws_url)
    write(tmp_path, sections)
    said = ""
    for line in lines():
        words = tuple(shlex.split(line.replace("--seconds 2", "--seconds 1")))
        code = await asyncio.to_thread(run_command, words)
        answer = capsys.readouterr()
        assert code == 0, f"{line}\n{answer.out}\n{answer.err}"
        said += answer.out

    assert len(lines()) > 15
    assert "binance ETHUSDT   mid " in said
    assert "same" in said
    assert "differs" not in said
    assert {"eth.png", "eth.html"} <= names(tmp_path)


def test_the_house_file_on_the_page_is_a_house_file(tmp_path: Path) -> None:
    (sections,) = blocks("toml")
    (tmp_path / "house.toml").write_text(HOUSE + sections)

    house = read_house(tmp_path / "house.toml")

    assert [item.venue for item in house.feeds] == ["binance", "kraken"]
    assert [item.name for item in house.indexes] == ["ETH/USDT"]


def test_the_page_has_every_state_reason_and_limit() -> None:
    text = PAGE.read_text()

    assert [str(state) for state in StreamState if f"| {state} |" not in text] == []
    assert [str(state) for state in GapState if f"| {state} |" not in text] == []
    assert [str(reason) for reason in GapReason if f"`{reason}`" not in text] == []
    down, age, told = THRESHOLDS.down_max, THRESHOLDS.age_max, THRESHOLDS.told_max
    assert f"not live for {down.seconds} seconds" in text
    assert (age.seconds, told.seconds) == (120, 30)


def test_the_alert_rules_on_the_page_can_be_read() -> None:
    (rules,) = blocks("yaml")

    (group,) = yaml.safe_load(rules)["groups"]
    assert len(group["rules"]) == 3
