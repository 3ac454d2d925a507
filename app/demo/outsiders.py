"""The people outside: clients' own wallets, the token's issuer, the miners.

Their keys are the public development keys of every local node; the desk's own keys exist in the
signer process only. Everything here speaks plain JSON-RPC to the node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import aiohttp
from eth_abi.abi import encode
from eth_account import Account
from eth_account.signers.local import LocalAccount

from chain.contracts.artefact import load_artefact
from chain.evm.addresses import address_from_node
from chain.evm.erc20 import erc20_transfer_data
from kernel.errors import OutsideUnavailable

MNEMONIC: Final = "test test test test test test test test test test test junk"
DERIVATION: Final = "m/44'/60'/0'/0/{}"
GWEI: Final = 10**9
GAS_LIMIT: Final = 120_000
GAS_LIMIT_DEPLOY: Final = 3_000_000
MAX_FEE_WEI: Final = 100 * GWEI
TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Sent:
    """A transaction that has been handed to the node."""

    tx_hash: str
    raw: str


@dataclass(slots=True)
class Outsiders:
    """Numbered outside wallets on one node; use as an async context manager."""

    url: str
    chain_id: int = 0
    token: str = ""
    _session: aiohttp.ClientSession | None = None
    _accounts: dict[int, LocalAccount] = field(default_factory=dict)
    _calls: int = 0

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout)
        Account.enable_unaudited_hdwallet_features()
        self.chain_id = int(await self.call("eth_chainId"), 16)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def call(self, method: str, *params: object) -> Any:
        """Return the result of a JSON-RPC call.

        Raises:
            OutsideUnavailable: the node does not answer, or answers an error.
        """
        assert self._session is not None, "use Outsiders as a context manager"
        self._calls += 1
        body = {"jsonrpc": "2.0", "id": self._calls, "method": method, "params": list(params)}
        try:
            async with self._session.post(self.url, json=body) as response:
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise OutsideUnavailable(
                f"the chain does not answer {method}", where=self.url
            ) from error
        if "error" in answer:
            raise OutsideUnavailable(f"{method}: {answer['error']['message']}", where=self.url)
        return answer["result"]

    def address(self, number: int) -> str:
        """Return the address of an outside wallet."""
        return str(self._account(number).address)

    async def deploy_token(self, number: int, *, name: str, symbol: str, supply: int) -> str:
        """Deploy the test token (6 decimals), mine it, and return its contract address."""
        artefact = load_artefact("TestDollar")
        arguments = encode(["string", "string", "uint8", "uint256"], [name, symbol, 6, supply])
        sent = await self.send(
            number, None, data=artefact.bytecode + arguments, gas=GAS_LIMIT_DEPLOY
        )
        await self.mine()
        receipt = await self.call("eth_getTransactionReceipt", sent.tx_hash)
        self.token = address_from_node(receipt["contractAddress"])
        return self.token

    async def send_ether(self, number: int, to: str, wei: int) -> Sent:
        """Send the native coin from an outside wallet."""
        return await self.send(number, to, value=wei)

    async def send_token(self, number: int, to: str, units: int, *, tip_gwei: int = 1) -> Sent:
        """Send the test token from an outside wallet."""
        data = erc20_transfer_data(to, units)
        return await self.send(number, self.token, data=data, tip_gwei=tip_gwei)

    async def send(
        self,
        number: int,
        to: str | None,
        *,
        value: int = 0,
        data: bytes = b"",
        gas: int = GAS_LIMIT,
        tip_gwei: int = 1,
    ) -> Sent:
        """Sign a transaction of an outside wallet and hand it to the node."""
        account = self._account(number)
        nonce = int(await self.call("eth_getTransactionCount", account.address, "pending"), 16)
        fields: dict[str, Any] = {
            "type": 2,
            "chainId": self.chain_id,
            "nonce": nonce,
            "gas": gas,
            "maxFeePerGas": MAX_FEE_WEI,
            "maxPriorityFeePerGas": tip_gwei * GWEI,
            "value": value,
            "data": data,
        }
        if to is not None:
            fields["to"] = to
        raw = "0x" + account.sign_transaction(fields).raw_transaction.hex().removeprefix("0x")
        return Sent(str(await self.call("eth_sendRawTransaction", raw)), raw)

    async def mine(self, blocks: int = 1) -> None:
        """Make blocks."""
        await self.call("anvil_mine", hex(blocks))

    async def reorganise(self, depth: int, transactions: Sequence[str] = ()) -> None:
        """Replace the last *depth* blocks; *transactions* (raw) go into the first new one."""
        await self.call("anvil_reorg", depth, [[raw, 0] for raw in transactions])

    async def forget(self, sent: Sent) -> None:
        """Drop a transaction from the node's pool, as a restarted node would."""
        await self.call("anvil_dropTransaction", sent.tx_hash)

    async def height(self) -> int:
        """Return the height of the node's head."""
        return int(await self.call("eth_blockNumber"), 16)

    def _account(self, number: int) -> LocalAccount:
        if number not in self._accounts:
            self._accounts[number] = Account.from_mnemonic(
                MNEMONIC, account_path=DERIVATION.format(number)
            )
        return self._accounts[number]
