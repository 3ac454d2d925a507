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

_HOLD: Final = (
    "a stranger spends our nonce or coin: told once for a payout, elsewhere one by one in"
    " tests/custody/test_payout_adversity.py and tests/custody/bitcoin/test_spend_adversity.py"
)
_DEEP: Final = (
    "blocks deeper than policy go away: tests/custody/test_payout_replace.py and"
    " tests/custody/bitcoin/test_spend_orphans.py"
)
_WITHIN: Final = "no transaction ends there: a request goes on within its own"
_RARE: Final = (
    "an answer of a node is lost or comes late: tests/custody/test_payout_broadcast.py and"
    " tests/custody/bitcoin/test_spend_adversity.py"
)
_LATE_WORD: Final = "the bank's word comes late or twice: tests/custody/banks/test_pay_outcomes.py"
_NO_STORY: Final = "no journey tells it yet"

_MISSING: Final[Mapping[str, Mapping[str, str]]] = {
    "chain.block": {_NO_STORY: "orphaned>canonical"},
    "chain.following": {
        "a chain halts, and two people let it go on: tests/chain/test_follow.py": (
            "running>halted halted>running"
        )
    },
    "custody.coin": {_DEEP: "new>spent orphaned>spent spent>orphaned"},
    "custody.compliance_case": {_NO_STORY: "cleared>held new>held released>held"},
    "custody.deposit": {
        "a venue names its transaction late: tests/crash/test_deposits.py": "unattributed>arrived"
    },
    "custody.payment_file": {
        _LATE_WORD: "held>submitted released>closed submitted>held unknown>closed"
    },
    "custody.payout": {
        _WITHIN: (
            "requested>cancelled requested>expired reserved>cancelled reserved>expired"
            " reserved>rejected"
        ),
        _HOLD: (
            "allocated>security_hold cancelled>security_hold cancelling>security_hold"
            " failed_on_chain>security_hold security_hold>allocated security_hold>cancelling security_hold>failed_on_chain"
            " security_hold>mined"
        ),
        _DEEP: "cancelling>signed confirmed>cancelling mined>cancelling",
        "its approvals lapse before the signer is asked: tests/custody/test_payout_guards.py": (
            "allocated>expired"
        ),
    },
    "custody.payout_attempt": {
        _RARE: (
            "ambiguous>superseded broadcast>ambiguous signed>mined signed>superseded"
            " superseded>mined"
        )
    },
    "custody.pending_arrival": {_NO_STORY: "replaced>included replaced>seen"},
    "custody.receipt": {
        "a token moves less than it logs: tests/custody/test_receipts.py": (
            "included>not_received not_received>orphaned"
        ),
        _NO_STORY: "final>reversed matched>final",
    },
    "custody.spend": {
        _HOLD: (
            "allocated>security_hold cancelling>security_hold final>security_hold"
            " security_hold>allocated security_hold>cancelling security_hold>dropped"
            " security_hold>mined security_hold>signed signed>security_hold"
        ),
        _DEEP: "cancelling>signed final>cancelling final>signed mined>cancelling",
    },
    "custody.spend_attempt": {
        _RARE: (
            "ambiguous>mined ambiguous>superseded broadcast>ambiguous final>ambiguous"
            " signed>ambiguous signed>mined signed>superseded superseded>mined"
        )
    },
    "custody.venue_deposit": {"begins with its payout, in one transaction": "new>open"},
    "settlement.instruction": {_NO_STORY: "released>rescheduled rescheduled>funded"},
    "settlement.obligation": {_NO_STORY: "calculated>open open>withdrawn"},
    "settlement.run": {_NO_STORY: "affirmed>empty calculated>lapsed"},
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
