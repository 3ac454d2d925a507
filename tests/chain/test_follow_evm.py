"""Following real sockets, our simulator and anvil, into real PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.evm.transactions import transaction_hash
from chain.follow import follow, get_cursor
from chain.model import (
    ChainStep,
    FollowPolicy,
    FollowReport,
    FollowState,
    Included,
    Movement,
    WatchList,
)
from chain.simulators.testing import dev_account, sign_transaction, transfer_token
from kernel.db import transact
from tests.chain.conftest import NodeStage

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
ANN, BOB, CAROL = (dev_account(index) for index in (0, 1, 5))


@dataclass
class Follower:
    engine: AsyncEngine
    stage: NodeStage
    policy: FollowPolicy = field(default_factory=FollowPolicy)
    steps: list[ChainStep] = field(default_factory=list)

    async def watch(self, conn: AsyncConnection) -> WatchList:
        return WatchList(frozenset({CAROL.address}), frozenset({self.stage.token}))

    async def apply(self, conn: AsyncConnection, step: ChainStep) -> None:
        self.steps.append(step)

    async def run(self) -> FollowReport:
        return await follow(
            self.engine,
            self.stage.gateway,
            "evm",
            watch=self.watch,
            apply=self.apply,
            now=NOW,
            policy=self.policy,
        )

    def seen(self) -> list[tuple[str, Movement]]:
        return [
            ("+" if isinstance(step, Included) else "-", movement)
            for step in self.steps
            for movement in step.contents.movements
        ]


async def submit(evm: NodeStage, raw: str) -> str:
    await evm.rpc.call("eth_sendRawTransaction", raw)
    return transaction_hash(bytes.fromhex(raw[2:]))


async def test_deposits_are_seen_taken_back_and_seen_again_under_the_same_identity(
    engine: AsyncEngine, evm: NodeStage
) -> None:
    follower = Follower(engine, evm)
    native = sign_transaction(ANN, 0, to=CAROL.address, value=11)
    token = transfer_token(BOB, 0, evm.token, to=CAROL.address, amount=22)
    paid = Movement(await submit(evm, native), "top", ANN.address, CAROL.address, None, 11)
    tokens = Movement(await submit(evm, token), "log:0", BOB.address, CAROL.address, evm.token, 22)
    await evm.mine()
    await follower.run()
    assert sorted(follower.seen(), key=lambda seen: seen[1].amount) == [("+", paid), ("+", tokens)]
    block = follower.steps[-1].contents.block
    follower.steps.clear()

    # Only the tokens come back at first, behind another transfer: at another log index.
    other = transfer_token(ANN, 0, evm.token, to=BOB.address, amount=1)
    await evm.reorg(1, [(other, 0), (token, 0)])
    report = await follower.run()

    assert (report.orphaned, report.included, report.caught_up) == (1, 1, True)
    assert sorted(follower.seen(), key=lambda seen: (seen[0] == "+", seen[1].amount)) == [
        ("-", paid),
        ("-", tokens),
        ("+", tokens),
    ]
    assert follower.steps[-1].contents.block.height == block.height
    assert follower.steps[-1].contents.block.hash != block.hash
    cursor = await transact(engine, lambda conn: get_cursor(conn, "evm"))
    assert cursor == await evm.gateway.head()


async def test_a_deeper_reorganisation_ends_where_the_node_is(
    engine: AsyncEngine, evm: NodeStage
) -> None:
    follower = Follower(engine, evm)
    for nonce in range(4):
        await submit(evm, sign_transaction(ANN, nonce, to=CAROL.address, value=nonce + 1))
        await evm.mine()
    await follower.run()
    follower.steps.clear()
    await evm.reorg(3, [(sign_transaction(ANN, 1, to=CAROL.address, value=9), 1)])
    await evm.mine()

    report = await follower.run()

    assert (report.orphaned, report.included) == (3, 4)
    # A node that puts orphans back may mine them again; what it took instead is seen for certain.
    seen = [(sign, m.amount) for sign, m in follower.seen()]
    assert seen[:3] == [("-", 4), ("-", 3), ("-", 2)]
    assert ("+", 9) in seen
    assert report.cursor == await evm.gateway.head()
    assert report.caught_up


async def test_a_node_rolled_back_is_waited_for_and_then_followed(
    engine: AsyncEngine, evm: NodeStage
) -> None:
    follower = Follower(engine, evm)
    for _ in range(3):
        await evm.mine()
    await follower.run()
    await evm.rpc.call("anvil_rollback", 2)

    assert (await follower.run()).orphaned == 0

    for _ in range(2):
        await submit(evm, sign_transaction(ANN, await nonce_of(evm), to=CAROL.address, value=1))
        await evm.mine()
    report = await follower.run()

    assert (report.orphaned, report.included, report.caught_up) == (2, 2, True)


async def nonce_of(evm: NodeStage) -> int:
    return await evm.gateway.next_nonce(ANN.address)


async def test_a_node_restarted_from_another_genesis_halts_the_chain(
    engine: AsyncEngine, evm: NodeStage
) -> None:
    follower = Follower(engine, evm, FollowPolicy(start_height=2))
    await evm.mine()
    await follower.run()
    head = await evm.gateway.head()
    await evm.reorg(head.height)

    report = await follower.run()

    assert report.state is FollowState.HALTED
    assert "below height 1" in report.reason
