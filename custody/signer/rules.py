"""What a signer begins with, and what people and limits have to be like. Pure."""

from __future__ import annotations

from collections.abc import Collection
from itertools import combinations
from typing import Final

import msgspec

from custody.control_messages import (
    BODY_ITEMS_MAX,
    AssetRule,
    LimitsInForce,
    OperatorsInForce,
    WalletPinned,
)
from custody.signer.paths import require_key_name
from custody.signer.wire import read_amount
from kernel.errors import BadInput

APPROVALS_REQUIRED_MIN: Final = 1
QUORUM_MIN: Final = 2
PUBLIC_KEY_BYTES: Final = 32
WINDOW_S_MAX: Final = 31 * 86_400


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The signer's rules file: what is in force from its first start on, the *genesis*.

    It is read once, when the store is made, and recorded in the log. Later changes are control
    messages. The fields are those of `OperatorsInForce`, `LimitsInForce` and `WalletPinned`.

    Attributes:
        version: 1.
        policy_version: version of the application's approval policy that is in force; None: payouts
            are not bound to one until the first policy message.
        wallets: which account of keys each wallet is; where none is named, the names of wallets are
            not checked until the first wallet message.
    """

    version: int
    chains: dict[str, int]
    operators: dict[str, str]
    fee_cap_max: str
    assets: list[AssetRule]
    services: list[str] = []
    administrators: list[str] = []
    groups: dict[str, list[str]] = {}
    quorum: int = QUORUM_MIN
    fee_window_s: int = 86_400
    fee_window_max: str | None = None
    cooling_off_s_min: int = 0
    policy_grace_s: int = 604_800
    policy_version: int | None = None
    fee_caps: dict[str, str] = {}
    fee_windows: dict[str, str] = {}
    wallets: list[WalletPinned] = []

    def operators_in_force(self) -> OperatorsInForce:
        """Return the people of the first start."""
        return OperatorsInForce(
            version=1,
            operators=self.operators,
            services=self.services,
            administrators=self.administrators,
            groups=self.groups,
            quorum=self.quorum,
        )

    def limits_in_force(self) -> LimitsInForce:
        """Return the limits of the first start."""
        return LimitsInForce(
            version=1,
            chains=self.chains,
            fee_cap_max=self.fee_cap_max,
            assets=self.assets,
            fee_window_s=self.fee_window_s,
            fee_window_max=self.fee_window_max,
            cooling_off_s_min=self.cooling_off_s_min,
            policy_grace_s=self.policy_grace_s,
            fee_caps=self.fee_caps,
            fee_windows=self.fee_windows,
        )


def check_rules(rules: Rules) -> None:
    """Refuse rules under which one person could act as two, or something pass that nobody approved."""
    if rules.version != 1:
        raise BadInput(f"signer rules of version {rules.version}; a new store begins with 1")
    check_operators(rules.operators_in_force())
    check_limits(rules.limits_in_force())
    if len({item.wallet for item in rules.wallets}) != len(rules.wallets):
        raise BadInput("a wallet is pinned twice")
    if any(item.version != 1 for item in rules.wallets):
        raise BadInput("a wallet begins at version 1")
    for wallet in rules.wallets:
        require_key_name(wallet.account_path)
    for first, second in combinations(rules.wallets, 2):
        require_apart(first, second)


def require_apart(first: WalletPinned, second: WalletPinned) -> None:
    """Refuse two wallets of which one has the other's keys."""
    paths = sorted((f"{first.account_path}/", f"{second.account_path}/"), key=len)
    if first.chain == second.chain and paths[1].startswith(paths[0]):
        raise BadInput(f"{first.wallet} and {second.wallet} would have the same keys")


def check_operators(body: OperatorsInForce) -> None:
    """Refuse people of whom one could sign as two, or who could never change anything again."""
    keys = [bytes.fromhex(key) for key in body.operators.values()]
    if len(set(keys)) != len(keys) or any(len(key) != PUBLIC_KEY_BYTES for key in keys):
        raise BadInput(f"each operator has a key of their own, of {PUBLIC_KEY_BYTES} bytes")
    if not 0 < len(keys) <= BODY_ITEMS_MAX:
        raise BadInput(f"the signer knows 1 to {BODY_ITEMS_MAX} operators")
    people = set(body.operators) - set(body.services)
    if not set(body.services) <= set(body.operators):
        raise BadInput("a service is one of the operators")
    if not set(body.administrators) <= people:
        raise BadInput("an administrator is a person among the operators")
    if body.administrators and len(set(body.administrators)) < body.quorum:
        raise BadInput(
            f"{body.quorum} people or more administer the signer, or nothing ever changes"
        )
    if any(not set(codes) <= people for codes in body.groups.values()):
        raise BadInput("a group is of people among the operators")
    if not QUORUM_MIN <= body.quorum <= len(people):
        raise BadInput(
            f"a control message takes {QUORUM_MIN} people or more, and no more than there are:"
            f" not {body.quorum} of {len(people)}"
        )


def check_limits(body: LimitsInForce) -> None:
    """Refuse limits that let anything pass unapproved, or that have no sense."""
    if len(body.assets) > BODY_ITEMS_MAX:
        raise BadInput(f"more than {BODY_ITEMS_MAX} assets")
    # Whatever its code: under a second one the same coins would have a second limit and window.
    if len({(rule.chain_id, rule.contract) for rule in body.assets}) != len(body.assets):
        raise BadInput("an asset has two rules")
    if len(set(body.chains.values())) != len(body.chains):
        raise BadInput("a network has two names, so closing one of them would not close it")
    for rule in body.assets:
        _check_asset(rule)
    _check_amounts([body.fee_cap_max, body.fee_window_max])
    _check_amounts([*body.fee_caps.values(), *body.fee_windows.values()])
    if not {*body.fee_caps, *body.fee_windows} <= set(body.chains):
        raise BadInput("a fee is limited on a chain that is not signed for")
    if not 0 < body.fee_window_s <= WINDOW_S_MAX:
        raise BadInput(f"a window has 1 to {WINDOW_S_MAX} seconds")
    if body.cooling_off_s_min < 0 or body.policy_grace_s < 0:
        raise BadInput("a time below zero")


def _check_asset(rule: AssetRule) -> None:
    if rule.approvals < APPROVALS_REQUIRED_MIN:
        raise BadInput("an asset that nobody has to approve")
    if any(count < 1 for count in rule.groups.values()):
        raise BadInput("a group that nobody of has to approve")
    if not 0 < rule.window_s <= WINDOW_S_MAX:
        raise BadInput(f"a window has 1 to {WINDOW_S_MAX} seconds")
    if rule.auto_max is not None and rule.auto_window_max is None:
        raise BadInput("what a service approves alone is bounded by a window, too")
    _check_amounts(
        [
            rule.amount_max,
            rule.own_amount_max,
            rule.window_max,
            rule.auto_max,
            rule.auto_window_max,
        ]
    )


def _check_amounts(amounts: Collection[str | None]) -> None:
    for amount in amounts:
        if amount is not None:
            read_amount(amount)
