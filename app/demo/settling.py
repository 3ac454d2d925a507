"""Chapters 4 and 5: what is owed is netted, paid and final; a client takes coins out."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from functools import partial
from typing import Any, Final

from app.demo.deposits import ACME, ACME_WALLET, BIRCH, BIRCH_WALLET
from app.demo.founding import CLIENT_POOL, HOT, SETTLEMENT
from app.demo.stage import BOOK, Stage
from custody.allow_list import (
    approve_destination,
    destination_bytes,
    draft_destination,
    propose_destination,
)
from custody.model import AddressPurpose
from custody.payout_model import PayoutRequest
from custody.payouts import get_payout
from registry.testing import EVM, operator_keypair
from settlement.book_rail import accept_book, settle_book
from settlement.matching.posting import match_receipts
from settlement.model import Calculation, Direction, Instruction, Run, RunState
from settlement.queries import list_run_instructions
from settlement.release import record_finality, releasable, release_payment, release_run
from settlement.release_model import BookSettlement
from settlement.runs import affirm, affirmation_bytes, open_run, pull_obligations, seal
from trading.terms.agreements import agree, agreement_bytes
from trading.terms.model import Agreement, Rail
from trading.terms.standing import instruct, standing_instruction_bytes

WINDOW: Final = "afternoon"
DOCUMENT: Final = hashlib.sha256(b"netting agreement, signed").hexdigest()


async def settle(stage: Stage) -> None:
    """Net both clients' obligations, pay and receive on chain, and settle one by book."""
    await _agree(stage)
    run, calculation = await _calculate(stage)
    await _affirm_and_seal(stage, run, calculation)
    await _release(stage, run)
    await _settle_by_book(stage, run)
    await _receive(stage, run)
    await _pay(stage, run)


async def withdraw(stage: Stage) -> None:
    """Birch takes ETH out to an allowed address; another request is left waiting for approval."""
    destination = stage.world.outsiders.address(BIRCH_WALLET)
    await allow(stage, BIRCH, destination)
    request = PayoutRequest(
        client_ref="withdrawal-1",
        claim=f"client:{BIRCH}",
        source_wallet=CLIENT_POOL,
        asset="ETH",
        amount=stage.units("1 ETH"),
        destination=destination,
        requested_by="dan",
        reason="asked for by birch",
    )
    payout = await stage.payout(request, "ben")
    stage.note(
        f"birch's payout of {stage.money(payout.amount, 'ETH')} is approved by a second "
        "operator and confirmed on chain",
        f"payout {payout.id}",
    )
    waiting = await stage.request(
        PayoutRequest(
            client_ref="withdrawal-2",
            claim=f"client:{BIRCH}",
            source_wallet=CLIENT_POOL,
            asset="ETH",
            amount=stage.units("0.5 ETH"),
            destination=destination,
            requested_by="dan",
            reason="asked for by birch",
        )
    )
    stage.note(
        f"another {stage.money(waiting.amount, 'ETH')} are reserved and wait for approval",
        f"payout {waiting.id}",
    )


async def _agree(stage: Stage) -> None:
    now = stage.clock.now()
    ada, ben = await stage.operator("ada"), await stage.operator("ben")
    for party, prefunded in ((ACME, False), (BIRCH, True)):
        agreement = Agreement(party=party, effective_from=now.date(), prefunded=prefunded)
        signature = operator_keypair("ben").sign(agreement_bytes(agreement, DOCUMENT))
        await stage.do(
            partial(
                agree,
                agreement=agreement,
                document_hash=DOCUMENT,
                by=ada,
                approver=ben,
                signature=signature,
                now=now,
            )
        )
    destination = stage.world.outsiders.address(ACME_WALLET)
    await allow(stage, ACME, destination)
    payload = standing_instruction_bytes(
        ACME, "ETH", Rail.EVM, destination, effective_from=now.date()
    )
    await stage.do(
        partial(
            instruct,
            party=ACME,
            asset="ETH",
            rail=Rail.EVM,
            destination=destination,
            effective_from=now.date(),
            by=ada,
            approver=ben,
            signature=operator_keypair("ben").sign(payload),
            now=now,
        )
    )


async def allow(stage: Stage, party: str, address: str, *, chain: str = EVM) -> None:
    """Let two people say that a party may be paid at an address."""
    now = stage.clock.now()
    given: dict[str, Any] = {
        "party": party,
        "chain": chain,
        "address": address,
        "label": "own wallet",
        "by": "dan",
        "now": now,
        "cooling_off": timedelta(0),
    }
    signed = destination_bytes(await stage.do(partial(draft_destination, **given)))
    signature = operator_keypair("dan").sign(signed)
    proposed = await stage.do(partial(propose_destination, signature=signature, **given))
    await stage.do(
        partial(
            approve_destination,
            destination_id=proposed.id,
            by="ben",
            signature=operator_keypair("ben").sign(signed),
            now=stage.clock.now(),
        )
    )
    stage.note(f"{party} may be paid at {address}: entered by dan, allowed by ben")


