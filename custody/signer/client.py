"""How the rest of Causeway asks the signer. Loads no code that handles private keys."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from custody.control_messages import ControlMessage
from custody.restore_marks import Shown
from custody.signer.errors import SignerPostponed, SignerRefused
from custody.signer.frames import read_frame, write_frame
from custody.signer.transport import Endpoint, dial
from custody.signer.wire import (
    REQUESTS_MAX,
    Accepted,
    Answer,
    AskAudit,
    AskCheckpoint,
    AskControl,
    AskHealth,
    AskMark,
    AskPublicKey,
    AskSign,
    AskSignMany,
    AskSignSpend,
    AskState,
    AskWitness,
    AskXpub,
    Audited,
    Checkpointed,
    Health,
    Intent,
    MarkIs,
    No,
    PublicKeyIs,
    Question,
    Signed,
    SignedApproval,
    SignedMany,
    SignRequest,
    SpendIntent,
    State,
    Witnessed,
    Xpub,
)
from kernel import tracing
from kernel.errors import BadInput, CausewayError, OutsideUnavailable

TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class SignerClient:
    """Asks the signer that listens on *socket*; one connection for each question.

    *socket* is a path, or where and with which certificates it is reached over TLS. Asking twice is always safe: the signer answers the same request with the same bytes.
    """

    socket: Endpoint
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

    async def public_key(self, path: str) -> bytes:
        """Return the public key of the sending address at *path*, 65 bytes."""
        answer = await self._ask(AskPublicKey(path))
        if isinstance(answer, PublicKeyIs):
            return answer.public_key
        raise self._surprise(answer)

    async def sign(
        self,
        intent: Intent,
        unsigned: bytes,
        approvals: Sequence[SignedApproval],
        *,
        shown: Shown | None = None,
    ) -> bytes:
        """Return the signed bytes of the transaction *unsigned*.

        Args:
            intent, unsigned, approvals: see `custody.ports.PayoutSigner`.
            shown: the marks of the database that asks (`custody.restore.signing`).

        Raises:
            SignerRefused: this transaction was not signed.
            SignerPostponed: it was not signed now, and may be later.
            OutsideUnavailable: no answer; it may have been signed, ask the same again.
        """
        answer = await self._ask(AskSign(intent, unsigned, list(approvals), shown))
        if isinstance(answer, Signed):
            return answer.raw
        raise self._surprise(answer)

    async def sign_many(
        self,
        requests: Sequence[SignRequest],
        approvals: Sequence[SignedApproval],
        *,
        shown: Shown | None = None,
    ) -> list[Signed | No]:
        """Return one answer for each request, in their order; see `custody.ports.PayoutSigner`."""
        if not 0 < len(requests) <= REQUESTS_MAX:
            raise BadInput(f"one question asks for 1 to {REQUESTS_MAX} signatures")
        answer = await self._ask(AskSignMany(list(requests), list(approvals), shown))
        if isinstance(answer, SignedMany) and len(answer.answers) == len(requests):
            return answer.answers
        raise self._surprise(answer)

    async def sign_spend(
        self,
        intent: SpendIntent,
        psbt: bytes,
        approvals: Sequence[SignedApproval],
        *,
        shown: Shown | None = None,
    ) -> bytes:
        """Return the signed bytes of the Bitcoin transaction in *psbt*; see `sign`."""
        answer = await self._ask(AskSignSpend(intent, psbt, list(approvals), shown))
        if isinstance(answer, Signed):
            return answer.raw
        raise self._surprise(answer)

    async def control(self, message: ControlMessage) -> Accepted | No:
        """Hand a control message over; the same again changes nothing."""
        answer = await self._ask(AskControl(message))
        if isinstance(answer, Accepted | No):
            return answer
        raise self._surprise(answer)

    async def mark(self, number: int) -> str | None:
        """Return the token of a mark as the signer was shown it; None: it does not have it."""
        answer = await self._ask(AskMark(number))
        if isinstance(answer, MarkIs):
            return answer.token
        raise self._surprise(answer)

    async def witness(self, shown: Shown) -> int:
        """Have the signer keep marks; return the number of the newest.

        Raises:
            SignerPostponed: the database or the signer's store is older than it should be.
        """
        answer = await self._ask(AskWitness(shown))
        if isinstance(answer, Witnessed):
            return answer.number
        raise self._surprise(answer)

    async def state(self) -> dict[str, Any]:
        """Return what is in force in the signer, as JSON values."""
        answer = await self._ask(AskState())
        if isinstance(answer, State):
            return answer.document
        raise self._surprise(answer)

    async def checkpoint(self, *, since: int = 0) -> Checkpointed:
        """Return the signer's checkpoint, and the proof that it continues its first *since* records."""
        answer = await self._ask(AskCheckpoint(since))
        if isinstance(answer, Checkpointed):
            return answer
        raise self._surprise(answer)

    async def audit(self, index: int, *, size: int) -> Audited:
        """Return a record of the signer's log with its inclusion proof in a tree of *size*."""
        answer = await self._ask(AskAudit(index, size))
        if isinstance(answer, Audited):
            return answer
        raise self._surprise(answer)

    async def _ask(self, question: Question) -> Answer:
        try:
            with tracing.calling(f"signer {type(question).__name__}"):
                async with asyncio.timeout(self.timeout_s):
                    return await self._converse(question)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, BadInput) as error:
            raise OutsideUnavailable(
                "the signer does not answer", where=str(self.socket), remedy="Start the signer"
            ) from error
        except msgspec.DecodeError as error:
            raise OutsideUnavailable("the signer answers nonsense", where=str(error)) from error

    async def _converse(self, question: Question) -> Answer:
        reader, writer = await dial(self.socket)
        try:
            await write_frame(writer, question)
            answer: Answer = msgspec.json.decode(await read_frame(reader), type=Answer)
            return answer
        finally:
            writer.close()

    def _surprise(self, answer: Answer) -> CausewayError:
        return (
            refusal_of(answer)
            if isinstance(answer, No)
            else OutsideUnavailable(f"the signer answered {type(answer).__name__}")
        )


def refusal_of(no: No) -> SignerRefused | SignerPostponed:
    """Return the refusal as an error."""
    if no.later:
        return SignerPostponed(no.what, remedy=no.remedy)
    return SignerRefused(no.what, remedy=no.remedy, signed_before=no.signed_before)
