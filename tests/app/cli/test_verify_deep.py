"""``causeway verify --deep``: exit codes, figures for machines, and the journal verified with the rest."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.oracles.catalogue import JOURNAL, ORACLES
from app.oracles.run import examine
from kernel.db import transact
from tests.app.cli.conftest import Cli


async def test_a_house_that_holds_ends_with_0_and_one_that_does_not_with_1(
    house: AsyncEngine, owner_engine: AsyncEngine, cli: Cli
) -> None:
    held = cli("verify", "--deep", "--json")

    assert held.code == 0
    assert held.json["held"] is True
    assert any(line.startswith("evm: no node is named") for line in held.json["silent"])
    assert [item["name"] for item in held.json["oracles"]] == [
        oracle.name for oracle in ORACLES if oracle.name != "at-rest"
    ]

    async def steal(conn: AsyncConnection) -> None:
        for statement in (
            "ALTER TABLE ledger.entry DISABLE TRIGGER USER",
            "UPDATE ledger.entry SET debits_posted = debits_posted + 1 WHERE account = 1",
        ):
            await conn.execute(text(statement))

    await transact(owner_engine, steal)
    (journal,) = (await examine(house, oracles=[JOURNAL])).examined
    assert journal.examined
    assert {item.where.split()[0] for item in journal.findings} >= {"ledger.entry"}

    broken = cli("verify", "--deep", "--at-rest")
    assert broken.code == 1
    assert "ledger.entry of book 1" in broken.out
    assert "at-rest" in broken.out


def test_a_node_that_does_not_answer_is_not_known_and_no_finding(
    house: AsyncEngine, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAUSEWAY_EVM_URL", "http://127.0.0.1:9")

    answer = cli("verify", "--deep", "--json")

    assert answer.code == 0, answer.err
    unknown = [line for item in answer.json["oracles"] for line in item["unknown"]]
    assert any(line.startswith("evm") for line in [*answer.json["silent"], *unknown])


def test_a_deep_check_takes_no_journal(environment: None, cli: Cli) -> None:
    answer = cli("verify", "--deep", "--journal", "x")

    assert answer.code == 2
    assert "a deep check is of the whole house" in answer.err


@pytest.mark.parametrize("option", [("--at-rest",), ("--house", "house.toml")])
def test_what_only_a_deep_check_asks_is_not_passed_over_without_one(
    environment: None, cli: Cli, option: tuple[str, ...]
) -> None:
    answer = cli("verify", *option)

    assert answer.code == 2
    assert "Add --deep" in answer.err
