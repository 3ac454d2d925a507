"""Rate limits as the venue counts them: request weight per address, orders per account.

Limits count in intervals that begin with the minute, the ten seconds and the day, not in sliding
windows. They are always reported; they are enforced only where settings say so: then a request over
the limit is answered 429, and a client that goes on regardless 418, for a time that doubles with
each ban. Source: binance-spot-api-docs, rest-api.md, "Limits".
"""

from dataclasses import dataclass
from typing import Any, Final

from venues.simulator.binance.refusals import ApiError

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60 * SECOND_MS
DAY_MS: Final = 24 * 60 * MINUTE_MS
ORDERS_10S_MAX: Final = 100
ORDERS_1D_MAX: Final = 200_000
VIOLATIONS_MAX: Final = 10
BAN_MS: Final = 2 * MINUTE_MS
BAN_MS_MAX: Final = 3 * DAY_MS

_STREAMS: Final = "Please use WebSocket Streams for live updates to avoid"


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit as exchangeInfo announces it."""

    kind: str
    interval: str
    number: int
    limit: int
    width_ms: int

    def announced(self) -> dict[str, Any]:
        """An entry of exchangeInfo's `rateLimits`."""
        return {
            "rateLimitType": self.kind,
            "interval": self.interval,
            "intervalNum": self.number,
            "limit": self.limit,
        }


class Counter:
    """What was spent of one limit in the running interval."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._interval = 0
        self._count = 0

    def spend(self, amount: int, now_ms: int) -> int:
        """Add to the interval; answers what it holds now."""
        interval = now_ms // self.rule.width_ms
        if interval != self._interval:
            self._interval, self._count = interval, 0
        self._count += amount
        return self._count

    def left_ms(self, now_ms: int) -> int:
        """How long the running interval still lasts."""
        return self.rule.width_ms - now_ms % self.rule.width_ms

    def status(self, now_ms: int) -> dict[str, Any]:
        """The limit with what is spent of it."""
        return {**self.rule.announced(), "count": self.spend(0, now_ms)}


class Limits:
    """The limits of the one address and of all accounts."""

    def __init__(self, *, weight_1m: int, enforced: bool) -> None:
        self._enforced = enforced
        self._weight = Counter(Rule("REQUEST_WEIGHT", "MINUTE", 1, weight_1m, MINUTE_MS))
        self._order_rules = (
            Rule("ORDERS", "SECOND", 10, ORDERS_10S_MAX, 10 * SECOND_MS),
            Rule("ORDERS", "DAY", 1, ORDERS_1D_MAX, DAY_MS),
        )
        self._orders: dict[str, tuple[Counter, Counter]] = {}
        self._violations = 0
        self._bans = 0
        self._banned_until_ms = 0

    def announced(self) -> list[dict[str, Any]]:
        """The `rateLimits` of exchangeInfo."""
        return [rule.announced() for rule in (self._weight.rule, *self._order_rules)]

    def spend_weight(self, weight: int, now_ms: int) -> int:
        """Count a request; answers the weight used in this minute.

        Raises:
            Limited: the limit is enforced and passed.
        """
        used = self._weight.spend(weight, now_ms)
        if not self._enforced:
            return used
        if now_ms < self._banned_until_ms:
            raise self._banned(used)
        if used <= self._weight.rule.limit:
            return used
        self._violations += 1
        if self._violations > VIOLATIONS_MAX:
            self._violations = 0
            length_ms = min(BAN_MS << self._bans, BAN_MS_MAX)
            self._bans += 1
            self._banned_until_ms = now_ms + length_ms
            raise self._banned(used)
        text = (
            f"Too much request weight used; current limit is {self._weight.rule.limit} request "
            f"weight per 1 MINUTE. {_STREAMS} polling the API."
        )
        raise Limited(-1003, text, 429, now_ms + self._weight.left_ms(now_ms), used)

    def spend_orders(self, account: str, amount: int, now_ms: int) -> tuple[int, int]:
        """Count new orders; answers those of the ten seconds and of the day.

        Raises:
            Limited: a limit is enforced and passed.
        """
        counters = self._counters(account)
        used = tuple(counter.spend(amount, now_ms) for counter in counters)
        for counter, count in zip(counters, used, strict=True):
            rule = counter.rule
            if self._enforced and count > rule.limit:
                text = (
                    f"Too many new orders; current limit is {rule.limit} orders per "
                    f"{rule.number} {rule.interval}."
                )
                raise Limited(-1015, text, 429, now_ms + counter.left_ms(now_ms), None)
        return used[0], used[1]

    def weight_status(self, now_ms: int) -> dict[str, Any]:
        """The weight limit with its count."""
        return self._weight.status(now_ms)

    def order_status(self, account: str, now_ms: int) -> list[dict[str, Any]]:
        """The order limits of an account with their counts."""
        return [counter.status(now_ms) for counter in self._counters(account)]

    def _counters(self, account: str) -> tuple[Counter, Counter]:
        if account not in self._orders:
            short, day = self._order_rules
            self._orders[account] = (Counter(short), Counter(day))
        return self._orders[account]

    def _banned(self, used: int) -> "Limited":
        until_ms = self._banned_until_ms
        text = f"Way too much request weight used; IP banned until {until_ms}. {_STREAMS} bans."
        return Limited(-1003, text, 418, until_ms, used)


class Limited(ApiError):
    """A request over a limit: `retry_ms` is when it may be tried again."""

    def __init__(self, code: int, text: str, status: int, retry_ms: int, used: int | None) -> None:
        super().__init__(code, text, status)
        self.retry_ms = retry_ms
        self.used = used
