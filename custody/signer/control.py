"""What is in force in the signer: people, limits, policy, wallets, destinations, freezes. Pure.

It begins with the rules of the first start (genesis) and changes only by control messages, each
checked against what was in force when it came. The log keeps every message, so `apply_control` over
the log gives the same state again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from chain.bitcoin.addresses import canonical_address
from chain.bitcoin.networks import NETWORKS
from chain.evm.addresses import parse_address
from custody.control_messages import (
    BODIES,
    BODY_ITEMS_MAX,
    ONE_PERSON,
    SIGNATURES_MAX,
    Body,
    ControlKind,
    ControlMessage,
    Frozen,
    LimitsInForce,
    OperatorsInForce,
    ScopeKind,
    WalletPinned,
    read_body,
)
from custody.signer.errors import SignerRefused
from custody.signer.paths import require_key_name
from custody.signer.retirement import check_retirement
from custody.signer.rules import Rules, check_limits, check_operators, require_apart
from kernel.clock import to_unix_ms
from kernel.errors import BadInput, CausewayError
from registry.authority import verify_signature
from registry.model import Operator

ADMINISTRATIVE: Final = frozenset(
    {
        ControlKind.OPERATORS,
        ControlKind.LIMITS,
        ControlKind.POLICY,
        ControlKind.WALLET,
        ControlKind.KEY_RETIRE,
    }
)
COOLING_OFF_S_MAX: Final = 366 * 86_400
FREEZES_MAX: Final = 1_000
"""Most closed switches of one scope: whoever uses one scope up leaves the others."""
TEXT_LENGTH_MAX: Final = 500
TOKEN_LENGTH: Final = 64
MS: Final = 1_000
_ID: Final = re.compile(r"[0-9a-f]{64}")
_OUTPOINT: Final = re.compile(r"[0-9a-f]{64}:(?:0|[1-9]\d{0,9})")

PlaceKey = tuple[str, int, str]
"""(party, network id, address)."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where coins of a party may go, from *usable_ms* on (milliseconds since 1970)."""

    id: UUID
    usable_ms: int


@dataclass(slots=True)
class InForce:
    """Everything that the signer goes by."""

    operators: OperatorsInForce
    limits: LimitsInForce
    policy_version: int | None = None
    policies_ended: dict[int, int] = field(default_factory=dict)
    """When a policy version was replaced, in milliseconds."""
    wallets: dict[str, WalletPinned] = field(default_factory=dict)
    destinations: dict[PlaceKey, Destination] = field(default_factory=dict)
    places: dict[UUID, PlaceKey] = field(default_factory=dict)
    revoked: set[UUID] = field(default_factory=set)
    freezes: dict[UUID, Frozen] = field(default_factory=dict)
    thawed: set[UUID] = field(default_factory=set)
    retired: dict[str, str] = field(default_factory=dict)
    """The paths of retired keys, and of the keys that replace them."""
    messages: dict[str, int] = field(default_factory=dict)
    """Record numbers of the messages taken, by their digests."""

    @classmethod
    def of(cls, rules: Rules) -> InForce:
        """Return what the rules of the first start put in force."""
        return cls(
            operators=rules.operators_in_force(),
            limits=rules.limits_in_force(),
            policy_version=rules.policy_version,
            wallets={item.wallet: item for item in rules.wallets},
        )

    def operator(self, code: str) -> Operator:
        """Return the pinned operator."""
        key = self.operators.operators.get(code)
        if key is None:
            raise SignerRefused(f"{code} is not an approver that the signer knows")
        return Operator(code=code, public_key=bytes.fromhex(key), roles=frozenset())

    def find_freeze(self, scopes: Mapping[ScopeKind, set[str]]) -> Frozen | None:
        """Return a closed switch for any of these names; a global one always is for all."""
        for item in self.freezes.values():
            if item.scope is ScopeKind.GLOBAL or item.name in scopes.get(item.scope, set()):
                return item
        return None


def check_control(state: InForce, message: ControlMessage) -> Body:
    """Return the message's body if it may come into force now.

    Raises:
        SignerRefused: too few signatures, one that is false, a version out of order, an id that is
            spent, or a content that makes no sense.
    """
    try:
        body = read_body(message.kind, message.body, BODIES[message.kind])
        _check_quorum(state, message)
        _CHECKS[message.kind](state, body)
    except SignerRefused:
        raise
    except (CausewayError, ValueError) as error:
        what = error.what if isinstance(error, CausewayError) else str(error)
        raise SignerRefused(what) from error
    return body


