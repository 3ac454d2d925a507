from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from kernel.errors import BadInput
from kernel.money import Asset
from registry.decisions import (
    REJECT,
    approval_bytes,
    decide_approval,
    decide_founding,
    decide_keys,
    decide_proposal,
    decide_rejection,
    decide_scale,
)
from registry.errors import ChangeRefused, NotAuthorised
from registry.model import (
    PROPOSAL_LIFETIME,
    Chain,
    ChainAsset,
    KeySource,
    LegalEntity,
    Operator,
    Party,
    PartyKind,
    Proposal,
    ProposalState,
    Record,
    RecordKind,
    Role,
    Versioned,
    Wallet,
    WalletPurpose,
)
from registry.records import from_content, kind_of, to_content
from registry.testing import (
    TOKEN,
    XPUBS,
    demo_founding,
    operator,
    operator_keypair,
    wallets,
    with_banks,
)

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
ADA, BEN = operator("ada", Role.ADMIN), operator("ben", Role.ADMIN)
CLEO = operator("cleo", Role.APPROVER)
ACME = Party("acme", PartyKind.CLIENT, "desk")
CURRENT = Versioned(ACME, 1, NOW)
POINT = "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
CHANGED = replace(ACME, kind=PartyKind.COUNTERPARTY)


def proposal(record: Record = CHANGED, *, base: int = 1, by: str = "ada") -> Proposal:
    return Proposal(
        id=UUID(int=1),
        kind=kind_of(record),
        code=record.code,
        base_version=base,
        content=to_content(record),
        proposed_by=by,
        reason="moved",
        proposed_at=NOW,
        state=ProposalState.PROPOSED,
    )


def decide(
    what: Proposal,
    *,
    current: Versioned | None = CURRENT,
    by: Operator = BEN,
    proposer: Operator = ADA,
    signature: bytes | None = None,
    now: datetime = NOW,
) -> Record:
    return decide_approval(
        what,
        current,
        by=by,
        proposer=proposer,
        operators=(ADA, BEN, CLEO),
        signature=operator_keypair(by.code).sign(approval_bytes(what))
        if signature is None
        else signature,
        now=now,
    )


def test_a_second_administrator_approves() -> None:
    assert decide(proposal()) == CHANGED


def test_nobody_approves_their_own_change() -> None:
    with pytest.raises(NotAuthorised, match="ada proposed this change"):
        decide(proposal(), by=ADA)


def test_one_key_under_two_names_is_one_person() -> None:
    twin = replace(BEN, public_key=ADA.public_key)
    signature = operator_keypair("ada").sign(approval_bytes(proposal()))

    with pytest.raises(NotAuthorised, match="proposed this change"):
        decide(proposal(), by=twin, signature=signature)


@pytest.mark.parametrize("outsider", [CLEO, replace(BEN, active=False)])
def test_only_active_administrators_approve(outsider: Operator) -> None:
    with pytest.raises(NotAuthorised):
        decide(proposal(), by=outsider)


@pytest.mark.parametrize("gone", [replace(ADA, active=False), replace(ADA, roles=frozenset())])
def test_a_proposer_who_lost_the_right_since_counts_no_more(gone: Operator) -> None:
    with pytest.raises(NotAuthorised):
        decide(proposal(), proposer=gone)


def test_the_signature_is_over_this_content() -> None:
    other = operator_keypair("ben").sign(approval_bytes(proposal(ACME)))
    rejection = operator_keypair("ben").sign(approval_bytes(proposal(), REJECT))

    for signature in (other, rejection):
        with pytest.raises(NotAuthorised, match="signature"):
            decide(proposal(), signature=signature)


@pytest.mark.parametrize("state", [ProposalState.APPROVED, ProposalState.REJECTED])
def test_a_proposal_is_decided_once(state: ProposalState) -> None:
    done = replace(proposal(), state=state)
    signature = operator_keypair("ben").sign(approval_bytes(done, REJECT))

    with pytest.raises(ChangeRefused, match=f"already {state}"):
        decide(done)
    with pytest.raises(ChangeRefused, match=f"already {state}"):
        decide_rejection(done, by=BEN, proposer=ADA, signature=signature)


