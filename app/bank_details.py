"""Accounts at banks, looked at where people type them: does such a bank, such an account exist?

What is stored is the canonical text of `banks.payee`, whose check digits hold. Here it is asked
besides, against the lists that `schwifty` comes with, whether the country's accounts look like that
and whether the bank is the one of the BIC. It comes with the extra ``banks``; without it, only what
is stored is checked.
"""

from __future__ import annotations

from banks.payee import Payee
from kernel.errors import BadInput

try:
    from schwifty import BIC, IBAN
    from schwifty.exceptions import SchwiftyException
except ImportError:  # The extra is not installed.
    HAS_LISTS = False
else:
    HAS_LISTS = True


def require_known_bank(text: str) -> None:
    """Refuse ``IBAN|BIC|name`` that no bank can have.

    Raises:
        BadInput: no account of that country looks like that, no bank has that BIC, or the BIC is of
            a bank in another country.
    """
    payee = Payee.parse(text)
    if not HAS_LISTS:
        return
    try:
        iban = IBAN(payee.iban)
        if payee.bic:
            BIC(payee.bic)
    except SchwiftyException as error:
        raise BadInput(
            f"no bank has such an account: {error}", remedy="Copy it again from whoever named it"
        ) from error
    if payee.bic and payee.bic[4:6] != iban.country_code:
        raise BadInput(
            f"{payee.bic} is a bank in {payee.bic[4:6]}, and the account is in {iban.country_code}",
            remedy="Ask which of the two is right",
        )
