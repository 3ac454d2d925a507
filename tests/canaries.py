"""Canary secrets: what is secret in a test is looked for in whatever that test has left for others.

The secrets are the test's own: each `kernel.settings.Secret` and key file that it opened, the seed and
the phrase that all signers of tests have, and whatever has the form of a private key. Looked through
are its captured output and log, and the files below its ``tmp_path`` that others may read: logs,
exports, dumps, evidence. A file of mode 0600 may hold secrets; that is what it is for.

A test that leaks fails by name. Also `Canaries`, with which a test looks for its own secrets in the
forms in which they could hide: hexadecimal, base64 at any place, percent-encoded.
"""

from __future__ import annotations

import base64
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest

from custody.signer.testing import PHRASE, SEED
from kernel.redaction import KNOWN

LENGTH_MIN: Final = 12
"""Shorter secrets of tests are words like ``hunter2``, which stand in the test's own text."""
FILE_BYTES_MAX: Final = 2 * 1024 * 1024
FILES_MAX: Final = 200
NOT_FOR_PEOPLE: Final = frozenset({".parquet", ".zst", ".arrow", ".duckdb"})
OF_OUTSIDERS: Final = frozenset({"checkpoint.json", "journal.jsonl"})
"""What a simulated venue keeps its accounts in: the secrets in it are that venue's own."""

FORMS: Final = {
    "an extended private key": re.compile(rb"[a-zA-Z]prv[1-9A-HJ-NP-Za-km-z]{100,}"),
    "a private key in PEM": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}

SHOWN_ON_PURPOSE: Final = {
    "tests/telemetry/test_redaction.py::test_what_libraries_log_takes_the_same_way": (
        "pytest keeps what a library logs as it was, before our own handler takes the secret out"
    ),
}
"""Tests whose output has a secret, with the reason why it has to."""


@dataclass(slots=True)
class Canaries:
    """Secrets that were planted, by what they are, and what finds them."""

    needles: dict[bytes, str] = field(default_factory=dict)

    def plant(self, what: str, secret: str | bytes) -> None:
        """Look for this secret from now on, in every form."""
        raw = secret.encode() if isinstance(secret, str) else secret
        for form in _forms(raw):
            self.needles[form] = what

    def find(self, content: bytes) -> list[str]:
        """Return what is in *content*, by name."""
        found = {what for needle, what in self.needles.items() if needle in content}
        return sorted(found | {what for what, form in FORMS.items() if form.search(content)})


def _forms(raw: bytes) -> Iterator[bytes]:
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    if (quoted := quote(raw, safe="").encode()) != raw:
        yield quoted
    # Wherever in a longer text it stands, one of three shifts shows it, but for what touches its ends.
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + raw)
        middle = coded[(shift * 8 + 5) // 6 : len(coded) // 4 * 4 - 4]
        yield middle
        yield middle.translate(bytes.maketrans(b"+/", b"-_"))


STANDING: Final = Canaries()
STANDING.plant("the seed of the tests' signers", SEED)
STANDING.plant("the phrase of the tests' signers", PHRASE)


def known_secrets() -> Iterator[bytes]:
    """Return the texts of the secrets that this process has made so far."""
    for text in KNOWN.texts:
        if len(text) >= LENGTH_MIN and ("://" not in text or "@" in text):
            yield text.encode()


def leaks_in(content: bytes) -> list[str]:
    """Return what of this process' secrets is in *content*, by name and never by text."""
    found = STANDING.find(content)
    known = [text for text in known_secrets() if text in content]
    return [*found, *(f"a secret of {len(text)} characters" for text in known)]


def left_in(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Return the files below *folder* that others may read, at most so many and so large."""
    count = 0
    for path in sorted(folder.rglob("*")):
        if count >= FILES_MAX or path.is_symlink():
            continue
        if path.suffix in NOT_FOR_PEOPLE or path.name in OF_OUTSIDERS:
            continue
        try:
            status = path.stat()
            is_open = status.st_mode & (stat.S_IRGRP | stat.S_IROTH)
            if not stat.S_ISREG(status.st_mode) or not is_open or status.st_size > FILE_BYTES_MAX:
                continue
            count += 1
            yield str(path.relative_to(folder)), path.read_bytes()
        except OSError:
            continue


def leaks_of(item: pytest.Item, report: pytest.TestReport) -> list[str]:
    """Return what a test has shown, as sentences."""
    told = {name: text.encode(errors="replace") for name, text in report.sections}
    places: Iterable[tuple[str, bytes]] = told.items()
    found = [f"{what} in its {place}" for place, text in places for what in leaks_in(text)]
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.when == "call" and isinstance(folder, Path):
        found += [f"{what} in {name}" for name, text in left_in(folder) for what in leaks_in(text)]
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Fail a test that passed and has leaked."""
    report = yield
    if report.passed and item.nodeid.partition("[")[0] not in SHOWN_ON_PURPOSE:
        found = leaks_of(item, report)
        if found:
            report.outcome = "failed"
            report.longrepr = "a secret has leaked: " + "; ".join(found)
    return report
