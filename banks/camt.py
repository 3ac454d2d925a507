"""camt.053 and camt.054 (ISO 20022): statements and notices, as values.

Sources: the message definition reports of Bank-to-Customer Cash Management; versions 02 (2009) and 08
(2019). Element names are the standard's own abbreviations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from typing import Final

from lxml import etree

from banks.entry_keys import with_keys
from banks.errors import FileUnreadable
from banks.reading_amounts import units
from banks.safe_xml import parse_xml, validate
from banks.statement_model import (
    TEXT_LENGTH_MAX,
    Entry,
    EntryKind,
    EntryLine,
    EntryStatus,
    FileFormat,
    Statement,
    StatementKind,
    sequence_of,
)
from kernel.money import Asset

NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:"
_SCHEMAS: Final = {
    FileFormat.CAMT_053_02: "camt.053.001.02-read.xsd",
    FileFormat.CAMT_053_08: "camt.053.001.08.xsd",
    FileFormat.CAMT_054_08: "camt.054.001.08.xsd",
}
_OPENING: Final = ("OPBD", "PRCD")
_CLOSING: Final = "CLBD"
_NOT_PROVIDED: Final = frozenset({"NOTPROVIDED", "NOTAVAILABLE", "NONREF"})

#: Sub-families of ISO 20022's external bank transaction codes: charges, commissions, fees; interest.
_CHARGES: Final = frozenset({"CHRG", "FEES", "COMM", "COMT", "COME", "COMI"})
_INTERESTS: Final = frozenset({"INTR", "CINT", "DINT"})


def read_camt(raw: bytes, assets: Mapping[str, Asset]) -> tuple[FileFormat, tuple[Statement, ...]]:
    """Return the format of a file and what it says.

    Args:
        assets: the currencies that are known, by code.

    Raises:
        FileUnreadable: no message of a version that is read, or not as its schema says.
    """
    root = parse_xml(raw)
    form = _format(root)
    validate(root, _SCHEMAS[form])
    reader = _Reader(form, assets)
    if form is FileFormat.CAMT_054_08:
        notices = reader.all(root, "BkToCstmrDbtCdtNtfctn/Ntfctn")
        return form, tuple(reader.statement(item, StatementKind.NOTICE) for item in notices)
    statements = reader.all(root, "BkToCstmrStmt/Stmt")
    return form, tuple(reader.statement(item, StatementKind.STATEMENT) for item in statements)


def _format(root: etree._Element) -> FileFormat:
    name = etree.QName(root)
    text = (name.namespace or "").removeprefix(NAMESPACE)
    for form in _SCHEMAS:
        if text == form and name.localname == "Document":
            return form
    raise FileUnreadable(
        f"{name.localname} of {name.namespace or 'no namespace'} is not read",
        remedy=f"Ask the bank for one of {', '.join(_SCHEMAS)}, or MT940",
    )


class _Reader:
    """Reads the elements of one version."""

    def __init__(self, form: FileFormat, assets: Mapping[str, Asset]) -> None:
        self._namespace = f"{{{NAMESPACE}{form}}}"
        self._assets = assets
        self._paths: dict[str, str] = {}

    def all(self, item: etree._Element, path: str) -> list[etree._Element]:
        """Return every element at *path*, names of the standard with slashes."""
        full = self._paths.get(path)
        if full is None:
            full = "/".join(self._namespace + name for name in path.split("/"))
            self._paths[path] = full
        return item.findall(full)

    def text(self, item: etree._Element, *paths: str) -> str:
        """Return the text at the first of *paths* that has any; else ""."""
        for path in paths:
            for found in self.all(item, path):
                if found.text and found.text.strip():
                    return found.text.strip()
        return ""

    def statement(self, item: etree._Element, kind: StatementKind) -> Statement:
        """Return one statement or notice."""
        self._require_whole(item)
        name = self.text(item, "Id")
        entries = [self.entry(found) for found in self.all(item, "Ntry")]
        opening, closing, day = self._balances(item, kind)
        days = [entry.booking_date for entry in entries]
        created = _day(self.text(item, "CreDtTm")) if self.text(item, "CreDtTm") else None
        to_date = (
            day
            or _maybe_day(self.text(item, "FrToDt/ToDtTm"))
            or max(days, default=None)
            or created
        )
        if to_date is None:
            raise FileUnreadable(f"{kind} {name} does not say of which day it is")
        from_date = _maybe_day(self.text(item, "FrToDt/FrDtTm")) or min([*days, to_date])
        number = self.text(item, "ElctrncSeqNb", "LglSeqNb")
        return Statement(
            account=_account(self.text(item, "Acct/Id/IBAN", "Acct/Id/Othr/Id")),
            id=name,
            kind=kind,
            asset=self._currency(item, entries),
            from_date=min(from_date, to_date),
            to_date=to_date,
            entries=with_keys(entries, statement=f"{kind}/{name}"),
            sequence=sequence_of(number),
            opening=opening,
            closing=closing,
        )

    def entry(self, item: etree._Element) -> Entry:
        """Return one entry with its lines."""
        amount, asset = self._amount(item)
        booking = self.text(item, "BookgDt/Dt", "BookgDt/DtTm")
        value = self.text(item, "ValDt/Dt", "ValDt/DtTm")
        if not booking and not value:
            raise FileUnreadable("an entry has neither booking date nor value date")
        return Entry(
            key="",
            amount=amount,
            asset=asset,
            booking_date=_day(booking or value),
            value_date=_day(value or booking),
            status=self._status(item),
            lines=self._lines(item, amount, asset),
            kind=self._kind(item),
            reversal=self._reversal(item),
            ref=self.text(item, "NtryRef"),
            bank_ref=self.text(item, "AcctSvcrRef"),
        )

    def _status(self, item: etree._Element) -> EntryStatus:
        told = self.text(item, "Sts/Cd", "Sts/Prtry", "Sts")
        try:
            return EntryStatus(told)
        except ValueError as error:
            raise FileUnreadable(
                f"an entry has the status {told!r}, and nobody knows whether that is booked",
                remedy="Ask the bank for entries with the status BOOK, PDNG, INFO or FUTR",
            ) from error

    def _lines(self, item: etree._Element, amount: int, asset: str) -> tuple[EntryLine, ...]:
        details = self.all(item, "NtryDtls/TxDtls")
        told = _texts(self.all(item, "NtryDtls/Btch/NbOfTxs"))
        if sum(int(text) for text in told if text.isdecimal()) > len(details):
            # What is told of some of them is not said of the whole amount.
            return (EntryLine(amount=amount, remittance=self.text(item, "AddtlNtryInf")),)
        if len(details) == 1:
            # Of one payment the entry's own amount counts: what it is less than was instructed is
            # a charge, and the bank has kept it.
            line = self._line(item, details[0], amount, asset)
            return (replace(line, charge=line.charge or self._charge(item, asset)),)
        lines = tuple(
            self._line(item, found, self._of_line(found, amount, asset), asset) for found in details
        )
        if lines and sum(line.amount for line in lines) == amount:
            return lines
        first = lines[0] if lines else EntryLine(amount=amount)
        text = first.remittance or self.text(item, "AddtlNtryInf")
        reason = first.return_reason if len(lines) == 1 else ""
        return (EntryLine(amount=amount, remittance=text, return_reason=reason),)

    def _of_line(self, item: etree._Element, entry: int, asset: str) -> int:
        """Return a line's signed amount; 0 where the bank does not say it in the account's asset."""
        found = [*self.all(item, "Amt"), *self.all(item, "AmtDtls/TxAmt/Amt")]
        if not found or found[0].get("Ccy") != asset:
            return 0
        value = units(found[0].text or "", asset, self._assets)
        sign = self.text(item, "CdtDbtInd")
        negative = sign == "DBIT" if sign else entry < 0
        return -value if negative else value

    def _line(
        self, entry: etree._Element, item: etree._Element, amount: int, asset: str
    ) -> EntryLine:
        # A payment that comes back, or is undone, names its parties as it was sent.
        undone = bool(self.all(item, "RtrInf")) or self._reversal(entry)
        other = "Dbtr" if (amount > 0) is not undone else "Cdtr"
        parties = f"RltdPties/{other}"
        end_to_end = self.text(item, "Refs/EndToEndId")
        free = " ".join(_texts(self.all(item, "RmtInf/Ustrd")))
        return EntryLine(
            amount=amount,
            end_to_end="" if end_to_end.upper() in _NOT_PROVIDED else end_to_end,
            name=self.text(item, f"{parties}/Pty/Nm", f"{parties}/Nm"),
            iban=_account(self.text(item, f"{parties}Acct/Id/IBAN", f"{parties}Acct/Id/Othr/Id")),
            remittance=(free or self.text(item, "RmtInf/Strd/CdtrRefInf/Ref"))[:TEXT_LENGTH_MAX],
            return_reason=self.text(item, "RtrInf/Rsn/Cd", "RtrInf/Rsn/Prtry")
            or ("RTRN" if self.all(item, "RtrInf") else ""),
            charge=self._charge(item, asset),
        )

    def _charge(self, item: etree._Element, asset: str) -> int:
        """Return what the bank says that it has kept inside an amount, in the account's asset; else 0."""
        # Version 02 says each charge where version 08 has a record of it.
        records = self.all(item, "Chrgs/Rcrd") or self.all(item, "Chrgs")
        kept = [
            found[0].text or ""
            for record in records
            if (found := self.all(record, "Amt"))
            and found[0].get("Ccy") == asset
            and self.text(record, "CdtDbtInd") != "CRDT"
            and self.text(record, "ChrgInclInd") in {"true", "1"}
        ]
        return sum(units(text, asset, self._assets) for text in kept)

    def _reversal(self, item: etree._Element) -> bool:
        return self.text(item, "RvslInd") in {"true", "1"}

    def _kind(self, item: etree._Element) -> EntryKind:
        sub_family = self.text(item, "BkTxCd/Domn/Fmly/SubFmlyCd")
        if sub_family in _CHARGES:
            return EntryKind.CHARGE
        return EntryKind.INTEREST if sub_family in _INTERESTS else EntryKind.PAYMENT

    def _amount(self, item: etree._Element) -> tuple[int, str]:
        found = self.all(item, "Amt")[0]
        asset = found.get("Ccy", "")
        value = units(found.text or "", asset, self._assets)
        return (-value if self.text(item, "CdtDbtInd") == "DBIT" else value), asset

    def _balances(
        self, item: etree._Element, kind: StatementKind
    ) -> tuple[int | None, int | None, date | None]:
        """Return opening, closing, and the day of closing."""
        if kind is StatementKind.NOTICE:
            return None, None, None
        found: dict[str, etree._Element] = {}
        for balance in self.all(item, "Bal"):
            found.setdefault(self.text(balance, "Tp/CdOrPrtry/Cd"), balance)
        opening = next((found[code] for code in _OPENING if code in found), None)
        closing = found.get(_CLOSING)
        if opening is None or closing is None:
            raise FileUnreadable(
                f"statement {self.text(item, 'Id')} has no booked opening and closing balance"
            )
        day = _day(self.text(closing, "Dt/Dt", "Dt/DtTm"))
        return self._amount(opening)[0], self._amount(closing)[0], day

    def _currency(self, item: etree._Element, entries: Iterable[Entry]) -> str:
        """Return the one currency of a statement."""
        named = {entry.asset for entry in entries}
        named |= {found.get("Ccy", "") for found in self.all(item, "Bal/Amt")}
        if stated := self.text(item, "Acct/Ccy"):
            named.add(stated)
        if len(named) != 1:
            raise FileUnreadable(
                f"{self.text(item, 'Id')} is in {', '.join(sorted(named)) or 'no currency'}",
                remedy="A statement is of one account in one currency",
            )
        return named.pop()

    def _require_whole(self, item: etree._Element) -> None:
        for path in ("StmtPgntn", "NtfctnPgntn"):
            if self.all(item, path) and (
                self.text(item, f"{path}/PgNb") != "1"
                or self.text(item, f"{path}/LastPgInd") not in {"true", "1"}
            ):
                raise FileUnreadable(
                    f"{self.text(item, 'Id')} is one page of several",
                    remedy="Ask the bank for statements in one piece",
                )


def _texts(items: Iterable[etree._Element]) -> list[str]:
    return [item.text.strip() for item in items if item.text]


def _account(text: str) -> str:
    return "".join(text.split()).upper()


def _maybe_day(text: str) -> date | None:
    return _day(text) if text else None


def _day(text: str) -> date:
    """Return the day of a date or a moment, in the bank's own zone, which may follow a date too."""
    try:
        return date.fromisoformat(text[:10])
    except ValueError as error:
        raise FileUnreadable(f"{text!r} is not a date") from error