def test_an_old_proposal_has_to_be_made_again() -> None:
    assert decide(proposal(), now=NOW + PROPOSAL_LIFETIME) == CHANGED
    with pytest.raises(ChangeRefused, match="7 days"):
        decide(proposal(), now=NOW + PROPOSAL_LIFETIME + timedelta(seconds=1))


@pytest.mark.parametrize("current", [None, Versioned(ACME, 2, NOW)])
def test_a_change_made_for_another_version_is_refused(current: Versioned | None) -> None:
    with pytest.raises(ChangeRefused, match="made for version 1"):
        decide(proposal(), current=current)


def test_a_token_may_be_finer_than_its_asset_and_a_coin_may_not() -> None:
    """Fees are paid in the coin to its last unit; what a token leaves over is kept in pieces."""
    fine = ChainAsset("evm:USDT", "evm", TOKEN, 18, "USDT")
    decide_scale(fine, Asset("USDT", 6))
    decide_scale(replace(fine, contract=None, decimals=6), Asset("USDT", 6))
    with pytest.raises(ChangeRefused, match="fees could not be booked exactly"):
        decide_scale(replace(fine, contract=None), Asset("USDT", 6))


CLIENT_WALLET = wallets()[0]
FIXED: list[tuple[Record, Record, str]] = [
    (Asset("BTC", 8), Asset("BTC", 18), "scale"),
    (LegalEntity("desk", "Desk", 1), LegalEntity("desk", "Desk", 2), "book"),
    (Chain("evm", "evm", 1, "ETH"), Chain("evm", "evm", 10, "ETH"), "network_id"),
    (
        ChainAsset("evm:USDT", "evm", TOKEN, 6, "USDT"),
        ChainAsset("evm:USDT", "evm", TOKEN, 18, "USDT"),
        "decimals",
    ),
    (
        ChainAsset("evm:USDT", "evm", TOKEN, 6, "USDT"),
        ChainAsset("evm:USDT", "evm", "0x" + "11" * 20, 6, "USDT"),
        "contract",
    ),
    (CLIENT_WALLET, replace(CLIENT_WALLET, owner="client:acme"), "owner"),
    (
        replace(CLIENT_WALLET, purpose=WalletPurpose.HOT),
        replace(CLIENT_WALLET, purpose=WalletPurpose.HOT, owner="house"),
        "owner",
    ),
    (CLIENT_WALLET, replace(CLIENT_WALLET, account_xpub=XPUBS[1]), "account_xpub"),
    (CLIENT_WALLET, replace(CLIENT_WALLET, account_path="m/44'/60'/9'"), "account_path"),
]


@pytest.mark.parametrize(("old", "new", "field"), FIXED)
def test_what_booked_money_depends_on_can_never_change(
    old: Record, new: Record, field: str
) -> None:
    current = Versioned(old, 1, NOW)

    with pytest.raises(ChangeRefused, match=f"{field} of .* can never be"):
        decide_proposal(new, current, by=ADA)
    with pytest.raises(ChangeRefused, match=f"{field} of .* can never be"):
        decide(proposal(new), current=current)


def test_a_proposal_that_changes_nothing_is_refused() -> None:
    with pytest.raises(ChangeRefused, match="already so"):
        decide_proposal(ACME, Versioned(ACME, 1, NOW), by=ADA)


def test_only_administrators_propose() -> None:
    with pytest.raises(NotAuthorised, match="cleo is not admin"):
        decide_proposal(ACME, None, by=CLEO)


