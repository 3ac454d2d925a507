"""Whether a choice can be paid: integers only, and nothing shared with whoever chose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from settlement.netting.model import Account, Choice, Movement, Payment, Shortfall


def verify_choice(
    payments: Iterable[Payment],
    funds: Mapping[Account, int],
    limits: Mapping[Account, int | None],
    choice: Choice,
) -> tuple[Shortfall, ...]:
    """Return the accounts that the choice would leave below their limit; none: it can be paid.

    Whoever posts asks this in the transaction that posts, with the funds that are there then.

    Raises:
        ValueError: the choice names a payment that is not there, settles one twice, or more of it
            than its amount, or a trade in part.
    """
    by_id = {payment.id: payment for payment in payments}
    unknown = (choice.chosen | choice.partial.keys()) - by_id.keys()
    if unknown:
        raise ValueError(f"the choice names payments that are not there: {sorted(unknown)[:5]}")
    twice = choice.chosen & choice.partial.keys()
    if twice:
        raise ValueError(f"chosen whole and in part: {sorted(twice)[:5]}")
    change: Counter[Account] = Counter()
    for name in choice.chosen:
        for move in by_id[name].movements:
            change[move.payer, move.asset] -= move.amount
            change[move.payee, move.asset] += move.amount
    for name, part in choice.partial.items():
        move = _only_movement(by_id[name], part)
        change[move.payer, move.asset] -= part
        change[move.payee, move.asset] += part
    short = [
        Shortfall(account, -left)
        for account, delta in sorted(change.items())
        if (limit := limits.get(account, 0)) is not None
        # Who is below the limit already is not stopped from receiving.
        and delta < 0
        and (left := funds.get(account, 0) + delta + limit) < 0
    ]
    return tuple(short)


def _only_movement(payment: Payment, part: int) -> Movement:
    if len(payment.movements) != 1:
        raise ValueError(f"a trade settles whole or not at all: {payment.id}")
    if not 0 < part < payment.movements[0].amount:
        raise ValueError(f"{part} is no part of {payment.movements[0].amount}: {payment.id}")
    return payment.movements[0]
