"""There and back on a real node and at a venue of either dialect, through the unmodified ccxt class."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.evm.gateway import EvmGateway
from chain.simulators.testing import JsonRpc, start_evm_process
from custody.payout_model import PayoutState
from custody.signer.testing import local_signer, rules_for
from custody.venues.model import Place, VenueDepositState, WithdrawalState
from kernel.clock import ManualClock, SystemClock
from kernel.ids import derive_id
from kernel.money import Asset
from kernel.settings import Secret
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from registry.testing import DEMO_OPERATORS, demo_founding
from tests.custody.payout_world import BOOK, ETH, RealWorld, found_house
from tests.custody.venues.transfer_world import ADDRESS, PLACE, ROUTE_IN, ROUTE_OUT, TransferWorld
from venues.ccxt.endpoint import Credentials, Endpoint
from venues.ccxt.treasury import CcxtTreasury, TreasurySettings, open_treasury
from venues.records import capabilities_of
from venues.simulator.testing import SimulatorProcess

NETWORKS = {"binance": "ETH", "kraken": "Ethereum"}
REQUESTS = {"binance": "/sapi/v1/capital/withdraw/apply", "kraken": "/0/private/Withdraw"}
HELD = 1_000 * ETH
FEE = ETH // 2_000
HOT = 20 * ETH


class WallClock(ManualClock):
    """The machine's time: a venue has a clock of its own, and nobody can wind that on."""

    def now(self) -> datetime:
        return SystemClock().now()

    def advance(self, by: timedelta) -> datetime:
        del by
        return self.now()


class EndToEnd(TransferWorld):
    """The desk before a real node, and a venue that is a process of its own."""

    sim: SimulatorProcess
    rpc: JsonRpc

    async def confirm(self) -> None:
        assert isinstance(self.desk, RealWorld)
        await self.desk.mine(3)
        await self.settle_chain()

    async def venue_sends(self, to: str, amount: int) -> str:
        """Have the venue's own wallet pay in the next block."""
        fields = {"from": ADDRESS, "to": to, "value": hex(amount)}
        tx: str = await self.rpc.call("eth_sendTransaction", fields)
        await self.desk.mine()
        return tx

    def truth(self) -> dict[str, Any]:
        account: dict[str, Any] = self.sim.state()["accounts"]["desk"]
        return account


@pytest.fixture(params=list(NETWORKS))
def sim(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SimulatorProcess]:
    options = ("--step-ms", "0", "--withdrawal-ms", "-1", "--dialect", request.param)
    with SimulatorProcess(tmp_path / "venue", *options) as process:
        process.ready["dialect"] = request.param
        yield process


@pytest.fixture
async def treasury(sim: SimulatorProcess) -> AsyncIterator[CcxtTreasury]:
    wanted = TreasurySettings(
        venue=PLACE.venue,
        account=PLACE.account,
        capabilities=capabilities_of(sim.ready["dialect"]),
        endpoint=Endpoint(http_url=sim.url),
        credentials=Credentials(
            api_key=sim.ready["withdraw_api_key"], secret=Secret(sim.ready["withdraw_secret"])
        ),
        assets={"ETH": Asset("ETH", 18)},
    )
    async with open_treasury(wanted, SystemClock()) as opened:
        yield opened


@pytest.fixture
async def world(
    engine: AsyncEngine, tmp_path: Path, sim: SimulatorProcess, treasury: CcxtTreasury
) -> AsyncIterator[EndToEnd]:
    clock, founding = WallClock(SystemClock().now()), demo_founding()
    rules = rules_for(founding.chains, founding.chain_assets, DEMO_OPERATORS)
    with start_evm_process() as process, local_signer(tmp_path, rules, clock=clock) as signer:
        async with (
            aiohttp.ClientSession() as session,
            EvmGateway(process.url, chain="evm", network_id=31337) as gateway,
        ):
            rpc = JsonRpc(process.url, session)
            desk = RealWorld(engine, gateway, signer, clock, rpc=rpc, vault=signer)
            await desk.run(lambda conn: found_house(conn, desk))
            await rpc.call("anvil_setBalance", desk.hot["house-hot"], hex(HOT))
            await rpc.call("evm_setAutomine", False)
            desk.start_height = await rpc.number("eth_blockNumber") + 1
            await desk.mine()
            made = EndToEnd(desk, treasury)  # type: ignore[arg-type]  # the port, not the fake
            made.sim, made.rpc = sim, rpc
            at = {"asset": "ETH", "network": "ETH", "address": ADDRESS}
            sim.control("POST", "deposit-address", at)
            if treasury.capabilities.names_addresses:
                ours = {**at, "name": "hot", "address": desk.hot["house-hot"]}
                sim.control("POST", "withdrawal-address", ours)
            await desk.run(lambda conn: _open_venue(conn, clock.now()))
            await made.register(network=NETWORKS[sim.ready["dialect"]])
            yield made


async def _open_venue(conn: AsyncConnection, now: datetime) -> None:
    await ensure_accounts(conn, BOOK, {(PLACE.path, "ETH"), ("equity:opening", "ETH")}, now=now)
    opening = transfer(
        derive_id(now, "venue"), PLACE.path, "equity:opening", HELD, "ETH", code="test"
    )
    require_applied(await post(conn, BOOK, [opening], now=now))


async def test_ether_goes_to_the_venue_and_comes_back_and_nothing_is_left_on_the_way(
    world: EndToEnd,
) -> None:
    payout = await world.send_and_mine(3 * ETH)
    assert await world.balance(ROUTE_OUT) == 3 * ETH
    await world.confirm()
    shown = {"asset": "ETH", "network": "ETH", "address": ADDRESS, "amount": "3"}
    world.sim.control("POST", "deposit", {**shown, "tx_id": payout.tx_hash})
    await world.work()
    assert (await world.outward(payout)).state is VenueDepositState.CREDITED
    paid = await world.desk.get(payout)
    assert paid.state is PayoutState.CONFIRMED

    item = await world.approved(2 * ETH)
    # The venue's answer to the request is cut off on its way: the list tells.
    skip = 2 if world.treasury.capabilities.names_addresses else 0
    path = REQUESTS[world.sim.ready["dialect"]]
    world.sim.fault("truncated_200", path, method="POST", skip=skip)
    await world.work()
    item = await world.get(item)
    # Some venues name a transaction before there is one, and then another.
    assert item.state in {WithdrawalState.DEBITED, WithdrawalState.SENT}, item.waiting_for
    (asked,) = world.truth()["withdrawals"]
    assert await world.balance(ROUTE_IN) == 2 * ETH - FEE

    tx = await world.venue_sends(item.address, 2 * ETH - FEE)
    settled = {"id": asked["id"], "status": "COMPLETED", "tx_id": tx}
    world.sim.control("POST", "withdrawal", settled)
    await world.work()
    await world.confirm()
    await world.work()

    assert (await world.get(item)).state is WithdrawalState.ARRIVED
    books = await world.desk.books()
    assert not [path for path, _ in books if path.startswith(("transit:", "suspense:"))]
    assert await world.balance(Place("sim", "main").path) == HELD + 3 * ETH - 2 * ETH
    held = await world.rpc.number("eth_getBalance", world.desk.hot["house-hot"], "latest")
    assert await world.balance("custody:house-hot") == held
    fees = (paid.fee_paid or 0) + FEE
    assert held + await world.balance(PLACE.path) == HOT + HELD - fees
