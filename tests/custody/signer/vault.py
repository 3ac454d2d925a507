"""A signer for its own tests: three people, a service, two destinations, and what to ask it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chain.evm.addresses import address_of_public_key
from chain.evm.transactions import UnsignedTransaction, encode_unsigned, erc20_transfer_data
from custody.control_messages import (
    AssetRule,
    Body,
    ControlKind,
    ControlMessage,
    DestinationAllowed,
    Frozen,
    LimitsInForce,
    OperatorsInForce,
    ScopeKind,
    Thawed,
    WalletPinned,
    control_bytes,
    message_of,
)
from custody.payout_approvals import ApprovalLine, approval_bytes
from custody.signer.approvals import line_of
from custody.signer.hd_keys import PrivateNode
from custody.signer.rules import Rules
from custody.signer.service import Signer
from custody.signer.testing import local_signer
from custody.signer.wire import (
    Accepted,
    AskControl,
    AskSign,
    AskSignMany,
    Intent,
    Line,
    No,
    Signed,
    SignedApproval,
    SignedMany,
    SignRequest,
)
from kernel.clock import ManualClock, SystemClock, to_unix_ms

SEED = bytes(range(32))
ROOT = PrivateNode.from_seed(SEED)
PATH = "m/44'/60'/0'/1/0"
OTHER_PATH = "m/44'/60'/1'/1/0"
SENDER = address_of_public_key(ROOT.derive(PATH).uncompressed_key)
OWN = address_of_public_key(ROOT.derive(OTHER_PATH).uncompressed_key)
TOKEN = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
PAYEE = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
STRANGER = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
PAYOUT = UUID(int=7)
CHAIN_ID = 31337
GWEI = 10**9
ETH = 10**18
START = datetime.fromisoformat("2026-01-05T09:00:00+00:00")
LAPSES = to_unix_ms(START + timedelta(days=7))
KEYS = {
    name: Ed25519PrivateKey.from_private_bytes(name[:1].encode() * 32)
    for name in ("ann", "bob", "cat", "robot", "eve")
}
PUBLIC = {name: key.public_key().public_bytes_raw().hex() for name, key in KEYS.items()}

RULES = Rules(
    version=1,
    chains={"evm": CHAIN_ID},
    operators={name: PUBLIC[name] for name in ("ann", "bob", "cat", "robot")},
    services=["robot"],
    groups={"treasury": ["cat"]},
    fee_cap_max=str(10**16),
    assets=[
        AssetRule(
            chain_id=CHAIN_ID,
            asset="ETH",
            contract=None,
            amount_max=str(10 * ETH),
            approvals=1,
            auto_max=str(2 * ETH),
            auto_window_max=str(3 * ETH),
        ),
        AssetRule(
            chain_id=CHAIN_ID, asset="USDT", contract=TOKEN, amount_max=str(10**9), approvals=2
        ),
    ],
    wallets=[
        WalletPinned(version=1, wallet="client-pool", chain="evm", account_path="m/44'/60'/0'"),
        WalletPinned(version=1, wallet="house-hot", chain="evm", account_path="m/44'/60'/1'"),
    ],
)


def rules(**changes: Any) -> Rules:
    """The rules with other fields, or with other fields of the first asset (``asset_…``)."""
    asset = {key[6:]: value for key, value in changes.items() if key.startswith("asset_")}
    others = {key: value for key, value in changes.items() if not key.startswith("asset_")}
    if asset:
        first, *rest = RULES.assets
        others["assets"] = [msgspec.structs.replace(first, **asset), *rest]
    return msgspec.structs.replace(RULES, **others)


@contextmanager
def open_signer(
    folder: Path, using: Rules = RULES, clock: ManualClock | None = None, *, told: bool = True
) -> Iterator[Signer]:
    """Open the signer whose store is in *folder*; *told* of the destinations of acme and birch."""
    with local_signer(folder, using, seed=SEED, clock=clock or ManualClock(START)) as local:
        if told:
            for number, party in enumerate(("acme", "birch")):
                assert isinstance(tell(local.signer, allowed(party, number + 1)), Accepted)
        yield local.signer


def native(**changes: Any) -> UnsignedTransaction:
    tx = UnsignedTransaction(
        chain_id=CHAIN_ID,
        nonce=3,
        max_priority_fee_per_gas=GWEI,
        max_fee_per_gas=8 * GWEI,
        gas_limit=60_000,
        recipient=PAYEE,
        value=ETH,
    )
    return replace(tx, **changes)


def token(**changes: Any) -> UnsignedTransaction:
    values = {"recipient": TOKEN, "value": 0, "data": erc20_transfer_data(PAYEE, 5_000)}
    return native(**{**values, **changes})


def cancel(**changes: Any) -> UnsignedTransaction:
    """A transaction that sends nothing from the sender to the sender, at the fees of a bump."""
    values = {
        "recipient": SENDER,
        "value": 0,
        "gas_limit": 21_000,
        "max_fee_per_gas": 9 * GWEI,
        "max_priority_fee_per_gas": 2 * GWEI,
    }
    return native(**{**values, **changes})


def intent(tx: UnsignedTransaction, **changes: Any) -> Intent:
    """What *tx* would be meant to do, as `native`, `token` and `cancel` make it."""
    is_token = bool(tx.data)
    values: dict[str, Any] = {
        "payout_id": PAYOUT,
        "kind": "pay",
        "wallet": "client-pool",
        "client": "acme",
        "destination_path": None,
        "chain": "evm",
        "chain_id": CHAIN_ID,
        "key_path": PATH,
        "sender": SENDER,
        "nonce": tx.nonce,
        "destination": PAYEE,
        "asset": "USDT" if is_token else "ETH",
        "contract": TOKEN if is_token else None,
        "amount": "5000" if is_token else str(tx.value),
        "fee_cap": str(tx.fee_max),
        "initiator": "zoe",
        "policy_version": 1,
        "rule": 1,
    }
    if tx.recipient == SENDER and not tx.value:
        values |= {"kind": "cancel", "client": None, "destination": SENDER}
    if tx.recipient == OWN:
        values |= {
            "kind": "own",
            "client": None,
            "destination": OWN,
            "destination_path": OTHER_PATH,
        }
    return Intent(**{**values, **changes})


def approval(meant: Intent, who: str, *others: ApprovalLine, **changes: Any) -> SignedApproval:
    lines = [replace(line_of(meant, expires_at=LAPSES), **changes), *others]
    return SignedApproval(
        operator=who,
        signature=KEYS[who].sign(approval_bytes(lines)),
        lines=[Line.of(item) for item in lines],
    )


def approval_now(meant: Intent, who: str) -> SignedApproval:
    """An approval for a signer that goes by the machine's clock."""
    ends = to_unix_ms(SystemClock().now() + timedelta(hours=1))
    return approval(meant, who, expires_at=ends)


