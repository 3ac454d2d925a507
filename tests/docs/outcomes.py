"""The table of outcomes as docs/outcomes.md has it: made from the vocabulary and from the stories.

What an outcome means is said here, once; its place, whether it spends the id and an example are
taken from the code and from the stories that the tests play.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from textwrap import dedent
from typing import Final

from ledger.outcome import AccountOutcome, Outcome
from tests.docs.machines import REPOSITORY
from tests.ledger.test_scenarios import PRECEDENCE, STORIES

OUTCOMES: Final = REPOSITORY / "docs" / "outcomes.md"
OUTCOME_TABLE: Final = re.compile(r"<!-- outcomes -->\n(?P<text>.*?)<!-- end -->", re.DOTALL)
ACCOUNT_TABLE: Final = re.compile(
    r"<!-- account outcomes -->\n(?P<text>.*?)<!-- end -->", re.DOTALL
)

WHEN: Final[Mapping[Outcome, str]] = {
    Outcome.CREATED: "the id is new, and the transfer is in the journal now",
    Outcome.LINKED_EVENT_FAILED: "another member of its chain failed; the id stays free",
    Outcome.LINKED_EVENT_CHAIN_OPEN: "the last item of a batch is linked to a next one",
    Outcome.IMPORTED_EVENT_EXPECTED: "the batch began with history, and this is none",
    Outcome.IMPORTED_EVENT_NOT_EXPECTED: "history in a batch that did not begin with it",
    Outcome.IMPORTED_EVENT_TIMESTAMP_OUT_OF_RANGE: "history without an effective time",
    Outcome.IMPORTED_EVENT_TIMESTAMP_MUST_NOT_ADVANCE: "history from the future",
    Outcome.RESERVED_FLAG: "the kind is one that only the ledger itself makes (an expiry)",
    Outcome.ID_MUST_NOT_BE_ZERO: "the id is nil",
    Outcome.ID_MUST_NOT_BE_RESERVED: "the id's version is that of the ledger's own records",
    Outcome.EXISTS_WITH_DIFFERENT_FLAGS: "the id is recorded with another kind or other flags",
    Outcome.EXISTS_WITH_DIFFERENT_PENDING_ID: "… resolving another hold",
    Outcome.EXISTS_WITH_DIFFERENT_REVERSES: "… reversing another transfer",
    Outcome.EXISTS_WITH_DIFFERENT_TIMEOUT: "… with another timeout",
    Outcome.EXISTS_WITH_DIFFERENT_DEBIT_ACCOUNT_ID: "… debiting another account",
    Outcome.EXISTS_WITH_DIFFERENT_CREDIT_ACCOUNT_ID: "… crediting another account",
    Outcome.EXISTS_WITH_DIFFERENT_AMOUNT: "… with an amount that this request would not have come to",
    Outcome.EXISTS_WITH_DIFFERENT_USER_DATA: (
        "… with another purpose, effective time, reference, correlation or metadata"
    ),
    Outcome.EXISTS_WITH_DIFFERENT_LEDGER: "… in another asset",
    Outcome.EXISTS_WITH_DIFFERENT_CODE: "… with another code",
    Outcome.EXISTS: "the same request is recorded: its first time, sequence and amount are the answer",
    Outcome.ID_ALREADY_FAILED: "a refusal has spent the id; the answer names it",
    Outcome.FLAGS_ARE_MUTUALLY_EXCLUSIVE: (
        "balancing or closing what only resolves or reverses; `at_original` on anything but a"
        " reversal, on history, or beside an effective time"
    ),
    Outcome.DEBIT_ACCOUNT_ID_MUST_NOT_BE_ZERO: "no account to debit, and none to inherit",
    Outcome.CREDIT_ACCOUNT_ID_MUST_NOT_BE_ZERO: "no account to credit, and none to inherit",
    Outcome.ACCOUNTS_MUST_BE_DIFFERENT: "from an account to itself, also with an amount of 0",
    Outcome.PENDING_ID_MUST_BE_ZERO: "a hold is named by what resolves none",
    Outcome.PENDING_ID_MUST_NOT_BE_ZERO: "a post or void names no hold",
    Outcome.PENDING_ID_MUST_BE_DIFFERENT: "a post or void names itself",
    Outcome.REVERSES_MUST_BE_ZERO: "a transfer to reverse is named by what is no reversal",
    Outcome.REVERSES_MUST_NOT_BE_ZERO: "a reversal names no transfer",
    Outcome.REVERSES_MUST_BE_DIFFERENT: "a reversal names itself",
    Outcome.TIMEOUT_RESERVED_FOR_PENDING_TRANSFER: "a timeout on what reserves nothing",
    Outcome.CLOSING_TRANSFER_MUST_BE_PENDING: "an account is closed by a hold, not by a transfer",
    Outcome.LEDGER_MUST_NOT_BE_ZERO: "no asset, and none to inherit",
    Outcome.CODE_MUST_NOT_BE_ZERO: "no code",
    Outcome.DEBIT_ACCOUNT_NOT_FOUND: "the debited account is not in the book",
    Outcome.CREDIT_ACCOUNT_NOT_FOUND: "the credited account is not in the book",
    Outcome.PENDING_TRANSFER_NOT_FOUND: "the hold is not in the book",
    Outcome.PENDING_TRANSFER_NOT_PENDING: "what is to be resolved is no hold",
    Outcome.PENDING_TRANSFER_HAS_DIFFERENT_DEBIT_ACCOUNT_ID: "the hold debits another account",
    Outcome.PENDING_TRANSFER_HAS_DIFFERENT_CREDIT_ACCOUNT_ID: "the hold credits another account",
    Outcome.PENDING_TRANSFER_HAS_DIFFERENT_LEDGER: "the hold is of another asset",
    Outcome.EXCEEDS_PENDING_TRANSFER_AMOUNT: "more is to be posted than is held",
    Outcome.PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT: "a void of a part: that is a post of the rest",
    Outcome.PENDING_TRANSFER_ALREADY_POSTED: "the hold was posted before",
    Outcome.PENDING_TRANSFER_ALREADY_VOIDED: "the hold was voided before",
    Outcome.PENDING_TRANSFER_EXPIRED: "the time of the hold is over, released yet or not",
    Outcome.REVERSED_TRANSFER_NOT_FOUND: "the transfer to reverse is not in the book",
    Outcome.REVERSED_TRANSFER_NOT_REVERSIBLE: (
        "it has moved nothing itself (a hold, a void, an expiry), or is a reversal"
    ),
    Outcome.REVERSED_TRANSFER_HAS_DIFFERENT_DEBIT_ACCOUNT_ID: (
        "the account to debit is not the one that was credited"
    ),
    Outcome.REVERSED_TRANSFER_HAS_DIFFERENT_CREDIT_ACCOUNT_ID: (
        "the account to credit is not the one that was debited"
    ),
    Outcome.REVERSED_TRANSFER_HAS_DIFFERENT_LEDGER: "the transfer to reverse is of another asset",
    Outcome.REVERSED_TRANSFER_HAS_DIFFERENT_AMOUNT: "a reversal is of the whole amount",
    Outcome.REVERSED_TRANSFER_ALREADY_REVERSED: "it was reversed before",
    Outcome.IMPORTED_EVENT_TIMESTAMP_MUST_NOT_REGRESS: "history is older than the last of it",
    Outcome.IMPORTED_EVENT_TIMESTAMP_MUST_POSTDATE_DEBIT_ACCOUNT: (
        "history is older than the debited account"
    ),
    Outcome.IMPORTED_EVENT_TIMESTAMP_MUST_POSTDATE_CREDIT_ACCOUNT: (
        "history is older than the credited account"
    ),
    Outcome.IMPORTED_EVENT_TIMEOUT_MUST_BE_ZERO: "holds of history never expire by themselves",
    Outcome.EFFECTIVE_PERIOD_CLOSED: "the day on which it is to be effective is closed",
    Outcome.DEBIT_ACCOUNT_ALREADY_CLOSED: "the debited account is closed",
    Outcome.CREDIT_ACCOUNT_ALREADY_CLOSED: "the credited account is closed",
    Outcome.DEBIT_ACCOUNT_FROZEN: "the debited account is frozen (its holds can be resolved)",
    Outcome.CREDIT_ACCOUNT_FROZEN: "the credited account is frozen (its holds can be resolved)",
    Outcome.OVERFLOWS_DEBITS_PENDING: "the column would exceed 2^256 - 1",
    Outcome.OVERFLOWS_CREDITS_PENDING: "the column would exceed 2^256 - 1",
    Outcome.OVERFLOWS_DEBITS_POSTED: "the column would exceed 2^256 - 1",
    Outcome.OVERFLOWS_CREDITS_POSTED: "the column would exceed 2^256 - 1",
    Outcome.OVERFLOWS_DEBITS: "pending and posted debits together would exceed 2^256 - 1",
    Outcome.OVERFLOWS_CREDITS: "pending and posted credits together would exceed 2^256 - 1",
    Outcome.OVERFLOWS_TIMEOUT: "the hold would expire after the year 9999",
    Outcome.EXCEEDS_CREDITS: (
        "debits, reserved ones included, would exceed the credits of an account where they must"
        " not, by more than its credit limit"
    ),
    Outcome.EXCEEDS_DEBITS: "the same for credits over debits",
}

WHEN_OPENED: Final[Mapping[AccountOutcome, str]] = {
    AccountOutcome.CREATED: "the account is open now",
    AccountOutcome.FLAGS_ARE_MUTUALLY_EXCLUSIVE: "neither side may exceed the other",
    AccountOutcome.EXISTS_WITH_DIFFERENT_SIDE: "it is there, standing on the other side",
    AccountOutcome.EXISTS_WITH_DIFFERENT_FLAGS: "… with another guard",
    AccountOutcome.EXISTS_WITH_DIFFERENT_OWNER: "… belonging to somebody else",
    AccountOutcome.EXISTS_WITH_DIFFERENT_PURPOSE: "… for another purpose",
    AccountOutcome.EXISTS_WITH_DIFFERENT_METADATA: "… with other metadata",
    AccountOutcome.EXISTS_WITH_DIFFERENT_EFFECTIVE_TIME: "… existing since another time",
    AccountOutcome.EXISTS: "it is there, as asked for (its credit limit can be set anew)",
}


def example_of(outcome: Outcome) -> str:
    """Return the first line of a story that is answered so, with single blanks."""
    for story in (*STORIES.values(), *PRECEDENCE.values()):
        for line in dedent(story).splitlines():
            asked, arrow, said = line.partition("->")
            if arrow and said.split()[0] == outcome:
                return f"`{' '.join(asked.split())}`"
    raise LookupError(f"no story meets {outcome}")


def outcomes_text() -> str:
    """Return the table of what becomes of a transfer, in order of precedence."""
    lines = ["| # | outcome | when | spends the id | for example |", "|---|---|---|---|---|"]
    for place, outcome in enumerate(Outcome, 1):
        spends = "yes" if outcome.transient else ""
        lines.append(
            f"| {place} | `{outcome}` | {WHEN[outcome]} | {spends} | {example_of(outcome)} |"
        )
    return "\n".join(lines) + "\n"


def account_outcomes_text() -> str:
    """Return the table of what becomes of an account, in order of precedence."""
    lines = ["| # | outcome | when |", "|---|---|---|"]
    for place, outcome in enumerate(AccountOutcome, 1):
        lines.append(f"| {place} | `{outcome}` | {WHEN_OPENED[outcome]} |")
    return "\n".join(lines) + "\n"
