"""What a wire does to the bytes that pass it, and rules that say when; without a socket or a clock.

A rule strikes connections, counted from the moment it is in force, and begins in each of them after
so many bytes of its way. Nothing is random in a rule: the same bytes meet the same faults. What a
seed decides is a *storm*: which rules are in force when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from random import Random
from typing import Any, Final

from kernel.errors import BadInput

RULES_MAX: Final = 100
SECONDS_MAX: Final = 86_400.0
COUNT_MAX: Final = 1_000_000_000_000
HEARD_MAX: Final = 200
STORM_STEPS_MAX: Final = 10_000


class Fault(StrEnum):
    """What goes wrong with a connection."""

    DELAY = "delay"
    """Each piece that is read arrives `seconds` late; the next one waits behind it."""
    RATE = "rate"
    """At most `bytes_per_second` pass."""
    CUT = "cut"
    """The connection ends (FIN) once `after_bytes` have passed: what was on its way is lost."""
    RESET = "reset"
    """The same with RST, as from a machine that was started again."""
    SWALLOW = "swallow"
    """Bytes are taken and never arrive, and the connection stays open: half-open, as with a machine
    that lost its power. Once the rule is lifted, whoever lost bytes is reset, as by a machine that has
    forgotten the connection."""
    CORRUPT = "corrupt"
    """One bit of each of the first `count` bytes after `after_bytes` is turned."""
    REFUSE = "refuse"
    """New connections are reset before a byte was sent."""


class Way(StrEnum):
    """Which bytes a rule is about."""

    BOTH = "both"
    TO_SERVER = "to-server"
    TO_CLIENT = "to-client"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When a fault strikes, and with what parameters.

    Attributes:
        way: whose bytes count and suffer; a cut or a reset ends both ways.
        skip: how many connections are spared first; those already open count first, oldest first.
        times: how many connections it strikes after that; None: all.
        after_bytes: how many bytes pass unharmed in each struck connection, since the rule is in force.
        heard: the rule sleeps in each struck connection until these characters (ASCII) pass to the
            server within one piece, and counts its bytes from that piece on. Without, it is awake.
        seconds: of a delay.
        bytes_per_second: of a rate.
        count: bytes that are corrupted in each struck connection and way.
    """

    fault: Fault
    way: Way = Way.BOTH
    skip: int = 0
    times: int | None = None
    after_bytes: int = 0
    heard: str = ""
    seconds: float = 0.1
    bytes_per_second: int = 1_024
    count: int = 1

    def __post_init__(self) -> None:
        for name in ("skip", "times", "after_bytes", "count"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= COUNT_MAX:
                raise BadInput(f"{name} of {self.fault} is {value}, out of range")
        if len(self.heard) > HEARD_MAX or not self.heard.isascii():
            raise BadInput(f"what is heard is up to {HEARD_MAX} characters of ASCII")
        if not 1 <= self.bytes_per_second <= COUNT_MAX:
            raise BadInput(f"a rate of {self.bytes_per_second} bytes a second, at least 1")
        if not 0 <= self.seconds <= SECONDS_MAX:
            raise BadInput(f"{self.fault} of {self.seconds} s, at most {SECONDS_MAX:.0f}")

    def is_about(self, way: Way) -> bool:
        """Tell whether bytes that go this way are its."""
        return self.way in {Way.BOTH, way}


@dataclass(slots=True)
class Tally:
    """A rule and how many connections it met and struck."""

    rule: Rule
    seen: int = 0
    struck: int = 0

    def meet(self) -> bool:
        """Count one connection and tell whether the fault strikes it."""
        self.seen += 1
        spent = self.rule.times is not None and self.struck >= self.rule.times
        if self.seen <= self.rule.skip or spent:
            return False
        self.struck += 1
        return True


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of some bytes.

    Attributes:
        passed: what arrives of them.
        wait_s: how long they are held back first.
        ends: how the connection ends after them; None: it goes on.
    """

    passed: bytes
    wait_s: float = 0.0
    ends: Fault | None = None


@dataclass(slots=True)
class Counted:
    """A rule that struck a lane, and how many bytes passed since."""

    rule: Rule
    passed: int = 0

    def left_of(self, data: bytes) -> bytes:
        """Return what passes unharmed."""
        return data[: max(0, self.rule.after_bytes - self.passed)]

    def is_due(self, data: bytes) -> bool:
        """Tell whether some of the bytes come after those that pass unharmed."""
        return self.passed + len(data) > self.rule.after_bytes


@dataclass(slots=True)
class Lane:
    """One way of one connection under the rules that struck it.

    Attributes:
        lost: something of it was swallowed, so that the two sides will never agree again.
    """

    way: Way
    lost: bool = False
    _rules: list[Counted] = field(default_factory=list)

    def put_under(self, rules: Sequence[Rule]) -> None:
        """Put these rules in force instead of all others; they count from here."""
        self._rules = []
        self.add(rules)

    def add(self, rules: Sequence[Rule]) -> None:
        """Put further rules in force."""
        self._rules += [Counted(rule) for rule in rules if rule.is_about(self.way)]

    def ends_now(self) -> Fault | None:
        """Return how the connection ends without another byte."""
        return next((one.rule.fault for one in self._ending() if one.rule.after_bytes == 0), None)

    def takes_the_end(self) -> bool:
        """Tell whether the end of the stream is swallowed like its bytes."""
        taken = any(one.rule.fault is Fault.SWALLOW for one in self._rules)
        self.lost = self.lost or taken
        return taken

    def meet(self, data: bytes) -> Fate:
        """Decide about the next bytes."""
        length, wait_s, ends = len(data), 0.0, None
        cuts = [one for one in self._ending() if len(one.left_of(data)) < length]
        cuts += [one for one in self._ending() if one.passed + length == one.rule.after_bytes]
        if cuts:
            soonest = min(cuts, key=lambda one: one.rule.after_bytes - one.passed)
            data, ends = soonest.left_of(data), soonest.rule.fault
        for one in self._rules:
            match one.rule.fault:
                case Fault.SWALLOW:
                    kept = one.left_of(data)
                    self.lost, data = self.lost or kept != data, kept
                case Fault.CORRUPT:
                    data = _corrupted(data, one.passed, one.rule)
                case Fault.DELAY if one.is_due(data):
                    wait_s += one.rule.seconds
                case Fault.RATE if one.is_due(data):
                    wait_s += len(data) / one.rule.bytes_per_second
                case _:
                    pass
        for one in self._rules:
            one.passed += length
        return Fate(data, wait_s, ends)

    def _ending(self) -> list[Counted]:
        return [one for one in self._rules if one.rule.fault in {Fault.CUT, Fault.RESET}]


@dataclass(frozen=True, slots=True)
class Step:
    """Rules that are in force from a moment of a storm on, instead of all others."""

    at_s: float
    rules: tuple[Rule, ...]


def storm(seed: int, *, seconds: float, calm_s: float = 0.5, fault_s: float = 0.5) -> list[Step]:
    """Return faults and calm in turns, as the seed draws them; it ends in calm.

    Args:
        seed: the same one gives the same storm.
        seconds: how long the storm lasts.
        calm_s: how long a calm lasts on average.
        fault_s: how long a fault lasts on average.
    """
    random, at, steps = Random(seed), 0.0, list[Step]()  # noqa: S311  faults, not secrets
    while at < seconds and len(steps) < STORM_STEPS_MAX:
        at += random.uniform(0, 2 * calm_s)
        steps.append(Step(round(at, 3), (_drawn(random),)))
        at += random.uniform(0, 2 * fault_s)
        steps.append(Step(round(at, 3), ()))
    return steps


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
            shown[item.name] = value
    return shown


def _drawn(random: Random) -> Rule:
    way = random.choice(list(Way))
    match random.choice(list(Fault)):
        case Fault.DELAY:
            return Rule(fault=Fault.DELAY, way=way, seconds=round(random.uniform(0.01, 0.3), 3))
        case Fault.RATE:
            return Rule(
                fault=Fault.RATE, way=way, bytes_per_second=random.randrange(2_000, 100_000)
            )
        case fault:
            return Rule(fault=fault, way=way, after_bytes=random.choice((0, 0, 100, 1_000, 5_000)))


def _corrupted(data: bytes, first: int, rule: Rule) -> bytes:
    begin = max(0, rule.after_bytes - first)
    end = max(0, rule.after_bytes + rule.count - first)
    turned = bytes(byte ^ 0x01 for byte in data[begin:end])
    return data[:begin] + turned + data[begin + len(turned) :]


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
    if kind in {"Fault", "Way"}:
        words: type[Fault | Way] = Fault if kind == "Fault" else Way
        if value not in set(words):
            raise BadInput(f"no {name} {value!r}; there are {', '.join(words)}")
        return words(value)
    if value is None and "None" in kind:
        return None
    accepted = {"float": (int, float), "str": (str,)}.get(kind, (int,))
    if isinstance(value, bool) or not isinstance(value, accepted):
        raise BadInput(f"{name} is {value!r}, not of type {kind}")
    return value
