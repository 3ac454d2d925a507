"""What a seal posts, line by line; disputes; affirmations."""

from __future__ import annotations

import hashlib
from functools import partial
from uuid import UUID

import pytest

from kernel.errors import Refused
from ledger.queries import list_transfers
from registry.errors import SamePerson
from registry.testing import ETH, USDT, operator_keypair
from settlement.disputes import dispute, resolve_dispute
from settlement.errors import NotAffirmed
from settlement.model import ObligationState, Run, RunState
from settlement.queries import get_calculation, get_run, list_obligations
from settlement.runs import withdraw_deal
from tests.settlement.desk import BOOK, Desk, refusal
from trading.deals import cancel_deal
from trading.model import DealState


async def postings(desk: Desk, run_id: UUID, asset: str) -> dict[tuple[str, str], int]:
    """What the seal moved in *asset*, summed by (debit, credit)."""
    moved: dict[tuple[str, str], int] = {}
    for item in await desk.do(lambda conn: list_transfers(conn, BOOK, correlation=run_id)):
        if item.asset == asset:
            key = (item.debit, item.credit)
            moved[key] = moved.get(key, 0) + item.amount
    return moved


async def by_deal(desk: Desk, deal_id: UUID) -> dict[str, UUID]:
    """The obligations of a deal, by leg."""
    rows = await desk.do(lambda conn: list_obligations(conn, BOOK))
    return {o.leg: o.id for o in rows if o.deal_id == deal_id}


async def test_the_example_of_the_account_book(desk: Desk) -> None:
    """600,300 owed to the desk against 250,000 owed by it: 350,300 are netted."""
    await desk.agree("acme")
    sold = await desk.deal("sold", amount="10", price="60000", fee="300")
    await desk.buys("bought", amount="5", price="50000")
    run, _ = await desk.calculate()
    await desk.affirm_all(run.id)
    assert await desk.books("payable", "receivable") == {
        "payable:acme:open ETH": "10",
        "payable:acme:open USDT": "250,000",
        "receivable:acme:open ETH": "5",
        "receivable:acme:open USDT": "600,300",
    }

    await desk.seal(run.id)

    open_, netted = "receivable:acme:open", "receivable:acme:netted"
    assert await postings(desk, run.id, "USDT") == {
        ("payable:acme:open", open_): USDT.parse("250000"),
        (netted, open_): USDT.parse("350300"),
    }
    assert await postings(desk, run.id, "ETH") == {
        ("payable:acme:open", open_): ETH.parse("5"),
        ("payable:acme:open", "payable:acme:netted"): ETH.parse("5"),
    }
    assert await desk.books("payable", "receivable") == {
        "payable:acme:netted ETH": "5",
        "receivable:acme:netted USDT": "350,300",
    }
    # Every transfer names the obligations that it discharges: the net drills down to the gross.
    named: dict[str, int] = {}
    for item in await desk.do(lambda conn: list_transfers(conn, BOOK, correlation=run.id)):
        for side in ("pay", "receive"):
            if obligation := item.metadata[side]:
                named[obligation] = named.get(obligation, 0) + item.amount
    rows = await desk.do(lambda conn: list_obligations(conn, BOOK))
    assert named == {str(o.id): o.amount for o in rows}
    assert len({o.id for o in rows if o.deal_id == sold.id}) == 3


async def test_without_an_agreement_every_leg_is_paid_for_itself(desk: Desk) -> None:
    await desk.deal("sold", fee="0")
    await desk.buys("bought", amount="2")

    run, result = await desk.calculate()
    await desk.affirm_all(run.id)
    await desk.seal(run.id)

    assert sorted(f"{i.direction} {i.asset} {i.amount}" for i in result.items) == [
        f"pay ETH {ETH.parse('10')}",
        f"pay USDT {USDT.parse('6000')}",
        f"receive ETH {ETH.parse('2')}",
        f"receive USDT {USDT.parse('30000')}",
    ]
    assert set(await postings(desk, run.id, "USDT")) == {
        ("payable:acme:open", "payable:acme:netted"),
        ("receivable:acme:netted", "receivable:acme:open"),
    }


async def test_a_seal_needs_every_party(desk: Desk) -> None:
    await desk.deal("a", fee="0")
    await desk.deal("b", party="birch", fee="0")
    run, _ = await desk.calculate()
    await desk.affirm(run.id, "acme")

    with pytest.raises(NotAffirmed):
        await desk.seal(run.id)

    assert await desk.books("payable:acme:netted", "receivable:acme:netted") == {}
    assert (await desk.affirm(run.id, "birch")).state is RunState.AFFIRMED


