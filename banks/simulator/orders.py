"""What the bank is told to pay: pain.001, versions 03 and 09."""

from __future__ import annotations

from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Final

from lxml import etree

from banks.errors import FileUnreadable
from banks.safe_xml import parse_xml
from banks.simulator.model import COINS, Payment

NAMES: Final = ("pain.001.001.09", "pain.001.001.03")


def read_orders(raw: bytes) -> tuple[str, list[Payment]]:
    """Return the message's id and its payments.

    Raises:
        FileUnreadable: it is no pain.001, or a payment has no account or no amount.
    """
    root = parse_xml(raw)
    namespace = etree.QName(root).namespace or ""
    if not namespace.endswith(NAMES):
        raise FileUnreadable(f"{namespace or 'a file without namespace'} is no payment order")
    message = _text(root, namespace, "CstmrCdtTrfInitn/GrpHdr/MsgId")
    if not message:
        raise FileUnreadable("the file has no message id")
    payments: list[Payment] = []
    for group in _all(root, namespace, "CstmrCdtTrfInitn/PmtInf"):
        account = _text(group, namespace, "DbtrAcct/Id/IBAN")
        day = _text(group, namespace, "ReqdExctnDt/Dt") or _text(group, namespace, "ReqdExctnDt")
        payments += [
            _payment(item, namespace, message, account, day)
            for item in _all(group, namespace, "CdtTrfTxInf")
        ]
    return message, payments


def _payment(item: etree._Element, namespace: str, message: str, account: str, day: str) -> Payment:
    amount = _all(item, namespace, "Amt/InstdAmt")
    try:
        coins = Decimal(amount[0].text or "") * COINS
        whole = int(coins)
        if whole != coins or whole <= 0:
            raise FileUnreadable(f"{amount[0].text} is no amount")
        execution = date.fromisoformat(day)
    except (InvalidOperation, IndexError, ValueError) as error:
        raise FileUnreadable(f"a payment has no amount or no day: {error}") from error
    return Payment(
        message=message,
        end_to_end=_text(item, namespace, "PmtId/EndToEndId"),
        account=account,
        amount=whole,
        currency=amount[0].get("Ccy", ""),
        day=execution,
        name=_text(item, namespace, "Cdtr/Nm"),
        iban=_text(item, namespace, "CdtrAcct/Id/IBAN"),
        remittance=_text(item, namespace, "RmtInf/Ustrd"),
    )


def _all(item: etree._Element, namespace: str, path: str) -> list[etree._Element]:
    return item.findall("/".join(f"{{{namespace}}}{name}" for name in path.split("/")))


def _text(item: etree._Element, namespace: str, path: str) -> str:
    found = _all(item, namespace, path)
    return (found[0].text or "").strip() if found else ""
