"""The signer's own decision: may these bytes be signed? Pure; it believes nothing that it is told.

What it goes by is `custody.signer.control.InForce`: the chains it signs for, the keys of the people
who may approve, limits, allowed destinations, closed switches. The application's database, policy
and words are not relied on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from chain.errors import BadTransaction
from chain.evm.transactions import GAS_TRANSACTION, UnsignedTransaction, decode_erc20_transfer
from custody.control_messages import AssetRule, OperatorsInForce, ScopeKind
from custody.quorums import find_empty
from custody.signer.approvals import Approvals, Approved
from custody.signer.control import InForce
from custody.signer.errors import SignerPostponed, SignerRefused
from custody.signer.retirement import check_retired
from custody.signer.windows import Spent, Windows, asset_key
from custody.signer.wire import Intent, read_amount

MS: Final = 1_000
OWN_PARTY: Final = "own"
"""The party of destinations that are ours though their keys are elsewhere: cold vaults."""

CANCEL_FEES_MAX: Final = 100
"""How many times the largest fee cancellations may cost within the window of fees."""

AddressOf = Callable[[str], str]
"""Returns the address (EIP-55) of the signer's own key at a path."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """The answer yes: who approved, and what is counted if this is a nonce's first signature."""

    approvers: tuple[str, ...]
    spent: Spent


def check_request(
    state: InForce,
    windows: Windows,
    intent: Intent,
    tx: UnsignedTransaction,
    approvals: Approvals,
    *,
    address_of: AddressOf,
    fee_before: int | None,
    now_ms: int,
) -> Allowed:
    """Say yes only if the transaction is the approved payment and within every limit.

    Args:
        state: what is in force.
        windows: what was signed lately.
        intent: what the transaction is meant to do.
        tx: the transaction, decoded from its bytes.
        approvals: what came with the question.
        address_of: derives the signer's own addresses.
        fee_before: highest fee that was signed at this nonce; None: nothing was.
        now_ms: the signer's clock.

    Raises:
        SignerRefused: says which of the checks failed.
        SignerPostponed: not now; frozen, cooling off, a full window, a message that is missing.
    """
    if state.limits.chains.get(intent.chain) != intent.chain_id:
        raise SignerRefused(f"{intent.chain} with chain id {intent.chain_id} is not signed for")
    check_wallet(state, intent)
    check_bytes(intent, tx)
    if address_of(intent.key_path) != intent.sender:
        raise SignerRefused(f"the key at {intent.key_path} is not that of {intent.sender}")
    check_retired(state.retired, intent, is_first=fee_before is None, address_of=address_of)
    check_open(state, intent)
    check_fee(state, windows, intent, tx, fee_before=fee_before, now_ms=now_ms)
    rule = find_rule(state, intent)
    fee = more_fee(tx, fee_before)
    if intent.kind == "cancel":
        # Nothing leaves but a fee within its bounds: nobody has to approve that.
        check_cancel_fees(state, windows, intent, fee, now_ms=now_ms)
        return Allowed((), Spent(asset_key(rule), 0, fee, leaves=False, auto=False, cancels=True))
    check_destination(state, intent, address_of=address_of, now_ms=now_ms)
    check_policy(state, intent, now_ms=now_ms)
    is_first = fee_before is None
    check_amount(windows, rule, intent, is_first=is_first, now_ms=now_ms)
    approved = approvals.approvers(intent, now_ms=now_ms if is_first else None)
    auto = check_approved(state, windows, rule, intent, approved, now_ms=now_ms, is_first=is_first)
    counted = read_amount(intent.amount) if is_first else 0
    return Allowed(
        tuple(sorted(approved.known)),
        Spent(
            asset_key(rule),
            counted,
            more_fee(tx, fee_before),
            leaves=intent.kind == "pay",
            auto=auto,
        ),
    )


def check_wallet(state: InForce, intent: Intent) -> None:
    """Refuse a key that is not the named wallet's, where wallets are pinned at all."""
    if not state.wallets:
        return
    wallet = state.wallets.get(intent.wallet)
    if wallet is None or wallet.ended or wallet.chain != intent.chain:
        raise SignerRefused(f"{intent.wallet} is not a wallet on {intent.chain} that signs")
    if not f"{intent.key_path}/".startswith(f"{wallet.account_path}/"):
        raise SignerRefused(f"the key at {intent.key_path} is not of wallet {intent.wallet}")


