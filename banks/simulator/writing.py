"""What the bank sends, as bytes: camt.053, camt.054, MT940, pain.002. Pure, and the same every time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Final
from xml.sax.saxutils import escape

from banks.simulator.model import COINS, DayEnd, Movement, Payment
from banks.statement_model import FileFormat

NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:"
PAIN_002: Final = "pain.002.001.10"
_MT_CODES: Final = {"CHRG": "NCHG", "INTR": "NINT"}


def money(units: int) -> str:
    """Return an amount without its sign: ``12.50``."""
    return f"{abs(units) // COINS}.{abs(units) % COINS:02}"


def statement_bytes(end: DayEnd, form: str) -> bytes:
    """Return the statement of a day in one of the formats that are read."""
    return _FORMATS[FileFormat(form)](end)


def camt_053(end: DayEnd, *, version: str = "08") -> bytes:
    """Return camt.053 in version 02 or 08."""
    old = version == "02"
    name = f"STMT-{end.iban[-20:]}-{end.day:%Y%m%d}"
    body = (
        f"<BkToCstmrStmt>{_header(name, end.day)}<Stmt><Id>{name}</Id>"
        f"<ElctrncSeqNb>{end.sequence}</ElctrncSeqNb><CreDtTm>{end.day}T20:00:00</CreDtTm>"
        f"<FrToDt><FrDtTm>{end.day}T00:00:00</FrDtTm><ToDtTm>{end.day}T23:59:59</ToDtTm></FrToDt>"
        f"{_account(end.iban, end.currency)}"
        f"{_balance('OPBD', end.opening, end.currency, end.day)}"
        f"{_balance('CLBD', end.closing, end.currency, end.day)}"
        + "".join(_entry(item, end.currency, old=old) for item in end.movements)
        + "</Stmt></BkToCstmrStmt>"
    )
    return _document(f"camt.053.001.{version}", body)


def camt_054(iban: str, currency: str, item: Movement) -> bytes:
    """Return a notice of one movement."""
    name = f"NTFC-{item.bank_ref}"
    body = (
        f"<BkToCstmrDbtCdtNtfctn>{_header(name, item.booking_date)}<Ntfctn><Id>{name}</Id>"
        f"<CreDtTm>{item.booking_date}T12:00:00</CreDtTm>{_account(iban, currency)}"
        f"{_entry(item, currency, old=False)}</Ntfctn></BkToCstmrDbtCdtNtfctn>"
    )
    return _document("camt.054.001.08", body)


def mt940_bytes(end: DayEnd) -> bytes:
    """Return MT940 with SWIFT's code words in field 86."""
    lines = [
        f":20:ST{end.day:%y%m%d}{end.sequence:05}",
        f":25:{end.iban}",
        f":28C:{end.sequence:05}/001",
        f":60F:{_mt_balance(end.opening, end.currency, end.day)}",
    ]
    for item in end.movements:
        lines += _mt_entry(item)
    lines += [f":62F:{_mt_balance(end.closing, end.currency, end.day)}", "-", ""]
    return "\r\n".join(lines).encode()


def pain_002(
    message: str, day: date, *, group: str, reason: str, lines: Sequence[Payment]
) -> bytes:
    """Return what the bank says of a payment file: *group* ``ACTC``, ``PART`` or ``RJCT``."""
    why = f"<StsRsnInf><Rsn><Cd>{reason}</Cd></Rsn></StsRsnInf>" if reason else ""
    told = "".join(
        f"<TxInfAndSts><OrgnlEndToEndId>{escape(item.end_to_end)}</OrgnlEndToEndId>"
        f"<TxSts>{'RJCT' if item.reason else 'ACCP'}</TxSts>"
        + (f"<StsRsnInf><Rsn><Cd>{item.reason}</Cd></Rsn></StsRsnInf>" if item.reason else "")
        + "</TxInfAndSts>"
        for item in lines
    )
    details = (
        f"<OrgnlPmtInfAndSts><OrgnlPmtInfId>{escape(message)}</OrgnlPmtInfId>{told}"
        "</OrgnlPmtInfAndSts>"
        if told
        else ""
    )
    body = (
        f"<CstmrPmtStsRpt><GrpHdr><MsgId>{escape(f'STS-{message}'[:35])}</MsgId>"
        f"<CreDtTm>{day}T12:00:00</CreDtTm></GrpHdr>"
        f"<OrgnlGrpInfAndSts><OrgnlMsgId>{escape(message)}</OrgnlMsgId>"
        f"<OrgnlMsgNmId>pain.001.001.09</OrgnlMsgNmId><GrpSts>{group}</GrpSts>{why}"
        f"</OrgnlGrpInfAndSts>{details}</CstmrPmtStsRpt>"
    )
    return _document(PAIN_002, body)


