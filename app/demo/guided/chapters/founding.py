"""The house is founded: people, wallets, a venue, a bank, and the first client's money."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from app.demo.deposits import ACME, ACME_WALLET, BIRCH_WALLET, STRANGER, until_credited
from app.demo.desk import SYMBOL
from app.demo.founding import CLIENT_POOL, DEPTH, ISSUER, open_the_house, pay_in_capital
from app.demo.guided.chapter import Chapter
from app.demo.guided.tour import CLIENT_EUR, HOUSE_EUR, Tour
from app.demo.stage import BOOK
from custody.model import AddressPurpose
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from registry.testing import BANK_ACCOUNTS, EUR, change
from trading.venue_accounts import open_venue_account

CLIENTS, HOUSE = BANK_ACCOUNTS
CENTS: Final = 100


async def found_the_house(tour: Tour) -> None:
    """Found everything that the chapters need, and compare it with the outside for the first time."""
    stage = tour.stage
    tour.say(
        "A desk that settles for clients begins here, on this machine: a real PostgreSQL, a chain, a",
        "trading venue, a bank, and a signer in a process of its own, which alone has the keys.",
    )
    signer = await open_the_house(stage)
    await pay_in_capital(stage)
    await _open_bank_accounts(tour)
    room = await tour.connect(signer)
    await open_venue_account(
        stage.world.engine, room.gateway, [SYMBOL], book=BOOK, clock=stage.clock
    )
    stage.note("the account at the venue is opened in the books")
    await _first_client(tour)
    tour.say(
        "Below is the table to watch. The ledger says what the house has; chain, venue and bank are",
        "asked themselves, each time. A difference that nobody can explain is money lost or made up.",
    )
    await tour.prove_places()


async def _open_bank_accounts(tour: Tour) -> None:
    stage = tour.stage
    now = stage.clock.now()
    for record in (EUR, *BANK_ACCOUNTS):
        await stage.do(lambda conn, record=record: change(conn, record, now=now))  # type: ignore[misc]
    stage.assets[EUR.code] = EUR
    await stage.do(lambda conn: _open_balances(conn, now))
    stage.note(
        f"two accounts at the bank, with {stage.money(CLIENT_EUR * CENTS, 'EUR')} of clients and "
        f"{stage.money(HOUSE_EUR * CENTS, 'EUR')} of the house"
    )


async def _open_balances(conn: AsyncConnection, now: datetime) -> None:
    """Post what lies at the bank when the books begin: the client's is owed to the client."""
    lines = (
        (f"bank:{CLIENTS.code}", f"client:{ACME}", CLIENT_EUR * CENTS),
        (f"bank:{HOUSE.code}", "equity:opening", HOUSE_EUR * CENTS),
    )
    keys = {(path, EUR.code) for debit, credit, _ in lines for path in (debit, credit)}
    owners = {f"bank:{item.code}": item.owner for item in BANK_ACCOUNTS}
    await ensure_accounts(conn, BOOK, keys, owners=owners)
    batch = [
        transfer(
            derive_id(now, "bank-opening", path),
            path,
            credit,
            amount,
            EUR.code,
            code="bank.opening",
        )
        for path, credit, amount in lines
    ]
    require_applied(await post(conn, BOOK, batch))


async def _first_client(tour: Tour) -> None:
    stage = tour.stage
    out = stage.world.outsiders
    for wallet in (ACME_WALLET, BIRCH_WALLET, STRANGER):
        await out.send_token(ISSUER, out.address(wallet), stage.units("200000 USDT"))
    await stage.mine_and_follow()
    address = await stage.address(CLIENT_POOL, AddressPurpose.DEPOSIT, ACME)
    await out.send_ether(ACME_WALLET, address, stage.units("8 ETH"))
    await stage.mine_and_follow(DEPTH)
    await until_credited(stage, ACME)


CHAPTER: Final = Chapter(
    "founding",
    "A house is founded",
    "Who has the keys, and who says what the house owns?",
    found_the_house,
)
