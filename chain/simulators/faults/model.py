"""The faults there are, and rules that say when one of them strikes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Final

from kernel.errors import BadInput

RULES_MAX: Final = 1_000
SECONDS_MAX: Final = 86_400
SILENCE_S: Final = 3_600.0
COUNT_MAX: Final = 1_000_000_000
METHODS_MAX: Final = 100


class Fault(StrEnum):
    """What goes wrong."""

    STALE_HEAD = "stale-head"
    """The node knows nothing above a height: that of the head less `blocks`, or `height`."""
    EMPTY_LOGS = "empty-logs"
    """Answers have no logs; nothing else about them is missing."""
    ACCEPT_THEN_TIME_OUT = "accept-then-time-out"
    """The node takes the call; its answer is never sent."""
    TIME_OUT = "time-out"
    """The call never reaches the node, and no answer is sent."""
    TOO_MANY_REQUESTS = "429"
    """Over HTTP status 429, with `Retry-After` when `seconds` are given; else error -32005."""
    WRONG_CHAIN = "wrong-chain"
    """The node says that it serves `chain_id`."""
    OTHER_NODE = "other-node"
    """The other node answers: disagreement, or with `every` two nodes behind one address."""
    FORGED_HASH = "forged-hash"
    """From `height` on every block has another hash, consistently: a branch that is nowhere else."""
    ALTERED_AMOUNTS = "altered-amounts"
    """Transfers carry twice their amount, under the hashes of the true blocks."""
    NO_TRACES = "no-traces"
    """The node has no such method (-32601)."""
    HALF_ANSWER = "half-an-answer"
    """The connection breaks in the middle of the answer."""
    SLOW = "slow"
    """The answer comes `seconds` late."""
    REFUSE = "refuse"
    """The node answers with error `code` and `message`."""
    DISCONNECT = "disconnect"
    """The connection is cut before the node is asked; a WebSocket with all its subscriptions."""
    DROP_NOTIFICATIONS = "drop-notifications"
    """A notification of a subscription is lost."""
    DUPLICATE_NOTIFICATIONS = "duplicate-notifications"
    """A notification is sent twice."""


METHODS_BY_FAULT: Final[Mapping[Fault, tuple[str, ...]]] = {
    Fault.ACCEPT_THEN_TIME_OUT: ("eth_sendRawTransaction", "sendrawtransaction"),
    Fault.NO_TRACES: ("debug_*", "trace_*"),
    Fault.WRONG_CHAIN: ("eth_chainId", "net_version"),
    Fault.DROP_NOTIFICATIONS: ("newHeads", "logs", "newPendingTransactions"),
    Fault.DUPLICATE_NOTIFICATIONS: ("newHeads", "logs", "newPendingTransactions"),
}
"""Which calls a fault strikes when a rule names none; of the last two the kind of subscription."""

NOTIFICATION_FAULTS: Final = frozenset({Fault.DROP_NOTIFICATIONS, Fault.DUPLICATE_NOTIFICATIONS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When a fault strikes, and with what parameters.

    Attributes:
        methods: shell patterns of the methods (or kinds of subscription) that match; empty for those
            in `METHODS_BY_FAULT`, else all.
        skip: how many matching calls pass first.
        every: of those after, each so-manieth is struck, beginning with the first: 2 alternates.
        times: how often it strikes; None for ever.
        blocks, height: how far a stale head lags, or where it stands; where forged hashes begin.
        seconds: how late, how long silent, or what ``Retry-After`` says.
    """

    fault: Fault
    methods: tuple[str, ...] = ()
    skip: int = 0
    every: int = 1
    times: int | None = None
    blocks: int = 1
    height: int | None = None
    chain_id: int = 1
    seconds: float | None = None
    code: int = -32000
    message: str = "the node refuses"

    def __post_init__(self) -> None:
        for name in ("skip", "every", "times", "blocks", "height", "chain_id"):
            value = getattr(self, name)
            if value is not None and not int(name == "every") <= value <= COUNT_MAX:
                raise BadInput(f"{name} of {self.fault} is {value}, out of range")
        if self.seconds is not None and not 0 <= self.seconds <= SECONDS_MAX:
            raise BadInput(f"{self.fault} for {self.seconds} s, at most {SECONDS_MAX}")
        if self.fault is Fault.FORGED_HASH and not self.height:
            raise BadInput(
                f"{self.fault} needs the height (1 or more) from which hashes are forged"
            )

    def matches(self, method: str) -> bool:
        """Tell whether a call of *method* is one that this rule counts."""
        patterns = self.methods or METHODS_BY_FAULT.get(self.fault, ("*",))
        return any(fnmatchcase(method, pattern) for pattern in patterns)


def read_rules(body: Any) -> tuple[Rule, ...]:
    """Return the rules that a JSON list describes: objects with the attributes of `Rule`.

    Raises:
        BadInput: something in it is no rule; nothing of it is to be applied.
    """
    if not isinstance(body, list) or len(body) > RULES_MAX:
        raise BadInput(f"rules are a list of at most {RULES_MAX} objects")
    return tuple(_read_rule(item) for item in body)


def rule_json(rule: Rule) -> dict[str, Any]:
    """Return the rule as JSON, without what stands at its default."""
    shown: dict[str, Any] = {"fault": rule.fault.value}
    for item in fields(rule)[1:]:
        value = getattr(rule, item.name)
        if value != item.default:
            shown[item.name] = list(value) if isinstance(value, tuple) else value
    return shown


def _read_rule(item: Any) -> Rule:
    if not isinstance(item, dict) or "fault" not in item:
        raise BadInput(f"a rule is an object with a fault, not {item!r}")
    known = {one.name: str(one.type) for one in fields(Rule)}
    values: dict[str, Any] = {}
    for name, value in item.items():
        if name not in known:
            raise BadInput(f"a rule has no {name!r}; it has {', '.join(known)}")
        values[name] = _read_value(name, known[name], value)
    return Rule(**values)


def _read_value(name: str, kind: str, value: Any) -> Any:
    if name == "fault":
        if value not in set(Fault):
            raise BadInput(f"no fault {value!r}; there are {', '.join(Fault)}")
        return Fault(value)
    if name == "methods":
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, list) or len(value) > METHODS_MAX:
            raise BadInput(f"methods are a list of at most {METHODS_MAX} patterns")
        return tuple(str(one) for one in value)
    if value is None and "None" in kind:
        return None
    accepted = (str,) if kind == "str" else (int, float) if "float" in kind else (int,)
    if isinstance(value, bool) or not isinstance(value, accepted):
        raise BadInput(f"{name} is {value!r}, not of type {kind}")
    return value
