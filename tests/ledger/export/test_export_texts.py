"""What the renderers write, and texts that try to be more than text."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.money import Asset
from ledger.export.beancount import BeancountRenderer
from ledger.export.columns import COLUMNS, CsvRenderer
from ledger.export.hledger import HledgerRenderer
from ledger.export.model import (
    By,
    Days,
    ExportAccount,
    ExportEvent,
    ExportRefused,
    ExportTransfer,
    Frame,
    Renderer,
    Totals,
)
from ledger.export.names import unpercent
from ledger.model import Kind, Side
from tests.ledger.export.programs import bean_check, find_hledger, hledger, read_beancount

AT = datetime(2026, 1, 5, 9, 0, 0, 123456, tzinfo=UTC)
ID = UUID(int=1)


def account(number: int, path: str, side: Side, asset: str = "BTC") -> ExportAccount:
    return ExportAccount(
        number=number,
        path=path,
        asset=asset,
        side=side,
        owner="house",
        purpose="",
        opened_on=AT.date(),
    )


HOT = account(1, "custody:hot", Side.DEBIT)
ACME = account(2, "client:acme", Side.CREDIT)


def frame(debits: int = 150, *, pending: int = 0, by: By = By.EFFECTIVE) -> Frame:
    return Frame(
        book=1,
        entity="causeway-ch",
        sequence=9,
        root=bytes(32),
        by=by,
        accounts={1: HOT, 2: ACME},
        assets={"BTC": Asset("BTC", 2)},
        totals={1: Totals(pending, debits, 0, 0), 2: Totals(0, 0, pending, debits)},
    )


MOVE = ExportTransfer(
    sequence=3,
    id=ID,
    kind=Kind.SINGLE,
    flags=0,
    debit=HOT,
    credit=ACME,
    amount=150,
    held=0,
    code="deposit.credited",
    pending_id=None,
    reverses=None,
    purpose="",
    timeout_us=None,
    effective_at=None,
    reference="r-1",
    correlation=UUID(int=2),
    recorded_at=AT,
    metadata='{"a":1,"b":"x"}',
)


def rendered(renderer: Renderer, *items: ExportTransfer | ExportEvent) -> str:
    bodies = (
        renderer.transfer(item) if isinstance(item, ExportTransfer) else renderer.event(item)
        for item in items
    )
    return "".join((*renderer.head(), *bodies, *renderer.tail()))


def test_a_transfer_is_a_beancount_transaction() -> None:
    assert BeancountRenderer(frame()).transfer(MOVE) == (
        '2026-01-05 * "deposit.credited" ^00000000-0000-0000-0000-000000000002\n'
        "  sequence: 3\n"
        '  id: "00000000-0000-0000-0000-000000000001"\n'
        '  kind: "single"\n'
        '  reference: "r-1"\n'
        '  correlation: "00000000-0000-0000-0000-000000000002"\n'
        '  recorded: "2026-01-05T09:00:00.123456Z"\n'
        '  metadata: "{\\"a\\":1,\\"b\\":\\"x\\"}"\n'
        "  Assets:Custody:Hot  1.50 BTC\n"
        "  Liabilities:Client:Acme  -1.50 BTC\n\n"
    )


def test_a_hold_moves_nothing_in_beancount_and_virtual_accounts_in_hledger() -> None:
    hold = MOVE._replace(kind=Kind.PENDING, purpose="payout", timeout_us=5, metadata="")

    first = BeancountRenderer(frame()).transfer(hold).partition("\n")[0]
    lines = HledgerRenderer(frame()).transfer(hold).splitlines()

    assert first == (
        '2026-01-05 custom "hold" "pending" Assets:Custody:Hot Liabilities:Client:Acme 1.50 BTC'
    )
    assert lines[0] == "2026-01-05 ! (3) deposit.credited"
    assert lines[2:4] == [
        '    [hold:debits:custody:hot]  1.50 "BTC"',
        '    [hold:credits:client:acme]  -1.50 "BTC"',
    ]


def test_a_partly_posted_hold_moves_its_part_and_releases_all() -> None:
    post = MOVE._replace(kind=Kind.POST, amount=100, held=150, pending_id=UUID(int=9))

    assert HledgerRenderer(frame()).transfer(post).splitlines()[2:6] == [
        '    custody:hot  1.00 "BTC"',
        '    client:acme  -1.00 "BTC"',
        '    [hold:debits:custody:hot]  -1.50 "BTC"',
        '    [hold:credits:client:acme]  1.50 "BTC"',
    ]
    assert '  held: "1.50"\n' in BeancountRenderer(frame()).transfer(post)


@pytest.mark.parametrize("kind", [Kind.VOID, Kind.EXPIRE])
def test_the_end_of_a_hold_has_no_real_posting(kind: Kind) -> None:
    item = MOVE._replace(kind=kind, held=150, pending_id=UUID(int=9))

    assert f'custom "hold" "{kind.name.lower()}"' in BeancountRenderer(frame()).transfer(item)
    assert "\n    custody" not in HledgerRenderer(frame()).transfer(item)


def test_the_day_is_the_one_asked_for() -> None:
    early = MOVE._replace(effective_at=AT - timedelta(days=30))

    for by, day in ((By.EFFECTIVE, "2025-12-06"), (By.RECORDED, "2026-01-05")):
        for renderer in (BeancountRenderer(frame(by=by)), HledgerRenderer(frame(by=by))):
            assert renderer.transfer(early).startswith(day)


def test_an_account_is_opened_on_the_first_day_it_is_needed() -> None:
    text = rendered(BeancountRenderer(frame()), MOVE._replace(effective_at=AT - timedelta(days=30)))

    assert "2025-12-06 open Assets:Custody:Hot\n" in text
    assert "2025-12-07 balance Assets:Custody:Hot  1.50 ~ 0 BTC\n" in text


def test_beancount_asserts_a_parent_together_with_what_is_below_it() -> None:
    held = account(3, "client:acme:held", Side.CREDIT)
    both = frame()
    both = replace(
        both,
        accounts={**both.accounts, 3: held},
        totals={1: Totals(0, 250, 0, 0), 2: Totals(0, 0, 0, 150), 3: Totals(0, 0, 0, 100)},
    )

    text = rendered(
        BeancountRenderer(both), MOVE, MOVE._replace(sequence=4, amount=100, credit=held)
    )

    assert "balance Liabilities:Client:Acme  -2.50 ~ 0 BTC\n" in text
    assert "balance Liabilities:Client:Acme:Held  -1.00 ~ 0 BTC\n" in text


def test_an_asset_that_moved_more_than_28_digits_is_written_in_limbs(tmp_path: Path) -> None:
    huge = 2**256 - 1
    text = rendered(BeancountRenderer(frame(huge)), MOVE._replace(amount=huge))
    target = tmp_path / "huge.beancount"
    target.write_text(text)

    bean_check(target)
    found = read_beancount(target)

    limbs = [number for account, _, number in found["balances"] if account == "Assets:Custody:Hot"]
    assert len(limbs) == 3
    assert "BTC'L2" in text
    whole = sum(
        int(number) * 10 ** (int(found["commodities"][commodity][2].removeprefix("1e")) + 2)
        for account, commodity, number in found["balances"]
        if account == "Assets:Custody:Hot"
    )
    assert whole == huge


def test_nothing_stands_after_the_last_day_there_is() -> None:
    last = MOVE._replace(effective_at=datetime.max.replace(tzinfo=UTC))

    for renderer in (BeancountRenderer(frame()), HledgerRenderer(frame())):
        with pytest.raises(ExportRefused, match="9999-12-31"):
            rendered(renderer, last)


def test_events_stand_where_the_format_has_a_place_for_them() -> None:
    frozen = ExportEvent(5, "frozen", ACME, "", 'says "no"; \n[2026-01-01]', AT)
    closed = ExportEvent(6, "closed", None, "2025-12-31", "over", AT)

    assert BeancountRenderer(frame()).event(frozen) == (
        '2026-01-05 custom "account" "frozen" Liabilities:Client:Acme'
        ' "says \\"no\\"; \\n[2026-01-01]"\n  sequence: 5\n\n'
    )
    assert '"period" "closed" "2025-12-31" "over"' in BeancountRenderer(frame()).event(closed)
    assert HledgerRenderer(frame()).event(frozen) == (
        '; 2026-01-05 (5) client:acme BTC frozen: says "no"%3B %0A%5B2026-01-01%5D\n\n'
    )
    assert CsvRenderer(frame()).event(frozen) == ""


ODD = (
    'quote " backslash \\ both \\"',
    "two\nlines\r\nand a tab\t",
    "; comment, tag:value, [2026-01-01] date:2020-01-01 (x) {y} @ 1 USD",
    "é 漢字 \U0001f4b0 \u2028 \u00a0 \x07",
    '2026-01-05 * "injected"\n  Assets:Custody:Hot  1 BTC\n  Liabilities:Client:Acme  -1 BTC',
    "=1+1",
    " leading and trailing ",
    "%41%",
    "x" * 100_000,
)


def odd_items(text: str) -> tuple[ExportTransfer, ExportEvent]:
    item = MOVE._replace(code=text, reference=text, purpose=text, metadata=text)
    return item, ExportEvent(5, "frozen", ACME, text, text, AT)


@pytest.mark.parametrize("text", ODD, ids=[text[:12] for text in ODD])
def test_beancount_reads_odd_texts_as_what_they_are(tmp_path: Path, text: str) -> None:
    target = tmp_path / "odd.beancount"
    target.write_text(rendered(BeancountRenderer(frame()), *odd_items(text)), encoding="utf-8")

    bean_check(target)
    found = read_beancount(target)

    assert found["kinds"] == {"single": 1}
    assert found["references"] == [text]
    assert found["narrations"] == [text]


@pytest.mark.parametrize("text", ODD, ids=[text[:12] for text in ODD])
def test_hledger_reads_odd_texts_as_one_transaction(tmp_path: Path, text: str) -> None:
    find_hledger()
    target = tmp_path / "odd.journal"
    target.write_text(rendered(HledgerRenderer(frame()), *odd_items(text)), encoding="utf-8")

    hledger(target, "check", "--strict")
    descriptions = hledger(target, "descriptions").splitlines()
    references = hledger(target, "tags", "reference", "--values").splitlines()

    assert sorted(map(unpercent, descriptions)) == sorted(["closing balances", text])
    assert list(map(unpercent, references)) == [text]


@given(st.text(), st.text())
@settings(max_examples=50)
def test_csv_gives_back_every_cell(code: str, reference: str) -> None:
    item = MOVE._replace(code=code, reference=reference)
    text = rendered(CsvRenderer(frame()), item)

    rows = list(csv.reader(io.StringIO(text, newline="")))

    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 2
    row = dict(zip(COLUMNS, rows[1], strict=True))
    assert (row["code"], row["reference"]) == (code, reference)
    assert row["recorded_at"] == "2026-01-05T09:00:00.123456Z"
    assert (row["amount"], row["posted"], row["reserved"]) == ("1.50", "1.50", "0.00")


def test_the_days_remember_the_first_of_each_account_and_the_last_of_all() -> None:
    days = Days(By.EFFECTIVE)
    days.note(MOVE)
    days.note(MOVE._replace(effective_at=AT + timedelta(days=2)))
    days.note(MOVE._replace(effective_at=AT - timedelta(days=2)))

    assert (days.first(HOT), days.after()) == (date(2026, 1, 3), date(2026, 1, 8))
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", str(days.last))
