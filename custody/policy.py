"""When an arrival is deep enough, and when it is too small: a versioned table of rules. Pure.

The first rule that matches decides; the last one matches everything, so there always is one. What
policy asks of an arrival is re-evaluated upwards only: a newer, laxer version does not hurry what
was already waiting.

A policy is a file::

    {"version": 3,
     "minimums": {"evm:USDT": "1.00"},
     "rules": [
       {"chain": "evm", "asset": "USDT", "minimum": "250000", "finalized": true, "depth": 12},
       {"chain": "evm", "source": "known", "depth": 3},
       {"depth": 6}]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self, TypeVar

from chain.model import COINBASE
from custody.bitcoin.coin_model import COINBASE_MATURITY
from custody.deposit_model import Arrival, Deposit, SourceClass
from kernel.errors import BadInput
from kernel.money import Asset

A = TypeVar("A", bound=Arrival)

ANY: Final = "*"
RULES_MAX: Final = 200
DEPTH_MAX: Final = 100_000

_RULE_FIELDS: Final = frozenset({"chain", "asset", "minimum", "source", "depth", "finalized"})
_FIELDS: Final = frozenset({"version", "rules", "minimums"})


@dataclass(frozen=True, slots=True)
class Requirement:
    """What has to be true of the block before an arrival counts.

    Attributes:
        depth: blocks from its own to the tip, both counted.
        finalized: the chain itself must promise that the block stays.
    """

    depth: int
    finalized: bool = False

    def is_met(self, *, height: int, tip: int, finalized_height: int) -> bool:
        """Tell whether a block at *height* is deep enough below *tip*."""
        if height > tip or tip - height + 1 < self.depth:
            return False
        return height <= finalized_height or not self.finalized

    def raised(self, other: Requirement) -> Requirement:
        """Return what satisfies both."""
        return Requirement(max(self.depth, other.depth), self.finalized or other.finalized)

    def __str__(self) -> str:
        blocks = f"{self.depth} block{'' if self.depth == 1 else 's'}"
        return f"{blocks}, finalized" if self.finalized else blocks


@dataclass(frozen=True, slots=True)
class Rule:
    """One line: what it matches (`ANY` is everything), and what it asks for.

    Attributes:
        minimum: it matches arrivals of this many smallest units or more.
    """

    requirement: Requirement
    chain: str = ANY
    asset: str = ANY
    minimum: int = 0
    source: str = ANY

    def misses(self, arrival: Arrival) -> str | None:
        """Return which field does not match, in words; None if all do."""
        source = arrival.source if isinstance(arrival, Deposit) else SourceClass.UNKNOWN
        if self.chain not in {ANY, arrival.chain}:
            return f"chain is {arrival.chain}, not {self.chain}"
        if self.asset not in {ANY, arrival.asset}:
            return f"asset is {arrival.asset}, not {self.asset}"
        if arrival.amount < self.minimum:
            return f"amount {arrival.amount} is below {self.minimum}"
        if self.source not in {ANY, str(source)}:
            return f"source is {source}, not {self.source}"
        return None

    @property
    def matches_all(self) -> bool:
        """Tell whether nothing can miss this rule."""
        return self == Rule(self.requirement)


@dataclass(frozen=True, slots=True)
class ConfirmationPolicy:
    """The rules in order, and the smallest deposits, under a version number from 1.

    Attributes:
        minimums: smallest units by chain asset code (``evm:USDT``); what is below is dust.
    """

    version: int
    rules: tuple[Rule, ...]
    minimums: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.version < 1:
            raise BadInput(f"a policy has version {self.version}; versions count from 1")
        if not 0 < len(self.rules) <= RULES_MAX:
            raise BadInput(f"a policy has 1 to {RULES_MAX} rules, not {len(self.rules)}")
        if not self.rules[-1].matches_all:
            raise BadInput(
                "the last rule of a policy does not match everything",
                remedy="End it with a rule that names only depth and finalized",
            )
        for number, rule in enumerate(self.rules, start=1):
            if not 1 <= rule.requirement.depth <= DEPTH_MAX:
                raise BadInput(
                    f"rule {number} asks for depth {rule.requirement.depth}",
                    remedy=f"1 to {DEPTH_MAX} are possible: nothing counts before a block has it",
                )

    @classmethod
    def uniform(cls, depth: int, *, finalized: bool = False, version: int = 1) -> Self:
        """Return a policy that asks the same of everything."""
        return cls(version, (Rule(Requirement(depth, finalized)),))

    @classmethod
    def parse(cls, text: str, assets: Mapping[str, Asset]) -> Self:
        """Read a policy file; amounts are decimals of the assets given by code.

        Raises:
            BadInput: names the rule and the field.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            raise BadInput(f"the policy is not JSON: {error}") from error
        if not isinstance(document, dict) or not isinstance(document.get("rules"), list):
            raise BadInput("a policy is an object with version and rules")
        _require_known("the policy", document, _FIELDS)
        rules = tuple(
            _parse_rule(number, rule, assets)
            for number, rule in enumerate(document["rules"], start=1)
        )
        minimums = {
            str(code): _amount(f"minimum of {code}", str(code).rpartition(":")[2], amount, assets)
            for code, amount in dict(document.get("minimums", {})).items()
        }
        return cls(_integer("version", document.get("version")), rules, minimums)

    def minimum(self, chain: str, asset: str) -> int:
        """Return the smallest deposit that is worth a client's account, in units; 0 if any is."""
        return self.minimums.get(f"{chain}:{asset}", 0)

    def require(self, arrival: Arrival) -> tuple[int, Requirement]:
        """Return the number (from 1) of the first rule that matches, and what it asks for.

        New coins of Bitcoin need `COINBASE_MATURITY` whatever the rule says: nobody can spend them
        before.
        """
        for number, rule in enumerate(self.rules, start=1):
            if rule.misses(arrival) is None:
                return number, rule.requirement.raised(floor_of(arrival))
        raise AssertionError("the last rule matches everything")

    def raised(self, arrival: A) -> A:
        """Return *arrival* with what policy asks for now, or asked for before if that was more."""
        number, wanted = self.require(arrival)
        if arrival.depth_required:
            wanted = wanted.raised(requirement_of(arrival))
        return replace(
            arrival,
            depth_required=wanted.depth,
            finality_required=wanted.finalized,
            policy_version=self.version,
            policy_rule=number,
        )

    def explain(self, arrival: Arrival) -> str:
        """Return which rule decides about *arrival*, and why none before it did."""
        lines = [f"policy version {self.version}"]
        for number, rule in enumerate(self.rules, start=1):
            miss = rule.misses(arrival)
            if miss is None:
                lines.append(f"rule {number} matches: {rule.requirement}")
                if arrival.sender == COINBASE:
                    lines.append(f"new coins are not spendable before {floor_of(arrival)}")
                break
            lines.append(f"rule {number} does not match: {miss}")
        return "\n".join(lines)


