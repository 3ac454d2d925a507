"""What the signer signs of Bitcoin, and what it refuses: everything that the intent does not say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from chain.bitcoin.addresses import address_of
from chain.bitcoin.digests import Spent, signing_digests
from chain.bitcoin.networks import MAIN
from chain.bitcoin.psbt import Psbt
from chain.bitcoin.psbt_finish import verify_witness
from chain.bitcoin.scripts import witness_script
from chain.bitcoin.transactions import Input, Outpoint, Output, decode, encode
from chain.evm.transactions import encode_unsigned
from custody.control_messages import ControlKind, KeyRetired, ScopeKind, WalletPinned
from custody.signer.service import Signer
from custody.signer.verification import find_faults
from custody.signer.wire import (
    Accepted,
    AskSign,
    No,
    Signed,
    SpendChange,
    SpendIntent,
)
from kernel.clock import ManualClock
from tests.custody.signer.purse import (
    ACCOUNT,
    CHAIN_ID,
    CHANGE,
    COIN,
    FIRST_COIN,
    OTHER,
    PAYEE,
    SECOND,
    SECOND_COIN,
    STRANGER,
    address,
    allowed,
    approvals_of,
    ask,
    ask_fully,
    bumped,
    cancel,
    coin,
    dead,
    line,
    open_purse,
    outputs_of,
    own,
    psbt_of,
    rules,
    script,
    second,
    spend,
)
from tests.custody.signer.vault import START, closed, control, intent, later, native, tell, told


@pytest.fixture
def signer(tmp_path: Path) -> Any:
    with open_purse(tmp_path) as opened:
        yield opened


def test_a_spend_is_signed_so_that_every_input_proves_its_coin(signer: Signer) -> None:
    meant = spend()
    raw = ask(signer, meant)
    assert isinstance(raw, bytes), raw
    signed = decode(raw)

    assert signed.without_proofs() == psbt_of(meant).transaction
    spent = [Spent(Output(item.amount, script(item.key_path))) for item in meant.inputs]
    digests = signing_digests(signed, spent)
    for item, own_coin, digest in zip(signed.inputs, spent, digests, strict=True):
        verify_witness(own_coin, digest, item.witness)


def test_the_outputs_may_stand_in_any_order(signer: Signer) -> None:
    meant = spend()
    turned = psbt_of(meant, outputs=tuple(outputs_of(meant)[::-1]))
    assert isinstance(ask_fully(signer, meant, psbt=turned), Signed)


def test_the_same_question_gets_the_same_bytes_and_another_start_does_too(tmp_path: Path) -> None:
    with open_purse(tmp_path) as opened:
        raw = ask(opened, spend())
        assert ask(opened, spend()) == raw
    with open_purse(tmp_path) as opened:
        assert ask(opened, spend()) == raw


def forged(psbt: Psbt, place: int, **changes: Any) -> Psbt:
    """The PSBT with another output that input *place* spends."""
    known = psbt.inputs[place]
    assert known.witness_utxo is not None
    told_so = replace(known, witness_utxo=replace(known.witness_utxo, **changes))
    return replace(psbt, inputs=(*psbt.inputs[:place], told_so, *psbt.inputs[place + 1 :]))


def with_output(place: int, **changes: Any) -> Psbt:
    outputs = outputs_of(spend())
    outputs[place] = replace(outputs[place], **changes)
    return psbt_of(spend(), outputs=tuple(outputs))


INPUTS = psbt_of(spend()).transaction.inputs
OUTPUTS = tuple(outputs_of(spend()))


@pytest.mark.parametrize(
    ("psbt", "words"),
    [
        (with_output(0, amount=200_001), "the outputs are others"),
        (with_output(0, script=witness_script(1, b"\3" * 32)), "the outputs are others"),
        (with_output(1, script=OUTPUTS[0].script), "the outputs are others"),
        (with_output(2, amount=98_000), "the outputs are others"),
        (with_output(2, script=script(f"{OTHER}/1/9")), "the outputs are others"),
        (with_output(2, script=script(f"{ACCOUNT}/0/9")), "the outputs are others"),
        (psbt_of(spend(), outputs=OUTPUTS[:2]), "the outputs are others"),
        (psbt_of(spend(), outputs=(*OUTPUTS, OUTPUTS[0])), "the outputs are others"),
        (psbt_of(spend(), outputs=(*OUTPUTS, Output(0, b"\x6a"))), "the outputs are others"),
        (psbt_of(spend(), inputs=INPUTS[::-1]), "the inputs are others"),
        (psbt_of(spend(), inputs=INPUTS[:1]), "the inputs are others"),
        (
            psbt_of(spend(), inputs=(*INPUTS, Input(Outpoint("99" * 32, 0)))),
            "the inputs are others",
        ),
        (
            psbt_of(spend(), inputs=(replace(INPUTS[0], sequence=0xFFFFFFFF), INPUTS[1])),
            "the inputs are others",
        ),
        (
            psbt_of(spend(), inputs=(Input(Outpoint(FIRST_COIN.tx_id, 2)), INPUTS[1])),
            "the inputs are others",
        ),
        (psbt_of(spend(), lock_time=1), "waits for its time"),
        (psbt_of(spend(), version=1), "another version"),
        (forged(psbt_of(spend()), 0, amount=250_001), "input 0 spends 250001"),
        (forged(psbt_of(spend()), 1, amount=1), "input 1 spends 1 satoshi"),
        (forged(psbt_of(spend()), 1, script=script(COIN)), "input 1 spends"),
        (
            replace(
                psbt_of(spend()),
                inputs=tuple(replace(item, witness_utxo=None) for item in psbt_of(spend()).inputs),
            ),
            "nothing says what input 0 spends",
        ),
        (
            replace(
                psbt_of(spend()),
                inputs=tuple(replace(item, sighash=2) for item in psbt_of(spend()).inputs),
            ),
            "without the whole transaction",
        ),
    ],
)
def test_bytes_that_say_something_else_than_the_intent_are_refused(
    signer: Signer, psbt: Psbt, words: str
) -> None:
    said = ask(signer, spend(), psbt=psbt)
    assert isinstance(said, str)
    assert words in said
    assert signer.memory.count() == 0


@pytest.mark.parametrize(
    ("meant", "words"),
    [
        (spend(chain="doge"), "is not signed for"),
        (spend(chain_id=MAIN.network_id), "is not signed for"),
        (spend(chain="evm", chain_id=31337), "no Bitcoin network"),
        (spend(wallet="house"), "is not of wallet house"),
        (spend(wallet="nobody"), "is not a wallet"),
        (spend(kind="cancel"), "a cancellation has none"),
        (spend(lines=[]), "a payment has lines"),
        (spend(anchor=f"{'99' * 32}:0"), "the anchor, is not among the inputs"),
        (spend(inputs=[FIRST_COIN, coin(3, 150_000, f"{OTHER}/0/1")]), "more than one account"),
        (
            spend(change=SpendChange(amount=99_000, key_path=f"{OTHER}/1/1")),
            "more than one account",
        ),
        (spend(change=SpendChange(amount=99_000, key_path=f"{ACCOUNT}/0/1")), "clients' deposits"),
        (
            spend(change=SpendChange(amount=99_000, key_path="m/84'/1'/0'/1")),
            "no address of BIP 84",
        ),
        (spend(change=SpendChange(amount=99_000, key_path="m/84'/0'/0'/1/1")), "no address of BIP"),
        (spend(change=SpendChange(amount=99_000, key_path="m/44'/1'/0'/1/1")), "no address of BIP"),
        (spend(change=SpendChange(amount=99_000, key_path="m/84'/1'/0'/2/1")), "no address of BIP"),
        (spend(change=SpendChange(amount=99_000, key_path="m/84'/1'/0/1/1")), "no address of BIP"),
        (spend(change=SpendChange(amount=98_999, key_path=CHANGE)), "the fee is 1001"),
        (spend(change=SpendChange(amount=99_001, key_path=CHANGE)), "the fee is 999"),
        (spend(change=SpendChange(amount=0, key_path=CHANGE)), "an amount that cannot be"),
        (spend(fee=1_000, fee_cap=999), "where 999 is the cap"),
        (spend(fee=0), "a fee of 0"),
        (spend(fee_cap=50_001), "above the signer's 50000"),
        (spend(lines=[line(destination=STRANGER)]), "not an allowed destination"),
        (spend(lines=[line(client="birch")]), "not an allowed destination of birch"),
        (spend(lines=[line(client=None)]), "names a client"),
        (spend(lines=[line(destination_path=CHANGE)]), "names a client and no receiving key"),
        (spend(lines=[line(asset="ETH")]), "no rule allows ETH"),
        (spend(lines=[own(destination=address(f"{OTHER}/1/1"))]), "is not that of"),
        (spend(lines=[own(f"{OTHER}/0/1")]), "clients' deposits"),
        (spend(lines=[own(client="acme")]), "for no client"),
        (spend(lines=[own(destination_path=None)]), "names the receiving key"),
    ],
)
def test_an_intent_that_makes_no_sense_or_pays_a_stranger_is_refused(
    signer: Signer, meant: SpendIntent, words: str
) -> None:
    said = ask(signer, meant)
    assert isinstance(said, str)
    assert words in said
    assert signer.memory.count() == 0


@pytest.mark.parametrize(
    ("meant", "words"),
    [
        (cancel(change=None), "returns everything"),
        (spend(lines=[line(), line(amount=1_000)]), "a payout has two lines"),
        (spend(inputs=[FIRST_COIN, SECOND_COIN, SECOND_COIN]), "stands twice"),
        (spend(inputs=[]), "1 to 500 inputs"),
        (spend(inputs=[coin(1, 250_000, COIN)] * 501), "1 to 500 inputs"),
        (spend(lines=[line(number) for number in range(501)]), "at most 500 lines"),
        (spend(inputs=[msgspec.structs.replace(FIRST_COIN, tx_id="AB" * 32)]), "no transaction id"),
    ],
)
def test_an_intent_that_is_no_transaction_is_refused_before_the_bytes_are_looked_at(
    signer: Signer, meant: SpendIntent, words: str
) -> None:
    assert words in str(ask(signer, meant, psbt=psbt_of(spend()), by=[]))


def test_a_destination_in_another_spelling_is_refused(signer: Signer) -> None:
    assert "one spelling" in str(ask(signer, spend(lines=[line(destination=PAYEE.upper())])))
    assert "one spelling" in told(signer, allowed("acme", 9, STRANGER.upper()))


def test_an_address_of_another_network_is_neither_allowed_nor_paid(signer: Signer) -> None:
    elsewhere = address_of(witness_script(1, b"\1" * 32), MAIN)
    assert elsewhere is not None
    assert told(signer, allowed("acme", 9, elsewhere))
    meant = spend(lines=[line(destination=elsewhere)])
    answer = ask_fully(signer, meant, psbt=psbt_of(spend(lines=[line()])))
    assert isinstance(answer, No)
    assert "addresses of this network" in answer.what


# Forged amounts.


def test_two_half_true_stories_about_the_amounts_never_make_one_expensive_transaction(
    signer: Signer,
) -> None:
    """The second coin really holds 900,000: each story is true of one input and false of the other."""
    honest_first = spend()
    assert isinstance(ask(signer, honest_first), bytes)
    poor_first = coin(1, 1, COIN)
    rich_second = coin(2, 399_999, SECOND)
    said = ask(signer, bumped(2_000, inputs=[poor_first, rich_second]))
    assert "holds 250000 satoshi by what was signed before, and not 1" in str(said)

    later_spend = spend(
        spend_id=UUID(int=8),
        lines=[line(11)],
        inputs=[coin(3, 400_000, COIN), coin(2, 399_999, SECOND)],
        anchor=f"{3:064x}:3",
    )
    assert "holds 150000 satoshi" in str(ask(signer, later_spend))


# Approvals and limits, line by line.


def test_each_line_is_approved_by_itself(signer: Signer) -> None:
    meant = spend()
    assert "0 of 1 approvals" in str(ask(signer, meant, by=[]))
    first_only = approvals_of(spend(lines=[line()]), "ann")
    assert "0 of 1 approvals" in str(ask(signer, meant, by=first_only))
    both = [*first_only, *approvals_of(spend(lines=[second()]), "bob")]
    assert isinstance(ask(signer, meant, by=both), bytes)


@pytest.mark.parametrize(
    "changed",
    [
        {"amount": 200_001},
        {"destination": STRANGER},
        {"client": "birch"},
        {"rule": 2},
        {"policy_version": 2},
        {"payout_id": UUID(int=999)},
        {"initiator": "yan"},
    ],
)
def test_an_approval_of_another_line_does_not_count(
    signer: Signer, changed: dict[str, Any]
) -> None:
    other = approvals_of(spend(lines=[line(**changed), second()]), "ann")
    assert "0 of 1 approvals" in str(ask(signer, spend(), by=other))


def test_whoever_asked_for_a_payout_does_not_approve_it(signer: Signer) -> None:
    meant = spend(lines=[line(initiator="ann"), second()])
    assert "ann asked for the payout" in str(ask(signer, meant, "ann"))


def test_an_amount_above_the_limit_is_refused(tmp_path: Path) -> None:
    with open_purse(tmp_path, rules(asset_amount_max="199999")) as opened:
        assert "more than the signer's limit 199999" in str(ask(opened, spend()))


def test_the_lines_of_a_spend_fill_a_window_together(tmp_path: Path) -> None:
    clock = ManualClock(START)
    with open_purse(
        tmp_path, rules(asset_window_max="299999", asset_window_s=3_600), clock
    ) as opened:
        answer = ask_fully(opened, spend())
        assert isinstance(answer, No)
        assert answer.later
        assert "with this spend" in answer.what
        assert isinstance(ask(opened, spend(lines=[line()])), bytes)
        next_one = spend(
            spend_id=UUID(int=8),
            lines=[second()],
            inputs=[coin(3, 400_000, COIN)],
            anchor=f"{3:064x}:3",
        )
        assert "reaches the signer's 299999" in str(ask(opened, next_one))
        later(clock, 3_601)
        assert isinstance(ask(opened, next_one), bytes)


def test_windows_are_counted_again_after_a_start(tmp_path: Path) -> None:
    using = rules(asset_window_max="450000", fee_windows={"btc": "2500"})
    with open_purse(tmp_path, using) as opened:
        assert isinstance(ask(opened, spend()), bytes)
    with open_purse(tmp_path, using) as opened:
        next_one = spend(
            spend_id=UUID(int=8),
            lines=[line(11)],
            inputs=[coin(3, 400_000, COIN)],
            anchor=f"{3:064x}:3",
        )
        assert "450000" in str(ask(opened, next_one))
        small = msgspec.structs.replace(next_one, lines=[line(11, amount=1_000)], fee=1_600)
        small = msgspec.structs.replace(small, change=SpendChange(amount=397_400, key_path=CHANGE))
        assert "2500 satoshi" in str(ask(opened, small))


def test_a_service_approves_only_up_to_its_own_window_over_all_lines(tmp_path: Path) -> None:
    with open_purse(tmp_path, rules(asset_auto_window_max="299999")) as opened:
        assert "services may approve" in str(ask(opened, spend(), "robot"))
        assert isinstance(ask(opened, spend(lines=[line()]), "robot"), bytes)


def test_an_own_transfer_goes_to_a_key_that_the_signer_derives_itself(signer: Signer) -> None:
    raw = ask(signer, spend(lines=[own()]))
    assert isinstance(raw, bytes), raw
    assert script(f"{OTHER}/1/0") in [item.script for item in decode(raw).outputs]


def test_a_vault_that_two_people_allowed_is_paid(signer: Signer) -> None:
    vault_line = own(destination=STRANGER, destination_path=None)
    assert "receiving key" in str(ask(signer, spend(lines=[vault_line])))
    assert isinstance(tell(signer, allowed("own", 9, STRANGER)), Accepted)
    assert isinstance(ask(signer, spend(lines=[vault_line])), bytes)


def test_a_destination_cools_off(tmp_path: Path) -> None:
    clock = ManualClock(START)
    with open_purse(tmp_path, clock=clock) as opened:
        assert isinstance(tell(opened, allowed("acme", 9, STRANGER, cooling_off_s=60)), Accepted)
        meant = spend(lines=[line(destination=STRANGER)])
        answer = ask_fully(opened, meant)
        assert isinstance(answer, No)
        assert answer.later
        assert "cools off" in answer.what
        later(clock, 61)
        assert isinstance(ask(opened, meant), bytes)


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        (ScopeKind.GLOBAL, ""),
        (ScopeKind.CHAIN, "btc"),
        (ScopeKind.ASSET, "BTC"),
        (ScopeKind.WALLET, "pool"),
        (ScopeKind.CLIENT, "birch"),
    ],
)
def test_a_closed_switch_stops_a_spend_even_what_was_signed_before(
    signer: Signer, scope: ScopeKind, name: str
) -> None:
    assert isinstance(ask(signer, spend()), bytes)
    assert isinstance(tell(signer, closed(50, scope, name)), Accepted)
    for meant in (spend(), bumped(2_000)):
        answer = ask_fully(signer, meant)
        assert isinstance(answer, No)
        assert answer.later
        assert "frozen" in answer.what
    stops_cancel = scope is not ScopeKind.CLIENT
    assert isinstance(ask(signer, cancel()), str) is stops_cancel


def test_retired_keys_only_empty_themselves_into_those_that_replace_them(signer: Signer) -> None:
    assert isinstance(ask(signer, spend()), bytes)
    body = KeyRetired(path=ACCOUNT, successor=OTHER, reason="test")
    assert isinstance(tell(signer, control(ControlKind.KEY_RETIRE, body, "ann", "bob")), Accepted)

    assert isinstance(ask(signer, bumped(2_000)), bytes), "what was signed may pay a higher fee"
    coins: dict[str, Any] = {
        "spend_id": UUID(int=8),
        "inputs": [coin(3, 201_000, COIN)],
        "anchor": f"{3:064x}:3",
    }
    assert "retired" in str(ask(signer, spend(lines=[line(11)], change=None, **coins)))
    with_change = spend(lines=[own(amount=100_000)], **coins)
    assert "retired" in str(ask(signer, with_change))
    assert isinstance(ask(signer, spend(lines=[own()], change=None, **coins)), bytes)


def test_a_wallet_that_ended_signs_no_more(signer: Signer) -> None:
    body = WalletPinned(version=2, wallet="pool", chain="btc", account_path=ACCOUNT, ended=True)
    assert isinstance(tell(signer, control(ControlKind.WALLET, body, "ann", "bob")), Accepted)
    assert "not a wallet" in str(ask(signer, spend()))


def test_a_fee_beyond_reason_is_refused_whatever_the_cap(tmp_path: Path) -> None:
    with open_purse(tmp_path, rules(fee_caps={"btc": "100000000"})) as opened:
        meant = spend(
            inputs=[coin(1, 1_250_000, COIN)], fee=900_000, fee_cap=1_000_000, lines=[line()]
        )
        assert "absurd" in str(ask(opened, meant))


def test_where_no_cap_is_named_the_fee_has_one_all_the_same(tmp_path: Path) -> None:
    with open_purse(tmp_path, rules(fee_caps={})) as opened:
        assert "above the signer's 1000000" in str(ask(opened, spend(fee_cap=1_000_001)))


def test_an_evm_question_about_a_bitcoin_chain_is_refused(signer: Signer) -> None:
    tx = native(chain_id=CHAIN_ID)
    meant = intent(tx, chain="btc", chain_id=CHAIN_ID)
    answer = signer.answer(AskSign(meant, encode_unsigned(tx), []))
    assert isinstance(answer, No)
    assert "ask for a spend" in answer.what


# Conflicts.


def test_a_replacement_pays_the_same_for_a_higher_fee(signer: Signer) -> None:
    raws = [ask(signer, spend(fee=fee)) for fee in (1_000, 2_000, 3_000)]
    assert all(isinstance(raw, bytes) for raw in raws), raws
    assert len(set(raws)) == 3


def test_a_replacement_may_spend_more_coins_and_need_no_second_one(signer: Signer) -> None:
    assert isinstance(ask(signer, spend()), bytes)
    more = bumped(2_000, inputs=[FIRST_COIN, SECOND_COIN, coin(3, 5_000, SECOND)])
    assert isinstance(ask(signer, more), bytes)
    turned = bumped(3_000, inputs=[coin(4, 90_000, SECOND), FIRST_COIN])
    assert isinstance(ask(signer, turned), bytes), "the anchor is what matters"


@pytest.mark.parametrize(
    ("meant", "words"),
    [
        (
            bumped(1_000, change=SpendChange(amount=99_000, key_path=f"{ACCOUNT}/1/8")),
            "higher fee|with a fee",
        ),
        (bumped(999), "with a fee of 1000"),
        (bumped(2_000, lines=[line()]), "other payments"),
        (
            bumped(
                2_000,
                lines=[line(), second(), line(5)],
                inputs=[FIRST_COIN, SECOND_COIN, coin(3, 300_000, COIN)],
            ),
            "other payments",
        ),
        (bumped(2_000, lines=[line(amount=200_001), second()]), "other payments"),
        (bumped(2_000, lines=[line(payout_id=UUID(int=55)), second()]), "other payments"),
        (bumped(2_000, spend_id=UUID(int=8)), "other payments"),
        (
            bumped(
                2_000, inputs=[SECOND_COIN, coin(3, 300_000, COIN)], anchor=f"{SECOND_COIN.tx_id}:2"
            ),
            "is signed with coin",
        ),
        (
            bumped(
                2_000,
                spend_id=UUID(int=8),
                inputs=[SECOND_COIN, coin(3, 300_000, COIN)],
                anchor=f"{3:064x}:3",
            ),
            "is signed in spend",
        ),
        (
            spend(
                spend_id=UUID(int=8),
                lines=[second()],
                inputs=[coin(3, 300_000, COIN)],
                anchor=f"{3:064x}:3",
            ),
            "is signed in spend",
        ),
        (cancel(1_000), "with a fee"),
        (cancel(5_000, spend_id=UUID(int=8)), "other payments"),
    ],
)
def test_nothing_that_could_be_mined_beside_a_signed_spend_is_signed(
    signer: Signer, meant: SpendIntent, words: str
) -> None:
    assert isinstance(ask(signer, spend()), bytes)
    answer = ask_fully(signer, meant)
    assert isinstance(answer, No), "signed!"
    assert any(word in answer.what for word in words.split("|")), answer.what
    assert signer.memory.count() == 1


def test_a_refusal_tells_that_the_payout_was_signed_before(signer: Signer) -> None:
    before = ask_fully(signer, spend(lines=[line(destination=STRANGER)]))
    assert isinstance(before, No)
    assert not before.signed_before
    ask(signer, spend())
    after = ask_fully(signer, bumped(2_000, lines=[line()]))
    assert isinstance(after, No)
    assert after.signed_before


def test_a_spend_is_cancelled_and_may_be_paid_above_the_cancellation(signer: Signer) -> None:
    assert isinstance(ask(signer, spend()), bytes)
    raw = ask(signer, cancel(5_000))
    assert isinstance(raw, bytes), raw
    assert [item.script for item in decode(raw).outputs] == [script(CHANGE)]
    assert "with a fee of 5000" in str(ask(signer, bumped(4_000)))
    assert isinstance(ask(signer, bumped(6_000)), bytes)


def test_coins_that_were_only_returned_never_pay(signer: Signer) -> None:
    assert isinstance(ask(signer, cancel(5_000)), bytes), "a consolidation: nobody approves it"
    assert "other payments" in str(ask(signer, bumped(6_000)))


def test_cancellations_cost_only_so_much(tmp_path: Path) -> None:
    with open_purse(tmp_path, rules(fee_caps={"btc": "5000"})) as opened:
        for number in range(100):
            meant = cancel(
                5_000,
                fee_cap=5_000,
                spend_id=UUID(int=1_000 + number),
                inputs=[coin(10 + number, 50_000, COIN)],
                anchor=f"{10 + number:064x}:{10 + number}",
            )
            assert isinstance(ask(opened, meant), bytes)
        more = cancel(5_000, fee_cap=5_000)
        assert "fees of cancellations" in str(ask(opened, more))


def test_a_payment_is_replaced_sixteen_times_and_no_more(signer: Signer) -> None:
    for number in range(17):
        assert isinstance(ask(signer, spend(fee=1_000 + number)), bytes)
    assert "replaced 16 times" in str(ask(signer, spend(fee=2_000)))


# Buried.


def again() -> SpendIntent:
    """The same payouts with other coins."""
    return spend(spend_id=UUID(int=8), inputs=[coin(3, 400_000, COIN)], anchor=f"{3:064x}:3")


def test_payouts_of_a_dead_spend_may_be_paid_anew_and_its_anchor_pays_nothing(
    signer: Signer,
) -> None:
    assert isinstance(ask(signer, spend()), bytes)
    assert "is signed in spend" in str(ask(signer, again()))
    assert isinstance(tell(signer, dead(spend())), Accepted)
    assert isinstance(ask(signer, again()), bytes)
    for meant in (bumped(2_000), cancel(5_000)):
        assert "was spent by another transaction" in str(ask(signer, meant))


def test_a_spend_is_not_buried_by_its_own_payment_and_not_without_two_people(
    signer: Signer,
) -> None:
    raw = ask(signer, spend())
    assert isinstance(raw, bytes)
    returned = ask(signer, cancel(5_000))
    assert isinstance(returned, bytes)
    for message, words in [
        (dead(spend(), decode(raw).tx_id), "the payment itself"),
        (dead(spend(), "ee" * 32, "ann"), "1 of 2 people"),
        (dead(spend(spend_id=UUID(int=9))), "not signed with coin"),
        (dead(spend(), "EE" * 32), "no transaction"),
    ]:
        assert words in told(signer, message)
    assert isinstance(tell(signer, dead(spend(), decode(returned).tx_id)), Accepted)
    assert "dead already" in told(signer, dead(spend(), "dd" * 32))


# The store.


def test_the_store_of_spends_follows_from_its_log(tmp_path: Path) -> None:
    with open_purse(tmp_path) as opened:
        ask(opened, spend())
        ask(opened, bumped(2_000))
        ask(opened, cancel(5_000))
        ask(opened, spend(lines=[line(destination=STRANGER)]))
        tell(opened, dead(spend()))
        ask(opened, again())
        assert find_faults(opened.memory) == []
        assert opened.memory.count() == 4


def test_a_signature_that_was_recorded_and_is_false_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_purse(tmp_path) as opened:
        raw = ask(opened, spend())
        assert isinstance(raw, bytes)
        signed = decode(raw)
        first = signed.inputs[0].witness
        told_false = replace(
            signed,
            inputs=tuple(replace(item, witness=first) for item in signed.inputs),
        )
        [record] = list(opened.memory.log.of_kind("spent"))
        body = record.body.replace(b64(raw), b64(encode(told_false)))
        assert body != record.body
        opened.memory.database.execute(
            "UPDATE audit SET body = ? WHERE seq = ?", (body, record.seq)
        )
        faults = find_faults(opened.memory)
        assert any(
            "another key than the output pays" in item or "signs something else" in item
            for item in faults
        ), faults


def b64(data: bytes) -> str:
    return msgspec.json.encode(data).decode().strip('"')
