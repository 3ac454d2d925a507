"""``causeway up`` as a process of its own, with a chain and a signer that are real processes too."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.local.databases import Database
from app.local.processes import Processes, python_module
from causeway.pytest import LocalChain
from chain.bitcoin.kernel import is_available
from chain.bitcoin.node import NodeRpc
from custody.signer.testing import SEED, rules_for, write_signer_files
from registry.records import to_content
from registry.testing import demo_founding
from tests.app.cli.conftest import Cli

PATIENCE_S = 60
MINER = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
PAYEE = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
LISTS = ("entities", "assets", "chains", "chain_assets", "parties", "operators", "wallets")
As = Callable[[str], tuple[str, ...]]


@pytest.fixture
def house_file(tmp_path: Path) -> Path:
    """A house on the local chain, whose registry is founded by the first start."""
    founding = demo_founding()
    # No token is deployed on this chain: what is registered is what the node can be asked about.
    founding = replace(founding, chain_assets=founding.chain_assets[:1])
    contents = {name: [to_content(i) for i in getattr(founding, name)] for name in LISTS}
    (tmp_path / "founding.json").write_text(json.dumps(contents))
    (tmp_path / "confirmations.json").write_text('{"version": 1, "rules": [{"depth": 3}]}')
    path = tmp_path / "house.toml"
    path.write_text(
        'chain = "evm"\nbook = 1\nsigner_socket = "signer.sock"\npause_ms = 100\n'
        'confirmations = "confirmations.json"\nfounding = "founding.json"\n'
        "payout_depth = 2\nstart_height = 0\n"
    )
    return path


@pytest.fixture
def signer(causeway_processes: Processes, house_file: Path) -> Iterator[None]:
    """The signer, on the socket that the house file names."""
    founding = demo_founding()
    rules = rules_for(founding.chains, founding.chain_assets, founding.operators)
    files = write_signer_files(house_file.parent, rules, seed=SEED, random=secrets.token_bytes)
    socket = house_file.parent / "signer.sock"
    child = causeway_processes.start(
        python_module("signer", "custody.signer", "--socket", str(socket), *files.options)
    )
    yield
    causeway_processes.stop(child)


@pytest.fixture
def at_work(
    environment: None,
    database: Database,
    causeway_chain: LocalChain,
    house_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Running]]:
    """Start ``causeway up``; every process that a test started is ended after it."""
    monkeypatch.setenv("CAUSEWAY_EVM_URL", causeway_chain.url)
    monkeypatch.setenv("CAUSEWAY_STATE_DIR", str(house_file.parent / "state"))
    started: list[Running] = []

    def start(*options: str) -> Running:
        asked = options or ("--house", str(house_file))
        started.append(Running(house_file.parent, len(started), *asked))
        return started[-1]

    yield start
    for running in started:
        running.close()


class Running:
    """A started ``causeway up``: *options* after it, its output in *folder*."""

    def __init__(self, folder: Path, number: int, *options: str) -> None:
        program = "from app.cli import main; main()"
        self.out = folder / f"out-{number}"
        self.err = folder / f"err-{number}"
        self._streams = (self.out.open("wb"), self.err.open("wb"))
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "up", "--json", *options],
            stdout=self._streams[0],
            stderr=self._streams[1],
            stdin=subprocess.DEVNULL,
            env=dict(os.environ),
        )

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in self._streams:
            stream.close()

    @property
    def lines(self) -> list[dict[str, Any]]:
        complete = self.out.read_text().split("\n")[:-1]
        return [json.loads(line) for line in complete]

    def ready(self) -> dict[str, Any]:
        def first() -> list[dict[str, Any]]:
            assert self.process.poll() is None, self.err.read_text()
            return self.lines[:1]

        [line] = until(first, "the ready line")
        return dict(line)


def until(look: Callable[[], Any], what: str) -> Any:
    """Look again and again until there is something to see."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come")


def send(chain: LocalChain, to: str, wei: int) -> None:
    chain.call("eth_sendTransaction", {"from": chain.accounts[0], "to": to, "value": hex(wei)})


