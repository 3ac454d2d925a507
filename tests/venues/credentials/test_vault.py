"""API keys in the database: sealed, bound to their account and purpose, one in force at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from itertools import count

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from kernel.envelope import kek_id_of
from kernel.errors import BadInput, Refused, SecretUnreadable
from kernel.settings import Secret
from venues.ccxt.endpoint import Credentials
from venues.credentials.model import KeyPurpose, SealedKey, Slot
from venues.credentials.vault import enrol, list_keys, retire, reveal, rewrap_all

pytestmark = pytest.mark.database

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
KEK, NEW_KEK = bytes(range(32)), bytes(range(1, 33))
DESK = Slot("binance", "desk", KeyPurpose.TRADING)
TREASURY = Slot("binance", "desk", KeyPurpose.WITHDRAWAL)


def credentials(name: str = "one") -> Credentials:
    return Credentials(api_key=f"api-key-{name}", secret=Secret(f"canary-{name}"))


def randomness(start: int = 1) -> Callable[[int], bytes]:
    numbers = count(start)
    return lambda size: next(numbers).to_bytes(size, "big")


async def enrolled(
    engine: AsyncEngine, slot: Slot = DESK, name: str = "one", *, kek: bytes = KEK
) -> SealedKey:
    return await transact(
        engine,
        lambda conn: enrol(
            conn,
            slot,
            credentials(name),
            kek,
            random=randomness(),
            by="olga",
            reason="the desk's key",
            now=NOW,
        ),
    )


async def test_a_key_comes_back_as_it_was_given_and_lies_sealed_in_the_table(
    engine: AsyncEngine,
) -> None:
    await enrolled(engine)

    opened = await transact(engine, lambda conn: reveal(conn, DESK, KEK))

    assert (opened.api_key, opened.secret.reveal()) == ("api-key-one", "canary-one")
    async with engine.connect() as conn:
        row = (await conn.execute(text("SELECT v::text FROM venues.venue_key v"))).scalar_one()
        events = (await conn.execute(text("SELECT h::text FROM kernel.history h"))).scalars().all()
    for told in (row, *events):
        for canary in ("canary", "api-key", b"canary-one".hex(), b"api-key-one".hex()):
            assert canary not in told


async def test_another_kek_opens_nothing_and_says_which_one_would(engine: AsyncEngine) -> None:
    await enrolled(engine)

    with pytest.raises(SecretUnreadable, match=f"is wrapped with {kek_id_of(KEK)}.*binance/desk"):
        await transact(engine, lambda conn: reveal(conn, DESK, NEW_KEK))


@pytest.mark.parametrize("column", ["account", "venue", "purpose", "version"])
async def test_a_row_moved_to_another_account_does_not_open_there(
    engine: AsyncEngine, database: str, column: str
) -> None:
    await enrolled(engine)
    moved = {
        "account": ("'other'", Slot("binance", "other", KeyPurpose.TRADING)),
        "venue": ("'kraken'", Slot("kraken", "desk", KeyPurpose.TRADING)),
        "purpose": ("'withdrawal'", TREASURY),
        "version": ("2", DESK),
    }
    value, slot = moved[column]
    async with engine.begin() as conn:
        await conn.execute(text(f"UPDATE venues.venue_key SET {column} = {value}"))  # noqa: S608  words of this test

    with pytest.raises(SecretUnreadable):
        await transact(engine, lambda conn: reveal(conn, slot, KEK))


async def test_a_new_key_retires_the_old_one_whose_secret_is_gone(engine: AsyncEngine) -> None:
    await enrolled(engine, name="one")
    second = await enrolled(engine, name="two")

    opened = await transact(engine, lambda conn: reveal(conn, DESK, KEK))
    keys = await transact(engine, lambda conn: list_keys(conn, in_force=False))

    assert second.version == 2
    assert opened.api_key == "api-key-two"
    assert [(key.version, key.retired_at is None) for key in keys] == [(1, False), (2, True)]
    assert keys[0].envelope.ciphertext == b""


async def test_one_key_cannot_both_trade_and_withdraw(engine: AsyncEngine) -> None:
    await enrolled(engine, DESK, "one")

    with pytest.raises(Refused, match="is the trading key of binance/desk"):
        await enrolled(engine, TREASURY, "one")
    await enrolled(engine, TREASURY, "two")


async def test_a_retired_key_is_no_key(engine: AsyncEngine) -> None:
    await enrolled(engine)
    await transact(
        engine, lambda conn: retire(conn, DESK, by="olga", reason="it was lost", now=NOW)
    )

    with pytest.raises(Refused, match="no API key is enrolled for binance/desk"):
        await transact(engine, lambda conn: reveal(conn, DESK, KEK))
    with pytest.raises(Refused, match="is in force"):
        await transact(engine, lambda conn: retire(conn, DESK, by="olga", reason="", now=NOW))


async def test_a_new_kek_opens_every_key_and_the_old_one_none(engine: AsyncEngine) -> None:
    await enrolled(engine, DESK, "one")
    await enrolled(engine, TREASURY, "two")

    def change() -> Awaitable[list[SealedKey]]:
        return transact(
            engine,
            lambda conn: rewrap_all(conn, KEK, NEW_KEK, random=randomness(100), by="olga", now=NOW),
        )

    assert len(await change()) == 2
    assert await change() == []
    opened = await transact(engine, lambda conn: reveal(conn, TREASURY, NEW_KEK))
    assert opened.api_key == "api-key-two"
    with pytest.raises(SecretUnreadable):
        await transact(engine, lambda conn: reveal(conn, DESK, KEK))


@pytest.mark.parametrize("given", [("", "secret"), ("key", "  "), ("k" * 9000, "secret")])
async def test_an_empty_or_endless_key_is_refused(
    engine: AsyncEngine, given: tuple[str, str]
) -> None:
    with pytest.raises(BadInput, match="characters"):
        await transact(
            engine,
            lambda conn: enrol(
                conn,
                DESK,
                Credentials(api_key=given[0], secret=Secret(given[1])),
                KEK,
                random=randomness(),
                by="olga",
                reason="a key",
                now=NOW,
            ),
        )
