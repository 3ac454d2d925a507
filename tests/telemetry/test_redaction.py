"""Secrets stay out of logs, traces and errors: by name, by look, and by being known."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from uuid import UUID

import pytest
import structlog
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kernel import tracing
from kernel.otlp import exporting
from kernel.redaction import HIDDEN, KNOWN_MAX, KnownSecrets, redact, redact_text
from kernel.settings import Secret
from kernel.telemetry import configure_logging

CANARY = "canary-7f3a91c2"
THING = UUID(int=(7 << 64) + 9)

Lines = Callable[[], list[dict[str, object]]]


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    """Log JSON; give what was written as values."""
    configure_logging("info", as_json=True)
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize(
    "name",
    ["password", "api_key", "apiKey", "api-secret", "passphrase", "seed", "mnemonic", "private_key",
     "Authorization", "webhook_url", "kek", "pin", "access_token", "credentials", "db.password"],
)  # fmt: skip
def test_what_is_called_a_secret_is_not_shown(name: str) -> None:
    assert redact(name, CANARY) == HIDDEN
    assert redact("settings", {"deep": [{name: CANARY}]}) == {"deep": [{name: HIDDEN}]}


@pytest.mark.parametrize(
    ("name", "value"),
    [("token", "0xdAC17F958D2ee523a2206206994597C13D831ec7"), ("key_id", "hot"), ("seed", 7),
     ("pinned", "yes"), ("spin", "left"), ("asset", "USDT"), ("secretary", "ada"), ("count", None)],
)  # fmt: skip
def test_what_only_sounds_alike_is_shown(name: str, value: object) -> None:
    assert redact(name, value) == value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://desk:hunter22@db:5432/x", "postgresql://desk:…@db:5432/x"),
        ("at http://user:pa%40ss@node:8332 now", "at http://user:…@node:8332 now"),
        ("http://node:8545/?a=b:c@d", "http://node:8545/?a=b:c@d"),
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer …"),
        ("Basic dXNlcjpwYXNz", "Basic …"),
        ("paid 1.5 BTC", "paid 1.5 BTC"),
    ],
)
def test_what_looks_like_a_secret_is_not_shown(text: str, shown: str) -> None:
    assert redact_text(text) == shown


def test_a_long_word_beside_an_address_is_read_once() -> None:
    """Were each of its letters read once for each, a block's worth of digits would stop the house."""
    word = "0a" * 100_000

    assert redact_text(f"http://u:pw@node/ sent {word}") == f"http://u:…@node/ sent {word}"


def test_every_secret_is_known_by_its_text_wherever_it_turns_up() -> None:
    Secret(f"{CANARY}-made")

    assert redact("note", f"it is {CANARY}-made.") == f"it is {HIDDEN}."
    assert redact("note", [("a", f"{CANARY}-made".encode())]) == [["a", f"b'{HIDDEN}'"]]


@pytest.mark.parametrize(
    ("secret", "is_hidden"),
    [("causeway", False), ("horsebatterystaple", True), ("horse1", True), ("a1", False)],
)
def test_a_password_that_is_a_word_does_not_hide_that_word(secret: str, is_hidden: bool) -> None:  # noqa: FBT001  a column of the table
    known = KnownSecrets()
    known.remember(secret)

    assert (known.hide(f"Run `{secret} migrate` first") == "Run `… migrate` first") is is_hidden


def test_the_password_in_a_secret_url_is_known_by_itself_also_as_it_is_written_there() -> None:
    Secret(f"http://u:{CANARY}%2Fx@one:1 http://u:other-{CANARY}@two:2")

    for text in (f"{CANARY}%2Fx", f"{CANARY}/x", f"other-{CANARY}"):
        assert redact_text(f"refused: {text}") == f"refused: {HIDDEN}"


def test_an_address_alone_is_no_secret_and_one_with_a_key_in_its_path_is() -> None:
    known = KnownSecrets()
    known.remember("http://node.example:8545")
    known.remember("https://node.example/v3/0123456789abcdef")

    assert known.hide("http://node.example:8545 answers") == "http://node.example:8545 answers"
    assert known.hide("https://node.example/v3/0123456789abcdef is slow") == f"{HIDDEN} is slow"


