"""What the README prints is what the demo prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.machines import REPOSITORY
from tests.docs.pages import demo_output

pytestmark = pytest.mark.timeout(240)

#: What may differ between two runs: seconds, ids and hashes, moments, and amounts with network fees
#: in them, which have more decimal places than anything that somebody chose.
CHANGING = (
    (re.compile(r"\b\d+ s, chain"), "N s, chain"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"\b0x[0-9a-f]{64}\b"), "HASH"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME"),
    (re.compile(r"\b\d+\.\d{10,}\b"), "AMOUNT"),
    (re.compile(r"─+"), "─"),
    (re.compile(r" +"), " "),
)


def normal(text: str) -> list[str]:
    for pattern, word in CHANGING:
        text = pattern.sub(word, text)
    return [line.strip() for line in text.strip().splitlines()]


def run_demo(folder: Path) -> str:
    """The standard output of the demo on the embedded components alone."""
    kept = {k: v for k, v in os.environ.items() if k in {"HOME", "TMPDIR", "LANG"}}
    path = [p for p in os.environ["PATH"].split(os.pathsep) if not (Path(p) / "anvil").exists()]
    answer = subprocess.run(
        [sys.executable, "-m", "causeway", "demo"],
        cwd=folder,
        env={
            **kept,
            "PATH": os.pathsep.join(path),
            "PYTHONPATH": str(REPOSITORY),
            "CAUSEWAY_STATE_DIR": str(folder / "state"),
        },
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_the_readme_prints_what_the_demo_prints(tmp_path: Path) -> None:
    """If it should differ: ``python -m tests.docs.rewrite --demo``."""
    assert normal(run_demo(tmp_path)) == normal(demo_output())


def test_only_what_may_change_is_overlooked() -> None:
    one = "custody:house-hot  45.999948574865428 ETH\nevery proof held, 9 s, chain: simulator"
    other = "custody:house-hot 45.9999485748654 ETH\nevery proof held, 12 s, chain: simulator"

    assert normal(one) == normal(other)
    assert normal("2 ETH") != normal("3 ETH")
    assert normal("every proof held, 9 s, chain: simulator") != normal(
        "a proof FAILED, 9 s, chain: simulator"
    )
