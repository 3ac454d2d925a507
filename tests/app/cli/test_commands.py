"""Every command of the program: its help, its exit codes, its manners."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from app.cli import app
from app.local.databases import Database
from registry.records import to_content
from registry.testing import demo_founding
from tests.app.cli.conftest import Cli

UNKNOWN = "0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80"
NO_DATABASE = (
    *("bench", "demo", "simulate", "registry new-key", "up", "migrate"),
    *("ledger journal templates", "ledger check-proof", "custody keys"),
    *("custody signer health", "custody signer checkpoint", "custody signer audit"),
    *("venues connectors", "venues key new-kek"),
    *("marketdata watch", "marketdata plot", "marketdata record", "marketdata replay"),
    *("marketdata query", "marketdata export", "settle net", "settle answer"),
)
"""Commands that bring what they need, or need another thing first."""
VECTORS = Path(__file__).parents[2] / "chain" / "bitcoin" / "data" / "psbt_vectors.json"
ONE_PSBT = json.loads(VECTORS.read_text())["valid"][0]
HOUSE_FILE = """
chain = "evm"
book = 1
signer_socket = "signer.sock"
confirmations = "confirmations.json"
payout_depth = 6
start_height = 0

[[venue]]
venue = "binance"
account = "desk"
connector = "binance"
kek = "venues.kek"

[[feed]]
venue = "binance"
connector = "binance"
symbols = ["ETHUSDT"]
"""
NO_JSON = ("simulate",)
"""The simulators' one line for machines is their ready line."""
NEVER_IMPORTED_AT_START = (
    *("sqlalchemy", "asyncpg", "web3", "ccxt", "rich.table", "orjson", "cryptography", "aiohttp"),
    *("alembic", "structlog"),
)


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, below in sorted(getattr(command, "commands", {}).items()):
        yield from leaves(below, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path), command


COMMANDS = dict(leaves(typer.main.get_command(app)))
ON_A_DATABASE = [name for name in COMMANDS if not name.startswith(NO_DATABASE)]


def example(name: str) -> list[str]:
    """Return the arguments of a command's example, without the path of the command."""
    text = COMMANDS[name].help.partition("Example:")[2].strip()
    words = shlex.split(text.strip("`").partition("|")[0])
    return words[1 + len(name.split()) :]


