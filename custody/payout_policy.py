"""What the approval policy says to a payout. Pure: the first rule that matches decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from custody.payout_model import ClaimKind, DestinationKind, Quorum
from custody.policy_model import (
    ANY,
    APPROVERS,
    BLOCK_ALL,
    SERVICES,
    VENUE,
    Action,
    ApprovalPolicy,
    Decision,
    Miss,
    Per,
    PolicyDocument,
    PolicyRule,
    RequestFacts,
    VelocityLimit,
    Window,
)
from custody.quorums import find_empty
from kernel.errors import BadInput
from registry.model import Operator, Role

RULES_MAX: Final = 200
LIMITS_MAX: Final = 50
GROUPS_MAX: Final = 50
MEMBERS_MAX: Final = 100
APPROVALS_MAX: Final = 10
NAME_LENGTH_MAX: Final = 120
WINDOW_MIN_S: Final = 60
WINDOW_MAX_S: Final = 31 * 86_400
"""A window is added up from the payouts themselves: it has an end so that the reading has one."""
AGE_MAX_S: Final = 366 * 86_400
CLAIMS: Final = frozenset({ANY, VENUE, *ClaimKind})
OWN_CLAIMS: Final = frozenset({ClaimKind.OWN, VENUE})
GROUP_PREFIX: Final = "group:"
APPROVER_ROLES: Final = (Role.APPROVER, Role.TREASURER)


def decide(policy: ApprovalPolicy, facts: RequestFacts) -> Decision:
    """Return what the policy says: of the first rule that matches, unless a limit is exceeded."""
    document = policy.document
    misses: list[Miss] = []
    for number, rule in enumerate(document.rules, start=1):
        missed = tuple(find_missed(rule, document, facts))
        if not missed:
            return _said_by(policy, number, rule, facts, tuple(misses))
        misses.append(Miss(number, missed))
    raise AssertionError("the last rule of a policy matches everything")


def find_missed(rule: PolicyRule, document: PolicyDocument, facts: RequestFacts) -> Iterator[str]:
    """Yield the names of the rule's fields that the request does not meet."""
    unlike = tuple(_find_unlike(rule, document, facts))
    yield from unlike
    if rule.amount_max is None:
        return
    window = _window_of_rule(rule, facts)
    if window is not None and unlike:
        return  # nothing was added up for a rule that cannot match
    before = 0 if window is None else facts.reserved[window]
    if before + facts.amount > rule.amount_max:
        yield "amount_max"


def find_windows(document: PolicyDocument, facts: RequestFacts) -> set[Window]:
    """Return what has to be added up before the request can be decided."""
    found = set()
    for rule in document.rules:
        window = _window_of_rule(rule, facts)
        if window is not None and not any(_find_unlike(rule, document, facts)):
            found.add(window)
    return found | {_window_of_limit(limit, facts) for limit in _limits_for(document, facts)}


def check_document(document: PolicyDocument) -> None:
    """Refuse a policy that says nothing, or in which something could never happen."""
    if not 0 < len(document.rules) <= RULES_MAX:
        raise BadInput(f"an approval policy has 1 to {RULES_MAX} rules")
    if len(document.limits) > LIMITS_MAX or len(document.groups) > GROUPS_MAX:
        raise BadInput(f"a policy has up to {LIMITS_MAX} limits and {GROUPS_MAX} groups")
    if not 0 <= document.cooling_off_min_s <= AGE_MAX_S:
        raise BadInput(f"a cooling-off of {document.cooling_off_min_s} seconds")
    _check_groups(document)
    for number, rule in enumerate(document.rules, start=1):
        _check_rule(number, rule, document)
    for number, limit in enumerate(document.limits, start=1):
        if limit.amount_max < 0 or limit.claim not in CLAIMS:
            raise BadInput(f"limit {number} is of {limit.claim} up to {limit.amount_max}")
        _check_window(f"limit {number}", limit.window_s)


