"""The transport before a node that answers out of form, too much, or too often with 429."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from aiohttp import web

import chain.jsonrpc
from chain.bitcoin.node import NodeRpc
from chain.bitcoin.shown import read_block_answer
from chain.errors import NodeUnavailable, UnreadableAnswer
from chain.jsonrpc import BATCH_MAX, RateLimited, Rpc, RpcRefusal
from chain.rate_limit import RateLimit

Answer = Callable[[Any], Awaitable[web.StreamResponse]]


@dataclass
class Node:
    """Answers what the test says, one entry of *script* per request, then echoes."""

    url: str = ""
    script: deque[web.Response] = field(default_factory=deque)
    asked: list[Any] = field(default_factory=list)
    reorder: bool = False

    async def serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        if self.script:
            return self.script.popleft()
        if isinstance(body, dict):
            return web.json_response(echo(body))
        answers = [echo(item) for item in body]
        return web.json_response(answers[::-1] if self.reorder else answers)


def echo(body: dict[str, Any]) -> dict[str, Any]:
    answer = {"jsonrpc": "2.0", "id": body["id"]}
    if body["method"] == "refuse":
        return answer | {"error": {"code": -32000, "message": "no"}}
    return answer | {"result": body["params"]}


def limited(retry_after: str | None = None) -> web.Response:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return web.Response(status=429, headers=headers)


@pytest.fixture
async def node(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr(chain.jsonrpc, "BACKOFF_BASE_S", 0.001)
    made = Node()
    app = web.Application()
    app.router.add_post("/", made.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield made
    await runner.cleanup()


@pytest.fixture
async def rpc(node: Node) -> AsyncIterator[Rpc]:
    made = Rpc(node.url, timeout_s=2.0)
    yield made
    await made.close()


async def test_a_batch_is_answered_in_the_order_of_the_questions(node: Node, rpc: Rpc) -> None:
    node.reorder = True

    first, refusal, third = await rpc.ask_many([("a", [1]), ("refuse", []), ("b", [3])])

    assert (first, third) == ([1], [3])
    assert isinstance(refusal, RpcRefusal)
    assert (refusal.method, refusal.code, refusal.message) == ("refuse", -32000, "no")
    assert len(node.asked) == 1


@pytest.fixture
def raised_recursion_limit() -> Iterator[None]:
    """Let Python recurse as deep as the curves' library, which eth_account imports, lets it."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("raised_recursion_limit")
@pytest.mark.parametrize("body", ["[" * 200_000, '{"x":' * 200_000, '{"id":1,"x":' + "[" * 10**6])
async def test_an_answer_of_brackets_without_end_is_not_an_answer(
    node: Node, rpc: Rpc, body: str
) -> None:
    exact = NodeRpc(node.url, user="a", password="b", attempts=1)
    node.script.extend(web.Response(text=body) for _ in range(3))
    with pytest.raises(UnreadableAnswer):
        await rpc.ask_once("a")
    with pytest.raises(UnreadableAnswer):
        await exact.ask_once("a")
    with pytest.raises(UnreadableAnswer):
        await exact.ask_shaped(read_block_answer, "a")
    await exact.close()


async def test_what_is_sent_once_is_not_sent_on_to_where_the_node_says(
    node: Node, rpc: Rpc
) -> None:
    for status in (301, 302, 303, 307, 308):
        node.script.append(web.Response(status=status, headers={"Location": node.url}))
        with pytest.raises(UnreadableAnswer):
            await rpc.ask_once("a")
    assert len(node.asked) == 5


async def test_what_a_node_says_in_words_can_be_stored(node: Node, rpc: Rpc) -> None:
    error = {"code": -1, "message": "no\x00\n" + "x" * 1_000}
    node.script.append(web.json_response({"jsonrpc": "2.0", "id": 1, "error": error}))
    with pytest.raises(RpcRefusal) as refused:
        await rpc.ask_once("a")
    assert refused.value.message == "no??" + "x" * 296


@dataclass
class Shape:
    """What `ask_shaped` is given."""

    id: int
    result: Any | None = None


def shape(body: bytes) -> Shape:
    said = orjson.loads(body)
    return Shape(said["id"], said.get("result"))


async def test_an_answer_in_a_declared_form_is_to_this_question_or_none(
    node: Node, rpc: Rpc
) -> None:
    assert await rpc.ask_shaped(shape, "a", 1) == [1]
    with pytest.raises(RpcRefusal, match="no"):
        await rpc.ask_shaped(shape, "refuse")
    for said in ({"id": 99, "result": 1}, {"id": 4}):
        node.script.append(web.json_response(said))
        with pytest.raises(UnreadableAnswer):
            await rpc.ask_shaped(shape, "a")


