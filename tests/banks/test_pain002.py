"""Status reports: what a bank says of a file, and what it means."""

from __future__ import annotations

import pytest

from banks.errors import FileUnreadable
from banks.pain002 import Meaning, Status, meaning_of, read_report

LINE = (
    "<TxInfAndSts><OrgnlEndToEndId>{}</OrgnlEndToEndId><TxSts>{}</TxSts>"
    "<StsRsnInf><Rsn><Cd>{}</Cd></Rsn><AddtlInf>see there</AddtlInf></StsRsnInf></TxInfAndSts>"
)


def report(body: str, *, version: str = "10") -> bytes:
    space = f"urn:iso:std:iso:20022:tech:xsd:pain.002.001.{version}"
    return (
        f'<Document xmlns="{space}"><CstmrPmtStsRpt><GrpHdr><MsgId>S1</MsgId></GrpHdr>'
        f"{body}</CstmrPmtStsRpt></Document>"
    ).encode()


def group(status: str = "PART", more: str = "") -> str:
    return (
        "<OrgnlGrpInfAndSts><OrgnlMsgId>CW1</OrgnlMsgId>"
        f"<GrpSts>{status}</GrpSts>{more}</OrgnlGrpInfAndSts>"
    )


def block(*lines: str) -> str:
    return (
        f"<OrgnlPmtInfAndSts><OrgnlPmtInfId>CW1</OrgnlPmtInfId>{''.join(lines)}</OrgnlPmtInfAndSts>"
    )


@pytest.mark.parametrize("version", ["03", "10", "11"])
def test_a_report_is_read_in_every_version(version: str) -> None:
    body = group() + block(LINE.format("a", "RJCT", "AC04"), LINE.format("b", "ACSP", "G000"))
    found = read_report(report(body, version=version))
    assert (found.message_id, found.group.code, found.block_id) == ("CW1", "PART", "CW1")
    assert [(p.end_to_end, p.status.code, p.status.reason) for p in found.payments] == [
        ("a", "RJCT", "AC04 see there"),
        ("b", "ACSP", "G000 see there"),
    ]


def test_a_report_may_speak_of_the_whole_file_alone() -> None:
    reason = "<StsRsnInf><Rsn><Prtry>FILE</Prtry></Rsn></StsRsnInf>"
    found = read_report(report(group("RJCT", reason)))
    assert (found.group.code, found.group.reason, found.payments) == ("RJCT", "FILE", ())


@pytest.mark.parametrize(
    ("code", "reasons", "meaning"),
    [
        ("RJCT", ("AC04",), Meaning.REFUSED),
        ("RJCT", (), Meaning.REFUSED),
        ("RJCT", ("AM05",), Meaning.DUPLICATE),
        ("RJCT", ("AC04", "DU01"), Meaning.DUPLICATE),
        ("ACCP", (), Meaning.TAKEN),
        ("ACSC", (), Meaning.TAKEN),
        ("PDNG", (), Meaning.OPEN),
        ("RCVD", (), Meaning.OPEN),
        ("PART", (), Meaning.OPEN),
        ("CANC", (), Meaning.OPEN),
        ("rjct", (), Meaning.OPEN),
        ("", (), Meaning.OPEN),
    ],
)
def test_only_a_plain_rejection_means_that_nothing_will_be_paid(
    code: str, reasons: tuple[str, ...], meaning: Meaning
) -> None:
    assert meaning_of(Status(code=code, reasons=reasons)) is meaning


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<a/>",
        report(""),
        report(group(), version="99"),
        report(group() + group()),
        report(group().replace("CW1", " ")),
        report(group() + block() + block()),
        report(group() + block(LINE.format("", "RJCT", "AC04"))),
        b'<!DOCTYPE x [<!ENTITY a "b">]>' + report(group()),
    ],
)
def test_what_is_no_report_is_refused(raw: bytes) -> None:
    with pytest.raises(FileUnreadable):
        read_report(raw)
