"""When a deal settles: the calendars of its assets, and the date by them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import date
from types import MappingProxyType
from typing import Final, TypeAlias

from kernel.errors import BadInput, Refused
from registry.calendars import (
    CALENDARS_VERSION,
    TENOR_DAYS_MAX,
    AnyCalendar,
    Calendar,
    KeptCalendar,
    add_business_days,
    is_joint_business_day,
    value_date,
)
from registry.cutoffs import earliest_value_date
from trading.terms.model import SettlementQuestion

_COUNTRIES: Final = (
    "AED:ae AUD:au BRL:br CAD:ca CHF:ch CNH:hk CNY:cn CZK:cz DKK:dk GBP:gb HKD:hk HUF:hu INR:in JPY:jp"
    " KRW:kr MXN:mx NOK:no NZD:nz PLN:pl RON:ro SEK:se SGD:sg THB:th TRY:tr ZAR:za"
)
COUNTRY_OF: Final[Mapping[str, str]] = dict(pair.split(":") for pair in _COUNTRIES.split())
"""Money in banks that goes by its country's holidays, once they were taken over
(`registry.kept_calendars`): until then no value on a weekend, and the rest is agreed."""

CALENDAR_OF: Final[Mapping[str, Calendar]] = {
    "USD": Calendar.FEDWIRE,
    "EUR": Calendar.TARGET,
    **dict.fromkeys(COUNTRY_OF, Calendar.WEEKDAYS),
}
"""Money in banks goes by its central bank's days; what is not named here moves every day."""


Kept: TypeAlias = Mapping[str, KeptCalendar]
"""Kept calendars by country."""

NONE_KEPT: Final[Kept] = MappingProxyType({})


def countries_of(assets: Iterable[str]) -> frozenset[str]:
    """Return by which countries' bank holidays *assets* (codes) go."""
    return frozenset(COUNTRY_OF[code] for code in assets if code in COUNTRY_OF)


def calendars_of(*assets: str, kept: Kept = NONE_KEPT) -> frozenset[AnyCalendar]:
    """Return the calendars that a deal in *assets* (codes) settles by."""
    return frozenset(
        kept.get(COUNTRY_OF.get(code, "")) or CALENDAR_OF.get(code, Calendar.ALWAYS)
        for code in assets
    )


def describe_calendars(calendars: Iterable[AnyCalendar]) -> str:
    """Return the calendars and the version of their rules as one text: ``2026.1:fedwire+target``.

    A kept calendar is named with its own version: ``2026.1:gb@3+target``. `ALWAYS` is named only
    where it is the only one: beside another it never decides.
    """
    deciding = sorted(str(c) for c in calendars if c is not Calendar.ALWAYS)
    return f"{CALENDARS_VERSION}:{'+'.join(deciding) or Calendar.ALWAYS}"


def find_value_date(asked: SettlementQuestion, kept: Kept = NONE_KEPT) -> date:
    """Return the value date that was agreed, if it is possible, else the one by the terms.

    Where the question says when the deal was agreed, a day whose cut-off was over by then is not
    possible, and the one by the terms is no earlier than the first that is.

    Args:
        asked: the deal.
        kept: the countries' holidays that were taken over.

    Raises:
        BadInput: the agreed one is before the trade date, or a kept calendar ends before it.
        Refused: it is no business day of both assets, or its cut-off is over; names the next one.
            Or it is so late that the deal would be a forward.
    """
    calendars = calendars_of(asked.base.code, asked.quote.code, kept=kept)
    first = _first_possible(asked, calendars)
    if asked.value_date is None:
        return max(first, value_date(asked.trade_date, asked.terms.tenor_days, calendars))
    _require_possible(asked, asked.value_date, first, calendars)
    return asked.value_date


def _require_possible(
    asked: SettlementQuestion, wanted: date, first: date, calendars: Collection[AnyCalendar]
) -> None:
    last = add_business_days(asked.trade_date, TENOR_DAYS_MAX, calendars)
    if wanted < asked.trade_date:
        raise BadInput(
            f"value {wanted.isoformat()} is before the deal of {asked.trade_date.isoformat()}",
            remedy=f"The first day possible is {first.isoformat()}",
        )
    if wanted > last:
        raise Refused(
            f"a deal of {asked.trade_date.isoformat()} with value {wanted.isoformat()} is a forward"
            f" ({describe_calendars(calendars)})",
            remedy=f"The last day possible is {last.isoformat()}",
        )
    if not is_joint_business_day(calendars, wanted):
        following = max(first, add_business_days(wanted, 0, calendars))
        raise Refused(
            f"{wanted.isoformat()} is no business day of {asked.base.code} and {asked.quote.code}"
            f" ({describe_calendars(calendars)})",
            remedy=f"The next one is {following.isoformat()}",
        )
    if wanted < first:
        raise Refused(
            f"no payment in {asked.base.code} and {asked.quote.code} has value on"
            f" {wanted.isoformat()} any more ({describe_calendars(calendars)})",
            remedy=f"The first day possible is {first.isoformat()}",
        )


def _first_possible(asked: SettlementQuestion, calendars: Collection[AnyCalendar]) -> date:
    first = add_business_days(asked.trade_date, 0, calendars)
    if asked.agreed_at is None:
        return first
    return max(first, earliest_value_date(asked.agreed_at, calendars))