def with_block_all(document: PolicyDocument) -> PolicyDocument:
    """Return the document ending with the rule that blocks everything.

    Raises:
        BadInput: it stands before others, which could then never match; or there is no rule.
    """
    rules = document.rules
    if not rules:
        raise BadInput("a policy without a rule", remedy="Write the one that blocks everything")
    if any(_blocks_all(rule) for rule in rules[:-1]):
        raise BadInput("the rule that blocks everything is the last one", remedy="Put it last")
    if _blocks_all(rules[-1]):
        return replace(document, rules=(*rules[:-1], BLOCK_ALL))
    return replace(document, rules=(*rules, BLOCK_ALL))


def groups_of(document: PolicyDocument, operator: Operator) -> frozenset[str]:
    """Return the groups for which this operator's approval counts."""
    named = {name for name, members in document.groups.items() if operator.code in members}
    if operator.code in document.services:
        return frozenset({SERVICES})
    if not operator.roles.isdisjoint(APPROVER_ROLES):
        named |= {APPROVERS, SERVICES}
    return frozenset(named)


def is_complete(required: Sequence[Quorum], approvers: Mapping[str, frozenset[str]]) -> bool:
    """Tell whether every quorum has its own people.

    Nobody counts for two quorums (`custody.quorums`).

    Args:
        required: the quorums.
        approvers: the groups of each one that approved.
    """
    places = [quorum.group for quorum in required for _ in range(quorum.approvals)]
    return not find_empty(places, approvers)


def _said_by(
    policy: ApprovalPolicy,
    number: int,
    rule: PolicyRule,
    facts: RequestFacts,
    misses: tuple[Miss, ...],
) -> Decision:
    action, reason = rule.action, ""
    exceeded = _find_exceeded(policy, facts)
    if action is Action.BLOCK:
        reason = f"rule {number} of approval policy {policy.version} blocks it"
        if number == len(policy.rules):
            reason = (
                f"no rule of approval policy {policy.version} covers {facts.amount} of"
                f" {facts.asset} for a {facts.claim}"
            )
    elif exceeded:
        action, reason = Action.BLOCK, exceeded
    return Decision(
        version=policy.version,
        rule=number,
        action=action,
        required=() if action is Action.BLOCK else rule.required,
        reason=reason,
        expires_s=rule.expires_s,
        misses=misses,
    )


def _find_exceeded(policy: ApprovalPolicy, facts: RequestFacts) -> str:
    for limit in _limits_for(policy.document, facts):
        before = facts.reserved[_window_of_limit(limit, facts)]
        if before + facts.amount > limit.amount_max:
            number = policy.document.limits.index(limit) + 1
            return (
                f"limit {number} of approval policy {policy.version}: {before} {facts.asset} are"
                f" reserved in {limit.window_s} seconds, {facts.amount} more would exceed"
                f" {limit.amount_max}"
            )
    return ""


def _find_unlike(rule: PolicyRule, document: PolicyDocument, facts: RequestFacts) -> Iterator[str]:
    for name in ("claim", "party", "chain", "asset", "wallet"):
        if getattr(rule, name) not in {ANY, getattr(facts, name)}:
            yield name
    if not _is_by(rule.initiator, document, facts.initiator):
        yield "initiator"
    if rule.destination not in {ANY, facts.destination, facts.destination_kind}:
        yield "destination"
    own = facts.destination_kind is DestinationKind.OWN
    if not own and facts.destination_age_s < rule.destination_age_min_s:
        yield "destination_age_min_s"


def _is_by(wanted: str, document: PolicyDocument, initiator: str) -> bool:
    if wanted.startswith(GROUP_PREFIX):
        return initiator in document.groups.get(wanted.removeprefix(GROUP_PREFIX), ())
    return wanted in {ANY, initiator}


def _window_of_rule(rule: PolicyRule, facts: RequestFacts) -> Window | None:
    if rule.window_s is None or rule.amount_max is None:
        return None
    return Window(facts.asset, rule.window_s, rule.claim, _party(rule.per, facts))


