"""JSON-RPC to one node over HTTP: bounded questions, and sending that happens exactly once.

web3's HTTP provider is the transport, with its own retries switched off: by default it sends
``eth_sendRawTransaction`` up to five times. Its session is replaced by one that keeps connections
alive and has limits.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import aiohttp
from web3 import AsyncHTTPProvider
from web3.exceptions import Web3Exception
from web3.types import RPCEndpoint

from chain.errors import NodeUnavailable, UnreadableAnswer
from chain.evm.quantities import as_object

TIMEOUT_S: Final = 10.0
ATTEMPTS_MAX: Final = 3
BACKOFF_BASE_S: Final = 0.1
CONNECTIONS_MAX: Final = 16
MESSAGE_LENGTH_MAX: Final = 300


class RpcRefusal(NodeUnavailable):
    """The node answered with an error object."""

    def __init__(self, method: str, code: int, message: str) -> None:
        self.method = method
        self.code = code
        self.message = message[:MESSAGE_LENGTH_MAX]
        super().__init__(f"the node refuses {method}: {self.message}", where=f"code {code}")


class Rpc:
    """A node's JSON-RPC endpoint."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Speak to *url*; nothing is opened yet. Call `close` in the end."""
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._provider = AsyncHTTPProvider(
            url,
            request_kwargs={"timeout": self._timeout},
            exception_retry_configuration=None,
        )
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, method: str, *params: Any) -> Any:
        """Return the result of a question, asked again when the way to the node fails.

        Raises:
            RpcRefusal: the node answered with an error.
            NodeUnavailable: no answer after `ATTEMPTS_MAX` attempts.
            UnreadableAnswer: not a JSON-RPC answer.
        """
        attempt = 1
        while True:
            try:
                return await self.ask_once(method, *params)
            except RpcRefusal:
                raise
            except NodeUnavailable:
                if attempt == ATTEMPTS_MAX:
                    raise
            await asyncio.sleep(BACKOFF_BASE_S * 2 ** (attempt - 1))
            attempt += 1

    async def ask_once(self, method: str, *params: Any) -> Any:
        """Return the result of a request that is sent exactly once."""
        await self._open()
        try:
            answer = await self._provider.make_request(RPCEndpoint(method), list(params))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = f"{type(error).__name__}: {error}"[:MESSAGE_LENGTH_MAX]
            raise NodeUnavailable(f"the node does not answer {method}: {what}") from error
        except (Web3Exception, ValueError) as error:
            raise UnreadableAnswer(f"the node's answer to {method} is not JSON-RPC") from error
        return _result(method, answer)

    async def _open(self) -> None:
        async with self._opening:
            if self._session is None:
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX), raise_for_status=True
                )
                await self._provider.cache_async_session(self._session)


def _result(method: str, answer: object) -> Any:
    body = as_object(answer, f"the answer to {method}")
    if body.get("error") is not None:
        error = as_object(body["error"], "the error")
        code = error.get("code")
        message = str(error.get("message", ""))
        raise RpcRefusal(method, code if isinstance(code, int) else 0, message)
    if "result" not in body:
        raise UnreadableAnswer(f"the answer to {method} has no result")
    return body["result"]
