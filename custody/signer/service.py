"""The signer at work: one question at a time, each answered after what it changed is on disk.

A question is decided inside one transaction of the store, and its checkpoint is written to the other
places, before the answer leaves. An error of the store or of such a place is not answered at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from operator import itemgetter
from typing import Any, Final, TypeVar

import msgspec
import structlog

from chain.bitcoin.psbt import decode_psbt
from chain.bitcoin.transactions import encode
from chain.evm.addresses import address_of_public_key
from chain.evm.transactions import UnsignedTransaction, assemble, decode_unsigned, signing_hash
from custody.control_messages import (
    BODIES,
    Body,
    ControlKind,
    ControlMessage,
    DestinationAllowed,
    PayoutDead,
    RestoreOpened,
    SpendDead,
    read_body,
)
from custody.restore_marks import Shown
from custody.signer.approvals import Approvals
from custody.signer.audit import CONTROL, MARKED, REFUSED, SIGNED, SPENT
from custody.signer.backends.port import KeyBackend
from custody.signer.checkpoints import Places
from custody.signer.control import InForce, apply_control, check_control
from custody.signer.decision import Allowed, check_open, check_request
from custody.signer.errors import SignerRefused, StoreUnusable
from custody.signer.frames import require_shallow
from custody.signer.pace import Pace
from custody.signer.spend_decision import (
    check_spend,
    check_spend_open,
    is_bitcoin,
)
from custody.signer.spend_memory import SpendBody
from custody.signer.spending import counted_of, sign_inputs, spend_body
from custody.signer.store import Memory, SignedBody
from custody.signer.windows import Spent, Windows
from custody.signer.wire import (
    APPROVALS_MANY_MAX,
    APPROVALS_MAX,
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
    State,
    Witnessed,
    Xpub,
)
from kernel.clock import Clock, to_unix_ms
from kernel.errors import CausewayError, OutsideUnavailable

ADDRESSES_MAX: Final = 10_000

log: Final = structlog.get_logger()
Result = TypeVar("Result")


@dataclass(slots=True, repr=False)
class Signer:
    """The signer without its door: answers questions with keys, memory and what is in force."""

    keys: KeyBackend
    memory: Memory
    places: Places
    clock: Clock
    state: InForce
    windows: Windows
    pace: Pace | None = None
    _addresses: dict[str, str] = field(default_factory=dict)
    _public_keys: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        keys: KeyBackend,
        memory: Memory,
        places: Places,
        clock: Clock,
        *,
        steady: Callable[[], int] | None = None,
    ) -> Signer:
        """Return a signer that goes on where the store's log ends.

        Args:
            keys: who signs.
            memory: the store.
            places: where its checkpoints are.
            clock: the machine's clock.
            steady: a clock that nobody sets, in milliseconds (`custody.signer.pace`); None: *clock* is
                believed whatever it says.

        Raises:
            StoreUnusable: the store is behind a checkpoint, forked, or another key's.
        """
        genesis = memory.genesis()
        if genesis.verifier_key != places.key.verifier_key:
            raise StoreUnusable("the checkpoint key is not that of this store")
        places.check(memory.log)
        state = InForce.of(genesis.rules)
        for record in memory.log.of_kind(CONTROL):
            message = msgspec.json.decode(record.body, type=ControlMessage)
            body = read_body(message.kind, message.body, BODIES[message.kind])
            apply_control(
                state, message.kind, body, digest=record.subject, index=record.seq, at_ms=record.at
            )
        pace = None
        if steady is not None:
            wall_ms = to_unix_ms(clock.now())
            pace = Pace.begin(wall_ms, newest_ms=memory.log.last_at, steady=steady)
        signer = cls(keys, memory, places, clock, state, Windows.of(state.limits), pace)
        signer._count_again()
        places.write(memory.log)
        return signer

    def answer_frame(self, body: bytes, peer: str) -> bytes:
        """Return the answer to a question, both as frames carry them; *peer* is who asks.

        Raises:
            msgspec.DecodeError, BadInput: it is no question.
        """
        require_shallow(body)
        question = msgspec.json.decode(body, type=Question)
        answer = self.answer(question)
        _tell(question, answer, peer)
        return msgspec.json.encode(answer)

    def answer(self, question: Question) -> Answer:
        """Return the answer; a refusal is an answer too.

        Raises:
            sqlite3.Error, OSError: store or checkpoint cannot be written; nothing is answered.
        """
        try:
            return self._answer(question)
        except CausewayError as error:
            return refusal(error)

    def _answer(self, question: Question) -> Answer:
        match question:
            case AskSign(intent, unsigned, approvals, shown):
                if len(approvals) > APPROVALS_MAX:
                    return No(f"more than {APPROVALS_MAX} approvals")
                request = SignRequest(intent, unsigned)
                return self._sign_all([request], approvals, shown, alone=True)[0]
            case AskSignMany(requests, approvals, shown):
                if len(requests) > REQUESTS_MAX or len(approvals) > APPROVALS_MANY_MAX:
                    return No(
                        f"more than {REQUESTS_MAX} requests or {APPROVALS_MANY_MAX} approvals"
                    )
                return SignedMany(self._sign_all(requests, approvals, shown, alone=False))
            case AskSignSpend():
                return self._sign_spend(question)
            case AskControl(message):
                return self._control(message)
            case AskWitness(shown):
                return self._witness(shown)
            case _:
                return self._inform(question)

    def _inform(self, question: Question) -> Answer:
        audit = self.memory.log
        match question:
            case AskHealth():
                return self._health()
            case AskXpub(path):
                return Xpub(self.keys.account_xpub(path))
            case AskPublicKey(path):
                return PublicKeyIs(self.keys.public_key(path))
            case AskState():
                return State(describe(self.state))
            case AskCheckpoint(since):
                return Checkpointed(self.places.key.note(audit), audit.consistency(since))
            case AskAudit(index, size):
                return Audited(audit.read(index).to_bytes(), audit.inclusion(index, size))
            case AskMark(number):
                return MarkIs(self.memory.marks.token_of(number))
            case _:
                raise AssertionError(question)

    def _health(self) -> Health:
        mark, token = self.memory.marks.last()
        return Health(
            key_id=self.keys.key_id,
            signed=self.memory.count(),
            records=self.memory.log.size,
            verifier_key=self.places.key.verifier_key,
            frozen=bool(self.state.freezes),
            mark=mark,
            mark_token=token,
        )

    def _now_ms(self) -> int:
        wall_ms = to_unix_ms(self.clock.now())
        believed = wall_ms if self.pace is None else self.pace.believe(wall_ms)
        # Never before what was recorded: a clock that is set back opens no window again.
        return max(believed, self.memory.log.last_at)

    # Signing.

    def _sign_all(
        self,
        requests: Sequence[SignRequest],
        given: Sequence[SignedApproval],
        shown: Shown | None,
        *,
        alone: bool,
    ) -> list[Signed | No]:
        approvals = Approvals(self.state, given, alone, to_unix_ms(self.clock.now()))
        now_ms = self._now_ms()

        def sign() -> list[Signed | No]:
            no = self._take_marks(shown, now_ms)
            if no is not None:
                return [no for _ in requests]
            return [self._sign_one(item, approvals, now_ms) for item in requests]

        return self._written(sign)

    def _witness(self, shown: Shown) -> Witnessed | No:
        no = self._written(lambda: self._take_marks(shown, self._now_ms()))
        return no or Witnessed(self.memory.marks.last()[0])

    def _take_marks(self, shown: Shown | None, now_ms: int) -> No | None:
        """Keep what is shown of the database that asks; return why nothing is signed for it."""
        try:
            self.memory.marks.take(shown, at_ms=now_ms)
        except CausewayError as error:
            no = refusal(error)
            marks = [] if shown is None else [item.number for item in shown.marks]
            told = {"marks": marks, "refusal": no}
            self._record_refusal(MARKED, told, now_ms)
            return no
        return None

    def _written(self, work: Callable[[], Result]) -> Result:
        """Do *work* in one transaction, and write its checkpoint before anybody hears of it."""
        try:
            with self.memory.writing():
                done = work()
        except BaseException:
            self._count_again()
            raise
        self.places.write(self.memory.log)
        return done

    def _sign_one(self, request: SignRequest, approvals: Approvals, now_ms: int) -> Signed | No:
        intent = request.intent
        try:
            if is_bitcoin(intent.chain_id):
                raise SignerRefused(f"{intent.chain} is a chain of Bitcoin: ask for a spend")
            tx = decode_unsigned(request.unsigned, chain_id=intent.chain_id)
            known = self.memory.find(intent, request.unsigned)
            if known is not None:
                check_open(self.state, intent)
                return Signed(known)
            allowed = check_request(
                self.state,
                self.windows,
                intent,
                tx,
                approvals,
                address_of=self.address_of,
                fee_before=self.memory.fee_before(intent),
                now_ms=now_ms,
            )
            self.memory.check(intent, tx)
            return self._sign(request, tx, allowed, now_ms)
        except CausewayError as error:
            no = refusal(error, signed_before=self.memory.knows(intent.payout_id))
            digest = sha256(request.unsigned).hexdigest()
            told = {"intent": intent, "unsigned_sha256": digest, "refusal": no}
            self._record_refusal(str(intent.payout_id), told, now_ms)
            return no

    def _sign(
        self, request: SignRequest, tx: UnsignedTransaction, allowed: Allowed, now_ms: int
    ) -> Signed:
        signature = self.keys.sign_digest(request.intent.key_path, signing_hash(tx))
        raw = assemble(tx, signature.r, signature.s, signature.y_parity)
        spent = allowed.spent
        body = SignedBody(
            intent=request.intent,
            unsigned=request.unsigned,
            raw=raw,
            approvers=list(allowed.approvers),
            auto=spent.auto,
            amount=str(spent.amount),
            fee=str(spent.fee),
        )
        self.memory.remember(tx, body, at_ms=now_ms)
        self.windows.add(spent, now_ms)
        return Signed(raw)

    def _sign_spend(self, question: AskSignSpend) -> Signed | No:
        if len(question.approvals) > APPROVALS_MANY_MAX:
            return No(f"more than {APPROVALS_MANY_MAX} approvals")
        now_ms = self._now_ms()
        return self._written(
            lambda: self._take_marks(question.shown, now_ms) or self._spend(question, now_ms)
        )

    def _spend(self, question: AskSignSpend, now_ms: int) -> Signed | No:
        intent, spends = question.intent, self.memory.spends
        try:
            psbt = decode_psbt(question.psbt)
            unsigned = encode(psbt.transaction, witness=False)
            known = spends.find(intent, unsigned)
            if known is not None:
                check_spend_open(self.state, intent)
                return Signed(known)
            before = spends.fee_before(intent)
            allowed = check_spend(
                self.state,
                self.windows,
                intent,
                psbt,
                Approvals(
                    self.state,
                    question.approvals,
                    alone=False,
                    wall_ms=to_unix_ms(self.clock.now()),
                ),
                public_key_of=self._compressed_key,
                fee_before=before,
                now_ms=now_ms,
            )
            spends.check(intent)
            raw = sign_inputs(self.keys, self._compressed_key, intent, allowed)
            body = spend_body(intent, unsigned, raw, allowed, is_first=before is None)
            spends.remember(body, at_ms=now_ms)
            for counted in allowed.counted:
                self.windows.add(counted, now_ms)
            return Signed(raw)
        except CausewayError as error:
            payouts = [line.payout_id for line in intent.lines]
            no = refusal(error, signed_before=spends.knows(payouts))
            digest = sha256(question.psbt).hexdigest()
            told = {"spend": intent, "psbt_sha256": digest, "refusal": no}
            self._record_refusal(str(intent.spend_id), told, now_ms)
            return no

    def _compressed_key(self, path: str) -> bytes:
        found = self._public_keys.get(path)
        if found is None:
            whole = self.keys.public_key(path)
            found = bytes([2 + whole[-1] % 2]) + whole[1:33]
            if len(self._public_keys) >= ADDRESSES_MAX:
                self._public_keys.clear()
            self._public_keys[path] = found
        return found

    def address_of(self, path: str) -> str:
        """Return the address of the signer's own key at *path*."""
        found = self._addresses.get(path)
        if found is None:
            found = address_of_public_key(self.keys.public_key(path))
            if len(self._addresses) >= ADDRESSES_MAX:
                self._addresses.clear()
            self._addresses[path] = found
        return found

    def _record_refusal(self, subject: str, told: Mapping[str, Any], now_ms: int) -> None:
        """Write the refusal down, unless it is what was said about the same thing last."""
        body, audit = msgspec.json.encode(told).decode(), self.memory.log
        last = audit.last_of(subject)
        if last is None or (last.kind, last.body) != (REFUSED, body):
            audit.append(REFUSED, subject, body, at=now_ms)

    def _count_again(self) -> None:
        """Fill the windows from the log: at the start, with new limits, and after a lost write."""
        limits = self.state.limits
        self.windows = Windows.of(limits)
        since = max(self._now_ms() - Windows.longest_ms(limits), 0)
        counted: list[tuple[int, int, list[Spent]]] = []
        for record in self.memory.log.of_kind(SIGNED, since=since):
            body = msgspec.json.decode(record.body, type=SignedBody)
            counted.append((record.seq, record.at, [spent_of(body)]))
        for record in self.memory.log.of_kind(SPENT, since=since):
            spend = msgspec.json.decode(record.body, type=SpendBody)
            counted.append((record.seq, record.at, counted_of(spend)))
        # Sums roll: what is counted comes in the order of time.
        for _, at_ms, items in sorted(counted, key=itemgetter(0)):
            for item in items:
                self.windows.add(item, at_ms)

    # Control.

    def _control(self, message: ControlMessage) -> Accepted | No:
        digest, now_ms = message.digest, self._now_ms()
        known = self.state.messages.get(digest)
        if known is not None:
            return Accepted(known, again=True)
        try:
            body = check_control(self.state, message)
            if isinstance(body, PayoutDead):
                self.memory.check_dead(body)
            if isinstance(body, SpendDead):
                self.memory.spends.check_dead(body)
            if isinstance(body, RestoreOpened):
                self.memory.marks.check_open(body)
        except SignerRefused as error:
            no = refusal(error)
            told = {"control": message.kind, "body": message.body, "refusal": no}
            self._written(lambda: self._record_refusal(digest, told, now_ms))
            return no
        if self.pace is not None and isinstance(body, DestinationAllowed):
            signed_ms = to_unix_ms(datetime.fromisoformat(body.proposed_at))
            self.pace.witness(signed_ms, wall_ms=to_unix_ms(self.clock.now()))
            now_ms = self._now_ms()
        index = self._written(lambda: self._take(message, body, digest, now_ms))
        apply_control(self.state, message.kind, body, digest=digest, index=index, at_ms=now_ms)
        if message.kind is ControlKind.LIMITS:
            self._count_again()
        return Accepted(index)

    def _take(self, message: ControlMessage, body: Body, digest: str, now_ms: int) -> int:
        told = msgspec.json.encode(message).decode()
        record = self.memory.log.append(CONTROL, digest, told, at=now_ms)
        if isinstance(body, PayoutDead):
            self.memory.bury(body, record.seq)
        if isinstance(body, SpendDead):
            self.memory.spends.bury(body, record.seq)
        if isinstance(body, RestoreOpened):
            self.memory.marks.open(body)
        return record.seq


