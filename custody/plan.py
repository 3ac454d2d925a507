"""A plan: everything one step does to the books, collected before anything is posted.

A step of a chain touches deposits, receipts and payouts. Each of them locks its rows, writes what
has to be unique, and returns a plan; the plans are merged, and `custody.books.apply_plan` makes the
accounts, posts, and records the events. So the ledger is waited for once, and last.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from kernel.events import DomainEvent
from ledger.model import Transfer


@dataclass(slots=True)
class Plan:
    """Postings and events of one step, in order.

    Attributes:
        accounts: (path, asset) of every account that the transfers need.
        owners: owner class by path (``client``, ``client:<party>``, ``house``), where it is not
            the chart's own.
        transfers: linked into chains where they stand or fall together.
        events: of rows that the caller has locked and already written.
    """

    accounts: set[tuple[str, str]] = field(default_factory=set)
    owners: dict[str, str] = field(default_factory=dict)
    transfers: list[Transfer] = field(default_factory=list)
    events: list[DomainEvent] = field(default_factory=list)

    def need(self, path: str, asset: str, *, owner: str | None = None) -> None:
        """Ask for an account; *owner* is the owner class of a holding."""
        self.accounts.add((path, asset))
        if owner is not None:
            self.owners[path] = owner

    def post(self, *transfers: Transfer) -> None:
        """Add one chain of transfers; both accounts of each are asked for."""
        for item in transfers:
            for path in (item.debit, item.credit):
                if path:
                    self.accounts.add((path, item.asset))
        last = len(transfers) - 1
        self.transfers.extend(
            replace(item, linked=position != last) for position, item in enumerate(transfers)
        )

    def tell(self, *events: DomainEvent) -> None:
        """Add events."""
        self.events.extend(events)

    def merge(self, others: Iterable[Plan]) -> Plan:
        """Return this plan followed by *others*."""
        merged = Plan(
            set(self.accounts), dict(self.owners), list(self.transfers), list(self.events)
        )
        for other in others:
            merged.accounts |= other.accounts
            merged.owners |= other.owners
            merged.transfers += other.transfers
            merged.events += other.events
        return merged
