"""A venue that streams a load of depth updates, in a process of its own, and notes when it sent them.

Run as a program (`python -m bench.feed_server PAIRS RATE FRAMES`): it prints its port, answers depth
by REST and subscriptions over the WebSocket as Binance does, and when a line comes on its standard
input it sends FRAMES frames, RATE a second of all pairs together, at random moments. In the end it
prints the times of sending as JSON: [pair, update id, nanoseconds since 1970].
"""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Final

import orjson
from aiohttp import WSMsgType, web

from bench import feed_load
from kernel.clock import SystemClock

SEED: Final = 3
CLOCK: Final = SystemClock()


class Venue:
    """The socket of the one subscriber, and the frames to come."""

    def __init__(self, pairs: int, rate_s: float, count: int) -> None:
        self.rate_s = rate_s
        self.frames = [feed_load.frames(-(-count // pairs), pair) for pair in range(pairs)]
        self.count = count
        self.socket: web.WebSocketResponse | None = None
        self.sent: list[tuple[int, int, int]] = []

    async def depth(self, request: web.Request) -> web.Response:
        """Answer with the book that the load begins with."""
        del request
        return web.Response(body=feed_load.snapshot_body(), content_type="application/json")

    async def stream(self, request: web.Request) -> web.WebSocketResponse:
        """Acknowledge subscriptions as long as the socket is open."""
        self.socket = socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                number = orjson.loads(message.data)["id"]
                await socket.send_str(f'{{"result":null,"id":{number}}}')
        return socket

    async def send(self) -> None:
        """Send every frame at its moment, or at once if that has passed."""
        assert self.socket is not None
        chance = random.Random(SEED)
        turns = [[pair] * len(frames) for pair, frames in enumerate(self.frames)]
        order = [pair for pairs in turns for pair in pairs][: self.count]
        chance.shuffle(order)
        positions = [0] * len(self.frames)
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        for pair in order:
            due_s += chance.expovariate(self.rate_s)
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            frame = self.frames[pair][positions[pair]]
            positions[pair] += 1
            self.sent.append((pair, positions[pair] + 1, CLOCK.now_ns()))
            await self.socket.send_str(frame.decode())


async def main(pairs: int, rate_s: float, count: int) -> None:
    """Serve until all is sent and the standard input ends."""
    venue = Venue(pairs, rate_s, count)
    app = web.Application()
    app.add_routes([web.get("/api/v3/depth", venue.depth), web.get("/stream", venue.stream)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await venue.send()
    print(orjson.dumps(venue.sent).decode(), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
