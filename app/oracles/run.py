"""Ask the oracles: each in a short transaction of one moment, the journal and the outside apart."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.oracles.catalogue import JOURNAL, ON_CHAIN, ORACLES, PLACES
from app.oracles.model import FINDINGS_MAX, Check, Examined, Finding, Oracle, Report
from app.oracles.on_chain import ask_chains
from app.oracles.outside import Outside
from app.oracles.places import TRANSIT, look_everywhere
from app.oracles.snapshots import snapshot
from ledger.points import fill
from ledger.verification import examine as examine_book

_FIRST: Final = """
WITH found AS MATERIALIZED (<faults>)
SELECT * FROM found LIMIT <most>
"""
"""The first of what is wrong. Without MATERIALIZED PostgreSQL plans for the first rows alone, and takes each row of
one table through all of the other; where nothing is wrong there are none, and it looks at every pair."""

Progress = Callable[[str], None]
"""Told the name of each oracle before it is asked."""


@dataclass(frozen=True, slots=True)
class _House:
    engine: AsyncEngine
    outside: Outside
    at_rest: bool
    counting: bool


async def examine(
    engine: AsyncEngine,
    *,
    oracles: Sequence[Oracle] = ORACLES,
    outside: Outside | None = None,
    at_rest: bool = False,
    counting: bool = True,
    progress: Progress = lambda _name: None,
) -> Report:
    """Ask every oracle and return what each has found.

    A house may go on working meanwhile: every question is of one moment, and rows that refer to each
    other are written in one transaction. Nothing is written.

    Args:
        engine: any role that may read every schema.
        oracles: which to ask.
        outside: who is asked what is really there; without it nobody is.
        at_rest: also ask what only holds once every worker has done all there was to do.
        counting: also count the rows that the questions in SQL are about; who only wants to know what is
            wrong asks half as many.
        progress: told which oracle is asked next.

    Raises:
        OutsideUnavailable: PostgreSQL does not answer.
    """
    house = _House(engine, outside or Outside(), at_rest, counting)
    found = []
    for oracle in oracles:
        if not at_rest and oracle.checks and all(check.at_rest for check in oracle.checks):
            continue
        progress(oracle.name)
        found.append(await _BY_OTHER_MEANS.get(oracle.name, _in_sql)(house, oracle))
    return Report(tuple(found))


async def ask(
    conn: AsyncConnection, oracle: Oracle, *, at_rest: bool = False, counting: bool = True
) -> Examined:
    """Ask the questions of one oracle that are put in SQL, in the caller's transaction."""
    counted, findings = 0, list[Finding]()
    for check in oracle.checks:
        if check.at_rest and not at_rest:
            continue
        if counting:
            counted += int((await conn.execute(_literal(check.counted))).scalar_one())
        findings += await _findings(conn, oracle, check)
    return Examined(oracle, counted, tuple(findings))


async def _in_sql(house: _House, oracle: Oracle) -> Examined:
    def work(conn: AsyncConnection) -> Awaitable[Examined]:
        return ask(conn, oracle, at_rest=house.at_rest, counting=house.counting)

    return await snapshot(house.engine, work)


async def _findings(conn: AsyncConnection, oracle: Oracle, check: Check) -> list[Finding]:
    rows = await conn.execute(_literal(asked_for(check)))
    return [Finding(oracle.name, str(where), str(what)) for where, what in rows]


def asked_for(check: Check) -> str:
    """Return the statement that asks for what is wrong: no more than this process can hold."""
    return fill(_FIRST, faults=check.faults, most=str(FINDINGS_MAX))


def _literal(statement: str) -> TextClause:
    """Return a statement in which no colon begins a parameter."""
    return text(statement.replace(":", r"\:"))


async def _list_books(engine: AsyncEngine) -> list[int]:
    async def read(conn: AsyncConnection) -> list[int]:
        rows = await conn.execute(text("SELECT book FROM ledger.head ORDER BY book"))
        return [int(book) for (book,) in rows]

    return await snapshot(engine, read)


async def _journal(house: _House, oracle: Oracle) -> Examined:
    records, findings = 0, list[Finding]()
    for book in await _list_books(house.engine):
        verified = await examine_book(house.engine, book)
        records += verified.sequence
        findings += [
            Finding(oracle.name, f"ledger.{fault.table} of book {book}, {fault.key}", fault.what)
            for fault in verified.faults
        ]
    return Examined(oracle, records, tuple(findings[:FINDINGS_MAX]))


async def _places(house: _House, oracle: Oracle) -> Examined:
    """Ask what the checks ask, then compare each place with its own word."""
    asked = await _in_sql(house, oracle)
    books = await _list_books(house.engine)
    items, failed = await look_everywhere(house.engine, house.outside, books=books)
    findings = [
        Finding(
            oracle.name,
            f"{item.place} {item.asset}",
            f"the outside has {item.outside}, the books {item.books}",
        )
        for item in items
        if item.difference
    ]
    silent = [
        f"{item.place} {item.asset}: the books have {item.books}, and nobody there has answered"
        for item in items
        if item.outside is None and item.books and not item.place.startswith(TRANSIT)
    ]
    return Examined(
        oracle,
        asked.examined + len(items),
        (*asked.findings, *findings[:FINDINGS_MAX]),
        (*map(str, failed), *silent[:FINDINGS_MAX]),
    )


async def _on_chain(house: _House, oracle: Oracle) -> Examined:
    return await ask_chains(house.engine, house.outside.chains, oracle)


_BY_OTHER_MEANS: Final[Mapping[str, Callable[[_House, Oracle], Awaitable[Examined]]]] = {
    JOURNAL.name: _journal,
    PLACES.name: _places,
    ON_CHAIN.name: _on_chain,
}
