"""The console blocks of docs/keys.md are run, from top to bottom, in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from custody.signer.slip39 import combine
from tests.custody.signer.softhsm import CONFIGURATION, SYSTEM, find_softhsm
from tests.docs.machines import REPOSITORY
from tests.docs.pages import FENCE

PAGE = REPOSITORY / "docs" / "keys.md"


def lines() -> list[str]:
    return [
        line.removeprefix("$ ")
        for block in FENCE.finditer(PAGE.read_text())
        if block["kind"] == "console"
        for line in block["text"].splitlines()
    ]


@pytest.mark.timeout(240)
def test_the_commands_of_the_page_do_what_it_says(tmp_path: Path) -> None:
    module, utility = find_softhsm()
    programs = [str(Path(sys.executable).parent), str(Path(utility).parent), os.environ["PATH"]]
    env = {
        **os.environ,
        "PATH": os.pathsep.join(programs),
        CONFIGURATION: str(tmp_path / "softhsm2.conf"),
    }
    said = ""
    for line in lines():
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line.replace(str(SYSTEM), str(module))],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        said += done.stdout + done.stderr

    assert len(lines()) > 10
    assert "yes, and not kept" in said
    assert said.count("the same keys") == 2
    shares = [path.read_text() for path in sorted((tmp_path / "shares").iterdir())]
    secret = [*(words.strip() for words in shares), combine(shares[:2]).hex(), "482916"]
    secret += [path.read_text().strip() for path in tmp_path.glob("*.kek")]
    assert [one for one in secret if one in said] == []
