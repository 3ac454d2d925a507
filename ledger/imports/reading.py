"""From the bytes of CSV files to typed rows, or to faults with line and column. Pure.

The format is RFC 4180 in UTF-8 (a byte-order mark is left out): a header, then a row a line. Amounts
are decimals of the asset (``1.5``), times ISO 8601 with a zone (a date alone is its first moment in
UTC), texts of the journal are opaque tokens.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final

from kernel.errors import BadInput
from kernel.money import Asset
from ledger.chart import account_spec
from ledger.imports.errors import FilesNotValid
from ledger.imports.model import (
    FAULTS_MAX,
    FILE_BYTES_MAX,
    ROWS_MAX,
    AccountRow,
    BalanceRow,
    Direction,
    Fault,
    FileKind,
    ImportFiles,
    MovementRow,
    ObligationRow,
    TotalRow,
)
from ledger.model import AccountSpec
from ledger.opaque import CODE_LENGTH_MAX, TEXT_LENGTH_MAX, require_token

CODE_OF_HOLDS: Final = "import.hold"


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file: which it must have, and which it may have."""

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()


COLUMNS: Final[Mapping[FileKind, Columns]] = {
    FileKind.ACCOUNTS: Columns(
        ("path", "asset"), ("owner", "credit_limit", "purpose", "effective_at")
    ),
    FileKind.BALANCES: Columns(("path", "asset", "amount", "effective_at"), ("reference",)),
    FileKind.TRANSFERS: Columns(
        ("effective_at", "debit", "credit", "amount", "asset", "code"), ("reference",)
    ),
    FileKind.HOLDS: Columns(
        ("effective_at", "debit", "credit", "amount", "asset", "purpose"), ("reference",)
    ),
    FileKind.OBLIGATIONS: Columns(
        ("reference", "party", "direction", "asset", "amount", "value_date")
    ),
    FileKind.TOTALS: Columns(("file", "asset", "rows", "total")),
}


def read_files(files: Mapping[str, bytes], assets: Mapping[str, Asset]) -> ImportFiles:
    """Read every file of an import.

    Args:
        files: bytes by file name: ``balances.csv``.
        assets: the registered assets by code.

    Raises:
        FilesNotValid: names every fault, up to `FAULTS_MAX` of them.
    """
    faults: list[Fault] = []
    rows: dict[FileKind, tuple[Any, ...]] = {}
    hashes: dict[FileKind, str] = {}
    for name in sorted(files):
        kind = _kind_of(name)
        if kind is None:
            known = ", ".join(f"{known}.csv" for known in FileKind)
            faults.append(Fault(name, 0, "", "is no file of an import", f"There are {known}"))
            continue
        hashes[kind] = hashlib.sha256(files[name]).hexdigest()
        reader = Reader(name, hashes[kind], assets, faults)
        rows[kind] = tuple(reader.read(files[name], COLUMNS[kind], _PARSERS[kind]))
    if FileKind.TOTALS not in hashes:
        faults.append(
            Fault("totals.csv", 0, "", "is missing", "Declare the rows and totals of every file")
        )
    require_none(faults)
    return ImportFiles(hashes=hashes, **{str(kind): found for kind, found in rows.items()})


def require_none(faults: list[Fault]) -> None:
    """Refuse the files if there is any fault.

    Raises:
        FilesNotValid: with the first `FAULTS_MAX` faults in the order of files and lines.
    """
    if faults:
        told = sorted(faults)[:FAULTS_MAX]
        raise FilesNotValid(told, more=len(faults) >= FAULTS_MAX)


def _kind_of(name: str) -> FileKind | None:
    stem, _, suffix = name.rpartition(".")
    return FileKind(stem) if suffix == "csv" and stem in set(FileKind) else None


