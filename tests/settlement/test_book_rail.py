"""The book rail: both sides held, both sides posted, or none; client money stays covered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.workers import cycle_release
from custody.control_messages import ScopeKind
from custody.errors import Frozen
from custody.freeze_model import Scope
from custody.freezes import close_automatically
from kernel.errors import BadInput, Refused
from ledger.accounts import ensure_accounts, set_frozen
from ledger.model import transfer
from ledger.posting import post, require_applied
from ledger.queries import list_open_holds
from registry.testing import ETH, USDT
from settlement import book_rail
from settlement.book_rail import ASKED_MAX, accept_book, cancel_book, settle_book
from settlement.errors import NotCovered
from settlement.model import Instruction, Run, RunState
from settlement.queries import list_held_instructions
from settlement.release import reschedule
from settlement.release_model import BookSettlement
from settlement.releasing import book_of
from tests.settlement.desk import BOOK, Desk, refusal, release_all


async def accepted(desk: Desk, run: Run, *parties: str, by: str = "ada") -> list[Instruction]:
    asked = settlements(run, *parties)
    return await desk.do(lambda conn: accept_book(conn, asked, by=desk.operators[by], now=desk.now))


async def settled(desk: Desk, run: Run, *parties: str, by: str = "ada") -> list[Instruction]:
    asked = settlements(run, *parties)
    return await desk.do(lambda conn: settle_book(conn, asked, by=desk.operators[by], now=desk.now))


async def cancelled(desk: Desk, run: Run, *parties: str) -> list[Instruction]:
    asked, ada = settlements(run, *parties), desk.operators["ada"]
    return await desk.do(
        lambda conn: cancel_book(conn, asked, by=ada, reason="no cover", now=desk.now)
    )


def settlements(run: Run, *parties: str) -> list[BookSettlement]:
    return [BookSettlement(run.id, party) for party in parties or ["birch"]]


async def prefunded(desk: Desk, *, funds: str = "31000", pool: str = "10") -> Run:
    """Birch holds USDT here and has bought 10 ETH for 30,300; the house put ETH into the pool."""
    await desk.agree("birch", prefunded=True)
    await desk.capital(
        ("custody:client-pool", "client:birch", funds, "USDT"),
        ("custody:client-pool", "equity:capital", pool, "ETH"),
    )
    await desk.deal("sold", party="birch")
    return await desk.released()


async def test_both_sides_are_held_and_then_posted_in_one_commit(desk: Desk) -> None:
    run = await prefunded(desk)

    await accepted(desk, run)
    assert await desk.holds() == {
        "client:birch USDT": "30,300",
        "payable:birch:netted ETH": "10",
    }
    assert (await desk.books("client"))["client:birch USDT"] == "31,000"
    held = await desk.do(lambda conn: list_held_instructions(conn, BOOK))
    holds = await desk.do(lambda conn: list_open_holds(conn, BOOK))
    assert {h.correlation for h in holds} == {i.id for i in held}
    assert {h.purpose for h in holds} == {"settlement"}

    await settled(desk, run)

    assert await desk.holds() == {}
    assert await desk.books("client", "payable", "receivable") == {
        "client:birch ETH": "10",
        "client:birch USDT": "700",
    }
    assert (await desk.finality(run.id)).state is RunState.FINAL


async def test_what_is_held_cannot_be_spent_twice(desk: Desk) -> None:
    run = await prefunded(desk)
    await accepted(desk, run)

    async def spend(conn: AsyncConnection) -> None:
        await ensure_accounts(conn, BOOK, [("in-flight:evm", "USDT")], now=desk.now)
        line = transfer(run.id, "client:birch", "in-flight:evm", 701 * 10**6, "USDT", code="test")
        require_applied(await post(conn, BOOK, [line], now=desk.now))

    assert "exceeds_credits" in await refusal(desk.do(spend))


async def test_each_step_may_be_repeated(desk: Desk) -> None:
    run = await prefunded(desk)

    first = {i.id: i for i in await accepted(desk, run)}
    assert {i.id for i in await accepted(desk, run)} == set(first)
    holds = await desk.holds()
    await settled(desk, run)
    await settled(desk, run)
    await accepted(desk, run)

    assert holds == {"client:birch USDT": "30,300", "payable:birch:netted ETH": "10"}
    assert (await desk.books("client"))["client:birch USDT"] == "700"
    await desk.finality(run.id)
    assert {str(i.state) for i in await settled(desk, run)} == {"final"}


async def test_a_client_that_is_short_is_told_by_how_much_and_nothing_is_held(desk: Desk) -> None:
    run = await prefunded(desk, funds="30000")

    with pytest.raises(NotCovered, match="birch is short of 300 USDT"):
        await accepted(desk, run)

    assert await desk.holds() == {}
    assert set((await desk.states(run.id)).values()) == {"planned"}


async def test_clients_must_be_covered_when_one_is_credited(desk: Desk) -> None:
    run = await prefunded(desk, pool="9.5")
    await accepted(desk, run)

    with pytest.raises(NotCovered, match=r"clients would be owed 0\.5 ETH more than is held"):
        await settled(desk, run)

    # Neither side is posted, and both are held still.
    assert (await desk.books("client")) == {"client:birch USDT": "31,000"}
    assert set((await desk.states(run.id)).values()) == {"released"}
    assert len(await desk.holds()) == 2
    await desk.capital(("custody:client-pool", "equity:capital", "0.5", "ETH"))
    await settled(desk, run)
    assert (await desk.books("client"))["client:birch ETH"] == "10"


async def test_coins_promised_to_another_client_do_not_cover(desk: Desk) -> None:
    """The payout is signed, its coins are still in the pool: they are not there for birch."""
    run = await prefunded(desk, pool="9")
    await desk.capital(("custody:client-pool", "in-flight:evm", "1", "ETH"))
    await accepted(desk, run)

    with pytest.raises(NotCovered, match="1 ETH more"):
        await settled(desk, run)


async def test_a_side_that_the_ledger_refuses_leaves_neither(desk: Desk) -> None:
    run = await prefunded(desk)
    await freeze_account_of_birch(desk)
    with pytest.raises(Refused, match="credit_account_frozen"):
        await accepted(desk, run)

    assert await desk.holds() == {}
    assert set((await desk.states(run.id)).values()) == {"planned"}


async def freeze_account_of_birch(desk: Desk) -> None:
    """The ledger takes nothing more on it; who settles is told only there."""
    await desk.capital(("custody:client-pool", "client:birch", "0.001", "ETH"))
    await desk.do(
        lambda conn: set_frozen(
            conn, BOOK, "client:birch", "ETH", frozen=True, reason="inquiry", now=desk.now
        )
    )


async def test_what_is_cancelled_is_free_again_and_can_be_accepted_anew(desk: Desk) -> None:
    run = await prefunded(desk, pool="1")
    await accepted(desk, run)

    await cancelled(desk, run)
    await cancelled(desk, run)

    assert await desk.holds() == {}
    assert set((await desk.states(run.id)).values()) == {"failed"}
    assert "accepted: ETH is failed, USDT is failed" in await refusal(accepted(desk, run))
    for item in (await desk.instructions(run.id)).values():
        await desk.do(
            partial(
                reschedule,
                run_id=run.id,
                instruction_id=item.id,
                by=desk.operators["ada"],
                reason="covered now",
                now=desk.now,
            )
        )
    await desk.capital(("custody:client-pool", "equity:capital", "9", "ETH"))
    await accepted(desk, run)
    await settled(desk, run)
    assert (await desk.finality(run.id)).state is RunState.FINAL
    assert (await desk.books("client"))["client:birch ETH"] == "10"


async def test_one_side_alone_is_never_settled(desk: Desk) -> None:
    run = await prefunded(desk)
    assert "cannot be settled" in await refusal(settled(desk, run))
    await accepted(desk, run)
    await settled(desk, run)
    assert "cannot be cancelled" in await refusal(cancelled(desk, run))


async def two_prefunded(desk: Desk, *, funds: str = "31000", pool: str = "20") -> Run:
    """As `prefunded`, and acme as well: it has what it needs."""
    await desk.agree("acme", prefunded=True)
    await desk.capital(("custody:client-pool", "client:acme", "30300", "USDT"))
    await desk.deal("sold-too")
    return await prefunded(desk, funds=funds, pool=pool)


async def test_parties_are_held_and_settled_together(desk: Desk) -> None:
    run = await two_prefunded(desk)

    assert len(await accepted(desk, run, "acme", "birch")) == 4
    assert len(await desk.holds()) == 4
    # Who was held before stays so, and who is asked for beside it is settled.
    await settled(desk, run, "birch")
    done = await settled(desk, run, "acme", "birch")

    assert {(str(i.state), i.applied) for i in done} == {
        ("final", USDT.parse("30300")),
        ("final", ETH.parse("10")),
    }
    assert await desk.books("client", "payable", "receivable") == {
        "client:acme ETH": "10",
        "client:birch ETH": "10",
        "client:birch USDT": "700",
    }
    assert (await desk.finality(run.id)).state is RunState.FINAL


async def test_of_a_group_all_are_held_or_none(desk: Desk) -> None:
    run = await two_prefunded(desk, funds="30000")

    with pytest.raises(NotCovered, match="birch is short of 300 USDT"):
        await accepted(desk, run, "acme", "birch")

    assert await desk.holds() == {}
    assert set((await desk.states(run.id)).values()) == {"planned"}


async def test_clients_must_be_covered_for_all_of_a_group(desk: Desk) -> None:
    run = await two_prefunded(desk, pool="19.5")
    await accepted(desk, run, "acme", "birch")

    with pytest.raises(NotCovered, match=r"clients would be owed 0\.5 ETH more than is held"):
        await settled(desk, run, "acme", "birch")

    assert len(await desk.holds()) == 4
    await settled(desk, run, "acme")


async def test_what_one_party_gives_in_two_runs_is_counted_together(desk: Desk) -> None:
    await desk.agree("birch", prefunded=True)
    await desk.capital(
        ("custody:client-pool", "client:birch", "40000", "USDT"),
        ("custody:client-pool", "equity:capital", "20", "ETH"),
    )
    await desk.deal("first", party="birch")
    first = await desk.released("noon")
    await desk.deal("second", party="birch")
    second = await desk.released("evening")
    asked, ada = [*settlements(first), *settlements(second)], desk.operators["ada"]

    with pytest.raises(NotCovered, match="birch is short of 20,600 USDT"):
        await desk.do(lambda conn: accept_book(conn, asked, by=ada, now=desk.now))


async def test_who_is_refused_holds_nobody_up(desk: Desk) -> None:
    """Birch was chosen; the ledger refuses its account, so acme settles without it."""
    run = await two_prefunded(desk)

    await freeze_account_of_birch(desk)
    done = await release_all(desk, run)

    assert done.settled == [f"{run.id}/acme"]
    assert {key for key, why in done.waits.items() if "credit_account_frozen" in why} == {
        f"{run.id}/birch"
    }
    assert await desk.books("client") == {
        "client:acme ETH": "10",
        "client:birch ETH": "0.001",
        "client:birch USDT": "31,000",
    }


@pytest.mark.parametrize("stopped", ["client", "asset"])
async def test_nothing_settles_by_book_past_a_freeze(desk: Desk, stopped: str) -> None:
    run = await two_prefunded(desk)
    await accepted(desk, run, "acme", "birch")
    scope = Scope(ScopeKind(stopped), "birch" if stopped == "client" else "ETH")
    await desk.do(
        lambda conn: close_automatically(
            conn, scope, by="system:test", reason="inquiry", now=desk.now
        )
    )

    with pytest.raises(Frozen, match=scope.name):
        await settled(desk, run, "acme", "birch")

    assert len(await desk.holds()) == 4


async def test_a_group_has_an_end(desk: Desk) -> None:
    run = await prefunded(desk)

    with pytest.raises(BadInput, match="Ask for 100 at a time"):
        await accepted(desk, run, *(f"party-{n}" for n in range(ASKED_MAX + 1)))


async def test_runs_of_two_books_are_not_released_together(desk: Desk) -> None:
    run = await prefunded(desk)

    with pytest.raises(BadInput, match="runs of 2 books"):
        book_of([run, replace(run, book=BOOK + 1)])


async def test_a_group_of_too_many_sides_is_taken_in_smaller_ones(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await two_prefunded(desk)
    monkeypatch.setattr(book_rail, "SIDES_MAX", 3)

    assert "have 4 sides, too many" in await refusal(accepted(desk, run, "acme", "birch"))
    done = await release_all(desk, run)

    assert done.settled == [f"{run.id}/acme", f"{run.id}/birch"]


async def test_whoever_dies_between_holding_and_settling_leaves_one_group_held(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await two_prefunded(desk)
    monkeypatch.setattr(cycle_release, "ASKED_MAX", 1)
    monkeypatch.setattr(cycle_release, "settle_book", dies)

    with pytest.raises(Killed):
        await release_all(desk, run)
    held = await desk.holds()
    monkeypatch.undo()
    done = await release_all(desk, run)

    assert set(held) == {"client:acme USDT", "payable:acme:netted ETH"}
    assert done.settled == [f"{run.id}/acme", f"{run.id}/birch"]
    assert await desk.holds() == {}


class Killed(Exception):
    """The process ended here."""


async def dies(*_: object, **__: object) -> None:
    raise Killed


OF_ANOTHER = """
INSERT INTO settlement.instruction (id, book, run_id, party, asset, direction, amount, applied, rail,
                                    state, attempt, created_at)
