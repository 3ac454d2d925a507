"""A stub that serves a `LongChain` as a bitcoind would, from memory and in a process of its own."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

import orjson
from aiohttp import web

from bench.bitcoin_chain import LongChain
from chain.bitcoin.gateway import GENESIS

STOP_S: Final = 5.0


@contextmanager
def serving(chain: LongChain) -> Iterator[str]:
    """Serve *chain* for the length of a ``with`` block; give the address."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(chain, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join(STOP_S)


def _serve(chain: LongChain, ready: Connection) -> None:
    heights = {block_hash: height for height, block_hash in enumerate(chain.hashes)}

    def answer(call: dict[str, Any]) -> bytes:
        head = b'{"jsonrpc": "2.0", "id": %d, "result": ' % call["id"]
        return head + _result(chain, heights, call["method"], call["params"]) + b"}"

    async def post(request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        if isinstance(body, list):
            said = b"[" + b", ".join(map(answer, body)) + b"]"
        else:
            said = answer(body)
        return web.Response(body=said, content_type="application/json")

    async def started(_: web.Application) -> None:
        ready.send(f"http://127.0.0.1:{port}/")

    app = web.Application()
    app.router.add_post("/", post)
    app.on_startup.append(started)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        web.run_app(app, sock=sock, print=None, access_log=None)


def _result(chain: LongChain, heights: dict[str, int], method: str, params: list[Any]) -> bytes:
    match method:
        case "getblockchaininfo":
            return b'{"chain": "regtest"}'
        case "getbestblockhash":
            return orjson.dumps(chain.hashes[-1])
        case "getblockhash":
            # The first block is asked for to know the network, and never read.
            return orjson.dumps(chain.hashes[params[0]] if params[0] else GENESIS["regtest"])
        case "getblockheader":
            return chain.header(heights[params[0]])
        case "getblock":
            return chain.block(heights[params[0]])
        case _:
            raise AssertionError(f"the stub does not answer {method}")
