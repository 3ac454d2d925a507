"""The pytest plugin, used by a project that knows nothing of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(180)

REPOSITORY = Path(__file__).resolve().parents[2]
WAIT_S = 150

PROJECT = """
import asyncio
import json
import os
import urllib.request

import pytest

from kernel.db import APP_ROLE, create_engine, transact
from ledger.model import transfer
from ledger.accounts import ensure_accounts
from ledger.posting import post
from kernel.ids import stable_id


@pytest.mark.parametrize("time", ["first", "second"])
def test_each_test_finds_the_chain_as_it_was(causeway_chain, time):
    before = int(causeway_chain.call("eth_blockNumber"), 16)
    assert before == 0
    assert causeway_chain.mine(2) == 2
    assert len(causeway_chain.accounts) == 10


def test_the_ready_line_is_there_for_machines(causeway_chain, causeway_venue):
    assert causeway_chain.ready["component"] == "evm"
    assert causeway_venue.ready["component"] == "venue"
    with open(os.environ["PIDS"], "a") as pids:
        pids.write(f"{causeway_chain.ready['pid']} {causeway_venue.ready['pid']} ")


def test_the_venue_has_a_book(causeway_venue):
    with urllib.request.urlopen(causeway_venue.url + "/api/v3/depth?symbol=ETHUSDT") as answer:
        book = json.load(answer)
    assert book["bids"] and book["asks"]
    assert causeway_venue.control("state")["accounts"]["desk"]


@pytest.mark.parametrize("time", ["first", "second"])
def test_each_test_has_a_bitcoin_chain_of_its_own(causeway_bitcoin, time):
    assert causeway_bitcoin.call("getblockcount") == 0
    paid = causeway_bitcoin.fund("bcrt1qqqqsyqcyq5rqwzqfpg9scrgwpugpzysnard0ew", 150_000_000)
    assert causeway_bitcoin.call("getrawtransaction", paid, 1)["confirmations"] == 1
    height = causeway_bitcoin.call("getblockcount")
    assert causeway_bitcoin.mine(2) == height + 2


def test_the_ledger_posts(causeway_ledger):
    async def work(conn):
        await ensure_accounts(conn, causeway_ledger.book, {("equity:capital", "USD"), ("bank:main", "USD")})
        gift = transfer(stable_id("x"), "bank:main", "equity:capital", 5, "USD", code="test.capital")
        return await post(conn, causeway_ledger.book, [gift])

    async def main():
        engine = create_engine(causeway_ledger.app_url, role=APP_ROLE)
        try:
            return await transact(engine, work)
        finally:
            await engine.dispose()

    assert [result.applied for result in asyncio.run(main())] == [True]
"""


def lives(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.parametrize("workers", ["0", "2"])
def test_another_project_gets_a_chain_a_venue_and_a_ledger(tmp_path: Path, workers: str) -> None:
    (tmp_path / "test_theirs.py").write_text(PROJECT)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    pids = tmp_path / "pids"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PIDS": str(pids)}
    command = [sys.executable, "-m", "pytest", "-q", "-n", workers, "-p", "no:cacheprovider"]

    run = subprocess.run(
        [*command, "--causeway-seed", "3", str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )

    assert "7 passed" in run.stdout, run.stdout + run.stderr
    assert [pid for pid in pids.read_text().split() if lives(int(pid))] == []
