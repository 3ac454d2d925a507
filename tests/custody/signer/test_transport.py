"""Doors of the signer, over real sockets: who is let in, who is not, and for how long."""

from __future__ import annotations

import asyncio
import socket
import ssl
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from custody.signer import transport
from custody.signer.certificates import (
    Pair,
    issue_client,
    issue_signer,
    make_authority,
    write_house,
)
from custody.signer.errors import SignerRefused
from custody.signer.frames import FRAME_BYTES_MAX, read_frame, write_body
from custody.signer.transport import (
    Endpoint,
    TlsEndpoint,
    TlsFiles,
    dial,
    listening,
    parse_endpoint,
)
from kernel.clock import SystemClock
from kernel.errors import BadInput, SecretUnreadable

NOW = SystemClock().now()
HOST = "127.0.0.1"


@pytest.fixture
def folder() -> Iterator[Path]:
    # A socket's path is at most 107 bytes long: pytest's own folders may be longer.
    with tempfile.TemporaryDirectory(prefix="cw") as name:
        yield Path(name)


def files_of(folder: Path, name: str, authority: Pair, pair: Pair) -> TlsFiles:
    """Write a side's files under *name*, trusting *authority*."""
    place = folder / name
    place.mkdir()
    anchor = place / "authority.pem"
    anchor.write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    return TlsFiles(anchor, *pair.write(place, name))


def echo(body: bytes, peer: str) -> bytes:
    return peer.encode() + b" said " + body


async def ask(endpoint: Endpoint, question: bytes = b"hello") -> bytes:
    async with asyncio.timeout(10):
        reader, writer = await dial(endpoint)
        try:
            await write_body(writer, question)
            return await read_frame(reader)
        finally:
            writer.transport.abort()


@asynccontextmanager
async def tls_door(files: TlsFiles) -> AsyncIterator[int]:
    async with listening(echo, TlsEndpoint(HOST, 0, files)) as address:
        endpoint = parse_endpoint(address, files)
        assert isinstance(endpoint, TlsEndpoint)
        yield endpoint.port


