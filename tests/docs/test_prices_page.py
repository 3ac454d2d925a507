"""The console blocks of docs/prices.md are run, from top to bottom, against a database."""

from __future__ import annotations

import asyncio
import json
import shlex
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.cli import main
from app.local.databases import Database
from kernel.clock import SystemClock
from marketdata.price_snapshots import month_end
from registry.testing import operator_keypair
from tests.app.cli.conftest import Answer
from tests.app.cli.price_desk import USD, last_month, opened_desk, rates
from tests.app.cli.venue_day import private
from tests.docs.machines import REPOSITORY
from tests.docs.pages import FENCE
from tests.marketdata.ecb_files import as_xml

PAGE = REPOSITORY / "docs" / "prices.md"
PROMPT = "$ causeway prices "


def lines() -> list[str]:
    blocks = [found["text"] for found in FENCE.finditer(PAGE.read_text())]
    return [
        line.removeprefix(PROMPT)
        for text in blocks
        for line in text.splitlines()
        if line.startswith(PROMPT)
    ]


def run_main(words: tuple[str, ...]) -> int:
    try:
        main(list(words))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@pytest.mark.timeout(180)
async def test_the_commands_of_the_page_do_what_it_says(
    engine: AsyncEngine,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def call(*words: str) -> Answer:
        code = run_main(words)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    for name, value in database.environment.items():
        monkeypatch.setenv(name, value)
    desk = await opened_desk(engine, call, tmp_path / "recordings", lambda _: ())
    now = SystemClock().now()
    month = last_month(now)
    monkeypatch.chdir(tmp_path)
    for name in ("ada", "cleo", "dan"):
        private(tmp_path / f"{name}.key", operator_keypair(name).private.private_bytes_raw().hex())
    (tmp_path / "eurofxref-hist-90d.xml").write_bytes(as_xml(rates(now)))
    await desk.index(2_000, 2_001, at=month_end(month) - timedelta(minutes=1))
    words = {"MONTH": f"{month:%Y-%m}", "EXPIRES": (now + timedelta(days=1)).isoformat()}
    said: dict[str, str] = {}

    for line in lines():
        if line.startswith(("index", "resolve ETH")):
            # The house publishes every few seconds; here it is done before it is asked for.
            at = SystemClock().now()
            words["INDEX"] = str((await desk.index(2_010, 2_011, at=at)).id)
            await desk.index(2_500, 2_500, at=at, quote=USD)
        given = [words.get(word, word) for word in shlex.split(line)]
        answer = await asyncio.to_thread(desk.cli, "prices", *given, "--json")
        assert answer.code == 0, f"{line}\n{answer.out}\n{answer.err}"
        said[line.split()[0]] = answer.out
        if line.startswith("override "):
            words["OVERRIDE"] = json.loads(answer.out)["id"]

    assert len(lines()) >= 17
    assert json.loads(said["explain"])["computed_again"] == "the same"
    assert json.loads(said["resolve"])["from"] == "override"
    assert json.loads(said["check-snapshot"])["faults"] == ""
