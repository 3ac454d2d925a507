"""The rail of EVM chains: one look for many payouts, plain payments, bytes that are read back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

from chain.errors import CallReverted, WrongChain
from chain.evm.transactions import (
    UnsignedTransaction,
    decode_signed,
    decode_unsigned,
    encode_unsigned,
)
from chain.model import Block, BroadcastReport, FeeQuote
from chain.ports import ChainGateway
from custody.payout_allocation import (
    GAS_TRANSFER,
    Allocation,
    BooksView,
    ChainView,
    Waiting,
    build_transaction,
    bumped,
    find_token_refusal,
    plan_allocation,
    self_spend,
)
from custody.payout_model import Attempt, AttemptKind, AttemptState, ClaimKind, Payout
from custody.signer.wire import Intent
from kernel.errors import OutsideUnavailable
from kernel.ids import derive_id

QUESTIONS_MAX: Final = 16
"""Questions on the way to the node at once."""
PLAIN_FOR_BLOCKS: Final = 300
"""For how long an address that has no code is taken to have none: a contract may be put there."""
PLAIN_MAX: Final = 10_000
_ANY_GAS: Final = 100_000

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True)
class EvmRail:
    """Payouts through one EVM node, or several that agree."""

    gateway: ChainGateway
    _plain: dict[str, int] = field(default_factory=dict)

    async def look(self, payouts: Sequence[Payout]) -> Mapping[UUID, ChainView | Waiting]:
        """Return what the node says: each address, and each distinct call, is asked for once."""
        served = await self.gateway.chain_id()
        for payout in payouts:
            if payout.chain_id != served:
                raise WrongChain(
                    f"the node serves chain {served}, payout {payout.id} is for {payout.chain_id}"
                )
        head, fees = await self.gateway.head(), await self.gateway.fees()
        senders = {item.sender for item in payouts}
        nonces = await _ask_each(senders, self.gateway.next_nonce)
        held = {(item.sender, contract) for item in payouts for contract in (None, item.contract)}
        balances = await _ask_each(held, lambda key: self.gateway.balance(key[0], key[1], at=head))
        plain = await self._find_plain(payouts, head)
        gas = await _ask_each(
            {_call(item) for item in payouts if item.contract or item.destination not in plain},
            self._ask_gas,
        )
        refusals = await _ask_each(
            {(*_call(item), item.chain_amount) for item in payouts if item.contract},
            self._ask_token,
        )
        views: dict[UUID, ChainView | Waiting] = {}
        for item in payouts:
            found = gas.get(_call(item), GAS_TRANSFER)
            refusal = refusals.get((*_call(item), item.chain_amount), "")
            views[item.id] = ChainView(
                next_nonce=nonces[item.sender],
                fees=fees,
                gas=found if isinstance(found, int) else 0,
                native=balances[item.sender, None],
                coins=balances[item.sender, item.contract],
                revert=refusal or (found if isinstance(found, str) else ""),
            )
        return views

    async def look_at_fees(self) -> FeeQuote:
        """Return what the node bids for the next blocks."""
        return await self.gateway.fees()

    async def count_final_slots(self, sender: str) -> int:
        """Return the next nonce at the node's head."""
        return await self.gateway.next_nonce(sender)

    async def count_fee_money(self, sender: str) -> int:
        """Return the wei that *sender* has at the head."""
        return await self.gateway.balance(sender, None, at=await self.gateway.head())

    def plan(self, payout: Payout, seen: ChainView, books: BooksView) -> Allocation | Waiting:
        """Return the plain payment; see `custody.payout_allocation.plan_allocation`."""
        return plan_allocation(payout, seen, books)

    def draft(self, payout: Payout, number: int, planned: Allocation, now: datetime) -> Attempt:
        """Return an attempt that is built and not signed."""
        tx = planned.unsigned
        return Attempt(
            id=derive_id(payout.created_at, "payout_attempt", payout.id, number),
            payout_id=payout.id,
            number=number,
            chain=payout.chain,
            sender=payout.sender,
            nonce=tx.nonce,
            state=AttemptState.BUILT,
            unsigned=encode_unsigned(tx),
            gas_limit=tx.gas_limit,
            max_fee_per_gas=tx.max_fee_per_gas,
            max_priority_fee_per_gas=tx.max_priority_fee_per_gas,
            tx_hash=None,
            raw=None,
            broadcasts=0,
            last_broadcast_at=None,
            detail="",
            built_at=now,
            signed_at=None,
            kind=planned.kind,
        )

    def replace(
        self, payout: Payout, attempt: Attempt, quote: FeeQuote, kind: AttemptKind
    ) -> Allocation:
        """Return the same nonce again for an eighth more, as the same payment or as none."""
        old = decode_unsigned(attempt.unsigned, chain_id=payout.chain_id)
        fees = bumped(old, quote)
        if kind is AttemptKind.CANCEL:
            return Allocation(old.nonce, self_spend(payout, old.nonce, fees), kind)
        tx: UnsignedTransaction = replace(
            old,
            max_fee_per_gas=fees.max_fee_per_gas,
            max_priority_fee_per_gas=fees.max_priority_fee_per_gas,
        )
        return Allocation(old.nonce, tx, kind)

    def spend_nonce(self, payout: Payout, nonce: int, quote: FeeQuote) -> Allocation:
        """Return nothing, sent from the payout's sender to itself."""
        return Allocation(nonce, self_spend(payout, nonce, quote), AttemptKind.CANCEL)

    def intent(self, payout: Payout, attempt: Attempt, own_path: str | None) -> Intent:
        """Return what the signer is told that the attempt does."""
        pays = attempt.kind is AttemptKind.PAY
        own = payout.parsed_claim.kind is ClaimKind.OWN
        return Intent(
            payout_id=payout.id,
            kind="cancel" if not pays else "own" if own else "pay",
            wallet=payout.source_wallet,
            client=payout.signed_client if pays else None,
            destination_path=own_path if pays else None,
            chain=payout.chain,
            chain_id=payout.chain_id,
            key_path=payout.sender_path,
            sender=payout.sender,
            nonce=attempt.nonce,
            destination=payout.destination if pays else payout.sender,
            asset=payout.asset if pays else payout.native_asset,
            contract=payout.contract if pays else None,
            amount=str(payout.chain_amount) if pays else "0",
            fee_cap=str(attempt.gas_limit * attempt.max_fee_per_gas),
            initiator=payout.requested_by,
            policy_version=payout.policy_version,
            rule=payout.rule,
        )

    def read_signed(self, payout: Payout, attempt: Attempt, raw: bytes) -> str:
        """Return the hash of the signed transaction: the attempt's, signed by the sender."""
        tx = decode_signed(raw, chain_id=payout.chain_id)
        meant = decode_unsigned(attempt.unsigned, chain_id=payout.chain_id)
        if tx.unsigned != meant or tx.sender != payout.sender or tx.raw != raw:
            raise OutsideUnavailable(
                "the signer signed something else, or with another key",
                where=f"payout {payout.id}",
                remedy="Check which keystore the signer runs with",
            )
        return tx.tx_hash

    async def send(self, attempts: Sequence[Attempt]) -> list[BroadcastReport]:
        """Hand stored bytes to the node, in the order of their nonces."""
        items = []
        for attempt in attempts:
            assert attempt.raw is not None and attempt.tx_hash is not None  # noqa: PT018  the table says so
            items.append((attempt.raw, attempt.tx_hash))
        return await self.gateway.broadcast_many(items)

    async def is_mined(self, tx_hash: str) -> bool:
        """Tell whether a block of the node has the transaction."""
        return await self.gateway.find_transaction(tx_hash) is not None

    async def _find_plain(self, payouts: Sequence[Payout], head: Block) -> frozenset[str]:
        """Return the payees of native coins that have no code: paying them costs 21,000."""
        payees = {item.destination for item in payouts if item.contract is None}
        known = {
            payee
            for payee in payees
            if head.height - self._plain.get(payee, -PLAIN_FOR_BLOCKS) < PLAIN_FOR_BLOCKS
        }
        codes = await _ask_each(payees - known, self.gateway.code_at)
        found = {payee for payee, code in codes.items() if not code}
        if len(self._plain) + len(found) > PLAIN_MAX:
            self._plain.clear()
        self._plain.update(dict.fromkeys(found, head.height))
        return frozenset(known | found)

    async def _ask_gas(self, call: _Call) -> int | str:
        sender, recipient, value, data = call
        try:
            return await self.gateway.estimate_gas(
                sender=sender, recipient=recipient, value=value, data=data
            )
        except CallReverted as error:
            return error.what

    async def _ask_token(self, asked: tuple[str, str, int, bytes, int]) -> str:
        """Return why a token would not move the coins, though a receipt would call it a success."""
        sender, recipient, value, data, _ = asked
        result = await self.gateway.simulate(
            sender=sender, recipient=recipient, value=value, data=data
        )
        has_code = bool(result.returned) or bool(await self.gateway.code_at(recipient))
        return find_token_refusal(result, has_code=has_code)


_Call = tuple[str, str, int, bytes]


def _call(payout: Payout) -> _Call:
    # Any nonce and fee do: only recipient, value and data are looked at.
    tx = build_transaction(payout, 0, FeeQuote(0, 0), _ANY_GAS)
    return payout.sender, tx.recipient, tx.value, tx.data


async def _ask_each(keys: Collection[K], ask: Callable[[K], Awaitable[V]]) -> dict[K, V]:
    """Ask about each key, a bounded number of questions at once.

    Raises:
        CausewayError: what the first question that failed raised; the others are given up.
    """
    gate = asyncio.Semaphore(QUESTIONS_MAX)

    async def one(key: K) -> V:
        async with gate:
            return await ask(key)

    try:
        async with asyncio.TaskGroup() as tasks:
            asked = {key: tasks.create_task(one(key)) for key in keys}
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    return {key: task.result() for key, task in asked.items()}