async def test_a_question_over_the_unix_socket_is_answered(folder: Path) -> None:
    path = folder / "s"
    async with listening(echo, path) as address:
        assert address == str(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (await ask(path)).endswith(b" said hello")

    assert not path.exists()
    with pytest.raises(OSError, match="No such file"):
        await ask(path)


async def test_a_question_over_mutual_tls_is_answered_under_the_certificates_name(
    folder: Path,
) -> None:
    house = write_house(folder, HOST, NOW)
    async with tls_door(house["signer"]) as port:
        endpoint = TlsEndpoint(HOST, port, house["client"])
        assert await ask(endpoint) == b"causeway said hello"
        reader, writer = await dial(endpoint)
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        for number in range(3):
            await write_body(writer, b"%d" % number)
            assert await read_frame(reader) == b"causeway said %d" % number
        writer.close()


def test_the_files_of_both_sides_are_made_private_and_the_authoritys_key_is_not_kept(
    folder: Path,
) -> None:
    house = write_house(folder, HOST, NOW)

    assert repr(house["client"]).count("client.key") == 1
    assert all(stat.S_IMODE(item.stat().st_mode) == 0o600 for item in folder.iterdir())
    assert {item.name for item in folder.iterdir()} == {
        "authority.pem",
        "signer.pem",
        "signer.key",
        "client.pem",
        "client.key",
    }


async def test_a_client_of_another_authority_is_refused(folder: Path) -> None:
    house = write_house(folder, HOST, NOW)
    theirs = make_authority(NOW)
    stranger = files_of(folder, "stranger", theirs, issue_client(theirs, NOW))
    async with tls_door(house["signer"]) as port:
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await ask(
                TlsEndpoint(HOST, port, replace(stranger, authority=house["client"].authority))
            )
        assert await ask(TlsEndpoint(HOST, port, house["client"])) == b"causeway said hello"


async def test_a_signer_of_another_authority_is_not_spoken_to(folder: Path) -> None:
    house = write_house(folder, HOST, NOW)
    theirs = make_authority(NOW)
    impostor = files_of(folder, "impostor", theirs, issue_signer(theirs, HOST, NOW))
    async with tls_door(impostor) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(TlsEndpoint(HOST, port, house["client"]))


async def test_a_signer_with_another_hosts_certificate_is_not_spoken_to(folder: Path) -> None:
    house = write_house(folder, "signer.example", NOW)
    async with tls_door(house["signer"]) as port:
        with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
            await ask(TlsEndpoint(HOST, port, house["client"]))


@pytest.mark.parametrize("side", ["signer", "client"])
async def test_an_expired_certificate_is_refused(folder: Path, side: str) -> None:
    authority = make_authority(NOW - timedelta(days=10))
    then = {"signer": NOW, "client": NOW, side: NOW - timedelta(days=3)}
    signer = files_of(
        folder, "signer", authority, issue_signer(authority, HOST, then["signer"], days=2)
    )
    client = files_of(folder, "client", authority, issue_client(authority, then["client"], days=2))

    async with tls_door(signer) as port:
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await ask(TlsEndpoint(HOST, port, client))


async def test_a_client_without_a_certificate_is_refused(folder: Path) -> None:
    house = write_house(folder, HOST, NOW)
    bare = ssl.create_default_context(cafile=house["client"].authority)
    async with tls_door(house["signer"]) as port, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(HOST, port, ssl=bare)
        writer.write(b"hello")
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await read_frame(reader)
        writer.transport.abort()


async def test_a_certificate_for_signers_opens_no_door_to_one(folder: Path) -> None:
    house = write_house(folder, HOST, NOW)
    async with tls_door(house["signer"]) as port:
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await ask(TlsEndpoint(HOST, port, house["signer"]))


async def test_a_client_whose_name_is_not_expected_is_refused(folder: Path) -> None:
    authority = make_authority(NOW)
    signer = files_of(folder, "signer", authority, issue_signer(authority, HOST, NOW))
    other = files_of(folder, "other", authority, issue_client(authority, NOW, name="reporting"))
    async with tls_door(signer) as port:
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await ask(TlsEndpoint(HOST, port, other))

    named = TlsEndpoint(HOST, 0, signer, peers=frozenset({"reporting"}))
    async with listening(echo, named) as address:
        endpoint = parse_endpoint(address, other)
        assert await ask(endpoint) == b"reporting said hello"


async def test_plaintext_is_refused_and_harms_nobody_else(folder: Path) -> None:
    house = write_house(folder, HOST, NOW)
    async with tls_door(house["signer"]) as port:
        reader, writer = await asyncio.open_connection(HOST, port)
        await write_body(writer, b"hello")
        assert b"said" not in await reader.read()
        writer.close()
        assert await ask(TlsEndpoint(HOST, port, house["client"])) == b"causeway said hello"


async def test_an_older_tls_is_refused(folder: Path) -> None:
    house = write_house(folder, HOST, NOW)
    old = ssl.create_default_context(cafile=house["client"].authority)
    old.load_cert_chain(house["client"].certificate, house["client"].key)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with tls_door(house["signer"]) as port:
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await asyncio.open_connection(HOST, port, ssl=old)


async def test_whoever_says_nothing_is_sent_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "HANDSHAKE_S_MAX", 0.2)
    monkeypatch.setattr(transport, "IDLE_S_MAX", 0.2)
    house = write_house(folder, HOST, NOW)
    async with tls_door(house["signer"]) as port, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(HOST, port)
        assert await reader.read() == b""
        writer.close()
        reader, writer = await dial(TlsEndpoint(HOST, port, house["client"]))
        assert await reader.read() == b""
        writer.close()


async def test_connections_are_bounded_and_a_place_is_free_again_after_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "CONNECTIONS_MAX", 2)
    path = folder / "s"
    async with listening(echo, path):
        held = [await dial(path) for _ in range(2)]
        for reader, writer in held:
            await write_body(writer, b"first")
            await read_frame(reader)
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await ask(path)
        held[0][1].close()
        await held[0][1].wait_closed()
        for _ in range(100):
            try:
                answer = await ask(path)
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.01)
            else:
                break
        else:
            pytest.fail("the place was not given free")
        assert answer.endswith(b" said hello")
        held[1][1].close()


async def test_strangers_at_the_door_are_bounded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "HANDSHAKES_MAX", 2)
    monkeypatch.setattr(transport, "HANDSHAKE_S_MAX", 60.0)
    house = write_house(folder, HOST, NOW)
    async with tls_door(house["signer"]) as port, asyncio.timeout(10):
        waiting = [await asyncio.open_connection(HOST, port) for _ in range(2)]
        await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_connection(HOST, port)
        assert await reader.read() == b""
        for _, other in [*waiting, (reader, writer)]:
            other.transport.abort()


