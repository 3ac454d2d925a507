"""The desk of the payout tests with clients who pay in, and rules for where coins should lie."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from chain.follow import get_cursor
from chain.testing import ScriptedTransaction, ScriptedTransfer
from custody.addresses import assign_address
from custody.deposits import advance_deposits, list_deposits
from custody.model import AddressPurpose
from custody.payout_model import Payout, PayoutState
from custody.payouts import list_payouts
from custody.policy import ConfirmationPolicy
from custody.rebalance.model import RebalanceReport
from custody.rebalance.rules import approve_rules, propose_rules, rules_bytes
from custody.rebalance.worker import advance_rebalance
from registry.testing import operator_keypair
from tests.custody.payout_world import BOOK, STRANGER, World

ETHER = 10**18
DEFAULT_RULES: dict[str, Any] = {
    "window_s": 600,
    "lifetime_s": 3600,
    "bands": [],
    "sweeps": [
        {"wallet": "client-pool", "asset": "USDT", "minimum": "50", "fee_max": "0.01"},
        {"wallet": "client-pool", "asset": "ETH", "minimum": "0.5", "fee_max": "0.01"},
    ],
}


async def set_rules(world: World, document: dict[str, Any] | None = None) -> int:
    """Put rules in force by two test operators."""
    text = json.dumps(document or DEFAULT_RULES)

    async def work(conn: Any) -> int:
        now = world.clock.now()
        row = await propose_rules(conn, text, chains=["evm"], by="ada", now=now)
        signature = operator_keypair("ben").sign(rules_bytes(row))
        await approve_rules(conn, row.rules.version, by="ben", signature=signature, now=now)
        return row.rules.version

    return await world.run(work)


@dataclass(slots=True)
class Treasury:
    """What happens in a treasury, step by step, on a scripted chain."""

    world: World
    policy: ConfirmationPolicy = field(default_factory=lambda: ConfirmationPolicy.uniform(1))
    salt: int = 0

    async def client_address(self, party: str = "acme", reference: str = "") -> str:
        async def work(conn: Any) -> str:
            given = await assign_address(
                conn,
                "client-pool",
                purpose=AddressPurpose.DEPOSIT,
                party=party,
                reference=reference,
                now=self.world.clock.now(),
            )
            return given.address

        return await self.world.run(work)

    async def pay_in(self, address: str, amount: int, *, token: bool = False) -> None:
        """Let a stranger pay a client's address, and credit it."""
        gateway, contract = self.world.gateway, self.world.token
        gateway.fund(STRANGER, amount, contract if token else None)
        self.salt += 1
        moves = (ScriptedTransfer(contract, STRANGER, address, amount),) if token else ()
        gateway.mine(
            ScriptedTransaction(
                sender=STRANGER,
                recipient=contract if token else address,
                value=0 if token else amount,
                transfers=moves,
                fee=0,
                salt=str(self.salt),
            )
        )
        await self.credit()

    async def credit(self) -> None:
        await self.world.follow()
        tip = await self.world.run(lambda conn: get_cursor(conn, "evm"))
        assert tip is not None
        finalized = await self.world.gateway.finalized_height()
        await advance_deposits(
            self.world.engine,
            "evm",
            book=BOOK,
            tip=tip,
            finalized=finalized,
            policy=self.policy,
            now=self.world.clock.now(),
        )

    async def turn(self) -> RebalanceReport:
        """One turn of the job, in the present window."""
        return await advance_rebalance(
            self.world.engine, self.world.gateway, chain="evm", book=BOOK, clock=self.world.clock
        )

    async def next_window(self) -> RebalanceReport:
        self.world.clock.advance(timedelta(minutes=10))
        return await self.turn()

    async def own_transfers(self) -> list[Payout]:
        """Own transfers that the job asked for, the oldest first."""
        found = await self.world.run(lambda conn: list_payouts(conn, book=BOOK))
        return [item for item in found if item.requested_by == "system:rebalance"]

    async def approve_all(self) -> list[Payout]:
        waiting = [
            item
            for item in await self.own_transfers()
            if item.state is PayoutState.PENDING_APPROVAL
        ]
        return await self.world.approve(*waiting) if waiting else []

    async def carry_out(self) -> None:
        """Approve, sign, send, mine and confirm what was asked for."""
        await self.approve_all()
        await self.world.advance()
        await self.world.mine(3)
        await self.credit()
        await self.world.confirm()

    async def held_at(self, address: str, *, token: bool = False) -> int:
        head = await self.world.gateway.head()
        contract = self.world.token if token else None
        return int(await self.world.gateway.balance(address, contract, at=head))

    async def deposit_states(self) -> list[str]:
        found = await self.world.run(list_deposits)
        return [str(item.state) for item in found]
