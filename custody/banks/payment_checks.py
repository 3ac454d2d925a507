"""What a request for a payment through a bank must satisfy before anything is reserved. Pure."""

from __future__ import annotations

from dataclasses import replace

from banks.amounts import require_payable
from banks.payee import Payee
from custody.allow_list import require_usable
from custody.errors import NotPossible
from custody.model import bank_account_path
from custody.payout_checks import (
    Checked,
    Desk,
    Way,
    age_of,
    require_future,
    require_open,
    require_owner_class,
)
from custody.payout_model import (
    BANK_NETWORK_ID,
    Claim,
    ClaimKind,
    DestinationKind,
    PayoutRequest,
    Source,
)
from custody.policy_model import RequestFacts
from registry.model import BANK, BankAccount


def check_bank_request(desk: Desk, request: PayoutRequest, *, book: int) -> Checked:
    """Return what the request means, and the facts that the policy decides on.

    Raises:
        Refused: the account may not pay this, the payee is not allowed, or something of it is frozen.
        BadInput: no bank could be told to pay that.
    """
    claim, account = Claim.parse(request.claim), desk.banks.accounts[request.source_wallet]
    if claim.kind is ClaimKind.OWN:
        raise NotPossible("a bank pays others: this is no payment to ourselves")
    require_owner_class(claim, account)
    payee = Payee.parse(request.destination)
    request = replace(request, destination=payee.text)
    require_open(desk, request, BANK, claim.name)
    require_future(desk, request)
    _require_account(desk, request, account, book)
    if payee.iban in desk.banks.ibans:
        raise NotPossible(f"{payee.iban} is our own account")
    require_payable(request.amount, desk.assets[request.asset])
    place = (claim.name, BANK, payee.text)
    entry = require_usable(desk.allowed.get(place), place, now=desk.now)
    return Checked(
        request=request,
        claim=claim,
        way=Way(BANK, BANK, BANK_NETWORK_ID, account.asset, None),
        chain_amount=request.amount,
        source=Source(account.iban, account.code, 0, 0),
        source_path="",
        destination=entry,
        owners={bank_account_path(account.code): account.owner},
        facts=RequestFacts(
            initiator=request.requested_by,
            claim=claim.kind,
            party=claim.name,
            chain=BANK,
            asset=request.asset,
            wallet=account.code,
            destination=payee.text,
            destination_kind=DestinationKind.BANK,
            destination_age_s=age_of(desk, entry),
            amount=request.amount,
        ),
    )


def _require_account(desk: Desk, request: PayoutRequest, account: BankAccount, book: int) -> None:
    if not account.active:
        raise NotPossible(f"nothing is paid from bank account {account.code} any more")
    if account.asset != request.asset:
        raise NotPossible(
            f"bank account {account.code} is in {account.asset}, and {request.asset} is asked for"
        )
    if desk.banks.books[account.code] != book:
        raise NotPossible(
            f"bank account {account.code} belongs to {account.entity}, whose book is"
            f" {desk.banks.books[account.code]}, not {book}"
        )
    if request.source_address not in {None, account.iban}:
        raise NotPossible(f"bank account {account.code} has one number", remedy="Name no source")
