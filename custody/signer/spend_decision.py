"""The signer's own decision about a Bitcoin transaction. Pure; it believes nothing that it is told.

The outputs are built again from the lines of the intent, change and own addresses are derived from
the signer's own keys, and only then are the bytes looked at: they must be exactly that. Each line is
then a payment like any other: `custody.signer.decision` says whether it may be made.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from chain.bitcoin.addresses import address_of, canonical_address, parse_address
from chain.bitcoin.digests import SIGHASH_ALL, Spent
from chain.bitcoin.fees import rate_of
from chain.bitcoin.networks import NETWORKS, Network, network_of
from chain.bitcoin.psbt import Psbt, spent_output
from chain.bitcoin.scripts import witness_key_hash_script
from chain.bitcoin.transactions import (
    MONEY_MAX,
    SEQUENCE_REPLACEABLE,
    Input,
    Outpoint,
    Output,
    Transaction,
)
from custody.control_messages import AssetRule
from custody.signer.approvals import Approvals
from custody.signer.control import InForce
from custody.signer.decision import (
    CANCEL_FEES_MAX,
    check_amount,
    check_approved,
    check_destination,
    check_open,
    check_policy,
    check_wallet,
    find_rule,
)
from custody.signer.errors import SignerPostponed, SignerRefused
from custody.signer.paths import HARDENED, parse_path
from custody.signer.retirement import is_below, successor_of
from custody.signer.windows import Spent as Counted
from custody.signer.windows import Windows, asset_key
from custody.signer.wire import (
    SPEND_INPUTS_MAX,
    SPEND_LINES_MAX,
    Intent,
    SpendIntent,
    SpendLine,
    read_amount,
)

PURPOSE: Final = 84 + HARDENED
ADDRESS_DEPTH: Final = 5
ACCOUNT_DEPTH: Final = 3
OWN_USE: Final = 1
"""The branch of a wallet's own addresses; those of branch 0 are given to others."""
FEE_CAP: Final = 1_000_000
"""Satoshi: the largest fee where the limits in force name none for the chain."""
RATE_MAX: Final = 10_000_000
"""Satoshi for 1,000 virtual bytes: nodes refuse to send more by a wallet's own mistake, too (Bitcoin
Core ``-maxtxfee`` and ``DEFAULT_MAX_RAW_TX_FEE_RATE``)."""
INPUT_SIZE: Final = 68
"""Virtual bytes of an input that a key's hash is spent with: enough to judge a rate by."""

_ID: Final = re.compile(r"[0-9a-f]{64}")

PublicKeyOf = Callable[[str], bytes]
"""Returns the signer's own compressed public key at a path."""


@dataclass(frozen=True, slots=True)
class SpendAllowed:
    """The answer yes.

    Attributes:
        transaction: what is signed.
        spent: what its inputs spend, by the signer's own keys.
        approvers: who approved each payout, by its id.
        auto: ids of payouts that a service approved.
        counted: what the signature adds to the windows.
    """

    transaction: Transaction
    spent: tuple[Spent, ...]
    approvers: dict[str, list[str]]
    auto: list[str]
    counted: tuple[Counted, ...]


def is_bitcoin(chain_id: int) -> bool:
    """Tell whether a network id is one of Bitcoin's networks."""
    return any(item.network_id == chain_id for item in NETWORKS.values())


