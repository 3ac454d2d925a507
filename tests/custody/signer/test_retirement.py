"""Retired keys: what they still sign, and that they never come back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from chain.evm.addresses import address_of_public_key
from custody.control_messages import ControlKind, ControlMessage, KeyRetired
from custody.signer.errors import SignerRefused
from custody.signer.retirement import check_retirement
from tests.custody.signer.vault import (
    ETH,
    GWEI,
    OWN,
    ROOT,
    approval,
    ask,
    cancel,
    control,
    intent,
    native,
    open_signer,
    pay,
    told,
)

OLD, NEW = "m/44'/60'/0'", "m/44'/60'/1'"
ELSEWHERE_PATH = "m/44'/60'/0'/1/9"
ELSEWHERE = address_of_public_key(ROOT.derive(ELSEWHERE_PATH).uncompressed_key)


def retire(*by: str, path: str = OLD, successor: str = NEW) -> ControlMessage:
    body = KeyRetired(path=path, successor=successor, reason="on its day")
    return control(ControlKind.KEY_RETIRE, body, *(by or ("ann", "bob")))


def test_a_retired_key_pays_nobody_but_the_key_that_replaces_it(tmp_path: Path) -> None:
    with open_signer(tmp_path) as signer:
        assert isinstance(pay(signer, 1), bytes)
        assert told(signer, retire()) == ""

        assert f"retired: it pays to {NEW} only" in str(pay(signer, 2))
        tx = native(nonce=3, recipient=OWN)
        sweep = intent(tx)
        assert isinstance(ask(signer, tx, sweep, approval(sweep, "ann")), bytes)
        # An own address is not enough: it has to be the successor's.
        tx = native(nonce=4, recipient=ELSEWHERE)
        inside = intent(
            tx,
            payout_id=UUID(int=44),
            kind="own",
            client=None,
            destination=ELSEWHERE,
            destination_path=ELSEWHERE_PATH,
        )
        assert "is retired" in str(ask(signer, tx, inside, approval(inside, "ann")))


def test_what_was_signed_before_a_retirement_can_still_be_bumped_and_cancelled(
    tmp_path: Path,
) -> None:
    with open_signer(tmp_path) as signer:
        first = native()
        meant = intent(first)
        assert isinstance(ask(signer, first, meant, approval(meant, "ann")), bytes)
        assert told(signer, retire()) == ""

        bump = replace(first, max_fee_per_gas=9 * GWEI, max_priority_fee_per_gas=2 * GWEI)
        again = intent(bump)
        assert isinstance(ask(signer, bump, again, approval(again, "ann")), bytes)
        empty = cancel(max_fee_per_gas=16 * GWEI, max_priority_fee_per_gas=4 * GWEI)
        assert isinstance(ask(signer, empty, intent(empty)), bytes)
        other = replace(first, value=ETH // 2, max_fee_per_gas=32 * GWEI)
        changed = intent(other, payout_id=UUID(int=9))
        assert "another" in str(ask(signer, other, changed, approval(changed, "ann")))


def test_the_successor_pays_as_before(tmp_path: Path) -> None:
    with open_signer(tmp_path) as signer:
        assert told(signer, retire()) == ""
        tx = native()
        meant = intent(tx, wallet="house-hot", key_path="m/44'/60'/1'/1/0", sender=OWN)

        assert isinstance(ask(signer, tx, meant, approval(meant, "ann")), bytes)


def test_a_retirement_takes_two_people_and_stays(tmp_path: Path) -> None:
    with open_signer(tmp_path) as signer:
        assert "1 of 2 people" in told(signer, retire("ann"))
        assert isinstance(pay(signer, 1), bytes)
        assert told(signer, retire()) == ""
        assert told(signer, retire()) == ""  # the same message again
        assert "retired already" in told(signer, retire(successor="m/44'/60'/2'"))
        assert "is retired itself" in told(signer, retire(path=NEW, successor=OLD))
    with open_signer(tmp_path, told=False) as signer:
        assert "is retired" in str(pay(signer, 2))


@pytest.mark.parametrize(
    ("path", "successor", "says"),
    [
        ("m/44'/60'/5'", "m/44'/60'/5'", "share keys"),
        ("m/44'/60'/5'", "m/44'/60'/5'/1", "share keys"),
        ("m/44'", "m/44'/60'/5'", "share keys"),
        ("", "hot-2", "names the keys"),
        ("hot", "", "names the keys"),
        ("hot", "hot-2", "retired already"),
        ("gas", "hot", "is retired itself"),
        ("m/44'/60'/7'/1", "hot-3", "retired already"),
        ("gas", "m/44'/60'/7'/1", "is retired itself"),
        ("gas", "m/44'/60'", "is retired itself"),
    ],
)
def test_a_retirement_that_contradicts_itself_is_refused(
    path: str, successor: str, says: str
) -> None:
    retired = {"hot": "hot-2", "m/44'/60'/7'": "m/44'/60'/8'"}

    with pytest.raises(SignerRefused, match=says):
        check_retirement(retired, path, successor)


def test_keys_whose_names_begin_alike_are_different_keys() -> None:
    check_retirement({"hot": "hot-2"}, "hot-1", "hot-3")
    check_retirement({"m/44'/60'/1'": "m/44'/60'/2'"}, "m/44'/60'/10'", "m/44'/60'/20'")
