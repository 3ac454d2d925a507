"""Where receipts come from: chains and banks, as one list of values; and how they are marked.

A receipt is `custody`'s row. It is marked in the transaction that moves it out of suspense, after its
row was locked, so it is moved once, whoever is quick.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.follow import get_following
from chain.model import FollowState
from custody.banks.entry_model import BankReceipt, BankReceiptKind, BankReceiptState
from custody.banks.receipts import (
    SUSPENSE,
    list_bank_receipts,
    lock_bank_receipts,
    mark_bank_receipt_unmatched,
    mark_bank_receipts_matched,
)
from custody.deposit_model import Receipt, ReceiptState
from custody.receipts import (
    list_nobodys,
    list_receipts,
    lock_receipts,
    mark_many_matched,
    mark_unmatched,
)
from registry.model import CHAIN_KINDS, HOUSE
from registry.queries import list_bank_accounts, list_chains, list_wallets
from settlement.matching.model import Incoming
from trading.terms.model import Rail

PAGE: Final = 500
WAITING_MAX: Final = 100_000
"""Unmatched receipts of chains, and as many of banks, that are looked at in one go; the oldest first.

Each has its own, so that dust which strangers send to an address keeps no bank's credit waiting.
"""
BANK_EPOCH: Final = 1
"""A booked entry never vanishes: what a bank takes back is an entry of its own."""
RAIL_OF_KIND: Final = {kind: Rail(kind) for kind in CHAIN_KINDS}


async def list_waiting(conn: AsyncConnection, book: int) -> list[Incoming]:
    """Return what is final and not matched, of every chain that is not halted and of every bank."""
    places = await _load_places(conn)
    found = [item for r in await _final(conn) if (item := places.of_chain(r)) is not None]
    banks = 0
    after: UUID | None = None
    while banks < WAITING_MAX:
        page = await list_bank_receipts(
            conn, book, state=BankReceiptState.UNMATCHED, after=after, limit=PAGE
        )
        if not page:
            break
        found += [places.of_bank(receipt) for receipt in page]
        banks += len(page)
        after = page[-1].id
    return found


async def lock_waiting(conn: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, Incoming]:
    """Lock these receipts, and return those that still wait: nobody was quicker."""
    places = await _load_places(conn)
    chains = await lock_receipts(conn, ids)
    banks = await lock_bank_receipts(conn, set(ids) - {r.id for r in chains})
    nobodys = await list_nobodys(conn, [r.id for r in chains])
    found = [
        item
        for receipt in chains
        if receipt.state is ReceiptState.FINAL and receipt.id not in nobodys
        if (item := places.of_chain(receipt)) is not None
    ]
    found += [
        places.of_bank(receipt)
        for receipt in banks
        if receipt.state is BankReceiptState.UNMATCHED and receipt.kind is BankReceiptKind.RECEIPT
    ]
    return {item.id: item for item in found}


async def mark(
    conn: AsyncConnection,
    items: Mapping[Incoming, tuple[str, str]],
    *,
    by: str,
    reason: str,
    now: datetime,
) -> None:
    """Take locked receipts out of what waits, in a fixed number of statements.

    Args:
        items: what each pays, and whose it is.
    """
    banks = {item.id: paid for item, paid in items.items() if item.rail is Rail.BANK}
    chains = {item.id: to for item, (to, _) in items.items() if item.rail is not Rail.BANK}
    if chains:
        await mark_many_matched(conn, chains, by=by, reason=reason, now=now)
    if banks:
        await mark_bank_receipts_matched(conn, banks, by=by, reason=reason, now=now)


async def put_back(
    conn: AsyncConnection, rail: Rail, receipt_id: UUID, *, by: str, reason: str, now: datetime
) -> None:
    """Let a matched receipt wait again."""
    if rail is Rail.BANK:
        await mark_bank_receipt_unmatched(conn, receipt_id, by=by, reason=reason, now=now)
    else:
        await mark_unmatched(conn, receipt_id, by=by, reason=reason, now=now)


class _Places:
    """Which chains are followed, and whose the wallets and accounts are."""

    def __init__(self, rails: Mapping[str, Rail], owners: Mapping[str, str]) -> None:
        self._rails = rails
        self._owners = owners

    def of_chain(self, receipt: Receipt) -> Incoming | None:
        """Return a receipt of a chain; None while its chain is halted."""
        rail = self._rails.get(receipt.chain)
        if rail is None:
            return None
        return Incoming(
            id=receipt.id,
            epoch=receipt.epoch,
            rail=rail,
            party=receipt.party,
            asset=receipt.asset,
            value=receipt.value,
            reference=receipt.reference,
            end_to_end="",
            name="",
            iban="",
            value_date=receipt.first_seen_at.date(),
            first_seen_at=receipt.first_seen_at,
            suspense=receipt.credit,
            owner=self._owners.get(receipt.wallet, HOUSE),
        )

    def of_bank(self, receipt: BankReceipt) -> Incoming:
        """Return a credit that a bank has booked."""
        return Incoming(
            id=receipt.id,
            epoch=BANK_EPOCH,
            rail=Rail.BANK,
            party=receipt.party,
            asset=receipt.asset,
            value=receipt.value,
            reference=receipt.remittance,
            end_to_end=receipt.end_to_end,
            name=receipt.name,
            iban=receipt.iban,
            value_date=receipt.value_date,
            first_seen_at=receipt.first_seen_at,
            suspense=SUSPENSE,
            owner=self._owners.get(receipt.account, HOUSE),
        )


async def _load_places(conn: AsyncConnection) -> _Places:
    rails: dict[str, Rail] = {}
    owners: dict[str, str] = {}
    for chain in await list_chains(conn):
        if (await get_following(conn, chain.code)).state is not FollowState.HALTED:
            rails[chain.code] = RAIL_OF_KIND[chain.kind]
        owners |= {wallet.code: wallet.owner for wallet in await list_wallets(conn, chain.code)}
    owners |= {account.code: account.owner for account in await list_bank_accounts(conn)}
    return _Places(rails, owners)


async def _final(conn: AsyncConnection) -> Sequence[Receipt]:
    found: list[Receipt] = []
    after: UUID | None = None
    while len(found) < WAITING_MAX:
        page = await list_receipts(conn, state=ReceiptState.FINAL, after=after, limit=PAGE)
        if not page:
            break
        nobodys = await list_nobodys(conn, [receipt.id for receipt in page])
        found += [receipt for receipt in page if receipt.id not in nobodys]
        after = page[-1].id
    return found
