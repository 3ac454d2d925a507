"""How the signer is reached: a Unix socket of its own user, or mutual TLS over TCP; the same frames.

Over TLS both sides show a certificate of one private authority and trust no other: the signer's
names its host, the client's a name that the signer was told to let in. Loads no code that handles
chain keys: the client uses it too.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
import structlog

from custody.signer.errors import SignerRefused
from custody.signer.frames import read_frame, write_body
from kernel.errors import BadInput, CausewayError, SecretUnreadable
from kernel.private_files import read_private_file

SOCKET_MODE: Final = 0o600
CONNECTIONS_MAX: Final = 16
HANDSHAKES_MAX: Final = 64
"""Strangers at the door do not take the places of those who are let in."""
HANDSHAKE_S_MAX: Final = 5.0
IDLE_S_MAX: Final = 60.0
ACCEPT_PAUSE_S: Final = 0.1
BACKLOG: Final = 64
CLIENT_NAME: Final = "causeway"
"""The name in the application's own certificate."""

log: Final = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of one side: the private authority, our certificate, and its key (mode 0600)."""

    authority: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class TlsEndpoint:
    """A TCP address and whom to trust there.

    Attributes:
        peers: where we listen, the certificate names (subjectAltName, DNS) that are let in.
    """

    host: str
    port: int
    files: TlsFiles
    peers: frozenset[str] = frozenset({CLIENT_NAME})

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tls://{host}:{self.port}"


Endpoint = Path | TlsEndpoint
"""A path is that of a Unix socket."""

Answering = Callable[[bytes, str], bytes]
"""Returns the answer's frame body to a question's, asked by the named peer."""


def parse_endpoint(text: str, files: TlsFiles | None = None) -> Endpoint:
    """Read ``unix:/path`` or ``tls://host:port``; a bare path is that of a Unix socket.

    Raises:
        BadInput: another scheme, no port, or TLS without its files.
    """
    if "://" not in text:
        return Path(text.removeprefix("unix:"))
    parts = urlsplit(text)
    if parts.scheme != "tls" or not parts.hostname or parts.port is None or parts.path:
        raise BadInput(
            f"{text!r} is not where a signer listens",
            remedy="Write unix:/path or tls://host:port",
        )
    if files is None:
        raise BadInput("TLS needs the authority's, our certificate's and our key's file")
    return TlsEndpoint(parts.hostname, parts.port, files)


async def dial(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the signer.

    With TLS 1.3 a refused client certificate shows only at the first read.

    Raises:
        OSError: nobody listens, or the other side is not who it should be (`ssl.SSLError`).
        SecretUnreadable: our TLS files are not there or not private.
    """
    if isinstance(endpoint, Path):
        return await asyncio.open_unix_connection(str(endpoint))
    return await asyncio.open_connection(
        endpoint.host,
        endpoint.port,
        ssl=_context(endpoint.files, ssl.PROTOCOL_TLS_CLIENT),
        server_hostname=endpoint.host,
        ssl_handshake_timeout=HANDSHAKE_S_MAX,
    )


@asynccontextmanager
async def listening(answer: Answering, endpoint: Endpoint) -> AsyncIterator[str]:
    """Listen for as long as the context is open; gives the address, with the port that was found.

    An error of *answer* that is not the asker's (`CausewayError`, `msgspec.DecodeError`) ends the
    context: a signer that cannot write its memory must not go on.
    """
    context = None
    if isinstance(endpoint, TlsEndpoint):
        context = _context(endpoint.files, ssl.PROTOCOL_TLS_SERVER)
    listener = bind(endpoint) if isinstance(endpoint, Path) else _bind_tcp(endpoint)
    try:
        door = Doorkeeper(answer, endpoint, context)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        async with asyncio.TaskGroup() as tasks:
            accepting = tasks.create_task(door.accept(listener))
            yield address_of(listener, endpoint)
            accepting.cancel()
    except BaseExceptionGroup as group:
        raise _only(group) from None
    finally:
        listener.close()
        if isinstance(endpoint, Path):
            remove_socket(endpoint)


