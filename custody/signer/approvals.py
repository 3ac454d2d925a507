"""The approvals of one question: who has validly approved which payment. Pure.

One signature may cover the lines of many payouts. It is verified once, when the first of them is
asked for, against the keys that the signer has pinned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import Enum, auto
from typing import Final

from custody.payout_approvals import LIFETIME_MAX, ApprovalLine, approval_bytes
from custody.signer.control import InForce
from custody.signer.errors import SignerRefused
from custody.signer.wire import Intent, SignedApproval, read_amount
from kernel.errors import BadInput
from registry.authority import verify_signature
from registry.errors import NotAuthorised
from registry.model import SIGNATURE_BYTES

LIFETIME_MAX_MS: Final = LIFETIME_MAX // timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Approved:
    """Who approved a payment.

    Attributes:
        known: whose approval counts.
        unknown: who is no operator of the signer (yet): nothing of theirs is verified or counts.
        unverified: who is one, and has signed with another key than the signer has of them: nothing
            of theirs counts.
        lapsed: whose approval has ended by the signer's clock, whether it was valid or not.
    """

    known: frozenset[str]
    unknown: frozenset[str] = frozenset()
    unverified: frozenset[str] = frozenset()
    lapsed: frozenset[str] = frozenset()

    @property
    def awaited(self) -> frozenset[str]:
        """Return whose approval would count if the signer were told of them, or of their key."""
        return (self.unknown | self.unverified) - self.known


class _Verdict(Enum):
    VALID = auto()
    UNKNOWN = auto()
    UNVERIFIED = auto()
    LAPSED = auto()
    MALFORMED = auto()
    """No key could have made it: it will never count."""


@dataclass(slots=True)
class Approvals:
    """The approvals that came with a question, found by line.

    Attributes:
        alone: the question asks for one transaction, so each approval has to be meant for it.
        wall_ms: the machine's clock, which may be ahead of the time that the signer believes.
    """

    state: InForce
    given: Sequence[SignedApproval]
    alone: bool
    wall_ms: int = 0
    _by_line: dict[ApprovalLine, list[int]] = field(default_factory=dict)
    _lines: list[list[ApprovalLine]] = field(default_factory=list)
    _judged: dict[int, _Verdict] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read every line once."""
        for number, approval in enumerate(self.given):
            lines = [line.read() for line in approval.lines]
            self._lines.append(lines)
            for line in lines:
                self._by_line.setdefault(line_key(line), []).append(number)

    def approvers(self, intent: Intent, *, now_ms: int | None) -> Approved:
        """Return who has validly approved exactly this payment; the initiator may not be among them.

        Args:
            intent: the payment.
            now_ms: the signer's clock; None: the payment was signed before and is signed again for
                another fee, so approvals that have lapsed since still count.

        Raises:
            SignerRefused: the initiator approved it, or an approval holds longer than any may.
        """
        line = line_of(intent)
        if self.alone:
            self._require_meant(line)
        return self.approvers_of(line, now_ms=now_ms)

    def approvers_of(self, line: ApprovalLine, *, now_ms: int | None) -> Approved:
        """Return who has validly approved this line, whatever its *expires_at*: as `approvers`."""
        found: dict[_Verdict, set[str]] = {verdict: set() for verdict in _Verdict}
        key = line_key(line)
        for number in self._by_line.get(key, []):
            code = self.given[number].operator
            if code == line.initiator:
                raise SignerRefused(f"{code} asked for the payout and cannot approve it")
            has_ended = now_ms is not None and not self._holds(number, key, now_ms)
            found[_Verdict.LAPSED if has_ended else self._judge(number)].add(code)
        known = frozenset(found[_Verdict.VALID])
        return Approved(
            known=known,
            unknown=frozenset(found[_Verdict.UNKNOWN]),
            unverified=frozenset(found[_Verdict.UNVERIFIED] - known),
            lapsed=frozenset(found[_Verdict.LAPSED] - known),
        )

    def _require_meant(self, line: ApprovalLine) -> None:
        numbers = set(self._by_line.get(line_key(line), []))
        for number, approval in enumerate(self.given):
            if number not in numbers and approval.operator != line.initiator:
                raise SignerRefused(f"what {approval.operator} approved is another payment")

    def _holds(self, number: int, key: ApprovalLine, now_ms: int) -> bool:
        ends = next(line.expires_at for line in self._lines[number] if line_key(line) == key)
        clock_ms = max(now_ms, self.wall_ms)
        if ends > clock_ms + LIFETIME_MAX_MS:
            raise SignerRefused(
                f"what {self.given[number].operator} approved holds for longer than"
                f" {LIFETIME_MAX.days} days",
                remedy="Request the payout anew, with an earlier end",
            )
        return ends > clock_ms

    def _judge(self, number: int) -> _Verdict:
        """Return what is to be thought of an approval, all its lines together."""
        if number not in self._judged:
            self._judged[number] = self._verify(self.given[number], self._lines[number])
        return self._judged[number]

    def _verify(self, approval: SignedApproval, lines: Sequence[ApprovalLine]) -> _Verdict:
        if len(approval.signature) != SIGNATURE_BYTES:
            return _Verdict.MALFORMED
        if approval.operator not in self.state.operators.operators:
            return _Verdict.UNKNOWN
        try:
            payload = approval_bytes(lines)
        except BadInput:
            return _Verdict.MALFORMED
        try:
            verify_signature(self.state.operator(approval.operator), payload, approval.signature)
        except NotAuthorised:
            return _Verdict.UNVERIFIED
        return _Verdict.VALID


def line_key(line: ApprovalLine) -> ApprovalLine:
    """Return the line without its end: the signer is told what to pay, not until when."""
    return replace(line, expires_at=0)


def line_of(intent: Intent, *, expires_at: int = 0) -> ApprovalLine:
    """Return the line that approvers of this payment have signed, as it ends at *expires_at*."""
    return ApprovalLine(
        payout_id=intent.payout_id,
        chain=intent.chain,
        chain_id=intent.chain_id,
        wallet=intent.wallet,
        client=intent.client,
        destination=intent.destination,
        asset=intent.asset,
        amount=read_amount(intent.amount),
        initiator=intent.initiator,
        policy_version=intent.policy_version,
        rule=intent.rule,
        expires_at=expires_at,
    )
