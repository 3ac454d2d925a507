"""What the signer signs, and what it refuses though everybody asks nicely."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace as with_fields
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chain.evm.addresses import address_of_public_key
from chain.evm.transactions import (
    UnsignedTransaction,
    decode_signed,
    encode_unsigned,
    erc20_transfer_data,
)
from custody.payout_approvals import ApprovalLine, approval_bytes
from custody.signer.errors import SignerRefused
from custody.signer.hd_keys import PrivateNode
from custody.signer.rules import AssetRule, Rules
from custody.signer.service import Signer
from custody.signer.store import Memory
from custody.signer.wire import AskSign, AskXpub, Intent, Line, No, Signed, SignedApproval, Xpub

ROOT = PrivateNode.from_seed(bytes(range(32)))
PATH = "m/44'/60'/0'/1/0"
SENDER = address_of_public_key(ROOT.derive(PATH).uncompressed_key)
TOKEN = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
PAYEE = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
STRANGER = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
PAYOUT = UUID(int=7)
KEYS = {
    name: Ed25519PrivateKey.from_private_bytes(name[:1].encode() * 32)
    for name in ("ann", "bob", "eve")
}

RULES = Rules(
    version=1,
    chains={"evm": 31337},
    operators={name: KEYS[name].public_key().public_bytes_raw().hex() for name in ("ann", "bob")},
    fee_cap_max=str(10**16),
    assets=[
        AssetRule(chain_id=31337, asset="ETH", contract=None, amount_max=str(10**19), approvals=1),
        AssetRule(chain_id=31337, asset="USDT", contract=TOKEN, amount_max=str(10**9), approvals=2),
    ],
)


def native(**changes: Any) -> UnsignedTransaction:
    tx = UnsignedTransaction(
        chain_id=31337,
        nonce=3,
        max_priority_fee_per_gas=10**9,
        max_fee_per_gas=8 * 10**9,
        gas_limit=60_000,
        recipient=PAYEE,
        value=10**18,
    )
    return with_fields(tx, **changes)


def token(**changes: Any) -> UnsignedTransaction:
    values = {"recipient": TOKEN, "value": 0, "data": erc20_transfer_data(PAYEE, 5_000)}
    return native(**{**values, **changes})


def intent(tx: UnsignedTransaction, **changes: Any) -> Intent:
    is_token = bool(tx.data)
    values: dict[str, Any] = {
        "payout_id": PAYOUT,
        "kind": "pay",
        "wallet": "client-pool",
        "client": "acme",
        "destination_path": None,
        "chain": "evm",
        "chain_id": 31337,
        "key_path": PATH,
        "sender": SENDER,
        "nonce": 3,
        "destination": PAYEE,
        "asset": "USDT" if is_token else "ETH",
        "contract": TOKEN if is_token else None,
        "amount": "5000" if is_token else str(10**18),
        "fee_cap": str(tx.fee_max),
        "initiator": "zoe",
        "policy_version": 1,
        "rule": 1,
    }
    return Intent(**{**values, **changes})


def approval(meant: Intent, who: str, *others: ApprovalLine, **changes: Any) -> SignedApproval:
    line = ApprovalLine(
        payout_id=meant.payout_id,
        chain=meant.chain,
        chain_id=meant.chain_id,
        destination=meant.destination,
        asset=meant.asset,
        amount=int(meant.amount),
        initiator=meant.initiator,
        policy_version=meant.policy_version,
        rule=meant.rule,
    )
    lines = [with_fields(line, **changes), *others]
    return SignedApproval(
        operator=who,
        signature=KEYS[who].sign(approval_bytes(lines)),
        lines=[Line.of(item) for item in lines],
    )


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[Signer]:
    memory = Memory.open(tmp_path / "signed")
    yield Signer("hot", ROOT, RULES, memory)
    memory.close()


def ask(
    signer: Signer, tx: UnsignedTransaction, meant: Intent, *approvals: SignedApproval
) -> bytes | str:
    answer = signer.answer(AskSign(meant, encode_unsigned(tx), list(approvals)))
    if isinstance(answer, No):
        return answer.what
    assert isinstance(answer, Signed)
    return answer.raw


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


LIES = [
    pytest.param(native(recipient=STRANGER), {}, "destination", id="another payee"),
    pytest.param(native(value=2 * 10**18), {}, "amount", id="another amount"),
    pytest.param(native(nonce=4), {}, "nonce", id="another nonce"),
    pytest.param(native(gas_limit=70_000), {"fee_cap": "1"}, "fee cap", id="another fee"),
    pytest.param(
        native(data=b"\x01"), {"asset": "ETH", "contract": None, "amount": str(10**18)}, "no data",
        id="native with data",
    ),
    pytest.param(token(value=1), {}, "carries no value", id="token with value"),
    pytest.param(token(recipient=STRANGER), {}, "calls the token's contract", id="wrong contract"),
    pytest.param(
        token(data=bytes.fromhex("095ea7b3") + token().data[4:]), {}, "not an ERC-20 transfer",
        id="approve instead of transfer",
    ),
    pytest.param(token(data=erc20_transfer_data(STRANGER, 5_000)), {}, "destination", id="token payee"),
    pytest.param(token(data=token().data + b"\0"), {}, "not an ERC-20 transfer", id="extra bytes"),
    pytest.param(native(), {"chain": "moon"}, "not signed for", id="unknown chain"),
    pytest.param(native(), {"asset": "DOGE"}, "no rule allows", id="unknown asset"),
    pytest.param(token(), {"contract": STRANGER}, "no rule allows", id="unknown contract"),
    pytest.param(native(), {"key_path": "m/44'/60'/0'/1/1"}, "is not that of", id="another key"),
    pytest.param(native(), {"key_path": "m/44/60/0/1/0"}, "not the path", id="unhardened account"),
    pytest.param(native(value=10**20), {"amount": str(10**20)}, "limit", id="above the limit"),
    pytest.param(native(max_fee_per_gas=10**12), {}, "above the signer's", id="fee too high"),
]  # fmt: skip


@pytest.mark.parametrize(("tx", "changes", "says"), LIES)
def test_bytes_that_are_not_the_approved_payment_are_refused(
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


def test_an_unknown_operator_cannot_approve(signer: Signer) -> None:
    tx = native()
    meant = intent(tx)

    assert ask(signer, tx, meant, approval(meant, "eve")) == (
        "eve is not an approver that the signer knows"
    )


def test_a_signature_of_somebody_else_is_refused(signer: Signer) -> None:
    tx = native()
    meant = intent(tx)
    forged = msgspec.structs.replace(approval(meant, "eve"), operator="ann")

    assert ask(signer, tx, meant, forged) == "the signature is not ann's, or not of this"


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


def test_one_signature_may_release_many_payouts(signer: Signer) -> None:
    tx = native()
    meant = intent(tx)
    other = ApprovalLine(
        payout_id=UUID(int=8),
        chain="evm",
        chain_id=31337,
        destination=STRANGER,
        asset="ETH",
        amount=1,
        initiator="zoe",
        policy_version=1,
        rule=1,
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
    other = msgspec.structs.replace(meant, payout_id=UUID(int=8))

    assert ask(signer, tx, other, approval(other, "ann")) == (
        f"nonce 3 of {SENDER} is signed for another payment"
    )


def test_a_payout_is_signed_at_one_nonce_only(signer: Signer) -> None:
    tx = native()
    meant = intent(tx)
    assert isinstance(ask(signer, tx, meant, approval(meant, "ann")), bytes)
    later = native(nonce=4)

    assert ask(signer, later, intent(later, nonce=4), approval(meant, "ann")) == (
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
    memory = Memory.open(tmp_path / "signed")

    again = with_fields(signer, memory=memory)

    assert ask(again, tx, meant, approval(meant, "ann")) == first
    other = msgspec.structs.replace(meant, payout_id=UUID(int=8))
    assert isinstance(ask(again, tx, other, approval(other, "ann")), str)
    memory.close()


def test_what_was_signed_is_on_disk_before_the_answer(signer: Signer) -> None:
    """3 is EXTRA: sqlite.org/pragma.html#pragma_synchronous."""
    database = signer.memory.database

    assert database.execute("PRAGMA synchronous").fetchone() == (3,)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_full_disk_costs_one_answer_and_no_signature(signer: Signer) -> None:
    database = signer.memory.database
    [pages] = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")

    def pay(nonce: int) -> str | bytes:
        tx = native(nonce=nonce)
        meant = intent(tx, nonce=nonce, payout_id=UUID(int=nonce + 100))
        return ask(signer, tx, meant, approval(meant, "ann"))

    def pay_until_it_is_full() -> None:
        for nonce in range(200):
            assert isinstance(pay(nonce), bytes)

    with pytest.raises(sqlite3.OperationalError, match="full"):
        pay_until_it_is_full()

    signed = signer.memory.count()
    database.execute(f"PRAGMA max_page_count = {pages + 100}")
    assert isinstance(pay(500), bytes)
    assert signer.memory.count() == signed + 1


def test_two_signers_cannot_use_one_store(tmp_path: Path, signer: Signer) -> None:
    with pytest.raises(SignerRefused, match="store cannot be used"):
        Memory.open(tmp_path / "signed")


def test_the_public_key_of_an_account_is_given_and_nothing_above_or_below(signer: Signer) -> None:
    assert signer.answer(AskXpub("m/44'/60'/0'")) == Xpub(ROOT.derive("m/44'/60'/0'").xpub())
    for path in ("m", "m/44'/60'", "m/44'/60'/0", "m/44'/60'/0'/0"):
        assert isinstance(signer.answer(AskXpub(path)), No)
