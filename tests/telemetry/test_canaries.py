"""A secret that leaks is found: in every form, by the search that runs with every test."""

from __future__ import annotations

import base64
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest

from app.cli import main
from custody.signer.hd_keys import PrivateNode
from custody.signer.testing import SEED
from kernel.settings import Secret, Settings, variable_name
from tests.canaries import LENGTH_MIN, Canaries, leaks_in, leaks_of, pytest_runtest_makereport

RAW = bytes(range(200, 232))
FORMS = {
    "as it is": RAW,
    "in hexadecimal": RAW.hex().encode(),
    "in capital hexadecimal": b"\\x" + RAW.hex().upper().encode(),
    "in base64": base64.b64encode(RAW),
    "in base64, after one byte": base64.b64encode(b"a" + RAW + b"bcd"),
    "in base64, after two bytes": base64.b64encode(b"ab" + RAW + b"c"),
    "in base64 for URLs": base64.urlsafe_b64encode(b'{"k":"' + RAW + b'"}'),
    "percent-encoded": b"".join(b"%%%02X" % value for value in RAW),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_a_canary_is_found_in_every_form(form: str) -> None:
    canaries = Canaries()
    canaries.plant("the key", RAW)

    assert canaries.find(b"before " + FORMS[form] + b" after") == ["the key"]
    assert canaries.find(b"before after") == []


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"-----BEGIN EC PRIVATE KEY-----\n", "a private key in PEM"),
        (b"-----BEGIN PUBLIC KEY-----\n", None),
        (b"xprv" + b"9" * 107, "an extended private key"),
        (b"zpub" + b"9" * 107, None),
        (SEED.hex().encode(), "the seed of the tests' signers"),
    ],
)
def test_what_has_the_form_of_a_private_key_is_found(content: bytes, what: str | None) -> None:
    assert leaks_in(content) == ([] if what is None else [what])


def test_the_public_half_of_a_key_is_no_secret() -> None:
    assert leaks_in(PrivateNode.from_seed(SEED).derive("m/84'/0'/0'").xpub().encode()) == []


# The search that runs with every test.


def reported(
    when: Literal["setup", "call", "teardown"], *sections: tuple[str, str]
) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid="tests/x.py::test_it",
        location=("tests/x.py", 1, "test_it"),
        keywords={},
        outcome="passed",
        longrepr=None,
        when=when,
        sections=sections,
    )


def judged(report: pytest.TestReport, **funcargs: object) -> pytest.TestReport:
    """Return a test's report as the search that runs with every test leaves it."""
    item = cast("Any", SimpleNamespace(nodeid="tests/x.py::test_it", funcargs=funcargs))
    hook = pytest_runtest_makereport(item, cast("Any", None))
    next(hook)
    with pytest.raises(StopIteration) as ended:
        hook.send(report)
    return cast("pytest.TestReport", ended.value.value)


@pytest.mark.parametrize("section", ["Captured stdout call", "Captured stderr call", "Captured log call"])  # fmt: skip
@pytest.mark.parametrize("when", ["setup", "call", "teardown"])
def test_a_test_that_shows_a_secret_fails_without_saying_it(
    section: str, when: Literal["setup", "call", "teardown"]
) -> None:
    secret = Secret(secrets.token_urlsafe(24))

    clean = judged(reported(when, (section, "nothing of interest")))
    leaking = judged(reported(when, (section, f"logged in with {secret.reveal()}!")))

    assert clean.outcome == "passed"
    assert leaking.outcome == "failed"
    assert str(leaking.longrepr) == (
        f"a secret has leaked: a secret of {len(secret.reveal())} characters in its {section}"
    )


def test_a_test_that_leaves_a_secret_in_a_file_for_others_fails(tmp_path: Path) -> None:
    secret = Secret(secrets.token_urlsafe(24))
    folder = tmp_path / "of the test"
    (folder / "log").mkdir(parents=True)
    private = folder / "venue.json"
    private.write_text(secret.reveal())
    private.chmod(0o600)
    item = cast("Any", SimpleNamespace(funcargs={"tmp_path": folder}))
    assert leaks_of(item, reported("call")) == []

    log = folder / "log" / "desk.log"
    log.write_text(f"GET /order?signature={secret.reveal()}\n")

    assert leaks_of(item, reported("call")) == ["a secret of 32 characters in log/desk.log"]
    log.unlink()


def test_words_that_tests_call_secrets_are_not_looked_for() -> None:
    Secret("hunter2")
    assert len("hunter2") < LENGTH_MIN
    assert leaks_in(b"hunter2") == []


# Commands that go wrong with a secret in every setting.

TROUBLE = {
    "a database that does not answer": {
        "CAUSEWAY_DATABASE_URL": "postgresql://desk:{canary}@127.0.0.1:9/x"
    },
    "a database of another kind": {"CAUSEWAY_DATABASE_URL": "mysql://desk:{canary}@127.0.0.1:9/x"},
    "no URL at all": {"CAUSEWAY_DATABASE_URL": "desk {canary}"},
    "a port that is none": {"CAUSEWAY_DATABASE_URL": "postgresql://desk:{canary}@127.0.0.1:port/x"},
    "a host that nobody knows": {
        "CAUSEWAY_DATABASE_URL": "postgresql://desk:{canary}@nowhere.invalid/x"
    },
    "a password with signs in it": {
        "CAUSEWAY_DATABASE_URL": "postgresql://desk:{canary}%40%2F@127.0.0.1:9/x"
    },
    "another setting that cannot be": {
        "CAUSEWAY_DATABASE_URL": "postgresql://desk:{canary}@127.0.0.1:9/x",
        "CAUSEWAY_EVM_PORT": "many",
    },
}


@pytest.mark.parametrize("trouble", list(TROUBLE))
def test_a_command_that_fails_says_nothing_of_any_secret_setting(
    trouble: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    canaries = Canaries()
    for field in Settings.__dataclass_fields__.values():
        if "Secret" in str(field.type):
            canary = secrets.token_urlsafe(24)
            canaries.plant(field.name, canary)
            monkeypatch.setenv(variable_name(field.name), f"http://u:{canary}@127.0.0.1:9/{canary}")
    canary = secrets.token_urlsafe(24)
    canaries.plant("the password", canary)
    monkeypatch.delenv("CAUSEWAY_APP_DATABASE_URL")
    monkeypatch.setenv("CAUSEWAY_STATE_DIR", str(tmp_path))
    for name, value in TROUBLE[trouble].items():
        monkeypatch.setenv(name, value.format(canary=canary))

    with ThreadPoolExecutor(max_workers=1) as pool:
        ended = pool.submit(main, ["registry", "list", "assets"]).exception()

    said = capfd.readouterr()
    assert isinstance(ended, SystemExit)
    assert ended.code in {2, 3}
    assert said.err.startswith("error: ")
    assert canaries.find((said.out + said.err).encode()) == []