def check_bytes(intent: Intent, tx: UnsignedTransaction) -> None:
    """Refuse unless the bytes are a plain payment that says exactly what the intent says."""
    if intent.contract is None:
        destination, amount = tx.recipient, tx.value
        if tx.data:
            raise SignerRefused("a native payment carries no data; contracts are not called")
    else:
        if tx.recipient != intent.contract or tx.value:
            raise SignerRefused("a token payment calls the token's contract and carries no value")
        try:
            transfer = decode_erc20_transfer(tx.data)
        except BadTransaction as error:
            raise SignerRefused(f"not an ERC-20 transfer: {error.what}") from error
        destination, amount = transfer.recipient, transfer.amount
    said = {
        "chain id": (intent.chain_id, tx.chain_id),
        "nonce": (intent.nonce, tx.nonce),
        "destination": (intent.destination, destination),
        "amount": (read_amount(intent.amount), amount),
        "fee cap": (read_amount(intent.fee_cap), tx.fee_max),
    }
    for name, (meant, written) in said.items():
        if meant != written:
            raise SignerRefused(f"the {name} is {written} in the bytes and {meant} in the intent")
    if intent.kind == "cancel":
        _check_cancel(intent, tx)


def _check_cancel(intent: Intent, tx: UnsignedTransaction) -> None:
    nothing = (intent.sender, None, 0, GAS_TRANSACTION, None, None)
    found = (
        tx.recipient,
        intent.contract,
        tx.value,
        tx.gas_limit,
        intent.client,
        intent.destination_path,
    )
    if found != nothing:
        raise SignerRefused("a cancelling transaction sends nothing from the sender to the sender")


def check_open(state: InForce, intent: Intent) -> None:
    """Postpone what a closed switch stops.

    Raises:
        SignerPostponed: names the switch.
    """
    scopes = {
        ScopeKind.CHAIN: {intent.chain},
        ScopeKind.ASSET: {intent.asset},
        ScopeKind.WALLET: {intent.wallet},
        ScopeKind.CLIENT: set() if intent.client is None else {intent.client},
    }
    found = state.find_freeze(scopes)
    if found is not None:
        name = f" {found.name}" if found.name else ""
        raise SignerPostponed(
            f"{found.scope}{name} is frozen in the signer: {found.reason}",
            where=f"freeze {found.id}",
            remedy="Two people can open it",
        )


def check_fee(
    state: InForce,
    windows: Windows,
    intent: Intent,
    tx: UnsignedTransaction,
    *,
    fee_before: int | None,
    now_ms: int,
) -> None:
    """Refuse a fee above the cap; postpone one that the window of fees has no room for."""
    limits = state.limits
    if tx.fee_max > read_amount(limits.fee_cap_max):
        raise SignerRefused(f"a fee of {tx.fee_max} wei is above the signer's {limits.fee_cap_max}")
    if limits.fee_window_max is None:
        return
    rolling = windows.fees[intent.chain_id]
    if rolling.sum(now_ms) + more_fee(tx, fee_before) > read_amount(limits.fee_window_max):
        raise SignerPostponed(
            f"fees on {intent.chain} reach the signer's {limits.fee_window_max} wei in"
            f" {limits.fee_window_s} s",
            remedy="Wait, or have people sign higher limits",
        )


def check_cancel_fees(
    state: InForce, windows: Windows, intent: Intent, fee: int, *, now_ms: int
) -> None:
    """Postpone a cancellation after very many: fees are all that leaves without an approval."""
    most = CANCEL_FEES_MAX * read_amount(state.limits.fee_cap_max)
    if windows.cancelled[intent.chain_id].sum(now_ms) + fee > most:
        raise SignerPostponed(
            f"fees of cancellations on {intent.chain} reach {most} wei in"
            f" {state.limits.fee_window_s} s",
            remedy="Wait, or have people sign a larger fee cap",
        )


