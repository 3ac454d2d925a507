"""The insider: somebody who may do everything to the database redirects a payout and edits history."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from rich.table import Table

from app.demo.deposits import ACME, ACME_WALLET
from app.demo.founding import CLIENT_POOL
from app.demo.guided.chapter import Chapter
from app.demo.guided.tour import Tour
from app.demo.stage import BOOK
from chain.evm.transactions import UnsignedTransaction, decode_unsigned
from custody.payout_explain import PayoutStory
from custody.payout_model import PayoutRequest, PayoutState
from custody.payouts import explain
from ledger.audit import Fault
from ledger.queries import list_transfers
from ledger.verification import verify

AMOUNT: Final = "1 ETH"
THIEF: Final = 11
"""An outside wallet that was acme's once; the insider has its key now."""
REDIRECT: Final = "UPDATE custody.payout SET destination = $2 WHERE id = $1"
FLIP: Final = (
    "UPDATE ledger.transfer SET code = overlay(code PLACING chr(ascii(code) # 1) FROM 1 FOR 1)"
    " WHERE id = $1"
)
"""Changes the lowest bit of one byte of a journal record; again changes it back."""
FAULTS_SHOWN: Final = 6
REFUSED: Final = "the signer refused"
"""How a payout's history begins to tell it."""


async def an_insider(tour: Tour) -> None:
    """Redirect an approved payout and flip a byte of the journal, both with every trigger off."""
    stage = tour.stage
    own = stage.world.outsiders.address(ACME_WALLET)
    thief = stage.world.outsiders.address(THIEF)
    tour.say(
        "Acme asks for 1 ETH; Dan enters it, Ben approves it with his own key. Then somebody with all",
        "rights over the database switches the triggers off and writes another address into the",
        "approved payout: an old one of acme's, whose key was stolen, and which every allow-list still",
        "has. No check in the database is left that could say no.",
    )
    await tour.allow(ACME, own)
    await tour.allow(ACME, thief)
    before = await stage.balance(f"client:{ACME}", "ETH")
    payout = await stage.request(
        PayoutRequest(
            client_ref="insider-1",
            claim=f"client:{ACME}",
            source_wallet=CLIENT_POOL,
            asset="ETH",
            amount=stage.units(AMOUNT),
            destination=own,
            requested_by="dan",
            reason="asked for by acme",
        )
    )
    payout = await stage.approve(payout, "ben")
    stage.note(f"a payout of {AMOUNT} to {own} is approved", f"payout {payout.id}")
    await _tamper(tour, "custody.payout", REDIRECT, payout.id, thief)
    stage.note(f"as superuser: destination = {thief}", "triggers off, 1 row changed")
    held_before = await _held_by(tour, thief)
    await stage.watcher.turn()
    story = await stage.do(partial(explain, payout_id=payout.id))
    stage.note("the worker builds the transaction from the rows and asks the signer")
    tx = decode_unsigned(story.attempts[-1].unsigned, chain_id=stage.world.outsiders.chain_id)
    tour.exhibit(
        "what Ben signed, beside what the signer was asked to sign", _beside(tour, story, tx)
    )
    said = _refusal(story)
    stage.note(f"{said}: the signatures are over other bytes")
    await stage.mine_and_follow()
    after = await stage.balance(f"client:{ACME}", "ETH")
    held_after = await _held_by(tour, thief)
    await _tamper(tour, "custody.payout", REDIRECT, payout.id, own)

    records = await stage.do(partial(list_transfers, book=BOOK, code="deposit.credited"))
    victim = tour.chance.choice(records)
    tour.say(
        "Then history: one bit of one byte of one journal record, the triggers off again. The books go",
        "on looking right. Verification derives every record's hash anew.",
    )
    await _tamper(tour, "ledger.transfer", FLIP, victim.id)
    stage.note(f"as superuser: one bit of record {victim.sequence} flipped")
    faults = await verify(stage.world.engine, BOOK)
    tour.exhibit("causeway verify", _faults(faults))
    await _tamper(tour, "ledger.transfer", FLIP, victim.id)
    mended = await verify(stage.world.engine, BOOK)

    tour.prove(
        "the signer refused bytes that nobody approved",
        story.payout.state is PayoutState.REJECTED
        and tx.recipient == thief
        and _approved_destination(story) == own,
        said,
    )
    tour.prove(
        "nothing reached the insider's address, and the client has its money",
        (held_after, after.available) == (held_before, before.available),
        f"{stage.money(held_after, 'ETH')} there, available to acme {stage.money(after.available, 'ETH')}",
    )
    tour.prove(
        "verification names the record that was changed",
        any(str(victim.id) in fault.key for fault in faults) and not mended,
        f"{len(faults)} faults, record {victim.sequence} among them; none once the bit is back",
    )
    await tour.prove_places()


async def _tamper(tour: Tour, table: str, statement: str, *given: object) -> None:
    """Change a row as somebody who owns everything and has switched the triggers off."""
    async with tour.insider() as connection, connection.transaction():
        await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        done = await connection.execute(statement, *given)
        await connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
    assert done == "UPDATE 1", done


async def _held_by(tour: Tour, address: str) -> int:
    return int(await tour.stage.world.outsiders.call("eth_getBalance", address, "latest"), 16)


def _approved_destination(story: PayoutStory) -> str:
    return str(story.approvals[0].lines[0]["destination"])


def _refusal(story: PayoutStory) -> str:
    """Return the signer's own words, as the payout's history keeps them."""
    told = [moment.what for moment in story.timeline if REFUSED in moment.what]
    if not told:
        return f"the payout is {story.payout.state}"
    return f"{REFUSED}{told[-1].partition(REFUSED)[2]}"


def _beside(tour: Tour, story: PayoutStory, tx: UnsignedTransaction) -> Table:
    line = story.approvals[0].lines[0]
    asset = tour.stage.assets["ETH"]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    signed_by = f"signed by {story.approvals[0].operator}"
    table.add_row("", f"[bold]{signed_by}[/]", "[bold]decoded from the bytes[/]")
    rows = (
        ("destination", str(line["destination"]), tx.recipient),
        ("amount", asset.format(int(str(line["amount"]))), asset.format(tx.value)),
        ("chain id", str(line["chain_id"]), str(tx.chain_id)),
        ("nonce", "", str(tx.nonce)),
        ("bytes", "", f"{story.attempts[-1].unsigned.hex()[:40]}…"),
    )
    for name, meant, written in rows:
        style = "bold red" if meant and meant != written else ""
        table.add_row(name, meant, f"[{style}]{written}[/]" if style else written)
    return table


def _faults(faults: Sequence[Fault]) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_row("table", "row", "what", style="dim")
    for fault in faults[:FAULTS_SHOWN]:
        table.add_row(fault.table, fault.key, f"[red]{fault.what}[/]")
    return table


CHAPTER: Final = Chapter(
    "insider",
    "The insider",
    "What can somebody do who owns the database?",
    an_insider,
)
