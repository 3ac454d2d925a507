"""PostgreSQL: one metadata, one way to make an engine, one function that runs a transaction.

Every package declares its tables on `metadata`, in a schema of its own name. Verbs take a
connection; `transact` opens the transaction at the edge, retries what PostgreSQL says may be
retried, and never mistakes a lost connection during COMMIT for a failure.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from socket import gaierror
from typing import Any, Final, TypeVar

import asyncpg
from sqlalchemy import (
    Column,
    DateTime,
    Dialect,
    ExceptionContext,
    Integer,
    MetaData,
    Numeric,
    Text,
    TypeDecorator,
    event,
    make_url,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from kernel.errors import CommitUnknown, OutsideUnavailable

APP_ROLE: Final = "causeway_app"
"""The role at run time: it owns nothing and cannot change journal rows."""

ATTEMPTS_MAX: Final = 8
BACKOFF_BASE_S: Final = 0.005
BACKOFF_MAX_S: Final = 0.5
LOCK_TIMEOUT_MS: Final = 2_000
IDLE_IN_TRANSACTION_TIMEOUT_MS: Final = 2_000
POOL_SIZE_MAX: Final = 10
CONNECT_TIMEOUT_S: Final = 10.0
COMMAND_TIMEOUT_S: Final = 300.0
"""After which a statement without an answer has lost its connection: a machine that has gone without a
word is noticed by nothing else. Statements here take milliseconds; the longest of a report, seconds."""
STATEMENTS_KEPT: Final = 500
"""Statements that a connection keeps prepared. A house runs 700 to 800 different ones, and SQLAlchemy keeps
100, so that 45 of 100 statements of a simulated day were parsed anew, a millisecond each; with 500 it is 4,
with 300 it was 14. One costs the server some 65 KiB with its plans: 24 MB a connection with 300, about 35 MB
with 500 instead of 12 MB with 100, for `POOL_SIZE_MAX` connections at most. SQLAlchemy drops the oldest only
when there are half as many more."""
_KEPT: Final = "prepared_statement_cache_size"
SILENT: Final = "no answer in time"
INJECTED_CLOCK: Final = "causeway.injected_clock"
"""A setting of PostgreSQL that `create_engine` makes; the ledger's revision reads it."""

RETRYABLE_SQLSTATES: Final = frozenset({"40001", "40P01", "55P03"})
"""Serialisation failure, deadlock, lock not available: rolled back for certain, safe to repeat."""

EXHAUSTED_CLASSES: Final = frozenset({"53", "58"})
"""Classes of SQLSTATE that say that the server's machine cannot go on: no space, no memory, a disk that
fails (PostgreSQL documentation, appendix "Error Codes"). Nothing was committed."""

AWAY_SQLSTATES: Final = frozenset({"57P01", "57P02", "57P03"})
"""The server shuts down, begins anew after a crash, or takes no connections yet."""

AWAY_ERRNOS: Final = frozenset(
    {errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH}
)

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

T = TypeVar("T")


class Units(TypeDecorator[int]):
    """An amount in smallest units: ``int`` in Python, ``numeric(78,0)`` in PostgreSQL."""

    impl = Numeric(78, 0)
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Decimal | None:  # noqa: ARG002
        """Return what asyncpg encodes as numeric."""
        return None if value is None else Decimal(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Return the amount as an integer."""
        return None if value is None else int(value)


class Timestamp(TypeDecorator[datetime]):
    """A moment: timezone-aware and in UTC on both sides."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002
    ) -> datetime | None:
        """Refuse a time without a zone before PostgreSQL guesses one."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value.isoformat()} has no time zone")
        return value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return the moment in UTC."""
        return None if value is None else value.astimezone(UTC)


def lease_columns() -> list[Column[Any]]:
    """Return the columns of a row that workers claim: see `kernel.leases`."""
    return [
        Column("lease_holder", Text),
        Column("lease_until", Timestamp),
        Column("fence", Integer, nullable=False, server_default="0"),
    ]


