"""What a bank says of a payment file: pain.002, read field by field.

The three versions that banks answer pain.001 with (2009, 2019, 2020) have what is read here in the same
places. A status is one of the bank's own words (ISO 20022, external payment transaction status and
status reason codes); what it means for us is said once, in `meaning_of`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lxml import etree

from banks.errors import FileUnreadable
from banks.safe_xml import parse_xml

NAMESPACE_PREFIX: Final = "urn:iso:std:iso:20022:tech:xsd:pain.002.001."
VERSIONS: Final = frozenset({"03", "10", "11"})
BYTES_MAX: Final = 4_000_000
LINES_MAX: Final = 10_000
TEXT_LENGTH_MAX: Final = 300

REJECTED: Final = "RJCT"
TAKEN: Final = frozenset({"ACTC", "ACCP", "ACSP", "ACSC", "ACWC", "ACCC", "ACFC", "ACWP", "PATC"})
"""Accepted, in one of its degrees. ``ACSC`` too is no finality: the booked entry is."""
DUPLICATE: Final = frozenset({"AM05", "DUPL", "DU01", "DU02", "DU03", "DU04", "DU05"})
"""Reasons that say: I have this already."""


class Meaning(StrEnum):
    """What a status means for a payment of ours."""

    TAKEN = "taken"
    """The bank has it and means to pay it."""
    REFUSED = "refused"
    """The bank says that it will not pay it: the only word on which a claim is given back."""
    DUPLICATE = "duplicate"
    """A rejection because the bank has it already: proof that it arrived, and of nothing else."""
    OPEN = "open"
    """Received, pending, partly accepted, or a word that we do not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A status and its reasons; *code* is "" where the bank gives none."""

    code: str = ""
    reasons: tuple[str, ...] = ()
    words: str = ""

    @property
    def reason(self) -> str:
        """Return codes and words in one line."""
        return " ".join((*self.reasons, self.words)).strip()[:TEXT_LENGTH_MAX]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentStatus:
    """What is said of one payment."""

    end_to_end: str
    status: Status


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """What is said of one file.

    Attributes:
        message_id: MsgId of the file that it answers.
        group: of the whole file; *block* of its one payment information block, if it is named.
        block_id: PmtInfId, "" where the report names none.
    """

    message_id: str
    group: Status
    block_id: str
    block: Status
    payments: tuple[PaymentStatus, ...]


def meaning_of(status: Status) -> Meaning:
    """Return what a status means; what is not known means nothing."""
    if status.code == REJECTED:
        # One reason that says "duplicate" is enough: the other may be why a second copy was looked at.
        if DUPLICATE.intersection(status.reasons):
            return Meaning.DUPLICATE
        return Meaning.REFUSED
    return Meaning.TAKEN if status.code in TAKEN else Meaning.OPEN


def read_report(raw: bytes) -> StatusReport:
    """Return what a status report says.

    Raises:
        FileUnreadable: it is no pain.002 of a known version, or speaks of no one file.
    """
    root = parse_xml(raw, bytes_max=BYTES_MAX)
    space, _, name = root.tag.removeprefix("{").rpartition("}")
    version = space.removeprefix(NAMESPACE_PREFIX)
    if name != "Document" or not space.startswith(NAMESPACE_PREFIX) or version not in VERSIONS:
        raise FileUnreadable(f"{space or name} is no status report that is read here")
    reader = _Reader(space)
    body = reader.one(root, "CstmrPmtStsRpt")
    group = reader.one(body, "OrgnlGrpInfAndSts")
    blocks = reader.every(body, "OrgnlPmtInfAndSts")
    if len(blocks) > 1:
        raise FileUnreadable("the report speaks of several blocks; a file of ours has one")
    block = blocks[0] if blocks else None
    lines = [] if block is None else reader.every(block, "TxInfAndSts")
    if len(lines) > LINES_MAX:
        raise FileUnreadable(f"the report speaks of {len(lines)} payments")
    return StatusReport(
        message_id=reader.text(group, "OrgnlMsgId", needed=True),
        group=reader.status(group, "GrpSts"),
        block_id="" if block is None else reader.text(block, "OrgnlPmtInfId", needed=True),
        block=Status() if block is None else reader.status(block, "PmtInfSts"),
        payments=tuple(
            PaymentStatus(
                end_to_end=reader.text(line, "OrgnlEndToEndId", needed=True),
                status=reader.status(line, "TxSts"),
            )
            for line in lines
        ),
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads elements of one namespace."""

    space: str

    def every(self, parent: etree._Element, name: str) -> list[etree._Element]:
        return parent.findall(f"{{{self.space}}}{name}")

    def one(self, parent: etree._Element, name: str) -> etree._Element:
        found = self.every(parent, name)
        if len(found) != 1:
            raise FileUnreadable(f"the report has {len(found)} {name}, not one")
        return found[0]

    def text(self, parent: etree._Element, name: str, *, needed: bool = False) -> str:
        found = self.every(parent, name)
        said = (found[0].text or "").strip() if len(found) == 1 else ""
        if len(found) > 1 or (needed and not said):
            raise FileUnreadable(f"the report has {len(found)} {name} that say something, not one")
        return said

    def status(self, parent: etree._Element, name: str) -> Status:
        reasons, words = [], []
        for item in self.every(parent, "StsRsnInf"):
            for reason in self.every(item, "Rsn"):
                reasons += [found.text.strip() for found in reason if found.text]
            words += [found.text.strip() for found in self.every(item, "AddtlInf") if found.text]
        return Status(
            code=self.text(parent, name),
            reasons=tuple(reasons),
            words=" ".join(words)[:TEXT_LENGTH_MAX],
        )
