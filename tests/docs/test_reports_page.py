"""The console blocks of docs/reports.md are run, from top to bottom, in a house whose last month is over."""

from __future__ import annotations

import asyncio
import csv
import json
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database
from kernel.clock import SystemClock
from marketdata.price_snapshots import month_end
from registry.testing import USDT, operator_keypair
from tests.app.cli.conftest import Answer, run_command
from tests.app.cli.price_desk import last_month
from tests.app.cli.venue_day import private
from tests.app.reports.month import MAP, a_month
from tests.docs.machines import REPOSITORY
from tests.docs.pages import FENCE

PAGE = REPOSITORY / "docs" / "reports.md"
PROMPT = "$ causeway report "
ENDS_WITH_1 = ("obstacles",)


def lines() -> list[str]:
    blocks = [found_["text"] for found_ in FENCE.finditer(PAGE.read_text())]
    return [
        line.removeprefix(PROMPT)
        for text in blocks
        for line in text.splitlines()
        if line.startswith(PROMPT)
    ]


def learned(command: str, told: Any) -> dict[str, str]:
    """What later lines of the page call by a word."""
    match command:
        case "obstacles":
            breaks = [row["obstacle"] for row in told if row["obstacle"].startswith("break:")]
            return {"BREAK": " ".join(breaks)}
        case "pnl-record":
            return {"RUN": told["id"]}
        case "issue-statement":
            return {"STATEMENT": told["id"]}
        case _:
            return {}


@pytest.mark.timeout(180)
async def test_the_commands_of_the_page_do_what_it_says(
    engine: AsyncEngine,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def call(*words: str) -> Answer:
        capsys.readouterr()
        code = run_command(words)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    for name, value in database.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    month = last_month(SystemClock().now())
    end = month_end(month)
    await a_month(engine, datetime.combine(month, datetime.min.time(), UTC), end)
    for name in ("ben", "cleo"):
        private(tmp_path / f"{name}.key", operator_keypair(name).private.private_bytes_raw().hex())
    (tmp_path / "gl.csv").write_text(MAP)
    signed = ("--pair", "ETH/USDT", "--as", "cleo", "--key", "cleo.key")
    locked = await asyncio.to_thread(call, "prices", "snapshot", f"{month:%Y-%m}", *signed)
    assert locked.code == 0, locked.err
    assert (await asyncio.to_thread(call, "recon", "run")).code in (0, 1)
    words = {
        "MONTH": f"{month:%Y-%m}",
        "FIRST": month.isoformat(),
        "LAST": (end - timedelta(days=1)).date().isoformat(),
        "BREAK": "",
    }
    said: dict[str, list[Any]] = {}

    for line in lines():
        for word in words["BREAK"].split() if " BREAK " in line else [""]:
            here = {**words, "BREAK": word}
            given = [here.get(word, word) for word in shlex.split(line)]
            as_json = () if "--csv" in given and "issue-statement" not in given else ("--json",)
            answer = await asyncio.to_thread(call, "report", *given, *as_json)
            expected = int(given[0] in ENDS_WITH_1)
            assert answer.code == expected, f"{line}\n{answer.out}\n{answer.err}"
            told: Any = (
                json.loads(answer.out) if as_json else list(csv.reader(answer.out.splitlines()))
            )
            said.setdefault(given[0], []).append(told)
            words |= learned(given[0], told)

    assert len(lines()) >= 20
    check(said, tmp_path)


def check(said: dict[str, list[Any]], folder: Path) -> None:
    """What the story must come to."""
    fifo, average = said["pnl"]
    assert (fifo["realised"], fifo["unrealised"], fifo["net"]) == (
        "300 USDT",
        "80 USDT",
        "385 USDT",
    )
    assert (average["realised"], average["unrealised"]) == ("200 USDT", "180 USDT")
    assert said["pnl-verify"][0]["computed_again"] == "the same"
    assert said["check-statement"][0]["written_again"] == "the same"
    (issued,) = said["issue-statement"]
    assert (folder / "acme.pdf").read_bytes().startswith(b"%PDF-")
    assert (folder / "acme.csv").read_bytes() == (folder / "pack/statements/acme.csv").read_bytes()
    assert issued["csv_sha256"] in (folder / "pack/manifest.json").read_text()
    (obstacles,) = said["obstacles"]
    kinds = [row["obstacle"].partition(":")[0] for row in obstacles]
    assert kinds == ["period-open", *["break"] * (len(kinds) - 1)]
    (pack,) = said["month-end"]
    assert [item["name"] for item in pack["files"]] == [
        *("general-ledger.csv", "positions.csv", "prices.csv", "profit-and-loss.csv"),
        *("reconciliation.csv", "statements/acme.csv", "statements/acme.pdf"),
        *("statements/birch.csv", "statements/birch.pdf", "trial-balance.csv"),
    ]
    assert said["check-pack"][0]["differences"] == ""
    manifest = json.loads((folder / "pack/manifest.json").read_text())
    assert (manifest["status"], manifest["passed"][0]["approved_by"]) == ("preliminary", "ben")
    ages = {(row["asset"], row["owed"]): row["amount"] for row in said["ageing"][0]}
    assert ages == {("ETH", "by us"): "1 ETH", ("USDT", "to us"): "3,305 USDT"}
    short = {row[0]: row[7] for row in said["funding-forecast"][1][1:]}
    assert short["ETH"].startswith("1.0"), "nothing is there to pay with"
    totals: dict[str, float] = {}
    for row in said["trial-balance"][0][1:]:
        totals[row[1]] = totals.get(row[1], 0) + float(row[3]) - float(row[4])
    assert set(totals.values()) == {0.0}
    worth = [USDT.parse(row["worth"]) for row in said["trial-balance"][1]]
    assert abs(sum(worth)) <= len(worth), "zero in money too, but for the last unit of a line"
    (eth, usdt) = said["positions"][1]
    assert (eth["own"], eth["worth"]) == ("1 ETH", "3,280 USDT")
    assert usdt["own"] == usdt["worth"] == "-2,895 USDT"
