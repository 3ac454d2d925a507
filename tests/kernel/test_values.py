"""Ids, clocks, settings, state tables, errors: the small values."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from pathlib import Path
from uuid import UUID

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from kernel.clock import ManualClock, SystemClock, iso, to_unix_ms
from kernel.errors import BadInput, CausewayError, Refused
from kernel.ids import canonical, derive_id
from kernel.settings import Secret, Settings, describe
from kernel.states import StateTable, trigger_statements
from kernel.telemetry import configure_logging

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
PARTS = st.lists(st.none() | st.binary() | st.text() | st.integers() | st.uuids(), max_size=4)


# Ids.


@given(PARTS, PARTS)
def test_other_parts_make_other_bytes(one: list[object], other: list[object]) -> None:
    assert (canonical(one) == canonical(other)) == (one == other)


def test_parts_do_not_run_into_each_other() -> None:
    assert derive_id(NOW, "ab", "c") != derive_id(NOW, "a", "bc")
    assert derive_id(NOW, "1") != derive_id(NOW, 1)
    assert derive_id(NOW, None) != derive_id(NOW, "")


def test_an_id_is_a_uuid_of_version_8_that_never_changes() -> None:
    made = derive_id(NOW, "deposit", 7)
    assert str(made) == "019b8d62-7a80-8c08-8e16-4f3e09fa6a94"
    assert (made.version, made.variant) == (8, "specified in RFC 4122")


@given(st.datetimes(min_value=datetime(1980, 1, 1), max_value=datetime(2200, 1, 1)), PARTS)  # noqa: DTZ001  hypothesis adds the zone below
def test_ids_sort_by_the_time_they_were_born(at: datetime, parts: list[object]) -> None:
    born = at.replace(tzinfo=UTC)
    later = born + timedelta(milliseconds=1)
    assert derive_id(born, *parts).int < derive_id(later, "another").int


@pytest.mark.parametrize("part", [1.5, object(), [], NOW])
def test_an_id_is_made_of_what_has_one_spelling(part: object) -> None:
    with pytest.raises(BadInput, match="id cannot be derived"):
        derive_id(NOW, part)


def test_an_id_needs_a_time_with_a_zone() -> None:
    with pytest.raises(BadInput, match="no time zone"):
        derive_id(NOW.replace(tzinfo=None), "x")


# Clocks.


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(NOW)
    assert clock.now() == clock.now() == NOW
    assert clock.advance(timedelta(hours=1)) == clock.now() == NOW + timedelta(hours=1)


def test_the_system_clock_has_a_zone() -> None:
    assert SystemClock().now().tzinfo is UTC


def test_times_are_written_in_utc_to_the_millisecond() -> None:
    zurich = timezone(timedelta(hours=1))
    assert iso(datetime(2026, 1, 5, 10, 0, 0, 123_999, tzinfo=zurich)) == "2026-01-05T09:00:00.123Z"
    assert to_unix_ms(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)) == 1000


# Settings.


def test_settings_are_read_from_the_environment_and_nowhere_else() -> None:
    settings = Settings.from_env(
        {
            "CAUSEWAY_DATABASE_URL": "postgresql+asyncpg://u:secret@h/d",
            "CAUSEWAY_STATE_DIR": "/tmp/x",  # noqa: S108  a text
            "CAUSEWAY_EVM_PORT": "8545",
            "CAUSEWAY_LOG_JSON": "true",
            "CAUSEWAY_LOG_LEVEL": "  debug ",
            "CAUSEWAY_EVM_URL": "   ",
            "HOME": "/root",
        }
    )
    assert settings.database_url is not None
    assert settings.database_url.reveal().endswith("secret@h/d")
    assert (settings.state_dir, settings.evm_port) == (Path("/tmp/x"), 8545)  # noqa: S108  a text
    assert (settings.log_json, settings.log_level, settings.evm_url) == (True, "debug", None)


def test_a_secret_is_shown_nowhere() -> None:
    settings = Settings(database_url=Secret("hunter2"))
    for shown in (str(settings), repr(settings), f"{settings.database_url:>20}"):
        assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("CAUSEWAY_EVM_PORT", "65536"),
        ("CAUSEWAY_EVM_PORT", "-1"),
        ("CAUSEWAY_EVM_PORT", "http"),
        ("CAUSEWAY_EVM_PORT", "\N{SUPERSCRIPT TWO}"),
        ("CAUSEWAY_LOG_JSON", "yes"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(variable: str, text: str) -> None:
    with pytest.raises(BadInput, match=variable):
        Settings.from_env({variable: text})


def test_every_setting_says_what_it_is_for() -> None:
    described = describe()
    assert len(described) == len(Settings.__dataclass_fields__)
    assert all(v.startswith("CAUSEWAY_") and len(purpose) > 10 for v, _, purpose in described)


# State tables.


class Light(StrEnum):
    GREEN = "green"
    RED = "red"
    DARK = "dark"


LIGHTS = StateTable(
    schema="road",
    table="light",
    initial=frozenset({Light.RED}),
    edges=frozenset({(Light.RED, Light.GREEN), (Light.GREEN, Light.RED), (Light.RED, Light.DARK)}),
)


def test_only_edges_of_the_table_are_allowed() -> None:
    allowed = {(a, b) for a in Light for b in Light if LIGHTS.allows(a, b)}
    assert allowed == LIGHTS.edges | {(s, s) for s in Light}
    with pytest.raises(Refused, match="a light cannot go from dark to red"):
        LIGHTS.require(Light.DARK, Light.RED)
    assert LIGHTS.states == {"green", "red", "dark"}
    assert LIGHTS.terminal() == {"dark"}


def test_the_trigger_is_the_same_text_every_time() -> None:
    function, trigger = trigger_statements(LIGHTS)
    assert trigger_statements(LIGHTS) == (function, trigger)
    assert "NOT IN ('red')" in function
    assert function.index("('green', 'red')") < function.index("('red', 'dark')")
    assert "ON road.light" in trigger


# Errors and logs.


def test_an_error_says_what_where_and_what_to_do() -> None:
    error = CausewayError("it is broken", where="here", remedy="Mend it")
    assert str(error) == "it is broken (here). Mend it"
    assert str(CausewayError("it is broken")) == "it is broken"
    assert (Refused.exit_code, BadInput.exit_code) == (1, 2)


def test_a_log_level_that_does_not_exist_is_bad_input() -> None:
    with pytest.raises(BadInput, match="loud"):
        configure_logging("loud")


def test_a_line_goes_to_the_standard_error_of_its_moment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = structlog.get_config()
    try:
        with monkeypatch.context() as exchanged:
            gone = io.StringIO()
            exchanged.setattr("sys.stderr", gone)
            configure_logging("info", as_json=True)
            log = structlog.get_logger("moment")
            log.info("first")
            gone.close()
        log.info("second")
    finally:
        structlog.configure(**before)
    said = capsys.readouterr().err
    assert "second" in said
    assert "first" not in said


def test_a_uuid_is_a_part_of_its_own_kind() -> None:
    some = UUID(int=5)
    assert derive_id(NOW, some) != derive_id(NOW, str(some))
