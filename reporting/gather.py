"""Read the house and prove it: from one database and the outside to the list of proofs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.ports import ChainGateway
from custody.deposit_model import HOLD_OPEN, ReceiptState
from custody.deposits import list_deposits
from custody.payout_model import PayoutState
from custody.payouts import every_payout, has_signed_bytes
from custody.receipts import list_receipts
from custody.reconciliation import Reconciled, reconcile_chain
from kernel.db import transact
from kernel.events import count_undelivered
from kernel.money import Asset
from ledger.audit import Fault
from ledger.coverage import coverage
from ledger.model import OpenHold, TrialBalanceRow
from ledger.queries import head, list_open_holds, trial_balance
from ledger.verification import verify
from registry.queries import list_assets
from reporting import proofs
from reporting.holds import deposit_holds, payout_holds, receipt_holds
from reporting.model import Compared, ExpectedHold, Proof
from trading.venue_reconciliation_model import VenueReconciled

BALANCE_TABLES: Final = frozenset({"balance"})
HOLD_TABLES: Final = frozenset({"hold"})

_LIVE_PAYOUTS: Final = frozenset(
    {
        PayoutState.RESERVED,
        PayoutState.PENDING_APPROVAL,
        PayoutState.APPROVED,
        PayoutState.ALLOCATED,
        PayoutState.SIGNED,
        PayoutState.CANCELLING,
        PayoutState.SECURITY_HOLD,
        PayoutState.MINED,
    }
)


@dataclass(frozen=True, slots=True)
class Examination:
    """Everything that the proofs looked at, for whoever prints it."""

    proofs: list[Proof]
    trial_balance: list[TrialBalanceRow]
    reconciliation: list[Compared]
    holds: list[OpenHold]
    assets: dict[str, Asset]

    @property
    def held(self) -> bool:
        """Tell whether every proof held."""
        return all(proof.held for proof in self.proofs)


async def examine(
    engine: AsyncEngine,
    gateway: ChainGateway,
    chain: str,
    *,
    book: int,
    venues: Sequence[VenueReconciled],
    other_holds: Sequence[ExpectedHold],
    other_wallets: Sequence[Reconciled] = (),
) -> Examination:
    """Prove the books of one entity against one chain and the venues that were asked.

    Args:
        venues: the balances of `trading.venue_reconciliation.reconcile_account`.
        other_holds: holds kept open by rooms that this one cannot see (settlement).
        other_wallets: what was found of the wallets of other chains
            (`custody.bitcoin.scan_reconciliation.compare_coins`).
    """
    of_balances, of_holds, of_journal = _by_proof(await verify(engine, book))
    wallets = [*await reconcile_chain(engine, gateway, chain, book=book), *other_wallets]
    books = await transact(engine, lambda conn: _read(conn, book, other_holds))
    on_chain = [
        Compared(f"custody:{w.wallet}", w.asset, w.ledger, w.chain, f"block {w.block.height}")
        for w in wallets
        if w.chain is not None
    ]
    silent = [
        f"{w.asset} of {w.wallet} is not told by the token" for w in wallets if w.chain is None
    ]
    at_venue = [
        Compared(
            f"venue:{v.venue_code}/{v.account}",
            v.asset,
            v.ledger,
            v.venue - (v.expected - v.ledger),
            "its own snapshot",
        )
        for v in venues
    ]
    held = [
        proofs.zero_sum(books.rows, of_balances),
        proofs.journal_verified(of_journal, books.records),
        proofs.holds_itemised(books.holds, books.expected, of_holds),
        proofs.matches_outside(
            "wallets-match-chain", on_chain, books.assets, "wallet balances", unknown=silent
        ),
        proofs.matches_outside("venues-match", at_venue, books.assets, "venue balances"),
        proofs.client_money_covered(books.covered, books.assets),
        proofs.outbox_drained(books.undelivered),
    ]
    return Examination(held, books.rows, on_chain + at_venue, books.holds, books.assets)


@dataclass(frozen=True, slots=True)
class _Books:
    rows: list[TrialBalanceRow]
    records: int
    holds: list[OpenHold]
    expected: list[ExpectedHold]
    covered: dict[str, tuple[int, int]]
    undelivered: int
    assets: dict[str, Asset]


async def _read(conn: AsyncConnection, book: int, other_holds: Sequence[ExpectedHold]) -> _Books:
    covered = {c.asset: (c.holdings, c.liabilities) for c in await coverage(conn, book)}
    return _Books(
        rows=await trial_balance(conn, book),
        records=(await head(conn, book)).sequence,
        holds=await list_open_holds(conn, book),
        expected=[*await _expected(conn, book), *other_holds],
        covered=covered,
        undelivered=await count_undelivered(conn),
        assets={asset.code: asset for asset in await list_assets(conn)},
    )


async def _expected(conn: AsyncConnection, book: int) -> list[ExpectedHold]:
    found: list[ExpectedHold] = []
    for state in sorted(HOLD_OPEN):
        deposits = await list_deposits(conn, state=state)
        while deposits:
            found += [hold for deposit in deposits for hold in deposit_holds(deposit)]
            deposits = await list_deposits(conn, state=state, after=deposits[-1].id)
    receipts = await list_receipts(conn, state=ReceiptState.INCLUDED)
    while receipts:
        found += [hold for receipt in receipts for hold in receipt_holds(receipt)]
        receipts = await list_receipts(conn, state=ReceiptState.INCLUDED, after=receipts[-1].id)
    async for payout in every_payout(conn, book=book, states=_LIVE_PAYOUTS):
        on_hold = payout.state is PayoutState.SECURITY_HOLD
        is_signed = not on_hold or await has_signed_bytes(conn, payout.id)
        found += payout_holds(payout, is_signed=is_signed)
    return found


def _by_proof(faults: Sequence[Fault]) -> tuple[list[str], list[str], list[str]]:
    """Split faults into those of balance rows, of hold rows, and of the journal itself."""
    balances, holds, journal = [], [], []
    for fault in faults:
        if fault.table in BALANCE_TABLES:
            balances.append(str(fault))
        elif fault.table in HOLD_TABLES:
            holds.append(str(fault))
        else:
            journal.append(str(fault))
    return balances, holds, journal
