"""Each proof holds on sound figures and fails, naming the difference, on others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import pytest

from kernel.money import Asset
from ledger.model import OpenHold, Side, TrialBalanceRow
from reporting import proofs
from reporting.model import Compared, ExpectedHold, Proof

ASSETS = {"ETH": Asset("ETH", 18), "USDT": Asset("USDT", 6)}
PAYOUT, DEPOSIT = UUID(int=7), UUID(int=8)
EXPECTED = ExpectedHold(PAYOUT, "payout", "ETH", 5)


def row(path: str, asset: str = "ETH", **columns: int) -> TrialBalanceRow:
    values = {"debits": 0, "credits": 0, "debits_pending": 0, "credits_pending": 0, **columns}
    return TrialBalanceRow(path=path, asset=asset, side=Side.DEBIT, owner="house", **values)


def hold(correlation: UUID | None = PAYOUT, **changes: Any) -> OpenHold:
    values: dict[str, Any] = {
        "id": UUID(int=1),
        "debit": "client:acme",
        "credit": "in-flight:evm",
        "asset": "ETH",
        "amount": 5,
        "purpose": "payout",
        "expires_at": None,
        "sequence": 1,
    }
    return OpenHold(correlation=correlation, **{**values, **changes})


def itemised(
    holds: Iterable[OpenHold], expected: Iterable[ExpectedHold], faults: Iterable[str] = ()
) -> Proof:
    return proofs.holds_itemised(list(holds), expected, list(faults))


def wallet(ledger: int, outside: int) -> Proof:
    compared = Compared("custody:pool", "USDT", ledger, outside, "block 9")
    return proofs.matches_outside("wallets", [compared], ASSETS, "balances")


def covered(held: int, owed: int) -> Proof:
    return proofs.client_money_covered({"USDT": (held, owed)}, ASSETS)


THREE = (hold(), hold(purpose="network-fee", amount=1), hold(DEPOSIT, purpose="deposit"))
THREE_EXPECTED = (
    ExpectedHold(DEPOSIT, "deposit", "ETH", 5),
    ExpectedHold(PAYOUT, "network-fee", "ETH", 1),
    EXPECTED,
)
BALANCED = (
    row("a", debits=5, credits_pending=2),
    row("b", credits=5, debits_pending=2),
)
SOUND = {
    "2 accounts in 1 assets sum to zero": proofs.zero_sum(BALANCED, []),
    "0 accounts in 0 assets": proofs.zero_sum([], []),
    "12 records recomputed": proofs.journal_verified([], 12),
    "open holds: 1 deposit, 1 network-fee, 1 payout": itemised(THREE, THREE_EXPECTED),
    "open holds: none": itemised([], []),
    "1 balances equal at block 9": wallet(5, 5),
    "2.5 held for 2 USDT owed": covered(2_500_000, 2_000_000),
    "nothing is owed to clients": covered(0, 0),
    "every event is delivered": proofs.outbox_drained(0),
}
BROKEN = {
    "ETH: posted off by 1, pending by 0": proofs.zero_sum(
        [row("a", debits=5), row("b", credits=4)], []
    ),
    "pending by 3": proofs.zero_sum([row("a", debits_pending=3)], []),
    "ETH: posted off by 5, pending by 0; USDT: posted off by -5": proofs.zero_sum(
        [row("a", debits=5), row("b", "USDT", credits=5)], []
    ),
    "balance of a": proofs.zero_sum([], ["balance of a"]),
    "record 3": proofs.journal_verified(["record 3"], 9),
    f"hold without a live row: payout 5 ETH of {PAYOUT}": itemised([hold()], []),
    f"live row without its hold: payout 5 ETH of {PAYOUT}": itemised([], [EXPECTED]),
    "hold without a live row: payout 5": itemised([hold(), hold()], [EXPECTED]),
    "live row without its hold: payout 4": itemised(
        [hold()], [ExpectedHold(PAYOUT, "payout", "ETH", 4)]
    ),
    "payout 5 ETH of None": itemised([hold(None)], [EXPECTED]),
    "hold 1": itemised([], [], ["hold 1"]),
    "custody:pool 1 USDT more in the books than outside": wallet(5_000_000, 4_000_000),
    "custody:pool -0.5 USDT more": wallet(0, 500_000),
    "0.5 USDT of clients' money is not covered": covered(2_000_000, 2_500_000),
    "2 events are not delivered": proofs.outbox_drained(2),
}


@pytest.mark.parametrize("says", SOUND)
def test_a_proof_holds_and_says_what_it_looked_at(says: str) -> None:
    assert SOUND[says].held
    assert says in SOUND[says].detail


@pytest.mark.parametrize("says", BROKEN)
def test_a_proof_fails_and_names_the_difference(says: str) -> None:
    assert not BROKEN[says].held
    assert says in BROKEN[says].detail


def test_many_differences_are_counted_and_some_are_shown() -> None:
    proof = proofs.journal_verified([f"record {n}" for n in range(9)], 9)

    assert proof.detail.endswith("; and 4 more")
    assert "record 4" in proof.detail
    assert "record 5" not in proof.detail
