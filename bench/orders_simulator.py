"""How many orders a second does the venue simulator take from a client that does nothing but send?

The simulator runs as a process of its own with the settings it has by default: a lively market, a
journal that is on the disk before an order is answered, checkpoints. This process is the load
generator. It speaks Binance's dialect over a few raw sockets: `POST /api/v3/order` with HTTP/1.1
keep-alive, signed beforehand, a number of requests on their way on each socket at any time.

Two accounts buy and sell at prices close to the middle, so that about half of the orders trades and
none is refused. Every answer is read; one that is not 200 is an error.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import random
import selectors
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from bench.measure import Measured, Result, Shared, Turn, alternate, percentile, versions
from kernel.clock import SystemClock, to_unix_ms
from venues.simulator.testing import SimulatorProcess

SEED: Final = 7
ORDERS: Final = 4_000
SOCKETS: Final = 32
"""One request of each is worked on at a time, so that as many orders share an fsync."""

ON_THEIR_WAY: Final = 8
"""Requests sent on a socket before the answer to the first of them is read."""
SYMBOL: Final = "ETHUSDT"
MID_CENTS: Final = 300_000
NEAR_CENTS: Final = 100
AT_LEAST: Final = 3_000
FSYNCS: Final = 200
ANSWER_S_MAX: Final = 30.0
_STATUS: Final = b"HTTP/1.1 "
_GOOD: Final = b"HTTP/1.1 200 "


def measure(shared: Shared) -> Measured:
    """Send the same number of orders in every turn, to one simulator."""
    simulator = shared.once(_simulator)
    chance = random.Random(SEED)
    rates = alternate({"orders": lambda: _turn(simulator, chance)})
    with tempfile.TemporaryDirectory() as directory:
        fsync_ms = _fsync_ms(Path(directory))
    return Measured(
        [
            Result(
                name="orders_simulator", value=rates["orders"], unit="orders/s", at_least=AT_LEAST
            )
        ],
        {
            "input": (
                f"{ORDERS:,} limit orders a turn over {SOCKETS} sockets, {ON_THEIR_WAY} on their "
                f"way on each, signed beforehand"
            ),
            "simulator": "a process of its own, default settings: answers wait for the journal's fsync",
            "fsync": f"{fsync_ms:.2f} ms of a line of 300 bytes on this disk (median)",
        },
        versions("aiohttp", "orjson", "msgspec"),
    )


@contextmanager
def _simulator() -> Iterator[SimulatorProcess]:
    with (
        tempfile.TemporaryDirectory() as directory,
        SimulatorProcess(Path(directory) / "venue", "--more-accounts", "other") as running,
    ):
        yield running


def _turn(simulator: SimulatorProcess, chance: random.Random) -> Turn:
    accounts = simulator.ready["accounts"]
    requests = [_request(accounts[number % 2], chance) for number in range(ORDERS)]
    address = urlsplit(simulator.url)
    shares = [requests[start::SOCKETS] for start in range(SOCKETS)]
    lanes = [_Lane(_connected(address.hostname, address.port), share) for share in shares]

    def turn() -> int:
        with selectors.DefaultSelector() as selector:
            for lane in lanes:
                selector.register(lane.socket, selectors.EVENT_READ, lane)
                lane.send()
            while selector.get_map():
                ready = selector.select(ANSWER_S_MAX)
                if not ready:
                    raise TimeoutError("the simulator has stopped to answer")
                for key, _ in ready:
                    if key.data.receive():
                        selector.unregister(key.fileobj)
                        key.data.socket.close()
        return ORDERS

    return turn


class _Lane:
    """One connection: its requests, and how many were sent and answered."""

    def __init__(self, connection: socket.socket, requests: Sequence[bytes]) -> None:
        self.socket = connection
        self._requests = requests
        self._sent = 0
        self._answered = 0
        self._tail = b""

    def send(self) -> None:
        """Send as many requests as may be on their way."""
        until = self._answered + ON_THEIR_WAY
        batch = self._requests[self._sent : until]
        if batch:
            self.socket.sendall(b"".join(batch))
            self._sent += len(batch)

    def receive(self) -> bool:
        """Read what has come and send on; tell whether the last answer was among it."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the simulator has closed the connection")
        data = self._tail + data
        # A status line may have come in part: it is counted with what comes next. The body of the
        # last answer may still be under way; its order has been taken then.
        whole = max(0, len(data) - len(_GOOD) + 1)
        found = data.count(_STATUS, 0, whole + len(_STATUS) - 1)
        if data.count(_GOOD) != found:
            raise ValueError(f"an order was refused: {data[-600:]!r}")
        self._tail = data[whole:]
        self._answered += found
        self.send()
        return self._answered == len(self._requests)


def _request(account: Mapping[str, Any], chance: random.Random) -> bytes:
    cents = MID_CENTS + chance.randint(-NEAR_CENTS, NEAR_CENTS)
    body = urlencode(
        {
            "symbol": SYMBOL,
            "side": "BUY" if chance.random() < 0.5 else "SELL",
            "type": "LIMIT",
            "timeInForce": "GTC",
            "quantity": "0.0100",
            "price": f"{cents // 100}.{cents % 100:02}",
            "newClientOrderId": f"load-{chance.getrandbits(96):x}",
            "newOrderRespType": "ACK",
            "recvWindow": 60_000,
            "timestamp": to_unix_ms(SystemClock().now()),
        }
    )
    secret = str(account["secret"]).encode()
    signature = hmac.new(secret, body.encode(), hashlib.sha256).hexdigest()
    content = f"{body}&signature={signature}"
    return (
        "POST /api/v3/order HTTP/1.1\r\nHost: simulator\r\n"
        f"X-MBX-APIKEY: {account['api_key']}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(content)}\r\n\r\n{content}"
    ).encode()


def _connected(host: str | None, port: int | None) -> socket.socket:
    connection = socket.create_connection((host, port), timeout=ANSWER_S_MAX)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _fsync_ms(directory: Path) -> float:
    """Return what the disk takes to keep a line of a journal."""
    times = []
    with (directory / "probe").open("ab", buffering=0) as file:
        for _ in range(FSYNCS):
            began = perf_counter()
            file.write(b"x" * 300)
            os.fsync(file.fileno())
            times.append((perf_counter() - began) * 1_000)
    return percentile(times, 50)
