"""A file from a bank, whatever its format: what it says, or why it cannot be believed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from banks.camt import read_camt
from banks.continuity import require_sum
from banks.errors import FileUnreadable
from banks.mt940 import read_mt940
from banks.statement_model import FileFormat, Statement
from kernel.errors import BadInput
from kernel.money import Asset, rescale

_CURRENCY: Final = re.compile(r"[A-Z]{3}")
ENTRIES_MAX: Final = 50_000
PLACES: Final = 5
"""Most decimal places of an amount in ISO 20022: what is parsed is counted in these."""


class _AnyCurrency(Mapping[str, Asset]):
    """Every currency, with as many places as a message can have."""

    def __init__(self) -> None:
        self._seen: dict[str, Asset] = {}

    def __getitem__(self, code: str) -> Asset:
        if code not in self._seen:
            if not _CURRENCY.fullmatch(code):
                raise KeyError(code)
            self._seen[code] = Asset(code, PLACES)
        return self._seen[code]

    def __iter__(self) -> Iterator[str]:
        return iter(self._seen)

    def __len__(self) -> int:
        return len(self._seen)


def read_file(raw: bytes, assets: Mapping[str, Asset]) -> tuple[FileFormat, tuple[Statement, ...]]:
    """Return the format of a file and its statements; each adds up.

    Args:
        assets: the currencies that are known, by code.

    Raises:
        FileUnreadable: says what is wrong and where; nothing of the file is to be booked.
    """
    form, statements = parse_file(raw)
    return form, tuple(in_units(item, assets) for item in statements)


def parse_file(raw: bytes) -> tuple[FileFormat, tuple[Statement, ...]]:
    """Return what a file says, with amounts in units of `PLACES` places: `in_units` makes them ours.

    It may take seconds, and needs no database.

    Raises:
        FileUnreadable: as `read_file`.
    """
    if not raw.strip():
        raise FileUnreadable("the file is empty")
    form, statements = (read_camt if _is_xml(raw) else read_mt940)(raw, _AnyCurrency())
    if sum(len(item.entries) for item in statements) > ENTRIES_MAX:
        raise FileUnreadable(f"the file has more than {ENTRIES_MAX} entries")
    for item in statements:
        if not item.account:
            raise FileUnreadable(f"{item.id} does not say of which account it is")
        require_sum(item)
    return form, statements


def in_units(statement: Statement, assets: Mapping[str, Asset]) -> Statement:
    """Return a parsed statement with its amounts in the asset's smallest units.

    Raises:
        FileUnreadable: the currency is not known, or an amount is in pieces of its smallest unit.
    """
    asset = assets.get(statement.asset)
    if asset is None:
        raise FileUnreadable(f"the currency {statement.asset!r} is not in the registry")

    def units(amount: int) -> int:
        try:
            return rescale(amount, PLACES, asset.scale)
        except BadInput as error:
            raise FileUnreadable(
                f"an amount of {statement.id} has more than the {asset.scale} places of {asset.code}"
            ) from error

    return replace(
        statement,
        opening=None if statement.opening is None else units(statement.opening),
        closing=None if statement.closing is None else units(statement.closing),
        entries=tuple(
            replace(
                entry,
                amount=units(entry.amount),
                lines=tuple(
                    replace(line, amount=units(line.amount), charge=units(line.charge))
                    for line in entry.lines
                ),
            )
            for entry in statement.entries
        ),
    )


def _is_xml(raw: bytes) -> bool:
    return raw.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
