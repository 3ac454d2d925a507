"""What a writer knows of a book from one batch to the next, so that it need not be read again.

It may only be believed while nobody else writes to the book: that is known when the head, locked,
has the sequence number that is carried. Everything a batch does to a book raises that number, so
when it is the same, balances, flags, closed days and ids are as they were left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ledger.model import Kind
from ledger.state import Request, Snapshot

ACCOUNTS_MAX: Final = 250_000
"""Accounts carried, at most; about 500 bytes each."""


@dataclass(slots=True)
class Carried:
    """A book as this writer left it, or will have left it once what it has decided is committed.

    Attributes:
        snapshot: accounts with the balances that they will then have, and the sequence.
        committed: the last sequence that is known to be committed.
        open_leaves: leaf hashes of the tree's incomplete tile, after the last block written.
    """

    snapshot: Snapshot
    committed: int
    open_leaves: list[bytes] | None = None
    accounts_max: int = ACCOUNTS_MAX

    def make_room(self) -> None:
        """Forget accounts, if there are too many; only for whoever decides next, before it begins."""
        snapshot = self.snapshot
        surplus = len(snapshot.accounts) - self.accounts_max
        if surplus <= 0:
            return
        # What a batch has changed that is not committed yet cannot be read again: it stays.
        # Half of the rest goes at once, so that this is done seldom.
        wanted = surplus + self.accounts_max // 2
        settled = [a for a in snapshot.accounts.values() if a.sequence <= self.committed][:wanted]
        for account in settled:
            del snapshot.accounts[account.number]
            del snapshot.by_key[account.path, account.asset]


def is_plain(batch: Sequence[Request]) -> bool:
    """Tell whether a batch can be decided before its block's time and its history are known."""
    return all(
        item.fault is None
        and (item.transfer.kind is Kind.SINGLE or item.transfer.kind is Kind.PENDING)
        and item.transfer.timeout is None
        and item.transfer.effective_at is None
        and not item.transfer.imported
        for item in batch
    )
