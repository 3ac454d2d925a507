"""Many signatures for one question; what a question may be; and no secret in anything said."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from chain.evm.transactions import UnsignedTransaction, encode_unsigned
from custody.signer import approvals as approvals_module
from custody.signer.approvals import line_of
from custody.signer.service import Signer
from custody.signer.wire import (
    APPROVALS_MANY_MAX,
    REQUESTS_MAX,
    Answer,
    AskHealth,
    AskSign,
    AskSignMany,
    AskState,
    AskXpub,
    Intent,
    No,
    Question,
    Signed,
    SignRequest,
)
from registry.authority import verify_signature
from registry.model import Operator
from tests.custody.signer.vault import (
    LAPSES,
    OTHER_PATH,
    PATH,
    ROOT,
    SEED,
    STRANGER,
    approval,
    ask,
    ask_many,
    intent,
    native,
    open_signer,
    pay,
)


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[Signer]:
    with open_signer(tmp_path) as it:
        yield it


def payments(count: int, first: int = 0) -> list[tuple[UnsignedTransaction, Intent]]:
    made = []
    for number in range(first, first + count):
        tx = native(nonce=number, value=1)
        made.append((tx, intent(tx, payout_id=UUID(int=2_000 + number))))
    return made


def test_a_hundred_are_answered_in_their_order_in_one_write(signer: Signer) -> None:
    asked = payments(REQUESTS_MAX)
    writes: list[str] = []
    signer.memory.database.set_trace_callback(writes.append)

    answers = ask_many(signer, asked, [approval(meant, "ann") for _, meant in asked])

    assert writes.count("COMMIT") == 1
    signer.memory.database.set_trace_callback(None)
    assert all(isinstance(answer, Signed) for answer in answers)
    again = [ask(signer, tx, meant) for tx, meant in asked]
    assert again == [answer.raw for answer in answers if isinstance(answer, Signed)]


def test_one_refusal_does_not_touch_the_others(signer: Signer) -> None:
    asked = payments(4)
    tx, meant = asked[2]
    asked[2] = (replace(tx, recipient=STRANGER), meant)
    given = [approval(each, "ann") for _, each in asked[:3]]

    answers = ask_many(signer, asked, given)

    assert [isinstance(answer, Signed) for answer in answers] == [True, True, False, False]
    assert [answer.what for answer in answers if isinstance(answer, No)] == [
        f"the destination is {STRANGER} in the bytes and {meant.destination} in the intent",
        "0 of 1 approvals",
    ]


def test_an_approval_is_verified_once_however_many_it_covers(
    signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = payments(50)
    release = approval(
        asked[0][1], "ann", *(line_of(meant, expires_at=LAPSES) for _, meant in asked[1:])
    )
    verified: list[str] = []

    def counting(operator: Operator, payload: bytes, signature: bytes) -> None:
        verified.append(operator.code)
        verify_signature(operator, payload, signature)

    monkeypatch.setattr(approvals_module, "verify_signature", counting)
    answers = ask_many(signer, asked, [release])

    assert all(isinstance(answer, Signed) for answer in answers)
    assert verified == ["ann"]


def test_a_false_signature_spoils_only_what_it_covers(signer: Signer) -> None:
    asked = payments(3)
    good = [approval(meant, "ann") for _, meant in asked]
    good[1] = msgspec.structs.replace(good[1], signature=good[0].signature)

    answers = ask_many(signer, asked, good)

    assert [isinstance(answer, Signed) for answer in answers] == [True, False, True]


def test_two_payouts_cannot_take_one_nonce_in_one_question(signer: Signer) -> None:
    first, second = payments(1)[0], payments(1)[0]
    other = (second[0], msgspec.structs.replace(second[1], payout_id=UUID(int=9)))

    answers = ask_many(
        signer, [first, other], [approval(first[1], "ann"), approval(other[1], "ann")]
    )

    assert [isinstance(answer, Signed) for answer in answers] == [True, False]


def test_a_question_has_bounds(signer: Signer) -> None:
    [(tx, meant)] = payments(1)
    one, signed = SignRequest(meant, encode_unsigned(tx)), approval(meant, "ann")
    too_many: list[Question] = [
        AskSignMany([one] * (REQUESTS_MAX + 1), []),
        AskSignMany([one], [signed] * (APPROVALS_MANY_MAX + 1)),
        AskSign(meant, one.unsigned, [signed] * 17),
    ]
    for question in too_many:
        answer = signer.answer(question)
        assert isinstance(answer, No)
        assert answer.what.startswith("more than")
    assert signer.memory.count() == 0


SECRETS = [SEED, ROOT.secret, ROOT.chain_code]
SECRETS += [ROOT.derive(path).secret for path in (PATH, OTHER_PATH, "m/44'/60'/0'", "m/44'")]


def test_no_secret_is_in_answers_logs_records_or_reprs(
    signer: Signer, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    [(tx, meant)] = payments(1)
    signed = approval(meant, "ann")
    questions: list[Question] = [
        AskHealth(),
        AskState(),
        AskXpub("m/44'/60'/0'"),
        AskXpub("m"),
        AskSign(meant, encode_unsigned(tx), [signed]),
        AskSign(meant, b"\x02nonsense", [signed]),
        AskSign(msgspec.structs.replace(meant, key_path="m/0"), encode_unsigned(tx), [signed]),
    ]
    said = [signer.answer_frame(msgspec.json.encode(item), "uid 0") for item in questions]
    assert isinstance(pay(signer, 77), bytes)
    records = [signer.memory.log.read(seq).to_bytes() for seq in range(signer.memory.log.size)]
    spoken = capsys.readouterr()
    texts = [repr(signer), repr(signer.keys), repr(signer.places), str(ROOT), caplog.text]
    texts += [spoken.out, spoken.err]
    everything = b"\n".join([*said, *records, *(text.encode() for text in texts)])

    assert all(msgspec.json.decode(item, type=Answer) for item in said)
    for secret in SECRETS:
        for spelled in (secret, secret.hex().encode(), repr(secret).encode()):
            assert spelled not in everything
    private = signer.places.key.private.private_bytes_raw()
    assert private.hex().encode() not in everything
