"""A node that stands before a real one and changes what it says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from chain.bitcoin.gateway import BitcoinGateway
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.node import NodeRpc
from chain.simulators.bitcoind import Bitcoind, NodeRefusal

USER, PASSWORD = "watcher", "right-password"

Lie = Callable[[str, list[Any], Any], Any]


def truth(method: str, params: list[Any], answer: Any) -> Any:
    """Say what the node says."""
    del method, params
    return answer


@dataclass
class Liar:
    """Passes questions on and changes the answers.

    Attributes:
        lie: what becomes of an answer, by method and parameters.
        refuse: statuses with which the next requests are answered instead.
        errors: errors with which the next calls are answered instead.
    """

    node: Bitcoind
    lie: Lie = truth
    refuse: list[tuple[int, str]] = field(default_factory=list)
    errors: list[tuple[int, str]] = field(default_factory=list)
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def gateway(self, *, attempts: int = 1, name: str | None = None) -> BitcoinGateway:
        """Return a gateway to this node; it is not opened."""
        rpc = NodeRpc(self.url, user=USER, password=PASSWORD, attempts=attempts, timeout_s=5.0)
        return BitcoinGateway(self.url, chain="bitcoin", network=REGTEST, rpc=rpc, name=name)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if self.refuse:
            status, text = self.refuse.pop(0)
            return web.Response(status=status, text=text)
        body = await request.json()
        if isinstance(body, list):
            return web.json_response([await self._answer(item) for item in body])
        return web.json_response(await self._answer(body))

    async def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        method, params = body["method"], body["params"]
        self.asked.append(method)
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": body["id"]}
        if self.errors and params[:1] != ["abort"]:
            code, message = self.errors.pop(0)
            return answer | {"error": {"code": code, "message": message}}
        try:
            said = await self.node.call(method, *params)
        except NodeRefusal as refusal:
            return answer | {"error": {"code": refusal.code, "message": refusal.message}}
        return answer | {"result": self.lie(method, params, said)}


@asynccontextmanager
async def lying(node: Bitcoind, lie: Lie = truth) -> AsyncIterator[Liar]:
    """Serve a liar before *node*."""
    made = Liar(node, lie)
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/", made.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        yield made
    finally:
        await runner.cleanup()
