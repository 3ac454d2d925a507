"""The proxy before a real server: an echo on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from app.faults.proxy import FaultProxy, Target, postgres_target, read_target
from app.faults.wire_rules import Fault, Rule, Step, Way
from kernel.errors import BadInput, OutsideUnavailable

PATIENCE_S: Final = 20.0
SILENT_S: Final = 0.3
"""How long an answer has to fail to come; it can only pass too easily, never fail by itself."""


@contextlib.asynccontextmanager
async def echo(path: Path | None = None) -> AsyncIterator[Target]:
    """Give a server that sends back what it gets."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1024):
                writer.write(data)
                await writer.drain()
        writer.close()

    if path is not None:
        server = await asyncio.start_unix_server(serve, path)
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield path or ("127.0.0.1", server.sockets[0].getsockname()[1])


class Client:
    """Somebody who speaks through the proxy."""

    def __init__(self, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self.reader, self.writer = streams

    async def says(self, data: bytes) -> bytes:
        """Send, and return what comes back until it is as long, or the connection ends."""
        self.writer.write(data)
        with contextlib.suppress(OSError):
            await self.writer.drain()
        return await self.hears(len(data))

    async def hears(self, length: int) -> bytes:
        """Return what comes until it is so long, or the connection ends."""
        heard = b""
        async with asyncio.timeout(PATIENCE_S):
            while len(heard) < length and (piece := await self.reader.read(length - len(heard))):
                heard += piece
        return heard

    async def hears_nothing(self) -> bool:
        """Tell whether the connection is open and silent."""
        try:
            async with asyncio.timeout(SILENT_S):
                await self.reader.read(1)
        except TimeoutError:
            return not self.writer.is_closing()
        return False


@contextlib.asynccontextmanager
async def client_of(proxy: FaultProxy) -> AsyncIterator[Client]:
    streams = await asyncio.open_connection(proxy.host, proxy.port)
    try:
        yield Client(streams)
    finally:
        streams[1].transport.abort()


@contextlib.asynccontextmanager
async def opened(*rules: Rule) -> AsyncIterator[FaultProxy]:
    async with echo() as target, FaultProxy(target, rules=rules) as proxy:
        yield proxy


async def test_without_a_rule_everything_passes_both_ways() -> None:
    said = bytes(range(256)) * 1_000
    async with opened() as proxy, client_of(proxy) as client:
        assert await client.says(said) == said


async def test_the_end_of_one_side_is_told_to_the_other() -> None:
    async with opened() as proxy, client_of(proxy) as client:
        client.writer.write(b"last words")
        client.writer.write_eof()

        assert await client.hears(1_000) == b"last words"


async def test_a_server_on_a_unix_socket_is_reached_over_tcp(tmp_path: Path) -> None:
    async with (
        echo(tmp_path / "s") as target,
        FaultProxy(target) as proxy,
        client_of(proxy) as client,
    ):
        assert await client.says(b"hello") == b"hello"


async def test_a_cut_lets_so_many_bytes_pass_and_ends_the_connection() -> None:
    rule = Rule(fault=Fault.CUT, way=Way.TO_CLIENT, after_bytes=3)
    async with opened(rule) as proxy, client_of(proxy) as client:
        assert await client.says(b"hello") == b"hel"
        assert await client.hears(1) == b""


async def test_a_reset_is_seen_as_one() -> None:
    rule = Rule(fault=Fault.RESET, way=Way.TO_SERVER, after_bytes=5)
    async with opened(rule) as proxy, client_of(proxy) as client:
        client.writer.write(b"hello")
        with pytest.raises(ConnectionResetError):
            await client.hears(6)


async def test_idle_connections_are_cut_as_soon_as_the_rule_says() -> None:
    async with opened() as proxy, client_of(proxy) as client:
        assert await client.says(b"hello") == b"hello"
        proxy.set(Rule(fault=Fault.CUT))

        assert await client.hears(1) == b""


async def test_half_open_swallows_bytes_and_ends_and_a_machine_that_comes_back_resets() -> None:
    async with opened() as proxy, client_of(proxy) as client:
        assert await client.says(b"hello") == b"hello"
        proxy.set(Rule(fault=Fault.SWALLOW))
        client.writer.write(b"anybody there?")
        assert await client.hears_nothing()
        proxy.clear()

        with pytest.raises(ConnectionResetError):
            await client.hears(1)


async def test_half_open_spares_who_lost_nothing() -> None:
    async with opened() as proxy, client_of(proxy) as client:
        assert await client.says(b"hello") == b"hello"
        proxy.set(Rule(fault=Fault.SWALLOW))
        proxy.clear()

        assert await client.says(b"hello") == b"hello"


async def test_one_bit_of_one_byte_is_turned() -> None:
    rule = Rule(fault=Fault.CORRUPT, way=Way.TO_SERVER, after_bytes=1)
    async with opened(rule) as proxy, client_of(proxy) as client:
        assert await client.says(b"hello") == b"hdllo"


async def test_a_rule_sleeps_until_it_hears_its_words_and_loses_the_answer() -> None:
    rule = Rule(fault=Fault.SWALLOW, way=Way.TO_CLIENT, heard="COMMIT")
    async with opened(rule) as proxy, client_of(proxy) as client:
        assert await client.says(b"BEGIN; INSERT;") == b"BEGIN; INSERT;"
        client.writer.write(b"COMMIT;")

        assert await client.hears_nothing()


async def test_a_cut_that_hears_its_words_takes_them_along() -> None:
    rule = Rule(fault=Fault.CUT, way=Way.TO_SERVER, heard="COMMIT", after_bytes=3)
    async with opened(rule) as proxy, client_of(proxy) as client:
        assert await client.says(b"BEGIN;") == b"BEGIN;"
        assert await client.says(b"COMMIT;") in {b"COM", b""}


async def test_what_is_late_or_slow_arrives_whole() -> None:
    rules = (Rule(fault=Fault.DELAY, seconds=0.05), Rule(fault=Fault.RATE, bytes_per_second=100))
    loop = asyncio.get_running_loop()
    async with opened(*rules) as proxy, client_of(proxy) as client:
        began = loop.time()
        assert await client.says(b"hello" * 2) == b"hello" * 2
        # Twice 0.05 s late and twice 10 bytes at 100 bytes a second; slower is always possible.
        assert loop.time() - began >= 0.29


async def test_so_many_connections_are_refused_and_the_next_ones_pass() -> None:
    async with opened(Rule(fault=Fault.REFUSE, skip=1, times=1)) as proxy:
        async with client_of(proxy) as first:
            assert await first.says(b"hello") == b"hello"
        async with client_of(proxy) as second:
            with pytest.raises(ConnectionResetError):
                await second.hears(1)
        async with client_of(proxy) as third:
            assert await third.says(b"hello") == b"hello"


async def test_a_server_that_is_not_there_resets_its_clients() -> None:
    async with echo() as target:
        pass
    async with FaultProxy(target) as proxy, client_of(proxy) as client:
        with pytest.raises(ConnectionResetError):
            await client.hears(1)


async def test_a_storm_is_played_in_order() -> None:
    async with opened() as proxy, client_of(proxy) as client:
        refuse = (Rule(fault=Fault.REFUSE),)
        await proxy.play([Step(0.0, refuse), Step(0.01, ())])

        assert proxy.show()["rules"] == []
        assert await client.says(b"hello") == b"hello"


async def test_stopping_does_not_wait_for_a_delay() -> None:
    rule = Rule(fault=Fault.DELAY, seconds=80_000.0)
    async with asyncio.timeout(PATIENCE_S):
        async with opened(rule) as proxy, client_of(proxy) as client:
            client.writer.write(b"hello")
            assert await client.hears_nothing()


async def test_the_control_address_sets_shows_and_clears_rules() -> None:
    async with (
        echo() as target,
        FaultProxy(target, control_port=0) as proxy,
        aiohttp.ClientSession() as session,
    ):
        async with session.put(proxy.control_url, json=[{"fault": "refuse", "times": 1}]) as answer:
            assert answer.status == 200
        async with client_of(proxy) as client:
            with pytest.raises(ConnectionResetError):
                await client.hears(1)
        async with session.get(proxy.control_url) as answer:
            assert await answer.json() == {
                "rules": [{"fault": "refuse", "times": 1, "seen": 1, "struck": 1}],
                "connections": {"open": 0, "ever": 1},
            }
        async with session.put(proxy.control_url, json=[{"fault": "burn"}]) as answer:
            assert answer.status == 400
            assert "no fault 'burn'" in (await answer.json())["error"]
        async with session.delete(proxy.control_url) as answer:
            assert (await answer.json())["rules"] == []


async def test_a_port_of_somebody_else_is_said_so() -> None:
    async with opened() as proxy:
        with pytest.raises(OutsideUnavailable, match="already in use"):
            await FaultProxy(proxy.target, port=proxy.port).start()


def test_a_server_is_named_by_host_and_port_or_by_its_socket() -> None:
    assert read_target("127.0.0.1:8545") == ("127.0.0.1", 8545)
    assert read_target("[::1]:8545") == ("::1", 8545)
    assert read_target("unix:/run/pg/.s.PGSQL.5432") == Path("/run/pg/.s.PGSQL.5432")
    for nothing in ("localhost", ":1", "host:port"):
        with pytest.raises(BadInput, match="names no server"):
            read_target(nothing)


def test_the_server_of_a_database_url_is_found() -> None:
    assert postgres_target("postgresql+asyncpg://u@/d?host=/run/pg&port=6000") == Path(
        "/run/pg/.s.PGSQL.6000"
    )
    assert postgres_target("postgresql+asyncpg://u@db.example/d") == ("db.example", 5432)


async def test_the_command_announces_itself_and_ends_with_its_parent() -> None:
    async with echo() as target:
        assert isinstance(target, tuple)
        host, port = target
        command = ("simulate", "wire", "--to", f"{host}:{port}", "--parent-pipe", "--seed", "7")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from app.cli import main; main()", *command),
            *("--storm-seconds", "0"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        async with asyncio.timeout(60):
            ready = json.loads(await process.stdout.readline())
            streams = await asyncio.open_connection(ready["host"], ready["port"])
            assert await Client(streams).says(b"hello") == b"hello"
            async with (
                aiohttp.ClientSession() as session,
                session.put(ready["control"], json=[{"fault": "cut"}]) as answer,
            ):
                assert answer.status == 200
            assert await Client(streams).hears(1) == b""
            streams[1].close()
            process.stdin.close()
            assert await process.wait() == 0