def more_fee(tx: UnsignedTransaction, fee_before: int | None) -> int:
    """Return what this signature adds to the most that its nonce can cost."""
    return max(tx.fee_max - (fee_before or 0), 0)


def find_rule(state: InForce, intent: Intent) -> AssetRule:
    """Return the rule of what the intent pays; no rule, no signature."""
    for rule in state.limits.assets:
        if asset_key(rule) == (intent.chain_id, intent.asset, intent.contract):
            return rule
    raise SignerRefused(f"no rule allows {intent.asset} on {intent.chain}")


def check_destination(
    state: InForce, intent: Intent, *, address_of: AddressOf, now_ms: int
) -> None:
    """Refuse an address that is neither allowed for the client nor our own.

    Raises:
        SignerRefused: an own transfer to an address that is not ours, or a mixed-up intent.
        SignerPostponed: nobody has told the signer of the destination, or it cools off.
    """
    if intent.kind == "own":
        if intent.client is not None:
            raise SignerRefused("an own transfer is for no client")
        if not _is_vault(state, intent):
            _check_own_key(intent, address_of)
            return
        _check_usable(state, OWN_PARTY, intent, now_ms=now_ms)
        return
    if intent.client is None or intent.destination_path is not None:
        raise SignerRefused("a payment names a client and no receiving key of ours")
    _check_usable(state, intent.client, intent, now_ms=now_ms)


def _is_vault(state: InForce, intent: Intent) -> bool:
    return (OWN_PARTY, intent.chain_id, intent.destination) in state.destinations


def _check_own_key(intent: Intent, address_of: AddressOf) -> None:
    if intent.destination_path is None:
        raise SignerRefused("an own transfer names the receiving key")
    if address_of(intent.destination_path) != intent.destination:
        raise SignerRefused(
            f"the key at {intent.destination_path} is not that of {intent.destination}",
            remedy="A vault whose keys are elsewhere is allowed by two people, for the party own",
        )


