"""The short address of 2017: a payee with a byte missing shifts the amount, and pays 256 times as much."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.errors import BadAddress, BadTransaction
from chain.evm.addresses import checksum_address
from chain.evm.erc20 import (
    TRANSFER_BYTES,
    TRANSFER_SELECTOR,
    Erc20Transfer,
    decode_erc20_transfer,
    erc20_transfer_data,
)
from chain.evm.transactions import decode_unsigned
from custody import payout_store as store
from custody.payouts import list_payouts
from custody.signer.wire import No
from custody.testing import allow, propose
from kernel.money import AMOUNT_MAX
from tests.custody.payout_world import BOOK, PAYEE, USDT, World, make_world
from tests.custody.signer.vault import approval, ask_fully, intent, open_signer, token

ENDS_IN_ZEROS = checksum_address(bytes.fromhex("d4c1a6f20b8e973518a2c6e04f7b91d35e820000"))
SHORT = {
    "a byte missing": PAYEE[:-2],
    "the zeros at the end missing": ENDS_IN_ZEROS[:-2],
    "a digit missing": PAYEE[:-1],
    "a byte too many": PAYEE + "00",
    "padded on the wrong side": PAYEE[:-2] + "00",
}


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(engine, tmp_path) as made:
        yield made


@given(raw=st.binary(min_size=20, max_size=20), amount=st.integers(1, AMOUNT_MAX))
def test_the_payees_20_bytes_are_padded_in_full_and_come_back_with_the_amount(
    raw: bytes, amount: int
) -> None:
    for payee in (raw, raw[:19] + b"\0", raw[:16] + bytes(4), bytes(20)):
        data = erc20_transfer_data(checksum_address(payee), amount)

        assert data == TRANSFER_SELECTOR + bytes(12) + payee + amount.to_bytes(32, "big")
        assert decode_erc20_transfer(data) == Erc20Transfer(checksum_address(payee), amount)


@pytest.mark.parametrize("missing", range(1, 21))
def test_call_data_with_a_short_payee_is_nobodys_payment(missing: int) -> None:
    payee = bytes.fromhex(PAYEE[2:])
    amount = USDT.to_bytes(32, "big")
    short = TRANSFER_SELECTOR + bytes(12) + payee[:-missing] + amount

    for data in (short, short.ljust(TRANSFER_BYTES, b"\0")):
        try:
            found = decode_erc20_transfer(data)
        except BadTransaction:
            continue
        # What the contract of 2017 would have done is at least told as what it is.
        assert found.recipient != PAYEE
        assert found.amount == USDT << 8 * missing


@pytest.mark.parametrize("text", SHORT.values(), ids=list(SHORT))
async def test_a_mistyped_short_address_is_refused_at_the_door_and_nothing_is_reserved(
    world: World, text: str
) -> None:
    before = await world.books()

    with pytest.raises(BadAddress):
        await world.request(asset="USDT", amount=USDT, destination=text)
    with pytest.raises(BadAddress):
        await world.run(lambda conn: propose(conn, "acme", text, now=world.clock.now()))

    assert await world.run(lambda conn: list_payouts(conn, book=BOOK)) == []
    assert await world.books() == before


@pytest.mark.parametrize("pad", [False, True], ids=["short", "filled up at the end"])
def test_the_signer_refuses_bytes_with_a_short_payee(tmp_path: Path, *, pad: bool) -> None:
    honest = token()
    data = honest.data[:35] + honest.data[36:]
    lie = replace(honest, data=data.ljust(TRANSFER_BYTES, b"\0") if pad else data)
    meant = intent(honest)
    with open_signer(tmp_path) as signer:
        answer = ask_fully(signer, lie, meant, approval(meant, "ann"), approval(meant, "bob"))

        assert isinstance(answer, No)
        assert signer.memory.count() == 0


@pytest.mark.parametrize("text", SHORT.values(), ids=list(SHORT))
def test_the_signer_refuses_an_intent_that_names_a_short_payee(tmp_path: Path, text: str) -> None:
    honest = token()
    meant = intent(honest)
    lie = msgspec.structs.replace(meant, destination=text)
    with open_signer(tmp_path) as signer:
        answer = ask_fully(signer, honest, lie, approval(meant, "ann"), approval(meant, "bob"))

        assert isinstance(answer, No)
        assert signer.memory.count() == 0


async def test_a_token_payment_to_an_address_that_ends_in_zeros_pays_exactly_it(
    world: World,
) -> None:
    await world.run(lambda conn: allow(conn, "acme", ENDS_IN_ZEROS, now=world.clock.now()))
    payout = await world.approved(asset="USDT", amount=3 * USDT, destination=ENDS_IN_ZEROS)
    await world.advance()

    (attempt,) = await world.run(lambda conn: store.list_attempts(conn, payout.id))

    tx = decode_unsigned(attempt.unsigned, chain_id=payout.chain_id)
    assert decode_erc20_transfer(tx.data) == Erc20Transfer(ENDS_IN_ZEROS, 3 * USDT)
