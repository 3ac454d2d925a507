"""What can settle with what there is: worked examples, brute force, and who may be trusted."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from settlement.netting.exact import BUILT_IN
from settlement.netting.fifo import choose_in_order
from settlement.netting.liquidity import choose
from settlement.netting.model import (
    Account,
    Choice,
    ChoiceProblem,
    Found,
    Method,
    Movement,
    Payment,
    Shortfall,
    Solvers,
)
from settlement.netting.verification import verify_choice
from settlement.solvers.loading import load_solvers
from tests.settlement.netting.graphs import DAY, best_value, can_settle, payments

INSTALLED = load_solvers()
LIMIT_S = 10.0
WEI = 10**18


def usd(**funds: int) -> dict[Account, int]:
    return {(party, "USD"): amount for party, amount in funds.items()}


def drawn(
    seed: int, *, count: int, amount_max: int
) -> tuple[list[Payment], dict[Account, int], dict[Account, int | None]]:
    rng = Random(seed)
    rows: list[tuple[str, str, int]] = []
    while len(rows) < count:
        payer, payee = rng.choices("ABCDE", k=2)
        if payer != payee:
            rows.append((payer, payee, rng.randint(1, amount_max)))
    funds = usd(**{party: rng.randint(0, amount_max) for party in "ABCD"})
    limits: dict[Account, int | None] = {("D", "USD"): amount_max // 2}
    if seed % 5 == 0:
        limits["E", "USD"] = None
    return payments(*rows), funds, limits


@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize(
    ("story", "rows", "funds", "chosen"),
    [
        ("each pays the other", [("A", "B", 500), ("B", "A", 300)], {"A": 200}, [0, 1]),
        (
            "one has something, and three settle in a circle",
            [("A", "B", 500), ("B", "C", 800), ("C", "A", 700)],
            {"B": 300},
            [0, 1, 2],
        ),
        ("nobody has anything", [("A", "B", 5), ("B", "C", 7)], {}, []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_choices_by_example(
    story: str,
    rows: list[tuple[str, str, int]],
    funds: dict[str, int],
    chosen: list[int],
    method: Method,
) -> None:
    wanted = payments(*rows)

    found = choose(wanted, usd(**funds), {}, method=method, time_limit_s=LIMIT_S, solvers=INSTALLED)

    if method is not Method.PARTIAL or chosen:
        assert found.chosen == {wanted[n].id for n in chosen}
    assert verify_choice(wanted, usd(**funds), {}, found) == ()


@pytest.mark.parametrize("seed", range(0, 500, 50))
def test_the_optimum_equals_brute_force(seed: int) -> None:
    for number in range(seed, seed + 50):
        wanted, funds, limits = drawn(number, count=3 + number % 8, amount_max=9)

        found = choose(
            wanted, funds, limits, method=Method.OPTIMAL, time_limit_s=LIMIT_S, solvers=INSTALLED
        )

        assert found.value == best_value(wanted, funds, limits), number
        assert found.bound >= found.value
        assert verify_choice(wanted, funds, limits, found) == ()


@pytest.mark.parametrize("unit", [WEI, 1], ids=["whole ether", "any wei"])
@pytest.mark.parametrize("seed", range(0, 60, 20))
def test_what_takes_the_last_wei_there_is_is_found(seed: int, unit: int) -> None:
    """Some of the payments come to the very sum that the wallet has: rounding must not rule them out."""
    for number in range(seed, seed + 20):
        rng = Random(number)
        amounts = [unit * rng.randint(1, 100 * WEI // unit) for _ in range(3 + number % 5)]
        some = rng.sample(amounts, rng.randint(1, len(amounts) - 1))
        wanted = payments(*(("A", f"p{n}", amount) for n, amount in enumerate(amounts)))
        funds = usd(A=sum(some))

        found = choose(
            wanted, funds, {}, method=Method.OPTIMAL, time_limit_s=LIMIT_S, solvers=INSTALLED
        )

        assert found.value == best_value(wanted, funds, {}) == sum(some), number
        assert found.bound == found.value
        assert verify_choice(wanted, funds, {}, found) == ()


@pytest.mark.parametrize("amount_max", [9, 1_000 * WEI])
@pytest.mark.parametrize("seed", range(0, 60, 20))
def test_the_optimum_of_any_size_is_payable_never_less_than_fifo_and_below_its_bound(
    seed: int, amount_max: int
) -> None:
    for number in range(seed, seed + 20):
        wanted, funds, limits = drawn(number, count=12, amount_max=amount_max)
        fifo, best, parts = (
            choose(wanted, funds, limits, method=m, time_limit_s=LIMIT_S, solvers=INSTALLED)
            for m in Method
        )

        assert fifo.value <= best.value <= parts.value <= parts.bound
        assert best.value <= best.bound <= parts.value
        for choice in (fifo, best, parts):
            assert verify_choice(wanted, funds, limits, choice) == ()
        assert len(parts.partial) <= 5


@pytest.mark.parametrize("seed", range(0, 200, 50))
def test_fifo_is_the_one_largest_set_whatever_the_order_of_dropping(seed: int) -> None:
    for number in range(seed, seed + 50):
        wanted, funds, limits = drawn(number, count=10, amount_max=9)
        rooms = {
            account: None
            if limits.get(account, 0) is None
            else max(0, funds.get(account, 0) + (limits.get(account, 0) or 0))
            for party in "ABCDE"
            for account in [(party, "USD")]
        }

        found = [wanted[n] for n in choose_in_order(wanted, rooms)]

        for order in range(3):
            assert found == dropped_by_hand(wanted, rooms, Random(order))
        assert can_settle(found, funds, limits)


def dropped_by_hand(
    wanted: list[Payment], rooms: dict[Account, int | None], rng: Random
) -> list[Payment]:
    """Drop the last payment of somebody who is short, drawn anew each time."""
    left = list(wanted)
    while True:
        short = []
        for account, room in rooms.items():
            paid = sum(p.value for p in left if p.movements[0].payer == account[0])
            got = sum(p.value for p in left if p.movements[0].payee == account[0])
            if room is not None and room - paid + got < 0:
                short.append(account[0])
        if not short:
            return left
        who = rng.choice(short)
        left.remove([p for p in left if p.movements[0].payer == who][-1])


def trade(
    name: str, payer: str, payee: str, base: int, quote: int, *, value: int, n: int
) -> Payment:
    """ETH against USD, value against value."""
    legs = (Movement(payer, payee, "ETH", base), Movement(payee, payer, "USD", quote))
    return Payment(name, legs, value, (DAY, f"{n}{name}"))


@pytest.mark.parametrize("method", [Method.FIFO, Method.OPTIMAL])
@pytest.mark.parametrize(
    ("story", "funds", "chosen"),
    [
        ("both have their side", {("A", "ETH"): 2, ("B", "USD"): 6}, {"t"}),
        ("the one has it, the other has not", {("A", "ETH"): 2, ("B", "USD"): 5}, set()),
        ("the other has it, the one has not", {("A", "ETH"): 1, ("B", "USD"): 6}, set()),
        ("funds of another asset do not help", {("A", "USD"): 9, ("B", "ETH"): 9}, set()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_trade_settles_with_both_its_legs_or_not_at_all(
    story: str, funds: dict[Account, int], chosen: set[str], method: Method
) -> None:
    wanted = [trade("t", "A", "B", 2, 6, value=6, n=1)]

    found = choose(wanted, funds, {}, method=method, time_limit_s=LIMIT_S, solvers=INSTALLED)

    assert found.chosen == chosen


@pytest.mark.parametrize("seed", range(0, 60, 20))
def test_the_optimum_of_trades_in_two_assets_equals_brute_force(seed: int) -> None:
    for number in range(seed, seed + 20):
        rng = Random(number)
        wanted = []
        for n in range(8):
            payer, payee = rng.sample("ABC", 2)
            base, quote = rng.randint(1, 5), rng.randint(1, 9)
            wanted.append(trade(f"t{n}", payer, payee, base, quote, value=quote, n=n))
        funds = {(p, a): rng.randint(0, 6) for p in "ABC" for a in ("ETH", "USD")}

        found = choose(
            wanted, funds, {}, method=Method.OPTIMAL, time_limit_s=LIMIT_S, solvers=INSTALLED
        )

        assert found.value == best_value(wanted, funds, {})
        assert verify_choice(wanted, funds, {}, found) == ()


def test_a_class_before_goes_before_whatever_its_value() -> None:
    wanted = payments(("A", "B", 10), ("A", "C", 3))

    found = choose(
        wanted,
        usd(A=10),
        {},
        method=Method.OPTIMAL,
        time_limit_s=LIMIT_S,
        priority={wanted[0].id: 1},
        solvers=INSTALLED,
    )

    assert found.chosen == {wanted[1].id}


def test_without_a_solver_the_optimum_is_never_less_than_fifo() -> None:
    for seed in range(20):
        wanted, funds, limits = drawn(seed, count=10, amount_max=9)
        fifo, best = (
            choose(wanted, funds, limits, method=m, time_limit_s=LIMIT_S, solvers=BUILT_IN)
            for m in (Method.FIFO, Method.OPTIMAL)
        )

        assert best.value >= fifo.value
        assert verify_choice(wanted, funds, limits, best) == ()


class Careless:
    """A solver of choices that chooses everything, or nothing in time."""

    name = "careless"

    def __init__(self, *, finds: bool) -> None:
        self.finds = finds

    def __call__(self, problem: ChoiceProblem, *, time_limit_s: float) -> Found:
        count = len(problem.weights)
        return Found(chosen=range(count) if self.finds else None, bound=sum(problem.weights))

    def relax(self, problem: ChoiceProblem, *, time_limit_s: float) -> Found:
        return self(problem, time_limit_s=time_limit_s)


@pytest.mark.parametrize("finds", [True, False])
def test_what_a_solver_chooses_is_mended_until_it_can_be_paid(*, finds: bool) -> None:
    solvers = Solvers(flow=BUILT_IN.flow, choice=Careless(finds=finds))
    for seed in range(20):
        wanted, funds, limits = drawn(seed, count=10, amount_max=9)
        fifo = choose(wanted, funds, limits, method=Method.FIFO, time_limit_s=LIMIT_S)

        found = choose(
            wanted, funds, limits, method=Method.OPTIMAL, time_limit_s=LIMIT_S, solvers=solvers
        )

        assert found.value >= fifo.value
        assert verify_choice(wanted, funds, limits, found) == ()


def gridlock(*, parties: int, count: int, unit: int) -> tuple[list[Payment], dict[Account, int]]:
    """Payments of lognormal amounts; each payer has one percent of what he is to pay."""
    rng = Random(1)
    rows: list[tuple[str, str, int]] = []
    while len(rows) < count:
        payer, payee = (f"p{rng.randrange(parties)}" for _ in range(2))
        if payer != payee:
            rows.append((payer, payee, unit * int(rng.lognormvariate(10, 1)) + rng.randrange(unit)))
    funds: dict[Account, int] = {}
    for payer, _, amount in rows:
        funds[payer, "USD"] = funds.get((payer, "USD"), 0) + amount
    return payments(*rows), {account: owed // 100 for account, owed in funds.items()}


class OutOfTime:
    """HiGHS whose branch and bound finds nothing."""

    name = "out of time"

    def __call__(self, problem: ChoiceProblem, *, time_limit_s: float) -> Found:
        return Found(chosen=None, bound=sum(problem.weights))

    def relax(self, problem: ChoiceProblem, *, time_limit_s: float) -> Found:
        assert INSTALLED.choice is not None
        return INSTALLED.choice.relax(problem, time_limit_s=time_limit_s)


@pytest.mark.parametrize("unit", [1, WEI], ids=["cents", "wei"])
@pytest.mark.parametrize("worth", [1, 3], ids=["by amount", "by worth"])
def test_many_payments_come_near_their_bound_though_no_branch_does(unit: int, worth: int) -> None:
    wanted, funds = gridlock(parties=20, count=800, unit=unit)
    wanted = [replace(p, value=p.value * worth) for p in wanted]
    solvers = replace(INSTALLED, choice=OutOfTime())

    fifo, best = (
        choose(wanted, funds, {}, method=m, time_limit_s=LIMIT_S, solvers=solvers)
        for m in (Method.FIFO, Method.OPTIMAL)
    )

    assert verify_choice(wanted, funds, {}, best) == ()
    assert fifo.value * 10 < best.value <= best.bound
    assert best.gap_ppm < 80_000


def test_without_a_library_many_payments_come_near_the_optimum_in_parts() -> None:
    wanted, funds = gridlock(parties=20, count=800, unit=WEI)

    parts, best = (
        choose(wanted, funds, {}, method=m, time_limit_s=LIMIT_S, solvers=BUILT_IN)
        for m in (Method.PARTIAL, Method.OPTIMAL)
    )

    assert verify_choice(wanted, funds, {}, best) == ()
    assert best.method == "primal-dual"
    assert best.bound == parts.value
    assert best.gap_ppm < 80_000


WANTED = payments(("A", "B", 5), ("B", "C", 7))
NAMES = [payment.id for payment in WANTED]
CHOSEN = Choice(frozenset(), {}, "by hand", 0, 0)


@pytest.mark.parametrize(
    ("choice", "short"),
    [
        (replace(CHOSEN, chosen=frozenset(NAMES)), [Shortfall(("B", "USD"), 1)]),
        (replace(CHOSEN, chosen=frozenset(NAMES[:1]), partial={NAMES[1]: 6}), []),
        (replace(CHOSEN, chosen=frozenset(NAMES[1:])), [Shortfall(("B", "USD"), 6)]),
    ],
    ids=["one short", "in part", "without what comes in"],
)
def test_a_choice_that_cannot_be_paid_names_who_is_short(
    choice: Choice, short: list[Shortfall]
) -> None:
    assert list(verify_choice(WANTED, usd(A=5, B=1), {}, choice)) == short


@pytest.mark.parametrize(
    "choice",
    [
        replace(CHOSEN, chosen=frozenset({"nobody"})),
        replace(CHOSEN, chosen=frozenset(NAMES), partial={NAMES[0]: 1}),
        replace(CHOSEN, partial={NAMES[0]: 5}),
        replace(CHOSEN, partial={NAMES[0]: 0}),
        replace(CHOSEN, partial={"t": 1}),
    ],
    ids=["unknown", "twice", "all as a part", "nothing as a part", "a trade in part"],
)
def test_a_choice_that_cannot_be_is_refused(choice: Choice) -> None:
    with pytest.raises(ValueError, match=r"there|whole|part"):
        verify_choice([*WANTED, trade("t", "A", "B", 2, 6, value=6, n=1)], usd(A=5), {}, choice)


def test_parts_of_trades_are_refused() -> None:
    wanted = [trade("t", "A", "B", 2, 6, value=6, n=1)]

    with pytest.raises(ValueError, match="whole or not at all: t"):
        choose(wanted, {}, {}, method=Method.PARTIAL, time_limit_s=LIMIT_S)
