"""beancount and hledger, run as programs of their own: neither is imported here."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[3]
FETCHED: Final = ROOT / ".cache/hledger/usr/bin/hledger"
REQUIRE_HLEDGER: Final = os.environ.get("CAUSEWAY_REQUIRE_HLEDGER") == "1"

BEANCOUNT_READER: Final = """
import json, sys
from collections import defaultdict
from beancount import loader
from beancount.core import data, inventory

entries, errors, _ = loader.load_file(sys.argv[1])
balances = defaultdict(inventory.Inventory)
opens, commodities, events, kinds = {}, {}, 0, defaultdict(int)
held = defaultdict(int)
references, narrations = [], []
def text(number):
    return format(number, "f")
for entry in entries:
    meta = {k: str(v) for k, v in entry.meta.items()}
    if isinstance(entry, data.Open):
        opens[entry.account] = meta["path"]
    elif isinstance(entry, data.Commodity):
        commodities[entry.currency] = [meta["asset"], int(meta["scale"]), meta.get("unit", "1")]
for entry in entries:
    meta = {k: str(v) for k, v in entry.meta.items()}
    if isinstance(entry, data.Transaction):
        kinds[meta["kind"]] += 1
        references.append(meta.get("reference", ""))
        narrations.append(entry.narration)
        for posting in entry.postings:
            balances[posting.account].add_position(posting)
        if "pending" in meta:
            debit, credit = entry.postings[0].account, entry.postings[-1].account
            units = -int(meta["held"].replace(".", ""))
            asset = commodities[entry.postings[0].units.currency][0]
            held["debits", debit, asset] += units
            held["credits", credit, asset] += units
    elif isinstance(entry, data.Custom) and entry.type == "hold":
        kind, debit, credit, amount = (value.value for value in entry.values)
        kinds[kind] += 1
        sign, digits, exponent = amount.number.as_tuple()
        scale = -exponent
        units = int("".join(map(str, digits))) * (1 if kind == "pending" else -1)
        held["debits", debit, amount.currency] += units
        held["credits", credit, amount.currency] += units
    elif isinstance(entry, data.Custom):
        events += 1
json.dump({
    "errors": [str(error.message) for error in errors],
    "asserted": sum(isinstance(entry, data.Balance) for entry in entries),
    "balances": [[account, position.units.currency, text(position.units.number)]
                 for account, found in balances.items() for position in found],
    "opens": opens, "commodities": commodities, "kinds": kinds, "events": events,
    "references": references, "narrations": narrations,
    "held": [[*key, str(units)] for key, units in held.items()],
}, sys.stdout)
"""


def bean_check(path: Path) -> None:
    """Run ``bean-check``, which is silent about a file without faults."""
    program = Path(sys.executable).with_name("bean-check")
    ended = subprocess.run(
        [program, "--no-cache", path], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")


def read_beancount(path: Path) -> Any:
    """Load a file in a process of beancount's own, and return what it found there."""
    ended = subprocess.run(
        [sys.executable, "-c", BEANCOUNT_READER, path],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "BEANCOUNT_DISABLE_LOAD_CACHE": "1"},
    )
    assert ended.returncode == 0, ended.stderr[-2_000:]
    return json.loads(ended.stdout)


def find_hledger() -> str:
    """Return the program, or skip the test; fail where hledger is demanded."""
    for name in (os.environ.get("HLEDGER"), shutil.which("hledger"), str(FETCHED)):
        if name and Path(name).exists():
            return name
    if REQUIRE_HLEDGER:
        pytest.fail("CAUSEWAY_REQUIRE_HLEDGER=1 and there is no hledger")
    pytest.skip("no hledger: scripts/fetch-hledger")


def hledger(path: Path, *arguments: str) -> str:
    """Run hledger on a file and return what it printed."""
    ended = subprocess.run(
        [find_hledger(), "-f", path, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert ended.returncode == 0, ended.stderr[-2_000:]
    return ended.stdout


def hledger_balances(path: Path, *arguments: str) -> dict[tuple[str, str], Decimal]:
    """Return hledger's balances by account and commodity."""
    printed = hledger(
        path, "bal", "-O", "csv", "--layout", "bare", "--flat", "-N", "-E", *arguments
    )
    rows = list(csv.reader(io.StringIO(printed)))[1:]
    return {(account, commodity): Decimal(number) for account, commodity, number in rows}