def check_spend(
    state: InForce,
    windows: Windows,
    intent: SpendIntent,
    psbt: Psbt,
    approvals: Approvals,
    *,
    public_key_of: PublicKeyOf,
    fee_before: int | None,
    now_ms: int,
) -> SpendAllowed:
    """Say yes only if the transaction is the approved payments, change to us, and within every limit.

    Args:
        state: what is in force.
        windows: what was signed lately.
        intent: what the transaction is meant to do.
        psbt: the transaction, decoded from its bytes.
        approvals: what came with the question.
        public_key_of: derives the signer's own keys.
        fee_before: highest fee that was signed with the anchor; None: nothing was.
        now_ms: the signer's clock.

    Raises:
        SignerRefused: says which of the checks failed.
        SignerPostponed: not now; frozen, cooling off, a full window, a message that is missing.
    """
    if state.limits.chains.get(intent.chain) != intent.chain_id:
        raise SignerRefused(f"{intent.chain} with chain id {intent.chain_id} is not signed for")
    network = network_of(intent.chain_id)
    check_shape(intent)
    check_keys(state, intent, network)
    spent = tuple(own_output(item.amount, item.key_path, public_key_of) for item in intent.inputs)
    check_spend_bytes(intent, psbt, network, spent, public_key_of)
    check_spend_open(state, intent)
    is_first = fee_before is None
    check_spend_retired(state, intent, is_first=is_first)
    fee = max(intent.fee - (fee_before or 0), 0)
    check_spend_fee(state, windows, intent, fee, now_ms=now_ms)
    native = find_rule(state, payment_of(intent, None, native_asset(state, intent)))
    fees = Counted(asset_key(native), 0, fee, leaves=False, auto=False, cancels=not intent.lines)
    if intent.kind == "cancel":
        # Nothing leaves but a fee within its bounds: nobody has to approve that.
        return SpendAllowed(psbt.transaction, spent, {}, [], (fees,))
    approvers: dict[str, list[str]] = {}
    auto: list[str] = []
    counted: list[Counted] = []
    for line in intent.lines:
        payment = payment_of(intent, line, line.asset)
        rule = find_rule(state, payment)
        check_line_place(state, payment, network, public_key_of, now_ms=now_ms)
        check_policy(state, payment, now_ms=now_ms)
        check_amount(windows, rule, payment, is_first=is_first, now_ms=now_ms)
        approved = approvals.approvers(payment, now_ms=now_ms if is_first else None)
        by_service = check_approved(
            state, windows, rule, payment, approved, now_ms=now_ms, is_first=is_first
        )
        approvers[str(line.payout_id)] = sorted(approved.known)
        auto += [str(line.payout_id)] if by_service else []
        counted += count_line(rule, line, auto=by_service) if is_first else []
        check_sums(windows, rule, counted, now_ms=now_ms)
    return SpendAllowed(psbt.transaction, spent, approvers, auto, (fees, *counted))


def count_line(rule: AssetRule, line: SpendLine, *, auto: bool) -> list[Counted]:
    """Return what a line adds to the windows when it is first signed."""
    return [Counted(asset_key(rule), line.amount, 0, leaves=line.kind == "pay", auto=auto)]


def check_shape(intent: SpendIntent) -> None:
    """Refuse an intent that contradicts itself."""
    if not 0 < len(intent.inputs) <= SPEND_INPUTS_MAX or len(intent.lines) > SPEND_LINES_MAX:
        raise SignerRefused(
            f"a spend has 1 to {SPEND_INPUTS_MAX} inputs and at most {SPEND_LINES_MAX} lines"
        )
    if (intent.kind == "pay") is not bool(intent.lines):
        raise SignerRefused("a payment has lines, and a cancellation has none")
    if intent.kind == "cancel" and intent.change is None:
        raise SignerRefused("a cancellation returns everything to its wallet")
    coins = [f"{item.tx_id}:{item.index}" for item in intent.inputs]
    if len(set(coins)) != len(coins) or not all(
        _ID.fullmatch(item.tx_id) for item in intent.inputs
    ):
        raise SignerRefused("a coin stands twice, or is named by no transaction id")
    if intent.anchor not in coins:
        raise SignerRefused(f"coin {intent.anchor}, the anchor, is not among the inputs")
    if len({line.payout_id for line in intent.lines}) != len(intent.lines):
        raise SignerRefused("a payout has two lines")
    amounts = [item.amount for item in intent.inputs] + [line.amount for line in intent.lines]
    amounts += [] if intent.change is None else [intent.change.amount]
    if not all(0 < amount <= MONEY_MAX for amount in amounts):
        raise SignerRefused("an amount that cannot be")


def check_keys(state: InForce, intent: SpendIntent, network: Network) -> None:
    """Refuse keys that are not all the named wallet's, and change that is not for its own use."""
    paths = [item.key_path for item in intent.inputs]
    if intent.change is not None:
        paths.append(intent.change.key_path)
        if branch_of(intent.change.key_path, network) == 0:
            raise SignerRefused(
                f"change at {intent.change.key_path} would go where clients' deposits go",
                remedy="Change goes to branch 1 of the wallet",
            )
    accounts = {account_of(path, network) for path in paths}
    if len(accounts) != 1:
        raise SignerRefused("the inputs and the change are of more than one account of keys")
    for path in paths:
        check_wallet(state, payment_of(intent, None, "", key_path=path))


def account_of(path: str, network: Network) -> str:
    """Return the account of a key: of BIP 84 on this network.

    Raises:
        SignerRefused: a path of another purpose, coin or depth, or a key in a token.
    """
    branch_of(path, network)
    return "/".join(path.split("/")[: ACCOUNT_DEPTH + 1])


