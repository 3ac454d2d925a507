"""Cycles: a run for each party and netting set, with clocks; nobody holds up anybody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import constraint_name
from kernel.events import list_history
from registry.testing import ETH, USDT, operator_keypair
from settlement import planning, store
from settlement.affirmations import answer_signed
from settlement.cycles import Advance, advance_cycle, open_cycle, seal_cycle
from settlement.disputes import dispute, resolve_dispute
from settlement.issuing import issue_statement
from settlement.model import (
    Cycle,
    CyclePhase,
    ObligationState,
    Run,
    RunState,
    Statement,
    Threshold,
    Window,
)
from settlement.queries import (
    count_left,
    every_obligation,
    every_run,
    get_calculation,
    get_run,
    list_calculations,
    list_cycle_runs,
    list_cycles,
    list_obligations,
    replay,
)
from settlement.runs import withdraw_deal
from settlement.statements import Answer, Verdict, answer_bytes, write_answer
from settlement.steps import Why
from settlement.windows import find_window, list_windows, set_window, window_bytes
from tests.settlement.desk import BOOK, DAY, Desk, refusal
from tests.settlement.test_cycle_clocks import window as a_window
from trading.confirmations.keys import enrol_key, key_bytes, next_key_version, revoke_key
from trading.deals import cancel_deal


async def opened(desk: Desk, window: str = "noon", day: date = DAY, by: str = "ada") -> Cycle:
    return await desk.do(
        lambda conn: open_cycle(
            conn, book=BOOK, business_date=day, window=window, by=by, now=desk.now
        )
    )


async def runs_of(desk: Desk, cycle: Cycle) -> dict[str, Run]:
    """The runs of a cycle, by party."""
    runs = await desk.do(lambda conn: list_cycle_runs(conn, cycle.id))
    return {run.party: run for run in runs}


async def advanced(desk: Desk, cycle: Cycle) -> Advance:
    return await desk.do(lambda conn: advance_cycle(conn, cycle.id, desk.now))


async def sealed(desk: Desk, cycle: Cycle, by: str | None = "ada") -> list[Run]:
    person = None if by is None else desk.operators[by]
    return await desk.do(lambda conn: seal_cycle(conn, cycle.id, by=person, now=desk.now))


async def set_policy(desk: Desk, **changes: Any) -> Window:
    """A window at half past ten in Zurich, entered by ada and signed by ben."""
    made = replace(a_window(effective_from=DAY, name="morning", cut_off=time(10, 30)), **changes)
    await desk.do(
        lambda conn: set_window(
            conn,
            made,
            by=desk.operators["ada"],
            approver=desk.operators["ben"],
            signature=operator_keypair("ben").sign(window_bytes(made)),
            now=desk.now,
        )
    )
    return made


def cut_off(desk: Desk) -> None:
    """Wait for half past ten in Zurich."""
    desk.clock.advance(datetime(2026, 1, 5, 9, 30, tzinfo=UTC) - desk.now)


async def stand(desk: Desk) -> None:
    """Acme and birch net; each has two deals."""
    for party in ("acme", "birch"):
        await desk.agree(party)
        await desk.deal(f"{party}-sold", party=party, fee="0")
        await desk.buys(f"{party}-bought", party=party, amount="2")


async def obligations(desk: Desk, party: str) -> dict[UUID, str]:
    rows = await desk.do(lambda conn: list_obligations(conn, BOOK))
    return {o.id: str(o.state) for o in rows if o.party == party}


async def test_a_cycle_has_a_run_for_each_party_and_is_opened_once(desk: Desk) -> None:
    await stand(desk)

    cycle = await opened(desk)
    await desk.deal("late", fee="0")

    assert await opened(desk) == cycle
    assert await desk.do(lambda conn: list_cycles(conn, BOOK)) == [cycle]
    runs = await runs_of(desk, cycle)
    assert [(r.party, r.state, r.cycle_id) for r in runs.values()] == [
        ("acme", "calculated", cycle.id),
        ("birch", "calculated", cycle.id),
    ]
    results = await desk.do(lambda conn: list_calculations(conn, list(runs.values())))
    assert [(i.asset, i.direction, i.amount) for i in results[runs["acme"].id].items] == [
        ("ETH", "pay", ETH.parse("8")),
        ("USDT", "receive", USDT.parse("24000")),
    ]
    for run in runs.values():
        assert await desk.do(partial(replay, run_id=run.id, version=1)) == results[run.id]
    told = await desk.do(lambda conn: list_history(conn, "settlement-cycle", cycle.id))
    assert [(e.name, e.payload["runs"], e.payload["obligations"]) for e in told] == [
        ("CycleOpened", 2, 8)
    ]


async def test_without_an_agreement_each_trade_is_a_run(desk: Desk) -> None:
    one = await desk.deal("one", fee="1")
    two = await desk.deal("two", fee="0")

    cycle = await opened(desk)

    runs = await desk.do(lambda conn: list_cycle_runs(conn, cycle.id))
    assert {run.netting_set for run in runs} == {f"trade:{one.id}", f"trade:{two.id}"}
    results = await desk.do(lambda conn: list_calculations(conn, runs))
    # The price and the fee of one trade are one payment.
    assert {i.amount for r in results.values() for i in r.items if i.asset == "USDT"} == {
        USDT.parse("30001"),
        USDT.parse("30000"),
    }


async def test_a_silent_party_lapses_and_the_other_is_sealed(desk: Desk) -> None:
    await stand(desk)
    cycle = await opened(desk)
    runs = await runs_of(desk, cycle)
    await desk.affirm(runs["acme"].id, "acme")
    assert (await advanced(desk, cycle)).lapsed == ()
    desk.clock.advance(cycle.affirm_until - desk.now)

    late = await refusal(desk.affirm(runs["birch"].id, "birch"))
    done = await advanced(desk, cycle)

    assert "the time to affirm run" in late
    assert [(run.party, run.state) for run in done.lapsed] == [("birch", "lapsed")]
    assert (done.phase, done.state) == (CyclePhase.TOP_UP, RunState.AFFIRMED)
    assert (await advanced(desk, cycle)).lapsed == ()
    assert set((await obligations(desk, "birch")).values()) == {"open"}
    assert [run.party for run in await sealed(desk, cycle)] == ["acme"]
    assert await sealed(desk, cycle) == []
    assert await desk.books("payable", "receivable:acme") == {
        "payable:acme:netted ETH": "8",
        "payable:birch:open ETH": "10",
        "payable:birch:open USDT": "6,000",
        "receivable:acme:netted USDT": "24,000",
    }
    # What lapsed is in the next cycle.
    following = await runs_of(desk, await opened(desk, "evening"))
    assert list(following) == ["birch"]
    names = [
        (e.name, e.actor)
        for e in await desk.do(lambda c: list_history(c, "settlement-run", runs["birch"].id))
    ]
    assert names[-1] == ("RunLapsed", "system:settlement-clock")


async def test_a_dispute_freezes_its_own_and_nobody_elses(desk: Desk) -> None:
    await stand(desk)
    bad = await desk.deal("bad", amount="1", fee="0")
    cycle = await opened(desk)
    runs = await runs_of(desk, cycle)
    for party in ("acme", "birch"):
        await desk.affirm(runs[party].id, party)
    frozen = [
        o.id for o in await desk.do(lambda c: list_obligations(c, BOOK)) if o.deal_id == bad.id
    ]
    desk.clock.advance(cycle.affirm_until - desk.now + timedelta(minutes=5))

    changed, result = await desk.do(
        lambda conn: dispute(
            conn, runs["acme"].id, frozen, by=desk.operators["dan"], reason="price", now=desk.now
        )
    )

    assert (changed.version, changed.state) == (2, RunState.CALCULATED)
    assert {i.asset: i.amount for i in result.items}["ETH"] == ETH.parse("8")
    # It has half an hour for the next version; birch's run is what it was.
    assert changed.affirm_until == desk.now + timedelta(minutes=30)
    after = await runs_of(desk, cycle)
    assert (after["birch"].state, after["birch"].version) == (RunState.AFFIRMED, 1)
    assert [run.party for run in await sealed(desk, cycle)] == ["birch"]
    await desk.affirm(runs["acme"].id, "acme")
    assert [run.party for run in await sealed(desk, cycle)] == ["acme"]
    states = await obligations(desk, "acme")
    assert {states[i] for i in frozen} == {"disputed"}
    assert await desk.do(lambda conn: replay(conn, changed.id, 2)) == result
    await desk.do(
        lambda conn: resolve_dispute(
            conn,
            changed.id,
            frozen[0],
            by=desk.operators["ada"],
            reason="was right",
            now=desk.now,
        )
    )
    assert (await obligations(desk, "acme"))[frozen[0]] == "open"


async def test_what_is_disputed_stays_so_when_the_rest_lapses(desk: Desk) -> None:
    await stand(desk)
    cycle = await opened(desk)
    run = (await runs_of(desk, cycle))["acme"]
    first = min(await obligations(desk, "acme"))
    await desk.do(
        lambda conn: dispute(
            conn, run.id, [first], by=desk.operators["dan"], reason="price", now=desk.now
        )
    )
    desk.clock.advance(timedelta(hours=4))

    await advanced(desk, cycle)

    states = await obligations(desk, "acme")
    assert states.pop(first) == "disputed"
    assert set(states.values()) == {"open"}


async def test_below_the_threshold_nothing_moves_until_it_is_more(desk: Desk) -> None:
    small = Threshold(asset="USDT", units=USDT.parse("5000"))
    await set_policy(desk, thresholds=(small,))
    await desk.agree("acme")
    await desk.agree("birch")
    # Of acme the money cancels out but for 3,000; of birch there is nothing but 2,000.
    await desk.deal("sold", amount="1", fee="0")
    await desk.deal("birch-sold", party="birch", amount="1", price="2000", fee="0")
    await desk.buys("birch-bought", party="birch", amount="1", price="1")

    cut_off(desk)
    cycle = await opened(desk, "morning")

    runs = await runs_of(desk, cycle)
    assert {party: str(run.state) for party, run in runs.items()} == {
        "acme": "calculated",
        "birch": "calculated",
    }
    results = await desk.do(lambda conn: list_calculations(conn, list(runs.values())))
    told = results[runs["acme"].id]
    assert [i.asset for i in told.items] == ["ETH"]
    assert [(i.asset, i.amount) for i in told.carried] == [("USDT", USDT.parse("3000"))]
    states = sorted((await obligations(desk, "acme")).values())
    assert states == ["calculated", "open"]
    await desk.affirm_all(runs["acme"].id)
    await sealed(desk, cycle)
    assert (await desk.books("receivable:acme"))["receivable:acme:open USDT"] == "3,000"
    # Another 3,000 make it enough.
    await desk.deal("again", amount="1", fee="0")
    later = (await runs_of(desk, await opened(desk, "evening")))["acme"]
    result = await desk.do(lambda conn: get_calculation(conn, later.id, 1))
    assert {i.asset: i.amount for i in result.items}["USDT"] == USDT.parse("6000")


async def test_a_run_that_is_too_small_as_a_whole_comes_to_nothing(desk: Desk) -> None:
    await set_policy(
        desk,
        thresholds=(
            Threshold(asset="USDT", units=USDT.parse("5000")),
            Threshold(asset="ETH", units=ETH.parse("2")),
        ),
    )
    await desk.deal("small", amount="1", fee="0")

    cut_off(desk)
    cycle = await opened(desk, "morning")

    assert [r.state for r in (await runs_of(desk, cycle)).values()] == [RunState.EMPTY]
    assert (await advanced(desk, cycle)).state is RunState.EMPTY
    assert set((await obligations(desk, "acme")).values()) == {"open"}


async def test_a_dispute_can_leave_too_little(desk: Desk) -> None:
    await set_policy(desk, thresholds=(Threshold(asset="USDT", units=USDT.parse("5000")),))
    await desk.agree("acme")
    await desk.deal("small", amount="1", fee="0")
    large = await desk.deal("large", amount="10", fee="0")
    cut_off(desk)
    cycle = await opened(desk, "morning")
    run = (await runs_of(desk, cycle))["acme"]
    await desk.affirm_all(run.id)
    rows = await desk.do(lambda conn: list_obligations(conn, BOOK))
    frozen = [o.id for o in rows if o.deal_id == large.id]

    changed, result = await desk.do(
        lambda conn: dispute(
            conn, run.id, frozen, by=desk.operators["dan"], reason="price", now=desk.now
        )
    )

    assert [i.asset for i in result.items] == ["ETH"]
    assert sorted((await obligations(desk, "acme")).values()) == [
        *("calculated", "disputed", "disputed", "open")
    ]
    await desk.affirm_all(changed.id)
    assert [run.id for run in await sealed(desk, cycle)] == [changed.id]


async def test_the_clock_seals_by_policy_only_and_never_early(desk: Desk) -> None:
    await set_policy(desk)
    await stand(desk)
    assert "the cut-off of window morning of 2026-01-05 is at" in await refusal(
        opened(desk, "morning")
    )
    assert "has no cycle on 2026-01-10" in await refusal(opened(desk, "morning", date(2026, 1, 10)))
    cut_off(desk)
    desk.clock.advance(timedelta(minutes=10))
    # Opened late: what was booked after the cut-off is the next cycle's all the same.
    await desk.deal("too-late", fee="0")
    cycle = await opened(desk, "morning", by="system:scheduler")
    by_hand = await opened(desk, "by-hand")

    assert cycle.window_version == 1
    assert cycle.affirm_until == cycle.cutoff_at + timedelta(minutes=120)
    assert sorted((await obligations(desk, "acme")).values()) == ["calculated"] * 6
    assert len(await desk.do(lambda conn: list_cycle_runs(conn, by_hand.id))) == 1
    runs = await runs_of(desk, cycle)
    await desk.affirm(runs["acme"].id, "acme")
    assert "can be topped up until" in await refusal(sealed(desk, cycle, None))
    assert "is sealed by a person" in await refusal(sealed(desk, by_hand, None))
    assert (await advanced(desk, cycle)).to_seal == ()
    desk.clock.advance(cycle.top_up_until - desk.now)
    due = await advanced(desk, cycle)
    assert (due.to_seal, due.phase) == ((runs["acme"].id,), CyclePhase.SEAL)
    assert [run.id for run in await sealed(desk, cycle, None)] == [runs["acme"].id]
    # This window's release waits for a person.
    desk.clock.advance(cycle.release_at - desk.now)
    waiting = await advanced(desk, cycle)
    assert (waiting.to_release, waiting.waiting_for_people) == ((), (runs["acme"].id,))


async def test_a_cycle_that_is_opened_very_late_gives_the_parties_their_time(desk: Desk) -> None:
    await set_policy(desk)
    await stand(desk)
    cut_off(desk)
    desk.clock.advance(timedelta(days=3))

    cycle = await opened(desk, "morning")

    assert cycle.cutoff_at == datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
    assert cycle.affirm_until == desk.now + timedelta(minutes=120)
    assert (await advanced(desk, cycle)).lapsed == ()


async def test_a_window_takes_two_people_and_keeps_its_versions(desk: Desk) -> None:
    first = await set_policy(desk)
    assert await set_policy(desk) == first
    second = await set_policy(desk, version=2, top_up_minutes=5, effective_from=date(2026, 1, 7))

    assert await desk.do(lambda conn: list_windows(conn, BOOK)) == [first, second]
    for day, holds in ((DAY, first), (date(2026, 1, 7), second), (date(2026, 1, 4), None)):
        found = await desk.do(partial(find_window, book=BOOK, name="morning", on=day))
        assert found == holds
    for changes, because in (
        ({"version": 2, "top_up_minutes": 9}, "is not the next one"),
        ({"version": 3, "effective_from": date(2026, 1, 1)}, "cannot begin in the past"),
        ({"version": 3, "timezone": "Mars/Olympus"}, "no time zone"),
        ({"version": 3, "thresholds": (Threshold(asset="NONE", units=1),)}, "no asset 'NONE'"),
    ):
        assert because in await refusal(set_policy(desk, **changes))
    made = replace(second, version=3, top_up_minutes=7)
    for approver, signer in (("ada", "ada"), ("ben", "cleo"), ("dan", "dan")):
        await refusal(
            desk.do(
                partial(
                    set_window,
                    window=made,
                    by=desk.operators["ada"],
                    approver=desk.operators[approver],
                    signature=operator_keypair(signer).sign(window_bytes(made)),
                    now=desk.now,
                )
            )
        )


ACME = Ed25519PrivateKey.from_private_bytes(b"a" * 32)
BIRCH = Ed25519PrivateKey.from_private_bytes(b"b" * 32)


async def enrol(desk: Desk, party: str, key: Ed25519PrivateKey) -> None:
    public = key.public_key().public_bytes_raw()

    async def work(conn: AsyncConnection) -> None:
        version = await next_key_version(conn, party)
        payload = key_bytes(party, "back-office", public, version=version)
        await enrol_key(
            conn,
            party=party,
            label="back-office",
            public_key=public,
            by=desk.operators["dan"],
            approver=desk.operators["ben"],
            signature=operator_keypair("ben").sign(payload),
            now=desk.now,
        )

    await desk.do(work)


async def issued(desk: Desk, run: Run, party: str | None = None) -> Statement:
    return await desk.do(
        lambda conn: issue_statement(conn, run.id, party=party, by="dan", now=desk.now)
    )


async def answered(desk: Desk, answer: Answer, key: Ed25519PrivateKey) -> Run:
    signed = replace(answer, signature=key.sign(answer_bytes(answer)))
    why = Why("dan", "", desk.now)
    run, _ = await desk.do(
        lambda conn: answer_signed(conn, signed, content=write_answer(signed), why=why)
    )
    return run


def says(statement: Statement, party: str = "acme") -> Answer:
    return Answer(statement_sha256=statement.sha256, party=party, verdict=Verdict.AFFIRMED)


async def test_a_statement_goes_out_and_comes_back_signed(desk: Desk) -> None:
    await stand(desk)
    for party, key in (("acme", ACME), ("birch", BIRCH)):
        await enrol(desk, party, key)
    cycle = await opened(desk)
    run = (await runs_of(desk, cycle))["acme"]
    statement = await issued(desk, run)
    desk.clock.advance(timedelta(minutes=1))
    assert await issued(desk, run) == statement
    assert "has no part in run" in await refusal(issued(desk, run, "birch"))

    for answer, key, because in (
        (says(statement), BIRCH, "no key of acme in force made this signature"),
        (says(statement, "birch"), BIRCH, "was issued to birch"),
        (replace(says(statement), statement_sha256="0" * 64), ACME, "was issued to acme"),
    ):
        assert because in await refusal(answered(desk, answer, key))
    after = await answered(desk, says(statement), ACME)

    assert after.state is RunState.AFFIRMED
    assert await answered(desk, says(statement), ACME) == after
    told = await desk.do(lambda conn: list_history(conn, "settlement-run", run.id))
    assert told[-1].reason == "signed by key 1 of acme (back-office)"


async def test_a_dispute_comes_by_file_too(desk: Desk) -> None:
    await stand(desk)
    await enrol(desk, "acme", ACME)
    cycle = await opened(desk)
    run = (await runs_of(desk, cycle))["acme"]
    before = await issued(desk, run)
    first = min(await obligations(desk, "acme"))
    disputing = replace(
        says(before), verdict=Verdict.DISPUTED, obligations=(first,), reason="not ours"
    )

    changed = await answered(desk, disputing, ACME)

    assert (changed.version, changed.state) == (2, RunState.CALCULATED)
    assert (await obligations(desk, "acme"))[first] == "disputed"
    # What was signed for the first version says nothing of the second.
    assert "version 1 of run" in await refusal(answered(desk, says(before), ACME))
    after = await issued(desk, changed)
    assert after.sha256 != before.sha256
    # Who disputes too late does not get more time by it.
    assert changed.affirm_until is not None
    late = replace(says(after), verdict=Verdict.DISPUTED, obligations=(first,), reason="again")
    desk.clock.advance(changed.affirm_until - desk.now)
    assert "the time to affirm run" in await refusal(answered(desk, late, ACME))
    await desk.do(
        lambda conn: revoke_key(
            conn, "acme", 1, by=desk.operators["dan"], reason="lost", now=desk.now
        )
    )
    assert "no key of acme in force" in await refusal(answered(desk, says(after), ACME))


async def test_what_is_sealed_is_what_was_calculated(desk: Desk) -> None:
    """A row that left the run by another way than its verbs stops the seal."""
    await stand(desk)
    cycle = await opened(desk)
    run = (await runs_of(desk, cycle))["acme"]
    await desk.affirm(run.id, "acme")
    first = min(await obligations(desk, "acme"))
    leave = text("UPDATE settlement.obligation SET run_id = NULL WHERE id = :id")
    await desk.do(lambda conn: conn.execute(leave, {"id": first}))

    assert "does not have the obligations of its calculation" in await refusal(sealed(desk, cycle))


@contextlib.contextmanager
def counted(engine: AsyncEngine) -> Iterator[list[str]]:
    """Every statement that the engine executes meanwhile."""
    said: list[str] = []

    def note(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        said.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", note)


async def test_many_runs_take_as_many_statements_as_few(desk: Desk) -> None:
    """Opened, lapsed and sealed: eight deals in runs of their own against two."""
    counts = []
    for window, deals in (("first", 2), ("second", 8), ("third", 2)):
        for number in range(deals):
            await desk.deal(f"{window}-{number}", amount="1", fee="0")
        with counted(desk.engine) as opening:
            cycle = await opened(desk, window)
        runs = await desk.do(partial(list_cycle_runs, cycle_id=cycle.id))
        assert len(runs) == deals
        for run in runs[: deals // 2]:
            await desk.affirm(run.id, "acme")
        with counted(desk.engine) as sealing:
            assert len(await sealed(desk, cycle)) == deals // 2
        desk.clock.advance(cycle.affirm_until - desk.now)
        with counted(desk.engine) as lapsing:
            assert len((await advanced(desk, cycle)).lapsed) == deals - deals // 2
        for run in runs[deals // 2 :]:
            assert (await desk.do(partial(get_run, run_id=run.id))).state is RunState.LAPSED
        await withdraw_open(desk)
        counts.append((len(opening), len(sealing), len(lapsing)))

    # The first one of all opens accounts, too.
    assert counts[1] == counts[2]


async def withdraw_open(desk: Desk) -> None:
    """Take what lapsed out of the way of the next cycle."""
    rows = await desk.do(lambda conn: list_obligations(conn, BOOK, [ObligationState.OPEN]))
    for deal_id in {o.deal_id for o in rows}:
        await desk.do(
            partial(
                withdraw_deal,
                deal_id=deal_id,
                by=desk.operators["ada"],
                reason="test",
                now=desk.now,
            )
        )
        await desk.do(partial(cancel_deal, deal_id=deal_id, by="dan", reason="test", now=desk.now))


async def test_two_who_open_a_slot_at_once_open_one_cycle(desk: Desk) -> None:
    await stand(desk)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(opened(desk)) for _ in range(3)]

    assert len({task.result().id for task in tasks}) == 1
    assert len(await runs_of(desk, tasks[0].result())) == 2


FORBIDDEN = (
    # The clocks of a cycle; an affirmed run lapses; no proof; other bytes; a slot twice.
    ("UPDATE settlement.cycle SET window_version = 7", "cycle_fixed"),
    ("UPDATE settlement.run SET state = 'lapsed' WHERE state = 'affirmed'", "run_state_edges"),
    (
        (
            "INSERT INTO settlement.affirmation (run_id, version, party, entered_by, evidence_hash, at)"
            " SELECT id, 1, 'birch', 'dan', 'x', created_at FROM settlement.run"
        ),
        "ck_affirmation_proof",
    ),
    (
        (
            "INSERT INTO settlement.statement SELECT id, 1, party, 'x', 'y', 'dan', created_at"
            " FROM settlement.run"
        ),
        "ck_statement_sha256",
    ),
    (
        (
            'INSERT INTO settlement.cycle SELECT gen_random_uuid(), book, value_date, "window",'
            " window_version, cutoff_at, affirm_until, top_up_until, release_at, created_at"
            " FROM settlement.cycle"
        ),
        "uq_cycle_book_value_date_window",
    ),
)


async def test_the_database_refuses_of_a_cycle(desk: Desk) -> None:
    await desk.deal("one", fee="0")
    cycle = await opened(desk)
    (run,) = (await runs_of(desk, cycle)).values()
    await desk.affirm(run.id, "acme")

    for statement, refused in FORBIDDEN:
        with pytest.raises(DBAPIError) as caught:
            await desk.do(partial(AsyncConnection.execute, statement=text(statement)))
        assert constraint_name(caught.value) == refused


async def test_what_a_cycle_cannot_take_is_said_and_the_next_one_has_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "OBLIGATIONS_MAX", 3)
    for number in range(2):
        await desk.deal(f"deal-{number}", fee="0")

    first = await opened(desk)
    second = await opened(desk, "evening")

    left = [await desk.do(partial(count_left, cycle_id=one.id)) for one in (first, second)]
    assert left == [1, 0]
    runs = [
        len(await desk.do(partial(list_cycle_runs, cycle_id=one.id))) for one in (first, second)
    ]
    assert runs == [2, 1]


async def test_lists_are_read_a_page_at_a_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PAGE_MAX", 2)
    for number in range(3):
        await desk.deal(f"deal-{number}", fee="0", party=("acme", "birch")[number % 2])
    await opened(desk)
    calculated = [ObligationState.CALCULATED]

    async def everything(conn: AsyncConnection) -> tuple[list[UUID], list[UUID]]:
        owed = [o.id async for o in every_obligation(conn, BOOK, calculated)]
        return owed, [run.id async for run in every_run(conn, BOOK, [RunState.CALCULATED])]

    owed, runs = await desk.do(everything)
    assert (owed, len(owed)) == (sorted(owed), 6)
    assert (runs, len(runs)) == (sorted(runs), 3)
    page = await desk.do(
        partial(list_obligations, book=BOOK, party="birch", due_by=DAY, after=(DAY, UUID(int=0)))
    )
    assert [o.party for o in page] == ["birch", "birch"]
    assert await desk.do(partial(list_obligations, book=BOOK, due_by=DAY - timedelta(days=1))) == []


async def test_a_party_disputes_nothing_of_another(desk: Desk) -> None:
    """A run of before has several parties in it."""
    await stand(desk)
    await enrol(desk, "acme", ACME)
    run, _ = await desk.calculate()
    statement = await issued(desk, run, "acme")
    theirs = min(await obligations(desk, "birch"))
    disputing = replace(
        says(statement), verdict=Verdict.DISPUTED, obligations=(theirs,), reason="not ours"
    )

    assert "not every obligation named" in await refusal(answered(desk, disputing, ACME))

    assert set((await obligations(desk, "birch")).values()) == {"calculated"}
