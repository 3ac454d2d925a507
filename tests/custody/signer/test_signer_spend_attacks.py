"""An application in an attacker's hands asks for a second payment, or for coins to burn: never signed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from chain.bitcoin.psbt import encode_psbt
from chain.evm.transactions import UnsignedTransaction
from custody.control_messages import ControlKind, PayoutDead, WalletPinned
from custody.payout_approvals import approval_bytes
from custody.restore_marks import Mark, Shown
from custody.signer.approvals import line_of
from custody.signer.service import Signer
from custody.signer.spend_decision import payment_of
from custody.signer.verification import INDEXES, find_faults
from custody.signer.wire import (
    Accepted,
    AskSignSpend,
    AskWitness,
    Intent,
    Line,
    No,
    SignedApproval,
    SpendChange,
    SpendIntent,
    Witnessed,
)
from kernel.clock import to_unix_ms
from tests.custody.signer import vault
from tests.custody.signer.purse import (
    ACCOUNT,
    CHANGE,
    COIN,
    FIRST_COIN,
    RULES,
    SECOND_COIN,
    STRANGER,
    ask,
    ask_fully,
    bumped,
    cancel,
    coin,
    dead,
    line,
    open_purse,
    own,
    psbt_of,
    rules,
    second,
    spend,
)
from tests.custody.signer.vault import KEYS, START, control, tell


@pytest.fixture
def signer(tmp_path: Path) -> Any:
    with open_purse(tmp_path) as opened:
        yield opened


def again() -> SpendIntent:
    """The same payouts with other coins."""
    return spend(spend_id=UUID(int=8), inputs=[coin(3, 400_000, COIN)], anchor=f"{3:064x}:3")


@pytest.mark.parametrize("name", [7, 8])
def test_payouts_that_were_paid_anew_are_paid_no_third_time(signer: Signer, name: int) -> None:
    """Whatever the second spend is called: that the first is dead says nothing about the second."""
    assert isinstance(ask(signer, spend()), bytes)
    assert isinstance(tell(signer, dead(spend())), Accepted)
    renamed = msgspec.structs.replace(again(), spend_id=UUID(int=name))
    said = ask(signer, renamed)
    if isinstance(said, str):
        assert "is signed with coin" in said
        assert isinstance(ask(signer, again()), bytes)
    third = spend(spend_id=UUID(int=9), inputs=[coin(4, 400_000, COIN)], anchor=f"{4:064x}:4")
    assert "is signed in spend" in str(ask(signer, third))


def test_a_death_that_is_told_again_buries_nothing_else_also_after_a_start(tmp_path: Path) -> None:
    message = dead(spend())
    with open_purse(tmp_path) as opened:
        assert isinstance(ask(opened, spend()), bytes)
        first = tell(opened, message)
        assert isinstance(first, Accepted)
        told_again = Accepted(first.index, again=True)
        assert isinstance(ask(opened, again()), bytes)
        assert tell(opened, message) == told_again
    with open_purse(tmp_path) as opened:
        assert tell(opened, message) == told_again
        for name in (7, 9):
            third = spend(
                spend_id=UUID(int=name), inputs=[coin(4, 400_000, COIN)], anchor=f"{4:064x}:4"
            )
            assert isinstance(ask_fully(opened, third), No), "signed!"
        assert "was spent by another transaction" in str(ask(opened, bumped(2_000)))
        assert isinstance(
            ask(
                opened,
                msgspec.structs.replace(
                    again(), fee=2_000, change=SpendChange(amount=98_000, key_path=CHANGE)
                ),
            ),
            bytes,
        ), "what is alive is replaced"
        assert find_faults(opened.memory) == []


def test_a_payout_is_paid_on_one_chain(tmp_path: Path) -> None:
    with open_both(tmp_path) as opened:
        payout = line().payout_id
        assert isinstance(ask(opened, spend()), bytes)
        assert "is signed in a spend of Bitcoin" in str(pay_ethers(opened, payout))
        assert isinstance(tell(opened, dead(spend())), Accepted)
        assert isinstance(pay_ethers(opened, payout), bytes)
        assert "is signed in spend nonce 3" in str(ask(opened, again()))


def signed_lines(meant: SpendIntent, **changes: Any) -> list[SignedApproval]:
    """Ann's approval of the lines, with something else in each of them."""
    ends = {"expires_at": to_unix_ms(START) + 86_400_000, **changes}
    lines = [
        replace(line_of(payment_of(meant, item, item.asset), expires_at=1), **ends)
        for item in meant.lines
    ]
    signature = KEYS["ann"].sign(approval_bytes(lines))
    return [
        SignedApproval(operator="ann", signature=signature, lines=[Line.of(item) for item in lines])
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"expires_at": to_unix_ms(START)},
        {"expires_at": to_unix_ms(START) - 1},
        {"chain": "evm"},
        {"chain_id": 31337},
        {"wallet": "house"},
        {"asset": "ETH"},
        {"client": None},
    ],
)
def test_an_approval_that_has_ended_or_is_of_another_chain_or_wallet_does_not_count(
    signer: Signer, changes: dict[str, Any]
) -> None:
    meant = spend()
    assert "0 of 1 approvals" in str(ask(signer, meant, by=signed_lines(meant, **changes)))
    assert isinstance(ask(signer, meant, by=signed_lines(meant)), bytes)