async def _calculate(stage: Stage) -> tuple[Run, Calculation]:
    now = stage.clock.now()
    obligations = await stage.do(partial(pull_obligations, book=BOOK, now=now))
    run, calculation = await stage.do(
        partial(open_run, book=BOOK, value_date=now.date(), window=WINDOW, by="ada", now=now)
    )
    stage.note(
        f"{len(obligations)} obligations are netted to {len(calculation.items)} items",
        f"run {run.id}, version {calculation.version}, inputs {calculation.input_hash[:16]}…",
    )
    for item in calculation.items:
        verb = "pays" if item.direction is Direction.RECEIVE else "is paid"
        stage.note(f"net: {item.party} {verb} {stage.money(item.amount, item.asset)} ({item.rail})")
    return run, calculation


async def _affirm_and_seal(stage: Stage, run: Run, calculation: Calculation) -> None:
    ada, dan = await stage.operator("ada"), await stage.operator("dan")
    for party in sorted({item.party for item in calculation.items}):
        evidence_hash = hashlib.sha256(f"{party} agrees".encode()).hexdigest()
        payload = affirmation_bytes(run, calculation, party, evidence_hash)
        await stage.do(
            partial(
                affirm,
                run_id=run.id,
                version=calculation.version,
                party=party,
                by=dan,
                witness=ada,
                signature=operator_keypair("ada").sign(payload),
                evidence_hash=evidence_hash,
                now=stage.clock.now(),
            )
        )
    await stage.do(partial(seal, run_id=run.id, by=ada, now=stage.clock.now()))
    stage.note("both parties affirm; the run is sealed: open items become netted")


async def _release(stage: Stage, run: Run) -> None:
    ada = await stage.operator("ada")
    await stage.do(partial(release_run, run_id=run.id, by=ada, now=stage.clock.now()))
    waiting = releasable(await _instructions(stage, run))
    stage.note(
        f"released: receipts are awaited; {len(waiting)} payments may leave before acme has paid",
        "value only against value",
    )


async def _settle_by_book(stage: Stage, run: Run) -> None:
    ada = await stage.operator("ada")
    now = stage.clock.now()
    asked = [BookSettlement(run.id, BIRCH)]
    items = await stage.do(partial(accept_book, asked=asked, by=ada, now=now))
    given = sorted(items, key=lambda item: item.asset)
    held = " and ".join(stage.money(i.amount, i.asset) for i in given)
    await stage.do(partial(settle_book, asked=asked, by=ada, now=now))
    balance = await stage.balance(f"client:{BIRCH}", "ETH")
    stage.note(
        f"birch, prefunded, settles by book: {held} held on both sides, then posted in one commit; "
        f"birch has {stage.money(balance.available, 'ETH')}"
    )


async def _receive(stage: Stage, run: Run) -> None:
    due = next(
        i
        for i in await _instructions(stage, run)
        if i.party == ACME and i.direction is Direction.RECEIVE
    )
    address = await stage.address(SETTLEMENT, AddressPurpose.SETTLEMENT, ACME)
    sent = await stage.world.outsiders.send_token(ACME_WALLET, address, due.amount)
    stage.note(
        f"acme pays {stage.money(due.amount, due.asset)} to its settlement address", sent.tx_hash
    )

    async def matched() -> bool:
        found = await stage.do(partial(match_receipts, book=BOOK, now=stage.clock.now()))
        return any(match.completes for match in found)

    await stage.until(matched, "the receipt of acme's payment")
    stage.note(
        "the receipt is final on chain and matched to the instruction", f"instruction {due.id}"
    )


async def _pay(stage: Stage, run: Run) -> None:
    ada = await stage.operator("ada")
    for item in releasable(await _instructions(stage, run)):
        payout_id = await stage.do(
            partial(
                release_payment,
                run_id=run.id,
                instruction_id=item.id,
                source_wallet=HOT,
                by=ada,
                now=stage.clock.now(),
            )
        )
        payout = await stage.do(partial(get_payout, payout_id=payout_id))
        await stage.approve(payout, "ben")
        turn = await stage.watcher.turn()
        stage.note(
            f"the net of {stage.money(item.amount, item.asset)} for {item.party}: bytes signed and "
            "stored, then broadcast",
            f"payout {payout_id}, {len(turn.work.sent)} sent",
        )

    async def final() -> bool:
        close = partial(record_finality, run_ids=[run.id], now=stage.clock.now())
        (done,) = await stage.do(close)
        return done.state is RunState.FINAL

    await stage.until(final, "the finality of the run")
    stage.note("every instruction is final; the obligations are discharged, the deals settled")


async def _instructions(stage: Stage, run: Run) -> list[Instruction]:
    return await stage.do(partial(list_run_instructions, run_id=run.id))