@dataclass(slots=True)
class Doorkeeper:
    """Lets the signer's own user, or known certificates, in; a bounded number of them."""

    answer: Answering
    endpoint: Endpoint
    context: ssl.SSLContext | None
    handshakes: int = field(default=0)
    open_connections: int = field(default=0)

    async def accept(self, listener: socket.socket) -> None:
        """Take connections until cancelled; their ends come before this ends."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as connections:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:
                    # Out of file descriptors, or the other side was gone already.
                    log.warning("signer_cannot_accept", error=error.strerror)
                    await asyncio.sleep(ACCEPT_PAUSE_S)
                    continue
                if self.handshakes >= HANDSHAKES_MAX:
                    connection.close()
                    continue
                connections.create_task(self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        self.handshakes += 1
        try:
            opened = await self._open(connection)
        finally:
            self.handshakes -= 1
        if opened is None:
            return
        reader, writer, peer = opened
        if self.open_connections >= CONNECTIONS_MAX:
            log.warning("signer_too_many_connections", peer=peer)
            writer.transport.abort()
            return
        self.open_connections += 1
        try:
            await self._converse(reader, writer, peer)
        finally:
            self.open_connections -= 1
            writer.close()

    async def _open(
        self, connection: socket.socket
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str] | None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self.context,
                ssl_handshake_timeout=HANDSHAKE_S_MAX if self.context else None,
            )
        except OSError as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            log.warning("signer_handshake_refused", error=reason)
            connection.close()
            return None
        peer = self._peer(transport)
        if peer is None:
            transport.abort()
            return None
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop), peer

    def _peer(self, transport: asyncio.Transport) -> str | None:
        if not isinstance(self.endpoint, TlsEndpoint):
            uid = user_of(transport.get_extra_info("socket"))
            return f"uid {uid}" if uid == os.geteuid() else None
        names = names_of(transport.get_extra_info("peercert") or {})
        known = sorted(names & self.endpoint.peers)
        if not known:
            log.warning("signer_stranger", names=sorted(names))
            return None
        log.info("signer_connected", peer=known[0])
        return known[0]

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str
    ) -> None:
        """Answer questions until the other side closes, is idle, or breaks the protocol.

        An OSError of the answer itself (a checkpoint that cannot be written) is not the other side's.
        """
        answer = b""
        while True:
            try:
                async with asyncio.timeout(IDLE_S_MAX):
                    if answer:
                        await write_body(writer, answer)
                    body = await read_frame(reader)
            except (asyncio.IncompleteReadError, TimeoutError, OSError):
                # Gone, idle, or cut: it asks again when it likes.
                return
            except CausewayError as error:
                _warn(peer, error)
                return
            try:
                answer = self.answer(body, peer)
            except (msgspec.DecodeError, CausewayError) as error:
                _warn(peer, error)
                return


def _warn(peer: str, error: Exception) -> None:
    log.warning("signer_protocol_error", peer=peer, error=type(error).__name__)


def names_of(certificate: dict[str, object]) -> frozenset[str]:
    """Return the DNS names of a certificate as `ssl.SSLSocket.getpeercert` gives it."""
    pairs = certificate.get("subjectAltName", ())
    assert isinstance(pairs, tuple)
    return frozenset(value for kind, value in pairs if kind == "DNS")


def user_of(connection: socket.socket) -> int:
    """Return who the kernel says is at the other end of a Unix socket (SO_PEERCRED, unix(7))."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return os.geteuid()  # where the kernel cannot say it, the socket's mode keeps others out
    packed = connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", packed)
    return int(uid)


def bind(path: Path) -> socket.socket:
    """Return a socket bound to *path*, in place of one that an ended signer left behind."""
    remove_socket(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o777 & ~SOCKET_MODE)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise SignerRefused(f"cannot listen: {error.strerror}", where=str(path)) from error
    finally:
        os.umask(mask)
    return listener


def remove_socket(path: Path) -> None:
    """Remove the socket's file, and nothing else that may have its name."""
    if path.is_socket():
        path.unlink(missing_ok=True)


def address_of(listener: socket.socket, endpoint: Endpoint) -> str:
    """Return where the listener listens, in the words of `parse_endpoint`."""
    if isinstance(endpoint, Path):
        return str(endpoint)
    return str(replace(endpoint, port=listener.getsockname()[1]))


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error itself where a group holds but one: whoever catches it expects its type."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _bind_tcp(endpoint: TlsEndpoint) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        return socket.create_server((endpoint.host, endpoint.port), family=family)
    except OSError as error:
        raise SignerRefused(f"cannot listen: {error.strerror}", where=str(endpoint)) from error


def _context(files: TlsFiles, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    read_private_file(files.key)
    try:
        # Only this authority: the system's own list is never loaded.
        context.load_verify_locations(cafile=files.authority)
        # A password that is empty, or OpenSSL asks for one on the terminal.
        context.load_cert_chain(files.certificate, files.key, password="")
    except (OSError, ValueError) as error:
        raise SecretUnreadable(
            f"cannot use these TLS files: {getattr(error, 'reason', None) or error}",
            where=str(files.certificate.parent),
        ) from error
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        # A resumed session would not show its certificate again.
        context.num_tickets = 0
    return context