@pytest.fixture
def usable(keys: dict[str, Path], tmp_path: Path) -> Callable[[str], list[str]]:
    """Return a command's example with files that exist."""
    founding = demo_founding()
    names = ("entities", "assets", "chains", "chain_assets", "parties", "operators", "wallets")
    contents: dict[str, Any] = {
        "founding.json": {
            name: [to_content(item) for item in getattr(founding, name)] for name in names
        },
        "acme.json": {"code": "cedar", "kind": "client", "entity": "causeway-desk"},
        "policy.json": [{"claim": "*", "approvals": 1}],
        "bands.json": {"sweeps": []},
        "rules.json": {},
        "addresses.json": {"version": 1, "addresses": []},
        "record.json": {},
        "sealing.key": "00" * 32,
        "isda.pdf": "",
        "mail.eml": "",
        "statement.xml": "",
        "payments.xml": "",
        "acme.signed": {
            "statement_sha256": "0" * 64,
            "party": "acme",
            "verdict": "affirmed",
            "obligations": [],
            "reason": "",
            "signature": "00" * 64,
        },
        "ann.psbt": ONE_PSBT,
        "binance.json": {"api_key": "key", "secret": "secret"},
        "house.toml": HOUSE_FILE,
        "eurofxref-hist-90d.xml": "",
        "gl.csv": "pattern,asset,account\n**,*,9999\n",
        "owed.csv": "ref,party,direction,asset,amount,value_date\n",
        "alerts.toml": "",
        "deals.csv": "ref,party,side,amount,base,price,quote\nd-1,acme,sell,2,ETH,3000,USDT\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))

    def build(name: str) -> list[str]:
        words = []
        for word in example(name):
            if word.endswith(".key") and word[:-4] in keys:
                words.append(str(keys[word[:-4]]))
            elif word in contents:
                words.append(str(tmp_path / word))
            else:
                words.append(word)
        return words

    return build


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does_and_gives_an_example_that_parses(name: str) -> None:
    command = COMMANDS[name]

    assert command.help
    assert f"Example: `causeway {name}" in " ".join(command.help.split())
    if not name.startswith("simulate"):
        command.make_context(name, example(name))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_prints_data_has_json(name: str) -> None:
    if not name.startswith(NO_JSON):
        assert "--json" in {word for item in COMMANDS[name].params for word in item.opts}


def test_what_moves_money_can_be_rehearsed() -> None:
    rehearsed = {
        name
        for name, command in COMMANDS.items()
        if any("--dry-run" in item.opts for item in command.params)
    }

    assert rehearsed >= {
        *("custody payout", "custody approve", "custody reject", "custody cancel"),
        *("custody bump", "custody cancel-signed", "custody cold import"),
        *("custody thaw", "custody resume", "custody abandon"),
        *("custody attribute", "custody compliance release", "custody compliance refund"),
        *("desk deal", "desk amend", "desk cancel", "desk import"),
        *("settle seal", "settle release"),
        *("ledger journal propose", "ledger journal approve", "ledger import"),
        *("ledger move-between-books", "ledger close-period", "ledger approve-period"),
    }


@pytest.mark.parametrize("name", ON_A_DATABASE)
def test_without_a_database_every_command_says_so_and_ends_with_3(
    name: str,
    cli: Cli,
    usable: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("CAUSEWAY_DATABASE_URL", "CAUSEWAY_APP_DATABASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CAUSEWAY_EVM_URL", "http://127.0.0.1:9")

    answer = cli(*name.split(), *usable(name))

    assert answer.code == 3, answer.err
    assert answer.err.startswith("error: no database is named (CAUSEWAY_DATABASE_URL)")


def test_a_database_that_does_not_answer_is_3_and_its_password_is_not_shown(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CAUSEWAY_APP_DATABASE_URL", raising=False)
    monkeypatch.setenv("CAUSEWAY_DATABASE_URL", "postgresql://me:hush-hush@127.0.0.1:9/none")

    for command in (("desk", "deals"), ("migrate",)):
        answer = cli(*command)

        assert answer.code == 3
        assert "PostgreSQL does not answer" in answer.err
        assert "hush-hush" not in answer.err
        assert "Traceback" not in answer.err


def test_a_database_without_a_schema_is_3_and_migrate_makes_it(
    cli: Cli, empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CAUSEWAY_APP_DATABASE_URL", raising=False)
    monkeypatch.setenv("CAUSEWAY_DATABASE_URL", empty_database.owner_url)

    before = cli("desk", "deals")
    migrated = cli("migrate", "--json")
    after = cli("desk", "deals", "--json")

    assert (before.code, after.code) == (3, 0)
    assert "causeway migrate" in before.err
    assert migrated.json["before"] == ""
    assert migrated.json["now"] == migrated.json["newest"]
    assert after.json == []


@pytest.mark.parametrize("name", [name for name in ON_A_DATABASE if UNKNOWN in example(name)])
@pytest.mark.usefixtures("house")
def test_an_unknown_id_is_refused_with_1_and_a_sentence(
    name: str, cli: Cli, usable: Callable[[str], list[str]]
) -> None:
    answer = cli(*name.split(), *usable(name))

    assert answer.code == 1
    assert answer.err.startswith("error: ")
    assert UNKNOWN in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("amount", ["1.5", "ETH", "-1 ETH", "0 ETH", "1,5,x ETH", "1e3 ETH", ""])
@pytest.mark.parametrize("name", ["custody payout", "custody policy explain", "desk deal"])
def test_an_amount_that_is_none_is_2_before_anything_is_asked(
    name: str, amount: str, cli: Cli, usable: Callable[[str], list[str]]
) -> None:
    words = usable(name)
    position = words.index("2 ETH") if name == "desk deal" else 0
    words[position] = amount

    answer = cli(*name.split(), *words)

    assert answer.code == 2, answer.err
    is_taken_for_an_option = amount.startswith("-") and position == 0
    assert answer.err.startswith("Usage: " if is_taken_for_an_option else "error: ")


@pytest.mark.usefixtures("house")
def test_more_places_than_the_asset_has_is_2(cli: Cli, usable: Callable[[str], list[str]]) -> None:
    words = usable("custody payout")
    words[0] = "1.0000001 USDT"

    answer = cli("custody", "payout", *words)

    assert answer.code == 2
    assert "6 decimal places of USDT" in answer.err


@pytest.mark.usefixtures("house")
def test_an_asset_that_is_not_registered_is_1_and_names_those_that_are(
    cli: Cli, usable: Callable[[str], list[str]]
) -> None:
    words = usable("custody payout")
    words[0] = "1 DOGE"

    answer = cli("custody", "payout", *words)

    assert answer.code == 1
    assert "DOGE is not registered" in answer.err
    assert "ETH, USDT" in answer.err


@pytest.mark.parametrize(
    "words",
    [
        ("custody", "explain", "not-an-id"),
        ("custody", "deposits", "--state", "lost"),
        ("registry", "list", "planet"),
        ("settle", "preview", "--value-date", "soon"),
        ("ledger", "trial-balance", "--as-of", "yesterday"),
        ("nonsense",),
        ("desk", "deal", "acme", "--price", "1 USDT", "--ref", "d", "--as", "a", "--key", "b"),
    ],
)
def test_what_cannot_be_understood_is_2(words: tuple[str, ...], cli: Cli) -> None:
    answer = cli(*words)

    assert answer.code == 2
    assert "Traceback" not in answer.err


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, app.cli\n"
        f"print([name for name in {NEVER_IMPORTED_AT_START!r} if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert done.stdout.decode().strip() == "[]"


def test_the_console_script_ends_with_the_exit_code_and_without_a_traceback() -> None:
    program = "from app.cli import main; main()"
    command = [sys.executable, "-c", program, "custody", "payout", "much", "--claim", "client:a"]
    command += ["--to", "x", "--from", "y", "--ref", "z", "--as", "dan", "--key", "none.key"]

    done = subprocess.run(command, capture_output=True, check=False)

    assert done.returncode == 2
    assert done.stderr.decode().startswith("error: 'much' names no asset")