def create_engine(
    url: str,
    *,
    role: str | None = None,
    pool_size: int = 5,
    idle_in_transaction_timeout_ms: int = IDLE_IN_TRANSACTION_TIMEOUT_MS,
    injected_clock: bool = False,
    command_timeout_s: float | None = COMMAND_TIMEOUT_S,
) -> AsyncEngine:
    """Return an engine with the time-outs that keep one slow worker from stopping the desk.

    Args:
        url: ``postgresql+asyncpg://…``; with ``?prepared_statement_cache_size=`` it says how many
            statements a connection keeps prepared, instead of `STATEMENTS_KEPT`.
        role: role to act as (`APP_ROLE` at run time, None to stay the user of the URL).
        pool_size: connections kept, at most `POOL_SIZE_MAX`.
        idle_in_transaction_timeout_ms: after which PostgreSQL ends a session that holds locks and
            does nothing; longer only where nobody waits, as in a test on a busy machine.
        injected_clock: let the ledger believe the time that it is told, for tests and simulations;
            otherwise it reads the clock of PostgreSQL, which is one for all processes.
        command_timeout_s: after which a statement without an answer has lost its connection; None
            for one that may take as long as it takes, as in a migration.
    """
    settings = {
        "lock_timeout": str(LOCK_TIMEOUT_MS),
        "idle_in_transaction_session_timeout": str(idle_in_transaction_timeout_ms),
        "timezone": "UTC",
        "application_name": "causeway",
        # Statements here take milliseconds; compiling one that looks dear takes half a second.
        "jit": "off",
    }
    if role is not None:
        settings["role"] = role
    if injected_clock:
        settings[INJECTED_CLOCK] = "on"
    engine = create_async_engine(
        url,
        isolation_level="READ COMMITTED",
        pool_size=min(pool_size, POOL_SIZE_MAX),
        max_overflow=0,
        connect_args={
            "server_settings": settings,
            "timeout": CONNECT_TIMEOUT_S,
            "command_timeout": command_timeout_s,
            **({} if _KEPT in make_url(url).query else {_KEPT: STATEMENTS_KEPT}),
        },
    )
    event.listen(engine.sync_engine, "handle_error", _lose_silent_connection)
    return engine


def _lose_silent_connection(context: ExceptionContext) -> DBAPIError | None:
    """Take a connection whose server does not answer for lost, as if it had been cut.

    The driver raises `TimeoutError`, which SQLAlchemy takes for nobody's fault: it would roll back over
    the same connection, and give it to the next one who asks.
    """
    if not isinstance(context.original_exception, TimeoutError):
        return None
    context.is_disconnect = True
    # The driver's has no words, and people are told what it says.
    error = TimeoutError(str(context.original_exception) or SILENT)
    return DBAPIError(context.statement, None, error, connection_invalidated=True)


def sqlstate(error: BaseException) -> str | None:
    """Return the five-letter code PostgreSQL gave, if the error came from there."""
    origin = getattr(error, "orig", error)
    code = getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None)
    return code if isinstance(code, str) else None


def is_exhausted(error: BaseException) -> bool:
    """Tell whether PostgreSQL said that its machine is out of space, of memory, or of order."""
    return (sqlstate(error) or "")[:2] in EXHAUSTED_CLASSES


def is_away(error: BaseException) -> bool:
    """Tell whether PostgreSQL cannot be reached, or every connection to it is in use.

    `transact` says so by itself. Who opens a connection without it hears what the driver, the network or
    the pool has to say.
    """
    if isinstance(error, DBAPIError):
        code = sqlstate(error) or ""
        return error.connection_invalidated or code in AWAY_SQLSTATES or code[:2] == "08"
    if isinstance(error, ConnectionError | gaierror | PoolTimeout):
        return True
    # Of a connection's time-out `create_engine` makes a `DBAPIError`: any other is somebody else's.
    if not isinstance(error, OSError) or isinstance(error, TimeoutError):
        return False
    # Of several addresses the event loop tells all errors in one, without a number. The socket of a
    # server that has ended is a file that is missing; no file that somebody opened: that has a name.
    is_socket = isinstance(error, FileNotFoundError) and error.filename is None
    return is_socket or error.errno is None or error.errno in AWAY_ERRNOS


def constraint_name(error: BaseException) -> str | None:
    """Return the name of the violated constraint, so that a store can say it in domain words."""
    origin = getattr(error, "orig", error)
    cause = getattr(origin, "__cause__", None)
    name = getattr(cause, "constraint_name", None) or getattr(origin, "constraint_name", None)
    return name if isinstance(name, str) else None