SELECT gen_random_uuid(), book, run_id, 'acme', asset, direction, amount, applied, rail,
       state, attempt, created_at
  FROM settlement.instruction WHERE party = 'birch'
"""
HELD_ELSEWHERE = "SELECT 1 FROM settlement.instruction WHERE party = 'acme' FOR UPDATE"


@pytest.mark.parametrize("verb", [accepted, settled, cancelled])
async def test_what_a_party_settles_by_book_waits_for_no_other_partys_instructions(
    desk: Desk, verb: Callable[[Desk, Run], Awaitable[list[Instruction]]]
) -> None:
    """A run of many parties would read and lock all of them again for each one."""
    run = await prefunded(desk)
    await desk.do(lambda conn: conn.execute(text(OF_ANOTHER)))
    if verb is not accepted:
        await accepted(desk, run)

    async with desk.engine.begin() as other:
        await other.execute(text(HELD_ELSEWHERE))
        moved = await verb(desk, run)

    assert [item.party for item in moved] == ["birch", "birch"]


@pytest.mark.parametrize("verb", [accepted, settled])
async def test_only_a_treasurer_settles_by_book(desk: Desk, verb: object) -> None:
    run = await prefunded(desk)
    assert "dan is not treasurer" in await refusal(verb(desk, run, by="dan"))  # type: ignore[operator]


async def test_a_party_that_is_not_prefunded_has_nothing_to_settle_by_book(desk: Desk) -> None:
    await desk.deal("sold", party="birch")
    run = await desk.released()

    assert "nothing of birch to settle by book" in await refusal(accepted(desk, run))
