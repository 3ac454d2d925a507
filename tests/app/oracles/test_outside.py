"""Wallets, chain and bank against the books: asked themselves, and believed instead of the rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.oracles.catalogue import ON_CHAIN, PLACES
from app.oracles.model import Finding, Held, Oracle, Position
from app.oracles.on_chain import ask_chains
from app.oracles.outside import BankView, BitcoinView, EvmView, Outside, StatementView, VenueView
from app.oracles.places import positions, positions_of
from app.oracles.run import examine
from banks.simulator.bank import Bank
from chain.testing import ScriptedGateway
from custody.bitcoin.testing import CHAIN
from custody.payout_model import PayoutState
from custody.payouts import list_payouts
from kernel.db import transact
from kernel.errors import CausewayError
from registry.testing import ETH, TOKEN
from tests.app.oracles.house import BANK_OPENS_WITH, deposit, paid_in_coins, withdraw
from tests.app.oracles.planting import copied, sow
from tests.crash.test_settlement_killed import OURS, three_parties
from tests.custody.bitcoin.spend_world import BTC, PAYEES, make_spend_world
from tests.settlement.desk import ACME_WALLET, BOOK, CONFIRMATIONS, Desk, open_desk
from venues.model import VenueBalance
from venues.testing import ScriptedVenue

ETHER = 10**18
TRADE = """
INSERT INTO venues.fill (venue, account, symbol, trade_id, id, venue_order_id, side, price, base,
    base_units, quote, quote_units, quote_dust, fee_asset, fee_units, fee_dust, is_maker,
    executed_at, source, recorded_at)
VALUES ('scripted', 'desk', 'ETHUSDT', 't-1', :id, 'o-1', 'buy', '3000', 'ETH', :units, 'USDT', 0, 0,
    'USDT', 0, 0, false, '2026-01-05', 'poll', '2026-01-05')
"""


@pytest.fixture
async def desk(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(engine, tmp_path) as made:
        await three_parties(made)
        await deposit(made, "acme", "3")
        yield made


@pytest.fixture
def bank() -> Bank:
    made = Bank(date(2026, 1, 5))
    account = {"iban": OURS.iban, "currency": "EUR", "balance": BANK_OPENS_WITH}
    made.execute({"verb": "account", **account})
    return made


def outside(desk: Desk, bank: Bank) -> Outside:
    async def balances() -> Mapping[str, int]:
        return {item.iban: item.balance for item in bank.accounts.values()}

    return Outside(chains=[EvmView("evm", desk.gateway)], banks=[BankView(balances)])


async def found_by(desk: Desk, bank: Bank, *oracles: Oracle) -> list[tuple[str, str]]:
    report = await examine(desk.engine, oracles=oracles, outside=outside(desk, bank))
    assert [one.unknown for one in report.examined] == [()] * len(oracles)
    return [(item.where, item.what) for item in report.findings]


async def test_where_nothing_is_missing_each_asset_ties_out(desk: Desk, bank: Bank) -> None:
    rows = {row.asset: row for row in await positions(desk.engine, outside(desk, bank))}

    assert rows["ETH"] == Position(
        asset="ETH",
        ledger=33 * ETHER,
        chain=33 * ETHER,
        venue=None,
        bank=None,
        transit=0,
        unknown=0,
        difference=0,
    )
    assert (rows["EUR"].ledger, rows["EUR"].bank, rows["EUR"].chain) == (10**6, 10**6, None)
    assert {row.difference for row in rows.values()} == {0}
    assert await found_by(desk, bank, PLACES, ON_CHAIN) == []


async def test_coins_and_money_that_the_books_do_not_have_are_named_with_their_place(
    desk: Desk, bank: Bank
) -> None:
    desk.gateway.fund(desk.hot["house-hot"], ETH.parse("1"))
    bank.accounts[OURS.iban].balance -= 5

    assert await found_by(desk, bank, PLACES, ON_CHAIN) == [
        ("custody:house-hot ETH", f"the outside has {21 * ETHER}, the books {20 * ETHER}"),
        ("bank:house-eur EUR", "the outside has 999995, the books 1000000"),
    ]
    rows = await positions(desk.engine, outside(desk, bank))
    assert {row.asset: row.difference for row in rows} == {"ETH": ETHER, "EUR": -5, "USDT": 0}


async def test_a_credit_from_a_block_that_the_chain_no_longer_has_is_named(
    desk: Desk, bank: Bank
) -> None:
    desk.gateway.reorg(4, [[]] * 5)

    ((where, what),) = await found_by(desk, bank, ON_CHAIN)

    assert where.startswith("custody.deposit ")
    assert "1 arrivals are posted from block 0x" in what


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A payout of the desk that its chain has, and the transaction that paid it."""

    id: UUID
    tx_hash: str


