"""A payment file as a bank takes it: pain.001.001.09, the same bytes for the same values.

One account, one day, one payment information block, every payment booked on its own (BtchBookg false),
so that a statement names each. Nothing in it depends on when or where it is written but what is given.

Source: ISO 20022, CustomerCreditTransferInitiationV09; EPC132-08 for what SEPA asks of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

from lxml import etree

from banks.amounts import decimal_text
from banks.payee import Payee
from banks.safe_xml import validate
from kernel.errors import BadInput
from kernel.money import Asset

NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"
SCHEMA: Final = "pain.001.001.09.xsd"
ID_LENGTH_MAX: Final = 35
"""Max35Text: of MsgId, PmtInfId and EndToEndId."""
REMITTANCE_LENGTH_MAX: Final = 140
EURO: Final = "EUR"
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,35}")
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9/?:().,'+ -]")
_NAME_LENGTH_MAX: Final = 70


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """One credit transfer; *amount* in smallest units of the file's asset, above zero."""

    end_to_end: str
    amount: int
    payee: Payee
    remittance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentOrder:
    """What a file says.

    Attributes:
        message_id: 1 to 35 letters, digits and hyphens, unique for ever.
        created_at: when the file was made; seconds are written.
        execution_date: when the bank shall pay.
        debtor: our legal entity, as the bank knows it.
        payments: in their order, each EndToEndId once.
    """

    message_id: str
    created_at: datetime
    execution_date: date
    debtor: str
    iban: str
    bic: str
    asset: Asset
    payments: Sequence[Payment]


def write_file(order: PaymentOrder) -> bytes:
    """Return the file, held against the schema.

    Raises:
        BadInput: it would say nothing, the same twice, or something that no bank takes.
    """
    _require_distinct(order)
    # lxml takes None for the default namespace; its stubs know only named ones.
    spaces: Mapping[Any, str] = {None: NAMESPACE}
    root = etree.Element(f"{{{NAMESPACE}}}Document", nsmap=spaces)
    initiation = _add(root, "CstmrCdtTrfInitn")
    total = decimal_text(sum(item.amount for item in order.payments), order.asset)
    _write_header(_add(initiation, "GrpHdr"), order, total)
    _write_block(_add(initiation, "PmtInf"), order, total)
    validate(root, SCHEMA)
    written: bytes = etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True)
    return written


def clean_text(text: str, length_max: int) -> str:
    """Return *text* in the letters that every bank takes; any other becomes a full stop."""
    return " ".join(_FOREIGN.sub(".", text).split())[:length_max].strip()


def _require_distinct(order: PaymentOrder) -> None:
    ids = [item.end_to_end for item in order.payments]
    if not ids or len(set(ids)) != len(ids):
        raise BadInput("a payment file has one payment or more, each with its own EndToEndId")
    for text in (order.message_id, *ids):
        if not _ID.fullmatch(text):
            raise BadInput(f"{text!r} is no id of a payment file")


def _write_header(header: etree._Element, order: PaymentOrder, total: str) -> None:
    created = order.created_at.astimezone(UTC).replace(microsecond=0, tzinfo=None)
    _add(header, "MsgId", order.message_id)
    _add(header, "CreDtTm", f"{created.isoformat()}Z")
    _add(header, "NbOfTxs", str(len(order.payments)))
    _add(header, "CtrlSum", total)
    _add(_add(header, "InitgPty"), "Nm", clean_text(order.debtor, _NAME_LENGTH_MAX))


def _write_block(block: etree._Element, order: PaymentOrder, total: str) -> None:
    _add(block, "PmtInfId", order.message_id)
    _add(block, "PmtMtd", "TRF")
    _add(block, "BtchBookg", "false")
    _add(block, "NbOfTxs", str(len(order.payments)))
    _add(block, "CtrlSum", total)
    _add(_add(block, "ReqdExctnDt"), "Dt", order.execution_date.isoformat())
    _add(_add(block, "Dbtr"), "Nm", clean_text(order.debtor, _NAME_LENGTH_MAX))
    account = _add(block, "DbtrAcct")
    _add(_add(account, "Id"), "IBAN", order.iban)
    _add(account, "Ccy", order.asset.code)
    _add(_add(_add(block, "DbtrAgt"), "FinInstnId"), "BICFI", order.bic)
    for item in order.payments:
        _write_payment(_add(block, "CdtTrfTxInf"), order, item)


def _write_payment(to: etree._Element, order: PaymentOrder, item: Payment) -> None:
    sepa = order.asset.code == EURO and item.payee.takes_sepa
    ids = _add(to, "PmtId")
    _add(ids, "InstrId", item.end_to_end)
    _add(ids, "EndToEndId", item.end_to_end)
    if sepa:
        _add(_add(_add(to, "PmtTpInf"), "SvcLvl"), "Cd", "SEPA")
    amount = _add(_add(to, "Amt"), "InstdAmt", decimal_text(item.amount, order.asset))
    amount.set("Ccy", order.asset.code)
    # SEPA knows no other: each side bears what its own bank asks.
    _add(to, "ChrgBr", "SLEV" if sepa else "SHAR")
    if item.payee.bic:
        _add(_add(_add(to, "CdtrAgt"), "FinInstnId"), "BICFI", item.payee.bic)
    _add(_add(to, "Cdtr"), "Nm", item.payee.name)
    _add(_add(_add(to, "CdtrAcct"), "Id"), "IBAN", item.payee.iban)
    remittance = clean_text(item.remittance, REMITTANCE_LENGTH_MAX)
    if remittance:
        _add(_add(to, "RmtInf"), "Ustrd", remittance)


def _add(parent: etree._Element, name: str, text: str = "") -> etree._Element:
    child = etree.SubElement(parent, f"{{{NAMESPACE}}}{name}")
    if text:
        child.text = text
    return child
