"""``causeway ledger export`` and ``export-gl`` on the commands' own small house."""

from __future__ import annotations

import csv
import hashlib
import sys
from datetime import UTC, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kernel.clock import SystemClock
from tests.app.cli.conftest import OPENING, Cli
from tests.ledger.export.programs import bean_check, find_hledger, hledger

pytestmark = pytest.mark.usefixtures("house")

MAP = "pattern,asset,account\nclient:**,*,2100\ncustody:**,*,1000\nequity:**,*,3000\n"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def export(cli: Cli, kind: str, target: Path, *more: str) -> dict[str, object]:
    answer = cli("ledger", "export", "--format", kind, "--output", str(target), "--json", *more)
    assert answer.code == 0, answer.err
    found: dict[str, object] = answer.json
    return found


@pytest.mark.parametrize("kind", ["beancount", "hledger", "csv", "parquet"])
def test_a_book_is_exported_and_summarised(cli: Cli, tmp_path: Path, kind: str) -> None:
    target = tmp_path / f"book.{kind}"

    summary = export(cli, kind, target)

    assert summary["format"] == kind
    assert summary["transfers"] == len(OPENING)
    assert summary["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    match kind:
        case "beancount":
            bean_check(target)
        case "hledger":
            find_hledger()
            hledger(target, "check", "--strict")
        case "csv":
            assert len(rows_of(target)) == len(OPENING)
        case _:
            assert pq.read_table(target).num_rows == len(OPENING)


def test_an_export_as_of_a_time_before_the_book_is_empty(cli: Cli, tmp_path: Path) -> None:
    summary = export(cli, "csv", tmp_path / "out", "--as-of", "2020-01-01", "--by", "recorded")

    assert (summary["sequence"], summary["transfers"]) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--format", "xml", "--output", "out"), 2, "beancount, hledger, csv, parquet"),
        (("--format", "csv", "--output", "out", "--by", "day"), 2, "effective, recorded"),
        (("--format", "csv", "--output", "out", "--as-of", "soon"), 2, "not a time"),
        (("--format", "csv", "--output", "/nowhere/out"), 2, "cannot write /nowhere/out"),
        (("--format", "csv", "--output", "out", "--book", "9"), 2, "no book 9"),
    ],
)
def test_what_cannot_be_exported_is_said_with_a_code(
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)

    answer = cli("ledger", "export", *arguments)

    assert answer.code == code
    assert said in answer.err
    assert list(tmp_path.iterdir()) == []


def test_without_pyarrow_parquet_says_which_extra_to_install(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "ledger.export.parquet", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    answer = cli("ledger", "export", "--format", "parquet", "--output", str(tmp_path / "out"))

    assert answer.code == 2
    assert "causeway[exports]" in answer.err


def gl(cli: Cli, folder: Path, map_text: str, name: str = "gl-map.csv") -> tuple[str, ...]:
    path = folder / name
    path.write_text(map_text)
    today = SystemClock().now().astimezone(UTC).date()
    first, last = today - timedelta(days=1), today + timedelta(days=1)
    output = str(folder / "gl.csv")
    return (
        *("ledger", "export-gl", "--map", str(path), "--output", output),
        *("--from", str(first), "--to", str(last)),
    )


def test_a_period_is_exported_for_the_general_ledger_and_again_with_the_same_id(
    cli: Cli, tmp_path: Path
) -> None:
    arguments = gl(cli, tmp_path, MAP)

    first = cli(*arguments, "--json")
    second = cli(*arguments)

    assert first.code == second.code == 0, first.err + second.err
    assert first.json["status"] == "preliminary"
    assert first.json["batch"] in second.out
    assert "preliminary: the period is open" in second.err
    assert all(total["debits"] == total["credits"] for total in first.json["totals"])
    rows = rows_of(tmp_path / "gl.csv")
    assert {row["account"] for row in rows} == {"1000", "2100", "3000"}
    assert {row["batch"] for row in rows} == {first.json["batch"]}


def test_accounts_without_a_rule_are_refused_with_1_and_all_named(cli: Cli, tmp_path: Path) -> None:
    answer = cli(*gl(cli, tmp_path, "pattern,asset,account\nequity:**,*,3000\n"))

    assert answer.code == 1
    assert "client:acme ETH" in answer.err
    assert "custody:house-hot ETH" in answer.err
    assert not (tmp_path / "gl.csv").exists()


def test_a_map_that_is_none_is_2(cli: Cli, tmp_path: Path) -> None:
    for text, name in (("x,y\n1,2\n", "a.csv"), ("[[", "a.toml")):
        assert cli(*gl(cli, tmp_path, text, name)).code == 2
    missing = tmp_path / "none.csv"
    answer = cli(
        *("ledger", "export-gl", "--map", str(missing), "--output", str(tmp_path / "gl.csv")),
        *("--from", "2026-01-01", "--to", "2026-01-31"),
    )
    assert answer.code == 2
    assert "cannot read the map" in answer.err
