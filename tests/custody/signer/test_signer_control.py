"""What the signer goes by changes only by messages that people it knows have signed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from chain.evm.transactions import transaction_hash
from custody.control_messages import (
    VERBS,
    ControlKind,
    DestinationRevoked,
    Frozen,
    PayoutDead,
    PolicyInForce,
    ScopeKind,
    Thawed,
    WalletPinned,
)
from custody.signer.service import Signer
from custody.signer.wire import Accepted, AskState, No, State
from kernel.clock import ManualClock
from tests.custody.signer.vault import (
    CHAIN_ID,
    ETH,
    OWN,
    PAYEE,
    PUBLIC,
    SENDER,
    START,
    STRANGER,
    allowed,
    approval,
    ask,
    ask_fully,
    cancel,
    closed,
    control,
    intent,
    later,
    limits,
    native,
    open_signer,
    opened,
    operators,
    pay,
    rules,
    tell,
    token,
    told,
)


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[Signer]:
    with open_signer(tmp_path) as it:
        yield it


def revoke(number: int, *by: str) -> Any:
    body = DestinationRevoked(id=UUID(int=number))
    return control(ControlKind.DESTINATION_REVOKE, body, *(by or ("cat",)))


def test_a_destination_takes_two_people_that_the_signer_knows(signer: Signer) -> None:
    other = {"address": STRANGER}
    assert told(signer, allowed("acme", 9, "ann", **other)) == (
        "1 of 2 people have signed this destination.allow message"
    )
    assert told(signer, allowed("acme", 9, "ann", "eve", **other)) == (
        "eve is not an approver that the signer knows"
    )
    assert told(signer, allowed("acme", 9, "ann", "robot", **other)) == (
        "robot is a service, not a person"
    )
    forged = msgspec.structs.replace(
        allowed("acme", 9, "ann", "bob", **other),
        body={**allowed("acme", 9, **other).body, "address": PAYEE},
    )
    assert told(signer, forged) == "the signature is not ann's, or not of this"
    twice = allowed("acme", 9, "ann", **other)
    twice.signatures.append(twice.signatures[0])
    assert told(signer, twice).startswith("1 of 2 people")
    assert told(signer, allowed("acme", 9, "ann", "bob", **other)) == ""


def test_the_same_message_again_changes_nothing(signer: Signer) -> None:
    first = tell(signer, allowed("acme", 9, address=STRANGER))
    size = signer.memory.log.size

    again = tell(signer, allowed("acme", 9, address=STRANGER))

    assert isinstance(first, Accepted)
    assert again == Accepted(first.index, again=True)
    assert signer.memory.log.size == size


def test_a_client_is_paid_only_at_its_own_addresses(signer: Signer) -> None:
    tx = native(recipient=STRANGER)
    meant = intent(tx, destination=STRANGER)
    assert tell(signer, allowed("birch", 9, address=STRANGER)) == Accepted(
        signer.memory.log.size - 1
    )

    answer = ask_fully(signer, tx, meant, approval(meant, "ann"))

    assert isinstance(answer, No)
    assert answer.what.startswith(f"{STRANGER} on evm is not an allowed destination of acme")
    assert answer.later
    for_birch = msgspec.structs.replace(meant, client="birch")
    assert isinstance(ask(signer, tx, for_birch, approval(for_birch, "ann")), bytes)


def test_an_allowed_address_of_one_network_is_not_allowed_on_another(tmp_path: Path) -> None:
    with open_signer(tmp_path, rules(chains={"evm": CHAIN_ID, "other": 5})) as signer:
        assert told(signer, allowed("acme", 9, chain="other")) == (
            f"other with chain id {CHAIN_ID} is not signed for"
        )
        assert told(signer, allowed("acme", 9, chain="other", chain_id=5, address=STRANGER)) == ""
        tx = native(recipient=STRANGER)
        meant = intent(tx, destination=STRANGER)
        assert "not an allowed destination" in str(ask(signer, tx, meant, approval(meant, "ann")))


def test_a_revoked_destination_does_not_come_back(signer: Signer) -> None:
    first = allowed("acme", 1)
    assert told(signer, revoke(1)) == ""
    tx = native()
    meant = intent(tx)

    assert "not an allowed destination" in str(ask(signer, tx, meant, approval(meant, "ann")))
    # The old message again is the same message, and is in force no more for that.
    assert tell(signer, first) == Accepted(1, again=True)
    assert "not an allowed destination" in str(ask(signer, tx, meant, approval(meant, "ann")))
    changed = allowed("acme", 1, cooling_off_s=1)
    assert told(signer, changed) == f"destination {UUID(int=1)} was revoked and does not come back"
    assert told(signer, revoke(1, "bob")) == ""
    assert told(signer, allowed("acme", 10)) == ""
    assert isinstance(ask(signer, tx, meant, approval(meant, "ann")), bytes)


def test_a_destination_revoked_before_it_was_allowed_never_is(signer: Signer) -> None:
    assert told(signer, revoke(9)) == ""

    assert "does not come back" in told(signer, allowed("acme", 9, address=STRANGER))


def test_a_destination_cools_off_by_the_signers_own_clock(tmp_path: Path) -> None:
    clock = ManualClock(START)
    with open_signer(tmp_path, clock=clock, told=False) as signer:
        # Proposed long ago, they say; the signer has only just heard of it.
        assert told(signer, allowed("acme", 1, cooling_off_s=3_600)) == ""
        tx = native()
        meant = intent(tx)
        later(clock, 3_599)
        answer = ask_fully(signer, tx, meant, approval(meant, "ann"))
        assert isinstance(answer, No)
        assert (answer.what, answer.later) == (f"{PAYEE} cools off for 1 s more", True)
        later(clock, 1)
        assert isinstance(ask(signer, tx, meant, approval(meant, "ann")), bytes)


def test_a_destination_cools_off_from_its_proposal_if_that_is_later(tmp_path: Path) -> None:
    with open_signer(tmp_path, told=False) as signer:
        tell(signer, allowed("acme", 1, proposed_at="2026-01-05T09:00:10.000Z", cooling_off_s=5))
        tx = native()
        meant = intent(tx)

        assert ask(signer, tx, meant, approval(meant, "ann")) == f"{PAYEE} cools off for 15 s more"


def test_every_destination_cools_off_as_long_as_the_signers_limits_say(tmp_path: Path) -> None:
    with open_signer(tmp_path, rules(cooling_off_s_min=60)) as signer:
        assert "cools off for 60 s" in str(pay(signer, 1))


def test_a_clock_that_is_set_back_shortens_nothing(tmp_path: Path) -> None:
    clock = ManualClock(START)
    with open_signer(tmp_path, clock=clock) as signer:
        later(clock, 1_000)
        assert isinstance(pay(signer, 1), bytes)
        later(clock, -1_000)
        assert isinstance(pay(signer, 2), bytes)
        times = [signer.memory.log.read(seq).at for seq in range(signer.memory.log.size)]

    assert times == sorted(times)


def test_versions_follow_each_other(signer: Signer) -> None:
    assert told(signer, control(ControlKind.LIMITS, limits(3), "ann", "bob")) == (
        "limits is at version 1; 3 is not the next"
    )
    assert told(signer, control(ControlKind.LIMITS, limits(2), "ann", "bob")) == ""
    assert told(signer, control(ControlKind.LIMITS, limits(2, fee_cap_max="1"), "ann", "bob")) == (
        "limits is at version 2; 2 is not the next"
    )
    assert told(signer, control(ControlKind.OPERATORS, operators(3), "ann", "bob")) == (
        "operators is at version 1; 3 is not the next"
    )


def test_new_limits_hold_at_once(signer: Signer) -> None:
    assert isinstance(pay(signer, 1), bytes)
    first, *rest = limits().assets
    less = [msgspec.structs.replace(first, amount_max=str(ETH - 1)), *rest]
    assert told(signer, control(ControlKind.LIMITS, limits(assets=less), "ann", "cat")) == ""

    assert "more than the signer's limit" in str(pay(signer, 2))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fee_window_s": 0}, "a window has"),
        ({"fee_cap_max": "-1"}, "not an amount"),
        ({"cooling_off_s_min": -1}, "below zero"),
    ],
)
def test_limits_without_sense_are_refused(
    signer: Signer, changes: dict[str, Any], says: str
) -> None:
    assert says in told(signer, control(ControlKind.LIMITS, limits(**changes), "ann", "bob"))


def test_a_removed_operator_approves_nothing_any_more(signer: Signer) -> None:
    left = {name: PUBLIC[name] for name in ("bob", "cat", "robot")}
    assert (
        told(signer, control(ControlKind.OPERATORS, operators(operators=left), "ann", "bob")) == ""
    )

    assert pay(signer, 1, "ann") == (
        "0 of 1 approvals; ann approved it, too, and the signer does not know them"
    )
    assert told(signer, allowed("acme", 9, "ann", "bob", address=STRANGER)) == (
        "ann is not an approver that the signer knows"
    )
    assert isinstance(pay(signer, 1, "bob"), bytes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"operators": {**PUBLIC, "bob": PUBLIC["ann"]}}, "a key of their own"),
        ({"operators": {"ann": PUBLIC["ann"], "robot": PUBLIC["robot"]}, "groups": {}}, "not 2 of 1"),
        ({"quorum": 1}, "takes 2 people or more"),
        ({"services": ["nobody"]}, "a service is one of the operators"),
        ({"groups": {"treasury": ["robot"]}}, "a group is of people"),
        ({"administrators": ["robot"]}, "an administrator is a person"),
    ],
)  # fmt: skip
def test_operators_of_whom_one_could_act_as_two_are_refused(
    signer: Signer, changes: dict[str, Any], says: str
) -> None:
    message = control(ControlKind.OPERATORS, operators(**changes), "ann", "bob")

    assert says in told(signer, message)


def test_only_administrators_change_the_rules_where_there_are_any(tmp_path: Path) -> None:
    with open_signer(tmp_path, rules(administrators=["ann", "cat"])) as signer:
        message = control(ControlKind.LIMITS, limits(), "ann", "bob")
        assert told(signer, message) == "bob does not administer the signer"
        assert told(signer, control(ControlKind.LIMITS, limits(), "ann", "cat")) == ""
        assert told(signer, allowed("acme", 9, "ann", "bob", address=STRANGER)) == ""


SCOPES = [
    (ScopeKind.GLOBAL, ""),
    (ScopeKind.CHAIN, "evm"),
    (ScopeKind.ASSET, "ETH"),
    (ScopeKind.WALLET, "client-pool"),
    (ScopeKind.CLIENT, "acme"),
]


@pytest.mark.parametrize(("scope", "name"), SCOPES)
def test_one_person_closes_a_switch_and_two_open_it(
    signer: Signer, scope: ScopeKind, name: str
) -> None:
    tx = native()
    meant = intent(tx)
    signed = ask(signer, tx, meant, approval(meant, "ann"))
    assert told(signer, closed(5, scope, name)) == ""

    answer = ask_fully(signer, native(nonce=9), intent(native(nonce=9)), approval(meant, "ann"))
    assert isinstance(answer, No)
    assert "is frozen in the signer: test" in answer.what
    assert answer.later
    # What was signed before is not handed out again either.
    assert "is frozen" in str(ask(signer, tx, meant, approval(meant, "ann")))
    assert told(signer, opened(5, "ann")).startswith("1 of 2 people")
    assert told(signer, opened(5)) == ""
    assert ask(signer, tx, meant, approval(meant, "ann")) == signed


def test_a_switch_leaves_what_it_does_not_name(signer: Signer) -> None:
    for number, (scope, name) in enumerate(
        [(ScopeKind.CHAIN, "btc"), (ScopeKind.ASSET, "USDT"), (ScopeKind.CLIENT, "birch")]
    ):
        assert told(signer, closed(number + 50, scope, name)) == ""

    assert isinstance(pay(signer, 1), bytes)


def test_a_global_freeze_stops_cancellations_too(signer: Signer) -> None:
    assert told(signer, closed(5, ScopeKind.GLOBAL, "")) == ""
    tx = cancel()

    assert "is frozen" in str(ask(signer, tx, intent(tx)))


def test_a_service_of_the_house_closes_a_switch_and_never_opens_one(signer: Signer) -> None:
    """What the house's own processes freeze reaches the signer under the key of its service."""
    body = Frozen(id=UUID(int=5), scope=ScopeKind.GLOBAL, name="", reason="odd")
    assert told(signer, control(ControlKind.FREEZE, body, "robot")) == ""
    assert "is frozen" in str(pay(signer, 1))

    thaw = Thawed(id=UUID(int=5), reason="fine")
    for people in (("robot",), ("ann", "robot")):
        assert told(signer, control(ControlKind.THAW, thaw, *people)) == (
            "robot is a service, not a person"
        )
    assert "is frozen" in str(pay(signer, 1))
    assert told(signer, control(ControlKind.THAW, thaw, "ann", "bob")) == ""
    assert isinstance(pay(signer, 1), bytes)


