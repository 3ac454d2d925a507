"""A party in default: nothing is released to it, and the report says what stands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from custody.freezes import list_freezes
from kernel.errors import Refused
from registry.errors import NotAuthorised, SamePerson
from registry.testing import USDT, operator_keypair
from settlement import fail_store
from settlement.close_out import Claim, close_out, hash_document
from settlement.defaults import (
    declare_default,
    lift_bytes,
    lift_default,
    list_defaults,
    report_close_out,
    require_not_defaulted,
)
from settlement.errors import Defaulted
from settlement.fail_model import PartyDefault
from settlement.model import Direction
from settlement.releasing import find_grounds
from tests.settlement.desk import ACME_WALLET, BOOK, Desk

NOW = datetime(2026, 1, 5, tzinfo=UTC)
PAY, RECEIVE = Direction.PAY, Direction.RECEIVE


def claim(name: str, asset: str, direction: Direction, amount: int) -> Claim:
    return Claim(
        netting_set=name,
        asset=asset,
        direction=direction,
        amount=amount,
        stage="open",
        reference=f"{name} {asset} {direction} {amount}",
    )


def test_a_set_is_one_sum_only_where_its_agreement_closes_out() -> None:
    claims = [
        claim("isda@house", "USD", PAY, 250_000),
        claim("isda@house", "USD", RECEIVE, 600_300),
        claim("isda@house", "BTC", PAY, 10),
        claim("trade:1", "USD", PAY, 5),
        claim("trade:1", "USD", RECEIVE, 7),
    ]
    made = close_out(
        "acme",
        reversed(claims),
        frozenset({"isda@house"}),
        held={("client:acme", "USD"): 3, ("client:acme", "BTC"): 0},
        leaving=(),
        at=NOW,
    )

    found = [(x.netting_set, x.asset, x.we_owe, x.they_owe, x.net) for x in made.lines]
    assert found == [
        ("isda@house", "BTC", 10, 0, 10),
        ("isda@house", "USD", 250_000, 600_300, -350_300),
        ("trade:1", "USD", 5, 7, None),
    ]
    assert made.held == {("client:acme", "USD"): 3}
    again = close_out("acme", claims, frozenset({"isda@house"}), held=made.held, leaving=(), at=NOW)
    assert hash_document(made.document()) == hash_document(again.document())


async def declare(
    desk: Desk, *, party: str = "acme", by: str = "ada", second: str = "cleo"
) -> PartyDefault:
    return await desk.do(
        lambda conn: declare_default(
            conn,
            party,
            book=BOOK,
            by=desk.operators[by],
            sign=operator_keypair(by).sign,
            second=desk.operators[second],
            second_sign=operator_keypair(second).sign,
            reason="did not pay for a week",
            now=desk.now,
        )
    )


async def owing(desk: Desk) -> Any:
    """Acme has paid its leg of a run; the desk's payment could leave."""
    await desk.agree("acme")
    await desk.instruct("acme", "ETH", ACME_WALLET)
    await desk.capital(("custody:house-hot", "equity:capital", "20", "ETH"))
    await desk.deal("sold")
    run = await desk.released()
    await desk.receive(USDT.parse("30300"))
    await desk.match()
    await desk.buys("open-still", amount="1")
    return (await desk.instructions(run.id))["acme ETH"]


async def test_nothing_is_released_to_a_party_in_default(desk: Desk) -> None:
    item = await owing(desk)

    made = await declare(desk)

    assert made.report_hash == hash_document(made.report)
    sets = {(line["asset"], line["we_owe"], line["net"]) for line in made.report["sets"]}
    assert ("ETH", str(item.amount), None) in sets
    with pytest.raises(Defaulted, match="in default since 2026-01-05"):
        await desk.do(lambda conn: require_not_defaulted(conn, BOOK, "acme"))
    with pytest.raises(Refused, match=r"default|frozen"):
        await desk.pay(item)
    assert [str(f.scope) for f in await desk.do(list_freezes)] == ["client:acme"]
    # Once; and it is there for those who look.
    assert (await declare(desk)).id == made.id
    assert [d.party for d in await desk.do(lambda conn: list_defaults(conn, BOOK))] == ["acme"]


async def test_no_default_is_overlooked_because_others_are_newer(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What people are shown has pages; what a payment is held against has none."""
    item = await owing(desk)
    await declare(desk)
    desk.clock.advance(timedelta(minutes=1))
    await declare(desk, party="birch")
    monkeypatch.setattr(fail_store, "PAGE_MAX", 1)

    shown = await desk.do(lambda conn: list_defaults(conn, BOOK))
    found = await desk.do(lambda conn: find_grounds(conn, [item], [item], BOOK, now=desk.now))

    assert [one.party for one in shown] == ["birch"]
    assert "acme is in default" in found[item.id].detail
    assert found[item.id].cover is None


async def test_two_people_lift_it(desk: Desk) -> None:
    made = await declare(desk)

    async def lift(second: str) -> PartyDefault:
        return await desk.do(
            lambda conn: lift_default(
                conn,
                "acme",
                book=BOOK,
                by=desk.operators["ada"],
                second=desk.operators[second],
                signature=operator_keypair(second).sign(lift_bytes(made, "paid")),
                reason="paid",
                now=desk.now,
            )
        )

    with pytest.raises(SamePerson):
        await lift("ada")
    lifted = await lift("cleo")

    assert (str(lifted.state), lifted.lifted_second) == ("lifted", "cleo")
    await desk.do(lambda conn: require_not_defaulted(conn, BOOK, "acme"))
    assert await desk.do(lambda conn: list_defaults(conn, BOOK)) == []
    assert len(await desk.do(lambda conn: list_defaults(conn, BOOK, past=True))) == 1
    with pytest.raises(Refused, match="is not in default"):
        await lift("cleo")


@pytest.mark.parametrize(
    ("by", "second", "error"), [("ada", "ada", SamePerson), ("ada", "dan", NotAuthorised)]
)
async def test_one_person_declares_nothing(
    desk: Desk, by: str, second: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await declare(desk, by=by, second=second)

    assert await desk.do(lambda conn: list_defaults(conn, BOOK)) == []
    assert await desk.do(list_freezes) == []


async def test_the_report_is_read_without_a_declaration(desk: Desk) -> None:
    await owing(desk)

    report = await desk.do(lambda conn: report_close_out(conn, "acme", book=BOOK, now=desk.now))

    found = [(c.stage.split(",")[0], c.asset, str(c.direction)) for c in report.claims]
    # The deal that settlement has not taken over is owed like any other.
    assert found == [
        ("sealed", "ETH", "pay"),
        ("booked", "ETH", "receive"),
        ("booked", "USDT", "pay"),
    ]
    assert report.leaving == ()
