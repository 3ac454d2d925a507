"""Obligations by file, and the notices of what is set off."""

from __future__ import annotations

import hashlib

import pytest

from kernel.errors import BadInput
from settlement.netting.cycles import clear_cycles
from settlement.netting.files import ROWS_MAX, read_owed, write_notices

HEAD = "debtor,creditor,asset,amount,value_date"
FILE = f"""{HEAD},id
ann,bob,USD,100.50,2026-01-05,i-1
bob,cyd,USD,100,2026-01-05,i-2
cyd,ann,USD,200.255,2026-01-06,i-3
ann,bob,ETH,0.000000000000000001,2026-01-05,i-4
"""


def test_amounts_are_counted_in_the_smallest_place_of_their_asset() -> None:
    eth, usd = read_owed(FILE, together=True)

    assert (eth.asset, eth.places, [e.amount for e in eth.edges]) == ("ETH", 18, [1])
    assert (usd.asset, usd.places) == ("USD", 3)
    assert [e.amount for e in usd.edges] == [100_500, 100_000, 200_255]
    assert usd.told(100_500) == "100.500"


def test_what_is_due_later_is_not_set_off_unless_all_are_cleared_together() -> None:
    apart, whole = (read_owed(FILE, together=together) for together in (False, True))

    assert [(o.asset, str(o.value_date), o.places, len(o.edges)) for o in apart] == [
        ("ETH", "2026-01-05", 18, 1),
        ("USD", "2026-01-05", 3, 2),
        ("USD", "2026-01-06", 3, 1),
    ]
    assert [clear_cycles(owed.edges).cleared for owed in apart] == [0, 0, 0]
    assert [clear_cycles(owed.edges).cleared for owed in whole] == [0, 300_000]


@pytest.mark.parametrize("places", [0, 2, 30])
def test_amounts_are_told_to_the_last_digit(places: int) -> None:
    text = "9" * 48 + ("." + "0" * (places - 1) + "7" if places else "")

    (owed,) = read_owed(f"{HEAD}\nann,bob,USD,{text},2026-01-05\n")

    assert owed.told(owed.edges[0].amount) == text
    assert owed.told(0) == ("0." + "0" * places if places else "0")


def test_notices_name_what_is_set_off_and_have_a_hash() -> None:
    text, digest = write_notices(
        [(owed, clear_cycles(owed.edges)) for owed in read_owed(FILE, together=True)]
    )

    assert text.splitlines() == [
        "id,value_date,debtor,creditor,asset,amount,set_off,remaining",
        "i-1,2026-01-05,ann,bob,USD,100.500,100.000,0.500",
        "i-2,2026-01-05,bob,cyd,USD,100.000,100.000,0.000",
        "i-3,2026-01-06,cyd,ann,USD,200.255,100.000,100.255",
    ]
    assert digest == hashlib.sha256(text.encode()).hexdigest()


def test_lines_in_another_order_give_the_same_notices() -> None:
    head, *lines = FILE.splitlines()
    turned = "\n".join([head, *reversed(lines)])

    first, again = (
        write_notices([(owed, clear_cycles(owed.edges)) for owed in read_owed(text, together=True)])
        for text in (FILE, turned)
    )

    assert first == again


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("debtor,amount\n", "no column asset, creditor, value_date"),
        ("", "no column"),
        (f"{HEAD}\nann,ann,USD,1,2026-01-05\n", r"owes himself \(line 2\)"),
        (f"{HEAD}\nann,bob,USD,0,2026-01-05\n", r"no amount above zero"),
        (f"{HEAD}\nann,bob,USD,-1,2026-01-05\n", r"no amount above zero"),
        (f"{HEAD}\nann,bob,USD,NaN,2026-01-05\n", r"no amount above zero"),
        (f"{HEAD}\nann,bob,USD,1e999999,2026-01-05\n", "48 digits before"),
        (f"{HEAD}\nann,bob,USD,much,2026-01-05\n", r"cannot be read"),
        (f"{HEAD}\nann,bob,USD,1,soon\n", r"cannot be read \(line 2\)"),
        (f"{HEAD}\nann,bob,,1,2026-01-05\n", "there is no asset"),
        (f"{HEAD}\nann,bob,USD,1e-31,2026-01-05\n", "at most 30 places"),
        (f"{HEAD},id\na,b,USD,1,2026-01-05,x\na,b,USD,1,2026-01-05,x\n", "line 2 already"),
        (f'{HEAD}\nann,"bob,USD,1,2026-01-05\n', "this is no CSV"),
    ],
)
def test_a_file_that_cannot_be_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        read_owed(text)


def test_a_file_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("settlement.netting.files.ROWS_MAX", 3)

    with pytest.raises(BadInput, match="more than 3 obligations"):
        read_owed(FILE)
    assert ROWS_MAX == 1_000_000