REFUSED: tuple[tuple[dict[str, object], str], ...] = (
    ({"witness": "dan"}, "cannot approve what dan entered"),
    ({"witness": "cleo", "by": "ben"}, "ben is not treasurer"),
    ({"forged": True}, "not ada's, or not of this"),
    ({"evidence_hash": "yes"}, "not a SHA-256"),
    ({"version": 7}, "has no version 7"),
    ({"party": "birch"}, "birch has no part in run"),
)


async def test_an_affirmation_is_refused(desk: Desk) -> None:
    """One person, a dealer's witness, a forged one, no hash, no such version, a stranger."""
    await desk.deal("a", fee="0")
    run, _ = await desk.calculate()
    for changes, because in REFUSED:
        values: dict[str, object] = {
            key: desk.operators[str(value)] if key in {"by", "witness"} else value
            for key, value in changes.items()
        }
        if values.pop("forged", False):
            values["signature"] = operator_keypair("ada").sign(b"something else")
        party = str(values.pop("party", "acme"))
        assert because in await refusal(desk.affirm(run.id, party, **values))
    with pytest.raises(SamePerson):
        await desk.affirm(run.id, "acme", by=desk.operators["ada"])
    assert (await desk.do(lambda conn: get_run(conn, run.id))).state is RunState.CALCULATED


async def test_a_second_opinion_on_an_affirmation_is_refused(desk: Desk) -> None:
    await desk.deal("a", fee="0")
    await desk.deal("b", party="birch", fee="0")
    run, _ = await desk.calculate()
    await desk.affirm(run.id, "acme")
    other = hashlib.sha256(b"another message").hexdigest()

    assert "has affirmed version 1 already" in await refusal(
        desk.affirm(run.id, "acme", evidence_hash=other)
    )


async def disputed(desk: Desk, run_id: UUID, ids: list[UUID], by: str = "dan") -> Run:
    run, _ = await desk.do(
        lambda conn: dispute(
            conn, run_id, ids, by=desk.operators[by], reason="wrong price", now=desk.now
        )
    )
    return run


async def test_a_dispute_freezes_its_own_and_makes_the_next_version_of_the_rest(
    desk: Desk,
) -> None:
    await desk.agree("acme")
    await desk.deal("good", fee="0")
    bad = await desk.deal("bad", amount="1", fee="0")
    run, first = await desk.calculate()
    await desk.affirm_all(run.id)
    frozen = list((await by_deal(desk, bad.id)).values())

    again = await disputed(desk, run.id, frozen)

    assert (again.state, again.version) == (RunState.CALCULATED, 2)
    second = await desk.do(lambda conn: get_calculation(conn, run.id, 2))
    assert {i.asset: i.amount for i in second.items} == {
        "ETH": ETH.parse("10"),
        "USDT": USDT.parse("30000"),
    }
    assert await desk.do(lambda conn: get_calculation(conn, run.id, 1)) == first
    with pytest.raises(NotAffirmed):
        await desk.seal(run.id)
    # The affirmation of version 1 does not count for version 2.
    await desk.affirm_all(run.id)
    await desk.seal(run.id)
    assert (await desk.books("receivable"))["receivable:acme:netted USDT"] == "30,000"
    assert (await desk.books("receivable"))["receivable:acme:open USDT"] == "3,000"
    states = {o.id: o.state for o in await desk.do(lambda conn: list_obligations(conn, BOOK))}
    assert {states[i] for i in frozen} == {ObligationState.DISPUTED}


async def test_after_a_dispute_the_others_affirm_the_new_version_too(desk: Desk) -> None:
    await desk.deal("acme-s", fee="0")
    bad = await desk.deal("wrong", fee="0")
    await desk.deal("birch-s", party="birch", fee="0")
    run, _ = await desk.calculate()
    await desk.affirm_all(run.id)
    await disputed(desk, run.id, list((await by_deal(desk, bad.id)).values()))

    after = await desk.affirm(run.id, "acme")

    assert (after.state, after.version) == (RunState.CALCULATED, 2)
    assert (await desk.affirm(run.id, "birch")).state is RunState.AFFIRMED


