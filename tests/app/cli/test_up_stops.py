"""``causeway up`` told to stop: at any moment of its start and of its work, it is gone in time."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from causeway.pytest import LocalChain
from kernel.clock import SystemClock
from tests.app.cli.conftest import Cli
from tests.app.cli.test_up import As, Running, at_work, house_file, send, signer, until

__all__ = ["at_work", "house_file", "signer"]

STOP_S = 30
START_S = 4.0
"""About as long as a start takes: a moment within it is drawn."""
LEASED = """
SELECT count(*) FROM (
    SELECT lease_holder, lease_until FROM kernel.lease
    UNION ALL SELECT lease_holder, lease_until FROM kernel.job
    UNION ALL SELECT lease_holder, lease_until FROM custody.payout
    UNION ALL SELECT lease_holder, lease_until FROM reporting.alert_delivery
) AS leased WHERE lease_until > :now"""


def ask(url: str) -> tuple[int, Any]:
    """Ask the health endpoint: status and body."""
    try:
        with urllib.request.urlopen(url, timeout=STOP_S) as answer:  # noqa: S310  our own
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()


def ended_within(running: Running) -> int:
    """Tell it to stop; return its exit code, or fail where it is not gone in time."""
    began = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    code = running.process.wait(STOP_S)
    assert time.monotonic() - began < STOP_S
    return code


@pytest.mark.usefixtures("signer")
async def test_a_house_at_work_is_ready_until_the_signal_and_leaves_no_lease_behind(
    at_work: Callable[..., Running],
    causeway_chain: LocalChain,
    cli: Cli,
    as_: As,
    engine: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    monkeypatch.setenv("CAUSEWAY_HEALTH_PORT", "0")
    running = at_work()
    url = running.ready()["health"]
    assert until(lambda: ask(f"{url}/readyz")[0] == 200, "its being ready")
    assert {ask(url + path)[0] for path in ("/livez", "/startupz", "/metrics")} == {200}

    assign = ("custody", "address", "assign", "client-pool", *as_("dan"), "--json")
    deposit = cli(*assign, "--party", "acme").json["address"]
    send(causeway_chain, deposit, 10**18)
    causeway_chain.mine(3)
    # While it books that: at a moment of its own choice.
    pause_s = random.SystemRandom().uniform(0, 1)
    await asyncio.sleep(pause_s)

    assert ended_within(running) == 0, running.err.read_text()
    async with engine.connect() as conn:
        left = await conn.execute(text(LEASED), {"now": SystemClock().now()})
        assert left.scalar_one() == 0
    assert "Traceback" not in running.err.read_text()

    record_property("counts", f"a house at work stopped {pause_s:.3f} s after a deposit")


def test_a_house_that_is_still_starting_is_gone_in_time(
    at_work: Callable[..., Running], record_property: Callable[[str, object], None]
) -> None:
    running = at_work()
    pause_s = random.SystemRandom().uniform(0, START_S)
    time.sleep(pause_s)

    code = ended_within(running)

    # Before it listens for signals, the signal itself ends it.
    assert code in {0, -signal.SIGTERM}, running.err.read_text()
    assert "Traceback" not in running.err.read_text()
    ready = [line for line in running.lines if line.get("ready")]
    record_property("counts", f"a start stopped after {pause_s:.3f} s: {len(ready)} ready")


def test_while_its_node_does_not_answer_a_start_is_given_up_at_the_signal(
    at_work: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAUSEWAY_HEALTH_PORT", "0")
    monkeypatch.setenv("CAUSEWAY_LOG_JSON", "1")
    # An address of a network that is for documentation only: nothing answers, and nothing refuses.
    monkeypatch.setenv("CAUSEWAY_EVM_URL", "http://192.0.2.1:8545")
    running = at_work()
    until(lambda: "the signer does not answer" in running.err.read_text(), "the first look outside")

    code = ended_within(running)

    assert code in {0, 3}, json.dumps({"said": running.err.read_text()})