@dataclass(slots=True)
class Line:
    """One row while it is read: its cells, and the faults that are found in them."""

    reader: Reader
    number: int
    cells: Mapping[str, str]
    failed: bool = False

    def fault(self, column: str, error: BadInput) -> None:
        """Note a fault of a cell."""
        self.failed = True
        self.reader.fault(self.number, column, error.what, error.remedy)

    def text(self, column: str, *, empty: bool = False, length_max: int = TEXT_LENGTH_MAX) -> str:
        """Return an opaque token."""
        value = self.cells.get(column, "")
        if not value and not empty:
            self.fault(column, BadInput("is empty"))
            return value
        try:
            require_token(value, column, length_max)
        except BadInput as error:
            self.fault(column, error)
        return value

    def path(self, column: str, asset: str, owner: str = "house") -> AccountSpec | None:
        """Return what the chart says about the account."""
        try:
            return account_spec(self.cells.get(column, ""), asset or "?", owner)
        except BadInput as error:
            self.fault(column, error)
            return None

    def asset(self, column: str = "asset") -> Asset | None:
        """Return the registered asset."""
        code = self.cells.get(column, "")
        found = self.reader.assets.get(code)
        if found is None:
            self.fault(
                column,
                BadInput(f"the asset {code!r} is not registered", remedy="Register it first"),
            )
        return found

    def units(self, column: str, asset: Asset | None, *, signed: bool = False) -> int:
        """Return an amount in smallest units; above zero, or *signed* and not zero."""
        value = self.cells.get(column, "")
        if asset is None:
            return 0
        try:
            units = asset.parse(value)
        except BadInput as error:
            self.fault(column, error)
            return 0
        if units == 0:
            self.fault(column, BadInput(f"{value!r} is zero", remedy="Leave the line out"))
        elif units < 0 and not signed:
            self.fault(column, BadInput(f"{value!r} is below zero", remedy="Swap the accounts"))
        return units

    def time(self, column: str) -> datetime:
        """Return a moment; a date alone is its first moment in UTC."""
        value = self.cells.get(column, "")
        try:
            at = datetime.fromisoformat(value)
            # The first and the last day of the calendar may lie outside it in UTC.
            moment = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fault(
                column,
                BadInput(f"{value!r} is not a time", remedy="Write 2026-01-31T17:00:00Z"),
            )
            return datetime(1970, 1, 1, tzinfo=UTC)
        if at.tzinfo is None and len(value) != len("2026-01-31"):
            self.fault(column, BadInput(f"{value!r} has no zone", remedy="End it with Z for UTC"))
        return moment

    def day(self, column: str) -> date:
        """Return a date."""
        value = self.cells.get(column, "")
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.fault(column, BadInput(f"{value!r} is not a date", remedy="Write 2026-01-31"))
            return date(1970, 1, 1)

    def count(self, column: str) -> int:
        """Return a number of rows."""
        value = self.cells.get(column, "")
        if value.isascii() and value.isdigit() and len(value) <= len(str(ROWS_MAX)):
            return int(value)
        self.fault(column, BadInput(f"{value!r} is not a number of rows"))
        return 0

    def word(self, column: str, words: tuple[str, ...]) -> str:
        """Return one of the words that are possible."""
        value = self.cells.get(column, "")
        if value not in words:
            remedy = f"Use {' or '.join(words)}"
            self.fault(column, BadInput(f"{value!r} is not possible here", remedy=remedy))
            return words[0]
        return value


