"""How many people must approve a payout. Pure: the first rule that matches decides, else no."""

from __future__ import annotations

from typing import Any, Final

from custody.payout_model import ApprovalPolicy, Claim, PolicyRule
from kernel.errors import BadInput, Refused

RULES_MAX: Final = 200
APPROVALS_MAX: Final = 10
ANY: Final = "*"


def approvals_required(policy: ApprovalPolicy, claim: Claim, asset: str, amount: int) -> int:
    """Return how many distinct approvers the payout needs.

    Raises:
        Refused: no rule covers it; what is not allowed is forbidden.
    """
    rule = find_rule(policy, claim, asset, amount)
    if rule is None:
        raise Refused(
            f"no rule of approval policy {policy.version} covers {amount} of {asset} for a"
            f" {claim.kind}",
            remedy="Propose a policy that does, or pay less",
        )
    return rule.approvals


def find_rule(policy: ApprovalPolicy, claim: Claim, asset: str, amount: int) -> PolicyRule | None:
    """Return the first rule that matches; None where none does."""
    for rule in policy.rules:
        if (
            rule.claim in {ANY, claim.kind}
            and rule.asset in {ANY, asset}
            and (rule.amount_max is None or amount <= rule.amount_max)
        ):
            return rule
    return None


def check_rules(rules: tuple[PolicyRule, ...]) -> None:
    """Refuse rules that would let a payout pass that nobody approved."""
    if not 0 < len(rules) <= RULES_MAX:
        raise BadInput(f"an approval policy has 1 to {RULES_MAX} rules")
    for rule in rules:
        if not 0 < rule.approvals <= APPROVALS_MAX:
            raise BadInput(f"a rule asks for 1 to {APPROVALS_MAX} approvals, not {rule.approvals}")
        if rule.amount_max is not None and rule.amount_max <= 0:
            raise BadInput("a rule covers amounts above zero")


def to_document(rules: tuple[PolicyRule, ...]) -> list[dict[str, Any]]:
    """Return the rules as JSON values; amounts as text."""
    return [
        {
            "claim": rule.claim,
            "asset": rule.asset,
            "amount_max": None if rule.amount_max is None else str(rule.amount_max),
            "approvals": rule.approvals,
        }
        for rule in rules
    ]


def from_document(document: list[dict[str, Any]]) -> tuple[PolicyRule, ...]:
    """Return the rules that `to_document` wrote."""
    return tuple(
        PolicyRule(
            claim=item["claim"],
            asset=item["asset"],
            amount_max=None if item["amount_max"] is None else int(item["amount_max"]),
            approvals=item["approvals"],
        )
        for item in document
    )
