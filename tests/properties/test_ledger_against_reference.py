"""The ledger against a small model that shares no code with its decision.

The model is `tests.properties.ledger_reference`, what is compared after every batch is told by
`tests.properties.ledger_machine`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Final

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from app.local.databases import Database
from kernel.db import APP_ROLE, create_engine
from ledger.model import Kind
from ledger.outcome import AccountOutcome, Outcome
from tests.properties.ledger_aims import AIMS
from tests.properties.ledger_machine import LedgerMachine, Run, tour
from tests.properties.ledger_words import TRANSIENT

STEPS: Final = 8
"""Steps of one example; each posts one batch."""
BATCHES_MIN: Final = 1_000
"""Batches of a run in CI, at least."""
IDLE_MS: Final = 60_000


@pytest.mark.timeout(1_800)
def test_the_ledger_does_what_the_reference_does(
    database: Database, record_property: Callable[[str, object], None]
) -> None:
    examples = hypothesis.settings().max_examples
    with asyncio.Runner() as loop:
        engine = create_engine(
            database.app_url,
            role=APP_ROLE,
            idle_in_transaction_timeout_ms=IDLE_MS,
            injected_clock=True,
        )
        run = LedgerMachine.run = Run(loop, engine)
        try:
            # What an unlucky draw may never come near, this meets in every run.
            for _ in ("posted", "through a writer"):
                tour(LedgerMachine(sys.stdout.write))
            run_state_machine_as_test(
                LedgerMachine,
                settings=settings(
                    stateful_step_count=STEPS,
                    report_multiple_bugs=False,
                    # Shrinking a program takes minutes; the seed that failed is kept, and tried first.
                    phases=[Phase.reuse, Phase.generate],
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
                ),
            )
        finally:
            record_property("counts", run.told())
            loop.run(engine.dispose())

    assert run.batches >= min(BATCHES_MIN, 5 * examples)
    assert run.ahead > 0
    assert {str(outcome) for outcome in Outcome} - set(run.outcomes) == set()
    assert {str(outcome) for outcome in AccountOutcome} - set(run.opened) == set()
    assert {kind.name.lower() for kind in Kind if kind is not Kind.EXPIRE} == set(run.kinds)


def test_every_outcome_is_aimed_at() -> None:
    assert set(AIMS) == {str(outcome) for outcome in Outcome}


def test_what_the_reference_holds_for_transient_the_ledger_does() -> None:
    assert {str(outcome) for outcome in Outcome if outcome.transient} == set(TRANSIENT)