def test_a_freeze_that_was_opened_does_not_come_back(signer: Signer) -> None:
    freeze = closed(5, ScopeKind.GLOBAL, "")
    assert told(signer, freeze) == ""
    assert told(signer, opened(5)) == ""

    assert isinstance(tell(signer, freeze), Accepted)  # the same message, taken before
    assert isinstance(pay(signer, 1), bytes)
    assert "does not come back" in told(signer, closed(5, ScopeKind.CHAIN, "evm"))


def test_a_freeze_opened_before_it_arrives_never_closes_anything(signer: Signer) -> None:
    assert told(signer, opened(5)) == ""

    assert "does not come back" in told(signer, closed(5, ScopeKind.GLOBAL, ""))
    assert isinstance(pay(signer, 1), bytes)


def policy(version: int, *by: str) -> Any:
    body = PolicyInForce(version=version, document={"rules": []})
    return control(ControlKind.POLICY, body, *(by or ("ann", "bob")))


def test_a_payout_of_a_policy_that_ended_long_ago_is_refused(tmp_path: Path) -> None:
    clock = ManualClock(START)
    with open_signer(tmp_path, rules(policy_grace_s=60), clock=clock) as signer:
        tx = native()
        meant = intent(tx, policy_version=2)
        assert told(signer, policy(1)) == ""
        first = ask_fully(signer, tx, meant, approval(meant, "ann"))
        assert isinstance(first, No)
        assert first.later, "the policy may be in force in the application already"
        assert told(signer, policy(4)) == ""
        assert told(signer, policy(3)) == "policy 3 does not come after 4"
        assert "is not in force any more" in str(ask(signer, tx, meant, approval(meant, "ann")))
        old = intent(tx, policy_version=1)
        later(clock, 61)
        assert "is not in force any more" in str(ask(signer, tx, old, approval(old, "ann")))
        later(clock, 0)
        now = intent(tx, policy_version=4)
        assert isinstance(ask(signer, tx, now, approval(now, "ann")), bytes)


