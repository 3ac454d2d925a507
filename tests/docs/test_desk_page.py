"""The console blocks of docs/desk.md are run, from top to bottom, against a desk whose process runs."""

from __future__ import annotations

import asyncio
import json
import shlex
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local.databases import Database
from app.workers.house_file import read_house
from kernel.clock import SystemClock
from kernel.db import transact
from kernel.money import Price
from ledger.posting import open_book
from marketdata.model import PriceRecord, Quality
from marketdata.price_model import PriceKind
from marketdata.prices import record_price
from registry.changes import found
from registry.testing import (
    DEMO_OPERATORS,
    ENTITY,
    ETH,
    USDT,
    demo_founding,
    operator_keypair,
)
from tests.app.cli.conftest import BOOK, Answer, run_command
from tests.app.cli.test_desk_quotes import Fresh, working
from tests.app.cli.venue_day import private
from tests.docs.machines import REPOSITORY
from tests.docs.pages import FENCE
from tests.docs.test_market_data_page import HOUSE
from tests.trading.quotes.market import shown
from trading.confirmations.affirming import affirmation_bytes
from trading.hedges.lines import open_line
from trading.hedges.model import HedgeLine, HedgePlace

PAGE = REPOSITORY / "docs" / "desk.md"
PROMPT = "$ causeway "
CLIENT = operator_keypair("acme's back office")
DEALS = "ref,party,side,amount,base,price,quote\nf-1,acme,sell,1,ETH,3003,USDT\nf-2,acme,buy,1,ETH,2997,USDT\n"


def lines() -> list[str]:
    blocks = [found["text"] for found in FENCE.finditer(PAGE.read_text())]
    return [
        line.removeprefix(PROMPT)
        for text in blocks
        for line in text.splitlines()
        if line.startswith(PROMPT)
    ]


def learned(line: str, answer: Answer) -> dict[str, str]:
    """Return what later lines call by name."""
    said = json.loads(answer.out)
    if line.startswith("desk quote "):
        return {"QUOTE": said["id"]}
    if line.startswith("desk accept "):
        return {"CLIENTS": said["deal"]}
    if line.startswith("desk deal "):
        return {"DEAL": said["id"]}
    if line.startswith("desk amend "):
        return {"REPLACED": said["id"]}
    if line.startswith("desk confirm REPLACED"):
        return {"CONFIRMATION": said["id"]}
    if line.startswith("desk confirm CLIENTS"):
        signature = CLIENT.sign(affirmation_bytes(said["text_sha256"])).hex()
        return {"SIGNED": said["id"], "SIGNATURE": signature}
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
        code = run_command(words)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    async def open_house(conn: AsyncConnection) -> None:
        await found(conn, demo_founding(), now=SystemClock().now())
        await open_book(conn, BOOK, entity=ENTITY.code)
        place = HedgePlace("binance", "desk", "ETHUSDT")
        line = HedgeLine(desk="otc", asset="ETH", places=(place,))
        await open_line(conn, line, by="dan", reason="the desk opens", now=SystemClock().now())

    async def publish(conn: AsyncConnection) -> None:
        now = SystemClock().now()
        price = Price.parse("3000", ETH, USDT)
        index = PriceRecord(
            price=price, kind=PriceKind.INDEX, quality=Quality.GOOD, observed_at=now
        )
        await record_price(conn, index, now=now)

    for name, value in database.environment.items():
        monkeypatch.setenv(name, value)
    await transact(engine, open_house)
    monkeypatch.chdir(tmp_path)
    for operator in DEMO_OPERATORS:
        key = operator_keypair(operator.code).private.private_bytes_raw().hex()
        private(tmp_path / f"{operator.code}.key", key)
    (tmp_path / "deals.csv").write_text(DEALS)
    (tmp_path / "mail.eml").write_text("3 ETH it is")
    words = {"PUBLIC": CLIENT.public.hex()}
    said: dict[str, str] = {}

    with working(database, Fresh(shown())):
        for line in lines():
            key = " ".join(line.split()[:3])
            # The house publishes every few seconds; here it is done before each command.
            await transact(engine, publish)
            given = [words.get(word, word) for word in shlex.split(line)]
            answer = await asyncio.to_thread(call, *given, "--json")
            assert answer.code == 0, f"{line}\n{answer.out}\n{answer.err}"
            said[key] = answer.out
            words |= learned(line, answer)

    assert len(lines()) >= 30
    assert json.loads(said["desk affirm CONFIRMATION"])["state"] == "affirmed"
    assert json.loads(said["desk affirm SIGNED"])["state"] == "affirmed"
    assert (tmp_path / "v-1b.pdf").read_bytes().startswith(b"%PDF")
    life = json.loads(said["desk explain REPLACED"])
    assert [item["operation"] for item in life["confirmations"]] == ["amendment"]
    assert json.loads(said["desk explain otc/ETH"])["places"][0]["venue"] == "binance"


def test_the_sections_that_the_page_has_appended_make_a_house_with_a_desk(tmp_path: Path) -> None:
    (sections,) = [
        block["text"] for block in FENCE.finditer(PAGE.read_text()) if "[desk]" in block["text"]
    ]
    (tmp_path / "house.toml").write_text(HOUSE + sections)

    house = read_house(tmp_path / "house.toml")

    assert house.desk is not None
    assert {feed.venue for feed in house.feeds} == set(house.indexes[0].venues)


def test_the_line_that_the_page_tells_clients_to_sign_is_the_one_that_is_verified() -> None:
    digest = "ab" * 32
    (line,) = [line for line in PAGE.read_text().splitlines() if line.startswith("printf ")]
    template = shlex.split(line.partition(' "$(')[0])[1]

    assert (template % digest).encode() == affirmation_bytes(digest)
