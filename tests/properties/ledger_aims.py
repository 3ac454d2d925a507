"""Requests aimed at an outcome, given what the reference holds: a draw at random meets few of them.

An aim is only a direction. What really comes of a request is what the reference answers when it is
its turn, so an aim that misses is a request like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from tests.properties.ledger_aimer import FULL, GHOST, HELD, OLD_US, Aimer
from tests.properties.ledger_words import ALL, AMOUNT_MAX, DAY_US, MOVES, TIME_MAX_US, Ask, Done


def aimed(aimer: Aimer, aim: str) -> list[Ask]:
    """Return requests, mostly one, aimed at an outcome."""
    return aimer.finished(AIMS[aim](aimer))


def other_user_data(aimer: Aimer) -> Ask:
    """The same with one thing beside it changed."""
    original = [d for d in aimer.book.done.values() if "at_original" in d.ask.flags]
    if original and not aimer.importing and aimer.chance.random() < 0.3:
        there = aimer.chance.choice(original)
        return replace(there.ask, effective=there.effective, linked=False)
    changes: Mapping[str, Callable[[Done], Any]] = {
        "reference": lambda _: "other",
        "purpose": lambda _: "other",
        "correlation": lambda _: 77,
        "metadata": lambda _: (("n", 77),),
        "effective": lambda done: (done.ask.effective or aimer.book.now) - 77,
    }
    name = aimer.chance.choice(sorted(changes))
    return aimer.again_differently(**{name: changes[name]})


def other_path(path: str) -> str:
    """An account that exists and is another one."""
    return "custody:old" if path != "custody:old" else "suspense:old"


Aim = Callable[[Aimer], list[Ask]]


def one(make: Callable[[Aimer], Ask]) -> Aim:
    """Let a maker of one request be an aim."""
    return lambda aimer: [make(aimer)]


def wrong_history(**changes: Any) -> Aim:
    """An imported transfer with a time that it cannot have."""
    return lambda aimer: aimer.history(**changes)


AIMS: Final[Mapping[str, Aim]] = {
    "created": one(lambda a: a.any_good()),
    "linked_event_failed": lambda a: a.failing_chain(),
    "linked_event_chain_open": one(lambda a: replace(a.any_good(), linked=True)),
    "imported_event_expected": one(
        lambda a: a.move(flags=frozenset({"wrong"}) if a.importing else frozenset())
    ),
    "imported_event_not_expected": lambda a: a.history(),
    "imported_event_timestamp_out_of_range": wrong_history(effective=None),
    "imported_event_timestamp_must_not_advance": lambda a: a.history(
        effective=a.book.now + a.chance.randint(1, DAY_US)
    ),
    "reserved_flag": one(lambda a: a.resolving("expire")),
    "id_must_not_be_zero": one(lambda a: a.move(id=0)),
    "id_must_not_be_reserved": one(lambda a: a.move(id=a.fresh() | 0xF << 76)),
    "exists_with_different_flags": one(
        lambda a: (
            a.again_differently(
                flags=lambda done: (
                    done.ask.flags ^ {a.chance.choice(["balancing_debit", "closing_credit"])}
                )
            )
            if a.chance.random() < 0.5
            else a.again_differently(
                kind=lambda done: a.chance.choice(
                    [
                        k
                        for k in ("single", "pending", "post", "void", "reversal")
                        if k != done.ask.kind
                    ]
                )
            )
        )
    ),
    "exists_with_different_pending_id": one(
        lambda a: a.again_differently(pending_id=lambda done: (done.ask.pending_id or 0) + 1)
    ),
    "exists_with_different_reverses": one(
        lambda a: a.again_differently(reverses=lambda done: (done.ask.reverses or 0) + 1)
    ),
    "exists_with_different_timeout": one(
        lambda a: a.again_differently(
            timeout=lambda done: a.chance.choice([None, 7, (done.ask.timeout or 0) + 1])
        )
    ),
    "exists_with_different_debit_account_id": one(
        lambda a: a.again_differently(
            debit=lambda done: a.chance.choice([other_path(done.debit[0]), GHOST])
        )
    ),
    "exists_with_different_credit_account_id": one(
        lambda a: a.again_differently(
            credit=lambda done: a.chance.choice([other_path(done.credit[0]), GHOST])
        )
    ),
    "exists_with_different_amount": one(
        lambda a: a.again_differently(
            amount=lambda done: max(0, done.amount + a.chance.choice([-1, 1, 1]))
        )
    ),
    "exists_with_different_user_data": one(other_user_data),
    "exists_with_different_ledger": one(
        lambda a: a.again_differently(asset=lambda done: "Y" if done.debit[1] == "X" else "X")
    ),
    "exists_with_different_code": one(lambda a: a.again(code="other")),
    "exists": one(
        lambda a: (
            a.again()
            if a.chance.random() < 0.6
            else a.again_differently(
                amount=lambda done: (
                    a.chance.choice([ALL, done.amount, done.amount + 1])
                    if done.ask.kind not in MOVES
                    else done.ask.amount
                )
            )
        )
    ),
    "id_already_failed": lambda a: a.spent(),
    "flags_are_mutually_exclusive": one(
        lambda a: a.chance.choice(
            [
                a.resolving("post", flags=frozenset({"balancing_debit"})),
                a.resolving("void", flags=frozenset({"closing_debit"})),
                a.move(flags=frozenset({"at_original"})),
                a.reversing(flags=frozenset({"at_original"}), effective=a.book.now),
                a.reversing(flags=frozenset({"balancing_credit"})),
            ]
        )
    ),
    "debit_account_id_must_not_be_zero": one(lambda a: a.move(debit="")),
    "credit_account_id_must_not_be_zero": one(lambda a: a.move(credit="")),
    "accounts_must_be_different": one(lambda a: a.move(debit="custody:w", credit="custody:w")),
    "pending_id_must_be_zero": one(lambda a: a.move(pending_id=a.chance.choice([15, 0]))),
    "pending_id_must_not_be_zero": one(
        lambda a: a.resolving("post", pending_id=a.chance.choice([None, 0]))
    ),
    "pending_id_must_be_different": one(
        lambda a: Ask(a.next_id, "void", pending_id=a.fresh(), amount=ALL)
    ),
    "reverses_must_be_zero": one(lambda a: a.move(reverses=a.chance.choice([10, 0]))),
    "reverses_must_not_be_zero": one(lambda a: a.reversing(reverses=a.chance.choice([None, 0]))),
    "reverses_must_be_different": one(
        lambda a: Ask(a.next_id, "reversal", reverses=a.fresh(), amount=ALL)
    ),
    "timeout_reserved_for_pending_transfer": one(lambda a: a.move(timeout=a.chance.choice([0, 5]))),
    "closing_transfer_must_be_pending": one(lambda a: a.move(flags=frozenset({"closing_debit"}))),
    "ledger_must_not_be_zero": one(lambda a: a.move(asset="")),
    "code_must_not_be_zero": one(lambda a: replace(a.any_good(), code="")),
    "debit_account_not_found": one(
        lambda a: a.move(**a.chance.choice([{"debit": GHOST}, {"asset": "Z"}]))
    ),
    "credit_account_not_found": one(lambda a: a.move(credit=GHOST)),
    "pending_transfer_not_found": one(
        lambda a: Ask(
            a.fresh(), a.chance.choice(["post", "void"]), pending_id=a.fresh() + 10**6, amount=ALL
        )
    ),
    "pending_transfer_not_pending": one(
        lambda a: Ask(a.fresh(), a.chance.choice(["post", "void"]), pending_id=10, amount=ALL)
    ),
    "pending_transfer_has_different_debit_account_id": one(
        lambda a: a.resolving("post", debit="custody:mid")
    ),
    "pending_transfer_has_different_credit_account_id": one(
        lambda a: a.resolving("void", credit="suspense:mid")
    ),
    "pending_transfer_has_different_ledger": one(lambda a: a.resolving("post", asset="Y")),
    "exceeds_pending_transfer_amount": one(lambda a: a.resolving("post", amount=AMOUNT_MAX)),
    "pending_transfer_has_different_amount": one(lambda a: a.resolving("void", amount=7)),
    "pending_transfer_already_posted": lambda a: a.resolved_already("posted"),
    "pending_transfer_already_voided": lambda a: a.resolved_already("voided"),
    "pending_transfer_expired": lambda a: a.resolved_already("expired"),
    "reversed_transfer_not_found": one(
        lambda a: Ask(a.fresh(), "reversal", reverses=a.fresh() + 10**6, amount=ALL)
    ),
    "reversed_transfer_not_reversible": one(
        lambda a: Ask(a.fresh(), "reversal", reverses=15, amount=ALL)
    ),
    "reversed_transfer_has_different_debit_account_id": one(
        lambda a: a.reversing(debit="custody:mid")
    ),
    "reversed_transfer_has_different_credit_account_id": one(
        lambda a: a.reversing(credit="suspense:mid")
    ),
    "reversed_transfer_has_different_ledger": one(lambda a: a.reversing(asset="Z")),
    "reversed_transfer_has_different_amount": one(lambda a: a.reversing(amount=7)),
    "reversed_transfer_already_reversed": lambda a: a.reversed_already(),
    "imported_event_timestamp_must_not_regress": lambda a: a.history(
        effective=(a.book.imported_through or OLD_US) - 1
    ),
    "imported_event_timestamp_must_postdate_debit_account": lambda a: a.too_new("debit"),
    "imported_event_timestamp_must_postdate_credit_account": lambda a: a.too_new("credit"),
    "imported_event_timeout_must_be_zero": lambda a: a.history(kind="pending", timeout=5),
    "effective_period_closed": lambda a: a.in_closed_period(),
    "debit_account_already_closed": lambda a: a.barred("debit", "closed"),
    "credit_account_already_closed": lambda a: a.barred("credit", "closed"),
    "debit_account_frozen": lambda a: a.barred("debit", "frozen"),
    "credit_account_frozen": lambda a: a.barred("credit", "frozen"),
    "overflows_debits_pending": lambda a: a.full("pending", "debits", HELD),
    "overflows_credits_pending": lambda a: a.full("pending", "credits", HELD),
    "overflows_debits_posted": lambda a: a.full("single", "debits", FULL),
    "overflows_credits_posted": lambda a: a.full("single", "credits", FULL),
    "overflows_debits": lambda a: a.full("pending", "debits", FULL),
    "overflows_credits": lambda a: a.full("pending", "credits", FULL),
    "overflows_timeout": one(
        lambda a: a.move(
            "pending", timeout=TIME_MAX_US, amount=0, debit=a.source(), credit=a.target()
        )
    ),
    "exceeds_credits": one(lambda a: a.overdraw()),
    "exceeds_debits": one(lambda a: a.overcredit()),
}
"""How to come near each outcome."""