async def test_the_same_dispute_again_changes_nothing(desk: Desk) -> None:
    await desk.agree("acme")
    await desk.deal("good", fee="0")
    bad = await desk.deal("bad", fee="0")
    run, _ = await desk.calculate()
    frozen = list((await by_deal(desk, bad.id)).values())

    first = await disputed(desk, run.id, frozen)

    assert await disputed(desk, run.id, frozen) == first
    assert first.version == 2


async def test_an_old_version_cannot_be_affirmed(desk: Desk) -> None:
    await desk.agree("acme")
    await desk.deal("good", fee="0")
    bad = await desk.deal("bad", fee="0")
    run, _ = await desk.calculate()
    await disputed(desk, run.id, list((await by_deal(desk, bad.id)).values()))

    assert "version 1 of run" in await refusal(desk.affirm(run.id, "acme", version=1))


async def test_a_dispute_of_everything_leaves_an_empty_run_and_the_next_window_takes_over(
    desk: Desk,
) -> None:
    await desk.agree("acme")
    deal = await desk.deal("all", fee="0")
    run, _ = await desk.calculate()
    ids = list((await by_deal(desk, deal.id)).values())

    empty = await disputed(desk, run.id, ids)

    assert empty.state is RunState.EMPTY
    assert "sealed run never" not in await refusal(desk.seal(run.id))
    for key in ids:
        await desk.do(
            partial(
                resolve_dispute,
                run_id=run.id,
                obligation_id=key,
                by=desk.operators["ada"],
                reason="was right",
                now=desk.now,
            )
        )
    later, result = await desk.open("evening")
    assert {i for item in result.items for i in item.obligations} == set(ids)
    await desk.affirm_all(later.id)
    assert (await desk.seal(later.id)).state is RunState.SEALED


async def test_a_dispute_is_resolved_once(desk: Desk) -> None:
    deal = await desk.deal("all", fee="0")
    run, _ = await desk.calculate()
    key, *_ = (await by_deal(desk, deal.id)).values()
    await disputed(desk, run.id, [key])
    by, now = desk.operators["ada"], desk.now
    resolve = partial(
        resolve_dispute, run_id=run.id, obligation_id=key, by=by, reason="was right", now=now
    )
    assert (await desk.do(resolve)).state is ObligationState.OPEN

    with pytest.raises(Refused, match="is not disputed in run"):
        await desk.do(resolve)


async def test_a_sealed_run_cannot_be_disputed(desk: Desk) -> None:
    deal = await desk.deal("all", fee="0")
    run = await desk.released()

    because = await refusal(disputed(desk, run.id, list((await by_deal(desk, deal.id)).values())))

    assert "a sealed run never changes" in because


async def test_a_dispute_names_obligations_of_the_run(desk: Desk) -> None:
    await desk.deal("all", fee="0")
    run, _ = await desk.calculate()
    for ids in ([], [UUID(int=1)]):
        assert "not every obligation" in await refusal(disputed(desk, run.id, ids))


async def test_a_disputed_deal_is_withdrawn_and_cancelled_in_trading(desk: Desk) -> None:
    await desk.agree("acme")
    await desk.deal("good", fee="0")
    bad = await desk.deal("bad", fee="0")
    run, _ = await desk.calculate()
    legs = await by_deal(desk, bad.id)

    async def withdraw() -> int:
        gone = await desk.do(
            lambda conn: withdraw_deal(
                conn, bad.id, by=desk.operators["ada"], reason="booked twice", now=desk.now
            )
        )
        return len(gone)

    assert "cannot be withdrawn: base is calculated, quote is calculated" in await refusal(
        withdraw()
    )
    await disputed(desk, run.id, list(legs.values()))
    assert (await withdraw(), await withdraw()) == (2, 0)
    gone = await desk.do(
        lambda conn: cancel_deal(conn, bad.id, by="dan", reason="booked twice", now=desk.now)
    )
    assert gone.state is DealState.CANCELLED
    await desk.affirm_all(run.id)
    await desk.seal(run.id)
    assert await desk.books("payable", "receivable") == {
        "payable:acme:netted ETH": "10",
        "receivable:acme:netted USDT": "30,000",
    }


async def test_a_withdrawn_deal_that_stays_booked_is_pulled_again(desk: Desk) -> None:
    deal = await desk.deal("one", fee="0")
    run, _ = await desk.calculate()
    await disputed(desk, run.id, list((await by_deal(desk, deal.id)).values()))
    await desk.do(
        lambda conn: withdraw_deal(
            conn, deal.id, by=desk.operators["ada"], reason="look again", now=desk.now
        )
    )

    _, result = await desk.calculate("evening")

    assert len(result.items) == 2
