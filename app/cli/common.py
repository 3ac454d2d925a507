"""What the commands share: the database, transactions and rehearsals, money, tables and JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from kernel.errors import BadInput, OutsideUnavailable, Refused
from kernel.money import SCALE_MAX, Asset
from kernel.settings import Settings

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from chain.bitcoin.node_set import NodeSet
    from chain.evm.providers import ProviderSet
    from kernel.clock import Clock
    from kernel.settings import Secret

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Book = Annotated[
    int, typer.Option("--book", min=1, max=32_767, help="The book of the legal entity.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Do everything in a transaction, then roll it back.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why; it stays in the history.")]
Chain = Annotated[str, typer.Option("--chain", help="Code of the chain.")]
BOOK_DEFAULT = 1
CHAIN_DEFAULT = "evm"

WIDTH_OF_A_PIPE: Final = 240
"""Columns when no terminal says how wide it is: ids and hashes stay on one line."""

DRY_RUN: Final = "dry run: it was decided as below, then rolled back; nothing is written"

#: What PostgreSQL says when the database is not ours yet, and what to do then.
DATABASE_TROUBLE: Final[Mapping[str, tuple[str, str]]] = {
    "3D000": ("the database does not exist", "Create it, or correct CAUSEWAY_DATABASE_URL"),
    "28P01": ("PostgreSQL refuses the password", "Correct CAUSEWAY_DATABASE_URL"),
    "28000": ("PostgreSQL refuses the user", "Correct CAUSEWAY_DATABASE_URL"),
    "22023": ("the database has no runtime role", "Run `causeway migrate` first"),
    "42P01": ("the database is not migrated", "Run `causeway migrate` first"),
    "3F000": ("the database is not migrated", "Run `causeway migrate` first"),
    "42501": ("the role may not do that", "Connect as the owner role, or run `causeway migrate`"),
}


def settings() -> Settings:
    """Read the environment."""
    return Settings.from_env(os.environ)


def clock() -> Clock:
    """Return the clock of this machine."""
    from kernel.clock import SystemClock

    return SystemClock()


def node_url() -> str:
    """Return the node's JSON-RPC endpoint.

    Raises:
        OutsideUnavailable: none is named.
    """
    url = settings().evm_url
    if url is None:
        raise OutsideUnavailable(
            "no node is named",
            where="CAUSEWAY_EVM_URL",
            remedy="Set it; `causeway simulate evm` is one for this machine",
        )
    return url


async def chain_providers(engine: AsyncEngine, chain: str, url: str) -> ProviderSet:
    """Return the providers of a registered chain that *url* names, not opened yet.

    Raises:
        UnknownRecord: the chain is not registered.
        BadInput: an address or a quorum that cannot be.
    """
    from app.nodes import evm_providers
    from kernel.db import transact
    from registry.queries import get_chain

    found = await transact(engine, lambda conn: get_chain(conn, chain))
    return evm_providers(settings(), found, url)


async def chain_nodes(engine: AsyncEngine, chain: str) -> NodeSet:
    """Return the nodes of a chain of Bitcoin that CAUSEWAY_BITCOIN_URL names, not opened yet.

    Raises:
        OutsideUnavailable: none is named.
        UnknownRecord: the chain is not registered.
        BadInput: an address or a quorum that cannot be.
    """
    from app.nodes import BITCOIN_VARIABLE, bitcoin_nodes
    from kernel.db import transact
    from registry.queries import get_chain

    here = settings()
    if here.bitcoin_url is None:
        raise OutsideUnavailable(
            f"no node of {chain} is named",
            where=BITCOIN_VARIABLE,
            remedy="Set it; `causeway simulate bitcoin` is one for this machine",
        )
    found = await transact(engine, lambda conn: get_chain(conn, chain))
    return bitcoin_nodes(here, found, here.bitcoin_url.reveal())


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a command's coroutine, traced where a collector is named."""
    import asyncio

    url = settings().otlp_url
    if url is None:
        return asyncio.run(work())
    with exporting_to(url):
        return asyncio.run(work())