def branch_of(path: str, network: Network) -> int:
    """Return the branch of a key's path.

    Raises:
        SignerRefused: a path of another purpose, coin or depth, or a key in a token: it has one
            address, and change needs others.
    """
    steps = parse_path(path) if path.startswith("m/") else ()
    fits = len(steps) == ADDRESS_DEPTH and steps[:2] == (PURPOSE, network.coin_type + HARDENED)
    if not fits or steps[2] < HARDENED or steps[3] > OWN_USE or steps[4] >= HARDENED:
        raise SignerRefused(
            f"{path} is no address of BIP 84 on {network.name}",
            remedy=f"Its addresses are at m/84'/{network.coin_type}'/…",
        )
    return steps[3]


def own_output(amount: int, path: str, public_key_of: PublicKeyOf) -> Spent:
    """Return the output of *amount* satoshi that the signer's own key at *path* spends."""
    return Spent(Output(amount, witness_key_hash_script(public_key_of(path))))


def check_spend_bytes(
    intent: SpendIntent,
    psbt: Psbt,
    network: Network,
    spent: Sequence[Spent],
    public_key_of: PublicKeyOf,
) -> None:
    """Refuse unless the transaction is exactly what the intent says, output by output."""
    found = psbt.transaction
    if (found.version, found.lock_time) != (2, 0):
        raise SignerRefused("a transaction of another version, or one that waits for its time")
    meant = tuple(
        Input(Outpoint(item.tx_id, item.index), SEQUENCE_REPLACEABLE) for item in intent.inputs
    )
    if found.inputs != meant:
        raise SignerRefused("the inputs are others in the bytes than in the intent")
    for place, (known, own) in enumerate(zip(psbt.inputs, spent, strict=True)):
        written = spent_output(psbt, place)
        if written != own.output:
            raise SignerRefused(
                f"input {place} spends {written.amount} satoshi of a key in the bytes, and"
                f" {own.output.amount} of {intent.inputs[place].key_path} in the intent"
            )
        if known.sighash not in {None, SIGHASH_ALL}:
            raise SignerRefused(f"input {place} would be signed without the whole transaction")
    outputs = [
        Output(line.amount, parse_address(line.destination, network)) for line in intent.lines
    ]
    if intent.change is not None:
        outputs.append(
            own_output(intent.change.amount, intent.change.key_path, public_key_of).output
        )
    strange, missing = (
        Counter(found.outputs) - Counter(outputs),
        Counter(outputs) - Counter(found.outputs),
    )
    if strange or missing:
        raise SignerRefused(
            f"the outputs are others in the bytes ({_tell(strange, network)})"
            f" than in the intent ({_tell(missing, network)})"
        )
    fee = sum(item.amount for item in intent.inputs) - sum(item.amount for item in outputs)
    if fee != intent.fee:
        raise SignerRefused(f"the fee is {fee} in the bytes and {intent.fee} in the intent")


def _tell(outputs: Counter[Output], network: Network) -> str:
    told = [
        f"{item.amount} to {address_of(item.script, network) or item.script.hex()[:80]}"
        for item in list(outputs)[:3]
    ]
    return ", ".join(told) or "nothing more"


def check_spend_open(state: InForce, intent: SpendIntent) -> None:
    """Postpone what a closed switch stops: for any of the lines, the whole transaction."""
    check_open(state, payment_of(intent, None, native_asset(state, intent)))
    for line in intent.lines:
        check_open(state, payment_of(intent, line, line.asset))


def check_spend_retired(state: InForce, intent: SpendIntent, *, is_first: bool) -> None:
    """Refuse a payment with retired keys, but for emptying them into those that replace them.

    Raises:
        SignerRefused: names the path that replaces them.
    """
    successors = {successor_of(state.retired, item.key_path) for item in intent.inputs} - {None}
    if not successors or intent.kind == "cancel" or not is_first:
        return
    moves_all = intent.change is None and all(
        line.kind == "own"
        and line.destination_path is not None
        and any(
            successor and is_below(line.destination_path, successor) for successor in successors
        )
        for line in intent.lines
    )
    if not moves_all:
        names = " and ".join(sorted(successor for successor in successors if successor))
        raise SignerRefused(
            f"the keys of wallet {intent.wallet} are retired: they pay to {names} only",
            remedy="Move everything there in one transfer, without change, and pay from there",
        )


