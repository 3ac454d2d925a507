"""A signer that signs Bitcoin, and spends to ask it for: two coins, two payees, change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from chain.bitcoin.addresses import address_of, parse_address
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.psbt import Psbt, PsbtInput, create, encode_psbt
from chain.bitcoin.scripts import witness_key_hash_script, witness_script
from chain.bitcoin.transactions import Input, Outpoint, Output, Transaction
from custody.control_messages import (
    AssetRule,
    ControlKind,
    ControlMessage,
    DestinationAllowed,
    SpendDead,
    WalletPinned,
)
from custody.payout_approvals import approval_bytes
from custody.signer.approvals import line_of
from custody.signer.hd_keys import PrivateNode
from custody.signer.rules import Rules
from custody.signer.service import Signer
from custody.signer.spend_decision import payment_of
from custody.signer.testing import local_signer
from custody.signer.wire import (
    Accepted,
    AskSignSpend,
    Line,
    No,
    Signed,
    SignedApproval,
    SpendChange,
    SpendInput,
    SpendIntent,
    SpendLine,
)
from kernel.clock import ManualClock, to_unix_ms
from tests.custody.signer.vault import KEYS, PUBLIC, SEED, START, control, tell

CHAIN_ID = REGTEST.network_id
ROOT = PrivateNode.from_seed(SEED)
ACCOUNT = "m/84'/1'/0'"
OTHER = "m/84'/1'/1'"
COIN = f"{ACCOUNT}/0/0"
SECOND = f"{ACCOUNT}/1/3"
CHANGE = f"{ACCOUNT}/1/9"


def script(path: str) -> bytes:
    return witness_key_hash_script(ROOT.derive(path).public_key)


def address(path: str) -> str:
    found = address_of(script(path), REGTEST)
    assert found is not None
    return found


def foreign(number: int, version: int = 1) -> str:
    found = address_of(witness_script(version, bytes([number]) * 32), REGTEST)
    assert found is not None
    return found


PAYEE, SECOND_PAYEE, STRANGER = foreign(1), foreign(2, 0), foreign(3)

RULES = Rules(
    version=1,
    chains={"btc": CHAIN_ID, "evm": 31337},
    operators={name: PUBLIC[name] for name in ("ann", "bob", "cat", "robot")},
    services=["robot"],
    fee_cap_max=str(10**16),
    fee_caps={"btc": "50000"},
    assets=[
        AssetRule(
            chain_id=CHAIN_ID,
            asset="BTC",
            contract=None,
            amount_max="1000000",
            approvals=1,
            auto_max="300000",
            auto_window_max="400000",
        ),
        AssetRule(chain_id=31337, asset="ETH", contract=None, amount_max="9", approvals=1),
    ],
    wallets=[
        WalletPinned(version=1, wallet="pool", chain="btc", account_path=ACCOUNT),
        WalletPinned(version=1, wallet="house", chain="btc", account_path=OTHER),
    ],
)


def rules(**changes: Any) -> Rules:
    """The rules with other fields, or with other fields of the first asset (``asset_…``)."""
    asset = {key[6:]: value for key, value in changes.items() if key.startswith("asset_")}
    others = {key: value for key, value in changes.items() if not key.startswith("asset_")}
    first, *rest = RULES.assets
    assets = [msgspec.structs.replace(first, **asset), *rest]
    return msgspec.structs.replace(RULES, **{"assets": assets, **others})


@contextmanager
def open_purse(
    folder: Path, using: Rules = RULES, clock: ManualClock | None = None
) -> Iterator[Signer]:
    """Open the signer whose store is in *folder*, told of the payees of acme and birch."""
    with local_signer(folder, using, seed=SEED, clock=clock or ManualClock(START)) as local:
        for number, (party, place) in enumerate((("acme", PAYEE), ("birch", SECOND_PAYEE)), 1):
            assert isinstance(tell(local.signer, allowed(party, number, place)), Accepted)
        yield local.signer


def allowed(party: str, number: int, place: str, **changes: Any) -> ControlMessage:
    values: dict[str, Any] = {
        "id": UUID(int=number),
        "party": party,
        "chain": "btc",
        "chain_id": CHAIN_ID,
        "address": place,
        "kind": "eoa",
        "cooling_off_s": 0,
        "proposed_at": "2026-01-05T08:00:00.000Z",
    }
    body = DestinationAllowed(**{**values, **changes})
    return control(ControlKind.DESTINATION_ALLOW, body, "ann", "bob")


def line(number: int = 1, **changes: Any) -> SpendLine:
    values: dict[str, Any] = {
        "payout_id": UUID(int=100 + number),
        "kind": "pay",
        "client": "acme",
        "destination": PAYEE,
        "destination_path": None,
        "asset": "BTC",
        "amount": 200_000,
        "initiator": "zoe",
        "policy_version": 1,
        "rule": 1,
    }
    return SpendLine(**{**values, **changes})


def second(**changes: Any) -> SpendLine:
    values = {"client": "birch", "destination": SECOND_PAYEE, "amount": 100_000}
    return line(2, **{**values, **changes})


def own(path: str = f"{OTHER}/1/0", **changes: Any) -> SpendLine:
    values = {
        "kind": "own",
        "client": None,
        "destination": address(path),
        "destination_path": path,
    }
    return line(3, **{**values, **changes})


def coin(number: int, amount: int, path: str) -> SpendInput:
    return SpendInput(tx_id=f"{number:064x}", index=number, amount=amount, key_path=path)


FIRST_COIN, SECOND_COIN = coin(1, 250_000, COIN), coin(2, 150_000, SECOND)


def spend(**changes: Any) -> SpendIntent:
    """Two coins of 400,000 pay two clients 300,000, for a fee of 1,000."""
    values: dict[str, Any] = {
        "spend_id": UUID(int=7),
        "chain": "btc",
        "chain_id": CHAIN_ID,
        "wallet": "pool",
        "kind": "pay",
        "lines": [line(), second()],
        "inputs": [FIRST_COIN, SECOND_COIN],
        "fee": 1_000,
        "fee_cap": 20_000,
        "anchor": f"{FIRST_COIN.tx_id}:{FIRST_COIN.index}",
    }
    values |= changes
    if "change" not in changes:
        paid = sum(item.amount for item in values["lines"]) + values["fee"]
        left = sum(item.amount for item in values["inputs"]) - paid
        values["change"] = SpendChange(amount=left, key_path=CHANGE)
    return SpendIntent(**values)


def bumped(fee: int, **changes: Any) -> SpendIntent:
    return spend(fee=fee, **changes)


def cancel(fee: int = 5_000, **changes: Any) -> SpendIntent:
    return spend(kind="cancel", lines=[], fee=fee, **changes)


def outputs_of(meant: SpendIntent) -> list[Output]:
    outputs = [
        Output(item.amount, parse_address(item.destination, REGTEST)) for item in meant.lines
    ]
    if meant.change is not None:
        outputs.append(Output(meant.change.amount, script(meant.change.key_path)))
    return outputs


def psbt_of(meant: SpendIntent, **changes: Any) -> Psbt:
    """What *meant* would be as a transaction; *changes* are of the transaction."""
    inputs = tuple(Input(Outpoint(item.tx_id, item.index)) for item in meant.inputs)
    built = replace(Transaction(inputs, tuple(outputs_of(meant))), **changes)
    known = [
        PsbtInput(witness_utxo=Output(item.amount, script(item.key_path))) for item in meant.inputs
    ]
    known += [known[-1]] * (len(built.inputs) - len(known))
    return create(built, known[: len(built.inputs)])


def approvals_of(meant: SpendIntent, *who: str) -> list[SignedApproval]:
    """One signature of each of *who* over all the lines."""
    ends = to_unix_ms(START) + 86_400_000
    lines = [line_of(payment_of(meant, item, item.asset), expires_at=ends) for item in meant.lines]
    return [
        SignedApproval(
            operator=name,
            signature=KEYS[name].sign(approval_bytes(lines)),
            lines=[Line.of(item) for item in lines],
        )
        for name in who
        if lines
    ]


def ask_fully(
    signer: Signer,
    meant: SpendIntent,
    *who: str,
    psbt: Psbt | None = None,
    by: list[SignedApproval] | None = None,
) -> Signed | No:
    built = encode_psbt(psbt or psbt_of(meant))
    approvals = approvals_of(meant, *(who or ("ann",))) if by is None else by
    answer = signer.answer(AskSignSpend(meant, built, approvals))
    assert isinstance(answer, Signed | No)
    return answer


def ask(signer: Signer, meant: SpendIntent, *who: str, **more: Any) -> bytes | str:
    """The signed bytes, or what the signer says no with."""
    answer = ask_fully(signer, meant, *who, **more)
    return answer.raw if isinstance(answer, Signed) else answer.what


def dead(meant: SpendIntent, spent_by: str = "ee" * 32, *by: str) -> ControlMessage:
    body = SpendDead(
        spend_id=meant.spend_id, chain_id=CHAIN_ID, anchor=meant.anchor, spent_by=spent_by
    )
    return control(ControlKind.SPEND_DEAD, body, *(by or ("ann", "bob")))
