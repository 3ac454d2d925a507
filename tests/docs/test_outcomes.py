"""docs/outcomes.md says what the vocabulary is. After a change: ``python -m tests.docs.rewrite``."""

from __future__ import annotations

import re

from ledger.outcome import APPLIED, AccountOutcome, Outcome
from tests.docs.outcomes import (
    ACCOUNT_TABLE,
    OUTCOME_TABLE,
    OUTCOMES,
    WHEN,
    WHEN_OPENED,
    account_outcomes_text,
    outcomes_text,
)

PAGE = OUTCOMES.read_text()
ROW = re.compile(
    r"^\| (?P<place>\d+) \| `(?P<name>\w+)` \| [^|]+ \| (?P<spends>yes)? ?\| ", re.MULTILINE
)


def test_every_outcome_is_explained() -> None:
    assert set(WHEN) == set(Outcome)
    assert set(WHEN_OPENED) == set(AccountOutcome)


def test_the_table_of_outcomes_is_that_of_the_code() -> None:
    found = OUTCOME_TABLE.search(PAGE)

    assert found is not None
    assert found["text"] == outcomes_text()


def test_the_table_of_account_outcomes_is_that_of_the_code() -> None:
    found = ACCOUNT_TABLE.search(PAGE)

    assert found is not None
    assert found["text"] == account_outcomes_text()


def test_the_table_says_in_order_what_there_is_and_what_spends_an_id() -> None:
    """Read from the page itself, so that not only the generator agrees with the code."""
    rows = [(int(row["place"]), row["name"], row["spends"] == "yes") for row in ROW.finditer(PAGE)]

    assert rows == [
        (place, str(outcome), outcome.transient) for place, outcome in enumerate(Outcome, 1)
    ]


def test_no_answer_of_success_spends_an_id() -> None:
    assert [outcome for outcome in APPLIED if outcome.transient] == []
