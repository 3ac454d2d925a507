"""What the signer signs, and what it refuses though everybody asks nicely."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterator
from dataclasses import replace as with_fields
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from chain.evm.transactions import UnsignedTransaction, decode_signed, erc20_transfer_data
from custody.payout_approvals import ApprovalLine
from custody.signer.errors import StoreUnusable
from custody.signer.service import Signer
from custody.signer.store import Memory
from custody.signer.wire import AskXpub, Intent, No, SignedApproval, Xpub
from tests.custody.signer.vault import (
    GWEI,
    LAPSES,
    OTHER_PATH,
    OWN,
    PAYEE,
    PAYOUT,
    ROOT,
    SENDER,
    STRANGER,
    approval,
    ask,
    ask_fully,
    cancel,
    intent,
    native,
    open_signer,
    pay,
    token,
)


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[Signer]:
    with open_signer(tmp_path) as opened:
        yield opened


def test_an_approved_native_payment_is_signed_by_the_sender(signer: Signer) -> None:
    tx = native()
    meant = intent(tx)

    raw = ask(signer, tx, meant, approval(meant, "ann"))

    assert isinstance(raw, bytes)
    signed = decode_signed(raw, chain_id=31337)
    assert (signed.sender, signed.unsigned) == (SENDER, tx)


def test_an_approved_token_payment_is_signed(signer: Signer) -> None:
    tx = token()
    meant = intent(tx)

    raw = ask(signer, tx, meant, approval(meant, "ann"), approval(meant, "bob"))

    assert isinstance(raw, bytes)


def approvals_of(meant: Intent) -> tuple[SignedApproval, ...]:
    return () if meant.kind == "cancel" else (approval(meant, "ann"), approval(meant, "bob"))


HONEST = {
    "native payment": native(),
    "token payment": token(),
    "own transfer": native(recipient=OWN),
    "cancellation": cancel(),
}
OTHER_BYTES: dict[str, Any] = {
    "chain_id": 1,
    "nonce": 4,
    "max_fee_per_gas": 9 * GWEI + 1,
    "gas_limit": 61_000,
    "recipient": STRANGER,
    "value": 5,
    "data": b"\x01",
}
FREE_BYTES = {"max_priority_fee_per_gas"}
"""Within the most that the intent's fee cap allows, how it is split is the sender's affair."""

OTHER_INTENT: dict[str, Any] = {
    "payout_id": UUID(int=8),
    "kind": "own",
    "wallet": "house-hot",
    "client": "nobody",
    "destination_path": "m/44'/60'/1'/1/1",
    "chain": "moon",
    "chain_id": 1,
    "key_path": "m/44'/60'/0'/1/1",
    "sender": OWN,
    "nonce": 4,
    "destination": STRANGER,
    "asset": "DOGE",
    "contract": STRANGER,
    "amount": "1",
    "fee_cap": "1",
    "initiator": "eve",
    "policy_version": 2,
    "rule": 2,
}
SAYS_NOTHING_OF_A_CANCELLATION = {"payout_id", "initiator", "policy_version", "rule"}
"""Nobody approves that nothing is sent, and its bytes do not show these."""


def test_every_field_of_bytes_and_intent_has_a_lie() -> None:
    fields = {field.name for field in dataclasses.fields(UnsignedTransaction)}

    assert OTHER_BYTES.keys() | FREE_BYTES == fields
    assert OTHER_INTENT.keys() == set(Intent.__struct_fields__)


@pytest.mark.parametrize("field", OTHER_BYTES)
@pytest.mark.parametrize("name", HONEST)
def test_bytes_that_differ_from_the_intent_in_a_field_are_refused(
    signer: Signer, name: str, field: str
) -> None:
    tx = HONEST[name]
    meant = intent(tx)
    # Data costs gas, and no transaction exists with less than that.
    gas = {"gas_limit": max(tx.gas_limit, 30_000)} if field == "data" else {}
    lie = with_fields(tx, **{**gas, field: OTHER_BYTES[field]})

    answer = ask_fully(signer, lie, meant, *approvals_of(meant))

    assert isinstance(answer, No), f"signed another {field}"
    assert signer.memory.count() == 0
    assert isinstance(ask(signer, tx, meant, *approvals_of(meant)), bytes)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        (name, field)
        for name, tx in HONEST.items()
        for field in OTHER_INTENT
        if intent(tx).kind != "cancel" or field not in SAYS_NOTHING_OF_A_CANCELLATION
    ],
)
def test_an_intent_that_differs_from_the_bytes_or_the_approvals_is_refused(
    signer: Signer, name: str, field: str
) -> None:
    tx = HONEST[name]
    honest = intent(tx)
    changed = "pay" if (field, honest.kind) == ("kind", "own") else OTHER_INTENT[field]
    lie = msgspec.structs.replace(honest, **{field: changed})

    answer = ask_fully(signer, tx, lie, *approvals_of(honest))

    assert isinstance(answer, No), f"signed with another {field}"
    assert signer.memory.count() == 0


LIES = [
    pytest.param(token(value=1), {}, "carries no value", id="token with value"),
    pytest.param(token(recipient=STRANGER), {}, "calls the token's contract", id="wrong contract"),
    pytest.param(
        token(data=bytes.fromhex("095ea7b3") + token().data[4:]), {}, "not an ERC-20 transfer",
        id="approve instead of transfer",
    ),
    pytest.param(token(data=erc20_transfer_data(STRANGER, 5_000)), {}, "destination", id="token payee"),
    pytest.param(token(data=erc20_transfer_data(PAYEE, 5_001)), {}, "amount", id="token amount"),
    pytest.param(token(data=token().data + b"\0"), {}, "not an ERC-20 transfer", id="extra bytes"),
    pytest.param(native(), {"asset": "DOGE"}, "no rule allows", id="unknown asset"),
    pytest.param(token(), {"contract": STRANGER}, "calls the token's contract", id="unknown contract"),
    pytest.param(native(), {"key_path": "m/44'/60'/0'/1/1"}, "is not that of", id="another key"),
    pytest.param(native(), {"key_path": "m/44/60/0/1/0"}, "not of wallet", id="unhardened account"),
    pytest.param(native(), {"key_path": "m/44'/60'/0'"}, "not the path", id="an account's key"),
    pytest.param(native(value=10**20), {}, "limit", id="above the limit"),
    pytest.param(native(max_fee_per_gas=10**12), {}, "above the signer's", id="fee too high"),
    pytest.param(native(recipient=STRANGER), {"destination": STRANGER}, "not an allowed destination", id="unknown payee"),
    pytest.param(native(), {"client": "birch2"}, "not an allowed destination", id="another client's payee"),
    pytest.param(native(), {"client": None}, "names a client", id="nobody's payee"),
    pytest.param(native(), {"destination_path": OTHER_PATH}, "no receiving key", id="both kinds"),
    pytest.param(native(recipient=OWN), {"destination_path": None}, "names the receiving key", id="own, no key"),
    pytest.param(native(recipient=OWN), {"client": "acme"}, "for no client", id="own, for a client"),
    pytest.param(
        native(recipient=STRANGER), {"kind": "own", "client": None, "destination": STRANGER, "destination_path": OTHER_PATH},
        "is not that of", id="own, to a stranger",
    ),
    pytest.param(cancel(value=1), {"kind": "cancel", "destination": SENDER, "client": None}, "sends nothing", id="cancel that pays"),
    pytest.param(cancel(gas_limit=21_001), {}, "sends nothing", id="cancel with gas for more"),
    pytest.param(native(value=0), {"kind": "cancel", "client": None}, "sends nothing", id="cancel to a stranger"),
    pytest.param(native(), {"wallet": "house-hot"}, "not of wallet", id="another wallet's key"),
    pytest.param(native(), {"wallet": "attic"}, "not a wallet", id="unknown wallet"),
]  # fmt: skip


@pytest.mark.parametrize(("tx", "changes", "says"), LIES)
def test_what_is_not_an_approved_payment_is_refused(
    signer: Signer, tx: UnsignedTransaction, changes: dict[str, Any], says: str
) -> None:
    meant = intent(tx, **changes)

    answer = ask(signer, tx, meant, approval(meant, "ann"), approval(meant, "bob"))

    assert isinstance(answer, str)
    assert says in answer
    assert signer.memory.count() == 0


def test_bytes_for_another_chain_are_refused(signer: Signer) -> None:
    tx = native(chain_id=1)
    meant = intent(tx)

    assert ask(signer, tx, meant, approval(meant, "ann")) == "meant for chain 1, not for 31337"


def test_approvals_are_counted_by_person(signer: Signer) -> None:
    tx = token()
    meant = intent(tx)

    assert ask(signer, tx, meant) == "0 of 2 approvals"
    one = approval(meant, "ann")
    assert ask(signer, tx, meant, one, one) == "1 of 2 approvals"


def test_the_initiator_cannot_approve(signer: Signer) -> None:
    tx = native()
    meant = intent(tx, initiator="ann")

    assert ask(signer, tx, meant, approval(meant, "ann")) == (
        "ann asked for the payout and cannot approve it"
    )


def test_a_signature_of_somebody_else_is_refused(signer: Signer) -> None:
    tx = native()
    meant = intent(tx)
    forged = msgspec.structs.replace(approval(meant, "eve"), operator="ann")

    assert ask(signer, tx, meant, forged) == (
        "0 of 1 approvals; the signature of ann is not by the key that the signer has of them"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"destination": STRANGER},
        {"amount": 1},
        {"payout_id": UUID(int=8)},
        {"policy_version": 2},
        {"rule": 2},
        {"chain_id": 1},
        {"asset": "USDT"},
        {"initiator": "eve"},
        {"wallet": "house-hot"},
        {"client": "birch"},
        {"client": None},
    ],
)
def test_an_approval_of_another_payment_does_not_count(
    signer: Signer, changes: dict[str, Any]
) -> None:
    tx = native()
    meant = intent(tx)

    assert ask(signer, tx, meant, approval(meant, "ann", **changes)) == (
        "what ann approved is another payment"
    )


def test_the_application_cannot_choose_another_wallet_than_the_approvers_saw(
    signer: Signer,
) -> None:
    tx = native()
    approved = approval(intent(tx), "ann")
    other = intent(tx, wallet="house-hot", key_path=OTHER_PATH, sender=OWN)

    assert ask(signer, tx, other, approved) == "what ann approved is another payment"


def test_the_application_cannot_choose_whose_allow_list_counts(signer: Signer) -> None:
    tx = native()
    approved = approval(intent(tx), "ann")

    assert ask(signer, tx, intent(tx, client="birch"), approved) == (
        "what ann approved is another payment"
    )


def test_one_signature_may_release_many_payouts(signer: Signer) -> None:
    tx = native()
    meant = intent(tx)
    other = ApprovalLine(
        payout_id=UUID(int=8),
        chain="evm",
        chain_id=31337,
        wallet="client-pool",
        client="acme",
        destination=STRANGER,
        asset="ETH",
        amount=1,
        initiator="zoe",
        policy_version=1,
        rule=1,
        expires_at=LAPSES,
    )

    assert isinstance(ask(signer, tx, meant, approval(meant, "ann", other)), bytes)


def test_the_same_request_gets_the_same_bytes(signer: Signer) -> None:
    tx = native()
    meant = intent(tx)

    first = ask(signer, tx, meant, approval(meant, "ann"))

    assert ask(signer, tx, meant, approval(meant, "bob")) == first
    assert signer.memory.count() == 1


def test_a_second_payment_on_a_nonce_is_refused(signer: Signer) -> None:
    tx = native()
    meant = intent(tx)
    assert isinstance(ask(signer, tx, meant, approval(meant, "ann")), bytes)
    dearer = native(value=1, max_fee_per_gas=9 * GWEI, max_priority_fee_per_gas=2 * GWEI)
    for second in (dearer, tx):
        other = intent(second, payout_id=UUID(int=8))

        assert ask(signer, second, other, approval(other, "ann")) == (
            f"nonce 3 of {SENDER} is signed for another payment"
        )


def test_a_payout_is_signed_at_one_nonce_only(signer: Signer) -> None:
    tx = native()
    meant = intent(tx)
    assert isinstance(ask(signer, tx, meant, approval(meant, "ann")), bytes)
    later = native(nonce=4)

    assert ask(signer, later, intent(later), approval(meant, "ann")) == (
        f"payout {PAYOUT} is signed at nonce 3 of {SENDER}"
    )


@pytest.mark.parametrize(
    ("max_fee", "priority", "allowed"),
    [
        (9 * 10**9, 1_125_000_000, True),
        (9 * 10**9 - 1, 1_125_000_000, False),
        (9 * 10**9, 1_124_999_999, False),
        (7 * 10**9, 9 * 10**8, False),
    ],
)
def test_a_replacement_raises_both_fees_by_an_eighth(
    signer: Signer, max_fee: int, priority: int, *, allowed: bool
) -> None:
    first = native()
    meant = intent(first)
    assert isinstance(ask(signer, first, meant, approval(meant, "ann")), bytes)
    tx = native(max_fee_per_gas=max_fee, max_priority_fee_per_gas=priority)

    answer = ask(signer, tx, intent(tx), approval(meant, "ann"))

    assert isinstance(answer, bytes) is allowed


def test_what_was_signed_is_remembered_by_the_next_process(tmp_path: Path, signer: Signer) -> None:
    tx = native()
    meant = intent(tx)
    first = ask(signer, tx, meant, approval(meant, "ann"))
    signer.memory.close()
    with open_signer(tmp_path, told=False) as again:
        assert ask(again, tx, meant, approval(meant, "ann")) == first
        other = msgspec.structs.replace(meant, payout_id=UUID(int=8))
        assert ask(again, tx, other, approval(other, "ann")) == (
            f"nonce 3 of {SENDER} is signed for another payment"
        )


def test_what_was_signed_is_on_disk_before_the_answer(signer: Signer) -> None:
    """3 is EXTRA: sqlite.org/pragma.html#pragma_synchronous."""
    database = signer.memory.database

    assert database.execute("PRAGMA synchronous").fetchone() == (3,)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_full_disk_costs_one_answer_and_no_signature(signer: Signer) -> None:
    database = signer.memory.database
    [pages] = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")

    def pay_until_it_is_full() -> None:
        for nonce in range(200):
            assert isinstance(pay(signer, nonce, value=1), bytes)

    with pytest.raises(sqlite3.OperationalError, match="full"):
        pay_until_it_is_full()

    signed = signer.memory.count()
    assert database.execute("SELECT count(*) FROM signed").fetchone() == (signed,)
    database.execute(f"PRAGMA max_page_count = {pages + 100}")
    assert isinstance(pay(signer, 500, value=1), bytes)
    assert signer.memory.count() == signed + 1


def test_two_signers_cannot_use_one_store(tmp_path: Path, signer: Signer) -> None:
    with pytest.raises(StoreUnusable, match="store cannot be used"):
        Memory.open(tmp_path / "signed")


def test_the_public_key_of_an_account_is_given_and_nothing_above_or_below(signer: Signer) -> None:
    assert signer.answer(AskXpub("m/44'/60'/0'")) == Xpub(ROOT.derive("m/44'/60'/0'").xpub())
    for path in ("m", "m/44'/60'", "m/44'/60'/0", "m/44'/60'/0'/0"):
        assert isinstance(signer.answer(AskXpub(path)), No)
