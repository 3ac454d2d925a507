"""Real PostgreSQL for every test that asks for one: see `causeway.pytest`, the shipped plugin."""

from __future__ import annotations

import gc
import logging
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator

import hypothesis
import pytest
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database, Server, cloned
from kernel.db import APP_ROLE, create_engine
from kernel.telemetry import OfLibraries
from tests import canaries, statements

hypothesis.settings.register_profile("dev", deadline=None, max_examples=50)
hypothesis.settings.register_profile(
    "ci", deadline=None, max_examples=100, print_blob=True, derandomize=False
)
hypothesis.settings.register_profile("soak", deadline=None, max_examples=1_000, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("CAUSEWAY_HYPOTHESIS", "dev"))


#: A test that is not scheduled for two seconds on a busy machine is not a worker that hangs.
IDLE_MS = 60_000


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of `tests.statements`."""
    statements.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Keep or follow a record of the statements that tests send."""
    statements.plug_in(config)
    config.pluginmanager.register(canaries, "causeway-canaries")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a database."""
    for item in items:
        if "causeway_postgres" in getattr(item, "fixturenames", ()):
            item.add_marker("database")


def pytest_collection_finish() -> None:
    """Let the collector pass over what stays to the end anyway: the modules, the collected tests.

    Thousands of tests make a full collection last for seconds, and it falls into whatever runs then.
    What is made and let go of afterwards is much: collected in larger portions it costs less.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 20)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have counted (``record_property("counts", …)``), also from other workers."""
    reports = [r for found in terminalreporter.stats.values() for r in found]
    counts = [
        str(value)
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "counts" and report.when == "call"
    ]
    if counts:
        terminalreporter.section("counts")
        for line in sorted(counts):
            terminalreporter.write_line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where everything has to run and something has not."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("CAUSEWAY_NO_SKIPS") != "1":
        return
    skipped = reporter.stats.get("skipped", [])
    if skipped and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"\n{len(skipped)} tests were skipped, and CAUSEWAY_NO_SKIPS=1")


@pytest.fixture(scope="session")
def database_server(causeway_postgres: Server) -> Server:
    """The PostgreSQL server of this test session (of this worker, under xdist)."""
    return causeway_postgres


@pytest.fixture(scope="session")
def database_template(causeway_template: str) -> str:
    """The name of a database at the newest revision, to clone."""
    return causeway_template


@pytest.fixture
def empty_database(database_server: Server) -> Iterator[Database]:
    """A database without any schema, for tests of the migrations."""
    with cloned(database_server, "template1", f"causeway_empty_{secrets.token_hex(6)}") as database:
        yield database


@pytest.fixture
def database(causeway_database: Database) -> Database:
    """This test's own database, at the newest revision."""
    return causeway_database


@pytest.fixture
async def owner_engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """An engine as the role that owns the schema."""
    engine = create_engine(
        database.owner_url, idle_in_transaction_timeout_ms=IDLE_MS, injected_clock=True
    )
    yield engine
    await engine.dispose()


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """An engine as the runtime role, as production has it."""
    engine = create_engine(
        database.app_url,
        role=APP_ROLE,
        idle_in_transaction_timeout_ms=IDLE_MS,
        injected_clock=True,
    )
    yield engine
    await engine.dispose()


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Undo what a command that ran in this process has set up: others look at what is logged.

    A module's logger that was first used meanwhile keeps the set-up of that moment; it is made to
    forget it.
    """
    before, hook = structlog.get_config(), sys.excepthook
    yield
    sys.excepthook = hook
    root = logging.getLogger()
    root.handlers = [item for item in root.handlers if not isinstance(item, OfLibraries)]
    if structlog.get_config() != before:
        structlog.configure(**before)
        kind = type(structlog.get_logger())
        for module in list(sys.modules.values()):
            for found in list(vars(module).values()):
                if type(found) is kind:
                    vars(found).pop("bind", None)