def check_spend_fee(
    state: InForce, windows: Windows, intent: SpendIntent, fee: int, *, now_ms: int
) -> None:
    """Refuse a fee above a cap or beyond reason; postpone one that a window has no room for."""
    limits = state.limits
    most = read_amount(limits.fee_caps.get(intent.chain, str(FEE_CAP)))
    if not 0 < intent.fee <= intent.fee_cap:
        raise SignerRefused(f"a fee of {intent.fee} satoshi where {intent.fee_cap} is the cap")
    if intent.fee_cap > most:
        raise SignerRefused(f"a fee of {intent.fee_cap} satoshi is above the signer's {most}")
    if rate_of(intent.fee, INPUT_SIZE * len(intent.inputs)) > RATE_MAX:
        raise SignerRefused(f"a fee of {intent.fee} satoshi for so few bytes is absurd")
    if intent.kind == "cancel":
        cancelled = windows.cancelled[intent.chain_id].sum(now_ms)
        if cancelled + fee > CANCEL_FEES_MAX * most:
            raise SignerPostponed(
                f"fees of cancellations on {intent.chain} reach {CANCEL_FEES_MAX * most} satoshi in"
                f" {limits.fee_window_s} s",
                remedy="Wait, or have people sign a larger fee cap",
            )
    window = limits.fee_windows.get(intent.chain)
    if window is not None and windows.fees[intent.chain_id].sum(now_ms) + fee > read_amount(window):
        raise SignerPostponed(
            f"fees on {intent.chain} reach the signer's {window} satoshi in {limits.fee_window_s} s",
            remedy="Wait, or have people sign higher limits",
        )


def native_asset(state: InForce, intent: SpendIntent) -> str:
    """Return the code of the chain's coin by the limits in force; no rule, no signature."""
    for rule in state.limits.assets:
        if (rule.chain_id, rule.contract) == (intent.chain_id, None):
            return rule.asset
    raise SignerRefused(f"no rule allows anything on {intent.chain}")


def check_line_place(
    state: InForce,
    payment: Intent,
    network: Network,
    public_key_of: PublicKeyOf,
    *,
    now_ms: int,
) -> None:
    """Refuse a destination that is neither allowed nor our own; see `decision.check_destination`."""
    if canonical_address(payment.destination, network) != payment.destination:
        raise SignerRefused(f"{payment.destination} is not in its one spelling")
    path = payment.destination_path
    if path is not None and branch_of(path, network) == 0:
        raise SignerRefused(f"an own transfer to {path} would go where clients' deposits go")
    check_destination(
        state,
        payment,
        address_of=lambda own: own_address(own, network, public_key_of),
        now_ms=now_ms,
    )


def own_address(path: str, network: Network, public_key_of: PublicKeyOf) -> str:
    """Return the address of the signer's own key at *path*."""
    address = address_of(witness_key_hash_script(public_key_of(path)), network)
    assert address is not None  # a key hash always has one
    return address


def check_sums(
    windows: Windows, rule: AssetRule, counted: Sequence[Counted], *, now_ms: int
) -> None:
    """Postpone lines that a window has room for one by one, and not together."""
    key = asset_key(rule)
    leaving = sum(item.amount for item in counted if item.leaves and item.asset == key)
    by_service = sum(item.amount for item in counted if item.auto and item.asset == key)
    for most, so_far, more, what in (
        (rule.window_max, windows.paid[key], leaving, "the signer's"),
        (rule.auto_window_max, windows.auto[key], by_service, "what services may approve,"),
    ):
        if more and most is not None and so_far.sum(now_ms) + more > read_amount(most):
            raise SignerPostponed(
                f"{rule.asset} reaches {what} {most} in {rule.window_s} s with this spend",
                remedy="Wait, pay fewer at once, or have people sign higher limits",
            )


def payment_of(
    intent: SpendIntent, line: SpendLine | None, asset: str, *, key_path: str = ""
) -> Intent:
    """Return a line as the payment that it is by itself; None: what the whole spend is about."""
    return Intent(
        payout_id=intent.spend_id if line is None else line.payout_id,
        kind="cancel" if line is None else line.kind,
        wallet=intent.wallet,
        client=None if line is None else line.client,
        destination_path=None if line is None else line.destination_path,
        chain=intent.chain,
        chain_id=intent.chain_id,
        key_path=key_path or intent.inputs[0].key_path,
        sender="",
        nonce=0,
        destination="" if line is None else line.destination,
        asset=asset,
        contract=None,
        amount="0" if line is None else str(line.amount),
        fee_cap=str(intent.fee_cap),
        initiator="" if line is None else line.initiator,
        policy_version=0 if line is None else line.policy_version,
        rule=0 if line is None else line.rule,
    )