@dataclass(slots=True)
class Reader:
    """One file while it is read."""

    name: str
    sha256: str
    assets: Mapping[str, Asset]
    faults: list[Fault] = field(default_factory=list)

    def fault(self, line: int, column: str, what: str, remedy: str = "") -> None:
        """Note a fault, while there is room for it."""
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(Fault(self.name, line, column, what, remedy))

    def read(
        self, data: bytes, columns: Columns, parse: Callable[[Line], object]
    ) -> Iterator[object]:
        """Yield the rows that are without fault; the faults of the others are noted."""
        for number, cells in self._lines(data, columns):
            if len(self.faults) >= FAULTS_MAX:
                return
            line = Line(self, number, cells)
            row = parse(line)
            if not line.failed:
                yield row

    def _lines(self, data: bytes, columns: Columns) -> Iterator[tuple[int, dict[str, str]]]:
        if len(data) > FILE_BYTES_MAX:
            self.fault(0, "", f"is larger than {FILE_BYTES_MAX} bytes", "Split the import")
            return
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self.fault(data[: error.start].count(b"\n") + 1, "", "is not UTF-8", "Convert it")
            return
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            header = next(reader, [])
            if not self._header_fits(header, columns):
                return
            yield from self._rows(reader, header)
        except csv.Error as error:
            self.fault(reader.line_num, "", f"is not CSV: {error}", "Quote it as RFC 4180 says")

    def _rows(self, reader: Any, header: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
        count, before = 0, reader.line_num
        for cells in reader:
            number, before = before + 1, reader.line_num
            if not cells:
                continue
            count += 1
            if count > ROWS_MAX:
                self.fault(number, "", f"has more than {ROWS_MAX} rows", "Split the import")
                return
            if len(cells) != len(header):
                self.fault(number, "", f"has {len(cells)} columns, the header has {len(header)}")
                continue
            yield number, dict(zip(header, cells, strict=True))

    def _header_fits(self, header: list[str], columns: Columns) -> bool:
        known = columns.needed + columns.optional
        before = len(self.faults)
        for name in columns.needed:
            if name not in header:
                self.fault(1, name, "this column is missing", f"Columns: {', '.join(known)}")
        for name in header:
            if name not in known:
                self.fault(1, name, "there is no such column", f"Columns: {', '.join(known)}")
        if len(set(header)) != len(header):
            self.fault(1, "", "a column stands twice")
        return len(self.faults) == before


def _account(line: Line) -> AccountRow:
    asset = line.asset()
    owner = line.text("owner", empty=True) or "house"
    spec = line.path("path", line.cells.get("asset", ""), owner)
    limit = line.units("credit_limit", asset) if line.cells.get("credit_limit") else 0
    since = line.time("effective_at") if line.cells.get("effective_at") else None
    purpose = line.text("purpose", empty=True, length_max=CODE_LENGTH_MAX)
    if spec is None:
        return AccountRow(line=line.number, spec=_NO_SPEC)
    if line.cells.get("owner") and spec.owner != owner:
        line.fault("owner", BadInput(f"{spec.path} belongs to {spec.owner}", remedy="Leave it out"))
    if limit and not spec.debits_must_not_exceed_credits:
        line.fault("credit_limit", BadInput(f"nothing limits {spec.path}", remedy="Leave it out"))
    return AccountRow(
        line=line.number,
        spec=AccountSpec(
            path=spec.path,
            asset=spec.asset,
            side=spec.side,
            owner=spec.owner,
            debits_must_not_exceed_credits=spec.debits_must_not_exceed_credits,
            credits_must_not_exceed_debits=spec.credits_must_not_exceed_debits,
            credit_limit=limit,
            purpose=purpose,
            effective_at=since,
        ),
    )


def _balance(line: Line) -> BalanceRow:
    asset = line.asset()
    line.path("path", line.cells.get("asset", ""))
    if line.cells.get("path", "") == "equity:opening":
        line.fault(
            "path", BadInput("the balances themselves make equity:opening", remedy="Leave it out")
        )
    return BalanceRow(
        line=line.number,
        path=line.cells.get("path", ""),
        asset=line.cells.get("asset", ""),
        amount=line.units("amount", asset, signed=True),
        effective_at=line.time("effective_at"),
        reference=line.text("reference", empty=True),
    )


def _transfer(line: Line) -> MovementRow:
    return _movement(line, line.text("code", length_max=CODE_LENGTH_MAX), "")


def _hold(line: Line) -> MovementRow:
    return _movement(line, CODE_OF_HOLDS, line.text("purpose", length_max=CODE_LENGTH_MAX))


def _movement(line: Line, code: str, purpose: str) -> MovementRow:
    asset = line.asset()
    debit, credit = line.cells.get("debit", ""), line.cells.get("credit", "")
    for column in ("debit", "credit"):
        line.path(column, line.cells.get("asset", ""))
    if debit == credit:
        line.fault("credit", BadInput("is the account that is debited"))
    return MovementRow(
        line=line.number,
        effective_at=line.time("effective_at"),
        debit=debit,
        credit=credit,
        asset=line.cells.get("asset", ""),
        amount=line.units("amount", asset),
        code=code,
        purpose=purpose,
        reference=line.text("reference", empty=True),
    )


def _obligation(line: Line) -> ObligationRow:
    asset = line.asset()
    return ObligationRow(
        line=line.number,
        key=f"{line.reader.sha256}:{line.number}",
        reference=line.text("reference"),
        party=line.text("party"),
        direction=Direction(line.word("direction", tuple(Direction))),
        asset=line.cells.get("asset", ""),
        amount=line.units("amount", asset),
        value_date=line.day("value_date"),
    )


def _total(line: Line) -> TotalRow:
    asset = line.asset()
    kinds = tuple(
        str(kind) for kind in FileKind if kind not in {FileKind.ACCOUNTS, FileKind.TOTALS}
    )
    return TotalRow(
        line=line.number,
        file=FileKind(line.word("file", kinds)),
        asset=line.cells.get("asset", ""),
        rows=line.count("rows"),
        total=_signed_or_zero(line, asset),
    )


def _signed_or_zero(line: Line, asset: Asset | None) -> int:
    """Return a total: of balances it may be zero or below it."""
    if asset is None:
        return 0
    try:
        return asset.parse(line.cells.get("total", ""))
    except BadInput as error:
        line.fault("total", error)
        return 0


_NO_SPEC: Final = account_spec("equity:opening", "?")

_PARSERS: Final[Mapping[FileKind, Callable[[Line], object]]] = {
    FileKind.ACCOUNTS: _account,
    FileKind.BALANCES: _balance,
    FileKind.TRANSFERS: _transfer,
    FileKind.HOLDS: _hold,
    FileKind.OBLIGATIONS: _obligation,
    FileKind.TOTALS: _total,
}
