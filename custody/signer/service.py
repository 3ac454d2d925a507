"""The signer at work: one question at a time, from a Unix socket that only its own user can open."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import structlog

from chain.evm.addresses import address_of_public_key
from chain.evm.transactions import UnsignedTransaction, assemble, decode_unsigned, signing_hash
from custody.signer.errors import SignerRefused
from custody.signer.frames import read_frame, write_frame
from custody.signer.hd_keys import HARDENED, PrivateNode, parse_path
from custody.signer.rules import Rules, check_request
from custody.signer.store import Memory
from custody.signer.wire import (
    APPROVALS_MAX,
    Answer,
    AskHealth,
    AskSign,
    AskSignMany,
    AskXpub,
    Health,
    Intent,
    No,
    Question,
    Signed,
    SignedApproval,
    SignedMany,
    SignRequest,
    Xpub,
)
from kernel.errors import CausewayError

SOCKET_MODE: Final = 0o600
CONNECTIONS_MAX: Final = 16
IDLE_S_MAX: Final = 60.0
ACCOUNT_DEPTH: Final = 3
"""BIP 44: purpose, coin and account are hardened; below them only addresses."""

log: Final = structlog.get_logger()


@dataclass(frozen=True, slots=True, repr=False)
class Signer:
    """The signer without its socket: answers questions with the keys, the rules and the memory."""

    key_id: str
    root: PrivateNode
    rules: Rules
    memory: Memory

    def answer(self, question: Question) -> Answer:
        """Return the answer; a refusal is an answer too."""
        try:
            match question:
                case AskHealth():
                    return Health(self.key_id, self.memory.count())
                case AskXpub(path):
                    return Xpub(self.account_xpub(path))
                case AskSignMany(requests, approvals):
                    return SignedMany([self._one(item, approvals) for item in requests])
                case AskSign(intent, unsigned, approvals):
                    if len(approvals) > APPROVALS_MAX:
                        return No(f"more than {APPROVALS_MAX} approvals")
                    tx = decode_unsigned(unsigned, chain_id=intent.chain_id)
                    check_request(self.rules, intent, tx, approvals)
                    return Signed(self.sign(intent, tx))
                case _:
                    return No("not built yet")
        except CausewayError as error:
            before = isinstance(question, AskSign) and self.memory.knows(question.intent.payout_id)
            return No(error.what, error.remedy, before)

    def _one(self, item: SignRequest, approvals: list[SignedApproval]) -> Signed | No:
        wanted = item.intent.payout_id
        own = [a for a in approvals if any(line.payout_id == wanted for line in a.lines)]
        answer = self.answer(AskSign(item.intent, item.unsigned, own))
        assert isinstance(answer, Signed | No)
        return answer

    def account_xpub(self, path: str) -> str:
        """Return the extended public key of an account, and of nothing below or above it."""
        steps = parse_path(path)
        if len(steps) != ACCOUNT_DEPTH or any(step < HARDENED for step in steps):
            raise SignerRefused(f"{path} is not an account", remedy="Ask for m/44'/60'/0'")
        return self.root.derive(path).xpub()

    def sign(self, intent: Intent, tx: UnsignedTransaction) -> bytes:
        """Return the signed bytes of a transaction that the rules allow."""
        key = self._key(intent)
        known = self.memory.find(intent.payout_id, intent.sender, tx)
        if known is not None:
            return known
        self.memory.check(intent.payout_id, intent.sender, tx)
        signature = key.sign(signing_hash(tx))
        raw = assemble(tx, signature.r, signature.s, signature.y_parity)
        self.memory.remember(intent.payout_id, intent.sender, tx, raw)
        return raw

    def _key(self, intent: Intent) -> PrivateNode:
        steps = parse_path(intent.key_path)
        if len(steps) != ACCOUNT_DEPTH + 2 or any(step < HARDENED for step in steps[:3]):
            raise SignerRefused(f"{intent.key_path} is not the path of an address")
        key = self.root.derive(intent.key_path)
        if address_of_public_key(key.uncompressed_key) != intent.sender:
            raise SignerRefused(f"the key at {intent.key_path} is not that of {intent.sender}")
        return key


@dataclass(slots=True)
class Doorkeeper:
    """Lets connections of the signer's own user in, a bounded number of them."""

    signer: Signer
    open_connections: int = field(default=0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer questions until the other side closes, is idle, or breaks the protocol."""
        if self.open_connections >= CONNECTIONS_MAX or not is_same_user(writer):
            writer.close()
            return
        self.open_connections += 1
        try:
            while True:
                async with asyncio.timeout(IDLE_S_MAX):
                    await self._answer_one(reader, writer)
        except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
            pass
        except (msgspec.DecodeError, CausewayError) as error:
            log.warning("signer_protocol_error", error=type(error).__name__)
        finally:
            self.open_connections -= 1
            writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = msgspec.json.decode(await read_frame(reader), type=Question)
        answer = self.signer.answer(question)
        if isinstance(question, AskSign):
            log.info(
                "signer_answered",
                payout_id=str(question.intent.payout_id),
                nonce=question.intent.nonce,
                signed=isinstance(answer, Signed),
                refusal=answer.what if isinstance(answer, No) else None,
            )
        await write_frame(writer, answer)


def is_same_user(writer: asyncio.StreamWriter) -> bool:
    """Tell whether the kernel says that the peer runs as our user (SO_PEERCRED, unix(7))."""
    peer: socket.socket = writer.get_extra_info("socket")
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True  # where the kernel cannot say it, the mode of the socket keeps others out
    packed = peer.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", packed)
    return bool(uid == os.geteuid())


@asynccontextmanager
async def listening(signer: Signer, path: Path) -> AsyncIterator[asyncio.Server]:
    """Listen on the socket *path* (mode 0600) for as long as the context is open."""
    server = await asyncio.start_unix_server(Doorkeeper(signer).serve, sock=bind(path))
    try:
        yield server
    finally:
        server.close()
        remove_socket(path)


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
