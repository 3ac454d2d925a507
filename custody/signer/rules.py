"""The signer's own decision: may these bytes be signed? Pure; it believes nothing that it is told.

What it relies on is its rules file, which the operators of the signer write: the chains it signs
for, the keys of the people who may approve, and a limit for each asset. The application's database,
policy and words are not relied on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from chain.errors import BadTransaction
from chain.evm.transactions import UnsignedTransaction, decode_erc20_transfer
from custody.payout_approvals import ApprovalLine, approval_bytes
from custody.signer.errors import SignerRefused
from custody.signer.wire import Intent, SignedApproval, read_amount
from kernel.errors import BadInput
from registry.authority import verify_signature
from registry.errors import NotAuthorised
from registry.model import Operator

APPROVALS_REQUIRED_MIN: Final = 1


class AssetRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What may be signed of one asset on one chain.

    Attributes:
        contract: token contract in EIP-55; None for the native coin.
        amount_max: largest single payment, decimal text in smallest units.
        approvals: distinct approvers needed, the initiator not counted.
    """

    chain_id: int
    asset: str
    contract: str | None
    amount_max: str
    approvals: int


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The signer's rules file.

    Attributes:
        chains: network id by chain code.
        operators: Ed25519 public keys (64 hexadecimal digits) by operator code.
        fee_cap_max: largest fee of one transaction, decimal text in wei.
    """

    version: int
    chains: dict[str, int]
    operators: dict[str, str]
    fee_cap_max: str
    assets: list[AssetRule]

    def operator(self, code: str) -> Operator:
        """Return the pinned operator."""
        key = self.operators.get(code)
        if key is None:
            raise SignerRefused(f"{code} is not an approver that the signer knows")
        return Operator(code=code, public_key=bytes.fromhex(key), roles=frozenset())


def check_request(
    rules: Rules, intent: Intent, tx: UnsignedTransaction, approvals: Sequence[SignedApproval]
) -> None:
    """Refuse unless the transaction is the approved payment and within the limits.

    Raises:
        SignerRefused: says which of the checks failed.
    """
    rule = find_rule(rules, intent)
    check_bytes(intent, tx)
    if read_amount(intent.amount) > read_amount(rule.amount_max):
        raise SignerRefused(
            f"{intent.amount} of {rule.asset} is more than the signer's limit {rule.amount_max}"
        )
    if tx.fee_max > read_amount(rules.fee_cap_max):
        raise SignerRefused(f"a fee of {tx.fee_max} wei is above the signer's {rules.fee_cap_max}")
    approved = approvers(rules, intent, approvals)
    if len(approved) < rule.approvals:
        raise SignerRefused(
            f"{len(approved)} of {rule.approvals} approvals",
            remedy="Have more operators approve the payout",
        )


def find_rule(rules: Rules, intent: Intent) -> AssetRule:
    """Return the rule of what the intent pays; no rule, no signature."""
    if rules.chains.get(intent.chain) != intent.chain_id:
        raise SignerRefused(f"{intent.chain} with chain id {intent.chain_id} is not signed for")
    for rule in rules.assets:
        same = (rule.chain_id, rule.asset, rule.contract)
        if same == (intent.chain_id, intent.asset, intent.contract):
            return rule
    raise SignerRefused(f"no rule allows {intent.asset} on {intent.chain}")


def check_bytes(intent: Intent, tx: UnsignedTransaction) -> None:
    """Refuse unless the bytes are a plain payment that says exactly what the intent says."""
    if intent.contract is None:
        destination, amount = tx.recipient, tx.value
        if tx.data:
            raise SignerRefused("a native payment carries no data; contracts are not called")
    else:
        if tx.recipient != intent.contract or tx.value:
            raise SignerRefused("a token payment calls the token's contract and carries no value")
        try:
            transfer = decode_erc20_transfer(tx.data)
        except BadTransaction as error:
            raise SignerRefused(f"not an ERC-20 transfer: {error.what}") from error
        destination, amount = transfer.recipient, transfer.amount
    said = {
        "chain id": (intent.chain_id, tx.chain_id),
        "nonce": (intent.nonce, tx.nonce),
        "destination": (intent.destination, destination),
        "amount": (read_amount(intent.amount), amount),
        "fee cap": (read_amount(intent.fee_cap), tx.fee_max),
    }
    for name, (meant, written) in said.items():
        if meant != written:
            raise SignerRefused(f"the {name} is {written} in the bytes and {meant} in the intent")


def approvers(rules: Rules, intent: Intent, approvals: Sequence[SignedApproval]) -> frozenset[str]:
    """Return who has validly approved exactly this payment; the initiator does not count."""
    wanted = ApprovalLine(
        payout_id=intent.payout_id,
        chain=intent.chain,
        chain_id=intent.chain_id,
        destination=intent.destination,
        asset=intent.asset,
        amount=read_amount(intent.amount),
        initiator=intent.initiator,
        policy_version=intent.policy_version,
        rule=intent.rule,
    )
    found: set[str] = set()
    for approval in approvals:
        if approval.operator == intent.initiator:
            raise SignerRefused(f"{intent.initiator} asked for the payout and cannot approve it")
        lines = [line.read() for line in approval.lines]
        if wanted not in lines:
            raise SignerRefused(f"what {approval.operator} approved is another payment")
        try:
            operator = rules.operator(approval.operator)
            verify_signature(operator, approval_bytes(lines), approval.signature)
        except NotAuthorised as error:
            raise SignerRefused(error.what) from error
        found.add(approval.operator)
    return frozenset(found)


def check_rules(rules: Rules) -> None:
    """Refuse rules that let one person sign as two, or that let anything pass unapproved."""
    keys = [bytes.fromhex(key) for key in rules.operators.values()]
    if len(set(keys)) != len(keys) or any(len(key) != 32 for key in keys):
        raise BadInput("each operator has a key of their own, of 32 bytes")
    if any(rule.approvals < APPROVALS_REQUIRED_MIN for rule in rules.assets):
        raise BadInput("an asset that nobody has to approve")
    for amount in (rules.fee_cap_max, *(rule.amount_max for rule in rules.assets)):
        read_amount(amount)
