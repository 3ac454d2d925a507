"""Which machines the matrix is about, and which edges of theirs no journey takes yet.

Every machine of the house is on one of both lists, and an edge in scope that no journey takes is in
`NOT_YET` with its reason: a new machine or a new edge fails a test until somebody has looked at it. What
a journey takes may not be on the list, so the list can only shrink.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_BY_PEOPLE: Final = "a person's one transaction: asked again, it is done or not"

IN_SCOPE: Final = frozenset(
    {
        "books.book_move",
        "chain.block",
        "chain.following",
        "custody.bank_file",
        "custody.bank_receipt",
        "custody.coin",
        "custody.compliance_case",
        "custody.deposit",
        "custody.payment_file",
        "custody.payment_line",
        "custody.payout",
        "custody.payout_attempt",
        "custody.payout_nonce",
        "custody.pending_arrival",
        "custody.receipt",
        "custody.spend",
        "custody.spend_attempt",
        "custody.venue_deposit",
        "custody.venue_withdrawal",
        "kernel.job",
        "kernel.outbox",
        "ledger.block",
        "settlement.instruction",
        "settlement.obligation",
        "settlement.run",
        "trading.deal",
        "trading.fill_posting",
        "venues.venue_order",
    }
)
"""Posting, deposits, payouts on every rail, own transfers, orders, hedging, netting, matching, relay."""

LEFT_OUT: Final[Mapping[str, str]] = {
    "books.import_set": "an import is one command that is given again; tests/ledger/test_imports.py",
    "books.manual_journal": _BY_PEOPLE,
    "books.period_proposal": _BY_PEOPLE,
    "custody.address_proof": _BY_PEOPLE,
    "custody.allowed_destination": _BY_PEOPLE,
    "custody.difference": "says what a reconciliation saw; the next one says it again",
    "custody.foreign_spend": "moves with the deposit's block, in the same transaction",
    "custody.freeze": _BY_PEOPLE,
    "custody.legal_hold": _BY_PEOPLE,
    "custody.payout_policy": _BY_PEOPLE,
    "custody.rebalance_proposal": "only proposes; what it leads to is a payout or a transfer",
    "custody.rebalance_rules": _BY_PEOPLE,
    "custody.restore": _BY_PEOPLE,
    "custody.restore_item": "says what a reading has found; the next one says it again",
    "custody.restore_source": "says that a place was read; the next reading says it again",
    "custody.signing_stop": _BY_PEOPLE,
    "custody.venue_address": _BY_PEOPLE,
    "marketdata.price_override": _BY_PEOPLE,
    "registry.proposal": _BY_PEOPLE,
    "reporting.alert": "says what is the case; the next look says it again",
    "reporting.alert_delivery": "a message to people, delivered at least once",
    "reporting.client_money": "says what is the case; the next look says it again",
    "reporting.recon_break": "says what a reconciliation saw; the next one says it again",
    "risk.desk_control": _BY_PEOPLE,
    "risk.venue_health": "says what the last answers were; the next one says it again",
    "settlement.party_default": _BY_PEOPLE,
    "trading.confirmation": _BY_PEOPLE,
    "trading.hand_fill": _BY_PEOPLE,
    "trading.hedge": _BY_PEOPLE,
    "trading.quote": "nothing is owed before its deal is booked, which is one transaction",
    "trading.venue_break": "says what a reconciliation saw; the next one says it again",
}
"""Machines that move no money by themselves, and why a crash in them needs no matrix."""

_MISSING: Final[Mapping[str, Mapping[str, str]]] = {
    "custody.coin": {
        "a restored house learns of its own spend: tests/custody/restore": "new>orphaned"
    },
    "custody.deposit": {
        "a venue names its transaction late: tests/crash/test_deposits.py": "unattributed>arrived"
    },
    "custody.payout": {
        "no transaction ends there: a request goes on within its own": (
            "requested>cancelled requested>expired reserved>cancelled reserved>expired"
            " reserved>rejected"
        )
    },
    "custody.venue_deposit": {"begins with its payout, in one transaction": "new>open"},
    "trading.deal": {"a person's one transaction": "booked>amended"},
    "venues.venue_order": {
        "intent and sending in one: tests/crash/test_orders_killed.py": "new>submitting"
    },
}
NOT_YET: Final[Mapping[str, str]] = {
    f"{machine} {step}": reason
    for machine, reasons in _MISSING.items()
    for reason, steps in reasons.items()
    for step in steps.split()
}
"""Edges in scope that no journey takes, and why."""
