"""The money side of the venue: what it takes from us on a chain, and what it pays out there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.testing import ScriptedGateway, ScriptedTransaction, ScriptedTransfer
from custody.allow_list import destination_bytes, get_destination
from custody.venues.addresses import (
    address_bytes,
    approve_address,
    draft_address,
    propose_address,
)
from custody.venues.model import Place
from registry.testing import ETH, TOKEN, USDT, operator_keypair
from tests.settlement.desk import Desk
from tests.simulation.stalling import Stall
from venues.treasury_model import WithdrawalPlacement, WithdrawalStatus, WithdrawalTicket
from venues.treasury_testing import ScriptedTreasury

PLACE: Final = Place("north", "main")
NETWORK: Final = "ETH"
TAKES_AT: Final = "0x14dC79964da2C08b23698B3D3cc7Ca32193d9955"
PAYS_FROM: Final = "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc"
FEES: Final = {ETH.code: 10**15, USDT.code: 10**6}
CREDITS_AFTER: Final = 7
"""Blocks on top of a payment before the venue credits it: more than any reorganisation takes away."""


@dataclass
class Vault(ScriptedTreasury):
    """A treasury that pays and is paid on the chain of accounts.

    Attributes:
        credited: transactions to us that it has credited.
        paid: its own transactions, by hash.
    """

    stalls: Callable[[], Stall] = Stall
    credited: set[str] = field(default_factory=set)
    paid: set[str] = field(default_factory=set)

    async def withdraw(self, ticket: WithdrawalTicket) -> WithdrawalPlacement:
        """Do what the script says; the answer may be long on its way."""
        placed = await ScriptedTreasury.withdraw(self, ticket)
        await self.stalls().after()
        return placed

    @property
    def processing(self) -> list[str]:
        """Return its ids of what it has accepted and neither paid nor given back."""
        found = self.withdrawals.values()
        return [item.venue_ref for item in found if item.status is WithdrawalStatus.PROCESSING]

    def ref_of(self, withdrawal_id: str) -> str | None:
        """Return the venue's id of a withdrawal of ours; None: the venue never had it."""
        for item in self.withdrawals.values():
            if item.withdrawal_id == withdrawal_id:
                return item.venue_ref
        return None

    def send(self, gateway: ScriptedGateway, venue_ref: str) -> str:
        """Put the payment of a withdrawal into the pool, and say so; return its hash."""
        item = self.withdrawals[venue_ref]
        contract = TOKEN if item.asset == USDT.code else None
        moved = (ScriptedTransfer(TOKEN, PAYS_FROM, item.address, item.sent),) if contract else ()
        made = ScriptedTransaction(
            sender=PAYS_FROM,
            recipient=contract or item.address,
            value=0 if contract else item.sent,
            nonce=len(self.paid),
            transfers=moved,
            salt=venue_ref,
        )
        gateway.announce(made)
        self.paid.add(made.hash)
        self.pay(venue_ref, made.hash)
        return made.hash

    def credit(self, gateway: ScriptedGateway) -> int:
        """Credit what lies deep enough on the chain; return how many that were."""
        deep = gateway.transactions[:-CREDITS_AFTER]
        count = 0
        for made in [item for block in deep for item in block]:
            for moved in made.movements():
                if moved.recipient == TAKES_AT and made.hash not in self.credited:
                    asset = ETH.code if moved.contract is None else USDT.code
                    self.show_deposit(made.hash, asset, NETWORK, moved.amount)
                    self.credited.add(made.hash)
                    count += 1
        return count


async def open_vault(desk: Desk, stalls: Callable[[], Stall]) -> Vault:
    """Do business in both assets, at an address that two people have registered."""
    vault = Vault(desk.clock, PLACE.venue, PLACE.account, stalls=stalls)
    vault.balances = dict.fromkeys(FEES, 0)
    for asset, fee in FEES.items():
        vault.offer(asset, NETWORK, TAKES_AT, fee=fee)
        await desk.do(partial(_register, asset=asset, now=desk.now))
    desk.gateway.fund(PAYS_FROM, 10**24)
    desk.gateway.fund(PAYS_FROM, 10**18, TOKEN)
    return vault


async def _register(conn: AsyncConnection, *, asset: str, now: datetime) -> None:
    given = {"place": PLACE, "asset": asset, "network": NETWORK, "chain": "evm"}
    given |= {"address": TAKES_AT, "by": "ada"}
    draft = await draft_address(conn, now=now, **given)  # type: ignore[arg-type]
    ada, ben = operator_keypair("ada"), operator_keypair("ben")
    there = draft.destination
    proposed = await propose_address(
        conn,
        now=now,
        signature=ada.sign(address_bytes(draft.address)),
        destination_signature=ada.sign(destination_bytes(there)) if there else b"",
        **given,  # type: ignore[arg-type]
    )
    listed = destination_bytes(await get_destination(conn, proposed.destination_id))
    await approve_address(
        conn,
        proposed.id,
        by="ben",
        signature=ben.sign(address_bytes(proposed)),
        destination_signature=ben.sign(listed),
        now=now,
    )
