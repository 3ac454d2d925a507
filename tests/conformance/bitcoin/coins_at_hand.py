"""What the cards work with: one key, its coins, signed spends, and calls that may fail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Protocol

import aiohttp
import pytest
from coincurve import PrivateKey

from chain.bitcoin.addresses import address_of
from chain.bitcoin.digests import SIGHASH_ALL, Spent, signing_digests
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.scripts import witness_key_hash_script
from chain.bitcoin.transactions import (
    SEQUENCE_REPLACEABLE,
    Input,
    Outpoint,
    Output,
    Transaction,
    encode,
)
from chain.simulators.bitcoind import NodeRefusal

BTC = 100_000_000
REWARD = 50 * BTC
START = 1_700_000_000
"""The mocked time at the start of a card: the same calls give the same blocks on every node."""
KEYS = [PrivateKey(bytes([number]) * 32) for number in (1, 2, 3)]
PUBLIC = [bytes(key.public_key.format()) for key in KEYS]
SCRIPT, OTHER = (witness_key_hash_script(key) for key in PUBLIC[:2])
UNKNOWN = "11" * 32


def address(script: bytes) -> str:
    found = address_of(script, REGTEST)
    assert found is not None
    return found


HOME = address(SCRIPT)


class Caller(Protocol):
    @property
    def url(self) -> str: ...
    @property
    def cookie(self) -> tuple[str, str]: ...
    @property
    def session(self) -> aiohttp.ClientSession: ...
    async def call(self, method: str, *params: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class NodeUnderTest:
    """One of the two nodes.

    Attributes:
        flavour: ``simulator``, ``knots`` or ``core``.
    """

    flavour: str
    caller: Caller
    rates: dict[str, int] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        return self.flavour == "simulator"

    async def call(self, method: str, *params: Any) -> Any:
        return await self.caller.call(method, *params)

    async def text(
        self, body: Any, *, password: tuple[str, str] | None = None
    ) -> tuple[int, str, Any]:
        """Send any JSON; return the status, the very text of the answer, and what it says."""
        headers = {"Authorization": aiohttp.encode_basic_auth(*(password or self.caller.cookie))}
        data = body if isinstance(body, str) else json.dumps(body)
        async with self.caller.session.post(self.caller.url, data=data, headers=headers) as got:
            said = await got.text()
            return got.status, said, json.loads(said) if said.strip() else None

    async def refusal(self, method: str, *params: Any) -> tuple[int, str]:
        with pytest.raises(NodeRefusal) as refused:
            await self.call(method, *params)
        return refused.value.code, refused.value.message

    async def send(self, packed: Transaction) -> str:
        return str(await self.call("sendrawtransaction", encode(packed).hex()))

    async def refused(self, packed: Transaction) -> tuple[int, str]:
        return await self.refusal("sendrawtransaction", encode(packed).hex())

    async def test(self, packed: Transaction) -> dict[str, Any]:
        [verdict] = await self.call("testmempoolaccept", [encode(packed).hex()])
        return dict(verdict)

    async def mine(self, blocks: int = 1, script: bytes = SCRIPT) -> list[str]:
        """Make blocks, a second apart."""
        made = []
        for _ in range(blocks):
            await self.tick()
            made += await self.call("generatetoaddress", 1, address(script))
        return list(made)

    async def tick(self) -> None:
        tip = await self.call("getblockheader", await self.call("getbestblockhash"))
        await self.call("setmocktime", max(START, tip["time"]) + 1)

    async def fund(self, coins: int) -> list[Outpoint]:
        """Return coins of a whole block's reward each, which can be spent."""
        hashes = await self.call("generatetoaddress", coins, HOME)
        await self.call("generatetoaddress", 100, address(OTHER))
        blocks = [await self.call("getblock", hash_, 1) for hash_ in hashes]
        return [Outpoint(block["tx"][0], 0) for block in blocks]

    async def locks_coinbases(self) -> bool:
        """Tell whether blocks are made with coinbases locked to the height before (BIP 54).

        Core makes them so since version 31: the same calls then give other ids and hashes than ours.
        """
        block = await self.call("getblock", await self.call("getbestblockhash"), 2)
        return bool(block["tx"][0]["locktime"] == block["height"] - 1 and block["height"] > 1)

    async def pool(self) -> set[str]:
        return set(await self.call("getrawmempool"))

    async def relay_rate(self) -> int:
        return satoshi((await self.call("getmempoolinfo"))["minrelaytxfee"])

    async def step(self) -> int:
        return satoshi((await self.call("getmempoolinfo"))["incrementalrelayfee"])


def satoshi(amount: Any) -> int:
    return int(Decimal(str(amount)) * BTC)


def spend(
    coins: Sequence[Outpoint],
    outputs: Sequence[Output],
    *,
    amounts: Sequence[int] | None = None,
    sequence: int = SEQUENCE_REPLACEABLE,
    version: int = 2,
    lock_time: int = 0,
) -> Transaction:
    """Return a signed transaction; every coin is a reward of ours unless *amounts* says otherwise."""
    bare = Transaction(
        tuple(Input(coin, sequence) for coin in coins), tuple(outputs), version, lock_time
    )
    known = amounts or [REWARD] * len(coins)
    digests = signing_digests(bare, [Spent(Output(amount, SCRIPT)) for amount in known])
    return replace(
        bare,
        inputs=tuple(
            replace(item, witness=(bytes(KEYS[0].sign(digest, hasher=None)) + b"\x01", PUBLIC[0]))
            for item, digest in zip(bare.inputs, digests, strict=True)
        ),
    )


def pay(coin: Outpoint, fee: int, *, amount: int = REWARD, script: bytes = SCRIPT) -> Transaction:
    """Return a spend of one coin into one output, for a fee."""
    return spend([coin], [Output(amount - fee, script)], amounts=[amount])


def first(packed: Transaction) -> Outpoint:
    return Outpoint(packed.tx_id, 0)


SIGHASH = bytes([SIGHASH_ALL])
