"""How long do a hundred thousand receipts take against a hundred thousand expectations?

Half come through a bank with what people write around a reference, half on a chain with an amount; a
twentieth names nothing and is left to people. The peer looks each receipt up in a table by its amount
and party and nothing else: it reads no text, knows no tolerance, no sum and no ambiguity.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from time import perf_counter
from typing import Final
from uuid import UUID

from bench.measure import Measured, Result, Shared, peak_memory_kib, versions
from settlement.matching.decide import match_all
from settlement.matching.model import Expected, Incoming, RailRules, Rule, Rules, Verdict
from settlement.matching.references import reference_of
from trading.terms.model import Rail

LINES: Final = 100_000
PARTIES: Final = 20_000
SEED: Final = 9
AT_MOST_S: Final = 10.0
TURNS: Final = 3
"""The fastest counts: what else the machine runs only adds."""
TOLERANCE: Final = 500
NAMELESS: Final = 20
SHORT: Final = 10
DAY: Final = date(2026, 1, 5)
SEEN: Final = datetime(2026, 1, 5, 9, tzinfo=UTC)
RULES: Final = Rules(
    rails={
        Rail.BANK: RailRules(unique_amount=False, tolerance={"USD": TOLERANCE}),
        Rail.EVM: RailRules(unique_amount=True),
    }
)


def measure(shared: Shared) -> Measured:
    """Match everything, and once more with half of the lines: is it more than twice as quick?"""
    del shared
    incoming, expected = _lines(random.Random(SEED))
    verdicts, seconds = _time(incoming, expected)
    _, half = _time(incoming[: LINES // 2], expected[: LINES // 2])
    matched = sum(verdict.rule is not None for verdict in verdicts)
    by_reference = sum(verdict.rule is Rule.REFERENCE for verdict in verdicts)
    assert by_reference == LINES // 2 - LINES // 2 // NAMELESS, "every name was found"
    results = [
        Result(name="settlement_matching", value=seconds, unit="s", at_most=AT_MOST_S),
        Result(
            name="settlement_matching.growth",
            value=seconds,
            unit="s",
            baseline="half of the lines",
            baseline_value=half,
        ),
        Result(
            name="settlement_matching.table",
            value=seconds,
            unit="s",
            baseline="a look-up by amount and party alone",
            baseline_value=_peer(incoming, expected),
        ),
        Result(name="settlement_matching.matched", value=100 * matched / LINES, unit="%"),
        Result(name="settlement_matching.memory", value=peak_memory_kib(), unit="KiB"),
    ]
    facts = {
        "input": f"{LINES:,} receipts, {LINES:,} instructions, {PARTIES:,} parties, seed {SEED}",
        "banks": f"half; one in {SHORT} short by up to {TOLERANCE}, one in {NAMELESS} nameless",
        "turns": f"the fastest of {TURNS}",
    }
    return Measured(results, facts, versions())


def _lines(chance: random.Random) -> tuple[list[Incoming], list[Expected]]:
    incoming, expected = [], []
    for number in range(LINES):
        item = _expected(chance, number)
        expected.append(item)
        incoming.append(_incoming(chance, number, item))
    order = list(range(LINES))
    chance.shuffle(order)
    return [incoming[place] for place in order], expected


def _expected(chance: random.Random, number: int) -> Expected:
    key = UUID(int=chance.getrandbits(128))
    bank = number % 2 == 0
    return Expected(
        id=key,
        party=f"party-{number % PARTIES}",
        asset="USD" if bank else "USDT",
        remaining=chance.randint(1_000, 10**12),
        value_date=DAY,
        rail=Rail.BANK if bank else Rail.EVM,
        references=(reference_of(key), key.hex),
    )


def _incoming(chance: random.Random, number: int, item: Expected) -> Incoming:
    bank = item.rail is Rail.BANK
    named = bank and number // 2 % NAMELESS
    short = chance.randint(1, TOLERANCE) if bank and number // 2 % SHORT == 1 else 0
    return Incoming(
        id=UUID(int=chance.getrandbits(128)),
        epoch=1,
        rail=item.rail,
        party=None if bank else item.party,
        asset=item.asset,
        value=item.remaining - short,
        reference=f"/ROC/your ref {reference_of(item.id)} of monday" if named else "invoice",
        end_to_end="NOTPROVIDED" if bank else "",
        name="Acme Trading Limited",
        iban="DE75512108001245126199",
        value_date=DAY,
        first_seen_at=SEEN + timedelta(seconds=number),
    )


def _time(
    incoming: Sequence[Incoming], expected: Sequence[Expected]
) -> tuple[list[Verdict], float]:
    found: list[Verdict] = []
    turns = []
    for _ in range(TURNS):
        found = []
        # As in a process that has started: the input is no garbage, and is not looked through anew.
        gc.collect()
        gc.freeze()
        began = perf_counter()
        found = match_all(incoming, expected, RULES)
        turns.append(perf_counter() - began)
        gc.unfreeze()
    return found, min(turns)


def _peer(incoming: Sequence[Incoming], expected: Sequence[Expected]) -> float:
    turns = []
    for _ in range(TURNS):
        began = perf_counter()
        table = {(item.asset, item.remaining, item.party): item.id for item in expected}
        found = [table.get((item.asset, item.value, item.party or "")) for item in incoming]
        turns.append(perf_counter() - began)
        assert len(found) == len(incoming)
    return min(turns)
