"""May these two people say that a deposit belongs to that account? Pure."""

from __future__ import annotations

from typing import Final

from custody.deposit_model import Deposit, DepositState
from custody.errors import NotPossible
from kernel.errors import BadInput
from registry.authority import require_role, signing_bytes, verify_signature
from registry.errors import NotAuthorised
from registry.model import CLIENT, Operator, Party, PartyKind, Role, Wallet

VERB: Final = "deposit.attribute"
CAPITAL_ACCOUNTS: Final = frozenset({"equity:capital", "equity:opening"})
ROLES: Final = (Role.TREASURER, Role.FINANCE, Role.APPROVER)


def attribution_bytes(deposit: Deposit, credit: str, reason: str) -> bytes:
    """Return what both operators sign."""
    return signing_bytes(
        VERB,
        {
            "deposit": deposit.id,
            "epoch": deposit.epoch,
            "asset": deposit.asset,
            "amount": str(deposit.amount),
            "wallet": deposit.wallet,
            "credit": credit,
            "reason": reason,
        },
    )


def client_of(credit: str) -> str | None:
    """Return the client whose account *credit* is; None for the house's capital.

    Raises:
        BadInput: what arrived can be credited to neither.
    """
    if credit in CAPITAL_ACCOUNTS:
        return None
    kind, _, client = credit.partition(":")
    if kind != CLIENT or not client or ":" in client:
        raise BadInput(
            f"an unattributed deposit cannot be credited to {credit!r}",
            remedy=f"Name client:<id> or one of {', '.join(sorted(CAPITAL_ACCOUNTS))}",
        )
    return client


def decide_attribution(
    deposit: Deposit,
    credit: str,
    reason: str,
    *,
    wallet: Wallet,
    client: Party | None,
    first: tuple[Operator, bytes],
    second: tuple[Operator, bytes],
) -> None:
    """Refuse unless two people with the right say so, and the coins lie where they may.

    Args:
        wallet: where the coins are: a client's coins may only lie with clients' coins.
        client: whose account is credited; None for capital.
        first, second: each operator with their signature over `attribution_bytes`.

    Raises:
        NotPossible: it is not unattributed, or the wallet's owner class does not fit.
        NotAuthorised: one person, a missing role, or a signature that does not hold.
    """
    if not reason.strip():
        raise BadInput("an attribution needs a reason", remedy="Say how it is known")
    if deposit.state is not DepositState.UNATTRIBUTED:
        raise NotPossible(
            f"deposit {deposit.id} is {deposit.state}, not unattributed",
            remedy="Only what is confirmed and nobody's can be attributed",
        )
    _require_place(wallet, client)
    payload = attribution_bytes(deposit, credit, reason)
    for operator, signature in (first, second):
        require_role(operator, *ROLES)
        verify_signature(operator, payload, signature)
    if first[0].code == second[0].code or first[0].public_key == second[0].public_key:
        raise NotAuthorised(
            f"operator {first[0].code} signed twice", remedy="Two different people attribute"
        )


def _require_place(wallet: Wallet, client: Party | None) -> None:
    if client is None:
        if wallet.holds_client_money:
            raise NotPossible(
                f"the coins lie in {wallet.code}, which holds clients' money",
                remedy="Move them to a wallet of the house, where capital belongs",
            )
        return
    if client.kind is not PartyKind.CLIENT:
        raise NotPossible(f"{client.code} is a {client.kind}, not a client")
    if not wallet.holds_client_money or wallet.owner_party not in {None, client.code}:
        raise NotPossible(
            f"the coins lie in {wallet.code}, which is owned by {wallet.owner}",
            remedy="A client's coins have to lie in a wallet of class client: move as many first",
        )