@pytest.fixture
async def confirmed(desk: Desk) -> Confirmed:
    await withdraw(desk, "w-1")
    (payout,) = await desk.do(
        lambda conn: list_payouts(conn, book=BOOK, states={PayoutState.PENDING_APPROVAL})
    )
    await desk.send(payout.id)
    await desk.mine(CONFIRMATIONS)
    done = await desk.payout(payout.id)
    assert (done.state, done.tx_hash is None) == (PayoutState.CONFIRMED, False)
    return Confirmed(done.id, done.tx_hash or "")


async def planted(owner_engine: AsyncEngine, *statements: str) -> None:
    await transact(owner_engine, lambda conn: sow(conn, statements))


async def test_a_payout_that_the_chain_has_paid_twice_is_named_with_both_transactions(
    desk: Desk, bank: Bank, confirmed: Confirmed, owner_engine: AsyncEngine
) -> None:
    assert await found_by(desk, bank, ON_CHAIN) == []
    again = desk.transaction(ACME_WALLET, ETH.parse("1"), "ETH")
    desk.gateway.mine(again)
    await planted(
        owner_engine,
        # The rows call it superseded: only the chain knows that it was mined, too.
        copied(
            "custody.payout_attempt",
            f"id = '{UUID(int=9)}'; number = 99; tx_hash = '{again.hash}'; state = 'superseded';"
            " built_at = built_at + interval '1 second'",
        ),
    )

    assert await found_by(desk, bank, ON_CHAIN) == [
        (
            f"custody.payout {confirmed.id}",
            f"paid 2 times on evm: {again.hash}, {confirmed.tx_hash}",
        )
    ]


async def test_a_confirmed_payout_that_the_chain_no_longer_has_is_named(
    desk: Desk, bank: Bank, confirmed: Confirmed
) -> None:
    desk.gateway.reorg(CONFIRMATIONS, [[]] * (CONFIRMATIONS + 1))

    assert await found_by(desk, bank, ON_CHAIN) == [
        (
            f"custody.payout {confirmed.id}",
            "it is confirmed, and no transaction of it is in a block of evm",
        )
    ]


async def test_what_a_node_has_not_read_or_was_not_asked_about_is_not_known(
    desk: Desk, bank: Bank, confirmed: Confirmed
) -> None:
    assert confirmed.tx_hash
    behind = Outside(chains=[EvmView("evm", ScriptedGateway(tokens={TOKEN}))])
    (said,) = (await examine(desk.engine, oracles=[ON_CHAIN], outside=behind)).examined
    assert said.held
    (unknown,) = said.unknown
    assert unknown.startswith("evm: the node has no block at height ")

    said = await ask_chains(desk.engine, outside(desk, bank).chains, ON_CHAIN, most=1)
    assert (said.held, said.examined) == (True, 2)
    assert said.unknown == (
        "evm: transactions before the newest 1 were not asked about",
        "evm: blocks before the newest 1 were not asked about",
    )


