"""What tells one entry of an account from every other, so that the same one is booked once. Pure.

A bank's own reference says it wherever there is one, also when a notice brings the entry before the
statement does. Without one, an entry is known by its statement and by what it says there.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from banks.statement_model import Entry
from kernel.ids import canonical

REFERENCE: Final = "ref"
CONTENT: Final = "content"


def with_keys(entries: Sequence[Entry], *, statement: str) -> tuple[Entry, ...]:
    """Return the entries with their keys; *statement* names theirs within the account.

    Equal ones are counted: two equal payments of one day are two.
    """
    seen: Counter[str] = Counter()
    keyed = []
    for entry in entries:
        stem = _stem(entry, statement)
        seen[stem] += 1
        keyed.append(replace(entry, key=f"{stem}:{seen[stem]}"))
    return tuple(keyed)


def has_reference(entry: Entry) -> bool:
    """Tell whether the bank has named the entry, so that it is known in any message."""
    return bool(entry.bank_ref)


def _stem(entry: Entry, statement: str) -> str:
    if has_reference(entry):
        return f"{REFERENCE}:{_digest(entry.bank_ref, entry.amount, int(entry.reversal))}"
    parts: list[object] = [statement, entry.amount, int(entry.reversal), str(entry.kind)]
    parts += [entry.booking_date.isoformat(), entry.value_date.isoformat(), entry.ref]
    for line in entry.lines:
        parts += [line.amount, line.end_to_end, line.name, line.iban, line.remittance]
    return f"{CONTENT}:{_digest(*parts)}"


def _digest(*parts: object) -> str:
    return hashlib.sha256(canonical(parts)).hexdigest()[:32]
