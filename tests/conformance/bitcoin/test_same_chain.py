"""The property that the cards are instances of: whatever is done to both, both come to the same.

Random payments, replacements, double spends, blocks, and reorganisations are done to the simulator and
to a real bitcoind. After each step the tip, the pool and the verdicts are the same, byte for byte;
at the end the coins are too. The mocked time makes blocks of the same calls the same blocks.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from chain.bitcoin.transactions import Outpoint, Output, Transaction, encode
from chain.simulators.bitcoind import NodeRefusal
from tests.conformance.bitcoin.coins_at_hand import (
    HOME,
    OTHER,
    REWARD,
    SCRIPT,
    START,
    NodeUnderTest,
    address,
    spend,
)

SEEDS = range(1, 7)
STEPS = 120
COINS = 8
DEPTH = 3
BEHIND_S = 1_000
"""So far the first blocks are ahead of the time they were made at: each is later than others before."""

Pair = tuple[NodeUnderTest, NodeUnderTest]


@dataclass
class World:
    """What was done so far; decisions are drawn from *random* and what both nodes say."""

    both: Pair
    random: random.Random
    amounts: dict[Outpoint, int]
    sent: list[Transaction] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    time: int = START + BEHIND_S
    taken: int = 0
    refused: int = 0

    async def same(self, method: str, *params: Any) -> Any:
        """Do the same to both and return what both answered."""
        ours, real = [await answer(node, method, *params) for node in self.both]
        assert ours == real, (method, params)
        return ours

    async def tick(self) -> None:
        self.time += self.random.choice((1, 1, 600))
        await self.same("setmocktime", self.time)

    def payment(self) -> Transaction:
        """Return a spend of coins that may be spent, spent already, waiting, or gone."""
        known = sorted(self.amounts)
        coins = self.random.sample(known, self.random.choice((1, 1, 1, 2)))
        total = sum(self.amounts[coin] for coin in coins)
        fee = self.random.choice((50, 200, 1_000, 1_000, 3_000, 3_300, 9_000, 40_000))
        count = self.random.choice((1, 2, 3))
        parts = [(total - fee) // count] * count
        scripts = [self.random.choice((SCRIPT, SCRIPT, OTHER)) for _ in parts]
        outputs = [Output(part, script) for part, script in zip(parts, scripts, strict=True)]
        return spend(coins, outputs, amounts=[self.amounts[coin] for coin in coins])

    async def send(self) -> None:
        packed = self.payment()
        if min(output.amount for output in packed.outputs) < 1_000:
            return
        verdict = await self.same("sendrawtransaction", encode(packed).hex())
        if isinstance(verdict, str):
            self.taken += 1
            self.sent.append(packed)
            self.learn(packed)
        else:
            self.refused += 1

    def learn(self, packed: Transaction) -> None:
        for index, output in enumerate(packed.outputs):
            if output.script == SCRIPT:
                self.amounts[Outpoint(packed.tx_id, index)] = output.amount

    async def send_again(self) -> None:
        if self.sent:
            packed = self.random.choice(self.sent)
            await self.same("sendrawtransaction", encode(packed).hex())

    async def mine(self) -> None:
        await self.tick()
        to = self.random.choice((HOME, address(OTHER)))
        await self.same("generatetoaddress", self.random.choice((1, 1, 2)), to)

    async def mine_chosen(self) -> None:
        """Make a block of what was sent once, in the pool or not: a double spend may be in it."""
        await self.tick()
        chosen = self.random.sample(self.sent, min(len(self.sent), self.random.choice((0, 1, 2))))
        raws = [encode(packed).hex() for packed in chosen]
        made = await self.same("generateblock", HOME, raws)
        if not isinstance(made, dict):
            self.refused += 1

    async def invalidate(self) -> None:
        # One at a time: a bitcoind whose invalid blocks lie on one another may end by an assertion
        # of its own when one of them is reconsidered.
        if self.invalid:
            return
        height = await self.same("getblockcount")
        depth = self.random.randrange(DEPTH)
        hash_ = await self.same("getblockhash", height - depth)
        await self.same("invalidateblock", hash_)
        self.invalid.append(hash_)

    async def reconsider(self) -> None:
        if self.invalid:
            await self.same("reconsiderblock", self.invalid.pop())

    async def compare(self) -> None:
        tip = await self.same("getbestblockhash")
        await self.same("getblock", tip, 1)
        pools = [set(await node.call("getrawmempool")) for node in self.both]
        assert pools[0] == pools[1]
        infos = [await node.call("getmempoolinfo") for node in self.both]
        for name in ("size", "bytes", "total_fee", "mempoolminfee"):
            assert infos[0][name] == infos[1][name], name

    async def compare_coins(self) -> None:
        for script in (SCRIPT, OTHER):
            await self.same("scantxoutset", "start", [f"raw({script.hex()})"])
        for name in ("txouts", "total_amount", "bogosize", "height", "bestblock", "transactions"):
            infos = [await node.call("gettxoutsetinfo", "none") for node in self.both]
            if name in infos[1]:
                assert infos[0][name] == infos[1][name], name
        for tx_id in sorted(await self.both[0].pool()):
            ours, real = [await node.call("getmempoolentry", tx_id) for node in self.both]
            assert {name: ours[name] for name in ("vsize", "fees", "ancestorcount")} == {
                name: real[name] for name in ("vsize", "fees", "ancestorcount")
            }
            assert sorted(ours["depends"]) == sorted(real["depends"])


async def answer(node: NodeUnderTest, method: str, *params: Any) -> Any:
    """Return the result, or the code and message of the refusal; what only one node says is left out."""
    try:
        said = await node.call(method, *params)
    except NodeRefusal as refused:
        # Which of several conflicts is named first is a matter of addresses in memory.
        reason = refused.message.split(",")[0].split(";")[0].split(" rejecting")[0]
        return (refused.code, reason)
    if isinstance(said, dict):
        return {name: value for name, value in said.items() if name not in IGNORED}
    return said


IGNORED = frozenset({"txcount", "header_version", "usage"})
WEIGHTS: Sequence[tuple[str, int]] = (
    ("send", 10),
    ("send_again", 1),
    ("mine", 3),
    ("mine_chosen", 2),
    ("invalidate", 2),
    ("reconsider", 2),
)


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_is_done_to_both_nodes_both_come_to_the_same(both: Pair, seed: int) -> None:
    draw = random.Random(seed)
    coins, theirs = await both[0].fund(COINS), await both[1].fund(COINS)
    if await both[1].locks_coinbases():
        pytest.skip("this bitcoind makes coinbases of another form, so no two ids can be equal")
    assert theirs == coins
    world = World(both, draw, dict.fromkeys(coins, REWARD))
    names, weights = zip(*WEIGHTS, strict=True)
    for _ in range(STEPS):
        [name] = draw.choices(names, weights)
        await getattr(world, name)()
        await world.compare()
    await world.compare_coins()
    assert world.taken > 5
    assert world.refused > 2
