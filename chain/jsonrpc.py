"""JSON-RPC to one node over HTTP: bounded questions, and sending that happens exactly once.

Nothing is sent twice unless the caller asks for it: libraries send signed bytes again by themselves,
up to five times. Every member of a batch's answer must name its question. Neither the node's address nor what lets us in
is ever shown: with many services the address contains the key.

Source: JSON-RPC 2.0. What a kind of node does otherwise is its subclass's: `chain.bitcoin.node`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, Final, Protocol, TypeVar

import aiohttp
import orjson

from chain.errors import NodeUnavailable, UnreadableAnswer
from chain.rate_limit import RateLimit, TokenBucket
from kernel import tracing

TIMEOUT_S: Final = 10.0
ATTEMPTS_MAX: Final = 3
BACKOFF_BASE_S: Final = 0.1
RETRY_AFTER_MAX_S: Final = 5.0
"""A node that asks for more patience than this is treated as one that does not answer."""
RATE_WAIT_MAX_MS: Final = 30_000
"""Requests that would wait longer for their turn are refused here: the queue is bounded."""
CONNECTIONS_MAX: Final = 16
MESSAGE_LENGTH_MAX: Final = 300
BATCH_MAX: Final = 100
"""Members of one batch: providers refuse larger ones (geth's default limit is 1,000)."""
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""A full block with its receipts has a few megabytes; an answer without end fills the memory."""
RECURSION_MAX: Final = 10_240
"""How deep Python may recurse while an answer is read. A library for elliptic curves raises it so far
that, up to Python 3.11, brackets in brackets overflow the stack and end the process."""
TOO_MANY_REQUESTS: Final = 429

Call = tuple[str, Sequence[Any]]
"""A method and its parameters."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Shaped(Protocol[T_co]):
    """An answer that was decoded into a declared form; without a result there is an error in it."""

    @property
    def id(self) -> int:
        """Which question it answers."""
        ...

    @property
    def result(self) -> T_co | None:
        """What was asked for."""
        ...


class RpcRefusal(NodeUnavailable):
    """The node answered with an error object."""

    def __init__(self, method: str, code: int, message: str) -> None:
        self.method = method
        self.code = code
        self.message = readable(message)
        super().__init__(f"the node refuses {method}: {self.message}", where=f"code {code}")


class RateLimited(NodeUnavailable):
    """The node answers 429: too many requests. *retry_after_s* is what it asks for, 0 if nothing."""

    def __init__(self, method: str, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(
            f"the node does not answer {method}: too many requests (429)",
            remedy="Set a rate limit for this provider that its contract allows",
        )


class Rpc:
    """A node's JSON-RPC endpoint."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = TIMEOUT_S,
        attempts: int = ATTEMPTS_MAX,
        limit: RateLimit | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Speak to *url*; nothing is opened yet. Call `close` in the end.

        Args:
            url: where the node listens.
            timeout_s: for one request and its whole answer.
            attempts: how often a question is asked; one where another provider can be asked instead.
            limit: how many requests per second the node may be asked; None for no limit.
            clock_s: the time, in monotonic seconds.
        """
        self._url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._attempts = attempts
        self._bucket = None if limit is None else TokenBucket(limit)
        self._clock_s = clock_s
        self._ids = count(1)
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
            NodeUnavailable: no answer after all attempts (`RateLimited`: it said 429).
            UnreadableAnswer: not a JSON-RPC answer.
        """
        return await self._insist(partial(self.ask_once, method, *params))

    async def ask_once(self, method: str, *params: Any) -> Any:
        """Return the result of a request that is sent exactly once."""
        await self._wait_turn(1, method)
        question = self._question(method, params)
        answer = await self._post(method, question)
        result = read_result(method, answer)
        if answer.get("id") != question["id"]:
            raise UnreadableAnswer(f"the answer to {method} is one to another question")
        return result

    async def ask_shaped(self, read: Callable[[bytes], Shaped[T]], method: str, *params: Any) -> T:
        """Return the result of a question whose answer *read* decodes: for what is large.

        Raises:
            RpcRefusal: the node answered with an error.
            NodeUnavailable: no answer after all attempts.
            UnreadableAnswer: not an answer of that form.
        """
        return await self._insist(partial(self._ask_shaped_once, read, method, params))

    async def _ask_shaped_once(
        self, read: Callable[[bytes], Shaped[T]], method: str, params: Sequence[Any]
    ) -> T:
        await self._wait_turn(1, method)
        question = self._question(method, params)
        body = await self._fetch(method, question)
        answer = _parse(method, body, read)
        if answer.id != question["id"]:
            raise UnreadableAnswer(f"the answer to {method} is one to another question")
        if answer.result is None:
            read_result(method, _parse(method, body, self.read))
            raise UnreadableAnswer(f"the answer to {method} has no result")
        return answer.result

    async def ask_many(self, calls: Sequence[Call]) -> list[Any | RpcRefusal]:
        """Return the results of *calls*, in order, asked in batches of up to `BATCH_MAX`.

        A call that the node refuses has the refusal in its place, which is not raised.

        Raises:
            RpcRefusal: the node refuses the batch as a whole.
            NodeUnavailable: no answer after all attempts.
            UnreadableAnswer: not a JSON-RPC answer to exactly these questions.
        """
        results: list[Any | RpcRefusal] = []
        for first in range(0, len(calls), BATCH_MAX):
            batch = calls[first : first + BATCH_MAX]
            results += await self._insist(partial(self.ask_many_once, batch))
        return results

    async def ask_many_once(self, calls: Sequence[Call]) -> list[Any | RpcRefusal]:
        """Return the results of up to `BATCH_MAX` calls that are sent exactly once, in one batch."""
        if len(calls) > BATCH_MAX:
            raise ValueError(f"a batch of {len(calls)} calls, the limit is {BATCH_MAX}")
        if not calls:
            return []
        what = f"a batch of {len(calls)} ({calls[0][0]})"
        await self._wait_turn(len(calls), what)
        body = [self._question(method, params) for method, params in calls]
        answer = await self._post(what, body)
        return _results(what, calls, [item["id"] for item in body], answer)

    # ------------------------------------------------------------------ what a kind of node may do otherwise

    def headers(self) -> Mapping[str, str]:
        """Return what every request carries, besides its type; what lets us in, say."""
        return {}

    def read(self, body: bytes) -> Any:
        """Return the value that *body* holds; a ``ValueError`` says that it holds none."""
        return orjson.loads(body)

    def check_status(self, what: str, response: aiohttp.ClientResponse, body: bytes) -> None:  # noqa: ARG002  others look into the body
        """Raise what a status other than success means, unless *body* is to be read all the same."""
        response.raise_for_status()

    # ------------------------------------------------------------------ how it is asked

    def _question(self, method: str, params: Sequence[Any]) -> dict[str, Any]:
        return {
            "jsonrpc": "2.0",
            "id": next(self._ids),
            "method": method,
            "params": list(params),
        }

    async def _post(self, what: str, question: object) -> Any:
        return _parse(what, await self._fetch(what, question), self.read)

    async def _fetch(self, what: str, question: object) -> bytes:
        session = await self._open()
        headers = {"Content-Type": "application/json", **self.headers()}
        data = orjson.dumps(question)
        try:
            with tracing.calling(f"node {what}"):
                async with session.post(
                    self._url,
                    data=data,
                    headers=headers,
                    timeout=self._timeout,
                    # What is sent once is not sent on to where the node says.
                    allow_redirects=False,
                ) as response:
                    body = await response.read()
                    self.check_status(what, response, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise unavailable(what, error) from None
        return body

    async def _insist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        for tried in range(1, self._attempts + 1):
            wait_s = BACKOFF_BASE_S * 2 ** (tried - 1)
            try:
                return await attempt()
            except RpcRefusal:
                raise
            except RateLimited as limited:
                if tried == self._attempts or limited.retry_after_s > RETRY_AFTER_MAX_S:
                    raise
                wait_s = max(wait_s, limited.retry_after_s)
            except NodeUnavailable:
                if tried == self._attempts:
                    raise
            await asyncio.sleep(wait_s)
        raise AssertionError("a question is asked at least once")

    async def _wait_turn(self, requests: int, what: str) -> None:
        if self._bucket is None:
            return
        wait_ms = self._bucket.take(requests, self._clock_s())
        if wait_ms > RATE_WAIT_MAX_MS:
            self._bucket.take(-requests, self._clock_s())
            raise NodeUnavailable(f"{what} would wait {wait_ms} ms for its turn at the node")
        if wait_ms > 0:
            await asyncio.sleep(wait_ms * 0.001)

    async def _open(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._session is None:
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
                    response_class=_BoundedResponse,
                )
            return self._session


class _BoundedResponse(aiohttp.ClientResponse):
    """An answer that is read up to `ANSWER_BYTES_MAX` and not further."""

    async def read(self) -> bytes:
        if self._body is None:
            try:
                self._body = await self._read_bounded()
            except BaseException:
                self.close()
                raise
        return self._body

    async def _read_bounded(self) -> bytes:
        parts, size = [], 0
        async for part in self.content.iter_any():
            size += len(part)
            if size > ANSWER_BYTES_MAX:
                raise aiohttp.ClientPayloadError(f"more than {ANSWER_BYTES_MAX} bytes")
            parts.append(part)
        return b"".join(parts)


def readable(text: str) -> str:
    """Return the beginning of what a node says in words, fit to be shown and stored.

    No database takes a zero byte, or half of a surrogate pair.
    """
    return "".join(sign if sign.isprintable() else "?" for sign in text[:MESSAGE_LENGTH_MAX])


def _parse(what: str, body: bytes, read: Callable[[bytes], T]) -> T:
    if sys.getrecursionlimit() > RECURSION_MAX:
        sys.setrecursionlimit(RECURSION_MAX)
    try:
        return read(body)
    except (ValueError, RecursionError):
        # Brackets in brackets without end are an error of recursion, not of form.
        raise UnreadableAnswer(f"the node's answer to {what} is not JSON-RPC") from None


def unavailable(what: str, error: Exception) -> NodeUnavailable:
    """Return what an error on the way to the node means, without anything secret."""
    if isinstance(error, aiohttp.ClientResponseError) and error.status == TOO_MANY_REQUESTS:
        asked = "" if error.headers is None else error.headers.get("Retry-After", "")
        return RateLimited(what, int(asked) if asked.isascii() and asked.isdecimal() else 0)
    # The address is left out, and so is the cause that shows it: with many services it contains the key.
    reason = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    if isinstance(error, aiohttp.InvalidURL):
        reason = "the address is not valid"
    status = f"{error.status} " if isinstance(error, aiohttp.ClientResponseError) else ""
    said = f"{type(error).__name__}: {status}{reason}"[:MESSAGE_LENGTH_MAX]
    return NodeUnavailable(f"the node does not answer {what}: {said}")


def _results(
    what: str, calls: Sequence[Call], ids: Sequence[int], answer: object
) -> list[Any | RpcRefusal]:
    if isinstance(answer, dict):
        read_result(what, answer)
    if not isinstance(answer, list):
        raise UnreadableAnswer(f"the answer to {what} is not a batch")
    found = {}
    for item in answer:
        body = _object(item, f"a member of the answer to {what}")
        found[body.get("id") if isinstance(body.get("id"), int) else None] = body
    if len(answer) != len(calls) or found.keys() != set(ids):
        raise UnreadableAnswer(f"the answer to {what} does not answer each question once")
    results: list[Any | RpcRefusal] = []
    for number, (method, _) in zip(ids, calls, strict=True):
        try:
            results.append(read_result(method, found[number]))
        except RpcRefusal as refusal:
            results.append(refusal)
    return results


def read_result(method: str, answer: object) -> Any:
    """Return the result in an answer.

    Raises:
        RpcRefusal: there is an error instead.
        UnreadableAnswer: there is neither.
    """
    body = _object(answer, f"the answer to {method}")
    if body.get("error") is not None:
        error = _object(body["error"], "the error")
        code = error.get("code")
        message = str(error.get("message", ""))
        raise RpcRefusal(method, code if isinstance(code, int) else 0, message)
    if "result" not in body:
        raise UnreadableAnswer(f"the answer to {method} has no result")
    return body["result"]


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UnreadableAnswer(f"{what} is not an object")
    return value
