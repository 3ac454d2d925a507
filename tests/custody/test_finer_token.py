"""A token of 18 decimals that is an asset of 6 in the books: from the registry to reconciliation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.evm.addresses import address_from_node
from chain.model import Block
from chain.testing import ScriptedGateway
from custody.deposit_model import DepositState, ReceiptState
from custody.freezes import find_freeze
from custody.reconciliation import explain_run, list_differences, reconcile
from custody.reconciliation_model import Item, Reason, Result, Run
from kernel.money import Asset
from ledger.testing import enforce_lock_order
from registry.model import ChainAsset
from registry.testing import change
from tests.custody.house import BOOK, STRANGER, House

FINE = address_from_node("0x" + "f1" * 20)
UNIT = 10**12
"""One unit of the asset, as the chain counts."""


class Lossy(ScriptedGateway):
    losses: ClassVar[dict[tuple[str, str | None], int]] = {}

    async def balance(self, address: str, contract: str | None, *, at: Block) -> int:
        found = await super().balance(address, contract, at=at)
        return max(0, found - self.losses.get((address, contract), 0))


@pytest.fixture
async def house(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    with enforce_lock_order(engine):
        made = await House(engine, gateway=Lossy(), proves=True).open()
        monkeypatch.setattr(Lossy, "losses", {})
        made.gateway.fund(STRANGER, 10**30, FINE)
        fine = ChainAsset("evm:GOLD", "evm", FINE, 18, "GOLD")
        await made.do(lambda conn: change(conn, Asset("GOLD", 6), now=made.now))
        await made.do(lambda conn: change(conn, fine, now=made.now))
        yield made


async def pay(house: House, *legs: tuple[str, int]) -> None:
    house.mine(house.pay_token(*legs, contract=FINE), empty_after=2)
    await house.catch_up()


async def run(house: House) -> Run:
    house.mine()
    await house.follow()
    return await reconcile(house.engine, house.gateway, "evm", book=BOOK, now=house.now)


async def gold(house: House) -> dict[str, tuple[int, int]]:
    return {
        path.removesuffix(" GOLD"): amounts
        for path, amounts in (await house.balances()).items()
        if path.endswith(" GOLD")
    }


def pieces(made: Run) -> dict[str, tuple[int, int | None]]:
    """Return (books, chain) of what is in pieces, by wallet."""
    return {
        item.wallet: (item.books, item.chain)
        for item in made.items
        if any(e.reason is Reason.REMAINDER for e in item.explanations)
    }


async def test_whole_units_are_the_clients_and_pieces_are_an_item_of_their_own(
    house: House,
) -> None:
    await pay(
        house, (house.acme, 5 * UNIT + 7), (house.birch, 3 * UNIT), (house.settlement, UNIT + 2)
    )

    made = await run(house)

    assert await gold(house) == {
        "custody:client-pool": (8, 0),
        "client:acme": (5, 0),
        "client:birch": (3, 0),
        "custody:house-settlement": (1, 0),
        "suspense:evm": (1, 0),
    }
    assert made.result is Result.CLEAN
    assert pieces(made) == {"client-pool": (7, 7), "house-settlement": (2, 2)}
    _, items = await house.do(lambda conn: explain_run(conn, made.id))
    shown: Item = next(item for item in items if item.wallet == "client-pool")
    assert (shown.asset, shown.contract, shown.difference) == ("", FINE, 0)
    assert shown.explanations[0].detail == "less than one unit of GOLD, as the chain counts"


async def test_pieces_that_make_a_unit_are_dust_and_reconciled_as_a_unit(house: House) -> None:
    await pay(house, (house.acme, UNIT + 6 * UNIT // 10), (house.birch, UNIT + 7 * UNIT // 10))

    made = await run(house)

    assert (await gold(house))["suspense:dust"] == (1, 0)
    assert (await gold(house))["custody:client-pool"] == (3, 0)
    assert made.is_clean
    assert pieces(made) == {"client-pool": (3 * UNIT // 10,) * 2}


async def test_what_is_missing_of_a_unit_differs_and_is_named(house: House) -> None:
    """There is no tolerance below a unit either: seven pieces are in the books, and six there."""
    await pay(house, (house.acme, UNIT + 7))
    house.gateway.fund(house.acme, -1, FINE)

    made = await run(house)

    assert made.result is Result.DIFFERENT
    assert pieces(made) == {"client-pool": (7, 6)}
    assert made.differences == ()
    assert await house.do(lambda c: list_differences(c, book=BOOK, chain="evm")) == []
    assert await house.do(lambda c: find_freeze(c, wallet="client-pool")) is None


async def test_what_a_fee_leaves_is_counted_in_units_and_pieces(house: House) -> None:
    """1.5 units are logged and 1.2 arrive, at an address each of a client and of settlement."""
    fee = 3 * UNIT // 10
    Lossy.losses.update({(house.acme, FINE): fee, (house.settlement, FINE): 2 * UNIT})
    await pay(house, (house.acme, 15 * UNIT // 10), (house.settlement, 25 * UNIT // 10))

    made = await run(house)

    (deposit,), (receipt,) = await house.deposits(), await house.receipts()
    assert (deposit.state, deposit.received, deposit.received_rest) == (
        *(DepositState.CREDITED, 1),
        2 * UNIT // 10,
    )
    assert (receipt.state, receipt.received, receipt.received_rest) == (
        *(ReceiptState.NOT_RECEIVED, 0),
        5 * UNIT // 10,
    )
    assert made.result is Result.CLEAN
    assert pieces(made) == {
        "client-pool": (2 * UNIT // 10,) * 2,
        "house-settlement": (5 * UNIT // 10,) * 2,
    }


async def test_a_reorganisation_takes_the_pieces_back(house: House) -> None:
    Lossy.losses[house.acme, FINE] = 3 * UNIT // 10
    await pay(house, (house.acme, 15 * UNIT // 10), (house.birch, 19 * UNIT // 10))
    assert (await gold(house))["suspense:dust"] == (1, 0)
    Lossy.losses.clear()

    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()
    made = await run(house)

    assert await gold(house) == {}
    assert made.is_clean
    assert pieces(made) == {}