@pytest.mark.usefixtures("signer")
def test_it_credits_a_deposit_pays_out_hands_events_on_and_stops_cleanly(
    at_work: Callable[..., Running],
    causeway_chain: LocalChain,
    cli: Cli,
    as_: As,
    tmp_path: Path,
) -> None:
    running = at_work()
    ready = running.ready()
    assert (ready["ready"], ready["chain_id"]) == (True, causeway_chain.chain_id)
    assert ready["loops"] == [
        "restore",
        "watcher",
        "settlement",
        "relay",
        "client-money",
        "rebalance",
        "reconcile",
        "tokens",
        "jobs",
        "cycles",
        "proof",
        "alerts",
    ]

    assign = ("custody", "address", "assign", "client-pool", *as_("dan"), "--json")
    deposit = cli(*assign, "--party", "acme").json["address"]
    hot = cli(*assign, "--purpose", "hot").json["address"]
    house = ("custody", "address", "assign", "house-hot", *as_("dan"), "--json")
    capital = cli(*house, "--purpose", "hot").json["address"]
    send(causeway_chain, deposit, 10**18)
    send(causeway_chain, hot, 2 * 10**18)
    send(causeway_chain, capital, 10**18)
    causeway_chain.mine(3)
    credited = ("custody", "deposits", "--party", "acme", "--state", "credited", "--json")
    [found] = until(lambda: cli(*credited).json, "the credit")
    assert found["amount"] == "1 ETH"

    strangers = ("custody", "deposits", "--state", "unattributed", "--json")
    [stray] = until(
        lambda: [i for i in cli(*strangers).json if i["wallet"] == "house-hot"], "the capital"
    )
    why = ("--reason", "paid in by the owners")
    two = (*as_("ada"), "--approver", "cleo", "--approver-key", as_("cleo")[-1])
    attribute = ("custody", "attribute", stray["id"], "--credit", "equity:capital", *two)
    alone = cli(*attribute[:-4], "--approver", "ada", "--approver-key", as_("ada")[-1], *why)
    attributed = cli(*attribute, *why, "--json")
    assert (alone.code, attributed.code) == (1, 0), attributed.err
    assert attributed.json["credit"] == "equity:capital"

    payout = pay_out(cli, as_, PAYEE, tmp_path)
    confirmed = ("custody", "payouts", "--state", "confirmed", "--json")
    until(lambda: causeway_chain.mine() and cli(*confirmed).json, "the payout's confirmation")
    story = cli("custody", "explain", payout, "--json").json
    assert story["attempts"][0]["state"] == "final"

    reconciled = cli("custody", "reconcile", "--json")
    assert reconciled.code == 0, reconciled.err
    assert cli("verify").code == 0
    assert {row["difference"] for row in reconciled.json["wallets"]} == {"0 ETH"}
    assert (reconciled.json["result"], reconciled.json["items"]) == ("clean", [])

    assert running.stop() == 0, running.err.read_text()
    events = [line["event"] for line in running.lines[1:]]
    assert "DepositCredited" in events
    assert "PayoutConfirmed" in events
    assert "Traceback" not in running.err.read_text()


def pay_out(cli: Cli, as_: As, to: str, folder: Path) -> str:
    """Let acme take half an ETH out, with all that four eyes ask for; return the payout's id."""
    rules = folder / "rules.json"
    rules.write_text("[{}]")
    cli("custody", "policy", "propose", str(rules), *as_("ada"))
    cli("custody", "policy", "approve", "1", *as_("ben"))
    place = cli("custody", "destinations", "propose", "acme", to, *as_("dan"), "--json").json
    cli("custody", "destinations", "approve", place["id"], *as_("ben"))
    made = cli(
        *("custody", "payout", "0.5 ETH", "--claim", "client:acme", "--to", to),
        *("--from", "client-pool", "--ref", "w-1", *as_("dan"), "--json"),
    )
    assert made.code == 0, made.err
    approved = cli("custody", "approve", made.json["id"], *as_("ben"), "--json")
    assert approved.json["state"] == "approved"
    return str(made.json["id"])


