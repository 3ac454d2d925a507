"""TestDollar on the simulator's EVM: what it allows, refuses and announces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from chain.simulators.evm.model import Call, EvmSimulatorSettings, Receipt
from chain.simulators.evm.node import Node
from chain.simulators.evm.transactions import TransactionRequest, sign_request
from chain.simulators.testing import TRANSFER_TOPIC, encode_call, token_creation

SUPPLY = 10**12
GWEI = 10**9
UNLIMITED = 2**256 - 1
NOBODY = bytes(20)


class Token:
    """A deployed TestDollar and three people who use it."""

    def __init__(self) -> None:
        self.node = Node(EvmSimulatorSettings(timestamp=1_700_000_000, accounts=3))
        self.owner, self.bob, self.carol = (account.address for account in self.node.accounts)
        receipt = self.send(0, b"", token_creation(SUPPLY))
        assert receipt.contract_address is not None
        self.address = receipt.contract_address

    def send(self, sender: int, to: bytes, data: bytes) -> Receipt:
        account = self.node.accounts[sender]
        request = TransactionRequest(
            nonce=self.node.next_nonce(account.address),
            gas=3_000_000,
            to=to,
            value=0,
            data=data,
            max_fee_per_gas=10 * GWEI,
            max_priority_fee_per_gas=GWEI,
        )
        transaction = sign_request(request, account.key, chain_id=self.node.chain_id)
        self.node.send(transaction)
        found = self.node.find_receipt(transaction.hash)
        assert found is not None
        return found[1]

    def do(self, sender: int, signature: str, *values: Any) -> Receipt:
        return self.send(sender, self.address, encode_call(signature, *values))

    def read(self, signature: str, *values: Any) -> int:
        call = Call(sender=NOBODY, to=self.address, data=encode_call(signature, *values))
        return int.from_bytes(self.node.call(call, self.node.head).output, "big")

    def refusal(self, sender: int, signature: str, *values: Any) -> bytes:
        account = self.node.accounts[sender].address
        call = Call(sender=account, to=self.address, data=encode_call(signature, *values))
        outcome = self.node.call(call, self.node.head)
        assert outcome.revert_data is not None
        assert self.do(sender, signature, *values).status == 0
        return outcome.revert_data

    def balances(self) -> list[int]:
        people = (self.owner, self.bob, self.carol)
        return [self.read("balanceOf(address)", one) for one in people]


@pytest.fixture(scope="module")
def fresh() -> Token:
    return Token()


@pytest.fixture
def token(fresh: Token) -> Iterator[Token]:
    snapshot = fresh.node.snapshot()
    yield fresh
    assert fresh.node.revert(snapshot)


def test_the_deployer_receives_the_supply_and_a_transfer_event_says_so(token: Token) -> None:
    (log,) = token.node.head.receipts[0].logs

    assert token.balances() == [SUPPLY, 0, 0]
    assert token.read("totalSupply()") == SUPPLY
    assert token.read("decimals()") == 6
    assert "0x" + log.topics[0].hex() == TRANSFER_TOPIC
    assert int.from_bytes(log.data, "big") == SUPPLY


def test_a_transfer_moves_units_and_answers_true(token: Token) -> None:
    assert token.read("transfer(address,uint256)", token.bob, 0) == 1
    receipt = token.do(0, "transfer(address,uint256)", token.bob, 7)

    assert receipt.status == 1
    assert token.balances() == [SUPPLY - 7, 7, 0]
    assert token.read("totalSupply()") == SUPPLY


def test_more_than_the_balance_is_refused(token: Token) -> None:
    error = token.refusal(1, "transfer(address,uint256)", token.carol, 1)

    assert error == encode_call("BalanceTooLow(address,uint256,uint256)", token.bob, 0, 1)


@pytest.mark.parametrize(
    ("signature", "values"),
    [
        ("transfer(address,uint256)", (NOBODY, 1)),
        ("approve(address,uint256)", (NOBODY, 1)),
        ("mint(address,uint256)", (NOBODY, 1)),
    ],
)
def test_the_zero_address_is_refused(token: Token, signature: str, values: tuple[Any, ...]) -> None:
    assert token.refusal(0, signature, *values) == encode_call("ZeroAddress()")


def test_an_allowance_is_spent_and_not_overspent(token: Token) -> None:
    token.do(0, "approve(address,uint256)", token.bob, 10)
    token.do(1, "transferFrom(address,address,uint256)", token.owner, token.carol, 6)

    assert token.balances() == [SUPPLY - 6, 0, 6]
    assert token.read("allowance(address,address)", token.owner, token.bob) == 4
    error = token.refusal(1, "transferFrom(address,address,uint256)", token.owner, token.carol, 5)
    assert error == encode_call("AllowanceTooLow(address,uint256,uint256)", token.bob, 4, 5)


def test_an_unlimited_allowance_stays(token: Token) -> None:
    token.do(0, "approve(address,uint256)", token.bob, UNLIMITED)
    token.do(1, "transferFrom(address,address,uint256)", token.owner, token.carol, 6)

    assert token.read("allowance(address,address)", token.owner, token.bob) == UNLIMITED


def test_only_the_owner_mints(token: Token) -> None:
    token.do(0, "mint(address,uint256)", token.carol, 5)

    assert token.balances() == [SUPPLY, 0, 5]
    assert token.read("totalSupply()") == SUPPLY + 5
    error = token.refusal(1, "mint(address,uint256)", token.bob, 5)
    assert error == encode_call("NotOwner(address)", token.bob)


def test_the_supply_cannot_overflow(token: Token) -> None:
    arithmetic_panic = encode_call("Panic(uint256)", 0x11)

    assert token.refusal(0, "mint(address,uint256)", token.bob, UNLIMITED) == arithmetic_panic
