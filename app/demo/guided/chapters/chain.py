"""A chain lies: a deposit is seen, taken back by a fork, mined again elsewhere, and credited once."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Final

from app.demo.deposits import (
    BIRCH,
    BIRCH_WALLET,
    STRANGER,
    newest_deposit,
    position_in_block,
    until_credited,
)
from app.demo.founding import CLIENT_POOL, DEPTH, ISSUER
from app.demo.guided.chapter import Chapter
from app.demo.guided.tour import Tour
from app.demo.stage import BOOK
from custody.deposits import list_deposits, list_inclusions
from custody.model import AddressPurpose
from ledger.queries import statement

AMOUNT: Final = "20000 USDT"


async def a_chain_lies(tour: Tour) -> None:
    """Orphan the block of a deposit, mine it again with another log index, and count credits."""
    stage = tour.stage
    out = stage.world.outsiders
    tour.say(
        "Birch pays in 20,000 USDT. The block that holds the payment is then replaced by another one:",
        "miners agreed on a different history. Whoever has credited the client by now has given money",
        "away. Whoever forgets the payment owes it.",
    )
    began = stage.clock.now()
    address = await stage.address(CLIENT_POOL, AddressPurpose.DEPOSIT, BIRCH)
    sent = await out.send_token(BIRCH_WALLET, address, stage.units(AMOUNT))
    await stage.mine_and_follow()
    seen = await newest_deposit(stage, BIRCH)
    stage.note(
        f"{AMOUNT} are in block {seen.height}: incoming, not available",
        await position_in_block(stage, sent.tx_hash),
    )
    included = await stage.balance(f"client:{BIRCH}", "USDT")
    await tour.show_places()

    await out.reorganise(1)
    await stage.watcher.turn()
    orphaned = await stage.balance(f"client:{BIRCH}", "USDT")
    stage.note("the block is reorganised away; the books take the deposit back")
    await tour.show_places()

    # Another transfer is mined before it in the same block, so its log index is another one now.
    await out.forget(sent)
    await out.send_token(STRANGER, out.address(ISSUER), 1, tip_gwei=20)
    await out.call("eth_sendRawTransaction", sent.raw)
    await stage.mine_and_follow()
    again = await newest_deposit(stage, BIRCH)
    stage.note(
        f"the payment is mined again in block {again.height}, at another place in it",
        await position_in_block(stage, sent.tx_hash),
    )
    await stage.mine_and_follow(DEPTH)
    await until_credited(stage, BIRCH)

    deposits = await stage.do(partial(list_deposits, party=BIRCH))
    inclusions = await stage.do(lambda conn: list_inclusions(conn, again.id))
    found = await stage.do(
        partial(
            statement,
            book=BOOK,
            path=f"client:{BIRCH}",
            asset="USDT",
            start=began,
            end=stage.clock.now() + timedelta(seconds=1),
        )
    )
    credits_ = [line for line in found.lines if line.change > 0]
    units = stage.units(AMOUNT)
    tour.prove(
        "while the block was young the client could spend nothing of it",
        (included.incoming, included.available) == (units, 0),
        f"incoming {stage.money(included.incoming, 'USDT')}, available {stage.money(included.available, 'USDT')}",
    )
    tour.prove(
        "with the block the money left the books",
        (orphaned.incoming, orphaned.posted) == (0, 0),
        "nothing incoming, nothing credited",
    )
    tour.prove(
        "mined twice, credited once",
        (len(deposits), len(inclusions), [line.change for line in credits_]) == (1, 2, [units]),
        f"{len(inclusions)} inclusions of {len(deposits)} deposit, {len(credits_)} credit",
    )
    await tour.prove_places()


CHAPTER: Final = Chapter(
    "chain",
    "A chain lies",
    "What happens to a deposit when the block that holds it is taken back?",
    a_chain_lies,
)
