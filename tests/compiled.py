"""Statements compiled once for every engine of a process.

An engine keeps what it has compiled to itself, and a test that tells one story after another makes new
engines for each: a third of its time would go into compiling the same statements again.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Dialect, event
from sqlalchemy.ext.asyncio import AsyncEngine

COMPILED_FOR: Final[list[Dialect]] = []
COMPILED: Final[dict[Any, Any]] = {}


def compiling_once(engine: AsyncEngine) -> AsyncEngine:
    """Let an engine take the text of statements that another one has compiled.

    Both have to be told the same of their dialect, as engines of `kernel.db.create_engine` are.
    """
    if not COMPILED_FOR:
        # A dialect is whole once an engine has connected with it; this one may never do so.
        event.listen(engine.sync_engine, "connect", lambda *_: _keep(engine.dialect), once=True)
        return engine
    # The dialect is a part of the key under which a compiled statement is kept.
    engine.sync_engine.dialect = COMPILED_FOR[0]
    engine.sync_engine.update_execution_options(compiled_cache=COMPILED)
    return engine


def _keep(dialect: Dialect) -> None:
    if not COMPILED_FOR:
        COMPILED_FOR.append(dialect)
