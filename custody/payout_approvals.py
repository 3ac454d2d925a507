"""What an approver signs, and when a payout has approvals enough. Pure.

An approver signs a list of lines, one for each payout: a withdrawal is a list of one, the release of
a settlement run is a list of many under one signature. A line says what leaves, where to, who asked
for it, whose coins of which wallet they are and under which policy, so a signature cannot be carried
to another payout. The signer checks the same bytes against its own pinned keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from kernel.errors import BadInput
from registry.authority import signing_bytes

APPROVE_VERB: Final = "payouts.approve"
LINES_MAX: Final = 500
LIFETIME_MAX: Final = timedelta(days=31)
"""No approval holds for longer, whatever its payout says: the signer takes none that would."""
LIFETIME: Final = timedelta(days=7)
"""How long a payout waits, and its approvals hold, where neither request nor rule says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalLine:
    """One payout as its approver saw it.

    Attributes:
        asset: asset code; *amount* in its smallest unit on the chain.
        initiator: operator who asked for the payout and therefore never approves it.
        chain_id: network id of the chain (EIP-155): an approval for one never counts on a copy.
        wallet: code of the wallet that pays.
        client: for whom it is paid, and on whose allow-list the destination is; None for a move
            between wallets of our own.
        policy_version, rule: the approval policy that was in force when the payout was requested,
            and its rule that decided.
        expires_at: when the approval ends, in milliseconds since 1970: the signer signs nothing new
            by it from then on, by its own clock.
    """

    payout_id: UUID
    chain: str
    chain_id: int
    wallet: str
    client: str | None
    destination: str
    asset: str
    amount: int
    initiator: str
    policy_version: int
    rule: int
    expires_at: int


_NAMES: Final = tuple(ApprovalLine.__dataclass_fields__)


def approval_bytes(lines: Sequence[ApprovalLine]) -> bytes:
    """Return what an approver signs for *lines*; their order does not matter."""
    if not 0 < len(lines) <= LINES_MAX:
        raise BadInput(f"an approval covers 1 to {LINES_MAX} payouts")
    if len({line.payout_id for line in lines}) != len(lines):
        raise BadInput("an approval names each payout once")
    ordered = sorted(lines, key=lambda line: line.payout_id.int)
    return signing_bytes(APPROVE_VERB, {"lines": [to_document(line) for line in ordered]})


def to_document(line: ApprovalLine) -> dict[str, Any]:
    """Return the line as JSON values; the amount as text, for readers without big integers."""
    values = {name: getattr(line, name) for name in _NAMES}
    return {**values, "payout_id": str(line.payout_id), "amount": str(line.amount)}


def from_document(document: dict[str, Any]) -> ApprovalLine:
    """Return the line that `to_document` wrote."""
    values = {**document, "payout_id": UUID(document["payout_id"])}
    return ApprovalLine(**{**values, "amount": int(document["amount"])})