async def test_coins_of_bitcoin_tie_out_and_one_that_nobody_booked_is_named(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    async with make_spend_world(engine, tmp_path) as world:
        await paid_in_coins(world)
        asked = Outside(chains=[BitcoinView(CHAIN, world.node)])

        report = await examine(engine, oracles=[PLACES, ON_CHAIN], outside=asked)
        report.require()
        assert [one.unknown for one in report.examined] == [(), ()]
        (row,) = [item for item in await positions(engine, asked) if item.asset == "BTC"]
        assert (row.ledger, row.difference) == (row.chain, 0)
        assert row.ledger

        world.node.fund(world.acme, 5)
        (found,) = (await examine(engine, oracles=[PLACES], outside=asked)).findings
        assert found.where == "custody:btc-pool BTC"
        assert found.what == f"the outside has {row.ledger + 5}, the books {row.ledger}"

        world.node.mine(world.node.pay((world.acme, 7)))
        behind = await examine(engine, oracles=[PLACES], outside=asked)
        assert behind.held
        assert "the node is at block" in behind.examined[0].unknown[0]


async def test_a_payout_that_two_spends_have_paid_is_named_by_the_chain(
    engine: AsyncEngine, owner_engine: AsyncEngine, tmp_path: Path
) -> None:
    async with make_spend_world(engine, tmp_path) as world:
        one, other = await paid_in_coins(world)
        again = world.node.pay((PAYEES[0], BTC))
        world.node.mine(again)
        second = UUID(int=9)
        await planted(
            owner_engine,
            copied("custody.spend", f"id = '{second}'; state = 'dropped'"),
            copied(
                "custody.spend_payout",
                f"spend_id = '{second}'; live = false",
                f"payout_id = '{one.id}'",
            ),
            copied(
                "custody.spend_attempt",
                f"id = '{second}'; spend_id = '{second}'; tx_id = '{again.tx_id}';"
                " state = 'superseded'",
            ),
        )
        asked = Outside(chains=[BitcoinView(CHAIN, world.node)])

        (found,) = (await examine(engine, oracles=[ON_CHAIN], outside=asked)).findings

        assert found.where == f"custody.payout {one.id}"
        assert found.what.startswith("paid 2 times on bitcoin: ")
        assert again.tx_id in found.what
        assert str(other.id) not in str(found)


async def test_a_node_that_gives_no_answer_hides_nothing_that_a_bank_says(
    desk: Desk, bank: Bank
) -> None:
    bank.accounts[OURS.iban].balance -= 5
    silent = EvmView("evm", ScriptedGateway(tokens={TOKEN}))
    asked = Outside(chains=[silent], banks=outside(desk, bank).banks)

    (places,) = (await examine(desk.engine, oracles=[PLACES], outside=asked)).examined

    assert [item.where for item in places.findings] == ["bank:house-eur EUR"]
    assert "custody:house-hot ETH: the books have" in "; ".join(places.unknown)
    with pytest.raises(CausewayError):
        await positions(desk.engine, asked)


async def test_whoever_was_not_asked_is_unknown_and_no_difference(desk: Desk) -> None:
    report = await examine(desk.engine, oracles=[PLACES], outside=Outside(banks=[StatementView()]))

    (places,) = report.examined
    assert report.held
    assert [line.partition(":")[0] for line in places.unknown] == [
        "bank",
        "custody",
        "custody",
        "custody",
    ]
    (row,) = [item for item in await positions(desk.engine) if item.asset == "ETH"]
    assert (row.ledger, row.unknown, row.chain, row.difference) == (33 * ETHER, 33 * ETHER, None, 0)


@dataclass(slots=True)
class WithPurse(ScriptedVenue):
    """A scripted venue that says what it holds."""

    purse: dict[str, int] = field(default_factory=dict)

    async def balances(self) -> list[VenueBalance]:
        return [
            VenueBalance(asset=asset, free=units, locked=0, dust=0)
            for asset, units in self.purse.items()
        ]


async def test_a_venue_is_believed_but_for_a_trade_that_is_recorded_and_not_posted(
    desk: Desk,
) -> None:
    await desk.capital(("venue:scripted/desk", "equity:capital", "2", "ETH"))
    venue = WithPurse(purse={"ETH": 3 * ETHER, "USDT": 0})
    asked = Outside(venues=[VenueView(venue, desk.clock)])

    (stolen,) = (await examine(desk.engine, oracles=[PLACES], outside=asked)).findings
    assert (stolen.where, stolen.what) == (
        "venue:scripted/desk ETH",
        f"the outside has {3 * ETHER}, the books {2 * ETHER}",
    )

    async def trade(conn: AsyncConnection) -> None:
        await conn.execute(text(TRADE), {"id": UUID(int=1), "units": ETHER})

    await desk.do(trade)
    assert (await examine(desk.engine, oracles=[PLACES], outside=asked)).held
    (row,) = [item for item in await positions(desk.engine, asked) if item.asset == "ETH"]
    assert (row.venue, row.difference) == (2 * ETHER, 0)


def held(place: str, books: int, outside_: int | None) -> Held:
    return Held(place=place, asset="ETH", books=books, outside=outside_)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ((held("custody:a", 5, 5), held("venue:v/d", 2, 3)), (7, 5, 3, None, 0, 0, 1)),
        ((held("custody:a", 5, None), held("custody:b", 4, 4)), (9, 4, None, None, 0, 5, 0)),
        ((held("bank:x", 5, 4), held("transit:a-v/d", 1, None)), (6, None, None, 4, 1, 0, -1)),
    ],
)
def test_a_row_says_what_is_there_and_what_is_not_known(
    items: tuple[Held, ...], expected: tuple[int | None, ...]
) -> None:
    (row,) = positions_of(items)

    names = ("ledger", "chain", "venue", "bank", "transit", "unknown", "difference")
    assert tuple(getattr(row, name) for name in names) == expected
    told = sum(part or 0 for part in (row.chain, row.venue, row.bank))
    assert row.ledger + row.difference == told + row.transit + row.unknown


def test_a_finding_reads_as_oracle_place_and_words() -> None:
    assert str(Finding("places", "bank:x EUR", "gone")) == "places: bank:x EUR: gone"
