"""Registered tokens are read again on a schedule; one that changed is frozen, once for each finding."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.errors import NodeUnavailable
from chain.model import CallResult
from chain.tokens import IMPLEMENTATION_SLOT
from custody.freezes import find_freeze
from custody.token_watch import TokenCheck, watch_tokens
from registry.testing import TOKEN
from tests.custody.house import House
from tests.custody.test_reconciliation_runs import open_scope


@dataclass
class Contract:
    """A token on a node, as far as it is asked about itself."""

    decimals: int = 6
    code: bytes = b"\x60\x00"
    implementation: int = 0
    codes: dict[str, bytes] = field(default_factory=dict)
    silent: bool = False

    async def simulate(
        self, *, sender: str, recipient: str, value: int = 0, data: bytes = b""
    ) -> CallResult:
        assert (recipient, value, len(data), len(sender)) == (TOKEN, 0, 4, 42)
        return CallResult(succeeded=True, returned=self.decimals.to_bytes(32, "big"))

    async def code_at(self, address: str) -> bytes:
        if self.silent:
            raise NodeUnavailable("no answer")
        return self.code if address == TOKEN else self.codes.get(address, b"")

    async def storage_at(self, address: str, slot: int) -> bytes:
        assert address == TOKEN
        found = self.implementation if slot == IMPLEMENTATION_SLOT else 0
        return found.to_bytes(32, "big")


@pytest.fixture
async def house(engine: AsyncEngine) -> House:
    return await House(engine).open()


async def look(house: House, contract: Contract) -> TokenCheck:
    house.clock.advance(timedelta(hours=1))
    (check,) = await watch_tokens(house.engine, contract, "evm", now=house.now)
    return check


async def is_frozen(house: House) -> bool:
    return await house.do(lambda c: find_freeze(c, asset="USDT")) is not None


async def test_a_token_that_is_what_it_was_is_left_alone(house: House) -> None:
    for _ in range(2):
        assert (await look(house, Contract())).trouble == ""
    assert not await is_frozen(house)


async def test_decimals_that_are_not_the_registrys_disable_the_asset(house: House) -> None:
    """A mix-up of decimals has refunded trillions for dollars: integers, pinned and read again."""
    await look(house, Contract())

    check = await look(house, Contract(decimals=18))

    assert check.trouble == "its decimals were 6 and are 18"
    assert await is_frozen(house)


async def test_wrong_decimals_at_the_first_reading_disable_the_asset_as_well(
    house: House,
) -> None:
    await look(house, Contract(decimals=2))

    assert await is_frozen(house)


@pytest.mark.parametrize(
    "changed", [Contract(code=b"\x61"), Contract(implementation=7), Contract(code=b"")]
)
async def test_other_code_or_another_implementation_disables_the_asset(
    house: House, changed: Contract
) -> None:
    await look(house, Contract())

    check = await look(house, changed)

    assert check.frozen
    assert await is_frozen(house)


async def test_who_opened_the_asset_knows_and_only_news_freezes_it_again(house: House) -> None:
    await look(house, Contract())
    await look(house, Contract(code=b"\x61"))
    await open_scope(house, "asset", "USDT")

    same = await look(house, Contract(code=b"\x61"))
    assert (same.trouble != "", same.frozen) == (True, False)
    assert not await is_frozen(house)

    more = await look(house, Contract(code=b"\x61", decimals=18))
    assert more.frozen
    assert await is_frozen(house)


async def test_a_node_that_does_not_answer_proves_nothing(house: House) -> None:
    await look(house, Contract())

    with pytest.raises(NodeUnavailable):
        await look(house, Contract(silent=True))
    assert not await is_frozen(house)
