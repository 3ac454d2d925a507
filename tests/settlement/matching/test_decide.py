"""What arrived against what is awaited: every rule, every reason to leave it to a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import combinations
from random import Random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.matching.decide import ROUNDS_MAX, find_matches, match_all
from settlement.matching.model import (
    FIRST_RULES,
    SUBSET_MAX,
    Expected,
    Incoming,
    RailRules,
    Rule,
    Rules,
    Verdict,
)
from settlement.matching.references import names_in, reference_of
from settlement.matching.subsets import chosen, sums
from tests.settlement.matching.table import (
    DAY,
    TOLERANT,
    awaited,
    decide,
    due,
    receipt,
    wire,
)
from trading.terms.model import Rail

LATER = DAY + timedelta(days=1)


@pytest.mark.parametrize(
    ("story", "incoming", "expected", "verdicts"),
    [
        ("exact", [receipt(1, 100)], [awaited(7, 100)], ["1 exact 7:100"]),
        ("short", [receipt(1, 60)], [awaited(7, 100)], ["1 sole 7:60"]),
        ("over", [receipt(1, 130)], [awaited(7, 100)], ["1 sole 7:100>30"]),
        (
            "one of two fits",
            [receipt(1, 50)],
            [awaited(7, 100), awaited(8, 50)],
            ["1 exact 8:50"],
        ),
        (
            "two equal ones: ambiguous",
            [receipt(1, 50)],
            [awaited(7, 50), awaited(8, 50)],
            ["1 ? 7 8"],
        ),
        (
            "two receipts of one amount",
            [receipt(1, 50), receipt(2, 50)],
            [awaited(7, 50), awaited(8, 40)],
            ["1 ? 7 8", "2 ? 7 8"],
        ),
        (
            "short, and two could be meant",
            [receipt(1, 30)],
            [awaited(7, 100), awaited(8, 50)],
            ["1 ? 7 8"],
        ),
        (
            "what is left after the exact one is the sole one",
            [receipt(1, 100), receipt(2, 30)],
            [awaited(7, 100), awaited(8, 60)],
            ["1 exact 7:100", "2 sole 8:30"],
        ),
        (
            "one pays many",
            [receipt(1, 150)],
            [awaited(7, 100), awaited(8, 50), awaited(9, 70)],
            ["1 split 7:100 8:50"],
        ),
        (
            "one pays many, in two ways",
            [receipt(1, 150)],
            [awaited(7, 100), awaited(8, 50), awaited(9, 50)],
            ["1 ? 7 8 9"],
        ),
        (
            "one pays many, of two days: a person",
            [receipt(1, 150)],
            [awaited(7, 100), awaited(8, 50, value_date=LATER), awaited(9, 70)],
            ["1 ? 7+8 7 9 8"],
        ),
        (
            "many pay one",
            [receipt(1, 60), receipt(2, 40)],
            [awaited(7, 100), awaited(8, 70)],
            ["1+2 combined 7:60 7:40"],
        ),
        (
            "many pay one, in two ways",
            [receipt(1, 60), receipt(2, 40), receipt(3, 40)],
            [awaited(7, 100), awaited(8, 75)],
            ["1 ? 7 8", "2 ? 7 8", "3 ? 7 8"],
        ),
        (
            "two receipts claim the same sum",
            [receipt(1, 150), receipt(2, 150)],
            [awaited(7, 100), awaited(8, 50)],
            ["1 ? 7+8 7 8", "2 ? 7+8 7 8"],
        ),
        (
            "paid twice: either would do, a person says which",
            [receipt(1, 100), receipt(2, 100)],
            [awaited(7, 100)],
            ["1 ? 7", "2 ? 7"],
        ),
        (
            "paid in two parts, the second too much",
            [receipt(1, 60), receipt(2, 60)],
            [awaited(7, 100)],
            ["1 sole 7:60", "2 sole 7:40>20"],
        ),
        ("nothing is awaited", [receipt(1, 50)], [], ["1 ?"]),
        ("another party's", [receipt(1, 50)], [awaited(7, 50, party="birch")], ["1 ?"]),
        ("another asset", [receipt(1, 50)], [awaited(7, 50, asset="ETH")], ["1 ?"]),
        ("another rail", [receipt(1, 50)], [awaited(7, 50, rail=Rail.BITCOIN)], ["1 ?"]),
        (
            "beyond 64 bits",
            [receipt(1, 10**30)],
            [awaited(7, 10**30 + 1)],
            [f"1 sole 7:{10**30}"],
        ),
        # Banks: a reference, or a person.
        ("by reference", [wire(1, 100, "thanks, REF7")], [due(7, 100)], ["1 reference 7:100"]),
        ("by end-to-end id", [wire(1, 99, end_to_end="ref7")], [due(7, 100)], ["1 reference 7:99"]),
        (
            "the reference counts, not the amount",
            [wire(1, 50, "REF7")],
            [due(7, 100), due(8, 50)],
            ["1 reference 7:50"],
        ),
        (
            "two names, their sum",
            [wire(1, 150, "REF7 REF8")],
            [due(7, 100), due(8, 50)],
            ["1 reference 7:100 8:50"],
        ),
        (
            "two names, not their sum",
            [wire(1, 140, "REF7 REF8")],
            [due(7, 100), due(8, 50)],
            ["1 ? 7+8"],
        ),
        ("no reference", [wire(1, 100, "invoice")], [due(7, 100)], ["1 ? 7"]),
        (
            "a wrong reference, two equal candidates",
            [wire(1, 100, "REF9")],
            [due(7, 100), due(8, 100, party="birch")],
            ["1 ? 7 8"],
        ),
        (
            "it names what another party owes",
            [wire(1, 100, "REF7", party="birch")],
            [due(7, 100)],
            ["1 ? 7"],
        ),
        (
            "the name of what is paid already",
            [wire(1, 100, "REF7"), wire(2, 100, "REF7")],
            [due(7, 100)],
            ["1 reference 7:100", "2 ?"],
        ),
        (
            "the name of an instruction on another rail",
            [wire(1, 100, "REF7")],
            [awaited(7, 100, asset="USD")],
            ["1 ?"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_receipt_pays(
    story: str, incoming: list[Incoming], expected: list[Expected], verdicts: list[str]
) -> None:
    assert decide(incoming, expected) == verdicts


@pytest.mark.parametrize(
    ("story", "incoming", "expected", "verdicts"),
    [
        (
            "a bank kept its fee",
            [wire(1, 599_975, "REF7")],
            [due(7, 600_000)],
            ["1 reference 7:599975+25"],
        ),
        (
            "more than a fee is missing",
            [wire(1, 599_974, "REF7")],
            [due(7, 600_000)],
            ["1 reference 7:599974"],
        ),
        (
            "the party bears the charges",
            [wire(1, 599_975, "REF7")],
            [due(7, 600_000, party="birch")],
            ["1 reference 7:599975"],
        ),
        (
            "one fits within the tolerance",
            [wire(1, 975, party="acme")],
            [due(7, 1_000), due(8, 2_000)],
            ["1 tolerance 7:975+25"],
        ),
        (
            "two fit within the tolerance",
            [wire(1, 975, party="acme")],
            [due(7, 1_000), due(8, 990)],
            ["1 ? 8 7"],
        ),
        (
            "two receipts fit the same",
            [wire(1, 975, party="acme"), wire(2, 980, party="acme")],
            [due(7, 1_000), due(8, 5_000)],
            ["1 ? 7 8", "2 ? 7 8"],
        ),
        (
            "what fits two exactly is not short of a third",
            [wire(1, 980, party="acme")],
            [due(7, 1_000), due(8, 980), due(9, 980)],
            ["1 ? 8 9 7"],
        ),
        ("nobody knows whose", [wire(1, 975)], [due(7, 1_000)], ["1 ? 7"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_banks_on_the_way_keep(
    story: str, incoming: list[Incoming], expected: list[Expected], verdicts: list[str]
) -> None:
    assert decide(incoming, expected, TOLERANT) == verdicts


def test_a_sum_is_not_searched_among_more_than_a_dozen() -> None:
    items = [awaited(n, 1 << n) for n in range(1, SUBSET_MAX + 1)]
    assert decide([receipt(99, 6)], items) == ["99 split 1:2 2:4"]

    items.append(awaited(SUBSET_MAX + 1, 1 << SUBSET_MAX + 1))
    (verdict,) = match_all([receipt(99, 6)], items, FIRST_RULES)
    assert verdict.rule is None


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "your ref {} of monday",
        "/ROC/{}//URI/x",
        "{0[0]}{0[1]}-"
        + "".join(f"{{0[{n}]}}" for n in range(2, 9))
        + " {0[9]}\n{0[10]}"
        + "".join(f"{{0[{n}]}}" for n in range(11, 18)),
    ],
    ids=["alone", "in a sentence", "among codes", "broken"],
)
def test_our_reference_is_found_however_a_bank_breaks_it(text: str) -> None:
    wanted = reference_of(UUID(int=0x0198F2C47D218A6E9C305B1F4E6A7D80))

    assert wanted in names_in(text.format(wanted))
    assert wanted in names_in(text.format(wanted.lower()))


def test_references_differ_wherever_the_hash_of_an_id_does() -> None:
    base = 0x0198F2C47D218A6E9C305B1F4E6A7D80
    references = {reference_of(UUID(int=base ^ 1 << bit)) for bit in range(80)}

    assert len(references | {reference_of(UUID(int=base))}) == 81
    assert {len(item) for item in references} == {18}


@given(st.lists(st.integers(min_value=1, max_value=20), max_size=7))
def test_a_sum_has_a_choice_exactly_if_brute_force_finds_one(amounts: list[int]) -> None:
    ways: dict[int, list[tuple[int, ...]]] = {}
    for size in range(1, len(amounts) + 1):
        for places in combinations(range(len(amounts)), size):
            ways.setdefault(sum(amounts[p] for p in places), []).append(places)
    found = sums(amounts)
    for total, choices in ways.items():
        only = choices[0] if len(choices) == 1 and len(choices[0]) > 1 else ()
        assert tuple(chosen(found.get(total, 0))) == only


def some(chance: Random) -> tuple[list[Incoming], list[Expected]]:
    """A few receipts and instructions whose amounts collide often."""
    parties = ["acme", "birch"]
    expected = [
        due(
            100 + n,
            chance.randint(1, 12) * 10,
            party=chance.choice(parties),
            value_date=chance.choice([DAY, LATER]),
        )
        for n in range(chance.randint(0, 7))
    ]
    incoming = [
        wire(
            1 + n,
            chance.randint(1, 15) * 10 - chance.choice([0, 0, 5]),
            f"REF{chance.randint(100, 112)}" if chance.random() < 0.3 else "",
            party=chance.choice([*parties, *parties, None]),
            value_date=chance.choice([DAY, LATER]),
        )
        for n in range(chance.randint(0, 7))
    ]
    return incoming, expected


def totals(verdicts: list[Verdict]) -> tuple[dict[UUID, int], dict[UUID, int]]:
    """What each instruction gets, and what of each receipt goes somewhere."""
    paid: dict[UUID, int] = {}
    used: dict[UUID, int] = {}
    for part in (part for verdict in verdicts for part in verdict.parts):
        paid[part.expected] = paid.get(part.expected, 0) + part.applied + part.charge
        used[part.incoming] = used.get(part.incoming, 0) + part.applied + part.excess
    return paid, used


@given(st.integers(min_value=0, max_value=2**32))
def test_nothing_is_paid_twice_and_nothing_is_lost(seed: int) -> None:
    incoming, expected = some(Random(seed))
    verdicts = match_all(incoming, expected, TOLERANT)
    paid, used = totals(verdicts)

    owed = {item.id: item for item in expected}
    assert all(amount <= owed[key].remaining for key, amount in paid.items())
    values = {item.id: item.value for item in incoming}
    matched = [key for v in verdicts if v.rule is not None for key in v.incoming]
    assert {key: values[key] for key in matched} == used
    assert sorted(key for v in verdicts for key in v.incoming) == sorted(values)
    sources = {item.id: item for item in incoming}
    for part in (part for verdict in verdicts for part in verdict.parts):
        came, item = sources[part.incoming], owed[part.expected]
        assert (came.rail, came.asset) == (item.rail, item.asset)
        assert came.party in {None, item.party}
        assert part.excess == 0 or paid[item.id] == item.remaining


@given(st.integers(min_value=0, max_value=2**32))
def test_neither_the_order_of_the_input_nor_what_ids_happen_to_be_decides(seed: int) -> None:
    chance = Random(seed)
    incoming, expected = some(chance)
    before = match_all(incoming, expected, TOLERANT)
    new = {item.id: UUID(int=chance.getrandbits(128)) for item in expected}
    relabelled = [replace(item, id=new[item.id]) for item in expected]
    chance.shuffle(incoming)
    chance.shuffle(relabelled)

    after = match_all(incoming, relabelled, TOLERANT)

    def facts(verdicts: list[Verdict], ids: dict[UUID, UUID]) -> set[tuple[object, ...]]:
        return {
            (v.rule, p.incoming, ids.get(p.expected, p.expected), p.applied, p.charge, p.excess)
            for v in verdicts
            for p in v.parts
        }

    assert facts(before, new) == facts(after, {})


@given(st.integers(min_value=0, max_value=2**32))
def test_what_two_would_do_as_well_is_never_matched_by_amount(seed: int) -> None:
    """A twin of every instruction, and no references: only a sum that takes both twins is one."""
    incoming, expected = some(Random(seed))
    twins = [replace(i, id=UUID(int=i.id.int + 1_000)) for i in expected]
    nameless = [replace(i, reference="") for i in incoming]

    verdicts = match_all(nameless, [*expected, *twins], TOLERANT)

    assert {v.rule for v in verdicts} <= {None, Rule.SPLIT}
    for part in (part for verdict in verdicts for part in verdict.parts):
        other = UUID(int=part.expected.int + (1_000 if part.expected.int < 1_000 else -1_000))
        assert any(p.expected == other for v in verdicts for p in v.parts)


def test_a_party_whose_amounts_open_one_match_each_round_takes_no_longer_than_it_is_worth() -> None:
    """Each receipt is short of two, until the round before has paid the first of them."""
    count = 4 * ROUNDS_MAX
    items = [due(1_000 + n, 60 * n + 1_000) for n in range(count)]
    receipts = [wire(1 + n, 60 * n + 999 - 24, party="acme") for n in range(count)]
    wide = Rules(rails={Rail.BANK: RailRules(unique_amount=True, tolerance={"USD": 85})})

    matched = find_matches(receipts, items, wide)
    assert 0 < len(matched) <= ROUNDS_MAX
    done = {key for verdict in matched for key in verdict.incoming}
    paid = {part.expected for verdict in matched for part in verdict.parts}

    # The rest waits for the next time.
    more = find_matches(
        [r for r in receipts if r.id not in done], [i for i in items if i.id not in paid], wide
    )
    assert more


def test_receipts_that_strangers_send_are_not_added_up_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def counted(amounts: Sequence[int]) -> dict[int, int]:
        asked.append(len(amounts))
        return sums(amounts)

    monkeypatch.setattr("settlement.matching.suggest.sums", counted)
    items = [awaited(1_000 + n, 1_000 << n) for n in range(SUBSET_MAX)]
    dust = [receipt(n, n) for n in range(1, 900)]

    assert all(verdict.rule is None for verdict in match_all(dust, items, FIRST_RULES))
    assert asked == [SUBSET_MAX]
