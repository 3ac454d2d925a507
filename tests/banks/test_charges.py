"""A charge inside an amount: believed where the bank says that it is inside, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from banks.reading import read_file
from banks.simulator.writing import statement_bytes
from banks.statement_model import FileFormat
from tests.banks.test_statement_formats import ASSETS, CREDIT, end

PAID = replace(CREDIT, amount=-10_060)
INSIDE = "<CdtDbtInd>DBIT</CdtDbtInd><ChrgInclInd>true</ChrgInclInd>"


def charge_of(said: str, form: FileFormat = FileFormat.CAMT_053_08, *, deep: bool = False) -> int:
    """The charge that is read where a bank says *said* of an entry, or of the payment in it."""
    before = b"<RltdPties>" if deep else b"<NtryDtls>"
    raw = statement_bytes(end(PAID), form)
    assert raw.count(before) == 1
    _, (statement,) = read_file(raw.replace(before, said.encode() + before), ASSETS)
    ((line,),) = [entry.lines for entry in statement.entries]
    assert line.amount == -10_060
    return line.charge


def record(text: str, more: str = INSIDE) -> str:
    return f'<Rcrd><Amt Ccy="EUR">{text}</Amt>{more}</Rcrd>'


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("said", "read"),
    [
        (record("0.10"), 10),
        (record("0.10") + record("0.05"), 15),
        (record("0.10", INSIDE.replace("true", "false")), 0),
        (record("0.10", INSIDE.replace("DBIT", "CRDT")), 0),
        (record("0.10", ""), 0),
        (record("0.10").replace("EUR", "USD"), 0),
        ('<TtlChrgsAndTaxAmt Ccy="EUR">0.10</TtlChrgsAndTaxAmt>', 0),
    ],
)
def test_only_what_is_said_to_be_inside_is_a_charge_inside(
    said: str, read: int, *, deep: bool
) -> None:
    assert charge_of(f"<Chrgs>{said}</Chrgs>", deep=deep) == read


def test_the_older_version_says_each_charge_by_itself() -> None:
    said = f'<Chrgs><Amt Ccy="EUR">0.10</Amt>{INSIDE}</Chrgs>'
    assert charge_of(said, FileFormat.CAMT_053_02) == 10
