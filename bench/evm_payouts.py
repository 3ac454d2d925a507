"""How fast are payouts carried out, from the request to the broadcast, beside a bare sender?

A hundred requests are reserved in one transaction, approved under one signature, and taken by the
worker: coins, fee and nonce are held, the signer (a process of its own, behind its socket, with its
own store and log) reads every transaction and signs it, the bytes are stored and handed to a real
anvil, and what it said is stored. As in a house, the desk takes the next hundred requests while the
worker, the signer and the node are busy with those before; all of ours shares one process.

The limit signs with eth_account and hands each transaction to the same anvil, in a loop that keeps
nothing and asks nobody.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Final

import aiohttp
from eth_account import Account
from eth_account.signers.local import LocalAccount
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local.migrate import migrate
from bench.anvil import REPOSITORY, require_anvil
from bench.ledger_book import Books, books
from bench.measure import Measured, Result, Shared, Turn, alternate, peak_memory_kib, versions
from chain.evm.gateway import EvmGateway
from chain.follow import follow
from chain.model import ChainStep, FollowPolicy
from chain.simulators.anvil import start_anvil
from chain.simulators.testing import JsonRpc, dev_account
from custody.addresses import assign_address, watch_list
from custody.evm_rail import EvmRail
from custody.inclusion import apply_step
from custody.model import AddressPurpose
from custody.payout_model import Payout, PayoutRequest
from custody.payout_requests import request_payouts
from custody.payout_worker import CLAIM_MAX, advance_payouts
from custody.signer.client import SignerClient
from custody.signer.testing import SEED, rules_for, write_signer_files
from custody.signer_sync import push_control
from custody.testing import allow, approve, set_policy
from kernel.clock import SystemClock
from kernel.db import APP_ROLE, create_engine, transact
from kernel.errors import OutsideUnavailable
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import open_book, post, require_applied
from registry.changes import found
from registry.testing import DEMO_OPERATORS, ENTITY, EVM, TOKEN, demo_founding

ROUNDS: Final = 5
AT_LEAST: Final = 0.3
CLAIMS_PER_TURN: Final = 6
PAYOUTS: Final = CLAIMS_PER_TURN * CLAIM_MAX
PAYEES: Final = 20
AMOUNT: Final = 10**12
FUNDS: Final = 10**24
GAS: Final = 21_000
FEE_PER_GAS: Final = 10 * 10**9
BOOK: Final = ENTITY.book
WALLET: Final = "client-pool"
NETWORK: Final = 31_337
SENDER: Final = 8
DATABASE: Final = "evm_payouts"
READY_TIMEOUT_S: Final = 20.0


class Payouts:
    """The desk, its signer, the node, and what both contestants do."""

    def __init__(
        self,
        runner: asyncio.Runner,
        engine: AsyncEngine,
        gateway: EvmGateway,
        signer: SignerClient,
        rpc: JsonRpc,
    ) -> None:
        self.runner = runner
        self.engine = engine
        self.gateway = gateway
        self.signer = signer
        self.rpc = rpc
        self.rail = EvmRail(gateway)
        self.payees = [Account.create().address for _ in range(PAYEES)]
        self._clock = SystemClock()
        self._numbers = 0

    async def found(self) -> None:
        """Found the house: rules, payees that are allowed, coins on the chain and in the books."""
        now = self._clock.now()
        xpubs = [await self.signer.account_xpub(f"m/44'/60'/{n}'") for n in range(3)]
        hot = ""

        async def work(conn: AsyncConnection) -> None:
            nonlocal hot
            await found(conn, demo_founding(xpubs=xpubs, network_id=NETWORK), now=now)
            await open_book(conn, BOOK, entity=ENTITY.code, now=now)
            hot = (await assign_address(conn, WALLET, purpose=AddressPurpose.HOT, now=now)).address
            await set_policy(conn, now=now)
            for payee in self.payees:
                await allow(conn, "acme", payee, now=now)
            places = f"custody:{WALLET}", "client:acme", "equity:capital"
            await ensure_accounts(
                conn,
                BOOK,
                [(place, "ETH") for place in places],
                owners={places[0]: "client"},
                now=now,
            )
            await self._open(conn)

        await transact(self.engine, work)
        await self.rpc.call("anvil_setBalance", hot, hex(2 * FUNDS))
        await self.rpc.call("anvil_setBalance", dev_account(SENDER).address, hex(FUNDS))
        await self.rpc.call("evm_setAutomine", False)
        while (await push_control(self.engine, self.signer, now=self._clock.now())).accepted:
            pass
        await self._settle()

    async def _open(self, conn: AsyncConnection) -> None:
        now = self._clock.now()
        batch = [
            transfer(
                derive_id(now, "opening", number),
                f"custody:{WALLET}",
                credit,
                FUNDS,
                "ETH",
                code="bench.opening",
            )
            for number, credit in enumerate(("client:acme", "equity:capital"))
        ]
        require_applied(await post(conn, BOOK, batch, now=now))

    def ours(self) -> Turn:
        """Return a turn that carries payouts out; those of the turn before are mined first."""
        self.runner.run(self._settle())
        return lambda: self.runner.run(self._pay())

    async def _settle(self) -> None:
        await self.rpc.call("evm_mine")

        async def apply(conn: AsyncConnection, step: ChainStep) -> None:
            await apply_step(conn, step, book=BOOK, now=self._clock.now())

        await follow(
            self.engine,
            self.gateway,
            EVM,
            watch=lambda conn: watch_list(conn, EVM),
            apply=apply,
            now=self._clock.now(),
            policy=FollowPolicy(start_height=1),
        )

    async def _pay(self) -> int:
        approved: asyncio.Queue[None] = asyncio.Queue()
        async with asyncio.TaskGroup() as side_by_side:
            side_by_side.create_task(self._ask(approved))
            worker = side_by_side.create_task(self._work(approved))
        return worker.result()

    async def _ask(self, approved: asyncio.Queue[None]) -> None:
        for _ in range(CLAIMS_PER_TURN):
            await self._approve(await transact(self.engine, self._request))
            approved.put_nowait(None)

    async def _work(self, approved: asyncio.Queue[None]) -> int:
        sent = 0
        while sent < PAYOUTS:
            await approved.get()
            report = await advance_payouts(
                self.engine,
                self.gateway,
                self.signer,
                chain=EVM,
                book=BOOK,
                holder="bench",
                claims=CLAIMS_PER_TURN,
                clock=self._clock,
                rail=self.rail,
            )
            if report.waiting:
                raise OutsideUnavailable(f"a payout waits: {next(iter(report.waiting.values()))}")
            sent += len(report.sent)
        assert sent == PAYOUTS
        return sent

    async def _approve(self, payouts: list[Payout]) -> None:
        await transact(self.engine, lambda conn: approve(conn, payouts, now=self._clock.now()))

    async def _request(self, conn: AsyncConnection) -> list[Payout]:
        requests = []
        for _ in range(CLAIM_MAX):
            self._numbers += 1
            requests.append(
                PayoutRequest(
                    client_ref=f"bench-{self._numbers}",
                    claim="client:acme",
                    source_wallet=WALLET,
                    asset="ETH",
                    amount=AMOUNT,
                    destination=self.payees[self._numbers % PAYEES],
                    requested_by="dan",
                )
            )
        return await request_payouts(conn, requests, book=BOOK, now=self._clock.now())

    def bare(self) -> Turn:
        """Return a turn of the loop that signs and sends."""
        self.runner.run(self._settle())
        account = dev_account(SENDER)
        return lambda: self.runner.run(self._send(account))

    async def _send(self, account: LocalAccount) -> int:
        nonce = await self.rpc.number("eth_getTransactionCount", account.address, "pending")
        for number in range(PAYOUTS):
            signed = account.sign_transaction(
                {
                    "type": 2,
                    "chainId": NETWORK,
                    "nonce": nonce + number,
                    "to": self.payees[number % PAYEES],
                    "value": AMOUNT,
                    "gas": GAS,
                    "maxFeePerGas": FEE_PER_GAS,
                    "maxPriorityFeePerGas": 10**9,
                }
            )
            await self.rpc.call("eth_sendRawTransaction", "0x" + signed.raw_transaction.hex())
        return PAYOUTS


def measure(shared: Shared) -> Measured:
    """Carry payouts out, and only sign and send, in turn."""
    of = shared.once(books)
    binary = require_anvil()
    with (
        tempfile.TemporaryDirectory(prefix="causeway-bench-") as folder,
        signer_process(Path(folder)) as (signer, child),
        asyncio.Runner() as runner,
    ):
        stack = AsyncExitStack()
        try:
            found_ = runner.run(_open(stack, of, binary, runner, signer))
            rates = alternate({"ours": found_.ours, "bare": found_.bare}, ROUNDS)
            signer_memory = resident_mib(child.pid)
        finally:
            runner.run(stack.aclose())
    return Measured(
        [
            Result(
                name="evm_payouts",
                value=rates["ours"],
                unit="payouts/s",
                baseline="a loop that only signs (eth_account) and sends to the same node",
                baseline_value=rates["bare"],
                at_least=AT_LEAST,
            ),
            Result(
                name="evm_payouts.memory",
                value=peak_memory_kib() / 1024,
                unit="MiB at most, both together",
            ),
            Result(name="evm_payouts.signer_memory", value=signer_memory, unit="MiB"),
        ],
        of.conditions(
            f"payments of ether to {PAYEES} payees, from the request to the broadcast, approved "
            f"under one signature for each claim of {CLAIM_MAX}, the next claim while the worker "
            f"has this one; the signer is a process behind its socket; {ROUNDS} turns of {PAYOUTS}"
        ),
        versions("web3", "eth-account", "coincurve", "aiohttp", "sqlalchemy", "asyncpg"),
    )


async def _open(
    stack: AsyncExitStack, of: Books, binary: Path, runner: asyncio.Runner, signer: SignerClient
) -> Payouts:
    await of.administer(f"CREATE DATABASE {DATABASE}")
    stack.push_async_callback(of.administer, f"DROP DATABASE {DATABASE}")
    await migrate(of.server.url(DATABASE))
    engine = create_engine(of.server.url(DATABASE), role=APP_ROLE)
    stack.push_async_callback(engine.dispose)
    anvil = await stack.enter_async_context(start_anvil(binary))
    session = await stack.enter_async_context(aiohttp.ClientSession())
    gateway = await stack.enter_async_context(EvmGateway(anvil.url, chain=EVM, network_id=NETWORK))
    made = Payouts(runner, engine, gateway, signer, JsonRpc(anvil.url, session))
    await made.found()
    return made


@contextmanager
def signer_process(
    folder: Path, token: str = TOKEN
) -> Iterator[tuple[SignerClient, subprocess.Popen[bytes]]]:
    """Run a signer of its own, which knows *token*, for the length of a ``with`` block."""
    founding = demo_founding(token=token)
    rules = rules_for(founding.chains, founding.chain_assets, DEMO_OPERATORS)
    files = write_signer_files(folder, rules, seed=SEED, random=secrets.token_bytes)
    socket = folder / "signer"
    command = [sys.executable, "-m", "custody.signer", *files.options]
    with subprocess.Popen(
        [*command, "--socket", str(socket), "--parent-pipe"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(folder / "signer.log").open("wb"),
        cwd=REPOSITORY,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["ready"]
        yield SignerClient(socket), child
        child.stdin.close()
        child.wait(READY_TIMEOUT_S)


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process, in MiB (proc_pid_status(5), VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0
