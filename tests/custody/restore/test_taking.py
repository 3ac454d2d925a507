"""Whoever's answer from PostgreSQL is lost asks again: nobody is told of what may have been taken in."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.addresses import watch_list
from custody.model import AddressPurpose
from custody.restore import skipping, store, taking
from custody.restore.model import ADDRESSES, SIGNER_LOG, Item, ItemState, SourceState
from kernel.errors import CommitUnknown
from kernel.ids import derive_id
from tests.custody.fate import Fate
from tests.custody.house import House
from tests.custody.restore.address_world import WATCHED, SetBack


async def nothing(_conn: AsyncConnection) -> None:
    """Nothing has to be written beside the item."""


async def test_what_was_taken_in_is_not_left_to_people_because_the_answer_was_lost(
    lost: SetBack[House], monkeypatch: pytest.MonkeyPatch
) -> None:
    await lost.find_after_copy()
    house = lost.house
    standing = await house.do(store.require_standing)
    item = Item(
        restore_id=standing.id,
        source=SIGNER_LOG,
        key="1",
        state=ItemState.RESTORED,
        what="a payment",
        found_at=house.now,
    )
    paid = [derive_id(house.now, "payout", number) for number in range(2)]
    fate = Fate(mode="cut", left=2, armed=True)

    with monkeypatch.context() as patched:
        patched.setattr(taking, "transact", fate.transact)
        with pytest.raises(CommitUnknown):
            await taking.take(house.engine, item, nothing, payouts=paid)
    again = await taking.take(house.engine, item, nothing, payouts=paid)

    assert again == item
    assert await house.do(lambda conn: store.list_items(conn, standing.id)) == [item]


async def test_a_range_is_watched_whichever_answer_was_lost(
    lost: SetBack[House], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = lost.house
    await house.assign("client-pool", AddressPurpose.DEPOSIT, "acme")
    await lost.find_after_copy()
    standing = await house.do(store.require_standing)
    cut = 0
    while True:
        cut += 1
        fate = Fate(mode="cut", left=2 * cut, armed=True)
        with monkeypatch.context() as patched:
            patched.setattr(skipping, "transact", fate.transact)
            try:
                items = await skipping.watch_skipped(
                    house.engine, clock=house.clock, watched=WATCHED
                )
            except CommitUnknown:
                continue
        break

    assert items == []
    assert cut > 2
    source = await house.do(lambda conn: store.get_source(conn, standing.id, ADDRESSES))
    assert source.state is SourceState.DONE
    assert await house.do(lambda conn: store.list_items(conn, standing.id)) == []
    watched = await house.do(lambda conn: watch_list(conn, "evm"))
    assert len(watched.addresses) > WATCHED
