"""Accounts of ours at banks: what they may be, and that two people make them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput
from kernel.money import Asset
from registry.bank_details import canonical_bic, canonical_iban
from registry.changes import found
from registry.errors import ChangeRefused
from registry.model import BankAccount, Chain
from registry.queries import find_bank_account, get_bank_account, list_bank_accounts
from registry.testing import ENTITY, change, demo_founding, wallets

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
EUR = Asset("EUR", 2)
MAIN = BankAccount(
    "house-eur",
    "Example Bank",
    "DE89370400440532013000",
    "COBADEFFXXX",
    "EUR",
    "house",
    ENTITY.code,
)


@pytest.fixture
async def founded(engine: AsyncEngine) -> AsyncEngine:
    founding = demo_founding()
    founding = replace(founding, assets=(*founding.assets, EUR), bank_accounts=(MAIN,))
    await transact(engine, lambda conn: found(conn, founding, now=NOW))
    return engine


@pytest.mark.parametrize(
    ("typed", "canonical"),
    [("de89 3704 0044 0532 0130 00", MAIN.iban), ("GB82 WEST 1234 5698 7654 32",) * 2],
)
def test_an_iban_has_one_spelling(typed: str, canonical: str) -> None:
    assert canonical_iban(typed) == canonical.replace(" ", "")


@pytest.mark.parametrize("typed", ["DE89370400440532013001", "DE8937040044053201300", "", "DE99"])
def test_a_mistyped_iban_is_refused(typed: str) -> None:
    with pytest.raises(BadInput, match="is not an IBAN"):
        canonical_iban(typed)


@pytest.mark.parametrize("typed", ["COBADEF", "COBADEFFXX", "COBA1EFF"])
def test_a_mistyped_bic_is_refused(typed: str) -> None:
    with pytest.raises(BadInput, match="is not a BIC"):
        canonical_bic(typed)


@pytest.mark.parametrize(
    "changes",
    [
        {"iban": "DE89 3704"},
        {"bic": "cobadeffxxx"},
        {"asset": "eur"},
        {"owner": "me"},
        {"bank": ""},
    ],
)
def test_an_account_that_cannot_be_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        replace(MAIN, **changes)  # type: ignore[arg-type]


async def test_accounts_are_founded_listed_and_found_by_number(founded: AsyncEngine) -> None:
    async with founded.connect() as conn:
        assert await list_bank_accounts(conn, entity=ENTITY.code) == [MAIN]
        assert await get_bank_account(conn, "house-eur") == MAIN
        assert await find_bank_account(conn, MAIN.iban) == MAIN
        assert await find_bank_account(conn, "GB82WEST12345698765432") is None


async def test_two_people_close_an_account_and_nobody_gives_it_another_number(
    founded: AsyncEngine,
) -> None:
    closed = replace(MAIN, active=False)
    await transact(founded, lambda conn: change(conn, closed, now=NOW))
    async with founded.connect() as conn:
        assert await get_bank_account(conn, "house-eur") == closed
    other = replace(closed, iban="GB82WEST12345698765432")
    with pytest.raises(ChangeRefused, match="iban of bank_account house-eur"):
        await transact(founded, lambda conn: change(conn, other, now=NOW))


async def test_a_process_may_not_write_the_number_of_an_account(founded: AsyncEngine) -> None:
    statement = text("UPDATE registry.bank_account SET iban = 'X', version = 2")
    with pytest.raises(DBAPIError, match="permission denied for table bank_account"):
        await transact(founded, lambda conn: conn.execute(statement))


async def test_one_number_in_one_currency_is_one_account(founded: AsyncEngine) -> None:
    twin = replace(MAIN, code="house-eur-2")
    with pytest.raises(ChangeRefused, match="another bank account has that IBAN"):
        await transact(founded, lambda conn: change(conn, twin, now=NOW))


async def test_an_account_is_never_called_like_a_wallet_nor_a_wallet_like_it(
    founded: AsyncEngine,
) -> None:
    namesake = replace(MAIN, code="house-hot", iban="GB82WEST12345698765432")
    with pytest.raises(ChangeRefused, match="there is a wallet 'house-hot'"):
        await transact(founded, lambda conn: change(conn, namesake, now=NOW))
    wallet = replace(wallets()[0], code="house-eur")
    with pytest.raises(ChangeRefused, match="there is a bank account 'house-eur'"):
        await transact(founded, lambda conn: change(conn, wallet, now=NOW))


def test_no_chain_is_called_bank() -> None:
    with pytest.raises(BadInput, match="the code of no chain"):
        Chain("bank", "evm", 1, "ETH")