HUGE = 2**200


@pytest.mark.parametrize(
    "meant",
    [
        spend(lines=[line(amount=0)]),
        spend(lines=[line(amount=-200_000)]),
        spend(lines=[line(amount=HUGE)]),
        spend(lines=[line(amount=2**64 + 200_000)]),
        spend(inputs=[coin(1, -1, COIN), SECOND_COIN]),
        spend(inputs=[coin(1, 0, COIN), SECOND_COIN]),
        spend(inputs=[coin(1, 21_000_000 * 10**8 + 1, COIN)]),
        spend(inputs=[coin(-1, 400_000, COIN)], anchor=f"{1:064x}:-1"),
        spend(inputs=[coin(2**32, 400_000, COIN)], anchor=f"{2**32:064x}:{2**32}"),
        spend(change=SpendChange(amount=-99_000, key_path=CHANGE)),
        spend(change=SpendChange(amount=HUGE, key_path=CHANGE)),
        spend(change=SpendChange(amount=99_000, key_path=f"{ACCOUNT}/1/{2**31}")),
        spend(change=SpendChange(amount=99_000, key_path=f"{ACCOUNT}/1/-1")),
        spend(change=SpendChange(amount=99_000, key_path=f"{ACCOUNT}/1/09")),
        spend(change=SpendChange(amount=99_000, key_path=f"{ACCOUNT}/1/9/0")),
        spend(fee=-1_000),
        spend(fee=HUGE, fee_cap=HUGE),
        spend(fee_cap=HUGE),
        spend(lines=[line(rule=HUGE)]),
        spend(lines=[line(policy_version=-1)]),
        spend(lines=[line(number) for number in range(10_000)]),
    ],
)
def test_numbers_that_cannot_be_are_refused_and_do_not_end_the_signer(
    signer: Signer, meant: SpendIntent
) -> None:
    built = encode_psbt(psbt_of(spend()))
    answer = signer.answer(AskSignSpend(meant, built, []))
    assert isinstance(answer, No)
    assert answer.what
    assert signer.memory.count() == 0
    assert isinstance(ask(signer, spend()), bytes)


def test_a_coin_is_of_one_key(signer: Signer) -> None:
    assert isinstance(ask(signer, spend()), bytes)
    elsewhere = msgspec.structs.replace(SECOND_COIN, key_path=COIN)
    said = str(ask(signer, bumped(2_000, inputs=[FIRST_COIN, elsewhere])))
    assert "is of m/84'/1'/0'/1/3 by what was signed before" in said


def test_fees_are_not_drained_in_rounds_of_payment_and_cancellation(tmp_path: Path) -> None:
    with open_purse(tmp_path, rules(fee_windows={"btc": "9000"})) as opened:
        fees = [1_000, 3_000, 6_000, 9_000, 9_001]
        asked = [cancel(fee) if number % 2 else bumped(fee) for number, fee in enumerate(fees)]
        answers = [ask_fully(opened, meant) for meant in asked]
        assert [isinstance(item, No) for item in answers] == [False] * 4 + [True]
        other = spend(
            spend_id=UUID(int=8),
            lines=[own()],
            inputs=[coin(3, 400_000, COIN)],
            anchor=f"{3:064x}:3",
        )
        assert "9000 satoshi" in str(ask(opened, other))


@pytest.mark.parametrize(
    "meant",
    [
        # A payment that a cancellation came before, of the same coin under every other name.
        spend(spend_id=UUID(int=8), fee=9_000),
        spend(fee=9_000, inputs=[SECOND_COIN, FIRST_COIN], anchor=f"{SECOND_COIN.tx_id}:2"),
        spend(fee=9_000, lines=[second()]),
        spend(fee=9_000, lines=[line(destination=line().destination), second(amount=99_999)]),
        cancel(9_000, spend_id=UUID(int=8)),
        cancel(9_000, inputs=[SECOND_COIN, FIRST_COIN], anchor=f"{SECOND_COIN.tx_id}:2"),
    ],
)
def test_after_payment_and_cancellation_only_that_payment_and_its_cancellation_are_signed(
    signer: Signer, meant: SpendIntent
) -> None:
    assert isinstance(ask(signer, spend()), bytes)
    assert isinstance(ask(signer, cancel(5_000)), bytes)
    assert isinstance(ask_fully(signer, meant), No), "signed!"
    assert isinstance(ask(signer, bumped(9_000)), bytes)


