"""The pure decisions: nonces, policies, allocation, and what a block did."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.evm.transactions import decode_erc20_transfer
from chain.model import TOP, FeeQuote, Movement
from custody.nonces import choose_nonce
from custody.payout_allocation import (
    Allocation,
    BooksView,
    ChainView,
    Waiting,
    build_transaction,
    bumped,
    gas_limit,
    plan_allocation,
)
from custody.payout_approvals import ApprovalLine, approval_bytes, from_document, to_document
from custody.payout_matching import did_pay
from custody.payout_model import (
    Claim,
    ClaimKind,
    NonceState,
    Payout,
    PayoutState,
)
from custody.signer.store import is_bump
from kernel.errors import BadInput

AT = datetime(2026, 1, 5, tzinfo=UTC)
TOKEN = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
PAYEE = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
OTHER = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
HOT = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
LIVE, SPENT, FREE = NonceState.LIVE, NonceState.SPENT, NonceState.RELEASED


def payout(**changes: Any) -> Payout:
    base = Payout(
        id=UUID(int=1),
        book=1,
        client_ref="w-1",
        claim="client:acme",
        rail="evm",
        chain="evm",
        chain_id=31337,
        source_wallet="client-pool",
        sender=HOT,
        sender_path="m/44'/60'/0'/1/0",
        asset="ETH",
        amount=100,
        contract=None,
        chain_amount=100,
        native_asset="ETH",
        destination=PAYEE,
        requested_by="dan",
        reason="",
        policy_version=1,
        approvals_required=1,
        state=PayoutState.APPROVED,
        hold_epoch=0,
        attempt=0,
        nonce=None,
        fee_cap=0,
        fee_paid=None,
        succeeded=None,
        tx_hash=None,
        mined_height=None,
        mined_block=None,
        waiting_for="",
        run_after=AT,
        created_at=AT,
        expires_at=None,
        fence=1,
    )
    return replace(base, **changes)


@pytest.mark.parametrize(
    ("on_chain", "first", "rows", "expected"),
    [
        pytest.param(0, 0, {}, 0, id="nothing was ever sent"),
        pytest.param(7, 0, {}, 7, id="the address was used before us"),
        pytest.param(7, 7, {7: LIVE, 8: LIVE}, 9, id="after the live ones"),
        pytest.param(7, 7, {7: LIVE, 8: FREE, 9: LIVE}, 8, id="a gap is filled first"),
        pytest.param(5, 7, {7: SPENT, 8: LIVE}, 9, id="a node that lags behind our first"),
        pytest.param(8, 7, {8: SPENT, 9: LIVE}, 10, id="a node that lags behind a mined one"),
        pytest.param(9, 7, {9: FREE}, 9, id="given back at the end"),
        pytest.param(12, 7, {}, 12, id="the chain is ahead of our rows"),
    ],
)
def test_the_next_nonce(
    on_chain: int, first: int, rows: dict[int, NonceState], expected: int
) -> None:
    assert choose_nonce(on_chain, first, rows) == expected


@given(
    on_chain=st.integers(0, 20),
    rows=st.dictionaries(st.integers(0, 30), st.sampled_from(NonceState), max_size=20),
)
def test_a_nonce_is_never_taken_twice_and_never_below_the_chain(
    on_chain: int, rows: dict[int, NonceState]
) -> None:
    first = min(rows, default=0)
    chosen = choose_nonce(on_chain, first, rows)

    assert chosen >= on_chain
    assert rows.get(chosen, FREE) is FREE
    gap = range(max(on_chain, first), chosen)
    assert all(rows.get(nonce) in {LIVE, SPENT} for nonce in gap)


@pytest.mark.parametrize(
    ("text", "kind", "account"),
    [
        ("client:acme", ClaimKind.CLIENT, "client:acme"),
        ("client:acme:held", ClaimKind.HELD, "client:acme:held"),
        ("payable:birch:netted", ClaimKind.PAYABLE, "payable:birch:netted"),
        ("own:house-hot", ClaimKind.OWN, None),
    ],
)
def test_claims_are_read(text: str, kind: ClaimKind, account: str | None) -> None:
    claim = Claim.parse(text)

    assert (claim.kind, claim.account) == (kind, account)


@pytest.mark.parametrize(
    "text", ["", "client:", "client:a:unapplied", "payable:a:open", "equity:capital"]
)
def test_what_is_no_claim_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="not a claim"):
        Claim.parse(text)


def line(**changes: Any) -> ApprovalLine:
    base = ApprovalLine(
        payout_id=UUID(int=1),
        chain="evm",
        chain_id=31337,
        wallet="client-pool",
        client="acme",
        destination=PAYEE,
        asset="ETH",
        amount=2**200,
        initiator="dan",
        policy_version=1,
        rule=1,
        expires_at=1,
    )
    return replace(base, **changes)


def test_an_approval_covers_its_lines_in_any_order_and_each_field_of_them() -> None:
    one, two = line(), line(payout_id=UUID(int=2))

    assert approval_bytes([one, two]) == approval_bytes([two, one])
    assert from_document(to_document(one)) == one
    for name in [field.name for field in fields(ApprovalLine)]:
        value = {"payout_id": UUID(int=3)}.get(
            name, 2 if isinstance(getattr(one, name), int) else "x"
        )
        assert approval_bytes([line(**{name: value})]) != approval_bytes([one])
    for bad in ([], [one, one], [line(payout_id=UUID(int=n)) for n in range(501)]):
        with pytest.raises(BadInput):
            approval_bytes(bad)


SEEN = ChainView(next_nonce=4, fees=FeeQuote(20, 2), gas=21_000, native=10**6, coins=10**6)
BOOKS = BooksView(
    first_nonce=0,
    nonces={},
    promised_coins=0,
    promised_gas=0,
    available={"ETH": 10**6, "USDT": 1_000},
)
FEE_CAP = 21_000 * 20


def test_an_allocation_is_a_plain_payment_at_the_next_nonce() -> None:
    planned = plan_allocation(payout(), SEEN, BOOKS)

    assert isinstance(planned, Allocation)
    assert (planned.nonce, planned.unsigned.recipient, planned.unsigned.value) == (4, PAYEE, 100)
    assert planned.unsigned.fee_max == FEE_CAP


def test_a_token_payment_calls_the_contract_with_a_margin_of_gas() -> None:
    tx = build_transaction(payout(contract=TOKEN), 1, FeeQuote(20, 2), gas_limit(50_000))

    assert (tx.recipient, tx.value, tx.gas_limit) == (TOKEN, 0, 60_000)
    call = decode_erc20_transfer(tx.data)
    assert (call.recipient, call.amount) == (PAYEE, 100)


USDT_PAYOUT = {"asset": "USDT", "contract": TOKEN}


@pytest.mark.parametrize(
    ("changes", "seen", "books", "says"),
    [
        pytest.param({}, {}, {"frozen": "why"}, "is frozen: why", id="frozen"),
        pytest.param({}, {"revert": "paused"}, {}, "would fail: paused", id="reverts"),
        pytest.param({}, {"fees": FeeQuote(10**13, 1)}, {}, "per gas", id="fees too high"),
        pytest.param({}, {"native": FEE_CAP + 99}, {}, "lacks ETH", id="no coins on the address"),
        pytest.param(
            {}, {"native": FEE_CAP + 101}, {"promised_gas": 2}, "lacks ETH", id="promised"
        ),
        pytest.param(USDT_PAYOUT, {"gas": 50_000, "coins": 99}, {}, "lacks USDT", id="no tokens"),
        pytest.param(
            USDT_PAYOUT,
            {"gas": 50_000, "coins": 101},
            {"promised_coins": 2},
            "lacks USDT",
            id="promised tokens",
        ),
        pytest.param(USDT_PAYOUT, {"gas": 50_000, "native": 1}, {}, "lacks ETH", id="no gas money"),
        pytest.param(
            {}, {}, {"available": {"ETH": FEE_CAP + 99}}, "has not", id="the books have less"
        ),
        pytest.param({}, {}, {"spare": {"ETH": FEE_CAP - 1}}, "covered", id="clients pay the fee"),
        pytest.param(
            {"claim": "own:house-hot"},
            {},
            {"spare": {"ETH": FEE_CAP + 99}, "leaves_clients": True},
            "covered",
            id="clients' coins to the house",
        ),
    ],
)
def test_a_payment_that_cannot_be_made_now_waits_and_says_why(
    changes: dict[str, Any], seen: dict[str, Any], books: dict[str, Any], says: str
) -> None:
    planned = plan_allocation(payout(**changes), replace(SEEN, **seen), replace(BOOKS, **books))

    assert isinstance(planned, Waiting)
    assert says in planned.reason


@given(max_fee=st.integers(0, 10**14), priority=st.integers(0, 10**13))
def test_a_replacement_satisfies_the_signers_rule(max_fee: int, priority: int) -> None:
    old = replace(
        build_transaction(payout(), 1, FeeQuote(10**14, 10**13), 21_000),
        max_fee_per_gas=max(max_fee, priority),
        max_priority_fee_per_gas=priority,
    )
    fees = bumped(old, FeeQuote(5, 1))

    assert is_bump(fees.max_fee_per_gas, old.max_fee_per_gas)
    assert is_bump(fees.max_priority_fee_per_gas, old.max_priority_fee_per_gas)
    assert fees.max_priority_fee_per_gas <= fees.max_fee_per_gas


def move(amount: int = 100, **changes: Any) -> Movement:
    base = Movement("0xaa", TOP, HOT, PAYEE, None, amount)
    return replace(base, **changes)


@pytest.mark.parametrize(
    ("movements", "paid"),
    [
        pytest.param([move()], True, id="exactly"),
        pytest.param([], False, id="nothing moved"),
        pytest.param([move(98), move(2, recipient=OTHER)], True, id="the token takes a part"),
        pytest.param([move(99)], None, id="less"),
        pytest.param([move(100, recipient=OTHER)], None, id="to somebody else"),
        pytest.param([move(), move(1, contract=TOKEN)], None, id="and something else"),
        pytest.param([move(sender=OTHER)], None, id="from another of our addresses"),
    ],
)
def test_a_block_paid_exactly_nothing_or_something_else(
    movements: list[Movement], *, paid: bool | None
) -> None:
    assert did_pay(payout(), movements) is paid