def exporting_to(url: Secret) -> AbstractContextManager[object]:
    """Trace this process; see `kernel.tracing`.

    Raises:
        BadInput: the extra is not installed.
    """
    try:
        from kernel.otlp import exporting
    except ImportError as error:
        raise BadInput(
            "CAUSEWAY_OTLP_URL is set, and what sends traces is not installed",
            remedy="Install causeway[telemetry], or unset it",
        ) from error
    return exporting(url.reveal(), service="causeway")


def async_url(url: str) -> str:
    """Return a PostgreSQL URL with the driver that is used here: ``postgresql://`` is enough.

    Raises:
        BadInput: it is not a URL of a PostgreSQL database.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise BadInput(
            "CAUSEWAY_DATABASE_URL is not a URL",
            remedy="Write postgresql+asyncpg://user:password@host:5432/database",
        ) from error
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise BadInput(
            f"CAUSEWAY_DATABASE_URL is of {parsed.get_backend_name()}", remedy="Use PostgreSQL"
        )
    return parsed.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


async def on_database(work: Callable[[AsyncEngine], Awaitable[T]]) -> T:
    """Run *work* with an engine as the runtime role, and dispose of it.

    Raises:
        OutsideUnavailable: no database is named, it does not answer, or it is not migrated.
    """
    from sqlalchemy.exc import DBAPIError

    from kernel.db import APP_ROLE, create_engine

    found = settings()
    url = found.app_database_url or found.database_url
    if url is None:
        raise OutsideUnavailable(
            "no database is named",
            where="CAUSEWAY_DATABASE_URL",
            remedy="Set it; `causeway up` and `causeway demo --keep` print the one they run on",
        )
    engine = create_engine(async_url(url.reveal()), role=APP_ROLE)
    try:
        return await work(engine)
    except (DBAPIError, OutsideUnavailable) as error:
        # What PostgreSQL said while connecting is the cause of what the kernel says about it.
        cause = error.__cause__ if isinstance(error, OutsideUnavailable) else error
        if isinstance(cause, DBAPIError):
            _explain_database(cause, error)
        raise
    finally:
        await engine.dispose()


def _explain_database(said: DBAPIError, error: Exception) -> None:
    """Say what an operator can do about it, where that is known; else return."""
    from kernel.db import sqlstate

    what, remedy = DATABASE_TROUBLE.get(sqlstate(said) or "", ("", ""))
    if not what and said.connection_invalidated:
        what = "the connection to PostgreSQL was lost"
    if what:
        raise OutsideUnavailable(f"{what}: {said.orig}", remedy=remedy) from error


def read(work: Callable[[AsyncConnection], Awaitable[T]], *, book: int | None = None) -> T:
    """Run a read in one transaction and return what it returned.

    Raises:
        BookNotOpen: there is no *book*: an empty answer would say that it has nothing.
    """

    async def checked(conn: AsyncConnection) -> T:
        from ledger.queries import head

        if book is not None:
            await head(conn, book)
        return await work(conn)

    async def inner() -> T:
        from kernel.db import transact

        return await on_database(lambda engine: transact(engine, checked))

    return run(inner)


class _RolledBack(Exception):
    """The rehearsal is over."""


async def rehearse(engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Run a change in one transaction, roll it back, say so, and return what it returned."""
    from kernel.db import transact

    results: list[T] = []

    async def once(conn: AsyncConnection) -> None:
        results.append(await work(conn))
        raise _RolledBack

    try:
        await transact(engine, once)
    except _RolledBack:
        typer.echo(DRY_RUN, err=True)
    return results[-1]