@pytest.mark.parametrize(
    "meant",
    [
        spend(inputs=[coin(1, 400_000, "hot")], change=None, lines=[line(amount=399_000)]),
        spend(inputs=[coin(1, 400_000, "hot")], change=SpendChange(amount=99_000, key_path="hot")),
        spend(change=SpendChange(amount=99_000, key_path="hot")),
        cancel(inputs=[coin(1, 400_000, "")], change=SpendChange(amount=395_000, key_path="")),
    ],
)
def test_a_key_in_a_token_has_no_place_on_bitcoin(signer: Signer, meant: SpendIntent) -> None:
    own_key = spend(lines=[own(destination=STRANGER, destination_path="hot")])
    for said in (ask(signer, meant, psbt=psbt_of(spend())), ask(signer, own_key)):
        assert "is no address of BIP 84" in str(said)
    assert signer.memory.count() == 0


# The store.


ETHERS = UUID(int=500)


def ethers(payout_id: UUID = ETHERS) -> tuple[UnsignedTransaction, Intent]:
    tx = vault.native(value=1, max_fee_per_gas=10**9)
    return tx, vault.intent(tx, payout_id=payout_id, wallet="ethers", amount="1")


def pay_ethers(opened: Signer, payout_id: UUID = ETHERS) -> bytes | str:
    tx, meant = ethers(payout_id)
    return vault.ask(opened, tx, meant, vault.approval(meant, "ann"))


@contextmanager
def open_both(folder: Path) -> Iterator[Signer]:
    """A signer of two chains that may pay acme on each."""
    pinned = WalletPinned(version=1, wallet="ethers", chain="evm", account_path="m/44'/60'/0'")
    with open_purse(folder, rules(wallets=[*RULES.wallets, pinned])) as opened:
        assert isinstance(vault.tell(opened, vault.allowed("acme", 60)), Accepted)
        yield opened


def everything(opened: Signer) -> None:
    """A history after which every table has rows, and every column that may be empty has a value."""
    ask(opened, spend())
    _, paid = ethers()
    assert isinstance(pay_ethers(opened), bytes)
    spent = PayoutDead(
        payout_id=paid.payout_id,
        chain_id=paid.chain_id,
        sender=paid.sender,
        nonce=paid.nonce,
        spent_by="0x" + "ee" * 32,
    )
    assert isinstance(tell(opened, control(ControlKind.PAYOUT_DEAD, spent, "ann", "bob")), Accepted)
    assert isinstance(tell(opened, dead(spend())), Accepted)
    assert isinstance(ask(opened, again()), bytes)
    mark = Mark(number=1, previous="", at=1)
    assert isinstance(opened.answer(AskWitness(Shown(marks=[mark]))), Witnessed)


BESIDE_INDEXES = {"audit", "head", "tile", "schema_version"}
"""Hashed, or compared one by one, instead of being rebuilt."""


def run(database: sqlite3.Connection, statement: str, table: str) -> sqlite3.Cursor:
    return database.execute(statement.format(table))


def columns(database: sqlite3.Connection, table: str) -> list[tuple[str, str]]:
    rows = database.execute("SELECT name, type FROM pragma_table_info(?)", (table,))
    return [(name, kind) for name, kind in rows]


def test_every_column_of_every_index_follows_from_the_log_and_a_changed_one_is_named(
    tmp_path: Path,
) -> None:
    changed = {"TEXT": "{} || 'x'", "INTEGER": "coalesce({}, 0) + 1", "BLOB": "x'00'"}
    with open_both(tmp_path) as opened:
        everything(opened)
        assert find_faults(opened.memory) == []
        database = opened.memory.database
        tables = {
            name
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        assert tables - BESIDE_INDEXES == set(INDEXES)
        unseen = []
        for table in INDEXES:
            assert run(database, "SELECT count(*) FROM {}", table).fetchone()[0], table
            kinds = columns(database, table)
            keys = ", ".join(name for name, _ in kinds)
            # One row: two of them may not hold the same.
            only = f"({keys}) IN (SELECT {keys} FROM {table} LIMIT 1)"  # noqa: S608  our own schema
            changes = [
                (column, f"UPDATE {{}} SET {column} = {changed[kind].format(column)}")  # noqa: S608  our own
                for column, kind in kinds
            ]
            for what, statement in [*changes, ("a row", "DELETE FROM {}")]:
                database.execute("BEGIN")
                run(database, f"{statement} WHERE {only}", table)
                faults = find_faults(opened.memory)
                if not faults or not all(item.startswith(f"{table}: ") for item in faults):
                    unseen.append((table, what, faults))
                database.execute("ROLLBACK")
        assert unseen == []
        assert find_faults(opened.memory) == []


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (
            "CREATE TRIGGER forget AFTER INSERT ON spend BEGIN DELETE FROM spend; END",
            "trigger forget",
        ),
        ("DROP INDEX spend_payout_alive", "index spend_payout_alive"),
        ("CREATE VIEW other AS SELECT 1", "view other"),
        ("CREATE TABLE other (x)", "table other"),
    ],
)
def test_what_the_program_has_not_made_in_its_store_is_named(
    tmp_path: Path, statement: str, words: str
) -> None:
    with open_purse(tmp_path) as opened:
        opened.memory.database.execute(statement)
        [fault] = find_faults(opened.memory)
        assert words in fault