def apply_control(
    state: InForce, kind: ControlKind, body: Body, *, digest: str, index: int, at_ms: int
) -> None:
    """Put a checked message in force; it stands in the log as record *index* since *at_ms*."""
    state.messages[digest] = index
    change = _CHANGES.get(kind)
    if change is not None:
        change(state, body, at_ms)


def _put_operators(state: InForce, body: Any, _: int) -> None:
    state.operators = body


def _put_limits(state: InForce, body: Any, _: int) -> None:
    state.limits = body


def _put_policy(state: InForce, body: Any, at_ms: int) -> None:
    if state.policy_version is not None:
        state.policies_ended[state.policy_version] = at_ms
    state.policy_version = body.version


def _put_wallet(state: InForce, body: Any, _: int) -> None:
    state.wallets[body.wallet] = body


def _revoke(state: InForce, body: Any, _: int) -> None:
    state.revoked.add(body.id)
    place = state.places.get(body.id)
    if place is None:
        return
    found = state.destinations.get(place)
    if found is not None and found.id == body.id:
        del state.destinations[place]


def _freeze(state: InForce, body: Any, _: int) -> None:
    state.freezes[body.id] = body


def _thaw(state: InForce, body: Any, _: int) -> None:
    state.thawed.add(body.id)
    state.freezes.pop(body.id, None)


def _retire(state: InForce, body: Any, _: int) -> None:
    state.retired[body.path] = body.successor


def _allow(state: InForce, body: Any, at_ms: int) -> None:
    proposed = to_unix_ms(datetime.fromisoformat(body.proposed_at))
    cooling_s = max(body.cooling_off_s, state.limits.cooling_off_s_min)
    place = (body.party, body.chain_id, body.address)
    state.places[body.id] = place
    # Allowed anew by two people: the newer terms hold, and it cools off once more.
    state.destinations[place] = Destination(body.id, max(proposed, at_ms) + cooling_s * MS)


def _check_quorum(state: InForce, message: ControlMessage) -> None:
    people = state.operators
    if len(message.signatures) > SIGNATURES_MAX:
        raise SignerRefused(f"more than {SIGNATURES_MAX} signatures")
    needed = 1 if message.kind in ONE_PERSON else people.quorum
    signed, payload = set(), message.signed_bytes()
    for item in message.signatures:
        # What a service may stop, only people let go on: it closes and never opens.
        if item.operator in people.services and message.kind is not ControlKind.FREEZE:
            raise SignerRefused(f"{item.operator} is a service, not a person")
        if message.kind in ADMINISTRATIVE and people.administrators:
            _require_administrator(people, item.operator)
        verify_signature(state.operator(item.operator), payload, item.signature)
        signed.add(item.operator)
    if len(signed) < needed:
        raise SignerRefused(
            f"{len(signed)} of {needed} people have signed this {message.kind} message",
            remedy="Have more operators that the signer knows sign the same bytes",
        )


def _require_administrator(people: OperatorsInForce, code: str) -> None:
    if code not in people.administrators:
        raise SignerRefused(f"{code} does not administer the signer")


def _check_operators(state: InForce, body: Any) -> None:
    _require_next("operators", state.operators.version, body.version)
    check_operators(body)


def _check_limits(state: InForce, body: Any) -> None:
    _require_next("limits", state.limits.version, body.version)
    check_limits(body)


def _check_policy(state: InForce, body: Any) -> None:
    # The numbers of proposals that nobody approved are left out, so they grow and may jump.
    now = state.policy_version
    if body.version < 1 or (now is not None and body.version <= now):
        raise SignerRefused(f"policy {body.version} does not come after {now}")


def _check_wallet(state: InForce, body: Any) -> None:
    require_key_name(body.account_path)
    before = state.wallets.get(body.wallet)
    _require_next(f"wallet {body.wallet}", 0 if before is None else before.version, body.version)
    if len(state.wallets) >= BODY_ITEMS_MAX and before is None:
        raise SignerRefused(f"more than {BODY_ITEMS_MAX} wallets")
    for other in state.wallets.values():
        if other.wallet != body.wallet and not other.ended and not body.ended:
            require_apart(other, body)


def _check_allow(state: InForce, body: Any) -> None:
    if body.id in state.revoked:
        raise SignerRefused(f"destination {body.id} was revoked and does not come back")
    if body.id in state.places:
        raise SignerRefused(f"destination {body.id} was allowed with other terms")
    if state.limits.chains.get(body.chain) != body.chain_id:
        raise SignerRefused(f"{body.chain} with chain id {body.chain_id} is not signed for")
    if _one_spelling(body.chain_id, body.address) != body.address:
        raise SignerRefused(f"{body.address} is not in its one spelling")
    if not 0 <= body.cooling_off_s <= COOLING_OFF_S_MAX:
        raise SignerRefused(f"a cooling-off of {body.cooling_off_s} s")
    to_unix_ms(datetime.fromisoformat(body.proposed_at))


