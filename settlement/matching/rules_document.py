"""The rules of matching as a document that two people sign, and back. Pure.

::

    {"rails": {"bank": {"unique_amount": false, "tolerance": {"USD": "2500"}}},
     "charges": {"acme": "debt"}}

Tolerances are in smallest units, as text. What is not said is as the house begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kernel.errors import BadInput
from kernel.money import AMOUNT_MAX
from settlement.matching.model import FIRST_RULES, Charges, RailRules, Rules
from trading.terms.model import Rail

ENTRIES_MAX: Final = 1_000
DIGITS_MAX: Final = 78


def document_of(rules: Rules) -> dict[str, Any]:
    """Return rules as the document: every rail, sorted."""
    return {
        "rails": {
            str(rail): {
                "unique_amount": found.unique_amount,
                "tolerance": {asset: str(n) for asset, n in sorted(found.tolerance.items())},
            }
            for rail, found in sorted(rules.rails.items())
        },
        "charges": {party: str(bearer) for party, bearer in sorted(rules.charges.items())},
    }


def rules_of(document: object, version: int) -> Rules:
    """Read the document.

    Raises:
        BadInput: it says something else than the rules can hold; the place is named.
    """
    body = _object(document, "the rules", {"rails", "charges"})
    rails = _object(body.get("rails", {}), "rails", {str(rail) for rail in FIRST_RULES.rails})
    charges = _object(body.get("charges", {}), "charges", None)
    return Rules(
        version=version,
        rails={
            rail: _rail(rail, rails[str(rail)]) if str(rail) in rails else first
            for rail, first in FIRST_RULES.rails.items()
        },
        charges={party: _bearer(party, bearer) for party, bearer in charges.items()},
    )


def _rail(rail: Rail, given: object) -> RailRules:
    body = _object(given, str(rail), {"unique_amount", "tolerance"})
    unique = body.get("unique_amount", FIRST_RULES.of(rail).unique_amount)
    if not isinstance(unique, bool):
        raise BadInput(f"{rail}: unique_amount is true or false")
    tolerance = _object(body.get("tolerance", {}), f"{rail}: tolerance", None)
    if tolerance and rail is not Rail.BANK:
        raise BadInput(f"{rail}: nobody on the way keeps anything of a payment on a chain")
    return RailRules(
        unique_amount=unique,
        tolerance={asset: _units(f"{rail}: {asset}", units) for asset, units in tolerance.items()},
    )


def _bearer(party: str, given: object) -> Charges:
    if given not in set(Charges):
        known = " or ".join(Charges)
        raise BadInput(f"{party}: who bears the charges is {known}, not {given!r}")
    return Charges(str(given))


def _units(where: str, given: object) -> int:
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) <= DIGITS_MAX:
        units = int(given)
        if units <= AMOUNT_MAX:
            return units
    raise BadInput(f"{where}: a tolerance is a number of smallest units, as text")


def _object(given: object, where: str, known: set[str] | None) -> Mapping[str, Any]:
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise BadInput(f"{where} is an object of JSON")
    if len(given) > ENTRIES_MAX:
        raise BadInput(f"{where} has more than {ENTRIES_MAX} entries")
    if known is not None and not set(given) <= known:
        odd = ", ".join(sorted(set(given) - known))
        raise BadInput(f"{where} says nothing about {odd}", remedy=f"Known: {sorted(known)}")
    return given
