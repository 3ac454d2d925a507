"""What requests for payments through banks are checked against: our accounts, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from banks.payee import canonical_payee
from custody.payout_model import Claim, PayoutRequest
from registry.model import BANK, BankAccount
from registry.queries import get_bank_account, get_entity, list_bank_accounts


@dataclass(frozen=True, slots=True)
class BankDesk:
    """Our accounts by code, the book of each, and every IBAN of ours.

    *places* are (party, ``bank``, payee) of all requests.
    """

    accounts: Mapping[str, BankAccount] = field(default_factory=dict)
    books: Mapping[str, int] = field(default_factory=dict)
    ibans: frozenset[str] = frozenset()
    places: frozenset[tuple[str, str, str]] = frozenset()


NO_BANKS: Final = BankDesk()


async def load_bank_desk(conn: AsyncConnection, requests: Sequence[PayoutRequest]) -> BankDesk:
    """Read our accounts for requests of rail ``bank``.

    Raises:
        Refused: an account that is not registered.
        BadInput: a destination that no bank could be told.
    """
    if not requests:
        return NO_BANKS
    codes = sorted({item.source_wallet for item in requests})
    accounts = {code: await get_bank_account(conn, code) for code in codes}
    return BankDesk(
        accounts=accounts,
        books={code: (await get_entity(conn, item.entity)).book for code, item in accounts.items()},
        ibans=frozenset(item.iban for item in await list_bank_accounts(conn)),
        places=frozenset(
            (Claim.parse(item.claim).name, BANK, canonical_payee(item.destination))
            for item in requests
        ),
    )
