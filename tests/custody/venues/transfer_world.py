"""The small desk of payouts, with an account at a venue whose treasury does as it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.follow import get_cursor
from chain.testing import ScriptedTransaction
from custody.allow_list import destination_bytes, get_destination
from custody.deposits import advance_deposits
from custody.payout_model import Payout, PayoutState
from custody.payouts import get_payout
from custody.policy import ConfirmationPolicy
from custody.venues import store
from custody.venues.addresses import (
    address_bytes,
    approve_address,
    draft_address,
    propose_address,
)
from custody.venues.deposits import send_to_venue
from custody.venues.model import (
    Place,
    RegisteredAddress,
    TransferPolicy,
    VenueDeposit,
    VenueWithdrawal,
    WithdrawalRequest,
    WorkReport,
)
from custody.venues.withdrawals import (
    approval_bytes,
    approve_withdrawal,
    request_withdrawal,
)
from custody.venues.worker import advance_venue_transfers
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from registry.testing import operator_keypair
from tests.custody.payout_world import BOOK, ETH, USDT, World, make_world
from venues.treasury_testing import ScriptedTreasury

PLACE = Place("sim", "main")
ADDRESS = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"
OTHER_ADDRESS = "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65"
VENUE = "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc"
"""From where the venue pays."""
ETHEREUM = "ETH"
FEE = ETH // 1_000
HELD = 50 * ETH
ROUTE_OUT = "transit:house-hot-sim/main"
ROUTE_IN = "transit:sim/main-house-hot"
POLICY = ConfirmationPolicy.uniform(3)
PATIENCE = TransferPolicy()


@dataclass
class TransferWorld:
    """The desk, its treasury at the venue, and what the venue does on the chain."""

    desk: World
    treasury: ScriptedTreasury
    policy: TransferPolicy = PATIENCE
    holder: str = "treasurer-1"
    number: int = 0
    registered: dict[str, RegisteredAddress] = field(default_factory=dict)

    async def register(
        self, asset: str = "ETH", address: str = ADDRESS, **more: Any
    ) -> RegisteredAddress:
        """Register a deposit address by ada and ben."""
        proposed = await self.propose(asset, address, **more)
        return await self.approve_address(proposed)

    async def propose(
        self, asset: str = "ETH", address: str = ADDRESS, by: str = "ada", **more: Any
    ) -> RegisteredAddress:
        now = self.desk.clock.now()
        given: dict[str, Any] = {
            "place": PLACE,
            "asset": asset,
            "network": ETHEREUM,
            "chain": "evm",
            "address": address,
            "by": by,
            **more,
        }

        async def work(conn: AsyncConnection) -> RegisteredAddress:
            draft = await draft_address(conn, now=now, **given)
            key = operator_keypair(by)
            there = draft.destination
            return await propose_address(
                conn,
                now=now,
                signature=key.sign(address_bytes(draft.address)),
                destination_signature=key.sign(destination_bytes(there)) if there else b"",
                **given,
            )

        return await self.desk.run(work)

    async def approve_address(
        self, proposed: RegisteredAddress, by: str = "ben"
    ) -> RegisteredAddress:
        async def work(conn: AsyncConnection) -> RegisteredAddress:
            from_list = destination_bytes(await get_destination(conn, proposed.destination_id))
            return await approve_address(
                conn,
                proposed.id,
                by=by,
                signature=operator_keypair(by).sign(address_bytes(proposed)),
                destination_signature=operator_keypair(by).sign(from_list),
                now=self.desk.clock.now(),
            )

        return await self.desk.run(work)

    async def send(self, amount: int = 3 * ETH, **changes: Any) -> tuple[Payout, VenueDeposit]:
        """Ask for a transfer to the venue."""
        self.number += 1
        given = {
            "client_ref": f"t-{self.number}",
            "source_wallet": "house-hot",
            "asset": "ETH",
            "amount": amount,
            "requested_by": "dan",
            **changes,
        }
        return await send_to_venue(
            self.desk.engine, self.treasury, book=BOOK, clock=self.desk.clock, **given
        )

    async def send_and_mine(self, amount: int = 3 * ETH, **changes: Any) -> Payout:
        """Ask for a transfer, have it approved and put into a block."""
        payout, _ = await self.send(amount, **changes)
        await self.desk.approve(payout)
        return await self.mine_payout(payout)

    async def mine_payout(self, payout: Payout) -> Payout:
        for _ in range(3):
            await self.desk.advance()
        await self.desk.mine()
        mined = await self.desk.get(payout)
        assert mined.state is PayoutState.MINED
        return mined

    async def confirm(self) -> None:
        """Let what is in blocks become final, on both sides of custody."""
        for _ in range(3):
            self.desk.gateway.mine()
        await self.desk.follow()
        await self.settle_chain()

    async def settle_chain(self) -> None:
        await self.desk.confirm()
        tip = await self.desk.run(lambda conn: get_cursor(conn, "evm"))
        assert tip is not None
        await advance_deposits(
            self.desk.engine,
            "evm",
            book=BOOK,
            tip=tip,
            finalized=await self.desk.gateway.finalized_height(),
            policy=POLICY,
            now=self.desk.clock.now(),
        )

    async def request(self, amount: int = 2 * ETH, **changes: Any) -> VenueWithdrawal:
        """Ask for a withdrawal from the venue."""
        self.number += 1
        given: dict[str, Any] = {
            "client_ref": f"f-{self.number}",
            "place": PLACE,
            "wallet": "house-hot",
            "asset": "ETH",
            "amount": amount,
            "requested_by": "dan",
            **changes,
        }
        request = WithdrawalRequest(**given)
        (offered,) = await self.treasury.networks(request.asset)
        return await self.desk.run(
            lambda conn: request_withdrawal(
                conn, request, offered=offered, book=BOOK, now=self.desk.clock.now()
            )
        )

    async def approve(self, item: VenueWithdrawal, by: str = "ben") -> VenueWithdrawal:
        return await self.desk.run(
            lambda conn: approve_withdrawal(
                conn,
                item.id,
                by=by,
                signature=operator_keypair(by).sign(approval_bytes(item)),
                now=self.desk.clock.now(),
            )
        )

    async def approved(self, amount: int = 2 * ETH, **changes: Any) -> VenueWithdrawal:
        return await self.approve(await self.request(amount, **changes))

    async def work(self, seconds: float = 10, holder: str = "") -> WorkReport:
        """Let time pass, and the worker work once."""
        self.desk.clock.advance(timedelta(seconds=seconds))
        return await advance_venue_transfers(
            self.desk.engine,
            self.treasury,
            book=BOOK,
            holder=holder or self.holder,
            clock=self.desk.clock,
            policy=self.policy,
        )

    async def venue_pays(self, venue_ref: str) -> str:
        """Have the venue pay a withdrawal in the next block; return its transaction."""
        self.number += 1
        item = self.treasury.withdrawals[venue_ref]
        tx = payment(item.address, item.sent, salt=str(self.number))
        self.treasury.pay(venue_ref, tx.hash)
        self.desk.gateway.mine(tx)
        await self.desk.follow()
        return tx.hash

    async def get(self, item: VenueWithdrawal) -> VenueWithdrawal:
        return await self.desk.run(lambda conn: store.get_withdrawal(conn, item.id))

    async def outward(self, payout: Payout) -> VenueDeposit:
        rows = await self.desk.run(lambda conn: store.list_deposits_of(conn, [payout.id]))
        return rows[payout.id]

    async def rows_out(self) -> list[VenueDeposit]:
        return await self.desk.run(lambda conn: store.list_deposits(conn, book=BOOK))

    async def rows_back(self) -> list[VenueWithdrawal]:
        return await self.desk.run(lambda conn: store.list_withdrawals(conn, book=BOOK))

    async def outward_payouts(self) -> list[Payout]:
        async def read(conn: AsyncConnection) -> list[Payout]:
            return [await get_payout(conn, row.payout_id) for row in await self._rows(conn)]

        return await self.desk.run(read)

    async def _rows(self, conn: AsyncConnection) -> list[VenueDeposit]:
        return await store.list_deposits(conn, book=BOOK)

    async def balance(self, path: str, asset: str = "ETH") -> int:
        return (await self.desk.books()).get((path, asset), (0, 0, 0))[0]

    async def assert_at_rest(self, asset: str = "ETH") -> None:
        """Nothing is in transit or held, and the books owe to the venue what it owes us."""
        for (path, of), figures in (await self.desk.books()).items():
            assert not path.startswith(("transit:", "suspense:")), (path, of, figures)
        assert await self.balance(PLACE.path, asset) == self.treasury.balances[asset]


def payment(to: str, amount: int, *, sender: str = VENUE, salt: str = "") -> ScriptedTransaction:
    """Return a transaction that the venue, or a stranger, sends."""
    return ScriptedTransaction(sender=sender, recipient=to, value=amount, salt=salt)


@asynccontextmanager
async def make_transfer_world(
    engine: AsyncEngine, folder: Path, **changes: Any
) -> AsyncIterator[TransferWorld]:
    """Open the desk with what the venue holds for it, and both addresses registered."""
    async with make_world(engine, folder) as desk:
        treasury = ScriptedTreasury(desk.clock, **changes)
        treasury.offer("ETH", ETHEREUM, ADDRESS, fee=FEE)
        treasury.offer("USDT", ETHEREUM, ADDRESS, fee=USDT)
        treasury.balances = {"ETH": HELD, "USDT": 0}
        desk.gateway.fund(VENUE, 10**6 * ETH)
        world = TransferWorld(desk, treasury)
        await desk.run(lambda conn: _open_venue(conn, world))
        await world.register()
        yield world


async def _open_venue(conn: AsyncConnection, world: TransferWorld) -> None:
    now = world.desk.clock.now()
    await ensure_accounts(conn, BOOK, {(PLACE.path, "ETH"), ("equity:opening", "ETH")}, now=now)
    opening = transfer(
        derive_id(now, "venue-opening"), PLACE.path, "equity:opening", HELD, "ETH", code="test"
    )
    require_applied(await post(conn, BOOK, [opening], now=now))