def _document(name: str, body: str) -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Document xmlns="{NAMESPACE}{name}">{body}</Document>\n'
    ).encode()


def _header(name: str, day: date) -> str:
    return f"<GrpHdr><MsgId>{name[:35]}</MsgId><CreDtTm>{day}T20:00:00</CreDtTm></GrpHdr>"


def _account(iban: str, currency: str) -> str:
    return f"<Acct><Id><IBAN>{iban}</IBAN></Id><Ccy>{currency}</Ccy></Acct>"


def _balance(code: str, units: int, currency: str, day: date) -> str:
    return (
        f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>{_amount(units, currency)}"
        f"<Dt><Dt>{day}</Dt></Dt></Bal>"
    )


def _amount(units: int, currency: str) -> str:
    sign = "DBIT" if units < 0 else "CRDT"
    return f'<Amt Ccy="{currency}">{money(units)}</Amt><CdtDbtInd>{sign}</CdtDbtInd>'


def _entry(item: Movement, currency: str, *, old: bool) -> str:
    domain, family, sub_family = item.domain
    status = "BOOK" if old else "<Cd>BOOK</Cd>"
    code = (
        f"<Domn><Cd>{domain}</Cd><Fmly><Cd>{family}</Cd>"
        f"<SubFmlyCd>{sub_family}</SubFmlyCd></Fmly></Domn>"
    )
    return (
        f"<Ntry>{_amount(item.amount, currency)}"
        + ("<RvslInd>true</RvslInd>" if item.reversal else "")
        + f"<Sts>{status}</Sts><BookgDt><Dt>{item.booking_date}</Dt></BookgDt>"
        f"<ValDt><Dt>{item.value_date}</Dt></ValDt>"
        f"<AcctSvcrRef>{escape(item.bank_ref)}</AcctSvcrRef><BkTxCd>{code}</BkTxCd>"
        f"<NtryDtls><TxDtls>{_details(item, currency, old=old)}</TxDtls></NtryDtls></Ntry>"
    )


def _details(item: Movement, currency: str, *, old: bool) -> str:
    # Of a payment that comes back, or is undone, the parties stay as it was sent.
    outgoing = (item.amount < 0) is not (item.reversal or bool(item.return_reason))
    other = "Cdtr" if outgoing else "Dbtr"
    name = f"<Nm>{escape(item.name)}</Nm>"
    party = f"<{other}>{name if old else f'<Pty>{name}</Pty>'}</{other}>" if item.name else ""
    account = f"<{other}Acct><Id><IBAN>{item.iban}</IBAN></Id></{other}Acct>" if item.iban else ""
    parties = f"<RltdPties>{party}{account}</RltdPties>" if party or account else ""
    amount = "" if old else _amount(item.amount, currency)
    remittance = f"<RmtInf><Ustrd>{escape(item.remittance[:140])}</Ustrd></RmtInf>"
    returned = f"<RtrInf><Rsn><Cd>{item.return_reason}</Cd></Rsn></RtrInf>"
    return (
        f"<Refs><EndToEndId>{escape(item.end_to_end or 'NOTPROVIDED')}</EndToEndId></Refs>"
        f"{amount}{parties}"
        + (remittance if item.remittance else "")
        + (returned if item.return_reason else "")
    )


def _mt_balance(units: int, currency: str, day: date) -> str:
    sign = "D" if units < 0 else "C"
    return f"{sign}{day:%y%m%d}{currency}{money(units).replace('.', ',')}"


def _mt_entry(item: Movement) -> list[str]:
    # A reversal is marked by what it reverses: RC takes a credit back.
    mark = ("RC" if item.amount < 0 else "RD") if item.reversal else "DC"[item.amount > 0]
    code = _MT_CODES.get(item.domain[2], "NRTI" if item.return_reason else "NTRF")
    reference = item.end_to_end[:16] or "NONREF"
    words = {
        "EREF": item.end_to_end,
        "RTRN": item.return_reason,
        "NAME": item.name,
        "IBAN": item.iban,
        "REMI": item.remittance,
    }
    details = "".join(f"/{word}/{text.replace('/', ' ')}" for word, text in words.items() if text)
    booked = f"{item.value_date:%y%m%d}{item.booking_date:%m%d}{mark}"
    line = f":61:{booked}{money(item.amount).replace('.', ',')}{code}{reference}//{item.bank_ref}"
    wrapped = [details[at : at + 65] for at in range(0, len(details), 65)]
    return [line, f":86:{wrapped[0]}", *wrapped[1:]] if wrapped else [line]


_FORMATS: Final[dict[FileFormat, Callable[[DayEnd], bytes]]] = {
    FileFormat.CAMT_053_08: camt_053,
    FileFormat.CAMT_053_02: lambda end: camt_053(end, version="02"),
    FileFormat.MT940: mt940_bytes,
}