def test_a_payout_of_the_policy_before_is_signed_for_a_while(tmp_path: Path) -> None:
    with open_signer(tmp_path, rules(policy_grace_s=60)) as signer:
        assert told(signer, policy(1)) == ""
        assert told(signer, policy(2)) == ""

        assert isinstance(pay(signer, 1), bytes)


def test_a_wallet_that_ended_signs_no_more(signer: Signer) -> None:
    ended = WalletPinned(
        version=2, wallet="client-pool", chain="evm", account_path="m/44'/60'/0'", ended=True
    )
    assert told(signer, control(ControlKind.WALLET, ended, "ann", "bob")) == ""

    assert pay(signer, 1) == "client-pool is not a wallet on evm that signs"


def test_two_wallets_never_have_the_same_keys(signer: Signer) -> None:
    nested = WalletPinned(version=1, wallet="new", chain="evm", account_path="m/44'/60'/0'/1")

    assert told(signer, control(ControlKind.WALLET, nested, "ann", "bob")) == (
        "client-pool and new would have the same keys"
    )


def test_what_is_in_force_is_told(signer: Signer) -> None:
    assert told(signer, closed(5, ScopeKind.ASSET, "USDT")) == ""

    state = signer.answer(AskState())

    assert isinstance(state, State)
    assert state.document["destinations"] == 2
    assert [item["name"] for item in state.document["freezes"]] == ["USDT"]
    assert state.document["limits"]["version"] == 1