def _check_usable(state: InForce, party: str, intent: Intent, *, now_ms: int) -> None:
    found = state.destinations.get((party, intent.chain_id, intent.destination))
    if found is None:
        raise SignerPostponed(
            f"{intent.destination} on {intent.chain} is not an allowed destination of"
            f" {party} in the signer",
            remedy="Have two operators allow it; the signer is told of it then",
        )
    if found.usable_ms > now_ms:
        wait_s = -(-(found.usable_ms - now_ms) // MS)
        raise SignerPostponed(
            f"{intent.destination} cools off for {wait_s} s more", remedy="Wait until then"
        )


def check_policy(state: InForce, intent: Intent, *, now_ms: int) -> None:
    """Refuse a payout of an approval policy that ended long ago; postpone one not yet heard of."""
    now = state.policy_version
    if now is None or intent.policy_version == now:
        return
    if intent.policy_version > now:
        raise SignerPostponed(
            f"approval policy {intent.policy_version} is not in force in the signer; {now} is",
            remedy="Hand over the message that two administrators have signed",
        )
    ended = state.policies_ended.get(intent.policy_version)
    if ended is None or ended + state.limits.policy_grace_s * MS < now_ms:
        raise SignerRefused(
            f"approval policy {intent.policy_version} is not in force any more",
            remedy="Request the payout anew",
        )


def check_amount(
    windows: Windows, rule: AssetRule, intent: Intent, *, is_first: bool, now_ms: int
) -> None:
    """Refuse a payment above its limit; postpone one that the window has no room for."""
    amount, maximum = read_amount(intent.amount), rule.amount_max
    if intent.kind == "own" and rule.own_amount_max is not None:
        maximum = rule.own_amount_max
    if amount > read_amount(maximum):
        raise SignerRefused(f"{amount} of {rule.asset} is more than the signer's limit {maximum}")
    if rule.window_max is None or intent.kind == "own" or not is_first:
        return
    if amount > read_amount(rule.window_max):
        raise SignerRefused(
            f"{amount} of {rule.asset} is more than the signer's window {rule.window_max}"
        )
    if windows.paid[asset_key(rule)].sum(now_ms) + amount > read_amount(rule.window_max):
        raise SignerPostponed(
            f"{rule.asset} reaches the signer's {rule.window_max} in {rule.window_s} s",
            remedy="Wait, or have people sign higher limits",
        )


def check_approved(
    state: InForce,
    windows: Windows,
    rule: AssetRule,
    intent: Intent,
    approved: Approved,
    *,
    is_first: bool,
    now_ms: int,
) -> bool:
    """Refuse without enough people; return whether a service has approved instead of them.

    Raises:
        SignerPostponed: they would be enough with people, or keys of theirs, that nobody has told the
            signer of. Of what was signed before that is a refusal: it goes on without another fee.
    """
    people = approved.known - set(state.operators.services)
    missing = find_missing(state.operators, rule, people)
    if not missing:
        return False
    amount = read_amount(intent.amount)
    if people == approved.known:
        raise _not_enough(state, rule, people, approved, missing, is_first=is_first)
    if rule.auto_max is None or rule.auto_window_max is None or amount > read_amount(rule.auto_max):
        missing = f"{missing}; a service may approve at most {rule.auto_max or 0} of {rule.asset}"
        raise _not_enough(state, rule, people, approved, missing, is_first=is_first)
    counted = amount if is_first else 0
    if windows.auto[asset_key(rule)].sum(now_ms) + counted > read_amount(rule.auto_window_max):
        raise SignerPostponed(
            f"services have approved {rule.auto_window_max} of {rule.asset} in {rule.window_s} s",
            remedy="Have operators approve the payout, or wait",
        )
    return True


def _not_enough(
    state: InForce,
    rule: AssetRule,
    people: frozenset[str],
    approved: Approved,
    missing: str,
    *,
    is_first: bool,
) -> SignerRefused | SignerPostponed:
    awaited = approved.awaited
    # What was signed before goes on without another fee: nothing waits for that.
    if is_first and not find_missing(state.operators, rule, people | awaited, anywhere=awaited):
        return SignerPostponed(
            f"{missing}; {_not_told(approved)}",
            remedy="Hand over the operators' message that two people have signed",
        )
    if approved.lapsed:
        names = " and ".join(sorted(approved.lapsed))
        return SignerRefused(
            f"{missing}; the approval of {names} has lapsed",
            remedy="Request the payout anew, and have it approved before it ends",
        )
    return SignerRefused(missing, remedy="Have more operators approve the payout")


def _not_told(approved: Approved) -> str:
    unknown = sorted(approved.unknown)
    if unknown:
        return f"{' and '.join(unknown)} approved it, too, and the signer does not know them"
    names = " and ".join(sorted(approved.unverified))
    return f"the signature of {names} is not by the key that the signer has of them"


def find_missing(
    people_known: OperatorsInForce,
    rule: AssetRule,
    people: frozenset[str],
    *,
    anywhere: frozenset[str] = frozenset(),
) -> str:
    """Return what approvals are missing, in words; "" when they are enough.

    Nobody stands for two groups (`custody.quorums`), as in the policy of the application.

    Args:
        people_known: who is in which group.
        rule: what it takes.
        people: who approved.
        anywhere: who of them is taken to be in every group.
    """
    if len(people) < rule.approvals:
        return f"{len(people)} of {rule.approvals} approvals"
    members = {name: anywhere | set(people_known.groups.get(name, ())) for name in rule.groups}
    groups = {code: {name for name in members if code in members[name]} for code in people}
    places = [name for name in sorted(rule.groups) for _ in range(rule.groups[name])]
    empty = find_empty(places, groups)
    if not empty:
        return ""
    group = empty[0]
    found = len(people & members[group])
    if found < rule.groups[group]:
        return f"{found} of {rule.groups[group]} approvals of {group}"
    return f"{len(places) - len(empty)} of {len(places)} approvals, nobody counted for two groups"
