"""The paper of a deal by the command line: confirmed, affirmed, disputed, listed, explained."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import SystemClock
from kernel.db import transact
from matching.model import Side, TimeInForce
from registry.testing import ETH, operator_keypair
from settlement.runs import pull_obligations
from tests.app.cli.conftest import BOOK, Cli
from trading.confirmations.affirming import affirmation_bytes
from trading.hedges.lines import open_line
from trading.hedges.model import HedgeLine, HedgePlace
from venues.model import OrderTicket, VenueOrder
from venues.orders import intend
from venues.records import BINANCE

CLIENT = operator_keypair("acme's back office")
As = Callable[[str], tuple[str, ...]]


@pytest.fixture
def second(keys: dict[str, Path]) -> Callable[[str], tuple[str, ...]]:
    """The options by which a second operator signs."""
    return lambda code: ("--approver", code, "--approver-key", str(keys[code]))


@pytest.fixture
def book(cli: Cli, as_: As, house: AsyncEngine) -> Callable[..., dict[str, Any]]:
    """Book a deal: the desk sells 2 ETH to acme, unless told otherwise."""

    def call(reference: str, *words: str) -> dict[str, Any]:
        given = words or ("--sell", "2 ETH", "--price", "3000 USDT", "--fee", "5 USDT")
        answer = cli(*("desk", "deal", "acme", *given, "--ref", reference, *as_("dan"), "--json"))
        assert answer.code == 0, answer.err
        deal: dict[str, Any] = answer.json
        return deal

    return call


def test_a_deal_is_confirmed_as_text_and_pdf_and_affirmed_by_its_hash(
    cli: Cli, as_: As, second: As, book: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    deal = book("d-1")
    text, pdf = tmp_path / "d-1.txt", tmp_path / "d-1.pdf"

    shown = cli("desk", "confirm", deal["id"])
    written = cli("desk", "confirm", deal["id"], "--out", str(text), "--json").json
    drawn = cli("desk", "confirm", deal["id"], "--out", str(pdf), "--json").json

    assert shown.out == text.read_text() == written["text"]
    assert "Payable by Party B      6,005 USDT (countervalue and fee)" in shown.out
    assert hashlib.sha256(text.read_bytes()).hexdigest() == written["text_sha256"]
    assert hashlib.sha256(pdf.read_bytes()).hexdigest() == drawn["pdf_sha256"]
    (page,) = PdfReader(io.BytesIO(pdf.read_bytes())).pages
    assert written["text_sha256"] in page.extract_text()

    public = CLIENT.public.hex()
    enrolled = cli(
        *("desk", "enrol-confirmation-key", "acme", "back-office", public),
        *(*as_("ada"), *second("ben"), "--json"),
    )
    assert (enrolled.json["party"], enrolled.json["version"]) == ("acme", "1")
    signature = CLIENT.sign(affirmation_bytes(written["text_sha256"])).hex()
    affirmed = cli(
        *("desk", "affirm", written["id"], "--signature", signature, *as_("dan"), "--json")
    )
    assert affirmed.json["state"] == "affirmed"
    assert cli("desk", "confirmations", "--unaffirmed", "--json").json == []


def test_a_dispute_is_kept_and_two_people_who_did_not_deal_affirm_from_a_mail(
    cli: Cli, as_: As, second: As, book: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    deal = book("d-1")
    mail = tmp_path / "mail.eml"
    mail.write_text("agreed")
    (due,) = cli("desk", "confirmations", "--due", "--json").json
    assert due["deal"] == deal["id"]
    for other in (("--party", "birch"), ("--book", "2")):
        assert cli("desk", "confirmations", "--due", *other, "--json").json == []
    assert cli("desk", "confirmations", "--due", "--state", "issued").code == 2
    assert cli("desk", "confirmations", "--unaffirmed", "--state", "issued").code == 2
    item = cli("desk", "confirm", deal["id"], "--json").json
    proof = ("--evidence", str(mail), "--reason", "mail of their back office")

    disputed = cli(
        *("desk", "dispute", item["id"], "--reason", "they have 3 ETH", *as_("dan"), "--json")
    )
    (waiting,) = cli("desk", "confirmations", "--unaffirmed", "--party", "acme", "--json").json
    by_dealer = cli("desk", "affirm", item["id"], *proof, *as_("dan"), *second("cleo"))
    alone = cli("desk", "affirm", item["id"], *proof, *as_("ada"))
    done = cli("desk", "affirm", item["id"], *proof, *as_("ada"), *second("cleo"), "--json")

    assert disputed.json["state"] == "disputed"
    assert (waiting["reference"], waiting["late"], waiting["state"]) == ("d-1", "yes", "disputed")
    assert by_dealer.code == 1
    assert "booked the deal" in by_dealer.err
    assert alone.code == 2
    assert done.json["state"] == "affirmed"
    life = cli("desk", "explain", item["id"], "--json").json
    assert [said["verdict"] for said in life["said"]] == ["disputed", "affirmed"]
    assert [line["what"].split(" ")[0] for line in life["timeline"]] == [
        "ConfirmationIssued",
        "ConfirmationDisputed",
        "ConfirmationAffirmed",
    ]


def test_explain_tells_what_hedged_a_deal_and_what_stands_behind_its_price(
    cli: Cli, as_: As, book: Callable[..., dict[str, Any]]
) -> None:
    sold = book("d-1")
    bought = book("d-2", "--buy", "3 ETH", "--price", "2990 USDT")
    cli("desk", "confirm", sold["id"])

    life = cli("desk", "explain", sold["id"], "--json").json
    other = cli("desk", "explain", bought["id"], "--json").json

    assert life["kind"] == "deal"
    assert {line["kind"] for line in life["timeline"]} == {"event", "posting", "paper"}
    (closed,) = life["hedges"]
    assert (closed["by"], closed["id"], closed["amount"]) == ("client", bought["id"], "-2 ETH")
    assert [(i["by"], i["amount"]) for i in other["hedges"]] == [
        ("client", "2 ETH"),
        ("open", "1 ETH"),
    ]
    assert [(i["role"], i["id"]) for i in life["prices"]] == [("made on", life["price_id"])]
    assert [i["version"] for i in life["confirmations"]] == ["1"]
    assert other["confirmations"] == []


async def test_explain_of_a_deal_tells_its_obligations_however_many_others_there_are(
    cli: Cli,
    house: AsyncEngine,
    book: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deals = [book("d-1"), book("d-2")]
    await transact(house, lambda c: pull_obligations(c, book=BOOK, now=SystemClock().now()))
    monkeypatch.setattr("settlement.store.OBLIGATIONS_PER_RUN_MAX", 1)

    for deal in deals:
        life = cli("desk", "explain", deal["id"], "--json").json
        assert [item["amount"] for item in life["obligations"]] == ["2 ETH", "5 USDT", "6,000 USDT"]


async def test_explain_tells_of_a_hedge_line_and_of_its_newest_orders(
    cli: Cli, house: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = SystemClock().now()
    line = HedgeLine(desk="otc", asset="ETH", places=(HedgePlace("binance", "desk", "ETHUSDT"),))
    ticket = OrderTicket(
        venue="binance",
        account="desk",
        symbol="ETHUSDT",
        instrument_version=1,
        side=Side.BUY,
        base_units=ETH.parse("1"),
        quantity="1.0000",
        price="3000.00",
        time_in_force=TimeInForce.IOC,
        reference=line.reference,
        intent="hedge-1",
    )

    async def place(conn: AsyncConnection, asked: OrderTicket, at: datetime) -> VenueOrder:
        return await intend(
            conn,
            asked,
            capabilities=BINANCE,
            recv_window=timedelta(seconds=3),
            actor="system:hedger",
            reason="short of 1 ETH",
            now=at,
        )

    async def work(conn: AsyncConnection) -> VenueOrder:
        await open_line(conn, line, by="dan", reason="the desk opens", now=now)
        await place(conn, replace(ticket, intent="hedge-0"), now - timedelta(minutes=1))
        await place(
            conn, replace(ticket, intent="by-hand", reference="by hand"), now + timedelta(minutes=1)
        )
        return await place(conn, ticket, now)

    order = await transact(house, work)
    monkeypatch.setattr("venues.explain.NEWEST_MAX", 1)

    told = cli("desk", "explain", str(order.id), "--json").json
    of_line = cli("desk", "explain", "otc/ETH", "--json").json
    (newest,) = cli("desk", "orders", "--json").json

    assert (told["kind"], told["venue"], told["reference"]) == (
        "hedge order",
        "binance/desk",
        "hedge:otc:ETH",
    )
    assert (told["side"], told["time_in_force"]) == ("buy", "immediate-or-cancel")
    assert (newest["reference"], newest["side"]) == ("by hand", "buy")
    assert [(i["who"], i["kind"]) for i in told["timeline"]] == [("system:hedger", "event")]
    assert told["fills"] == []
    assert [i["what"] for i in of_line["timeline"]] == ["HedgeLineOpened (active): the desk opens"]
    assert [(i["id"], i["side"]) for i in of_line["orders"]] == [(str(order.id), "buy")]
    assert of_line["places"] == [
        {"venue": "binance", "account": "desk", "symbol": "ETHUSDT", "open": "yes"}
    ]


def test_the_blotter_filters_pages_and_adds_up(
    cli: Cli, as_: As, book: Callable[..., dict[str, Any]]
) -> None:
    first = book("d-1")
    book("d-2", "--buy", "1 ETH", "--price", "2990 USDT")
    gone = book("x-1")
    cli("desk", "cancel", gone["id"], "--reason", "wrong side", *as_("dan"))

    page = cli("desk", "blotter", "--limit", "2", "--json").json
    rest = cli("desk", "blotter", "--limit", "2", "--after", page["after"], "--json").json
    sales = cli("desk", "blotter", "--side", "desk_sells", "--ref", "d-", "--json").json
    cancelled = cli("desk", "blotter", "--state", "cancelled", "--json").json
    none = cli("desk", "blotter", "--until", "2020-01-01", "--json").json

    assert [i["reference"] for i in (*page["deals"], *rest["deals"])] == ["x-1", "d-2", "d-1"]
    assert rest["after"] == ""
    assert (
        page["totals"]
        == rest["totals"]
        == [
            {
                "asset": "ETH",
                "deals": "2",
                "received": "1 ETH",
                "paid": "2 ETH",
                "net": "-1 ETH",
                "fees": "0 ETH",
            },
            {
                "asset": "USDT",
                "deals": "2",
                "received": "6,000 USDT",
                "paid": "2,990 USDT",
                "net": "3,010 USDT",
                "fees": "5 USDT",
            },
        ]
    )
    assert [i["id"] for i in sales["deals"]] == [first["id"]]
    assert [i["id"] for i in cancelled["deals"]] == [gone["id"]]
    assert cancelled["totals"][0]["paid"] == "2 ETH"
    assert none == {"deals": [], "totals": [], "after": ""}
    assert "There are more: --after" in cli("desk", "blotter", "--limit", "1").out


def test_a_file_that_exists_is_not_written_over_and_another_kind_is_refused(
    cli: Cli, book: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    deal = book("d-1")
    there = tmp_path / "there.txt"
    there.write_text("mine")

    for path, code in ((there, 2), (tmp_path / "d-1.doc", 2), (tmp_path / "no" / "d.txt", 2)):
        assert cli("desk", "confirm", deal["id"], "--out", str(path)).code == code
    assert there.read_text() == "mine"


def test_without_the_extra_a_pdf_is_asked_of_another_house_and_a_text_is_written_all_the_same(
    cli: Cli,
    book: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deal = book("d-1")
    monkeypatch.setitem(sys.modules, "reportlab", None)

    refused = cli("desk", "confirm", deal["id"], "--out", str(tmp_path / "d.pdf"))

    assert refused.code == 3
    assert "causeway[documents]" in refused.err
    assert cli("desk", "confirm", deal["id"], "--out", str(tmp_path / "d.txt")).code == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("affirm", "{id}"), 2),
        (("affirm", "{id}", "--signature", "zz"), 2),
        (("affirm", "{id}", "--signature", "00" * 64), 1),
        (("dispute", "{id}", "--reason", " "), 2),
        (("enrol-confirmation-key", "acme", "x", "zz"), 2),
    ],
)
def test_what_is_no_proof_is_refused(
    cli: Cli,
    as_: As,
    second: As,
    book: Callable[..., dict[str, Any]],
    words: tuple[str, ...],
    code: int,
) -> None:
    item = cli("desk", "confirm", book("d-1")["id"], "--json").json
    given = [word.format(id=item["id"]) for word in words]
    people = (*as_("ada"), *(second("ben") if words[0].startswith("enrol") else ()))

    assert cli("desk", *given, *people).code == code
    (waiting,) = cli("desk", "confirmations", "--unaffirmed", "--json").json
    assert waiting["state"] == "issued"


def test_a_key_is_listed_and_put_out_of_force(
    cli: Cli, as_: As, second: As, house: AsyncEngine
) -> None:
    enrol = ("desk", "enrol-confirmation-key", "acme", "back-office", CLIENT.public.hex())
    cli(*enrol, *as_("ada"), *second("ben"))

    gone = cli(
        *("desk", "revoke-confirmation-key", "acme", "1", "--reason", "lost", *as_("dan")),
        "--json",
    )

    assert gone.json["revoked_by"] == "dan"
    (listed,) = cli("desk", "confirmation-keys", "--party", "acme", "--json").json
    assert listed == gone.json


@pytest.mark.parametrize("what", ["nonsense", "0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80", "otc/ETH"])
def test_what_the_desk_does_not_have_is_refused(cli: Cli, house: AsyncEngine, what: str) -> None:
    answer = cli("desk", "explain", what)

    assert answer.code == (2 if what == "nonsense" else 1)
    assert answer.out == ""


def test_a_reference_that_is_used_and_a_deal_that_is_over_are_refused_in_plain_words(
    cli: Cli, as_: As, book: Callable[..., dict[str, Any]]
) -> None:
    deal = book("d-1")
    other = ("--sell", "3 ETH", "--price", "3000 USDT", "--fee", "5 USDT", "--ref", "d-1")
    used = cli("desk", "deal", "acme", *other, *as_("dan"))
    cancel = ("desk", "cancel", deal["id"], "--reason", "x", *as_("dan"))
    assert cli(*cancel).code == 0
    change = ("--ref", "d-2", "--amount", "3 ETH", "--reason", "x")
    amended = cli("desk", "amend", deal["id"], *change, *as_("dan"))

    assert used.code == amended.code == 1
    assert "with another amount. Use a new client reference" in used.err
    assert f"deal d-1 is cancelled. `causeway desk explain {deal['id']}`" in amended.err


@pytest.mark.usefixtures("house")
def test_what_is_not_on_record_is_refused_with_a_way_to_look_for_it(cli: Cli, as_: As) -> None:
    unknown = "0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80"
    asked = {
        ("confirm", unknown): "desk blotter",
        ("dispute", unknown, "--reason", "x", *as_("dan")): "desk confirmations",
        ("accept", unknown, "--side", "sell", "--ref", "a", *as_("dan")): "desk quotes",
        ("explain", "otc/ETH"): "venues line open",
        ("revoke-confirmation-key", "acme", "1", "--reason", "x", *as_("dan")): "confirmation-keys",
    }

    for words, where in asked.items():
        answer = cli("desk", *words)
        assert answer.code == 1, answer.err
        assert where in answer.err
