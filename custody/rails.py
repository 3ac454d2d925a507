"""What the payout worker asks of a rail: the one door to how coins are carried out.

The machine, its postings and its steps are the same for every rail. A rail says what an attempt is
(a transaction, later a spend of outputs or a line of a bank file), how it is built, read and handed
over. `custody.evm_rail` is the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from chain.model import BroadcastReport, FeeQuote
from custody.payout_allocation import Allocation, BooksView, ChainView, Waiting
from custody.payout_model import Attempt, AttemptKind, Payout
from custody.signer.wire import Intent


class Rail(Protocol):
    """How one kind of payout reaches its payee. Everything that may not answer is asynchronous."""

    async def look(self, payouts: Sequence[Payout]) -> Mapping[UUID, ChainView | Waiting]:
        """Return what the outside says about each payout, in one look for all of them.

        Raises:
            WrongChain: another chain is served.
            NodeTrouble: the outside cannot be relied on now.
        """
        ...

    async def look_at_fees(self) -> FeeQuote:
        """Return what the outside asks for now."""
        ...

    async def count_final_slots(self, sender: str) -> int:
        """Return how many places of *sender* are used up: the next nonce of the chain."""
        ...

    async def count_fee_money(self, sender: str) -> int:
        """Return what *sender* has to pay fees with."""
        ...

    def plan(self, payout: Payout, seen: ChainView, books: BooksView) -> Allocation | Waiting:
        """Return the first attempt's transaction, or why it has to wait. Pure."""
        ...

    def draft(self, payout: Payout, number: int, planned: Allocation, now: datetime) -> Attempt:
        """Return an attempt that is built and not signed. Pure."""
        ...

    def replace(
        self, payout: Payout, attempt: Attempt, quote: FeeQuote, kind: AttemptKind
    ) -> Allocation:
        """Return what conflicts with *attempt* and is preferred to it. Pure."""
        ...

    def spend_nonce(self, payout: Payout, nonce: int, quote: FeeQuote) -> Allocation:
        """Return what uses a nonce of the payout's sender up and pays nobody. Pure."""
        ...

    def intent(self, payout: Payout, attempt: Attempt, own_path: str | None) -> Intent:
        """Return what the signer is told that the attempt does. Pure."""
        ...

    def read_signed(self, payout: Payout, attempt: Attempt, raw: bytes) -> str:
        """Return the id of the signed bytes, found to be the attempt. Pure.

        Raises:
            OutsideUnavailable: they are something else.
        """
        ...

    async def send(self, attempts: Sequence[Attempt]) -> list[BroadcastReport]:
        """Hand the stored bytes over and say what is known of each; never raises for the outside."""
        ...

    async def is_mined(self, tx_hash: str) -> bool:
        """Tell whether the outside has these bytes for a fact. False proves nothing."""
        ...
