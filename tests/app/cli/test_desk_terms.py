"""Terms and standing instructions through the command line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest

from app.cli.common import Money
from app.cli.desk_terms import (
    parse_last_look,
    parse_share,
    parse_spread,
    share_text,
    spread_text,
    value_date_facts,
)
from kernel.clock import SystemClock
from kernel.errors import BadInput
from kernel.money import Asset
from registry.calendars import CALENDARS_VERSION
from tests.app.cli.conftest import Cli
from trading.terms.model import DEFAULT_TERMS, SettlementQuestion

PAYEE = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
ELSEWHERE = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
As = Callable[[str], tuple[str, ...]]
MONEY = Money({"BTC": Asset("BTC", 8), "USDT": Asset("USDT", 6)})


@pytest.mark.usefixtures("house")
def test_a_party_is_given_terms_by_two_people(cli: Cli, as_: As, keys: dict[str, Path]) -> None:
    two = (*as_("dan"), "--approver", "ada", "--approver-key", str(keys["ada"]))
    given = ("desk", "terms", "set", "acme", "--tenor", "1", "--fee", "2.5bp")
    spreads = ("--spread", "*/*=10bp", "--spread", "ETH/USDT@10=5bp")

    assert cli("desk", "terms", "show", "acme", "--json").json["version"] == "0"
    rehearsed = cli(*given, *spreads, *two, "--dry-run", "--json")
    assert rehearsed.json["dry_run"] is True
    assert cli("desk", "terms", "list", "--json").json == []
    done = cli(*given, *spreads, *two, "--json")
    assert done.code == 0, done.err
    assert done.json["version"] == "1"
    assert cli(*given, *spreads, *two, "--json").json["version"] == "1"

    # What is not named stays.
    later = (SystemClock().now() + timedelta(days=9)).date().isoformat()
    look = ("--last-look", "300ms:5bp", "--effective-from", later)
    assert cli("desk", "terms", "set", "acme", *look, *two, "--json").json["fee"] == "2.5bp"
    now = cli("desk", "terms", "show", "acme", "--json").json
    assert (now["version"], now["tenor"], now["last_look"]) == ("1", "T+1", "none")
    assert now["spreads"] == "*/*=10bp ETH/USDT@10=5bp"
    then = cli("desk", "terms", "show", "acme", "--on", later, "--json").json
    assert (then["version"], then["last_look"]) == ("2", "300ms:5bp")
    listed = cli("desk", "terms", "list", "--party", "acme", "--json").json
    assert [item["state"] for item in listed] == ["holds", "to come"]
    assert "ETH/USDT@10=5bp" in cli("desk", "terms", "list").out


@pytest.mark.usefixtures("house")
def test_a_change_of_where_a_party_is_paid_waits_for_a_call_back(
    cli: Cli, as_: As, keys: dict[str, Path]
) -> None:
    two = (*as_("ada"), "--approver", "ben", "--approver-key", str(keys["ben"]), "--json")
    first = cli("settle", "instruct", "acme", "ETH", PAYEE, *two)
    assert first.code == 0, first.err
    assert (first.json["version"], first.json["state"]) == ("1", "in_force")

    change = cli("settle", "instruct", "acme", "ETH", ELSEWHERE, *two).json
    assert (change["state"], change["call_back"]) == ("awaiting_call_back", "needed")
    soon = (SystemClock().now() + timedelta(days=1)).date().isoformat()
    third = ("settle", "instruct", "acme", "ETH", PAYEE, "--effective-from", soon)
    early = cli(*third, *two)
    assert early.code == 1
    assert "first day possible" in early.err

    said = ("settle", "call-back", "acme", "ETH", "2", "--ref", "calls/17")
    assert cli(*said, "--confirmed", *as_("ada")).code == 1
    done = cli(*said, "--confirmed", *as_("dan"), "--json").json
    assert (done["state"], done["call_back"]) == ("cooling_off", "confirmed to dan (calls/17)")
    listed = cli("settle", "instructions", "acme", "--json").json
    assert [item["state"] for item in listed] == ["in_force", "cooling_off"]


@pytest.mark.usefixtures("house")
def test_when_a_deal_settles_is_told_with_the_calendars_it_goes_by(cli: Cli) -> None:
    asked = ("desk", "terms", "value-date", "acme", "ETH/USDT", "--json")
    found = cli(*asked, "--trade-date", "2026-11-21")

    assert found.code == 0, found.err
    assert found.json == {
        "pair": "ETH/USDT",
        "trade_date": "2026-11-21",
        "tenor": "T+0",
        "terms": "0",
        "value_date": "2026-11-21",
        "calendars": f"{CALENDARS_VERSION}:always",
        "cutoff": "none",
    }
    assert cli("desk", "terms", "value-date", "acme", "ETH").code != 0
    assert cli("desk", "terms", "value-date", "nobody", "ETH/USDT").code == 1


def test_the_cutoff_that_is_told_is_the_first_of_both_assets() -> None:
    day = date(2026, 11, 20)
    asked = SettlementQuestion(
        party="acme",
        base=Asset("EUR", 2),
        quote=Asset("USD", 2),
        trade_date=day,
        value_date=None,
        terms=DEFAULT_TERMS,
    )

    told = value_date_facts(asked, day)

    assert told["cutoff"].startswith("2026-11-20T16:00:00")
    assert told["calendars"] == f"{CALENDARS_VERSION}:fedwire+target"


@pytest.mark.parametrize(
    ("text", "ppm", "again"),
    [
        ("8bp", 800, "8bp"),
        ("0.25bp", 25, "0.25bp"),
        ("2.5 bp", 250, "2.5bp"),
        ("800ppm", 800, "8bp"),
        ("10.50bp", 1_050, "10.5bp"),
        ("0bp", 0, "0bp"),
        ("100bp", 10_000, "100bp"),
        ("0.01bp", 1, "0.01bp"),
    ],
)
def test_a_share_is_read_and_printed_exactly(text: str, ppm: int, again: str) -> None:
    assert parse_share(text) == ppm
    assert share_text(ppm) == again


def test_every_share_is_read_as_it_is_printed() -> None:
    shares = range(0, 300_000, 7)

    assert [parse_share(share_text(ppm)) for ppm in shares] == list(shares)


@pytest.mark.parametrize("text", ["8", "8%", "-8bp", "0.255bp", "8.bp", ".5bp", "", "8bpppm"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_share(text)


@pytest.mark.parametrize(
    ("text", "from_units"),
    [
        ("*/*=10bp", 0),
        ("BTC/*=8bp", 0),
        ("*/USDT=9bp", 0),
        ("BTC/USDT=8bp", 0),
        ("BTC/USDT@10=5bp", 10 * 10**8),
        ("BTC/USDT@0.00000001=5bp", 1),
    ],
)
def test_a_spread_is_read_and_printed_alike(text: str, from_units: int) -> None:
    rule = parse_spread(text, MONEY)

    assert rule.from_units == from_units
    assert spread_text(rule, MONEY) == text


@pytest.mark.parametrize(
    "text", ["BTC=8bp", "BTC/USDT", "btc/usdt=8bp", "*/*@10=8bp", "BTC/USDT@0.000000001=8bp"]
)
def test_what_is_no_spread_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_spread(text, MONEY)


@pytest.mark.parametrize("text", ["300", "300ms", "5bp", "0ms:5bp", "90000ms:5bp"])
def test_what_is_no_last_look_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_last_look(text)
