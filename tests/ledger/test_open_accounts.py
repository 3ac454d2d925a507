"""Opening accounts is idempotent: the same request again is answered by what is there."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import constraint_name, transact
from kernel.errors import BadInput
from kernel.money import AMOUNT_MAX
from ledger.accounts import open_accounts, set_credit_limit, set_frozen
from ledger.errors import BookNotOpen, PostingRefused
from ledger.model import BATCH_MAX, AccountResult, AccountSpec, Side, transfer
from ledger.outcome import AccountOutcome, Outcome
from ledger.posting import open_book, post
from ledger.queries import head, list_accounts
from ledger.scenarios import START, name_id, play
from ledger.verification import verify
from tests.ledger.test_posting import rows_of

ACME = AccountSpec(
    path="client:acme",
    asset="ETH",
    side=Side.CREDIT,
    owner="client:acme",
    debits_must_not_exceed_credits=True,
    credit_limit=5,
    purpose="trading",
    metadata={"tier": 2, "tags": ["a", None, True]},
    effective_at=START - timedelta(days=30),
)
CHANGES: dict[str, dict[str, Any]] = {
    "side": {"side": Side.DEBIT},
    "flags": {"debits_must_not_exceed_credits": False},
    "owner": {"owner": "client:other"},
    "purpose": {"purpose": ""},
    "metadata": {"metadata": {"tier": 3}},
    "effective_time": {"effective_at": None},
}
"""What may differ, in order of precedence."""


@pytest.fixture
async def book(engine: AsyncEngine) -> AsyncEngine:
    await transact(engine, lambda conn: open_book(conn, 1, entity="entity-1", now=START))
    return engine


async def ask(engine: AsyncEngine, *specs: AccountSpec) -> list[AccountResult]:
    return await transact(engine, lambda conn: open_accounts(conn, 1, specs, now=START))


async def test_an_account_is_opened_once_with_everything_that_it_is(book: AsyncEngine) -> None:
    [first] = await ask(book, ACME)
    before = await rows_of(book)
    [again] = await ask(book, ACME)

    assert first.outcome is AccountOutcome.CREATED
    assert again == replace(first, outcome=AccountOutcome.EXISTS)
    assert first.opened
    assert again.opened
    assert await rows_of(book) == before
    async with book.connect() as conn:
        [account] = await list_accounts(conn, 1)
        assert account.spec == ACME
        assert account.number == first.number
        assert (await head(conn, 1)).sequence == first.sequence == 1
    assert await verify(book, 1) == []


@pytest.mark.parametrize("field", CHANGES)
async def test_what_differs_is_named_and_nothing_is_changed(book: AsyncEngine, field: str) -> None:
    [first] = await ask(book, ACME)
    before = await rows_of(book)
    order = list(CHANGES)
    later = {k: v for name in order[order.index(field) :] for k, v in CHANGES[name].items()}

    for changes in (CHANGES[field], later):
        [result] = await ask(book, replace(ACME, **changes))
        assert result.outcome == f"exists_with_different_{field}"
        assert (result.number, result.sequence) == (first.number, first.sequence)
        assert not result.opened

    assert await rows_of(book) == before


async def test_a_credit_limit_is_no_difference_because_it_can_be_set_anew(
    book: AsyncEngine,
) -> None:
    await ask(book, ACME)
    [result] = await ask(book, replace(ACME, credit_limit=7))
    assert result.outcome is AccountOutcome.EXISTS


async def test_an_account_guarded_on_both_sides_could_never_be_used(book: AsyncEngine) -> None:
    before = await rows_of(book)
    [result] = await ask(book, replace(ACME, credits_must_not_exceed_debits=True))

    assert result.outcome is AccountOutcome.FLAGS_ARE_MUTUALLY_EXCLUSIVE
    assert (result.number, result.sequence) == (None, None)
    assert await rows_of(book) == before


async def test_what_could_never_be_used_is_said_before_what_differs(book: AsyncEngine) -> None:
    both = replace(ACME, credits_must_not_exceed_debits=True)
    await ask(book, ACME)
    assert [result.outcome for result in await ask(book, both)] == [
        AccountOutcome.FLAGS_ARE_MUTUALLY_EXCLUSIVE
    ]


async def test_each_of_a_call_is_answered_by_itself(book: AsyncEngine) -> None:
    other = replace(ACME, path="client:other")
    results = await ask(book, ACME, replace(ACME, purpose="else"), other, ACME)

    assert [(result.outcome, result.number) for result in results] == [
        (AccountOutcome.CREATED, 1),
        (AccountOutcome.EXISTS_WITH_DIFFERENT_PURPOSE, 1),
        (AccountOutcome.CREATED, 2),
        (AccountOutcome.EXISTS, 1),
    ]
    assert await verify(book, 1) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"path": ""},
        {"asset": ""},
        {"path": "client:Jane Doe"},
        {"owner": "jane@example.org"},
        {"purpose": "to be\tparsed"},
        {"purpose": "DE89370400440532013000"},
        {"metadata": {"name": "Jane Doe"}},
        {"metadata": {"share": 0.5}},
        {"credit_limit": -1},
        {"credit_limit": AMOUNT_MAX + 1},
        {"effective_at": START.replace(tzinfo=None)},
    ],
    ids=lambda changes: "-".join(f"{name}={value}"[:24] for name, value in changes.items()),
)
async def test_what_no_book_could_understand_or_ought_to_keep_is_refused(
    book: AsyncEngine, changes: dict[str, Any]
) -> None:
    with pytest.raises(BadInput):
        await ask(book, ACME, replace(ACME, **changes))
    async with book.connect() as conn:
        assert (await head(conn, 1)).account_count == 0


async def test_a_call_has_its_limits(book: AsyncEngine) -> None:
    with pytest.raises(BadInput, match="at most"):
        await ask(book, *[ACME] * (BATCH_MAX + 1))
    with pytest.raises(BookNotOpen):
        await transact(book, lambda conn: open_accounts(conn, 2, [ACME], now=START))


async def test_a_limit_that_is_in_use_is_not_taken_away(book: AsyncEngine) -> None:
    story = """
    move_in  move  custody:w  client:b  10 X   -> created
    limit client:b X 5
    out  move  client:b  suspense:x  12 X      -> created
    """
    assert await play(book, story) == story
    before = await rows_of(book)

    async def limit(to: int) -> None:
        await transact(
            book, lambda conn: set_credit_limit(conn, 1, "client:b", "X", to, reason="r", now=START)
        )

    with pytest.raises(PostingRefused, match="uses 2"):
        await limit(1)
    await limit(5)
    assert await rows_of(book) == before
    await limit(2)
    assert await verify(book, 1) == []


async def test_postgresql_itself_holds_the_limit(book: AsyncEngine) -> None:
    story = """
    in  move  custody:w  client:b  10 X  -> created
    limit client:b X 5
    """
    assert await play(book, story) == story
    # It sums to zero, so that nothing but the guard is in the way.
    statement = text(
        "UPDATE ledger.balance b SET debits_posted = debits_posted + 16 * (path = 'client:b')::int,"
        " credits_posted = credits_posted + 16 * (path = 'custody:w')::int"
        " FROM ledger.account a WHERE (a.book, a.number) = (b.book, b.account)"
    )
    async with book.connect() as conn:
        with pytest.raises(DBAPIError) as caught:
            await conn.execute(statement)
    assert constraint_name(caught.value) == "ck_balance_debits_must_not_exceed_credits"


async def test_an_account_that_is_not_there_can_neither_be_frozen_nor_limited(
    book: AsyncEngine,
) -> None:
    for change in (
        lambda conn: set_frozen(conn, 1, "client:x", "X", frozen=True, reason="r", now=START),
        lambda conn: set_credit_limit(conn, 1, "client:x", "X", 1, reason="r", now=START),
    ):
        with pytest.raises(BookNotOpen):
            await transact(book, change)


async def test_an_account_opened_in_a_transaction_that_posts_is_there_for_the_posting(
    book: AsyncEngine,
) -> None:
    custody = AccountSpec(path="custody:w", asset="ETH", side=Side.DEBIT)

    async with book.begin() as conn:
        await open_accounts(conn, 1, [ACME, custody], now=START)
        item = transfer(name_id("a"), "custody:w", "client:acme", 1, "ETH", code="c")
        [result] = await post(conn, 1, [item], now=START)

    assert result.outcome is Outcome.CREATED
    assert await verify(book, 1) == []
