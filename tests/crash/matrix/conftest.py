"""A PostgreSQL server of the matrix's own, which may be killed: what it has committed it keeps.

The database of a test is marked, so that the wire knows the edges that a transaction takes.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final

import pytest
from sqlalchemy import make_url

from app.faults.marks import mark_edges
from app.local.databases import (
    Database,
    Server,
    cloned,
    migrated_template,
    run_apart,
    server_folder,
)
from app.local.postgres import THROWAWAY, LocalPostgres
from kernel.db import APP_ROLE

KEEPS: Final = {**THROWAWAY, "synchronous_commit": "on", "full_page_writes": "off"}
"""Fast, and a kill of the server loses nothing that was committed: the system keeps what was written."""

Databases = Callable[[], AbstractContextManager[Database]]


@pytest.fixture(scope="session")
def mortal_server() -> Iterator[LocalPostgres]:
    """The server; tests kill it and start it again."""
    folder = server_folder()
    with LocalPostgres(folder / "pg", settings=KEEPS) as server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def marked_template(mortal_server: LocalPostgres) -> Iterator[tuple[Server, str]]:
    """The name of a migrated and marked database on that server, to clone."""
    server = Server(admin_url=make_url(mortal_server.url()), app_user=APP_ROLE)
    with migrated_template(server, "causeway_marked") as name:
        run_apart(lambda: mark_edges(server.owner_url(name)))
        yield server, name


@pytest.fixture
def databases(marked_template: tuple[Server, str]) -> Databases:
    """What gives databases, each for one telling of a story."""
    server, template = marked_template
    return lambda: cloned(server, template, f"causeway_mortal_{secrets.token_hex(6)}")
