"""Which spread a deal is quoted with. Pure."""

from __future__ import annotations

from trading.terms.model import ANY, ClientTerms, SpreadRule


def spread_for(terms: ClientTerms, base: str, quote: str, units: int) -> int:
    """Return the half spread for *units* (smallest, of *base*) of a pair, in millionths.

    Of the rules that fit, the one that names most wins: both assets, then the base, then the
    quote, then none. Among equals the one for the largest deals, as far as this is one.
    """
    fitting = [rule for rule in terms.spreads if _fits(rule, base, quote, units)]
    return max(fitting, key=_precedence).half_spread_ppm


def _fits(rule: SpreadRule, base: str, quote: str, units: int) -> bool:
    return rule.base in {ANY, base} and rule.quote in {ANY, quote} and rule.from_units <= units


def _precedence(rule: SpreadRule) -> tuple[bool, bool, int]:
    return rule.base != ANY, rule.quote != ANY, rule.from_units