def _check_revoke(state: InForce, body: Any) -> None:
    # An id that was never allowed may be revoked, too: then it never will be.
    if body.id in state.revoked:
        raise SignerRefused(f"destination {body.id} is revoked already")


def _check_freeze(state: InForce, body: Any) -> None:
    if body.id in state.thawed:
        raise SignerRefused(f"freeze {body.id} was opened and does not come back")
    if body.id in state.freezes:
        raise SignerRefused(f"freeze {body.id} stands with other words")
    if (body.scope is ScopeKind.GLOBAL) is not (body.name == ""):
        raise SignerRefused("a global freeze has no name, and every other one has")
    if max(len(body.name), len(body.reason)) > TEXT_LENGTH_MAX:
        raise SignerRefused(f"a name or reason of more than {TEXT_LENGTH_MAX} letters")
    if sum(item.scope is body.scope for item in state.freezes.values()) >= FREEZES_MAX:
        raise SignerRefused(
            f"{FREEZES_MAX} {body.scope} switches are closed", remedy="Freeze globally"
        )


def _check_thaw(state: InForce, body: Any) -> None:
    # A freeze that never came here may be opened, too: then it never closes anything.
    if body.id in state.thawed:
        raise SignerRefused(f"freeze {body.id} is open already")


def _check_retire(state: InForce, body: Any) -> None:
    check_retirement(state.retired, body.path, body.successor)


def _check_dead(_: InForce, body: Any) -> None:
    parse_address(body.sender)
    digits = body.spent_by.removeprefix("0x")
    if len(digits) != 64 or body.spent_by != f"0x{digits.lower()}":
        raise BadInput(f"{body.spent_by} is not the hash of a transaction")
    int(digits, 16)


def _check_spend_dead(_: InForce, body: Any) -> None:
    if not _OUTPOINT.fullmatch(body.anchor) or not _ID.fullmatch(body.spent_by):
        raise BadInput(f"{body.anchor} spent by {body.spent_by}: no coin, or no transaction")


def _check_restore_open(_: InForce, body: Any) -> None:
    if (body.mark == 0) is not (body.token == "") or len(body.token) > TOKEN_LENGTH:
        raise SignerRefused("an opening names a mark by its number and its token")
    if not 0 < len(body.reason) <= TEXT_LENGTH_MAX:
        raise SignerRefused(f"an opening has a reason of at most {TEXT_LENGTH_MAX} letters")


def _one_spelling(chain_id: int, address: str) -> str:
    for network in NETWORKS.values():
        if network.network_id == chain_id:
            return canonical_address(address, network)
    return parse_address(address)


def _require_next(what: str, now: int, version: int) -> None:
    if version != now + 1:
        raise SignerRefused(f"{what} is at version {now}; {version} is not the next")


_CHECKS: Final[Mapping[ControlKind, Callable[[InForce, Any], None]]] = {
    ControlKind.OPERATORS: _check_operators,
    ControlKind.LIMITS: _check_limits,
    ControlKind.POLICY: _check_policy,
    ControlKind.WALLET: _check_wallet,
    ControlKind.DESTINATION_ALLOW: _check_allow,
    ControlKind.DESTINATION_REVOKE: _check_revoke,
    ControlKind.FREEZE: _check_freeze,
    ControlKind.THAW: _check_thaw,
    ControlKind.KEY_RETIRE: _check_retire,
    ControlKind.PAYOUT_DEAD: _check_dead,
    ControlKind.SPEND_DEAD: _check_spend_dead,
    ControlKind.RESTORE_OPEN: _check_restore_open,
}

_CHANGES: Final[Mapping[ControlKind, Callable[[InForce, Any, int], None]]] = {
    ControlKind.OPERATORS: _put_operators,
    ControlKind.LIMITS: _put_limits,
    ControlKind.POLICY: _put_policy,
    ControlKind.WALLET: _put_wallet,
    ControlKind.DESTINATION_ALLOW: _allow,
    ControlKind.DESTINATION_REVOKE: _revoke,
    ControlKind.FREEZE: _freeze,
    ControlKind.THAW: _thaw,
    ControlKind.KEY_RETIRE: _retire,
}
"""A dead payout or spend, and an opening, change what is remembered, not what is in force."""
