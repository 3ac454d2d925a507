"""An approval policy, its facts and its decisions as JSON values, one spelling each. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from custody.payout_model import DestinationKind, Quorum
from custody.policy_model import (
    Action,
    Per,
    PolicyDocument,
    PolicyRule,
    RequestFacts,
    VelocityLimit,
    Window,
)

RULE_FIELDS = frozenset(item.name for item in fields(PolicyRule))
LIMIT_FIELDS = frozenset(item.name for item in fields(VelocityLimit))


def to_document(document: PolicyDocument) -> dict[str, Any]:
    """Return a policy as JSON values, as they are stored and signed; amounts as text."""
    return {
        "rules": [_rule(rule) for rule in document.rules],
        "groups": {name: list(members) for name, members in document.groups.items()},
        "services": list(document.services),
        "limits": [
            {**asdict(limit), "amount_max": str(limit.amount_max)} for limit in document.limits
        ],
        "cooling_off_min_s": document.cooling_off_min_s,
    }


def from_document(document: Mapping[str, Any]) -> PolicyDocument:
    """Return the policy that `to_document` wrote."""
    return PolicyDocument(
        rules=tuple(_read_rule(item) for item in document["rules"]),
        groups={name: tuple(members) for name, members in document["groups"].items()},
        services=tuple(document["services"]),
        limits=tuple(
            VelocityLimit(
                **{**item, "amount_max": int(item["amount_max"]), "per": Per(item["per"])}
            )
            for item in document["limits"]
        ),
        cooling_off_min_s=document["cooling_off_min_s"],
    )


def facts_to_document(facts: RequestFacts) -> dict[str, Any]:
    """Return the facts of a request as JSON values."""
    values = {name: getattr(facts, name) for name in FACT_FIELDS if name != "reserved"}
    reserved = [
        [window.asset, window.seconds, window.claim, window.party, str(amount)]
        for window, amount in sorted(facts.reserved.items(), key=lambda item: str(item[0]))
    ]
    return {**values, "amount": str(facts.amount), "reserved": reserved}


def facts_from_document(document: Mapping[str, Any]) -> RequestFacts:
    """Return the facts that `facts_to_document` wrote."""
    return RequestFacts(
        **{
            **document,
            "amount": int(document["amount"]),
            "destination_kind": DestinationKind(document["destination_kind"]),
            "reserved": {
                Window(asset, seconds, claim, party): int(amount)
                for asset, seconds, claim, party, amount in document["reserved"]
            },
        }
    )


def quorums_to_document(required: Sequence[Quorum]) -> list[dict[str, Any]]:
    """Return quorums as JSON values."""
    return [{"group": item.group, "approvals": item.approvals} for item in required]


FACT_FIELDS = tuple(item.name for item in fields(RequestFacts))


def _rule(rule: PolicyRule) -> dict[str, Any]:
    values = asdict(rule)
    amount = None if rule.amount_max is None else str(rule.amount_max)
    return {**values, "amount_max": amount, "groups": quorums_to_document(rule.groups)}


def _read_rule(item: Mapping[str, Any]) -> PolicyRule:
    amount = item["amount_max"]
    return PolicyRule(
        **{
            **item,
            "amount_max": None if amount is None else int(amount),
            "per": Per(item["per"]),
            "action": Action(item["action"]),
            "groups": tuple(Quorum(**quorum) for quorum in item["groups"]),
        }
    )
