"""Account numbers and codes of banks in their one spelling. Pure.

Form and check digits only: whether a country's banks have accounts of that length, and whether a bank
has that code, is asked where people type them (`schwifty`), and answered by the bank.
"""

from __future__ import annotations

import re
from typing import Final

from kernel.errors import BadInput

_IBAN: Final = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}")
_BIC: Final = re.compile(r"[A-Z0-9]{4}[A-Z]{2}[A-Z0-9]{2}([A-Z0-9]{3})?")


def canonical_iban(text: str) -> str:
    """Return an IBAN in capital letters and without spaces, as files have it.

    Raises:
        BadInput: it is not one, or its check digits (ISO 7064, modulo 97) do not hold.
    """
    iban = "".join(text.split()).upper()
    if not _IBAN.fullmatch(iban) or not _is_checked(iban):
        raise BadInput(
            f"{text!r} is not an IBAN: a letter, a digit or two are wrong",
            remedy="Copy it again from whoever named it",
        )
    return iban


def canonical_bic(text: str) -> str:
    """Return a BIC in capital letters.

    Raises:
        BadInput: it is not 8 or 11 letters and digits as ISO 9362 orders them.
    """
    bic = "".join(text.split()).upper()
    if not _BIC.fullmatch(bic):
        raise BadInput(f"{text!r} is not a BIC", remedy="Write 8 or 11 letters and digits")
    return bic


def _is_checked(iban: str) -> bool:
    turned = iban[4:] + iban[:4]
    return int("".join(str(int(char, 36)) for char in turned)) % 97 == 1
