"""An approval policy as people write it: JSON with decimal amounts.

Either a list of rules, or an object with ``rules`` and, where they are wanted, ``groups``,
``services``, ``limits`` and ``cooling_off_min_s``. The rule that blocks everything is added at the end.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from kernel.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

    from app.cli.common import Money
    from custody.payout_model import Quorum
    from custody.policy_model import PolicyDocument, PolicyRule, VelocityLimit

ANY: Final = "*"
FIELDS: Final = frozenset({"rules", "groups", "services", "limits", "cooling_off_min_s"})
NUMBERS: Final = frozenset({"approvals", "window_s", "destination_age_min_s", "expires_s"})


def read_policy(path: Path) -> dict[str, Any]:
    """Read a policy's file; what it means is looked at with the registry at hand.

    Raises:
        BadInput: it is not JSON, or neither a list of rules nor an object of the known fields.
    """
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"the policy cannot be read: {error}", where=str(path)) from error
    if isinstance(document, list):
        document = {"rules": document}
    if not isinstance(document, dict) or not document.keys() <= FIELDS or "rules" not in document:
        raise BadInput(
            "the policy is neither a list of rules nor an object with rules",
            where=str(path),
            remedy=f"Known fields are {', '.join(sorted(FIELDS))}",
        )
    for name in ("rules", "limits"):
        items = document.get(name, [])
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise BadInput(f"the {name} are not a list of objects", where=str(path))
    return document


def parse_policy(document: dict[str, Any], money: Money) -> PolicyDocument:
    """Return the policy that the file means.

    Raises:
        BadInput: a field that is not known, or not of its kind.
    """
    from custody.policy_model import PolicyDocument

    groups, services = document.get("groups", {}), document.get("services", [])
    if not isinstance(groups, dict) or not all(_are_codes(item) for item in groups.values()):
        raise BadInput("the groups are not lists of operators by name")
    if not _are_codes(services):
        raise BadInput("the services are not a list of operators")
    cooling = document.get("cooling_off_min_s", 0)
    _require_number("cooling_off_min_s", cooling)
    return PolicyDocument(
        rules=tuple(
            _rule(number, item, money) for number, item in enumerate(document["rules"], start=1)
        ),
        groups={name: tuple(members) for name, members in groups.items()},
        services=tuple(services),
        limits=tuple(
            _limit(number, item, money)
            for number, item in enumerate(document.get("limits", []), start=1)
        ),
        cooling_off_min_s=cooling,
    )


def _rule(number: int, item: dict[str, Any], money: Money) -> PolicyRule:
    from custody.policy_documents import RULE_FIELDS
    from custody.policy_model import Action, Per, PolicyRule

    what = f"rule {number}"
    _require_known(what, item, RULE_FIELDS)
    values = dict(item)
    if "amount_max" in item:
        values["amount_max"] = _amount(what, item, money)
    if "action" in item:
        values["action"] = _member(what, Action, item["action"])
    if "per" in item:
        values["per"] = _member(what, Per, item["per"])
    if "groups" in item:
        values["groups"] = tuple(_quorum(what, one) for one in item["groups"])
    return PolicyRule(**values)


def _limit(number: int, item: dict[str, Any], money: Money) -> VelocityLimit:
    from custody.policy_documents import LIMIT_FIELDS
    from custody.policy_model import Per, VelocityLimit

    what = f"limit {number}"
    _require_known(what, item, LIMIT_FIELDS)
    if not {"asset", "amount_max", "window_s"} <= item.keys():
        raise BadInput(f"{what} needs asset, amount_max and window_s")
    values = {**item, "amount_max": _amount(what, item, money)}
    if "per" in item:
        values["per"] = _member(what, Per, item["per"])
    return VelocityLimit(**values)


def _require_known(what: str, item: dict[str, Any], known: frozenset[str]) -> None:
    unknown = sorted(item.keys() - known)
    if unknown:
        raise BadInput(
            f"{what} has the unknown field {unknown[0]}",
            remedy=f"Known fields are {', '.join(sorted(known))}",
        )
    for name in NUMBERS & item.keys():
        _require_number(f"{name} of {what}", item[name])
    for name in item.keys() - NUMBERS - {"amount_max", "groups"}:
        if not isinstance(item[name], str):
            raise BadInput(f"{name} of {what} is not text")


def _require_number(what: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadInput(f"the {what} is not a whole number")


def _amount(what: str, item: dict[str, Any], money: Money) -> int | None:
    amount, asset = item["amount_max"], item.get("asset", ANY)
    if amount is None:
        return None
    if asset == ANY or not isinstance(amount, str):
        raise BadInput(
            f"{what} has an amount_max without its asset, or not as text",
            remedy='Write {"asset": "ETH", "amount_max": "10"}',
        )
    return money.asset(asset).parse(amount)


def _member(what: str, kind: Any, text: object) -> Any:
    if text not in set(kind):
        raise BadInput(f"{what} says {text!r}", remedy=f"Write one of {', '.join(kind)}")
    return kind(text)


def _quorum(what: str, item: Any) -> Quorum:
    from custody.payout_model import Quorum

    if not isinstance(item, dict) or item.keys() != {"group", "approvals"}:
        raise BadInput(
            f"{what} has groups that are not {{group, approvals}}",
            remedy='Write [{"group": "treasury", "approvals": 1}]',
        )
    _require_number(f"approvals of {what}", item["approvals"])
    return Quorum(str(item["group"]), item["approvals"])


def _are_codes(items: object) -> bool:
    return isinstance(items, list) and all(isinstance(item, str) for item in items)