def test_killed_and_started_again_it_goes_on_where_the_rows_say(
    at_work: Callable[..., Running], causeway_chain: LocalChain, cli: Cli, as_: As
) -> None:
    first = at_work()
    first.ready()
    assign = ("custody", "address", "assign", "client-pool", *as_("dan"), "--json")
    deposit = cli(*assign, "--party", "acme").json["address"]
    first.process.kill()
    first.process.wait()
    send(causeway_chain, deposit, 10**18)
    causeway_chain.mine(3)

    second = at_work()
    second.ready()

    credited = ("custody", "deposits", "--state", "credited", "--json")
    assert len(until(lambda: cli(*credited).json, "the credit")) == 1
    # No signer listens: that is said, and deposits are credited all the same.
    assert "the signer does not answer" in second.err.read_text()


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("book = true", "book is True"),
        ("colour = 1", "the key 'colour'"),
        ("payout_depth = 0", "payout_depth is 0"),
        ("pause_ms = 1", "pause_ms is 1"),
        ("payout_finalized = 1", "payout_finalized is 1"),
        ("chain = ''", "chain is ''"),
        ("= 1", "cannot be read"),
    ],
)
def test_a_house_file_that_is_wrong_is_2_and_names_the_key(
    cli: Cli, house_file: Path, line: str, told: str
) -> None:
    key = line.partition(" ")[0]
    kept = [old for old in house_file.read_text().splitlines() if old.partition(" ")[0] != key]
    house_file.write_text("\n".join([*kept, line]))

    answer = cli("up", "--house", str(house_file))

    assert answer.code == 2
    assert told in answer.err


@pytest.mark.usefixtures("environment")
def test_what_it_needs_and_does_not_have_is_said_with_its_exit_code(
    house_file: Path, causeway_chain: LocalChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_a_file = start_in_vain("--house", str(house_file.parent / "none.toml"))
    without_a_node = start_in_vain("--house", str(house_file))
    monkeypatch.setenv("CAUSEWAY_EVM_URL", causeway_chain.url)
    bare = house_file.read_text().replace('founding = "founding.json"\n', "")
    house_file.write_text(bare)
    not_founded = start_in_vain("--house", str(house_file))

    codes = [one.returncode for one in (without_a_file, without_a_node, not_founded)]
    assert codes == [2, 3, 1]
    assert "CAUSEWAY_EVM_URL" in without_a_node.stderr
    assert "registry found" in not_founded.stderr


@pytest.mark.usefixtures("environment")
def test_a_node_of_another_chain_is_refused(
    house_file: Path, causeway_chain: LocalChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAUSEWAY_EVM_URL", causeway_chain.url)
    founding = house_file.parent / "founding.json"
    founding.write_text(founding.read_text().replace("31337", "1"))

    answer = start_in_vain("--house", str(house_file))

    assert answer.returncode == 1
    assert "serves chain 31337, evm is chain 1" in answer.stderr


def start_in_vain(*options: str) -> subprocess.CompletedProcess[str]:
    """Run ``causeway up`` where it ends by itself."""
    program = "from app.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, "up", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        stdin=subprocess.DEVNULL,
    )


def test_without_a_house_file_a_house_for_trying_out_is_made_once_and_goes_on(
    at_work: Callable[..., Running], cli: Cli, tmp_path: Path
) -> None:
    first = at_work("--json")
    ready = first.ready()
    assert ready["chain_id"] == 31_337
    loops = {"bitcoin-watcher", "bitcoin-rebalance", "bitcoin-reconcile"}
    assert loops & {*ready["loops"]} == (loops if is_available() else set())
    assert ("CAUSEWAY_BITCOIN_URL" in ready) is is_available()
    home = tmp_path / "state" / "trial" / "31337"
    dan = ("--as", "dan", "--key", str(home / "keys" / "dan.key"))
    assign = ("custody", "address", "assign", "client-pool", "--party", "acme", *dan)
    assert cli(*assign).code == 0
    assert first.stop() == 0, first.err.read_text()
    assert "the signer answers" in first.err.read_text()
    assert ("Bitcoin is left out" in first.err.read_text()) is not is_available()

    second = at_work("--json")
    # What was named is not repeated: a URL may hold a password.
    assert second.ready().keys() & {"CAUSEWAY_DATABASE_URL", "CAUSEWAY_EVM_URL"} == set()

    assert len(cli("custody", "address", "list", "--json").json) == 1
    assert second.stop() == 0
    assert "was made" in first.err.read_text()
    assert "was made" not in second.err.read_text()
    private = [path for path in home.rglob("*") if path.suffix == ".key" or path.name == "kek"]
    # Four people, the key-encryption key, and the key that signs the store's checkpoints.
    assert len(private) == 6
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}


