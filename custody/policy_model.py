"""The nouns of the approval policy: rules in order, groups of people, limits over a window.

A policy is one document that two administrators make. Its rules are tried in order and the first that
matches decides: *allow* (a pinned service may approve by itself, within limits that the signer
holds), *approve* (so many people of named groups) or *block*. The last rule blocks everything and
cannot be removed. Limits hold whatever rule has matched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from custody.payout_model import ControlState, DestinationKind, Quorum

ANY: Final = "*"
VENUE: Final = "venue"
"""What a rule calls own transfers to and from accounts at venues: those between wallets are ``own``."""
APPROVERS: Final = "approvers"
"""The group of everybody with the role approver or treasurer, services excepted."""
SERVICES: Final = "services"
"""The group of the policy's services, and of all approvers: who may complete an *allow*."""


class Action(StrEnum):
    """What a rule says."""

    ALLOW = "allow"
    APPROVE = "approve"
    BLOCK = "block"


class Per(StrEnum):
    """Whose payouts are added up over a window."""

    PARTY = "party"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """One line of a policy; ``*`` matches everything.

    Attributes:
        claim: ``client``, ``held``, ``payable``, ``own``, ``venue`` or ``*``.
        party: the party whose claim it is.
        initiator: who asks: an operator's code, or ``group:<name>``.
        chain, asset, wallet: codes; *wallet* is the one that pays, ``venue:<venue>/<account>`` where
            a venue does.
        destination: an address, or ``eoa``, ``contract``, ``own``, ``venue``.
        destination_age_min_s: seconds since two people allowed the destination.
        amount_max: up to this many of the asset's smallest units; None: any amount.
        window_s: None: *amount_max* is of one payout; else of all that was reserved in so many
            seconds, this payout included, of the same party or (*per*) of all.
        approvals: distinct people of `APPROVERS`, the initiator not counted; or *groups*, each with
            its own number, and nobody counted for two of them.
        expires_s: a request lapses after so many seconds; None: as the request says.
    """

    name: str = ""
    claim: str = ANY
    party: str = ANY
    initiator: str = ANY
    chain: str = ANY
    asset: str = ANY
    wallet: str = ANY
    destination: str = ANY
    destination_age_min_s: int = 0
    amount_max: int | None = None
    window_s: int | None = None
    per: Per = Per.PARTY
    action: Action = Action.APPROVE
    approvals: int = 1
    groups: tuple[Quorum, ...] = ()
    expires_s: int | None = None

    @property
    def required(self) -> tuple[Quorum, ...]:
        """Return which groups have to approve what the rule lets pass."""
        match self.action:
            case Action.ALLOW:
                return (Quorum(SERVICES, 1),)
            case Action.APPROVE:
                return self.groups or (Quorum(APPROVERS, self.approvals),)
            case Action.BLOCK:
                return ()


BLOCK_ALL: Final = PolicyRule(name="block all", action=Action.BLOCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class VelocityLimit:
    """At most *amount_max* of *asset* reserved in any *window_s* seconds, whatever the rules say.

    *claim* ``*`` stands for every payout to others: own transfers are limited by naming ``own``, and
    those to and from venues by naming ``venue``.
    """

    asset: str
    amount_max: int
    window_s: int
    claim: str = ANY
    per: Per = Per.PARTY


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDocument:
    """What two administrators put in force.

    Attributes:
        groups: operators by the name of their group.
        services: operators that are programs; they approve what a rule allows, and nothing else.
        cooling_off_min_s: shortest time from the approval of a destination to its first use.
    """

    rules: tuple[PolicyRule, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    services: tuple[str, ...] = ()
    limits: tuple[VelocityLimit, ...] = ()
    cooling_off_min_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalPolicy:
    """One version of the policy, and who made it."""

    version: int
    document: PolicyDocument
    state: ControlState
    proposed_by: str
    proposed_at: datetime
    proposal_signature: bytes = b""
    approved_by: str | None = None
    signature: bytes | None = None

    @property
    def rules(self) -> tuple[PolicyRule, ...]:
        """Return its rules in order; the last one blocks everything."""
        return self.document.rules


@dataclass(frozen=True, slots=True)
class Window:
    """What is added up: payouts of *asset* in *seconds*, of one party or (None) of all.

    *claim* is a kind of claim; ``*`` leaves own transfers out.
    """

    asset: str
    seconds: int
    claim: str
    party: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFacts:
    """What a request was decided on; stored with the decision, so that it can be judged again.

    Attributes:
        party: None of an own transfer.
        destination_age_s: seconds since the destination was allowed; 0 of an own transfer.
        amount: in the asset's smallest unit.
        reserved: what was reserved before this request, by window.
    """

    initiator: str
    claim: str
    party: str | None
    chain: str
    asset: str
    wallet: str
    destination: str
    destination_kind: DestinationKind
    destination_age_s: int
    amount: int
    reserved: Mapping[Window, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Miss:
    """A rule that did not match, and the fields because of which."""

    rule: int
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a policy says to a request.

    Attributes:
        rule: number of the rule that matched, from 1.
        reason: why it is blocked, "" where it is not.
        misses: the rules before it.
    """

    version: int
    rule: int
    action: Action
    required: tuple[Quorum, ...]
    reason: str = ""
    expires_s: int | None = None
    misses: tuple[Miss, ...] = ()
