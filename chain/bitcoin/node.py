"""JSON-RPC to one bitcoind, Bitcoin Core or Knots.

What it does otherwise than other nodes: it lets callers in by a cookie file that is new at every
start, or by a password; while it starts it answers every question with error -28; when more is asked
than it can queue it answers 503; and errors come with HTTP status 500 or 404 and an object in the
body. Amounts are JSON numbers with eight decimals: they are read as text, never as floats.

Sources: Bitcoin Core ``src/rpc/protocol.h`` (error codes), ``src/httprpc.cpp`` (status codes, cookie),
``doc/JSON-RPC-interface.md``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import msgspec

from chain.errors import NodeUnavailable
from chain.jsonrpc import ATTEMPTS_MAX, TIMEOUT_S, Call, Rpc, RpcRefusal, Shaped
from chain.rate_limit import RateLimit
from kernel.errors import BadInput

# Error codes (RPCErrorCode of Bitcoin Core).
METHOD_UNKNOWN: Final = -32601
MISC_ERROR: Final = -1
NOT_FOUND: Final = -5
"""RPC_INVALID_ADDRESS_OR_KEY: no such block or transaction."""
BAD_PARAMETER: Final = -8
"""RPC_INVALID_PARAMETER: a height that is not there, an unknown descriptor, a scan that runs."""
UNDECODABLE: Final = -22
VERIFY_ERROR: Final = -25
VERIFY_REJECTED: Final = -26
ALREADY_IN_CHAIN: Final = -27
WARMING_UP: Final = -28

WARM_UP_MAX_S: Final = 60.0
"""A node that has not loaded its blocks by then is treated as one that does not answer."""
WARM_UP_STEP_S: Final = 0.25
COOKIE_BYTES_MAX: Final = 4_096

_read_exactly: Final = msgspec.json.Decoder(float_hook=str).decode

T = TypeVar("T")

_UNAUTHORISED: Final = 401
_FORBIDDEN: Final = 403


class NodeRpc(Rpc):
    """A bitcoind's JSON-RPC endpoint."""

    def __init__(
        self,
        url: str,
        *,
        cookie: Path | None = None,
        user: str = "",
        password: str = "",
        timeout_s: float = TIMEOUT_S,
        attempts: int = ATTEMPTS_MAX,
        limit: RateLimit | None = None,
        warm_up_s: float = WARM_UP_MAX_S,
    ) -> None:
        """Speak to *url*; nothing is opened yet.

        Args:
            url: where the node listens, without user and password.
            cookie: the file that the node writes when it starts; read anew when it has changed.
            user, password: what lets us in where there is no cookie.
            timeout_s: for one request and its whole answer.
            attempts: how often a question is asked.
            limit: how many requests per second the node may be asked.
            warm_up_s: how long a node that is starting is waited for.

        Raises:
            BadInput: both a cookie and a password, or neither.
        """
        if (cookie is None) == (not password):
            raise BadInput(
                "a node of Bitcoin lets callers in by a cookie file or by user and password",
                remedy="Name one of the two",
            )
        super().__init__(url, timeout_s=timeout_s, attempts=attempts, limit=limit)
        self._where = url
        self._cookie = cookie
        self._secret = f"{user}:{password}"
        self._warm_up_s = warm_up_s

    def patient(self, timeout_s: float) -> NodeRpc:
        """Return another way to the same node, for questions that take it long."""
        user, _, password = self._secret.partition(":")
        return NodeRpc(
            self._where,
            cookie=self._cookie,
            user=user,
            password=password,
            timeout_s=timeout_s,
            attempts=1,
            warm_up_s=self._warm_up_s,
        )

    async def ask(self, method: str, *params: Any) -> Any:
        """Return the result of a question; a node that is starting is waited for."""
        return await self._once_started(partial(super().ask, method, *params))

    async def ask_shaped(self, read: Callable[[bytes], Shaped[T]], method: str, *params: Any) -> T:
        """Return what *read* decodes; a node that is starting is waited for."""
        return await self._once_started(partial(super().ask_shaped, read, method, *params))

    async def _once_started(self, attempt: Callable[[], Awaitable[T]]) -> T:
        waited_s = 0.0
        while True:
            try:
                return await attempt()
            except RpcRefusal as refusal:
                if refusal.code != WARMING_UP or waited_s >= self._warm_up_s:
                    raise
            await asyncio.sleep(WARM_UP_STEP_S)
            waited_s += WARM_UP_STEP_S

    async def ask_every(self, calls: Sequence[Call]) -> list[Any]:
        """Return the results of *calls*; the first refusal among them is raised."""
        answers = await self.ask_many(calls)
        for answer in answers:
            if isinstance(answer, RpcRefusal):
                raise answer
        return answers

    def headers(self) -> dict[str, str]:
        """Return what lets us in. The cookie is read at each request: a new start writes a new one."""
        secret = self._secret
        if self._cookie is not None:
            try:
                secret = self._cookie.read_text(encoding="utf-8")[:COOKIE_BYTES_MAX].strip()
            except (OSError, UnicodeDecodeError) as error:
                raise NodeUnavailable(
                    f"the node's cookie cannot be read: {type(error).__name__}",
                    where=str(self._cookie),
                    remedy="Start the node, or let this user read the file",
                ) from None
        user, _, password = secret.partition(":")
        return {"Authorization": aiohttp.encode_basic_auth(user, password)}

    def read(self, body: bytes) -> Any:
        """Return the value that *body* holds, with every fractional number as its digits."""
        return _read_exactly(body)

    def check_status(self, what: str, response: aiohttp.ClientResponse, body: bytes) -> None:
        """Let an error object through, whatever the status; all else than success is trouble."""
        if response.status in {_UNAUTHORISED, _FORBIDDEN}:
            raise NodeUnavailable(
                f"the node does not let us in (HTTP {response.status} to {what})",
                remedy="Check the cookie's path or the password, and the node's rpcallowip and "
                "rpcwhitelist",
            )
        if not body.lstrip().startswith((b"{", b"[")):
            # 503 "Work queue depth exceeded" is among these: asked again after a pause.
            response.raise_for_status()