def test_with_nothing_named_everything_runs_on_this_machine(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not pytest's folder: the database server of root is another user, who has to reach it.
    folder = Path(tempfile.mkdtemp(prefix="causeway-up-"))
    folder.chmod(0o711)
    for variable in ("DATABASE_URL", "APP_DATABASE_URL", "EVM_URL", "BITCOIN_URL"):
        monkeypatch.delenv(f"CAUSEWAY_{variable}", raising=False)
    monkeypatch.setenv("CAUSEWAY_STATE_DIR", str(folder / "state"))
    running = Running(folder, 0)
    try:
        ready = running.ready()
        monkeypatch.setenv("CAUSEWAY_DATABASE_URL", ready["CAUSEWAY_DATABASE_URL"])
        monkeypatch.setenv("CAUSEWAY_EVM_URL", ready["CAUSEWAY_EVM_URL"])

        assert cli("verify").code == 0
        until(lambda: cli("custody", "reconcile").code == 0, "the first block in the books")
        if is_available():
            monkeypatch.setenv("CAUSEWAY_BITCOIN_URL", ready["CAUSEWAY_BITCOIN_URL"])
            plan = ("custody", "rebalance", "plan", "--chain", "bitcoin")
            until(lambda: cli(*plan).code == 0, "the first block of Bitcoin in the books")
            node = ready["CAUSEWAY_BITCOIN_URL"]
            require_both_chains_read_again(cli, next(folder.rglob("dan.key")), node)
        assert running.stop() == 0, running.err.read_text()
        assert "ends with this run" in running.err.read_text()
    finally:
        running.close()
        shutil.rmtree(folder)


def require_both_chains_read_again(cli: Cli, key: Path, node: str) -> None:
    """Say that the database was restored, vouch for the bank's files, and let the house do the rest."""
    who = ("--reason", "the disk was lost", "--as", "dan", "--key", str(key))
    begun = cli("restore", "begin", "--since", "2026-01-05T09:00:00Z", *who)
    assert begun.code == 0, begun.err

    def sources() -> dict[str, dict[str, str]]:
        rows = cli("restore", "status", "--json").json["sources"]
        return {row["source"]: row for row in rows}

    for name in sources():
        if name.startswith("bank-files:"):
            assert cli("restore", "vouch", name, *who).code == 0

    def is_read(chain: str) -> bool:
        return sources()[f"chain:{chain}"]["state"] == "done"

    def is_read_up_to_a_new_block() -> bool:
        # This chain has a block when somebody asks for one, and one of before says nothing.
        asyncio.run(ask_for_a_block(node))
        return is_read("bitcoin")

    until(lambda: is_read("evm"), "the account chain read again")
    until(is_read_up_to_a_new_block, "Bitcoin read again")


async def ask_for_a_block(node: str) -> None:
    """Have a node of Bitcoin that is named with its cookie's file make a block."""
    url, _, cookie = node.partition("#cookie=")
    rpc = NodeRpc(url, cookie=Path(cookie))
    try:
        await rpc.ask_once("generatetoaddress", 1, MINER)
    finally:
        await rpc.close()


@pytest.mark.usefixtures("environment")
def test_a_house_for_trying_out_is_not_made_for_a_chain_of_value_or_one_that_ends(
    causeway_processes: Processes, house_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAUSEWAY_STATE_DIR", str(house_file.parent / "state"))
    no_node = start_in_vain()
    spec = python_module("other", "chain.simulators.evm", "--port", "0", "--chain-id", "5")
    other = causeway_processes.start(spec)
    monkeypatch.setenv("CAUSEWAY_EVM_URL", other.ready["url"])
    of_value = start_in_vain()
    causeway_processes.stop(other)

    assert (no_node.returncode, of_value.returncode) == (3, 1)
    assert "the books would outlive it" in no_node.stderr
    assert "is not made for chain 5" in of_value.stderr