def test_everything_in_force_survives_a_restart(tmp_path: Path) -> None:
    messages = [
        closed(5, ScopeKind.ASSET, "USDT"),
        revoke(2),
        policy(3),
        control(ControlKind.LIMITS, limits(fee_window_max=str(10**17)), "ann", "bob"),
        control(ControlKind.OPERATORS, operators(quorum=3), "ann", "bob"),
    ]
    with open_signer(tmp_path) as signer:
        assert [told(signer, message) for message in messages] == [""] * len(messages)
        before = signer.state
    with open_signer(tmp_path, told=False) as again:
        assert again.state == before


def dead(tx_hash: str, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "payout_id": UUID(int=1_003),
        "chain_id": CHAIN_ID,
        "sender": SENDER,
        "nonce": 3,
        "spent_by": tx_hash,
    }
    return control(ControlKind.PAYOUT_DEAD, PayoutDead(**{**values, **changes}), "ann", "bob")


def test_a_payout_gets_a_new_nonce_once_two_people_prove_the_old_one_dead(signer: Signer) -> None:
    assert isinstance(pay(signer, 3), bytes)
    tx = native(nonce=4)
    meant = intent(tx, payout_id=UUID(int=1_003))
    refused = ask(signer, tx, meant, approval(meant, "ann"))
    assert refused == f"payout {UUID(int=1_003)} is signed at nonce 3 of {SENDER}"

    assert told(signer, dead("0x" + "ab" * 32)) == ""

    assert isinstance(ask(signer, tx, meant, approval(meant, "ann")), bytes)
    third = native(nonce=5)
    once_more = intent(third, payout_id=UUID(int=1_003))
    assert "is signed at nonce 4" in str(ask(signer, third, once_more, approval(once_more, "ann")))


