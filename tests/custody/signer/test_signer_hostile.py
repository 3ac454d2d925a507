"""What an asker that wants to harm sends: the signer refuses it, and goes on for everybody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from chain.evm.transactions import encode_unsigned
from custody.control_messages import ControlKind, Frozen, KeyRetired, PayoutDead, ScopeKind
from custody.signer import control as signer_control
from custody.signer.control import TEXT_LENGTH_MAX
from custody.signer.decision import CANCEL_FEES_MAX
from custody.signer.frames import NESTING_MAX, require_shallow
from custody.signer.service import Signer
from custody.signer.wire import (
    AskAudit,
    AskControl,
    AskPublicKey,
    AskSign,
    AskXpub,
    Question,
)
from kernel.clock import ManualClock
from kernel.errors import BadInput
from tests.custody.signer.vault import (
    CHAIN_ID,
    ETH,
    PAYOUT,
    RULES,
    SENDER,
    START,
    STRANGER,
    allowed,
    approval,
    ask,
    cancel,
    closed,
    control,
    intent,
    later,
    limits,
    native,
    open_signer,
    operators,
    pay,
    rules,
    told,
)

LONG = "1" * 5_000
"""More digits than Python reads as a number."""


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[Signer]:
    with open_signer(tmp_path) as opened_signer:
        yield opened_signer


def deep(levels: int) -> bytes:
    nested = b"[" * levels + b"]" * levels
    return (
        b'{"type":"control","message":{"kind":"freeze","body":{"a":%b},"signatures":[]}}' % nested
    )


def changed(**changes: object) -> AskSign:
    tx = native()
    meant = intent(tx)
    odd = msgspec.structs.replace(meant, **changes)
    return AskSign(odd, encode_unsigned(tx), [approval(meant, "ann")])


def with_line(amount: str) -> AskSign:
    tx = native()
    meant = intent(tx)
    good = approval(meant, "ann")
    lines = [msgspec.structs.replace(good.lines[0], amount=amount)]
    return AskSign(meant, encode_unsigned(tx), [msgspec.structs.replace(good, lines=lines)])


def at_nonce(nonce: int) -> AskSign:
    tx = native(nonce=nonce)
    meant = intent(tx)
    return AskSign(meant, encode_unsigned(tx), [approval(meant, "ann")])


def dead(**changes: object) -> AskControl:
    body = PayoutDead(
        payout_id=PAYOUT, chain_id=CHAIN_ID, sender=SENDER, nonce=3, spent_by="0x" + "ab" * 32
    )
    body = msgspec.structs.replace(body, **changes)
    return AskControl(control(ControlKind.PAYOUT_DEAD, body, "ann", "bob"))


@pytest.mark.parametrize(
    "question",
    [
        changed(amount=LONG),
        changed(fee_cap=LONG),
        changed(nonce=2**64),
        changed(nonce=-(2**70)),
        changed(chain_id=2**64),
        changed(rule=2**70),
        at_nonce(2**63),
        with_line(LONG),
        AskPublicKey(f"m/44'/60'/0'/1/{LONG}"),
        AskXpub(f"m/44'/60'/{LONG}'"),
        AskAudit(2**70, 1),
        AskAudit(0, -(2**70)),
        dead(nonce=2**64),
        dead(chain_id=2**64),
        deep(600),
        deep(5_000),
        deep(200_000),
    ],
    ids=lambda item: type(item).__name__,
)
def test_no_question_ends_the_signer(signer: Signer, question: Question | bytes) -> None:
    frame = question if isinstance(question, bytes) else msgspec.json.encode(question)

    try:
        answer = signer.answer_frame(frame, "mallory")
    except (msgspec.DecodeError, BadInput):
        answer = b'"refused"'

    assert b'"refused"' in answer
    assert isinstance(pay(signer, 1), bytes)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * (NESTING_MAX + 1),
        b'{"a":' * (NESTING_MAX + 1),
        b'"\\\\"' + b"[" * (NESTING_MAX + 1),
    ],
)
def test_a_deep_frame_is_refused_unread(body: bytes) -> None:
    with pytest.raises(BadInput, match="levels"):
        require_shallow(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * NESTING_MAX + b"]" * NESTING_MAX,
        b'{"a":[]},' * 100,
        b'"' + b"[" * 100 + b'"',
        b'"\\"' + b"[" * 100 + b'"',
        b'"\\"' * 300_000,
    ],
)
def test_what_strings_hold_makes_no_frame_deep(body: bytes) -> None:
    require_shallow(body)


def test_a_key_has_one_path_only(tmp_path: Path) -> None:
    unpinned = msgspec.structs.replace(RULES, wallets=[])
    body = KeyRetired(path="m/44'/60'/0'", successor="m/44'/60'/1'", reason="known to somebody")
    with open_signer(tmp_path, unpinned) as signer:
        assert told(signer, control(ControlKind.KEY_RETIRE, body, "ann", "bob")) == ""
        tx = native()
        for path in ("m/44'/60'/00'/1/0", "m/44'/060'/0'/1/0", "m/44'/60'/0'/1/00"):
            meant = intent(tx, key_path=path)
            assert isinstance(ask(signer, tx, meant, approval(meant, "ann")), str), path


@pytest.mark.parametrize("path", ["m/44'/60'/00'", "m/44'/60'/0'/", "m//44'", " m/44'/60'/0'"])
def test_a_path_in_another_spelling_is_neither_retired_nor_pinned(
    signer: Signer, path: str
) -> None:
    body = KeyRetired(path=path, successor="m/44'/60'/1'", reason="known to somebody")
    assert "derivation path" in told(signer, control(ControlKind.KEY_RETIRE, body, "ann", "bob"))
    wallet = msgspec.structs.replace(
        RULES.wallets[0], version=1, wallet="another", account_path=path
    )
    assert "derivation path" in told(signer, control(ControlKind.WALLET, wallet, "ann", "bob"))


def test_a_retired_key_pays_no_vault_under_the_name_of_its_successor(signer: Signer) -> None:
    assert told(signer, allowed("own", 9, address=STRANGER)) == ""
    body = KeyRetired(path="m/44'/60'/0'", successor="m/44'/60'/1'", reason="known to somebody")
    assert told(signer, control(ControlKind.KEY_RETIRE, body, "ann", "bob")) == ""

    tx = native(recipient=STRANGER)
    meant = intent(
        tx, kind="own", client=None, destination=STRANGER, destination_path="m/44'/60'/1'/1/0"
    )

    assert "is retired" in str(ask(signer, tx, meant, approval(meant, "ann")))


def test_one_person_cannot_use_the_switches_up(
    signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signer_control, "FREEZES_MAX", 3)
    for number in range(3):
        assert told(signer, closed(1_000 + number, ScopeKind.CLIENT, f"c{number}", "bob")) == ""
    assert "switches are closed" in told(signer, closed(5_000, ScopeKind.CLIENT, "more", "bob"))

    assert told(signer, closed(5_001, ScopeKind.WALLET, "client-pool", "cat")) == ""
    assert told(signer, closed(5_002, ScopeKind.GLOBAL, "", "cat")) == ""


def test_the_words_of_a_freeze_are_bounded(signer: Signer) -> None:
    long = "x" * (TEXT_LENGTH_MAX + 1)
    for name, reason in ((long, "test"), ("acme", long)):
        body = Frozen(id=UUID(int=50), scope=ScopeKind.CLIENT, name=name, reason=reason)
        assert "letters" in told(signer, control(ControlKind.FREEZE, body, "cat"))


def test_administrators_too_few_to_change_anything_again_are_refused(signer: Signer) -> None:
    message = control(ControlKind.OPERATORS, operators(administrators=["ann"]), "ann", "bob")

    assert "2 people or more" in told(signer, message)


def test_a_network_and_a_contract_have_one_name(signer: Signer) -> None:
    twice = limits(chains={"evm": CHAIN_ID, "mirror": CHAIN_ID})
    assert "two names" in told(signer, control(ControlKind.LIMITS, twice, "ann", "bob"))
    first, *rest = limits().assets
    alias = msgspec.structs.replace(first, asset="ETHER", amount_max=str(1_000 * ETH))
    twice = limits(assets=[first, alias, *rest])
    assert "two rules" in told(signer, control(ControlKind.LIMITS, twice, "ann", "bob"))


def test_a_payment_at_a_dead_nonce_is_not_replaced(signer: Signer) -> None:
    assert isinstance(pay(signer, 3), bytes)
    assert told(signer, dead(payout_id=UUID(int=1_003)).message) == ""

    dearer = {"max_fee_per_gas": 16 * 10**9, "max_priority_fee_per_gas": 4 * 10**9}

    assert "spent by another transaction" in str(pay(signer, 3, **dearer))


def test_cancellations_spend_no_more_than_a_number_of_fee_caps(tmp_path: Path) -> None:
    clock, each = ManualClock(START), 21_000 * 9 * 10**9
    using = rules(fee_cap_max=str(each), fee_window_s=3_600)
    with open_signer(tmp_path, using, clock) as signer:
        answers = []
        for nonce in range(CANCEL_FEES_MAX + 1):
            tx = cancel(nonce=nonce)
            answers.append(ask(signer, tx, intent(tx, payout_id=UUID(int=nonce))))
        assert all(isinstance(answer, bytes) for answer in answers[:-1])
        assert "cancellations" in str(answers[-1])
    # A restart forgets nothing.
    with open_signer(tmp_path, using, clock, told=False) as signer:
        tx = cancel(nonce=500)
        assert "cancellations" in str(ask(signer, tx, intent(tx)))
        later(clock, 3_601)
        assert isinstance(ask(signer, tx, intent(tx)), bytes)
