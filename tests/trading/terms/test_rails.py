"""By which rail an asset settles: prefunded, where the party is paid, or the asset's own."""

from __future__ import annotations

from datetime import date

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from tests.trading.conftest import NOW
from trading.terms.model import Agreement, Rail
from trading.terms.rails import choose_rail, rail_of_asset, settlement_rails
from trading.terms.testing import set_agreement, set_standing_instruction

TODAY = NOW.date()
HOME = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
KINDS = {"ETH": {"evm"}, "BTC": {"bitcoin"}, "WBTC": {"evm", "bitcoin"}, "EUR": {"evm"}}


@pytest.mark.parametrize(
    ("story", "asset", "rail"),
    [
        ("a coin of one chain", "ETH", Rail.EVM),
        ("a coin of bitcoin alone", "BTC", Rail.BITCOIN),
        ("a coin of both kinds of chains", "WBTC", Rail.EVM),
        ("money in banks", "USD", Rail.BANK),
        ("money that is on a chain too", "EUR", Rail.EVM),
        ("nothing is known", "XYZ", Rail.EVM),
    ],
)
def test_an_asset_has_a_rail_of_its_own(story: str, asset: str, rail: Rail) -> None:
    assert rail_of_asset(asset, KINDS) is rail


@pytest.mark.parametrize(
    ("story", "given", "own", "rail"),
    [
        ("nobody said anything", set(), Rail.BANK, Rail.BANK),
        ("the asset's own is given among others", {Rail.EVM, Rail.BANK}, Rail.BANK, Rail.BANK),
        ("only another is given", {Rail.BITCOIN}, Rail.EVM, Rail.BITCOIN),
        ("two others are given", {Rail.BANK, Rail.BITCOIN}, Rail.EVM, Rail.BITCOIN),
    ],
)
def test_the_partys_word_comes_before_the_assets_own_rail(
    story: str, given: set[Rail], own: Rail, rail: Rail
) -> None:
    assert choose_rail(given, own) is rail


async def rails_on(house: AsyncEngine, on: date) -> dict[tuple[str, str], Rail]:
    keys = [("acme", "ETH"), ("acme", "USD"), ("birch", "ETH")]
    return await transact(house, lambda conn: settlement_rails(conn, keys, on=on))


async def test_a_prefunded_party_settles_by_book_from_its_day_on(house: AsyncEngine) -> None:
    agreement = Agreement(party="acme", effective_from=TODAY, prefunded=True)
    await transact(
        house, lambda conn: set_standing_instruction(conn, "birch", "ETH", HOME, now=NOW)
    )
    before = await rails_on(house, TODAY)
    await transact(house, lambda conn: set_agreement(conn, agreement, now=NOW))

    assert set(before.values()) == {Rail.EVM, Rail.BANK}
    assert before["acme", "USD"] is Rail.BANK
    assert await rails_on(house, TODAY) == {
        ("acme", "ETH"): Rail.BOOK,
        ("acme", "USD"): Rail.BOOK,
        ("birch", "ETH"): Rail.EVM,
    }
