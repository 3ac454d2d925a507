"""SoftHSM for the tests of tokens: one token of this run, and what its owner does to it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pkcs11
import pytest

REPOSITORY: Final = Path(__file__).resolve().parents[3]
FETCHED: Final = REPOSITORY / ".cache/softhsm"
SYSTEM: Final = Path("/usr/lib/softhsm/libsofthsm2.so")
REQUIRED: Final = os.environ.get("CAUSEWAY_REQUIRE_SOFTHSM") == "1"
LABEL: Final = "causeway"
PIN: Final = "482916"
SECURITY_OFFICER_PIN: Final = "739104"
CONFIGURATION: Final = "SOFTHSM2_CONF"


@cache
def find_softhsm() -> tuple[Path, str]:
    """Return SoftHSM's module and its command, or skip the test (or fail, where it is required)."""
    named = os.environ.get("SOFTHSM2_MODULE")
    places = [
        (FETCHED / "lib/libsofthsm2.so", str(FETCHED / "usr/bin/softhsm2-util")),
        (SYSTEM, "softhsm2-util"),
    ]
    if named:
        places.insert(0, (Path(named), "softhsm2-util"))
    for module, command in places:
        if module.is_file():
            return module, command
    if REQUIRED:
        pytest.fail("no SoftHSM, and CAUSEWAY_REQUIRE_SOFTHSM=1 demands it")
    pytest.skip("no SoftHSM; scripts/fetch-softhsm gets it")


@dataclass(frozen=True)
class SoftToken:
    """A token in a folder of its own."""

    folder: Path
    module: Path

    @property
    def pin(self) -> Path:
        return self.folder / "pin"

    @property
    def configuration(self) -> Path:
        return self.folder / "softhsm2.conf"

    def start_anew(self) -> None:
        """Make this process forget the token, as a module does whose hardware was unplugged."""
        library = pkcs11.lib(str(self.module))
        library.finalize()
        library.initialize()

    def unplug(self) -> None:
        """Take the token away: the module finds an empty slot."""
        self.hide()
        self.start_anew()

    def hide(self) -> None:
        """Take the token's files away, from another process that uses them too."""
        (self.folder / "tokens").rename(self.folder / "unplugged")
        (self.folder / "tokens").mkdir()

    def plug_in(self) -> None:
        """Bring the token back."""
        (self.folder / "tokens").rmdir()
        (self.folder / "unplugged").rename(self.folder / "tokens")


def make_token(folder: Path) -> SoftToken:
    """Make a fresh token in *folder* and have this process use it."""
    module, command = find_softhsm()
    token = SoftToken(folder, module)
    (folder / "tokens").mkdir()
    token.configuration.write_text(
        f"directories.tokendir = {folder / 'tokens'}\n"
        "objectstore.backend = file\n"
        "log.level = ERROR\n"
    )
    token.pin.touch(mode=0o600)
    token.pin.write_text(f"{PIN}\n")
    named = ["--label", LABEL, "--pin", PIN, "--so-pin", SECURITY_OFFICER_PIN]
    made = subprocess.run(
        [command, "--module", str(module), "--init-token", "--free", *named],
        capture_output=True,
        text=True,
        env={**os.environ, CONFIGURATION: str(token.configuration)},
        check=False,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    return token
