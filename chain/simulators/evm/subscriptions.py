"""What a subscriber is told about an event of the chain (``eth_subscribe``)."""

from __future__ import annotations

from dataclasses import dataclass

from chain.simulators.evm.errors import InvalidParams
from chain.simulators.evm.logs import LogFilter, logs_of
from chain.simulators.evm.model import BlockAdded, BlockRemoved, ChainEvent, PendingSeen
from chain.simulators.evm.params import Params, read_filter
from chain.simulators.evm.wire import Json, header_json, hex_data, log_json, transaction_json


@dataclass(frozen=True, slots=True)
class NewHeads:
    """Every block that becomes the head, those of a new branch included."""

    def tell(self, event: ChainEvent) -> list[Json]:
        """Return the notifications for one event."""
        return [header_json(event.block)] if isinstance(event, BlockAdded) else []


@dataclass(frozen=True, slots=True)
class Logs:
    """Every selected log, and again with ``removed`` when a reorg takes its block away."""

    wanted: LogFilter

    def tell(self, event: ChainEvent) -> list[Json]:
        """Return the notifications for one event."""
        match event:
            case BlockAdded(block):
                return [log_json(placed) for placed in logs_of(block, self.wanted)]
            case BlockRemoved(block):
                return [log_json(placed, removed=True) for placed in logs_of(block, self.wanted)]
            case PendingSeen():
                return []


@dataclass(frozen=True, slots=True)
class PendingTransactions:
    """Every transaction that enters the pool, as its hash or in full."""

    full: bool

    def tell(self, event: ChainEvent) -> list[Json]:
        """Return the notifications for one event."""
        if not isinstance(event, PendingSeen):
            return []
        transaction = event.transaction
        return [transaction_json(transaction) if self.full else hex_data(transaction.hash)]


Subscription = NewHeads | Logs | PendingTransactions


def read_subscription(params: Params) -> Subscription:
    """Return what ``eth_subscribe`` asks for.

    Raises:
        InvalidParams: there is no subscription of that kind.
    """
    kind = params.need(0, "subscription kind")
    match kind:
        case "newHeads":
            return NewHeads()
        case "logs":
            return Logs(read_filter(params.mapping(1, "filter") if params.get(1) else {}))
        case "newPendingTransactions":
            return PendingTransactions(full=params.flag(1, "full", default=False))
        case _:
            raise InvalidParams(f"no {kind!r} subscription in eth namespace")
