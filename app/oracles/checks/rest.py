"""Questions to a house at rest: nothing waits for a worker; what waits for people or the outside may."""

from __future__ import annotations

from typing import Final

from app.oracles.model import Check
from ledger.points import fill

_WORKERS: Final = (
    ("kernel.job", "state = 'ready'"),
    (
        "custody.payout",
        "state IN ('requested', 'reserved', 'approved', 'allocated', 'signed', 'cancelling', 'mined') AND rail <> 'bank'",
    ),
    (
        "custody.payout",
        "state IN ('requested', 'reserved', 'allocated', 'signed') AND rail = 'bank'",
    ),
    ("custody.payout_attempt", "state IN ('built', 'signed', 'broadcast', 'ambiguous', 'mined')"),
    ("custody.spend", "state IN ('allocated', 'signed', 'cancelling', 'mined')"),
    ("custody.spend_attempt", "state IN ('built', 'signed', 'broadcast', 'ambiguous', 'mined')"),
    ("custody.payment_file", "state IN ('approved', 'released', 'unknown')"),
    ("custody.deposit", "state IN ('included', 'confirmed', 'screened')"),
    ("custody.receipt", "state = 'included'"),
    ("custody.compliance_case", "state = 'open'"),
    ("custody.control_message", "state = 'queued'", "number"),
    ("custody.venue_withdrawal", "state IN ('requested', 'approved', 'submitting', 'unknown')"),
    ("venues.venue_order", "state IN ('intent', 'submitting', 'unknown')"),
    ("books.book_move", "state IN ('requested', 'held', 'arrived', 'bounced')"),
    ("books.import_set", "state = 'begun'"),
    ("trading.quote", "state = 'accepted'"),
    ("reporting.alert_delivery", "state = 'pending'"),
)
"""Rows that a worker takes on by itself, whatever people and the outside do."""


def _nothing_open(table: str, open_: str, key: str = "id") -> Check:
    parts = {"table": table, "open": open_, "key": key}
    return Check(
        at_rest=True,
        counted=fill("SELECT count(*) FROM <table>", **parts),
        faults=fill(
            "SELECT '<table> ' || <key>, 'it is ' || state FROM <table> WHERE <open> ORDER BY 1",
            **parts,
        ),
    )


_FILLS: Final = Check(
    at_rest=True,
    counted="SELECT count(*) FROM venues.fill",
    faults="""
SELECT format('venues.fill %s/%s %s %s', venue, account, symbol, trade_id), 'it is not booked'
  FROM venues.fill WHERE booked_at IS NULL ORDER BY 1
""",
)

# A lease that was left behind on a row that is over is harmless; on one that is not, its worker is gone.
_LEASES: Final = (
    ("kernel.job", "state = 'ready'"),
    ("custody.payout", "state IN ('approved', 'allocated', 'signed', 'cancelling')"),
    ("custody.spend", "state IN ('allocated', 'signed', 'cancelling')"),
    ("custody.payment_file", "state IN ('approved', 'released', 'unknown')"),
    ("custody.venue_withdrawal", "state IN ('approved', 'submitting', 'unknown')"),
    ("venues.venue_order", "state IN ('intent', 'submitting', 'unknown')"),
    ("reporting.alert_delivery", "state = 'pending'"),
)


def _nobody_at_it(table: str, open_: str) -> Check:
    parts = {"table": table, "open": open_}
    return Check(
        at_rest=True,
        counted=fill("SELECT count(*) FROM <table> WHERE lease_holder IS NOT NULL", **parts),
        faults=fill(
            """
SELECT '<table> ' || id,
       format('%s has leased it until %s, and it is %s', lease_holder, lease_until, state)
  FROM <table> WHERE lease_holder IS NOT NULL AND <open> ORDER BY id
""",
            **parts,
        ),
    )


AT_REST: Final = (
    *(_nothing_open(*worked) for worked in _WORKERS),
    *(_nobody_at_it(*leased) for leased in _LEASES),
    _FILLS,
)
