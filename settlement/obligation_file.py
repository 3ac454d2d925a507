"""Obligations in a file: one a line, owed beside any deal. Pure.

CSV of RFC 4180 in UTF-8, a header and then an obligation a line (`ledger.imports.reading`).

===================  ====================================================================
column               what stands there
===================  ====================================================================
``ref``              your own reference; one obligation for each, however often it is imported
``party``            code of the party
``direction``        ``pay``: the desk owes it; ``receive``: the party owes it
``asset``            its code
``amount``           of the asset: ``1.5``
``value_date``       when it is due
===================  ====================================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import islice
from typing import Final

from kernel.money import Asset
from ledger.imports.model import Fault
from ledger.imports.reading import Columns, Line, Reader, require_none
from settlement.import_model import ImportedObligation
from settlement.model import Direction

ROWS_MAX: Final = 10_000
"""Obligations in one file, at most: they are entered in one transaction."""
FILE_BYTES_MAX: Final = 4 * 1024 * 1024
COLUMNS: Final = Columns(("ref", "party", "direction", "asset", "amount", "value_date"), ())


def read_obligations(
    name: str, data: bytes, assets: Mapping[str, Asset]
) -> tuple[ImportedObligation, ...]:
    """Read a file of obligations.

    Args:
        name: of the file, for its faults.
        data: its bytes.
        assets: the registered assets by code.

    Raises:
        FilesNotValid: names every fault with its line and column.
    """
    faults: list[Fault] = []
    reader = Reader(name, hashlib.sha256(data).hexdigest(), assets, faults)
    if len(data) > FILE_BYTES_MAX:
        reader.fault(0, "", f"is larger than {FILE_BYTES_MAX} bytes", "Split the file")
        require_none(faults)
    lines: dict[str, int] = {}

    def read(line: Line) -> ImportedObligation | None:
        found = _obligation(line)
        if found is not None and lines.setdefault(found.key, line.number) != line.number:
            what = f"is the reference of line {lines[found.key]} too"
            reader.fault(line.number, "ref", what, "Give each obligation a reference of its own")
        return found

    read_rows = reader.read(data, COLUMNS, read)
    found = (row for row in read_rows if isinstance(row, ImportedObligation))
    rows = list(islice(found, ROWS_MAX + 1))
    if len(rows) > ROWS_MAX:
        reader.fault(0, "", f"has more than {ROWS_MAX} obligations", "Split the file")
    require_none(faults)
    return tuple(rows)


def key_of(reference: str) -> str:
    """Return what an obligation is known by whose *reference* somebody gave."""
    return f"ref:{reference}"


def _obligation(line: Line) -> ImportedObligation | None:
    asset = line.asset()
    reference, party = line.text("ref"), line.text("party")
    direction = line.word("direction", tuple(str(way) for way in Direction))
    units, day = line.units("amount", asset), line.day("value_date")
    if line.failed or asset is None:
        return None
    return ImportedObligation(
        key=key_of(reference),
        party=party,
        direction=Direction(direction),
        asset=asset.code,
        amount=units,
        value_date=day,
    )
