"""For tests and demonstrations: start a simulator, talk to any EVM node, pay with dev accounts.

Everything here works the same against the simulator, anvil or another development node with the
standard mnemonic.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from eth_abi.abi import encode as abi_encode
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from chain.contracts.artefact import load_artefact
from chain.simulators.evm.accounts import derive_accounts
from chain.simulators.evm.model import DEFAULT_CHAIN_ID, DEFAULT_MNEMONIC
from kernel.errors import CausewayError, OutsideUnavailable

CALL_TIMEOUT_S = 30.0
POLL_INTERVAL_S = 0.01
STOP_TIMEOUT_S = 10.0

TRANSFER_TOPIC = "0x" + keccak(b"Transfer(address,address,uint256)").hex()

GWEI = 10**9

#: What geth answers about every transaction for a moment after its start.
INDEXING = "transaction indexing is in progress"


class RpcFailed(CausewayError):
    """The node answered with a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        self.code = code
        self.message = message
        self.data = data
        super().__init__(f"{message} ({code})")


@dataclass(frozen=True, slots=True)
class JsonRpc:
    """A JSON-RPC client over HTTP without retries: what a test sends is what it gets."""

    url: str
    session: aiohttp.ClientSession = field(repr=False)

    async def call(self, method: str, *params: Any) -> Any:
        """Return the result of one call.

        Raises:
            RpcFailed: the node answered with an error.
        """
        answer = await self.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        return unwrap(answer)

    async def post(self, body: Any) -> Any:
        """Send any JSON and return the parsed answer, which may be an error or a batch."""
        headers = {"Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
        payload = orjson.dumps(body)
        async with self.session.post(
            self.url, data=payload, headers=headers, timeout=timeout
        ) as response:
            return orjson.loads(await response.read())

    async def number(self, method: str, *params: Any) -> int:
        """Return the result of a call that answers with a quantity."""
        return int(await self.call(method, *params), 16)

    async def wait_receipt(self, transaction_hash: str) -> dict[str, Any]:
        """Return the receipt as soon as there is one; a node may mine after it has answered."""
        async with asyncio.timeout(CALL_TIMEOUT_S):
            while True:
                receipt = await self._find_receipt(transaction_hash)
                if receipt is not None:
                    return receipt
                await asyncio.sleep(POLL_INTERVAL_S)

    async def _find_receipt(self, transaction_hash: str) -> dict[str, Any] | None:
        try:
            receipt: dict[str, Any] | None = await self.call(
                "eth_getTransactionReceipt", transaction_hash
            )
        except RpcFailed as failure:
            if INDEXING not in failure.message:
                raise
            return None
        return receipt

    async def wait_height(self, height: int) -> int:
        """Return the height as soon as it is at least *height*."""
        async with asyncio.timeout(CALL_TIMEOUT_S):
            while True:
                found = await self.number("eth_blockNumber")
                if found >= height:
                    return found
                await asyncio.sleep(POLL_INTERVAL_S)


def unwrap(answer: dict[str, Any]) -> Any:
    """Return the result in a JSON-RPC answer, or raise RpcFailed."""
    if "error" in answer:
        error = answer["error"]
        raise RpcFailed(error["code"], error["message"], error.get("data"))
    return answer["result"]


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription on a WebSocket of its own."""

    socket: aiohttp.ClientWebSocketResponse = field(repr=False)
    id: str

    async def next(self, *, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """Return the next notification's result.

        Raises:
            TimeoutError: there was none in time.
        """
        async with asyncio.timeout(timeout_s):
            while True:
                message = orjson.loads((await self.socket.receive()).data)
                if message.get("params", {}).get("subscription") == self.id:
                    return message["params"]["result"]


@contextlib.asynccontextmanager
async def subscribe(
    session: aiohttp.ClientSession, ws_url: str, *params: Any
) -> AsyncIterator[Subscription]:
    """Open a WebSocket and subscribe (``newHeads``, ``logs``, ``newPendingTransactions``)."""
    async with session.ws_connect(ws_url) as socket:
        request = {"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": params}
        await socket.send_bytes(orjson.dumps(request))
        answer = orjson.loads((await socket.receive(timeout=CALL_TIMEOUT_S)).data)
        yield Subscription(socket, str(unwrap(answer)))


@dataclass(frozen=True, slots=True)
class EvmProcess:
    """A simulator in a process of its own. ``ready`` is its ready line."""

    process: subprocess.Popen[bytes] = field(repr=False)
    ready: dict[str, Any]

    @property
    def url(self) -> str:
        """Return the HTTP address."""
        return str(self.ready["url"])

    @property
    def ws_url(self) -> str:
        """Return the WebSocket address."""
        return str(self.ready["ws_url"])


@dataclass(frozen=True, slots=True)
class NodeUnderTest:
    """A fresh chain at height zero with automine on, whatever program keeps it.

    ``kind`` is ``simulator`` or ``anvil``.
    """

    kind: str
    rpc: JsonRpc
    session: aiohttp.ClientSession = field(repr=False)
    ws_url: str

    @property
    def is_anvil(self) -> bool:
        """Return whether this is anvil, for the places where it differs from a real node."""
        return self.kind == "anvil"


@contextlib.contextmanager
def start_evm_process(*arguments: str) -> Iterator[EvmProcess]:
    """Run ``python -m chain.simulators.evm`` on a free port for the length of a ``with`` block.

    It ends with the block, and also when this process dies: it watches its standard input.

    Raises:
        OutsideUnavailable: it ended before it was ready; what it said is in the message.
    """
    command = [sys.executable, "-m", "chain.simulators.evm", "--port", "0", "--parent-pipe"]
    with subprocess.Popen(
        [*command, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        if process.stdout is None or process.stdin is None:
            raise RuntimeError("the process was started without pipes")
        line = process.stdout.readline()
        if not line:
            raise OutsideUnavailable(
                f"the EVM simulator ended with code {process.wait()} before it was ready",
                remedy="Its standard error says why",
            )
        try:
            yield EvmProcess(process, orjson.loads(line))
        finally:
            process.stdin.close()
            process.wait(timeout=STOP_TIMEOUT_S)


def dev_account(index: int) -> LocalAccount:
    """Return a funded development account that can sign."""
    derived = derive_accounts(DEFAULT_MNEMONIC, index + 1)[index]
    account: LocalAccount = Account.from_key(derived.key.to_bytes())
    return account


def sign_transaction(
    account: LocalAccount,
    nonce: int,
    *,
    to: str | None,
    value: int = 0,
    data: bytes = b"",
    gas: int = 21_000,
    max_fee_per_gas: int = 10 * GWEI,
    max_priority_fee_per_gas: int = GWEI,
    chain_id: int = DEFAULT_CHAIN_ID,
) -> str:
    """Return a signed EIP-1559 transaction as raw hex; without *to* it creates a contract."""
    body: dict[str, Any] = {
        "type": 2,
        "chainId": chain_id,
        "nonce": nonce,
        "value": value,
        "data": data,
        "gas": gas,
        "maxFeePerGas": max_fee_per_gas,
        "maxPriorityFeePerGas": max_priority_fee_per_gas,
    }
    if to is not None:
        body["to"] = to_checksum_address(to)
    return "0x" + bytes(account.sign_transaction(body).raw_transaction).hex()


def hash_of(raw: str) -> str:
    """Return the hash of a raw transaction."""
    return "0x" + keccak(bytes.fromhex(raw.removeprefix("0x"))).hex()


def encode_call(signature: str, *values: Any) -> bytes:
    """Return the calldata of a function, for example ``transfer(address,uint256)``."""
    types = [one for one in signature[signature.index("(") + 1 : -1].split(",") if one]
    return bytes(keccak(signature.encode())[:4]) + abi_encode(types, values)


def token_creation(supply: int, *, decimals: int = 6) -> bytes:
    """Return the creation code of a TestDollar with its constructor arguments."""
    arguments = abi_encode(
        ["string", "string", "uint8", "uint256"], ["Test Dollar", "TUSD", decimals, supply]
    )
    return load_artefact("TestDollar").bytecode + arguments


async def deploy_test_dollar(
    rpc: JsonRpc, account: LocalAccount, *, supply: int, chain_id: int = DEFAULT_CHAIN_ID
) -> str:
    """Deploy a TestDollar owned by *account* and return the contract's address."""
    raw = sign_transaction(
        account,
        await rpc.number("eth_getTransactionCount", account.address, "pending"),
        to=None,
        data=token_creation(supply),
        gas=2_000_000,
        chain_id=chain_id,
    )
    receipt = await rpc.wait_receipt(await rpc.call("eth_sendRawTransaction", raw))
    return str(receipt["contractAddress"])


def transfer_token(
    account: LocalAccount,
    nonce: int,
    token: str,
    *,
    to: str,
    amount: int,
    max_fee_per_gas: int = 10 * GWEI,
    max_priority_fee_per_gas: int = GWEI,
    chain_id: int = DEFAULT_CHAIN_ID,
) -> str:
    """Return a signed ERC-20 transfer as raw hex; *amount* is in the token's smallest unit."""
    return sign_transaction(
        account,
        nonce,
        to=token,
        data=encode_call("transfer(address,uint256)", to, amount),
        gas=100_000,
        max_fee_per_gas=max_fee_per_gas,
        max_priority_fee_per_gas=max_priority_fee_per_gas,
        chain_id=chain_id,
    )


def topic_of(address: str) -> str:
    """Return an address as the topic of an indexed event parameter."""
    return "0x" + address.removeprefix("0x").lower().rjust(64, "0")


def addresses_of(accounts: Sequence[LocalAccount]) -> list[str]:
    """Return the accounts' addresses in lower case, as nodes write them."""
    return [account.address.lower() for account in accounts]
