"""The approvals of one question: who has validly approved which payment. Pure.

One signature may cover the lines of many payouts. It is verified once, when the first of them is
asked for, against the keys that the signer has pinned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from custody.payout_approvals import ApprovalLine, approval_bytes
from custody.signer.control import InForce
from custody.signer.errors import SignerRefused
from custody.signer.wire import Intent, SignedApproval, read_amount
from kernel.errors import BadInput
from registry.authority import verify_signature
from registry.errors import NotAuthorised


@dataclass(slots=True)
class Approvals:
    """The approvals that came with a question, found by line.

    Attributes:
        alone: the question asks for one transaction, so each approval has to be meant for it.
    """

    state: InForce
    given: Sequence[SignedApproval]
    alone: bool
    _by_line: dict[ApprovalLine, list[int]] = field(default_factory=dict)
    _lines: list[list[ApprovalLine]] = field(default_factory=list)
    _verified: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read every line once."""
        for number, approval in enumerate(self.given):
            lines = [line.read() for line in approval.lines]
            self._lines.append(lines)
            for line in lines:
                self._by_line.setdefault(line, []).append(number)

    def approvers(self, intent: Intent) -> frozenset[str]:
        """Return who has validly approved exactly this payment; the initiator may not be among them.

        Raises:
            SignerRefused: the initiator approved it, or a signature is not that of a pinned key.
        """
        numbers = self._by_line.get(line_of(intent), [])
        if self.alone and len(set(numbers)) != len(self.given):
            other = next(n for n in range(len(self.given)) if n not in numbers)
            if self.given[other].operator != intent.initiator:
                raise SignerRefused(
                    f"what {self.given[other].operator} approved is another payment"
                )
        for number in numbers:
            if self.given[number].operator == intent.initiator:
                raise SignerRefused(
                    f"{intent.initiator} asked for the payout and cannot approve it"
                )
        return frozenset(self._verify(number) for number in numbers)

    def _verify(self, number: int) -> str:
        if number not in self._verified:
            approval = self.given[number]
            operator = self.state.operator(approval.operator)
            try:
                payload = approval_bytes(self._lines[number])
                verify_signature(operator, payload, approval.signature)
            except (NotAuthorised, BadInput) as error:
                raise SignerRefused(error.what) from error
            self._verified[number] = approval.operator
        return self._verified[number]


def line_of(intent: Intent) -> ApprovalLine:
    """Return the line that approvers of this payment have signed."""
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
    )
