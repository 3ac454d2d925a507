"""Sharing an amount out, and changing one asset into another, to the last unit. Pure.

Every share is an integer of smallest units and the shares add up to what was shared: what cannot be
divided is given away by a rule that names who gets it, never dropped and never invented.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from kernel.errors import BadInput
from kernel.ids import derive_id
from kernel.money import AMOUNT_MAX, divide
from kernel.money import Rounding as Quotient
from ledger.model import Transfer, chain, transfer

PARTS_MAX: Final = 4_000
"""Parts of one allocation: each may be a transfer of one chain, and a batch holds 8,192."""

ROUNDING_ACCOUNT: Final = "house:rounding"


@dataclass(frozen=True, slots=True)
class Share:
    """What one part gets: *leftover* of its *amount* is what the rule gave it beyond its due.

    By ratio that is one unit or none; by waterfall it is what was left when all were full.
    """

    name: str
    amount: int
    leftover: int = 0


@dataclass(frozen=True, slots=True)
class Tier:
    """A place in a waterfall: it is filled up to *limit* smallest units before the next gets any."""

    name: str
    limit: int


def by_ratio(amount: int, weights: Sequence[tuple[str, int]]) -> tuple[Share, ...]:
    """Share *amount* in proportion to *weights*, by largest remainder; the shares add up to it.

    Each part first gets its proportion rounded down. The units that are left, fewer than there are
    parts, go one each to the parts with the largest remainders (Hamilton's method); of equal
    remainders the one named first wins. A part of weight zero gets nothing.

    Args:
        amount: smallest units, 0 or more.
        weights: (name, weight) in order; weights are 0 or more and not all 0.

    Raises:
        BadInput: no parts, too many, a name twice, a negative number, or no weight at all.
    """
    _require_amount(amount)
    _require_names([name for name, _ in weights])
    if any(weight < 0 for _, weight in weights):
        raise BadInput("a weight is 0 or more")
    total = sum(weight for _, weight in weights)
    if total == 0:
        raise BadInput("every weight is 0", remedy="Say who gets it")
    divided = [divmod(amount * weight, total) for _, weight in weights]
    left = amount - sum(quotient for quotient, _ in divided)
    by_remainder = sorted(range(len(weights)), key=lambda index: (-divided[index][1], index))
    favoured = set(by_remainder[:left])
    return tuple(
        Share(name, divided[index][0] + (index in favoured), int(index in favoured))
        for index, (name, _) in enumerate(weights)
    )


def by_waterfall(amount: int, tiers: Sequence[Tier], *, leftover_to: str) -> tuple[Share, ...]:
    """Fill the tiers in order, each to its limit, and give what is left to *leftover_to*.

    Args:
        amount: smallest units, 0 or more.
        tiers: in order of precedence; a limit is 0 or more.
        leftover_to: who gets what is left; one of the tiers, or somebody else, who is then the last
            of the shares (also with nothing).

    Raises:
        BadInput: no tiers, too many, a name twice, no name, or a negative number.
    """
    _require_amount(amount)
    _require_names([tier.name for tier in tiers])
    if not leftover_to:
        raise BadInput("nobody owns what is left", remedy="Name who gets it")
    if any(tier.limit < 0 for tier in tiers):
        raise BadInput("the limit of a tier is 0 or more")
    left = amount
    filled: dict[str, int] = {}
    for tier in tiers:
        filled[tier.name] = min(left, tier.limit)
        left -= filled[tier.name]
    filled.setdefault(leftover_to, 0)
    return tuple(
        Share(name, part + (left if name == leftover_to else 0), left if name == leftover_to else 0)
        for name, part in filled.items()
    )


class RoundingSide(StrEnum):
    """Whom an inexact conversion favours."""

    PAYER = "payer"
    """The account that gives the base gets the quotient rounded up."""
    DESK = "desk"
    """The account that gives the base gets the quotient rounded down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """*amount* of *base* is given for *quote* at a rate of two integers.

    ``quote units = base units * numerator / denominator``; the ratio is in smallest units of both.

    Attributes:
        payer: account that gives the base (debited) and gets the quote (credited).
        desk: name of the desk whose ``conversion`` account stands between the assets.
        rounding: whom the fraction of a unit favours; the other owner is ``house:rounding``, which
            carries the fraction as a leg of its own, never the desk's position.
    """

    payer: str
    base: str
    quote: str
    amount: int
    numerator: int
    denominator: int
    desk: str
    rounding: RoundingSide = RoundingSide.DESK


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What a conversion comes to, in smallest units of the quote.

    Attributes:
        desk: what the desk's position moves by: the quotient to the nearest unit, halves to even.
        payer: what the payer gets, rounded as named.
        rounding: ``payer - desk``: what ``house:rounding`` pays (above 0) or gets (below 0).
    """

    payer: int
    desk: int
    rounding: int


def convert(item: Conversion) -> Converted:
    """Return the amounts of a conversion; *rounding* is -1, 0 or 1.

    The desk's side is rounded to the nearest unit, so that its position does not drift with the
    number of conversions; the difference to what the payer gets has an owner of its own.

    Raises:
        BadInput: a number is not above zero, the assets are one, or the result is too large.
    """
    if item.amount <= 0 or item.numerator <= 0 or item.denominator <= 0:
        raise BadInput("the amount and both integers of a rate are above zero")
    if item.base == item.quote:
        raise BadInput(f"{item.base} is not converted into itself")
    product = item.amount * item.numerator
    way = Quotient.UP if item.rounding is RoundingSide.PAYER else Quotient.DOWN
    payer = divide(product, item.denominator, way)
    desk = _nearest(product, item.denominator)
    if max(payer, desk, item.amount) > AMOUNT_MAX:
        raise BadInput("the conversion comes to more than any amount that can be stored")
    return Converted(payer=payer, desk=desk, rounding=payer - desk)


def conversion_chain(
    item: Conversion,
    *,
    correlation: UUID,
    at: datetime,
    code: str = "conversion",
) -> tuple[Transfer, ...]:
    """Return a conversion as linked legs: the base, the quote, and the rounding if there is any.

    ::

        Dr payer            / Cr conversion:desk   base
        Dr conversion:desk  / Cr payer             quote, as the desk counts it
        Dr house:rounding   / Cr payer             the unit in favour of the payer, or
        Dr payer            / Cr house:rounding    the unit in favour of the house

    The unit in favour of the house goes before the credit could be spent: all is one chain.

    Args:
        item: the conversion.
        correlation: the domain row behind it, from which the ids of the legs are derived.
        at: creation time of that row.
        code: first part of the legs' codes: ``conversion.base``, ``.quote``, ``.rounding``.
    """
    parts = convert(item)
    position = f"conversion:{item.desk}"
    legs = [("base", item.payer, position, item.amount, item.base)]
    if parts.desk:
        legs.append(("quote", position, item.payer, parts.desk, item.quote))
    if parts.rounding > 0:
        legs.append(("rounding", ROUNDING_ACCOUNT, item.payer, parts.rounding, item.quote))
    elif parts.rounding < 0:
        legs.append(("rounding", item.payer, ROUNDING_ACCOUNT, -parts.rounding, item.quote))
    rate = {"numerator": item.numerator, "denominator": item.denominator}
    return chain(
        *(
            transfer(
                derive_id(at, "conversion", correlation, name),
                debit,
                credit,
                amount,
                asset,
                code=f"{code}.{name}",
                correlation=correlation,
                metadata={"rate": {k: str(v) for k, v in rate.items()}, "favours": item.rounding},
            )
            for name, debit, credit, amount, asset in legs
        )
    )


def _nearest(numerator: int, denominator: int) -> int:
    """Return the quotient of two positive integers to the nearest one, a half to the even one."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    return quotient + (twice > denominator or (twice == denominator and quotient % 2 == 1))


def _require_amount(amount: int) -> None:
    if not 0 <= amount <= AMOUNT_MAX:
        raise BadInput(f"an amount to share out is 0 to 2^256-1 units, not {amount}")


def _require_names(names: Sequence[str]) -> None:
    if not 0 < len(names) <= PARTS_MAX:
        raise BadInput(f"an amount is shared between 1 and {PARTS_MAX} parts")
    if len(set(names)) != len(names) or "" in names:
        raise BadInput("each part has a name of its own")
