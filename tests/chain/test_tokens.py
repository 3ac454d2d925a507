"""Tokens that misbehave, on real nodes: what becomes of each is decided, and nothing is guessed.

The table is the one of `docs/tokens.md`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from eth_abi.abi import encode as abi_encode

from chain.contracts.artefact import load_artefact
from chain.errors import UnreadableAnswer
from chain.evm.addresses import address_from_node
from chain.model import BlockContents, Movement, WatchList
from chain.received import balance_delta, received, share
from chain.simulators.testing import dev_account, encode_call, hash_of, sign_transaction
from chain.tokens import differences, read_token
from tests.chain.conftest import NodeStage

OWNER, ANN, CAROL, STRANGER = (dev_account(index) for index in (2, 0, 5, 6))
SUPPLY: Final = 10**30
GAS: Final = 3_000_000
(
    PLAIN,
    RETURNS_NOTHING,
    RETURNS_FALSE,
    EMITS_UNINDEXED,
    EMITS_NFT,
    REVERTS_ON_ZERO,
    TELLS_SENT,
) = range(7)


@dataclass
class Sender:
    """Sends from OWNER, one nonce after the other."""

    evm: NodeStage
    nonce: int = 0

    async def deploy(self, name: str, types: list[str], *values: Any) -> str:
        data = load_artefact(name).bytecode + abi_encode(types, values)
        receipt = await self.send(None, data)
        return address_from_node(receipt["contractAddress"])

    async def call(self, to: str, signature: str, *values: Any, value: int = 0) -> dict[str, Any]:
        return await self.send(to, encode_call(signature, *values), value=value)

    async def send(self, to: str | None, data: bytes, *, value: int = 0) -> dict[str, Any]:
        raw = sign_transaction(OWNER, self.nonce, to=to, data=data, gas=GAS, value=value)
        self.nonce += 1
        await self.evm.rpc.call("eth_sendRawTransaction", raw)
        await self.evm.mine()
        return await self.evm.rpc.wait_receipt(hash_of(raw))

    async def token(self, *, decimals: int = 6, bytes32: bool = False) -> str:
        types = ["uint8", "uint256", "bool"]
        return await self.deploy("OddToken", types, decimals, SUPPLY, bytes32)

    async def contents(self, *contracts: str) -> BlockContents:
        watch = WatchList(frozenset({CAROL.address}), frozenset(contracts))
        return await self.evm.gateway.contents(await self.evm.gateway.head(), watch)


@pytest.fixture
async def sender(evm: NodeStage) -> Sender:
    return Sender(evm)


async def arrived(sender: Sender, contents: BlockContents) -> list[int]:
    """Return what the balance says arrived of each movement to us; all are of one token."""
    if not contents.movements:
        return []
    claims = [movement.amount for movement in contents.movements]
    (contract,) = {movement.contract for movement in contents.movements}
    return await received(sender.evm.gateway, CAROL.address, contract, claims, block=contents.block)


Setting = tuple[str, tuple[Any, ...]]


def behave(number: int) -> Setting:
    return "setBehaviour(uint8)", (number,)


@dataclass(frozen=True)
class Case:
    """How a token is set, and what 1,000 units sent to us become."""

    name: str
    settings: tuple[Setting, ...]
    succeeded: bool
    seen: int | None
    received: int


FEE: Final = ("setFee(uint256)", (1_000,))
CASES: Final = (
    Case("behaves as it should", (), True, 1_000, 1_000),
    Case("returns nothing", (behave(RETURNS_NOTHING),), True, 1_000, 1_000),
    Case("returns false without reverting", (behave(RETURNS_FALSE),), True, None, 0),
    Case("takes a fee and says so", (FEE,), True, 900, 900),
    Case("takes a fee and tells what was sent", (FEE, behave(TELLS_SENT)), True, 1_000, 900),
    Case("indexes nothing in its event", (behave(EMITS_UNINDEXED),), True, None, 1_000),
    Case("has the event of an NFT", (behave(EMITS_NFT),), True, None, 1_000),
    Case("is paused", (("setPaused(bool)", (True,)),), False, None, 0),
    Case(
        "blocks the sender",
        (("setBlocked(address,bool)", (OWNER.address, True)),),
        False,
        None,
        0,
    ),
    Case(
        "blocks the recipient",
        (("setBlocked(address,bool)", (CAROL.address, True)),),
        False,
        None,
        0,
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_what_is_seen_is_the_event_and_what_is_received_is_the_balance(
    sender: Sender, case: Case
) -> None:
    token = await sender.token()
    for signature, values in case.settings:
        await sender.call(token, signature, *values)

    receipt = await sender.call(token, "transfer(address,uint256)", CAROL.address, 1_000)
    contents = await sender.contents(token)

    assert int(receipt["status"], 16) == case.succeeded
    assert [m.amount for m in contents.movements] == ([] if case.seen is None else [case.seen])
    delta = await balance_delta(sender.evm.gateway, CAROL.address, token, block=contents.block)
    assert delta == case.received
    for movement in contents.movements:
        assert movement.contract == token
        assert (movement.sender, movement.recipient) == (OWNER.address, CAROL.address)
    assert sum(await arrived(sender, contents)) == (0 if case.seen is None else case.received)


async def test_a_false_return_without_revert_is_no_deposit(sender: Sender) -> None:
    # Failure 2 of the catalogue: status 1, call data that names us, and nothing moved.
    token = await sender.token()
    await sender.call(token, "setBehaviour(uint8)", RETURNS_FALSE)

    receipt = await sender.call(token, "transfer(address,uint256)", CAROL.address, 1_000)

    assert int(receipt["status"], 16) == 1
    assert (await sender.contents(token)).movements == ()


async def test_the_same_token_under_another_address_is_told_by_its_contract(sender: Sender) -> None:
    # Failure 3: the same code, name and symbol; only the registered contract is money.
    registered, fake = await sender.token(), await sender.token()

    await sender.call(fake, "transfer(address,uint256)", CAROL.address, 1_000)
    (movement,) = (await sender.contents(registered)).movements
    assert movement.contract == fake != registered

    # Also beside an honest one, where the receipts of the block are read.
    for token, amount in ((registered, 7), (fake, 1_000)):
        data = encode_call("transfer(address,uint256)", CAROL.address, amount)
        raw = sign_transaction(OWNER, sender.nonce, to=token, data=data, gas=GAS)
        await sender.evm.rpc.call("eth_sendRawTransaction", raw)
        sender.nonce += 1
    await sender.evm.mine()
    assert [(m.contract, m.amount) for m in (await sender.contents(registered)).movements] == [
        (registered, 7),
        (fake, 1_000),
    ]


async def test_a_forged_event_brings_nothing(sender: Sender) -> None:
    token = await sender.token()

    await sender.call(
        token, "forge(address,address,uint256)", STRANGER.address, CAROL.address, 1_000
    )
    contents = await sender.contents(token)

    (movement,) = contents.movements
    assert (movement.sender, movement.amount) == (STRANGER.address, 1_000)
    assert await arrived(sender, contents) == [0]


async def test_a_forged_event_does_not_spoil_an_honest_one_nor_hide_behind_it(
    sender: Sender,
) -> None:
    token = await sender.token()
    honest = sign_transaction(
        OWNER,
        sender.nonce,
        to=token,
        data=encode_call("transfer(address,uint256)", CAROL.address, 1_000),
        gas=GAS,
    )
    forged = sign_transaction(
        ANN,
        0,
        to=token,
        data=encode_call("forge(address,address,uint256)", STRANGER.address, CAROL.address, 500),
        gas=GAS,
    )
    for raw in (honest, forged):
        await sender.evm.rpc.call("eth_sendRawTransaction", raw)
    await sender.evm.mine()
    contents = await sender.contents(token)

    # Together they brought what the balance says, the first one first.
    claims = [movement.amount for movement in contents.movements]
    assert sorted(claims) == [500, 1_000]
    assert await arrived(sender, contents) == share(claims, 1_000)


async def test_a_rebase_moves_a_balance_without_a_movement(sender: Sender) -> None:
    token = await sender.token()
    await sender.call(token, "transfer(address,uint256)", CAROL.address, 1_000)

    await sender.call(token, "rebase(uint256)", 2 * 10**18)
    contents = await sender.contents(token)

    assert contents.movements == ()
    gateway = sender.evm.gateway
    assert await balance_delta(gateway, CAROL.address, token, block=contents.block) == 1_000


async def test_an_amount_beyond_all_supply_is_carried_exactly(sender: Sender) -> None:
    # Failure 15: an overflow mint must arrive as the number it is, so that its bound can refuse it.
    token, amount = await sender.token(), 2**256 - 1

    await sender.call(
        token, "forge(address,address,uint256)", STRANGER.address, CAROL.address, amount
    )

    assert [m.amount for m in (await sender.contents(token)).movements] == [amount]


async def test_a_transfer_of_nothing_is_no_movement_and_may_revert(sender: Sender) -> None:
    token = await sender.token()
    await sender.call(token, "transfer(address,uint256)", CAROL.address, 0)
    assert (await sender.contents(token)).movements == ()

    await sender.call(token, "setBehaviour(uint8)", REVERTS_ON_ZERO)
    receipt = await sender.call(token, "transfer(address,uint256)", CAROL.address, 0)

    assert int(receipt["status"], 16) == 0


@pytest.mark.parametrize("decimals", [0, 2, 24])
async def test_decimals_change_no_amount(sender: Sender, decimals: int) -> None:
    # Failure 16: amounts are smallest units everywhere; decimals are read to be compared, not used.
    token = await sender.token(decimals=decimals)
    amount = 3 * 10**decimals

    await sender.call(token, "transfer(address,uint256)", CAROL.address, amount)

    assert [m.amount for m in (await sender.contents(token)).movements] == [amount]
    assert (await read_token(sender.evm.gateway, token)).decimals == decimals


@pytest.mark.parametrize("bytes32", [False, True])
async def test_names_are_read_as_text_or_as_32_bytes(sender: Sender, *, bytes32: bool) -> None:
    token = await sender.token(bytes32=bytes32)

    facts = await read_token(sender.evm.gateway, token)

    assert (facts.name, facts.symbol, facts.implementation) == ("Odd Token", "ODD", "")


async def test_decimals_that_change_are_noticed(sender: Sender) -> None:
    token = await sender.token(decimals=6)
    pinned = await read_token(sender.evm.gateway, token)
    await sender.call(token, "setDecimals(uint8)", 18)

    found = await read_token(sender.evm.gateway, token)

    assert differences(pinned, pinned) == []
    assert differences(pinned, found) == ["its decimals were 6 and are 18"]


async def test_code_that_is_replaced_behind_a_proxy_is_noticed(sender: Sender) -> None:
    # Failure 17: the address and its own code stay, what it runs does not.
    one, two = await sender.token(), await sender.token()
    proxy = await sender.deploy("TestProxy", ["address"], one)
    pinned = await read_token(sender.evm.gateway, proxy)
    await sender.call(proxy, "upgradeTo(address)", two)

    found = await read_token(sender.evm.gateway, proxy)

    assert pinned.implementation
    assert differences(pinned, found) == ["its proxy runs other code"]
    assert differences(pinned, replace(pinned, code="")) == ["its code is another one"]


async def test_an_address_without_code_is_no_token(sender: Sender) -> None:
    with pytest.raises(UnreadableAnswer):
        await read_token(sender.evm.gateway, STRANGER.address)


@pytest.mark.parametrize(
    ("behaviour", "returned"),
    [(PLAIN, (1).to_bytes(32, "big")), (RETURNS_NOTHING, b""), (RETURNS_FALSE, bytes(32))],
)
async def test_what_a_transfer_would_return_is_known_before_it_is_sent(
    sender: Sender, behaviour: int, returned: bytes
) -> None:
    token = await sender.token()
    await sender.call(token, "setBehaviour(uint8)", behaviour)

    result = await sender.evm.gateway.simulate(
        sender=OWNER.address,
        recipient=token,
        data=encode_call("transfer(address,uint256)", CAROL.address, 5),
    )

    assert (result.succeeded, result.returned) == (True, returned)


async def test_a_fee_leg_is_a_movement_of_its_own_at_its_own_place(sender: Sender) -> None:
    token = await sender.token()
    await sender.call(token, "setFee(uint256)", 1_000)
    receipt = await sender.call(token, "transfer(address,uint256)", CAROL.address, 1_000)
    watch = WatchList(frozenset({OWNER.address}), frozenset({token}))

    contents = await sender.evm.gateway.contents(await sender.evm.gateway.head(), watch)

    moved = [(m.position, m.recipient, m.amount) for m in contents.movements]
    assert moved == [("log:0", CAROL.address, 900), ("log:1", token, 100)]
    assert contents.movements[0] == Movement(
        receipt["transactionHash"], "log:0", OWNER.address, CAROL.address, token, 900
    )
