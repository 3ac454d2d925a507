"""How the rest of Causeway asks the signer. Loads no code that handles private keys."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from custody.signer.errors import SignerRefused
from custody.signer.frames import read_frame, write_frame
from custody.signer.wire import (
    Answer,
    AskHealth,
    AskSign,
    AskXpub,
    Health,
    Intent,
    No,
    Question,
    Signed,
    SignedApproval,
    Xpub,
)
from kernel.errors import BadInput, OutsideUnavailable

TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class SignerClient:
    """Asks the signer that listens on *socket*; one connection for each question.

    Asking twice is always safe: the signer answers the same request with the same bytes.
    """

    socket: Path
    timeout_s: float = TIMEOUT_S

    async def health(self) -> Health:
        """Return which key the signer holds.

        Raises:
            OutsideUnavailable: it does not answer.
        """
        answer = await self._ask(AskHealth())
        if isinstance(answer, Health):
            return answer
        raise self._surprise(answer)

    async def account_xpub(self, path: str) -> str:
        """Return the extended public key of the account at *path* (``m/44'/60'/0'``)."""
        answer = await self._ask(AskXpub(path))
        if isinstance(answer, Xpub):
            return answer.xpub
        raise self._surprise(answer)

    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        """Return the signed bytes of the transaction *unsigned*.

        Raises:
            SignerRefused: this transaction was not signed.
            OutsideUnavailable: no answer; it may have been signed, ask the same again.
        """
        answer = await self._ask(AskSign(intent, unsigned, list(approvals)))
        if isinstance(answer, Signed):
            return answer.raw
        raise self._surprise(answer)

    async def _ask(self, question: Question) -> Answer:
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._converse(question)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, BadInput) as error:
            raise OutsideUnavailable(
                "the signer does not answer", where=str(self.socket), remedy="Start the signer"
            ) from error
        except msgspec.DecodeError as error:
            raise OutsideUnavailable("the signer answers nonsense", where=str(error)) from error

    async def _converse(self, question: Question) -> Answer:
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        try:
            await write_frame(writer, question)
            answer: Answer = msgspec.json.decode(await read_frame(reader), type=Answer)
            return answer
        finally:
            writer.close()

    def _surprise(self, answer: Answer) -> SignerRefused | OutsideUnavailable:
        if isinstance(answer, No):
            return SignerRefused(
                answer.what, remedy=answer.remedy, signed_before=answer.signed_before
            )
        return OutsideUnavailable(f"the signer answered {type(answer).__name__}")