@pytest.mark.parametrize("nonsense", [b"\xff\xff\xff\xff", b"\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_frame_out_of_bounds_ends_the_connection(folder: Path, nonsense: bytes) -> None:
    path = folder / "s"
    async with listening(echo, path), asyncio.timeout(10):
        reader, writer = await dial(path)
        writer.write(nonsense)
        assert await reader.read() == b""
        writer.close()
        assert (await ask(path)).endswith(b" said hello")


async def test_a_long_question_comes_through(folder: Path) -> None:
    house = write_house(folder, HOST, NOW)
    async with tls_door(house["signer"]) as port:
        question = b"x" * (FRAME_BYTES_MAX - 100)
        answer = await ask(TlsEndpoint(HOST, port, house["client"]), question)

    assert answer == b"causeway said " + question


@pytest.mark.parametrize("kind", [RuntimeError, OSError, TimeoutError])
async def test_an_error_that_is_not_the_askers_ends_the_signer(
    folder: Path, kind: type[Exception]
) -> None:
    # A checkpoint that cannot be written is an OSError, like a connection that is cut.
    def broken(body: bytes, peer: str) -> bytes:
        raise kind(f"cannot remember {body!r} of {peer}")

    async def serve() -> None:
        async with listening(broken, folder / "s"):
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await ask(folder / "s")
            await asyncio.sleep(5)

    with pytest.raises(kind, match="cannot remember b'hello'"):
        await serve()


async def test_an_error_of_the_asker_ends_only_its_connection(folder: Path) -> None:
    def picky(body: bytes, peer: str) -> bytes:
        if body == b"bad":
            raise BadInput("nonsense", where=peer)
        return body

    async with listening(picky, folder / "s"):
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await ask(folder / "s", b"bad")
        assert await ask(folder / "s", b"good") == b"good"


async def test_a_key_that_others_may_read_or_that_needs_a_password_is_refused(
    folder: Path,
) -> None:
    house = write_house(folder, HOST, NOW)
    house["client"].key.chmod(0o644)
    with pytest.raises(SecretUnreadable, match="others may read it"):
        await dial(TlsEndpoint(HOST, 1, house["client"]))

    authority = make_authority(NOW)
    pair = issue_client(authority, NOW)
    locked = files_of(folder, "locked", authority, pair)
    locked.key.write_bytes(
        pair.key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
    )
    with pytest.raises(SecretUnreadable, match="cannot use these TLS files"):
        await dial(TlsEndpoint(HOST, 1, locked))


async def test_a_place_that_is_taken_is_said_so(folder: Path) -> None:
    house = write_house(folder, HOST, NOW)
    with socket.create_server((HOST, 0)) as taken:
        endpoint = TlsEndpoint(HOST, taken.getsockname()[1], house["signer"])
        with pytest.raises(SignerRefused, match="cannot listen: Address already in use"):
            async with listening(echo, endpoint):
                pytest.fail("it listens")
    with pytest.raises(SignerRefused, match="cannot listen"):
        async with listening(echo, folder / "nowhere" / "s"):
            pytest.fail("it listens")


def test_endpoints_are_read_from_text() -> None:
    files = TlsFiles(Path("a"), Path("b"), Path("c"))

    assert parse_endpoint("unix:/run/s") == Path("/run/s")
    assert parse_endpoint("relative/s") == Path("relative/s")
    assert parse_endpoint("tls://signer:7001", files) == TlsEndpoint("signer", 7001, files)
    assert str(parse_endpoint("tls://[::1]:7001", files)) == "tls://[::1]:7001"
    for text in ("http://signer:1", "tls://signer", "tls://:7001", "tls://signer:7001/x"):
        with pytest.raises(BadInput, match="not where a signer listens"):
            parse_endpoint(text, files)
    with pytest.raises(BadInput, match="TLS needs"):
        parse_endpoint("tls://signer:7001")


def test_the_days_of_a_certificate_are_bounded(folder: Path) -> None:
    with pytest.raises(BadInput, match="1 to 3650 days"):
        write_house(folder, HOST, datetime(2030, 1, 1, tzinfo=UTC), days=0)
    assert list(folder.iterdir()) == []