def test_a_third_person_rejects_even_when_the_proposer_has_left() -> None:
    signature = operator_keypair("ben").sign(approval_bytes(proposal(), REJECT))
    approved = operator_keypair("ben").sign(approval_bytes(proposal()))

    decide_rejection(proposal(), by=BEN, proposer=replace(ADA, active=False), signature=signature)
    with pytest.raises(NotAuthorised, match="signature"):
        decide_rejection(proposal(), by=BEN, proposer=ADA, signature=approved)
    with pytest.raises(NotAuthorised, match="ada proposed"):
        decide_rejection(proposal(), by=ADA, proposer=ADA, signature=signature)


@pytest.mark.parametrize(
    "changed", [replace(BEN, active=False), replace(BEN, roles=frozenset({Role.DEALER}))]
)
def test_two_administrators_always_remain(changed: Operator) -> None:
    with pytest.raises(ChangeRefused, match="1 administrator could decide"):
        decide(proposal(changed), current=Versioned(BEN, 1, NOW))


def test_a_founding_needs_two_administrators_with_two_keys() -> None:
    decide_founding(demo_founding(operators=(ADA, BEN)))
    for operators in (
        (),
        (ADA,),
        (ADA, CLEO),
        (ADA, replace(BEN, active=False)),
        (ADA, replace(BEN, public_key=ADA.public_key)),
    ):
        with pytest.raises(ChangeRefused, match="administrators"):
            decide_founding(demo_founding(operators=operators))


def test_a_founding_names_a_code_twice_at_its_peril() -> None:
    twice = replace(demo_founding(), assets=(Asset("ETH", 18), Asset("ETH", 6)))

    with pytest.raises(ChangeRefused, match="asset ETH 2 times"):
        decide_founding(twice)


@pytest.mark.parametrize("record", demo_founding().records)
def test_content_reads_back_as_the_same_record(record: Record) -> None:
    assert from_content(kind_of(record), to_content(record)) == record


def test_every_kind_is_in_the_demonstration() -> None:
    assert {kind_of(record) for record in with_banks(demo_founding()).records} == set(RecordKind)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"owner": "house"}, "takes clients' deposits"),
        ({"owner": "client", "purpose": WalletPurpose.SETTLEMENT}, "settlement payments"),
        ({"owner": "acme"}, "write client|Write client"),
        ({"owner": "client:"}, "owner of a wallet"),
        ({"code": "Client Pool"}, "code of a wallet"),
        ({"account_xpub": "xpub"}, "extended public key"),
        ({"account_xpub": XPUBS[0].replace("x", "0", 1)}, "extended public key"),
        ({"account_path": "44'/60'"}, "path"),
        ({"token_key": "hot", "token_public_key": POINT}, "keys in 2 places"),
        ({"cosigners": sorted(XPUBS), "required": 2}, "keys in 2 places"),
        ({"token_public_key": POINT}, "not both"),
        ({"required": 2}, "requires 2 of no cosigners"),
    ],
)
def test_an_impossible_wallet_is_bad_input(change: dict[str, object], message: str) -> None:
    fields = to_content(CLIENT_WALLET) | {"purpose": WalletPurpose.DEPOSIT} | change

    with pytest.raises(BadInput, match=message):
        Wallet(**fields)


TOKEN_WALLET = Wallet(
    "vault", "evm", "house", WalletPurpose.HOT, token_key="hot", token_public_key=POINT
)
SHARED = Wallet(
    *("cold", "btc", "house", WalletPurpose.SETTLEMENT),
    account_path="m/48'/0'/0'/2'",
    cosigners=tuple(sorted(XPUBS)),
    required=2,
)
WITH_ORIGIN = tuple(
    sorted(f"[{n:08x}/48'/0'/0'/2']{xpub}" for n, xpub in enumerate(XPUBS, start=1))
)


