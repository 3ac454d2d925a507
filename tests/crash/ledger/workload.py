"""What the posters post: batches that follow from a stream's name and a number alone.

A stream has clients of its own and shares the other accounts with every other stream, so each
answer is known beforehand, whoever else posts meanwhile and however often a batch is sent again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.blocks import COPIED_FROM
from ledger.model import (
    PostResult,
    Transfer,
    chain,
    hold,
    post_hold,
    reversal,
    transfer,
    void_hold,
)
from ledger.outcome import Outcome
from ledger.posting import open_book, post
from ledger.scenarios import START

CODE: Final = "crash.test"
FAR_TOO_MUCH: Final = 10**30

EXPECTED: Final = (
    *["created"] * 7,
    "exceeds_credits",
    "linked_event_failed",
    "exceeds_credits",
    "accounts_must_be_different",
    "created",
)
"""The answers to the twelve."""

CREATED_BY_BATCH: Final = EXPECTED.count("created")
REFUSED_BY_BATCH: Final = EXPECTED.count("exceeds_credits")

LARGE: Final = "large"
"""How the streams begin whose batches are so large that their rows are COPYed."""


def padding(stream: str) -> int:
    """Return how many transfers of nothing a stream's batches have besides."""
    return COPIED_FROM if stream.startswith(LARGE) else 0


def item_id(stream: str, number: int, item: str) -> UUID:
    """Return the id of an item of a batch."""
    return derive_id(START, "crash", stream, number, item)


def accounts(stream: str) -> list[tuple[str, str]]:
    """Return the accounts that a stream posts to."""
    return [
        (path, "X")
        for path in (f"client:{stream}", f"client:{stream}-b", "custody:hot", "in-flight:evm")
    ]


def batch(stream: str, number: int) -> list[Transfer]:
    """Return a batch of what moves, is held and resolved, refused and reversed; twelve at least."""
    mine, other = f"client:{stream}", f"client:{stream}-b"

    def at(item: str, of: int = number) -> UUID:
        return item_id(stream, of, item)

    move = transfer(at("move"), mine, other, 1, "X", code=CODE, reference=f"{stream}-{number}")
    more = [
        transfer(at(f"more-{n}"), "custody:hot", mine, 0, "X", code=CODE)
        for n in range(padding(stream))
    ]
    return [
        *more,
        transfer(at("fund"), "custody:hot", mine, 10, "X", code=CODE, metadata={"batch": number}),
        hold(at("hold"), mine, "in-flight:evm", 6, "X", code=CODE, purpose="payout"),
        *chain(post_hold(at("post"), at("hold"), 4, code=CODE), move),
        hold(at("quote"), mine, "in-flight:evm", 2, "X", code=CODE, purpose="quote"),
        void_hold(at("void"), at("quote"), code=CODE),
        reversal(at("back"), at("move"), code=CODE),
        transfer(at("greedy"), other, mine, FAR_TOO_MUCH, "X", code=CODE),
        *chain(
            transfer(at("lost"), "custody:hot", mine, 5, "X", code=CODE),
            transfer(at("spoils"), other, mine, FAR_TOO_MUCH, "X", code=CODE),
        ),
        transfer(at("silly"), mine, mine, 1, "X", code=CODE),
        transfer(at("fund", 0), "custody:hot", mine, 10, "X", code=CODE, metadata={"batch": 0}),
    ]


def expected(stream: str) -> tuple[str, ...]:
    """Return the answers to every batch of a stream, a replay's taken for the first one."""
    return (*["created"] * padding(stream), *EXPECTED)


def answers(results: Iterable[PostResult]) -> tuple[str, ...]:
    """Return what was decided, whether now or the first time that it was asked."""
    said = []
    for result in results:
        decided_then = result.first if result.outcome is Outcome.ID_ALREADY_FAILED else None
        first = Outcome.CREATED if result.outcome is Outcome.EXISTS else decided_then
        said.append(str(first or result.outcome))
    return tuple(said)


async def prepare_book(engine: AsyncEngine, book: int, streams: Sequence[str]) -> None:
    """Open a book and the accounts of the streams."""

    async def work(conn: AsyncConnection) -> None:
        await open_book(conn, book, entity=f"crash-{book}")
        await ensure_accounts(conn, book, {key for name in streams for key in accounts(name)})

    await transact(engine, work)


async def send(engine: AsyncEngine, book: int, stream: str, number: int) -> list[PostResult]:
    """Post a batch."""
    return await transact(engine, lambda conn: post(conn, book, batch(stream, number)))


async def columns_of(engine: AsyncEngine, book: int) -> dict[str, tuple[int, ...]]:
    """Return the four columns of every account of a book, by path."""
    statement = text(
        "SELECT a.path, b.debits_pending::text, b.debits_posted::text, b.credits_pending::text,"
        " b.credits_posted::text FROM ledger.balance b JOIN ledger.account a"
        " ON (a.book, a.number) = (b.book, b.account) WHERE a.book = :book"
    )
    async with engine.connect() as conn:
        rows = (await conn.execute(statement, {"book": book})).all()
    return {row[0]: tuple(int(column) for column in row[1:]) for row in rows}


async def count_of(engine: AsyncEngine, book: int, table: str) -> int:
    """Return how many rows a book has in a table of the ledger."""
    statement = text(f"SELECT count(*) FROM ledger.{table} WHERE book = :book")  # noqa: S608  ours
    async with engine.connect() as conn:
        return int((await conn.execute(statement, {"book": book})).scalar_one())