def test_a_secret_that_begins_like_another_is_hidden_whole() -> None:
    known = KnownSecrets()
    for text in (CANARY, f"{CANARY}-and-more"):
        known.remember(text)

    assert known.hide(f"{CANARY}-and-more") == HIDDEN


def test_the_number_of_known_secrets_is_bounded_and_short_texts_are_none() -> None:
    known = KnownSecrets()
    known.remember("short")
    for number in range(KNOWN_MAX + 5):
        known.remember(f"{CANARY}-{number}")

    assert len(known.texts) == KNOWN_MAX
    assert known.hide("short") == "short"
    assert known.hide(f"{CANARY}-{KNOWN_MAX + 4}") == HIDDEN


# What is written.


def test_a_line_has_no_secret_in_it_and_says_in_which_trace_it_was_written(lines: Lines) -> None:
    secret = Secret(f"{CANARY}-logged")
    log = structlog.get_logger("test")
    with exporting("http://127.0.0.1:9", service="t", exporter=InMemorySpanExporter()):
        with tracing.working("payout sign", [THING]):
            log.info("began", note=f"with {secret.reveal()}", key=secret, count=3, api_key="k-12")
        log.info("outside")

    inside, outside = lines()
    assert (inside["note"], inside["count"]) == (f"with {HIDDEN}", 3)
    assert (inside["key"], inside["api_key"]) == (HIDDEN, HIDDEN)
    assert inside["trace_id"] == THING.hex
    assert "trace_id" not in outside


def test_an_error_that_is_logged_has_no_secret_in_its_trace(lines: Lines) -> None:
    secret = Secret(f"{CANARY}-raised")
    try:
        int(secret.reveal())
    except ValueError:
        structlog.get_logger("test").exception("failed")

    [line] = lines()
    assert f"invalid literal for int() with base 10: '{HIDDEN}'" in str(line["exception"])
    assert CANARY not in json.dumps(line)


def test_what_libraries_log_takes_the_same_way(lines: Lines) -> None:
    Secret(f"{CANARY}-library")
    logging.getLogger("aiohttp.client").warning("cannot reach %s", f"http://u:{CANARY}-library@x")
    logging.getLogger("aiohttp.client").info("not of interest")

    [line] = lines()
    assert (line["logger"], line["level"]) == ("aiohttp.client", "warning")
    assert CANARY not in json.dumps(line)


def test_an_error_in_a_thread_is_logged_without_secrets(lines: Lines) -> None:
    secret = Secret(f"{CANARY}-thread")

    def fail() -> None:
        raise RuntimeError(secret.reveal())

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()

    [line] = lines()
    assert line["level"] == "critical"
    assert CANARY not in json.dumps(line)


UNCAUGHT = f"""
import sys
from kernel.settings import Secret
{{set_up}}
secret = Secret("{CANARY}-end")
raise RuntimeError("cannot log in with " + secret.reveal())
"""


@pytest.mark.parametrize(
    "set_up",
    [
        pytest.param(
            "from kernel.telemetry import configure_logging; configure_logging(as_json=True)",
            id="a process that logs",
        ),
        pytest.param(
            "from kernel.redaction import show_uncaught; sys.excepthook = show_uncaught",
            id="a command",
        ),
    ],
)
def test_the_last_words_of_a_process_have_no_secret_in_them(set_up: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNCAUGHT.format(set_up=set_up)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "RuntimeError: cannot log in with" in done.stderr
    assert CANARY not in done.stderr + done.stdout


def test_spans_have_no_secret_in_their_names_attributes_and_errors() -> None:
    secret = Secret(f"{CANARY}-span")
    exporter = InMemorySpanExporter()

    def fail() -> None:
        with tracing.working(f"sign with {secret.reveal()}", [THING]) as work:
            work.say(THING, "note", secret.reveal())
            work.say(THING, "password", "hunter")
            raise RuntimeError(secret.reveal())

    with (
        exporting("http://127.0.0.1:9", service="t", exporter=exporter),
        pytest.raises(RuntimeError, match=CANARY),
    ):
        fail()

    [span] = exporter.get_finished_spans()
    assert CANARY not in span.to_json()
    assert (span.attributes or {})["password"] == HIDDEN