def refusal(error: CausewayError, *, signed_before: bool = False) -> No:
    """Return the error as an answer; what is only not possible now may be asked again."""
    return No(error.what, error.remedy, signed_before, isinstance(error, OutsideUnavailable))


def spent_of(body: SignedBody) -> Spent:
    """Return what a recorded signature adds to the windows."""
    intent = body.intent
    return Spent(
        asset=(intent.chain_id, intent.asset, intent.contract),
        amount=int(body.amount),
        fee=int(body.fee),
        leaves=intent.kind == "pay",
        auto=body.auto,
        cancels=intent.kind == "cancel",
    )


def describe(state: InForce) -> dict[str, Any]:
    """Return what is in force, as JSON values."""
    built: dict[str, Any] = msgspec.to_builtins(
        {
            "operators": state.operators,
            "limits": state.limits,
            "policy_version": state.policy_version,
            "wallets": [state.wallets[code] for code in sorted(state.wallets)],
            "destinations": len(state.destinations),
            "revoked": len(state.revoked),
            "freezes": list(state.freezes.values()),
            "messages": len(state.messages),
        }
    )
    return built


def _tell(question: Question, answer: Answer, peer: str) -> None:
    """Log who asked for what; never keys, bytes that can be sent, or signatures."""
    if isinstance(question, AskSign):
        _tell_one(question.intent, answer, peer)
    elif isinstance(question, AskSignSpend):
        log.info(
            "signer_answered_spend",
            peer=peer,
            spend_id=str(question.intent.spend_id),
            payouts=len(question.intent.lines),
            signed=isinstance(answer, Signed),
            refusal=answer.what if isinstance(answer, No) else None,
        )
    elif isinstance(question, AskSignMany) and isinstance(answer, SignedMany):
        refused = [item.what for item in answer.answers if isinstance(item, No)]
        log.info(
            "signer_answered_many",
            peer=peer,
            signed=len(answer.answers) - len(refused),
            refusals=refused[:3],
        )
    elif isinstance(question, AskControl):
        what = answer.what if isinstance(answer, No) else None
        log.info("signer_controlled", peer=peer, kind=question.message.kind, refusal=what)


def _tell_one(intent: Intent, answer: Answer, peer: str) -> None:
    log.info(
        "signer_answered",
        peer=peer,
        payout_id=str(intent.payout_id),
        nonce=intent.nonce,
        signed=isinstance(answer, Signed),
        refusal=answer.what if isinstance(answer, No) else None,
    )