def test_a_payment_that_was_made_is_never_called_dead(signer: Signer) -> None:
    raw = pay(signer, 3)
    assert isinstance(raw, bytes)

    assert "is the payment itself" in told(signer, dead(transaction_hash(raw)))
    assert "is not signed at" in told(signer, dead("0x" + "ab" * 32, nonce=9))
    assert "not the hash of a transaction" in told(signer, dead("0xAB"))


def test_a_message_in_another_spelling_is_refused(signer: Signer) -> None:
    message = allowed("acme", 9, address=STRANGER)
    wordy = msgspec.structs.replace(message, body={**message.body, "note": "hello"})
    assert "not a destination.allow message" in told(signer, wordy)
    small = allowed("acme", 9, address=STRANGER.lower())
    assert told(signer, small) != ""


def test_the_verbs_of_messages_are_all_different() -> None:
    assert set(VERBS) == set(ControlKind)
    assert len(set(VERBS.values())) == len(VERBS)


def test_own_transfers_need_no_destination_and_have_a_limit_of_their_own(tmp_path: Path) -> None:
    using = rules(asset_own_amount_max=str(20 * ETH))
    with open_signer(tmp_path, using, told=False) as signer:
        tx = native(recipient=OWN, value=15 * ETH)
        meant = intent(tx)
        assert isinstance(ask(signer, tx, meant, approval(meant, "bob")), bytes)
        more = native(recipient=OWN, value=21 * ETH, nonce=4)
        too_much = intent(more, payout_id=UUID(int=8))
        assert "more than the signer's limit" in str(
            ask(signer, more, too_much, approval(too_much, "bob"))
        )


def test_coins_go_to_a_vault_whose_keys_are_elsewhere_once_two_people_allow_it(
    signer: Signer,
) -> None:
    tx = native(recipient=STRANGER)
    meant = intent(
        tx, kind="own", client=None, destination=STRANGER, destination_path="m/44'/60'/9'/1/0"
    )
    assert "is not that of" in str(ask(signer, tx, meant, approval(meant, "ann")))

    assert told(signer, allowed("own", 9, address=STRANGER)) == ""

    assert isinstance(ask(signer, tx, meant, approval(meant, "ann")), bytes)


def test_a_group_has_to_be_among_the_approvers(tmp_path: Path) -> None:
    with open_signer(tmp_path, rules(asset_groups={"treasury": 1}, asset_approvals=2)) as signer:
        assert pay(signer, 1, "ann", "bob") == "0 of 1 approvals of treasury"
        assert pay(signer, 1, "cat") == "1 of 2 approvals"
        assert isinstance(pay(signer, 1, "ann", "cat"), bytes)


def test_a_token_payment_takes_the_people_of_its_own_rule(signer: Signer) -> None:
    tx = token()
    meant = intent(tx)

    assert ask(signer, tx, meant, approval(meant, "ann")) == "1 of 2 approvals"
