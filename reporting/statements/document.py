"""A statement as CSV: the bytes that are hashed and kept, and that the PDF is drawn from. Pure.

RFC 4180 in UTF-8, lines end in CR LF. The first lines say what it is; then, account by account, a
line ``opening``, a line for every posting, and a line ``closing``. Amounts are plain decimals of the asset.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from typing import Final

from kernel.clock import iso
from ledger.export.model import exact
from reporting.statements.model import AccountPart, ClientStatement

COLUMNS: Final = (
    *("account", "asset", "line", "recorded", "trade_date", "value_date"),
    *("posting", "reference", "change", "balance", "sequence"),
)
OPENING: Final = "opening"
CLOSING: Final = "closing"
POSTING: Final = "posting"
_DANGEROUS: Final = ("=", "+", "-", "@", "\t", "\r")


def statement_csv(statement: ClientStatement) -> bytes:
    """Return the bytes of a statement; the same statement gives the same bytes."""
    target = io.StringIO()
    writer = csv.writer(target)
    period = statement.period
    writer.writerow(("statement", statement.party, "of", statement.entity))
    writer.writerow(("from", period.first.isoformat(), "to", period.last.isoformat()))
    writer.writerow(("book", statement.book, "sequence", statement.sequence))
    writer.writerow(COLUMNS)
    for account in statement.accounts:
        writer.writerows(_rows(account))
    return target.getvalue().encode()


def sha256_hex(content: bytes) -> str:
    """Return the SHA-256 in lower-case hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _rows(account: AccountPart) -> Iterator[tuple[object, ...]]:
    asset = account.asset
    head = (account.path, asset.code)
    yield (*head, OPENING, "", "", "", "", "", "", exact(account.opening, asset.scale), "")
    for item in account.postings:
        yield (
            *(*head, POSTING, iso(item.recorded_at)),
            *(item.trade_date.isoformat(), item.value_date.isoformat()),
            *(item.what, _cell(item.reference)),
            *(exact(item.change, asset.scale), exact(item.balance, asset.scale), item.sequence),
        )
    yield (*head, CLOSING, "", "", "", "", "", "", exact(account.closing, asset.scale), "")


def _cell(text: str) -> str:
    """Return a text of somebody else's so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text.startswith(_DANGEROUS) else text