async def test_many_questions_go_out_in_batches_of_bounded_size(node: Node, rpc: Rpc) -> None:
    count = 2 * BATCH_MAX + 1

    results = await rpc.ask_many([("a", [number]) for number in range(count)])

    assert results == [[number] for number in range(count)]
    assert [len(batch) for batch in node.asked] == [BATCH_MAX, BATCH_MAX, 1]
    assert await rpc.ask_many([]) == []
    with pytest.raises(ValueError, match="limit"):
        await rpc.ask_many_once([("a", [])] * (BATCH_MAX + 1))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param([{"id": 1, "result": 1}], id="one is missing"),
        pytest.param([{"id": 1, "result": 1}, {"id": 1, "result": 2}], id="one twice"),
        pytest.param([{"id": 1, "result": 1}, {"id": 7, "result": 2}], id="another's"),
        pytest.param([{"id": 1, "result": 1}, {"id": None, "result": 2}], id="without id"),
        pytest.param([{"id": 1, "result": 1}, {"result": 2}], id="id missing"),
        pytest.param([{"id": 1, "result": 1}, {"id": 2}], id="no result"),
        pytest.param([{"id": 1, "result": 1}, 2], id="no object"),
        pytest.param([], id="empty"),
        pytest.param("0x", id="text"),
    ],
)
async def test_a_batch_whose_answers_do_not_name_their_questions_is_unreadable(
    node: Node, rpc: Rpc, answer: object
) -> None:
    node.script.append(web.json_response(answer))

    with pytest.raises(UnreadableAnswer):
        await rpc.ask_many([("a", []), ("b", [])])


async def test_an_answer_to_another_question_is_unreadable(node: Node, rpc: Rpc) -> None:
    node.script.append(web.json_response({"jsonrpc": "2.0", "id": 7_000, "result": 1}))

    with pytest.raises(UnreadableAnswer, match="another question"):
        await rpc.ask_once("a", 1)


async def test_a_batch_refused_as_a_whole_is_a_refusal(node: Node, rpc: Rpc) -> None:
    error = {"id": None, "error": {"code": -32600, "message": "batches are not supported"}}
    node.script.append(web.json_response(error))

    with pytest.raises(RpcRefusal, match="not supported"):
        await rpc.ask_many([("a", [])])


async def test_429_is_asked_again_no_sooner_than_the_node_says(
    node: Node, rpc: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    node.script.extend([limited("2"), limited()])

    assert await rpc.ask("a", 1) == [1]
    assert slept == [2, 0.002]


async def test_429_that_asks_for_too_much_patience_is_no_answer(node: Node, rpc: Rpc) -> None:
    node.script.append(limited("3600"))

    with pytest.raises(RateLimited) as failure:
        await rpc.ask("a")

    assert failure.value.retry_after_s == 3600
    assert len(node.asked) == 1


@pytest.mark.parametrize("ask", ["ask_once", "ask_many_once"])
async def test_what_is_sent_once_is_sent_once_whatever_the_node_answers(
    node: Node, rpc: Rpc, ask: str
) -> None:
    node.script.append(limited("0"))

    with pytest.raises(RateLimited):
        await (rpc.ask_once("a") if ask == "ask_once" else rpc.ask_many_once([("a", [])]))

    assert len(node.asked) == 1


@pytest.mark.parametrize("many", [False, True])
async def test_an_answer_without_end_is_cut_off(
    node: Node, rpc: Rpc, monkeypatch: pytest.MonkeyPatch, *, many: bool
) -> None:
    monkeypatch.setattr(chain.jsonrpc, "ANSWER_BYTES_MAX", 1_000)
    monkeypatch.setattr(chain.jsonrpc, "ATTEMPTS_MAX", 1)
    node.script.extend(web.Response(body=b"x" * 2_000) for _ in range(3))

    with pytest.raises(NodeUnavailable, match="more than 1000 bytes"):
        await (rpc.ask_many([("a", [])]) if many else rpc.ask("a"))


async def test_the_address_of_a_node_is_in_no_error_because_it_may_hold_a_key() -> None:
    rpc = Rpc("http://127.0.0.1:9/v3/secret-key")

    for question in (rpc.ask_once("a"), rpc.ask_many_once([("a", [])])):
        with pytest.raises(NodeUnavailable) as failure:
            await question
        assert "secret-key" not in str(failure.value)

    await rpc.close()


async def test_requests_wait_for_their_turn_and_a_queue_too_long_is_refused(node: Node) -> None:
    rpc = Rpc(node.url, limit=RateLimit(per_second=1, burst=2), clock_s=lambda: 1.0)

    assert await rpc.ask("a", 1) == [1]
    with pytest.raises(NodeUnavailable, match="its turn"):
        await rpc.ask_many_once([("a", [])] * 50)
    assert await rpc.ask("a", 2) == [2]

    assert len(node.asked) == 2
    await rpc.close()
