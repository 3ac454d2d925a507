"""Manual journals: typed templates, two people, one chain, and an outcome that is recorded."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import constraint_name, sqlstate
from kernel.errors import BadInput, Refused
from ledger.accounts import ensure_accounts, set_frozen
from ledger.errors import AccountDiffers
from ledger.journals.decisions import APPROVE_JOURNAL, journal_bytes
from ledger.journals.errors import NotOpen, NotOurs, PeriodNotClosable, ReferenceTaken
from ledger.journals.manual import list_journals, reject_journal
from ledger.journals.model import LIFETIME, JournalState, ManualJournal
from ledger.journals.templates import (
    TEMPLATES,
    Airdrop,
    BankFee,
    Capital,
    CapitalAction,
    Loan,
    LoanAction,
    Staking,
    Tax,
    TaxAction,
    Template,
    WriteOff,
    from_content,
    journal_chain,
    template_name,
    to_content,
)
from ledger.periods import close_period
from ledger.queries import list_transfers
from ledger.testing import enforce_lock_order
from ledger.verification import verify
from registry.errors import NotAuthorised, UnknownRecord
from registry.testing import operator_keypair
from tests.ledger.by_hand import BOOK, CAPITAL, DOCUMENT, START, Hand, open_house

CASES: dict[str, tuple[Template, str]] = {
    "capital paid in": (
        Capital(action=CapitalAction.PAID_IN, holding="bank:main", asset="USDT", amount=5),
        "paid-in bank:main equity:capital 5",
    ),
    "capital paid out": (
        Capital(action=CapitalAction.PAID_OUT, holding="bank:main", asset="USDT", amount=5),
        "paid-out equity:capital bank:main 5",
    ),
    "loan drawn": (
        Loan(
            action=LoanAction.DRAWN, party="lender", holding="bank:main", asset="USDT", principal=5
        ),
        "drawn bank:main liability:loan:lender 5",
    ),
    "loan repaid": (
        Loan(
            action=LoanAction.REPAID,
            party="lender",
            holding="bank:main",
            asset="USDT",
            principal=5,
            interest=2,
        ),
        "repaid liability:loan:lender bank:main 5, interest expense:interest bank:main 2",
    ),
    "interest on a loan alone": (
        Loan(
            action=LoanAction.REPAID,
            party="lender",
            holding="bank:main",
            asset="USDT",
            principal=0,
            interest=2,
        ),
        "interest expense:interest bank:main 2",
    ),
    "loan granted": (
        Loan(
            action=LoanAction.GRANTED, party="birch", holding="bank:main", asset="USDT", principal=5
        ),
        "granted receivable:birch:loan bank:main 5",
    ),
    "loan collected": (
        Loan(
            action=LoanAction.COLLECTED,
            party="birch",
            holding="bank:main",
            asset="USDT",
            principal=5,
            interest=1,
        ),
        "collected bank:main receivable:birch:loan 5, interest bank:main income:interest 1",
    ),
    "write-off": (
        WriteOff(account="receivable:birch:open", asset="USDT", amount=5),
        "loss expense:loss receivable:birch:open 5",
    ),
    "tax accrued": (
        Tax(action=TaxAction.ACCRUED, authority="hmrc", asset="USDT", amount=5),
        "accrued expense:tax liability:tax:hmrc 5",
    ),
    "tax paid": (
        Tax(action=TaxAction.PAID, authority="hmrc", asset="USDT", amount=5, holding="bank:main"),
        "paid liability:tax:hmrc bank:main 5",
    ),
    "tax paid at once": (
        Tax(
            action=TaxAction.PAID_AT_ONCE,
            authority="hmrc",
            asset="USDT",
            amount=5,
            holding="bank:main",
        ),
        "paid expense:tax bank:main 5",
    ),
    "staking": (
        Staking(received_on="custody:house-hot", asset="ETH", amount=5),
        "reward custody:house-hot income:staking 5",
    ),
    "staking that was booked as unattributed": (
        Staking(received_on="suspense:unattributed:evm", asset="ETH", amount=5),
        "reward suspense:unattributed:evm income:staking 5",
    ),
    "airdrop": (
        Airdrop(received_on="custody:house-hot", asset="ETH", amount=5),
        "received custody:house-hot income:airdrop 5",
    ),
    "bank fee": (
        BankFee(account="bank:main", asset="USDT", amount=5),
        "charge expense:bank-charge bank:main 5",
    ),
}


@pytest.fixture
async def hand(engine: AsyncEngine) -> Hand:
    return await open_house(engine)


@pytest.mark.parametrize("name", CASES)
def test_a_template_moves_what_it_says(name: str) -> None:
    template, expected = CASES[name]

    legs = [f"{leg.name} {leg.debit} {leg.credit} {leg.amount}" for leg in template.legs()]
    assert ", ".join(legs) == expected


@pytest.mark.parametrize("name", CASES)
def test_a_template_is_stored_and_read_again(name: str) -> None:
    template, _ = CASES[name]

    assert from_content(template_name(template), to_content(template)) == template


def test_every_template_has_a_case() -> None:
    assert {type(template) for template, _ in CASES.values()} == set(TEMPLATES.values())


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("bribe", {}, "no template"),
        ("bank-fee", {"account": "bank:main", "asset": "USDT"}, "needs amount"),
        ("bank-fee", {"account": "bank:main", "asset": "USDT", "amount": "1.5"}, "smallest units"),
        ("bank-fee", {"account": "bank:main", "asset": "USDT", "amount": "0"}, "above zero"),
        ("bank-fee", {"account": "client:a", "asset": "USDT", "amount": "1"}, "does not fit"),
        ("bank-fee", {"account": "nowhere", "asset": "USDT", "amount": "1"}, "not in the chart"),
        ("bank-fee", {"account": "bank:m", "asset": "USDT", "amount": "1", "to": "x"}, "no field"),
        ("write-off", {"account": "custody:w", "asset": "USDT", "amount": "1"}, "does not fit"),
        ("staking", {"received_on": "client:a", "asset": "USDT", "amount": "1"}, "does not fit"),
        (
            "capital",
            {"action": "stolen", "holding": "bank:m", "asset": "USDT", "amount": "1"},
            "no action",
        ),
        (
            "tax",
            {
                "action": "accrued",
                "authority": "x",
                "asset": "USDT",
                "amount": "1",
                "holding": "bank:m",
            },
            "leaves no holding",
        ),
        ("tax", {"action": "paid", "authority": "x", "asset": "USDT", "amount": "1"}, "chart"),
        (
            "loan",
            {
                "action": "drawn",
                "party": "a",
                "holding": "bank:m",
                "asset": "USDT",
                "principal": "5",
                "interest": "1",
            },
            "bears no interest",
        ),
        (
            "loan",
            {
                "action": "drawn",
                "party": "a b",
                "holding": "bank:m",
                "asset": "USDT",
                "principal": "5",
            },
            "not a name",
        ),
        (
            "loan",
            {
                "action": "drawn",
                "party": "a",
                "holding": "bank:m",
                "asset": "USDT",
                "principal": "0",
            },
            "above zero",
        ),
    ],
)
def test_fields_that_make_no_journal_are_refused(
    name: str, content: dict[str, str], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        from_content(name, content)


def test_the_same_journal_always_has_the_same_transfers() -> None:
    row = UUID("0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80")

    def make(**changes: Any) -> Any:
        values: dict[str, Any] = {
            "journal": row,
            "created_at": START,
            "effective_on": date(2026, 1, 4),
            "attachment": DOCUMENT,
            **changes,
        }
        return journal_chain(CASES["loan repaid"][0], **values)

    first, second = make()
    assert make() == (first, second)
    assert (first.linked, second.linked) == (True, False)
    assert first.effective_at == datetime(2026, 1, 4, tzinfo=UTC)
    assert first.metadata == {"manual_journal": str(row), "attachment": DOCUMENT}
    assert first.code == "manual.loan.repaid"
    assert {first.id, second.id}.isdisjoint(item.id for item in make(journal=UUID(int=7)))


async def test_a_journal_is_posted_once_another_operator_has_signed_it(hand: Hand) -> None:
    with enforce_lock_order(hand.engine):
        item = await hand.propose()
        assert item.state is JournalState.PROPOSED
        hand.later(hours=1)
        posted = await hand.approve(item)

    assert posted.state is JournalState.POSTED
    assert (posted.decided_by, posted.outcome) == ("ben", "")
    assert await hand.balance("bank:main") == 1_000_000
    assert await hand.balance("equity:capital") == 1_000_000
    (made,) = await hand.do(lambda conn: list_transfers(conn, BOOK))
    assert (made.sequence, made.correlation) == (posted.sequence, item.id)
    assert made.metadata == {"manual_journal": str(item.id), "attachment": DOCUMENT}
    assert "owners" not in f"{made}"
    assert await verify(hand.engine, BOOK) == []
    events = await hand.history("manual-journal", item)
    assert [(e.name, e.actor, e.from_state, e.to_state) for e in events] == [
        ("ManualJournalProposed", "eve", None, "proposed"),
        ("ManualJournalPosted", "ben", "proposed", "posted"),
    ]
    assert events[0].reason == "the owners' first payment"


async def test_the_same_proposal_again_is_the_same_journal(hand: Hand) -> None:
    item = await hand.propose()
    hand.later(hours=1)

    again = await hand.propose(effective_on=item.request.effective_on)
    assert again == item
    others: list[dict[str, Any]] = [
        {"reason": "another"},
        {"attachment": "0" * 64},
        {"effective_on": date(2026, 1, 4)},
        {"template": replace(CAPITAL, amount=7)},
    ]
    for changes in others:
        with pytest.raises(ReferenceTaken):
            await hand.propose(**{"effective_on": item.request.effective_on, **changes})


async def test_nobody_approves_what_they_proposed(hand: Hand) -> None:
    item = await hand.propose(by="ada")

    with pytest.raises(NotAuthorised, match="proposed this"):
        await hand.approve(item, "ada")
    assert (await hand.journal(item)).state is JournalState.PROPOSED


@pytest.mark.parametrize("by", ["dan", "eve", "gone"])
async def test_who_lacks_the_role_does_not_approve(hand: Hand, by: str) -> None:
    item = await hand.propose(by="cleo")

    with pytest.raises(NotAuthorised, match=r"is not (approver|active)"):
        await hand.approve(item, by)
    assert (await hand.journal(item)).state is JournalState.PROPOSED


@pytest.mark.parametrize("by", ["dan", "ben", "gone"])
async def test_who_lacks_the_role_does_not_propose(hand: Hand, by: str) -> None:
    with pytest.raises(NotAuthorised):
        await hand.propose(by=by)


async def test_a_signature_of_other_content_posts_nothing(hand: Hand) -> None:
    seen = await hand.propose()
    request = seen.request
    key = operator_keypair("ben")
    others: list[ManualJournal] = [
        replace(seen, request=replace(request, template=replace(CAPITAL, amount=1))),
        replace(seen, request=replace(request, reason="another")),
        replace(seen, request=replace(request, attachment="0" * 64)),
        replace(seen, request=replace(request, effective_on=date(2026, 1, 1))),
        replace(seen, request=replace(request, reference="mj-2")),
        replace(seen, book=2),
        replace(seen, proposed_by="cleo"),
        replace(seen, id=UUID(int=1)),
    ]
    for other in others:
        with pytest.raises(NotAuthorised, match="signature"):
            await hand.approve(seen, signature=key.sign(journal_bytes(other)))
    with pytest.raises(NotAuthorised, match="signature"):
        await hand.approve(seen, signature=operator_keypair("cleo").sign(journal_bytes(seen)))
    assert APPROVE_JOURNAL.encode() in journal_bytes(seen)
    assert (await hand.journal(seen)).state is JournalState.PROPOSED


async def test_a_journal_is_posted_once_however_often_it_is_approved(hand: Hand) -> None:
    item = await hand.propose()
    first = await hand.approve(item)

    assert await hand.approve(item) == first
    with pytest.raises(NotOpen, match="is posted"):
        await hand.approve(item, "ada")
    assert await hand.balance("bank:main") == 1_000_000


async def test_of_two_approvals_at_once_one_posts(hand: Hand) -> None:
    item = await hand.propose()

    async def attempt(by: str) -> str:
        try:
            return str((await hand.approve(item, by)).state)
        except NotOpen:
            return "late"

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(attempt(by)) for by in ("ada", "ben", "cleo")]

    assert sorted(task.result() for task in tasks) == ["late", "late", "posted"]
    assert await hand.balance("bank:main") == 1_000_000


async def test_what_the_ledger_refuses_is_recorded_with_its_outcome(hand: Hand) -> None:
    repaid, _ = CASES["loan repaid"]
    item = await hand.propose(repaid)

    refused = await hand.approve(item)

    assert (refused.state, refused.outcome) == (JournalState.REFUSED, "exceeds_credits")
    assert refused.sequence is None
    (_, event) = await hand.history("manual-journal", item)
    assert (event.name, event.payload["outcome"]) == ("ManualJournalRefused", "exceeds_credits")
    assert await hand.balance("bank:main") == 0
    # A drawn loan can be repaid, in a journal of its own.
    await hand.approve(await hand.propose(CASES["loan drawn"][0], reference="mj-2"))
    again = await hand.approve(await hand.propose(repaid, reference="mj-3"))
    assert again.state is JournalState.POSTED
    assert await hand.approve(item) == refused


async def test_a_frozen_account_refuses_and_the_refusal_is_kept(hand: Hand) -> None:
    await hand.move("opening", "bank:main", "equity:capital", 10)
    now = hand.clock.now()
    await hand.do(
        lambda conn: set_frozen(
            conn, BOOK, "bank:main", "USDT", frozen=True, reason="asked", now=now
        )
    )

    refused = await hand.approve(await hand.propose())

    assert (refused.state, refused.outcome) == (JournalState.REFUSED, "debit_account_frozen")


async def test_nothing_is_written_off_beyond_what_is_owed(hand: Hand) -> None:
    await hand.move("owed", "receivable:birch:open", "conversion:otc", 80)
    template = WriteOff(account="receivable:birch:open", asset="USDT", amount=81)
    too_much = await hand.propose(template)

    with enforce_lock_order(hand.engine), pytest.raises(NotOurs, match="owes 80"):
        await hand.approve(too_much)
    with enforce_lock_order(hand.engine):
        exact = await hand.propose(replace(template, amount=80), reference="mj-2")
        posted = await hand.approve(exact)
    assert posted.state is JournalState.POSTED
    assert await hand.balance("receivable:birch:open") == 0
    assert await hand.balance("expense:loss") == 80


@pytest.mark.parametrize("kind", [Staking, Airdrop])
async def test_nothing_is_taken_from_suspense_that_has_not_arrived(
    hand: Hand, kind: type[Staking | Airdrop]
) -> None:
    await hand.move("arrived", "custody:house-hot", "suspense:unattributed:evm", 5, asset="ETH")
    template = kind(received_on="suspense:unattributed:evm", asset="ETH", amount=6)
    too_much = await hand.propose(template)

    with enforce_lock_order(hand.engine), pytest.raises(NotOurs, match="has 5"):
        await hand.approve(too_much)
    with enforce_lock_order(hand.engine):
        exact = await hand.propose(replace(template, amount=5), reference="mj-2")
        posted = await hand.approve(exact)
    assert posted.state is JournalState.POSTED
    assert await hand.balance("suspense:unattributed:evm", "ETH") == 0


async def test_clients_money_is_never_moved_by_hand(hand: Hand) -> None:
    with pytest.raises(NotOurs, match="client"):
        await hand.propose(Staking(received_on="custody:client-pool", asset="ETH", amount=1))
    with pytest.raises(UnknownRecord):
        await hand.propose(Staking(received_on="custody:nobody", asset="ETH", amount=1))

    now = hand.clock.now()
    await hand.do(
        lambda conn: ensure_accounts(
            conn, BOOK, [("bank:main", "USDT")], owners={"bank:main": "client"}, now=now
        )
    )
    item = await hand.propose()
    with pytest.raises(AccountDiffers):
        await hand.approve(item)
    assert (await hand.journal(item)).state is JournalState.PROPOSED


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reason": "  "}, "reason"),
        ({"reason": "x" * 501}, "reason"),
        ({"reference": ""}, "reference"),
        ({"reference": "John Doe"}, "opaque"),
        ({"attachment": "ABC"}, "SHA-256"),
        ({"effective_on": date(2026, 1, 6)}, "not come"),
        ({"template": BankFee(account="bank:main", asset="NOPE", amount=1)}, "NOPE"),
    ],
)
async def test_a_proposal_that_nobody_could_approve_is_refused(
    hand: Hand, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises((BadInput, Refused), match=said):
        await hand.propose(**changes)


async def test_an_old_proposal_is_not_posted_and_can_still_be_rejected(hand: Hand) -> None:
    item = await hand.propose()
    hand.clock.advance(LIFETIME + timedelta(seconds=1))

    with pytest.raises(NotOpen, match="older than 7 days"):
        await hand.approve(item)
    rejected = await hand.do(
        lambda conn: reject_journal(
            conn, item.id, by="ben", reason="too late", now=hand.clock.now()
        )
    )
    assert (rejected.state, rejected.decision_reason) == (JournalState.REJECTED, "too late")


async def test_a_rejected_journal_is_never_posted(hand: Hand) -> None:
    item = await hand.propose()
    now = hand.clock.now()

    async def reject(by: str) -> ManualJournal:
        return await hand.do(
            lambda conn: reject_journal(conn, item.id, by=by, reason="no", now=now)
        )

    with pytest.raises(NotAuthorised):
        await reject("dan")
    first = await reject("eve")
    assert first.decided_by == "eve"
    assert await reject("ben") == first
    with pytest.raises(NotOpen, match="is rejected"):
        await hand.approve(item)
    found = await hand.do(lambda conn: list_journals(conn, BOOK, {JournalState.REJECTED}))
    assert found == [first]


async def test_a_journal_counts_from_its_day_and_no_closed_day_takes_one(hand: Hand) -> None:
    yesterday = date(2026, 1, 4)
    item = await hand.propose(effective_on=yesterday)
    posted = await hand.approve(item)
    (made,) = await hand.do(lambda conn: list_transfers(conn, BOOK))

    assert posted.state is JournalState.POSTED
    assert made.effective_at == datetime(2026, 1, 4, tzinfo=UTC)

    late = await hand.propose(effective_on=yesterday, reference="mj-2")
    now = hand.clock.now()
    await hand.do(lambda conn: _close_raw(conn, yesterday, now))
    refused = await hand.approve(late)
    assert (refused.state, refused.outcome) == (JournalState.REFUSED, "effective_period_closed")
    with pytest.raises(PeriodNotClosable, match="is closed"):
        await hand.propose(effective_on=yesterday, reference="mj-3")


async def _close_raw(conn: AsyncConnection, through: date, now: datetime) -> None:
    # Past the people: what the ledger itself does is asked here.
    await close_period(
        conn, BOOK, through, reason="test", proposed_by="x", approved_by="y", now=now
    )


@pytest.mark.parametrize(
    ("statement", "refused"),
    [
        ("UPDATE books.manual_journal SET content = '{}'", "42501"),
        ("UPDATE books.manual_journal SET proposed_by = 'x'", "42501"),
        ("UPDATE books.manual_journal SET effective_on = '2026-01-01'", "42501"),
        ("DELETE FROM books.manual_journal", "42501"),
        ("UPDATE books.manual_journal SET state = 'proposed'", "manual_journal_state_edges"),
        ("UPDATE books.manual_journal SET decided_by = 'eve'", "ck_manual_journal_people"),
        ("UPDATE books.manual_journal SET signature = NULL", "ck_manual_journal_signed"),
        ("UPDATE books.manual_journal SET signature = 'x'", "ck_manual_journal_signed"),
        ("UPDATE books.manual_journal SET sequence = NULL", "ck_manual_journal_posted"),
        ("UPDATE books.manual_journal SET outcome = 'x'", "ck_manual_journal_refused"),
        ("UPDATE books.manual_journal SET decided_by = NULL", "ck_manual_journal_decided"),
    ],
)
async def test_the_database_itself_refuses_what_no_verb_does(
    hand: Hand, statement: str, refused: str
) -> None:
    await hand.approve(await hand.propose())

    with pytest.raises(DBAPIError) as caught:
        await hand.do(lambda conn: conn.execute(text(statement)))

    assert refused in {sqlstate(caught.value), constraint_name(caught.value)}