@asynccontextmanager
async def driver(conn: AsyncConnection) -> AsyncIterator[asyncpg.Connection]:
    """Give the driver's own connection, inside the transaction that SQLAlchemy has begun.

    For the few statements that are run so often that SQLAlchemy's part in them counts, and for COPY.
    A statement must have run through SQLAlchemy before: it begins the transaction, and without one
    everything here would commit by itself.

    Raises:
        DBAPIError: what the driver raised, as SQLAlchemy would have wrapped it.
    """
    raw = (await conn.get_raw_connection()).driver_connection
    assert raw is not None
    try:
        yield raw
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        lost = raw.is_closed() or isinstance(error, TimeoutError)
        if lost:
            await conn.invalidate(error)
        raise DBAPIError(None, None, error, connection_invalidated=lost) from error


async def transact(
    engine: AsyncEngine,
    work: Callable[[AsyncConnection], Awaitable[T]],
    *,
    attempts_max: int = ATTEMPTS_MAX,
) -> T:
    """Run *work* in one transaction and return what it returned once that is committed.

    The whole of *work* runs again after a serialisation failure, a deadlock, a lock time-out, a statement
    that was prepared before a migration changed what it returns, or a connection that was lost before
    COMMIT was sent, so it must not act on the outside world.

    Raises:
        CommitUnknown: the connection was lost during COMMIT; look whether it happened.
        OutsideUnavailable: PostgreSQL cannot be reached, has no space left, or refuses after
            *attempts_max* tries.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return await _attempt(engine, work)
        except DBAPIError as error:
            # A lost connection has rolled back for certain here: during COMMIT it is CommitUnknown.
            if is_exhausted(error):
                raise OutsideUnavailable(
                    f"PostgreSQL cannot go on: {error.orig}",
                    remedy="Look at the disks and the memory of its machine",
                ) from error
            again = sqlstate(error) in RETRYABLE_SQLSTATES or error.connection_invalidated
            if not again and not _is_outdated(error):
                raise
            if attempt >= attempts_max:
                raise OutsideUnavailable(
                    f"PostgreSQL did not take the transaction {attempt} times: {error.orig}",
                    remedy="Look for long transactions in pg_stat_activity",
                ) from error
        await asyncio.sleep(min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2**attempt))


def _is_outdated(error: DBAPIError) -> bool:
    """Tell whether a statement was prepared for tables that have changed since.

    PostgreSQL refuses it and rolls back. SQLAlchemy then forgets what is prepared on every connection, the
    driver what is on this one.
    """
    origin = error.orig
    return isinstance(
        getattr(origin, "__cause__", None) or origin, asyncpg.InvalidCachedStatementError
    )


async def _attempt(engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    try:
        connection = await engine.connect()
    except PoolTimeout as error:
        raise OutsideUnavailable(
            "every connection is in use",
            where=engine.url.render_as_string(hide_password=True),
            remedy="Look for long transactions in pg_stat_activity, or allow more connections",
        ) from error
    except (OSError, DBAPIError) as error:
        raise OutsideUnavailable(
            f"PostgreSQL does not answer: {getattr(error, 'orig', error)}",
            where=engine.url.render_as_string(hide_password=True),
            remedy="Start it, or correct CAUSEWAY_DATABASE_URL",
        ) from error
    try:
        return await _run(connection, work)
    finally:
        await connection.close()


async def _run(connection: AsyncConnection, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    transaction = await connection.begin()
    try:
        result = await work(connection)
    except BaseException:
        await transaction.rollback()
        raise
    try:
        await transaction.commit()
    except (DBAPIError, OSError) as error:
        if _is_verdict(sqlstate(error)):
            raise
        raise CommitUnknown(
            "the connection was lost during COMMIT",
            remedy="Read the row by its id before doing it again",
        ) from error
    return result


def _is_verdict(code: str | None) -> bool:
    """Tell whether PostgreSQL itself said that it did not commit.

    The driver gives codes of class 08 to a connection that it has lost, a server that is shut down
    answers with class 57, and 40003 says that the server does not know either.
    """
    return code is not None and code[:2] not in {"08", "57"} and code != "40003"