def write(work: Callable[[AsyncConnection], Awaitable[T]], *, dry_run: bool = False) -> T:
    """Run a change in one transaction and return what it returned; *dry_run*: roll it back."""
    if not dry_run:
        return read(work)
    return run(lambda: on_database(lambda engine: rehearse(engine, work)))


@dataclass(frozen=True, slots=True)
class Amount:
    """An amount as it was typed; its asset's places are known once the registry was asked."""

    number: str
    asset: str

    @classmethod
    def parse(cls, text: str) -> Amount:
        """Read ``1.5 ETH``.

        Raises:
            BadInput: not a decimal above zero, or no asset.
        """
        number, _, code = text.strip().partition(" ")
        if not code.strip():
            raise BadInput(f"{text!r} names no asset", remedy='Write it as "1.5 ETH"')
        if Asset(code.strip(), SCALE_MAX).parse(number) <= 0:
            raise BadInput(f"{text!r} is not above zero")
        return cls(number, code.strip())


@dataclass(frozen=True, slots=True)
class Money:
    """The registered assets: how amounts are read and printed."""

    assets: Mapping[str, Asset]

    @classmethod
    async def load(cls, conn: AsyncConnection) -> Money:
        """Ask the registry."""
        from registry.queries import list_assets

        return cls({asset.code: asset for asset in await list_assets(conn)})

    def asset(self, code: str) -> Asset:
        """Return a registered asset.

        Raises:
            Refused: there is none of this code.
        """
        if code not in self.assets:
            known = ", ".join(sorted(self.assets)) or "none"
            raise Refused(f"the asset {code} is not registered", remedy=f"Registered: {known}")
        return self.assets[code]

    def units(self, amount: Amount) -> int:
        """Return an amount in smallest units."""
        return self.asset(amount.asset).parse(amount.number)

    def text(self, units: int, code: str) -> str:
        """Return ``1.5 ETH``; of a token that is not registered, its own units."""
        if code in self.assets:
            return self.assets[code].format(units)
        return f"{units} units of an unregistered token"


def parse_time(text: str | None) -> datetime | None:
    """Read an ISO 8601 time; without a zone it is UTC, without a time it is the end of that day."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput(
            f"{text!r} is not a time", remedy="Write 2026-01-31 or 2026-01-31T17:00:00Z"
        ) from error
    if len(text) == len("2026-01-31"):
        at = at.replace(hour=23, minute=59, second=59, microsecond=999_999)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def parse_date(text: str | None, today: datetime) -> date:
    """Read an ISO 8601 date; None is the day of *today* in UTC."""
    if text is None:
        return today.astimezone(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"{text!r} is not a date", remedy="Write 2026-01-31") from error


def one_of(kind: type[E], text: str, what: str) -> E:
    """Read a word of an enumeration.

    Raises:
        BadInput: names the words that are possible.
    """
    words = [str(member) for member in kind]
    if text not in words:
        raise BadInput(f"{text!r} is not a {what}", remedy=f"Use one of {', '.join(words)}")
    return kind(text)


def emit(document: object) -> None:
    """Print *document* as JSON."""
    import orjson

    typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def show(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    as_json: bool,
    right: Sequence[str] = (),
) -> None:
    """Print rows of text as a table, or as a JSON list of objects keyed by the columns.

    Args:
        right: columns that are aligned to the right (amounts).
    """
    if as_json:
        emit([dict(zip(columns, row, strict=True)) for row in rows])
        return
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), box=box.SIMPLE_HEAD, title_justify="left")
    for column in columns:
        # Where there is little room other columns are folded: an id is copied into the next command.
        table.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=column == "id",
        )
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_PIPE).print(table)


def show_one(title: str, facts: Mapping[str, str], *, as_json: bool, dry_run: bool = False) -> None:
    """Print one object as lines of name and value, or as one JSON object."""
    if as_json:
        emit({**facts, "dry_run": True} if dry_run else dict(facts))
        return
    show(title, ("", ""), list(facts.items()), as_json=False)