def _window_of_limit(limit: VelocityLimit, facts: RequestFacts) -> Window:
    return Window(facts.asset, limit.window_s, limit.claim, _party(limit.per, facts))


def _limits_for(document: PolicyDocument, facts: RequestFacts) -> Iterator[VelocityLimit]:
    for limit in document.limits:
        kind = facts.claim not in OWN_CLAIMS if limit.claim == ANY else facts.claim == limit.claim
        if kind and limit.asset in {ANY, facts.asset}:
            yield limit


def _party(per: Per, facts: RequestFacts) -> str | None:
    return facts.party if per is Per.PARTY else None


def _blocks_all(rule: PolicyRule) -> bool:
    return replace(rule, name=BLOCK_ALL.name, approvals=1, expires_s=None) == BLOCK_ALL


def _check_groups(document: PolicyDocument) -> None:
    for name, members in document.groups.items():
        if name in {APPROVERS, SERVICES} or not 0 < len(name) <= NAME_LENGTH_MAX:
            raise BadInput(f"a group cannot be called {name!r}")
        if not 0 < len(members) <= MEMBERS_MAX or len(set(members)) != len(members):
            raise BadInput(f"group {name} has 1 to {MEMBERS_MAX} different members")
        if set(members) & set(document.services):
            raise BadInput(f"group {name} has a service among its people")


def _check_rule(number: int, rule: PolicyRule, document: PolicyDocument) -> None:
    what = f"rule {number}"
    if rule.claim not in CLAIMS or len(rule.name) > NAME_LENGTH_MAX:
        raise BadInput(
            f"{what} is for {rule.claim!r}", remedy=f"Known: {', '.join(sorted(CLAIMS))}"
        )
    if rule.amount_max is not None and rule.amount_max <= 0:
        raise BadInput(f"{what} covers up to {rule.amount_max}")
    if not 0 <= rule.destination_age_min_s <= AGE_MAX_S:
        raise BadInput(f"{what} asks for an age of {rule.destination_age_min_s} seconds")
    if rule.window_s is not None:
        if rule.amount_max is None:
            raise BadInput(f"{what} has a window and no amount")
        _check_window(what, rule.window_s)
    if rule.expires_s is not None and not 0 < rule.expires_s <= AGE_MAX_S:
        raise BadInput(f"{what} lets requests lapse after {rule.expires_s} seconds")
    group = rule.initiator.removeprefix(GROUP_PREFIX)
    if rule.initiator.startswith(GROUP_PREFIX) and group not in document.groups:
        raise BadInput(f"{what} names the group {group!r}, which the policy does not have")
    _check_quorums(what, rule, document)


def _check_quorums(what: str, rule: PolicyRule, document: PolicyDocument) -> None:
    if rule.action is not Action.APPROVE:
        if rule.groups:
            raise BadInput(f"{what} says {rule.action} and asks for approvals")
        return
    needed = sum(quorum.approvals for quorum in rule.required)
    if not 0 < needed <= APPROVALS_MAX or any(q.approvals < 1 for q in rule.required):
        raise BadInput(f"{what} needs {needed} approvals; 1 to {APPROVALS_MAX}")
    if len({quorum.group for quorum in rule.groups}) != len(rule.groups):
        raise BadInput(f"{what} names a group twice")
    for quorum in rule.groups:
        if quorum.group == APPROVERS:
            continue
        members = document.groups.get(quorum.group, ())
        if len(members) < quorum.approvals:
            raise BadInput(f"{what} needs {quorum.approvals} of {len(members)} in {quorum.group}")


def _check_window(what: str, seconds: int) -> None:
    if not WINDOW_MIN_S <= seconds <= WINDOW_MAX_S:
        raise BadInput(
            f"{what} adds up {seconds} seconds", remedy=f"{WINDOW_MIN_S} to {WINDOW_MAX_S}"
        )
