"""May this change be proposed, approved, rejected? Pure decisions over loaded values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from eth_utils.address import is_checksum_address

from kernel.money import Asset
from registry.authority import require_role, signing_bytes, verify_signature
from registry.errors import ChangeRefused, NotAuthorised
from registry.model import (
    ADMINS_MIN,
    BITCOIN,
    PROPOSAL_LIFETIME,
    BankAccount,
    Chain,
    ChainAsset,
    Founding,
    LegalEntity,
    Operator,
    Proposal,
    ProposalState,
    Record,
    Role,
    Versioned,
    Wallet,
)
from registry.records import from_content, kind_of

APPROVE = "registry.approve"
REJECT = "registry.reject"
WALLET_KEYS = (
    *("account_xpub", "account_path", "token_key", "token_public_key", "cosigners", "required"),
)
"""What of a wallet says which keys it has."""


def approval_bytes(proposal: Proposal, verb: str = APPROVE) -> bytes:
    """Return what an administrator signs to approve (or, with `REJECT`, reject) a proposal."""
    return signing_bytes(
        verb,
        {
            "proposal": proposal.id,
            "kind": str(proposal.kind),
            "code": proposal.code,
            "base_version": proposal.base_version,
            "content": proposal.content,
            "proposed_by": proposal.proposed_by,
            "reason": proposal.reason,
        },
    )


def decide_founding(founding: Founding) -> None:
    """Refuse a founding that four eyes could not go on from.

    Raises:
        ChangeRefused: fewer than two administrators with keys of their own, or a code twice.
    """
    admins = {o.code: o.public_key for o in founding.operators if o.may_decide}
    if len(set(admins.values())) < ADMINS_MIN:
        raise ChangeRefused(
            f"the founding has {len(set(admins.values()))} administrators with keys of their own",
            remedy=f"Name at least {ADMINS_MIN} active operators with role admin",
        )
    counts = Counter((kind_of(record), record.code) for record in founding.records)
    for (kind, code), count in counts.items():
        if count > 1:
            raise ChangeRefused(f"the founding has {kind} {code} {count} times")


def decide_proposal(record: Record, current: Versioned | None, *, by: Operator) -> None:
    """Refuse a change that nobody could approve.

    Raises:
        NotAuthorised: *by* is no active administrator.
        ChangeRefused: it changes nothing, or what can never change.
    """
    require_role(by, Role.ADMIN)
    if current is None:
        return
    if current.record == record:
        raise ChangeRefused(f"{kind_of(record)} {record.code} is already so", remedy="Change it")
    _require_possible(current.record, record)


def decide_approval(
    proposal: Proposal,
    current: Versioned | None,
    *,
    by: Operator,
    proposer: Operator,
    operators: Iterable[Operator],
    signature: bytes,
    now: datetime,
) -> Record:
    """Return the record as it shall stand, or refuse.

    Args:
        proposal: as loaded under its lock.
        current: the record's newest version, under its lock; None if it is new.
        by: who approves; must be another active administrator than *proposer*.
        proposer: who proposed, as enrolled now.
        operators: every operator, when the change is to one of them.
        signature: by's Ed25519 signature over `approval_bytes`.
        now: when.

    Raises:
        NotAuthorised: the same person, not an administrator any more, or a wrong signature.
        ChangeRefused: decided before, too old, or overtaken by another change.
    """
    _require_second_person(proposal, by=by, proposer=proposer)
    verify_signature(by, approval_bytes(proposal), signature)
    _require_open(proposal)
    if now - proposal.proposed_at > PROPOSAL_LIFETIME:
        raise ChangeRefused(
            f"proposal {proposal.id} is older than {PROPOSAL_LIFETIME.days} days",
            remedy="Propose the change again",
        )
    version = 0 if current is None else current.version
    if version != proposal.base_version:
        raise ChangeRefused(
            f"{proposal.kind} {proposal.code} is at version {version}; the proposal was made "
            f"for version {proposal.base_version}",
            remedy="Look at the newer version and propose again",
        )
    record = from_content(proposal.kind, proposal.content)
    if current is not None:
        _require_possible(current.record, record)
    if isinstance(record, Operator):
        _require_administrators(record, operators)
    return record


def decide_rejection(
    proposal: Proposal, *, by: Operator, proposer: Operator, signature: bytes
) -> None:
    """Refuse a rejection by the wrong person or of what is decided; an inactive proposer may be."""
    require_role(by, Role.ADMIN)
    if by.code == proposer.code:
        raise NotAuthorised(
            f"operator {by.code} proposed this change", remedy="Another administrator decides"
        )
    verify_signature(by, approval_bytes(proposal, REJECT), signature)
    _require_open(proposal)


def decide_scale(on_chain: ChainAsset, asset: Asset) -> None:
    """Refuse a coin that the chain counts finer than its asset: its fees could not be booked exactly.

    A token may be finer: what arrives in pieces of a unit is kept apart (`custody.remainders`), and
    whoever pays one out pays whole units.

    Raises:
        ChangeRefused: names both numbers.
    """
    if on_chain.decimals > asset.scale and on_chain.contract is None:
        raise ChangeRefused(
            f"{on_chain.code} has {on_chain.decimals} decimals, {asset.code} a scale of "
            f"{asset.scale}: fees could not be booked exactly",
            remedy="Register an asset with at least as many places",
        )


def decide_coin(on_chain: ChainAsset, chain: Chain) -> None:
    """Refuse to take a chain's own coin for another asset, or a token for the coin.

    Raises:
        ChangeRefused: names the chain's coin.
    """
    if (on_chain.contract is None) != (on_chain.asset == chain.native_asset):
        raise ChangeRefused(
            f"{on_chain.code} has {'no' if on_chain.contract is None else 'a'} contract, and the "
            f"coin of {chain.code} is {chain.native_asset}",
            remedy="Only the chain's own coin has no contract",
        )


def decide_contract(on_chain: ChainAsset) -> None:
    """Refuse a token whose contract is not spelled in EIP-55 mixed case.

    Contracts are compared as text with what blocks say. One in another spelling would match nothing,
    so no payment of the token would ever be seen, and it could be registered twice.

    Raises:
        ChangeRefused: names the contract.
    """
    if on_chain.contract is not None and not is_checksum_address(on_chain.contract):
        raise ChangeRefused(
            f"the contract {on_chain.contract} of {on_chain.code} does not carry its EIP-55 checksum",
            remedy="Copy it from its issuer again, in mixed case",
        )


def decide_keys(wallet: Wallet, chain: Chain) -> None:
    """Refuse keys of a sort that the chain has no addresses for.

    Raises:
        ChangeRefused: names the chain's kind.
    """
    if wallet.token_key and chain.kind == BITCOIN:
        raise ChangeRefused(
            f"wallet {wallet.code} has one address, and change on {chain.code} needs others",
            remedy="Name an account's extended public key, or cosigners",
        )
    if wallet.cosigners and chain.kind != BITCOIN:
        raise ChangeRefused(
            f"wallet {wallet.code} has cosigners, and {chain.code} is of kind {chain.kind}",
            remedy="Only Bitcoin has addresses of several keys",
        )


def _require_second_person(proposal: Proposal, *, by: Operator, proposer: Operator) -> None:
    require_role(by, Role.ADMIN)
    require_role(proposer, Role.ADMIN)
    if by.code == proposal.proposed_by or by.public_key == proposer.public_key:
        raise NotAuthorised(
            f"operator {by.code} proposed this change", remedy="Another administrator decides"
        )


def _require_open(proposal: Proposal) -> None:
    if proposal.state is not ProposalState.PROPOSED:
        raise ChangeRefused(
            f"proposal {proposal.id} is already {proposal.state}",
            remedy="Propose the change again if it is still wanted",
        )


def _require_administrators(changed: Operator, operators: Iterable[Operator]) -> None:
    after = {operator.code: operator for operator in operators} | {changed.code: changed}
    left = sum(operator.may_decide for operator in after.values())
    if left < ADMINS_MIN:
        raise ChangeRefused(
            f"after this change {left} administrator could decide",
            where=f"operator {changed.code}",
            remedy=f"Make another operator administrator first: {ADMINS_MIN} have to remain",
        )


def _require_possible(old: Record, new: Record) -> None:
    """Refuse to change what money already booked depends on."""
    for name in _fixed_fields(old):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            raise ChangeRefused(
                f"{name} of {kind_of(old)} {old.code} is {before!r} and can never be {after!r}",
                remedy="Register a new one under another code",
            )


def _fixed_fields(record: Record) -> tuple[str, ...]:
    match record:
        case LegalEntity():
            return ("book",)
        case Asset():
            return ("scale",)
        case Chain():
            return ("kind", "network_id", "native_asset")
        case ChainAsset():
            return ("chain", "contract", "decimals", "asset")
        case Wallet():
            return ("chain", "owner", *WALLET_KEYS)
        case BankAccount():
            return ("iban", "asset", "owner", "entity")
        case _:
            return ()