@pytest.mark.parametrize(
    ("wallet", "source", "root", "path"),
    [
        (CLIENT_WALLET, KeySource.ACCOUNT, "m/44'/60'/0'", "m/44'/60'/0'/1/7"),
        (TOKEN_WALLET, KeySource.TOKEN, "hot", "hot"),
        (SHARED, KeySource.COSIGNERS, "m/48'/0'/0'/2'", "m/48'/0'/0'/2'/1/7"),
    ],
)
def test_a_wallet_says_where_its_keys_are(
    wallet: Wallet, source: KeySource, root: str, path: str
) -> None:
    assert (wallet.key_source, wallet.key_root, wallet.key_path(1, 7)) == (source, root, path)
    assert from_content(RecordKind.WALLET, to_content(wallet)) == wallet


@pytest.mark.parametrize(
    ("wallet", "change", "message"),
    [
        (TOKEN_WALLET, {"token_key": "m/44'/60'/0'"}, "not the label"),
        (TOKEN_WALLET, {"token_key": "h" * 65}, "not the label"),
        (TOKEN_WALLET, {"token_public_key": ""}, "no public key of hot"),
        (TOKEN_WALLET, {"token_public_key": POINT.upper()}, "no public key of hot"),
        (TOKEN_WALLET, {"token_public_key": "04" + POINT[2:]}, "no public key of hot"),
        (TOKEN_WALLET, {"account_path": "m/44'/60'/0'"}, "no account path"),
        (TOKEN_WALLET, {"owner": "client", "purpose": WalletPurpose.DEPOSIT}, "are derived"),
        (TOKEN_WALLET, {"token_key": "", "token_public_key": ""}, "extended public key"),
        (SHARED, {"cosigners": ()}, "extended public key"),
        (SHARED, {"cosigners": XPUBS[:1], "required": 1}, "2 to 15 cosigners"),
        (SHARED, {"cosigners": XPUBS[:1] * 2}, "another key"),
        (SHARED, {"cosigners": ("xpub", *XPUBS)}, "extended public key"),
        (SHARED, {"cosigners": tuple(sorted(XPUBS, reverse=True))}, "alphabetical order"),
        (SHARED, {"cosigners": (WITH_ORIGIN[0], XPUBS[0]), "required": 1}, "another key"),
        (SHARED, {"cosigners": (f"[zz]{XPUBS[0]}", XPUBS[1])}, "extended public key"),
        (SHARED, {"required": 0}, "requires 0 of 3"),
        (SHARED, {"required": 4}, "requires 4 of 3"),
        (SHARED, {"account_path": ""}, "the path ''"),
    ],
)
def test_keys_of_a_wallet_are_said_whole_and_once(
    wallet: Wallet, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        replace(wallet, **change)


@pytest.mark.parametrize(
    ("wallet", "change", "name"),
    [
        (TOKEN_WALLET, {"token_key": "cold"}, "token_key"),
        (TOKEN_WALLET, {"token_public_key": "03" + POINT[2:]}, "token_public_key"),
        (SHARED, {"required": 3}, "required"),
        (SHARED, {"cosigners": tuple(sorted(XPUBS)[:2])}, "cosigners"),
    ],
)
def test_the_keys_of_a_wallet_are_for_ever(
    wallet: Wallet, change: dict[str, Any], name: str
) -> None:
    with pytest.raises(ChangeRefused, match=f"{name} of wallet .* can never be"):
        decide_proposal(replace(wallet, **change), Versioned(wallet, 1, NOW), by=ADA)


def test_only_bitcoin_has_wallets_of_several_keys() -> None:
    decide_keys(SHARED, Chain("btc", "bitcoin", 0xFABFB5DA, "BTC"))
    decide_keys(replace(SHARED, cosigners=WITH_ORIGIN), Chain("btc", "bitcoin", 1, "BTC"))
    decide_keys(TOKEN_WALLET, Chain("evm", "evm", 1, "ETH"))
    with pytest.raises(ChangeRefused, match="change on btc needs others"):
        decide_keys(TOKEN_WALLET, Chain("btc", "bitcoin", 1, "BTC"))
    with pytest.raises(ChangeRefused, match="of kind evm"):
        decide_keys(SHARED, Chain("evm", "evm", 1, "ETH"))