def floor_of(arrival: Arrival) -> Requirement:
    """Return what is asked of *arrival* under every policy."""
    return Requirement(COINBASE_MATURITY if arrival.sender == COINBASE else 1)


def content_of(policy: ConfirmationPolicy) -> dict[str, Any]:
    """Return the policy as JSON values, amounts in smallest units; `from_content` reads it again."""
    return {
        "version": policy.version,
        "rules": [
            {
                "chain": rule.chain,
                "asset": rule.asset,
                "minimum": str(rule.minimum),
                "source": rule.source,
                "depth": rule.requirement.depth,
                "finalized": rule.requirement.finalized,
            }
            for rule in policy.rules
        ],
        "minimums": {code: str(units) for code, units in sorted(policy.minimums.items())},
    }


def from_content(content: Mapping[str, Any]) -> ConfirmationPolicy:
    """Return the policy that `content_of` wrote."""
    return ConfirmationPolicy(
        content["version"],
        tuple(
            Rule(
                Requirement(rule["depth"], rule["finalized"]),
                *(rule["chain"], rule["asset"], int(rule["minimum"]), rule["source"]),
            )
            for rule in content["rules"]
        ),
        {code: int(units) for code, units in content["minimums"].items()},
    )


def requirement_of(arrival: Arrival) -> Requirement:
    """Return what policy has asked of *arrival* so far."""
    return Requirement(arrival.depth_required, arrival.finality_required)


def _parse_rule(number: int, rule: Any, assets: Mapping[str, Asset]) -> Rule:
    what = f"rule {number}"
    if not isinstance(rule, dict):
        raise BadInput(f"{what} is not an object")
    _require_known(what, rule, _RULE_FIELDS)
    asset, source = str(rule.get("asset", ANY)), str(rule.get("source", ANY))
    if source not in {ANY, *SourceClass}:
        raise BadInput(f"{what} has source {source!r}", remedy="Write known, unknown or *")
    if asset not in {ANY, *assets}:
        raise BadInput(f"{what} names the asset {asset!r}, which is not registered")
    minimum = rule.get("minimum", "0")
    if asset == ANY and minimum != "0":
        raise BadInput(f"{what} has a minimum and no asset", remedy="Name the asset as well")
    finalized = rule.get("finalized", False)
    if not isinstance(finalized, bool):
        raise BadInput(f"{what} has finalized {finalized!r}", remedy="Write true or false")
    return Rule(
        requirement=Requirement(_integer(f"depth of {what}", rule.get("depth")), finalized),
        chain=str(rule.get("chain", ANY)),
        asset=asset,
        minimum=0 if asset == ANY else _amount(f"minimum of {what}", asset, minimum, assets),
        source=source,
    )


def _require_known(what: str, document: Mapping[str, Any], known: frozenset[str]) -> None:
    unknown = sorted(set(document) - known)
    if unknown:
        raise BadInput(
            f"{what} has the field {unknown[0]!r}", remedy=f"Known are {', '.join(sorted(known))}"
        )


def _integer(what: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadInput(f"the {what} is {value!r}, not a whole number")
    return value


def _amount(what: str, code: str, value: object, assets: Mapping[str, Asset]) -> int:
    if code not in assets:
        raise BadInput(f"the {what} is in {code!r}, which is not registered")
    if not isinstance(value, str):
        raise BadInput(f"the {what} is {value!r}", remedy='Write it as text: "100.00"')
    return assets[code].parse(value)