def ask_fully(
    signer: Signer, tx: UnsignedTransaction, meant: Intent, *approvals: SignedApproval
) -> Signed | No:
    answer = signer.answer(AskSign(meant, encode_unsigned(tx), list(approvals)))
    assert isinstance(answer, Signed | No)
    return answer


def ask(
    signer: Signer, tx: UnsignedTransaction, meant: Intent, *approvals: SignedApproval
) -> bytes | str:
    answer = ask_fully(signer, tx, meant, *approvals)
    return answer.raw if isinstance(answer, Signed) else answer.what


def ask_many(
    signer: Signer,
    payments: Sequence[tuple[UnsignedTransaction, Intent]],
    approvals: Sequence[SignedApproval],
) -> list[Signed | No]:
    requests = [SignRequest(meant, encode_unsigned(tx)) for tx, meant in payments]
    answer = signer.answer(AskSignMany(requests, list(approvals)))
    assert isinstance(answer, SignedMany), answer
    return answer.answers


def pay(signer: Signer, number: int, *by: str, **changes: Any) -> bytes | str:
    """Pay one ether, or *value*, as payout *number* at nonce *number*."""
    tx = native(nonce=number, **changes)
    meant = intent(tx, payout_id=UUID(int=1_000 + number))
    return ask(signer, tx, meant, *(approval(meant, who) for who in by or ("ann",)))


def control(kind: ControlKind, body: Body, *by: str) -> ControlMessage:
    """A control message signed by these people."""
    payload = control_bytes(kind, body.plain())
    return message_of(kind, body, {who: KEYS[who].sign(payload) for who in by})


def tell(signer: Signer, message: ControlMessage) -> Accepted | No:
    answer = signer.answer(AskControl(message))
    assert isinstance(answer, Accepted | No)
    return answer


def told(signer: Signer, message: ControlMessage) -> str:
    """What the signer says no with; "" if it takes the message."""
    answer = tell(signer, message)
    return answer.what if isinstance(answer, No) else ""


def allowed(party: str, number: int, *by: str, **changes: Any) -> ControlMessage:
    values: dict[str, Any] = {
        "id": UUID(int=number),
        "party": party,
        "chain": "evm",
        "chain_id": CHAIN_ID,
        "address": PAYEE,
        "kind": "eoa",
        "cooling_off_s": 0,
        "proposed_at": "2026-01-05T08:00:00.000Z",
    }
    body = DestinationAllowed(**{**values, **changes})
    return control(ControlKind.DESTINATION_ALLOW, body, *(by or ("ann", "bob")))


def closed(number: int, scope: ScopeKind, name: str, *by: str) -> ControlMessage:
    body = Frozen(id=UUID(int=number), scope=scope, name=name, reason="test")
    return control(ControlKind.FREEZE, body, *(by or ("cat",)))


def opened(number: int, *by: str) -> ControlMessage:
    body = Thawed(id=UUID(int=number), reason="test")
    return control(ControlKind.THAW, body, *(by or ("ann", "bob")))


def limits(version: int = 2, using: Rules = RULES, **changes: Any) -> LimitsInForce:
    return msgspec.structs.replace(using.limits_in_force(), version=version, **changes)


def operators(version: int = 2, **changes: Any) -> OperatorsInForce:
    return msgspec.structs.replace(RULES.operators_in_force(), version=version, **changes)


def later(clock: ManualClock, seconds: float) -> None:
    clock.advance(timedelta(seconds=seconds))
