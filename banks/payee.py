"""Whom a bank pays, as one text: ``IBAN|BIC|name``. Pure.

The text is what people allow, sign and approve, what a payout keeps and what a payment file is written
from. It has one spelling: capital letters without spaces in the numbers, a name of letters that every
bank takes, its words one space apart. The BIC may be left out (``IBAN||name``), as SEPA does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from kernel.errors import BadInput
from registry.bank_details import canonical_bic, canonical_iban

NAME_LENGTH_MAX: Final = 70
"""SEPA credit transfers carry no longer names, though ISO 20022 has room for 140 characters."""
_NAME: Final = re.compile(r"[A-Za-z0-9/?:().,'+ -]+")
_SEPA_CODES: Final = (
    "AD AL AT BE BG CH CY CZ DE DK EE ES FI FR GB GI GR HR HU IE IS IT LI LT LU LV MC MD ME MK MT NL"
    " NO PL PT RO RS SE SI SK SM VA"
)
SEPA: Final = frozenset(_SEPA_CODES.split())
"""Countries whose IBANs take SEPA credit transfers (EPC409-09)."""


@dataclass(frozen=True, slots=True)
class Payee:
    """An account at a bank and whose it is."""

    iban: str
    bic: str
    name: str

    @classmethod
    def of(cls, iban: str, bic: str, name: str) -> Self:
        """Return the payee in its one spelling.

        Raises:
            BadInput: one of the three cannot be what it says.
        """
        words = " ".join(name.split())
        if not 0 < len(words) <= NAME_LENGTH_MAX or not _NAME.fullmatch(words):
            raise BadInput(
                f"{name!r} is not a name that every bank takes",
                remedy=f"Write 1 to {NAME_LENGTH_MAX} of the letters a to z, digits and /-?:().,'+",
            )
        return cls(canonical_iban(iban), canonical_bic(bic) if bic.strip() else "", words)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``IBAN|BIC|name`` in any spelling.

        Raises:
            BadInput: it is something else.
        """
        parts = text.split("|")
        if len(parts) != 3:
            raise BadInput(
                f"{text!r} does not say whom a bank shall pay", remedy="Write IBAN|BIC|name"
            )
        return cls.of(*parts)

    @property
    def text(self) -> str:
        """Return the one spelling."""
        return f"{self.iban}|{self.bic}|{self.name}"

    @property
    def takes_sepa(self) -> bool:
        """Tell whether euros go there as a SEPA credit transfer."""
        return self.iban[:2] in SEPA


def canonical_payee(text: str) -> str:
    """Return ``IBAN|BIC|name`` in its one spelling; see `Payee.parse`."""
    return Payee.parse(text).text
